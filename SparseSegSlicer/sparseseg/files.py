"""Volumes and .seg.nrrd in and out.

SimpleITK reads every format and writes the plain ones. The text header of a .seg.nrrd is read and written here: it is a few lines of
`key:=value`, and every one of them, known or not, has to come back as it was. Decisions worth knowing:

* Slicer cuts a layer that several segments share to the Extent of its first segment. So all segments of one layer are written with one
  Extent, that of the layer's voxels; an Extent of its own for each segment would lose voxels when Slicer opens the file.
* Slicer's offset field counts from the image that a cropped file was made for. Files written here cover the whole grid: offset 0 0 0.
* Truncated NIfTI is the one case that ITK reads without complaint (as zeros), and a full disk the one it writes so. Both are checked here.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import SimpleITK as sitk

from .classes import BACKGROUND_TAG, ClassTable, Segment, distinct_color
from .errors import AnnotationError, InputError, OutputError
from .geometry import Geometry

READ_SUFFIXES = (".seg.nrrd", ".nrrd", ".nhdr", ".nii.gz", ".nii", ".mha", ".mhd", ".dcm")
WRITE_SUFFIXES = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha")
SLICE_GAP_TOLERANCE = 0.01  # DICOM slice distances may differ by this part of their median: far below a missing slice, above rounding
_OFFSET = "Segmentation_ReferenceImageExtentOffset"
_CONTAINER = {"Segmentation_ContainedRepresentationNames": "Binary labelmap|", "Segmentation_MasterRepresentation": "Binary labelmap"}
_FOLLOWS_DATA = ("Extent", "LabelValue", "Layer")  # segment fields that are made from the voxels, not carried over
_COPY_AGAIN = "Copy or export the file again."


@dataclass(frozen=True)
class Volume:
    """A 3-D image: `array` (K, J, I) in the file's scalar type (float64 becomes float32), `geometry` its grid."""

    array: np.ndarray
    geometry: Geometry


@dataclass(frozen=True)
class SparseLabels:
    """Strokes as read from a file.

    `annotation` (K, J, I) uint8: 0 unlabelled, 1 background, 1 + c segment c of `classes`. `overlaps`: for two segments' names, how many
    voxels both claimed; those are unlabelled. `header`: the file's fields that belong to no segment, for `write_segmentation`.
    """

    annotation: np.ndarray
    classes: ClassTable
    overlaps: dict[tuple[str, str], int]
    header: dict[str, str]


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
    fields = _nrrd_fields(path)
    if any(re.fullmatch(r"Segment\d+_ID", key) for key in fields):
        return _read_segmentation(path, fields, geometry, background)
    if _suffix(path, READ_SUFFIXES) == ".seg.nrrd":
        _read_image(path, layered=True)  # a damaged file should be called damaged
        raise AnnotationError(f"{path.name} holds no segment.", "Paint each structure and the background, and save again.")
    return _read_labelmap(path, geometry, background)


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


@dataclass(frozen=True)
class _Row:
    """One segment of a .seg.nrrd, and where its voxels are: `value` in `layer`."""

    segment: Segment
    value: int
    layer: int


def _read_segmentation(path: Path, fields: dict[str, str], geometry: Geometry, background: str | None) -> SparseLabels:
    header = {key: value for key, value in fields.items() if not re.match(r"Segment\d+_", key)}
    if "fractional" in fields.get("Segmentation_MasterRepresentation", fields.get("Segmentation_SourceRepresentation", "")).lower():
        raise InputError(f"{path.name} holds a fractional labelmap.", "Make the binary labelmap the source representation in Slicer, and save again.")
    image = _read_image(path, layered=True)
    layers = sitk.GetArrayViewFromImage(image)
    layers = layers if layers.ndim == 4 else layers[..., None]
    rows = _rows(fields, layers.shape[3], path)
    chosen = _background_row(rows, background, path)
    ordered = [row for row in rows if row is not chosen]
    if not ordered:
        raise AnnotationError(f"{path.name} holds no segment besides the background.", "Add a segment for each structure, and save again.")
    classes = ClassTable(tuple(row.segment for row in ordered), chosen.segment if chosen else None)
    _check_label_values(layers, path)
    codes = {(row.layer, row.value): c for c, row in enumerate(ordered, start=2)} | ({(chosen.layer, chosen.value): 1} if chosen else {})
    annotation, clashes = _merge(layers, codes, _placed(image, geometry, path), geometry, path)
    names = [chosen.segment.name if chosen else "", *classes.names]  # names[code - 1]
    overlaps: Counter[tuple[str, str]] = Counter()
    for (first, second), count in clashes.items():
        overlaps[names[first - 1], names[second - 1]] += count
    return SparseLabels(annotation, classes, dict(overlaps), header)


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


