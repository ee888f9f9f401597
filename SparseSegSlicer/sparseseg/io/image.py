"""The one form in which every image file is known inside: voxels, their grid, and what was noticed while reading."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contract.geometry import Geometry
from .dicomseries import Series


@dataclass(frozen=True)
class Image:
    """`array` (K, J, I), `geometry` its grid; `remarks`: what the user should know of the file, in sentences.

    `series` where it is DICOM; `nifti`, the header, where it is NIfTI, so that a result can be written with the very same transforms.
    """

    array: np.ndarray
    geometry: Geometry
    remarks: tuple[str, ...] = ()
    series: Series | None = None
    nifti: bytes = b""
