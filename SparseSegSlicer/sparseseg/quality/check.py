"""Where paint and everything else disagree: structures that were forgotten on a complete slice, or painted as another segment.

Each annotated slice is held out in turn, some at a time, and compared with what is believed there without it. Where that is another segment than
what is painted, connected voxels are a piece. How sure it is that a piece is a mistake follows from its Evidence, with weights that were fitted to
simulated mistakes (docs/accuracy.md). What a surer mistake explains is left out: its mirror image on the slices that were compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import SimpleITK as sitk

from ..annotation.labels import Annotation
from ..annotation.slices import covering_slices, plane
from ..contract.aside import Aside, at_once
from ..contract.belief import Belief
from ..contract.box import Box, intersection
from ..contract.classes import ClassTable
from ..contract.geometry import Geometry
from ..contract.place import Place
from ..contract.scratch import Zeros, put
from .estimate import counted

Plane = tuple[int, int]  # axis, index
Pixels = tuple[np.ndarray, np.ndarray]  # rows and columns on a slice

_FOLDS = 4  # so many growings, each from three quarters of the slices
_BRUSH = 2  # slices to both sides that a stroke may reach
_LEAST_AREA, _LEAST_STROKE = 12, 6  # voxels of a piece of a complete slice, and of a stroke
_LEAST_THICKNESS, _MOST_THICKNESS = 2, 5  # of a piece of a complete slice: a contour may be off by a voxel; more is as good
_LEAST_CROSSING = 4  # labelled voxels beside a piece of a complete slice, to say anything
_GRAY_BINS = 32
_AS_GOOD_AS_NONE = 50  # voxels that say little of how reliable a belief is
_NEAR = 3  # voxels: how far from a mistake its mirror image may lie
_MOST = 50  # pieces that are reported
LEAST_SURE = 0.36


@dataclass(frozen=True)
class Evidence:
    """What speaks for a mistake, or against it: numbers from about -2 to 5."""

    cover: float  # of the structure (the believed one where background is painted, else the painted one) or of the stroke, 0..1
    gray: float  # mean log likelihood ratio of the gray values, as the believed class against as the painted one, -2..2
    crossing: float  # of the labels right beside it, on other slices: share of the believed class less that of the painted one, -1..1
    painted_right: float  # share of the painted segment that is believed to be it, on this slice, 0..1; 0 of background on complete slices
    reliability: float  # how often the segment is believed rightly, on all held-out slices but for this piece, 0..1; 0.5 where it never is believed
    confidence: float  # of the belief, 0..1
    thickness: float  # how often it can be eroded by a voxel
    size: float  # log of its voxels to those that the believed segment has on other slices of the axis, -2..2
    missing: float  # 1 where the believed segment is not painted on this slice at all, else 0
    between: float  # 1 where there are annotated slices before and after, else 0
    on_both: float  # the believed class's share of its place on the annotated slices before and after: the lower one, 0..1
    painted_near: float  # the painted class's share there: the higher one, 0..1


Weights = Mapping[str, float]  # of Evidence by name, and "constant"
ON_SLICES: Weights = {
    "constant": -9.38,
    "cover": 4.69,
    "gray": 0.65,
    "crossing": 3.99,
    "painted_right": 0.44,
    "thickness": 0.47,
    "size": 0.48,
    "missing": 1.80,
    "between": 1.55,
    "on_both": 4.00,
    "painted_near": -1.31,
}
ON_STROKES: Weights = {
    "constant": -11.30,
    "cover": 6.50,
    "gray": 1.50,
    "crossing": 1.16,
    "painted_right": -1.47,
    "reliability": 5.17,
    "confidence": 2.67,
}


@dataclass(frozen=True)
class Piece:
    """Connected voxels of one slice that are painted as one class and believed to be another segment.

    voxels: their k, j and i; painted, believed: label values, 0 background; complete: whether the whole slice is labelled.
    """

    axis: int
    index: int
    voxels: tuple[np.ndarray, ...]
    box: Box
    painted: int
    believed: int
    complete: bool
    evidence: Evidence


@dataclass(frozen=True)
class Doubt:
    """A piece that is probably a mistake, and the chance of that, 0..1."""

    piece: Piece
    sureness: float

    def stands(self, annotation: Annotation) -> bool:
        """Whether all of its voxels are still painted as they were."""
        at, painted = self.piece.voxels, self.piece.painted
        return bool((annotation.labelled[at] & (annotation.labels[at] == painted)).all())

    def place(self, classes: ClassTable, geometry: Geometry) -> Place:
        piece = self.piece
        names = [classes.background.name if classes.background else "background", *classes.names]
        ids = ["", *classes.ids]
        k, j, i = _middle(piece.voxels)
        sentence = _sentence(piece, names, geometry.planes()[piece.axis])
        sureness = round(self.sureness, 3)
        return Place(piece.axis, piece.index, piece.box, (i, j, k), ids[piece.painted], ids[piece.believed], len(piece.voxels[0]), sureness, sentence)


def doubts(
    image: np.ndarray,
    annotation: Annotation,
    believed_without: Callable[[np.ndarray], Belief],
    aside: Aside = at_once,
    zeros: Zeros = np.zeros,
) -> list[Doubt]:
    """Probable mistakes of an annotation, the surest first. image: (K, J, I); believed_without: what is believed from the labels in a mask, (K, J, I)
    bool, alone; aside: what else is long is done with it; zeros: makes arrays of the volume's size."""
    found = pieces(image, annotation.labels, annotation.labelled, len(annotation.rows), believed_without, aside, zeros)
    return listed([Doubt(piece, sureness(piece)) for piece in found])


