"""One entry of a list of patients, whatever kind of list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_ENDINGS = (".seg.nrrd", ".nrrd", ".nhdr", ".nii.gz", ".nii", ".mha", ".mhd", ".dcm", ".txt")


@dataclass(frozen=True)
class Meaning:
    """What the values of a label map mean, as in io.read_annotation: `background` and `unlabelled`; `names` of other values, where a data set has
    them. A segmentation with names of its own (.seg.nrrd) needs none of it."""

    background: str | None = None
    unlabelled: int = 0
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Patient:
    """One entry of a list. name: its own, and safe as a file's. images: one a channel, a file, a folder of a DICOM series, or the address of a series
    (https://) each. extra: what the list said besides. place: where the list says so, for sentences."""

    name: str
    images: tuple[str, ...]
    annotation: Path | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    place: str = ""
    meaning: Meaning = Meaning()


def stem(name: str) -> str:
    """A file's name without the ending of its format."""
    return next((name[: -len(ending)] for ending in _ENDINGS if name.lower().endswith(ending)), name)
