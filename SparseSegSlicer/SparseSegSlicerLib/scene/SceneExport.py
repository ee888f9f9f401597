"""Volume node and segmentation node -> plain arrays, geometry and class table. No qt; the scene is only read.

Reading has two halves. `takeSnapshot` runs on the main thread and only copies what is painted; `readStrokes` is pure numpy and may run in a
thread. Everything is brought to the volume's voxel grid: layers that lie on it are copied voxel by voxel, others (another reference geometry,
different parent transforms) are resampled by nearest neighbour. All arrays (K, J, I).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from sparseseg.annotation.slices import covering_slices
from sparseseg.contract.classes import BACKGROUND_TAG, MAX_SEGMENTS, ClassTable, Segment
from sparseseg.contract.errors import AnnotationError, InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.strokes import merge_strokes

APPLIED_TAG = "SparseSegSlicer.Applied"  # marks a segment that holds our dense result, not strokes; undo takes it away with the result
BINARY_LABELMAP = "Binary labelmap"  # the name of Slicer's representation, fixed by its file format
_ON_GRID = 1e-3  # of a voxel: layers closer than this to the volume's grid lie on it
_PLANE_COORDINATE = {"sagittal": 0, "coronal": 1, "axial": 2}  # of RAS
_ENGINE_TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32")


@dataclass(frozen=True)
class Choices:
    """What the user decided about the strokes. Slices are (axis, index), axis 0 = k; segments are named by ID."""

    complete: tuple[tuple[int, int], ...] = ()
    ignored: tuple[tuple[int, int], ...] = ()
    unused: tuple[str, ...] = ()  # segments that take no part


@dataclass(frozen=True)
class Layer:
    """A copy of one labelmap layer on the volume's grid: `values` lie at `box`; `meaning[v]` is the segment's place in the snapshot, or -1."""

    box: tuple[slice, slice, slice]
    values: np.ndarray
    meaning: np.ndarray


@dataclass(frozen=True)
class Snapshot:
    geometry: Geometry
    segments: tuple[Segment, ...]
    background: int  # place in `segments`, or -1
    layers: tuple[Layer, ...]
    outside: int  # painted voxels that lie outside of the volume


@dataclass(frozen=True)
class SliceRow:
    """One annotated slice. position_mm: its R, A or S coordinate; voxels: painted voxels by segment ID."""

    axis: int
    index: int
    plane: str
    position_mm: float
    voxels: dict[str, int]
    complete: bool
    ignored: bool


@dataclass(frozen=True)
class Strokes:
    """The annotation on the volume's grid: uint8 (K, J, I), 0 unlabelled, 1 background, 1 + c the c-th segment of `classes`."""

    annotation: np.ndarray
    geometry: Geometry
    classes: ClassTable
    complete: tuple[tuple[int, int], ...]
    slices: tuple[SliceRow, ...]
    notes: tuple[str, ...]
    digest: int  # of the annotation's voxels: the same for the same strokes


# -- the volume --------------------------------------------------------------------------------------------------------


def volumeGeometry(volumeNode) -> Geometry:
    """The volume's own grid, without its parent transform. Raises InputError where it holds no image."""
    image = volumeNode.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or 0 in image.GetDimensions():
        raise InputError(f"The volume {volumeNode.GetName()} holds no image.", "Choose a loaded volume.")
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return Geometry.from_ijk_to_ras(tuple(reversed(image.GetDimensions())), arrayFromMatrix(matrix))


def volumeArray(volumeNode) -> np.ndarray:
    """(K, J, I), a view of the node's voxels where their type is one that the engine takes. Raises InputError for colour images."""
    shape = volumeGeometry(volumeNode).shape_kji
    scalars = volumeNode.GetImageData().GetPointData().GetScalars()
    if scalars.GetNumberOfComponents() != 1:
        raise InputError(
            f"The volume {volumeNode.GetName()} has {scalars.GetNumberOfComponents()} values a voxel.",
            "Convert it to a scalar volume first (module Vector to Scalar Volume).",
        )
    array = numpy_support.vtk_to_numpy(scalars).reshape(shape)
    return array if array.dtype.name in _ENGINE_TYPES else array.astype(np.float32)


