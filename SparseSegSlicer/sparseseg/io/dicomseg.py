"""DICOM segmentations (SEG) out and in. Needs highdicom (extra `dicom`), which knows the standard's modules.

Out: one binary SEG, or a fractional one that tells how sure the result is. Each frame refers to the slice it lies on, and the patient's and the
study's attributes are those of the series. In: SEG of any writer, its frames laid on the image's grid by their own positions, never resampled.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..contract.classes import ClassTable, Segment, distinct_color
from ..contract.errors import AnnotationError, InputError, OutputError, SparseSegError
from ..contract.geometry import Geometry
from ..contract.strokes import merge_strokes
from .decoder import Decoder
from .dicomfile import opened
from .dicomheader import Header, decoding, first, items, load_pydicom, number, numbers, quiet, read_header, text, values, whole
from .dicomidentity import check_identity
from .dicompixels import pixel_bytes, read_pixels
from .dicomseries import COSINE_TOLERANCE, Series
from .output import replacing
from .segnrrd import SparseLabels, choose_background, coded, named_overlaps

NAME = "SparseSegSlicer"
TERMINOLOGY_TAG = "TerminologyEntry"  # Slicer's segment tag with category, type and region
_CONTEXTS = ("Segmentation category and type - DICOM master list", "Anatomic codes - DICOM master list")  # Slicer's names of terminologies
_TISSUE = ("SCT", "85756007", "Tissue")  # what Slicer itself takes where nobody chose
_LEARNING = ("DCM", "123110", "Artificial Intelligence")  # CID 7162, families of algorithms
_BINARY, _LABELMAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
_IDENTITY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_TIES = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_LO, _SHORTEST = 64, 16  # characters that a long string and a short string of DICOM may have
_NEAR = 0.05  # voxels: how far a frame's first pixel may lie beside a voxel's centre
_SERIES_OFFSET = 1000  # series numbers of results: the source's and this
Code = tuple[str, str, str]  # scheme, value, meaning


def load_highdicom() -> Any:
    """The module; raises InputError where it is not installed."""
    load_pydicom()
    try:
        import highdicom
    except ImportError as error:
        raise InputError(
            "DICOM segmentations need the package highdicom, which is not installed.", "Install it: pip install 'sparseseg[dicom]'."
        ) from error
    return highdicom


# ---------------------------------------------------------------- codes


@dataclass(frozen=True)
class Terms:
    """What a segment is, in coded terms: category and type, and where in the body, as Slicer's terminologies have them."""

    category: Code
    type: Code
    type_modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None

    @classmethod
    def of(cls, segment: Segment) -> Terms | None:
        """From the segment's tag; None where it has none, or one without category or type."""
        parts = segment.tags.get(TERMINOLOGY_TAG, "").split("~")
        codes = [_code(part) for part in [*parts, *[""] * 7][:7]]
        if codes[1] is None or codes[2] is None:
            return None
        return cls(codes[1], codes[2], codes[3], codes[5], codes[6])

    def entry(self) -> str:
        """As Slicer's tag."""

        def text(code: Code | None) -> str:
            return "^".join(code or ("", "", ""))

        what, where = (self.category, self.type, self.type_modifier), (self.region, self.region_modifier)
        return "~".join([_CONTEXTS[0], *map(text, what), _CONTEXTS[1], *map(text, where)])


def _code(text: str) -> Code | None:
    scheme, value, meaning = (*text.split("^"), "", "", "")[:3]
    return (scheme, value, meaning) if scheme and value and meaning else None


# ---------------------------------------------------------------- out


@quiet()
def write_seg(
    path: Path, labels: np.ndarray, series: Series, classes: ClassTable, uncertainty: np.ndarray | None = None, labelmap: bool = False
) -> list[str]:
    """Writes `labels` ((K, J, I) uint8: 0 background, c segment c) as a SEG of `series`; what the user should know, in sentences.

    Binary, or a label map; with `uncertainty` ((K, J, I) uint8, 0 sure .. 255 two segments alike) fractional: the probability of each
    voxel's label, at least one half, so that those at one half and above are the binary result. Raises InputError, OutputError.
    """
    check_labels(labels, series, classes)
    source, remarks = source_headers(series)
    missing = [segment.name for segment in classes.segments if Terms.of(segment) is None]
    if missing:
        remarks.append(f"No terminology was chosen for {', '.join(missing)}: coded as tissue. Choose one in Slicer by a double click on the colour.")
    kind = "LABELMAP" if labelmap else "BINARY" if uncertainty is None else "FRACTIONAL"
    seg = in_words(lambda: _segmentation(labels, series, classes, source, kind))
    if uncertainty is not None:
        _set_probabilities(seg, uncertainty, series)
    with replacing(Path(path)) as temporary:
        in_words(lambda: seg.save_as(temporary))
    return remarks + changed_names(classes)


