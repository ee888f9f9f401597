"""Which format a file has, by its content, and what makes a volume or an annotation of it; then the same for writing, by the name asked for.

One module knows each format. Names decide only where the content does not: a .txt is a list of DICOM files.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..contract.classes import ClassTable
from ..contract.errors import AnnotationError, InputError
from ..contract.geometry import Geometry
from ..contract.opening import check_file, is_folder, open_file, shown
from ..contract.store import IN_MEMORY, Store, slabs
from . import dicomseg, dicomseries, labelmap, metaimage, nifti, nrrd, rtstruct, segnrrd, stacks, stackwriting, voxels
from .dicomheader import looks_like_dicom, read_header
from .dicomseries import Series
from .image import Image
from .output import COPY_AGAIN, Outgoing, damaged, replacing, suffix, unreadable
from .output import check_output as check_output
from .segnrrd import SparseLabels as SparseLabels
from .stacks import Taking

READ_SUFFIXES = (".seg.nrrd", ".nrrd", ".nhdr", ".nii.gz", ".nii", ".mha", ".mhd", ".dcm", ".npy", ".tif", ".tiff", ".zarr")
STACKS = ("npy", "tiff", "tiffs", "zarr")
_HEAD = 540  # bytes by which every format can be told: a NIfTI-2 header
NOTHING_SAID = Taking()

# ---------------------------------------------------------------- which format


def kind_of(path: Path) -> str:
    """ "dicom", "nrrd", "nifti", "metaimage", "npy", "tiff", "tiffs" (a folder of them) or "zarr". Raises InputError for what is not there, may not
    be read, or is none of them."""
    if is_folder(path):
        return stacks.kind_of_folder(path) or "dicom"
    size = check_file(path).st_size
    if path.suffix.lower() == ".txt":
        return "dicom"
    if not size:  # the system's own files (/proc) say so too, and reading them may wait for ever
        raise InputError(f"{shown(path)} is empty (0 bytes).", COPY_AGAIN)
    try:
        with open_file(path) as file:
            packed, head = voxels.is_gzip(file.read(2)), voxels.beginning(file, _HEAD)
    except OSError as error:
        raise unreadable(path, error) from error
    known = (("nrrd", nrrd.is_nrrd), ("dicom", looks_like_dicom), ("nifti", nifti.is_nifti), ("metaimage", metaimage.is_metaimage))
    found = stacks.kind_of(head) or next((name for name, test in known if test(head)), "")
    if found not in ("nifti", "") and packed:
        raise InputError(f"{path.name} is packed by gzip, which is read of NIfTI only.", "Unpack it first.")
    if found:
        return found
    if path.suffix.lower() == ".dcm":
        raise InputError(f"{path.name} holds no DICOM image: it is damaged, or something else.", COPY_AGAIN)
    if suffix(path, READ_SUFFIXES):
        raise damaged(path)
    raise InputError(f"{path.name} is not of a known image format.", f"Use one of {', '.join(READ_SUFFIXES)}.")


# ---------------------------------------------------------------- images in


def read_volume(
    path: Path,
    series: str | None = None,
    transform: str = "auto",
    store: Store = IN_MEMORY,
    taking: Taking = NOTHING_SAID,
    onto: Geometry | None = None,
) -> Image:
    """The 3-D image in a NRRD, NIfTI, MetaImage, .npy, TIFF or Zarr, or one DICOM series (see `dicomseries.read_series`; `series`: its UID).

    The array is in the file's scalar type; float64 becomes float32, and whole numbers of 64 bits become int32. transform: see `nifti.read`; taking
    and onto: see `stacks`; store: where the array is kept.

    Raises InputError for anything that cannot be trained on: missing, damaged or foreign files, not 3-D, one slice, colour, complex, not-a-number or
    infinite voxels, one constant value, DICOM slices that make no regular grid; OutputError where the store is full.
    """
    path = Path(path)
    image = _read_image(path, kind_of(path), series, transform, store, taking, onto)
    array = _as_image(image.array, path, store)
    low, high = _range(array)
    if not math.isfinite(low) or not math.isfinite(high):
        raise InputError(f"{path.name} has voxels that are not a number or infinite.", "Replace them before training, or export the image again.")
    if low == high:
        raise InputError(f"{path.name} has the same value ({array.flat[0]}) in every voxel.", "Choose the volume that shows the anatomy.")
    return replace(image, array=array)


def _range(array: np.ndarray) -> tuple[float, float]:
    """The least and the largest value; not-a-number where one is."""
    ends = [(slab.min(), slab.max()) for slab in slabs(array)]
    return float(np.min([low for low, _ in ends])), float(np.max([high for _, high in ends]))


def _read_image(
    path: Path,
    kind: str,
    series: str | None = None,
    transform: str = "auto",
    store: Store = IN_MEMORY,
    taking: Taking = NOTHING_SAID,
    onto: Geometry | None = None,
) -> Image:
    """As the file has it. Raises InputError."""
    if series and kind != "dicom":
        raise InputError(f"{path.name} is not a DICOM folder, so --series cannot choose in it.", "Leave --series out, or give the folder.")
    if transform != "auto" and kind != "nifti":
        raise InputError(f"{path.name} is no NIfTI file, so --nifti-transform cannot choose in it.", "Leave --nifti-transform out.")
    if kind in STACKS:
        array, geometry, remarks = stacks.read(path, kind, store, taking, onto)
        return Image(array, geometry, tuple(remarks))
    if taking != NOTHING_SAID:
        raise InputError(f"{path.name} says itself how large its voxels are and what it holds.", "Leave --spacing and --select out.")
    if kind == "dicom":
        array, found, remarks = dicomseries.read_series(path, series)
        return Image(array, found.geometry, tuple(remarks), found)
    if kind == "nifti":
        array, geometry, remarks, header = nifti.read(path, transform, store)
        return Image(array, geometry, tuple(remarks), nifti=header)
    return Image(*(nrrd.read(path, store=store) if kind == "nrrd" else metaimage.read(path, store)))


def _as_image(array: np.ndarray, path: Path, store: Store) -> np.ndarray:
    """In a type that the engine knows. Raises InputError for whole numbers beyond 32 bits."""
    if array.dtype.itemsize < 8:
        return array
    kind = np.dtype(np.float32 if array.dtype.kind == "f" else np.int32)
    if kind.kind == "i":
        low, high = _range(array)
        if low < -(2**31) or high >= 2**31:
            raise InputError(f"{path.name} has whole numbers beyond 32 bits ({array.min()} to {array.max()}).", "Save it as float32.")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
        return store.keep(path.name, array.shape, kind, (slab.astype(kind) for slab in slabs(array)))


# ---------------------------------------------------------------- annotation in


def read_annotation(
    path: Path,
    geometry: Geometry,
    background: str | None = None,
    *,
    unlabelled: int = 0,
    series: Series | None = None,
    other_patient: bool = False,
    transform: str = "auto",
    store: Store = IN_MEMORY,
) -> SparseLabels:
    """The strokes in a .seg.nrrd (any layers, any crop of the grid), a DICOM segmentation, an RT structure set, or a label map.

    `geometry` is the image's grid, on which the strokes are returned; `background` names the background segment by ID or name (default:
    the tagged one, else the one called "background"), or in a label map by its value (default 1, "none" for none); there `unlabelled` is the
    value that means nothing, and all others are segments. As in Slicer, voxels of a value that no segment has are not strokes.
    `series`: the image, where it is DICOM: DICOM of another patient or frame of reference is refused unless `other_patient`. `store`: where arrays
    are kept. Raises InputError where the file cannot be read or does not lie on the grid, AnnotationError where it holds no segment.
    """
    path = Path(path)
    kind = _check_file(path)
    if kind == "dicom":
        reader = rtstruct.read_rtstruct if rtstruct.is_rtstruct(read_header(path)) else dicomseg.read_seg
        return reader(path, geometry, background, series, other_patient)
    fields = _segment_fields(path) if kind == "nrrd" else {}
    if segnrrd.has_segments(fields):
        return _read_segmentation(path, fields, geometry, background, store)
    if suffix(path, READ_SUFFIXES) == ".seg.nrrd":
        nrrd.read(path, layered=True, store=store)  # a damaged file should be called damaged
        raise AnnotationError(f"{path.name} holds no segment.", "Paint each structure and the background, and save again.")
    values, remarks = _labels_on_grid(path, geometry, transform, store)
    annotation, classes, doubts, note = labelmap.sparse(values, path, background, unlabelled, store)
    return SparseLabels(annotation, classes, {}, {}, (*remarks, *doubts), note)


def _check_file(path: Path) -> str:
    """What kind of file it is. Raises InputError for a folder that is none."""
    if is_folder(path) and not stacks.kind_of_folder(path):
        raise InputError(f"{path.name} is a folder, not an image file.", "Give a file.")
    return kind_of(path)


def _segment_fields(path: Path) -> dict[str, str]:
    """Of a NRRD."""
    try:
        with open_file(path) as file:
            return nrrd.read_header(file, path).pairs
    except OSError as error:
        raise unreadable(path, error) from error


def is_plain(path: Path) -> bool:
    """Whether a file holds voxels only: an image or a label map, without segments."""
    kind = _check_file(path)
    named = suffix(path, READ_SUFFIXES) == ".seg.nrrd" or (kind == "nrrd" and segnrrd.has_segments(_segment_fields(path)))
    return kind != "dicom" and not named


def read_labelmap(path: Path, geometry: Geometry) -> tuple[np.ndarray, ClassTable, list[str]]:
    """A dense label map on the grid `geometry`, (K, J, I) uint8, 0 background, c segment c: one for each value that occurs; and remarks.

    Raises InputError.
    """
    values, remarks = _labels_on_grid(path, geometry)
    labels, classes = labelmap.dense(values, path)
    return labels, classes, remarks


def _read_segmentation(path: Path, fields: dict[str, str], geometry: Geometry, background: str | None, store: Store) -> SparseLabels:
    segnrrd.check_binary(fields, path)
    layers, grid = nrrd.read(path, layered=True, store=store)
    labelmap.check_whole(layers, path)
    layers, grid = labelmap.ordered_as(layers, grid, geometry)
    return segnrrd.read_layers(path, fields, layers, _placed(layers, grid, geometry, path), geometry, background, store)


def _placed(layers: np.ndarray, grid: Geometry, geometry: Geometry, path: Path) -> tuple[int, int, int]:
    """The (k, j, i) index in `geometry` of the file's first voxel."""
    if grid.voxels == 1 and not layers.any():
        return (0, 0, 0)  # what Slicer writes where nothing at all is painted
    offset_ijk = np.rint(np.linalg.solve(geometry.matrix, [*grid.origin_lps_mm, 1]))
    shifted = geometry.matrix
    shifted[:, 3] = geometry.matrix @ offset_ijk
    difference = grid.difference_from(Geometry(grid.shape_kji, tuple(map(tuple, shifted))))
    if difference:
        raise InputError(f"{path.name} does not lie on the image's grid: {difference}.", "Choose the image as its source geometry in Slicer.")
    i, j, k = (int(v) for v in offset_ijk[:3])
    return (k, j, i)


