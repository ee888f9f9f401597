"""Which annotation the layers of a snapshot claim in a box, where some segments hold an applied result. Plain numpy; may run in a thread.

Of such a segment count the strokes that it was made from, without what was erased since, and what was painted onto it since. What was erased is
background, unless a segment claims it. Nothing of the result itself is a label, so that Apply changes no annotation, and undo of a stroke takes
back what that stroke said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sparseseg.contract.box import Box, box_of, shape_of, union, whole, within
from sparseseg.contract.strokes import merge_strokes

from . import Merging
from .Layers import Layer
from .Snapshot import Snapshot

_BACKGROUND = np.ones(1, np.uint8)  # the code of what was erased


def merged(snapshot: Snapshot, codes: np.ndarray, box: Box) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """As `Merging.merged`."""
    if snapshot.kept is None:
        return Merging.merged(snapshot.layers, codes, box)
    annotation, overlaps = np.zeros(shape_of(box), np.uint8), Counter()
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


def strokesOf(snapshot: Snapshot, place: int, corrections: Box) -> tuple[Box, np.ndarray]:
    """The strokes of a segment that holds a result, corrections included: a box of the volume's grid, which may reach out of the volume, and
    whether each of its voxels is one."""
    codes = np.zeros(len(snapshot.segments), np.uint8)
    codes[place] = 1
    layers = [layer for layer in snapshot.kept.strokes if place in layer.places.values()]
    return _withCorrections(layers, codes, corrections, _any(_claims(snapshot, codes, corrections)[0], shape_of(corrections)))


def erasedFrom(snapshot: Snapshot, corrections: Box) -> tuple[Box, np.ndarray]:
    """What was erased from results, corrections included; as `strokesOf`."""
    codes = np.arange(1, len(snapshot.segments) + 1).astype(np.uint8)
    return _withCorrections(snapshot.kept.erased, _BACKGROUND, corrections, _claims(snapshot, codes, corrections)[1])


def _withCorrections(layers: Sequence[Layer], codes: np.ndarray, corrections: Box, inside: np.ndarray) -> tuple[Box, np.ndarray]:
    box = corrections
    for layer in layers:
        box = union(box, layer.box)
    mask = _any(Merging.filled(layers, codes, box), shape_of(box))
    mask[within(corrections, box)] = inside
    return box, mask


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
