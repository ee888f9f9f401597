"""MetaImage, .mha in one file and .mhd with the voxels in others; why not by ITK is said in `voxels`. What is read is understood as ITK does."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ..contract.errors import InputError, SparseSegError
from ..contract.geometry import Geometry
from ..contract.opening import open_file
from ..contract.store import IN_MEMORY, Store
from . import refusals, voxels
from .output import ZLIB, Outgoing, deflated, unreadable

_FIRST = (b"ObjectType", b"NDims", b"Comment", b"ObjectSubType")
_TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4", "MET_LONG": "i4"},
    **{"MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}
_MOST_LINES, _LONGEST_LINE, _MOST_AXES = 1000, 1 << 16, 10
_DATA = "ElementDataFile"


def is_metaimage(head: bytes) -> bool:
    """The first line names the kind of object or the number of dimensions."""
    return head.lstrip()[:40].split(b"=")[0].strip() in _FIRST


def read(path: Path, store: Store = IN_MEMORY) -> tuple[np.ndarray, Geometry]:
    """Voxels (K, J, I) and their grid. Raises InputError, and what the store does."""
    try:
        with open_file(path) as file:
            fields = _fields(file)
            sizes = [int(word) for word in fields.get("DimSize", "").split()]
            axes = int(fields["NDims"])
            if not 1 <= axes <= _MOST_AXES or len(sizes) < axes or fields.get("ObjectType", "Image") != "Image":
                raise ValueError(f"{axes} dimensions")
            sizes = sizes[:axes]
            dtype = np.dtype(_TYPES[fields["ElementType"]]).newbyteorder(">" if _is_big(fields) else "<")
            _check(fields, sizes, path)
            geometry = _geometry(fields, sizes, path)
            array = _read_voxels(path, file, fields, dtype, voxels.shape_of(sizes), store)
    except (OSError, EOFError, LookupError, ValueError, ArithmeticError, zlib.error) as error:
        if isinstance(error, SparseSegError):
            raise
        raise unreadable(path, error) from error
    return array.reshape(array.shape[-3:]), geometry


def _fields(file: IO[bytes]) -> dict[str, str]:
    """The header's lines `Name = value`, of which the last one says where the voxels are. Raises ValueError where there is none such."""
    fields: dict[str, str] = {}
    for _ in range(_MOST_LINES):
        name, mark, value = file.readline(_LONGEST_LINE).decode("utf-8", errors="replace").partition("=")
        if mark:
            fields[name.strip()] = value.strip()
        if mark and name.strip() == _DATA:
            return fields
    raise ValueError("a header without end")


def _first(fields: dict[str, str], *names: str, default: str = "") -> str:
    """What the first of these fields says that is there: MetaImage has several names for one."""
    return next((fields[name] for name in names if name in fields), default)


def _is_true(text: str) -> bool:
    return text[:1] in ("T", "t", "1")


def _is_big(fields: dict[str, str]) -> bool:
    return _is_true(_first(fields, "ElementByteOrderMSB", "BinaryDataByteOrderMSB"))


def _check(fields: dict[str, str], sizes: list[int], path: Path) -> None:
    """Raises InputError for what is no 3-D grey image."""
    values = int(fields.get("ElementNumberOfChannels", 1))
    if len(sizes) == 4 and sizes[3] > 1:
        raise refusals.four_dimensions(path, sizes[3])
    if len(sizes) not in (3, 4):
        raise refusals.not_three_dimensions(path, len(sizes))
    if values != 1:
        raise refusals.many_values(path, values)
    if min(voxels.shape_of(sizes)[-3:]) < 2:
        raise refusals.one_slice(path, sizes[:3])


def _geometry(fields: dict[str, str], sizes: list[int], path: Path) -> Geometry:
    """Raises InputError, ValueError."""
    axes = len(sizes)
    spacing = _numbers(_first(fields, "ElementSpacing", "ElementSize"), axes) or [1.0] * axes
    origin = _numbers(_first(fields, "Offset", "Position", "Origin"), axes) or [0.0] * axes
    turn = _numbers(_first(fields, "TransformMatrix", "Rotation", "Orientation"), axes * axes)
    directions = np.array(turn).reshape(axes, axes).T if turn else np.eye(axes)  # an axis after the other in the file, each a column here
    try:
        return Geometry.from_axes(sizes[2::-1], spacing[:3], origin[:3], directions[:3, :3].ravel())  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{path.name}: {error.sentence}", error.advice) from error


def _numbers(text: str, count: int) -> list[float]:
    """So many of them, or none. Raises ValueError."""
    found = [float(word) for word in text.split()[:count]]
    if found and len(found) < count:
        raise ValueError(f"{len(found)} numbers")
    return found


def _read_voxels(path: Path, file: IO[bytes], fields: dict[str, str], dtype: np.dtype, shape: tuple[int, ...], store: Store) -> np.ndarray:
    """Raises InputError, EOFError, ValueError."""
    binary = _is_true(fields.get("BinaryData", "True"))
    packing = "text" if not binary else "gzip" if _is_true(fields.get("CompressedData", "False")) else "raw"
    dtype = dtype if binary else dtype.newbyteorder("=")
    skip = int(fields.get("HeaderSize", 0))
    if skip < -1:
        raise ValueError(f"skips {skip} bytes")

    def skipped(data: IO[bytes], size: int) -> IO[bytes]:
        if skip:
            data.seek(-size, 2) if skip == -1 else data.seek(skip)
        return data

    if fields[_DATA].upper() == "LOCAL":
        return voxels.read(path, skipped(file, math.prod(shape) * dtype.itemsize), dtype, shape, packing, store=store)
    parts = [voxels.beside(path, name) for name in _data_files(file, fields, shape)]
    return voxels.read_parts(path, parts, dtype, shape, packing, skipped, store)


def _data_files(file: IO[bytes], fields: dict[str, str], shape: tuple[int, ...]) -> Iterator[str]:
    named = fields[_DATA]
    if named.upper().startswith("LIST"):
        for _ in range(math.prod(shape[:-2])):
            if not (line := file.readline(_LONGEST_LINE)):
                return
            yield line.decode("utf-8", errors="replace").strip()
    elif "%" in named:
        yield from voxels.numbered(named)
    elif named:
        yield named


# ---------------------------------------------------------------- out

_SIZE = "CompressedDataSize = {:020d}"


def write(path: Path, outgoing: Outgoing, geometry: Geometry) -> None:
    """A file of an image (K, J, I), packed as it is written. Raises OSError."""
    dtype = np.dtype(outgoing.dtype).newbyteorder("<")
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        _SIZE.format(0),
        "TransformMatrix = " + _text(np.array(geometry.direction).reshape(3, 3).T.ravel()),
        "Offset = " + _text(geometry.origin_lps_mm),
        "CenterOfRotation = 0 0 0",
        "ElementSpacing = " + _text(geometry.spacing_ijk_mm),
        "DimSize = " + " ".join(map(str, outgoing.shape[::-1])),
        f"ElementType = {next(name for name, code in _TYPES.items() if code == dtype.str[1:])}",
        f"{_DATA} = LOCAL",
        "",
    ]
    head = "\n".join(lines).encode("ascii")
    with path.open("wb") as file:
        file.write(head)
        file.writelines(deflated((slab.astype(dtype, copy=False) for slab in outgoing), ZLIB))
        size = file.tell() - len(head)
        file.seek(head.index(_SIZE[:18].encode("ascii")))  # which is known now
        file.write(_SIZE.format(size).encode("ascii"))


def _text(numbers: Iterable[float]) -> str:
    return " ".join(repr(float(v)) for v in numbers)