def arrayFromMatrix(matrix) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def matrixFromArray(array: np.ndarray):
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, float).ravel().tolist())
    return matrix


def matrixBetween(sourceTransform, targetTransform) -> np.ndarray | None:
    """4 x 4 from one transform node's frame to another's (None: world); None where a transform on the way is not linear."""
    matrix = vtk.vtkMatrix4x4()
    linear = slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(sourceTransform, targetTransform, matrix)
    return arrayFromMatrix(matrix) if linear else None


# -- the main thread's half ------------------------------------------------------------------------------------------------


def takeSnapshot(segmentationNode, volumeNode, unused: Collection[str] = (), results: bool = False) -> Snapshot:
    """Copies the painted layers onto the volume's grid. Raises InputError where volume and segmentation cannot be brought together,
    AnnotationError where the segmentation holds an applied result instead of strokes, unless `results` are wanted."""
    geometry = volumeGeometry(volumeNode)
    segmentation = segmentationNode.GetSegmentation()
    ids = sorted(sid for sid in segmentation.GetSegmentIDs() if sid not in unused)  # the order in the table means nothing
    applied = [segmentation.GetSegment(sid).GetName() for sid in ids if hasTag(segmentation.GetSegment(sid), APPLIED_TAG)]
    if applied and not results:
        raise AnnotationError(
            f"{', '.join(applied)} in {segmentationNode.GetName()} hold the applied result, not strokes.",
            f'Press "Go on correcting" to use the strokes kept in another segmentation, or undo (Ctrl+Z) in {segmentationNode.GetName()}.',
        )
    if len(ids) > MAX_SEGMENTS:
        raise InputError(
            f"{len(ids)} segments are more than the {MAX_SEGMENTS} that one training can hold.", "Untick some, or split the segmentation."
        )
    grid = gridInSegmentation(volumeNode, segmentationNode, geometry)
    layers, outside = [], 0
    for image, values in _layerImages(segmentation, ids, grid, geometry.shape_kji):
        layer, lost = _layerOnGrid(image, values, grid, geometry.shape_kji)
        outside += lost
        if layer is not None:
            layers.append(layer)
    segments = tuple(describeSegment(sid, segmentation.GetSegment(sid)) for sid in ids)
    background = backgroundSegmentID(segmentation)
    return Snapshot(geometry, segments, ids.index(background) if background in ids else -1, tuple(layers), outside)


def describeSegment(segmentID: str, segment) -> Segment:
    terminology = segment.GetTerminologyEntryTagName()
    tags = {terminology: tagValue(segment, terminology)} if hasTag(segment, terminology) else {}
    return Segment(segmentID, segment.GetName() or segmentID, tuple(segment.GetColor()), tags)


def hasTag(segment, name: str) -> bool:
    return bool(segment.GetTag(name, vtk.mutable("")))


def tagValue(segment, name: str) -> str:
    value = vtk.mutable("")
    segment.GetTag(name, value)
    return str(value)


def backgroundSegmentID(segmentation) -> str:
    """The segment tagged as background, or else one of that name; empty where there is none."""
    ids = segmentation.GetSegmentIDs()
    tagged = [sid for sid in ids if hasTag(segmentation.GetSegment(sid), BACKGROUND_TAG)]
    named = [sid for sid in ids if segmentation.GetSegment(sid).GetName().strip().lower() == "background"]
    return (tagged or named or [""])[0]


