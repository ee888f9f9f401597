"""What NRRD and MetaImage share: SimpleITK reads and writes their voxels."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..contract.errors import InputError
from ..contract.geometry import Geometry
from . import refusals
from .output import unreadable


def read(path: Path, image_io: str, layered: bool = False) -> tuple[np.ndarray, Geometry]:
    """Voxels (K, J, I), or (K, J, I, layer) where `layered`, and their grid; refused by the header before voxels are read.

    image_io: ITK's name of the format, so that the file's name does not matter. Raises InputError.
    """
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what matters is raised below, in words
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _check_header(reader, path, layered)
        image = reader.Execute()
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    image = image[:, :, :, 0] if image.GetDimension() == 4 else image
    array = sitk.GetArrayFromImage(image)
    return (array[..., None] if layered and array.ndim == 3 else array), _grid(image, path)


def write(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Raises OSError where the format cannot hold the grid, RuntimeError where ITK fails."""
    image = _image(array, geometry)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    sitk.WriteImage(image, str(path), useCompression=True)
    written = sitk.ImageFileReader()
    written.SetFileName(str(path))
    written.ReadImageInformation()
    difference = _grid(written, path).difference_from(geometry)
    if difference:
        raise OSError(f"the format cannot hold the grid: {difference}")


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


def _check_header(reader: sitk.ImageFileReader, path: Path, layered: bool) -> None:
    size = reader.GetSize()
    if len(size) == 4 and size[3] > 1:
        raise refusals.four_dimensions(path, size[3])
    if len(size) not in (3, 4):
        raise refusals.not_three_dimensions(path, len(size))
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise refusals.complex_numbers(path)
    if layered:
        return
    if reader.GetNumberOfComponents() > 1:
        raise refusals.many_values(path, reader.GetNumberOfComponents())
    if min(size[:3]) < 2:
        raise refusals.one_slice(path, size[:3])


def _grid(image: sitk.Image | sitk.ImageFileReader, path: Path) -> Geometry:
    try:
        return Geometry.from_axes(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    except InputError as error:
        raise InputError(f"{path.name}: {error.sentence}", error.advice) from error
