"""What the network trains on: labels, codes and weights, of the whole and in boxes, with corrections and pseudo-labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparseseg.annotation.border import add_border_weight
from sparseseg.annotation.hinted import HintLabels
from sparseseg.annotation.labels import HINT, build_annotation
from sparseseg.annotation.revision import revise
from sparseseg.contract import scratch
from sparseseg.contract.belief import Belief
from sparseseg.contract.box import whole
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints, Point, Roi, SegmentHints
from sparseseg.contract.settings import Settings
from sparseseg.network.targets import Targets

CPU = torch.device("cpu")
TWO = ClassTable.numbered(2)
SETTINGS = Settings(class_balance=0.5, correction_weight=3, pseudo_label_weight=0.2)
SHAPE = (5, 6, 7)


def scribbled(shape=SHAPE, seed=0, share=0.4):
    """An annotation map with every class, and what is believed everywhere."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(shape) < share, rng.integers(1, 4, shape), 0).astype(np.uint8)
    values[0, 0, :3] = 1, 2, 3
    return values, Belief(rng.integers(0, 3, shape, np.uint8), rng.integers(0, 256, shape, np.uint8))


def corrected(values, seed=1):
    """The annotation after strokes against an empty preview, some of them corrections."""
    earlier = build_annotation(values, TWO, SETTINGS)
    more = values.copy()
    more[tuple(np.random.default_rng(seed).integers(0, SHAPE, (6, 3)).T)] = 3
    return build_annotation(more, TWO, SETTINGS, earlier=earlier, preview=np.zeros(SHAPE, np.uint8))


def all_weights(targets):
    return targets.at(torch.arange(targets.labels.numel()).view(targets.labels.shape))[1].cpu().numpy()


def same(one, other):
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.table, other.table)
    assert np.array_equal(all_weights(one), all_weights(other))


def test_the_users_labels_weigh_as_the_annotation_says():
    values, belief = scribbled()
    annotation = corrected(values)
    assert annotation.corrections
    targets = Targets(annotation, belief, SETTINGS, CPU)
    known = annotation.labelled
    assert (targets.labels.numpy()[known] == annotation.labels[known]).all()
    assert (all_weights(targets)[known] == annotation.weights[known]).all()


def test_elsewhere_the_belief_weighs_by_its_confidence():
    values = np.zeros((1, 2, 5), np.uint8)
    values[0, 0] = 1, 2, 3, 1, 1
    belief = Belief(np.array([[[0] * 5, [1, 2, 0, 1, 2]]], np.uint8), np.array([[[0] * 5, [0, 127, 128, 204, 255]]], np.uint8))
    targets = Targets(build_annotation(values, TWO, SETTINGS), belief, SETTINGS, CPU)
    assert targets.labels[0, 1].tolist() == [1, 2, 0, 1, 2]
    by_hand = [0, 0, (1 / 255) ** 2, 0.6**2, (2 * 248 / 255 - 1) ** 2]  # from 249 on are codes of labels, so 248 is the most
    np.testing.assert_allclose(all_weights(targets)[0, 1], 0.2 * np.array(by_hand), rtol=1e-5, atol=1e-9)


