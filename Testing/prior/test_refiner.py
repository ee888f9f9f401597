"""The refiner's voice: what it is told, that it starts from growing, that labels stand; and that an update finds what a full run finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phantoms import Phantom, two_organs
from sparseseg.contract import scratch
from sparseseg.contract.box import union, whole
from sparseseg.prior import compiled, refiner, refiner_network, refiner_view
from sparseseg.prior.grown import compute_prior
from sparseseg.prior.pooling import pool_gray
from sparseseg.prior.refiner import Refined, find_extents
from sparseseg.prior.refiner_network import BELIEF, BETWEEN, CHANNELS, FAR, WEIGHTS, Refiner, cautious, load_refiner, plan_pools
from sparseseg.prior.refiner_view import look
from sparseseg.prior.volumes import Volumes
from sparseseg.quality.estimate import dice
from sparseseg.session.judge import choose_use

CPU = torch.device("cpu")


class Case:
    """Arrays that a test may change."""

    def __init__(self, phantom: Phantom, grown) -> None:
        self.image, self.truth, self.spacing = phantom.image, phantom.truth, phantom.geometry.spacing_kji_mm
        self.labelled = phantom.annotation > 0
        self.labels = np.where(self.labelled, phantom.annotation - 1, 0).astype(np.uint8)
        self.label, self.confidence = grown.label.copy(), grown.confidence.copy()

    def start(self, **more) -> Refined:
        return Refined.start(self.label, self.confidence, self.image, self.labels, self.labelled, self.spacing, **more)

    def volumes(self) -> Volumes:
        return Volumes(self.label, self.confidence, self.image, self.labels, self.labelled, self.spacing)

    def paint(self, box, value: int) -> None:
        """A stroke, and growing that takes it in around."""
        around = tuple(slice(max(0, s.start - 2), s.stop + 2) for s in box)
        free = ~self.labelled[around]
        self.label[around][free], self.confidence[around][free] = value, 220
        self.labels[box], self.labelled[box], self.label[box], self.confidence[box] = value, True, value, 255

    def box(self, box):
        return tuple(slice(max(0, s.start - 2), min(n, s.stop + 2)) for s, n in zip(box, self.label.shape, strict=True))


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return two_organs()


@pytest.fixture(scope="module")
def grown(phantom: Phantom):
    labelled = phantom.annotation > 0
    labels = np.where(labelled, phantom.annotation - 1, 0).astype(np.uint8)
    return compute_prior(phantom.image, labels, labelled, phantom.geometry.spacing_kji_mm)


@pytest.fixture
def case(phantom: Phantom, grown) -> Case:
    return Case(phantom, grown)


@pytest.fixture(params=["own grid", "coarser grid"])
def grid(request, monkeypatch) -> str:
    if request.param == "coarser grid":
        monkeypatch.setattr(refiner_view, "WORKING_VOXELS", 3000)
        monkeypatch.setattr(refiner_view, "_HELD_BY_GRID", 0)
    return request.param


def around(truth: np.ndarray, value: int):
    """A spot just outside of a segment, on a slice in its middle."""
    k = int(np.median(np.flatnonzero((truth == value).any((1, 2))))) + 1
    j, i = np.nonzero(truth[k] == value)
    low, middle = int(i.min()), int(np.median(j[i == i.min()]))
    return (slice(k, k + 1), slice(max(0, middle - 2), middle + 3), slice(max(0, low - 3), low - 1))


# -- the network and what it sees ----------------------------------------------------------------------------------------


def test_thick_slices_are_pooled_once_the_other_axes_have_caught_up():
    assert plan_pools((5, 1, 1), (16, 64, 64)) == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert plan_pools((1, 1, 1), (64, 64, 6)) == [(2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1)]
    assert plan_pools((1, 1, 1), (4, 4, 4)) == []


def test_what_speaks_against_counts_less_far_between_complete_slices():
    features = torch.zeros(CHANNELS, 1, 1, 3)
    features[FAR, 0, 0] = torch.tensor([0.5, 0.5, 0.1])
    features[BETWEEN, 0, 0] = torch.tensor([0.0, 1.0, -1.0])
    added = torch.tensor([[[-4.0, -4.0, -4.0]]])
    np.testing.assert_allclose(cautious(added, features).flatten().numpy(), [-3, -1, -3], atol=1e-6)
    np.testing.assert_allclose(cautious(-added, features).flatten().numpy(), [4, 4, 4])


def test_on_a_much_coarser_grid_it_counts_less_far_from_all_labels():
    features = torch.zeros(CHANNELS, 1, 1, 3)
    features[FAR, 0, 0] = torch.tensor([0.0, 0.5, 0.5])
    features[BETWEEN, 0, 0] = torch.tensor([0.0, 0.0, 1.0])
    added = torch.tensor([[[-4.0, -4.0, -4.0]]])
    np.testing.assert_allclose(cautious(added, features, is_coarse=True).flatten().numpy(), [-3, -2, -1], atol=1e-6)
    np.testing.assert_allclose(cautious(-added, features, is_coarse=True).flatten().numpy(), [4, 4, 4])


def test_the_weights_are_small_and_those_of_the_network():
    assert WEIGHTS.stat().st_size < 10_000_000
    assert sum(p.numel() for p in load_refiner(CPU).parameters()) == sum(p.numel() for p in Refiner().parameters())


def test_features_know_the_segment_by_its_gray_value(case):
    view = look(case.volumes(), 1, find_extents(case.volumes(), (slice(0, 24), slice(0, 99), slice(0, 99)), lambda: None)[1])
    features = view.features((slice(None),) * 3)
    assert features.shape == (CHANNELS, *view.shape) and torch.isfinite(features).all()
    inside = torch.from_numpy(case.truth[view.box] == 1)
    assert features[1][inside].mean() > 0.5 > -0.5 > features[1][~inside].mean()


def test_the_belief_is_positive_where_the_label_is():
    label, confidence = np.array([[[0, 1, 2]]], np.uint8), np.array([[[255, 0, 128]]], np.uint8)
    volumes = Volumes(label, confidence, label, label, label > 9, (1, 1, 1))
    view = look(volumes, 1, (slice(0, 1), slice(0, 1), slice(1, 2)))
    np.testing.assert_allclose(view.features((slice(None),) * 3)[BELIEF].numpy(), [[[-1.5, 0.2, -0.8525]]], atol=1e-3)


def test_not_a_number_in_the_image_stays_out_of_the_result(case):
    case.image = case.image.astype(np.float32)
    case.image[5, 5, 5] = np.nan
    for view in case.start().views.values():
        assert torch.isfinite(view.gray).all() and view.added is not None and torch.isfinite(view.added).all()


def test_extents_hold_what_is_believed_and_what_is_annotated(monkeypatch):
    label, labels, labelled = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), bool)
    label[1, 2, 3:5] = 7
    labels[3, 4, 0], labelled[3, 4, 0] = 7, True
    labels[0, 0, 0] = 9  # not annotated: means nothing
    volumes = Volumes(label, label, label, labels, labelled, (1, 1, 1))
    whole = (slice(0, 4), slice(0, 5), slice(0, 6))
    expected = {7: (slice(1, 4), slice(2, 5), slice(0, 5))}
    assert find_extents(volumes, whole, lambda: None) == expected
    assert find_extents(volumes, (slice(1, 2), slice(1, 4), slice(0, 6)), lambda: None) == {7: (slice(1, 2), slice(2, 3), slice(3, 5))}
    monkeypatch.setattr(compiled, "loops", lambda: None)
    assert find_extents(volumes, whole, lambda: None) == expected


# -- the whole answer ----------------------------------------------------------------------------------------------------


def test_a_network_without_training_gives_growing_again(case, grid):
    refined = case.start(network=Refiner().eval())
    np.testing.assert_array_equal(refined.label, case.label)


def test_labels_stand_and_are_certain(case):
    case.labels[12, 20, 18] = 2 - case.labels[12, 20, 18]
    refined = case.start()
    np.testing.assert_array_equal(refined.label[case.labelled], case.labels[case.labelled])
    certain = case.labelled & (case.confidence == 255)
    assert certain.any() and (case.labelled & ~certain).any()
    np.testing.assert_array_equal(refined.confidence == 255, certain)


@pytest.mark.parametrize("numba", [True, False])
def test_labels_in_doubt_give_way_only_where_smoothing_is_asked_for(case, numba, monkeypatch):
    """A label that growing and the image contradict, at the rim of a slice's structure."""
    if not numba:
        monkeypatch.setattr("sparseseg.prior.compiled._kernels", None)
    doubted = case.labelled & (case.confidence < 255)
    case.labels[doubted] = 2 - case.labels[doubted]
    plain, smooth = case.start(), case.start(smooth=True)
    certain = case.labelled & ~doubted
    np.testing.assert_array_equal(plain.label[case.labelled], case.labels[case.labelled])
    np.testing.assert_array_equal(smooth.label[certain], case.labels[certain])
    overruled = doubted & (smooth.label != case.labels)
    assert overruled.any()
    assert (plain.confidence[overruled] == 255 - smooth.confidence[overruled]).all()
    agreed = doubted & ~overruled
    np.testing.assert_array_equal(plain.confidence[agreed], smooth.confidence[agreed])


