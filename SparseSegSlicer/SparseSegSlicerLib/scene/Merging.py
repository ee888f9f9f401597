"""Layers of a snapshot -> annotation codes in a box, and the box in which two snapshots differ. Plain numpy; may run in a thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from sparseseg.contract.box import Box, box_of, intersection, shape_of, slabs, union, whole, within
from sparseseg.contract.strokes import merge_strokes

from .Layers import Layer
from .VolumeMemory import zeros

_LARGEST_TABLE = 65_536


def merged(layers: Sequence[Layer], codes: np.ndarray, box: Box) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """What the layers say in a box, as annotation codes (`codes[place]`, 0 where two layers disagree), and for each pair of codes how many
    voxels of the box both claim."""
    annotation, overlaps = zeros(shape_of(box)), Counter()
    for planes, piece in pieces(box):
        parts = []
        for layer in layers:
            inside = intersection(layer.box, piece)
            if inside is not None:
                parts.append((within(inside, piece), _coded(layer.values[within(inside, layer.box)], layer.places, codes)))
        if parts:
            annotation[planes], pairs = merge_strokes(shape_of(piece), parts)
            overlaps.update(pairs)
    return annotation, dict(sorted(overlaps.items()))


def pieces(box: Box) -> Iterator[tuple[slice, Box]]:
    """A few planes along k at a time: which of the box's planes, and where they lie."""
    for piece in slabs(box):
        yield within(piece, box)[0], piece


def filled(layers: Iterable[Layer], codes: np.ndarray, box: Box) -> list[np.ndarray]:
    """Each layer that reaches into a box, as annotation codes on all of it."""
    arrays = []
    for layer in layers:
        inside = intersection(layer.box, box)
        if inside is not None and any(codes[place] for place in layer.places.values()):
            arrays.append(np.zeros(shape_of(box), np.uint8))
            arrays[-1][within(inside, box)] = _coded(layer.values[within(inside, layer.box)], layer.places, codes)
    return arrays


def without(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Codes, 0 where one of the others has the same."""
    left = []
    for values in some:
        values = values.copy()
        for other in others:
            values[values == other] = 0
        left.append(values)
    return left


def translate(annotation: np.ndarray, table: np.ndarray) -> None:
    """Each value becomes table[value], in place."""
    for planes in _chunks(annotation.shape):
        annotation[planes] = table[annotation[planes]]


def labelledIn(annotation: np.ndarray) -> np.ndarray:
    """How many voxels have each value; of 0, none are counted."""
    counts = sum(np.bincount(annotation[planes].reshape(-1), minlength=256) for planes in _chunks(annotation.shape))
    counts[0] = 0
    return counts


def valuesIn(values: np.ndarray) -> set[int]:
    return {value for planes in _chunks(values.shape) for value in np.unique(values[planes]).tolist()}


def outside(layer: Layer, shape_kji: Sequence[int]) -> int:
    """How many of a layer's painted voxels lie outside of the volume."""
    if layer.outside is not None:
        return layer.outside
    inside = intersection(layer.box, whole(shape_kji))
    if inside == layer.box:
        return 0
    return _paintedIn(layer, layer.box) - (0 if inside is None else _paintedIn(layer, inside))


def _paintedIn(layer: Layer, box: Box) -> int:
    """How many of a layer's voxels in a box are a segment's."""
    values = layer.values[within(box, layer.box)]
    return sum(int(np.isin(values[planes], list(layer.places)).sum()) for planes in _chunks(values.shape))


def changed(before: Iterable[Layer], after: Iterable[Layer]) -> Box | None:
    """A box that holds all voxels that may have changed from some layers to others; None where there are none."""
    old, new = {layer.key: layer for layer in before}, {layer.key: layer for layer in after}
    box = None
    for key in old.keys() | new.keys():
        box = union(box, _changedLayer(old.get(key), new.get(key)))
    return box


def differing(old: np.ndarray, new: np.ndarray) -> Box | None:
    """The least box that holds all voxels in which two arrays differ; None where they are the same."""
    return boxWhere(old.shape, lambda planes: old[planes] != new[planes])


def boxWhere(shape: Sequence[int], mask) -> Box | None:
    """Of the true voxels of mask(planes), which is asked for a few planes along k at a time."""
    box = None
    for planes in _chunks(shape):
        here = mask(planes)
        if here.any():
            found = box_of(here)
            box = union(box, (slice(found[0].start + planes.start, found[0].stop + planes.start), found[1], found[2]))
    return box


def _coded(values: np.ndarray, places: dict[int, int], codes: np.ndarray) -> np.ndarray:
    """Label values as annotation codes, 0 where no segment has the value."""
    highest = 255 if values.dtype == np.uint8 else int(values.max(initial=0))
    if highest >= _LARGEST_TABLE or (values.dtype.kind != "u" and values.min(initial=0) < 0):
        coded = np.zeros(values.shape, np.uint8)
        for value, place in places.items():
            coded[values == value] = codes[place]
        return coded
    table = np.zeros(highest + 1, np.uint8)
    for value, place in places.items():
        if 0 <= value <= highest:
            table[value] = codes[place]
    return table[values]


def _changedLayer(old: Layer | None, new: Layer | None) -> Box | None:
    if old is not None and new is not None and old.values is new.values and old.places == new.places:
        return None
    common = None
    if old is not None and new is not None and old.values.dtype == new.values.dtype and old.places == new.places:
        common = intersection(old.box, new.box)
    box = None
    for layer in (old, new):
        for part in [] if layer is None else _around(layer.box, common):
            box = union(box, _painted(layer, part))
    if common is not None:
        was, now = old.values[within(common, old.box)], new.values[within(common, new.box)]
        box = union(box, moved(differing(was, now), common))
    return box


def _painted(layer: Layer, part: Box) -> Box | None:
    values = layer.values[within(part, layer.box)]
    return moved(boxWhere(values.shape, lambda planes: values[planes] != 0), part)


def moved(box: Box | None, origin: Box) -> Box | None:
    """A box within another one, as a box of the volume."""
    return None if box is None else tuple(slice(s.start + o.start, s.stop + o.start) for s, o in zip(box, origin, strict=True))


def _around(box: Box, inner: Box | None) -> Iterator[Box]:
    """The box without an inner one, in up to six boxes."""
    if inner is None:
        yield box
        return
    left = list(box)
    for axis, (whole_, hole) in enumerate(zip(box, inner, strict=True)):
        for start, stop in ((whole_.start, hole.start), (hole.stop, whole_.stop)):
            if start < stop:
                yield tuple([*left[:axis], slice(start, stop), *left[axis + 1 :]])
        left[axis] = hole


def _chunks(shape: Sequence[int]) -> Iterator[slice]:
    """A few planes along k at a time."""
    return (planes for planes, _ in pieces(whole(shape)))
