"""What a segment says of itself: its ID, name, colour and tags, and which one is the background. No qt; nodes are only read."""

from __future__ import annotations

import vtk

from sparseseg.contract.classes import BACKGROUND_TAG, Segment

_TISSUE = "~SCT^85756007^Tissue~SCT^85756007^Tissue~"  # in the terminology of a segment for which nobody has chosen one
_NO_TISSUE = (  # DICOM's code for what is none of the segments; whoever exports the background all the same, says so
    "Segmentation category and type - DICOM master list~DCM^125040^Background~DCM^125040^Background~^^~Anatomic codes - DICOM master list~^^~^^"
)
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


def markBackground(segment) -> None:
    """Makes a segment the background; a terminology that the user has chosen stays."""
    segment.SetTag(BACKGROUND_TAG, "1")
    terminology = segment.GetTerminologyEntryTagName()
    chosen = tagValue(segment, terminology)
    if not chosen or _TISSUE in chosen:
        segment.SetTag(terminology, _NO_TISSUE)


def structureIDs(segmentation) -> list[str]:
    """All but the background."""
    background = backgroundSegmentID(segmentation)
    return [sid for sid in segmentation.GetSegmentIDs() if sid != background]


def backgroundSegmentID(segmentation) -> str:
    """The segment tagged as background, or else one of that name; empty where there is none."""
    ids = segmentation.GetSegmentIDs()
    tagged = [sid for sid in ids if hasTag(segmentation.GetSegment(sid), BACKGROUND_TAG)]
    named = [sid for sid in ids if segmentation.GetSegment(sid).GetName().strip().lower() == "background"]
    return (tagged or named or [""])[0]