def test_uncorrected_segments_are_those_of_growing(case):
    np.testing.assert_array_equal(case.start(use=[False, False]).label, case.label)


def test_which_segments_are_corrected_may_change_later(case):
    refined, all_corrected = case.start(), case.start().label
    assert refined.set_use([True, True]) is None
    refined.set_use([False, True])
    np.testing.assert_array_equal(refined.label, case.start(use=[False, True]).label)
    refined.set_use([True, True])
    np.testing.assert_array_equal(refined.label, all_corrected)


def test_the_weights_do_not_harm_an_easy_case(case):
    refined, unseen = case.start(), ~case.labelled
    for c in (1, 2):
        assert dice(refined.label[unseen], case.truth[unseen], c) > dice(case.label[unseen], case.truth[unseen], c) - 0.01


def test_without_any_segment_there_is_nothing_to_correct():
    nothing, image = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.float32)
    refined = Refined.start(nothing, np.full(nothing.shape, 100, np.uint8), image, nothing, nothing > 0, (1, 1, 1))
    assert not refined.label.any() and (refined.confidence == 100).all()


@pytest.mark.parametrize("calls", [1, 3, 10])
def test_a_tick_ends_the_work(case, calls):
    left = [calls]

    def stop() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        case.start(tick=stop)


def test_without_numba_the_answer_is_the_same(case, grid, monkeypatch):
    pytest.importorskip("numba")
    compiled_answer = case.start()
    monkeypatch.setattr(compiled, "loops", lambda: None)
    answer = case.start()
    np.testing.assert_array_equal(answer.label, compiled_answer.label)
    assert np.abs(answer.confidence.astype(int) - compiled_answer.confidence).max() <= 1
    spot = around(case.truth, 1)
    case.paint(spot, 1)
    boxes = []
    for voice, loops in ((compiled_answer, monkeypatch.undo), (answer, lambda: monkeypatch.setattr(compiled, "loops", lambda: None))):
        loops()
        boxes.append(voice.update(case.box(spot)))
    np.testing.assert_array_equal(answer.label, compiled_answer.label)


