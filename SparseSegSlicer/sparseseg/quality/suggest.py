"""The next slice to annotate: where it would tell most that no annotated slice tells yet."""

from __future__ import annotations

import numpy as np

REACH = 0.1  # of an axis: how far an annotated slice speaks for its neighbours, falling to 1 / e


def next_slices(uncertainty: np.ndarray, labelled: np.ndarray | None, count: int = 5) -> list[list[int]]:
    """[axis, index] pairs, the most useful first, as if each was annotated before the next is chosen.

    uncertainty (K, J, I) uint8, labelled bool (K, J, I) or None. A slice speaks for another of its axis by exp(-distance / reach), an annotated
    one for as much as it is covered with labels. The gain of annotating a slice is the uncertainty of all slices of its axis, times how much
    better they are spoken for then (greedy facility location); over the root of its size, so that the axes of an anisotropic volume compete
    fairly. So the middle of a wide gap comes before the volume's edge and before the neighbour of an annotated slice. Where whole slices were
    annotated, the next is of the same orientation: growing and interpolation bridge gaps between parallel slices best.
    """
    axes = {axis: _Axis(*sums) for axis, sums in enumerate(zip(*_sums(uncertainty, labelled), strict=True))}
    if any(axis.has_slices for axis in axes.values()):
        axes = {number: axis for number, axis in axes.items() if axis.has_slices}
    chosen: list[list[int]] = []
    while len(chosen) < count:
        gains = {number: axis.gains() for number, axis in axes.items()}
        best = max(gains, key=lambda number: gains[number].max())
        index = int(gains[best].argmax())
        if gains[best][index] <= 0:
            break
        chosen.append([best, index])
        axes[best].annotate(index)
    return chosen


def _sums(uncertainty: np.ndarray, labelled: np.ndarray | None) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    """For each axis: the uncertainty of unlabelled voxels, summed over each slice, which share of it is labelled, (slices,) float64 both, and how
    many voxels it has. Plane by plane, so that nothing of the volume's size is made."""
    shape = uncertainty.shape
    areas = [uncertainty.size // n for n in shape]
    unsure, covered = ([np.zeros(n) for n in shape] for _ in range(2))
    for k, plane in enumerate(uncertainty):
        there = np.zeros(plane.shape, bool) if labelled is None else labelled[k]
        for sums, values in ((unsure, np.where(there, 0, plane)), (covered, there)):
            along = values.sum(axis=1, dtype=np.float64)
            sums[0][k] = along.sum()
            sums[1] += along
            sums[2] += values.sum(axis=0, dtype=np.float64)
    return unsure, [counts / area for counts, area in zip(covered, areas, strict=True)], areas


class _Axis:
    def __init__(self, unsure: np.ndarray, covered: np.ndarray, area: int) -> None:
        """unsure, covered: (slices,), see _sums; area: voxels of a slice."""
        size = len(unsure)
        places = np.arange(size)
        self._speaks = np.exp(-np.abs(places[:, None] - places[None]) / max(1.0, REACH * size))  # [slice, other slice]
        self._unsure = unsure / area**0.5
        self.has_slices = bool((covered > 0.5).any())
        self._spoken = (covered[:, None] * self._speaks).max(axis=0)
        self._free = (covered < 1) & (self._unsure > 0)

    def gains(self) -> np.ndarray:
        """(slices,) float; 0 for slices that have nothing to tell."""
        return np.where(self._free, np.maximum(self._speaks - self._spoken, 0) @ self._unsure, 0)

    def annotate(self, index: int) -> None:
        self._spoken = np.maximum(self._spoken, self._speaks[index])
        self._free[index] = False
