"""Volumes and segmentations in and out: the one door to image files.

SimpleITK reads and writes the plain formats; `segnrrd` knows the header and the layers of a .seg.nrrd, `dicomseries` and `dicomseg` know
DICOM. Truncated NIfTI is the one case that ITK reads without complaint (as zeros), and a full disk the one it writes so. Both are checked here.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..contract.classes import ClassTable
from ..contract.errors import AnnotationError, InputError
from ..contract.geometry import Geometry
from . import dicomseg, dicomseries, segnrrd
from .dicomseries import Series
from .output import check_output as check_output
from .output import replacing
from .output import suffix as suffix
from .segnrrd import SparseLabels as SparseLabels

READ_SUFFIXES = (".seg.nrrd", ".nrrd", ".nhdr", ".nii.gz", ".nii", ".mha", ".mhd", ".dcm")
_COPY_AGAIN = "Copy or export the file again."


@dataclass(frozen=True)
class Volume:
    """A 3-D image: `array` (K, J, I) in the file's scalar type (float64 becomes float32), `geometry` its grid, `series` where it is DICOM."""

    array: np.ndarray
    geometry: Geometry
    series: Series | None = None


# ---------------------------------------------------------------- images in


def read_volume(path: Path, series: str | None = None) -> Volume:
    """The 3-D image in a NRRD, NIfTI or MetaImage file, or one DICOM series (see `dicomseries.read_series`; `series`: its UID).

    Raises InputError for anything that cannot be trained on: missing, damaged or foreign files, not 3-D, one slice, colour, complex,
    not-a-number or infinite voxels, one constant value, DICOM slices that make no regular grid.
    """
    path, source = Path(path), None
    if path.suffix.lower() == ".dcm" and not path.is_dir():
        _check_readable(path)
    if is_dicom(path):
        array, source = dicomseries.read_series(path, series)
        geometry = source.geometry
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
    return Volume(array, geometry, source)


def is_dicom(path: Path) -> bool:
    """Whether `path` names a DICOM series: a folder, a .dcm file, or a .txt list of files."""
    return path.is_dir() or path.suffix.lower() in (".dcm", ".txt")


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
    if not suffix(path, READ_SUFFIXES):
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
    if suffix(path, READ_SUFFIXES) not in (".nii", ".nii.gz"):
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


# ---------------------------------------------------------------- annotation in


