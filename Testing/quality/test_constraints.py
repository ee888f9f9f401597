"""What hints demand of a result, on volumes small enough to see: what changes, what never does, and what is said."""

import numpy as np
import pytest

from sparseseg.annotation.hinted import HintLabels
from sparseseg.contract.box import whole
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints, Point, Roi, SegmentHints
from sparseseg.quality.constraints import Constraints

TWO = ClassTable.numbered(2, ["liver", "spleen"])


def constraints(shape, *segments, spacing=(1, 1, 1)):
    geometry = Geometry.from_axes(shape, spacing)
    hints = Hints(segments + (SegmentHints(),) * (2 - len(segments)))
    return Constraints(hints, HintLabels(hints, geometry), TWO, geometry)


def held(labels, *segments, sure=None, labelled=None, spacing=(1, 1, 1)):
    """Labels and certainty after all constraints, and what is said. Labels may be given as a plane."""
    labels = np.array(labels, np.uint8)
    labels = labels if labels.ndim == 3 else labels[None]
    sure = np.full(labels.shape, 100, np.uint8) if sure is None else np.array(sure, np.uint8).reshape(labels.shape)
    labelled = np.zeros(labels.shape, bool) if labelled is None else np.array(labelled, bool).reshape(labels.shape)
    before = labels.copy()
    each = constraints(labels.shape, *segments, spacing=spacing)
    each.hold_places(labels, labelled, whole(labels.shape), sure)
    remarks = each.hold_shapes(labels, sure, labelled)
    assert (labels[labelled] == before[labelled]).all()
    return labels, sure, [remark.sentence for remark in remarks]


# ---------------------------------------------------------------- where a segment may be


def test_outside_of_its_region_a_segment_becomes_background_but_for_labels():
    labels = np.full((3, 3, 4), 1, np.uint8)
    labels[0] = 2
    labelled = np.zeros(labels.shape, bool)
    labelled[2, 2, 3] = True
    roi = SegmentHints(roi=Roi((1, 1, 1), (2.5, 2.5, 0.5)))  # i 0..2, j 0..2, k 1
    after, sure, said = held(labels, roi, labelled=labelled)
    assert (after[0] == 2).all()
    assert after[1].tolist() == [[1, 1, 1, 0]] * 3
    assert np.argwhere(after[2]).tolist() == [[2, 3]]
    assert sure[1, 0, 3] == 250 and sure[1, 0, 0] == 100
    assert not said


def test_at_a_point_outside_of_it_a_segment_becomes_background():
    after, _, _ = held(np.full((1, 3, 3), 1), SegmentHints(outside=(Point((1, 1, 0), 1.0),)))
    assert after[0].tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize("seed", range(10))
def test_in_a_box_places_hold_as_in_the_whole(seed):
    rng, shape = np.random.default_rng(seed), (5, 6, 7)
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turned = SegmentHints(Roi((3, 3, 2), (4, 3, 3), tuple(map(tuple, axes))), outside=(Point((3, 3, 2), 1.0),))
    each = constraints(shape, turned, SegmentHints(outside=(Point((1, 1, 1), 1.5),)))
    labels, labelled = rng.integers(0, 3, shape).astype(np.uint8), rng.random(shape) < 0.2
    after = labels.copy()
    each.hold_places(after, labelled, whole(shape))
    low = [int(rng.integers(n)) for n in shape]
    box = tuple(slice(a, int(rng.integers(a, n)) + 1) for a, n in zip(low, shape, strict=True))
    part = labels[box].copy()
    each.hold_places(part, labelled[box], box)
    assert (part == after[box]).all()
    assert (after != labels).any()


# ---------------------------------------------------------------- one piece


PIECES = [[1, 1, 0, 0, 1], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 2], [1, 0, 0, 0, 2]]


def test_the_largest_piece_stays_where_nothing_is_labelled():
    after, sure, said = held(PIECES, SegmentHints(one_piece=True))
    assert after[0].tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 2], [0, 0, 0, 0, 2]]  # corners touch
    assert sure[0, 4, 0] == 200
    assert not said


def test_the_piece_with_labels_stays_however_small():
    after, _, said = held(PIECES, SegmentHints(one_piece=True), labelled=np.eye(5)[4][:, None] * np.eye(5)[0])  # 4, 0
    assert np.argwhere(after[0] == 1).tolist() == [[4, 0]]
    assert not said


def test_all_pieces_with_labels_stay_and_that_is_said():
    labelled = np.zeros((5, 5), bool)
    labelled[[0, 4], [4, 0]] = True
    after, _, said = held(PIECES, SegmentHints(one_piece=True), labelled=labelled)
    assert np.argwhere(after[0] == 1).tolist() == [[0, 4], [4, 0]]
    assert said == ["liver is said to be one piece, but is annotated in 2 that do not touch; all of these are kept."]


# ---------------------------------------------------------------- no holes


def shell(inside=0):
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[1:4, 1:4, 1:4] = 1
    labels[2, 2, 2] = inside
    return labels


def test_a_hole_is_filled():
    after, sure, said = held(shell(), SegmentHints(no_holes=True))
    assert after.sum() == 27 and after[2, 2, 2] == 1
    assert sure[2, 2, 2] == 200
    assert not said


def test_what_is_open_to_the_outside_or_to_the_volumes_edge_is_no_hole():
    for opened in ((2, 2, 3), (2, 3, 2)):
        labels = shell()
        labels[opened] = 0
        assert held(labels, SegmentHints(no_holes=True))[0].sum() == 25
    assert held(shell()[:3, 1:4, 1:4][2:], SegmentHints(no_holes=True))[0].sum() == 8  # cut through its middle


