"""Copies of a segmentation's layers on the volume's grid, made again only where a layer changed, into memory that is used again.

`LayerCopies.missing`, `copyAhead` and `copyOf` run on the main thread, which does nothing but copy, of a large layer a part at a time; `reserve`
and `release` may run in a thread, so that it is that thread, not the user, who waits for fresh memory. No qt; the scene is only read. All arrays
(K, J, I).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from sparseseg.contract.box import Box, slabs, whole
from sparseseg.contract.errors import InputError
from sparseseg.contract.scratch import put

from ..i18n import tr as _
from .Grids import arrayFromMatrix, emptyImage
from .VolumeMemory import is_mapped, zeros

_ON_GRID = 1e-3  # of a voxel: layers closer than this to the volume's grid lie on it
_SPARE = 1.25  # memory is taken for a layer that may grow


@dataclass(frozen=True)
class Layer:
    """One labelmap layer: `values` lie at `box` of the volume's grid, which may reach out of the volume. `places`: label value -> the
    segment's place in the snapshot. `key` and `time` name the layer in the scene and its state. `outside`: how many painted voxels were lost
    on the way to the grid; None: count those outside of the volume."""

    key: str
    time: int
    box: Box
    values: np.ndarray
    places: dict[int, int]
    outside: int | None = None
    toGrid: bytes = field(default=b"", repr=False)
    memory: np.ndarray | None = field(default=None, repr=False)
    original: object = field(default=None, repr=False)  # a copy of a layer that does not lie on the grid

    @property
    def isOnGrid(self) -> bool:
        return self.original is None


@dataclass
class _Copying:
    """A copy of a layer that is being made. time: of the layer's state; planes: how many there are already."""

    time: int
    memory: np.ndarray
    planes: int = 0

    def goOn(self, array: np.ndarray, until: float) -> np.ndarray | None:
        """Plane by plane, one at least, until then; all of it, None where some is left. Of mapped memory nothing is written in vain."""
        values = self.memory[: array.nbytes].view(array.dtype).reshape(array.shape)
        copy = put if is_mapped(self.memory.nbytes) else np.copyto
        for plane in range(self.planes, len(array)):
            copy(values[plane : plane + 1], array[plane : plane + 1])
            self.planes += 1
            if self.planes < len(array) and time.perf_counter() > until:
                return None
        return values


class LayerCopies:
    """The copies of the last snapshot, what is copied for the next one, and spare memory for it."""

    def __init__(self) -> None:
        self._layers: dict[str, Layer] = {}
        self._ahead: dict[str, _Copying] = {}
        self._spare: list[np.ndarray] = []
        self._lent: set[int] = set()  # memory that a reader of its own pace has
        self._lock = threading.Lock()

    def lend(self) -> LayerCopies:
        """The copies as they are, for a reader that is done before the next one asks; their memory is not used again meanwhile."""
        reader = LayerCopies()
        with self._lock:
            reader._layers = dict(self._layers)
            self._lent = {id(layer.memory) for layer in self._layers.values()}
        return reader

    def missing(self, images: Iterable) -> list[int]:
        """How many bytes of fresh memory copying these layers would take now: one number for each piece."""
        spare = sorted(len(memory) for memory in self._spare)
        wanted = []
        for image in images:
            old, begun, size = self._layers.get(keyOf(image)), self._ahead.get(keyOf(image)), _sizeOf(image)
            if (old is not None and old.time == image.GetMTime()) or (begun is not None and len(begun.memory) >= size):
                continue
            fitting = next((n for n in spare if n >= size), None)
            if fitting is None:
                wanted.append(int(size * _SPARE))
            else:
                spare.remove(fitting)
        return wanted

    def reserve(self, sizes: Sequence[int]) -> None:
        """May run in a thread. Fresh memory; what is not mapped is touched, so that writing to it later waits for nothing."""
        for size in sizes:
            memory = zeros((size,))
            if not is_mapped(size):
                memory.fill(0)
            with self._lock:
                self._spare.append(memory)

    def release(self, layers: Iterable[Layer], kept: Iterable[Layer]) -> None:
        """May run in a thread. The memory of layers that nobody reads any more is used again, but what is `kept` is not."""
        with self._lock:
            held = {id(layer.memory) for layer in kept} | self._lent
            largest = max((len(layer.memory) for layer in kept if layer.memory is not None), default=0)
            self._spare += [layer.memory for layer in layers if layer.memory is not None and id(layer.memory) not in held]
            self._spare = sorted((m for m in self._spare if len(m) <= 2 * _SPARE * largest), key=len)[-4:]

    def copyAhead(self, images: Iterable, grid: np.ndarray, shape_kji: Sequence[int], until: float) -> bool:
        """Until then (of time.perf_counter), one plane at least; whether all of these layers that lie on the grid are copied, and `copyOf` has
        nothing to do."""
        for image in images:
            toGrid, where = _place(image, grid, shape_kji)
            if self._known(image, where) is None and _wholeOffset(image, toGrid) is not None and self._copied(image, until) is None:
                return False
        return True

    def copyOf(self, image, places: dict[int, int], grid: np.ndarray, shape_kji: Sequence[int]) -> Layer:
        """grid: the volume's IJK -> the segmentation's frame."""
        toGrid, where = _place(image, grid, shape_kji)
        old = self._known(image, where)
        if old is not None and (old.outside is None or old.places == places):
            return replace(old, places=places)
        offset = _wholeOffset(image, toGrid)
        if offset is None:
            return _resampled(image, toGrid, grid, places, shape_kji, keyOf(image), where)
        values, memory = self._copied(image, math.inf), self._ahead[keyOf(image)].memory
        box = tuple(slice(first, first + n) for first, n in zip(_lowest(image, offset), values.shape, strict=True))
        return Layer(keyOf(image), image.GetMTime(), box, values, places, None, where, memory)

    def keep(self, layers: Iterable[Layer]) -> None:
        """These are the layers now."""
        self._layers, self._ahead = {layer.key: layer for layer in layers}, {}

    def _known(self, image, where: bytes) -> Layer | None:
        """The copy of a layer that is as it was, and where it was."""
        old = self._layers.get(keyOf(image))
        return old if old is not None and (old.time, old.toGrid) == (image.GetMTime(), where) else None

    def _copied(self, image, until: float) -> np.ndarray | None:
        """A layer's voxels; None where they are not all copied then. What is copied is copied anew where the layer has changed."""
        array, begun = imageArray(image), self._ahead.get(keyOf(image))
        if begun is None or begun.time != image.GetMTime():
            fits = begun is not None and len(begun.memory) >= array.nbytes
            begun = self._ahead[keyOf(image)] = _Copying(image.GetMTime(), begun.memory if fits else self._take(array.nbytes))
        return begun.goOn(array, until)

    def _take(self, size: int) -> np.ndarray:
        with self._lock:
            fitting = [n for n, memory in enumerate(self._spare) if len(memory) >= size]
            if fitting:
                return self._spare.pop(min(fitting, key=lambda n: len(self._spare[n])))
        return zeros((int(size * _SPARE),))


