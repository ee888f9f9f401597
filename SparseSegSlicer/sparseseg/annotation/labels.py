"""Strokes and complete slices -> labels y, weights w and a summary. Numpy only; every complaint about annotation is raised here.

The weight map is the method's heart (Cicek et al., 3D U-Net, MICCAI 2016): w = 0 where nobody labelled, so that the voxel leaves the
loss altogether, and w > 0 where somebody did. Here

    w(x) = m(x) * N / (n_c ** b * sum_k n_k ** (1 - b)),        c = y(x)

with n_c the labelled voxels of class c, N all labelled voxels, b the class balance (0: each voxel counts alike, 1: each class counts
alike), and m(x) > 1 for corrections, HINT_WEIGHT for hints, below 1 for labels in doubt (prior.standing). The factor after m is cut to
0.1..10: no class counts more than ten times, or less than a tenth of, the mean. Where nothing is cut and m = 1, w is 1 on average over the
labelled voxels; nothing is scaled back after cutting. Optionally a border term is added to the finished w, as in Ronneberger et al., U-Net,
MICCAI 2015, eq. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..contract.box import Box, slabs, whole
from ..contract.classes import ClassTable
from ..contract.errors import AnnotationError
from ..contract.scratch import Zeros, put_new
from ..contract.settings import Settings
from ..contract.text import visible
from .hinted import HintLabels
from .slices import plane

UNLABELLED, STROKE, COMPLETE, CORRECTION, HINT = 0, 1, 2, 3, 4  # where a label came from: the values of Annotation.origin
HINT_WEIGHT = 0.3  # of a voxel that only a hint labels, in those of a stroke: as a pseudo-label at full confidence
_BALANCE_LIMIT = 10.0  # no class weighs more than this many times the mean: one stray voxel must not steer the network
_HOW_TO_LABEL_BACKGROUND = "Paint some voxels that belong to none of the segments in a segment named Background, or declare a slice complete."
_HOW_TO_HINT_BACKGROUND = " Or add points outside to the hints, or a roi to each segment."


@dataclass(frozen=True)
class SegmentSummary:
    name: str
    voxels: int
    weight: float  # sum of w over its voxels
    slices: tuple[int, int, int]  # how many slices along k, j, i hold at least one of its voxels


class Counts:
    """Labelled voxels of each class on each slice, and how many of each class are corrections or hints: what a summary needs, kept up to date by
    boxes.

    slices: for each axis (classes, n) int64; corrections, hints: (classes,) int64.
    """

    def __init__(self, shape_kji: Sequence[int], classes: int) -> None:
        self.classes = classes
        self.slices = [np.zeros((classes, n), np.int64) for n in shape_kji]
        self.corrections, self.hints = np.zeros(classes, np.int64), np.zeros(classes, np.int64)

    def add(self, labels: np.ndarray, origin: np.ndarray, box: Box, times: int) -> None:
        """Count what is labelled in a box (times 1), or take it back (-1). Plane by plane, so that nothing of the volume's size is made."""
        for k, (values, came_from) in enumerate(zip(labels, origin, strict=True), box[0].start):
            if not came_from.max(initial=0):
                continue
            at = np.nonzero(came_from)
            mine = values[at].astype(np.int64)
            self.slices[0][:, k] += times * np.bincount(mine, minlength=self.classes)
            for axis in (1, 2):
                n = self.slices[axis].shape[1]
                code = mine * n + at[axis - 1] + box[axis].start
                self.slices[axis] += times * np.bincount(code, minlength=self.classes * n).reshape(self.classes, n)
            self.corrections += times * np.bincount(mine[came_from[at] == CORRECTION], minlength=self.classes)
            self.hints += times * np.bincount(mine[came_from[at] == HINT], minlength=self.classes)

    @property
    def voxels(self) -> np.ndarray:
        """(classes,) int64."""
        return self.slices[0].sum(1)

    def full_slices(self) -> list[np.ndarray]:
        """For each axis (n,) bool: the slices that are labelled throughout."""
        shape = [counts.shape[1] for counts in self.slices]
        return [counts.sum(0) == np.prod(shape) // n for counts, n in zip(self.slices, shape, strict=True)]

    def copy(self) -> Counts:
        other = Counts([counts.shape[1] for counts in self.slices], self.classes)
        other.slices, other.corrections = [counts.copy() for counts in self.slices], self.corrections.copy()
        other.hints = self.hints.copy()
        return other


@dataclass(frozen=True)
class Annotation:
    """Labels and weights of one revision; all arrays (K, J, I), shared with the revision after it, which changes them in place.

    labels: uint8, 0 background, c segment c, 0 where unlabelled; origin: uint8, UNLABELLED, STROKE, COMPLETE, CORRECTION or HINT; labelled:
    bool, origin > 0; table: (5, classes) float32, the weight of each origin and class; border: float32, what is added to w at labelled voxels, or
    None; hints: what labels voxels that nobody painted, or None. rows: background first, then the segments in table order.
    """

    labels: np.ndarray
    origin: np.ndarray
    labelled: np.ndarray
    table: np.ndarray
    counts: Counts
    rows: tuple[SegmentSummary, ...]
    complete_slices: tuple[tuple[int, int], ...]
    border: np.ndarray | None = None
    hints: HintLabels | None = None

    @property
    def painted(self) -> np.ndarray:
        """(K, J, I) bool: labelled, and not by hints alone; `labelled` itself where there are none."""
        return painted_of(self.origin) if self.counts.hints.any() else self.labelled

    @property
    def weights(self) -> np.ndarray:
        """w, (K, J, I) float32, exactly 0 where unlabelled; made anew at each call."""
        return self.weights_in(whole(self.labels.shape))

    def weights_in(self, box: Box, trust: np.ndarray | None = None) -> np.ndarray:
        """w in a box, (k, j, i) float32. trust: uint8, alike, how far labels are trusted (255 fully), where that is known: strokes and complete
        slices in doubt weigh as much less."""
        weights = self.table[self.origin[box], self.labels[box]]
        if trust is not None:
            plain = (self.origin[box] == STROKE) | (self.origin[box] == COMPLETE)
            weights *= np.where(plain, trust * np.float32(1 / 255), np.float32(1))
        return weights if self.border is None else weights + np.where(self.labelled[box], self.border[box], 0)

    @property
    def has_complete_slices(self) -> bool:
        """Whether any slice is labelled throughout."""
        return any(bool(full.any()) for full in self.counts.full_slices())

    def painted_slices(self) -> np.ndarray:
        """(classes,) int64: on how many slices each class is painted, of the axis with fewest; what hints alone label does not count."""
        hinted = None if self.hints is None else self.hints.on_slices(self.counts.classes)
        painted = self.counts.slices if hinted is None else [all_ - some for all_, some in zip(self.counts.slices, hinted, strict=True)]
        return np.min([(counts > 0).sum(1) for counts in painted], axis=0)

    @property
    def absent(self) -> np.ndarray:
        """(classes,) bool: the segments that label no voxel, neither by paint nor by hints; they stay empty."""
        return self.counts.voxels == 0

    @property
    def corrections(self) -> int:
        """How many voxels correct the preview."""
        return int(self.counts.corrections.sum())

    def text(self) -> str:
        """The summary that a person reads, in lines; what is hidden in a name is shown."""
        total = sum(row.voxels for row in self.rows)
        lines = [
            f"{total} of {self.labels.size} voxels labelled ({100 * total / self.labels.size:.2g} %), {len(self.complete_slices)} complete slices."
        ]
        for row in self.rows:
            lines.append(
                f"{visible(row.name)}: {row.voxels} voxels on {row.slices[0]} k, {row.slices[1]} j, {row.slices[2]} i slices, weight {row.weight:.4g}"
            )
        if self.corrections:
            lines.append(f"{self.corrections} voxels correct the preview and weigh more.")
        if hinted := int(self.counts.hints.sum()):
            lines.append(f"{hinted} voxels are labelled by hints alone and weigh less.")
        return "\n".join(lines)


def build_annotation(
    annotation: np.ndarray,
    classes: ClassTable,
    settings: Settings | None = None,
    complete_slices: Sequence[tuple[int, int]] = (),
    earlier: Annotation | None = None,
    preview: np.ndarray | None = None,
    hints: HintLabels | None = None,
    zeros: Zeros = np.zeros,
) -> Annotation:
    """Labels and weights from an annotation map.

    annotation: (K, J, I) uint8, 0 unlabelled, 1 background, 1 + c segment c. complete_slices: (axis, index): what is unlabelled there
    becomes background. earlier and preview ((K, J, I) uint8, 0 background, c segment c): the revision before this one and the result that
    the user saw; strokes that are new since then and contradict it are corrections, and stay corrections. hints label what nobody painted.
    zeros makes the arrays. Raises AnnotationError where this cannot be trained on.
    """
    settings = settings or Settings()
    if annotation.ndim != 3:
        raise AnnotationError(f"The annotation must be a 3-D map of type uint8, got {annotation.ndim}-D {annotation.dtype}.")
    check_slices(complete_slices, annotation.shape)
    arrays = labels, origin, labelled = zeros(annotation.shape, np.uint8), zeros(annotation.shape, np.uint8), zeros(annotation.shape, bool)
    counts = Counts(annotation.shape, len(classes) + 1)
    for box in slabs(whole(annotation.shape)):
        check_values(annotation[box], classes)
        values, came_from = labels_in(annotation[box], box, complete_slices, hints)
        if earlier is not None:
            mark_corrections(values, came_from, earlier.labels[box], earlier.origin[box], None if preview is None else preview[box])
        counts.add(values, came_from, box, 1)
        for array, part in zip(arrays, (values, came_from, came_from > 0), strict=True):
            put_new(array[box], part)
    check_counts(counts.voxels, hints)
    table = weight_table(counts.voxels, settings)
    return Annotation(labels, origin, labelled, table, counts, summary(counts, table, classes), tuple(complete_slices), hints=hints)


def painted_of(origin: np.ndarray) -> np.ndarray:
    """Where a person labelled, by strokes or complete slices: bool of origin's shape."""
    return (origin != UNLABELLED) & (origin != HINT)


def labels_in(
    annotation: np.ndarray, box: Box, complete_slices: Sequence[tuple[int, int]], hints: HintLabels | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and origin of a box, (k, j, i) uint8 both, from its annotation values; corrections are not told yet."""
    annotation = np.asarray(annotation)  # of a memory map, which would make more of them
    painted = annotation > 0
    labels, origin = annotation - painted, painted.view(np.uint8)
    for axis, index in complete_slices:
        if box[axis].start <= index < box[axis].stop:
            view = origin[plane(axis, index - box[axis].start)]
            view[view == UNLABELLED] = COMPLETE
    if hints is not None:
        places, values = hints.within(box)
        free = origin[places] == UNLABELLED
        alone = tuple(part[free] for part in places)
        labels[alone], origin[alone] = values[free] - 1, HINT
    return labels, origin


def mark_corrections(
    labels: np.ndarray, origin: np.ndarray, labels_before: np.ndarray, origin_before: np.ndarray, preview: np.ndarray | None
) -> None:
    """In origin, strokes that contradict the preview or did so when they were painted; all (k, j, i) uint8 of one box."""
    corrected = (origin_before == CORRECTION) & (labels_before == labels)
    if preview is not None:
        corrected |= (~painted_of(origin_before) | (labels_before != labels)) & (preview != labels)
    origin[corrected & (origin == STROKE)] = CORRECTION


def check_values(annotation: np.ndarray, classes: ClassTable) -> None:
    """Raises AnnotationError for values that the table of segments does not have."""
    if annotation.dtype != np.uint8:
        raise AnnotationError(f"The annotation must be a 3-D map of type uint8, got {annotation.ndim}-D {annotation.dtype}.")
    highest = int(annotation.max(initial=0))
    if highest > len(classes) + 1:
        raise AnnotationError(f"The annotation has value {highest}, but there are {len(classes)} segments (highest value {len(classes) + 1}).")


def check_slices(complete_slices: Sequence[tuple[int, int]], shape_kji: Sequence[int]) -> None:
    """Raises AnnotationError for slices outside of the volume."""
    for axis, index in complete_slices:
        if axis not in (0, 1, 2) or not 0 <= index < shape_kji[axis]:
            raise AnnotationError(f"Complete slice {index} along axis {'kji'[axis] if axis in (0, 1, 2) else axis} lies outside of the volume.")


def check_counts(voxels: np.ndarray, hints: HintLabels | None = None) -> None:
    """Raises AnnotationError where these labelled voxels of each class, (classes,), cannot be trained on: one segment must have some, and the
    background. hints: those that there are, for advice."""
    if not voxels.any():
        raise AnnotationError("Nothing is labelled.", "Paint each structure on a few slices, and some background.")
    if not voxels[1:].any():
        raise AnnotationError("No segment has a painted voxel.", "Paint each structure on a few slices.")
    if not voxels[0]:
        raise AnnotationError("No background is labelled.", _HOW_TO_LABEL_BACKGROUND + ("" if hints is None else _HOW_TO_HINT_BACKGROUND))


def weight_table(voxels: np.ndarray, settings: Settings) -> np.ndarray:
    """The weight of each origin and class, (5, classes) float32, from the labelled voxels of each class, (classes,)."""
    present = np.maximum(voxels, 1).astype(np.float64)
    weights = voxels.sum() / (present**settings.class_balance * (voxels / present**settings.class_balance).sum())
    table = np.zeros((5, len(voxels)), np.float32)
    table[STROKE] = table[COMPLETE] = np.clip(weights, 1 / _BALANCE_LIMIT, _BALANCE_LIMIT)
    table[CORRECTION] = table[STROKE] * np.float32(settings.correction_weight)
    table[HINT] = table[STROKE] * np.float32(HINT_WEIGHT)
    return table


def summary(counts: Counts, table: np.ndarray, classes: ClassTable) -> tuple[SegmentSummary, ...]:
    names = [classes.background.name if classes.background else "Background", *classes.names]
    slices = [(axis > 0).sum(1) for axis in counts.slices]
    weights = (
        (counts.voxels - counts.corrections - counts.hints) * table[STROKE] + counts.corrections * table[CORRECTION] + counts.hints * table[HINT]
    )
    return tuple(
        SegmentSummary(name, int(counts.voxels[c]), float(weights[c]), (int(slices[0][c]), int(slices[1][c]), int(slices[2][c])))
        for c, name in enumerate(names)
    )
