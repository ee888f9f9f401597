"""NRRD images, .nrrd in one file and .nhdr with the voxels in others; why not by ITK is said in `voxels`. What is read is understood as ITK does."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from ..contract.errors import InputError, SparseSegError
from ..contract.geometry import Geometry
from ..contract.opening import open_file
from ..contract.store import IN_MEMORY, Store
from . import refusals, voxels
from .output import Outgoing, damaged, deflated, unreadable

_PACKINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "ascii": "text", "text": "text", "txt": "text", "hex": "hex"}
_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    **dict.fromkeys(("float",), "f4"),
    **dict.fromkeys(("double",), "f8"),
}
_NAMES = {  # of types, as ITK and Slicer write them
    **{"i1": "signed char", "u1": "unsigned char", "i2": "short", "u2": "unsigned short", "i4": "int", "u4": "unsigned int"},
    **{"i8": "long long int", "u8": "unsigned long long int", "f4": "float", "f8": "double"},
}
_ORDERS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
_SPACES = {  # the signs by which axes become LPS; in other spaces numbers are taken as they are
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1.0, -1.0, 1.0)),
}
_OF_SPACE = ("", "???", "none", "domain", "space", "time")  # kinds of axes along which voxels lie; along others lie the values of one
MOST_HEADER_BYTES, _MOST_LINES = 16_000_000, 100_000
_MOST_AXES = 16
_SAVE_AGAIN = "Save it again from the program that made it."


@dataclass(frozen=True)
class Header:
    """fields: `name: value`, names in small letters without blanks; pairs: `key:=value`, unescaped, in their order; listed: the names of files after
    `data file: LIST`; end: where the voxels begin in the file itself."""

    fields: dict[str, str]
    pairs: dict[str, str]
    listed: tuple[str, ...]
    end: int


def is_nrrd(head: bytes) -> bool:
    return head.startswith(b"NRRD000")


def read(path: Path, layered: bool = False, store: Store = IN_MEMORY) -> tuple[np.ndarray, Geometry]:
    """Voxels (K, J, I) or, `layered`, (K, J, I, layer), and their grid. Raises InputError, and what the store does."""
    try:
        with open_file(path) as file:
            header = read_header(file, path)
            packing = _packing(header, path)
            sizes, of_space = _axes(header)
            _check(header, [sizes[axis] for axis in of_space], math.prod(sizes) // math.prod(sizes[axis] for axis in of_space), path, layered)
            geometry = _geometry(header, sizes, of_space, path)
            array = _read_voxels(path, file, header, packing, voxels.shape_of(sizes), store)
    except (OSError, EOFError, LookupError, ValueError, ArithmeticError, zlib.error) as error:
        if isinstance(error, SparseSegError):
            raise
        raise unreadable(path, error) from error
    last = len(sizes) - 1
    values = [last - axis for axis in range(len(sizes)) if axis not in of_space]  # array axes
    array = array.transpose([last - axis for axis in reversed(of_space)] + values)
    array = array.reshape(*(array.shape[-3 - len(values) : len(array.shape) - len(values)]), -1)
    return (array if layered else array[..., 0]), geometry


def read_header(file: IO[bytes], path: Path) -> Header:
    """From the file's beginning on. Raises InputError for one without end."""
    lines: list[bytes] = []
    size = 0
    while line := file.readline(MOST_HEADER_BYTES):
        size += len(line)
        if size >= MOST_HEADER_BYTES or len(lines) > _MOST_LINES:
            raise InputError(f"The header of {path.name} has no end within {MOST_HEADER_BYTES // 1_000_000} MB or {_MOST_LINES} lines.", _SAVE_AGAIN)
        line = line.rstrip(b"\n").removesuffix(b"\r")
        if not line:
            break
        lines.append(line)
    try:
        text = [line.decode("utf-8") for line in lines[1:]]
    except UnicodeDecodeError:
        text = [line.decode("latin-1") for line in lines[1:]]
    return _header(text, size)


def _header(text: list[str], size: int) -> Header:
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for n, line in enumerate(text):
        key, mark, value = line.partition(":=")
        if line.startswith("#"):
            continue
        if mark and ": " not in key:
            pairs[_unescaped(key)] = _unescaped(value)
            continue
        key, mark, value = line.partition(": ")
        name = key.lower().replace(" ", "")
        if mark:
            fields[name] = value.strip()
        if mark and name == "datafile" and value.strip().upper().startswith("LIST"):
            return Header(fields, pairs, tuple(line.strip() for line in text[n + 1 :]), size)  # the header's last line
    return Header(fields, pairs, (), size)


