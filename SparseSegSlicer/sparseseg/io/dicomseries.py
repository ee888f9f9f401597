"""A DICOM series in: which slices it has, where they lie, and their values in real units. Needs pydicom (extra `dicom`).

Every slice or frame must lie where its own header says: nothing is resampled, sorted by file name or guessed. What does not make a regular
grid with right angles is refused, by a sentence that names the cause.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import memory
from ..contract.errors import InputError, TooLargeError
from ..contract.geometry import Geometry
from ..contract.opening import MissingError, check_file, is_folder, open_file, read_text, shown
from .decoder import Decoder
from .dicomheader import (
    EXPORT_AGAIN,
    Header,
    decoding,
    first,
    items,
    load_pydicom,
    looks_like_dicom,
    no_number,
    number,
    numbers,
    quiet,
    read_header,
    text,
    whole,
)
from .dicompixels import LOSSY, read_pixels

GAP_TOLERANCE = 0.01  # a slice distance may differ by this part of the median: far below a missing slice, above rounding
SHIFT_TOLERANCE = 0.1  # of a pixel, or of a slice distance: how far a slice may lie from where the regular grid has it
COSINE_TOLERANCE = 1e-3  # of direction cosines: above their rounding to a few digits, below any real turn
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # they have rows and columns, but are no images
_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
_ROUNDED_MM = 0.011  # positions are often written in hundredths of a millimetre
_LONGEST_LIST = 64_000_000  # bytes of a list of files
_NAMED_AS_DICOM = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True)
class Frame:
    """One slice: its file, its number in the file (from 0), and the file's SOP Instance UID."""

    file: Path
    number: int
    uid: str


@dataclass(frozen=True)
class Identity:
    """Whose images they are, to compare with a segmentation's. Never shown."""

    patient_id: str = ""
    frames_of_reference: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Series:
    """`frames[k]` is slice k of `geometry`; k grows along the normal, the cross product of row and column direction. `remarks`: what was
    noticed while reading."""

    uid: str
    description: str
    modality: str
    frames: tuple[Frame, ...]
    geometry: Geometry
    remarks: tuple[str, ...] = ()
    identity: Identity = field(default=Identity(), repr=False)

    @property
    def instance_uids(self) -> tuple[str, ...]:
        """Each file's SOP Instance UID once, in the order of the slices."""
        return tuple(dict.fromkeys(frame.uid for frame in self.frames))


@dataclass(frozen=True)
class _Plane:
    """Where a frame lies, and what its stored values mean: value = slope * stored + intercept."""

    frame: Frame
    position: np.ndarray  # LPS mm of the first pixel's centre
    axes: np.ndarray  # (2, 3): direction of a row (i grows), direction of a column (j grows)
    spacing: tuple[float, float]  # mm between rows (j), between columns (i)
    size: tuple[int, int]  # rows, columns
    slope: float
    intercept: float

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.axes[0], self.axes[1])


def read_series(place: Path, uid: str | None = None) -> tuple[np.ndarray, Series, list[str]]:
    """The voxels of one series, (K, J, I), in real units (Hounsfield for CT), which series it is, and remarks.

    place: a folder, searched with all that is in it, a DICOM file, or a text file (.txt) with one path on each line; `uid` chooses where
    there are several series. Whole numbers stay whole (int16 where they fit). Padding voxels get the smallest real value.
    Raises InputError for several series, damaged files, and slices that make no regular grid.
    """
    series, planes = _find(Path(place), uid)
    voxels, remarks = _read_voxels(place, planes)
    return voxels, series, [*series.remarks, *remarks]


def find_series(place: Path, uid: str | None = None) -> Series:
    """As `read_series`, the voxels unread."""
    return _find(Path(place), uid)[0]


# ---------------------------------------------------------------- which files


