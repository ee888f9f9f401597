"""What a segment says of itself: its ID, name, colour and tags, and which one is the background. No qt; nodes are only read."""

from __future__ import annotations

import vtk

from sparseseg.contract.classes import BACKGROUND_TAG, Segment

APPLIED_TAG = "SparseSegSlicer.Applied"  # marks a segment that holds our dense result, not strokes; undo takes it away with the result


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