def listed(found: Sequence[Doubt], least_sure: float = LEAST_SURE) -> list[Doubt]:
    """Those that are sure enough and not explained by a surer one, the surest first."""
    kept: list[Doubt] = []
    for doubt in sorted(found, key=lambda d: -d.sureness):
        if doubt.sureness < least_sure or len(kept) == _MOST:
            break
        if not any(_explains(other.piece, doubt.piece) for other in kept):
            kept.append(doubt)
    return kept


def sureness(piece: Piece, on_slices: Weights = ON_SLICES, on_strokes: Weights = ON_STROKES) -> float:
    """The chance that a piece is a mistake, 0..1."""
    weights = on_slices if piece.complete else on_strokes
    total = sum(weight * (1.0 if name == "constant" else getattr(piece.evidence, name)) for name, weight in weights.items())
    return float(1 / (1 + np.exp(-total)))


def _explains(surer: Piece, piece: Piece) -> bool:
    """Whether a piece is the same mistake, or its mirror image: where that is taken for right, what was compared with it seems wrong."""
    if intersection(surer.box, piece.box) is not None:
        return True
    mirrored = piece.believed == surer.painted
    if piece.axis != surer.axis:
        return mirrored and _meet(surer.box, piece.box, _NEAR, range(3))
    if not _meet(surer.box, piece.box, 0, [a for a in range(3) if a != piece.axis]):
        return False
    return mirrored or (piece.painted == surer.painted and abs(piece.index - surer.index) <= _NEAR)


def _meet(one: Box, other: Box, margin: int, axes: Sequence[int]) -> bool:
    return all(max(one[a].start, other[a].start) < min(one[a].stop, other[a].stop) + margin for a in axes)


# -- holding out -------------------------------------------------------------------------------------------------------


def annotated(labelled: np.ndarray) -> list[Plane]:
    """The slices that hold the annotation, labelled throughout or with strokes."""
    full = [(axis, int(n)) for axis in range(3) for n in np.flatnonzero(labelled.all(axis=tuple(a for a in range(3) if a != axis)))]
    return covering_slices(labelled, full)


def folds(planes: Sequence[Plane], labelled: np.ndarray) -> list[list[Plane]]:
    """The slices in some parts, neighbours in different ones; but strokes of a thick brush, on slices side by side, in the same."""
    found: list[list[Plane]] = [[] for _ in range(_FOLDS)]
    turn, last = -1, (-1, 0)
    for at in planes:
        beside = at[0] == last[0] and at[1] - last[1] <= _BRUSH
        turn += not beside or bool(labelled[plane(*at)].all())
        found[turn % _FOLDS].append(at)
        last = at
    return [fold for fold in found if fold]


def without(labelled: np.ndarray, fold: Sequence[Plane], zeros: Zeros = np.zeros) -> np.ndarray:
    """A mask without these slices; around those with strokes without what the same strokes may reach."""
    rest = zeros(labelled.shape, bool)
    put(rest, labelled)
    for axis, index in fold:
        reach = 0 if labelled[plane(axis, index)].all() else _BRUSH
        np.moveaxis(rest, axis, 0)[max(0, index - reach) : index + reach + 1] = False
    return rest


@dataclass(frozen=True)
class _Slice:
    """Annotation, belief without it, and gray values of a slice, (rows, columns) each; beside: annotation of the slices next to it, 0 unlabelled,
    1 + label."""

    axis: int
    index: int
    labels: np.ndarray
    labelled: np.ndarray
    believed: np.ndarray
    confidence: np.ndarray
    gray: np.ndarray
    beside: list[np.ndarray]
    complete: bool

    def has(self, value: int) -> np.ndarray:
        return self.labelled & (self.labels == value)

    def share(self, at: Pixels, value: int) -> float:
        """Of the labelled ones of some pixels, those with this label."""
        there = self.labelled[at]
        return float((self.labels[at][there] == value).mean()) if there.any() else 0.0


