"""Volumes and segmentations in and out: the one door to image files.

SimpleITK reads every format and writes the plain ones; `segnrrd` knows the header and the layers of a .seg.nrrd. Truncated NIfTI is the one
case that ITK reads without complaint (as zeros), and a full disk the one it writes so. Both are checked here.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import SimpleITK as sitk

from . import segnrrd
from .classes import ClassTable
from .errors import AnnotationError, InputError, OutputError
from .geometry import Geometry
from .segnrrd import SparseLabels as SparseLabels

READ_SUFFIXES = (".seg.nrrd", ".nrrd", ".nhdr", ".nii.gz", ".nii", ".mha", ".mhd", ".dcm")
WRITE_SUFFIXES = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha")
SLICE_GAP_TOLERANCE = 0.01  # DICOM slice distances may differ by this part of their median: far below a missing slice, above rounding
_COPY_AGAIN = "Copy or export the file again."


@dataclass(frozen=True)
class Volume:
    """A 3-D image: `array` (K, J, I) in the file's scalar type (float64 becomes float32), `geometry` its grid."""

    array: np.ndarray
    geometry: Geometry


# ---------------------------------------------------------------- images in


def read_volume(path: Path, series: str | None = None) -> Volume:
    """The 3-D image in a NRRD, NIfTI or MetaImage file, or in a folder with one DICOM series (`series`: its UID, where there are several).

    Raises InputError for anything that cannot be trained on: missing, damaged or foreign files, not 3-D, one slice, colour, complex,
    not-a-number or infinite voxels, one constant value, DICOM slices that are not evenly spaced.
    """
    path = Path(path)
    if path.is_dir():
        image = _read_dicom_folder(path, series)
    else:
        if series:
            raise InputError(f"{path.name} is not a DICOM folder, so --series cannot choose in it.", "Leave --series out, or give the folder.")
        image = _read_image(path)
    geometry = _grid(image, path)
    array = sitk.GetArrayFromImage(image)
    del image
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused below
            array = array.astype(np.float32)
    if array.dtype.kind == "f" and not all(np.isfinite(slab).all() for slab in array):
        raise InputError(f"{path.name} has voxels that are not a number or infinite.", "Replace them before training, or export the image again.")
    if array.min() == array.max():
        raise InputError(f"{path.name} has the same value ({array.flat[0]}) in every voxel.", "Choose the volume that shows the anatomy.")
    return Volume(array, geometry)