def _find(place: Path, uid: str | None) -> tuple[Series, list[_Plane]]:
    headers, stray, empty = _headers(place)
    found: dict[str, dict[Path, Header]] = {}
    for path, header in headers.items():
        found.setdefault(text(header, "SeriesInstanceUID"), {})[path] = header
    images = {key: files for key, files in found.items() if any("Rows" in header for header in files.values())}
    placed = {key: files for key, files in images.items() if any(map(_says_where, files.values()))}  # no screenshots and reports
    chosen = _choose(place, images if uid else placed or images, uid)
    series = found[chosen]
    classes = {text(header, "SOPClassUID") for header in series.values()}
    cut = [files for key, files in found.items() if key and chosen.startswith(key)]  # a file may end within the very UID
    bad = [path for files in cut for path, header in files.items() if "Rows" not in header]
    bad += [path for path, kind in stray.items() if kind in classes]
    if bad:
        raise InputError(f"{bad[0].name} in {place.name} is damaged or cut short.", EXPORT_AGAIN)
    planes = [plane for path, header in series.items() for plane in _planes(path, header)]
    planes, remarks = _without_copies(place, planes)
    ordered, geometry = _regular_grid(place, planes)
    if empty:
        remarks.append(f"{len(empty)} of the files in {place.name} {'is' if len(empty) == 1 else 'are'} empty and left out ({empty[0].name}).")
    if not chosen:
        remarks.append(f"The images in {place.name} have no SeriesInstanceUID; they were taken as one series.")
    header = next(iter(series.values()))
    frames = tuple(plane.frame for plane in ordered)
    names = text(header, "SeriesDescription"), text(header, "Modality")
    return Series(chosen, *names, frames, geometry, tuple(remarks), _identity(series)), ordered


def _identity(series: dict[Path, Header]) -> Identity:
    uids = {text(header, "FrameOfReferenceUID") for header in series.values()}
    return Identity(text(next(iter(series.values())), "PatientID"), frozenset(uids - {""}))


def _says_where(header: Header) -> bool:
    return "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header


def _without_copies(place: Path, planes: list[_Plane]) -> tuple[list[_Plane], list[str]]:
    """The planes without those of files that are copies of another, and a remark that counts them."""
    kept: list[_Plane] = []
    first_of: dict[tuple[str, int, bytes], Path] = {}
    for plane in planes:
        file = plane.frame.file
        earlier = first_of.setdefault((plane.frame.uid, plane.frame.number, plane.position.tobytes()), file)
        if earlier == file or not filecmp.cmp(earlier, file, shallow=False):
            kept.append(plane)
    copies = len({plane.frame.file for plane in planes}) - len({plane.frame.file for plane in kept})
    counted = f"{copies} of the files in {place.name} {'is a copy' if copies == 1 else 'are copies'} of others, and count once."
    return kept, [counted] if copies else []


def _headers(place: Path) -> tuple[dict[Path, Header], dict[Path, str], list[Path]]:
    """The headers of all that belongs to a series, by file; the SOP classes of the files that are cut off before they say to which; and the
    empty files that may have been slices."""
    load_pydicom()
    headers, stray, empty = {}, {}, []
    for path in _files(place):
        if not _is_dicom(path):
            _check_no_dicom(path, place)
            if path.stat().st_size == 0 and path.suffix.lower() in _NAMED_AS_DICOM:
                empty.append(path)
            continue
        try:
            header = read_header(path)
        except TooLargeError:
            raise
        except InputError:
            stray[path] = _sop_class(path)
            continue
        if not text(header, "SeriesInstanceUID") and "Rows" not in header:
            stray[path] = text(header, "SOPClassUID")
        elif text(header, "SOPClassUID") not in SEGMENTATIONS:
            headers[path] = header
    return headers, stray, empty


