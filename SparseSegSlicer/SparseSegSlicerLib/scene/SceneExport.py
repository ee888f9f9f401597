"""Segmentation node -> a snapshot of what is painted, on the volume's voxel grid. No qt; the scene is only read, on the main thread.

Layers that lie on the grid are copied voxel by voxel, others (another reference geometry, different parent transforms) are resampled by nearest
neighbour. All else is left to `StrokeReader`, which may run in a thread.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import slicer

from sparseseg.contract.classes import MAX_SEGMENTS, Segment
from sparseseg.contract.errors import AnnotationError, InputError
from sparseseg.contract.geometry import Geometry

from .Grids import BINARY_LABELMAP, gridInSegmentation, makeLabelmaps, volumeGeometry
from .Layers import Layer, LayerCopies
from .Segments import APPLIED_TAG, backgroundSegmentID, describeSegment, hasTag


@dataclass(frozen=True)
class Snapshot:
    geometry: Geometry
    segments: tuple[Segment, ...]
    background: int  # place in `segments`, or -1
    layers: tuple[Layer, ...]


def takeSnapshot(segmentationNode, volumeNode, unused: Collection[str] = (), results: bool = False, copies: LayerCopies | None = None) -> Snapshot:
    """Copies the painted layers, those alone that changed where `copies` holds the others. Raises InputError where volume and segmentation
    cannot be brought together, AnnotationError where the segmentation holds an applied result instead of strokes, unless `results` are wanted."""
    copies = copies or LayerCopies()
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
    images = _layerImages(segmentation, ids, grid, geometry.shape_kji)
    layers = tuple(copies.copyOf(image, places, grid, geometry.shape_kji) for image, places in images)
    copies.keep(layers)
    segments = tuple(describeSegment(sid, segmentation.GetSegment(sid)) for sid in ids)
    background = backgroundSegmentID(segmentation)
    return Snapshot(geometry, segments, ids.index(background) if background in ids else -1, layers)


def missingMemory(segmentationNode, copies: LayerCopies, unused: Collection[str] = ()) -> list[int]:
    """How many bytes of fresh memory the next snapshot would take: for `copies.reserve`."""
    segmentation = segmentationNode.GetSegmentation()
    ids = [sid for sid in segmentation.GetSegmentIDs() if sid not in unused]
    return copies.missing(image for image, _ in _ownLayers(segmentation, ids))


def _layerImages(segmentation, ids: list[str], grid: np.ndarray, shape_kji):
    """(image, {label value: place}) for each layer; segments without voxels give none."""
    source = segmentation
    if not segmentation.ContainsRepresentation(BINARY_LABELMAP) and segmentation.GetNumberOfSegments():
        source = _rasterized(segmentation, grid, shape_kji)
    yield from _ownLayers(source, ids)  # not returned: a segmentation that is dropped takes its segments' voxels out of the layers first


def _ownLayers(segmentation, ids: list[str]) -> list[tuple]:
    layers: dict[str, tuple] = {}
    for place, sid in enumerate(ids):
        segment = segmentation.GetSegment(sid)
        image = segment.GetRepresentation(BINARY_LABELMAP)
        if image is not None and image.GetPointData().GetScalars() is not None and image.GetNumberOfPoints():
            layers.setdefault(image.GetAddressAsString("vtkDataObject"), (image, {}))[1][segment.GetLabelValue()] = place
    return list(layers.values())


def _rasterized(segmentation, grid: np.ndarray, shape_kji):
    """A copy of closed surfaces as labelmaps on the volume's grid; the user's segmentation stays as it is."""
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation)
    makeLabelmaps(copy, grid, shape_kji)
    return copy