def _look(at: Plane, image: np.ndarray, labels: np.ndarray, labelled: np.ndarray, belief: Belief) -> _Slice:
    here = plane(*at)
    mine, known, believed, confidence, gray = (np.array(array[here]) for array in (labels, labelled, belief.label, belief.confidence, image))
    near = [plane(at[0], n) for n in range(at[1] - _BRUSH, at[1] + _BRUSH + 1) if n != at[1] and 0 <= n < labels.shape[at[0]]]
    beside = [np.where(labelled[n], labels[n] + 1, 0) for n in near]
    return _Slice(*at, mine, known, believed, confidence, gray, beside, bool(known.all()))


# -- pieces ------------------------------------------------------------------------------------------------------------


def pieces(
    image: np.ndarray,
    labels: np.ndarray,
    labelled: np.ndarray,
    classes: int,
    believed_without: Callable[[np.ndarray], Belief],
    aside: Aside = at_once,
    zeros: Zeros = np.zeros,
) -> list[Piece]:
    """All that is painted as one class, and believed to be another segment without its slice. labels (K, J, I) uint8, labelled bool; classes with
    background."""
    slices: list[_Slice] = []
    for fold in aside(lambda: folds(annotated(labelled), labelled)):
        rest, is_enough = aside(partial(_rest, labels, labelled, fold, zeros))
        if is_enough:
            belief = believed_without(rest)
            slices += [_look(at, image, labels, labelled, belief) for at in fold]
    return aside(lambda: _pieces_of(slices, classes)) if slices else []


def _rest(labels: np.ndarray, labelled: np.ndarray, fold: Sequence[Plane], zeros: Zeros) -> tuple[np.ndarray, bool]:
    """What is labelled without some slices, and whether there are segments and background in it."""
    rest = without(labelled, fold, zeros)
    counts = counted(labels, rest, 256)
    return rest, bool(counts[0] and counts[1:].any())


def _pieces_of(slices: Sequence[_Slice], classes: int) -> list[Piece]:
    known = _Known(slices, _Grays(slices, classes), *_records(slices, classes))
    return [_piece(one, known, *part) for one in slices for part in (_parts(one, classes) if one.complete else _strokes(one, classes))]


def _parts(one: _Slice, classes: int) -> Iterator[tuple[Pixels, int, int, float]]:
    """Of a complete slice, each piece that a contour's imprecision does not explain: its pixels, painted and believed label, and cover."""
    code = np.where((one.believed != one.labels) & (one.believed > 0), one.labels.astype(np.int32) * classes + one.believed, 0)
    for value in np.unique(code[code > 0]).tolist():
        painted, believed = divmod(value, classes)
        structures = _components(one.labels == painted if painted else one.believed == believed)
        sizes = np.bincount(structures.ravel())
        for at in _spots(code == value, _LEAST_AREA):
            if _thickness(at) >= _LEAST_THICKNESS:
                yield at, painted, believed, len(at[0]) / int(sizes[structures[at][0]])


def _strokes(one: _Slice, classes: int) -> Iterator[tuple[Pixels, int, int, float]]:
    """Of each stroke, the part that is believed to be the segment which most of it is believed to be, if not the painted one."""
    for painted in np.unique(one.labels[one.labelled]).tolist():
        for at in _spots(one.has(painted), _LEAST_STROKE):
            votes = np.bincount(one.believed[at], minlength=classes)
            votes[painted] = 0
            believed = int(votes.argmax())
            if believed and votes[believed]:
                mine = one.believed[at] == believed
                yield (at[0][mine], at[1][mine]), painted, believed, float(mine.mean())


