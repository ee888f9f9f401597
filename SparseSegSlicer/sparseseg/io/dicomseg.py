"""DICOM segmentations (SEG) out and in. Needs highdicom (extra `dicom`), which knows the standard's modules.

Out: one binary SEG, or a fractional one that tells how sure the result is. Each frame refers to the slice it lies on, and the patient's and the
study's attributes are those of the series. In: SEG of any writer, its frames laid on the image's grid by their own positions, never resampled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..contract.classes import ClassTable, Segment, distinct_color
from ..contract.errors import AnnotationError, InputError
from ..contract.geometry import Geometry
from ..contract.strokes import merge_strokes
from .dicomseries import COSINE_TOLERANCE, Header, Series, load_pydicom, quiet, read_header
from .output import replacing
from .segnrrd import SparseLabels, choose_background

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
def write_seg(path: Path, labels: np.ndarray, series: Series, classes: ClassTable, uncertainty: np.ndarray | None = None) -> list[str]:
    """Writes `labels` ((K, J, I) uint8: 0 background, c segment c) as a SEG of `series`; what the user should know, in sentences.

    Binary; with `uncertainty` ((K, J, I) uint8, 0 sure .. 255 two segments alike) fractional: the probability of each voxel's label, at
    least one half, so that those at one half and above are the binary result. Raises InputError, OutputError.
    """
    highdicom = load_highdicom()
    check_labels(labels, series, classes)
    headers, remarks = source_headers(series)
    missing = [segment.name for segment in classes.segments if Terms.of(segment) is None]
    if missing:
        remarks.append(f"No terminology was chosen for {', '.join(missing)}: coded as tissue. Choose one in Slicer by a double click on the colour.")
    seg = highdicom.seg.Segmentation(
        [_without_identity(headers[0]), *headers[1:]],
        labels[_stored_order(series)],
        "BINARY" if uncertainty is None else "FRACTIONAL",
        [_description(number, segment) for number, segment in enumerate(classes.segments, start=1)],
        **new_series(headers[0]),
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=__version__,
        device_serial_number=__version__,
        content_label="SEGMENTATION",
        content_description="Dense segmentation from sparse annotation",
        series_description=f"{NAME} segmentation",
    )
    copy_identity(headers[0], seg, classes)
    if uncertainty is not None:
        _set_probabilities(seg, uncertainty, series)
    with replacing(Path(path)) as temporary:
        seg.save_as(temporary)
    return remarks


def check_labels(labels: np.ndarray, series: Series, classes: ClassTable) -> None:
    """Raises InputError where labels (K, J, I) do not belong to the series, or hold nothing."""
    if labels.shape != series.geometry.shape_kji or labels.dtype != np.uint8 or labels.max(initial=0) > len(classes):
        raise InputError(f"Labels of shape {labels.shape} do not fit the series of {series.geometry.shape_kji} voxels (k, j, i).")
    if not labels.any():
        raise InputError("The segmentation is empty, so there is nothing to export.", "Segment something first.")


def source_headers(series: Series) -> tuple[list[Header], list[str]]:
    """The headers of the series' files, in the order of their first slices; and a remark where they have lost what ties them to a study."""
    pydicom = load_pydicom()
    headers = [read_header(path) for path in dict.fromkeys(frame.file for frame in series.frames)]
    if len(headers) > 1 and any("PerFrameFunctionalGroupsSequence" in header for header in headers):
        raise InputError(f"The series consists of {len(headers)} enhanced images.", "Export it as one enhanced image, or as plain slices.")
    if headers[0].get("PerFrameFunctionalGroupsSequence"):
        _share_geometry(headers[0])
    headers[0].decode()  # its texts, while they still stand beside their own character set
    known = [header.SOPInstanceUID for header in headers]
    lost = [name for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID") if not headers[0].get(name)]
    for name in lost:  # the same ones at each export, so that all results of a series meet in one study
        made = pydicom.uid.generate_uid(entropy_srcs=[name, *sorted(known)])
        for header in headers:
            setattr(header, name, made)
    if not lost:
        return headers, []
    return headers, [f"The series has no {' and no '.join(lost)}, so new ones were made: an archive cannot join the result to the images."]


def _share_geometry(header: Header) -> None:
    """Spacing and orientation, which are alike in all frames of a regular grid, where highdicom looks for them."""
    shared, first = header.SharedFunctionalGroupsSequence[0], header.PerFrameFunctionalGroupsSequence[0]
    for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        if name not in shared and name in first:
            setattr(shared, name, first.get(name))


def new_series(header: Header) -> dict[str, Any]:
    """UIDs and numbers of a new series in the study of `header`, as highdicom's arguments."""
    uid = load_highdicom().UID
    number = int(header.get("SeriesNumber") or 0) + _SERIES_OFFSET
    return {"series_instance_uid": uid(), "series_number": number, "sop_instance_uid": uid(), "instance_number": 1}


def _without_identity(header: Header) -> Header:
    """A copy that highdicom accepts, whatever scanners and programs for privacy have left in the header: it insists on values in proper form."""
    neutral = {name: None if name.endswith(("Date", "Time")) else "" for name in _IDENTITY} | {"SpecificCharacterSet": "ISO_IR 192"}
    if not header.get("SliceThickness") and "PerFrameFunctionalGroupsSequence" not in header:
        neutral["SliceThickness"] = None
    safe = load_pydicom().Dataset()
    safe.update({element.tag: element for element in header if element.keyword not in neutral})  # the elements stay the header's own
    for name, value in neutral.items():
        setattr(safe, name, value)
    return safe


def copy_identity(header: Header, result: Any, classes: ClassTable) -> None:
    """Patient and study exactly as the source has them; in its character set, or in UTF-8 where segments have names beyond ASCII: readers
    of SEG (dcmqi) know no other for those."""
    for name in _IDENTITY:
        if name in header:
            result[name] = header[name]
    own = header.get("SpecificCharacterSet") or "ISO_IR 6"
    result.SpecificCharacterSet = own if "".join(classes.names).isascii() else "ISO_IR 192"


def _stored_order(series: Series) -> list[int]:
    """The slices k in the order in which the source's files hold them: single-frame files in any, so ascending; frames by their number."""
    return sorted(range(len(series.frames)), key=lambda k: series.frames[k].number)


def _description(number: int, segment: Segment) -> Any:
    highdicom = load_highdicom()
    terms = Terms.of(segment) or Terms(_TISSUE, _TISSUE)
    description = highdicom.seg.SegmentDescription(
        number,
        segment.name[:64].strip() or f"segment {number}",
        _concept(terms.category),
        _concept(terms.type),
        "SEMIAUTOMATIC",
        highdicom.AlgorithmIdentificationSequence(NAME, _concept(_LEARNING), __version__),
        tracking_uid=highdicom.UID(),
        tracking_id=segment.id[:64],
        anatomic_regions=[_concept(terms.region)] if terms.region else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*(round(255 * v) for v in segment.color)),
    )
    if terms.type_modifier:
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [_concept(terms.type_modifier)]
    if terms.region and terms.region_modifier:
        description.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [_concept(terms.region_modifier)]
    return description


