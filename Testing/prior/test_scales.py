"""Which grid the growings run on, what is in its cells, and how votes become voxels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sparseseg.contract.box import whole
from sparseseg.prior import compiled, grid, scales, vote
from sparseseg.prior.grid import Grid, coarsening, region
from sparseseg.prior.levels import Levels
from sparseseg.prior.scales import choose_factors, noise
from sparseseg.prior.vote import Ballots, count_plane, taps

ISOTROPIC = (1.0, 1.0, 1.0)
WITH_NUMBA = pytest.mark.skipif(not compiled.available(), reason="needs numba")


@pytest.fixture(params=["numpy", pytest.param("numba", marks=WITH_NUMBA)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "numba":
        assert compiled.warm_up()
    else:
        for module in (grid, vote):
            monkeypatch.setattr(module, "kernels", lambda: None)
    yield request.param


def test_the_finest_axis_is_halved_first() -> None:
    assert coarsening((10, 32, 32), (10.0, 0.4, 0.4), 10 * 16 * 16) == (1, 2, 2)
    assert coarsening((8, 8, 8), ISOTROPIC, 8 * 8 * 8) == (1, 1, 1)


def test_a_labelled_cell_takes_the_gray_of_its_label_alone(engine: str) -> None:
    image = np.array([[[10, 20, 0, 8], [30, 40, 4, 100]]], np.int16)
    labels = np.array([[[2, 0, 0, 3], [2, 0, 1, 1]]], np.uint8)
    labelled = np.array([[[1, 1, 0, 1], [1, 0, 1, 1]]], bool)
    cells = Grid.of(whole(image.shape), (1, 2, 2), ISOTROPIC).pool(image, labels, labelled)
    assert cells.mean.ravel().tolist() == [25, 28]
    assert cells.known.ravel().tolist() == [2, 1]  # of two voxels against one; of a tie the smaller would be chosen
    assert cells.own.ravel().tolist() == [20, 52]


def test_of_equal_counts_in_a_cell_the_smaller_label_wins(engine: str) -> None:
    image = np.array([[[10, 20]]], np.int16)
    cells = Grid.of(whole(image.shape), (1, 1, 2), ISOTROPIC).pool(image, np.array([[[3, 1]]], np.uint8), np.ones((1, 1, 2), bool))
    assert cells.known.ravel().tolist() == [1] and cells.own.ravel().tolist() == [20]


@pytest.mark.parametrize("seed", range(8))
def test_pooling_a_box_is_a_part_of_pooling_all(engine: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(5, 20, 3))
    image, labels = rng.normal(0, 50, shape).astype(np.float32), rng.integers(0, 4, shape).astype(np.uint8)
    image[0, 0, 0] = np.nan
    labelled = rng.random(shape) < 0.3
    whole = (slice(1, shape[0]), slice(0, shape[1] - 1), slice(2, shape[2]))
    found = Grid.of(whole, (2, 3, 1), ISOTROPIC)
    every = found.pool(image, labels, labelled)
    box = found.cells((slice(2, 4), slice(0, 4), slice(3, 5)))
    assert box is not None
    part = found.pool(image, labels, labelled, box)
    for name in ("mean", "known", "own"):
        np.testing.assert_array_equal(getattr(part, name), getattr(every, name)[box])


def test_cells_and_voxels_of_each_other() -> None:
    found = Grid.of((slice(3, 13), slice(0, 5), slice(2, 9)), (4, 2, 1), ISOTROPIC)
    assert found.shape == (3, 3, 7)
    assert found.cells((slice(6, 8), slice(0, 20), slice(0, 3))) == (slice(0, 2), slice(0, 3), slice(0, 1))
    assert found.cells((slice(0, 3), slice(0, 5), slice(0, 9))) is None
    assert found.voxels((slice(2, 3), slice(2, 3), slice(0, 7))) == (slice(11, 13), slice(4, 5), slice(2, 9))


def test_the_region_is_what_is_painted_and_half_more() -> None:
    labels, labelled = np.zeros((40, 60, 100), np.uint8), np.zeros((40, 60, 100), bool)
    labels[18:22, 20:40, 50:54], labelled[18:22, 20:45, 50:54] = 1, True
    assert region(labels, labelled) == (slice(10, 30), slice(10, 50), slice(42, 62))
    labelled[:, 40:45] = False
    assert region(labels, labelled) == whole(labels.shape)


def test_along_an_axis_with_one_slice_nothing_is_known_of_how_far_segments_go() -> None:
    labels, labelled = np.zeros((40, 60, 100), np.uint8), np.zeros((40, 60, 100), bool)
    labels[20, 20:40, 50:60], labelled[20] = 1, True
    assert region(labels, labelled) == (slice(0, 40), slice(10, 50), slice(42, 68))


def striped(noise_of: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dark and bright halves, 100 apart, every fourth slice labelled throughout."""
    rng = np.random.default_rng(0)
    labels = np.zeros((8, 30, 30), np.uint8)
    labels[:, :, 15:] = 1
    labelled = np.zeros(labels.shape, bool)
    labelled[::4] = True
    return (labels * 100 + rng.normal(0, noise_of, labels.shape)).astype(np.float32), labels, labelled