def _records(slices: Sequence[_Slice], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """How many labelled voxels of the slices are believed to be each class, rightly and wrongly; (classes,) int64 both."""
    counts = np.zeros((2, classes), np.int64)
    for one in slices:
        same = one.believed == one.labels
        for row, mask in zip(counts, (same, ~same), strict=True):
            row += np.bincount(one.believed[one.labelled & mask], minlength=classes)
    return counts[0], counts[1]


@dataclass(frozen=True)
class _Known:
    """What pieces are weighed against."""

    slices: Sequence[_Slice]
    grays: _Grays
    right: np.ndarray
    wrong: np.ndarray


def _piece(one: _Slice, known: _Known, at: Pixels, painted: int, believed: int, cover: float) -> Piece:
    mine = [s for s in known.slices if s.axis == one.axis]
    before = max((s for s in mine if s.index < one.index), key=lambda s: s.index, default=None)
    after = min((s for s in mine if s.index > one.index), key=lambda s: s.index, default=None)
    around = [s for s in (before, after) if s is not None]
    areas = [n for s in mine if s is not one and (n := int(s.has(believed).sum()))]
    painted_here, right = one.has(painted), int(known.right[believed])
    wrong = max(0, int(known.wrong[believed]) - len(at[0]))
    evidence = Evidence(
        cover=cover,
        gray=_limited(known.grays.ratio(one.gray[at], painted, believed)),
        crossing=_crossing(one, at, painted, believed),
        painted_right=0.0 if one.complete and not painted else float((one.believed[painted_here] == painted).mean()),
        reliability=(right + _AS_GOOD_AS_NONE) / (right + wrong + 2 * _AS_GOOD_AS_NONE),
        confidence=float(one.confidence[at].mean()) / 255,
        thickness=float(_thickness(at)),
        size=_limited(float(np.log((len(at[0]) + 5) / ((np.mean(areas) if areas else 0) + 20)))),
        missing=float(not one.has(believed).any()),
        between=float(len(around) == 2),
        on_both=min((s.share(at, believed) for s in around), default=0.0) if len(around) == 2 else 0.0,
        painted_near=max((s.share(at, painted) for s in around), default=0.0),
    )
    voxels = [*at]
    voxels.insert(one.axis, np.full(len(at[0]), one.index))
    k, j, i = (slice(int(n.min()), int(n.max()) + 1) for n in voxels)
    return Piece(one.axis, one.index, tuple(voxels), (k, j, i), painted, believed, one.complete, evidence)


def _crossing(one: _Slice, at: Pixels, painted: int, believed: int) -> float:
    yes, no = (sum(int((beside[at] == value + 1).sum()) for beside in one.beside) for value in (believed, painted))
    least = _LEAST_CROSSING if one.complete else 1
    return (yes - no) / (yes + no) if yes + no >= least else 0.0


def _limited(value: float) -> float:
    return float(np.clip(value, -2, 2))


class _Grays:
    """Histograms of each class's gray values on annotated slices, in bins with equally many of them all."""

    def __init__(self, slices: Sequence[_Slice], classes: int) -> None:
        values = np.concatenate([s.gray[s.labelled].astype(np.float32) for s in slices])
        labels = np.concatenate([s.labels[s.labelled] for s in slices]).astype(np.int64)
        self._edges = np.unique(np.quantile(values, np.linspace(0, 1, _GRAY_BINS + 1)[1:-1]))
        width = len(self._edges) + 1
        self._counts = np.bincount(labels * width + self._bins(values), minlength=classes * width).reshape(classes, width)

    def _bins(self, values: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._edges, values.astype(np.float32), "right")

    def ratio(self, values: np.ndarray, painted: int, believed: int) -> float:
        """Mean log likelihood ratio, as the believed class against as the painted one, of which these values are no part."""
        mine = np.bincount(self._bins(values), minlength=self._counts.shape[1])
        chances = [_chances(counts) for counts in (self._counts[believed], self._counts[painted] - mine)]
        return float(np.log(chances[0] / chances[1]) @ mine / len(values))


def _chances(counts: np.ndarray) -> np.ndarray:
    padded = np.pad(counts.astype(np.float64), 1, mode="edge")
    smooth = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    return (smooth + 0.5) / (counts.sum() + 0.5 * len(counts))


# -- masks -------------------------------------------------------------------------------------------------------------


def _components(mask: np.ndarray) -> np.ndarray:
    """(rows, columns) int, numbered from 1; corners connect."""
    return sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True))


def _spots(mask: np.ndarray, least: int) -> list[Pixels]:
    """The pixels of each connected component of so many at least."""
    parts = _components(mask)
    rows, columns = np.nonzero(parts)
    numbers = parts[rows, columns]
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers)[1:])[:-1]
    return [(rows[n], columns[n]) for n in np.split(order, ends) if len(n) >= least]


def _thickness(at: Pixels) -> int:
    """How often these pixels can be eroded by one until none is left."""
    inner = np.zeros([int(n.max() - n.min()) + 3 for n in at], bool)
    inner[at[0] - at[0].min() + 1, at[1] - at[1].min() + 1] = True
    times = 0
    while inner.any() and times < _MOST_THICKNESS:
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        times += 1
    return times


# -- words -------------------------------------------------------------------------------------------------------------


def _middle(voxels: tuple[np.ndarray, ...]) -> tuple[int, int, int]:
    """The one nearest to their centre of gravity."""
    nearest = int(sum((n - n.mean()) ** 2 for n in voxels).argmin())
    k, j, i = (int(n[nearest]) for n in voxels)
    return k, j, i


def _sentence(piece: Piece, names: Sequence[str], orientation: str) -> str:
    painted, believed, count = names[piece.painted], names[piece.believed], len(piece.voxels[0])
    where = f"{orientation} slice {piece.index}"
    if piece.painted == 0 and piece.complete:
        return f"The {where} is complete, but what looks like {believed} is background there ({count} voxels)."
    what = "what is painted as" if piece.complete else "a stroke of"
    return f"On the {where}, {what} {painted} looks like {believed} ({count} voxels)."
