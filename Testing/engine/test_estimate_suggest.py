"""Quality from held-out annotation, the trust that follows from it, and the next slice."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sparseseg.estimate import DEFAULT_TRUST, choose_trust, dice, split
from sparseseg.suggest import next_slices


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


@given(arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 3)))
def test_a_split_holds_out_labelled_voxels_only_and_leaves_every_class_some(strokes):
    labels, labelled = np.maximum(strokes, 1) - 1, strokes > 0
    held = split(labels, labelled, 3)
    if held is not None:
        assert held.any()
        assert not (held & ~labelled).any()
        assert set(labels[labelled & ~held]) == {0, 1, 2}
        assert (labels[held] > 0).any()


# ---------------------------------------------------------------- Dice


def test_dice_by_hand():
    result, truth = np.array([1, 1, 1, 0, 2]), np.array([1, 1, 0, 1, 0])
    assert dice(result, truth, 1) == 2 * 2 / (3 + 3)
    assert dice(result, truth, 2) == 0
    assert dice(result, result, 2) == 1
    assert math.isnan(dice(result, truth, 3))


# ---------------------------------------------------------------- trust


def columns(counts, *rows):
    """(C, n) probabilities: the given row for each of the given numbers of voxels."""
    return np.concatenate([np.repeat(np.array(row, np.float32)[:, None], n, axis=1) for n, row in zip(counts, rows, strict=True)], axis=1)


COUNTS = (100, 150, 50)
TRUTH = np.repeat(np.array([0, 1, 2], np.uint8), COUNTS)
RIGHT = columns(COUNTS, (0.9, 0.1, 0), (0, 0.9, 0.1), (0, 0.1, 0.9))
WRONG = columns(COUNTS, (0.1, 0.9, 0), (0, 0.1, 0.9), (0, 0.9, 0.1))


def test_a_network_that_is_right_is_trusted_and_a_wrong_one_is_not():
    trust, quality = choose_trust(RIGHT, WRONG, TRUTH)  # right from a trust of more than 0.5 on
    assert trust.min() > 0.5
    assert quality == {1: 1, 2: 1}
    belief = columns(COUNTS, (0.8, 0.2, 0), (0, 0.8, 0.2), (0, 0.2, 0.8))
    network = columns(COUNTS, (0, 1, 0), (0, 0, 1), (0, 1, 0))
    trust, quality = choose_trust(network, belief, TRUTH)  # 0.8 (1 - t) > 0.2 + 0.8 t: right below a trust of 0.375
    assert trust.max() < 0.375
    assert quality == {1: 1, 2: 1}


def test_each_segment_gets_the_trust_that_is_right_for_it():
    # segment 1: the prior says background and is wrong; segment 2: the network says background and is wrong. One trust for both would have to
    # lie above 0.41, where 0.15 + 0.85 t > 0.85 (1 - t), and below 0.375, where 0.8 (1 - t) > 0.2 + 0.8 t.
    belief = columns(COUNTS, (1, 0, 0), (0.85, 0.15, 0), (0.2, 0, 0.8))
    network = columns(COUNTS, (1, 0, 0), (0, 1, 0), (1, 0, 0))
    trust, quality = choose_trust(network, belief, TRUTH)
    assert trust[1] > 0.41
    assert trust[2] < 0.375
    assert quality == {1: 1, 2: 1}


def test_the_dice_reported_is_that_of_the_mixture():
    half = RIGHT.copy()
    half[:, 100:175] = np.array([[1], [0], [0]])  # half of segment 1 is lost
    assert choose_trust(half, half, TRUTH)[1] == {1: pytest.approx(2 * 75 / (75 + 150)), 2: 1}


def test_too_few_voxels_give_no_estimate_and_the_default_trust():
    few = np.r_[0:119, 250:269]  # 19 voxels of each segment
    trust, quality = choose_trust(RIGHT[:, few], WRONG[:, few], TRUTH[few])
    np.testing.assert_allclose(trust, DEFAULT_TRUST, atol=1e-6)
    assert quality == {}
    enough = np.r_[0:120, 250:269]
    assert set(choose_trust(RIGHT[:, enough], WRONG[:, enough], TRUTH[enough])[1]) == {1}


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


def test_suggestions_along_one_axis_keep_their_distance():
    unsure = uncertain((40, 10, 10), *[(255 - abs(k - 20), (k,)) for k in range(40)])
    chosen = next_slices(unsure, None, count=20)
    along = [[index for axis, index in chosen if axis == a] for a in range(3)]
    assert along[0][0] == 20
    for indices, apart in zip(along, (4, 2, 2), strict=True):  # a tenth of the axis, two slices at least
        assert len(indices) > 1
        assert np.diff(sorted(indices)).min() >= apart


def test_the_score_is_the_sum_over_the_root_of_the_area():
    unsure = uncertain((4, 16, 16), (100, (1, 3, slice(0, 8))))
    # axis 0: 800 / sqrt(256) = 50; axis 1: 800 / sqrt(64) = 100; axis 2: 100 / 8 a column
    assert next_slices(unsure, None, count=2) == [[1, 3], [0, 1]]


def test_where_all_is_sure_nothing_is_suggested():
    assert next_slices(np.zeros((4, 4, 4), np.uint8), None) == []
    assert next_slices(np.full((4, 4, 4), 9, np.uint8), np.ones((4, 4, 4), bool)) == []


def test_no_more_than_asked_for():
    assert len(next_slices(np.full((30, 30, 30), 255, np.uint8), None, count=3)) == 3


def test_the_mixture_is_not_worse_than_the_prior_where_it_was_chosen():
    counts = (100, 150, 50)
    truth = np.repeat(np.array([0, 1, 2], np.uint8), counts)
    network = np.repeat(np.array([[0.52, 0.10, 0.07], [0.48, 0.90, 0.92], [0.00, 0.00, 0.01]], np.float32), counts, axis=1)
    belief = np.repeat(np.array([[0.06, 0.00, 0.12], [0.56, 0.93, 0.40], [0.38, 0.07, 0.48]], np.float32), counts, axis=1)
    _, quality = choose_trust(network, belief, truth)
    prior = [dice(belief.argmax(0), truth, c) for c in (1, 2)]  # 0.75 and 1
    assert np.mean(list(quality.values())) >= np.mean(prior) - 0.01