def _concept(code: Code) -> Any:
    scheme, value, meaning = code
    return load_highdicom().sr.CodedConcept(value=value, scheme_designator=scheme, meaning=meaning[:64])


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


def read_seg(path: Path, geometry: Geometry, background: str | None = None) -> SparseLabels:
    """The segments of a SEG (binary, fractional, or label map) as strokes on `geometry`, the image's grid.

    Frames may be fewer, cropped, or cut along another axis than the image's: each lies where its position says. A fractional voxel counts
    from one half. Raises InputError where the file is no SEG or does not lie on the grid, AnnotationError where it holds no segment.
    """
    path = Path(path)
    header = read_header(path)
    if header.SOPClassUID not in (_BINARY, _LABELMAP):
        raise InputError(f"{path.name} is no DICOM segmentation.", "Give a SEG object, a .seg.nrrd file or a label map.")
    try:
        with quiet():
            return _read_seg(path, header, geometry, background)
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise InputError(f"{path.name} is damaged or cut short, or its compression is not known.", "Export it again.") from error


def _read_seg(path: Path, header: Header, geometry: Geometry, background: str | None) -> SparseLabels:
    numbered = {int(item.SegmentNumber): _segment(item, place) for place, item in enumerate(header.SegmentSequence)}
    numbered.pop(0, None)  # in label maps: the background
    chosen = choose_background(list(numbered.values()), background, path)
    ordered = {number: segment for number, segment in sorted(numbered.items()) if segment is not chosen}
    if not ordered:
        raise AnnotationError(f"{path.name} holds no segment besides the background.", "Add a segment for each structure.")
    codes = {number: code for code, number in enumerate(ordered, start=2)}
    codes |= {number: 1 for number, segment in numbered.items() if segment is chosen}
    annotation, clashes = merge_strokes(geometry.shape_kji, _claims(header, _frames(path, header), codes, geometry, path))
    names = [chosen.name if chosen else "", *(segment.name for segment in ordered.values())]
    overlaps = {(names[first - 1], names[second - 1]): count for (first, second), count in clashes.items()}
    return SparseLabels(annotation, ClassTable(tuple(ordered.values()), chosen), overlaps, {})