def _read_image(path: Path, layered: bool = False) -> sitk.Image:
    """A 3-D image with one component (or several layers, where `layered`), complete; refused by its header before voxels are read."""
    _check_readable(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what matters is raised below, in words
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _check_header(reader, path, layered)
        _check_complete_nifti(path)
        image = reader.Execute()
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    return image[:, :, :, 0] if image.GetDimension() == 4 else image


def _check_readable(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path.name} is a folder, not an image file.", "Give a file.")
    if not path.is_file():
        raise InputError(f"There is no file {path}.", "Check the path.")
    if not _suffix(path, READ_SUFFIXES):
        raise InputError(f"{path.name} is not of a known image format.", f"Use one of {', '.join(READ_SUFFIXES)}.")
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty (0 bytes).", _COPY_AGAIN)


def _unreadable(path: Path, error: Exception) -> InputError:
    if "orthonormal" in str(error):
        return InputError(f"The axes of {path.name} are not at right angles.", "Resample the image to a grid with right angles.")
    if isinstance(error, PermissionError):
        return InputError(f"{path.name} may not be read ({error.strerror}).", "Ask for access to the file, or copy it to your own folder.")
    return InputError(f"{path.name} cannot be read: it is damaged, cut short, or not an image.", _COPY_AGAIN)


def _check_header(reader: sitk.ImageFileReader, path: Path, layered: bool = False) -> None:
    size = reader.GetSize()
    if len(size) == 4 and size[3] > 1:
        raise InputError(f"{path.name} has four dimensions ({size[3]} volumes).", "Export one time point as a 3-D volume.")
    if len(size) not in (3, 4):
        raise InputError(f"{path.name} has {len(size)} dimensions instead of three.", "Give a 3-D volume.")
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise InputError(f"{path.name} has complex numbers as voxels.", "Export its magnitude.")
    if layered:
        return
    if reader.GetNumberOfComponents() > 1:
        raise InputError(
            f"{path.name} has {reader.GetNumberOfComponents()} values in each voxel.", "Give a grey image: no colour, vectors or layers."
        )
    if min(size[:3]) < 2:
        raise InputError(f"{path.name} has only one slice ({' x '.join(map(str, size[:3]))} voxels, i x j x k).", "Give a volume.")


def _check_complete_nifti(path: Path) -> None:
    """Raises EOFError where a NIfTI file holds fewer bytes than its header says: ITK would read zeros there."""
    if _suffix(path, READ_SUFFIXES) not in (".nii", ".nii.gz"):
        return
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as file:
        needed = _nifti_bytes(file.read(540))
    size = path.stat().st_size
    if zipped:
        with path.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            size = struct.unpack("<I", file.read(4))[0]  # gzip ends in the size modulo 2**32: a cut file practically never has it right
    if size == needed % 2**32 if zipped else size >= needed:
        return
    if not zipped or _unpacked_bytes(path) < needed:  # several gzip members, or padding: count
        raise EOFError(f"{path} is shorter than its header says")


def _nifti_bytes(head: bytes) -> int:
    """Bytes of an uncompressed NIfTI-1 or NIfTI-2 file with this header."""
    layouts = {348: ("8h", 40, 72, "f", 108), 540: ("8q", 16, 14, "q", 168)}  # header size: dim; bitpix's place; vox_offset
    for order in "<>":
        layout = layouts.get(struct.unpack(order + "i", head[:4])[0] if len(head) >= 352 else 0)
        if layout:
            dim = struct.unpack_from(order + layout[0], head, layout[1])
            bits, offset = struct.unpack_from(order + "h", head, layout[2])[0], struct.unpack_from(order + layout[3], head, layout[4])[0]
            return int(offset) + math.prod(dim[1 : 1 + dim[0]]) * bits // 8
    raise EOFError("not a NIfTI header")


def _unpacked_bytes(path: Path) -> int:
    with gzip.open(path) as file:
        return sum(len(block) for block in iter(lambda: file.read(1 << 20), b""))


def _grid(image: sitk.Image | sitk.ImageFileReader, path: Path) -> Geometry:
    try:
        return Geometry.from_axes(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    except InputError as error:
        raise InputError(f"{path.name}: {error.sentence}", error.advice) from error


# ---------------------------------------------------------------- DICOM folder in


def _read_dicom_folder(folder: Path, series: str | None) -> sitk.Image:
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    found = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))}
    names = found.get(series) if series else next(iter(found.values()), None)
    if not found:
        raise InputError(f"The folder {folder.name} holds no DICOM image.", "Give the folder of the DICOM files themselves, or an image file.")
    if not names or (series is None and len(found) > 1):
        listed = "; ".join(f"{uid} ({_description(files[0])}, {len(files)} files)" for uid, files in found.items())
        sentence = f"There is no series {series} in {folder.name}." if series else f"The folder {folder.name} holds {len(found)} DICOM series."
        raise InputError(sentence, f"Choose one with --series UID: {listed}.")
    _check_none_left_out(folder, series or next(iter(found)), {Path(name).name for group in found.values() for name in group})
    _check_slices(folder, names)
    try:
        if len(names) == 1:
            return sitk.ReadImage(names[0])
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(names)
        return reader.Execute()
    except RuntimeError as error:
        raise _unreadable(folder, error) from error


def _check_none_left_out(folder: Path, uid: str, listed: set[str]) -> None:
    """Refuses a damaged image of the series: GDCM leaves it out without a word, which at an end of the series nothing else would show."""
    for path in sorted(folder.iterdir()):
        content = b""
        if path.name in listed or not path.is_file():
            continue
        with suppress(OSError), path.open("rb") as file:
            content = file.read() if file.read(132).endswith(b"DICM") else b""
        if uid.encode() in content and b"\x28\x00\x10\x00" in content:  # names the series, and has the tag Rows: an image
            raise InputError(f"{path.name} in {folder.name} is damaged or cut short.", "Export the series again.")


def _check_slices(folder: Path, names: tuple[str, ...]) -> None:
    """Each file a readable slice with one value in each voxel, and the slices evenly spaced along their common normal."""
    places = [_slice_place(folder, name, single=len(names) == 1) for name in names]
    gaps = np.abs(np.diff(places))
    if not len(gaps):
        return
    if gaps.min() < 1e-4:
        raise InputError(f"Two DICOM slices in {folder.name} lie at the same position.", "Export one time point of the series only.")
    if np.abs(gaps - np.median(gaps)).max() > SLICE_GAP_TOLERANCE * np.median(gaps):
        sentence = f"The DICOM slices in {folder.name} are {gaps.min():.4g} to {gaps.max():.4g} mm apart."
        raise InputError(sentence, "A slice is missing, or the series mixes spacings: export it again.")


