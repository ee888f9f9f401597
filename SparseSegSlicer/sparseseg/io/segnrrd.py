"""The .seg.nrrd format of 3D Slicer: its text header, its segments and layers. Numpy only; `files` opens and replaces the files.

The header is a few lines of `key:=value`, and every one of them, known or not, has to come back as it was. Decisions worth knowing:

* Slicer cuts a layer that several segments share to the Extent of its first segment. So all segments of one layer are written with one
  Extent, that of the layer's voxels; an Extent of its own for each segment would lose voxels when Slicer opens the file.
* Slicer's offset field counts from the image that a cropped file was made for. Files written here cover the whole grid: offset 0 0 0.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..contract.classes import BACKGROUND_TAG, MAX_SEGMENTS, ClassTable, Segment, distinct_color
from ..contract.errors import AnnotationError, InputError
from ..contract.geometry import Geometry
from ..contract.store import IN_MEMORY, Store
from ..contract.strokes import merge_strokes
from .labelmap import mapped

_OFFSET = "Segmentation_ReferenceImageExtentOffset"
_CONTAINER = {"Segmentation_ContainedRepresentationNames": "Binary labelmap|", "Segmentation_MasterRepresentation": "Binary labelmap"}
_ID, _OF_SEGMENT = re.compile(r"Segment(\d{1,9})_ID"), re.compile(r"Segment(\d{1,9})_(.+)", re.DOTALL)
_FOLLOWS_DATA = ("Extent", "LabelValue", "Layer")  # segment fields that are made from the voxels, not carried over


@dataclass(frozen=True)
class SparseLabels:
    """Strokes as read from a file.

    `annotation` (K, J, I) uint8: 0 unlabelled, 1 background, 1 + c segment c of `classes`. `overlaps`: for two segments' names, how many
    voxels both claimed; those are unlabelled. `header`: the file's fields that belong to no segment, for `files.write_segmentation`.
    `remarks`: what the user should know of the file; `note`: what each value of a label map was taken as.
    """

    annotation: np.ndarray
    classes: ClassTable
    overlaps: dict[tuple[str, str], int]
    header: dict[str, str]
    remarks: tuple[str, ...] = ()
    note: str = ""


# ---------------------------------------------------------------- header


def has_segments(fields: dict[str, str]) -> bool:
    """Whether a header describes segments."""
    return any(map(_ID.fullmatch, fields))


def check_binary(fields: dict[str, str], path: Path) -> None:
    """Raises InputError for a fractional labelmap."""
    if "fractional" in fields.get("Segmentation_MasterRepresentation", fields.get("Segmentation_SourceRepresentation", "")).lower():
        raise InputError(f"{path.name} holds a fractional labelmap.", "Make the binary labelmap the source representation in Slicer, and save again.")


def _escaped(text: str) -> str:
    """For a NRRD header: backslash and line feed escaped as Teem does; a carriage return, which it cannot hold, becomes a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\\", "\\\\").replace("\n", "\\n")


# ---------------------------------------------------------------- segments


@dataclass(frozen=True)
class _Row:
    """One segment of a .seg.nrrd, and where its voxels are: `value` in `layer`."""

    segment: Segment
    value: int
    layer: int


def _rows(fields: dict[str, str], layers: int, path: Path) -> list[_Row]:
    numbers = sorted(int(match[1]) for match in map(_ID.fullmatch, fields) if match)
    if max(len(numbers), layers) > MAX_SEGMENTS + 1:
        counted = f"{len(numbers)} segments in {layers} layers"
        raise InputError(f"{path.name} has {counted}, more than the {MAX_SEGMENTS} that one label map can hold.", "Split the segmentation.")
    owned: dict[int, dict[str, str]] = {number: {} for number in numbers}
    for key, value in fields.items():
        match = _OF_SEGMENT.fullmatch(key)
        if match and int(match[1]) in owned:
            owned[int(match[1])][match[2]] = value
    rows: list[_Row] = []
    for place, own in enumerate(owned.values()):
        named = own["ID"]
        try:
            row = _row(own, place, layers)
        except ValueError as error:
            raise InputError(f"The header of {path.name} is damaged at segment {named!r:.80}.", "Save the segmentation again from Slicer.") from error
        if any((row.layer, row.value) == (other.layer, other.value) for other in rows):
            raise InputError(f"In {path.name}, segment {named!r:.80} has the voxels of another segment.", "Save the segmentation again from Slicer.")
        rows.append(row)
    return rows


