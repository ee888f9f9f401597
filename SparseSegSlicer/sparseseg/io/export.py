"""Results as DICOM: a dense segmentation, from wherever it is, as SEG or RTSTRUCT of the series that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract.classes import ClassTable
from ..contract.errors import InputError
from ..contract.geometry import Geometry
from ..contract.job import DENSE, RECORD, UNCERTAINTY, Job
from . import files, rtstruct
from .dicomseg import load_highdicom, write_seg
from .dicomseries import Series

KINDS = ("seg", "fractional", "rtstruct")


@dataclass(frozen=True)
class Dense:
    """labels (K, J, I) uint8, 0 background, c segment c; uncertainty (K, J, I) uint8 or None; source_uids: of the images, where known."""

    labels: np.ndarray
    classes: ClassTable
    uncertainty: np.ndarray | None = None
    source_uids: tuple[str, ...] = ()


def check_possible(kind: str, series: Series | None, image: Path) -> None:
    """Raises InputError where DICOM cannot be written: asked before long work."""
    if series is None:
        raise InputError(
            f"{image.name} is no DICOM series, so a result on it cannot be DICOM.", "Give the folder of the series, or write a .seg.nrrd."
        )
    load_highdicom()
    if kind == "rtstruct":
        rtstruct.load_contourpy()


def write_dicom(path: Path, kind: str, dense: Dense, series: Series) -> list[str]:
    """Writes SEG (binary or fractional) or RTSTRUCT; what the user should know, in sentences. Raises InputError, OutputError."""
    if dense.source_uids and set(dense.source_uids) != set(series.instance_uids):
        raise InputError("The segmentation was made on another series.", "Choose the series that it was made on.")
    if kind == "rtstruct":
        return rtstruct.write_rtstruct(path, dense.labels, series, dense.classes)
    if kind == "fractional" and dense.uncertainty is None:
        raise InputError("A fractional SEG needs the uncertainty of the result.", "Give the job folder, or an image with --uncertainty.")
    return write_seg(path, dense.labels, series, dense.classes, dense.uncertainty if kind == "fractional" else None)


def read_dense(place: Path, geometry: Geometry) -> Dense:
    """A dense segmentation on the grid `geometry`: a job folder with a result, a .seg.nrrd, a SEG, or a label map (0 background, c segment c).

    Raises InputError where it lies on another grid, or segments overlap.
    """
    if place.is_dir():
        return _read_job(place, geometry)
    if files.is_plain(place):
        return Dense(*files.read_labelmap(place, geometry))
    strokes = files.read_annotation(place, geometry)
    if strokes.overlaps:
        (a, b), voxels = next(iter(strokes.overlaps.items()))
        advice = "Erase one of the two there, or export with Slicer's QuantitativeReporting, which keeps overlaps."
        raise InputError(f"{voxels} voxels of {place.name} are in both {a} and {b}.", advice)
    return Dense(np.maximum(strokes.annotation, 1) - np.uint8(1), strokes.classes)


def _read_job(folder: Path, geometry: Geometry) -> Dense:
    if not (folder / RECORD).exists() or not (folder / DENSE).exists():
        raise InputError(f"{folder.name} is no job folder with a result.", "Give a segmentation file, or a job that has ended.")
    with Job.open(folder) as job:
        difference = job.record.geometry.difference_from(geometry)
        if difference:
            raise InputError(f"The job {folder.name} does not lie on the series' grid: {difference}.", "Choose the series that it was made on.")
        uncertainty = np.load(folder / UNCERTAINTY) if (folder / UNCERTAINTY).exists() else None
        return Dense(np.load(folder / DENSE), job.record.classes, uncertainty, job.record.source_uids)
