"""The working grid, its shape, and which slices are learned from: where they lie, how often each has its turn, and those of a correction."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.contract.box import whole
from sparseseg.network.sampling import SliceSampler, WorkingGrid, working_shape

SHAPE = (10, 12, 14)
BOX = (slice(2, 8), slice(3, 12), slice(4, 14))  # 6 x 9 x 10 voxels of it


# ---------------------------------------------------------------- the working grid


def test_a_grid_of_a_box_by_hand():
    grid = WorkingGrid(SHAPE, BOX, (3, 9, 4))
    assert grid.own_kji == (6, 9, 10)
    assert grid.scale.tolist() == [2, 1, 2.5]
    assert grid.spacing((1.5, 2, 0.5)) == (3, 2, 1.25)
    assert [grid.slice_of(0, index) for index in range(2, 8)] == [0, 0, 1, 1, 2, 2]
    assert [grid.slice_of(1, index) for index in range(3, 12)] == [*range(9)]
    assert [grid.slice_of(2, index) for index in range(4, 14)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]  # centres 0.5, 1.5, ... over 2.5
    assert grid.own_slices(0).tolist() == [2, 4, 6]  # middles 0.5, 2.5, 4.5 of the box: either neighbour would do
    assert grid.own_slices(1).tolist() == [*range(3, 12)]
    assert grid.own_slices(2).tolist() == [5, 7, 10, 12]  # middles 0.75, 3.25, 5.75, 8.25


def test_a_grid_of_the_whole_volume():
    assert WorkingGrid.of_whole(SHAPE, (5, 6, 7)) == WorkingGrid(SHAPE, whole(SHAPE), (5, 6, 7))


@given(st.integers(0, 5), st.integers(1, 300), st.data())
def test_a_working_slice_holds_its_own_middle_slice_and_every_own_slice_has_one(start, own, data):
    working = data.draw(st.integers(1, own))
    grid = WorkingGrid((start + own, 1, 1), (slice(start, start + own), slice(0, 1), slice(0, 1)), (working, 1, 1))
    middles = grid.own_slices(0)
    assert [grid.slice_of(0, int(index)) for index in middles] == [*range(working)]
    of = [grid.slice_of(0, index) for index in range(start, start + own)]
    assert of == sorted(of) and set(of) == {*range(working)}


@pytest.mark.parametrize(
    ("own", "spacing", "pixels", "voxels", "shape"),
    [
        ((64, 64, 64), (1, 1, 1), 64**2, 64**3, (64, 64, 64)),
        ((64, 64, 64), (1, 1, 1), 64**2 - 1, 64**3, (63, 63, 63)),
        ((64, 64, 64), (1, 1, 1), 32**2, 64**3, (32, 32, 32)),
        ((64, 64, 64), (1, 1, 1), 64**2, 32**3, (32, 32, 32)),
        ((40, 200, 200), (5, 1, 1), 100**2, 10**9, (40, 100, 100)),  # to 2 mm; slices are thicker as they are
        ((40, 200, 200), (5, 1, 1), 20**2, 10**9, (20, 20, 20)),  # to 10 mm: all axes
        ((200, 200, 10), (1, 1, 8), 50**2, 10**9, (50, 50, 10)),  # whichever is the thick axis
        ((4, 512, 512), (6, 0.5, 0.5), 10**9, 4 * 128**2, (4, 128, 128)),
        ((30, 1, 30), (1, 1, 1), 100, 10**9, (10, 1, 10)),
        ((5, 7, 3), (1, 2, 0.3), 1, 1, (1, 1, 1)),
    ],
)
def test_working_shapes_by_hand(own, spacing, pixels, voxels, shape):
    assert working_shape(own, spacing, pixels, voxels) == shape


SIZES, SPACINGS = st.tuples(*[st.integers(1, 300)] * 3), st.tuples(*[st.floats(0.2, 10)] * 3)


@given(SIZES, SPACINGS, st.integers(1, 50_000), st.integers(1, 10**6))
def test_working_shapes_keep_their_limits_split_no_voxel_and_are_as_fine_as_may_be(own, spacing, pixels, voxels):
    shape = working_shape(own, spacing, pixels, voxels)
    assert all(1 <= n <= most for n, most in zip(shape, own, strict=True))
    assert math.prod(shape) <= voxels
    assert all(a * b <= pixels for a, b in itertools.combinations(shape, 2))
    if shape != own:  # the next finer ones, of the same edge, are too much
        coarser = max(s * n / m for s, n, m in zip(spacing, own, shape, strict=True) if m < n)
        finer = [min(n, math.ceil(n * min(1.0, s / (0.9 * coarser)) + 1)) for s, n in zip(spacing, own, strict=True)]
        assert math.prod(finer) > voxels or max(a * b for a, b in itertools.combinations(finer, 2)) > pixels


# ---------------------------------------------------------------- slices to learn from


def painted(*slices, shape=SHAPE):
    """Bool (K, J, I): filled squares on (axis, index) slices, of different sizes."""
    labelled = np.zeros(shape, bool)
    for n, (axis, index) in enumerate(slices):
        at = [slice(4, 9 - n % 2)] * 3
        at[axis] = index
        labelled[tuple(at)] = True
    return labelled


def draws(sampler, count, seed=0):
    rng = np.random.default_rng(seed)
    return [sampler.draw(rng) for _ in range(count)]


def shares(drawn):
    return {at: drawn.count(at) / len(drawn) for at in set(drawn)}


def test_the_slices_that_were_painted_on_are_found():
    sampler = SliceSampler(painted((0, 5), (2, 6), (0, 7)), whole(SHAPE))
    assert sampler.slices == [(0, 5), (0, 7), (2, 6)]
    assert sampler.orientations == [0, 2]


def test_slices_are_counted_in_the_volume_and_only_within_the_box():
    labelled = painted((0, 5), (1, 7))
    labelled[9, :, :] = labelled[:, 1, 0] = True  # beyond the box
    sampler = SliceSampler(labelled, BOX)
    assert sampler.slices == [(0, 5), (1, 7)]


def test_each_slice_has_its_turn_as_often_as_the_others():
    sampler = SliceSampler(painted((0, 2), (0, 5), (0, 7), (1, 6)), whole(SHAPE))
    found = shares(draws(sampler, 4000))
    assert found == pytest.approx({(0, 2): 0.25, (0, 5): 0.25, (0, 7): 0.25, (1, 6): 0.25}, abs=0.03)  # four standard deviations


def test_a_seed_reproduces_the_draws():
    sampler = SliceSampler(painted((0, 2), (0, 5), (1, 6)), whole(SHAPE))
    assert draws(sampler, 30, seed=5) == draws(sampler, 30, seed=5) != draws(sampler, 30, seed=6)


def changed_to(sampler, labelled, box):
    sampler.look(labelled, whole(SHAPE), [box])
    return sampler


def test_after_a_correction_its_slices_come_in_half_of_sixty_draws():
    before, box = [(0, 1), (0, 3), (0, 7)], (slice(5, 6), slice(4, 8), slice(4, 8))
    after, fresh = painted(*before, (0, 5)), []
    for seed in range(60):
        sampler = changed_to(SliceSampler(painted(*before), whole(SHAPE)), after, box)
        drawn = draws(sampler, 160, seed)
        fresh.append([at == (0, 5) for at in drawn])
    early, late = np.mean([f[:60] for f in fresh]), np.mean([f[60:] for f in fresh])
    assert early == pytest.approx(0.5 + 0.5 / 4, abs=0.03)
    assert late == pytest.approx(1 / 4, abs=0.03)


def test_a_new_slice_is_drawn_and_an_erased_one_no_longer():
    sampler = SliceSampler(painted((0, 1), (0, 3)), whole(SHAPE))
    changed_to(sampler, painted((0, 3), (1, 6)), (slice(1, 9), slice(4, 9), slice(4, 9)))
    assert set(draws(sampler, 200)) == {(0, 3), (1, 6)}


def test_fresh_are_the_slices_across_the_thinnest_side_of_a_correction():
    """A stroke on an axial slice crosses sagittal ones as a dot."""
    labelled, drawn = painted((0, 1), (0, 5), (2, 5), (2, 6)), []
    for seed in range(20):
        sampler = changed_to(SliceSampler(labelled, whole(SHAPE)), labelled, (slice(5, 6), slice(5, 7), slice(4, 9)))
        drawn += draws(sampler, 60, seed)
    assert shares(drawn) == pytest.approx({(0, 5): 0.5 + 0.5 / 4, (0, 1): 0.125, (2, 5): 0.125, (2, 6): 0.125}, abs=0.05)


def test_a_correction_on_no_slice_that_is_learned_from_changes_no_shares():
    sampler = SliceSampler(painted((0, 1), (0, 5)), whole(SHAPE))
    changed_to(sampler, painted((0, 1), (0, 5)), (slice(7, 9), slice(4, 6), slice(4, 6)))
    assert shares(draws(sampler, 2000)) == pytest.approx({(0, 1): 0.5, (0, 5): 0.5}, abs=0.05)


def test_draws_of_one_axis_do_not_take_fresh_slices_of_another():
    sampler = SliceSampler(painted((0, 1), (2, 5)), whole(SHAPE))
    changed_to(sampler, painted((0, 1), (2, 5)), (slice(1, 2), slice(4, 8), slice(4, 8)))