def in_words(work: Any) -> Any:
    """What `work` returns; whatever a library raises over a header that nobody foresaw becomes a sentence, without the header's values."""
    try:
        return work()
    except (SparseSegError, OSError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__} in {__package__.partition('.')[0]}'s DICOM library"
        raise OutputError(
            f"DICOM cannot be written for this series ({reason}).", "Write a .seg.nrrd instead, and export that from Slicer."
        ) from error


def _segmentation(labels: np.ndarray, series: Series, classes: ClassTable, source: Source, kind: str) -> Any:
    """highdicom's object. With the source's further elements (equipment, patient's study) where it takes them, else without."""
    descriptions = [_description(n, segment) for n, segment in enumerate(classes.segments, start=1)]
    arguments = {
        **{"manufacturer": NAME, "manufacturer_model_name": NAME, "software_versions": __version__, "device_serial_number": __version__},
        **{"content_label": "SEGMENTATION", "content_description": "Dense segmentation from sparse annotation"},
        **{"series_description": f"{NAME} segmentation", **new_series(source.header)},
    }
    ordered = labels[_stored_order(series)]
    make = load_highdicom().seg.Segmentation
    try:
        seg = make(_images(series, source, whole_header=True), ordered, kind, descriptions, **arguments)
    except (ValueError, TypeError, AttributeError, KeyError):
        seg = make(_images(series, source, whole_header=False), ordered, kind, descriptions, **arguments)
    copy_identity(source.header, seg, classes)
    return seg


def check_writable(series: Series) -> None:
    """Raises InputError or OutputError where no SEG of the series can be written: a trial with one voxel, before long work."""
    labels = np.zeros(series.geometry.shape_kji, np.uint8)
    labels[0, 0, 0] = 1
    with quiet():
        source = source_headers(series)[0]
        in_words(lambda: _segmentation(labels, series, ClassTable.numbered(1), source, "BINARY"))


def check_labels(labels: np.ndarray, series: Series, classes: ClassTable) -> None:
    """Raises InputError where labels (K, J, I) do not belong to the series, or hold nothing."""
    if labels.shape != series.geometry.shape_kji or labels.dtype != np.uint8 or labels.max(initial=0) > len(classes):
        raise InputError(f"Labels of shape {labels.shape} do not fit the series of {series.geometry.shape_kji} voxels (k, j, i).")
    if not labels.any():
        raise InputError("The segmentation is empty, so there is nothing to export.", "Segment something first.")


@dataclass(frozen=True)
class Source:
    """What a result takes from its series: the first file's header, what ties them together (`ties`, UIDs by name), and each file's own UID
    and SOP class, in the order of the first slices."""

    header: Header
    headers: tuple[Header, ...]
    ties: dict[str, str]


def source_headers(series: Series) -> tuple[Source, list[str]]:
    """The series' headers, harmonised once; and remarks where what ties them to a study is lost or differs from file to file.

    Raises InputError where a result could not refer to them.
    """
    headers = [read_header(path) for path in dict.fromkeys(frame.file for frame in series.frames)]
    if len(headers) > 1 and any("PerFrameFunctionalGroupsSequence" in header for header in headers):
        raise InputError(f"The series consists of {len(headers)} enhanced images.", "Export it as one enhanced image, or as plain slices.")
    known = [text(header, "SOPInstanceUID") for header in headers]
    if len(set(known)) < len(known) or "" in known:
        what = "no SOP Instance UID" if "" in known else "the same SOP Instance UID"
        raise InputError(
            f"Slices of the series have {what}, so a DICOM result cannot refer to them.", "Write a .seg.nrrd, or export the series again."
        )
    with suppress(Exception):  # texts that their character set does not allow stay as they are
        headers[0].decode()  # while they still stand beside their own character set
    ties, remarks, lost = {}, [], []
    for name in _TIES:
        found = list(dict.fromkeys(uid for header in headers if (uid := text(header, name))))
        if not found:
            lost.append(name)
        elif len(found) > 1:
            remarks.append(f"The slices have {len(found)} different {name}s; the result has that of the first one.")
        # made ones are the same at each export, so that all results of a series meet in one study
        ties[name] = found[0] if found else str(load_pydicom().uid.generate_uid(entropy_srcs=[name, *sorted(known)]))
    if lost:
        remarks.append(f"The series has no {' and no '.join(lost)}, so new ones were made: an archive cannot join the result to the images.")
    return Source(headers[0], tuple(headers), ties), remarks


