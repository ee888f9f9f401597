"""Files that a user asked for: written whole or not at all."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import stat
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from uuid import uuid4

import numpy as np

from ..contract.errors import InputError, OutputError, PackageError
from ..contract.folders import patiently
from ..contract.memory import amount, volume_bytes
from ..contract.store import slabs

COPY_AGAIN = "Copy or export the file again."
WRITE_SUFFIXES = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha", ".dcm", ".npy", ".tif", ".tiff", ".zarr")
PLAIN_SUFFIXES = tuple(known for known in WRITE_SUFFIXES if known != ".dcm")  # for what belongs to no DICOM series
VOLUME_SUFFIXES = tuple(known for known in PLAIN_SUFFIXES if known != ".seg.nrrd")
INSTALL_LARGE = "Install it: python -m pip install 'sparseseg[large]'."
PACKAGES = {".tif": "tifffile", ".tiff": "tifffile", ".zarr": "zarr"}
GZIP, ZLIB = 31, 15  # zlib's words for the forms of a packed stream
PACKING_LEVEL = 3  # of packing: on label maps as fast as 1, twice as fast as 6, and few bytes in any case (Testing/benchmark/large_io.py)
_UNPACKED, _PACKED_SHARE = (".nii", ".npy"), 0.03  # of a label map's bytes, twice what was measured
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LEAST_TO_FREE = 1e6  # bytes: file systems count in blocks
_LONGEST_NAME = 240  # bytes; file systems take 255, and a file that is being written has a longer name


def suffix(path: Path, suffixes: tuple[str, ...] = WRITE_SUFFIXES) -> str:
    """The first of `suffixes` that the file's name ends in, or nothing."""
    return next((known for known in suffixes if path.name.lower().endswith(known)), "")


def unreadable(path: Path, error: Exception) -> InputError:
    """What is said of an input that cannot be read, where the format's own reader knows no better cause."""
    if "orthonormal" in str(error):
        return InputError(f"The axes of {path.name} are not at right angles.", "Resample the image to a grid with right angles.")
    if isinstance(error, PermissionError):
        return InputError(f"{path.name} may not be read ({error.strerror}).", "Ask for access to the file, or copy it to your own folder.")
    return damaged(path)


def damaged(path: Path) -> InputError:
    """What is said where nothing better is known."""
    return InputError(f"{path.name} cannot be read: it is damaged, cut short, or not an image.", COPY_AGAIN)


def check_output(path: Path, suffixes: Sequence[str] = WRITE_SUFFIXES) -> None:
    """Whether a result could be written to `path`, asked before long work. Nothing is left behind. suffixes: what its name may end in; none: in
    anything.

    Raises InputError for a suffix that cannot be written, PackageError where that needs a library which is not there, OutputError for a folder or a
    place that cannot be written to.
    """
    path = Path(path)
    ending = suffix(path) or path.suffix.lower()
    if suffixes and ending not in suffixes:
        why = "its format is not known" if ending not in WRITE_SUFFIXES else "this cannot be written in that format"
        raise InputError(f"Cannot write {path.name}: {why}.", f"Use one of {', '.join(suffixes)}.")
    package = PACKAGES.get(ending)
    if package and importlib.util.find_spec(package) is None:
        raise PackageError(f"Writing {path.name} needs the package {package}, which is not installed.", INSTALL_LARGE)
    try:
        _check_place(path)
    except (OSError, ValueError) as error:  # ValueError: a name that is no name
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"{path} cannot be written to ({getattr(error, 'strerror', None) or error}).", "Choose another name or another folder."
        ) from error


def _check_place(path: Path) -> None:
    """Raises OutputError, OSError."""
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise OutputError(f"The name {path.name[:40]}... is too long.", f"Choose one of {_LONGEST_NAME} letters at most.")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and suffix(path) == ".zarr":
        raise OutputError(f"{path} is there already.", "Remove it, or choose another name: a Zarr is many files, which nothing replaces at once.")
    if mode is not None and stat.S_ISDIR(mode):
        raise OutputError(f"{path} is a folder.", "Give a file name.")
    if mode is not None and not stat.S_ISREG(mode):
        raise OutputError(f"{path} is a device or a pipe, not a file.", "Give the name of a file.")
    if mode is not None and not (mode & 0o222 and os.access(path, os.W_OK)):
        raise OutputError(f"{path} is write-protected.", "Choose another name, or allow that it is written to.")
    if not path.parent.is_dir():
        raise OutputError(f"There is no folder {path.parent}.", "Make the folder first, or choose another.")
    trial = _temporary(path) if os.path.lexists(path) else path  # its own name, where that is free: not every system takes every name
    try:
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise OutputError(f"The folder {path.parent} cannot be written to ({error.strerror}).", "Choose another folder.") from error


def expected_bytes(path: Path, shape: Sequence[int], itemsize: int = 1) -> float:
    """What a label map of this shape will take in a file of this name, roughly."""
    return volume_bytes(shape, itemsize) * (1.0 if suffix(path) in _UNPACKED else _PACKED_SHARE)