def read_labels(path: Path, geometry: Geometry) -> np.ndarray:
    """Whole numbers 0 to 255 on the grid `geometry`, (K, J, I) uint8. Raises InputError."""
    values, _ = _labels_on_grid(path, geometry)
    labelmap.check_whole(values, path)
    if values.max() > 255:
        raise InputError(f"{path.name} has values up to {values.max():g}, outside 0 to 255.", "Give whole numbers of 8 bits.")
    return values.astype(np.uint8)


def _labels_on_grid(path: Path, geometry: Geometry, transform: str = "auto", store: Store = IN_MEMORY) -> tuple[np.ndarray, list[str]]:
    kind = kind_of(path)
    image = _read_image(path, kind, transform=transform if kind == "nifti" else "auto", store=store, onto=geometry)
    values, remarks = labelmap.on_grid(image.array, image.geometry, geometry, path)
    return values, [*image.remarks, *remarks]


# ---------------------------------------------------------------- out


def write_segmentation(
    path: Path, dense: np.ndarray, geometry: Geometry, classes: ClassTable, header: dict[str, str] | None = None, like: Image | None = None
) -> None:
    """Writes `dense` ((K, J, I) uint8: 0 background, c segment c) as a .seg.nrrd with all that `classes` and `header` hold, or as a label map.
    `like`, the image that it lies on, gives a NIfTI file its very transforms.

    Raises InputError for arguments that do not fit together, OutputError where writing fails; an existing file is then untouched.
    """
    _check_labels(dense, geometry, len(classes))
    if suffix(Path(path)) == ".seg.nrrd":
        _write_layer(Path(path), Outgoing(dense), geometry, segnrrd.layer_lines(dense, classes.segments, header or {}))
    else:
        _write_plain(Path(path), dense, geometry, like, classes)


