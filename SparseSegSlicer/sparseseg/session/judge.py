"""What is known of the voices: which segments the refiner corrects, the network's share of the result, and the estimate that users are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..annotation.labels import Annotation
from ..contract.aside import Aside, at_once
from ..contract.box import slabs, whole
from ..contract.numbers import number
from ..contract.scratch import Zeros
from ..quality import estimate, reverse, shares

if TYPE_CHECKING:
    from ..prior.refiner import Refined

_LEAST_HELD = 50  # voxels of a segment that must be held out to judge it
_AT = (0.3, 0.6)  # of a run: when the voices are looked at, before its end
_STEPS_TO_LEARN = 200  # until then the network's share grows: early on the surest of what it says is still wrong at times
Grow = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Judge:
    """share: of the network in the result, 0..1; estimate: Dice that is expected where nobody labelled, by segment ID, of the segments that can be
    told; standing: what the share was chosen by, None before."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = list(ids)
        self.forget()

    def forget(self) -> None:
        """As if nothing was ever looked at."""
        self.share = 0.0
        self.standing: shares.Standing | None = None
        self.estimate: dict[str, float] = {}
        self._looked = 0

    def begin(self) -> None:
        """A new run: it is looked at anew."""
        self._looked = 0

    def leave_out(self, absent: np.ndarray) -> None:
        """Forget what is known of these segments, (classes,) bool."""
        for c in np.flatnonzero(absent).tolist():
            self.estimate.pop(self._ids[c - 1], None)

    def is_due(self, share_of_run: float) -> bool:
        """Whether it is time to look at the voices, and from now on not yet again."""
        due = sum(share_of_run >= at for at in _AT)
        if due <= self._looked:
            return False
        self._looked = due
        return True

    def weigh(self, standing: shares.Standing, steps: int, has_slices: bool) -> None:
        """Give a network its share, after so many steps. has_slices: whether there are complete slices."""
        whole = shares.SHARE if has_slices else shares.OF_STROKES
        self.standing, self.share = standing, whole * min(1.0, steps / _STEPS_TO_LEARN)

    def look(
        self,
        result: np.ndarray,
        evidence: estimate.Evidence,
        annotation: Annotation,
        grow: Grow,
        aside: Aside = at_once,
        zeros: Zeros = np.zeros,
    ) -> None:
        """Estimate how right a result is, (K, J, I) uint8. grow, aside, zeros: as of reverse_dice; all may raise, and nothing
        has changed."""
        painted = annotation.painted  # hints prove nothing
        between = aside(lambda: reverse.slices_between(painted))
        found = reverse.reverse_dice(result, annotation.labels, painted, between, grow, range(1, len(self._ids) + 1), aside, zeros)
        slices = annotation.has_complete_slices
        self.estimate = {
            self._ids[c - 1]: round(estimate.expected(dice, evidence.believed(c), evidence.agreement(c), slices), 4) for c, dice in found.items()
        }

    @property
    def mean_estimate(self) -> float | None:
        """Over the segments that can be told; None where none can."""
        return float(np.mean(list(self.estimate.values()))) if self.estimate else None

    # -- saving --------------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """For the report."""
        return {"share": round(self.share, 3), **({} if self.standing is None else self.standing.to_json())}

    def state(self) -> dict[str, Any]:
        return {"share": self.share, "estimate": self.estimate}

    def load_state(self, state: dict[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError; then nothing has changed."""
        estimate = {id_: number(state["estimate"][id_], 0, 1) for id_ in self._ids if id_ in state["estimate"]}
        self.share, self.estimate = number(state["share"], 0, 1), estimate


def choose_use(refined: Refined, held: np.ndarray) -> list[bool]:
    """Which segments to correct, segment 1 first: all, but those that the refiner sees on a coarser grid only, and that this cannot hold or that
    came out worse on held-out annotation.

    refined: from annotation without that in `held`, (K, J, I) bool, all segments corrected. On the volume's own grid it needs no such proof:
    holding slices out doubles gaps that are long already, which says little.
    """
    volumes, use = refined.volumes, []
    parts: list[list[np.ndarray]] = [[np.zeros(0, np.uint8)] for _ in range(3)]
    for box in slabs(whole(held.shape)):
        if (there := held[box]).any():
            for found, part in zip(parts, (volumes.labels[box], volumes.label[box], refined.at(box).label), strict=True):
                found.append(part[there])
    truth, before, after = map(np.concatenate, parts)
    for value in range(1, max(int(volumes.labels.max()), int(truth.max(initial=0))) + 1):
        view = refined.views.get(value)
        judged = (truth == value).sum() >= _LEAST_HELD
        worse = judged and estimate.dice(after, truth, value) < estimate.dice(before, truth, value)
        use.append(view is None or view.factors == (1, 1, 1) or (view.held_by_grid and not worse))
    return use
