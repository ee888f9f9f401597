"""The growing voice: what growing and interpolation say from the annotation alone, and how far to trust them, kept up to date stroke by stroke.

Growings that mind distance differently vote on every voxel. Confidence follows from their agreement, from shape interpolation where complete
slices allow it, and from how far the label had to travel. (Interpolation has no vote: on CT and MR with 3 to 9 complete slices growing is right
more often, and a vote lowered the mean Dice.)

Region, grid and levels (the Plan) are chosen when growing starts and stay until it is renewed; with the same plan an update gives what starting on
the new annotation would, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ..contract.belief import Belief
from ..contract.box import Box, box_of, intersection, moved, shape_of, slabs, union, whole, with_margin, within
from ..contract.scratch import Zeros, put, read_ahead
from . import scales
from .field import Field
from .grid import Grid, coarsening, region, rows_in_doubt
from .growing import TOP_LEVEL
from .scales import Plan, choose_factors
from .standing import MARGIN, trust
from .together import THREADS, Tick, together
from .vote import count_plane, taps

Show = Callable[[np.ndarray], None]

_OUTSIDE = 250  # confidence in background beyond the region
_PLANES = 16  # in which labels are put back at a time


def compute_prior(
    image: np.ndarray,
    labels: np.ndarray,
    labelled: np.ndarray,
    spacing_kji_mm: Sequence[float],
    tick: Tick = lambda: None,
    early: Show | None = None,
) -> Belief:
    """First guess at every voxel; arguments as of Grown.start."""
    grown = Grown.start(image, labels, labelled, spacing_kji_mm, tick, early)
    return Belief(grown.label, grown.confidence)


class Grown:
    """label and confidence as in Belief, changed in place by update and renew; what is labelled keeps its label, with confidence 255, or less where
    it is in doubt (standing.py). renewals: how often it began anew.

    If tick raises in the midst of update or renew, both are unfinished until the next of these, which then begins anew by itself.
    """

    def __init__(
        self,
        image: np.ndarray,
        spacing_kji_mm: Sequence[float],
        origin: np.ndarray | None = None,
        bounds: Box | None = None,
        reached: Box | None = None,
        zeros: Zeros = np.zeros,
    ) -> None:
        self.label, self.confidence = zeros(image.shape, np.uint8), zeros(image.shape, np.uint8)
        self.renewals = -1
        self._image, self._origin, self._bounds, self._zeros = image, origin, bounds, zeros
        self._spacing = tuple(float(s) for s in spacing_kji_mm)
        self._field: Field | None = None
        self._reached = reached

    @classmethod
    def start(
        cls,
        image: np.ndarray,
        labels: np.ndarray,
        labelled: np.ndarray,
        spacing_kji_mm: Sequence[float],
        tick: Tick = lambda: None,
        early: Show | None = None,
        plan: Plan | None = None,
        origin: np.ndarray | None = None,
        bounds: Box | None = None,
        reached: Box | None = None,
        zeros: Zeros = np.zeros,
    ) -> Grown:
        """image: (K, J, I), any real type, may be a memory map and is kept; labels: (K, J, I) uint8, 0 background, c segment c, used where
        labelled, (K, J, I) bool. Slices that are labelled throughout are interpolated between. tick is called several times a second; what it
        raises ends the work. early is given `label`, (K, J, I) uint8, once, as soon as a first answer is there, to copy what it keeps.
        plan: of another Grown, to be kept.
        origin: (K, J, I) uint8, where labels came from, as in annotation.labels, kept and looked at again at each update; None: all strokes.
        bounds: where segments lie, whatever was painted: a point says little about how far they go. reached: where segments were grown before;
        it goes on to reach as far as ever, so that nothing vanishes as more is painted. zeros makes label and confidence.
        """
        grown = cls(image, spacing_kji_mm, origin, bounds, reached, zeros)
        grown.renew(labels, labelled, tick, early, plan)
        return grown

    @property
    def plan(self) -> Plan | None:
        """Region, grid and levels; None where nothing is labelled."""
        return None if self._field is None else self._field.plan

    def renew(self, labels: np.ndarray, labelled: np.ndarray, tick: Tick = lambda: None, early: Show | None = None, plan: Plan | None = None) -> Box:
        """Everything anew, with a new plan where none is given. Returns the box of all voxels."""
        self.renewals += 1
        self._field = None
        classes = _classes(labels, labelled)
        if not classes:
            self.label[:], self.confidence[:], self._reached = 0, 0, None
            return whole(self.label.shape)
        grid = plan.grid if plan else self._choose_grid(labels, labelled, tick)
        if early is not None and np.prod(grid.shape) > 2 * scales.QUICK_CELLS:
            size = [s.stop - s.start for s in grid.region]
            quick = Grid.of(grid.region, coarsening(size, self._spacing, scales.QUICK_CELLS), self._spacing)
            self._decide(self._field_on(quick, labels, labelled, classes, tick), labels, labelled, tick, is_trusted=True)
            early(self.label)
            early = None
        field = self._field_on(grid, labels, labelled, classes, tick, plan)
        self._decide(field, labels, labelled, tick)
        if early is not None:
            early(self.label)
        self._field, self._reached = field, grid.region
        return whole(self.label.shape)

    def update(self, box: Box, labels: np.ndarray, labelled: np.ndarray, tick: Tick = lambda: None) -> Box | None:
        """labels and labelled are now these, the same as before outside of the box. Returns the box of the voxels whose label or confidence
        changed, None where none did.

        It begins anew, as renew does, where the plan cannot hold the change: a class without labels so far, or a segment's label outside of the
        region.
        """
        box = self._within(box)
        field = self._field
        if field is None or self._outgrown(field.plan, box, labels, labelled):
            return self.renew(labels, labelled, tick)
        self._field = None  # until all is done
        grid = field.plan.grid
        cells = grid.cells(with_margin(box, MARGIN, labels.shape))  # labels beside new ones may be in doubt now
        again = None if cells is None else field.update(grid.pool(self._image, labels, labelled, cells, tick, self._origin), cells, tick)
        touched = union(box, None if again is None else grid.voxels(again[0]))
        assert touched is not None
        read_ahead(touched, self.label, self.confidence, labelled, labels)
        before = [self._copy(array, touched) for array in (self.label, self.confidence)]
        self.label[box], self.confidence[box] = 0, _OUTSIDE
        if again is not None:
            self._count(field, again[0], again[1], tick)
        self._keep_labels(field, box if again is None else touched, labels, labelled)
        self._field = field
        return union(*(self._changed_in(slab, [old[within(slab, touched)] for old in before]) for slab in slabs(touched)))

    def _copy(self, array: np.ndarray, box: Box) -> np.ndarray:
        copied = self._zeros(shape_of(box), np.uint8)
        put(copied, array[box])
        return copied

    def _changed_in(self, box: Box, before: Sequence[np.ndarray]) -> Box | None:
        changed = box_of((self.label[box] != before[0]) | (self.confidence[box] != before[1]))
        return None if changed is None else moved(changed, [s.start for s in box])

    def forget(self, image: np.ndarray | None = None) -> None:
        """Let the next update or renew begin anew; of another image of the same shape, where one is given."""
        self._field = None
        self._image = self._image if image is None else image

    def _choose_grid(self, labels: np.ndarray, labelled: np.ndarray, tick: Tick) -> Grid:
        where = union(region(labels, labelled, tick, self._bounds), self._reached)
        assert where is not None
        return Grid.of(where, choose_factors(self._image, labels, labelled, where, self._spacing, tick), self._spacing)

    def _field_on(self, grid: Grid, labels: np.ndarray, labelled: np.ndarray, classes: frozenset[int], tick: Tick, plan: Plan | None = None) -> Field:
        cells = grid.pool(self._image, labels, labelled, None, tick, self._origin)
        return Field.start(plan or Plan.of(grid, cells, classes, tick), cells, tick)

    def _outgrown(self, plan: Plan, box: Box, labels: np.ndarray, labelled: np.ndarray) -> bool:
        there = labelled[box]
        painted = np.unique(labels[box][there])
        if not plan.classes.issuperset(painted.tolist()):
            return True
        near = intersection(box, plan.grid.region)
        if near == box or not painted.any():
            return False
        outside = there & (labels[box] > 0)
        if near is not None:
            outside[within(near, box)] = False
        return bool(outside.any())

    def _decide(self, field: Field, labels: np.ndarray, labelled: np.ndarray, tick: Tick, is_trusted: bool = False) -> None:
        """Every voxel, from what the field says. is_trusted: it is not asked which labels are in doubt, as nobody asks for confidence."""
        self._forget_outside(field.plan.grid.region)
        shape = field.plan.grid.shape
        self._count(field, whole(shape), np.ones(shape, bool), tick)
        self._keep_labels(field, whole(self.label.shape), labels, labelled, tick, is_trusted)

    def _forget_outside(self, region: Box) -> None:
        """Background beyond the region; what is inside is left, as it is decided anyway: filling costs as much as deciding."""
        for axis, inside_ in enumerate(region):
            for beyond in (slice(0, inside_.start), slice(inside_.stop, None)):
                part = (*region[:axis], beyond, *[slice(None)] * (2 - axis))
                self.label[part], self.confidence[part] = 0, _OUTSIDE

    def _count(self, field: Field, box: Box, again: np.ndarray, tick: Tick) -> None:
        """The votes once more for those cells of a box that are marked."""
        grid = field.plan.grid
        label, confidence, weights, factor = self.label[grid.region], self.confidence[grid.region], taps(grid), grid.factors[0]

        def planes(first: int, look_up: Tick) -> None:
            marked = np.zeros(grid.shape[1:], bool)
            for k in range(box[0].start + first, box[0].stop, THREADS):
                look_up()
                marked[box[1:]] = again[k - box[0].start]
                slab = slice(k * factor, (k + 1) * factor)
                count_plane(field.ballots, weights, k, marked, TOP_LEVEL, label[slab], confidence[slab])

        together([partial(planes, first) for first in range(THREADS)], tick)

    def _keep_labels(
        self, field: Field, box: Box, labels: np.ndarray, labelled: np.ndarray, tick: Tick = lambda: None, is_trusted: bool = False
    ) -> None:
        """What is labelled stands; its confidence says how far it is trusted."""
        for k in range(box[0].start, box[0].stop, _PLANES):
            tick()
            known = [n for n in range(k, min(k + _PLANES, box[0].stop)) if labelled[n][box[1:]].any()]
            for plane in ((slice(n, n + 1), box[1], box[2]) for n in known):
                np.copyto(self.label[plane], labels[plane], where=labelled[plane])
                np.copyto(self.confidence[plane], np.uint8(255), where=labelled[plane])
            if known and not is_trusted:
                self._doubt(field, (slice(known[0], known[-1] + 1), box[1], box[2]), labels, labelled)

    def _doubt(self, field: Field, part: Box, labels: np.ndarray, labelled: np.ndarray) -> None:
        """Labels in doubt are trusted as far as those growings have the same that have not seen them."""
        grid = field.plan.grid
        near = intersection(part, grid.region)
        if near is None:
            return
        for rows, doubt in rows_in_doubt(near, labels, labelled, self._origin):
            voxels = tuple(a + s.start for a, s in zip(np.nonzero(doubt), rows, strict=True))
            cells = tuple((v - r.start) // f for v, r, f in zip(voxels, grid.region, grid.factors, strict=True))
            self.confidence[voxels] = trust(field.ballots.labels[:, *cells][list(field.plan.firm)], labels[voxels])

    def _within(self, box: Box) -> Box:
        return intersection(box, whole(self.label.shape)) or (slice(0, 0), slice(0, 0), slice(0, 0))


def _classes(labels: np.ndarray, labelled: np.ndarray) -> frozenset[int]:
    """That some voxel is labelled with; plane by plane, so that nothing of the volume's size is made."""
    there = np.zeros(256, bool)
    for value, known in zip(labels, labelled, strict=True):
        if known.any():
            there[value[known]] = True
    return frozenset(np.flatnonzero(there).tolist())
