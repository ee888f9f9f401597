"""Results as DICOM: a dense segmentation, from wherever it is, as SEG or RTSTRUCT of the series that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract.classes import ClassTable
from ..contract.errors import InputError
from ..contract.geometry import Geometry
from ..contract.job import DENSE, RECORD, UNCERTAINTY, Job
from ..contract.opening import is_folder
from . import dicomseg, files, rtstruct, stacks
from .dicomseg import load_highdicom, write_seg
from .dicomseries import Series

KINDS = ("seg", "labelmap", "fractional", "rtstruct")


@dataclass(frozen=True)
class Dense:
    """labels (K, J, I) uint8, 0 background, c segment c; uncertainty (K, J, I) uint8 or None; source_uids: of the images, where
    known; remarks on the file that it was read from."""

    labels: np.ndarray
    classes: ClassTable
    uncertainty: np.ndarray | None = None
    source_uids: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def check_possible(kind: str, series: Series | None, image: Path) -> None:
    """Raises InputError or OutputError where DICOM cannot be written: asked, and tried, before long work."""
    if series is None:
        raise InputError(
            f"{image.name} is no DICOM series, so a result on it cannot be DICOM.", "Give the folder of the series, or write a .seg.nrrd."
        )
    load_highdicom()
    if kind == "rtstruct":
        rtstruct.check_writable(series)
    else:
        dicomseg.check_writable(series)


def write_dicom(path: Path, kind: str, dense: Dense, series: Series) -> list[str]:
    """Writes SEG (binary or fractional) or RTSTRUCT; what the user should know, in sentences. Raises InputError, OutputError."""
    if dense.source_uids and set(dense.source_uids) != set(series.instance_uids):
        raise InputError("The segmentation was made on another series.", "Choose the series that it was made on.")
    if kind == "rtstruct":
        return rtstruct.write_rtstruct(path, dense.labels, series, dense.classes)
    if kind == "fractional" and dense.uncertainty is None:
        raise InputError("A fractional SEG needs the uncertainty of the result.", "Give the job folder, or an image with --uncertainty.")
    uncertainty = dense.uncertainty if kind == "fractional" else None
    return write_seg(path, dense.labels, series, dense.classes, uncertainty, labelmap=kind == "labelmap")


def read_dense(place: Path, geometry: Geometry, series: Series | None = None, other_patient: bool = False) -> Dense:
    """A dense segmentation on the grid `geometry`: a job folder with a result, a .seg.nrrd, a SEG, an RTSTRUCT, or a label map (0 background).

    `series`, `other_patient`: as in `files.read_annotation`. Raises InputError where it lies on another grid, or segments overlap.
    """
    if is_folder(place) and not stacks.kind_of_folder(place):
        return _read_job(place, geometry)
    if files.is_plain(place):
        labels, classes, remarks = files.read_labelmap(place, geometry)
        return Dense(labels, classes, remarks=tuple(remarks))
    strokes = files.read_annotation(place, geometry, series=series, other_patient=other_patient)
    if strokes.overlaps:
        (a, b), voxels = next(iter(strokes.overlaps.items()))
        advice = "Erase one of the two there, or export with Slicer's own exporter, which keeps overlaps."
        raise InputError(f"{voxels} voxels of {place.name} are in both {a} and {b}.", advice)
    return Dense(np.maximum(strokes.annotation, 1) - np.uint8(1), strokes.classes, remarks=strokes.remarks)


def _read_job(folder: Path, geometry: Geometry) -> Dense:
    if not (folder / RECORD).exists() or not (folder / DENSE).exists():
        raise InputError(f"{folder.name} is no job folder with a result.", "Give a segmentation file, or a job that has ended.")
    with Job.open(folder) as job:
        difference = job.record.geometry.difference_from(geometry)
        if difference:
            raise InputError(f"The job {folder.name} does not lie on the series' grid: {difference}.", "Choose the series that it was made on.")
        dense = job.result(DENSE)
        assert dense is not None  # it was there a moment ago
        return Dense(dense, job.record.classes, job.result(UNCERTAINTY), job.record.source_uids)
