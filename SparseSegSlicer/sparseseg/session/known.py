"""What hints say, held against annotation and results: what a session does with them, and tells its host of."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from ..annotation.contradictions import contradictions
from ..annotation.hinted import HintLabels
from ..annotation.labels import Annotation
from ..contract.box import Box, whole
from ..contract.hints import Hints
from ..contract.job import JobRecord
from ..quality.constraints import Constraints, Remark
from .host import Host

_BEND = "Correct the annotation, or move the hint."


class Known:
    """Each contradiction, and each constraint that does not hold, is a warning when it is first seen; those of a result also where they differ."""

    def __init__(self, hints: Hints, labels: HintLabels, record: JobRecord, host: Host) -> None:
        self._classes, self._host = record.classes, host
        self._constraints = Constraints(hints, labels, record.classes, record.geometry)
        self._said: dict[Hashable, str] = {}
        self._remarks: list[Remark] = []  # on the last result

    def compare(self, annotation: Annotation, boxes: Sequence[Box]) -> None:
        """Warn of paint in some boxes that hints contradict."""
        for found in contradictions(annotation, boxes):
            self._say((found.kind, found.value), found.sentence(self._classes), _BEND, again=True)

    def hold_places(self, labels: np.ndarray, labelled: np.ndarray, box: Box) -> None:
        """Segments only where they may be, in place; labels (k, j, i) uint8 and labelled bool of a box."""
        self._constraints.hold_places(labels, labelled, box)

    def hold(self, labels: np.ndarray, sure: np.ndarray, labelled: np.ndarray, tick: Callable[[], None], is_result: bool = False) -> None:
        """All that hints say, of a whole label map and how sure it is, (K, J, I) uint8 both, in place."""
        self._constraints.hold_places(labels, labelled, whole(labels.shape), sure)
        remarks = self._constraints.hold_shapes(labels, sure, labelled, tick)
        for remark in remarks:
            self._say(remark.about, remark.sentence, remark.advice, again=is_result)
        if is_result:
            self._remarks = remarks

    def report(self, annotation: Annotation) -> list[str]:
        """What contradicts them and what does not hold, in sentences."""
        against = [found.sentence(self._classes) for found in contradictions(annotation, [whole(annotation.labels.shape)])]
        return against + [remark.sentence for remark in self._remarks]

    def _say(self, about: Hashable, sentence: str, advice: str, again: bool) -> None:
        before = self._said.get(about)
        if before is None or (again and before != sentence):
            self._said[about] = sentence
            self._host.warning("hints", sentence, advice)