def gridInSegmentation(volumeNode, segmentationNode, geometry: Geometry) -> np.ndarray:
    """4 x 4 from the volume's IJK to the frame in which the segmentation's layers lie, both parent transforms included."""
    between = matrixBetween(volumeNode.GetParentTransformNode(), segmentationNode.GetParentTransformNode())
    if between is None:
        raise InputError(
            f"{volumeNode.GetName()} and {segmentationNode.GetName()} are under different transforms, and one is not linear.",
            "Harden that transform, or put both under the same one.",
        )
    return between @ geometry.ijk_to_ras()


def _layerImages(segmentation, ids: list[str], grid: np.ndarray, shape_kji):
    """(image, {label value: place}) for each layer; segments without voxels give none."""
    source = segmentation
    if not segmentation.ContainsRepresentation(BINARY_LABELMAP) and segmentation.GetNumberOfSegments():
        source = _rasterized(segmentation, grid, shape_kji)
    layers: dict[str, tuple] = {}
    for place, sid in enumerate(ids):
        segment = source.GetSegment(sid)
        image = segment.GetRepresentation(BINARY_LABELMAP)
        if image is not None and image.GetPointData().GetScalars() is not None and image.GetNumberOfPoints():
            layers.setdefault(image.GetAddressAsString("vtkDataObject"), (image, {}))[1][segment.GetLabelValue()] = place
    yield from layers.values()  # not returned: a segmentation that is dropped takes its segments' voxels out of the layers first


def _rasterized(segmentation, grid: np.ndarray, shape_kji):
    """A copy of closed surfaces as labelmaps on the volume's grid; the user's segmentation stays as it is."""
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation)
    makeLabelmaps(copy, grid, shape_kji)
    return copy


def makeLabelmaps(segmentation, grid: np.ndarray, shape_kji) -> None:
    """Gives a segmentation of closed surfaces labelmaps on a grid; grid: IJK -> the segmentation's frame."""
    converter = slicer.vtkSegmentationConverter
    geometry = converter.SerializeImageGeometry(_emptyImage(grid, shape_kji))
    segmentation.SetConversionParameter(converter.GetReferenceImageGeometryParameterName(), geometry)
    segmentation.CreateRepresentation(BINARY_LABELMAP)


def _emptyImage(grid: np.ndarray, shape_kji, box=None):
    image = slicer.vtkOrientedImageData()
    ranges = [(part.start, part.stop) for part in box] if box else [(0, n) for n in shape_kji]
    image.SetExtent([v for start, stop in reversed(ranges) for v in (start, stop - 1)])
    image.SetImageToWorldMatrix(matrixFromArray(grid))
    return image


def _layerOnGrid(image, values: dict[int, int], grid: np.ndarray, shape_kji) -> tuple[Layer | None, int]:
    """The layer's part inside of the volume, and how many of its painted voxels lie outside."""
    world = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(world)
    toGrid = np.linalg.inv(grid) @ arrayFromMatrix(world)  # the layer's IJK -> the volume's IJK
    offset = np.rint(toGrid[:3, 3]).astype(int)
    shift = np.eye(4)
    shift[:3, 3] = offset
    extent = np.array(image.GetExtent()).reshape(3, 2)  # i, j, k
    reach = np.abs(extent).max() + 1
    meaning = _meaning(image, values)
    if np.abs((toGrid - shift)[:3, :3]).max() * reach < _ON_GRID and np.abs((toGrid - shift)[:3, 3]).max() < _ON_GRID:
        return _cut(image, (extent + offset[:, None])[::-1], meaning, shape_kji)
    return _resampled(image, extent, toGrid, grid, meaning, shape_kji)


def _meaning(image, values: dict[int, int]) -> np.ndarray:
    highest = max(int(image.GetScalarRange()[1]), *values, 0)
    meaning = np.full(highest + 1, -1, np.int16)
    for value, place in values.items():
        meaning[value] = place
    return meaning


def _imageArray(image) -> np.ndarray:
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions())))


