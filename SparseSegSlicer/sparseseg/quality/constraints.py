"""Hints as constraints on what leaves a session: where a segment may be (any box), and what it is like as a whole (whole label maps only).

Labelled voxels are never changed. What cannot be held because of them, or at all, is a Remark. Arrays are changed in place: labels uint8, 0
background, c segment c; sure uint8, 255 times about the chance that the label is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..annotation.hinted import HintLabels
from ..annotation.slices import neighbours
from ..contract.box import Box, box_of, intersection, shape_of, with_margin, within
from ..contract.classes import ClassTable
from ..contract.geometry import Geometry
from ..contract.hints import Hints, SegmentHints

_RULED_OUT = 250  # how sure background is where a segment may not be
_OVERRULED = 200  # the same of a voxel whose label a constraint changed: enough to stand against what the voices believe, far from strokes
_ROUNDING = 1e-9  # of a volume in ml, from the voxels
_CERTAIN = 250  # a voxel that is as sure as this is not moved to meet a volume

Tick = Callable[[], None]


@dataclass(frozen=True)
class Remark:
    """A constraint that had to bend, or could not be met. about: what tells it from others, whatever the numbers in the sentence are."""

    about: tuple[str, int, int]
    sentence: str
    advice: str


class Constraints:
    """All hints on one volume. Boxes are of the volume; the arrays given with one hold that box."""

    def __init__(self, hints: Hints, hinted: HintLabels, classes: ClassTable, geometry: Geometry) -> None:
        self._hints, self._hinted, self._names, self._spacing = hints, hinted, classes.names, geometry.spacing_kji_mm
        self._voxel_ml = float(np.prod(geometry.spacing_kji_mm)) / 1000

    # -- where a segment may be ----------------------------------------------------------------------------------------

    def hold_places(self, labels: np.ndarray, labelled: np.ndarray, box: Box, sure: np.ndarray | None = None) -> None:
        """Background where a segment lies outside of its region of interest, or at a point outside of it."""
        for value, (roi, balls) in enumerate(zip(self._hinted.rois, self._hinted.outside, strict=True), 1):
            if roi is None and not balls:
                continue
            for n, k in enumerate(range(box[0].start, box[0].stop)):
                mine = labels[n] == value
                if not mine.any():
                    continue
                _rule_out(labels[n], mine & self._forbidden_on(value, k, box) & ~labelled[n], None if sure is None else sure[n])

    def _forbidden_on(self, value: int, k: int, box: Box) -> np.ndarray:
        """Where a segment may not be on one slice of a box, (j, i) bool."""
        roi, flat = self._hinted.rois[value - 1], (slice(k, k + 1), *box[1:])
        forbidden = np.full(shape_of(flat)[1:], roi is not None)
        shapes = [(ball, True) for ball in self._hinted.outside[value - 1]]
        for region, there in [(roi, False), *shapes] if roi is not None else shapes:
            both = intersection(region.box, flat)
            if both is not None:
                inside = region.plane(k)[within(both, region.box)[1:]]
                forbidden[within(both, flat)[1:]][inside] = there
        return forbidden

    # -- what it is like as a whole ------------------------------------------------------------------------------------

    def hold_shapes(self, labels: np.ndarray, sure: np.ndarray, labelled: np.ndarray, tick: Tick = lambda: None) -> list[Remark]:
        """Volume, distance between segments, pieces, holes, in this order, of the whole volume; then what of it does not hold."""
        remarks: list[Remark] = []
        some = [(value, hints) for value, hints in enumerate(self._hints.segments, 1) if hints.shapes]
        for value, hints in some:
            tick()
            self._meet_volume(value, hints, labels, sure, labelled)
        for a, b in self._hints.apart:
            tick()
            remarks += self._hold_apart(a, b, labels, sure, labelled)
        for value, hints in some:
            if hints.one_piece:
                tick()
                remarks += self._hold_together(value, labels, sure, labelled)
            if hints.no_holes:
                tick()
                remarks += self._fill(value, labels, sure, labelled)
        for value, hints in some:
            remarks += self._check_volume(value, hints, labels)
        return remarks

    def _hold_together(self, value: int, labels: np.ndarray, sure: np.ndarray, labelled: np.ndarray) -> Iterator[Remark]:
        """Only the pieces with labelled voxels stay, or the largest."""
        box = box_of(labels == value)
        if box is None:
            return
        pieces = _components(labels[box] == value, diagonally=True)
        sizes = np.bincount(pieces.ravel())
        held = np.unique(pieces[labelled[box] & (pieces > 0)])
        keep = np.zeros(len(sizes), bool)
        keep[held if len(held) else 1 + sizes[1:].argmax()] = True
        keep[0] = True
        _overrule(labels[box], ~keep[pieces], 0, sure[box])
        if len(held) > 1:
            yield Remark(
                ("one_piece", value, 0),
                f"{self._names[value - 1]} is said to be one piece, but is annotated in {len(held)} that do not touch; all of these are kept.",
                "Paint what connects them, or erase what is not it.",
            )

    def _fill(self, value: int, labels: np.ndarray, sure: np.ndarray, labelled: np.ndarray) -> Iterator[Remark]:
        """Holes become the segment, but for what is labelled there; not those that hold another segment, so that no two come to touch."""
        box = box_of(labels == value)
        if box is None:
            return
        rest = np.pad(labels[box] != value, 1, constant_values=True)
        padded = _components(rest, diagonally=False)
        gaps, outside = padded[1:-1, 1:-1, 1:-1], padded[0, 0, 0]
        is_hole = np.ones(int(padded.max()) + 1, bool)
        is_hole[[0, outside]] = False
        is_hole[np.unique(gaps[labels[box] > 0])] = False
        holes = is_hole[gaps]
        against = holes & labelled[box]
        _overrule(labels[box], holes & ~against, value, sure[box])
        if against.any():
            voxels = _counted(int(against.sum()), "voxel")
            yield Remark(
                ("no_holes", value, 0),
                f"{self._names[value - 1]} is said to have no holes, but background is annotated in some ({voxels}); it stays.",
                "Erase that background, or take the hint back.",
            )

    def _hold_apart(self, a: int, b: int, labels: np.ndarray, sure: np.ndarray, labelled: np.ndarray) -> Iterator[Remark]:
        """Of two voxels that share a face, the one that is less sure becomes background; a labelled one never."""
        boxes = [box_of(labels == value) for value in (a, b)]
        if boxes[0] is None or boxes[1] is None:
            return
        box = intersection(*(with_margin(each, 1, labels.shape) for each in boxes if each is not None))
        if box is None:
            return
        now, believed, fixed = labels[box], sure[box], labelled[box]
        gives_way, both = np.zeros(now.shape, bool), 0
        for axis in range(3):
            low, high = neighbours(axis)
            touch = ((now[low] == a) & (now[high] == b)) | ((now[low] == b) & (now[high] == a))
            if not touch.any():
                continue
            lower = fixed[high] | (~fixed[low] & (believed[low] < believed[high]))
            gives_way[low] |= touch & lower & ~fixed[low]
            gives_way[high] |= touch & ~lower & ~fixed[high]
            both += int((touch & fixed[low] & fixed[high]).sum())
        _overrule(now, gives_way, 0, believed)
        if both:
            one, other = self._names[a - 1], self._names[b - 1]
            yield Remark(
                ("apart_from", a, b),
                f"{one} and {other} are said to be apart, but are annotated side by side in {_counted(both, 'place')}; the annotation stands.",
                "Erase what is wrong there, or take the hint back.",
            )

    # -- volume --------------------------------------------------------------------------------------------------------

    def _meet_volume(self, value: int, hints: SegmentHints, labels: np.ndarray, sure: np.ndarray, labelled: np.ndarray) -> None:
        """Take in the least sure background around it, or give away what is least sure of it, until its volume is as said."""
        least, most = hints.volume_ml
        box = box_of(labels == value)
        if box is None or (least is None and most is None):
            return
        count = int((labels[box] == value).sum())
        if least is not None and count < (wanted := int(np.ceil(least / self._voxel_ml))):
            around = _enlarged(box, labels.shape)
            now = labels[around]
            free = (now == 0) & ~labelled[around] & (sure[around] < _CERTAIN)
            for n, k in enumerate(range(around[0].start, around[0].stop)):
                free[n] &= ~self._forbidden_on(value, k, around)
            order = _flood(now == value, free, sure[around])
            _overrule(now, _first(order, free & (order < _CERTAIN), wanted - count, now != value, self._spacing), value, sure[around])
        elif most is not None and count > (wanted := int(most / self._voxel_ml)):
            box = with_margin(box, 1, labels.shape)
            mine = labels[box] == value
            free = mine & ~labelled[box] & (sure[box] < _CERTAIN)
            _overrule(labels[box], _first(sure[box], free, count - wanted, mine, self._spacing), 0, sure[box])

    def _check_volume(self, value: int, hints: SegmentHints, labels: np.ndarray) -> Iterator[Remark]:
        least, most = hints.volume_ml
        if least is None and most is None:
            return
        found = int(np.count_nonzero(labels == value)) * self._voxel_ml
        short = least is not None and found < least * (1 - _ROUNDING)
        if short or (most is not None and found > most * (1 + _ROUNDING)):
            said = f"at least {least:g}" if short else f"at most {most:g}"
            yield Remark(
                ("volume_ml", value, 0),
                f"{self._names[value - 1]} has {found:.4g} ml, but is said to have {said}; what is annotated, sure or said elsewhere forbids it.",
                "Correct the result by strokes, or the hint.",
            )


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _rule_out(labels: np.ndarray, where: np.ndarray, sure: np.ndarray | None) -> None:
    labels[where] = 0
    if sure is not None:
        sure[where] = _RULED_OUT


def _overrule(labels: np.ndarray, where: np.ndarray, value: int, sure: np.ndarray) -> None:
    labels[where] = value
    sure[where] = _OVERRULED


def _components(mask: np.ndarray, diagonally: bool) -> np.ndarray:
    """(k, j, i) uint32: 0 outside of the mask, its connected pieces 1, 2, ... in the order of their first voxels."""
    return sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.view(np.uint8)), diagonally))


def _enlarged(box: Box, shape: tuple[int, ...]) -> Box:
    """Half of its extent more on each side, 8 voxels at least: a segment that has to grow farther was not found at all."""
    grown = [with_margin(box, max(8, (s.stop - s.start) // 2), shape)[axis] for axis, s in enumerate(box)]
    return (grown[0], grown[1], grown[2])


def _flood(own: np.ndarray, free: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """How sure the surest voxel is that must be taken in to reach each free one from the segment, uint8; 255 where it cannot be reached."""
    hills = np.where(own, 0, np.where(free, sure, 255)).astype(np.uint8)
    start = np.where(own, 0, 255).astype(np.uint8)
    return sitk.GetArrayFromImage(sitk.ReconstructionByErosion(sitk.GetImageFromArray(start), sitk.GetImageFromArray(hills)))


def _first(order: np.ndarray, free: np.ndarray, count: int, inside: np.ndarray, spacing_kji_mm: tuple[float, ...]) -> np.ndarray:
    """The `count` free voxels that come first by `order`, uint8, or all; of equals those nearest to the border of `inside`, which holds them."""
    counts = np.bincount(order[free], minlength=256).cumsum()
    if counts[-1] <= count:
        return free
    level = int(np.searchsorted(counts, count, side="left"))
    chosen = free & (order < level)
    image = sitk.GetImageFromArray((~inside).view(np.uint8))
    image.SetSpacing([float(s) for s in spacing_kji_mm[::-1]])
    depth = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=True, useImageSpacing=True))
    equals = np.flatnonzero(free & (order == level))
    left = count - int(chosen.sum())
    nearest = np.argsort(depth.reshape(-1)[equals], kind="stable")[:left]
    chosen.reshape(-1)[equals[nearest]] = True
    return chosen
