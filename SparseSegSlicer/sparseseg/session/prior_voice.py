"""Growing and refiner as one voice, and what stands of it: near a correction the newest belief, far from it what the user saw.

A correction is answered twice. `answer` takes it into growing and merges that into what stands, without changing it: a few hundredths of a
second. `refine` lets the refiner look at what changed; its word then stands. Corrections that come faster than the refiner are refined together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..annotation.discriminant import Gray
from ..annotation.labels import Annotation
from ..annotation.revision import Revision
from ..contract.aside import aside
from ..contract.belief import Belief
from ..contract.box import Box, Part, box_among, joined, joined_parts, planes, shape_of, slabs, whole, within
from ..contract.errors import ModelError
from ..contract.scratch import Zeros, read_ahead
from ..contract.settings import Settings
from ..prior import compiled
from ..prior.grown import Grown
from ..prior.reach import Reach
from ..prior.scales import Plan
from ..prior.standing import precision
from ..quality.fusion import pool
from .devices import DeviceChoice
from .judge import choose_use

if TYPE_CHECKING:
    from ..prior.refiner import Refined

_WARM_UP_S = 2.0  # for compiled kernels, before growing begins without them
_LEAST_SLICES = 2  # of a segment, for the refiner to be asked: from points and single slices it never learned
_RENEW_AFTER = 10  # corrections, until levels and region follow the annotation again
Tick = Callable[[], None]


@dataclass
class _Open:
    """Corrections that the refiner has not seen. boxes: where growing, annotation or the answer to them may be others than what it saw; changes:
    where annotation differs from what stands was made of; whole_slices: whether they are about more than spots."""

    boxes: list[Box]
    changes: tuple[Part, ...]
    whole_slices: bool

    def reach(self, *boxes: Box | None) -> None:
        """These, too."""
        self.boxes = joined([*self.boxes, *(box for box in boxes if box is not None)])


class PriorVoice:
    """stands: the belief that is shown and trained on, (K, J, I) uint8 both, changed in place; complete once `refine_all` was called."""

    def __init__(
        self,
        channels: np.ndarray,
        spacing_kji_mm: tuple[float, float, float],
        settings: Settings,
        devices: DeviceChoice,
        tick: Tick,
        warn: Callable[[str, str, str], None] = lambda *_: None,
        zeros: Zeros = np.zeros,
    ) -> None:
        """channels: (C, K, J, I), seen as one gray value a voxel. settings.refine: whether there is a refiner at all, or growing stands as it is;
        settings.smooth_contours: whether it may overrule labels in doubt. warn: takes code, sentence and advice. zeros: makes arrays of the volume's
        size."""
        self._channels, self._spacing, self._devices, self._tick = channels, spacing_kji_mm, devices, tick
        self._gray = Gray(channels, channels[0])
        self._warn, self._settings, self._zeros = warn, settings, zeros
        self._refines, self._smooths = settings.refine, settings.smooth_contours and settings.refine
        self.grown: Grown | None = None
        self._refined: Refined | None = None
        self._reach: Reach | None = None
        self._unreached: list[Box] = []  # where it does not know the annotation yet
        self._open: _Open | None = None
        self._corrections = 0  # since levels and region were chosen
        self.use: list[bool] | None = None  # which segments the refiner corrects
        self._shown: list[bool] | None = None  # which are painted well enough for it; None: not looked at yet
        self._used: list[bool] | None = None  # which it did in what stands; None: all
        self._stands: Belief | None = None

    @property
    def stands(self) -> Belief:
        assert self._stands is not None
        return self._stands

    @property
    def gray(self) -> np.ndarray:
        """The gray values that it looks at, (K, J, I): as they were chosen when growing began."""
        return self._gray.image

    @property
    def region(self) -> Box:
        """The part of the volume beyond which it says background."""
        assert self.grown is not None
        return whole(self.grown.label.shape) if self.grown.plan is None else self.grown.plan.grid.region

    @property
    def is_complete(self) -> bool:
        return self._stands is not None

    def is_for(self, settings: Settings) -> bool:
        """Whether these settings ask for the same refiner."""
        return self._settings.refine == settings.refine and (self._settings.smooth_contours == settings.smooth_contours or not settings.refine)

    def precision(self, annotation: Annotation) -> float:
        """How precise the annotation is, 0..1: how far growing trusts labels in doubt (prior.standing)."""
        assert self.grown is not None
        return precision(annotation.labelled, self.grown.confidence)

    def painted_in(self, annotation: Annotation, box: Box) -> np.ndarray:
        """Where the annotation stands in the result, (k, j, i) bool of a box: all of it, but what smoothing may overrule."""
        labelled = annotation.labelled[box]
        if not self._smooths or self._stands is None:
            return labelled
        return labelled & (self._stands.confidence[box] == 255)

    @property
    def can_answer(self) -> bool:
        """Whether growing has begun, so that a correction is less than all of it."""
        return self.is_complete or (self.grown is not None and self.grown.plan is not None)

    @property
    def has_open_corrections(self) -> bool:
        return self._open is not None

    def refines(self, value: int) -> bool:
        """Whether the refiner corrects a segment."""
        return self._refines and all(which is None or value > len(which) or which[value - 1] for which in (self.use, self._shown))

    # -- from nothing --------------------------------------------------------------------------------------------------

    def grow(self, annotation: Annotation, early: Callable[[np.ndarray], None] | None = None) -> np.ndarray:
        """The whole of growing, if it is not there yet; its labels, (K, J, I) uint8. early: as of Grown.start."""
        compiled.wait(_WARM_UP_S, self._tick)
        if self.grown is None:
            self._gray = self._gray_of(annotation)
            self.grown = self._grown_of(annotation, annotation.labelled, early)
        elif self.grown.plan is None:  # an update of it was cancelled
            self.grown.renew(annotation.labels, annotation.labelled, self._tick, early)
        return self.grown.label

    def refine_all(self, annotation: Annotation) -> None:
        """The whole of the refiner, for the first time or where other segments are refined than before. Sets `stands`."""
        self.grow(annotation)
        assert self.grown is not None
        self._look_at(annotation)
        if self._refines:
            try:
                self._ask_refiner(None, annotation)
            except ModelError as error:
                self._refines = self._smooths = False
                self._warn("model", f"Growing stands as it is: {error.sentence}", error.advice)
        self._reach = aside(lambda: Reach(annotation.labelled, self._spacing), self._tick)
        self._unreached = []
        self._let_stand(annotation)
        self._used = self._all_uses(annotation)

    def _let_stand(self, annotation: Annotation) -> None:
        """All of it, wherever it differs from what the user saw."""
        assert self.grown is not None
        shape = self.grown.label.shape
        stands = Belief(self._zeros(shape, np.uint8), self._zeros(shape, np.uint8))
        for box in slabs(whole(shape)):
            self._tick()
            stands.label[box], stands.confidence[box] = self._believed(box, annotation)
        self._stands = stands
        self._open = None

    def _believed(self, box: Box, annotation: Annotation) -> Belief:
        """Growing and refiner together, in a box; copies."""
        assert self.grown is not None
        grown = Belief(self.grown.label[box], self.grown.confidence[box])
        if self._refined is None:
            return Belief(grown.label.copy(), grown.confidence.copy())
        return pool(grown, self._refined.at(box), annotation.labelled[box])

    def alone_in(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """The labels of growing alone and of the refiner alone in a box, (k, j, i) uint8 both; growing's twice where there is no refiner."""
        assert self.grown is not None
        grown = self.grown.label[box]
        return grown, grown if self._refined is None else self._refined.at(box).label

    @property
    def is_seen_coarsely(self) -> bool:
        """Whether the refiner sees a segment on a coarser grid only, where it must prove itself."""
        return self._refined is not None and self._refined.is_coarse

    def use_without(self, annotation: Annotation, held: np.ndarray) -> list[bool]:
        """Which segments are better refined, as far as the annotation in `held`, (K, J, I) bool, tells of what the rest makes of it."""
        rest = self._zeros(held.shape, bool)
        for box in planes(held.shape):
            np.greater(annotation.labelled[box], held[box], out=rest[box])
        refined = self._refined_of(self._grown_of(annotation, rest), annotation.labels, rest, None)
        return aside(lambda: choose_use(refined, held), self._tick)

    def grown_from(self, labels: np.ndarray, labelled: np.ndarray) -> np.ndarray:
        """The labels that growing makes of others than the annotation's, (K, J, I) uint8; labels uint8 and labelled bool, alike."""
        return Grown.start(self.gray, labels, labelled, self._spacing, self._tick, zeros=self._zeros).label

    def grown_without(self, annotation: Annotation, rest: np.ndarray) -> Belief:
        """What growing alone would believe of the labels in `rest`, (K, J, I) bool, with the region and grid that all labels ask for."""
        plan = self.grown.plan if self.grown is not None else None
        grown = self._grown_of(annotation, rest, plan=plan)
        return Belief(grown.label, grown.confidence)

    def refine_only(self, use: list[bool] | None, annotation: Annotation) -> bool:
        """Correct these segments from here on; whether that changes what stands."""
        values = range(1, annotation.table.shape[1])
        self.use = use
        wanted = [self.refines(value) for value in values]
        if self._refined is None or use is None or wanted == (self._used or [True] * len(values)):
            return False
        self._refined.set_use(wanted, self._tick)
        self._let_stand(annotation)
        self._used = wanted
        return True

    def _look_at(self, annotation: Annotation) -> None:
        """See which segments are painted well enough to be refined."""
        self._shown = [bool(n >= _LEAST_SLICES) for n in annotation.painted_slices()[1:]]

    def _follow_slices(self, annotation: Annotation) -> Box | None:
        """Ask the refiner of the segments that have their second slice now, no more of those that have lost it; the box that this changes."""
        self._look_at(annotation)
        wanted = self._all_uses(annotation)
        if self._refined is None or wanted is None or wanted == self._used:
            return None
        self._used = wanted
        return self._refined.set_use(wanted, self._tick)

    def _all_uses(self, annotation: Annotation) -> list[bool] | None:
        if self.use is None and self._shown is None:
            return None
        return [self.refines(value) for value in range(1, annotation.table.shape[1])]

    def _gray_of(self, annotation: Annotation) -> Gray:
        return Gray.of(self._channels, annotation.labels, annotation.labelled, self._tick, self._zeros)

    def _grown_of(
        self,
        annotation: Annotation,
        labelled: np.ndarray,
        early: Callable[[np.ndarray], None] | None = None,
        plan: Plan | None = None,
        reached: Box | None = None,
        gray: Gray | None = None,
    ) -> Grown:
        """Growing from those labels of an annotation that are true in a mask; where hints say how far segments go, no farther."""
        painted = annotation.counts.voxels - annotation.counts.hints
        bounds = None if annotation.hints is None else annotation.hints.extent(painted[1:].tolist())
        image = (gray or self._gray).image
        return Grown.start(
            image, annotation.labels, labelled, self._spacing, self._tick, early, plan, annotation.origin, bounds, reached, self._zeros
        )

    def _refined_of(self, grown: Grown, labels: np.ndarray, labelled: np.ndarray, use: list[bool] | None, gray: Gray | None = None) -> Refined:
        compute = self._devices.compute(self._tick)
        from ..prior.refiner import Refined

        return Refined.start(
            grown.label,
            grown.confidence,
            (gray or self._gray).image,
            labels,
            labelled,
            self._spacing,
            compute.device,
            compute.dtype,
            self._tick,
            use,
            smooth=self._smooths,
            zeros=self._zeros,
        )

    # -- a correction --------------------------------------------------------------------------------------------------

    def answer(self, revision: Revision, also: Box | None = None) -> list[tuple[Box, np.ndarray]]:
        """Growing's answer to a correction, merged into what stands: the boxes that it may change, and the labels there, uint8; none where nothing
        changes. Where nothing stands yet, growing's own labels. also: a box that the answer holds in any case."""
        annotation, changed = revision.annotation, [part.box for part in revision.changed]
        if not changed and self._open is None:
            return []
        assert self.grown is not None
        self._corrections += 1
        self._remember(revision, also)  # first: growing may be cancelled
        boxes = joined([*changed, *self._grow_changes(changed, annotation)])
        if self._stands is None:
            return [(box, self.grown.label[box]) for box in boxes]
        assert self._open is not None
        self._open.reach(*boxes)
        for box in self._open.boxes:
            read_ahead(box, self._stands.label, self._stands.confidence)
        grown = Belief(self.grown.label, self.grown.confidence)
        return [(box, self._answered(box, grown, annotation)) for box in self._open.boxes]

    def _answered(self, box: Box, grown: Belief, annotation: Annotation) -> np.ndarray:
        labels = self._zeros(shape_of(box), np.uint8)
        for slab, merged in self._merged(box, lambda slab: Belief(grown.label[slab], grown.confidence[slab]), annotation):
            labels[within(slab, box)] = merged.label
        return labels

    def _grow_changes(self, boxes: Sequence[Box], annotation: Annotation) -> list[Box]:
        """Growing after the annotation changed in some boxes; what that changed. Where the gray values that it looks at tell the classes apart worse
        than others would by now, it begins anew on these."""
        assert self.grown is not None
        if not boxes:
            return []
        changed = []
        try:
            if not self._gray.is_outdated(annotation.labels, annotation.labelled, self._tick):
                for box in boxes:
                    changed.append(self.grown.update(box, annotation.labels, annotation.labelled, self._tick))
                return [box for box in changed if box is not None]
        except BaseException:
            self.grown.forget()  # as an update that is cancelled: it has not seen all of the change
            raise
        self.grown.forget()  # first: what follows may be cancelled
        self._gray, self._refined = self._gray_of(annotation), None
        self.grown.forget(self.gray)
        return [self.grown.renew(annotation.labels, annotation.labelled, self._tick)]

    def refine(self, annotation: Annotation) -> list[Box]:
        """Let what is refined stand where corrections are open; the boxes that this may change."""
        pending = self._open
        if pending is None or self._stands is None:
            return []
        assert self.grown is not None
        if self.grown.plan is None:  # an answer was cancelled
            self.grown.renew(annotation.labels, annotation.labelled, self._tick)
            pending.boxes = [whole(annotation.labels.shape)]
        if self._refines:
            for box in pending.boxes:
                pending.reach(self._ask_refiner(box, annotation))  # at once: the next may be cancelled
            pending.reach(self._follow_slices(annotation))
        for box in pending.boxes:
            for slab, merged in self._merged(box, lambda slab: self._believed(slab, annotation), annotation):
                self._stands.label[slab], self._stands.confidence[slab] = merged.label, merged.confidence
        self._open = None
        return pending.boxes

    def renew_if_due(self, annotation: Annotation) -> None:
        """Let levels, region, discriminant and the refiner's gray values follow the annotation again, after many corrections. What stands is not
        changed: far from strokes it is what the user saw; the next correction is answered from here."""
        if self._corrections < _RENEW_AFTER or self.grown is None or self._open is not None:
            return
        reached = None if self.grown.plan is None else self.grown.plan.grid.region
        gray = self._gray_of(annotation)
        grown = self._grown_of(annotation, annotation.labelled, reached=reached, gray=gray)
        self._look_at(annotation)
        refined = self._refined_of(grown, annotation.labels, annotation.labelled, self._all_uses(annotation), gray) if self._refines else None
        # only once all are there: a new correction ends this at any time
        self._gray, self.grown, self._refined, self._corrections = gray, grown, refined, 0

    def _ask_refiner(self, box: Box | None, annotation: Annotation) -> Box | None:
        """Bring the refiner up to date in a box, or as a whole."""
        assert self.grown is not None
        if self._refined is None:
            self._refined = self._refined_of(self.grown, annotation.labels, annotation.labelled, self._all_uses(annotation))
            return whole(annotation.labels.shape)
        if box is None:
            return self._refined.renew(annotation.labels, annotation.labelled, self._all_uses(annotation), self._tick)
        return self._refined.update(box, annotation.labels, annotation.labelled, self._tick)

    def _merged(self, box: Box, new: Callable[[Box], Belief], annotation: Annotation) -> Iterator[tuple[Box, Belief]]:
        """The new belief of a box near what was corrected, what stands far from it, in slabs of it; of segments that have no label left, nothing
        stands. Copies."""
        pending = self._open
        assert pending is not None and self._reach is not None
        while self._unreached:
            self._reach.annotate(annotation.labelled, self._unreached[-1], lambda work: aside(work, self._tick))
            self._unreached.pop()
        stands, absent = self.stands, annotation.absent
        share = self._reach.share(pending.changes, annotation.labelled, box)
        for slab in slabs(box):
            after = new(slab)
            if pending.whole_slices:
                yield slab, Belief(after.label.copy(), after.confidence.copy())
                continue
            belief = aside(partial(share.within, stands, after, slab), self._tick)
            if absent.any():
                gone = absent[belief.label]
                belief.label[gone], belief.confidence[gone] = after.label[gone], after.confidence[gone]
            yield slab, belief

    def _remember(self, revision: Revision, also: Box | None) -> None:
        if self._stands is None or not revision.changed:
            return
        boxes, before = [part.box for part in revision.changed], self._open or _Open([], (), False)
        self._unreached = joined([*self._unreached, *boxes])
        gone = box_among(self._stands.label, revision.annotation.absent) if revision.emptied else None
        changes, whole_slices = joined_parts(before.changes + revision.changed), before.whole_slices or revision.whole_slices
        self._open = _Open(before.boxes, changes, whole_slices)
        self._open.reach(*boxes, also, gone)