def test_labels_in_doubt_weigh_as_they_are_trusted():
    """In four levels of trust; corrections and hints weigh what they weigh."""
    values, belief = scribbled()
    annotation = corrected(values)
    trust = np.random.default_rng(2).integers(0, 255, SHAPE, np.uint8)
    trust[::2] = 255
    targets = Targets(annotation, belief, SETTINGS, CPU, trust=trust)
    factor = np.where((annotation.origin == 1) & (trust < 255), (trust.astype(int) * 4 // 255 + 0.5) / 4, 1)
    known = annotation.labelled
    np.testing.assert_allclose(all_weights(targets)[known], (annotation.weights * factor)[known], rtol=1e-6)
    assert (targets.labels.numpy()[known] == annotation.labels[known]).all()
    part = Targets(annotation, belief, SETTINGS, CPU)
    part.put(whole(SHAPE), annotation, belief, trust=trust)
    same(part, targets)


def test_a_correction_weighs_more_than_a_stroke():
    values, belief = scribbled()
    annotation = corrected(values)
    targets = Targets(annotation, belief, SETTINGS, CPU)
    more, less = annotation.origin == 3, (annotation.origin == 1) & (annotation.labels == 2)
    weights = all_weights(targets)
    assert weights[more] == pytest.approx(3 * weights[less][0])


def hinted():
    """Hints on the same grid: a region for each segment, and points."""
    segments = (SegmentHints(Roi((4, 3, 2), (3, 3, 3)), (Point((4, 3, 2), 1.0),)), SegmentHints(Roi((2, 2, 2), (3, 3, 3)), (Point((1, 2, 2), 0.0),)))
    return HintLabels(Hints(segments), Geometry.from_axes(SHAPE, (1, 1, 1)))


def test_what_hints_label_weighs_as_the_annotation_says_and_beliefs_are_no_labels():
    values, belief = scribbled(share=0.1)
    annotation = build_annotation(values, TWO, SETTINGS, hints=hinted())
    targets = Targets(annotation, belief, SETTINGS, CPU)
    known = annotation.labelled
    assert (annotation.origin == HINT).any()
    assert (targets.labels.numpy()[known] == annotation.labels[known]).all()
    assert (all_weights(targets)[known] == annotation.weights[known]).all()
    certain = np.maximum(np.minimum(belief.confidence, 248) / 127.5 - 1, 0) ** 2
    np.testing.assert_allclose(all_weights(targets)[~known], 0.2 * certain[~known], rtol=1e-5, atol=1e-9)


def nothing():
    return Belief(np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8))


def test_hints_alone_are_learned_from():
    annotation = build_annotation(np.zeros(SHAPE, np.uint8), TWO, SETTINGS, hints=hinted())
    sampler = Targets(annotation, nothing(), SETTINGS, CPU).sampler
    assert sampler.slices
    held = np.zeros(SHAPE, bool)
    for axis, index in sampler.slices:
        np.moveaxis(held, axis, 0)[index] = True
    assert held[annotation.labelled].all()


def test_beside_paint_what_hints_label_makes_no_slices():
    """Their walls lie on slices of all orientations, and would be learned as slices of nothing but background."""
    values = np.zeros(SHAPE, np.uint8)
    values[3, :4, :4] = 2
    values[3, 4, :4] = 1
    values[1, 1:3, 1:3] = 3
    annotation = build_annotation(values, TWO, SETTINGS, hints=hinted())
    assert (annotation.labelled & (values == 0)).any()
    targets = Targets(annotation, nothing(), SETTINGS, CPU)
    assert targets.sampler.slices == [(0, 1), (0, 3)]


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, ignore_weights=True)])
def test_boxes_in_turn_equal_the_whole(settings):
    values, belief = scribbled()
    annotation = build_annotation(values, TWO, settings)
    targets = Targets(annotation, belief, settings, CPU)
    rng = np.random.default_rng(3)
    label, confidence = belief.label.copy(), belief.confidence.copy()
    for _ in range(12):
        first = rng.integers(0, SHAPE)
        box = tuple(slice(int(a), int(rng.integers(a + 1, n + 1))) for a, n in zip(first, SHAPE, strict=True))
        strokes = rng.integers(0, 4, [s.stop - s.start for s in box]).astype(np.uint8)
        values[box] = np.where(np.arange(strokes.shape[2]) % 2 == 0, strokes, values[box])
        values[0, 0, :3] = 1, 2, 3
        annotation = revise(annotation, values[box], box, TWO, settings, (), np.zeros(SHAPE, np.uint8)).annotation
        label[box] = rng.integers(0, 3, strokes.shape)
        confidence[box] = rng.integers(0, 256, strokes.shape)
        belief = Belief(label, confidence)
        targets.put(box, annotation, belief)
        same(targets, Targets(annotation, belief, settings, CPU))


