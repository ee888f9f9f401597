"""Further volumes of the same anatomy as channels of an image: on the image's grid, and of the same patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..contract import memory
from ..contract.errors import InputError
from ..contract.geometry import Geometry
from ..contract.store import IN_MEMORY, Store
from . import itk
from .dicomidentity import check_same_patient
from .files import kind_of, read_volume
from .image import Image

_MUCH = 0.01  # of the image: less outside of another volume is a rim that nobody misses


def read_channel(path: Path, image: Image, transform: str = "auto", other_patient: bool = False, store: Store = IN_MEMORY) -> Image:
    """Another volume on the grid of `image`, resampled linearly where it lies on another; a file or a DICOM series as in read_volume, of whose NIfTI
    transforms `transform` chooses. What lies outside of it has its least value.

    Raises InputError as read_volume does, for a volume that does not reach the image, and for DICOM of another patient or frame of reference, unless
    `other_patient`.
    """
    path = Path(path)
    volume = read_volume(path, transform=transform if kind_of(path) == "nifti" else "auto", store=store, onto=image.geometry)
    remarks = [*volume.remarks, *check_same_patient(path, volume.series, image.series, other_patient)]
    array, more = onto_grid(path.name, volume.array, volume.geometry, image.geometry)
    return Image(array, image.geometry, (*remarks, *more), volume.series)


def onto_grid(name: str, array: np.ndarray, grid: Geometry, onto: Geometry) -> tuple[np.ndarray, tuple[str, ...]]:
    """Voxels (K, J, I) of a grid on another, and what is to be said of that: as they are where the grids are the same, else resampled linearly. What
    lies outside has the least value. Raises InputError for a volume that does not reach the other grid."""
    if not grid.difference_from(onto):
        return array, ()
    memory.check(name, memory.resampling_bytes(array.shape, onto.shape_kji, array.itemsize), "be resampled")
    resampled, outside = itk.resample(array, grid, onto)
    if outside == 1 or resampled.min() == resampled.max():
        raise InputError(f"{name} shows nothing where the image lies.", "Choose a volume of the same region, registered to the image.")
    remarks = [f"{name} lies on another grid; it was resampled to the image's (linear)."]
    if outside > _MUCH:
        remarks.append(f"{_percent(outside)} of the image lie outside of {name}; they have its least value there ({np.min(array):g}).")
    return resampled, tuple(remarks)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
