"""All voices together, as a session shows them: the prior, the network with its share, what hints rule out, and the user's paint above all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ..annotation.labels import Annotation
from ..contract.belief import Belief
from ..contract.box import Box, planes, shape_of, slabs, whole, within
from ..contract.scratch import Zeros, put
from ..prior.together import ahead
from ..quality.estimate import Evidence
from ..quality.fusion import fuse
from ..quality.shares import Standing, highest
from .judge import Judge
from .known import Known
from .prior_voice import PriorVoice

if TYPE_CHECKING:
    from .network_voice import NetworkVoice

_MOST_COMPARED = 1 << 27  # voxels, about, that the network is held against the prior in: of more every n-th slice is enough


class Together:
    """labels: a function that gives the annotation as it is now; network: one that gives the network's voice, None before there is one;
    zeros: makes arrays of the volume's size."""

    def __init__(
        self,
        judge: Judge,
        known: Known | None,
        labels: Callable[[], Annotation],
        prior: Callable[[], PriorVoice],
        network: Callable[[], NetworkVoice | None],
        zeros: Zeros = np.zeros,
    ) -> None:
        self._judge, self._known, self._labels, self._prior, self._network, self._zeros = judge, known, labels, prior, network, zeros

    @property
    def network_counts(self) -> bool:
        """Whether the network has a say in what is shown."""
        network = self._network()
        return self._judge.share > 0 and network is not None and network.known_belief is not None

    def standing(self, tick: Callable[[], None]) -> Standing | None:
        """Ask the network anew, where it has learned on, and hold it against the prior."""
        network = self._network()
        assert network is not None
        belief, stands, labelled = network.belief(), self._prior().stands, self._labels().labelled

        every = max(1, stands.label.size // _MOST_COMPARED)
        parts = ahead(belief.part, islice(planes(stands.label.shape), 0, None, every), tick)
        return Standing.of((stands.label[box], said, labelled[box]) for box, said in filter(None, parts))

    def labels(self, tick: Callable[[], None]) -> np.ndarray:
        """A new label map, (K, J, I) uint8, of all voices."""
        labels, prior = self._labels(), self._prior()
        stands = prior.stands
        if self._known:  # in place: what was ruled out stays so, far from later strokes
            self._known.hold(stands.label, stands.confidence, labels.labelled, tick)
        dense, counts = self._zeros(stands.label.shape, np.uint8), self.network_counts
        sure = self._zeros(dense.shape, np.uint8) if counts and self._known else None
        for box, (found, uncertainty) in self._all_fused(tick):
            dense[box] = found
            if sure is None:
                self.with_paint(dense[box], box)
            else:
                sure[box] = 255 - uncertainty
        if self._known and sure is not None:
            self._known.hold(dense, sure, labels.labelled, tick)
            for box in planes(dense.shape):
                tick()
                self.with_paint(dense[box], box)
        return dense

    def labels_in(self, box: Box) -> np.ndarray:
        """The same of a box, but what hints say of whole segments."""
        labels = self._zeros(shape_of(box), np.uint8)
        for slab in slabs(box):
            labels[within(slab, box)] = self.with_paint(self._fused(slab)[0], slab)
        return labels

    def result(self, tick: Callable[[], None], evidence: Evidence | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Label map and uncertainty, (K, J, I) uint8 both. evidence: counts what `evidence` counts on the way."""
        prior, labels = self._prior(), self._labels()
        shape = prior.stands.label.shape
        dense, uncertainty = self._zeros(shape, np.uint8), self._zeros(shape, np.uint8)
        for box, (found, unsure) in self._all_fused(tick):
            if evidence is not None:
                self._count(evidence, box, found, unsure)
            dense[box], uncertainty[box] = self.with_paint(found, box), unsure
            uncertainty[box][prior.painted_in(labels, box)] = 0
        self.hold_result(dense, uncertainty, labels.labelled, tick)
        return dense, uncertainty

    def evidence(self, tick: Callable[[], None]) -> Evidence:
        """What the result says of itself, and how far growing and refiner agree, over all voxels that nobody labelled."""
        evidence = self.no_evidence()
        for box, fused in self._all_fused(tick):
            self._count(evidence, box, *fused)
        return evidence

    def no_evidence(self) -> Evidence:
        """Before anything is counted."""
        return Evidence(self._labels().table.shape[1])

    def _count(self, evidence: Evidence, box: Box, label: np.ndarray, uncertainty: np.ndarray) -> None:
        free = ~self._labels().labelled[box]
        evidence.count(label[free], 255 - uncertainty[free], *(alone[free] for alone in self._prior().alone_in(box)))

    def network_alone(self, tick: Callable[[], None]) -> Iterator[np.ndarray]:
        """What the network alone says where it says anything, else the prior: planes (J, I) uint8 in turn."""
        network, stands = self._network(), self._prior().stands
        assert network is not None
        belief = network.belief()

        def alone(box: Box) -> np.ndarray:
            labels = stands.label[box].copy()
            if (part := belief.part(box)) is not None:
                inside, said = part
                np.copyto(labels[within(inside, box)], highest(said)[0], where=said.any(0))
            return labels[0]

        return ahead(alone, planes(stands.label.shape), tick)

    def hold_result(self, dense: np.ndarray, uncertainty: np.ndarray, labelled: np.ndarray, tick: Callable[[], None]) -> None:
        """A result as hints want it, in place."""
        if self._known is None:
            return
        sure = np.subtract(255, uncertainty, out=uncertainty)
        self._known.hold(dense, sure, labelled, tick, is_result=True)
        np.subtract(255, sure, out=uncertainty)

    def with_paint(self, labels: np.ndarray, box: Box) -> np.ndarray:
        """Labels of a box, uint8, in place: what the user painted stands."""
        annotation = self._labels()
        np.copyto(labels, annotation.labels[box], where=self._prior().painted_in(annotation, box))
        return labels

    def placed(self, labels: np.ndarray) -> np.ndarray:
        """Labels of the whole volume, with segments only where hints let them be; the same array without hints, else a copy."""
        if self._known:
            given, labels = labels, self._zeros(labels.shape, np.uint8)
            put(labels, given)
            self._known.hold_places(labels, self._labels().labelled, whole(labels.shape))
        return labels

    def _all_fused(self, tick: Callable[[], None]) -> Iterator[tuple[Box, tuple[np.ndarray, np.ndarray]]]:
        """Each plane of the volume, and the label and uncertainty there."""
        return ahead(lambda box: (box, self._fused(box)), planes(self._prior().stands.label.shape), tick)

    def _fused(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        stands, network = self._prior().stands, self._network()
        belief = network.known_belief if network is not None and self.network_counts else None
        label, uncertainty = fuse(Belief(stands.label[box], stands.confidence[box]), None, 0.0)
        if belief is not None and (part := belief.part(box)) is not None:
            inside, said = part
            said[self._labels().absent] = 0  # the network may name a segment that nobody painted
            at = within(inside, box)
            label[at], uncertainty[at] = fuse(Belief(stands.label[inside], stands.confidence[inside]), said, self._judge.share)
        return label, uncertainty
