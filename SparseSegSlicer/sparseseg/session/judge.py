"""What held-out annotation says of the voices: which segments the refiner corrects, the network's share, and what users are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..annotation.labels import Annotation
from ..contract.belief import Belief
from ..contract.box import Box
from ..quality import estimate, shares
from ..quality.fusion import fuse

if TYPE_CHECKING:
    from ..network.predict import Probabilities
    from ..prior.refiner import Refined

_SHARE = 0.4  # of a run that trains without the held-out annotation, where some is held out
_AT = (0.5, 1.0)  # of that part
_LEAST_HELD = 50  # voxels of a segment that must be held out to judge it
_MOST_LOOKED_AT = 300_000  # held-out voxels; of more, every n-th tells the same
PriorWithout = Callable[[np.ndarray, np.ndarray], tuple[Belief, list[bool] | None]]


class Judge:
    """held: (K, J, I) bool, the annotation that is held out now, or None; prior: from the annotation without it.

    share: of the network in the result; estimate: Dice that is expected where nobody labelled, by segment ID.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = list(ids)
        self.forget()

    def forget(self) -> None:
        """As if nothing was ever measured."""
        self.held: np.ndarray | None = None
        self.prior: Belief | None = None
        self.use: list[bool] | None = None
        self.share = shares.UNKNOWN
        self.estimate: dict[str, float] = {}
        self.done = False  # whether all that is held out has been used
        self._made = 0
        self._doubt: dict[int, float] = {}  # by segment value: how many times as wrong as it believes the prior is
        self._scores: dict[str, float] = {}  # mean Dice of each voice on the held-out annotation

    # -- holding out ---------------------------------------------------------------------------------------------------

    def hold_out(self, annotation: Annotation, prior_without: PriorWithout) -> None:
        """Choose what to hold out, if there is enough to spare, and learn what the prior is without it.

        prior_without: what is believed from the labels in a mask alone, where another is held out (both (K, J, I) bool); and which segments are
        better refined.
        """
        held = estimate.split(annotation.labels, annotation.painted, len(self._ids) + 1)  # hints prove nothing
        if held is not None:
            self.prior, self.use = prior_without(annotation.labelled & ~held, held)
        self.held = held

    def annotated(self, annotation: Annotation, box: Box) -> None:
        """Labels in a box came or went: what is erased is held out no longer."""
        if self.held is not None:
            self.held[box] &= annotation.labelled[box]

    def release(self) -> None:
        """Nothing is held out from here on."""
        self.held = self.prior = None
        self.done = True

    def is_due(self, share_of_run: float) -> bool:
        """Whether it is time to measure, and from now on not yet again."""
        if self.held is None:
            return False
        due = sum(share_of_run / _SHARE >= at for at in _AT)
        if due <= self._made:
            return False
        self._made = due
        return True

    @property
    def is_over(self) -> bool:
        """Whether the part of the run is over that trains without the held-out annotation."""
        return self._made >= len(_AT)

    @property
    def measured(self) -> bool:
        return self._made > 0

    # -- measuring -----------------------------------------------------------------------------------------------------

    def measure(self, network: Probabilities, annotation: Annotation, expected: np.ndarray, refines: Callable[[int], bool]) -> dict[str, float]:
        """Network against prior on the held-out annotation: sets share and estimate; mean Dice of each, and of both together.

        network: its belief, at the held-out voxels at least; expected: `estimate.confidences` of the prior from all annotation; refines: whether
        the refiner corrects a segment.
        """
        assert self.held is not None and self.prior is not None
        places = np.flatnonzero(self.held)
        places = places[:: -(-len(places) // _MOST_LOOKED_AT)]
        truth = annotation.labels.reshape(-1)[places]
        alone = Belief(self.prior.label.reshape(-1)[places], self.prior.confidence.reshape(-1)[places])
        said = network.at_places(places)
        counted = [c for c in range(1, len(self._ids) + 1) if (truth == c).sum() >= estimate.MIN_VOXELS]
        self.share = shares.choose(alone, said, truth, counted)
        limits = {c: estimate.REFINED_DOUBT if refines(c) else estimate.GROWN_DOUBT for c in counted}
        believed = {c: estimate.expected_dice(alone.label, 255 - alone.confidence, c) for c in counted}
        by = {"prior": alone.label, "network": said.argmax(0), "fused": fuse(alone, said, self.share)[0]}
        found = {voice: {c: estimate.dice(label, truth, c) for c in counted} for voice, label in by.items()}
        self._doubt = {c: estimate.overconfidence(found["prior"][c], believed[c], limits[c]) for c in counted}
        self.renew_estimate(expected)
        self._scores = {voice: round(_mean(scores), 4) for voice, scores in found.items()}
        return dict(self._scores)

    def renew_estimate(self, expected: np.ndarray) -> None:
        """The Dice expected where nobody labelled: what the prior believes, as far as it was right on held-out annotation. expected:
        `estimate.confidences` of the prior."""
        for c, doubt in self._doubt.items():
            dice = estimate.expected_dice_of(expected[c])
            self.estimate[self._ids[c - 1]] = round(1 - min(1.0, (1 - dice) * doubt) if dice == dice else 0.0, 4)

    # -- saving --------------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """For the report."""
        return {"share": round(self.share, 3), "held_out": self._scores}

    def state(self) -> dict[str, Any]:
        return {"share": self.share, "estimate": self.estimate, "doubt": self._doubt, "scores": self._scores, "estimated": self.done}

    def load_state(self, state: dict[str, Any]) -> None:
        self.share, self.done = float(state["share"]), bool(state["estimated"])
        self.estimate, self._doubt, self._scores = dict(state["estimate"]), dict(state["doubt"]), dict(state["scores"])


def _mean(by_class: dict[int, float]) -> float:
    return float(np.mean(list(by_class.values()))) if by_class else 0.0


def choose_use(refined: Refined, held: np.ndarray) -> list[bool]:
    """Which segments to correct, segment 1 first: all, but those that the network sees on a coarser grid only, and that this cannot hold or that
    came out worse on held-out annotation.

    refined: from annotation without that in `held`, (K, J, I) bool, all segments corrected. On the volume's own grid the network needs no such
    proof: holding slices out doubles gaps that are long already, which says little.
    """
    volumes, use = refined.volumes, []
    truth, before, after = volumes.labels[held], volumes.label[held], refined.label[held]
    for value in range(1, max(int(volumes.labels[volumes.labelled].max(initial=0)), int(truth.max(initial=0))) + 1):
        view = refined.views.get(value)
        judged = (truth == value).sum() >= _LEAST_HELD
        worse = judged and estimate.dice(after, truth, value) < estimate.dice(before, truth, value)
        use.append(view is None or view.factors == (1, 1, 1) or (view.held_by_grid and not worse))
    return use
