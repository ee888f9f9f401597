"""A simulated clinician: one complete slice, then a stroke where the answer is most wrong, again and again; how long until the Dice is high enough.

Two arms, each with its own strokes: this project, with a worker, and Grow from seeds on the whole volume, kept for corrections as Slicer's effect
keeps it. Both begin with the same axial slice, exact as a careful first slice is; a segment that it does not show gets a stroke before the first
answer, as the worker takes no segment without paint. Every stroke is a line along the middle of the largest wrong spot of the worst slice of any
orientation, with a brush of RADIUS that leaves what is meant by OVER voxels. The last paint stands, and he does not look again where he painted.

Time: 0 is when the slice is done. A stroke is Hand.stroke_s; on top comes all waiting, until the refined answer is there. Of this project it is the
wall's clock: the worker trains while he paints, and a training that is over begins again. Choosing a stroke and scoring, for which nobody waits, is
done while he paints; where it takes longer than a stroke, that counts against this project. Of growing it is the filter's own Update(), added up.

Score: the mean Dice of the case's segments on all voxels but those of the first slice, the same for both arms. Strokes count as part of the result,
as they are what each arm's clinician has made of it; to leave out what either arm paints would let an arm's curve change with the other's strokes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from statistics import median
from typing import Protocol

import numpy as np
from growcut import grown
from methods import Options, Pair, load
from peers import Missing
from product import Product, Refused
from scores import mean_dice
from simulate import Slice, largest_spot, medial_line, opened, worst_stroke
from tables import OURS, REFERENCE, Row

import hands
from cases import Case, annotate_slices
from sparseseg.annotation.slices import plane
from sparseseg.contract.box import Box, box_of
from sparseseg.contract.errors import SparseSegError

Ratio = tuple[float | None, bool]  # growing's time through ours, None where neither got there; and whether that is a bound, as one did not
LEVELS = (0.80, 0.85, 0.90)
RADIUS, OVER = 1, 1  # of the brush, voxels


@dataclass(frozen=True)
class Hand:
    """How the clinician works: seconds a stroke; the strokes and the seconds after which he gives up; the Dice with which he is content."""

    stroke_s: float = 4.0
    strokes: int = 40
    limit_s: float = 300.0
    content: float = LEVELS[-1]

    @classmethod
    def quick(cls) -> Hand:
        return cls(stroke_s=0.2, strokes=2, content=1.0)


@dataclass(frozen=True)
class Point:
    """One answer, seen: when, after how many strokes, its Dice, how long it was waited for, and what made it (growing, prior, network)."""

    seconds: float
    strokes: int
    dice: float
    waited_s: float
    source: str


@dataclass(frozen=True)
class Start:
    """What both arms begin with, (K, J, I) uint8: the slice alone, and with a stroke in each segment that it does not show."""

    at: Slice
    slice: np.ndarray
    annotation: np.ndarray
    strokes: int


class Arm(Protocol):
    """What the clinician works with. seconds: on his clock, when the last answer was there; source: what made it."""

    seconds: float
    source: str

    def answer(self, annotation: np.ndarray, box: Box | None, painted_s: float) -> np.ndarray:
        """Labels, (K, J, I) uint8, for an annotation whose last stroke, in a box, is painted when his clock is at painted_s; None: for the first."""
        ...


# -- the clinician -----------------------------------------------------------------------------------------------------


def simulated(case: Case, options: Options, hand: Hand) -> Row:
    """A case by both arms, one after the other. An arm that cannot be run has a reason in place of points."""
    start, arms = begin(case.truth), {}
    about = {"case": case.name, "slice": start.at[1], "segments": case.classes.names, "load": load(), "hand": asdict(hand)}
    for name, opening in ARMS.items():
        try:
            with opening(case, start, options) as arm:
                arms[name] = {"points": [asdict(point) for point in worked(arm, case.truth, start, hand)]}
        except (Refused, SparseSegError, Missing, BrokenProcessPool) as error:
            arms[name] = {"reason": f"{type(error).__name__}: {error}"[:500]}
    return about | {"arms": arms}


def worked(arm: Arm, truth: np.ndarray, start: Start, hand: Hand) -> list[Point]:
    """One point an answer, the first before any correction; until he is content, gives up, or finds nothing wrong where he has not painted."""
    annotation, strokes = start.annotation.copy(), start.strokes
    box: Box | None = None
    painted_s, points = strokes * hand.stroke_s, []
    while True:
        shown = arm.answer(annotation, box, painted_s)
        dice = mean_dice(shown, truth, start.slice) or 0.0
        points.append(Point(arm.seconds, strokes, dice, arm.seconds - painted_s, arm.source))
        if dice >= hand.content or arm.seconds >= hand.limit_s or strokes >= hand.strokes:
            return points
        line, at = worst_stroke(shown, truth, annotation, axes=(0, 1, 2))
        box = paint(annotation, truth, line, at)
        if box is None:
            return points
        painted_s, strokes = arm.seconds + hand.stroke_s, strokes + 1


def begin(truth: np.ndarray) -> Start:
    """truth: (K, J, I) uint8, 0 background, c segment c."""
    at = (0, first_slice(truth))
    annotation = annotate_slices(truth, [at])
    start = annotation.copy()
    hidden = [c for c in range(1, int(truth.max()) + 1) if not (annotation == c + 1).any() and (truth == c).any()]
    for c in hidden:
        line, where = np.zeros(truth.shape, bool), (0, int((truth == c).sum(axis=(1, 2)).argmax()))
        line[plane(*where)] = medial_line(largest_spot(truth[plane(*where)] == c))
        paint(start, truth, line, where)
    return Start(at, annotation, start, len(hidden))


def first_slice(truth: np.ndarray) -> int:
    """The axial slice that shows the most segments; of several, the one nearest to the middle of the structures' extent."""
    shown = np.array([np.count_nonzero(np.unique(labels)) for labels in truth])
    extent, best = np.flatnonzero(shown), np.flatnonzero(shown == shown.max())
    return int(best[np.abs(2 * best - extent[0] - extent[-1]).argmin()])


