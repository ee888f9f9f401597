"""Where arrays of a volume's size are kept while a job is made of them: in memory, or, where they need not fit there, in files that are mapped.

What reads, converts or merges voxels makes them part by part and gives the parts to a store; what it gets is an array in either case. The files lie
in the job's own folder, so that one of them can become a file of the job by a new name (`Job.create`), and what a killed process leaves goes when the
folder is next used. They are written with write, not through a mapping, in which a full disk would end the process.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from . import disk, memory
from .errors import OutputError

SLAB_VOXELS = 1 << 21  # that are worked on at a time: a few copies of them in eight bytes each are small too
_NAME = re.compile(r"\.scratch-\d+\.npy\.\d+\.part", re.ASCII)
_numbers = itertools.count(1)


class Store(Protocol):
    def keep(self, name: str, shape: Sequence[int], dtype: Any, parts: Iterable[np.ndarray]) -> np.ndarray:
        """An array of the parts, whose elements follow each other in C order, whatever shapes they have. name: of what is kept, for what is said.

        Raises TooLargeError or OutputError where there is too little memory or disk, EOFError for too few elements, ValueError for too many.
        """
        ...


class InMemory:
    def keep(self, name: str, shape: Sequence[int], dtype: Any, parts: Iterable[np.ndarray]) -> np.ndarray:
        memory.check(name, memory.volume_bytes(shape, np.dtype(dtype).itemsize))
        array = np.empty(shape, dtype)
        flat, at = array.reshape(-1), 0
        for part in parts:
            flat[at : at + part.size] = part.reshape(-1)
            at += part.size
        _check_count(at, shape)
        return array


class OnDisk:
    """In files of a folder, each there as long as its array is; the arrays are read-only. first: called with the first array's shape and type, before
    anything of it is made."""

    def __init__(self, folder: Path, first: Callable[[Sequence[int], np.dtype], None] | None = None) -> None:
        self.folder, self._first = folder, first

    def keep(self, name: str, shape: Sequence[int], dtype: Any, parts: Iterable[np.ndarray]) -> np.ndarray:
        if (first := self._first) is not None:
            self._first = None
            first(shape, np.dtype(dtype))
        disk.check(self.folder, memory.volume_bytes(shape, np.dtype(dtype).itemsize), name)
        path = self.folder.absolute() / f".scratch-{next(_numbers)}.npy.{os.getpid()}.part"
        try:
            with self._refusals(name, shape, dtype, 0):
                file = open(path, "xb")  # noqa: SIM115 - below, where what the parts' maker raises is told from what the disk says
                write_header(file, shape, dtype)
            with file:
                _check_count(self._write(file, name, shape, dtype, parts), shape)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except BaseException:
            _remove(path)
            raise
        weakref.finalize(array.base, _remove, path)
        return array

    def _write(self, file: IO[bytes], name: str, shape: Sequence[int], dtype: Any, parts: Iterable[np.ndarray]) -> int:
        """How many elements there were."""
        count = 0
        for part in parts:
            with self._refusals(name, shape, dtype, count):
                file.write(np.ascontiguousarray(part, dtype).data)
            count += part.size
        with self._refusals(name, shape, dtype, count):
            file.flush()
        return count

    @contextmanager
    def _refusals(self, name: str, shape: Sequence[int], dtype: Any, written: int) -> Iterator[None]:
        """A full disk as a sentence, which says how much more is needed."""
        try:
            yield
        except OSError as error:
            disk.check(self.folder, (math.prod(shape) - written) * np.dtype(dtype).itemsize, f"The rest of {name}")
            raise OutputError(f"Could not write in {self.folder}: {error.strerror or error}.", "Free space or choose another folder.") from error


IN_MEMORY = InMemory()


def _check_count(count: int, shape: Sequence[int]) -> None:
    if count < math.prod(shape):
        raise EOFError(f"{count} elements of {math.prod(shape)}")
    if count > math.prod(shape):
        raise ValueError(f"{count} elements, more than {math.prod(shape)}")


def _remove(path: Path) -> None:
    with suppress(OSError):  # on Windows a file that is mapped stays; whoever next uses the folder removes it
        path.unlink()


def write_header(file: IO[bytes], shape: Sequence[int], dtype: Any) -> None:
    """Of a .npy file in C order."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": tuple(int(n) for n in shape)}
    np.lib.format.write_array_header_1_0(file, header)


def slabs(array: np.ndarray, depth: int | None = None) -> Iterator[np.ndarray]:
    """An array (K, J, I) part by part along its first axis: `depth` planes each, or two million voxels, one plane at least. With more axes: such
    parts of each of its first ones. Views."""
    if array.ndim > 3:
        for part in array:
            yield from slabs(part, depth)
        return
    depth = depth or max(1, SLAB_VOXELS * len(array) // max(1, array.size))
    for k in range(0, len(array), depth):
        yield array[k : k + depth]


def same(one: np.ndarray, other: np.ndarray, tick: Callable[[], None] = lambda: None) -> bool:
    """Whether two arrays are equal, without a copy of either. tick: called several times a second meanwhile; may raise."""

    def equal(one: np.ndarray, other: np.ndarray) -> bool:
        tick()
        return np.array_equal(one, other)

    return one.shape == other.shape and all(map(equal, slabs(one), slabs(other)))


def file_of(array: np.ndarray, folder: Path) -> Path | None:
    """The file that an OnDisk keeps all of an array in, as it is, where that lies in a folder."""
    with suppress(OSError, ValueError, TypeError):
        path = Path(getattr(array, "filename", None) or "")
        if _NAME.fullmatch(path.name) and path.parent.resolve() == folder.resolve() and array.flags.c_contiguous:
            whole = np.load(path, mmap_mode="r", allow_pickle=False)
            return path if (whole.shape, whole.dtype) == (array.shape, array.dtype) else None
    return None
