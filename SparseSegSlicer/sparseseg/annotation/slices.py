"""Which slices were painted on, and which were segmented as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

_FILLED = 1 / 6  # of a finished slice's segment voxels have all four neighbours in the slice painted; on lines up to two voxels wide none has


def annotated_planes(labelled: np.ndarray, factor: float) -> tuple[tuple[int, int], ...]:
    """Slices that were painted on as such, with lines or areas: they hold `factor` times more labelled voxels than the slices around them.

    labelled: bool (K, J, I). What is painted on slices of other orientations crosses a slice as dots and lines, so a painted slice stands
    out from the two on either side; neighbouring slices that are both painted are not found. Returns (axis, index).
    """
    return tuple((axis, index) for axis in range(3) for index in _peaks(_sums(labelled, axis), factor))


def covering_slices(annotation: np.ndarray, extra: Iterable[tuple[int, int]] = (), limit: int = 200) -> list[tuple[int, int]]:
    """The few slices, of all three orientations, that together hold the strokes: those that somebody painted on, most probably.

    Greedy cover: the slice with most labelled voxels that no earlier one holds comes first, until none is left (or `limit` slices are found).
    A stroke of one slice is a single slice that way, and neighbouring painted slices are found too. Of more than a million labelled voxels
    only every n-th is looked at. `extra`: slices that are listed in any case, where they lie in the volume.
    annotation: (K, J, I), of any type, not 0 where labelled. Returns (axis, index), sorted.
    """
    found = {(a, i) for a, i in extra if i < annotation.shape[a]}
    left = _some_places(annotation)
    for axis, index in found:
        left = _without(left, axis, index)
    while len(left[0]) and len(found) < limit:
        counts = [np.bincount(c, minlength=n) for c, n in zip(left, annotation.shape, strict=True)]
        axis = int(np.argmax([c.max() for c in counts]))
        index = int(counts[axis].argmax())
        found.add((axis, index))
        left = _without(left, axis, index)
    return sorted(found)


def values_on(annotation: np.ndarray, slices: Iterable[tuple[int, int]], values: int) -> dict[tuple[int, int], np.ndarray]:
    """For each of these slices the count of its labelled voxels by annotation value, int64 of length `values`."""
    counts = {at: np.bincount(annotation[plane(*at)].ravel(), minlength=values) for at in slices}
    for unlabelled in counts.values():
        unlabelled[0] = 0
    return counts


def _some_places(annotation: np.ndarray) -> list[np.ndarray]:
    """k, j and i, (n,) int32 each, of the labelled voxels, or of every n-th where there are more than a million; plane by plane."""
    counts = [int(np.count_nonzero(pixels)) for pixels in annotation]
    step, before, parts = max(1, sum(counts) // 1_000_000), 0, [np.zeros((3, 0), np.int32)]
    for k in np.flatnonzero(counts):
        j, i = np.nonzero(annotation[k])
        chosen = slice(-before % step, None, step)
        parts.append(np.stack([np.full(len(j[chosen]), k), j[chosen], i[chosen]]).astype(np.int32))
        before += counts[k]
    return list(np.concatenate(parts, axis=1))


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
            low, high = neighbours(other)
            inner[low] &= mask[high]
            inner[high] &= mask[low]
            inner[plane(other, 0)] = inner[plane(other, -1)] = False
    return inner


def neighbours(axis: int, step: int = 1) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    low, high = [slice(None)] * 3, [slice(None)] * 3
    low[axis], high[axis] = slice(None, -step), slice(step, None)
    return tuple(low), tuple(high)


def plane(axis: int, index: int) -> tuple[slice | int, ...]:
    return tuple(index if a == axis else slice(None) for a in range(3))