def _unescaped(text: str) -> str:
    return re.sub(r"\\[\\n]", lambda found: "\n" if found[0] == "\\n" else "\\", text)


# ---------------------------------------------------------------- the grid


def _packing(header: Header, path: Path) -> str:
    encoding = header.fields.get("encoding", "raw").lower()
    if encoding not in _PACKINGS:
        name = {"bz2": "bzip2"}.get(encoding, encoding)
        raise InputError(f"{path.name} is compressed by {name:.40}, which is not read.", "Save it compressed by gzip, or uncompressed.")
    return _PACKINGS[encoding]


def _axes(header: Header) -> tuple[list[int], list[int]]:
    """The sizes of all axes, and which of them lie in space. Raises ValueError."""
    sizes = [int(word) for word in header.fields["sizes"].split()] if "sizes" in header.fields else []
    if not 1 <= len(sizes) <= _MOST_AXES or int(header.fields.get("dimension", len(sizes))) != len(sizes):
        raise ValueError(f"{len(sizes)} sizes")
    voxels.shape_of(sizes)
    kinds = header.fields.get("kinds", "").lower().split() or [""] * len(sizes)
    of_space = [axis for axis, kind in zip(range(len(sizes)), kinds, strict=True) if kind in _OF_SPACE]
    if len(sizes) - len(of_space) > 1 or not of_space:
        raise ValueError("several values of several kinds")
    return sizes, of_space


def _check(header: Header, sizes: list[int], values: int, path: Path, layered: bool) -> None:
    """sizes: along the axes in space; values: of each voxel. Raises InputError for what is no 3-D grey image."""
    if header.fields.get("type", "").lower() not in _TYPES:
        raise damaged(path)
    if len(sizes) == 4 and sizes[3] > 1:
        raise refusals.four_dimensions(path, sizes[3])
    if len(sizes) not in (3, 4):
        raise refusals.not_three_dimensions(path, len(sizes))
    if "complex" in header.fields.get("kinds", "").lower().split():
        raise refusals.complex_numbers(path)
    if layered:
        return
    if values > 1:
        raise refusals.many_values(path, values)
    if min(sizes[:3]) < 2:
        raise refusals.one_slice(path, sizes[:3])


def _geometry(header: Header, sizes: list[int], of_space: list[int], path: Path) -> Geometry:
    """Of the first three axes in space. Raises InputError, ValueError."""
    dimensions = _dimensions(header)
    signs = np.ones(dimensions)
    signs[:3] = _SPACES.get(header.fields.get("space", "").lower(), (1.0, 1.0, 1.0))[:dimensions]
    matrix = np.eye(max(4, len(of_space) + 1))
    last = len(matrix) - 1
    if dimensions:
        if dimensions != len(of_space):
            raise ValueError(f"{dimensions} dimensions of {len(of_space)} axes")
        directions = _vectors(header.fields.get("spacedirections", ""), len(sizes), dimensions)
        for place, axis in enumerate(of_space):
            if (direction := directions[axis]) is not None:
                matrix[:dimensions, place] = direction * signs
        origin = _vectors(header.fields.get("spaceorigin", "none"), 1, dimensions)[0]
        matrix[:dimensions, last] = 0.0 if origin is None else origin * signs
    else:
        for place, axis in enumerate(of_space):
            matrix[place, place], matrix[place, last] = _spaced(header, axis, sizes)
    chosen = [0, 1, 2, last]
    try:
        return Geometry(tuple(sizes[axis] for axis in reversed(of_space[:3])), tuple(map(tuple, matrix[np.ix_(chosen, chosen)])))  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{path.name}: {error.sentence}", error.advice) from error


def _dimensions(header: Header) -> int:
    """Of the space that the image lies in; 0 where it says none. Raises ValueError."""
    if "spacedimension" in header.fields:
        found = int(header.fields["spacedimension"])
        if not 1 <= found <= _MOST_AXES:
            raise ValueError(f"space dimension {found}")
        return found
    space = header.fields.get("space", "").lower()
    return 0 if not space else 4 if space.endswith("time") or (len(space) == 4 and space.endswith("t")) else 3


