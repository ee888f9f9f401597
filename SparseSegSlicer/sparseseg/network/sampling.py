"""Where patches are taken: around labelled voxels only, each class as often as the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..contract.box import Box
from .unet import Triple

_MOST_PLACES = 4_000_000  # voxels that patch centres are drawn from


@dataclass(frozen=True)
class WorkingGrid:
    """The grid that the network works on, against the volume's own: the same box of space with fewer (or more) voxels along each axis.

    A coarser grid lets a patch see enough of the body to tell one organ from the next. Working voxel x covers own voxels from x * scale to
    (x + 1) * scale, so centres are at own = (x + 0.5) * scale - 0.5. Labels never leave their own grid: they are looked up there.
    """

    own_kji: Triple
    shape_kji: Triple

    @property
    def scale(self) -> np.ndarray:
        """Own voxels in a working voxel, (3,) float."""
        return np.array(self.own_kji) / np.array(self.shape_kji)

    def to_own(self, working: np.ndarray) -> np.ndarray:
        return (working + 0.5) * self.scale - 0.5

    def to_working(self, own: np.ndarray) -> np.ndarray:
        return (own + 0.5) / self.scale - 0.5

    def spacing(self, own_spacing_kji_mm: Sequence[float]) -> tuple[float, float, float]:
        """Millimetres between working voxels."""
        k, j, i = (float(s * f) for s, f in zip(own_spacing_kji_mm, self.scale, strict=True))
        return (k, j, i)


class PatchSampler:
    """Draws patch centres. Host-side only: the random numbers never wait for the device."""

    def __init__(self, shape_kji: Sequence[int], classes: int, weighing: int, strokes: int, stroke_share: float = 0.7) -> None:
        """weighing, strokes: about how many voxels of weight > 0 (pseudo-labels too), and labelled by the user, there will be; `add` says which.
        stroke_share: of the centres, drawn among those that the user labelled, the rest among all that weigh."""
        self._shape = tuple(shape_kji)
        self._all, self._strokes = _Places(self._shape, classes, weighing), _Places(self._shape, classes, strokes)
        self._stroke_share = stroke_share

    def add(self, box: Box, labels: np.ndarray, weighs: np.ndarray, strokes: np.ndarray) -> None:
        """What a box holds now: labels, uint8, and bool, all of the box. Places that were there stay: what a patch around them holds is looked up
        when it is taken."""
        self._all.add(box, labels, weighs)
        self._strokes.add(box, labels, strokes)

    def draw(self, rng: np.random.Generator, patch_kji: Triple, grid: WorkingGrid) -> tuple[float, float, float]:
        """A patch centre in working voxels: a labelled voxel of a class drawn at random, moved by up to a quarter of the patch, and inside of
        the volume as far as the patch fits."""
        places = (self._strokes if rng.random() < self._stroke_share else self._all).drawable
        voxel = grid.to_working(np.array(np.unravel_index(rng.choice(places[rng.integers(len(places))]), self._shape)))
        moved = voxel + rng.uniform(-0.25, 0.25, 3) * patch_kji
        k, j, i = (_centre(float(m), float(v), p, n) for m, v, p, n in zip(moved, voxel, patch_kji, grid.shape_kji, strict=True))
        return (k, j, i)


class _Places:
    """Flat indices of voxels, by class. Of very many (pseudo-labels of a whole volume) an even lattice is enough to draw from."""

    def __init__(self, shape_kji: Sequence[int], classes: int, expected: int) -> None:
        self._shape = tuple(shape_kji)
        self._step = max(1, math.ceil((expected / _MOST_PLACES) ** (1 / 3)))
        self._parts: list[list[np.ndarray]] = [[] for _ in range(classes)]

    def add(self, box: Box, labels: np.ndarray, chosen: np.ndarray) -> None:
        first = [-s.start % self._step for s in box]  # the lattice's first voxel in the box
        lattice = tuple(slice(a, None, self._step) for a in first)
        inside = np.nonzero(chosen[lattice])
        if not len(inside[0]):
            return
        values = labels[lattice][inside]
        at = tuple(axis * self._step + a + s.start for axis, a, s in zip(inside, first, box, strict=True))
        places = np.ravel_multi_index(at, self._shape)
        for c in np.unique(values):
            self._parts[c].append(places[values == c])

    @property
    def drawable(self) -> list[np.ndarray]:
        """Of the classes that have any."""
        for c, parts in enumerate(self._parts):
            if len(parts) > 1:
                self._parts[c] = [np.concatenate(parts)]
        return [parts[0] for parts in self._parts if parts]


def _centre(wanted: float, voxel: float, patch: int, size: int) -> float:
    """The patch's centre along one axis: inside of the volume as far as it fits, and shifted by less than a voxel so that the patch's lattice
    goes through the drawn voxel; on a coarse grid its label would often be stepped over."""
    centre = (size - 1) / 2 if patch >= size else float(np.clip(wanted, (patch - 1) / 2, size - 1 - (patch - 1) / 2))
    steps = voxel - (centre - (patch - 1) / 2)
    return centre + steps - round(steps)


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Starts of tiles that cover 0..size-1, neighbours overlapping by at least `overlap`; the last one ends at the border."""
    if tile >= size:
        return [0]
    count = -(-(size - overlap) // (tile - overlap))
    return [round(n * (size - tile) / (count - 1)) for n in range(count)]


def tile_cores(size: int, tile: int, overlap: int) -> list[tuple[int, int, int]]:
    """(start, first, last + 1): each tile's start, and the stretch that is its to decide; the stretches share no voxel and leave out none."""
    starts = tile_starts(size, tile, overlap)
    edges = [0, *((a + tile + b) // 2 for a, b in pairwise(starts)), size]
    return [(start, first, last) for start, first, last in zip(starts, edges, edges[1:], strict=False)]


def to_device(array: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy on the device, in this type."""
    return torch.from_numpy(np.array(array)).to(device=device, dtype=dtype)