def test_noise_is_measured_in_parts_of_the_contrast() -> None:
    for sigma in (1, 10, 30):  # the median of |a - b| of two normal values is 0.954 sigma
        image, labels, labelled = striped(sigma)
        assert noise(image, labels, labelled, whole(labels.shape)) == pytest.approx(0.00954 * sigma, rel=0.1)


def test_without_pairs_or_contrast_noise_is_infinite() -> None:
    image, labels, labelled = striped(1)
    lonely = np.zeros_like(labelled)
    lonely[::4, ::2, ::2] = True
    assert noise(image, labels, lonely, whole(labels.shape)) == np.inf
    assert noise(image * 0, labels, labelled, whole(labels.shape)) == np.inf
    assert noise(image, labels, labelled & False, whole(labels.shape)) == np.inf


def test_only_large_volumes_are_grown_on_cells_and_noisy_ones_on_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scales, "SHARP_CELLS", 4000)
    monkeypatch.setattr(scales, "NOISY_CELLS", 1000)
    for sigma, factors in ((1, (1, 2, 1)), (10, (2, 2, 2))):
        image, labels, labelled = striped(sigma)
        where = whole(labels.shape)
        assert choose_factors(image, labels, labelled, where, ISOTROPIC) == (1, 1, 1)
        with monkeypatch.context() as patch:
            patch.setattr(scales, "ALL_VOXELS", 5000)
            assert choose_factors(image, labels, labelled, where, (2.0, 1.0, 1.01)) == factors


def test_levels_are_monotone_and_spread_where_classes_change() -> None:
    image, labels, labelled = striped(5)
    known = np.where(labelled, labels, -1).astype(np.int16)
    table = Levels.fit(image, known)
    found = table.apply(np.array([-1000, 20, 30, 45, 55, 70, 80, 1000], np.float32)).astype(int)
    assert (np.diff(found) >= 0).all() and found[0] == 0 and found[-1] == 8000
    # where the dark class ends and where the bright one begins, against the gap between, of which neither has voxels
    assert min(found[2] - found[1], found[6] - found[5]) > 3 * (found[4] - found[3])
    np.testing.assert_array_equal(table.apply(image)[2:4, 5:9], table.apply(image[2:4, 5:9]))


def decide(found: Grid, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = [s.stop - s.start for s in found.region]
    label, confidence = np.empty(size, np.uint8), np.empty(size, np.uint8)
    nothing = np.zeros(found.shape, np.uint8)
    ballots = Ballots(labels, np.zeros(found.shape, np.int32), nothing, nothing.astype(np.float32))
    for k in range(found.shape[0]):
        slab = slice(k * found.factors[0], (k + 1) * found.factors[0])
        count_plane(ballots, taps(found), k, np.ones(found.shape[1:], bool), 8000, label[slab], confidence[slab])
    return label, confidence


def test_a_lonely_cell_becomes_round_and_a_border_straight(engine: str) -> None:
    found = Grid.of((slice(0, 1), slice(0, 12), slice(0, 12)), (1, 4, 4), ISOTROPIC)
    cells = np.zeros((1, 1, 3, 3), np.uint8)
    cells[0, 0, 1, 1] = 5
    label, confidence = decide(found, cells)
    assert (label[0] > 0).astype(int)[3:9, 3:9].tolist() == [[0, 0, 0, 0, 0, 0], [0] * 6, [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0] * 6, [0] * 6]
    assert set(np.unique(label)) == {0, 5} and confidence[0, 6, 6] < 254
    cells[0, 0, :, 2] = cells[0, 0, 1, 1] = 0
    cells[0, 0, :, 2] = 5
    label, _ = decide(found, cells)
    assert (label == np.where(np.arange(12) >= 8, 5, 0)).all()


def test_of_equal_votes_the_smaller_label_wins(engine: str) -> None:
    found = Grid.of((slice(0, 1), slice(0, 1), slice(0, 1)), (1, 1, 1), ISOTROPIC)
    label, confidence = decide(found, np.array([4, 9, 9, 4], np.uint8).reshape(4, 1, 1, 1))
    assert label.item() == 4 and confidence.item() == 127
