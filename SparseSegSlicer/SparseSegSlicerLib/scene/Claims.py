"""Which annotation the layers of a snapshot claim in a box, where some segments hold an applied result. Plain numpy; may run in a thread.

Of such a segment count the strokes that it was made from, without what was erased since, and what was painted onto it since. What was erased is
background, unless a segment claims it. Nothing of the result itself is a label, so that Apply changes no annotation, and undo of a stroke takes
back what that stroke said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sparseseg.contract.box import Box, box_of, intersection, shape_of, union, whole, within
from sparseseg.contract.strokes import merge_strokes

from . import Merging
from .Layers import Layer
from .Snapshot import Snapshot
from .VolumeMemory import zeros

_BACKGROUND = np.ones(1, np.uint8)  # the code of what was erased


class Claimed(NamedTuple):
    """Strokes of segments that do not overlap. box: of the volume's grid, which may reach out of the volume; values: its voxels, uint8; places: those
    of the segments, by value."""

    box: Box
    values: np.ndarray
    places: dict[int, int]


def merged(snapshot: Snapshot, codes: np.ndarray, box: Box) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """As `Merging.merged`."""
    if snapshot.kept is None:
        return Merging.merged(snapshot.layers, codes, box)
    annotation, overlaps = zeros(shape_of(box)), Counter()
    for planes, piece in Merging.pieces(box):
        claims, erased = _claims(snapshot, codes, piece)
        annotation[planes], pairs = merge_strokes(shape_of(piece), [(whole(shape_of(piece)), values) for values in claims])
        annotation[planes][erased] = 1
        overlaps.update(pairs)
    return annotation, dict(sorted(overlaps.items()))


def resultVoxels(snapshot: Snapshot, codes: np.ndarray, box: Box) -> np.ndarray:
    """By code: how many voxels of a box the segments that hold a result have now."""
    counts = np.zeros(256, np.int64)
    if snapshot.kept is not None:
        held = snapshot.kept.only(codes)
        for _, piece in Merging.pieces(box):
            for values in Merging.filled(snapshot.layers, held, piece):
                counts += np.bincount(values.reshape(-1), minlength=256)
    return counts


def corrected(snapshot: Snapshot) -> Box | None:
    """A box around all corrections of results."""
    kept = snapshot.kept
    if kept is None:
        return None
    codes = np.zeros(len(snapshot.segments), np.uint8)
    codes[list(kept.places)] = np.arange(1, len(kept.places) + 1)
    box = None
    for layer in (*snapshot.layers, *kept.result):
        box = union(box, layer.box)
    found = None
    for _, piece in Merging.pieces(box) if box is not None else ():
        now, then = (Merging.filled(layers, codes, piece) for layers in (snapshot.layers, kept.result))
        here = box_of(_any([*Merging.without(now, then), *Merging.without(then, now)], shape_of(piece)))
        if here is not None:
            found = union(found, Merging.moved(here, piece))
    return found


def strokesOf(snapshot: Snapshot, corrections: Box) -> list[Claimed]:
    """The strokes of the segments that hold a result, corrections included."""
    kept, codes = snapshot.kept, np.zeros(len(snapshot.segments), np.uint8)
    codes[list(kept.places)] = np.arange(1, len(kept.places) + 1)
    claims = lambda: _withCorrections(kept.strokes, codes, corrections, lambda piece: _claims(snapshot, codes, piece)[0])  # noqa: E731
    groups = _apart(range(1, len(kept.places) + 1), claims())
    box = _boxOf(kept.strokes, corrections)
    claimed = [Claimed(box, zeros(shape_of(box)), {code: kept.places[code - 1] for code in group}) for group in groups]
    for planes, arrays in claims():
        for layer in claimed:
            table = np.zeros(256, np.uint8)
            table[list(layer.places)] = list(layer.places)
            for mine in (table[values] for values in arrays):
                np.copyto(layer.values[planes], mine, where=mine != 0)
    return claimed


def erasedFrom(snapshot: Snapshot, corrections: Box) -> Claimed:
    """What was erased from results, corrections included."""
    kept, codes = snapshot.kept, np.arange(1, len(snapshot.segments) + 1).astype(np.uint8)
    box = _boxOf(kept.erased, corrections)
    erased = Claimed(box, zeros(shape_of(box)), {1: 0})
    for planes, arrays in _withCorrections(kept.erased, _BACKGROUND, corrections, lambda piece: [_claims(snapshot, codes, piece)[1]]):
        erased.values[planes] = _any(arrays, erased.values[planes].shape)
    return erased


def _boxOf(layers: Sequence[Layer], corrections: Box) -> Box:
    return union(corrections, *(layer.box for layer in layers))


def _withCorrections(
    layers: Sequence[Layer], codes: np.ndarray, corrections: Box, inside: Callable[[Box], list[np.ndarray]]
) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """A few planes at a time of what the layers say, and in the box of the corrections of what `inside` says instead."""
    for planes, piece in Merging.pieces(_boxOf(layers, corrections)):
        arrays, part = Merging.filled(layers, codes, piece), intersection(corrections, piece)
        if part is not None:
            here = within(part, piece)
            for values in arrays:
                values[here] = 0
            for values in inside(part):
                arrays.append(np.zeros(shape_of(piece), np.uint8))
                arrays[-1][here] = values
        yield planes, arrays


def _apart(codes: Sequence[int], claims: Iterator[tuple[slice, list[np.ndarray]]]) -> list[list[int]]:
    """Codes in groups, in none of which two claim the same voxel."""
    overlaps: set[tuple[int, int]] = set()
    for _, arrays in claims:
        if arrays:
            overlaps |= merge_strokes(arrays[0].shape, [(whole(values.shape), values) for values in arrays])[1].keys()
    groups: list[list[int]] = []
    for code in codes:
        fitting = next((group for group in groups if not any((other, code) in overlaps for other in group)), None)
        if fitting is None:
            groups.append(fitting := [])
        fitting.append(code)
    return groups


def _claims(snapshot: Snapshot, codes: np.ndarray, piece: Box) -> tuple[list[np.ndarray], np.ndarray]:
    """Annotation codes, one array of the piece's shape for each layer that says something; and where something was erased that none claims."""
    kept, shape = snapshot.kept, shape_of(piece)
    held = kept.only(codes)
    now, then = (Merging.filled(layers, held, piece) for layers in (snapshot.layers, kept.result))
    gone = Merging.without(then, now)
    claims = Merging.without(Merging.filled(kept.strokes, held, piece), gone)
    claims += Merging.without(now, then)
    claims += Merging.filled(snapshot.layers, codes - held, piece)
    erased = _any([*gone, *Merging.filled(kept.erased, _BACKGROUND, piece)], shape)
    return claims, erased & ~_any(claims, shape)


def _any(some: Sequence[np.ndarray], shape: Sequence[int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for values in some:
        mask |= values != 0
    return mask
