"""Volumes of microscopes and computers that do not know a patient: .npy, TIFF (one file of many pages, or a folder of numbered ones) and Zarr.

They say how large voxels are, or not even that, and never which way is left: their axes are taken as left, posterior, superior. TIFF and Zarr are
read by their own libraries, in a process of its own (`stacking`), and come from there as a stream.
"""

from __future__ import annotations

import json
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..contract.child import isolated, patience
from ..contract.errors import InputError, SparseSegError
from ..contract.geometry import Geometry
from ..contract.memory import volume_bytes
from ..contract.opening import check_file, open_file
from ..contract.store import Store
from . import refusals, voxels
from .output import damaged, unreadable

NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PROGRAM = Path(__file__).with_name("stacking.py")
_PATIENCE_S, _SLOWEST = 30.0, 1_000_000  # seconds for any header; bytes a second that the slowest disk and decoder make
_LONGEST_HEAD = 1 << 20
_SAME_SPACING = 0.01  # microscopes' programs round
_NUMBERED = re.compile(r"(.*?)(\d+)\.tiff?", re.IGNORECASE | re.ASCII)
_PIECE = 1 << 20
_UNREADABLE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, ArithmeticError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),  # numpy evaluates an array's header as Python text
)


@dataclass(frozen=True)
class Taking:
    """What the user says of a file that does not say it: spacing in mm along x, y, z (i, j, k), or one for all; and what of it is meant: "level", and
    an index on each further axis ("c", "t")."""

    spacing_mm: tuple[float, ...] = ()
    select: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, spacing: str, select: str) -> Taking:
        """'0.01' or '0.01,0.01,0.05', and 'level=1,c=0'. Raises InputError."""
        try:
            numbers = tuple(float(word) for word in spacing.split(",")) if spacing else ()
            if len(numbers) not in (0, 1, 3) or not all(0 < v < float("inf") for v in numbers):
                raise ValueError(spacing)
        except ValueError as error:
            raise InputError(f"--spacing {spacing!r:.80} is no size of a voxel.", "Give mm along x, y, z: 0.01,0.01,0.05, or one number.") from error
        pairs = [part.partition("=") for part in select.split(",")] if select else []
        if not all(name in ("level", "c", "t") and value.isdigit() for name, _, value in pairs):
            raise InputError(f"--select {select!r:.80} is not understood.", "Give level, channel and time point, from 0, as level=1,c=0,t=0.")
        return cls(numbers, {name: int(value) for name, _, value in pairs})


# ---------------------------------------------------------------- which it is


def kind_of(head: bytes) -> str:
    """ "npy", "tiff" or nothing, by a file's first bytes. (A DICOM file may begin like a TIFF.)"""
    if head.startswith(NPY):
        return "npy"
    return "tiff" if head[:4] in _TIFF and head[128:132] != b"DICM" else ""