def test_a_box_changes_nothing_outside_of_it_but_the_classes_weights():
    values, belief = scribbled()
    targets = Targets(build_annotation(values, TWO, SETTINGS), belief, SETTINGS, CPU)
    labels, codes = targets.labels.clone(), targets.codes.clone()
    other = build_annotation(np.where(values == 0, 3, values).astype(np.uint8), TWO, SETTINGS)
    targets.put((slice(1, 2), slice(2, 4), slice(0, 7)), other, belief)
    inside = np.zeros(SHAPE, bool)
    inside[1, 2:4] = True
    assert torch.equal(targets.labels[~torch.from_numpy(inside)], labels[~torch.from_numpy(inside)])
    assert torch.equal(targets.codes[~torch.from_numpy(inside)], codes[~torch.from_numpy(inside)])
    assert (targets.labels.numpy()[inside] == other.labels[inside]).all()


def test_the_border_adds_to_the_users_labels_only():
    values, belief = scribbled()
    annotation = add_border_weight(build_annotation(values, TWO, SETTINGS), (1, 1, 1), 5, 2)
    plain = Targets(build_annotation(values, TWO, SETTINGS), belief, SETTINGS, CPU)
    targets, known = Targets(annotation, belief, SETTINGS, CPU), annotation.labelled
    weights = all_weights(targets)
    np.testing.assert_allclose(weights[known], annotation.weights[known], rtol=2e-3)  # float16 holds three digits
    elsewhere = ~annotation.labelled
    assert (weights[elsewhere] == all_weights(plain)[elsewhere]).all()


def test_ignored_weights_make_everything_background_of_weight_one():
    values, belief = scribbled()
    settings = replace(SETTINGS, ignore_weights=True)
    annotation = build_annotation(values, TWO, settings)
    targets = Targets(annotation, belief, settings, CPU)
    assert (all_weights(targets) == 1).all()
    assert (targets.labels.numpy()[~annotation.labelled] == 0).all()
    assert (targets.labels.numpy()[annotation.labelled] == annotation.labels[annotation.labelled]).all()


def test_moved_to_another_device():
    values, belief = scribbled()
    annotation = add_border_weight(corrected(values), (1, 1, 1), 5, 2)
    targets = Targets(annotation, belief, SETTINGS, CPU)
    same(targets.on(CPU), targets)
    moved = targets.on(torch.device("meta"))
    assert {t.device.type for t in (moved.labels, moved.codes, moved.table, moved.extra)} == {"meta"}
    assert targets.labels.device.type == "cpu"  # the first one stays where it was


def test_what_was_moved_is_still_kept_up_to_date():
    values, belief = scribbled()
    moved = Targets(build_annotation(values, TWO, SETTINGS), belief, SETTINGS, CPU).on(CPU)
    values[2] = 2
    annotation = build_annotation(values, TWO, SETTINGS)
    moved.put(whole(SHAPE), annotation, belief)
    same(moved, Targets(annotation, belief, SETTINGS, CPU))


# ---------------------------------------------------------------- slices to learn from


def slices_painted(*indices):
    """Axial slices with all classes."""
    values = np.zeros(SHAPE, np.uint8)
    for index in indices:
        values[index, 1:5, 1:4] = 1, 2, 3
    return values


def annotated(values):
    return build_annotation(values, TWO, SETTINGS)


def drawn(targets, count):
    rng = np.random.default_rng(0)
    return [targets.sampler.draw(rng) for _ in range(count)]


def test_slices_are_those_that_were_painted_on():
    annotation = annotated(slices_painted(0, 2, 4))
    assert Targets(annotation, nothing(), SETTINGS, CPU).sampler.slices == [(0, 0), (0, 2), (0, 4)]


def test_slices_are_counted_in_the_volume_and_only_where_the_network_works():
    within = (slice(1, 4), slice(1, 6), slice(1, 7))
    assert Targets(annotated(slices_painted(0, 2, 3)), nothing(), SETTINGS, CPU, within=within).sampler.slices == [(0, 2), (0, 3)]


def test_labels_and_weights_reach_beyond_where_the_network_works():
    values, belief = scribbled()
    one, other = (Targets(annotated(values), belief, SETTINGS, CPU, within=within) for within in (None, (slice(1, 4),) * 3))
    same(one, other)


