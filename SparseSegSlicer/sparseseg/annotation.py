"""Strokes and complete slices -> labels y, weights w and a summary. Numpy only; every complaint about annotation is raised here.

The weight map is the method's heart (Cicek et al., 3D U-Net, MICCAI 2016): w = 0 where nobody labelled, so that the voxel leaves the
loss altogether, and w > 0 where somebody did. Here

    w(x) = m(x) * N / (n_c ** b * sum_k n_k ** (1 - b)),        c = y(x)

with n_c the labelled voxels of class c, N all labelled voxels, b the class balance (0: each voxel counts alike, 1: each class counts
alike), and m(x) > 1 for corrections. The factor after m is cut to 0.1..10: no class counts more than ten times, or less than a tenth of,
the mean. Where nothing is cut and m = 1, w is 1 on average over the labelled voxels; nothing is scaled back after cutting. Optionally a
border term is added to the finished w, as in Ronneberger et al., U-Net, MICCAI 2015, eq. 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .classes import ClassTable
from .errors import AnnotationError
from .settings import Settings

UNLABELLED, STROKE, COMPLETE, CORRECTION = 0, 1, 2, 3  # where a label came from: the values of Annotation.origin
_BALANCE_LIMIT = 10.0  # no class weighs more than this many times the mean: one stray voxel must not steer the network
_FILLED = 1 / 6  # of a finished slice's segment voxels have all four neighbours in the slice painted; on lines up to two voxels wide none has
_HOW_TO_LABEL_BACKGROUND = "Paint some voxels that belong to none of the segments in a segment named Background, or declare a slice complete."


@dataclass(frozen=True)
class SegmentSummary:
    name: str
    voxels: int
    weight: float  # sum of w over its voxels
    slices: tuple[int, int, int]  # how many slices along k, j, i hold at least one of its voxels


@dataclass(frozen=True)
class Annotation:
    """Labels and weights of one revision; all arrays (K, J, I).

    labels: uint8, 0 background, c segment c, meaningful only where weights > 0; weights: float32, exactly 0 where unlabelled;
    origin: uint8, UNLABELLED, STROKE, COMPLETE or CORRECTION. rows: background first, then the segments in table order.
    """

    labels: np.ndarray
    weights: np.ndarray
    origin: np.ndarray
    rows: tuple[SegmentSummary, ...]
    complete_slices: tuple[tuple[int, int], ...]
    corrections: int

    @property
    def labelled(self) -> np.ndarray:
        """Bool (K, J, I)."""
        return self.origin > 0

    def text(self) -> str:
        """The summary that a person reads."""
        total = sum(row.voxels for row in self.rows)
        lines = [
            f"{total} of {self.labels.size} voxels labelled ({100 * total / self.labels.size:.2g} %), {len(self.complete_slices)} complete slices."
        ]
        for row in self.rows:
            lines.append(
                f"{row.name}: {row.voxels} voxels on {row.slices[0]} k, {row.slices[1]} j, {row.slices[2]} i slices, weight {row.weight:.4g}"
            )
        if self.corrections:
            lines.append(f"{self.corrections} voxels correct the preview and weigh more.")
        return "\n".join(lines)


def merge_strokes(
    shape_kji: tuple[int, int, int], strokes: Iterable[tuple[tuple[slice, ...], np.ndarray]]
) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """Several strokes or layers of strokes, which may overlap, as one annotation map.

    strokes: (box, values): where it lies in the volume, and uint8 annotation values (0 nothing, 1 background, 1 + c segment c).
    Returns the annotation, (K, J, I) uint8, unlabelled where two values were painted, and for each pair of values (the lower first) how
    many voxels both claim. The order of the strokes changes neither, and a voxel counts once for a pair.
    """
    annotation = np.zeros(shape_kji, np.uint8)
    places, claims = [], []  # flat index and value of every claim on a voxel that another value holds already
    for box, values in strokes:
        view = annotation[box]
        other = (values != UNLABELLED) & (view != UNLABELLED) & (view != values)
        np.copyto(view, values, where=(values != UNLABELLED) & ~other)
        at = np.nonzero(other)
        if len(at[0]):
            index = tuple(inside + part.indices(n)[0] for inside, part, n in zip(at, box, shape_kji, strict=True))
            places.append(np.ravel_multi_index(index, shape_kji))
            claims.append(values[at].astype(np.int64))
    if not places:
        return annotation, {}
    disputed = np.unique(np.concatenate(places))
    held = annotation.reshape(-1)[disputed].astype(np.int64)
    annotation.reshape(-1)[disputed] = UNLABELLED
    return annotation, _pairs(np.concatenate([disputed, *places]), np.concatenate([held, *claims]))


def _pairs(places: np.ndarray, values: np.ndarray) -> dict[tuple[int, int], int]:
    """How often each two of the `values` stand at one of the `places`."""
    place, value = np.divmod(np.unique(places * 256 + values), 256)  # sorted by place, then value; each claim once
    counts: dict[tuple[int, int], int] = {}
    for apart in range(1, len(place)):
        same = place[apart:] == place[:-apart]
        if not same.any():
            break
        pairs, voxels = np.unique(value[:-apart][same] * 256 + value[apart:][same], return_counts=True)
        for pair, count in zip(pairs.tolist(), voxels.tolist(), strict=True):
            counts[divmod(pair, 256)] = counts.get(divmod(pair, 256), 0) + count
    return dict(sorted(counts.items()))


def annotated_planes(labelled: np.ndarray, factor: float) -> tuple[tuple[int, int], ...]:
    """Slices that were painted on as such, with lines or areas: they hold `factor` times more labelled voxels than the slices around them.

    labelled: bool (K, J, I). What is painted on slices of other orientations crosses a slice as dots and lines, so a painted slice stands
    out from the two on either side; neighbouring slices that are both painted are not found. Returns (axis, index).
    """
    return tuple((axis, index) for axis in range(3) for index in _peaks(_sums(labelled, axis), factor))


def covering_slices(
    annotation: np.ndarray, extra: Iterable[tuple[int, int]] = (), values: int = 256, limit: int = 200
) -> tuple[list[tuple[int, int]], dict[tuple[int, int], np.ndarray]]:
    """The few slices, of all three orientations, that together hold the strokes: those that somebody painted on, most probably.

    Greedy cover: the slice with most labelled voxels that no earlier one holds comes first, until none is left (or `limit` slices are found).
    A stroke of one slice is a single slice that way, and neighbouring painted slices are found too. Of more than a million labelled voxels
    only every n-th is looked at. `extra`: slices that are listed in any case, where they lie in the volume.
    Returns (axis, index) sorted, and for each of them the count of voxels by annotation value (int64, length `values`).
    """
    places = np.flatnonzero(annotation.reshape(-1))
    coordinates = [c.astype(np.int32) for c in np.unravel_index(places, annotation.shape)]
    found = {(a, i) for a, i in extra if i < annotation.shape[a]}
    left = [c[:: max(1, len(places) // 1_000_000)] for c in coordinates]
    for axis, index in found:
        left = _without(left, axis, index)
    while len(left[0]) and len(found) < limit:
        counts = [np.bincount(c, minlength=n) for c, n in zip(left, annotation.shape, strict=True)]
        axis = int(np.argmax([c.max() for c in counts]))
        index = int(counts[axis].argmax())
        found.add((axis, index))
        left = _without(left, axis, index)
    painted = annotation.reshape(-1)[places].astype(np.int64)
    tables = [
        np.bincount(c * np.int64(values) + painted, minlength=n * values).reshape(n, values) if any(a == axis for a, _ in found) else None
        for axis, (c, n) in enumerate(zip(coordinates, annotation.shape, strict=True))
    ]
    ordered = sorted(found)
    return ordered, {(axis, index): tables[axis][index] for axis, index in ordered}  # type: ignore[index]


def _without(coordinates: list[np.ndarray], axis: int, index: int) -> list[np.ndarray]:
    keep = coordinates[axis] != index
    return [c[keep] for c in coordinates]


def find_complete_slices(annotation: np.ndarray, axes: Sequence[int] = (0, 1, 2), factor: float = 4.0) -> tuple[tuple[int, int], ...]:
    """Slices that somebody evidently segmented as a whole, so that what is unpainted there is background.

    annotation: (K, J, I) uint8, 0 unlabelled, 1 background, 1 + c segment c. A voxel is inner where it and its four neighbours in the slice
    are painted with segments. A slice is complete where

    - its areas are filled: inner voxels are at least a sixth of its segment voxels, and `factor` times more than on the two slices on
      either side (neighbouring slices that are both filled are not told from a thick stroke, and not found); and it does not stand out by
      background painted on it, which would be needless on a complete slice;
    - or every voxel of it is labelled, with a segment among them, and it stands out as in `annotated_planes`.

    A wide stroke on one slice without background looks filled too: it is for the user to say that there are complete slices at all.
    Returns (axis, index).
    """
    painted, labelled = annotation > 1, annotation > 0
    planes = annotated_planes(labelled, factor)
    found = []
    for axis in axes:
        segment, label, inner = _sums(painted, axis), _sums(labelled, axis), _sums(_inner(painted, axis), axis)
        filled = {i for i in _peaks(inner, factor) if inner[i] >= _FILLED * segment[i]} - set(_peaks(label - segment, factor))
        whole = {i for a, i in planes if a == axis and segment[i] and label[i] == annotation.size // len(label)}
        found += [(axis, index) for index in sorted(filled | whole)]
    return tuple(found)


def _sums(mask: np.ndarray, axis: int) -> np.ndarray:
    """How many voxels of the mask lie on each slice along an axis."""
    return np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis))


def _peaks(counts: np.ndarray, factor: float) -> list[int]:
    """Where a count is `factor` times the highest of the two before and the two after it."""
    padded = np.pad(counts, 2)
    around = np.max([padded[:-4], padded[1:-3], padded[3:-1], padded[4:]], axis=0)
    return [int(index) for index in np.flatnonzero((counts > 0) & (counts >= factor * np.maximum(around, 1)))]


def _inner(mask: np.ndarray, axis: int) -> np.ndarray:
    """The voxels whose four neighbours in the slice along `axis` are in the mask as they are; none at the volume's edge."""
    inner = mask.copy()
    for other in range(3):
        if other != axis:
            low, high = _neighbours(other)
            inner[low] &= mask[high]
            inner[high] &= mask[low]
            inner[_slice(other, 0)] = inner[_slice(other, -1)] = False
    return inner


