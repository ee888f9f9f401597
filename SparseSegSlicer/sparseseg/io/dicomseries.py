"""A DICOM series in: which slices it has, where they lie, and their values in real units. Needs pydicom (extra `dicom`).

Every slice or frame must lie where its own header says: nothing is resampled, sorted by file name or guessed. What does not make a regular
grid with right angles is refused, by a sentence that names the cause.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..contract.errors import InputError
from ..contract.geometry import Geometry

GAP_TOLERANCE = 0.01  # a slice distance may differ by this part of the median: far below a missing slice, above rounding
SHIFT_TOLERANCE = 0.1  # of a pixel, or of a slice distance: how far a slice may lie from where the regular grid has it
COSINE_TOLERANCE = 1e-3  # of direction cosines: above their rounding to a few digits, below any real turn
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # they have rows and columns, but are no images
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")  # transfer syntaxes without compression
_EXPORT_AGAIN = "Export the series again."
Header = Any  # pydicom.Dataset; pydicom is optional


@dataclass(frozen=True)
class Frame:
    """One slice: its file, its number in the file (from 0), and the file's SOP Instance UID."""

    file: Path
    number: int
    uid: str


@dataclass(frozen=True)
class Series:
    """`frames[k]` is slice k of `geometry`; k grows along the normal, the cross product of row and column direction."""

    uid: str
    description: str
    modality: str
    frames: tuple[Frame, ...]
    geometry: Geometry

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


def load_pydicom() -> Any:
    """The module; raises InputError where it is not installed."""
    try:
        import pydicom
    except ImportError as error:
        raise InputError("DICOM needs the package pydicom, which is not installed.", "Install it: pip install 'sparseseg[dicom]'.") from error
    return pydicom


@contextmanager
def quiet() -> Iterator[None]:
    """pydicom's and highdicom's remarks on foreign files, which may quote a patient's name, are kept from screen and log."""
    loggers = [(logger, logger.level) for logger in map(logging.getLogger, ("pydicom", "highdicom"))]
    for logger, _ in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in loggers:
            logger.setLevel(level)


def read_header(path: Path) -> Header:
    """A file's header, without its pixels. Raises InputError where it is no DICOM file."""
    pydicom = load_pydicom()
    try:
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, force=_has_no_preamble(path))
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror}).", "Check the path and the rights to read it.") from error
    except Exception as error:  # whatever pydicom stumbles over in a foreign file
        raise InputError(f"{path.name} is no DICOM file, or it is damaged.", "Export it again.") from error
    for name in ("SOPClassUID", "SOPInstanceUID"):  # some programs empty these to remove identity, and leave them in the file's meta information
        if not header.get(name):
            setattr(header, name, getattr(header, "file_meta", {}).get(f"MediaStorage{name}", ""))
    return header


def read_series(place: Path, uid: str | None = None) -> tuple[np.ndarray, Series]:
    """The voxels of one series, (K, J, I), in real units (Hounsfield for CT), and which series it is.

    place: a folder, searched with all that is in it, a DICOM file, or a text file (.txt) with one path on each line; `uid` chooses where
    there are several series. Whole numbers stay whole (int16 where they fit). Padding voxels get the smallest real value.
    Raises InputError for several series, damaged files, and slices that make no regular grid.
    """
    series, planes = _find(Path(place), uid)
    return _read_voxels(place, planes), series


def find_series(place: Path, uid: str | None = None) -> Series:
    """As `read_series`, the voxels unread."""
    return _find(Path(place), uid)[0]


# ---------------------------------------------------------------- which files


def _find(place: Path, uid: str | None) -> tuple[Series, list[_Plane]]:
    headers, stray = _headers(place)
    found: dict[str, dict[Path, Header]] = {}
    for path, header in headers.items():
        found.setdefault(str(header.SeriesInstanceUID), {})[path] = header
    images = {key: files for key, files in found.items() if any("Rows" in header for header in files.values())}
    placed = {key: files for key, files in images.items() if any(map(_says_where, files.values()))}  # no screenshots and reports
    chosen = _choose(place, images if uid else placed or images, uid)
    series = found[chosen]
    classes = {str(header.SOPClassUID) for header in series.values()}
    cut = [files for key, files in found.items() if chosen.startswith(key)]  # a file may end within the very UID
    bad = [path for files in cut for path, header in files.items() if "Rows" not in header]
    bad += [path for path, kind in stray.items() if kind in classes]
    if bad:
        raise InputError(f"{bad[0].name} in {place.name} is damaged or cut short.", _EXPORT_AGAIN)
    planes = [plane for path, header in series.items() for plane in _planes(path, header)]
    ordered, geometry = _regular_grid(place, planes)
    first = next(iter(series.values()))
    frames = tuple(plane.frame for plane in ordered)
    return Series(chosen, str(first.get("SeriesDescription", "")), str(first.get("Modality", "")), frames, geometry), ordered


def _says_where(header: Header) -> bool:
    return "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header