def _vectors(text: str, count: int, length: int) -> list[np.ndarray | None]:
    """`(1,0,0) none ...`; one with "nan" counts as none. Raises ValueError."""
    found: list[np.ndarray | None] = []
    for none, numbers in re.findall(r"(none)|\(([^()]*)\)", text.lower()):
        vector = None if none else np.array([float(number) for number in numbers.split(",")])
        if vector is not None and len(vector) != length:
            raise ValueError(f"a vector of {len(vector)} numbers")
        found.append(vector if vector is not None and np.isfinite(vector).all() else None)
    if text and len(found) != count:
        raise ValueError(f"{len(found)} vectors")
    return found or [None] * count


def _spaced(header: Header, axis: int, sizes: list[int]) -> tuple[float, float]:
    """Spacing and first place along an axis of an image in no space."""
    spacing, low, high = (_number_of(header, name, axis, sizes) for name in ("spacings", "axismins", "axismaxs"))
    at_nodes = (header.fields.get("centers", header.fields.get("centerings", "")).lower().split() or [""] * len(sizes))[axis] == "node"
    given = math.isfinite(spacing)
    if not math.isfinite(low) or not (given or math.isfinite(high)):
        return (spacing if given else 1.0), 0.0
    step = spacing if given else (high - low) / (sizes[axis] - at_nodes)
    return (spacing if given else 1.0), low + (0.0 if at_nodes else step / 2)


def _number_of(header: Header, name: str, axis: int, sizes: list[int]) -> float:
    """Raises ValueError."""
    words = header.fields.get(name, "").split() or ["nan"] * len(sizes)
    if len(words) != len(sizes):
        raise ValueError(f"{len(words)} {name}")
    return float(words[axis])


# ---------------------------------------------------------------- the voxels


def _read_voxels(path: Path, file: IO[bytes], header: Header, packing: str, shape: tuple[int, ...], store: Store) -> np.ndarray:
    """Raises InputError, EOFError, ValueError."""
    dtype = np.dtype(_TYPES[header.fields["type"].lower()])
    if dtype.itemsize > 1 and packing != "text":
        dtype = dtype.newbyteorder(_ORDERS[header.fields.get("endian", "").lower()])
    names = list(_data_files(header))
    if not names:
        return voxels.read(path, _skipped(file, header, packing, math.prod(shape) * dtype.itemsize), dtype, shape, packing, store=store)
    parts = [voxels.beside(path, name) for name in names]
    return voxels.read_parts(path, parts, dtype, shape, packing, lambda data, size: _skipped(data, header, packing, size), store)


def _data_files(header: Header) -> Iterator[str]:
    named = header.fields.get("datafile", "")
    if header.listed or named.upper().startswith("LIST"):
        yield from header.listed
    elif "%" in named:
        yield from voxels.numbered(named)
    elif named:
        yield named


def _skipped(file: IO[bytes], header: Header, packing: str, size: int) -> IO[bytes]:
    """The stream where the voxels begin; size: their bytes. Raises ValueError."""
    lines, skip = int(header.fields.get("lineskip", 0)), int(header.fields.get("byteskip", 0))
    if not 0 <= lines <= _MOST_LINES or skip < -1 or (skip and packing != "raw"):
        raise ValueError(f"skips {lines} lines, {skip} bytes")
    for _ in range(lines):
        file.readline(MOST_HEADER_BYTES)
    file.seek(-size, 2) if skip == -1 else file.seek(skip, 1)
    return file


# ---------------------------------------------------------------- out


def write(path: Path, outgoing: Outgoing, geometry: Geometry, more: Sequence[str] = ()) -> None:
    """A file of an image (K, J, I), packed as it is written; more: further lines of the header. Raises OSError."""
    dtype = np.dtype(outgoing.dtype).newbyteorder("<")
    text = "\n".join([*_lines(outgoing.shape, dtype, geometry), *more, "", ""])
    with path.open("wb") as file:
        file.write(text.encode("utf-8", errors="replace"))
        file.writelines(deflated(slab.astype(dtype, copy=False) for slab in outgoing))


def _lines(shape_kji: Sequence[int], dtype: np.dtype, geometry: Geometry) -> list[str]:
    def vector(numbers: Any) -> str:
        return "(" + ",".join(repr(float(v)) for v in numbers) + ")"

    return [
        "NRRD0004",
        f"type: {_NAMES[dtype.str[1:]]}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, shape_kji[::-1])),
        "space directions: " + " ".join(vector(column) for column in geometry.matrix[:3, :3].T),
        "kinds: domain domain domain",
        *(["endian: little"] if dtype.itemsize > 1 else []),
        "encoding: gzip",
        "space origin: " + vector(geometry.origin_lps_mm),
    ]
