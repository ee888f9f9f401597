"""What a voice believes about the voxels of a volume, and the boxes that beliefs, annotation and previews travel in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import InputError

Box = tuple[slice, slice, slice]  # k, j, i; start and stop given, within the volume, no step


class Belief(NamedTuple):
    """label: (K, J, I) uint8, 0 background, c segment c, labelled voxels carry their own label.

    confidence: (K, J, I) uint8, 255 times about the chance that the label is right; 255 at labelled voxels, 0 where nothing is known.
    """

    label: np.ndarray
    confidence: np.ndarray


def whole(shape_kji: Sequence[int]) -> Box:
    """The box of all voxels."""
    k, j, i = (slice(0, int(n)) for n in shape_kji)
    return (k, j, i)


def shape_of(box: Box) -> tuple[int, int, int]:
    k, j, i = (s.stop - s.start for s in box)
    return (k, j, i)


def union(one: Box | None, other: Box | None) -> Box | None:
    """The least box that holds both; None holds nothing."""
    if one is None or other is None:
        return other if one is None else one
    k, j, i = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return (k, j, i)


def intersection(one: Box, other: Box) -> Box | None:
    """The voxels of both; None where there are none."""
    k, j, i = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return (k, j, i) if all(s.start < s.stop for s in (k, j, i)) else None


def with_margin(box: Box, margin_kji: Sequence[int], shape_kji: Sequence[int]) -> Box:
    """The box and so many voxels more on each side, within the volume."""
    k, j, i = (slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, margin_kji, shape_kji, strict=True))
    return (k, j, i)


def within(inner: Box, outer: Box) -> Box:
    """The inner box as an index of an array that holds the outer one."""
    k, j, i = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True))
    return (k, j, i)


def box_of(mask: np.ndarray) -> Box | None:
    """The least box that holds all true voxels of a (K, J, I) bool mask; None where it has none."""
    planes = np.flatnonzero(mask.any(axis=(1, 2)))
    if not len(planes):
        return None
    flat = np.logical_or.reduce(mask[planes[0] : planes[-1] + 1])
    rows, columns = np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
    k, j, i = (slice(int(found[0]), int(found[-1]) + 1) for found in (planes, rows, columns))
    return (k, j, i)


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