def imageArray(image) -> np.ndarray:
    """A view of the layer's voxels."""
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions())))


def keyOf(image) -> str:
    """Names a layer in the scene, as long as it is there."""
    return image.GetAddressAsString("vtkDataObject")


def _place(image, grid: np.ndarray, shape_kji: Sequence[int]) -> tuple[np.ndarray, bytes]:
    """The matrix from the layer's IJK to the volume's, and what tells whether the layer lies where it lay."""
    world = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(world)
    toGrid = np.linalg.inv(grid) @ arrayFromMatrix(world)
    return toGrid, toGrid.tobytes() + bytes(str(shape_kji), "ascii")


def _sizeOf(image) -> int:
    scalars = image.GetPointData().GetScalars()
    return scalars.GetNumberOfValues() * scalars.GetDataTypeSize()


def _lowest(image, offset: np.ndarray) -> list[int]:
    """The layer's first voxel on the volume's grid, k, j, i. offset: i, j, k."""
    return [int(image.GetExtent()[2 * axis] + offset[axis]) for axis in (2, 1, 0)]


def _wholeOffset(image, toGrid: np.ndarray) -> np.ndarray | None:
    """Where the layer lies on the volume's grid: how many voxels it is shifted along i, j, k; None where it lies between the voxels."""
    offset = np.rint(toGrid[:3, 3]).astype(int)
    shift = np.eye(4)
    shift[:3, 3] = offset
    reach = np.abs(image.GetExtent()).max() + 1
    near = np.abs((toGrid - shift)[:3, :3]).max() * reach < _ON_GRID and np.abs((toGrid - shift)[:3, 3]).max() < _ON_GRID
    return offset if near else None


def _resampled(image, toGrid: np.ndarray, grid: np.ndarray, places: dict[int, int], shape_kji, key: str, where: bytes) -> Layer:
    """By nearest neighbour, only within the volume."""
    original = slicer.vtkOrientedImageData()
    original.DeepCopy(image)
    extent = np.array(image.GetExtent()).reshape(3, 2)  # i, j, k
    lost = _countOutside(image, extent, toGrid, places, shape_kji)
    corners = np.array([(i, j, k, 1) for i in extent[0] + (-0.5, 0.5) for j in extent[1] + (-0.5, 0.5) for k in extent[2] + (-0.5, 0.5)])
    around = (corners @ toGrid.T)[:, 2::-1]  # k, j, i
    start = np.clip(np.floor(around.min(0)).astype(int), 0, shape_kji)
    stop = np.clip(np.ceil(around.max(0)).astype(int) + 1, start, shape_kji)
    box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    if (stop == start).any():
        return Layer(key, image.GetMTime(), box, np.zeros(stop - start, np.uint8), places, lost, where, original=original)
    output = slicer.vtkOrientedImageData()
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    if not resample(image, emptyImage(grid, shape_kji, box), output, False):
        raise InputError(_("The segmentation could not be brought to the volume's grid."), _("Set its geometry to the volume in the Segment Editor."))
    return Layer(key, image.GetMTime(), box, imageArray(output).copy(), places, lost, where, original=original)


def _countOutside(image, extent: np.ndarray, toGrid: np.ndarray, places: dict[int, int], shape_kji) -> int:
    """How many of a layer's painted voxels have their centre outside of the volume."""
    lost, array = 0, imageArray(image)
    for slab in slabs(whole(array.shape)):
        painted = np.argwhere(np.isin(array[slab], list(places))) + np.array([slab[0].start, 0, 0])
        onGrid = (painted[:, ::-1] + extent[:, 0]) @ toGrid[:3, :3].T + toGrid[:3, 3]  # i, j, k
        lost += int(((onGrid < -0.5) | (onGrid > np.array(shape_kji)[::-1] - 0.5)).any(axis=1).sum())
    return lost
