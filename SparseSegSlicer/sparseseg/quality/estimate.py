"""What annotation can be held out to judge the refiner by, and the Dice that users are told to expect of a result.

The annotation is split by the slices it was painted on: neighbouring voxels of one stroke on both sides would flatter whoever is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..annotation.slices import annotated_planes
from ..contract.scratch import Zeros

# offset, and weights of reverse Dice, of what is believed, and of agreement: fitted to development pairs (docs/accuracy.md)
SLICES, STROKES = (-0.458, 0.322, 0.338, 0.802), (-1.646, 0.465, 1.126, 1.111)
MIN_VOXELS = 20  # of a segment that must be labelled, for its own estimate


def split(labels: np.ndarray, labelled: np.ndarray, classes: int, zeros: Zeros = np.zeros) -> np.ndarray | None:
    """Voxels to hold out, bool (K, J, I), or None where the annotation is too little to spare any.

    labels (K, J, I) uint8, labelled bool, classes with background. Every second inner slice of each orientation is held out; every class
    that has labels keeps some, and at least one segment is among the held-out voxels. zeros makes the mask.
    """
    there = counted(labels, labelled, classes)
    for planes in (_annotated_planes(labelled), _blocks(labelled)):
        kept = [p for axis in planes for p in axis[0::2]]
        held = [p for axis in planes for p in axis[1::2]]
        if not held or not kept:
            continue
        mask = _union(held, labelled, zeros)
        taken = counted(labels, mask, classes)
        if ((there - taken > 0) == (there > 0)).all() and taken[1:].any():
            return mask
    return None


def _annotated_planes(labelled: np.ndarray) -> list[list[tuple[int, int, int]]]:
    """For each axis, the (axis, first, last + 1) of single slices that were painted on."""
    found = annotated_planes(labelled, factor=3.0)
    return [[(axis, index, index + 1) for a, index in found if a == axis] for axis in range(3)]


def _blocks(labelled: np.ndarray) -> list[list[tuple[int, int, int]]]:
    """For annotation that lies on no slices: five slabs along the axis in which it reaches farthest, with equally many labelled voxels."""
    counts = [labelled.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    axis = max(range(3), key=lambda a: np.ptp(np.flatnonzero(counts[a])) if counts[a].any() else 0)
    share = np.cumsum(counts[axis]) / max(1, counts[axis].sum())
    edges = [0, *(int(np.searchsorted(share, q)) + 1 for q in (0.2, 0.4, 0.6, 0.8)), len(share)]
    return [[(axis, a, b) for a, b in pairwise(edges) if b > a]]


def _union(planes: Sequence[tuple[int, int, int]], labelled: np.ndarray, zeros: Zeros) -> np.ndarray:
    mask = zeros(labelled.shape, bool)
    for axis, first, last in planes:
        box = tuple(slice(first, last) if a == axis else slice(None) for a in range(3))
        mask[box] |= labelled[box]
    return mask


def counted(labels: np.ndarray, where: np.ndarray, classes: int) -> np.ndarray:
    """How many voxels of a mask, (K, J, I) bool, carry each label, (classes,) int64; plane by plane."""
    return sum((np.bincount(values[there], minlength=classes) for values, there in zip(labels, where, strict=True)), np.zeros(classes, np.int64))


def dice(result: np.ndarray, truth: np.ndarray, value: int) -> float:
    """2 |A and B| / (|A| + |B|) of one label value; nan where neither has it."""
    a, b = result == value, truth == value
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


class Evidence:
    """Counted over voxels that nobody labelled, piece by piece: how sure a result is of each label, and how far growing and refiner agree on it."""

    def __init__(self, classes: int) -> None:
        self._confidences = np.zeros((classes, 256), np.int64)
        self._sizes, self._both = np.zeros(classes, np.int64), np.zeros(classes, np.int64)

    def count(self, result: np.ndarray, confidence: np.ndarray, grown: np.ndarray, refined: np.ndarray) -> None:
        """All (n,) uint8: the result's labels, 255 minus their uncertainty, and the labels of both voices."""
        classes = len(self._sizes)
        code = result.astype(np.int64) * 256 + confidence
        self._confidences += np.bincount(code, minlength=classes * 256).reshape(classes, 256)
        self._sizes += np.bincount(grown, minlength=classes) + np.bincount(refined, minlength=classes)
        self._both += np.bincount(grown[grown == refined], minlength=classes)

    def believed(self, value: int) -> float:
        """The Dice that the result itself expects of a label: 2 E / (n + E), n its voxels and E how many of them are right by their own uncertainty u
        (with two candidates a label is right with a chance of 1 - u / 510). 0 without any."""
        voxels = self._confidences[value]
        count = int(voxels.sum())
        right = count - float(voxels @ (255 - np.arange(256))) / 510
        return 2 * right / (count + right) if count else 0.0

    def agreement(self, value: int) -> float:
        """Dice of growing's label against the refiner's; 0 where neither has it."""
        return 2 * int(self._both[value]) / max(1, int(self._sizes[value]))


def expected(reverse: float, believed: float, agreement: float, has_slices: bool) -> float:
    """The Dice that a segment is expected to have where nobody labelled, from its reverse Dice (quality.reverse) and the evidence of both kinds.
    has_slices: whether there are complete slices; strokes lie where all is clear, and bring back little else."""
    weights = SLICES if has_slices else STROKES
    return float(np.clip(np.dot(weights, (1.0, reverse, believed, agreement)), 0, 1))
