"""Where strokes are kept once a result has taken their place: in a segmentation "<name> strokes", beside the result as it was applied. No qt.

The two belong together by a token, which is a tag of the segments in both. So undo, a copy of a segment, or a scene that is added, can never bring
strokes to a result that was not made from them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import slicer

from sparseseg.contract.box import Box
from sparseseg.contract.classes import Segment

from . import Claims
from .Grids import BINARY_LABELMAP, emptyImage
from .Layers import Layer
from .Merging import boxWhere, labelledIn, moved
from .Segments import APPLIED_TAG, tagValue
from .Snapshot import Snapshot
from .VolumeMemory import LabelMemory

STROKES_ROLE = "SparseSegSlicer.Strokes"  # node reference: applied segmentation -> the strokes that it was made from
TARGET_ROLE = "SparseSegSlicer.Target"  # node reference: strokes -> the segmentation that results are applied to
ERASED = "SparseSegSlicer.Erased"  # ID of what was erased from results: background
_ERASED_SEGMENT = Segment(ERASED, "Erased from results", (0.5, 0.5, 0.5), {})
_RESULT = "SparseSegSlicer.Result."  # and a segment's ID: the result as it was applied


class Names(NamedTuple):
    """IDs in the segmentation of kept strokes, in the order of the segments that they are of; empty for those that hold no result."""

    strokes: list[str]
    result: list[str]
    erased: list[str]


def keptNode(segmentationNode):
    return segmentationNode.GetNodeReference(STROKES_ROLE)


def tokenOf(segmentation) -> str:
    """Which Apply the result in it is of; empty where there is none."""
    tags = (tagValue(segmentation.GetSegment(sid), APPLIED_TAG) for sid in segmentation.GetSegmentIDs())
    return next((token for token in tags if token), "")


def namesIn(segmentationNode, ids: Sequence[str]) -> Names | None:
    """What is kept of some of a segmentation's segments; None where that is nothing."""
    kept = keptNode(segmentationNode)
    token = "" if kept is None else tokenOf(kept.GetSegmentation())
    if not token:
        return None
    segmentation, there = segmentationNode.GetSegmentation(), set(kept.GetSegmentation().GetSegmentIDs())
    held = [sid if _RESULT + sid in there and tagValue(segmentation.GetSegment(sid), APPLIED_TAG) == token else "" for sid in ids]
    if not any(held):
        return None
    return Names(held, [_RESULT + sid if sid else "" for sid in held], [ERASED] if ERASED in there else [])


def gathered(snapshot: Snapshot, grid: np.ndarray, replaced: Collection[str]):
    """A new segmentation with the strokes of all segments that hold a result, or will: what the user drew, corrections of results included. May run
    in a thread."""
    strokes, kept, images = slicer.vtkSegmentation(), snapshot.kept, {}
    held, corrections = () if kept is None else kept.places, Claims.corrected(snapshot)
    for place, segment in enumerate(snapshot.segments):
        if place in held and corrections is not None:
            _add(strokes, segment, None, 1)
        elif place in held or segment.id in replaced:
            _add(strokes, segment, *layerImage(kept.strokes if place in held else snapshot.layers, place, grid, images))
    if corrections is not None:
        for claimed in Claims.strokesOf(snapshot, corrections):
            _write(strokes, {value: snapshot.segments[place].id for value, place in claimed.places.items()}, grid, claimed)
        _add(strokes, _ERASED_SEGMENT, None, 1)
        _write(strokes, {1: ERASED}, grid, Claims.erasedFrom(snapshot, corrections))
    elif kept is not None:
        for layer in kept.erased:
            _add(strokes, _ERASED_SEGMENT, *layerImage((layer,), 0, grid, images))
    return strokes


def layerImage(layers: Iterable[Layer], place: int, grid: np.ndarray, images: dict[str, object]) -> tuple[object, int]:
    """A copy of the layer that holds a segment, exact also where it lies off the grid, and the segment's value in it; None where it has no voxels.
    images: copies that were made already, by key."""
    for layer in layers:
        for value, other in layer.places.items():
            if other == place:
                if layer.key not in images:
                    images[layer.key] = layer.original or keptImage(layer.values, grid, layer.box)
                return images[layer.key], value
    return None, 1


def addResult(strokes, segmentID: str, token: str, image=None, value: int = 1) -> None:
    """The result as it is applied now; image: holds it as `value`, None where it is empty."""
    strokes.AddEmptySegment(_RESULT + segmentID, f"{strokes.GetSegment(segmentID).GetName()} as applied")
    segment = strokes.GetSegment(_RESULT + segmentID)
    segment.SetTag(APPLIED_TAG, token)
    if image is not None:
        segment.SetLabelValue(value)
        segment.AddRepresentation(BINARY_LABELMAP, image)


def put(segmentationNode, volumeNode, strokes):
    """Makes this the kept strokes of a segmentation; the node, hidden, and saved with the scene."""
    kept = keptNode(segmentationNode)
    if kept is None:
        scene = segmentationNode.GetScene()
        kept = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(f"{segmentationNode.GetName()} strokes"))
        kept.CreateDefaultDisplayNodes()
        kept.SetNodeReferenceID(TARGET_ROLE, segmentationNode.GetID())
        segmentationNode.SetNodeReferenceID(STROKES_ROLE, kept.GetID())
    if kept.GetSegmentation() is not strokes:
        kept.SetAndObserveSegmentation(strokes)
        reference = segmentationNode.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())
        kept.SetReferenceImageGeometryParameterFromVolumeNode(reference or volumeNode)
    kept.SetAndObserveTransformNodeID(segmentationNode.GetTransformNodeID())
    kept.SetDisplayVisibility(False)
    return kept


def keptImage(array: np.ndarray, grid: np.ndarray, box: Box):
    """A copy of voxels that nobody paints on. box: where they lie."""
    image = emptyImage(grid, (), box)
    image.GetPointData().SetScalars(LabelMemory.of(array).scalars)
    return image


def _add(segmentation, segment: Segment, image, value: int) -> None:
    segmentation.AddEmptySegment(segment.id, segment.name)
    added = segmentation.GetSegment(segment.id)
    added.SetColor(*segment.color)
    if image is not None:
        added.SetLabelValue(value)
        added.AddRepresentation(BINARY_LABELMAP, image)


def _write(segmentation, ids: dict[int, str], grid: np.ndarray, claimed: Claims.Claimed) -> None:
    """The voxels of segments, by value, as one layer; those that have none get an empty one."""
    values, voxels = claimed.values, labelledIn(claimed.values)
    part = boxWhere(values.shape, lambda planes: values[planes] != 0)
    image = None if part is None else keptImage(values[part], grid, moved(part, claimed.box))
    for value, segmentID in ids.items():
        written = segmentation.GetSegment(segmentID)
        written.SetLabelValue(value)
        written.AddRepresentation(BINARY_LABELMAP, image if voxels[value] else slicer.vtkOrientedImageData())
