"""Strokes as one annotation map: uint8, 0 unlabelled, 1 background, 1 + c segment c."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

UNLABELLED = 0


def merge_strokes(
    shape_kji: tuple[int, int, int], strokes: Iterable[tuple[tuple[slice, ...], np.ndarray]]
) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """Several strokes or layers of strokes, which may overlap, as one annotation map.

    strokes: (box, values): where it lies in the volume, and uint8 annotation values (0 nothing, 1 background, 1 + c segment c).
    Returns the annotation, (K, J, I) uint8, unlabelled where two values were painted, and for each pair of values (the lower first) how
    many voxels both claim. The order of the strokes changes neither, and a voxel counts once for a pair.
    """
    annotation = np.zeros(shape_kji, np.uint8)
    places, claims = [], []  # flat index and value of every claim on a voxel that another value holds already
    for box, values in strokes:
        view = annotation[box]
        other = (values != UNLABELLED) & (view != UNLABELLED) & (view != values)
        np.copyto(view, values, where=(values != UNLABELLED) & ~other)
        at = np.nonzero(other)
        if len(at[0]):
            index = tuple(inside + part.indices(n)[0] for inside, part, n in zip(at, box, shape_kji, strict=True))
            places.append(np.ravel_multi_index(index, shape_kji))
            claims.append(values[at].astype(np.int64))
    if not places:
        return annotation, {}
    disputed = np.unique(np.concatenate(places))
    held = annotation.reshape(-1)[disputed].astype(np.int64)
    annotation.reshape(-1)[disputed] = UNLABELLED
    return annotation, _pairs(np.concatenate([disputed, *places]), np.concatenate([held, *claims]))


def _pairs(places: np.ndarray, values: np.ndarray) -> dict[tuple[int, int], int]:
    """How often each two of the `values` stand at one of the `places`."""
    place, value = np.divmod(np.unique(places * 256 + values), 256)  # sorted by place, then value; each claim once
    counts: dict[tuple[int, int], int] = {}
    for apart in range(1, len(place)):
        same = place[apart:] == place[:-apart]
        if not same.any():
            break
        pairs, voxels = np.unique(value[:-apart][same] * 256 + value[apart:][same], return_counts=True)
        for pair, count in zip(pairs.tolist(), voxels.tolist(), strict=True):
            counts[divmod(pair, 256)] = counts.get(divmod(pair, 256), 0) + count
    return dict(sorted(counts.items()))