def _headers(place: Path) -> tuple[dict[Path, Header], dict[Path, str]]:
    """The headers of all that belongs to a series, by file; and the SOP classes of the files that are cut off before they say to which."""
    load_pydicom()
    headers, stray = {}, {}
    for path in _files(place):
        if not _looks_like_dicom(path):
            if place.suffix.lower() == ".txt":
                raise InputError(f"{path.name}, which {place.name} lists, is no DICOM file.", _EXPORT_AGAIN)
            continue
        try:
            header = read_header(path)
        except InputError:
            stray[path] = _sop_class(path)
            continue
        if "SeriesInstanceUID" not in header:
            stray[path] = str(header.get("SOPClassUID", ""))
        elif str(header.get("SOPClassUID", "")) not in _SEGMENTATIONS:
            headers[path] = header
    return headers, stray


def _sop_class(path: Path) -> str:
    """From the meta information at the beginning of a file whose rest cannot be read; empty where that is damaged too."""
    with suppress(Exception), quiet():
        return str(load_pydicom().filereader.read_file_meta_info(path).get("MediaStorageSOPClassUID", ""))
    return ""


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(path for path in place.rglob("*") if path.is_file())
    if place.suffix.lower() == ".txt":
        return _listed_files(place)
    if place.is_file():
        return [place]
    raise InputError(f"There is no folder or DICOM file {place}.", "Check the path.")


