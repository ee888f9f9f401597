"""NRRD images, .nrrd in one file and .nhdr with the voxels in others. The header is looked at here, so that what is wrong gets its true name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..contract.errors import InputError
from ..contract.geometry import Geometry
from . import itk

_READ = ("raw", "gzip", "gz", "ascii", "text", "txt", "hex")


def is_nrrd(head: bytes) -> bool:
    return head.startswith(b"NRRD000")


def read(path: Path, layered: bool = False) -> tuple[np.ndarray, Geometry]:
    """Voxels (K, J, I) or, `layered`, (K, J, I, layer), and their grid. Raises InputError."""
    fields = _fields(path)
    encoding = fields.get("encoding", "raw").lower()
    if encoding not in _READ:
        name = {"bz2": "bzip2"}.get(encoding, encoding)
        raise InputError(f"{path.name} is compressed by {name}, which is not read.", "Save it compressed by gzip, or uncompressed.")
    data = fields.get("data file", fields.get("datafile", ""))
    if data and "%" not in data and not data.upper().startswith("LIST"):
        check_beside(path, data)
    return itk.read(path, "NrrdImageIO", layered)


def check_beside(path: Path, data: str) -> None:
    """Raises InputError where the file that holds the voxels of `path` is not there."""
    if not (path.parent / data).is_file():
        raise InputError(f"{path.name} needs {Path(data).name}, which is not beside it.", "Copy both files into one folder, or save as one file.")


def _fields(path: Path) -> dict[str, str]:
    """The `field: value` lines of the header."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while line := file.readline(1 << 16).strip():
            name, mark, value = line.decode("utf-8", errors="replace").partition(": ")
            if mark:
                fields[name.strip().lower()] = value.strip()
    return fields