def _check_no_dicom(path: Path, place: Path) -> None:
    """Raises InputError where a file that is no DICOM should be: listed, or named so."""
    if place.suffix.lower() == ".txt":
        raise InputError(f"{path.name}, which {place.name} lists, is no DICOM file.", EXPORT_AGAIN)
    if place.is_dir() and path.suffix.lower() in _NAMED_AS_DICOM and path.stat().st_size > 0:
        sentence = f"{path.name} in {place.name} is no DICOM file, or it is damaged."
        raise InputError(sentence, "Copy or export it again, or take it out of the folder.")


def _sop_class(path: Path) -> str:
    """From the meta information at the beginning of a file whose rest cannot be read; empty where that is damaged too."""
    with suppress(Exception), quiet():
        return text(load_pydicom().filereader.read_file_meta_info(path), "MediaStorageSOPClassUID")
    return ""


def _files(place: Path) -> list[Path]:
    if is_folder(place):
        return _files_below(place)
    if place.suffix.lower() == ".txt":
        return _listed_files(place)
    try:
        check_file(place)
    except MissingError as error:
        raise InputError(error.sentence.replace("There is no file", "There is no folder or DICOM file", 1), error.advice) from error
    return [place]


def _files_below(place: Path) -> list[Path]:
    """All files of a folder and its subfolders, linked ones too. Raises InputError for what cannot be reached, so that no slice is missed."""

    def refuse(error: OSError) -> None:
        name = Path(error.filename or place).name
        raise InputError(f"The folder {name} cannot be read ({error.strerror}).", "Ask for access to it, or take it away.") from error

    found, seen = [], set()
    for folder, below, names in os.walk(place, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above would go round for ever
            below.clear()
            continue
        seen.add(real)
        found += [Path(folder) / name for name in names if not name.startswith("._")]  # macOS puts its own beside each file
    for path in found:
        _check_entry(path)
    return sorted(found)


def _check_entry(path: Path) -> None:
    """Raises InputError for what lies among DICOM files and is none, so that no slice is missed and nothing is waited for."""
    try:
        check_file(path)
    except MissingError as error:
        sentence = f"{shown(path)} in {path.parent.name} is a link to a file that is not there."
        raise InputError(sentence, "Fetch the file, or give a full copy of the series.") from error
    except InputError as error:
        raise InputError(f"In {path.parent.name}, {error.sentence}", "Take it out of the folder.") from error


def _listed_files(place: Path) -> list[Path]:
    try:
        paths = list(dict.fromkeys(Path(line) for line in read_text(place, _LONGEST_LIST).splitlines() if line.strip()))
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place.name} cannot be read as a list of files.", "Give a text file (UTF-8) with one path on each line.") from error
    for path in paths:
        try:
            check_file(path)
        except MissingError as error:
            raise InputError(f"There is no file {path}, which {place.name} lists.", "Check the paths.") from error
    return paths


def _is_dicom(path: Path) -> bool:
    try:
        with open_file(path) as file:
            return looks_like_dicom(file.read(132))
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror}).", "Ask for access to it, or take it out of the folder.") from error


def _choose(place: Path, found: dict[str, dict[Path, Header]], uid: str | None) -> str:
    if not found:
        raise InputError(f"{place.name} holds no DICOM image.", "Give the folder of the DICOM files themselves, or an image file.")
    if uid is None and len(found) == 1:
        return next(iter(found))
    if uid in found:
        return str(uid)
    listed = "; ".join(f"{key} ({_description(files)}, {len(files)} files)" for key, files in found.items())
    sentence = f"There is no series {uid} in {place.name}." if uid else f"{place.name} holds {len(found)} DICOM series."
    raise InputError(sentence, f"Choose one with --series UID: {listed}.")


def _description(files: dict[Path, Header]) -> str:
    return text(next(iter(files.values())), "SeriesDescription") or "no description"


# ---------------------------------------------------------------- where the slices lie


