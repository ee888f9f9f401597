"""Exact Euclidean distance to a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from . import compiled


def distance_to(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """From each voxel to the nearest one of the mask, (K, J, I) bool, between centres, float32 in the unit of spacing (k, j, i); infinite where
    the mask is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    if (loops := compiled.loops()) is not None:
        out = np.empty(mask.shape, np.float32)
        loops.squared_distance(np.ascontiguousarray(mask, np.bool_), np.array(spacing, np.float64), out)
        return np.sqrt(out, out=out)
    volume = sitk.GetImageFromArray(mask.astype(np.uint8))
    volume.SetSpacing([float(s) for s in spacing[::-1]])
    signed = sitk.SignedMaurerDistanceMap(volume, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return np.maximum(sitk.GetArrayViewFromImage(signed), np.float32(0))
