"""Reverse classification accuracy: which slices of a result are taken for annotation, and what they bring back."""

import numpy as np
import pytest

from sparseseg.prior.grown import Grown
from sparseseg.quality.estimate import MIN_VOXELS
from sparseseg.quality.reverse import reverse_dice, slices_between

# ---------------------------------------------------------------- which slices


def complete(axis, *indices, shape=(20, 20, 20)):
    labelled = np.zeros(shape, bool)
    np.moveaxis(labelled, axis, 0)[list(indices)] = True
    return labelled


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_way_between_annotated_slices_and_as_far_beyond_them(axis):
    """Gaps of 4 and 6 slices: 7 and 12 lie between, 5 - 4 / 2 = 3 and 15 + 6 / 2 = 18 beyond."""
    assert slices_between(complete(axis, 5, 9, 15)) == [(axis, 7), (axis, 12), (axis, 3), (axis, 18)]


def test_none_outside_of_the_volume():
    assert slices_between(complete(0, 1, 17)) == [(0, 9)]


def test_neighbouring_slices_have_nothing_between_them():
    assert slices_between(complete(0, 5, 6)) == []
    assert slices_between(complete(0, 5, 6, 10)) == [(0, 8), (0, 12)]


@pytest.mark.parametrize("indices", [(), (7,)])
def test_one_slice_or_none_has_no_middle(indices):
    assert slices_between(complete(0, *indices)) == []


def test_each_orientation_has_its_own():
    labelled = complete(0, 4, 12) | complete(2, 6, 10) | complete(1, 5)
    assert slices_between(labelled) == [(0, 8), (0, 0), (0, 16), (2, 8), (2, 4), (2, 12)]


def test_strokes_lie_on_slices_too():
    labelled = np.zeros((20, 20, 20), bool)
    labelled[4, 3:6, 2:18], labelled[12, 8:11, 2:18] = True, True
    assert slices_between(labelled) == [(0, 8), (0, 0), (0, 16)]


# ---------------------------------------------------------------- what they bring back

SIDE = MIN_VOXELS  # of a slice: a row of it has as many voxels as a segment needs for its own estimate
SHAPE = (5, 4, SIDE)
BETWEEN = [(0, 2)]


def volumes():
    """Result and annotation, slices 0 and 4 complete: each of four rows is a class, 0 to 3."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[:] = np.arange(4)[:, None]
    return truth, truth.copy(), complete(0, 0, 4, shape=SHAPE)


def never(*_):
    pytest.fail("growing was asked")


def test_growing_sees_those_slices_of_the_result_alone_and_is_compared_with_the_annotation():
    result, labels, labelled = volumes()
    labels[0, 1, : SIDE // 2] = 0  # in the annotation half of a row is background
    asked = []

    def grow(seeds, known):
        asked.append((seeds.copy(), known.copy()))
        found = np.zeros(SHAPE, np.uint8)
        found[:] = np.arange(4)[:, None]
        found[4, 2] = 1
        return found

    found = reverse_dice(result, labels, labelled, BETWEEN, grow, [1, 2, 3])
    ((seeds, known),) = asked
    np.testing.assert_array_equal(known, complete(0, 2, shape=SHAPE))
    np.testing.assert_array_equal(seeds, np.where(known, result, 0))
    assert seeds.dtype == np.uint8
    # rows: 1 is found 3 times, painted 1.5 times, both 1.5; 2 found once, painted twice; 3 twice and twice
    assert found == {1: pytest.approx(2 * 1.5 / 4.5), 2: pytest.approx(2 / 3), 3: 1.0}


def test_what_is_labelled_on_such_a_slice_is_not_taken_from_the_result():
    result, labels, labelled = volumes()
    labelled[2, 1, :5] = True
    labels[2, 1, :5], result[2, 1, :5] = 2, 2

    def grow(seeds, known):
        assert not known[2, 1, :5].any() and known[2].sum() == 4 * SIDE - 5
        assert not seeds[2, 1, :5].any()
        return labels

    assert reverse_dice(result, labels, labelled, BETWEEN, grow, [1, 2, 3]) == {1: 1.0, 2: 1.0, 3: 1.0}


def test_a_segment_that_the_annotation_or_the_slices_have_too_little_of_is_not_told():
    result, labels, labelled = volumes()
    labels[4, 1] = 0
    labels[0, 2, 0] = labels[4, 2] = 0
    result[2, 3] = 0
    assert list(reverse_dice(result, labels, labelled, BETWEEN, lambda *_: labels, [1, 2, 3])) == [1]  # MIN_VOXELS; one less; not in slice 2
    assert list(reverse_dice(result, labels, labelled, BETWEEN, lambda *_: labels, [2, 3])) == []


def test_growing_is_not_asked_where_nothing_can_be_told():
    result, labels, labelled = volumes()
    assert reverse_dice(result, labels, labelled, [], never, [1, 2, 3]) == {}
    assert reverse_dice(result, labels, labelled, BETWEEN, never, [4]) == {}
    assert reverse_dice(np.maximum(result, 1), labels, labelled, BETWEEN, never, [1, 2, 3]) == {}  # no background to grow against
    assert reverse_dice(np.zeros_like(result), labels, labelled, BETWEEN, never, [1, 2, 3]) == {}


def test_a_result_that_is_wrong_between_annotated_slices_does_not_bring_them_back():
    rng = np.random.default_rng(0)
    truth = np.zeros((17, 20, 20), np.uint8)
    truth[:, 4:16, 3:10], truth[:, 4:16, 10:17] = 1, 2
    image = (np.array([0, 100, 200])[truth] + rng.normal(0, 20, truth.shape)).astype(np.int16)
    labelled = complete(0, 4, 12, shape=truth.shape)
    between = slices_between(labelled)
    shifted = truth.copy()
    shifted[8] = np.roll(truth[8], 5, axis=0)

    def grow(seeds, known):
        return Grown.start(image, seeds, known, (1.0, 1.0, 1.0)).label

    right, wrong = (reverse_dice(result, truth, labelled, between[:1], grow, [1, 2]) for result in (truth, shifted))
    assert between[0] == (0, 8)
    assert min(right.values()) > 0.95
    assert max(wrong.values()) < min(right.values()) - 0.1