def _planes(path: Path, header: Header) -> list[_Plane]:
    """One for each frame of a file. Raises InputError where a frame does not say where it lies."""
    samples = whole(header, "SamplesPerPixel", 1, path.name)
    if samples > 1:
        raise InputError(f"{path.name} has {samples} values in each voxel.", "Give a grey image: no colour.")
    if "MOSAIC" in map(str, header.get("ImageType", []) if "ImageType" in header else []):
        raise InputError(f"{path.name} is a Siemens mosaic: it holds all slices as tiles of one image.", "Convert the series with dcm2niix.")
    if text(header, "SOPClassUID") == _DOSE:
        raise InputError(f"{path.name} is a radiation dose (RTDOSE), no image.", "Give the image that it was planned on.")
    shared = first(header, "SharedFunctionalGroupsSequence")
    per_frame = items(header, "PerFrameFunctionalGroupsSequence")
    count = max(1, whole(header, "NumberOfFrames", 1, path.name))
    if count > 1 and len(per_frame) != count:
        raise InputError(f"{path.name} has {count} frames, but does not say where each one lies.", "Give a series of slices, or an enhanced image.")
    groups: list[tuple[Any, ...]] = [(group, shared) for group in per_frame] or [(header,)]
    return [_plane(path, header, index, places, count) for index, places in enumerate(groups)]


def _plane(path: Path, header: Header, index: int, places: tuple[Any, ...], count: int) -> _Plane:
    name = path.name if count == 1 else f"frame {index + 1} of {path.name}"

    def holder(group: str, element: str) -> Any:
        """The frame's own functional group, else the shared one, that has the element; in a single-frame file, the header itself."""
        holders = [header] if len(places) == 1 else [first(place, group) for place in places]
        return next((one for one in holders if text(one, element)), None)

    position, axes, spacing = (
        _needed(holder(group, element), element, length, what, name)
        for group, element, length, what in (
            ("PlanePositionSequence", "ImagePositionPatient", 3, "position"),
            ("PlaneOrientationSequence", "ImageOrientationPatient", 6, "orientation"),
            ("PixelMeasuresSequence", "PixelSpacing", 2, "pixel spacing"),
        )
    )
    directions = np.array(axes, float).reshape(2, 3)
    if np.abs(directions @ directions.T - np.eye(2)).max() > COSINE_TOLERANCE:
        raise InputError(f"The orientation of {name} is wrong: its axes are not at right angles.", EXPORT_AGAIN)
    slope, intercept = (
        number(holder("PixelValueTransformationSequence", element), element, default, name)
        for element, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    )
    if slope == 0:
        raise InputError(f"{name} has an unusable rescale slope ({slope:g}).", EXPORT_AGAIN)
    frame = Frame(path, index, text(header, "SOPInstanceUID"))
    size = (whole(header, "Rows", 0, path.name), whole(header, "Columns", 0, path.name))
    if not all(1 <= n < 1 << 16 for n in size):
        raise InputError(f"{path.name} cannot have {size[0]} rows and {size[1]} columns.", EXPORT_AGAIN)
    return _Plane(frame, np.array(position, float), directions, (spacing[0], spacing[1]), size, slope, intercept)


def _needed(holder: Any, element: str, length: int, what: str, name: str) -> list[float]:
    found = numbers(holder, element)
    if found is None:
        raise no_number(holder, element, name)
    if len(found) != length or (length == 2 and min(found) <= 0):
        raise InputError(f"{name} has no usable {what}.", "Export the series again, with position and orientation.")
    return found