def _merge(
    layers: np.ndarray, codes: dict[tuple[int, int], int], start: tuple[int, ...], geometry: Geometry, path: Path
) -> tuple[np.ndarray, Counter[tuple[int, int]]]:
    """Layers (k, j, i, layer), lying at `start` in the grid, made one annotation; and how many voxels each two codes both claim."""
    tables = np.zeros((layers.shape[3], 256), np.uint8)
    for (layer, value), code in codes.items():
        tables[layer, value] = code
    annotation = np.zeros(geometry.shape_kji, np.uint8)
    clashes: Counter[tuple[int, int]] = Counter()
    low = [max(0, -s) for s in start]  # the part of the file inside the grid, in the file's indices
    high = [max(a, min(n, size - s)) for a, s, n, size in zip(low, start, layers.shape[:3], geometry.shape_kji, strict=True)]
    outside = 0
    for k, slab in enumerate(layers):  # one slab at a time: the layers of a large scan do not fit in memory twice
        merged, painted = _merge_slab(slab, tables, clashes)
        outside += int(np.count_nonzero(painted))
        if low[0] <= k < high[0]:
            window = (slice(low[1], high[1]), slice(low[2], high[2]))
            outside -= int(np.count_nonzero(painted[window]))
            target = annotation[k + start[0]]
            target[tuple(slice(w.start + s, w.stop + s) for w, s in zip(window, start[1:], strict=True))] = merged[window]
    if outside:
        raise InputError(f"{path.name} has {outside} painted voxels outside the image.", "Erase them, or choose the image that was painted on.")
    return annotation, clashes


