"""Growing by sweeps, by the queue, updated, and in numpy: all must agree, and agree with a slow independent Dijkstra."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
import pytest

from sparseseg.prior import compiled, growing
from sparseseg.prior.growing import INSIDE, Growth, step_costs

FAR = 1 << 30
DIRECTIONS = [(k, j, i) for k in (-1, 0, 1) for j in (-1, 0, 1) for i in (-1, 0, 1)]
WITH_NUMBA = pytest.mark.skipif(not compiled.available(), reason="needs numba")


@pytest.fixture(params=["numpy", pytest.param("numba", marks=WITH_NUMBA)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "numba":
        assert compiled.warm_up()
    else:
        monkeypatch.setattr(growing, "kernels", lambda: None)
    yield request.param


def slow(levels: np.ndarray, known: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The least distance << 8 | label of every voxel by a heap over tuples."""
    want = np.full(levels.shape, FAR, np.int64)
    queue = [(0, int(known[p]), p) for p in map(tuple, np.argwhere(known >= 0).tolist())]
    heapq.heapify(queue)
    while queue:
        distance, label, at = heapq.heappop(queue)
        if want[at] < FAR:
            continue
        want[at] = distance << 8 | label
        for step, cost in zip(DIRECTIONS, costs.tolist(), strict=True):
            to = tuple(a + s for a, s in zip(at, step, strict=True))
            if all(0 <= t < n for t, n in zip(to, levels.shape, strict=True)) and want[to] == FAR:
                heapq.heappush(queue, (distance + cost + abs(int(levels[to]) - int(levels[at])), label, to))
    return want


