"""What SimpleITK does for us: it resamples. It reads nothing that came from outside (`voxels` says why)."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from ..contract.geometry import Geometry


def resample(array: np.ndarray, grid: Geometry, onto: Geometry) -> tuple[np.ndarray, float]:
    """Voxels (K, J, I) of a grid at those of another, linearly, in their type; and the share of these that lie outside of it, where they have the
    least value."""
    filter_ = sitk.ResampleImageFilter()
    filter_.SetInterpolator(sitk.sitkLinear)
    filter_.SetSize([int(n) for n in onto.shape_kji[::-1]])
    filter_.SetOutputSpacing(onto.spacing_ijk_mm)
    filter_.SetOutputOrigin(onto.origin_lps_mm)
    filter_.SetOutputDirection(onto.direction)
    filter_.SetDefaultPixelValue(float(array.min()))
    return sitk.GetArrayFromImage(filter_.Execute(_image(array, grid))), _outside(grid, onto)


def _outside(grid: Geometry, onto: Geometry) -> float:
    """The share of voxels whose centre lies in no voxel of the other grid; plane by plane."""
    to_own = np.linalg.solve(grid.matrix, onto.matrix)
    i, j = np.meshgrid(np.arange(onto.shape_kji[2]), np.arange(onto.shape_kji[1]))
    within = 0
    for k in range(onto.shape_kji[0]):
        at = (row[0] * i + row[1] * j + (row[2] * k + row[3]) for row in to_own[:3])
        inside = [(place >= -0.5) & (place <= n - 0.5) for place, n in zip(at, grid.shape_kji[::-1], strict=True)]
        within += int(np.logical_and.reduce(inside).sum())
    return 1 - within / onto.voxels


def _image(array: np.ndarray, geometry: Geometry) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing_ijk_mm)
    image.SetOrigin(geometry.origin_lps_mm)
    image.SetDirection(geometry.direction)
    return image
