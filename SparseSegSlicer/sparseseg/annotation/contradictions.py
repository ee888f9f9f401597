"""Paint against hints: the paint stands, and it is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..contract.box import Box, intersection
from ..contract.classes import ClassTable
from ..contract.region import Region
from .hinted import HintLabels
from .labels import Annotation, painted_of


@dataclass(frozen=True)
class Contradiction:
    """kind: `roi`, `outside` or `inside`, the hint that paint contradicts; value: the segment's; voxels: how many are painted against it."""

    kind: str
    value: int
    voxels: int

    def sentence(self, classes: ClassTable) -> str:
        name, voxels = classes.names[self.value - 1], f"{self.voxels} voxel{'s' if self.voxels > 1 else ''}"
        if self.kind == "inside":
            return f"{voxels} at a point said to be inside {name} {'are' if self.voxels > 1 else 'is'} painted as something else; the paint stands."
        where = "its ROI" if self.kind == "roi" else "it, as a point says"
        return f"{voxels} painted as {name} {'lie' if self.voxels > 1 else 'lies'} outside of {where}; the paint stands."


def contradictions(annotation: Annotation, boxes: Sequence[Box]) -> list[Contradiction]:
    """Those in some boxes, by segment; what complete slices say counts as painted. None without hints."""
    return [] if annotation.hints is None else list(_each(annotation.hints, annotation, boxes))


def _each(hinted: HintLabels, annotation: Annotation, boxes: Sequence[Box]) -> Iterator[Contradiction]:
    for value, (roi, inside, outside) in enumerate(zip(hinted.rois, hinted.inside, hinted.outside, strict=True), 1):
        counts = {
            "roi": sum(_beyond(roi, annotation, box, value) for box in boxes) if roi else 0,
            "outside": sum(_in_balls(outside, annotation, box, value, True) for box in boxes),
            "inside": sum(_in_balls(inside, annotation, box, value, False) for box in boxes),
        }
        yield from (Contradiction(kind, value, voxels) for kind, voxels in counts.items() if voxels)


def _beyond(roi: Region, annotation: Annotation, box: Box, value: int) -> int:
    """Voxels painted as a segment outside of its region of interest; plane by plane, so that nothing of the volume's size is made."""
    count = 0
    for k in np.flatnonzero(annotation.counts.slices[0][value, box[0]]) + box[0].start:
        j, i = np.nonzero((annotation.labels[k][box[1:]] == value) & painted_of(annotation.origin[k][box[1:]]))
        count += int((~roi.holds(np.stack([np.full(len(j), k), j + box[1].start, i + box[2].start]))).sum())
    return count


def _in_balls(balls: Sequence[Region], annotation: Annotation, box: Box, value: int, as_it: bool) -> int:
    """Voxels in one of the balls that are painted as a segment, or as something else."""
    found = [np.zeros((0, 3), np.int64)]
    for ball in balls:
        both = intersection(ball.box, box)
        if both is not None:
            mask = ((annotation.labels[both] == value) == as_it) & painted_of(annotation.origin[both])
            places = np.argwhere(mask) + [s.start for s in both]
            found.append(places[ball.holds(places.T)])
    return len(np.unique(np.concatenate(found), axis=0))