def write_annotation(path: Path, annotation: np.ndarray, geometry: Geometry, classes: ClassTable, like: Image | None = None) -> None:
    """Writes strokes ((K, J, I) uint8: 0 unlabelled, 1 background, 1 + c segment c) so that `read_annotation` gives them back.

    In a .seg.nrrd the background is one more segment, tagged; one is made where `classes` has none but the strokes do.
    Raises as `write_segmentation` does.
    """
    _check_labels(annotation, geometry, len(classes) + 1)
    if suffix(Path(path)) == ".seg.nrrd":
        segments, values = segnrrd.with_background(classes, annotation)
        _write_layer(Path(path), Outgoing(annotation, values), geometry, segnrrd.layer_lines(annotation, segments, {}))
    else:
        _write_plain(Path(path), annotation, geometry, like)


def write_volume(path: Path, array: np.ndarray, geometry: Geometry, like: Image | None = None) -> None:
    """Writes an image (K, J, I) of any real scalar type as NRRD, NIfTI or MetaImage. Raises as `write_segmentation` does."""
    if suffix(Path(path)) == ".seg.nrrd":
        raise InputError(f"{Path(path).name} is the name of a segmentation, not of an image.", "Leave .seg out of the name.")
    if array.shape != geometry.shape_kji or array.dtype.kind not in "iuf" or array.dtype.itemsize > 8 or array.dtype == np.float16:
        raise InputError(f"An array of shape {array.shape} and type {array.dtype} is not an image on a grid of {geometry.shape_kji}.")
    _write_plain(Path(path), array, geometry, like)