def new_series(header: Header) -> dict[str, Any]:
    """UIDs and numbers of a new series in the study of `header`, as highdicom's arguments."""
    uid = load_highdicom().UID
    series_number = next(iter(numbers(header, "SeriesNumber") or []), 0.0)
    result_number = int(min(max(series_number, 0), 10**6)) + _SERIES_OFFSET
    return {"series_instance_uid": uid(), "series_number": result_number, "sop_instance_uid": uid(), "instance_number": 1}


def _images(series: Series, source: Source, whole_header: bool) -> list[Any]:
    """The series' images as highdicom insists on them: one study, one orientation, values in proper form. The first one has what further
    elements of the header can be read, where `whole_header`."""
    shared = _axes(series)
    many = "PerFrameFunctionalGroupsSequence" in source.header
    images = []
    for n, header in enumerate(source.headers):
        image = load_pydicom().Dataset()
        for name in ("SOPClassUID", "SOPInstanceUID", "Modality"):
            setattr(image, name, text(header, name))
        for name, uid in source.ties.items():
            setattr(image, name, uid)
        for name in _IDENTITY:
            setattr(image, name, None if name.endswith(("Date", "Time")) else "")
        image.SpecificCharacterSet, image.PositionReferenceIndicator = "ISO_IR 192", ""
        image.Rows, image.Columns = series.geometry.shape_kji[1:]
        if many:
            _set_frames(image, series, shared)
        else:
            image.update(shared)
            image.ImagePositionPatient = _decimals(numbers(header, "ImagePositionPatient") or [])
        if whole_header and n == 0:
            _add_readable(image, header)
        images.append(image)
    return images


def _add_readable(image: Any, header: Header) -> None:
    """The header's further elements, but those that cannot be converted; what `image` has stays as it is."""
    groups = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
    for tag in header.keys():  # noqa: SIM118 (a header yields elements)
        with suppress(Exception):
            if tag not in image and header[tag].keyword not in groups:
                image.add(header[tag])


def _axes(series: Series) -> Any:
    """Orientation and spacing of the series' grid."""
    geometry = series.geometry
    cosines = np.array(geometry.direction).reshape(3, 3)
    axes = load_pydicom().Dataset()
    axes.ImageOrientationPatient = _decimals([*cosines[:, 0], *cosines[:, 1]])
    axes.PixelSpacing = _decimals(geometry.spacing_ijk_mm[1::-1])
    axes.SliceThickness = _decimals(geometry.spacing_ijk_mm[2:])[0]
    return axes


def _decimals(found: Any) -> list[Any]:
    return [load_pydicom().valuerep.DSfloat(float(v) + 0.0, auto_format=True) for v in found]


def _set_frames(image: Any, series: Series, axes: Any) -> None:
    """The functional groups of an enhanced image: what highdicom looks for, and where."""
    pydicom = load_pydicom()

    def item(**elements: Any) -> Any:
        dataset = pydicom.Dataset()
        for name, value in elements.items():
            setattr(dataset, name, value)
        return dataset

    measures = item(PixelSpacing=axes.PixelSpacing, SliceThickness=axes.SliceThickness)
    orientation = item(ImageOrientationPatient=axes.ImageOrientationPatient)
    image.SharedFunctionalGroupsSequence = [item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])]
    places = {frame.number: (series.geometry.matrix @ (0, 0, k, 1))[:3] for k, frame in enumerate(series.frames)}
    image.NumberOfFrames = len(places)
    image.PerFrameFunctionalGroupsSequence = [
        item(PlanePositionSequence=[item(ImagePositionPatient=_decimals(places[number]))]) for number in sorted(places)
    ]


def copy_identity(header: Header, result: Any, classes: ClassTable) -> None:
    """Patient and study exactly as the source has them; in its character set, or in UTF-8 where segments have names beyond ASCII: readers
    of SEG (dcmqi) know no other for those."""
    for name in _IDENTITY:
        with suppress(Exception):  # one that cannot be read stays empty
            if name in header:
                result[name] = header[name]
    own = [str(v) for v in values(header, "SpecificCharacterSet")] or "ISO_IR 6"
    result.SpecificCharacterSet = own if "".join(classes.names).isascii() else "ISO_IR 192"


