"""Boxes of voxels: what annotation, beliefs and previews travel in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Any

import numpy as np

from .errors import InputError

_SLAB_VOXELS = 4_000_000
_TOGETHER_VOXELS = 1 << 24  # in a box that holds them, things are looked at together, however far apart they lie in it
_MOST_BOXES = 16  # that are kept apart
_GAP = 32  # planes in a row that hold nothing, for what lies on either side to be apart
Box = tuple[slice, slice, slice]  # k, j, i; start and stop given, within the volume, no step


@dataclass(frozen=True)
class Part:
    """Some voxels of a volume: those of a box that a mask, (k, j, i) bool, marks."""

    box: Box
    mask: np.ndarray


def whole(shape_kji: Sequence[int]) -> Box:
    """The box of all voxels."""
    k, j, i = (slice(0, int(n)) for n in shape_kji)
    return (k, j, i)


def planes(shape_kji: Sequence[int]) -> Iterator[Box]:
    """The box of each slice along k: for work that must not make anything of the volume's size."""
    for k in range(shape_kji[0]):
        yield (slice(k, k + 1), slice(0, int(shape_kji[1])), slice(0, int(shape_kji[2])))


def slabs(box: Box) -> Iterator[Box]:
    """A box in parts of a few of its slices along k, one at least: as `planes`, for work that is quicker so."""
    depth = max(1, _SLAB_VOXELS // max(1, (box[1].stop - box[1].start) * (box[2].stop - box[2].start)))
    for k in range(box[0].start, box[0].stop, depth):
        yield (slice(k, min(k + depth, box[0].stop)), box[1], box[2])


def shape_of(box: Box) -> tuple[int, int, int]:
    k, j, i = (s.stop - s.start for s in box)
    return (k, j, i)


def union(*boxes: Box | None) -> Box | None:
    """The least box that holds them all; None holds nothing."""
    some = [box for box in boxes if box is not None]
    if not some:
        return None
    k, j, i = (slice(min(box[axis].start for box in some), max(box[axis].stop for box in some)) for axis in range(3))
    return (k, j, i)


def intersection(one: Box, other: Box) -> Box | None:
    """The voxels of both; None where there are none."""
    k, j, i = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return (k, j, i) if all(s.start < s.stop for s in (k, j, i)) else None


def with_margin(box: Box, margin: int, shape_kji: Sequence[int]) -> Box:
    """The box and so many voxels more on each side, within the volume."""
    k, j, i = (slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(box, shape_kji, strict=True))
    return (k, j, i)


def moved(box: Box, by_kji: Sequence[int]) -> Box:
    """The box so many voxels farther along each axis."""
    k, j, i = (slice(s.start + n, s.stop + n) for s, n in zip(box, by_kji, strict=True))
    return (k, j, i)


def within(inner: Box, outer: Box) -> Box:
    """The inner box as an index of an array that holds the outer one."""
    return moved(inner, [-s.start for s in outer])


def box_of(mask: np.ndarray) -> Box | None:
    """The least box that holds all true voxels of a (K, J, I) bool mask; None where it has none."""
    planes = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(planes):
        return None
    flat = np.logical_or.reduce(mask[planes[0] : planes[-1] + 1])
    rows, columns = np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
    k, j, i = (slice(int(found[0]), int(found[-1]) + 1) for found in (planes, rows, columns))
    return (k, j, i)


def boxes_of(mask: np.ndarray) -> list[Box]:
    """Boxes that together hold all true voxels of a (K, J, I) bool mask: where many planes in a row hold none, one on either side."""
    outer = box_of(mask)
    if outer is None:
        return []
    for axis in range(3):
        used = np.flatnonzero(mask[outer].any(axis=tuple(a for a in range(3) if a != axis)))
        ends = np.flatnonzero(np.diff(used) > _GAP)
        if len(ends):
            found = []
            for first, last in zip(used[[0, *(ends + 1)]], used[[*ends, -1]], strict=True):
                side = tuple(slice(s.start + int(first), s.start + int(last) + 1) if a == axis else s for a, s in enumerate(outer))
                found += [moved(box, [s.start for s in side]) for box in boxes_of(mask[side])]
            return found
    return [outer]


def joined(boxes: Iterable[Box]) -> list[Box]:
    """Few boxes that hold all of these: two become one where that holds little that is in neither, or is small. So what changes far apart in a large
    volume does not make all of it change."""
    found: list[Box] = []
    for box in boxes:
        while (near := next((other for other in found if _belong_together(box, other)), None)) is not None:
            found.remove(near)
            box = _both(box, near)
        found.append(box)
        if len(found) > _MOST_BOXES:
            one, other = min(combinations(found, 2), key=lambda pair: prod(shape_of(_both(*pair))))
            found = [box for box in found if box is not one and box is not other]
            found.append(_both(one, other))
    return found


def _belong_together(one: Box, other: Box) -> bool:
    return prod(shape_of(_both(one, other))) <= max(_TOGETHER_VOXELS, 2 * (prod(shape_of(one)) + prod(shape_of(other))))


def _both(one: Box, other: Box) -> Box:
    return union(one, other) or one


def joined_parts(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The same voxels in few parts, as `joined`."""
    found = []
    for box in joined(part.box for part in parts):
        mask = np.zeros(shape_of(box), bool)
        for part in parts:
            mark(mask, box, part)
        found.append(Part(box, mask))
    return tuple(found)


def mark(mask: np.ndarray, box: Box, part: Part) -> None:
    """In a mask of a box, (k, j, i) bool, the voxels of a part that lie in it."""
    both = intersection(box, part.box)
    if both is not None:
        mask[within(both, box)] |= part.mask[within(both, part.box)]


def box_among(labels: np.ndarray, wanted: np.ndarray) -> Box | None:
    """The least box that holds all voxels of labels, (K, J, I) uint8, whose value is wanted, (values,) bool; None where none is. By slabs, so that
    nothing of the volume's size is made."""
    found: Box | None = None
    for slab in slabs(whole(labels.shape)):
        inner = box_of(wanted[labels[slab]])
        if inner is not None:
            found = union(found, moved(inner, [s.start for s in slab]))
    return found


def box_to_json(box: Box | None) -> list[list[int]]:
    """[[first, last + 1] along k, j, i]; empty for the whole volume."""
    return [] if box is None else [[s.start, s.stop] for s in box]


def box_from_json(data: Any, shape_kji: Sequence[int]) -> Box | None:
    """The opposite of box_to_json. Raises InputError for what is no box of voxels within the volume."""
    if data == []:
        return None
    try:
        edges = [(first, last) for first, last in data]
        fits = len(edges) == 3 and all(type(n) is int for edge in edges for n in edge)
        fits = fits and all(0 <= first < last <= n for (first, last), n in zip(edges, shape_kji, strict=True))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(f"A box is three pairs [first, last + 1] within {' x '.join(map(str, shape_kji))} voxels, got {data!r:.80}.")
    k, j, i = (slice(first, last) for first, last in edges)
    return (k, j, i)