def read_annotation(path: Path, geometry: Geometry, background: str | None = None) -> SparseLabels:
    """The strokes in a .seg.nrrd (any layers, any crop of the grid), in a label map (0 unlabelled, 1 background, 1 + c segment c), or in a
    DICOM segmentation (.dcm).

    `geometry` is the image's grid, on which the strokes are returned; `background` names the background segment by ID or name (default:
    the tagged one, else the one called "background"). As in Slicer, voxels of a value that no segment has are not strokes.
    Raises InputError where the file cannot be read or does not lie on the grid, AnnotationError where it holds no segment.
    """
    path = Path(path)
    _check_readable(path)
    if suffix(path, READ_SUFFIXES) == ".dcm":
        return dicomseg.read_seg(path, geometry, background)
    try:
        fields = segnrrd.read_fields(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if segnrrd.has_segments(fields):
        return _read_segmentation(path, fields, geometry, background)
    if suffix(path, READ_SUFFIXES) == ".seg.nrrd":
        _read_image(path, layered=True)  # a damaged file should be called damaged
        raise AnnotationError(f"{path.name} holds no segment.", "Paint each structure and the background, and save again.")
    return _read_sparse_labelmap(path, geometry, background)


def is_plain(path: Path) -> bool:
    """Whether a file holds voxels only: an image or a label map, without segments."""
    _check_readable(path)
    return suffix(path, READ_SUFFIXES) not in (".seg.nrrd", ".dcm") and not segnrrd.has_segments(segnrrd.read_fields(path))


def read_labelmap(path: Path, geometry: Geometry) -> tuple[np.ndarray, ClassTable]:
    """A dense label map on the grid `geometry`, (K, J, I) uint8, 0 background, c segment c, with generated segments. Raises InputError."""
    labels = read_labels(path, geometry)
    return labels, ClassTable.numbered(int(labels.max()))


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


def _read_sparse_labelmap(path: Path, geometry: Geometry, background: str | None) -> SparseLabels:
    if background not in (None, "1"):
        raise InputError(f"{path.name} is a label map, in which the background is always 1, not {background!r}.", "Leave the background's name out.")
    annotation = read_labels(path, geometry)
    if annotation.max() < 2:
        raise AnnotationError(
            f"{path.name} holds no segment: its largest value is {annotation.max()}.", "Label structures 2, 3, ..., the background 1."
        )
    return SparseLabels(annotation, ClassTable.numbered(int(annotation.max()) - 1), {}, {})


def read_labels(path: Path, geometry: Geometry) -> np.ndarray:
    """Whole numbers 0 to 255 on the grid `geometry`, (K, J, I) uint8. Raises InputError."""
    image = _read_image(path)
    difference = _grid(image, path).difference_from(geometry)
    if difference:
        raise InputError(f"{path.name} does not lie on the image's grid: {difference}.", "Draw or resample the labels on the image.")
    values = sitk.GetArrayViewFromImage(image)
    _check_label_values(values, path)
    return values.astype(np.uint8)


def _check_label_values(values: np.ndarray, path: Path) -> None:
    if values.dtype.kind == "f" and not all((np.isfinite(slab) & (slab == np.floor(slab))).all() for slab in values):
        raise InputError(f"{path.name} has values that are not whole numbers.", "Give a label map, not an intensity image or a probability map.")
    if values.min() < 0 or values.max() > 255:
        raise InputError(
            f"{path.name} has values from {values.min():g} to {values.max():g}, outside 0 to 255.",
            "Give a label map: 0 unlabelled, 1 background, 2, ... segments.",
        )


# ---------------------------------------------------------------- out


def write_segmentation(path: Path, dense: np.ndarray, geometry: Geometry, classes: ClassTable, header: dict[str, str] | None = None) -> None:
    """Writes `dense` ((K, J, I) uint8: 0 background, c segment c) as a .seg.nrrd with all that `classes` and `header` hold, or as a label map.

    Raises InputError for arguments that do not fit together, OutputError where writing fails; an existing file is then untouched.
    """
    _check_labels(dense, geometry, len(classes))
    if suffix(Path(path)) == ".seg.nrrd":
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            segnrrd.write_layer(file, dense, geometry, classes.segments, header or {}, np.arange(256, dtype=np.uint8))
    else:
        _write_plain(Path(path), dense, geometry)


def write_annotation(path: Path, annotation: np.ndarray, geometry: Geometry, classes: ClassTable) -> None:
    """Writes strokes ((K, J, I) uint8: 0 unlabelled, 1 background, 1 + c segment c) so that `read_annotation` gives them back.

    In a .seg.nrrd the background is one more segment, tagged; one is made where `classes` has none but the strokes do.
    Raises as `write_segmentation` does.
    """
    _check_labels(annotation, geometry, len(classes) + 1)
    if suffix(Path(path)) == ".seg.nrrd":
        segments, values = segnrrd.with_background(classes, annotation)
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            segnrrd.write_layer(file, annotation, geometry, segments, {}, values)
    else:
        _write_plain(Path(path), annotation, geometry)


def write_volume(path: Path, array: np.ndarray, geometry: Geometry) -> None:
    """Writes an image (K, J, I) of any real scalar type as NRRD, NIfTI or MetaImage. Raises as `write_segmentation` does."""
    if suffix(Path(path)) == ".seg.nrrd":
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
    if suffix(path) == ".dcm":
        raise InputError(f"{path.name} would be DICOM, which is written for a DICOM series only.", "Choose .nrrd or .nii.gz.")
    with replacing(path) as temporary:
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