def kind_of_folder(path: Path) -> str:
    """ "zarr", "tiffs" or nothing."""
    if any((path / name).exists() for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray")):
        return "zarr"
    with suppress(OSError):
        names = [place.name for place in path.iterdir() if not place.name.startswith(".")]
        if 2 * sum(name.lower().endswith((".tif", ".tiff")) for name in names) > len(names):
            return "tiffs"
    return ""


def _slices(folder: Path) -> list[Path]:
    """The numbered files of a folder, in their order. Raises InputError where it is not one series without gaps."""
    found: dict[int, Path] = {}
    names = set()
    for path in folder.iterdir():
        if path.name.lower().endswith((".tif", ".tiff")) and not path.name.startswith("."):
            match = _NUMBERED.fullmatch(path.name)
            if match is None:
                raise InputError(f"{path.name:.60} in {folder.name} ends in no number.", "Number the slices in their order.")
            names.add(match[1])
            check_file(path)
            found[int(match[2])] = path
    if len(names) > 1:
        listed = ", ".join(f"{name:.40}..." for name in sorted(names)[:3])
        raise InputError(f"{folder.name} holds slices of several names ({listed}).", "Put each series into a folder of its own.")
    numbers = sorted(found)
    steps = {b - a for a, b in pairwise(numbers)}
    if len(steps) > 1:
        after = next(a for a, b in pairwise(numbers) if b - a > min(steps))
        raise InputError(f"A slice is missing in {folder.name} after {found[after].name:.60}.", "Fetch it, or number the slices without gaps.")
    return [found[number] for number in numbers]


# ---------------------------------------------------------------- in


def read(path: Path, kind: str, store: Store, taking: Taking, onto: Geometry | None = None) -> tuple[np.ndarray, Geometry, list[str]]:
    """Voxels (K, J, I), their grid, and remarks. kind: "npy", "tiff", "tiffs" or "zarr"; onto: the image's grid, on which an array of its shape lies.

    Raises InputError, also where nobody says how large voxels are, and what the store does.
    """
    try:
        if kind == "npy":
            return *_npy(path, store, taking, onto), []
        places = _slices(path) if kind == "tiffs" else [path]
        with _Reading(path, kind, places, taking) as reading:
            head = reading.head()
            geometry = _placed(path, head["shape"], head["spacing"], head["origin"], taking, onto)
            array = store.keep(path.name, geometry.shape_kji, np.dtype(head["dtype"]), reading.voxels(head))
        return array, geometry, [str(remark) for remark in head["remarks"]]
    except _UNREADABLE as error:
        if isinstance(error, SparseSegError):
            raise
        raise unreadable(path, error) from error


def _npy(path: Path, store: Store, taking: Taking, onto: Geometry | None) -> tuple[np.ndarray, Geometry]:
    with open_file(path) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, turned, dtype = header(file)
        if dtype.kind not in "iufb" or dtype.itemsize > 8:
            raise InputError(f"{path.name} has elements of a type that is not read ({dtype!s:.40}).", "Save it as whole numbers or float32.")
        if taking.select:
            raise InputError(f"{path.name} has no axis to choose on.", "Leave --select out.")
        geometry = _placed(path, shape, None, None, taking, onto)
        inside = np.dtype(np.uint8) if dtype.kind == "b" else dtype
        array = voxels.read(path, file, inside, shape[::-1] if turned else shape, "raw", store=store)
    return (array.T if turned else array), geometry


def _placed(path: Path, shape: Sequence[int], spacing: Any, origin: Any, taking: Taking, onto: Geometry | None) -> Geometry:
    """shape, spacing, origin: along (k, j, i), as the file has them. Raises InputError."""
    if len(shape) != 3:
        raise refusals.not_three_dimensions(path, len(shape))
    if min(shape) < 2:
        raise refusals.one_slice(path, shape[::-1])
    if onto is not None and tuple(shape) == onto.shape_kji and (spacing is None or np.allclose(spacing, onto.spacing_kji_mm, rtol=_SAME_SPACING)):
        return onto
    given = taking.spacing_mm * 3 if len(taking.spacing_mm) == 1 else taking.spacing_mm
    steps = given or (spacing[::-1] if spacing is not None else ())
    if not steps and onto is not None:
        sizes = [" x ".join(map(str, numbers)) for numbers in (shape, onto.shape_kji)]
        sentence = f"{path.name} does not lie on the image's grid: {sizes[0]} voxels instead of {sizes[1]} (k x j x i)."
        raise InputError(sentence, "Draw or resample it on the image.")
    if not steps:
        raise InputError(f"{path.name} does not say how large its voxels are.", "Give that in mm: --spacing X,Y,Z, or one number for all.")
    return Geometry.from_axes(shape, steps, (0, 0, 0) if origin is None else origin[::-1])


class _Reading:
    """The process that reads, and what comes from it."""

    def __init__(self, path: Path, kind: str, places: Sequence[Path], taking: Taking) -> None:
        self._path, self._kind = path, kind
        options = {"kind": kind, "name": path.name, "select": dict(taking.select)}
        self._places, self._options = [str(place.absolute()) for place in places], options

    def __enter__(self) -> _Reading:
        self._process = isolated(_PROGRAM, json.dumps(self._options), cwd=_PROGRAM.parent)
        with suppress(OSError):
            self._stream(self._process.stdin).write(json.dumps(self._places).encode("ascii"))  # too long for a command line, where there are many
            self._stream(self._process.stdin).close()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                self._stream(pipe).close()
        self._process.wait()

    @staticmethod
    def _stream(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe

    @contextmanager
    def _watched(self, size: int = 0) -> Iterator[IO[bytes]]:
        """Its output, for so many bytes; one that is silent for too long is ended."""
        with patience(self._process, _PATIENCE_S + size / _SLOWEST):
            yield self._stream(self._process.stdout)

    def head(self) -> dict[str, Any]:
        """Raises InputError with what it refused, ValueError where it said nothing."""
        with self._watched() as out:
            head = json.loads(out.readline(_LONGEST_HEAD))
        if "refusal" in head:
            raise InputError(*head["refusal"])
        if np.dtype(head["dtype"]).kind not in "iuf" or not all(type(n) is int for n in head["shape"]):
            raise damaged(self._path)
        return dict(head)

    def voxels(self, head: dict[str, Any]) -> Iterator[np.ndarray]:
        """Raises EOFError."""
        dtype = np.dtype(head["dtype"]).newbyteorder("<")
        left = volume_bytes(head["shape"], dtype.itemsize)
        with self._watched(left) as out:
            while left:
                piece = out.read(min(left, _PIECE))
                if not piece or len(piece) % dtype.itemsize:
                    raise EOFError(f"{self._path} ends too early")
                yield np.frombuffer(piece, dtype)
                left -= len(piece)