def clean(name: str, longest: int = _LO) -> str:
    """Free text as DICOM allows it: no backslash, which separates values, no control characters, not too long."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+", " ", name.replace("\\", "/")).strip()[:longest].strip()


def changed_names(classes: ClassTable) -> list[str]:
    """A remark on the names that DICOM cannot hold as they are."""
    changed = [repr(clean(name)) for name in classes.names if clean(name) != name]
    return (
        [f"Segment names were cut or cleaned, as DICOM allows {_LO} characters and no control characters: {', '.join(changed)}."] if changed else []
    )


def rgb_255(segment: Segment) -> list[int]:
    return [round(255 * min(max(v, 0.0), 1.0)) if math.isfinite(v) else 0 for v in segment.color]


def _stored_order(series: Series) -> list[int]:
    """The slices k in the order in which the source's files hold them: single-frame files in any, so ascending; frames by their number."""
    return sorted(range(len(series.frames)), key=lambda k: series.frames[k].number)


def _description(number: int, segment: Segment) -> Any:
    highdicom = load_highdicom()
    terms = Terms.of(segment) or Terms(_TISSUE, _TISSUE)
    description = highdicom.seg.SegmentDescription(
        number,
        clean(segment.name) or f"segment {number}",
        _concept(terms.category),
        _concept(terms.type),
        "SEMIAUTOMATIC",
        highdicom.AlgorithmIdentificationSequence(NAME, _concept(_LEARNING), __version__),
        tracking_uid=highdicom.UID(),
        tracking_id=clean(segment.id) or f"Segment_{number}",
        anatomic_regions=[_concept(terms.region)] if terms.region else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*rgb_255(segment)),
    )
    if terms.type_modifier:
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [_concept(terms.type_modifier)]
    if terms.region and terms.region_modifier:
        description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [_concept(terms.region_modifier)]
    return description


def _concept(code: Code) -> Any:
    scheme, value, meaning = code
    return load_highdicom().sr.CodedConcept(value=clean(value), scheme_designator=clean(scheme, _SHORTEST), meaning=clean(meaning))


