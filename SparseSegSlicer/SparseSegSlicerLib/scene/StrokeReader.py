"""A snapshot of the scene -> the annotation, and the box in which it changed. Plain numpy; may run in a thread, one call at a time.

What a stroke changes is found by comparing layers with those of the snapshot before, and merged, counted and digested in that box alone.
All is read anew where that would not do: other segments, another geometry, a segment that is painted for the first time or erased,
ignored slices (what an included slice crosses on them depends on all strokes). Both ways give the same.

A segment in which nothing is painted keeps its place in the table of segments, so that it can join in at any stroke. One that is made while a
training is under way, which does not know it, is left out until something is painted in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from sparseseg.annotation.labels import SegmentSummary
from sparseseg.annotation.slices import covering_slices, values_on
from sparseseg.annotation.unpainted import remark
from sparseseg.contract.box import Box, box_of, intersection, whole
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import InputError, SparseSegError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.settings import Settings

from ..i18n import number
from ..i18n import tr as _
from . import Claims, Merging
from .Grids import sliceCentre
from .Hinting import Given, Hinted, Hinting
from .Layers import LayerCopies
from .Snapshot import Snapshot
from .Tally import Tally

_PLANE_COORDINATE = {"sagittal": 0, "coronal": 1, "axial": 2}  # of RAS


@dataclass(frozen=True)
class Choices:
    """What the user decided about the strokes. Slices are (axis, index), axis 0 = k; segments are named by ID. table: the unpainted segments that
    have a place in the table all the same are among these, or have points; all of them are where it is None."""

    complete: tuple[tuple[int, int], ...] = ()
    ignored: tuple[tuple[int, int], ...] = ()
    unused: tuple[str, ...] = ()  # segments that take no part
    table: tuple[str, ...] | None = None
    hints: Given = field(default_factory=Given)


@dataclass(frozen=True)
class SliceRow:
    """One annotated slice. position_mm: its R, A or S coordinate; voxels: painted voxels by segment ID."""

    axis: int
    index: int
    plane: str
    position_mm: float
    voxels: dict[str, int]
    complete: bool
    ignored: bool


@dataclass(frozen=True)
class Strokes:
    """The annotation on the volume's grid: uint8 (K, J, I), 0 unlabelled, 1 background, 1 + c the c-th segment of `classes`.

    The array is the reader's own: a later read with the same classes and geometry writes its changes into it, so it may hold newer strokes
    than these, never older ones.
    """

    annotation: np.ndarray = field(repr=False)
    geometry: Geometry
    classes: ClassTable
    complete: tuple[tuple[int, int], ...]
    slices: tuple[SliceRow, ...]
    notes: tuple[str, ...]
    digest: int  # of the annotation's voxels: the same for the same strokes
    hinted: Hinted = field(default_factory=Hinted)


@dataclass(frozen=True)
class Reading:
    """changed: all voxels that differ from the reading before lie in this box; None where none does. problem: why the strokes cannot be trained
    on. current: whether `strokes.slices` and `summary` are those of these strokes; if not, `StrokeReader.details` gives them. emptied: IDs of the
    segments that hold an applied result no more, since all of it was erased."""

    strokes: Strokes
    summary: tuple[SegmentSummary, ...]
    problem: SparseSegError | None
    changed: Box | None
    current: bool
    emptied: tuple[str, ...] = ()


@dataclass
class _State:
    """What the reader knows of the last snapshot. codes: annotation value of each of its segments before, `renumber` after leaving out those
    that have no place in the table. held: voxels by code of segments that hold a result."""

    snapshot: Snapshot
    choices: Choices
    codes: np.ndarray
    renumber: np.ndarray
    overlaps: dict[tuple[int, int], int]
    outside: int
    tally: Tally
    strokes: Strokes
    held: np.ndarray
    summary: tuple[SegmentSummary, ...] = ()
    problem: SparseSegError | None = None

    @property
    def emptied(self) -> tuple[str, ...]:
        kept = self.snapshot.kept
        places = () if kept is None else kept.places
        gone = [place for place in places if not self.held[self.codes[place]] and any(place in layer.places.values() for layer in kept.result)]
        return tuple(self.snapshot.segments[place].id for place in gone)


class StrokeReader:
    def __init__(self, copies: LayerCopies | None = None) -> None:
        """copies: where the layers' memory is given back."""
        self._copies = copies
        self._state: _State | None = None
        self._hinting = Hinting()

    def read(self, snapshot: Snapshot, choices: Choices = Choices(), settings: Settings | None = None, quick: bool = False) -> Reading:
        """quick: leave slices and summary for later where they are not needed to know whether the strokes can be trained on."""
        before, self._state = self._state, None  # so that a read that fails is followed by a whole one
        follows = before is not None and snapshot.continues(before.snapshot) and not (choices.ignored or before.choices.ignored)
        follows = follows and _kept(snapshot, choices) == _kept(before.snapshot, before.choices)
        state, box = _followed(before, snapshot, choices) if follows else (None, None)
        anew = state is None
        if state is None:
            state, box = _whole(before, snapshot, choices)
        strokes = state.strokes
        hinted = self._hinting.beside(strokes.annotation, choices.hints, strokes.classes, strokes.geometry)
        state.strokes = replace(strokes, hinted=hinted, notes=_notes(state, hinted))
        current = anew or not quick or before.problem is not None or before.choices != choices
        if current:
            _detail(state, settings)
        if before is not None and self._copies is not None:
            self._copies.release(before.snapshot.allLayers, snapshot.allLayers)
        self._state = state
        return Reading(state.strokes, state.summary, state.problem, box, current, state.emptied)

    def details(self, settings: Settings | None = None) -> Reading | None:
        """Slices and summary of the last reading; None where there is none."""
        if self._state is None:
            return None
        _detail(self._state, settings)
        return Reading(self._state.strokes, self._state.summary, self._state.problem, None, True)


