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
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing_ijk_mm)
    image.SetOrigin(geometry.origin_lps_mm)
    image.SetDirection(geometry.direction)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    sitk.WriteImage(image, str(path), useCompression=True)
    written = sitk.ImageFileReader()
    written.SetFileName(str(path))
    written.ReadImageInformation()
    difference = _grid(written, path).difference_from(geometry)
    if difference:
        raise OSError(f"the format cannot hold the grid: {difference}")


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
