"""Results in the user's segmentation, and what it holds since. No qt.

Apply replaces segments by the result, and nothing else: no other segment loses a voxel. The strokes go to `KeptStrokes`; what is painted or erased
afterwards is read as corrections. The strokes of earlier Applies stay in memory, so that undo finds those that belong to what it brings back.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import slicer
import vtk

from sparseseg import __version__

from . import KeptStrokes
from .Grids import BINARY_LABELMAP, gridInSegmentation, holdLabelmaps, matrixFromArray, volumeGeometry
from .SceneExport import takeSnapshot
from .SceneImport import importLabels, orientedImage
from .Segments import APPLIED_TAG, backgroundSegmentID, hasTag, markBackground
from .Surfaces import CLOSED_SURFACE, showSurfaces

_REMEMBERED = 24  # Applies: more than an editor can undo


class Holds(Enum):
    NOTHING = "no segmentation"
    STROKES = "strokes"
    RESULT = "a result whose strokes are not kept, all of which counts as strokes"
    BOTH = "a result, and the strokes that it was made from"


@dataclass(frozen=True)
class Holding:
    """What a segmentation holds. token: of the result, empty for strokes alone. strokesNode: where the strokes are kept, None where they are in the
    segmentation itself. undo: what undoing the last Apply brings back; NOTHING where none was done here."""

    holds: Holds = Holds.NOTHING
    token: str = ""
    strokesNode: object = None
    undo: Holds = Holds.NOTHING


class AppliedResult:
    def __init__(self) -> None:
        self._strokes: dict[str, object] = {}  # token -> vtkSegmentation
        self._before: dict[str, str] = {}  # token -> the one before it

    def holding(self, segmentationNode) -> Holding:
        if segmentationNode is None:
            return Holding()
        token = KeptStrokes.tokenOf(segmentationNode.GetSegmentation())
        if not token:
            return Holding(Holds.STROKES)
        undo = Holds.NOTHING
        if token in self._before:
            undo = Holds.BOTH if self._before[token] else Holds.STROKES
        kept = KeptStrokes.keptNode(segmentationNode)
        if kept is None or KeptStrokes.tokenOf(kept.GetSegmentation()) != token:
            return Holding(Holds.RESULT, token, None, undo)
        return Holding(Holds.BOTH, token, kept, undo)

    def follow(self, segmentationNode, volumeNode) -> None:
        """After undo or redo: the kept strokes are those of the result that is there now."""
        strokes = self._strokes.get(KeptStrokes.tokenOf(segmentationNode.GetSegmentation()))
        if strokes is not None:
            KeptStrokes.put(segmentationNode, volumeNode, strokes)

    def beginAnew(self, segmentationNode, segmentIDs: Collection[str]) -> None:
        """Segments that were emptied hold no result any more: what is painted in them is strokes again."""
        for sid in segmentIDs:
            segment = segmentationNode.GetSegmentation().GetSegment(sid)
            if segment is not None:
                segment.RemoveTag(APPLIED_TAG)

    def apply(
        self,
        segmentationNode,
        volumeNode,
        labels: np.ndarray,
        box,
        ids: Sequence[str],
        protected: Collection[str] = (),
        saveStateForUndo: Callable[[object], None] = lambda node: None,
        surfaces: Mapping[str, object] | None = None,
    ) -> list[str]:
        """Replaces segments by the result, one undo step: uint8 (K, J, I), value c is ids[c - 1]. Returns the IDs that were replaced.

        protected: IDs that stay as they are; IDs that the segmentation has no longer are not made again. surfaces: by ID, in the volume's frame;
        they are shown in 3-D. Raises InputError, and nothing is changed.
        """
        segmentation = segmentationNode.GetSegmentation()
        self.follow(segmentationNode, volumeNode)
        before = KeptStrokes.tokenOf(segmentation)
        snapshot = takeSnapshot(segmentationNode, volumeNode)
        grid = gridInSegmentation(volumeNode, segmentationNode, snapshot.geometry)
        present = set(segmentation.GetSegmentIDs())
        shown = [sid if sid in present and sid not in protected else "" for sid in ids]
        replaced = [sid for sid in shown if sid]
        held = [] if snapshot.kept is None else [snapshot.segments[place].id for place in snapshot.kept.places]
        if not replaced:
            return []
        strokes, token = KeptStrokes.gathered(segmentationNode, snapshot, grid, replaced), uuid.uuid4().hex
        saveStateForUndo(segmentationNode)
        image = replaceSegments(segmentationNode, volumeNode, labels, box, shown, token, surfaces)
        background = segmentation.GetSegment(backgroundSegmentID(segmentation))
        if background is not None:
            markBackground(background)
        voxels = np.bincount(labels[box].reshape(-1), minlength=256)
        for value, sid in enumerate(replaced, start=1):
            KeptStrokes.addResult(strokes, sid, token, image if voxels[ids.index(sid) + 1] else None, value)
        for sid in set(held) - set(replaced):  # of an earlier Apply, and kept as it is: its corrections are among the strokes now
            segment = segmentation.GetSegment(sid)
            segment.SetTag(APPLIED_TAG, token)
            now = slicer.vtkSegment()
            now.DeepCopy(segment)
            KeptStrokes.addResult(strokes, sid, token, now.GetRepresentation(BINARY_LABELMAP), now.GetLabelValue())
        KeptStrokes.put(segmentationNode, volumeNode, strokes)
        self._remember(token, before, strokes)
        return replaced

    def _remember(self, token: str, before: str, strokes) -> None:
        self._strokes[token], self._before[token] = strokes, before
        for old in list(self._strokes)[:-_REMEMBERED]:
            del self._strokes[old], self._before[old]


def replaceSegments(segmentationNode, volumeNode, labels: np.ndarray, box, shown: Sequence[str], token: str, surfaces=None):
    """Puts a label map into segments: value c becomes shown[c - 1], where that is not empty. Returns the image that was put there, of which
    value n is the n-th that is not empty. Surfaces are made again where they were shown."""
    segmentation = segmentationNode.GetSegmentation()
    before = {sid: segmentation.GetSegment(sid).GetRepresentation(CLOSED_SURFACE) for sid in segmentation.GetSegmentIDs()}
    geometry = volumeGeometry(volumeNode)
    grid = gridInSegmentation(volumeNode, segmentationNode, geometry)
    holdLabelmaps(segmentation, grid, geometry.shape_kji)
    image = orientedImage(labels, box, grid, shown)
    importLabels(segmentationNode, image, shown)
    for sid in filter(None, shown):
        segment = segmentation.GetSegment(sid)
        segment.SetTag(APPLIED_TAG, token)
        # what Slicer's DICOM SEG export asks for
        segment.SetTag("DICOM.SegmentAlgorithmType", "SEMIAUTOMATIC")
        segment.SetTag("DICOM.SegmentAlgorithmName", f"SparseSegSlicer {__version__}")
    if surfaces is not None:
        others = {sid: surface for sid, surface in before.items() if surface is not None and sid not in shown}
        _setSurfaces(segmentationNode, surfaces, grid @ np.linalg.inv(geometry.ijk_to_ras()), others)
    elif any(surface is not None for surface in before.values()):
        segmentationNode.CreateClosedSurfaceRepresentation()
    return image


def withoutResult(segmentation, protected: Collection[str]) -> list[str]:
    """IDs of segments, but the background and those that the user keeps as they are, that no result was applied to: there is nothing in them, or
    strokes."""
    others = {*protected, backgroundSegmentID(segmentation)}
    return [sid for sid in segmentation.GetSegmentIDs() if sid not in others and not hasTag(segmentation.GetSegment(sid), APPLIED_TAG)]


def hideBackground(segmentationNode, hidden: bool) -> None:
    """Strokes that say what is none of the segments are no part of a result."""
    sid = backgroundSegmentID(segmentationNode.GetSegmentation())
    if sid and segmentationNode.GetDisplayNode() is not None:
        segmentationNode.GetDisplayNode().SetSegmentVisibility(sid, not hidden)


def _setSurfaces(segmentationNode, surfaces: Mapping[str, object], toFrame: np.ndarray, others: Mapping[str, object]) -> None:
    """Those that are there already; Slicer would make its own slowly. others: of segments that were not replaced, in the segmentation's frame."""
    segmentation = segmentationNode.GetSegmentation()
    move = vtk.vtkTransform()
    move.SetMatrix(matrixFromArray(toFrame))
    for sid in segmentation.GetSegmentIDs():
        surface = others.get(sid) or vtk.vtkPolyData()
        if sid in surfaces and sid not in others:
            place = vtk.vtkTransformPolyDataFilter()
            place.SetInputData(surfaces[sid])
            place.SetTransform(move)
            place.Update()
            surface.ShallowCopy(place.GetOutput())
        segmentation.GetSegment(sid).AddRepresentation(CLOSED_SURFACE, surface)
    showSurfaces(segmentationNode)