def readStrokes(snapshot: Snapshot, choices: Choices = Choices()) -> Strokes:
    """Merges the layers and drops ignored slices; `notes` says what the user should know."""
    return StrokeReader().read(snapshot, choices).strokes


def readResult(snapshot: Snapshot) -> tuple[np.ndarray, ClassTable]:
    """Dense labels, (K, J, I) uint8, 0 background, c the c-th segment of the table; a background segment is left out.

    Raises InputError where segments overlap, which a label map cannot hold.
    """
    codes = _codes(snapshot)
    annotation, overlaps = Merging.merged(snapshot.layers, codes, whole(snapshot.geometry.shape_kji))
    if overlaps:
        pair, voxels = next(iter(overlaps.items()))
        raise InputError(_overlapNote(snapshot, codes, pair, voxels), _("Erase one of the two there, or use Slicer's own export."))
    segments = tuple(segment for place, segment in enumerate(snapshot.segments) if place != snapshot.background)
    Merging.translate(annotation, np.maximum(np.arange(256), 1).astype(np.uint8) - np.uint8(1))
    return annotation, ClassTable(segments)


def filledSegments(snapshot: Snapshot) -> list[str]:
    """IDs of the segments that have voxels, but the background's."""
    painted = {layer.places[value] for layer in snapshot.layers for value in Merging.valuesIn(layer.values) & layer.places.keys()}
    return [snapshot.segments[place].id for place in sorted(painted - {snapshot.background})]


# -- the changed box -----------------------------------------------------------------------------------------------------


def _kept(snapshot: Snapshot, choices: Choices) -> list[bool]:
    """Which segments have a place in the table though nothing may be painted in them; the background, which needs none, never."""
    pointed = choices.hints.pointed
    return [
        place != snapshot.background and (choices.table is None or segment.id in choices.table or segment.id in pointed)
        for place, segment in enumerate(snapshot.segments)
    ]


def _followed(before: _State, snapshot: Snapshot, choices: Choices) -> tuple[_State | None, Box | None]:
    """The state after the one before, with the box that changed; (None, None) where that is not enough."""
    shape, strokes = snapshot.geometry.shape_kji, before.strokes
    box = Merging.changed(before.snapshot.layers, snapshot.layers)
    box = None if box is None else intersection(box, whole(shape))
    tally, overlaps, held, values = before.tally, before.overlaps, before.held, None
    if box is not None:
        _, gone = Claims.merged(before.snapshot, before.codes, box)
        raw, come = Claims.merged(snapshot, before.codes, box)
        overlaps = _exchanged(overlaps, gone, come)
        held = held + Claims.resultVoxels(snapshot, before.codes, box) - Claims.resultVoxels(before.snapshot, before.codes, box)
        values = before.renumber[raw]
        if (values[raw != 0] == 0).any():
            return None, None  # a segment that was left out has a voxel now
        part = box_of(values != strokes.annotation[box])
        if part is None:
            box = None
        else:
            box, values = tuple(slice(s.start + p.start, s.start + p.stop) for s, p in zip(box, part, strict=True)), values[part]
    if box is not None:
        tally = tally.replaced(box, strokes.annotation[box], values)
        if ((tally.voxels > 0) != (before.tally.voxels > 0)).any():
            return None, None  # a segment, or the background, has its first or lost its last one
        strokes.annotation[box] = values
    state = replace(before, snapshot=snapshot, choices=choices, tally=tally, overlaps=overlaps, outside=_outside(snapshot), held=held)
    classes = _classes(snapshot, before.codes, before.renumber)
    state.strokes = replace(strokes, classes=classes, complete=_complete(snapshot, choices), digest=tally.digest)
    return state, box


