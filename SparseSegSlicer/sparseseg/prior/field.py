"""What the growings and interpolation say on the grid, kept up to date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..contract.box import Box, box_of, union, whole, with_margin, within
from .grid import Cells
from .growing import INSIDE, Growth
from .interpolation import interpolate
from .scales import Plan, blurred_mean
from .together import Tick, together
from .vote import Ballots


@dataclass
class Field:
    """known, firm: (K, J, I) int16 of the grid, see Cells; levels: (K, J, I) int16 without annotation, of the plain and the blurred gray values,
    None where a cell is a voxel, as annotation does not change them then; complete: see _count_known."""

    plan: Plan
    known: np.ndarray
    firm: np.ndarray
    levels: tuple[np.ndarray, np.ndarray] | None
    growths: list[Growth]
    ballots: Ballots
    complete: list[np.ndarray]

    @classmethod
    def start(cls, plan: Plan, cells: Cells, tick: Tick = lambda: None) -> Field:
        """From the cells of the whole grid."""
        blurred = blurred_mean(plan.grid, cells, tick)
        levels = (plan.tables[0].apply(cells.mean), plan.tables[1].apply(blurred))
        del blurred

        def grow(n: int, look_up: Tick) -> Growth:
            is_blurred = plan.blurred[n]
            seen = levels[is_blurred] if plan.grid.is_fine else _with_own(levels[is_blurred], plan, is_blurred, cells)
            return Growth.start(seen, cells.firm if plan.firm[n] else cells.known, plan.costs[n], look_up)

        def between(look_up: Tick) -> tuple[np.ndarray, np.ndarray | None]:
            return interpolate(cells.known, plan.grid.spacing_kji_mm, look_up)

        tasks: list[Callable[[Tick], Any]] = [*(partial(grow, n) for n in range(len(plan.costs))), between]
        *growths, (label, weight) = together(tasks, tick)
        everything = whole(plan.grid.shape)
        ballots = Ballots(
            np.stack([g.label for g in growths]),
            _travelled(growths, everything),
            label,
            np.zeros(label.shape, np.float32) if weight is None else weight,
        )
        return cls(plan, cells.known, cells.firm, None if plan.grid.is_fine else levels, growths, ballots, _count_known(cells.known))

    def update(self, cells: Cells, box: Box, tick: Tick = lambda: None) -> tuple[Box, np.ndarray]:
        """The cells in a box are now these. Returns a box, and which cells of it hear something else now, bool; those outside of it do not."""
        before, firm_before = self.known[box].copy(), self.firm[box].copy()
        self.known[box], self.firm[box] = cells.known, cells.firm

        def grow(n: int, look_up: Tick) -> Box | None:
            seen = self.growths[n].levels[INSIDE][box]
            levels = seen
            if self.levels is not None:
                is_blurred = self.plan.blurred[n]
                levels = _with_own(self.levels[is_blurred][box], self.plan, is_blurred, cells)
            was, now = (firm_before, cells.firm) if self.plan.firm[n] else (before, cells.known)
            differs = (was != now) | (levels != seen)
            at = np.argwhere(differs) + [s.start for s in box]
            return self.growths[n].update(at, now[differs], levels[differs], look_up)

        changed = union(*together([partial(grow, n) for n in range(len(self.plan.costs))], tick))
        parts = [] if changed is None else [self._say(changed)]
        if self._interpolate_again(before, box):
            parts += self._say_between(tick)
        return _all_in_one(parts, box)

    def _say(self, box: Box) -> tuple[Box, np.ndarray]:
        """Take what the growings say now in a box; what of it is new to a cell or to those around."""
        around = with_margin(box, 1, self.known.shape)
        heard = np.zeros([s.stop - s.start for s in around], bool)
        labels = np.stack([g.labels(box) for g in self.growths])
        new = (labels != self.ballots.labels[(slice(None), *box)]).any(axis=0)
        self.ballots.labels[(slice(None), *box)] = labels
        heard[within(box, around)] = new
        for axis in range(3):
            turned = np.moveaxis(heard, axis, 0)
            before = turned.copy()
            turned[1:] |= before[:-1]
            turned[:-1] |= before[1:]
        travelled = _travelled(self.growths, box)
        heard[within(box, around)] |= travelled != self.ballots.travelled[box]
        self.ballots.travelled[box] = travelled
        return around, heard

    def _interpolate_again(self, before: np.ndarray, box: Box) -> bool:
        """Whether the change in a box made, broke or changed complete slices."""
        again = False
        new = before != self.known[box]
        more = (self.known[box] >= 0).astype(np.int64) - (before >= 0)
        for axis, count in enumerate(self.complete):
            others = tuple(a for a in range(3) if a != axis)
            part = count[box[axis]]
            size = self.known.size // self.known.shape[axis]
            was = part == size
            part += more.sum(axis=others)
            again |= bool(((was | (part == size)) & new.any(axis=others)).any())
        return again

    def _say_between(self, tick: Tick) -> list[tuple[Box, np.ndarray]]:
        label, weight = interpolate(self.known, self.plan.grid.spacing_kji_mm, tick)
        weight = np.zeros(label.shape, np.float32) if weight is None else weight
        new = (label != self.ballots.between) | (weight != self.ballots.weight)
        self.ballots.between[:], self.ballots.weight[:] = label, weight
        box = box_of(new)
        return [] if box is None else [(box, new[box])]


def _with_own(levels: np.ndarray, plan: Plan, is_blurred: bool, cells: Cells) -> np.ndarray:
    """Levels, (k, j, i) int16, but where a cell is labelled, those of its labelled voxels."""
    out, labelled = levels.copy(), cells.known >= 0
    out[labelled] = plan.tables[is_blurred].apply(cells.own[labelled])
    return out


def _travelled(growths: list[Growth], box: Box) -> np.ndarray:
    total = growths[0].distances(box)
    for growth in growths[1:]:
        total += growth.distances(box)
    return total


def _count_known(known: np.ndarray) -> list[np.ndarray]:
    """For each axis, how many cells of each of its slices are labelled, int64."""
    there = known >= 0
    return [np.count_nonzero(there, axis=tuple(a for a in range(3) if a != axis)).astype(np.int64) for axis in range(3)]


def _all_in_one(parts: list[tuple[Box, np.ndarray]], touched: Box) -> tuple[Box, np.ndarray]:
    """One mask in one box; what was touched counts as new, as labels themselves may have come or gone there."""
    box = union(touched, *(b for b, _ in parts))
    assert box is not None
    mask = np.zeros([s.stop - s.start for s in box], bool)
    mask[within(touched, box)] = True
    for b, new in parts:
        mask[within(b, box)] |= new
    return box, mask