def test_a_correction_changes_the_slices_and_comes_first():
    targets = Targets(annotated(slices_painted(0, 2)), nothing(), SETTINGS, CPU)
    box = (slice(4, 5), slice(1, 5), slice(1, 4))
    annotation = annotated(slices_painted(0, 2, 4))
    targets.change([box], annotation, nothing())
    assert targets.sampler.slices == [(0, 0), (0, 2), (0, 4)]
    assert drawn(targets, 60).count((0, 4)) > 30  # two of three are expected
    same(targets, Targets(annotation, nothing(), SETTINGS, CPU))


def test_another_belief_does_not_make_a_correction_old():
    targets = Targets(annotated(slices_painted(0, 2)), nothing(), SETTINGS, CPU)
    annotation, belief = annotated(slices_painted(0, 2, 4)), scribbled()[1]
    targets.change([(slice(4, 5), slice(1, 5), slice(1, 4))], annotation, nothing())
    targets.put(whole(SHAPE), annotation, belief)  # what the refiner makes of it
    assert drawn(targets, 60).count((0, 4)) > 30
    same(targets, Targets(annotation, belief, SETTINGS, CPU))


def test_erased_slices_are_learned_from_no_longer():
    targets = Targets(annotated(slices_painted(0, 2, 4)), nothing(), SETTINGS, CPU)
    targets.change([(slice(2, 3), slice(0, 6), slice(0, 7))], annotated(slices_painted(0, 4)), nothing())
    assert set(drawn(targets, 100)) == {(0, 0), (0, 4)}


# ---------------------------------------------------------------- huge volumes


def on_slices(targets):
    """What there is on each slice that is drawn: labels and weights."""
    index = torch.arange(np.prod(SHAPE)).view(SHAPE)
    return {at: [part.numpy() for part in targets.at(index.select(*at))] for at in targets.sampler.slices}


def assert_alike(huge, plain):
    one, other = on_slices(huge), on_slices(plain)
    assert one.keys() == other.keys() and len(one) > 2
    for at, parts in one.items():
        for mine, theirs in zip(parts, other[at], strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("border", [False, True])
def test_of_a_huge_volume_only_what_is_learned_from_is_kept_and_is_the_same(monkeypatch, border):
    values, belief = scribbled(share=0.2)
    trust = np.random.default_rng(1).integers(200, 256, SHAPE, np.uint8)

    def made(values):
        annotation = annotated(values)
        return add_border_weight(annotation, (1, 1, 1), 5, 1) if border else annotation

    plain = Targets(made(values), belief, SETTINGS, CPU, trust=trust)
    monkeypatch.setattr(scratch, "HUGE_VOXELS", 1)
    huge = Targets(made(values), belief, SETTINGS, CPU, trust=trust, slices=1)
    assert not hasattr(huge, "labels")
    assert_alike(huge, plain)
    moved = huge.on(CPU)
    other = Belief(2 - belief.label, 255 - belief.confidence)
    for targets in (huge, plain):
        targets.put((slice(1, 4), slice(2, 5), slice(0, 6)), made(values), other, trust=trust)
    assert_alike(huge, plain)
    moved.put(whole(SHAPE), made(values), other)
    monkeypatch.undo()
    assert_alike(moved, Targets(made(values), other, SETTINGS, CPU))


def test_a_correction_of_a_huge_volume_adds_its_slices(monkeypatch):
    annotation = annotated(slices_painted(0, 2, 4))
    plain = Targets(annotation, nothing(), SETTINGS, CPU)
    monkeypatch.setattr(scratch, "HUGE_VOXELS", 1)
    huge = Targets(annotated(slices_painted(0, 2)), nothing(), SETTINGS, CPU, slices=1)
    huge.change([(slice(4, 5), slice(1, 5), slice(1, 4))], annotation, nothing())
    assert huge.sampler.slices == [(0, 0), (0, 2), (0, 4)]
    assert drawn(huge, 60).count((0, 4)) > 30
    assert_alike(huge, plain)
