"""MetaImage, .mha in one file and .mhd with the voxels in another."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..contract.geometry import Geometry
from . import itk
from .nrrd import check_beside


def is_metaimage(head: bytes) -> bool:
    """The first line names the kind of object or the number of dimensions."""
    return head.lstrip()[:40].split(b"=")[0].strip() in (b"ObjectType", b"NDims", b"Comment", b"ObjectSubType")


def read(path: Path) -> tuple[np.ndarray, Geometry]:
    """Voxels (K, J, I) and their grid. Raises InputError."""
    data = _data_file(path)
    if data and data.upper() not in ("LOCAL", "LIST") and "%" not in data:
        check_beside(path, data)
    return itk.read(path, "MetaImageIO")


def _data_file(path: Path) -> str:
    """What the header's last line says."""
    with path.open("rb") as file:
        for _ in range(1000):
            line = file.readline(1 << 16)
            name, mark, value = line.decode("utf-8", errors="replace").partition("=")
            if not line or (mark and name.strip() == "ElementDataFile"):
                return value.strip()
    return ""