# -- updates -------------------------------------------------------------------------------------------------------------


def after_a_stroke(case: Case) -> tuple[Refined, np.ndarray]:
    """The voice after an update, and its labels before."""
    refined = case.start()
    before, spot = refined.label.copy(), around(case.truth, 1)
    case.paint(spot, 1)
    assert refined.update(case.box(spot)) is not None
    return refined, before


def test_an_update_finds_what_a_full_look_with_the_same_statistics_finds(case, grid, phantom, grown, monkeypatch):
    """Bound: that the network is asked and shown only what lies around changes less than a fiftieth of what the stroke changes."""
    refined, before = after_a_stroke(case)
    monkeypatch.setattr(refiner, "_REACH", 1000)
    full = after_a_stroke(Case(phantom, grown))[0]
    stroke = (full.label != before).sum()
    assert stroke > 8
    assert (refined.label != full.label).sum() <= max(2, 0.02 * stroke)


def test_an_update_finds_about_what_a_full_run_finds(case, grid):
    """Bound, with gray statistics frozen, on this phantom where the stroke is a large part of the annotation: half of what the stroke changes.
    On eight strokes on real cases Dice within 0.002."""
    refined, before = after_a_stroke(case)
    full = case.start()
    assert (refined.label != full.label).sum() <= 0.5 * (full.label != before).sum()