def _segment(item: Any, place: int) -> Segment:
    color = distinct_color(place)
    if "RecommendedDisplayCIELabValue" in item:
        rgb = load_highdicom().color.CIELabColor.from_dicom_value(list(item.RecommendedDisplayCIELabValue)).to_rgb(clip=True)
        r, g, b = (round(v / 255, 4) for v in rgb)
        color = (r, g, b)
    number = int(item.SegmentNumber)
    name = str(item.get("SegmentLabel", "")) or f"segment {number}"
    tags = {}
    category, kind = _coded(item, "SegmentedPropertyCategoryCodeSequence"), _coded(item, "SegmentedPropertyTypeCodeSequence")
    if category and kind:
        region = item.AnatomicRegionSequence[0] if item.get("AnatomicRegionSequence") else None
        terms = Terms(
            category,
            kind,
            _coded(item.SegmentedPropertyTypeCodeSequence[0], "SegmentedPropertyTypeModifierCodeSequence"),
            _coded(item, "AnatomicRegionSequence"),
            _coded(region, "AnatomicRegionModifierSequence") if region is not None else None,
        )
        tags[TERMINOLOGY_TAG] = terms.entry()
    return Segment(_segment_id(item), name, color, tags)


def _segment_id(item: Any) -> str:
    """Results of ours carry the segment's ID; the number makes any other unique."""
    tracking = str(item.get("TrackingID", ""))
    return tracking if tracking and "SegmentAlgorithmName" in item and item.SegmentAlgorithmName == NAME else f"Segment_{int(item.SegmentNumber)}"


def _coded(item: Any, name: str) -> Code | None:
    codes = item.get(name)
    if not codes:
        return None
    value = codes[0].get("CodeValue") or codes[0].get("LongCodeValue") or codes[0].get("URNCodeValue")
    return (str(codes[0].get("CodingSchemeDesignator", "")), str(value), str(codes[0].get("CodeMeaning", ""))) if value else None


def _claims(
    header: Header, frames: Iterator[np.ndarray], codes: dict[int, int], geometry: Geometry, path: Path
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Where each frame lies on the grid, and what it claims there: annotation values, uint8."""
    shared = header.SharedFunctionalGroupsSequence[0] if header.get("SharedFunctionalGroupsSequence") else None
    threshold = (int(header.get("MaximumFractionalValue", 1)) + 1) // 2
    table = np.zeros(1 << 16, np.uint8)
    for number, code in codes.items():
        table[number] = code
    for groups, pixels in zip(header.PerFrameFunctionalGroupsSequence, frames, strict=True):
        if header.SOPClassUID == _LABELMAP:
            values = table[pixels]
        else:
            segment = _in_groups("SegmentIdentificationSequence", groups, shared, path)
            values = (pixels >= threshold).astype(np.uint8) * table[int(segment.ReferencedSegmentNumber)]
        if values.any():
            yield _laid(values, _first_pixel(groups, shared, path), geometry, path)


def _frames(path: Path, header: Header) -> Iterator[np.ndarray]:
    """The frames' stored values, (rows, columns), one at a time. Raises ValueError where the file ends too early."""
    pydicom = load_pydicom()
    if int(header.BitsAllocated) > 1 or header.file_meta.TransferSyntaxUID.is_encapsulated:
        yield from pydicom.pixels.iter_pixels(path)
        return
    # one bit a pixel: a frame may begin within a byte, which pydicom's iterator does not know
    packed = np.frombuffer(pydicom.dcmread(path).PixelData, np.uint8)
    rows, columns = int(header.Rows), int(header.Columns)
    for number in range(len(header.PerFrameFunctionalGroupsSequence)):
        first = number * rows * columns
        last = first + rows * columns
        bits = np.unpackbits(packed[first // 8 : -(-last // 8)], bitorder="little")
        yield bits[first % 8 : first % 8 + rows * columns].reshape(rows, columns)


def _in_groups(name: str, groups: Any, shared: Any, path: Path) -> Any:
    for holder in (groups, shared):
        if holder is not None and holder.get(name):
            return holder.get(name)[0]
    raise InputError(f"{path.name} does not say where its frames lie or what they show.", "Export it again from the program that made it.")


def _first_pixel(groups: Any, shared: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """LPS mm of a frame's first pixel; and its steps, (3, 2) LPS mm: to the next row, to the next column."""
    position = _in_groups("PlanePositionSequence", groups, shared, path).ImagePositionPatient
    axes = np.array(_in_groups("PlaneOrientationSequence", groups, shared, path).ImageOrientationPatient, float).reshape(2, 3)
    spacing = _in_groups("PixelMeasuresSequence", groups, shared, path).PixelSpacing
    return np.array(position, float), np.column_stack([axes[1] * float(spacing[0]), axes[0] * float(spacing[1])])


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