def test_a_hole_closed_by_edges_only_counts_as_closed():
    labels = shell()
    labels[1, 1, 1] = labels[3, 3, 3] = labels[1, 1, 2] = 0
    assert held(labels, SegmentHints(no_holes=True))[0][2, 2, 2] == 1


def test_a_hole_that_holds_another_segment_is_left():
    assert (held(shell(2), SegmentHints(no_holes=True))[0] == shell(2)).all()


def test_background_painted_in_a_hole_stays_and_that_is_said():
    labels = np.zeros((5, 5, 6), np.uint8)
    labels[1:4, 1:4, 1:5] = 1
    labels[2, 2, 2:4] = 0
    labelled = np.zeros(labels.shape, bool)
    labelled[2, 2, 2] = True
    after, _, said = held(labels, SegmentHints(no_holes=True), labelled=labelled)
    assert after[2, 2].tolist() == [0, 1, 0, 1, 1, 0]
    assert said == ["liver is said to have no holes, but background is annotated in some (1 voxel); it stays."]


# ---------------------------------------------------------------- apart


APART = SegmentHints(apart_from=(2,))


def test_of_two_that_touch_the_less_sure_gives_way():
    labels, sure = [[1, 1, 2, 2], [1, 1, 0, 2], [1, 2, 2, 2]], [[9, 5, 7, 7], [9, 9, 9, 9], [9, 3, 9, 9]]
    after, _, said = held(labels, APART, sure=sure)
    assert after[0].tolist() == [[1, 0, 2, 2], [1, 1, 0, 2], [1, 0, 2, 2]]
    assert not said


def test_a_label_never_gives_way_and_two_of_them_are_named():
    after, _, said = held([[1, 2]], APART, sure=[[1, 9]], labelled=[[1, 0]])
    assert after.tolist() == [[[1, 0]]] and not said
    after, _, said = held([[1, 2]], APART, labelled=[[1, 1]])
    assert after.tolist() == [[[1, 2]]]
    assert said == ["liver and spleen are said to be apart, but are annotated side by side in 1 place; the annotation stands."]


@pytest.mark.parametrize("seed", range(8))
def test_nothing_touches_afterwards_whatever_else_is_asked(seed):
    rng = np.random.default_rng(seed)
    labels, sure = rng.integers(0, 3, (4, 5, 6)), rng.integers(0, 200, (4, 5, 6))
    after, _, said = held(labels, SegmentHints(apart_from=(2,), no_holes=True), SegmentHints(no_holes=True), sure=sure)
    for axis in range(3):
        pair = np.moveaxis(after, axis, 0)
        assert not ((pair[1:] * pair[:-1]) == 2).any()
    assert not said


# ---------------------------------------------------------------- volume, voxels of 1 ml


def volume(least, most):
    return SegmentHints(volume_ml=(least, most))


def test_too_little_grows_by_what_is_least_sure_and_connected():
    labels, sure = [[0, 0, 1, 0, 0, 0]], [[20, 70, 90, 50, 60, 90]]
    for least, expected in ((2, [0, 0, 1, 1, 0, 0]), (3, [0, 0, 1, 1, 1, 0]), (4, [0, 1, 1, 1, 1, 0]), (5, [1, 1, 1, 1, 1, 0])):
        after, changed, said = held(labels, volume(least, None), sure=sure, spacing=(10, 10, 10))
        assert after[0, 0].tolist() == expected, least
        assert not said
    assert changed[0, 0].tolist() == [200, 200, 90, 200, 200, 90]


def test_too_much_gives_away_what_is_least_sure_of_equals_the_outermost():
    after, _, said = held([[1, 1, 1, 1]], volume(None, 2.5), sure=[[9, 3, 9, 1]], spacing=(10, 10, 10))
    assert after[0, 0].tolist() == [1, 0, 1, 0]
    assert not said
    after, _, _ = held([[0, 1, 1, 1, 0]], volume(None, 1), spacing=(10, 10, 10))
    assert after[0, 0].tolist() == [0, 0, 1, 0, 0]


def test_labels_certain_voxels_other_segments_and_regions_limit_it_and_that_is_said():
    after, _, said = held([[2, 1, 0, 0]], volume(3, None), sure=[[1, 9, 9, 255]], spacing=(10, 10, 10))
    assert after[0, 0].tolist() == [2, 1, 1, 0]
    assert said == ["liver has 2 ml, but is said to have at least 3; what is annotated, sure or said elsewhere forbids it."]
    narrow = SegmentHints(roi=Roi((10, 0, 0), (25, 5, 5)), volume_ml=(4, None))
    assert held([[0, 1, 0, 0]], narrow, spacing=(10, 10, 10))[0].tolist() == [[[1, 1, 1, 0]]]
    after, _, said = held([[1, 1, 1]], volume(None, 1), labelled=[[1, 1, 0]], spacing=(10, 10, 10))
    assert after[0, 0].tolist() == [1, 1, 0]
    assert said == ["liver has 2 ml, but is said to have at most 1; what is annotated, sure or said elsewhere forbids it."]


def test_a_volume_in_its_range_and_a_segment_without_hints_are_left_alone():
    labels = np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(np.uint8)
    many = float((labels == 1).sum())
    after, sure, said = held(labels, volume(many, many), spacing=(10, 10, 10))
    assert (after == labels).all() and (sure == 100).all() and not said
    assert not constraints(labels.shape).hold_shapes(labels, sure, labels > 9)