def paint(annotation: np.ndarray, truth: np.ndarray, line: np.ndarray, at: Slice) -> Box | None:
    """Paint along a line, (K, J, I) bool, of one true label in a slice, in place; the box of it, None without a line."""
    if not line.any():
        return None
    label = truth[line][0]
    painted = hands.brush(line, at, truth == label, RADIUS, OVER)
    annotation[painted] = label + 1
    return box_of(painted)


# -- the arms ----------------------------------------------------------------------------------------------------------


class Ours:
    """On the wall's clock; see above."""

    def __init__(self, product: Product) -> None:
        self._product, self._began = product, 0.0
        self.seconds, self.source = 0.0, ""

    def answer(self, annotation: np.ndarray, box: Box | None, painted_s: float) -> np.ndarray:
        product = self._product
        if box is None:
            self._began = time.perf_counter() - painted_s
            answer = product.first_answer()
        else:
            product.pass_time(self._began + painted_s)
            answer = product.update(annotation, box)
        self.seconds, self.source = time.perf_counter() - self._began, answer.refined.source
        if not product.training:
            product.begin()
        return answer.refined.dense


class Growing:
    """In a process of its own, as it may end it."""

    source = "growing"

    def __init__(self, pool: ProcessPoolExecutor, image: np.ndarray) -> None:
        self._pool, self._image = pool, image
        self.seconds = 0.0

    def answer(self, annotation: np.ndarray, box: Box | None, painted_s: float) -> np.ndarray:
        took, label = self._pool.submit(grown, None if box else self._image, annotation).result()
        self.seconds = painted_s + took
        return label


@contextmanager
def ours(case: Case, start: Start, options: Options) -> Iterator[Arm]:
    with opened(Pair(case, "one slice", start.annotation), options) as product:
        yield Ours(product)


@contextmanager
def growing(case: Case, start: Start, options: Options) -> Iterator[Arm]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield Growing(pool, case.image)


ARMS: dict[str, Callable[[Case, Start, Options], AbstractContextManager[Arm]]] = {OURS: ours, REFERENCE: growing}


# -- tables ------------------------------------------------------------------------------------------------------------


