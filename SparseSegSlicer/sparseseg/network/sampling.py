"""Where the network learns: on the slices that were painted on, each as a whole, on a working grid that fits the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..annotation.slices import covering_slices
from ..contract.box import Box, intersection, shape_of, whole
from ..contract.scratch import is_huge
from .unet import Triple, triple

_FRESH_SHARE = 0.5  # of the samples, that come from the slices of the last correction
_FRESH_DRAWS = 60  # after a correction


@dataclass(frozen=True)
class WorkingGrid:
    """The grid that the network works on: a box of the volume with as many or fewer voxels along each axis.

    A coarser grid lets a slice be seen whole, which is what tells one organ from the next. Working voxel x covers own voxels from x * scale to
    (x + 1) * scale of the box, so centres are at own = (x + 0.5) * scale - 0.5. Labels never leave their own grid: they are looked up there.
    """

    volume_kji: Triple
    box: Box
    shape_kji: Triple

    @classmethod
    def of_whole(cls, volume_kji: Triple, shape_kji: Triple) -> WorkingGrid:
        return cls(volume_kji, whole(volume_kji), shape_kji)

    @property
    def own_kji(self) -> Triple:
        """Own voxels of the box."""
        return shape_of(self.box)

    @property
    def scale(self) -> np.ndarray:
        """Own voxels in a working voxel, (3,) float."""
        return np.array(self.own_kji) / np.array(self.shape_kji)

    def spacing(self, own_spacing_kji_mm: Sequence[float]) -> tuple[float, float, float]:
        """Millimetres between working voxels."""
        k, j, i = (float(s * f) for s, f in zip(own_spacing_kji_mm, self.scale, strict=True))
        return (k, j, i)

    def slice_of(self, axis: int, index: int) -> int:
        """The working slice that holds an own slice of the box."""
        return min(int((index - self.box[axis].start + 0.5) / self.scale[axis]), self.shape_kji[axis] - 1)

    def own_slices(self, axis: int) -> np.ndarray:
        """The own slice, counted in the volume, in the middle of each working slice, (n,) int."""
        middles = (np.arange(self.shape_kji[axis]) + 0.5) * self.scale[axis] - 0.5
        return self.box[axis].start + np.clip(np.round(middles), 0, self.own_kji[axis] - 1).astype(np.int64)


class SliceSampler:
    """Draws slices to learn from. Host-side only: the random numbers never wait for the device."""

    def __init__(self, labelled: np.ndarray, box: Box) -> None:
        """labelled: bool (K, J, I), what to learn from; box: the part of the volume that the network works on."""
        self.slices: list[tuple[int, int]] = []
        self._fresh: list[tuple[int, int]] = []
        self._left = 0
        self.look(labelled, box)

    def look(self, labelled: np.ndarray, box: Box, changed: Sequence[Box] = ()) -> None:
        """Take the slices anew from what is labelled now: the few that together hold it. changed: boxes of corrections, whose slices come first
        for a while."""
        if changed and is_huge(labelled.shape):  # the rest is not looked at again
            within = [both for each in changed if (both := intersection(each, box)) is not None]
            self.slices = sorted({*self.slices, *(found for both in within for found in _covering(labelled, both))})
        else:
            self.slices = _covering(labelled, box)
        if changed:
            self._fresh = sorted({found for each in changed for found in _flattest(self._through(each), each)})
            self._left = _FRESH_DRAWS

    def _through(self, box: Box) -> list[tuple[int, int]]:
        return [(axis, index) for axis, index in self.slices if box[axis].start <= index < box[axis].stop]

    @property
    def orientations(self) -> list[int]:
        """The axes across which slices were painted on."""
        return sorted({axis for axis, _ in self.slices})

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """(axis, index) of a slice, each as often as the others, but for those of the last correction."""
        slices = self.slices
        if self._left > 0:
            self._left -= 1
            if self._fresh and rng.random() < _FRESH_SHARE:
                slices = self._fresh
        return slices[int(rng.integers(len(slices)))]


def _covering(labelled: np.ndarray, box: Box) -> list[tuple[int, int]]:
    return [(axis, index + box[axis].start) for axis, index in covering_slices(labelled[box])]


def _flattest(slices: list[tuple[int, int]], changed: Box) -> list[tuple[int, int]]:
    """Those across the axis along which the change is thinnest: a stroke lies on a slice, and crosses many others as a dot."""
    sizes = {axis: s.stop - s.start for axis, s in enumerate(changed) if any(a == axis for a, _ in slices)}
    return [(axis, index) for axis, index in slices if sizes and axis == min(sizes, key=lambda a: sizes[a])]


def shape_at(own_kji: Sequence[int], spacing_kji_mm: Sequence[float], wanted_kji_mm: Sequence[float]) -> Triple:
    """The shape of the grid on which a volume has about this spacing."""
    return triple(max(1, round(n * own / wanted)) for n, own, wanted in zip(own_kji, spacing_kji_mm, wanted_kji_mm, strict=True))


def working_shape(own_kji: Sequence[int], spacing_kji_mm: Sequence[float], pixels: int, voxels: int) -> Triple:
    """The finest grid, as near to cubes as own voxels allow, whose slices of every orientation have at most `pixels` and that has at most
    `voxels`; own voxels are never split. All of them where they fit."""
    own, spacing = np.array(own_kji), np.array(spacing_kji_mm, dtype=float)

    def at(finest_mm: float) -> np.ndarray:
        return np.clip(np.ceil(own * np.minimum(1.0, spacing / finest_mm)), 1, own).astype(np.int64)

    def fits(shape: np.ndarray) -> bool:
        return math.prod(shape.tolist()) <= voxels and math.prod(sorted(shape.tolist())[1:]) <= pixels

    low, high = float(spacing.min()), float((own * spacing).max())
    if fits(at(low)):
        return triple(own)
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if fits(at(middle)) else (middle, high)
    return triple(at(high))
