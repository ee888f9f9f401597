"""Where strokes are kept once a result has taken their place: in a segmentation "<name> strokes", beside the result as it was applied. No qt.

The two belong together by a token, which is a tag of the segments in both. So undo, a copy of a segment, or a scene that is added, can never bring
strokes to a result that was not made from them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import slicer
from vtk.util import numpy_support

from sparseseg.contract.box import Box, box_of

from . import Claims
from .Grids import BINARY_LABELMAP, emptyImage, holdLabelmaps
from .Segments import APPLIED_TAG, tagValue
from .Snapshot import Snapshot

STROKES_ROLE = "SparseSegSlicer.Strokes"  # node reference: applied segmentation -> the strokes that it was made from
TARGET_ROLE = "SparseSegSlicer.Target"  # node reference: strokes -> the segmentation that results are applied to
ERASED = "SparseSegSlicer.Erased"  # ID of what was erased from results: background
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


def gathered(segmentationNode, snapshot: Snapshot, grid: np.ndarray, replaced: Collection[str]):
    """A new segmentation with the strokes of all segments that hold a result, or will: what the user drew, corrections of results included."""
    strokes, segmentation = slicer.vtkSegmentation(), segmentationNode.GetSegmentation()
    if snapshot.kept is None:
        strokes.DeepCopy(segmentation)
        holdLabelmaps(strokes, grid, snapshot.geometry.shape_kji)
        for sid in strokes.GetSegmentIDs():
            strokes.GetSegment(sid).RemoveTag(APPLIED_TAG)
        return strokes
    strokes.DeepCopy(keptNode(segmentationNode).GetSegmentation())
    for sid in [sid for sid in strokes.GetSegmentIDs() if sid.startswith(_RESULT)]:
        strokes.RemoveSegment(sid)
    held = {snapshot.segments[place].id: place for place in snapshot.kept.places}
    for sid in replaced:
        if sid not in held:
            strokes.RemoveSegment(sid)
            strokes.CopySegmentFromSegmentation(segmentation, sid, False)
    corrections = Claims.corrected(snapshot)
    if corrections is not None:
        for sid, place in held.items():
            _write(strokes, sid, grid, *Claims.strokesOf(snapshot, place, corrections))
        _write(strokes, ERASED, grid, *Claims.erasedFrom(snapshot, corrections))
    return strokes


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


def _write(segmentation, segmentID: str, grid: np.ndarray, box: Box, mask: np.ndarray) -> None:
    """A segment's voxels: a mask in a box of the volume's grid."""
    if segmentation.GetSegment(segmentID) is None:
        segmentation.AddEmptySegment(segmentID, "Erased from results")
    segment, part = segmentation.GetSegment(segmentID), box_of(mask)
    if part is None:
        segment.AddRepresentation(BINARY_LABELMAP, slicer.vtkOrientedImageData())
        return
    place = tuple(slice(b.start + p.start, b.start + p.stop) for b, p in zip(box, part, strict=True))
    image = emptyImage(grid, (), place)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(mask[part].astype(np.uint8).reshape(-1), deep=True))
    segment.SetLabelValue(1)
    segment.AddRepresentation(BINARY_LABELMAP, image)
