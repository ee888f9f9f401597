"""Hints as labels: points become little balls; what lies outside of every segment's region of interest is background.

Of that background only a wall is labelled, one voxel thick, around all regions together: growing cannot pass it, and 80 million voxels would say
no more. Paint wins wherever both lie; where they contradict, it is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..contract.box import Box, whole, with_margin, within
from ..contract.box import union as hull_of
from ..contract.geometry import Geometry
from ..contract.hints import Hints
from ..contract.region import Region

BEYOND = 8  # voxels that growing looks beyond the wall: as gray values there tell background from segments
BACKGROUND = 1  # an annotation value, as in annotation.npy; 1 + c is segment c


class HintLabels:
    """The voxels that hints label: places, (n,) int64, flat indices, ascending; values, (n,) uint8, annotation values."""

    def __init__(self, hints: Hints, geometry: Geometry) -> None:
        self.shape = geometry.shape_kji
        self.rois = [h.roi.on(geometry) if h.roi else None for h in hints.segments]
        self.inside = [[p.on(geometry) for p in h.inside] for h in hints.segments]
        self.outside = [[p.on(geometry) for p in (*h.outside, *hints.outside)] for h in hints.segments]
        self.places, self.values = _without_disputes([*self._balls(), *self._wall()], self.shape)

    def within(self, box: Box) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """The voxels of a box that they label: index into it (k, j, i), (n,) each, and annotation values, (n,) uint8."""
        plane = self.shape[1] * self.shape[2]
        first, last = np.searchsorted(self.places, [box[0].start * plane, box[0].stop * plane])
        k, j, i = np.unravel_index(self.places[first:last], self.shape)
        inside = (j >= box[1].start) & (j < box[1].stop) & (i >= box[2].start) & (i < box[2].stop)
        index = (k[inside] - box[0].start, j[inside] - box[1].start, i[inside] - box[2].start)
        return index, self.values[first:last][inside]

    def forbidden(self, value: int, places: np.ndarray) -> np.ndarray:
        """Whether a segment may not be at voxels, (3, n) k, j, i: (n,) bool. Paint may."""
        roi = self.rois[value - 1]
        found = np.zeros(places.shape[1], bool) if roi is None else ~roi.holds(places)
        for ball in self.outside[value - 1]:
            found |= ball.holds(places)
        return found

    def on_slices(self, classes: int) -> list[np.ndarray]:
        """How many voxels of each class they label on each slice: for each axis (classes, n) int64."""
        at = np.unravel_index(self.places, self.shape)
        codes = (((self.values - 1).astype(np.int64) * n + index, n) for index, n in zip(at, self.shape, strict=True))
        return [np.bincount(code, minlength=classes * n).reshape(classes, n) for code, n in codes]

    def extent(self, painted: Sequence[int]) -> Box | None:
        """Where growing has to look: in all regions of interest and a little beyond. The whole volume where a segment without one has points
        but no painted voxel; None where hints do not say. painted: how many voxels of each segment are, segment 1 first."""
        hull = self._hull()
        if hull is not None:
            return with_margin(hull, BEYOND, self.shape)
        points_alone = any(roi is None and balls and not count for roi, balls, count in zip(self.rois, self.inside, painted, strict=True))
        return whole(self.shape) if points_alone else None

    def _hull(self) -> Box | None:
        """The box of all regions of interest; None where a segment has none."""
        boxes = [roi.box for roi in self.rois if roi is not None]
        return hull_of(*boxes) if len(boxes) == len(self.rois) else None

    def _balls(self) -> Iterator[tuple[np.ndarray, int]]:
        """Flat indices and annotation value of each point's ball; of a segment's only what may be it."""
        for value, balls in enumerate(self.inside, 1):
            for ball in balls:
                places = ball.places()
                yield self._flat(places[:, ~self.forbidden(value, places)]), 1 + value
        for balls in self.outside:
            for ball in balls:
                places = ball.places()
                everywhere = np.logical_and.reduce([self.forbidden(value, places) for value in range(1, len(self.rois) + 1)])
                yield self._flat(places[:, everywhere]), BACKGROUND

    def _wall(self) -> Iterator[tuple[np.ndarray, int]]:
        """The voxels outside of all regions of interest that touch one inside, with faces, edges or corners, as growing steps over all of these; none
        where a segment has no region."""
        hull, rois = self._hull(), [roi for roi in self.rois if roi is not None]
        if hull is None:
            return
        around = with_margin(hull, 1, self.shape)
        before, here = _plane_of(rois, around, around[0].start - 1), _plane_of(rois, around, around[0].start)
        for k in range(around[0].start, around[0].stop):
            after = _plane_of(rois, around, k + 1)
            j, i = np.nonzero(_dilated(before | here | after) & ~here)
            yield self._flat(np.stack([np.full(len(j), k), j + around[1].start, i + around[2].start])), BACKGROUND
            before, here = here, after

    def _flat(self, places: np.ndarray) -> np.ndarray:
        return np.ravel_multi_index(tuple(places), self.shape)


def _dilated(mask: np.ndarray) -> np.ndarray:
    """The true voxels of a plane and their eight neighbours."""
    tall = mask.copy()
    tall[1:] |= mask[:-1]
    tall[:-1] |= mask[1:]
    wide = tall.copy()
    wide[:, 1:] |= tall[:, :-1]
    wide[:, :-1] |= tall[:, 1:]
    return wide


def _plane_of(rois: Sequence[Region], around: Box, k: int) -> np.ndarray:
    """Which voxels of one slice of a box lie in one of the regions, (j, i) bool."""
    found = np.zeros([s.stop - s.start for s in around[1:]], bool)
    for roi in rois:
        if roi.box[0].start <= k < roi.box[0].stop:
            found[within(roi.box, around)[1:]] |= roi.plane(k)
    return found


def _without_disputes(claims: Sequence[tuple[np.ndarray, int]], shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Sorted places and values; a place that hints claim for different values is nobody's."""
    if not claims:
        return np.zeros(0, np.int64), np.zeros(0, np.uint8)
    codes = np.unique(np.concatenate([places * 256 + value for places, value in claims]))
    places, values = np.divmod(codes, 256)
    alone, differ = np.ones(len(places), bool), places[1:] != places[:-1]
    alone[1:] &= differ
    alone[:-1] &= differ
    return places[alone], values[alone].astype(np.uint8)
