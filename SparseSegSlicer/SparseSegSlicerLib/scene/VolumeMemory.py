"""Memory for what is as large as the volume. Of a large volume it lies in mapped files, which the system takes out of memory when it needs the room,
where the disk has room for them; else in memory. Arrays (K, J, I); all of this may run in a thread.

What the user's own segmentation is made of never lies in a file: Slicer saves it, and writes to it while the user waits.
"""

from __future__ import annotations

import atexit
import functools
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from sparseseg.contract.errors import OutputError
from sparseseg.contract.folders import PrivateFolder
from sparseseg.contract.memory import volume_bytes
from sparseseg.contract.scratch import Scratch

LEAST_BYTES = 1 << 24  # of an array that lies in a file: a session keeps some eight of a large volume, and of boxes in it
_shared: dict[int, np.ndarray] = {}  # memory that VTK's arrays lie in, as long as these do


def zeros(shape: Sequence[int], dtype: Any = np.uint8) -> np.ndarray:
    """As numpy.zeros."""
    if is_mapped(volume_bytes(shape, np.dtype(dtype).itemsize)):
        with suppress(OutputError, OSError):
            return _scratch().mapped(shape, dtype)
    return np.zeros(shape, dtype)


def is_mapped(size: int) -> bool:
    """Whether an array of so many bytes lies in a file, where the disk has room for it."""
    return size >= LEAST_BYTES


def load(file: str) -> np.ndarray:
    """Labels of a file that nobody writes to; those of a large one stay in it, but for what is changed, which the file never sees."""
    labels = np.load(file, mmap_mode="c")
    if is_mapped(labels.nbytes) and sys.platform != "win32":  # Windows neither renames nor deletes a file that is mapped
        return labels
    return copied(labels)


def copied(array: np.ndarray) -> np.ndarray:
    copy = zeros(array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


class LabelMemory:
    """Voxels in memory that VTK can show: `array`, a view of `scalars`."""

    def __init__(self, array: np.ndarray) -> None:
        """Shares the array's memory."""
        self.array, flat = array, array.reshape(-1)
        self.scalars = vtk.vtkDataArray.CreateDataArray(numpy_support.get_vtk_array_type(array.dtype))
        self.scalars.SetVoidArray(flat, flat.size, 1)
        _shared[id(flat)] = flat
        self.scalars.AddObserver(vtk.vtkCommand.DeleteEvent, lambda *_: _shared.pop(id(flat), None))

    @classmethod
    def of(cls, array: np.ndarray) -> LabelMemory:
        """A copy."""
        return cls(copied(array))


@functools.cache
def _scratch() -> Scratch:
    folder = PrivateFolder(slicer.app.temporaryPath)

    def remove() -> None:
        with suppress(OSError):  # it may have been removed with all temporary files
            folder.remove()

    atexit.register(remove)
    return Scratch(folder.path)