def _merge_slab(slab: np.ndarray, tables: np.ndarray, clashes: Counter[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """One slab (j, i, layer) as codes (j, i), 0 where two claim a voxel (counted in `clashes`); and where anything is painted."""
    claims = np.stack([table[slab[..., n].astype(np.uint8)] for n, table in enumerate(tables)])
    merged = claims.max(axis=0)
    painted = merged > 0
    clash = np.where(claims == 0, np.uint8(255), claims).min(axis=0) < merged
    if clash.any():
        columns, counts = np.unique(claims[:, clash], axis=1, return_counts=True)
        for column, count in zip(columns.T.tolist(), counts.tolist(), strict=True):
            for pair in combinations(sorted(set(column) - {0}), 2):
                clashes[pair] += count
        merged[clash] = 0
    return merged, painted


def _background_row(rows: list[_Row], background: str | None, path: Path) -> _Row | None:
    """The background: the one asked for (by ID, else by name), else the tagged one, else the one called "background"."""
    if background is not None:
        tests: list[Callable[[Segment], bool]] = [lambda s: s.id == background, lambda s: s.name == background]
    else:
        tests = [lambda s: BACKGROUND_TAG in s.tags, lambda s: "background" in (s.id.lower(), s.name.lower())]
    for test in tests:
        for row in rows:
            if test(row.segment):
                return row
    if background is None:
        return None
    listed = ", ".join(f"{row.segment.name} (ID {row.segment.id})" for row in rows)
    raise InputError(f"{path.name} has no segment {background!r} to take as background.", f"Choose one of: {listed}.")


def _rows(fields: dict[str, str], layers: int, path: Path) -> list[_Row]:
    numbers = sorted(int(match[1]) for match in map(re.compile(r"Segment(\d+)_ID").fullmatch, fields) if match)
    rows: list[_Row] = []
    for place, number in enumerate(numbers):
        prefix = f"Segment{number}_"
        own = {key.removeprefix(prefix): value for key, value in fields.items() if key.startswith(prefix)}
        try:
            row = _row(own, place, layers)
        except ValueError as error:
            raise InputError(
                f"The header of {path.name} is damaged at segment {fields[prefix + 'ID']!r}.", "Save the segmentation again from Slicer."
            ) from error
        if any((row.layer, row.value) == (other.layer, other.value) for other in rows):
            raise InputError(
                f"In {path.name}, segment {fields[prefix + 'ID']!r} has the voxels of another segment.", "Save the segmentation again from Slicer."
            )
        rows.append(row)
    return rows


def _row(own: dict[str, str], place: int, layers: int) -> _Row:
    """A segment's header fields, taken apart. Raises ValueError where they make no sense."""
    segment_id = own.pop("ID")
    r, g, b = map(float, own["Color"].split()) if "Color" in own else distinct_color(place)
    value, layer = int(own.get("LabelValue", 1)), int(own.get("Layer", place))  # files from before Slicer 4.11 have a layer of ones for each segment
    if not (0 < value < 256 and 0 <= layer < layers):
        raise ValueError(f"label value {value}, layer {layer}")
    known = ("Name", "Color", "Tags", *_FOLLOWS_DATA)
    extra = {key: text for key, text in own.items() if key not in known}
    return _Row(Segment(segment_id, own.get("Name", segment_id), (r, g, b), _tags(own.get("Tags", "")), extra), value, layer)


def _tags(text: str) -> dict[str, str]:
    """`key:value|key:value|` taken apart so that `_tag_text` gives the same text: what cannot begin a tag belongs to the one before."""
    tags: dict[str, str] = {}
    last = None
    for piece in text.removesuffix("|").split("|") if text else []:
        key, colon, value = piece.partition(":")
        if last is not None and (not colon or key in tags or not key):
            tags[last] += "|" + piece
        else:
            tags[key], last = value, key
    return tags


def _tag_text(tags: dict[str, str]) -> str:
    return "".join(f"{key}:{value}|" for key, value in tags.items())


def _nrrd_fields(path: Path) -> dict[str, str]:
    """The `key:=value` lines of a NRRD header, in their order; empty for other files. Slicer writes UTF-8; old files may be Latin-1."""
    lines: list[bytes] = []
    try:
        with path.open("rb") as file:
            if not file.readline(80).startswith(b"NRRD000"):
                return {}
            while line := file.readline(1 << 24).rstrip(b"\n").removesuffix(b"\r"):
                lines.append(line)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        text = [line.decode("utf-8") for line in lines]
    except UnicodeDecodeError:
        text = [line.decode("latin-1") for line in lines]
    pairs = (line.partition(":=") for line in text if not line.startswith("#"))
    return {_unescaped(key): _unescaped(value) for key, mark, value in pairs if mark and ": " not in key}


def _unescaped(text: str) -> str:
    return re.sub(r"\\[\\n]", lambda found: "\n" if found[0] == "\\n" else "\\", text)


def _escaped(text: str) -> str:
    """For a NRRD header: backslash and line feed escaped as Teem does; a carriage return, which it cannot hold, becomes a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\\", "\\\\").replace("\n", "\\n")


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
        _write_layer(Path(path), dense, geometry, classes.segments, header or {}, np.arange(256, dtype=np.uint8))
    else:
        _write_plain(Path(path), dense, geometry)


def write_annotation(path: Path, annotation: np.ndarray, geometry: Geometry, classes: ClassTable) -> None:
    """Writes strokes ((K, J, I) uint8: 0 unlabelled, 1 background, 1 + c segment c) so that `read_annotation` gives them back.

    In a .seg.nrrd the background is one more segment, tagged; one is made where `classes` has none but the strokes do.
    Raises as `write_segmentation` does.
    """
    _check_labels(annotation, geometry, len(classes) + 1)
    if _suffix(Path(path), WRITE_SUFFIXES) != ".seg.nrrd":
        return _write_plain(Path(path), annotation, geometry)
    segments, background = classes.segments, classes.background
    if background is None and (annotation == 1).any():
        background = Segment("SparseSegSlicer_Background", "background", (0.5, 0.5, 0.5))
    if background is not None:
        tagged = background.tags if BACKGROUND_TAG in background.tags else {**background.tags, BACKGROUND_TAG: "1"}
        segments = (*segments, Segment(background.id, background.name, background.color, tagged, background.extra))
    values = np.arange(-1, 255) % 256  # code 1 + c becomes c
    values[0], values[1] = 0, len(classes) + 1
    return _write_layer(Path(path), annotation, geometry, segments, {}, values.astype(np.uint8))


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


def _write_layer(
    path: Path, labels: np.ndarray, geometry: Geometry, segments: tuple[Segment, ...], header: dict[str, str], values: np.ndarray
) -> None:
    """A .seg.nrrd of one layer: `values[labels]`, in which value n is `segments[n - 1]`."""
    text = "\n".join([*_layer_lines(geometry), *_field_lines(segments, header, _extent(labels)), "", ""])
    with _replacing(path) as temporary, temporary.open("wb") as file:
        file.write(text.encode("utf-8", errors="replace"))
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as zipped:
            for slab in labels:
                zipped.write(values[slab].tobytes())


def _layer_lines(geometry: Geometry) -> list[str]:
    def vector(numbers: Any) -> str:
        return "(" + ",".join(repr(float(v)) for v in numbers) + ")"

    return [
        "NRRD0004",
        "type: unsigned char",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, geometry.shape_kji[::-1])),
        "space directions: " + " ".join(vector(column) for column in geometry.matrix[:3, :3].T),
        "kinds: domain domain domain",
        "encoding: gzip",
        "space origin: " + vector(geometry.origin_lps_mm),
    ]


def _field_lines(segments: tuple[Segment, ...], header: dict[str, str], extent: str) -> Iterator[str]:
    for number, segment in enumerate(segments):
        color = " ".join(repr(float(v)).removesuffix(".0") for v in segment.color)
        own = {"ID": segment.id, "Name": segment.name, "Color": color, "Tags": _tag_text(segment.tags), **segment.extra}
        own |= {"Extent": extent, "LabelValue": str(number + 1), "Layer": "0"}
        for key, value in own.items():
            yield f"Segment{number}_{_escaped(key)}:={_escaped(value)}"
    for key, value in {**(header or _CONTAINER), _OFFSET: "0 0 0"}.items():
        yield f"{_escaped(key)}:={_escaped(value)}"


def _extent(labels: np.ndarray) -> str:
    """First and last index of what is not 0, along i, j, k; the whole layer's (see the head of this file)."""
    used = [np.zeros(n, bool) for n in labels.shape]
    for k, slab in enumerate(labels):
        painted = slab > 0
        used[0][k] = painted.any()
        used[1] |= painted.any(axis=1)
        used[2] |= painted.any(axis=0)
    ends = [(int(axis.argmax()), len(axis) - 1 - int(axis[::-1].argmax())) if axis.any() else (0, -1) for axis in reversed(used)]
    return " ".join(f"{first} {last}" for first, last in ends)


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