def _row(own: dict[str, str], place: int, layers: int) -> _Row:
    """A segment's header fields, taken apart. Raises ValueError where they make no sense."""
    segment_id = own.pop("ID")
    r, g, b = map(float, own["Color"].split()) if "Color" in own else distinct_color(place)
    if not all(map(math.isfinite, (r, g, b))):
        raise ValueError(f"color {r} {g} {b}")
    value, layer = int(own.get("LabelValue", 1)), int(own.get("Layer", place))  # files from before Slicer 4.11 have a layer of ones for each segment
    if not (0 < value < 1 << 31 and 0 <= layer < layers):
        raise ValueError(f"label value {value}, layer {layer}")
    known = ("Name", "Color", "Tags", *_FOLLOWS_DATA)
    extra = {key: text for key, text in own.items() if key not in known}
    return _Row(Segment(segment_id, own.get("Name", segment_id), (r, g, b), _tags(own.get("Tags", "")), extra), value, layer)


def _tags(text: str) -> dict[str, str]:
    """`key:value|key:value|` taken apart so that `_tag_text` gives the same text: what cannot begin a tag belongs to the one before."""
    tags: dict[str, list[str]] = {}
    last: list[str] | None = None
    for piece in text.removesuffix("|").split("|") if text else []:
        key, colon, value = piece.partition(":")
        if last is not None and (not colon or key in tags or not key):
            last.append(piece)
        else:
            last = tags[key] = [value]
    return {key: "|".join(values) for key, values in tags.items()}


def _tag_text(tags: dict[str, str]) -> str:
    return "".join(f"{key}:{value}|" for key, value in tags.items())


def choose_background(segments: Sequence[Segment], background: str | None, path: Path) -> Segment | None:
    """The background: the one asked for (by ID, else by name), else the tagged one, else the one called "background"."""
    if background is not None:
        tests: list[Callable[[Segment], bool]] = [lambda s: s.id == background, lambda s: s.name == background]
    else:
        tests = [lambda s: BACKGROUND_TAG in s.tags, lambda s: "background" in (s.id.lower(), s.name.lower())]
    for test in tests:
        for segment in segments:
            if test(segment):
                return segment
    if background is None:
        return None
    listed = ", ".join(f"{segment.name} (ID {segment.id})" for segment in segments)
    raise InputError(f"{path.name} has no segment {background!r} to take as background.", f"Choose one of: {listed}.")


def coded(segments: Mapping[int, Segment], background: Segment | None) -> tuple[dict[int, Segment], dict[int, int]]:
    """By number: the segments that are not the background, and the annotation value of each, the background's 1, then 2, 3, ... in this order."""
    ordered = {number: segment for number, segment in segments.items() if segment is not background}
    codes = {number: code for code, number in enumerate(ordered, start=2)}
    return ordered, codes | {number: 1 for number, segment in segments.items() if segment is background}


def named_overlaps(clashes: Mapping[tuple[int, int], int], classes: ClassTable) -> dict[tuple[str, str], int]:
    """How many voxels each two annotation values both claim, by the segments' names."""
    names = [classes.background.name if classes.background else "", *classes.names]  # names[code - 1]
    overlaps: Counter[tuple[str, str]] = Counter()
    for (first, second), count in clashes.items():
        overlaps[names[first - 1], names[second - 1]] += count
    return dict(overlaps)


# ---------------------------------------------------------------- voxels in


def read_layers(
    path: Path,
    fields: dict[str, str],
    layers: np.ndarray,
    start_kji: tuple[int, int, int],
    geometry: Geometry,
    background: str | None,
    store: Store = IN_MEMORY,
) -> SparseLabels:
    """The strokes in a file's voxels, `layers` (k, j, i, layer) with whole numbers, whose first one is `start_kji` on the grid. Voxels of a
    value that no segment has are not strokes, as in Slicer.

    fields: the file's header; background: the background segment's ID or name (None: the tagged one, else the one called "background");
    path: for what is said to the user; store: where the strokes are kept. Raises InputError or AnnotationError as `files.read_annotation` says.
    """
    rows = _rows(fields, layers.shape[3], path)
    found = choose_background([row.segment for row in rows], background, path)
    chosen = next((row for row in rows if row.segment is found), None)
    ordered = [row for row in rows if row is not chosen]
    if not ordered:
        raise AnnotationError(f"{path.name} holds no segment besides the background.", "Add a segment for each structure, and save again.")
    classes = ClassTable(tuple(row.segment for row in ordered), chosen.segment if chosen else None)
    tables: list[dict[int, int]] = [{} for _ in range(layers.shape[3])]  # for each layer: the annotation value of each of the file's values
    for code, row in enumerate(ordered, start=2):
        tables[row.layer][row.value] = code
    if chosen:
        tables[chosen.layer][chosen.value] = 1
    merged = _Merged(layers, tables, start_kji, geometry)
    annotation = store.keep(path.name, geometry.shape_kji, np.uint8, merged.planes())
    if merged.outside:
        sentence = f"{path.name} has {merged.outside} painted voxels outside the image."
        raise InputError(sentence, "Erase them, or choose the image that was painted on.")
    left = f"{path.name} has {merged.strangers} voxels of values that no segment has: they were left out, as in Slicer."
    remarks = (left,) if merged.strangers else ()
    header = {key: value for key, value in fields.items() if not re.match(r"Segment\d+_", key)}
    return SparseLabels(annotation, classes, named_overlaps(merged.clashes, classes), header, remarks)


