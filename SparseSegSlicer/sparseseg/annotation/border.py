"""A border term in the weight map, as in Ronneberger et al., U-Net, MICCAI 2015, eq. 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..contract.box import slabs, whole, within
from ..contract.scratch import Zeros
from .labels import Annotation
from .slices import neighbours


def add_border_weight(annotation: Annotation, spacing_kji_mm: Sequence[float], weight: float, width_mm: float, zeros: Zeros = np.zeros) -> Annotation:
    """The same annotation with weight * exp(-d^2 / (2 width^2)) added to w of every labelled voxel (Ronneberger et al. 2015, eq. 2).

    d: the distance in mm, between voxel centres, to the nearest border voxel of any class. A border voxel is a labelled voxel that shares a
    face with a labelled voxel of another class, so it gets all of `weight` itself. The paper adds the distances to two borders; strokes
    seldom show two. Distances are exact; from 3 widths on nothing is added. w is neither scaled nor cut afterwards. zeros makes the array.
    """
    shape, reach = annotation.labels.shape, int(3 * width_mm / spacing_kji_mm[0]) + 1
    border, sums = zeros(shape, np.float32), np.zeros(len(annotation.rows))
    for slab in slabs(whole(shape)):
        there = annotation.labelled[slab]
        if there.any():
            around = (slice(max(0, slab[0].start - reach), min(shape[0], slab[0].stop + reach)), *slab[1:])
            found = _border(annotation.labels[around], annotation.labelled[around], spacing_kji_mm, weight, width_mm)
            border[slab] = found[within(slab, around)]
            sums += np.bincount(annotation.labels[slab][there], border[slab][there], minlength=len(sums))
    rows = tuple(replace(row, weight=row.weight + float(sums[c])) for c, row in enumerate(annotation.rows))
    return replace(annotation, rows=rows, border=border)


def _border(labels: np.ndarray, labelled: np.ndarray, spacing_kji_mm: Sequence[float], weight: float, width_mm: float) -> np.ndarray:
    """What is added to w, (k, j, i) float32; right for voxels 3 widths within the part, or at the volume's own faces."""
    far = np.float32((3 * width_mm) ** 2)
    squared = np.full(labels.shape, far, np.float32)
    for axis in range(3):
        low, high = neighbours(axis)
        touch = labelled[low] & labelled[high] & (labels[low] != labels[high])
        squared[low][touch] = 0
        squared[high][touch] = 0
    for axis, spacing in enumerate(spacing_kji_mm):
        squared = _lower_envelope(squared, axis, spacing, 3 * width_mm)
    return np.where(labelled & (squared < far), np.float32(weight) * np.exp(-squared / np.float32(2 * width_mm**2)), np.float32(0))


def _lower_envelope(squared: np.ndarray, axis: int, spacing_mm: float, reach_mm: float) -> np.ndarray:
    """One pass of a separable Euclidean distance transform, cut off at reach_mm (Felzenszwalb and Huttenlocher 2012, by brute force)."""
    result = squared.copy()
    for step in range(1, min(squared.shape[axis], int(reach_mm / spacing_mm) + 1)):
        low, high = neighbours(axis, step)
        cost = np.float32((step * spacing_mm) ** 2)
        np.minimum(result[low], squared[high] + cost, out=result[low])
        np.minimum(result[high], squared[low] + cost, out=result[high])
    return result