def _regular_grid(place: Path, planes: Sequence[_Plane]) -> tuple[list[_Plane], Geometry]:
    """The planes in the order of k, and their grid. Raises InputError where they make none."""
    first = planes[0]
    if len(planes) < 2:
        advice = "Give a volume." if place.is_dir() else "Give the folder with all slices of the series."
        raise InputError(f"{place.name} has only one slice ({first.size[1]} x {first.size[0]} x 1 voxels, i x j x k).", advice)
    _check_alike(place, planes)
    normal = first.normal / np.linalg.norm(first.normal)
    ordered = sorted(planes, key=lambda plane: float(normal @ plane.position))
    at = np.array([normal @ plane.position for plane in ordered])
    _check_gaps(place, at)
    gap = (at[-1] - at[0]) / (len(at) - 1)
    origin = ordered[0].position
    drift = np.array([plane.position - origin for plane in ordered]) - np.outer(at - at[0], normal)
    aside = np.linalg.norm(drift, axis=1)
    if aside.max() > SHIFT_TOLERANCE * min(first.spacing):
        degrees = float(np.degrees(np.arctan2(aside[-1], at[-1] - at[0])))
        steady = np.abs(np.diff(aside, 2)).max(initial=0) < 0.1 * aside.max()
        cause = f"are tilted by {degrees:.3g} degrees" if steady else "are shifted against each other"
        advice = "Slicer loads such a series with a transform: harden it on a resampled volume there, and give that."
        raise InputError(f"The slices in {place.name} {cause} (gantry tilt?), so they make no grid with right angles.", advice)
    matrix = np.eye(4)
    matrix[:3, :3] = np.column_stack([first.axes[0] * first.spacing[1], first.axes[1] * first.spacing[0], normal * gap])
    matrix[:3, 3] = origin
    return ordered, Geometry((len(ordered), *first.size), tuple(map(tuple, matrix)))


def _check_alike(place: Path, planes: Sequence[_Plane]) -> None:
    first = planes[0]
    sizes = sorted({plane.size for plane in planes})
    if len(sizes) > 1:
        listed = " and ".join(f"{columns} x {rows}" for rows, columns in sizes[:3])
        raise InputError(f"The slices in {place.name} differ in size ({listed} pixels).", "Give one series without localizers or reformatted slices.")
    if any(np.abs(plane.axes - first.axes).max() > COSINE_TOLERANCE for plane in planes):
        raise InputError(f"The slices in {place.name} differ in orientation.", "Give one series without localizers or reformatted slices.")
    if any(not np.allclose(plane.spacing, first.spacing, rtol=1e-3) for plane in planes):
        raise InputError(f"The slices in {place.name} differ in pixel spacing.", "Give one series with one field of view.")


def _check_gaps(place: Path, at: np.ndarray) -> None:
    """at: where the slices lie along the normal, mm, ascending."""
    gaps = np.diff(at)
    usual = float(np.median(gaps))
    twins = gaps < max(1e-4, 0.01 * usual)
    if twins.any():
        taken = len(at) - int(twins.sum())
        runs = int((np.diff(np.concatenate([[False], twins]).astype(int)) == 1).sum())  # positions with several slices
        sentence = f"{len(at) - taken + runs} DICOM slices in {place.name} lie at the same position as others ({runs} of {taken} positions)."
        if len(at) == 2:
            sentence = f"Two DICOM slices in {place.name} lie at the same position."
        raise InputError(sentence, "Give one time point, echo or reconstruction, without copies of slices.")
    even = at[0] + (at[-1] - at[0]) / len(gaps) * np.arange(len(at))
    tolerance = max(GAP_TOLERANCE * usual, min(_ROUNDED_MM, 0.2 * usual))
    if np.abs(gaps - usual).max() <= tolerance and np.abs(at - even).max() <= SHIFT_TOLERANCE * usual:
        return
    wide = gaps / usual
    holes = wide > 1.5
    if holes.any() and np.abs(wide - np.rint(wide)).max() <= 0.02:
        missing, k = int((np.rint(wide) - 1).sum()), int(np.argmax(holes))
        are = "slice is" if missing == 1 else "slices are"
        sentence = f"{missing} {are} missing in {place.name}: the slices are {usual:.4g} mm apart, but {gaps[k]:.4g} mm after slice {k + 1}."
        raise InputError(sentence, "Export the whole series again.")
    sentence = f"The DICOM slices in {place.name} are {gaps.min():.4g} to {gaps.max():.4g} mm apart."
    raise InputError(sentence, "A slice is missing, or the series mixes spacings: export it again, or resample it on purpose.")