def _cut(image, extent_kji: np.ndarray, meaning: np.ndarray, shape_kji) -> tuple[Layer | None, int]:
    array = _imageArray(image)
    low, high = extent_kji[:, 0], extent_kji[:, 1] + 1
    start, stop = np.maximum(low, 0), np.minimum(high, shape_kji)
    inside = tuple(slice(a - b, max(c - b, a - b)) for a, b, c in zip(start, low, stop, strict=True))
    part = array[inside].copy()
    lost = 0 if part.shape == array.shape else int((meaning[array] >= 0).sum() - (meaning[part] >= 0).sum())
    if not part.size:
        return None, lost
    return Layer(tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True)), part, meaning), lost


def _resampled(image, extent: np.ndarray, toGrid: np.ndarray, grid: np.ndarray, meaning: np.ndarray, shape_kji) -> tuple[Layer | None, int]:
    lost = _countOutside(image, extent, toGrid, meaning, shape_kji)
    corners = np.array([(i, j, k, 1) for i in extent[0] + (-0.5, 0.5) for j in extent[1] + (-0.5, 0.5) for k in extent[2] + (-0.5, 0.5)])
    around = (corners @ toGrid.T)[:, 2::-1]  # k, j, i
    start = np.clip(np.floor(around.min(0)).astype(int), 0, shape_kji)
    stop = np.clip(np.ceil(around.max(0)).astype(int) + 1, start, shape_kji)
    box = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    if (stop == start).any():
        return None, lost
    output = slicer.vtkOrientedImageData()
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    if not resample(image, _emptyImage(grid, shape_kji, box), output, False):
        raise InputError("The segmentation could not be brought to the volume's grid.", "Set its geometry to the volume in the Segment Editor.")
    return Layer(box, _imageArray(output).copy(), meaning), lost


def _countOutside(image, extent: np.ndarray, toGrid: np.ndarray, meaning: np.ndarray, shape_kji) -> int:
    """How many of a layer's painted voxels have their centre outside of the volume."""
    places = np.argwhere(meaning[_imageArray(image)] >= 0)[:, ::-1] + extent[:, 0]  # i, j, k
    onGrid = places @ toGrid[:3, :3].T + toGrid[:3, 3]
    return int(((onGrid < -0.5) | (onGrid > np.array(shape_kji)[::-1] - 0.5)).any(axis=1).sum())


# -- the half that may run in a thread -----------------------------------------------------------------------------------


def readStrokes(snapshot: Snapshot, choices: Choices = Choices()) -> Strokes:
    """Merges the layers, drops ignored slices, and leaves out segments without a voxel; `notes` says what the user should know."""
    annotation, overlaps, value = _merged(snapshot)
    found, counts = covering_slices(annotation, extra=choices.complete + choices.ignored, values=len(snapshot.segments) + 2)
    _ignoreSlices(annotation, found, choices.ignored)
    notes = [_overlapNote(snapshot, value, pair, n) for pair, n in overlaps.items()]
    if snapshot.outside:
        notes.append(f"{snapshot.outside} painted voxels lie outside of the volume and are not used.")
    classes, notes = _dropEmpty(snapshot, annotation, value, notes)
    rows = tuple(_sliceRow(snapshot, value, pair, counts[pair], choices) for pair in found)
    ignored = set(choices.ignored)
    complete = tuple(pair for pair in choices.complete if pair not in ignored and pair[1] < snapshot.geometry.shape_kji[pair[0]])
    return Strokes(annotation, snapshot.geometry, classes, complete, rows, tuple(notes), zlib.crc32(annotation))


def readResult(snapshot: Snapshot) -> tuple[np.ndarray, ClassTable]:
    """Dense labels, (K, J, I) uint8, 0 background, c the c-th segment of the table; a background segment is left out.

    Raises InputError where segments overlap, which a label map cannot hold.
    """
    annotation, overlaps, value = _merged(snapshot)
    if overlaps:
        pair, voxels = next(iter(overlaps.items()))
        raise InputError(_overlapNote(snapshot, value, pair, voxels), "Erase one of the two there, or use Slicer's own export.")
    segments = tuple(segment for place, segment in enumerate(snapshot.segments) if place != snapshot.background)
    return np.maximum(annotation, 1) - np.uint8(1), ClassTable(segments)


