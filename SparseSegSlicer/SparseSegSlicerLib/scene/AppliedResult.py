"""Results in the user's segmentation, and what it holds since. No qt.

Apply replaces segments by the result, and nothing else: no other segment loses a voxel. The strokes go to `KeptStrokes`; what is painted or erased
afterwards is read as corrections. The strokes of earlier Applies stay in memory, so that undo finds those that belong to what it brings back.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from . import KeptStrokes
from .Grids import gridInSegmentation
from .Layers import LayerCopies
from .Replacement import Replacement
from .SceneExport import takeSnapshot
from .Segments import APPLIED_TAG, backgroundSegmentID, hasTag, markBackground
from .Surfaces import CLOSED_SURFACE

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

    def begin(
        self,
        segmentationNode,
        volumeNode,
        labels: np.ndarray,
        box,
        ids: Sequence[str],
        protected: Collection[str] = (),
        surfaces: bool = False,
        copies: LayerCopies | None = None,
    ) -> Replacement:
        """What `finish` takes, once its `make` was called, in any thread: uint8 (K, J, I), value c is ids[c - 1].

        protected: IDs that stay as they are; IDs that the segmentation has no longer are not made again. surfaces: they are shown in 3-D, also where
        none were. copies: what was copied of the layers already. Raises InputError.
        """
        segmentation = segmentationNode.GetSegmentation()
        self.follow(segmentationNode, volumeNode)
        snapshot = takeSnapshot(segmentationNode, volumeNode, copies=copies)
        grid = gridInSegmentation(volumeNode, segmentationNode, snapshot.geometry)
        present = segmentation.GetSegmentIDs()
        shown = [sid if sid in present and sid not in protected else "" for sid in ids]
        surfaces = surfaces or any(segmentation.GetSegment(sid).GetRepresentation(CLOSED_SURFACE) is not None for sid in present)
        return Replacement(labels, box, shown, grid, uuid.uuid4().hex, surfaces, snapshot)

    def finish(
        self, segmentationNode, volumeNode, replacement: Replacement, saveStateForUndo: Callable[[object], None] = lambda node: None
    ) -> list[str]:
        """Replaces segments by the result, one undo step. Returns the IDs that were replaced. No step scales with the volume but what Slicer copies
        for undo."""
        if replacement.replaced:
            before = KeptStrokes.tokenOf(segmentationNode.GetSegmentation())
            saveStateForUndo(segmentationNode)
            replacement.put(segmentationNode)
            segmentation = segmentationNode.GetSegmentation()
            background = segmentation.GetSegment(backgroundSegmentID(segmentation))
            if background is not None:
                markBackground(background)
            KeptStrokes.put(segmentationNode, volumeNode, replacement.strokes)
            self._remember(KeptStrokes.tokenOf(replacement.strokes), before, replacement.strokes)
        return replacement.replaced

    def apply(self, segmentationNode, volumeNode, labels: np.ndarray, box, ids, protected=(), saveStateForUndo=lambda node: None) -> list[str]:
        """All of it at once. Raises InputError, and nothing is changed."""
        replacement = self.begin(segmentationNode, volumeNode, labels, box, ids, protected).make()
        return self.finish(segmentationNode, volumeNode, replacement, saveStateForUndo)

    def _remember(self, token: str, before: str, strokes) -> None:
        self._strokes[token], self._before[token] = strokes, before
        for old in list(self._strokes)[:-_REMEMBERED]:
            del self._strokes[old], self._before[old]


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