def _set_probabilities(seg: Any, uncertainty: np.ndarray, series: Series) -> None:
    """Puts probabilities in place of the ones: with two candidates left, p1 - p2 = 1 - u means p1 = 1 - u / 2."""
    slice_of = {(frame.uid, frame.number + 1): k for k, frame in enumerate(series.frames)}
    pixels = np.frombuffer(seg.PixelData, np.uint8).reshape(-1, seg.Rows, seg.Columns).copy()
    for frame, groups in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        k = slice_of[source.ReferencedSOPInstanceUID, int(source.get("ReferencedFrameNumber", 1))]
        np.copyto(frame, 255 - uncertainty[k] // 2, where=frame > 0)
    seg.PixelData = pixels.tobytes()


# ---------------------------------------------------------------- in


def read_seg(
    path: Path, geometry: Geometry, background: str | None = None, series: Series | None = None, other_patient: bool = False
) -> SparseLabels:
    """The segments of a SEG (binary, fractional, or label map) as strokes on `geometry`, the image's grid.

    Frames may be fewer, cropped, or cut along another axis than the image's: each lies where its position says. A fractional voxel counts
    from one half. `series`: the image, where it is DICOM; a SEG of another patient or frame of reference is refused unless `other_patient`.
    Raises InputError where the file is no SEG or does not lie on the grid, AnnotationError where it holds no segment.
    """
    path = Path(path)
    header = read_header(path)
    if text(header, "SOPClassUID") not in (_BINARY, _LABELMAP):
        raise InputError(f"{path.name} is no DICOM segmentation.", "Give a SEG object, a .seg.nrrd file or a label map.")
    remarks = check_identity(path, header, series, other_patient)
    with decoding(path, "is damaged or cut short, or its compression is not known"):
        return _read_seg(path, header, geometry, background, remarks)


def _read_seg(path: Path, header: Header, geometry: Geometry, background: str | None, remarks: list[str]) -> SparseLabels:
    listed = items(header, "SegmentSequence")
    numbered = {whole(item, "SegmentNumber", -1, path.name): _segment(item, place) for place, item in enumerate(listed)}
    if len(numbered) < len(listed):
        raise InputError(f"{path.name} lists two segments with the same number.", "Export it again from the program that made it.")
    if text(header, "SOPClassUID") == _LABELMAP:
        numbered.pop(0, None)  # the background
    chosen = choose_background(list(numbered.values()), background, path)
    ordered, codes = coded(dict(sorted(numbered.items())), chosen)
    if not ordered:
        raise AnnotationError(f"{path.name} holds no segment besides the background.", "Add a segment for each structure.")
    classes = ClassTable(tuple(ordered.values()), chosen)
    unlisted: Counter[int] = Counter()
    annotation, clashes = merge_strokes(geometry.shape_kji, _claims(header, _frames(path, header), codes, geometry, path, unlisted))
    if unlisted:
        counts = ", ".join(f"{number} ({count} voxels)" for number, count in sorted(unlisted.items()))
        remarks.append(f"{path.name} shows segments that its table does not list, by number: {counts}. They were left out.")
    return SparseLabels(annotation, classes, named_overlaps(clashes, classes), {}, tuple(remarks))


def _segment(item: Any, place: int) -> Segment:
    color = distinct_color(place)
    lab = numbers(item, "RecommendedDisplayCIELabValue")
    if lab and len(lab) == 3:
        rgb = load_highdicom().color.CIELabColor.from_dicom_value([int(v) for v in lab]).to_rgb(clip=True)
        r, g, b = (round(v / 255, 4) for v in rgb)
        color = (r, g, b)
    name = text(item, "SegmentLabel") or f"segment {text(item, 'SegmentNumber')}"
    tags = {}
    category, kind = _coded(item, "SegmentedPropertyCategoryCodeSequence"), _coded(item, "SegmentedPropertyTypeCodeSequence")
    if category and kind:
        terms = Terms(
            category,
            kind,
            _coded(first(item, "SegmentedPropertyTypeCodeSequence"), "SegmentedPropertyTypeModifierCodeSequence"),
            _coded(item, "AnatomicRegionSequence"),
            _coded(first(item, "AnatomicRegionSequence"), "AnatomicRegionModifierSequence"),
        )
        tags[TERMINOLOGY_TAG] = terms.entry()
    return Segment(_segment_id(item), name, color, tags)


def _segment_id(item: Any) -> str:
    """Results of ours carry the segment's ID; the number makes any other unique."""
    tracking = text(item, "TrackingID")
    return tracking if tracking and text(item, "SegmentAlgorithmName") == NAME else f"Segment_{text(item, 'SegmentNumber')}"


def _coded(holder: Any, name: str) -> Code | None:
    code = first(holder, name)
    value = next((found for kind in ("CodeValue", "LongCodeValue", "URNCodeValue") if (found := text(code, kind))), "")
    return (text(code, "CodingSchemeDesignator"), value, text(code, "CodeMeaning")) if value else None


def _claims(
    header: Header, frames: Iterator[np.ndarray], codes: dict[int, int], geometry: Geometry, path: Path, unlisted: Counter[int]
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Where each frame lies on the grid, and what it claims there: annotation values, uint8. Voxels of segments without a code are counted."""
    shared = first(header, "SharedFunctionalGroupsSequence")
    threshold = (int(number(header, "MaximumFractionalValue", 1, path.name)) + 1) // 2
    is_labelmap = text(header, "SOPClassUID") == _LABELMAP
    table = np.zeros(1 << 16, np.uint8)
    for segment, code in codes.items():
        table[segment] = code
    seen: dict[tuple[int, bytes], int] = {}
    for n, (groups, pixels) in enumerate(zip(items(header, "PerFrameFunctionalGroupsSequence"), frames, strict=True), start=1):
        if is_labelmap:
            segment, claimed = -1, table[pixels]
            for value, count in zip(*np.unique(pixels[(claimed == 0) & (pixels != 0)], return_counts=True), strict=True):
                unlisted[int(value)] += int(count)
        else:
            segment = whole(_in_groups("SegmentIdentificationSequence", groups, shared, path), "ReferencedSegmentNumber", 0, path.name)
            claimed = (pixels >= threshold).astype(np.uint8) * table[segment]
            if segment not in codes and pixels.any():
                unlisted[segment] += int(np.count_nonzero(pixels >= threshold))
        where = _first_pixel(groups, shared, path)
        before = seen.setdefault((segment, np.round(np.column_stack([where[0], where[1]]), 3).tobytes()), n)
        if before != n:
            shown = "" if is_labelmap else f" of segment {segment}"
            sentence = f"Frames {before} and {n}{shown} of {path.name} lie at the same position."
            raise InputError(sentence, "Export it again from the program that made it.")
        if claimed.any():
            yield _laid(claimed, where, geometry, path)


def _frames(path: Path, header: Header) -> Iterator[np.ndarray]:
    """The frames' stored values, (rows, columns), one at a time. Raises ValueError where the file ends too early."""
    pydicom = load_pydicom()
    if header.file_meta.TransferSyntaxUID.is_encapsulated:
        with Decoder() as decoder:
            yield from read_pixels(path, decoder)[0]
        return
    with opened(path, lambda: pixel_bytes(header, path)) as file:
        if whole(header, "BitsAllocated", 8, path.name) > 1:
            yield from pydicom.pixels.iter_pixels(file)
            return
        # one bit a pixel: a frame may begin within a byte, which pydicom's iterator does not know
        packed = np.frombuffer(pydicom.dcmread(file).PixelData, np.uint8)
    rows, columns = whole(header, "Rows", 0, path.name), whole(header, "Columns", 0, path.name)
    for frame in range(len(items(header, "PerFrameFunctionalGroupsSequence"))):
        start = frame * rows * columns
        last = start + rows * columns
        bits = np.unpackbits(packed[start // 8 : -(-last // 8)], bitorder="little")
        yield bits[start % 8 : start % 8 + rows * columns].reshape(rows, columns)


def _in_groups(name: str, groups: Any, shared: Any, path: Path) -> Any:
    for holder in (groups, shared):
        if (item := first(holder, name)) is not None:
            return item
    raise InputError(f"{path.name} does not say where its frames lie or what they show.", "Export it again from the program that made it.")


def _first_pixel(groups: Any, shared: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """LPS mm of a frame's first pixel; and its steps, (3, 2) LPS mm: to the next row, to the next column."""
    found = []
    for group, name, length in (
        ("PlanePositionSequence", "ImagePositionPatient", 3),
        ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        ("PixelMeasuresSequence", "PixelSpacing", 2),
    ):
        given = numbers(_in_groups(group, groups, shared, path), name)
        if given is None or len(given) != length:
            raise InputError(f"A frame of {path.name} has no usable {name}.", "Export it again from the program that made it.")
        found.append(given)
    position, axes, spacing = (np.array(given) for given in found)
    return position, np.column_stack([axes[3:] * spacing[0], axes[:3] * spacing[1]])


def _laid(values: np.ndarray, place: tuple[np.ndarray, np.ndarray], geometry: Geometry, path: Path) -> tuple[tuple[slice, ...], np.ndarray]:
    """A frame's values, (rows, columns), as a box of the grid and its values (k, j, i); pixels outside must be empty."""
    matrix = geometry.matrix
    position, steps = place
    start = np.linalg.solve(matrix, [*position, 1])[:3]
    moves = np.linalg.solve(matrix[:3, :3], steps)  # IJK voxels to the next row, to the next column
    exact = np.rint(moves)
    length = np.array(values.shape)
    off = np.abs((moves - exact) * (length - 1)).max()
    turned = (np.abs(exact).sum(axis=0) != 1).any() or np.abs(moves - exact).max() > COSINE_TOLERANCE
    if turned or max(off, np.abs(start - np.rint(start)).max()) > _NEAR:
        raise InputError(f"{path.name} does not lie on the image's grid.", "Give the SEG that was made for this image; it is never resampled.")
    first = np.rint(start).astype(int)
    for axis in (0, 1):
        if exact[:, axis].sum() < 0:  # runs against the grid: turned round, so that it begins at the other end
            first += (exact[:, axis] * (length[axis] - 1)).astype(int)
            values = np.flip(values, axis)
    row, column = (2 - int(np.abs(exact[:, axis]).argmax()) for axis in (0, 1))  # their axes in (k, j, i)
    box = np.expand_dims(values if row < column else values.T, 3 - row - column)
    return _inside(box, first[::-1], geometry, path)


def _inside(values: np.ndarray, first: np.ndarray, geometry: Geometry, path: Path) -> tuple[tuple[slice, ...], np.ndarray]:
    low = [max(0, -int(f)) for f in first]
    high = [max(a, min(n, size - int(f))) for a, f, n, size in zip(low, first, values.shape, geometry.shape_kji, strict=True)]
    kept = values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    if np.count_nonzero(kept) < np.count_nonzero(values):
        raise InputError(f"{path.name} has segmented voxels outside the image.", "Choose the image that was segmented.")
    return tuple(slice(int(f) + a, int(f) + b) for f, a, b in zip(first, low, high, strict=True)), kept
