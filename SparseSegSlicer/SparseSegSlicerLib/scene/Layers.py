"""Copies of a segmentation's layers on the volume's grid, made again only where a layer changed, into memory that is used again.

`LayerCopies.missing` and `copyOf` run on the main thread, which does nothing but copy; `reserve` and `release` may run in a thread, so that
it is that thread, not the user, who waits for fresh memory. No qt; the scene is only read. All arrays (K, J, I).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from sparseseg.contract.box import Box
from sparseseg.contract.errors import InputError

from ..i18n import tr as _
from .Grids import arrayFromMatrix, emptyImage

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


class LayerCopies:
    """The copies of the last snapshot, and spare memory for the next one."""

    def __init__(self) -> None:
        self._layers: dict[str, Layer] = {}
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
            old, size = self._layers.get(keyOf(image)), _sizeOf(image)
            if old is not None and old.time == image.GetMTime():
                continue
            fitting = next((n for n in spare if n >= size), None)
            if fitting is None:
                wanted.append(int(size * _SPARE))
            else:
                spare.remove(fitting)
        return wanted

    def reserve(self, sizes: Sequence[int]) -> None:
        """May run in a thread. Fresh memory, touched, so that writing to it later waits for nothing."""
        for size in sizes:
            memory = np.empty(size, np.uint8)
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

    def copyOf(self, image, places: dict[int, int], grid: np.ndarray, shape_kji: Sequence[int]) -> Layer:
        """grid: the volume's IJK -> the segmentation's frame."""
        world = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(world)
        toGrid = np.linalg.inv(grid) @ arrayFromMatrix(world)  # the layer's IJK -> the volume's IJK
        key, where = keyOf(image), toGrid.tobytes() + bytes(str(shape_kji), "ascii")
        old = self._layers.get(key)
        if old is not None and (old.time, old.toGrid) == (image.GetMTime(), where) and (old.outside is None or old.places == places):
            return replace(old, places=places)
        offset = _wholeOffset(image, toGrid)
        if offset is None:
            return _resampled(image, toGrid, grid, places, shape_kji, key, where)
        array = imageArray(image)
        memory = self._take(array.nbytes)
        values = memory[: array.nbytes].view(array.dtype).reshape(array.shape)
        np.copyto(values, array)
        box = tuple(slice(first, first + n) for first, n in zip(_lowest(image, offset), array.shape, strict=True))
        return Layer(key, image.GetMTime(), box, values, places, None, where, memory)

    def keep(self, layers: Iterable[Layer]) -> None:
        """These are the layers now."""
        self._layers = {layer.key: layer for layer in layers}

    def _take(self, size: int) -> np.ndarray:
        with self._lock:
            fitting = [n for n, memory in enumerate(self._spare) if len(memory) >= size]
            if fitting:
                return self._spare.pop(min(fitting, key=lambda n: len(self._spare[n])))
        return np.empty(int(size * _SPARE), np.uint8)


def imageArray(image) -> np.ndarray:
    """A view of the layer's voxels."""
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions())))


def keyOf(image) -> str:
    """Names a layer in the scene, as long as it is there."""
    return image.GetAddressAsString("vtkDataObject")


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
    painted = np.argwhere(np.isin(imageArray(image), list(places)))[:, ::-1] + extent[:, 0]  # i, j, k
    onGrid = painted @ toGrid[:3, :3].T + toGrid[:3, 3]
    return int(((onGrid < -0.5) | (onGrid > np.array(shape_kji)[::-1] - 0.5)).any(axis=1).sum())
