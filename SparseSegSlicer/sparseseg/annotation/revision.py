"""A correction: what a new revision of the annotation changes, in place and in a box, and the way back where it cannot be adopted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..contract.box import Box, Part, box_of, boxes_of, intersection, joined, joined_parts, moved, slabs, whole, within
from ..contract.classes import ClassTable
from ..contract.settings import Settings
from .labels import (
    COMPLETE,
    Annotation,
    Counts,
    check_counts,
    check_slices,
    check_values,
    labels_in,
    mark_corrections,
    painted_of,
    summary,
    weight_table,
)


@dataclass(frozen=True)
class Revision:
    """The new annotation, and where its labels differ from those of the one before.

    changed: the voxels whose label came, went, or is another one, in few boxes; empty where nothing differs.
    whole_slices: whether a slice was labelled throughout, or no longer is: that says something about all of the gap around it, not about a spot.
    take_back: makes the arrays what they were; the earlier annotation is then right again. emptied: whether a segment has lost its last label.
    """

    annotation: Annotation
    changed: tuple[Part, ...]
    whole_slices: bool
    take_back: Callable[[], None]
    emptied: bool = False

    def then(self, later: Revision) -> Revision:
        """Both as one, once both are adopted: what they change together; it cannot be taken back."""
        whole_slices, emptied = self.whole_slices or later.whole_slices, self.emptied or later.emptied
        return Revision(later.annotation, joined_parts(self.changed + later.changed), whole_slices, _stays, emptied)


def _stays() -> None:
    """There is no way back from what was adopted."""


def revise(
    earlier: Annotation,
    values: np.ndarray,
    box: Box | None,
    classes: ClassTable,
    settings: Settings,
    complete_slices: Sequence[tuple[int, int]],
    preview: np.ndarray | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Revision:
    """The annotation after a box of it (None: all) holds other values, (k, j, i) uint8 as in build_annotation, or other slices are complete.

    The earlier annotation's arrays are changed in place. The same as build_annotation of the whole. Raises AnnotationError,
    and what tick, called several times a second, raises; then nothing changed.
    """
    shape = earlier.labels.shape
    check_slices(complete_slices, shape)
    work = _Work(earlier, preview)
    try:
        box = whole(shape) if box is None else box
        for slab in slabs(box):
            tick()
            part = values[within(slab, box)]
            check_values(part, classes)
            work.put(slab, part, complete_slices)
        for axis, index in sorted(set(complete_slices) ^ set(earlier.complete_slices)):
            work.put_slice(axis, index, complete_slices)
        check_counts(work.counts.voxels, earlier.hints)
        return _revision(work, earlier, classes, settings, complete_slices, tick)
    except BaseException:
        work.take_back()
        raise


def _revision(
    work: _Work,
    earlier: Annotation,
    classes: ClassTable,
    settings: Settings,
    complete_slices: Sequence[tuple[int, int]],
    tick: Callable[[], None],
) -> Revision:
    table = weight_table(work.counts.voxels, settings)
    rows = summary(work.counts, table, classes)
    annotation = replace(earlier, table=table, counts=work.counts, rows=rows, complete_slices=tuple(complete_slices))
    changed = work.changed(tick)
    was, now = earlier.counts.full_slices(), work.counts.full_slices()
    filled = any((a != b).any() for a, b in zip(was, now, strict=True))
    emptied = bool((annotation.absent & ~earlier.absent).any())
    return Revision(annotation, changed, filled, work.take_back, emptied)


class _Work:
    """Parts of the arrays that were replaced, in turn, with what was there."""

    def __init__(self, earlier: Annotation, preview: np.ndarray | None) -> None:
        self._earlier, self._preview = earlier, preview
        self.counts: Counts = earlier.counts.copy()
        self._kept: list[tuple[Box, np.ndarray, np.ndarray]] = []

    def put(self, box: Box, values: np.ndarray, complete_slices: Sequence[tuple[int, int]]) -> None:
        earlier = self._earlier
        labels, origin = labels_in(values, box, complete_slices, earlier.hints)
        before = earlier.labels[box], earlier.origin[box]
        mark_corrections(labels, origin, *before, None if self._preview is None else self._preview[box])
        self.counts.add(*before, box, -1)
        self.counts.add(labels, origin, box, 1)
        for differs in boxes_of((labels != before[0]) | (origin != before[1])):
            at = moved(differs, [s.start for s in box])
            self._kept.append((at, before[0][differs].copy(), before[1][differs].copy()))
            self._write(at, labels[differs], origin[differs])

    def put_slice(self, axis: int, index: int, complete_slices: Sequence[tuple[int, int]]) -> None:
        """A slice that is complete now, or no longer: with the strokes that are on it."""
        k, j, i = (slice(index, index + 1) if a == axis else slice(0, n) for a, n in enumerate(self._earlier.labels.shape))
        origin = self._earlier.origin[k, j, i]
        strokes = painted_of(origin) & (origin != COMPLETE)
        self.put((k, j, i), np.where(strokes, self._earlier.labels[k, j, i] + np.uint8(1), np.uint8(0)), complete_slices)

    def take_back(self) -> None:
        for box, labels, origin in reversed(self._kept):
            self._write(box, labels, origin)
        self._kept.clear()

    def changed(self, tick: Callable[[], None]) -> tuple[Part, ...]:
        """The voxels whose label came, went, or is another one."""
        parts = (self._changed_in(box, tick) for box in joined(box for box, *_ in self._kept))
        return tuple(part for part in parts if part is not None)

    def _changed_in(self, around: Box, tick: Callable[[], None]) -> Part | None:
        labels, origin = self._earlier.labels[around].copy(), self._earlier.origin[around].copy()
        for box, labels_before, origin_before in reversed(self._kept):  # the arrays as they were
            tick()
            both = intersection(box, around)
            if both is not None:
                part, old = within(both, around), within(both, box)
                labels[part], origin[part] = labels_before[old], origin_before[old]
        changed = np.empty(labels.shape, bool)
        for slab in slabs(around):
            tick()
            part = within(slab, around)
            was = origin[part] > 0
            changed[part] = (was != self._earlier.labelled[slab]) | (was & (labels[part] != self._earlier.labels[slab]))
        tick()
        inner = box_of(changed)
        return None if inner is None else Part(moved(inner, [s.start for s in around]), changed[inner])

    def _write(self, box: Box, labels: np.ndarray, origin: np.ndarray) -> None:
        earlier = self._earlier
        earlier.labels[box], earlier.origin[box] = labels, origin
        np.greater(origin, 0, out=earlier.labelled[box])
