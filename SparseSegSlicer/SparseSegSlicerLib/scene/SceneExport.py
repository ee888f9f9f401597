"""Segmentation node -> a snapshot of what is painted, on the volume's voxel grid. No qt; the scene is only read, on the main thread.

Layers that lie on the grid are copied voxel by voxel, others (another reference geometry, different parent transforms) are resampled by nearest
neighbour. All else is left to `StrokeReader`, which may run in a thread.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import slicer

from sparseseg.contract.classes import MAX_SEGMENTS
from sparseseg.contract.errors import InputError

from ..i18n import tr as _
from . import KeptStrokes
from .Grids import BINARY_LABELMAP, gridInSegmentation, makeLabelmaps, volumeGeometry
from .Layers import Layer, LayerCopies
from .Segments import APPLIED_TAG, backgroundSegmentID, describeSegment, hasTag
from .Snapshot import Kept, Snapshot


def takeSnapshot(segmentationNode, volumeNode, unused: Collection[str] = (), results: bool = False, copies: LayerCopies | None = None) -> Snapshot:
    """Copies the painted layers, those alone that changed where `copies` holds the others. results: what segments hold is meant, whether strokes or
    an applied result. Raises InputError where volume and segmentation cannot be brought together."""
    copies = copies or LayerCopies()
    geometry = volumeGeometry(volumeNode)
    segmentation = segmentationNode.GetSegmentation()
    ids = _idsOf(segmentation, unused)
    if len(ids) > MAX_SEGMENTS:
        raise InputError(
            _("{count} segments are more than the {most} that one training can hold.").format(count=len(ids), most=MAX_SEGMENTS),
            _("Untick some, or split the segmentation."),
        )
    grid = gridInSegmentation(volumeNode, segmentationNode, geometry)

    def copied(images) -> tuple[Layer, ...]:
        return tuple(copies.copyOf(image, places, grid, geometry.shape_kji) for image, places in images)

    layers = copied(_layerImages(segmentation, ids, grid, geometry.shape_kji))
    kept = None if results else _copyKept(segmentationNode, ids, copied)
    segments = tuple(describeSegment(sid, segmentation.GetSegment(sid)) for sid in ids)
    background = backgroundSegmentID(segmentation)
    applied = [place for place, sid in enumerate(ids) if hasTag(segmentation.GetSegment(sid), APPLIED_TAG)]
    loose = tuple(segments[place].name for place in applied if kept is None or place not in kept.places)
    snapshot = Snapshot(geometry, segments, ids.index(background) if background in ids else -1, layers, kept, () if results else loose)
    copies.keep(snapshot.allLayers)
    return snapshot


def missingMemory(segmentationNode, copies: LayerCopies, unused: Collection[str] = ()) -> list[int]:
    """How many bytes of fresh memory the next snapshot would take: for `copies.reserve`."""
    return copies.missing(_imagesOf(segmentationNode, unused))


def copyAhead(segmentationNode, volumeNode, copies: LayerCopies, until: float, unused: Collection[str] = ()) -> bool:
    """Copies, until then (of time.perf_counter), what the next snapshot will want; whether that is all of it. Raises InputError as `takeSnapshot`."""
    geometry = volumeGeometry(volumeNode)
    grid = gridInSegmentation(volumeNode, segmentationNode, geometry)
    return copies.copyAhead(_imagesOf(segmentationNode, unused), grid, geometry.shape_kji, until)


def _imagesOf(segmentationNode, unused: Collection[str]) -> list:
    """All layers that a snapshot copies, but of closed surfaces."""
    segmentation = segmentationNode.GetSegmentation()
    ids = _idsOf(segmentation, unused)
    layers = _ownLayers(segmentation, ids)
    for names in KeptStrokes.namesIn(segmentationNode, ids) or ():
        layers += _ownLayers(KeptStrokes.keptNode(segmentationNode).GetSegmentation(), names)
    return [image for image, _ in layers]


def _idsOf(segmentation, unused: Collection[str]) -> list[str]:
    return sorted(sid for sid in segmentation.GetSegmentIDs() if sid not in unused)  # the order in the table means nothing


def _copyKept(segmentationNode, ids: Sequence[str], copied) -> Kept | None:
    names = KeptStrokes.namesIn(segmentationNode, ids)
    if names is None:
        return None
    held = KeptStrokes.keptNode(segmentationNode).GetSegmentation()
    places = tuple(place for place, sid in enumerate(names.strokes) if sid)
    return Kept(KeptStrokes.tokenOf(held), places, *(copied(_ownLayers(held, part)) for part in names))


def _layerImages(segmentation, ids: list[str], grid: np.ndarray, shape_kji):
    """(image, {label value: place}) for each layer; segments without voxels give none."""
    source = segmentation
    if not segmentation.ContainsRepresentation(BINARY_LABELMAP) and segmentation.GetNumberOfSegments():
        source = _rasterized(segmentation, grid, shape_kji)
    yield from _ownLayers(source, ids)  # not returned: a segmentation that is dropped takes its segments' voxels out of the layers first


def _ownLayers(segmentation, ids: Sequence[str]) -> list[tuple]:
    layers: dict[str, tuple] = {}
    for place, sid in enumerate(ids):
        segment = segmentation.GetSegment(sid) if sid else None
        image = None if segment is None else segment.GetRepresentation(BINARY_LABELMAP)
        if image is not None and image.GetPointData().GetScalars() is not None and image.GetNumberOfPoints():
            layers.setdefault(image.GetAddressAsString("vtkDataObject"), (image, {}))[1][segment.GetLabelValue()] = place
    return list(layers.values())


def _rasterized(segmentation, grid: np.ndarray, shape_kji):
    """A copy of closed surfaces as labelmaps on the volume's grid; the user's segmentation stays as it is."""
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation)
    makeLabelmaps(copy, grid, shape_kji)
    return copy
