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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..contract.classes import ClassTable
from ..contract.errors import AnnotationError
from ..contract.settings import Settings
from .slices import plane

UNLABELLED, STROKE, COMPLETE, CORRECTION = 0, 1, 2, 3  # where a label came from: the values of Annotation.origin
_BALANCE_LIMIT = 10.0  # no class weighs more than this many times the mean: one stray voxel must not steer the network
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
        view = origin[plane(axis, index)]
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