def test_with_the_same_statistics_an_update_is_exact_where_nothing_is_cut_off(case):
    """All of this small grid lies within the network's view, so only what is frozen may differ: nothing, as the image is flat."""
    case.image = np.zeros_like(case.image)
    refined = case.start()
    spot = around(case.truth, 1)
    case.paint(spot, 1)
    case.labelled[spot] = False  # growing changed, annotation did not
    refined.update((slice(0, case.label.shape[0]), slice(0, case.label.shape[1]), slice(0, case.label.shape[2])))
    renewed = case.start()
    assert (refined.label != renewed.label).mean() < 1e-3


def test_what_the_update_names_is_all_that_changed(case, grid):
    refined = case.start()
    label, confidence = refined.label.copy(), refined.confidence.copy()
    spot = around(case.truth, 1)
    case.paint(spot, 1)
    box = refined.update(case.box(spot))
    changed = (refined.label != label) | (refined.confidence != confidence)
    assert changed[box].any()
    changed[box] = False
    assert not changed.any()


def test_without_a_change_nothing_changes(case):
    refined = case.start()
    assert refined.update((slice(3, 9), slice(4, 20), slice(5, 22))) is None


def test_undo_brings_back_what_was(case, grid):
    refined = case.start()
    saved = [v.copy() for v in (refined.label, case.label, case.confidence, case.labels, case.labelled)]
    spot = around(case.truth, 1)
    case.paint(spot, 1)
    refined.update(case.box(spot))
    case.label[:], case.confidence[:], case.labels[:], case.labelled[:] = saved[1:]
    refined.update(case.box(spot))
    assert (refined.label != saved[0]).sum() <= 2


@pytest.mark.slow
@pytest.mark.parametrize("calls", [1, 2, 4, 100])
def test_after_a_tick_raised_the_next_update_makes_up_for_it(case, calls):
    refined = case.start()
    spot, left = around(case.truth, 1), [calls]

    def stop() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    untouched = case.start()
    case.paint(spot, 1)
    untouched.update(case.box(spot))
    try:
        refined.update(case.box(spot), tick=stop)
        assert calls == 100
    except KeyboardInterrupt:
        refined.update((slice(0, 1), slice(0, 1), slice(0, 1)))
    np.testing.assert_array_equal(refined.label, untouched.label)


def test_a_new_class_appears(case, grid):
    refined = case.start()
    spot = (slice(2, 5), slice(2, 6), slice(2, 7))
    case.paint(spot, 3)
    refined.update(case.box(spot))
    full = case.start()
    assert sorted(refined.views) == [1, 2, 3] and (refined.label[spot] == 3).all()
    assert (refined.label != full.label).mean() < 1e-3


def test_a_class_that_is_erased_leaves_nothing(case, grid):
    refined = case.start()
    case.labelled &= case.labels != 2
    gone = case.label == 2
    case.label[gone], case.confidence[gone] = 0, 200
    refined.update((slice(0, case.label.shape[0]), slice(0, case.label.shape[1]), slice(0, case.label.shape[2])))
    full = case.start()
    assert sorted(refined.views) == [1] == sorted(full.views)
    assert not (refined.label == 2).any()
    assert (refined.label != full.label).mean() < 2e-3


def test_a_segment_that_outgrows_its_view_gets_a_new_one(case, monkeypatch):
    monkeypatch.setattr(refiner_view, "_LEAST_MARGIN", 2)
    refined = case.start()
    k, j, i = case.label.shape
    spot = (slice(k - 2, k), slice(j - 3, j), slice(i - 3, i))
    assert refined.views[1].box[2].stop < i
    case.paint(spot, 1)
    refined.update(case.box(spot))
    assert refined.views[1].box == case.start().views[1].box
    assert (refined.label[spot] == 1).all()