def _exchanged(overlaps: dict, gone: dict, come: dict) -> dict[tuple[int, int], int]:
    counts = {pair: overlaps.get(pair, 0) - gone.get(pair, 0) + come.get(pair, 0) for pair in sorted({*overlaps, *come})}
    return {pair: count for pair, count in counts.items() if count}


# -- the whole -------------------------------------------------------------------------------------------------------------


def _whole(before: _State | None, snapshot: Snapshot, choices: Choices) -> tuple[_State, Box | None]:
    shape, codes = snapshot.geometry.shape_kji, _codes(snapshot)
    annotation, overlaps = Claims.merged(snapshot, codes, whole(shape))
    rows: tuple[SliceRow, ...] = ()
    if choices.ignored:  # their rows tell what is painted there, so they are made before it is left out
        found = covering_slices(annotation, extra=choices.complete + choices.ignored)
        counts = values_on(annotation, found, len(snapshot.segments) + 2)
        segments = _byCode(snapshot, codes, None)
        rows = tuple(_sliceRow(snapshot, segments, pair, counts[pair], choices) for pair in found)
        _ignoreSlices(annotation, found, choices.ignored)
    renumber = _renumbering(annotation, snapshot, codes, _kept(snapshot, choices))
    if any(value and value != code for code, value in enumerate(renumber.tolist())):
        Merging.translate(annotation, renumber)
    classes = _classes(snapshot, codes, renumber)
    tally = Tally.of(annotation, len(classes) + 2)
    box: Box | None = whole(shape)
    old = before.strokes if before is not None else None
    if old is not None and old.classes.ids == classes.ids and old.annotation.shape == shape and not old.geometry.difference_from(snapshot.geometry):
        box = Merging.differing(old.annotation, annotation)
        if box is not None:
            old.annotation[box] = annotation[box]
        annotation = old.annotation
    strokes = Strokes(annotation, snapshot.geometry, classes, _complete(snapshot, choices), rows, (), tally.digest)
    state = _State(
        snapshot, choices, codes, renumber, overlaps, _outside(snapshot), tally, strokes, Claims.resultVoxels(snapshot, codes, whole(shape))
    )
    return state, box


def _codes(snapshot: Snapshot) -> np.ndarray:
    """The annotation value of each of the snapshot's segments, before any are left out."""
    places = len(snapshot.segments)
    codes = np.zeros(places, np.uint8)
    others = [place for place in range(places) if place != snapshot.background]
    codes[others] = np.arange(len(others)) + 2
    if snapshot.background >= 0:
        codes[snapshot.background] = 1
    return codes


def _renumbering(annotation: np.ndarray, snapshot: Snapshot, codes: np.ndarray, kept: Sequence[bool]) -> np.ndarray:
    """So that the segments that have voxels, or are kept, are 2, 3, ... without gaps; 0 for the others."""
    counts = Merging.labelledIn(annotation)
    renumber = np.zeros(len(snapshot.segments) + 2, np.uint8)
    renumber[1] = 1
    used = [place for place in range(len(snapshot.segments)) if place != snapshot.background and (counts[codes[place]] or kept[place])]
    for new, place in enumerate(used, start=2):
        renumber[codes[place]] = new
    return renumber


def _ignoreSlices(annotation: np.ndarray, found: Iterable[tuple[int, int]], ignored: Sequence[tuple[int, int]]) -> None:
    """Unlabels what lies on ignored slices, but not where an included slice crosses them."""
    keep = [pair for pair in found if pair not in ignored]
    for axis, index in ignored:
        if index >= annotation.shape[axis]:
            continue
        here = (slice(None),) * axis + (index,)
        plane = annotation[here]
        kept = plane.copy()
        plane[...] = 0
        others = [a for a in range(3) if a != axis]
        for a, i in keep:
            if a != axis:
                line = (slice(None),) * others.index(a) + (i,)
                plane[line] = kept[line]


# -- what is said about it -------------------------------------------------------------------------------------------------