def _check_labels(labels: np.ndarray, geometry: Geometry, largest: int) -> None:
    if labels.shape != geometry.shape_kji or labels.dtype != np.uint8:
        raise InputError(f"Labels of shape {labels.shape} and type {labels.dtype} do not fit a grid of {geometry.shape_kji} (uint8).")
    if labels.max() > largest:
        raise InputError(f"The labels go up to {labels.max()}, but the table of segments to {largest}.")


def _write_layer(path: Path, outgoing: Outgoing, geometry: Geometry, lines: list[str]) -> None:
    with replacing(path, outgoing) as temporary:
        nrrd.write(temporary, outgoing, geometry, lines)


def _write_plain(path: Path, array: np.ndarray, geometry: Geometry, like: Image | None, classes: ClassTable | None = None) -> None:
    if suffix(path) == ".dcm":
        raise InputError(f"{path.name} would be DICOM, which is written for a DICOM series only.", "Choose .nrrd or .nii.gz.")
    outgoing = Outgoing(array)
    with replacing(path, outgoing) as temporary:
        if suffix(path) in (".nii", ".nii.gz"):
            nifti.write(temporary, outgoing, geometry, like.nifti if like is not None else b"")
        elif suffix(path) == ".npy":
            stackwriting.write_npy(temporary, outgoing)
        elif suffix(path) == ".zarr":
            stackwriting.write_zarr(temporary, outgoing, geometry, classes)
        elif suffix(path) in (".tif", ".tiff"):
            stackwriting.write_tiff(temporary, outgoing, geometry)
        else:
            (nrrd if suffix(path) == ".nrrd" else metaimage).write(temporary, outgoing, geometry)
