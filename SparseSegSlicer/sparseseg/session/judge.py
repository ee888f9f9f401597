"""What held-out annotation says of the voices: which segments the refiner corrects, how far the network is trusted, and what users are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..annotation.labels import Annotation
from ..contract.belief import Belief
from ..contract.box import Box
from ..quality import estimate
from ..quality.fusion import fuse

if TYPE_CHECKING:
    from ..prior.refiner import Refined

_SHARE = 0.6  # of a run that trains without the held-out annotation, where some is held out
_AT = (0.2, 0.5, 1.0)  # of that part
_LEAST_HELD = 50  # voxels of a segment that must be held out to judge it
PriorWithout = Callable[[np.ndarray, np.ndarray], tuple[Belief, list[bool] | None]]


class Judge:
    """held: (K, J, I) bool, the annotation that is held out now, or None; prior: from the annotation without it.

    trust: (classes,) float32, in the network, background first; estimate: Dice that is expected where nobody labelled, by segment ID.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = list(ids)
        self.forget()

    def forget(self) -> None:
        """As if nothing was ever measured."""
        self.held: np.ndarray | None = None
        self.prior: Belief | None = None
        self.use: list[bool] | None = None
        self.trust = np.zeros(len(self._ids) + 1, np.float32)
        self.estimate: dict[str, float] = {}
        self.done = False  # whether all that is held out has been used
        self._made = 0
        self._doubt: dict[int, float] = {}  # by segment value: how many times as wrong as it believes the prior is
        self._found: dict[int, float] = {}  # by value of the segments for which the network is trusted: its held-out Dice

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
        """Labels in a box came or went: what is erased is held out no longer, and of a segment that has none left nothing is known."""
        if self.held is not None:
            self.held[box] &= annotation.labelled[box]
        self.leave_out(annotation.absent)

    def leave_out(self, absent: np.ndarray) -> None:
        """Forget what was measured of these segments, (classes,) bool."""
        for c in np.flatnonzero(absent).tolist():
            self.trust[c] = 0
            self.estimate.pop(self._ids[c - 1], None)
            self._doubt.pop(c, None)
            self._found.pop(c, None)

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

    def measure(self, network: Belief, annotation: Annotation, expected: np.ndarray, refines: Callable[[int], bool]) -> dict[str, float]:
        """Network against prior on the held-out annotation: sets trust and estimate; mean Dice of each, and of both together.

        network: its belief at the held-out voxels, (n,) in their order in memory; expected: `estimate.confidences` of the prior from all
        annotation; refines: whether the refiner corrects a segment.
        """
        held, prior = self.held, self.prior
        assert held is not None and prior is not None
        truth, alone = annotation.labels[held], Belief(prior.label[held], prior.confidence[held])
        counted = [c for c in range(1, len(self._ids) + 1) if (truth == c).sum() >= estimate.MIN_VOXELS]
        by_network = {c: estimate.dice(network.label, truth, c) for c in counted}
        by_prior = {c: estimate.dice(alone.label, truth, c) for c in counted}
        limits = {c: estimate.REFINED_DOUBT if refines(c) else estimate.GROWN_DOUBT for c in counted}
        believed = {c: estimate.expected_dice(alone.label, 255 - alone.confidence, c) for c in counted}
        self._doubt = {c: estimate.overconfidence(by_prior[c], believed[c], limits[c]) for c in counted}
        self._found = {}
        self.renew_estimate(expected)
        self.trust = estimate.choose_trust(by_network, {c: self.estimate[self._ids[c - 1]] for c in counted}, len(self._ids) + 1)
        together, _ = fuse(alone, network, self.trust)
        self.trust[[c for c in counted if estimate.dice(together, truth, c) < by_prior[c]]] = 0
        together, _ = fuse(alone, network, self.trust)
        self._found = {c: by_network[c] for c in counted if self.trust[c] > 0}
        self.renew_estimate(expected)
        fused = {c: estimate.dice(together, truth, c) for c in counted}
        return {"fused": _mean(fused), "network": _mean(by_network), "prior": _mean(by_prior)}

    def renew_estimate(self, expected: np.ndarray) -> None:
        """The Dice expected where nobody labelled: what the prior believes, as far as it was right on held-out annotation; or the network's
        held-out Dice, where that is trusted because it is higher. expected: `estimate.confidences` of the prior."""
        for c, doubt in self._doubt.items():
            dice = estimate.expected_dice_of(expected[c])
            prior = 1 - min(1.0, (1 - dice) * doubt) if dice == dice else 0.0
            self.estimate[self._ids[c - 1]] = round(max(prior, self._found.get(c, 0.0)), 4)

    # -- saving --------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        trust = [float(t) for t in self.trust]
        return {"trust": trust, "estimate": self.estimate, "doubt": self._doubt, "found": self._found, "estimated": self.done}

    def load_state(self, state: dict[str, Any]) -> None:
        self.trust = np.array(state["trust"], np.float32)
        self.estimate, self.done = dict(state["estimate"]), bool(state["estimated"])
        self._doubt, self._found = dict(state["doubt"]), dict(state["found"])


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
