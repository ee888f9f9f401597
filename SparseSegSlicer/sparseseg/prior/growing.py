"""Growing labels by geodesic distance, kept up to date stroke by stroke.

Each voxel takes the label of the seed from which the cheapest path of 26-neighbour steps leads to it, as Grow from seeds does (Zhu et al., An
effective interactive medical image segmentation method using fast GrowCut, MICCAI workshop 2014); a step costs |difference of levels| plus its
length. A voxel's key is distance << 8 | label: the least key wins, so that equal distances go to the smaller label and the answer depends on
the seeds only, not on the order in which they came. A seed's own key is its label, and every step costs at least 1, so keys below 256 are the
seeds.

First growth: raster sweeps (Toivanen, Pattern Recognition Letters 1996; Criminisi et al., GeoS, ECCV 2008), which leave a few voxels too far;
one pass finds these and everyone's parent, the neighbour that its path comes from, and a queue sets them right, brick by brick, as a queue over
a large volume waits for memory at every step. Update: what hangs from a removed seed (its subtree) is forgotten and filled again from its border,
new seeds spread as far as they are nearer; both by Dijkstra's algorithm with one bucket a distance (Dial, CACM 1969). Without numba: sweeps
until nothing changes, and an update grows anew.

Distances from 1 << 22 on count as not reached (the levels are 0..8000, so that takes hundreds of sharp borders); volumes below 1 << 32 voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..contract.box import Box
from .compiled import kernels
from .together import Tick

INSIDE = (slice(1, -1),) * 3
_FAR = 1 << 30  # the key of a voxel not reached
_SEED, _NONE, _DIRTY = 13, 27, 64  # as in kernels.py, which may not be importable
TOP_LEVEL = 8000  # levels are 0..TOP_LEVEL
_ROUNDS, _ENOUGH = 8, 0.05  # sweeps end after a round that changes fewer voxels than this: the queue is then quicker
_BLOCK = 1 << 16  # voxels of a plane at a time in numpy, so that they stay in the processor's cache
TOO_MANY = 0.05  # of the voxels: an update that changes more costs more than growing anew (1.5 us a voxel against 0.05)


def step_costs(edges: Sequence[float]) -> np.ndarray:
    """Of the 27 steps, (27,) int32, for voxel edges (k, j, i) in the unit of the levels; 1 at least, 0 for staying."""
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(27, 3)
    costs = np.maximum(1, np.round(np.linalg.norm(steps * np.asarray(edges, float), axis=1))).astype(np.int32)
    costs[_SEED] = 0
    return costs


@dataclass
class Growth:
    """levels: int16, key: int32, both padded by one voxel, (K + 2, J + 2, I + 2); parent: uint8 alike, None until it is needed; costs: (27,)
    int32, << 8."""

    levels: np.ndarray
    key: np.ndarray
    parent: np.ndarray | None
    costs: np.ndarray

    @classmethod
    def start(cls, levels: np.ndarray, known: np.ndarray, costs: np.ndarray, tick: Tick = lambda: None) -> Growth:
        """levels: (K, J, I) int16, 0..8000; known: (K, J, I) int16, -1 unlabelled, else 0..255; costs: see step_costs."""
        padded = np.pad(np.asarray(levels, np.int16), 1)
        key = np.full(padded.shape, _FAR, np.int32)
        np.copyto(key[INSIDE], known, where=known >= 0)
        growth = cls(padded, key, None, costs << 8)
        growth._grow(tick)
        return growth

    @property
    def label(self) -> np.ndarray:
        """(K, J, I) uint8; 0 where nothing is labelled at all."""
        return self.labels(tuple(slice(0, n - 2) for n in self.key.shape))  # type: ignore[arg-type]

    def labels(self, box: Box) -> np.ndarray:
        return (self._keys(box) & 255).astype(np.uint8)

    def distances(self, box: Box) -> np.ndarray:
        """(k, j, i) int32, in levels."""
        return self._keys(box) >> 8

    def _keys(self, box: Box) -> np.ndarray:
        return self.key[tuple(slice(s.start + 1, s.stop + 1) for s in box)]

    def update(self, voxels: np.ndarray, labels: np.ndarray, levels: np.ndarray | None = None, tick: Tick = lambda: None) -> Box | None:
        """Voxels, (n, 3) k, j, i, each once, now have labels, (n,) int16, -1 none, and levels, (n,) int16, where given.

        Returns a box outside of which no key changed, None where none did at all.
        """
        at = np.asarray(np.ravel_multi_index((np.asarray(voxels, np.int64).reshape(-1, 3) + 1).T, self.key.shape))
        key, gray = self.key.reshape(-1), self.levels.reshape(-1)
        wanted = np.where(labels >= 0, labels.astype(np.int32), _FAR)
        new_levels = gray[at] if levels is None else np.asarray(levels, np.int16)
        moved = (new_levels != gray[at]) | np.where(key[at] < 256, wanted != key[at], labels >= 0)
        at, wanted, new_levels = at[moved], wanted[moved], new_levels[moved]
        if not len(at):
            return None
        compiled = kernels()
        if compiled is not None and len(at) <= TOO_MANY * key.size:
            if self.parent is None:
                self._find_parents(compiled, tick)
            return self._mend(compiled, at, wanted, new_levels, tick)
        gray[at], key[at] = new_levels, wanted
        return self._anew(tick)

    def _mend(self, compiled: ModuleType, at: np.ndarray, wanted: np.ndarray, levels: np.ndarray, tick: Tick) -> Box | None:
        assert self.parent is not None
        gray, key, parent = self.levels.reshape(-1), self.key.reshape(-1), self.parent.reshape(-1)
        most, offsets = int(TOO_MANY * key.size) + 1000, self._offsets()
        # a new seed keeps what hangs from it, which can only become nearer; a changed label or level takes that along
        uprooted = (levels != gray[at]) | ((key[at] < 256) & (wanted > key[at]))
        lost = compiled.uproot(key, parent, offsets, at[uprooted], most)
        gray[at], key[at] = levels, np.where(uprooted | (wanted < key[at]), wanted, key[at])
        seeds = at[wanted < 256]
        if len(lost) > most:
            return self._anew(tick)
        parent[seeds] = _SEED
        border = compiled.pull(gray, key, parent, self.costs, offsets, lost[key[lost] == _FAR])
        starts = np.concatenate([border, seeds])
        turns, low, high = self._relax(compiled, starts, most)
        if turns > most:
            self._grow(tick)  # from the keys as they are
            return self._everything()
        touched = np.stack(np.unravel_index(np.concatenate([lost, at]), self.key.shape))
        low, high = np.minimum(low, touched.min(1)), np.maximum(high, touched.max(1))
        return (slice(int(low[0]) - 1, int(high[0])), slice(int(low[1]) - 1, int(high[1])), slice(int(low[2]) - 1, int(high[2])))

    def _everything(self) -> Box:
        k, j, i = self.key.shape
        return (slice(0, k - 2), slice(0, j - 2), slice(0, i - 2))

    def _anew(self, tick: Tick) -> Box:
        """From the seeds alone."""
        self.key[self.key >= 256] = _FAR
        self._grow(tick)
        return self._everything()

    def _grow(self, tick: Tick) -> None:
        """From keys that are each FAR or the length of some path, to the least."""
        compiled = kernels()
        _set_faces(self.key, _FAR)
        if compiled is None:
            self.parent = None
            while _sweep_in_numpy(self.levels, self.key, self.costs, tick):
                pass
            _set_faces(self.key, -1)
            return
        _sweep_compiled(compiled, self.levels, self.key, self.costs, tick)
        self._find_parents(compiled, tick)

    def _find_parents(self, compiled: ModuleType, tick: Tick) -> None:
        _set_faces(self.key, _FAR)
        parent = np.full(self.key.shape, _SEED, np.uint8)
        compiled.settle(self.levels.reshape(-1), self.key.reshape(-1), parent.reshape(-1), self.costs, self._offsets(), *self.key.shape)
        self.parent = parent
        tick()
        starts = np.flatnonzero(parent & _DIRTY)
        parent.reshape(-1)[starts] -= _DIRTY
        _set_faces(self.key, -1)  # nothing goes out of the volume
        for part in _bricks(starts, self.key.shape):
            self._relax(compiled, part, self.key.size * 64)
            tick()

    def _relax(self, compiled: ModuleType, starts: np.ndarray, most: int) -> tuple[int, np.ndarray, np.ndarray]:
        assert self.parent is not None
        key = self.key.reshape(-1)
        starts = starts[np.argsort(key[starts], kind="stable")]
        buckets = 1 << (TOP_LEVEL + int(self.costs.max() >> 8)).bit_length()
        return compiled.relax(  # type: ignore[no-any-return]
            self.levels.reshape(-1), key, self.parent.reshape(-1), self.costs, self._offsets(), starts, buckets, *self.key.shape[1:], most
        )

    def _offsets(self) -> np.ndarray:
        _, rows, columns = self.key.shape
        return np.array([(k * rows + j) * columns + i for k in (-1, 0, 1) for j in (-1, 0, 1) for i in (-1, 0, 1)], np.int64)


def _bricks(starts: np.ndarray, shape: Sequence[int]) -> list[np.ndarray]:
    """Split by where they are, so that what one part touches fits a processor's cache."""
    k, j, i = np.unravel_index(starts, shape)
    brick = (k // 16 * shape[1] + j // 32) * shape[2] + i // 64
    order = np.argsort(brick, kind="stable")
    return np.split(starts[order], np.flatnonzero(np.diff(brick[order])) + 1)


def _set_faces(key: np.ndarray, value: int) -> None:
    for axis in range(3):
        turned = np.moveaxis(key, axis, 0)
        turned[0] = turned[-1] = value


def _sweep_compiled(compiled: ModuleType, levels: np.ndarray, key: np.ndarray, costs: np.ndarray, tick: Tick) -> None:
    """Rounds along every axis, there and back; keys come out too great for some voxels."""
    cube = costs.reshape(3, 3, 3)
    planes, rows, columns = key.shape
    turned_levels, turned = np.empty((columns, planes, rows), np.int16), np.empty((columns, planes, rows), np.int32)
    compiled.turn(levels, turned_levels.transpose(1, 2, 0))
    for _ in range(_ROUNDS):
        before = key[::16].copy()
        tick()
        compiled.sweep(levels.reshape(-1), key.reshape(-1), cube[0].copy(), planes, rows * columns, rows, columns, columns)
        tick()
        compiled.sweep(levels.reshape(-1), key.reshape(-1), cube[:, 0].copy(), rows, columns, planes, rows * columns, columns)
        tick()
        compiled.turn(key, turned.transpose(1, 2, 0))
        compiled.sweep(turned_levels.reshape(-1), turned.reshape(-1), cube[:, :, 0].copy(), columns, planes * rows, planes, rows, rows)
        compiled.turn(turned.transpose(1, 2, 0), key)
        if (key[::16] != before).mean() < _ENOUGH:
            return


def _sweep_in_numpy(levels: np.ndarray, key: np.ndarray, costs: np.ndarray, tick: Tick) -> bool:
    """One round along every axis, there and back, whole planes at a time; whether anything changed. Faces are FAR before and after."""
    before = key.copy()
    for axis in range(3):
        gray, turned = (np.ascontiguousarray(np.moveaxis(v, axis, 0)) for v in (levels, key))
        steps = np.moveaxis(costs.reshape(3, 3, 3), axis, 0)[0].reshape(-1)
        _sweep_planes(gray, turned, steps, tick)
        key[:] = np.moveaxis(turned, 0, axis)
        _set_faces(key, _FAR)
    return bool((key != before).any())


def _sweep_planes(gray: np.ndarray, key: np.ndarray, steps: np.ndarray, tick: Tick) -> None:
    planes, rows, columns = gray.shape
    levels, keys = gray.reshape(planes, -1).astype(np.int32) << 8, key.reshape(planes, -1)
    moves = [((m // 3 - 1) * columns + m % 3 - 1, int(cost)) for m, cost in enumerate(steps)]
    first, last = columns + 1, (rows - 1) * columns - 1
    inner = np.zeros((rows, columns), bool)  # a row's ends are neighbours of the next row's: what runs over them is taken back
    inner[1:-1, 1:-1] = True
    edge = ~inner.reshape(-1)
    for before, here in [(p - 1, p) for p in range(2, planes - 1)] + [(p + 1, p) for p in range(planes - 3, 0, -1)]:
        tick()
        for start in range(first, last, _BLOCK):
            stop = min(start + _BLOCK, last)
            nearest, level = keys[here, start:stop], levels[here, start:stop]
            for offset, cost in moves:
                path = np.abs(levels[before, start + offset : stop + offset] - level)
                path += keys[before, start + offset : stop + offset]
                path += cost
                np.minimum(nearest, path, out=nearest)
        keys[here][edge] = _FAR