def volume(rng: np.random.Generator, largest: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = tuple(rng.integers(1, largest, 3))
    levels = rng.integers(0, (2, 60, 8000)[rng.integers(3)], shape).astype(np.int16)
    edges = rng.uniform(0.3, 3, 1).repeat(3) if rng.integers(2) else rng.uniform(0.3, 12, 3)
    known = np.full(shape, -1, np.int16)
    for _ in range(rng.integers(0, 6)):
        paint(rng, known, int(rng.integers(0, 5)))
    return levels, known, step_costs(edges)


def paint(rng: np.random.Generator, known: np.ndarray, label: int) -> None:
    """A stroke: a small box, now and then a whole slice."""
    if rng.integers(8) == 0:
        known[rng.integers(known.shape[0])] = label
        return
    low = [rng.integers(n) for n in known.shape]
    known[tuple(slice(a, a + rng.integers(1, 4)) for a in low)] = label


def update(growth: Growth, before: np.ndarray, known: np.ndarray, levels: np.ndarray | None = None) -> growing.Box | None:
    differs = known != before if levels is None else (known != before) | (levels != growth.levels[INSIDE])
    return growth.update(np.argwhere(differs), known[differs], None if levels is None else levels[differs])


def test_on_a_ramp_the_smaller_climb_wins(engine: str) -> None:
    levels = np.array([0, 10, 20, 30, 100, 110, 120], np.int16).reshape(1, 1, 7)
    known = np.full((1, 1, 7), -1, np.int16)
    known[0, 0, 0], known[0, 0, 6] = 0, 3
    growth = Growth.start(levels, known, step_costs((1, 1, 1)))
    assert growth.label.ravel().tolist() == [0, 0, 0, 0, 3, 3, 3]
    assert growth.distances((slice(0, 1), slice(0, 1), slice(0, 7))).ravel().tolist() == [0, 11, 22, 33, 22, 11, 0]
    changed = growth.update(np.array([[0, 0, 4]]), np.array([1], np.int16))
    assert changed == (slice(0, 1), slice(0, 1), slice(4, 6) if engine == "numba" else slice(0, 7))
    assert growth.label.ravel().tolist() == [0, 0, 0, 0, 1, 1, 3]


def test_equal_distances_go_to_the_smaller_label(engine: str) -> None:
    known = np.array([2, -1, 1], np.int16).reshape(1, 1, 3)
    assert Growth.start(np.zeros((1, 1, 3), np.int16), known, step_costs((1, 1, 1))).label.ravel().tolist() == [2, 1, 1]


@pytest.mark.parametrize("seed", range(40))
def test_start_equals_slow(engine: str, seed: int) -> None:
    levels, known, costs = volume(np.random.default_rng(seed), 9)
    np.testing.assert_array_equal(Growth.start(levels, known, costs).key[INSIDE], slow(levels, known, costs))


@pytest.mark.parametrize("seed", range(80))
def test_update_equals_start(engine: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four changes, each of several strokes that add, relabel and erase, and new levels under some of them; small and great updates."""
    rng = np.random.default_rng(1000 + seed)
    monkeypatch.setattr(growing, "TOO_MANY", (-0.9, 0.0, 0.05, 1.0)[seed % 4])
    levels, known, costs = volume(rng, 14)
    growth = Growth.start(levels, known, costs)
    for _ in range(4):
        before, keys = known.copy(), growth.key[INSIDE].copy()
        for _ in range(rng.integers(1, 4)):
            paint(rng, known, int(rng.integers(-1, 5)) if rng.integers(3) else -1)
        if rng.integers(12) == 0:
            known[:] = -1
        if rng.integers(2):
            levels = np.where(rng.random(levels.shape) < 0.05, rng.integers(0, 60, levels.shape), levels).astype(np.int16)
        box = update(growth, before, known, levels)
        np.testing.assert_array_equal(growth.key[INSIDE], Growth.start(levels, known, costs).key[INSIDE])
        differs = growth.key[INSIDE] != keys
        if box is not None:
            differs[box] = False
        assert not differs.any()


@pytest.mark.parametrize("seed", range(20))
def test_undo_restores_exactly(engine: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels, known, costs = volume(rng, 14)
    growth = Growth.start(levels, known, costs)
    keys, changed = growth.key.copy(), known.copy()
    paint(rng, changed, 2)
    update(growth, known, changed)
    update(growth, changed, known)
    np.testing.assert_array_equal(growth.key, keys)


def test_any_order_gives_the_same(engine: str) -> None:
    rng = np.random.default_rng(5)
    levels, known, costs = volume(rng, 20)
    at = np.argwhere(known >= 0)
    assert len(at)
    growth = Growth.start(levels, np.full_like(known, -1), costs)
    for part in np.array_split(rng.permutation(len(at)), 7):
        growth.update(at[part], known[tuple(at[part].T)])
    np.testing.assert_array_equal(growth.key, Growth.start(levels, known, costs).key)


@WITH_NUMBA
def test_numpy_begins_and_numba_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    assert compiled.warm_up()
    levels, known, costs = volume(rng, 20)
    with monkeypatch.context() as patch:
        patch.setattr(growing, "kernels", lambda: None)
        growth = Growth.start(levels, known, costs)
    changed = known.copy()
    paint(rng, changed, 1)
    update(growth, known, changed)
    np.testing.assert_array_equal(growth.key, Growth.start(levels, changed, costs).key)


def test_thousands_of_single_voxels(engine: str) -> None:
    rng = np.random.default_rng(7)
    levels = rng.integers(0, 300, (20, 30, 30)).astype(np.int16)
    before = np.full(levels.shape, -1, np.int16)
    before[10] = 0
    growth = Growth.start(levels, before, step_costs((4, 2, 2)))
    known = np.where(rng.random(levels.shape) < 0.2, rng.integers(0, 4, levels.shape), before).astype(np.int16)
    update(growth, before, known)
    np.testing.assert_array_equal(growth.key, Growth.start(levels, known, step_costs((4, 2, 2))).key)


def test_costs_are_never_free() -> None:
    assert step_costs((0.1, 0.1, 0.1))[13] == 0 and (np.delete(step_costs((0.1, 0.1, 0.1)), 13) == 1).all()


def test_tick_can_cancel(engine: str) -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        Growth.start(np.zeros((9, 9, 9), np.int16), np.zeros((9, 9, 9), np.int16), step_costs((1, 1, 1)), stop)