def _slice_place(folder: Path, name: str, single: bool) -> float:
    """Where the slice lies along its own normal (mm); a single file has no neighbours and may have no place."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
        place = 0.0 if single else _place_mm(reader)
    except (RuntimeError, ValueError, IndexError) as error:
        sentence = f"{Path(name).name} in {folder.name} is not a readable DICOM slice with a position."
        raise InputError(sentence, "Export the series again.") from error
    if single or reader.GetNumberOfComponents() > 1:
        _check_header(reader, Path(name))
    return place


def _place_mm(reader: sitk.ImageFileReader) -> float:
    position, axes = (np.array(reader.GetMetaData(tag).split("\\"), dtype=float) for tag in ("0020|0032", "0020|0037"))
    return float(np.cross(axes[:3], axes[3:]) @ position)


def _description(name: str) -> str:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    with suppress(RuntimeError, UnicodeError):
        reader.ReadImageInformation()
        return str(reader.GetMetaData("0008|103e")).strip() or "no description"
    return "no description"


# ---------------------------------------------------------------- annotation in


def read_annotation(path: Path, geometry: Geometry, background: str | None = None) -> SparseLabels:
    """The strokes in a .seg.nrrd (any layers, any crop of the grid) or in a label map (0 unlabelled, 1 background, 1 + c segment c).

    `geometry` is the image's grid, on which the strokes are returned; `background` names the background segment by ID or name (default:
    the tagged one, else the one called "background"). As in Slicer, voxels of a value that no segment has are not strokes.
    Raises InputError where the file cannot be read or does not lie on the grid, AnnotationError where it holds no segment.
    """
    path = Path(path)
    _check_readable(path)
    try:
        fields = segnrrd.read_fields(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if segnrrd.has_segments(fields):
        return _read_segmentation(path, fields, geometry, background)
    if _suffix(path, READ_SUFFIXES) == ".seg.nrrd":
        _read_image(path, layered=True)  # a damaged file should be called damaged
        raise AnnotationError(f"{path.name} holds no segment.", "Paint each structure and the background, and save again.")
    return _read_labelmap(path, geometry, background)


def _read_segmentation(path: Path, fields: dict[str, str], geometry: Geometry, background: str | None) -> SparseLabels:
    segnrrd.check_binary(fields, path)
    image = _read_image(path, layered=True)
    layers = sitk.GetArrayViewFromImage(image)
    layers = layers if layers.ndim == 4 else layers[..., None]
    _check_label_values(layers, path)
    return segnrrd.read_layers(path, fields, layers, _placed(image, geometry, path), geometry, background)


def _placed(image: sitk.Image, geometry: Geometry, path: Path) -> tuple[int, int, int]:
    """The (k, j, i) index in `geometry` of the file's first voxel."""
    grid = _grid(image, path)
    if grid.voxels == 1 and not sitk.GetArrayViewFromImage(image).any():
        return (0, 0, 0)  # what Slicer writes where nothing at all is painted
    offset_ijk = np.rint(np.linalg.solve(geometry.matrix, [*grid.origin_lps_mm, 1]))
    shifted = geometry.matrix
    shifted[:, 3] = geometry.matrix @ offset_ijk
    difference = grid.difference_from(Geometry(grid.shape_kji, tuple(map(tuple, shifted))))
    if difference:
        raise InputError(f"{path.name} does not lie on the image's grid: {difference}.", "Choose the image as its source geometry in Slicer.")
    i, j, k = (int(v) for v in offset_ijk[:3])
    return (k, j, i)


def _read_labelmap(path: Path, geometry: Geometry, background: str | None) -> SparseLabels:
    if background not in (None, "1"):
        raise InputError(f"{path.name} is a label map, in which the background is always 1, not {background!r}.", "Leave the background's name out.")
    image = _read_image(path)
    difference = _grid(image, path).difference_from(geometry)
    if difference:
        raise InputError(f"{path.name} does not lie on the image's grid: {difference}.", "Draw or resample the annotation on the image.")
    values = sitk.GetArrayViewFromImage(image)
    _check_label_values(values, path)
    annotation = values.astype(np.uint8)
    if annotation.max() < 2:
        raise AnnotationError(
            f"{path.name} holds no segment: its largest value is {annotation.max()}.", "Label structures 2, 3, ..., the background 1."
        )
    return SparseLabels(annotation, ClassTable.numbered(int(annotation.max()) - 1), {}, {})


def _check_label_values(values: np.ndarray, path: Path) -> None:
    if values.dtype.kind == "f" and not all((np.isfinite(slab) & (slab == np.floor(slab))).all() for slab in values):
        raise InputError(f"{path.name} has values that are not whole numbers.", "Give a label map, not an intensity image or a probability map.")
    if values.min() < 0 or values.max() > 255:
        raise InputError(
            f"{path.name} has values from {values.min():g} to {values.max():g}, outside 0 to 255.",
            "Give a label map: 0 unlabelled, 1 background, 2, ... segments.",
        )


