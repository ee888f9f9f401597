"""Shape-based interpolation between complete slices, and signed distances."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import SimpleITK as sitk

from .together import Tick

REACH = 4.0  # voxels (of the shortest edge) over which the say of interpolation falls to 1 / e


def interpolate(known: np.ndarray, spacing_mm: Sequence[float], tick: Tick = lambda: None) -> tuple[np.ndarray, np.ndarray | None]:
    """Shape-based interpolation between slices that are labelled throughout (Raya and Udupa, IEEE Trans. Medical Imaging 1990).

    known: (K, J, I) int16, -1 unlabelled. Between two such slices of one axis each segment's signed distance (mm, in the plane) is blended
    linearly; the deepest segment wins, background where there is none. Returns labels, (K, J, I) uint8, and weights, (K, J, I) float32: near 1
    beside a complete slice, falling with the distance, 0 on it and outside; None where no axis has two complete slices with others between.
    Where several axes have them, the nearest slice decides.
    """
    label, weight = np.zeros(known.shape, np.uint8), np.zeros(known.shape, np.float32)
    for axis in range(3):
        turned, labels, weights = (np.moveaxis(volume, axis, 0) for volume in (known, label, weight))
        whole = [int(p) for p in np.flatnonzero((turned >= 0).all(axis=(1, 2)))]
        in_plane_mm = [s for a, s in enumerate(spacing_mm) if a != axis]
        for a, b in itertools.pairwise(whole):
            for p, between in _between(turned, a, b, in_plane_mm, tick):
                near = np.float32(np.exp(-min(p - a, b - p) * spacing_mm[axis] / (REACH * min(spacing_mm))))
                labels[p] = np.where(near > weights[p], between, labels[p])
                weights[p] = np.maximum(weights[p], near)
    return label, weight if weight.any() else None


def _between(known: np.ndarray, a: int, b: int, in_plane_mm: Sequence[float], tick: Tick) -> Iterator[tuple[int, np.ndarray]]:
    """The slices between the complete ones a and b of the first axis: index and labels, uint8."""
    depths = {}
    for value in np.union1d(known[a], known[b]):
        if value > 0 and b > a + 1:
            depths[int(value)] = _depth_pair(known[a] == value, known[b] == value, in_plane_mm)
            tick()
    for p in range(a + 1, b):
        tick()
        deepest, winner = np.zeros(known.shape[1:], np.float32), np.zeros(known.shape[1:], np.uint8)
        for value, (one, other) in depths.items():
            depth = one + np.float32((p - a) / (b - a)) * (other - one)
            winner[depth > deepest] = value
            np.maximum(deepest, depth, out=deepest)
        yield p, winner


def _depth_pair(one: np.ndarray, other: np.ndarray, in_plane_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances, mm, inside positive, of one segment on two slices. Missing on one, it shrinks to its core halfway."""
    if not one.any():
        return _depth_pair(other, one, in_plane_mm)[::-1]
    depth = _depth(one, in_plane_mm)
    return depth, _depth(other, in_plane_mm) if other.any() else np.minimum(depth, 0) - depth.max()


def _depth(mask: np.ndarray, in_plane_mm: Sequence[float]) -> np.ndarray:
    return signed_distance(mask, in_plane_mm) + np.float32(0.5 * min(in_plane_mm))  # the border runs half a voxel outside of the outermost voxels


def signed_distance(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """From each voxel to the outermost voxels of the mask (2-D or 3-D, not empty), between centres, float32 in the unit of spacing (the array's
    order): positive inside, 0 in those voxels, negative outside."""
    volume = sitk.GetImageFromArray(mask.astype(np.uint8))
    volume.SetSpacing([float(s) for s in spacing[::-1]])
    return sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(volume, insideIsPositive=True, squaredDistance=False, useImageSpacing=True))