def _listed_files(place: Path) -> list[Path]:
    try:
        paths = [Path(line) for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{place.name} cannot be read as a list of files.", "Give a text file (UTF-8) with one path on each line.") from error
    for path in paths:
        if not path.is_file():
            raise InputError(f"There is no file {path}, which {place.name} lists.", "Check the paths.")
    return paths


def _looks_like_dicom(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        head = file.read(132)
        return head.endswith(b"DICM") or _begins_with_a_tag(head)
    return False


def _has_no_preamble(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(132)
    return not head.endswith(b"DICM") and _begins_with_a_tag(head)


def _begins_with_a_tag(head: bytes) -> bool:
    """Old files have no preamble: they begin with a tag of group 2 or 8."""
    return len(head) == 132 and head[:4] in (b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x00\x00", b"\x02\x00\x00\x00", b"\x08\x00\x16\x00")


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
    return str(next(iter(files.values())).get("SeriesDescription", "")).strip() or "no description"


# ---------------------------------------------------------------- where the slices lie


def _planes(path: Path, header: Header) -> list[_Plane]:
    """One for each frame of a file. Raises InputError where a frame does not say where it lies."""
    if int(header.get("SamplesPerPixel", 1)) > 1:
        raise InputError(f"{path.name} has {header.SamplesPerPixel} values in each voxel.", "Give a grey image: no colour.")
    shared = _first(header, "SharedFunctionalGroupsSequence")
    per_frame = list(header.get("PerFrameFunctionalGroupsSequence", []))
    count = int(header.get("NumberOfFrames", 1) or 1)
    if count > 1 and len(per_frame) != count:
        raise InputError(f"{path.name} has {count} frames, but does not say where each one lies.", "Give a series of slices, or an enhanced image.")
    groups: list[tuple[Any, ...]] = [(group, shared) for group in per_frame] or [(header,)]
    return [_plane(path, header, number, places) for number, places in enumerate(groups)]


def _plane(path: Path, header: Header, number: int, places: tuple[Any, ...]) -> _Plane:
    single = len(places) == 1

    def field(group: str, name: str) -> Any:
        """From the frame's own functional group, else the shared one; in a single-frame file, from the header itself."""
        holders = [header] if single else [_first(place, group) for place in places]
        return next((holder.get(name) for holder in holders if holder is not None and holder.get(name) not in (None, "")), None)

    position = field("PlanePositionSequence", "ImagePositionPatient")
    axes = field("PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = field("PixelMeasuresSequence", "PixelSpacing")
    for value, length, what in ((position, 3, "position"), (axes, 6, "orientation"), (spacing, 2, "pixel spacing")):
        numbers = _numbers(value, length)
        if numbers is None or (length == 2 and min(numbers) <= 0):
            raise InputError(f"{_name(path, header, number)} has no usable {what}.", "Export the series again, with position and orientation.")
    directions = np.array(axes, float).reshape(2, 3)
    if np.abs(directions @ directions.T - np.eye(2)).max() > COSINE_TOLERANCE:
        raise InputError(f"The orientation of {_name(path, header, number)} is wrong: its axes are not at right angles.", _EXPORT_AGAIN)
    scale = [field("PixelValueTransformationSequence", name) for name in ("RescaleSlope", "RescaleIntercept")]
    slope, intercept = (float(default if value is None else value) for value, default in zip(scale, (1, 0), strict=True))
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        raise InputError(f"{_name(path, header, number)} has an unusable rescale slope ({slope:g}).", _EXPORT_AGAIN)
    frame = Frame(path, number, str(header.get("SOPInstanceUID", "")))
    size = (int(header.Rows), int(header.Columns))
    return _Plane(frame, np.array(position, float), directions, (float(spacing[0]), float(spacing[1])), size, slope, intercept)


def _first(holder: Any, name: str) -> Any:
    """The first item of a sequence, or None."""
    items = holder.get(name) if holder is not None else None
    return items[0] if items else None


def _numbers(value: Any, length: int) -> list[float] | None:
    try:
        numbers = [float(v) for v in value]
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == length and np.isfinite(numbers).all() else None


def _name(path: Path, header: Header, number: int) -> str:
    return path.name if int(header.get("NumberOfFrames", 1) or 1) == 1 else f"frame {number + 1} of {path.name}"


def _regular_grid(place: Path, planes: Sequence[_Plane]) -> tuple[list[_Plane], Geometry]:
    """The planes in the order of k, and their grid. Raises InputError where they make none."""
    first = planes[0]
    if len(planes) < 2:
        raise InputError(f"{place.name} has only one slice ({first.size[1]} x {first.size[0]} x 1 voxels, i x j x k).", "Give a volume.")
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
    twins = int((gaps < max(1e-4, 0.01 * usual)).sum())
    if twins:
        count = "Two" if twins == 1 else twins + 1
        advice = "Give one time point, echo or reconstruction, without copies of slices."
        raise InputError(f"{count} DICOM slices in {place.name} lie at the same position{' as others' if twins > 1 else ''}.", advice)
    even = at[0] + (at[-1] - at[0]) / len(gaps) * np.arange(len(at))
    if np.abs(gaps - usual).max() <= GAP_TOLERANCE * usual and np.abs(at - even).max() <= SHIFT_TOLERANCE * usual:
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


def _read_voxels(place: Path, planes: Sequence[_Plane]) -> np.ndarray:
    voxels = np.empty((len(planes), *planes[0].size), np.float32)
    whole = all(plane.slope.is_integer() and plane.intercept.is_integer() for plane in planes)
    if whole:
        voxels = np.empty(voxels.shape, np.int32)
    padding = np.zeros(voxels.shape, bool)
    of_file: dict[Path, list[int]] = {}
    for k, plane in enumerate(planes):
        of_file.setdefault(plane.frame.file, []).append(k)
    for path, slices in of_file.items():
        try:
            with quiet():
                _read_file(path, [(k, planes[k]) for k in slices], voxels, padding)
        except InputError:
            raise
        except Exception as error:  # a damaged file can fail in any way
            raise InputError(f"{path.name} in {place.name} is damaged or cut short, or its compression is not known.", _EXPORT_AGAIN) from error
    if padding.any() and not padding.all():
        voxels[padding] = voxels.min(where=~padding, initial=voxels.max())
    if whole and voxels.min() >= -(2**15) and voxels.max() < 2**15:
        return voxels.astype(np.int16)
    return voxels


def _read_file(path: Path, slices: Sequence[tuple[int, _Plane]], voxels: np.ndarray, padding: np.ndarray) -> None:
    pydicom = load_pydicom()
    data = pydicom.dcmread(path, force=_has_no_preamble(path))
    if "TransferSyntaxUID" not in data.file_meta:  # old files have no meta information
        data.file_meta.TransferSyntaxUID = _NATIVE[0] if data.original_encoding[0] else _NATIVE[1]
    if data.get("PhotometricInterpretation", "MONOCHROME2") not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"{path.name} is a colour image ({data.PhotometricInterpretation}).", "Give a grey image.")
    stored = _decoded(path, data) if data.file_meta.get("TransferSyntaxUID", _NATIVE[0]) not in _NATIVE else np.asarray(data.pixel_array)
    stored = stored.reshape(-1, *stored.shape[-2:])
    for k, plane in slices:
        values = stored[plane.frame.number]
        if (limits := _padding_limits(data)) is not None:
            padding[k] = (values >= limits[0]) & (values <= limits[1])
        if "ModalityLUTSequence" in data:
            voxels[k] = pydicom.pixels.apply_modality_lut(values, data)
        elif plane.slope == 1:
            voxels[k] = values + voxels.dtype.type(plane.intercept)
        else:
            voxels[k] = (values * plane.slope + plane.intercept).astype(voxels.dtype)


def _decoded(path: Path, data: Header) -> np.ndarray:
    """Stored values of a compressed file. GDCM, in SimpleITK, knows all compressions and applies the first frame's rescale: that is undone."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    first = _planes(path, data)[0]
    if first.slope == 1 and first.intercept == 0:
        return values
    return np.rint((values - first.intercept) / first.slope).astype(np.int32)


def _padding_limits(data: Header) -> tuple[int, int] | None:
    """Stored values from .. to that mean: nothing was measured here."""
    if data.get("PixelPaddingValue") in (None, ""):
        return None
    bits, signed = int(data.get("BitsStored", 16)), int(data.get("PixelRepresentation", 0)) == 1
    limits = [int(data.PixelPaddingValue), int(data.get("PixelPaddingRangeLimit", data.PixelPaddingValue))]
    limits = [v % 2**bits for v in limits]  # signed ones are often written as unsigned, or in more bits than are stored
    low, high = sorted(v - 2**bits if signed and v >= 2 ** (bits - 1) else v for v in limits)
    return low, high