# ---------------------------------------------------------------- voxels


def _read_voxels(place: Path, planes: Sequence[_Plane]) -> tuple[np.ndarray, list[str]]:
    """Voxels (K, J, I) in real units, and remarks."""
    shape = (len(planes), *planes[0].size)
    memory.check(place.name, memory.volume_bytes(shape, 1, 4))
    voxels, padding, smeared = None, np.zeros(shape, bool), 0
    integral = all(plane.slope.is_integer() and plane.intercept.is_integer() for plane in planes)
    of_file: dict[Path, list[int]] = {}
    for k, plane in enumerate(planes):
        of_file.setdefault(plane.frame.file, []).append(k)
    with Decoder() as decoder:
        for path, slices in of_file.items():
            with decoding(path, f"in {place.name} is damaged or cut short, or its compression is not known", EXPORT_AGAIN):
                stored, header = read_pixels(path, decoder)
                if voxels is None or (voxels.dtype.kind == "i" and stored.dtype.kind == "f"):
                    dtype = np.int32 if integral and stored.dtype.kind in "iu" else np.float32
                    voxels = np.empty(padding.shape, dtype) if voxels is None else voxels.astype(dtype)
                limits = _padding_limits(header, path) if stored.dtype.kind in "iu" else _float_limits(header)
                for k in slices:
                    values = stored[planes[k].frame.number]
                    padding[k] = False if limits is None else (values >= limits[0]) & (values <= limits[1])
                    voxels[k] = _real(values, planes[k], header, voxels.dtype)
            if limits is not None and text(header.file_meta, "TransferSyntaxUID") in LOSSY:
                smeared += 1
    assert voxels is not None  # there are two slices at least
    if padding.any() and not padding.all():
        voxels[padding] = voxels.min(where=~padding, initial=voxels.max())
    remarks = []
    if smeared:
        remarks.append(
            f"{smeared} files in {place.name} have padding and lossy compression: voxels near the padding may have values that nobody measured."
        )
    if voxels.dtype.kind == "i" and voxels.min() >= -(2**15) and voxels.max() < 2**15:
        return voxels.astype(np.int16), remarks
    return voxels, remarks


def _real(values: np.ndarray, plane: _Plane, header: Header, dtype: np.dtype) -> np.ndarray:
    """A frame's stored values in real units. Raises InputError where they do not fit."""
    if items(header, "ModalityLUTSequence"):
        return load_pydicom().pixels.apply_modality_lut(values, header)
    if plane.slope == 1 and values.dtype.itemsize < 4:
        return values + dtype.type(plane.intercept)
    real = values * plane.slope + plane.intercept
    if dtype.kind == "i" and np.abs(real).max(initial=0) >= 2**31:
        raise InputError(f"{plane.frame.file.name} has values beyond 32 bits.", EXPORT_AGAIN)
    return real.astype(dtype)


def _padding_limits(header: Header, path: Path) -> tuple[float, float] | None:
    """Stored values from .. to that mean: nothing was measured here."""
    given = [numbers(header, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if given[0] is None:
        raise no_number(header, "PixelPaddingValue", path.name)
    if not given[0]:
        return None
    bits, signed = whole(header, "BitsStored", 16, path.name), whole(header, "PixelRepresentation", 0, path.name) == 1
    limits = [int(v) % 2**bits for v in (*given[0], *(given[1] or ()))]  # signed ones are often written as unsigned, or in more bits than are stored
    signed_limits = [v - 2**bits if signed and v >= 2 ** (bits - 1) else v for v in limits]
    return min(signed_limits), max(signed_limits)


def _float_limits(header: Header) -> tuple[float, float] | None:
    """The same of floating-point pixels."""
    for kind in ("Float", "DoubleFloat"):
        given = [v for name in ("PixelPaddingValue", "PixelPaddingRangeLimit") for v in numbers(header, kind + name) or ()]
        if given:
            return min(given), max(given)
    return None
