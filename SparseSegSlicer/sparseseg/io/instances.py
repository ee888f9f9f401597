"""DICOM files one by one: what each is, whatever else is wrong with it. Needs pydicom (extra `dicom`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .dicomheader import read_header, text
from .dicomseries import SEGMENTATIONS


@dataclass(frozen=True)
class Instance:
    """One file's UIDs (series, and its own) and modality, empty where it has none; is_image: it has pixels that are no segmentation."""

    series: str
    uid: str
    modality: str
    is_image: bool


def read_instance(path: Path) -> Instance:
    """Raises InputError for what is no DICOM file, or damaged."""
    header = read_header(path)
    is_image = "Rows" in header and text(header, "SOPClassUID") not in SEGMENTATIONS
    return Instance(text(header, "SeriesInstanceUID"), text(header, "SOPInstanceUID"), text(header, "Modality"), is_image)
