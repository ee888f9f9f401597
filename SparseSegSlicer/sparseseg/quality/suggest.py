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
    unsure = uncertainty if labelled is None else np.where(labelled, 0, uncertainty)
    axes = {axis: _Axis(unsure, labelled, axis) for axis in range(3)}
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


class _Axis:
    def __init__(self, unsure: np.ndarray, labelled: np.ndarray | None, axis: int) -> None:
        others = tuple(a for a in range(3) if a != axis)
        size = unsure.shape[axis]
        places = np.arange(size)
        self._speaks = np.exp(-np.abs(places[:, None] - places[None]) / max(1.0, REACH * size))  # [slice, other slice]
        self._unsure = unsure.sum(axis=others, dtype=np.float64) / (unsure.size / size) ** 0.5
        covered = np.zeros(size) if labelled is None else labelled.mean(axis=others)
        self.has_slices = bool((covered > 0.5).any())
        self._spoken = (covered[:, None] * self._speaks).max(axis=0)
        self._free = (covered < 1) & (self._unsure > 0)

    def gains(self) -> np.ndarray:
        """(slices,) float; 0 for slices that have nothing to tell."""
        return np.where(self._free, np.maximum(self._speaks - self._spoken, 0) @ self._unsure, 0)

    def annotate(self, index: int) -> None:
        self._spoken = np.maximum(self._spoken, self._speaks[index])
        self._free[index] = False