def build_annotation(
    annotation: np.ndarray,
    classes: ClassTable,
    settings: Settings | None = None,
    complete_slices: Sequence[tuple[int, int]] = (),
    earlier: Annotation | None = None,
    preview: np.ndarray | None = None,
) -> Annotation:
    """Labels and weights from an annotation map.

    annotation: (K, J, I) uint8, 0 unlabelled, 1 background, 1 + c segment c. complete_slices: (axis, index): what is unlabelled there
    becomes background. earlier and preview ((K, J, I) uint8, 0 background, c segment c): the revision before this one and the result that
    the user saw; strokes that are new since then and contradict it are corrections, and stay corrections.
    Raises AnnotationError where this cannot be trained on.
    """
    settings = settings or Settings()
    _check(annotation, classes, complete_slices)
    annotation = np.ascontiguousarray(annotation)  # so that reshape(-1) below is a view of everything made from it
    origin = (annotation > 0).astype(np.uint8)
    for axis, index in complete_slices:
        view = origin[_slice(axis, index)]
        view[view == UNLABELLED] = COMPLETE
    places = np.flatnonzero(origin.reshape(-1))
    if not len(places):
        raise AnnotationError("Nothing is labelled.", "Paint each structure on a few slices, and some background.")
    values = np.maximum(annotation.reshape(-1)[places], 1) - 1
    corrected = _corrections(places, values, origin, earlier, preview)
    origin.reshape(-1)[places[corrected]] = CORRECTION
    counts = np.bincount(values, minlength=len(classes) + 1)
    _check_counts(counts, classes)
    share = _class_weights(counts, settings.class_balance)[values] * np.where(corrected, np.float32(settings.correction_weight), np.float32(1))
    labels = np.zeros(annotation.shape, np.uint8)
    labels.reshape(-1)[places] = values
    weights = np.zeros(annotation.shape, np.float32)
    weights.reshape(-1)[places] = share
    rows = _rows(places, values, share, annotation.shape, classes)
    return Annotation(labels, weights, origin, rows, tuple(complete_slices), int(corrected.sum()))


