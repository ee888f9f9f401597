"""How many voxels of each value lie on each slice of an annotation, kept up box by box. Plain numpy; may run in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sparseseg.annotation.labels import Counts, SegmentSummary, check_counts, summary, weight_table
from sparseseg.contract.box import Box, slabs, whole, within
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.settings import Settings


@dataclass(frozen=True)
class Tally:
    """tables[axis][index, value]: voxels; column 0, the unlabelled, is not counted. digest: the same for the same annotation."""

    tables: tuple[np.ndarray, np.ndarray, np.ndarray]
    digest: int

    @classmethod
    def of(cls, annotation: np.ndarray, values: int) -> Tally:
        tally = cls(tuple(np.zeros((n, values), np.int64) for n in annotation.shape), 0)
        return tally.replaced(whole(annotation.shape), None, annotation)

    @property
    def voxels(self) -> np.ndarray:
        """By value."""
        return self.tables[0].sum(0)

    def replaced(self, box: Box, before: np.ndarray | None, after: np.ndarray) -> Tally:
        """After the voxels of a box became others; before: None where they were unlabelled."""
        tables, digest = tuple(table.copy() for table in self.tables), self.digest
        for slab in slabs(box):
            for part, sign in ((before, -1), (after, 1)):
                if part is not None:
                    digest += sign * _count(part[within(slab, box)], slab, tables, sign)
        return replace(self, tables=tables, digest=digest % 2**64)

    def bounds(self) -> Box | None:
        """The least box that holds all labelled voxels; None where there are none."""
        if not self.voxels.any():
            return None
        ends = [np.flatnonzero(table.any(axis=1))[[0, -1]] for table in self.tables]
        return tuple(slice(int(first), int(last) + 1) for first, last in ends)

    def withComplete(self, annotation: np.ndarray, complete: Sequence[tuple[int, int]]) -> Tally:
        """With what is unlabelled on complete slices as background, for counting alone."""
        tables = [table.copy() for table in self.tables]
        for n, (axis, index) in enumerate(complete):
            others = [a for a in range(3) if a != axis]
            free = annotation[(slice(None),) * axis + (index,)] == 0
            for a, i in complete[:n]:
                if a != axis:  # those voxels are counted already
                    free[(slice(None),) * others.index(a) + (i,)] = False
                elif i == index:
                    free[...] = False
            tables[axis][index, 1] += np.count_nonzero(free)
            for place, other in enumerate(others):
                tables[other][:, 1] += np.count_nonzero(free, axis=1 - place)
        return replace(self, tables=tuple(tables))

    def summary(self, classes: ClassTable, settings: Settings, hinted: Sequence[int] = ()) -> tuple[SegmentSummary, ...]:
        """hinted: voxels that hints alone label, by value. Raises AnnotationError where this cannot be trained on."""
        counts = Counts([len(table) for table in self.tables], len(classes) + 1)
        counts.slices = [table[:, 1:].T for table in self.tables]
        voxels = counts.voxels + hinted[1:] if len(hinted) else counts.voxels
        check_counts(voxels)
        return summary(counts, weight_table(voxels, settings), classes)


def _count(part: np.ndarray, box: Box, tables: Sequence[np.ndarray], sign: int) -> int:
    """Adds the labelled voxels of a box to the tables, or takes them away; their digest."""
    places = np.flatnonzero(part)
    painted = part.reshape(-1)[places].astype(np.int64)
    inside = [index + piece.start for index, piece in zip(np.unravel_index(places, part.shape), box, strict=True)]
    for index, table in zip(inside, tables, strict=True):
        n, values = table.shape
        table += sign * np.bincount(index * values + painted, minlength=n * values).reshape(n, values)
    flat = (inside[0] * len(tables[1]) + inside[1]) * len(tables[2]) + inside[2]
    return int(_mixed(flat.astype(np.uint64) * np.uint64(256) + painted.astype(np.uint64)).sum(dtype=np.uint64))


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """splitmix64: numbers that are alike become numbers that are not, so that their sum tells sets apart."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