# ---------------------------------------------------------------- out


def check_output(path: Path) -> None:
    """Whether a result could be written to `path`, asked before long work. Nothing is left behind.

    Raises InputError for a suffix that cannot be written, OutputError for a folder or a place that cannot be written to.
    """
    path = Path(path)
    if not _suffix(path, WRITE_SUFFIXES):
        raise InputError(f"Cannot write {path.name}: its format is not known.", f"Use one of {', '.join(WRITE_SUFFIXES)}.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder.", "Give a file name.")
    if not path.parent.is_dir():
        raise OutputError(f"There is no folder {path.parent}.", "Make the folder first, or choose another.")
    trial = _temporary(path)
    try:
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise OutputError(f"The folder {path.parent} cannot be written to ({error.strerror}).", "Choose another folder.") from error


def write_segmentation(path: Path, dense: np.ndarray, geometry: Geometry, classes: ClassTable, header: dict[str, str] | None = None) -> None:
    """Writes `dense` ((K, J, I) uint8: 0 background, c segment c) as a .seg.nrrd with all that `classes` and `header` hold, or as a label map.

    Raises InputError for arguments that do not fit together, OutputError where writing fails; an existing file is then untouched.
    """
    _check_labels(dense, geometry, len(classes))
    if _suffix(Path(path), WRITE_SUFFIXES) == ".seg.nrrd":
        with _replacing(Path(path)) as temporary, temporary.open("wb") as file:
            segnrrd.write_layer(file, dense, geometry, classes.segments, header or {}, np.arange(256, dtype=np.uint8))
    else:
        _write_plain(Path(path), dense, geometry)


def write_annotation(path: Path, annotation: np.ndarray, geometry: Geometry, classes: ClassTable) -> None:
    """Writes strokes ((K, J, I) uint8: 0 unlabelled, 1 background, 1 + c segment c) so that `read_annotation` gives them back.

    In a .seg.nrrd the background is one more segment, tagged; one is made where `classes` has none but the strokes do.
    Raises as `write_segmentation` does.
    """
    _check_labels(annotation, geometry, len(classes) + 1)
    if _suffix(Path(path), WRITE_SUFFIXES) == ".seg.nrrd":
        segments, values = segnrrd.with_background(classes, annotation)
        with _replacing(Path(path)) as temporary, temporary.open("wb") as file:
            segnrrd.write_layer(file, annotation, geometry, segments, {}, values)
    else:
        _write_plain(Path(path), annotation, geometry)


def write_volume(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Writes an image (K, J, I) of any real scalar type as NRRD, NIfTI or MetaImage. Raises as `write_segmentation` does."""
    if _suffix(Path(path), WRITE_SUFFIXES) == ".seg.nrrd":
        raise InputError(f"{Path(path).name} is the name of a segmentation, not of an image.", "Leave .seg out of the name.")
    if array.shape != geometry.shape_kji or array.dtype.kind not in "iuf" or array.dtype.itemsize > 8 or array.dtype == np.float16:
        raise InputError(f"An array of shape {array.shape} and type {array.dtype} is not an image on a grid of {geometry.shape_kji}.")
    _write_plain(Path(path), array, geometry)


def _check_labels(labels: np.ndarray, geometry: Geometry, largest: int) -> None:
    if labels.shape != geometry.shape_kji or labels.dtype != np.uint8:
        raise InputError(f"Labels of shape {labels.shape} and type {labels.dtype} do not fit a grid of {geometry.shape_kji} (uint8).")
    if labels.max() > largest:
        raise InputError(f"The labels go up to {labels.max()}, but the table of segments to {largest}.")


def _write_plain(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    with _replacing(path) as temporary:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(geometry.spacing_ijk_mm)
        image.SetOrigin(geometry.origin_lps_mm)
        image.SetDirection(geometry.direction)
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        sitk.WriteImage(image, str(temporary), useCompression=True)
        _check_complete_nifti(temporary)
        written = sitk.ImageFileReader()
        written.SetFileName(str(temporary))
        written.ReadImageInformation()
        difference = _grid(written, path).difference_from(geometry)
        if difference:
            raise OSError(f"the format cannot hold the grid: {difference}")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A new name beside `path` to write to; it takes the place of `path` when all went well, and is removed when not."""
    check_output(path)
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, EOFError, RuntimeError, zlib.error, InputError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]
        raise OutputError(
            f"{path.name} could not be written ({reason}).", "Free space or choose another place; an earlier file is unchanged."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{uuid4().hex}{_suffix(path, WRITE_SUFFIXES)}")


def _suffix(path: Path, suffixes: tuple[str, ...]) -> str:
    """The first of `suffixes` that the file's name ends in, or nothing."""
    return next((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), "")