def tables(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {"Time and strokes to a Dice": level_table(rows), "First and last answer": [end_row(row, arm) for row in rows for arm in ARMS]}


def level_table(rows: Sequence[Row]) -> list[Row]:
    """For each case and level when each arm got there, and growing's time through ours; their median at the end."""
    found = []
    for row in rows:
        for level, (value, is_bound) in zip(LEVELS, ratios([row]), strict=True):
            cells = {arm: level_text(row, arm, level) for arm in ARMS}
            times = "" if value is None else f"{value:.2f}{' (bound)' if is_bound else ''}"
            found.append({"case": row["case"], "Dice": f"{level:.2f}"} | cells | {"times as fast": times})
    return [*found, {"case": "**median**", "Dice": ""} | dict.fromkeys(ARMS, "") | {"times as fast": median_text(ratios(rows))}]


def level_text(row: Row, arm: str, level: float) -> str:
    points, limit_s = points_of(row, arm), row["hand"]["limit_s"]
    if not points:
        return row["arms"][arm]["reason"]
    if point := reached(points, level, limit_s):
        return f"{point.seconds:.1f} s, strokes: {point.strokes}"
    last = points[-1]
    return f"not within {limit_s:.0f} s" if last.seconds >= limit_s else f"not with {last.strokes} strokes ({last.seconds:.0f} s)"


def median_text(found: Sequence[Ratio]) -> str:
    known = [(value, is_bound) for value, is_bound in found if value is not None]
    if not known:
        return ""
    return f"{median(value for value, _ in known):.2f} ({len(known)} of {len(found)}, bounds: {sum(is_bound for _, is_bound in known)})"


def ratios(rows: Sequence[Row]) -> list[Ratio]:
    """Of each case and level."""
    return [ratio(*(points_of(row, arm) for arm in ARMS), level, row["hand"]["limit_s"]) for row in rows for level in LEVELS]


def ratio(mine: Sequence[Point], other: Sequence[Point], level: float, limit_s: float) -> Ratio:
    """Growing's time to a level through ours.

    Where only one got there, the other counts with the limit; growing with the time in which it used up its strokes, where that is less: what is not
    known speaks against this project.
    """
    if not mine or not other:
        return None, False
    ours, theirs = (reached(points, level, limit_s) for points in (mine, other))
    if not ours and not theirs:
        return None, False
    our_s = ours.seconds if ours else limit_s
    their_s = theirs.seconds if theirs else min(limit_s, other[-1].seconds)
    return their_s / our_s, not (ours and theirs)


def reached(points: Sequence[Point], level: float, limit_s: float) -> Point | None:
    """The first answer at a level within the limit."""
    return next((point for point in points if point.dice >= level and point.seconds <= limit_s), None)


def points_of(row: Row, arm: str) -> list[Point]:
    """Empty where the arm was not run."""
    return [Point(**point) for point in row["arms"][arm].get("points", [])]


def end_row(row: Row, arm: str) -> Row:
    """An arm's first answer and its last, the waiting for the answer to a stroke, and in how many answers the network had a say."""
    points = points_of(row, arm)
    first, last = (points[0], points[-1]) if points else (None, None)
    found = {"case": row["case"], "slice": f"k {row['slice']}", "arm": arm}
    found |= {"first answer, s": first and first.seconds, "its Dice": first and first.dice, "last answer, s": last and last.seconds}
    found |= {"strokes": last and str(last.strokes), "last Dice": last and last.dice}
    found["waiting, median s"] = median(point.waited_s for point in points[1:]) if points[1:] else None
    return found | {"by the network": f"{sum(point.source == 'network' for point in points)} of {len(points)}"}


def said(row: Row) -> str:
    """A case in one line."""
    ends = {arm: points_of(row, arm)[-1:] for arm in ARMS}
    return ", ".join(
        [row["case"], *(f"{arm} {p.dice:.3f} after {p.seconds:.0f} s and {p.strokes} strokes" for arm, last in ends.items() for p in last)]
    )


def curves(rows: Sequence[Row]) -> list[dict[str, list[tuple[float, float]]]]:
    """(seconds, Dice) of each arm that was run, for each case."""
    return [{arm: [(p.seconds, p.dice) for p in points] for arm in ARMS if (points := points_of(row, arm))} for row in rows]
