"""Boxes that hold what lies far apart, without holding all between."""

import numpy as np
import pytest

from sparseseg.contract import box
from sparseseg.contract.box import Part, box_of, boxes_of, joined, joined_parts, shape_of, union


def cube(at, size=2):
    return tuple(slice(n, n + size) for n in at)


def marked(boxes, shape):
    mask = np.zeros(shape, bool)
    for each in boxes:
        mask[each] = True
    return mask


def test_what_lies_far_apart_along_any_axis_has_boxes_of_its_own():
    boxes = [cube((1, 1, 1)), cube((1, 50, 1)), cube((1, 50, 60)), cube((60, 1, 1))]
    assert sorted(boxes_of(marked(boxes, (64, 64, 64)))) == sorted(boxes)


def test_what_lies_near_has_one_and_nothing_has_none():
    near = [cube((1, 1, 1)), cube((20, 30, 1))]
    assert boxes_of(marked(near, (64, 64, 64))) == [union(*near)]
    assert boxes_of(np.zeros((3, 4, 5), bool)) == []


@pytest.mark.parametrize("seed", range(10))
def test_all_that_is_marked_lies_in_some_box_that_fits(seed, monkeypatch):
    monkeypatch.setattr(box, "_GAP", 2)
    rng = np.random.default_rng(seed)
    mask = rng.random((20, 21, 22)) < 0.002
    found = boxes_of(mask)
    assert (mask <= marked(found, mask.shape)).all()
    for each in found:
        assert shape_of(box_of(mask[each])) == shape_of(each)


def test_small_boxes_become_one_and_large_gaps_stay_out():
    far = [cube((0, 0, 0)), cube((600, 1000, 1000))]
    assert joined(far) == far
    assert joined([cube((0, 0, 0)), cube((200, 200, 200))]) == [tuple(slice(0, 202) for _ in range(3))]
    assert joined([]) == []


def test_a_box_that_brings_two_together_makes_one_of_all():
    ends = [(slice(0, 400), slice(0, 400), slice(first, first + 400)) for first in (0, 1600)]
    assert joined(ends) == ends
    assert joined([*ends, (slice(0, 400), slice(0, 400), slice(300, 1700))]) == [(slice(0, 400), slice(0, 400), slice(0, 2000))]


def test_many_boxes_become_few_that_hold_them_all():
    rng = np.random.default_rng(0)
    boxes = [cube(at) for at in rng.integers(0, 1900, (300, 3)).tolist()]
    found = joined(boxes)
    assert 1 <= len(found) <= 16
    assert all(any(union(each, holds) == holds for holds in found) for each in boxes)


@pytest.mark.parametrize("together", [1 << 24, 100])
def test_parts_that_are_joined_mark_the_same_voxels(together, monkeypatch):
    monkeypatch.setattr(box, "_TOGETHER_VOXELS", together)
    rng, shape = np.random.default_rng(1), (30, 40, 50)
    parts = [Part(each, rng.random((3, 3, 3)) < 0.5) for each in (cube(at, 3) for at in rng.integers(0, 27, (12, 3)).tolist())]
    expected, found = np.zeros(shape, bool), np.zeros(shape, bool)
    for whole, some in ((expected, parts), (found, joined_parts(parts))):
        for part in some:
            whole[part.box] |= part.mask
    np.testing.assert_array_equal(found, expected)
    assert len(joined_parts(parts)) == 1 or together == 100
