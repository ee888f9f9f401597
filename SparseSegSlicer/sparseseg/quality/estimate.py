"""Quality from annotation held out of training: what we tell the user, and how far the network is trusted against the prior.

The annotation is split by the slices it was painted on (neighbouring voxels of one stroke on both sides would flatter the network). The
first part of a run trains without the held-out slices; there, network and prior are compared on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from ..annotation.slices import annotated_planes
from ..contract.belief import Belief

TRUSTED = 0.5  # with which a certain network overrules the prior, and a certain prior an unsure network
REFINED_DOUBT = (4.0, 6.0)  # times as wrong as a refined prior believes to be; few held-out voxels move it no farther
GROWN_DOUBT = (1 / 3, 3.0)  # the same of a prior that is not refined
MIN_VOXELS = 20  # of a segment among the held-out ones, for its own estimate


def split(labels: np.ndarray, labelled: np.ndarray, classes: int) -> np.ndarray | None:
    """Voxels to hold out, bool (K, J, I), or None where the annotation is too little to spare any.

    labels (K, J, I) uint8, labelled bool, classes with background. Every second inner slice of each orientation is held out; every class
    that has labels keeps some, and at least one segment is among the held-out voxels.
    """
    there = _found(labels[labelled], classes)
    for planes in (_annotated_planes(labelled), _blocks(labelled)):
        kept = [p for axis in planes for p in axis[0::2]]
        held = [p for axis in planes for p in axis[1::2]]
        if not held or not kept:
            continue
        mask = _union(held, labelled)
        rest = labelled & ~mask
        if (_found(labels[rest], classes) == there).all() and (labels[mask] > 0).any():
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


def _found(values: np.ndarray, classes: int) -> np.ndarray:
    """(classes,) bool: the classes that are among the values, (n,) uint8."""
    return np.bincount(values, minlength=classes) > 0


def dice(result: np.ndarray, truth: np.ndarray, value: int) -> float:
    """2 |A and B| / (|A| + |B|) of one label value; nan where neither has it."""
    a, b = result == value, truth == value
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def expected_dice(result: np.ndarray, uncertainty: np.ndarray, value: int) -> float:
    """The Dice of one label value that the result itself expects: 2 E / (n + E), n its voxels and E how many of them are right by their own
    uncertainty (uint8, 0 sure .. 255 two labels alike: with two candidates a label is right with a chance of 1 - u / 510). nan without voxels.
    """
    return expected_dice_of(np.bincount(255 - uncertainty[result == value], minlength=256))


def expected_dice_of(voxels: np.ndarray) -> float:
    """expected_dice of a label with so many voxels of each confidence (255 minus uncertainty), (256,); nan without any."""
    count = int(voxels.sum())
    right = count - float(voxels @ (255 - np.arange(256))) / 510
    return 2 * right / (count + right) if count else float("nan")


def confidences(belief: Belief, labelled: np.ndarray, classes: int, tick: Callable[[], None] = lambda: None) -> np.ndarray:
    """How many voxels that nobody labelled have each label and confidence, (classes, 256) int64; plane by plane."""
    counts = np.zeros(classes * 256, np.int64)
    for label, confidence, known in zip(belief.label, belief.confidence, labelled, strict=True):
        tick()
        code = label.astype(np.int64) * 256 + confidence
        counts += np.bincount(code[~known], minlength=len(counts))
    return counts.reshape(classes, 256)


def overconfidence(found: float, expected: float, limits: tuple[float, float] = REFINED_DOUBT) -> float:
    """How many times as wrong as it expected to be the prior was on held-out annotation, within the limits.

    Held-out Dice itself says too little: it is that of a result made from fewer slices, often half of them, on few voxels. What carries over to
    the result from all annotation is how far its confidence can be believed. Without anything expected (nan) it is not believed at all.
    """
    ratio = (1 - found) / (1 - expected + 1e-3)
    return float(np.clip(ratio, *limits)) if np.isfinite(ratio) else limits[1]


def choose_trust(network: dict[int, float], prior: dict[int, float], classes: int) -> np.ndarray:
    """The trust in the network for each class, (classes,) float32: TRUSTED where its held-out Dice is above what the prior is estimated to reach
    with all annotation, else none. network, prior: Dice by segment value, of those segments that held-out annotation says enough about.

    Held-out Dice of both are no fair match: without the held-out slices the prior has gaps twice as wide to bridge, and loses more by it.
    Background goes with the segments' mean.
    """
    trust = np.zeros(classes, np.float32)
    for c in network:
        trust[c] = TRUSTED if network[c] > prior[c] else 0
    if network:
        trust[0] = trust[list(network)].mean()
    return trust