def _detail(state: _State, settings: Settings | None) -> None:
    """Slices, summary, and what keeps the strokes from being trained on."""
    strokes, choices = state.strokes, state.choices
    if not choices.ignored:
        segments = _byCode(state.snapshot, state.codes, state.renumber)
        rows = tuple(_sliceRow(state.snapshot, segments, pair, state.tally.tables[pair[0]][pair[1]], choices) for pair in _covering(state))
        state.strokes = replace(strokes, slices=rows)
    try:
        if strokes.hinted.refusal is not None:
            raise strokes.hinted.refusal
        counted = state.tally.withComplete(strokes.annotation, strokes.complete)
        state.summary, state.problem = counted.summary(strokes.classes, settings or Settings(), strokes.hinted.voxels), None
    except SparseSegError as error:
        state.summary, state.problem = (), error


def _covering(state: _State) -> list[tuple[int, int]]:
    """The slices that hold the strokes, looked for only where there are any."""
    shape, bounds = state.snapshot.geometry.shape_kji, state.tally.bounds()
    extra = {(axis, index) for axis, index in state.choices.complete if index < shape[axis]}
    if bounds is None:
        return sorted(extra)
    inside = [(axis, index - bounds[axis].start) for axis, index in extra if bounds[axis].start <= index < bounds[axis].stop]
    found = covering_slices(state.strokes.annotation[bounds], extra=inside)
    return sorted(extra | {(axis, index + bounds[axis].start) for axis, index in found})


def _byCode(snapshot: Snapshot, codes: np.ndarray, renumber: np.ndarray | None) -> list[tuple[str, int]]:
    """(segment ID, annotation value), for those that have one."""
    values = codes if renumber is None else renumber[codes]
    return [(segment.id, int(value)) for segment, value in zip(snapshot.segments, values, strict=True) if value]


def _sliceRow(snapshot: Snapshot, segments: list[tuple[str, int]], pair: tuple[int, int], counts: np.ndarray, choices: Choices) -> SliceRow:
    axis, index = pair
    plane = snapshot.geometry.planes()[axis]
    position = sliceCentre(snapshot.geometry, axis, index)[_PLANE_COORDINATE[plane]]
    voxels = {sid: int(counts[value]) for sid, value in segments if counts[value]}
    return SliceRow(axis, index, plane, float(position), voxels, pair in choices.complete, pair in choices.ignored)


def _classes(snapshot: Snapshot, codes: np.ndarray, renumber: np.ndarray) -> ClassTable:
    used = [segment for place, segment in enumerate(snapshot.segments) if place != snapshot.background and renumber[codes[place]]]
    return ClassTable(tuple(used), snapshot.segments[snapshot.background] if snapshot.background >= 0 else None)


def _complete(snapshot: Snapshot, choices: Choices) -> tuple[tuple[int, int], ...]:
    shape = snapshot.geometry.shape_kji
    return tuple(pair for pair in choices.complete if pair not in choices.ignored and pair[1] < shape[pair[0]])


def _outside(snapshot: Snapshot) -> int:
    return sum(Merging.outside(layer, snapshot.geometry.shape_kji) for layer in snapshot.strokeLayers)


def _notes(state: _State, hinted: Hinted) -> tuple[str, ...]:
    snapshot, codes = state.snapshot, state.codes
    notes = [_overlapNote(snapshot, codes, pair, voxels) for pair, voxels in state.overlaps.items()]
    if snapshot.loose:
        notes.append(
            _("In {names}: a result without the strokes it was made from: all of it counts as strokes.").format(names=", ".join(snapshot.loose))
        )
    if state.outside:
        notes.append(_("{count} painted voxels lie outside of the volume and are not used.").format(count=number(state.outside)))
    voxels, values = state.tally.voxels, state.renumber[codes]
    empty, out = [], []
    for place, segment in enumerate(snapshot.segments):
        labelled = values[place] and (voxels[values[place]] or hinted.labels(int(values[place])))
        if place != snapshot.background and not labelled:
            (empty if values[place] else out).append(segment.name)
    if empty:
        notes.append(" ".join(remark(empty)))
    if out:
        notes.append(_("Nothing is painted in {names}; left out.").format(names=", ".join(out)))
    return tuple(notes)


def _overlapNote(snapshot: Snapshot, codes: np.ndarray, pair: tuple[int, int], voxels: int) -> str:
    names = [snapshot.segments[int(np.flatnonzero(codes == code)[0])].name for code in pair]
    said = _("{first} and {second} overlap in {count} voxels, which count as unlabelled.")
    return said.format(first=names[0], second=names[1], count=number(voxels))