def changed_voxels(before: Annotation, after: Annotation) -> np.ndarray | None:
    """Where a label came, went or is another one, bool (K, J, I); None where a slice was completed, or is no longer complete: that says something
    about all of the gap around it, not about a spot."""
    was, now = before.labelled, after.labelled
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        if (was.all(axis=others) != now.all(axis=others)).any():
            return None
    return (was != now) | (was & (before.labels != after.labels))


def add_border_weight(annotation: Annotation, spacing_kji_mm: Sequence[float], weight: float, width_mm: float) -> Annotation:
    """The same annotation with weight * exp(-d^2 / (2 width^2)) added to w of every labelled voxel (Ronneberger et al. 2015, eq. 2).

    d: the distance in mm, between voxel centres, to the nearest border voxel of any class. A border voxel is a labelled voxel that shares a
    face with a labelled voxel of another class, so it gets all of `weight` itself. The paper adds the distances to two borders; strokes
    seldom show two. Distances are exact; from 3 widths on nothing is added. w is neither scaled nor cut afterwards.
    """
    labelled, labels = annotation.labelled, annotation.labels
    far = np.float32((3 * width_mm) ** 2)
    squared = np.full(labels.shape, far, np.float32)
    for axis in range(3):
        low, high = _neighbours(axis)
        touch = labelled[low] & labelled[high] & (labels[low] != labels[high])
        squared[low][touch] = 0
        squared[high][touch] = 0
    for axis, spacing in enumerate(spacing_kji_mm):
        squared = _lower_envelope(squared, axis, spacing, 3 * width_mm)
    weights = annotation.weights + np.where(labelled & (squared < far), np.float32(weight) * np.exp(-squared / np.float32(2 * width_mm**2)), 0)
    sums = np.bincount(labels[labelled], weights[labelled], minlength=len(annotation.rows))
    rows = tuple(SegmentSummary(r.name, r.voxels, float(sums[c]), r.slices) for c, r in enumerate(annotation.rows))
    return Annotation(labels, weights, annotation.origin, rows, annotation.complete_slices, annotation.corrections)