def test_new_arrays_may_replace_the_annotation(case):
    refined = case.start()
    spot = around(case.truth, 1)
    labels, labelled = case.labels.copy(), case.labelled.copy()
    labels[spot], labelled[spot] = 2, True
    refined.update(spot, labels, labelled)
    assert (refined.label[spot] == 2).all() and (refined.confidence[spot] == 255).all()


@pytest.mark.parametrize("coarse", [False, True])
def test_on_a_coarser_grid_a_correction_must_prove_itself(case, coarse, monkeypatch):
    monkeypatch.setattr(refiner_view, "_HELD_BY_GRID", 0)
    if coarse:
        monkeypatch.setattr(refiner_view, "WORKING_VOXELS", 3000)
    held = np.zeros_like(case.labelled)
    held[12] = True
    case.labelled &= ~held
    case.labels[12] = case.truth[12]
    right, wrong = case.truth.astype(np.uint8), np.where(case.truth == 1, 0, case.truth).astype(np.uint8)
    for before, after, expected in ((right, wrong, [not coarse, True]), (wrong, right, [True, True])):
        case.label[:] = before
        refined = case.start()
        refined.label[:] = after
        assert choose_use(refined, held) == expected


@pytest.mark.parametrize("thick", [2, 20])
def test_what_a_coarser_grid_cannot_show_is_left_as_it_was(thick, monkeypatch):
    monkeypatch.setattr(refiner_view, "WORKING_VOXELS", 10_000)

    class Never(refiner_network.Refiner):
        def forward(self, x, pools, tick=lambda: None):
            return torch.full_like(x[:, 0], -12.0)

    k, j, _ = np.indices((32, 32, 32))
    label = (np.abs(k + j - 32) < thick).astype(np.uint8)  # an oblique layer
    labelled = np.zeros(label.shape, bool)
    labelled[16] = True
    labels, image = np.where(labelled, label, 0).astype(np.uint8), label.astype(np.float32)
    refined = Refined.start(label, np.full(label.shape, 200, np.uint8), image, labels, labelled, (1, 1, 1), network=Never())
    assert dice(refined.label[~labelled], label[~labelled], 1) == (1 if thick == 2 else 0)
    assert choose_use(refined, np.zeros_like(labelled)) == [thick == 20]


def test_a_last_slab_thinner_than_a_working_voxel_is_pooled(monkeypatch):
    """As in volumes of more voxels than a slab holds, whose slices are no multiple of the factor."""
    monkeypatch.setattr("sparseseg.prior.pooling._SLAB", 1)
    image = np.random.default_rng(0).normal(size=(18, 8, 8)).astype(np.float32)
    pooled = pool_gray(image, (slice(0, 18), slice(0, 8), slice(0, 8)), (8, 4, 4))
    assert pooled.shape == (3, 2, 2)
    torch.testing.assert_close(pooled[2, 0, 0], torch.tensor(image[16:, :4, :4].mean()))
    torch.testing.assert_close(pooled[0, 1, 1], torch.tensor(image[:8, 4:, 4:].mean()))


def test_of_a_huge_volume_nothing_is_kept_and_boxes_are_made_as_they_would_be(case, monkeypatch):
    plain = case.start()
    monkeypatch.setattr(scratch, "HUGE_VOXELS", 1)
    huge, everything = case.start(), whole(case.label.shape)
    box = around(case.truth, 1)
    for _ in range(2):
        for part in (everything, box, (slice(3, 9), slice(4, 30), slice(1, 20))):
            for mine, theirs in zip(huge.at(part), plain.at(part), strict=True):
                np.testing.assert_array_equal(mine, theirs)
        case.paint(box, 1)
        changed, small = huge.update(case.box(box)), plain.update(case.box(box))
        assert union(changed, small) == changed
    held = np.zeros(case.label.shape, bool)
    held[12] = True
    assert choose_use(huge, held) == choose_use(plain, held)
