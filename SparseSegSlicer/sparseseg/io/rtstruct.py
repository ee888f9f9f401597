"""RT structure sets (RTSTRUCT) out, for radiotherapy: closed contours on the slices of a DICOM series. Needs highdicom and contourpy (extra
`dicom`).

Contours run between the outermost voxels and their neighbours, so that a program that fills them by the centres of voxels gets the very
same voxels. A structure with a hole is one contour with a channel of no width to the hole, as the standard asks (PS3.3 C.8.8.6.3, "keyhole").
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..contract.classes import ClassTable, Segment
from ..contract.errors import InputError
from .dicomseg import NAME, check_labels, copy_identity, load_highdicom, new_series, source_headers
from .dicomseries import Header, Series, load_pydicom, quiet
from .output import replacing

_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"


def load_contourpy() -> Any:
    """The module; raises InputError where it is not installed."""
    try:
        import contourpy
    except ImportError as error:
        raise InputError(
            "RT structure sets need the package contourpy, which is not installed.", "Install it: pip install 'sparseseg[dicom]'."
        ) from error
    return contourpy


@quiet()
def write_rtstruct(path: Path, labels: np.ndarray, series: Series, classes: ClassTable) -> list[str]:
    """Writes `labels` ((K, J, I) uint8: 0 background, c segment c) as contours on `series`; what the user should know, in sentences.

    Raises InputError, OutputError.
    """
    check_labels(labels, series, classes)
    headers, remarks = source_headers(series)
    dataset = _structure_set(headers[0], classes)
    references = _references(series, headers)
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(headers[0], references)]
    dataset.StructureSetROISequence = [_roi(n, s, headers[0]) for n, s in enumerate(classes.segments, start=1)]
    dataset.ROIContourSequence = [_contours(n, s, labels == n, series, references) for n, s in enumerate(classes.segments, start=1)]
    dataset.RTROIObservationsSequence = [_observation(n) for n in range(1, len(classes) + 1)]
    with replacing(Path(path)) as temporary:
        dataset.save_as(temporary)
    return remarks


def _structure_set(header: Header, classes: ClassTable) -> Any:
    """The modules of patient, study, series, equipment and structure set."""
    highdicom = load_highdicom()
    dataset = highdicom.base.SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        **new_series(header),
        sop_class_uid=_RTSTRUCT,
        modality="RTSTRUCT",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=__version__,
        series_description=f"{NAME} structures",
    )
    dataset.copy_patient_and_study_information(header)
    copy_identity(header, dataset, classes)
    now = datetime.now()
    dataset.OperatorsName = ""
    dataset.StructureSetLabel, dataset.StructureSetDate, dataset.StructureSetTime = NAME, now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.FrameOfReferenceUID = header.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = ""
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _item(**values: Any) -> Any:
    dataset = load_pydicom().Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def _references(series: Series, headers: list[Header]) -> list[Any]:
    """For each slice k, the item that names its image."""
    sop_class = headers[0].SOPClassUID
    many = len(headers) == 1
    return [
        _item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=frame.uid, **({"ReferencedFrameNumber": frame.number + 1} if many else {}))
        for frame in series.frames
    ]


def _frame_of_reference(header: Header, references: list[Any]) -> Any:
    images = _item(SeriesInstanceUID=header.SeriesInstanceUID, ContourImageSequence=references)
    study = _item(ReferencedSOPClassUID=_DETACHED_STUDY, ReferencedSOPInstanceUID=header.StudyInstanceUID, RTReferencedSeriesSequence=[images])
    return _item(FrameOfReferenceUID=header.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _roi(number: int, segment: Segment, header: Header) -> Any:
    return _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=header.FrameOfReferenceUID,
        ROIName=segment.name[:64].strip() or f"segment {number}",
        ROIGenerationAlgorithm="SEMIAUTOMATIC",
        ROIGenerationDescription=f"{NAME} {__version__}",
    )


def _observation(number: int) -> Any:
    return _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="", ROIInterpreter="")


def _contours(number: int, segment: Segment, mask: np.ndarray, series: Series, references: list[Any]) -> Any:
    matrix = series.geometry.matrix
    items: list[Any] = []
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        for outline in outlines(mask[k]):
            points = np.column_stack([outline, np.full(len(outline), k), np.ones(len(outline))]) @ matrix[:3].T
            items.append(
                _item(
                    ContourImageSequence=[references[k]],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourNumber=len(items) + 1,
                    ContourData=[f"{v:.4f}" for v in points.ravel()],
                )
            )
    item = _item(ROIDisplayColor=[round(255 * v) for v in segment.color], ReferencedROINumber=number)
    if items:
        item.ContourSequence = items
    return item


def outlines(mask: np.ndarray) -> Iterator[np.ndarray]:
    """The closed outlines of a mask, (rows, columns) bool: for each part with its holes, points (n, 2) in (column, row) voxels, the first not
    repeated. They pass halfway between the mask's voxels and the others."""
    contourpy = load_contourpy()
    padded = np.pad(mask, 1).astype(np.float32)
    generator = contourpy.contour_generator(z=padded, fill_type="OuterOffset")
    for points, offsets in zip(*generator.filled(0.5, np.inf), strict=True):
        rings = [_corners(points[a : b - 1]) - 1 for a, b in itertools.pairwise(offsets)]
        yield _with_keyholes(rings[0], rings[1:])


def _corners(ring: np.ndarray) -> np.ndarray:
    """A closed ring without the points that lie on a straight line between their neighbours."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9]


def _with_keyholes(ring: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """One ring, with a channel to each hole. The nearest hole comes first, so no channel crosses another hole."""
    while holes:
        apart = [((ring[:, None] - hole[None]) ** 2).sum(axis=2) for hole in holes]
        nearest = min(range(len(holes)), key=lambda n: float(apart[n].min()))
        at, begin = np.unravel_index(apart[nearest].argmin(), apart[nearest].shape)
        hole = np.roll(holes.pop(nearest), -int(begin), axis=0)
        ring = np.concatenate([ring[: at + 1], hole, hole[:1], ring[at:]])
    return ring
