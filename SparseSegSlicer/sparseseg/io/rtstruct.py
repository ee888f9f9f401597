"""RT structure sets (RTSTRUCT) out and in, for radiotherapy: closed contours on the slices of a DICOM series. Needs pydicom, and for writing
highdicom and contourpy (extra `dicom`).

Contours run between the outermost voxels and their neighbours, so that a program that fills them by the centres of voxels gets the very
same voxels. A structure with a hole is one contour with a channel of no width to the hole, as the standard asks (PS3.3 C.8.8.6.3, "keyhole").

In: a voxel belongs to a structure where its centre lies in an odd number of the contours on its slice, so holes are empty, whether they have
a channel or are contours of their own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..contract.classes import ClassTable, Segment, distinct_color
from ..contract.errors import AnnotationError, InputError
from ..contract.geometry import Geometry
from ..contract.strokes import merge_strokes
from .dicomheader import Header, decoding, items, load_pydicom, numbers, quiet, read_header, text, whole
from .dicomidentity import check_identity
from .dicomseg import (
    NAME,
    Source,
    changed_names,
    check_labels,
    clean,
    copy_identity,
    in_words,
    load_highdicom,
    new_series,
    rgb_255,
    source_headers,
)
from .dicomseries import Series
from .output import replacing
from .segnrrd import SparseLabels, choose_background, coded, named_overlaps

_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_CROSSINGS = 1 << 18  # of edges and rows, at a time
_ON_SLICE = 0.15  # of the slice distance: how far a contour may lie beside a slice's plane
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
    source, remarks = source_headers(series)
    dataset = in_words(lambda: _complete(labels, series, classes, source))
    with replacing(Path(path)) as temporary:
        in_words(lambda: dataset.save_as(temporary))
    return remarks + changed_names(classes)


def check_writable(series: Series) -> None:
    """Raises InputError or OutputError where no RT structure set of the series can be written: a trial with one voxel, before long work."""
    labels = np.zeros(series.geometry.shape_kji, np.uint8)
    labels[0, 0, 0] = 1
    with quiet():
        source = source_headers(series)[0]
        in_words(lambda: _complete(labels, series, ClassTable.numbered(1), source))


def _complete(labels: np.ndarray, series: Series, classes: ClassTable, source: Source) -> Any:
    load_contourpy()
    dataset = _structure_set(source, classes)
    references = _references(series, source)
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source, references)]
    dataset.StructureSetROISequence = [_roi(n, s, source) for n, s in enumerate(classes.segments, start=1)]
    dataset.ROIContourSequence = [_contours(n, s, labels == n, series, references) for n, s in enumerate(classes.segments, start=1)]
    dataset.RTROIObservationsSequence = [_observation(n) for n in range(1, len(classes) + 1)]
    return dataset


def _structure_set(source: Source, classes: ClassTable) -> Any:
    """The modules of patient, study, series, equipment and structure set."""
    highdicom = load_highdicom()
    dataset = highdicom.base.SOPClass(
        study_instance_uid=source.ties["StudyInstanceUID"],
        **new_series(source.header),
        sop_class_uid=_RTSTRUCT,
        modality="RTSTRUCT",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=__version__,
        series_description=f"{NAME} structures",
    )
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(dataset, name, "")  # these must be there, if only empty
    with suppress(Exception):  # what else the modules of patient and study hold, where it can be read
        dataset.copy_patient_and_study_information(source.header)
    dataset.StudyInstanceUID = source.ties["StudyInstanceUID"]
    copy_identity(source.header, dataset, classes)
    now = datetime.now()
    dataset.OperatorsName = ""
    dataset.StructureSetLabel, dataset.StructureSetDate, dataset.StructureSetTime = NAME, now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.FrameOfReferenceUID = source.ties["FrameOfReferenceUID"]
    dataset.PositionReferenceIndicator = ""
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _item(**values: Any) -> Any:
    dataset = load_pydicom().Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def _references(series: Series, source: Source) -> list[Any]:
    """For each slice k, the item that names its image."""
    kind = text(source.header, "SOPClassUID")
    many = len(source.headers) == 1
    return [
        _item(ReferencedSOPClassUID=kind, ReferencedSOPInstanceUID=frame.uid, **({"ReferencedFrameNumber": frame.number + 1} if many else {}))
        for frame in series.frames
    ]


def _frame_of_reference(source: Source, references: list[Any]) -> Any:
    ties = source.ties
    images = _item(SeriesInstanceUID=ties["SeriesInstanceUID"], ContourImageSequence=references)
    study = _item(ReferencedSOPClassUID=_DETACHED_STUDY, ReferencedSOPInstanceUID=ties["StudyInstanceUID"], RTReferencedSeriesSequence=[images])
    return _item(FrameOfReferenceUID=ties["FrameOfReferenceUID"], RTReferencedStudySequence=[study])


def _roi(number: int, segment: Segment, source: Source) -> Any:
    return _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=source.ties["FrameOfReferenceUID"],
        ROIName=clean(segment.name) or f"segment {number}",
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
    item = _item(ROIDisplayColor=rgb_255(segment), ReferencedROINumber=number)
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


# ---------------------------------------------------------------- in


def is_rtstruct(header: Header) -> bool:
    return text(header, "SOPClassUID") == _RTSTRUCT


def read_rtstruct(
    path: Path, geometry: Geometry, background: str | None = None, series: Series | None = None, other_patient: bool = False
) -> SparseLabels:
    """The structures of an RT structure set as strokes on `geometry`, the image's grid; the body's outline, which contains all others, is left
    out with a remark. `series`, `other_patient`: as in `dicomseg.read_seg`. Raises InputError, AnnotationError.
    """
    path = Path(path)
    header = read_header(path)
    remarks = check_identity(path, header, series, other_patient)
    with decoding(path, "is damaged or cut short"):
        return _read_structures(path, header, geometry, background, remarks)


def _read_structures(path: Path, header: Header, geometry: Geometry, background: str | None, remarks: list[str]) -> SparseLabels:
    named = {whole(item, "ROINumber", -1, path.name): item for item in items(header, "StructureSetROISequence")}
    outlines_ = {whole(item, "ReferencedROINumber", -1, path.name): item for item in items(header, "ROIContourSequence")}
    external = {
        whole(item, "ReferencedROINumber", -1, path.name)
        for item in items(header, "RTROIObservationsSequence")
        if text(item, "RTROIInterpretedType") == "EXTERNAL"
    }
    kept = [number for number in named if number not in external or len(named) == 1]
    if len(kept) < len(named):
        left_out = ", ".join(text(named[number], "ROIName") for number in named if number not in kept)
        remarks.append(f"{path.name}: {left_out} is the outline of the body, in which the other structures lie; it was left out.")
    segments = {n: _read_roi(n, named[n], outlines_.get(n), place) for place, n in enumerate(kept)}
    chosen = choose_background(list(segments.values()), background, path)
    ordered, codes = coded(segments, chosen)
    if not ordered:
        raise AnnotationError(f"{path.name} holds no structure.", "Contour each structure, and export again.")
    classes = ClassTable(tuple(ordered.values()), chosen)
    dropped: Counter[str] = Counter()
    strokes = (stroke for number, code in codes.items() for stroke in _filled(outlines_.get(number), code, geometry, path, dropped))
    annotation, clashes = merge_strokes(geometry.shape_kji, strokes)
    remarks += [f"{path.name}: {count} contours {why} were left out." for why, count in dropped.items()]
    return SparseLabels(annotation, classes, named_overlaps(clashes, classes), {}, tuple(remarks))


def _read_roi(number: int, item: Any, contours: Any, place: int) -> Segment:
    rgb = numbers(contours, "ROIDisplayColor")
    color = tuple(round(min(max(v, 0), 255) / 255, 4) for v in rgb) if rgb and len(rgb) == 3 else distinct_color(place)
    return Segment(f"ROI_{number}", text(item, "ROIName") or f"structure {number}", color)  # type: ignore[arg-type]


def _filled(structure: Any, code: int, geometry: Geometry, path: Path, dropped: Counter[str]) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """For each slice with contours of a structure, the slice's box and what it claims there: `code`, uint8. Counts what is no closed contour."""
    rings: dict[int, list[np.ndarray]] = {}
    inverse = np.linalg.inv(geometry.matrix)
    for contour in items(structure, "ContourSequence"):
        given = numbers(contour, "ContourData")
        if text(contour, "ContourGeometricType") not in _CLOSED:
            dropped["that are points or open lines"] += 1
            continue
        if given is None or len(given) % 3:
            raise InputError(f"A contour of {path.name} is damaged: its points are not three numbers each.", "Export it again.")
        if len(given) < 9:
            dropped["of fewer than three points"] += 1
            continue
        points = np.column_stack([np.reshape(given, (-1, 3)), np.ones(len(given) // 3)]) @ inverse[:3].T
        rings.setdefault(_slice_of(points[:, 2], geometry, path), []).append(points[:, :2])
    rows, columns = geometry.shape_kji[1:]
    for k, outlines_ in rings.items():
        yield (slice(k, k + 1), slice(0, rows), slice(0, columns)), (inside(outlines_, (rows, columns)) * np.uint8(code))[None]


def _slice_of(k: np.ndarray, geometry: Geometry, path: Path) -> int:
    """The slice on which points with these indices lie. Raises InputError."""
    nearest = int(np.rint(k.mean()))
    if np.abs(k - nearest).max() > _ON_SLICE:
        raise InputError(f"{path.name} has contours that do not lie on the image's slices.", "Choose the image on which they were drawn.")
    if not 0 <= nearest < geometry.shape_kji[0]:
        raise InputError(f"{path.name} has contours outside the image.", "Choose the image on which they were drawn.")
    return nearest


def inside(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Which pixels, (rows, columns) bool, have their centres in an odd number of closed rings, each points (n, 2) in (column, row)."""
    rows, columns = size
    toggled = np.zeros((rows, columns + 1), np.int32)
    for a, b in _edges(rings, max(1, _CROSSINGS // max(1, rows))):
        low, high = (np.clip(np.ceil(pick(a[:, 1], b[:, 1])), 0, rows).astype(int) for pick in (np.minimum, np.maximum))
        crossed = high - low  # rows whose centres lie between the ends of each edge, the upper end not counted
        edge = np.repeat(np.arange(len(a)), crossed)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed, crossed) + low[edge]
        part = (row - a[edge, 1]) / (b[edge, 1] - a[edge, 1])
        column = np.ceil(a[edge, 0] + part * (b[edge, 0] - a[edge, 0]))
        np.add.at(toggled, (row, np.clip(column, 0, columns).astype(int)), 1)
    return np.cumsum(toggled, axis=1)[:, :columns] % 2 == 1


def _edges(rings: list[np.ndarray], at_a_time: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """First and last points of the rings' edges, so many at a time: each may cross every row of the slice."""
    for ring in rings:
        ends = np.roll(ring, -1, axis=0)
        for n in range(0, len(ring), at_a_time):
            yield ring[n : n + at_a_time], ends[n : n + at_a_time]
