"""Arrays of a volume's size that need not stay in memory: mapped files, which the system reads and writes as it likes, and takes back from memory.

A file is private (0600), has all of its room on the disk before it is used, so that a disk that fills up later can end nothing, and is gone with the
last array that lies in it, with its process at the latest.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .box import Box
from .errors import OutputError
from .memory import amount, volume_bytes

HUGE_VOXELS = 1 << 28  # of a volume of which no more is kept than must be: what can be made again for a box is, though that takes longer
LEAST_BYTES = 1 << 26  # of an array that is mapped; smaller ones are quicker, and no burden, in memory
_MOST_AHEAD = 1 << 29  # bytes of one array that are asked for before they are read
_PIECE = bytes(1 << 24)
_numbers = itertools.count(1)
Zeros = Callable[[Sequence[int], Any], np.ndarray]  # as numpy.zeros: shape, type


def is_huge(shape: Sequence[int]) -> bool:
    """Whether a volume of this shape has at least HUGE_VOXELS."""
    return volume_bytes(shape, 1) >= HUGE_VOXELS


def run_bytes(shape: Sequence[int]) -> int:
    """Bytes of the disk that a run on a volume takes at most, with the files of its result: annotation (3), growing (2), what is believed (2) and
    shown (1), and while a result is made and written that (4); where the volume is not huge the refiner (2), the network's labels (2), the estimate
    (4)."""
    voxels = volume_bytes(shape, 1)
    return 0 if voxels < LEAST_BYTES else voxels * (12 if is_huge(shape) else 20)


class Scratch:
    """Makes arrays in a folder. `Scratch.zeros` may be given wherever `numpy.zeros` may."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def zeros(self, shape: Sequence[int], dtype: Any = np.float64) -> np.ndarray:
        """A new array full of zeros, mapped if it is large. Raises OutputError where the disk has no room for it."""
        if volume_bytes(shape, np.dtype(dtype).itemsize) < LEAST_BYTES:
            return np.zeros(shape, dtype)
        return self.mapped(shape, dtype)

    def mapped(self, shape: Sequence[int], dtype: Any = np.float64) -> np.ndarray:
        """The same, of any size."""
        return np.frombuffer(self._file(volume_bytes(shape, np.dtype(dtype).itemsize)), dtype).reshape(shape)

    def _file(self, size: int) -> mmap.mmap:
        path = self._folder / f".mapped-{next(_numbers)}.{os.getpid()}.part"
        try:
            # on Windows O_TEMPORARY deletes it with the last handle; elsewhere its name goes at once
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_TEMPORARY", 0), 0o600)
            try:
                _unname(path)
                allocate(handle, size)
                return mmap.mmap(handle, size)
            finally:
                os.close(handle)
        except OSError as error:
            free = shutil.disk_usage(self._folder).free
            sentence = f"The work on this volume takes {amount(size)} more of the disk that {self._folder} is on ({amount(free)} free)"
            raise OutputError(f"{sentence}: {error.strerror or error}.", "Free space on it, or put the job on another disk.") from error


def _unname(path: Path) -> None:
    if not hasattr(os, "O_TEMPORARY"):
        path.unlink()


def allocate(handle: int, size: int) -> None:
    """Give an open, empty file so many bytes of the disk, all zero. Raises OSError where it has not as many."""
    if hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    elif hasattr(os, "O_TEMPORARY"):
        return os.ftruncate(handle, size)  # on Windows that takes the room
    for start in range(0, size, len(_PIECE)):
        piece = memoryview(_PIECE)[: size - start]
        while piece:
            piece = piece[os.write(handle, piece) :]
    return None


def read_ahead(box: Box, *arrays: np.ndarray) -> None:
    """Ask the system for this part of arrays (K, J, I) that it may have taken from memory, all at once, and do not wait for it: page by page, each
    when it is needed, the disk takes several times as long. Of what is not mapped, small, or too much to be kept, nothing is asked."""
    if not hasattr(mmap, "MADV_WILLNEED"):
        return
    for array in arrays:
        mapped, rows = _mapped(array), array[box[:2]]
        if mapped is None or array.nbytes < LEAST_BYTES or not 0 < rows.nbytes <= _MOST_AHEAD or not array.flags.c_contiguous:
            continue
        start = np.frombuffer(mapped, np.uint8).ctypes.data
        with contextlib.suppress(OSError):  # a system that refuses has cost time, no more
            for plane in rows:
                first = (plane.ctypes.data - start) // mmap.PAGESIZE * mmap.PAGESIZE
                mapped.madvise(mmap.MADV_WILLNEED, first, plane.ctypes.data + plane.nbytes - start - first)


def _mapped(array: np.ndarray) -> mmap.mmap | None:
    """The file that an array lies in."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    return base if isinstance(base, mmap.mmap) else None


def put(into: np.ndarray, values: np.ndarray) -> None:
    """into[...] = values, (k, j, i) both, plane by plane and only where they differ, so that no page of a mapped file is written in vain."""
    for plane, new in zip(into, values, strict=True):
        if not np.array_equal(plane, new):
            plane[...] = new


def put_new(into: np.ndarray, values: np.ndarray) -> None:
    """The same where all of `into` is zero still: it is not even looked at, as that alone gives a mapped file pages in memory."""
    for plane, new in zip(into, values, strict=True):
        if new.max():  # of bytes far quicker than any()
            plane[...] = new
