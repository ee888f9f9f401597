"""Whether a segmentation, or another volume, belongs to a series: the same voxel grid is not enough, since all patients of a scanner's protocol may
share it."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

from ..contract.errors import InputError
from .dicomheader import Header, items, text
from .dicomseries import Series

_OVERRULE = "Give the image that was segmented; if they do belong together, say so: --other-patient."
_OVERRULE_VOLUME = "Give a volume of the same examination, or one registered to it; if they do belong together, say so: --other-patient."


def check_identity(path: Path, header: Header, series: Series | None, overrule: bool) -> list[str]:
    """Remarks on a segmentation's header beside those of the series (None: an image that names nobody).

    What refers to the series' own images is taken as theirs, though its patient may have been given another ID since. Anything else must
    have the same patient and frame of reference. Raises InputError unless `overrule`.
    """
    if series is None:
        return []
    patient = text(header, "PatientID")
    others = bool(patient and series.identity.patient_id and patient != series.identity.patient_id)
    apart = _are_apart(_frames_of_reference(header), series.identity.frames_of_reference)
    if _refers_to(header, series) and not apart:
        return [f"{path.name} refers to these images, but has another patient ID."] if others else []
    return _judged(path, others, apart, overrule, _OVERRULE)


def check_same_patient(path: Path, volume: Series | None, series: Series | None, overrule: bool) -> list[str]:
    """Remarks on a volume that is to be seen together with a series; None: an image that names nobody. Raises InputError unless `overrule`."""
    if volume is None or series is None:
        return []
    mine, theirs = volume.identity, series.identity
    others = bool(mine.patient_id and theirs.patient_id and mine.patient_id != theirs.patient_id)
    return _judged(path, others, _are_apart(mine.frames_of_reference, theirs.frames_of_reference), overrule, _OVERRULE_VOLUME)


def _judged(path: Path, others: bool, apart: bool, overrule: bool, advice: str) -> list[str]:
    if not others and not apart:
        return []
    what = "another patient's (its patient ID differs)" if others else "in another frame of reference, so its positions mean nothing here"
    if overrule:
        return [f"{path.name} is {what}; it was taken as asked."]
    raise InputError(f"{path.name} is {what}.", advice)


def _are_apart(frames: Set[str], others: Set[str]) -> bool:
    return bool(frames and others and not frames & others)


def _frames_of_reference(header: Header) -> set[str]:
    found = {text(header, "FrameOfReferenceUID")}
    found |= {text(item, "FrameOfReferenceUID") for item in items(header, "ReferencedFrameOfReferenceSequence")}
    return found - {""}


def _refers_to(header: Header, series: Series) -> bool:
    own = set(series.instance_uids) - {""}
    return any(text(item, "ReferencedSOPInstanceUID") in own for item in _referenced(header))


def _referenced(header: Header) -> list[Any]:
    """The items that name images: a SEG's referenced instances, an RT structure set's contour images."""
    found = [image for one in items(header, "ReferencedSeriesSequence") for image in items(one, "ReferencedInstanceSequence")]
    for frame in items(header, "ReferencedFrameOfReferenceSequence"):
        for study in items(frame, "RTReferencedStudySequence"):
            for one in items(study, "RTReferencedSeriesSequence"):
                found += items(one, "ContourImageSequence")
    return found
