"""Quality from annotation held out of training: what we tell the user, and how far the network is trusted against the prior.

The annotation is split by the slices it was painted on (neighbouring voxels of one stroke on both sides would flatter the network). The
first part of a run trains without the held-out slices; there, network and prior are compared on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .annotation import annotated_planes

TRUST_GRID = (0.0, 0.3, 0.4, 0.5, 0.6)  # above 0.5 a certain network overrules a certain prior
DEFAULT_TRUST = 0.5  # up to here the network overrules the prior only where that is unsure; also where nothing can be held out
_DOUBT = 0.02  # Dice that a trust far from the default must gain, per unit of distance
_OWN_GAIN = 0.03  # Dice that a segment's own trust must gain for it over the common one
_MIN_VOXELS = 20  # of a segment among the held-out ones, for its own estimate


def split(labels: np.ndarray, labelled: np.ndarray, classes: int) -> np.ndarray | None:
    """Voxels to hold out, bool (K, J, I), or None where the annotation is too little to spare any.

    labels (K, J, I) uint8, labelled bool, classes with background. Every second inner slice of each orientation is held out; every class
    keeps labels, and at least one segment is among the held-out voxels.
    """
    for planes in (_annotated_planes(labelled), _blocks(labelled)):
        kept = [p for axis in planes for p in axis[0::2]]
        held = [p for axis in planes for p in axis[1::2]]
        if not held or not kept:
            continue
        mask = _union(held, labelled)
        rest = labelled & ~mask
        if _has_all(labels[rest], classes) and (labels[mask] > 0).any():
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


def _union(planes: Sequence[tuple[int, int, int]], labelled: np.ndarray) -> np.ndarray:
    mask = np.zeros(labelled.shape, bool)
    for axis, first, last in planes:
        box = tuple(slice(first, last) if a == axis else slice(None) for a in range(3))
        mask[box] |= labelled[box]
    return mask


def _has_all(values: np.ndarray, classes: int) -> bool:
    return bool((np.bincount(values, minlength=classes) > 0).all())


def dice(result: np.ndarray, truth: np.ndarray, value: int) -> float:
    """2 |A and B| / (|A| + |B|) of one label value; nan where neither has it."""
    a, b = result == value, truth == value
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def choose_trust(probabilities: np.ndarray, belief: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, dict[int, float]]:
    """The trust for each class, (C,) in 0..1, and the Dice of each segment with it, from n held-out voxels.

    probabilities (C, n) float, the network's; belief (C, n) float, the prior's; truth (n,) uint8. First one trust for all, then each segment
    its own where that gains more than _OWN_GAIN. Few held-out voxels say little, so DEFAULT_TRUST stands unless another is clearly better.
    """
    classes = len(probabilities)
    counted = [c for c in range(1, classes) if (truth == c).sum() >= _MIN_VOXELS]
    if not counted:
        return np.full(classes, DEFAULT_TRUST, np.float32), {}

    def quality(trust: np.ndarray) -> np.ndarray:
        label = (belief + trust[:, None] * (probabilities - belief)).argmax(0)
        return np.array([dice(label, truth, c) for c in counted])

    by_trust = {t: quality(np.full(classes, t, np.float32)) for t in TRUST_GRID}
    network_wins = quality(np.ones(classes, np.float32)) >= by_trust[0.0]
    allowed = [t for t in TRUST_GRID if t <= DEFAULT_TRUST or network_wins.mean() >= 0.5]
    trust = np.full(classes, max(allowed, key=lambda t: by_trust[t].mean() - _DOUBT * abs(t - DEFAULT_TRUST)), np.float32)
    for c, wins in zip(counted, network_wins, strict=True):
        options = [np.where(np.arange(classes) == c, t, trust).astype(np.float32) for t in TRUST_GRID if t <= DEFAULT_TRUST or wins]
        best = max(options, key=lambda option: quality(option).mean())
        if quality(best).mean() > quality(trust).mean() + _OWN_GAIN / len(counted):
            trust = best
    if quality(trust).mean() < by_trust[0.0].mean() - _DOUBT * DEFAULT_TRUST:
        trust = np.zeros(classes, np.float32)
    return trust, dict(zip(counted, (float(v) for v in quality(trust)), strict=True))