@dataclass
class _Merged:
    """Layers (k, j, i, layer), lying at `start` in the grid, as one annotation, made a plane at a time: the layers of a large scan do not fit in
    memory. Counted meanwhile: the voxels that each two values both claim, those of values that the tables lack, and those outside the grid."""

    layers: np.ndarray
    tables: list[dict[int, int]]
    start: tuple[int, int, int]
    geometry: Geometry
    clashes: Counter[tuple[int, int]] = field(default_factory=Counter)
    strangers: int = 0
    outside: int = 0

    def planes(self) -> Iterator[np.ndarray]:
        """Those of the whole grid, (J, I) each, after what lies before them is counted."""
        size = self.geometry.shape_kji
        first, last = max(0, -self.start[0]), max(0, min(len(self.layers), size[0] - self.start[0]))
        for slab in (*self.layers[:first], *self.layers[max(first, last) :]):
            self.outside += int(np.count_nonzero(np.any(self._claims(slab), axis=0)))
        for k in range(size[0]):
            plane = np.zeros(size[1:], np.uint8)
            if first <= k - self.start[0] < last:
                self._merge(self.layers[k - self.start[0]], plane)
            yield plane

    def _claims(self, slab: np.ndarray) -> list[np.ndarray]:
        """What each layer of one slab (j, i, layer) claims, (j, i) annotation values."""
        claims = [mapped(slab[..., n], table) for n, table in enumerate(self.tables)]
        self.strangers += sum(int(np.count_nonzero(slab[..., n]) - np.count_nonzero(claim)) for n, claim in enumerate(claims))
        return claims

    def _merge(self, slab: np.ndarray, plane: np.ndarray) -> None:
        claims = self._claims(slab)
        within = tuple(slice(max(0, -s), max(0, min(n, m - s))) for s, n, m in zip(self.start[1:], slab.shape[:2], plane.shape, strict=True))
        there = tuple(slice(w.start + s, max(w.start, w.stop) + s) for w, s in zip(within, self.start[1:], strict=True))
        self.outside += int(np.count_nonzero(np.any(claims, axis=0)))
        if all(w.stop > w.start for w in within):
            self.outside -= int(np.count_nonzero(np.any([claim[within] for claim in claims], axis=0)))
            plane[there], clashes = _merge_slab([claim[within] for claim in claims])
            self.clashes.update(clashes)


def _merge_slab(claims: list[np.ndarray]) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """What the layers of one slab claim, (j, i) annotation values each, as one (j, i) map; and the voxels claimed by each two values."""
    if len(claims) == 1:
        return claims[0], {}
    j, i = claims[0].shape
    box = (slice(0, 1), slice(0, j), slice(0, i))
    merged, overlaps = merge_strokes((1, j, i), ((box, claim[None]) for claim in claims))
    return merged[0], overlaps


# ---------------------------------------------------------------- out


def with_background(classes: ClassTable, annotation: np.ndarray) -> tuple[tuple[Segment, ...], np.ndarray]:
    """For a file of one layer: the segments of an annotation map (0 unlabelled, 1 background, 1 + c segment c), and the table of its values.

    The background becomes one more segment, tagged; one is made where `classes` has none but the map does.
    """
    segments, background = classes.segments, classes.background
    if background is None and any((slab == 1).any() for slab in annotation):
        background = Segment("SparseSegSlicer_Background", "background", (0.5, 0.5, 0.5))
    if background is not None:
        tagged = background.tags if BACKGROUND_TAG in background.tags else {**background.tags, BACKGROUND_TAG: "1"}
        segments = (*segments, Segment(background.id, background.name, background.color, tagged, background.extra))
    values = np.arange(-1, 255) % 256  # code 1 + c becomes c
    values[0], values[1] = 0, len(classes) + 1
    return segments, values.astype(np.uint8)


def layer_lines(labels: np.ndarray, segments: tuple[Segment, ...], header: dict[str, str]) -> list[str]:
    """What a .seg.nrrd of one layer has in its header beside the grid: of labels (K, J, I) uint8, in whose file value n is `segments[n - 1]`."""
    return [*_field_lines(segments, header, _extent(labels))]


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