def check_apart(outputs: Mapping[str, Path], inputs: Sequence[Path], job: Path | None = None) -> None:
    """Whether each output is a file of its own, by whatever name, and neither is it an input. outputs: by what the user calls them; job: a folder
    whose files are the engine's. Raises InputError."""
    taken = {key for path in inputs for key in _keys(path)}
    for path in outputs.values():
        if taken & _keys(path):
            raise InputError(f"{path} is an input; it would be overwritten.", "Choose another output file.")
    for (one, a), (other, b) in combinations(outputs.items(), 2):
        if _keys(a) & _keys(b) or _differ_in_writing_only(a, b):
            raise InputError(f"{one} and {other} are the same file, {b}.", "Give each a name of its own.")
    for path in (*outputs.values(), *inputs):
        if job is not None and any(_keys(job) & _keys(place) for place in (path, *Path(os.path.realpath(path)).parents)):
            raise InputError(f"{path} lies in the job folder, where the engine replaces files.", "Choose another place for one of the two.")


def _keys(path: Path) -> set[object]:
    """Two paths with a key in common are the same place: by its whole name, and by what the system knows it by where it is there."""
    keys: set[object] = {os.path.normcase(os.path.realpath(path))}
    with suppress(OSError, ValueError):
        found = path.stat()
        if found.st_ino:
            keys.add((found.st_dev, found.st_ino))
    return keys


def _differ_in_writing_only(a: Path, b: Path) -> bool:
    """Whether two files that are not there would be one where capitals, or the ways to write an accent, do not count."""
    alike = [unicodedata.normalize("NFC", path.name).casefold() for path in (a, b)]
    return alike[0] == alike[1] and not a.exists() and not b.exists() and bool(_keys(a.parent) & _keys(b.parent))


class Outgoing:
    """An array (K, J, I) on its way into a file, part by part along its first axis; `share`: of what has gone, for what is said of a full disk.
    table: (256,), what becomes of each value of uint8."""

    def __init__(self, array: np.ndarray, table: np.ndarray | None = None) -> None:
        self.array, self.table, self.share = array, table, 0.0
        self.shape = array.shape
        self.dtype = array.dtype if table is None else table.dtype

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.by(None)

    def by(self, depth: int | None) -> Iterator[np.ndarray]:
        """So many planes at a time."""
        gone = 0
        for slab in slabs(self.array, depth):
            yield np.ascontiguousarray(slab) if self.table is None else np.take(self.table, slab, mode="clip")
            gone += len(slab)
            self.share = gone / len(self.array)


def raw(array: np.ndarray) -> memoryview:
    """The bytes of an array in C order, whatever the order of bytes in a number."""
    return array.reshape(-1).view(np.uint8).data


def deflated(pieces: Iterable[np.ndarray], bits: int = GZIP) -> Iterator[bytes]:
    """One packed stream, made as it is read, of the bytes of arrays in C order; bits: zlib's word for gzip, or for its own form."""
    packer = zlib.compressobj(PACKING_LEVEL, wbits=bits)
    for piece in pieces:
        if packed := packer.compress(raw(piece)):
            yield packed
    yield packer.flush()


@contextmanager
def replacing(path: Path, outgoing: Outgoing | None = None) -> Iterator[Path]:
    """A new name beside `path` to write to; it takes the place of `path` when all went well, and is removed when not. outgoing: what is written.

    Raises OutputError where writing fails, on a full disk with what it takes; an existing file is then untouched.
    """
    check_output(path)
    temporary = _temporary(path)
    try:
        yield temporary
        if not temporary.is_dir():
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        patiently(lambda: temporary.replace(path))
    except (OSError, EOFError, RuntimeError, zlib.error, InputError) as error:
        reason = (getattr(error, "strerror", None) or (str(error).strip() or "no reason is known").splitlines()[-1]).replace(
            temporary.name, path.name
        )
        advice = "Free space or choose another place; an earlier file is unchanged."
        if getattr(error, "errno", None) in _FULL and outgoing is not None:
            advice = f"Free {amount(_missing_bytes(temporary, outgoing))} there, or choose another place; an earlier file is unchanged."
        raise OutputError(f"{path.name} could not be written ({reason}).", advice) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)


def _missing_bytes(part: Path, outgoing: Outgoing) -> float:
    """How much more a file takes, by what it has taken until now, and a tenth more; where nothing went, what it takes uncompressed."""
    files = [part] if part.is_file() else [path for path in part.rglob("*") if path.is_file()]
    taken = sum(file.stat().st_size for file in files)
    whole = taken / outgoing.share if outgoing.share else outgoing.array.nbytes
    return max(_LEAST_TO_FREE, 1.1 * (whole - taken))


def _temporary(path: Path) -> Path:
    return path.with_name(f".{uuid4().hex}{suffix(path)}")
