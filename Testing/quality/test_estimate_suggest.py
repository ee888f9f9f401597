"""What can be held out of an annotation, Dice, the Dice that users are told to expect, and the next slice."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sparseseg.quality import estimate
from sparseseg.quality.estimate import SLICES, STROKES, Evidence, dice, expected, split
from sparseseg.quality.suggest import next_slices


def drawn(shape, *painted):
    """(labels, labelled) from (value, index) pairs, painted in this order."""
    labels, labelled = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    for value, index in painted:
        labels[index], labelled[index] = value, True
    return labels, labelled


def complete(axis, index, shape=(20, 20, 20)):
    """Paint one whole slice: background with a square of segment 1 and a smaller one of segment 2 in it."""

    def at(*box):
        return (*box[:axis], index, *box[axis:])

    return [(0, at(slice(None), slice(None))), (1, at(slice(5, 15), slice(5, 15))), (2, at(slice(8, 12), slice(8, 12)))]


def only(axis, index, labelled):
    box = tuple(index if a == axis else slice(None) for a in range(3))
    mask = np.zeros(labelled.shape, bool)
    mask[box] = labelled[box]
    return mask


# ---------------------------------------------------------------- split


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_of_three_complete_slices_the_middle_one_is_held_out(axis):
    labels, labelled = drawn((20, 20, 20), *[p for index in (5, 10, 15) for p in complete(axis, index)])
    assert (split(labels, labelled, 3) == only(axis, 10, labelled)).all()


def test_of_five_complete_slices_the_second_and_fourth_are_held_out():
    labels, labelled = drawn((20, 20, 20), *[p for index in (1, 5, 9, 13, 17) for p in complete(0, index)])
    assert (split(labels, labelled, 3) == (only(0, 5, labelled) | only(0, 13, labelled))).all()


def test_of_crossing_slices_one_of_each_orientation_is_held_out_with_all_its_voxels():
    labels, labelled = drawn((20, 20, 20), *[p for axis in range(3) for index in (6, 13) for p in complete(axis, index)])
    expected = only(0, 13, labelled) | only(1, 13, labelled) | only(2, 13, labelled)
    assert (split(labels, labelled, 3) == expected).all()


def test_strokes_are_split_by_the_slices_they_were_painted_on():
    strokes = [(value, (k, slice(2 + 4 * value, 5 + 4 * value), slice(3, 9))) for k in (2, 6, 10, 14) for value in (0, 1, 2)]
    labels, labelled = drawn((17, 20, 20), *strokes)
    assert (split(labels, labelled, 3) == (only(0, 6, labelled) | only(0, 14, labelled))).all()


def test_annotation_on_no_slices_is_split_into_slabs_along_its_longest_side():
    bars = [(value, (slice(0, 20), slice(6 * value, 6 * value + 3), slice(6 * value, 6 * value + 3))) for value in (0, 1, 2)]
    labels, labelled = drawn((20, 16, 16), *bars)
    expected = labelled.copy()
    expected[[n for n in range(20) if n // 4 % 2 == 0]] = False  # five slabs of four slices; the second and fourth
    assert (split(labels, labelled, 3) == expected).all()


@pytest.mark.parametrize(
    "painted",
    [
        [],
        [(0, (0, 0, 0)), (1, (5, 5, 5)), (2, (9, 9, 9))],  # a voxel each
        [(0, (slice(None), 0, 0))],  # no segment
    ],
)
def test_annotation_that_can_spare_nothing_is_not_split(painted):
    labels, labelled = drawn((10, 10, 10), *painted)
    assert split(labels, labelled, 3) is None


def test_a_segment_painted_on_one_slice_only_is_not_taken_away():
    painted = [p for index in (5, 10, 15) for p in complete(0, index)[:2]] + [(2, (10, slice(8, 12), slice(8, 12)))]
    labels, labelled = drawn((20, 20, 20), *painted)
    held = split(labels, labelled, 3)
    assert held is None or (labels[labelled & ~held] == 2).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_segments_that_nobody_painted_have_nothing_to_keep(axis):
    labels, labelled = drawn((20, 20, 20), *[p for index in (5, 10, 15) for p in complete(axis, index)])
    spread = np.array([0, 2, 5], np.uint8)[labels]
    assert (split(spread, labelled, 7) == split(labels, labelled, 3)).all()
    no_background = labelled & (labels > 0)
    assert (split(labels, no_background, 3) == only(axis, 10, no_background)).all()


@given(arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 3)))
def test_a_split_holds_out_labelled_voxels_only_and_leaves_every_painted_class_some(strokes):
    labels, labelled = np.maximum(strokes, 1) - 1, strokes > 0
    held = split(labels, labelled, 3)
    if held is not None:
        assert held.any()
        assert not (held & ~labelled).any()
        assert set(labels[labelled & ~held]) == set(labels[labelled])
        assert (labels[held] > 0).any()


# ---------------------------------------------------------------- Dice


def test_dice_by_hand():
    result, truth = np.array([1, 1, 1, 0, 2]), np.array([1, 1, 0, 1, 0])
    assert dice(result, truth, 1) == 2 * 2 / (3 + 3)
    assert dice(result, truth, 2) == 0
    assert dice(result, result, 2) == 1
    assert math.isnan(dice(result, truth, 3))


# ---------------------------------------------------------------- estimate


@pytest.mark.parametrize(("has_slices", "fitted"), [(True, SLICES), (False, STROKES)])
def test_the_expected_dice_is_linear_in_what_speaks_for_it(has_slices, fitted):
    offset, reverse, believed, agreement = fitted
    assert expected(0.9, 0.95, 0.85, has_slices) == pytest.approx(offset + 0.9 * reverse + 0.95 * believed + 0.85 * agreement)


@pytest.mark.parametrize("fitted", ["SLICES", "STROKES"])
def test_it_is_a_dice(fitted, monkeypatch):
    monkeypatch.setattr(estimate, fitted, (-0.25, 1.5, 0.0, 0.0))
    told = [expected(reverse, 0.7, 0.7, has_slices=fitted == "SLICES") for reverse in (0, 0.5, 1)]
    assert told == [0, 0.5, 1]


def test_evidence_by_hand():
    """Four voxels of segment 1, two sure and two as sure of another label: E = 2 + 2 / 2 = 3, and 2 * 3 / (4 + 3). Growing gives three voxels to it
    and the refiner two, one of them the same: 2 * 1 / 5."""
    counted = Evidence(3)
    result, confidence = np.array([1, 1, 1, 1, 0], np.uint8), np.array([255, 255, 0, 0, 9], np.uint8)
    grown, refined = np.array([1, 1, 1, 0, 0], np.uint8), np.array([0, 0, 1, 1, 0], np.uint8)
    for part in (slice(0, 2), slice(2, 5)):
        counted.count(result[part], confidence[part], grown[part], refined[part])
    assert counted.believed(1) == pytest.approx(6 / 7)
    assert counted.agreement(1) == pytest.approx(2 / 5)
    assert counted.believed(2) == counted.agreement(2) == 0


# ---------------------------------------------------------------- next slice


def uncertain(shape, *places):
    result = np.zeros(shape, np.uint8)
    for value, index in places:
        result[index] = value
    return result


def test_the_least_sure_slice_comes_first():
    unsure = uncertain((20, 20, 20), (200, (7, slice(5, 15), slice(5, 15))), (150, (14, slice(5, 15), slice(5, 15))))
    assert next_slices(unsure, None, count=2) == [[0, 7], [0, 14]]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_it_lies_on_whichever_axis_it_lies(axis):
    unsure = np.moveaxis(uncertain((20, 20, 20), (255, (11, slice(None), slice(None)))), 0, axis)
    assert next_slices(unsure, None, count=1) == [[axis, 11]]


def test_what_is_labelled_is_certain():
    unsure = uncertain((20, 20, 20), (200, (7,)), (100, (14,)))
    labelled = np.zeros(unsure.shape, bool)
    labelled[7] = True
    assert next_slices(unsure, labelled, count=1) == [[0, 14]]


def test_the_middle_of_a_gap_comes_before_the_edges_and_the_neighbours_of_annotated_slices():
    unsure, labelled = np.full((41, 5, 5), 100, np.uint8), np.zeros((41, 5, 5), bool)
    labelled[[0, 10, 40]] = True
    assert next_slices(unsure, labelled, count=1) == [[0, 25]]
    (first, second) = [index for axis, index in next_slices(unsure, labelled, count=6) if axis == 0][:2]
    assert first == 25 and abs(second - 25) > 5


def test_where_whole_slices_were_annotated_the_next_is_parallel():
    unsure, labelled = np.full((21, 9, 9), 50, np.uint8), np.zeros((21, 9, 9), bool)
    unsure[:, 4] = 255
    labelled[[5, 15]] = True
    assert {axis for axis, _ in next_slices(unsure, labelled, count=5)} == {0}


def test_suggestions_along_one_axis_keep_their_distance():
    unsure = uncertain((40, 10, 10), *[(255 - abs(k - 20), (k,)) for k in range(40)])
    along = [index for axis, index in next_slices(unsure, None, count=20) if axis == 0]
    assert len(along) > 3
    assert np.diff(sorted(along[:4])).min() >= 4  # the reach: a tenth of the axis


def test_axes_of_different_length_compete_fairly():
    unsure = uncertain((40, 10, 10), (100, (slice(None),)))
    assert {axis for axis, _ in next_slices(unsure, None, count=6)} == {0, 1, 2}


def test_a_stroke_speaks_for_its_neighbours_less_than_a_complete_slice():
    unsure, labelled = np.full((21, 8, 8), 50, np.uint8), np.zeros((21, 8, 8), bool)
    labelled[5, 4, 4], labelled[15] = True, True
    assert next_slices(unsure, labelled, count=1)[0][0] == 0
    assert next_slices(unsure, labelled, count=1)[0][1] < 10


def test_where_all_is_sure_nothing_is_suggested():
    assert next_slices(np.zeros((4, 4, 4), np.uint8), None) == []
    assert next_slices(np.full((4, 4, 4), 9, np.uint8), np.ones((4, 4, 4), bool)) == []


def test_no_more_than_asked_for():
    assert len(next_slices(np.full((30, 30, 30), 255, np.uint8), None, count=3)) == 3