def _merged(snapshot: Snapshot) -> tuple[np.ndarray, dict[tuple[int, int], int], np.ndarray]:
    """The layers as one annotation; how many voxels two values both claim; and the annotation value of each of the snapshot's segments."""
    places = len(snapshot.segments)
    value = np.zeros(places + 1, np.uint8)  # the last entry stands for "no segment"
    others = [place for place in range(places) if place != snapshot.background]
    value[others] = np.arange(len(others)) + 2
    if snapshot.background >= 0:
        value[snapshot.background] = 1
    parts = [(layer.box, value[layer.meaning][layer.values]) for layer in snapshot.layers]
    annotation, overlaps = merge_strokes(snapshot.geometry.shape_kji, parts)
    return annotation, overlaps, value


def _ignoreSlices(annotation: np.ndarray, found, ignored) -> None:
    """Unlabels what lies on ignored slices, but not where an included slice crosses them."""
    keep = [pair for pair in found if pair not in ignored]
    for axis, index in ignored:
        if index >= annotation.shape[axis]:
            continue
        here = (slice(None),) * axis + (index,)
        plane = annotation[here]
        kept = plane.copy()
        plane[...] = 0
        others = [a for a in range(3) if a != axis]
        for a, i in keep:
            if a != axis:
                line = (slice(None),) * others.index(a) + (i,)
                plane[line] = kept[line]


def _dropEmpty(snapshot: Snapshot, annotation: np.ndarray, value: np.ndarray, notes: list[str]) -> tuple[ClassTable, list[str]]:
    """Renumbers in place, so that the segments that have voxels are 2, 3, ... without gaps."""
    counts = np.bincount(annotation[annotation > 0], minlength=len(snapshot.segments) + 2)
    order = [place for place in range(len(snapshot.segments)) if place != snapshot.background]
    used = [place for place in order if counts[value[place]]]
    empty = [snapshot.segments[place].name for place in order if place not in used]
    if empty:
        notes = [*notes, f"Nothing is painted in {', '.join(empty)}; left out."]
    renumber = np.zeros(len(counts), np.uint8)
    renumber[1] = 1
    for new, place in enumerate(used, start=2):
        renumber[value[place]] = new
    if (renumber != np.arange(len(renumber)))[counts > 0].any():
        np.take(renumber, annotation, out=annotation)
    background = snapshot.segments[snapshot.background] if snapshot.background >= 0 else None
    return ClassTable(tuple(snapshot.segments[place] for place in used), background), notes


def _overlapNote(snapshot: Snapshot, value: np.ndarray, pair: tuple[int, int], voxels: int) -> str:
    names = [snapshot.segments[int(np.flatnonzero(value[:-1] == v)[0])].name for v in pair]
    return f"{names[0]} and {names[1]} overlap in {voxels} voxels, which count as unlabelled."


def _sliceRow(snapshot: Snapshot, value: np.ndarray, pair: tuple[int, int], counts: np.ndarray, choices: Choices) -> SliceRow:
    axis, index = pair
    voxels = {segment.id: int(counts[value[place]]) for place, segment in enumerate(snapshot.segments) if counts[value[place]]}
    plane = snapshot.geometry.planes()[axis]
    position = sliceCentre(snapshot.geometry, axis, index)[_PLANE_COORDINATE[plane]]
    return SliceRow(axis, index, plane, float(position), voxels, pair in choices.complete, pair in choices.ignored)


def sliceCentre(geometry: Geometry, axis: int, index: int) -> np.ndarray:
    """RAS millimetres of a slice's middle, without parent transforms."""
    kji = [(n - 1) / 2 for n in geometry.shape_kji]
    kji[axis] = index
    return (geometry.ijk_to_ras() @ [*reversed(kji), 1])[:3]