def _check(annotation: np.ndarray, classes: ClassTable, complete_slices: Sequence[tuple[int, int]]) -> None:
    if annotation.ndim != 3 or annotation.dtype != np.uint8:
        raise AnnotationError(f"The annotation must be a 3-D map of type uint8, got {annotation.ndim}-D {annotation.dtype}.")
    highest = int(annotation.max(initial=0))
    if highest > len(classes) + 1:
        raise AnnotationError(f"The annotation has value {highest}, but there are {len(classes)} segments (highest value {len(classes) + 1}).")
    for axis, index in complete_slices:
        if axis not in (0, 1, 2) or not 0 <= index < annotation.shape[axis]:
            raise AnnotationError(f"Complete slice {index} along axis {'kji'[axis] if axis in (0, 1, 2) else axis} lies outside of the volume.")


def _check_counts(counts: np.ndarray, classes: ClassTable) -> None:
    empty = [s.name for s, count in zip(classes.segments, counts[1:], strict=True) if not count]
    if len(empty) == len(classes):
        raise AnnotationError("No segment has a painted voxel.", "Paint each structure on a few slices.")
    if empty:
        raise AnnotationError(f"No voxel is painted in {', '.join(empty)}.", "Paint it on at least one slice, or remove the segment.")
    if not counts[0]:
        raise AnnotationError("No background is labelled.", _HOW_TO_LABEL_BACKGROUND)


def _corrections(places: np.ndarray, values: np.ndarray, origin: np.ndarray, earlier: Annotation | None, preview: np.ndarray | None) -> np.ndarray:
    corrected = np.zeros(len(places), bool)
    if earlier is None:
        return corrected
    before_origin, before = earlier.origin.reshape(-1)[places], earlier.labels.reshape(-1)[places]
    corrected |= (before_origin == CORRECTION) & (before == values)
    if preview is not None:
        is_new = (before_origin == UNLABELLED) | (before != values)
        corrected |= is_new & (preview.reshape(-1)[places] != values)
    return corrected & (origin.reshape(-1)[places] == STROKE)


def _class_weights(counts: np.ndarray, balance: float) -> np.ndarray:
    present = np.maximum(counts, 1).astype(np.float64)
    weights = counts.sum() / (present**balance * (counts / present**balance).sum())
    return np.clip(weights, 1 / _BALANCE_LIMIT, _BALANCE_LIMIT).astype(np.float32)


def _rows(places: np.ndarray, values: np.ndarray, weights: np.ndarray, shape: tuple[int, ...], classes: ClassTable) -> tuple[SegmentSummary, ...]:
    count = len(classes) + 1
    voxels = np.bincount(values, minlength=count)
    sums = np.bincount(values, weights, minlength=count)
    slices = []
    for index, length in zip(np.unravel_index(places, shape), shape, strict=True):
        touched = np.bincount(values.astype(np.int64) * length + index, minlength=count * length).reshape(count, length) > 0
        slices.append(touched.sum(1))
    names = [classes.background.name if classes.background else "Background", *classes.names]
    return tuple(
        SegmentSummary(names[c], int(voxels[c]), float(sums[c]), (int(slices[0][c]), int(slices[1][c]), int(slices[2][c]))) for c in range(count)
    )


def _lower_envelope(squared: np.ndarray, axis: int, spacing_mm: float, reach_mm: float) -> np.ndarray:
    """One pass of a separable Euclidean distance transform, cut off at reach_mm (Felzenszwalb and Huttenlocher 2012, by brute force)."""
    result = squared.copy()
    for step in range(1, min(squared.shape[axis], int(reach_mm / spacing_mm) + 1)):
        low, high = _neighbours(axis, step)
        cost = np.float32((step * spacing_mm) ** 2)
        np.minimum(result[low], squared[high] + cost, out=result[low])
        np.minimum(result[high], squared[low] + cost, out=result[high])
    return result


def _neighbours(axis: int, step: int = 1) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    low, high = [slice(None)] * 3, [slice(None)] * 3
    low[axis], high[axis] = slice(None, -step), slice(step, None)
    return tuple(low), tuple(high)


def _slice(axis: int, index: int) -> tuple[slice | int, ...]:
    return tuple(index if a == axis else slice(None) for a in range(3))
