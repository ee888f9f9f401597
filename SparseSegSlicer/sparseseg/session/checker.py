"""Where the annotation is probably mistaken, as of now: looked for when there is time, kept up to date by every correction in between."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..annotation.labels import Annotation
from ..contract.aside import Aside, at_once
from ..contract.belief import Belief
from ..contract.job import Job
from ..contract.place import Place
from ..contract.scratch import Zeros
from ..quality import check
from .host import Host

BelievedWithout = Callable[[Annotation, np.ndarray], Belief]


class Checker:
    """places: the surest first; all of them are told to the host whenever they become others. is_current: whether they are of the annotation now."""

    def __init__(self, job: Job, host: Host) -> None:
        self._job, self._host = job, host
        self._doubts: list[check.Doubt] = []
        self.is_current = False
        self.places: list[Place] = []

    def annotated(self, annotation: Annotation) -> None:
        """Labels came or went: what was corrected is no mistake any more. The rest stays until it is looked for again."""
        self.is_current = False
        self._keep([doubt for doubt in self._doubts if doubt.stands(annotation)])

    def look(
        self, gray: np.ndarray, annotation: Annotation, believed_without: BelievedWithout, aside: Aside = at_once, zeros: Zeros = np.zeros
    ) -> None:
        """Once for each revision; some growings, so of seconds in large volumes. gray: (K, J, I), one value a voxel; believed_without: from the
        labels in a mask, (K, J, I) bool, alone; aside, zeros: as of check.doubts. What they raise ends this, and nothing has changed."""
        if not self.is_current:
            self._keep(check.doubts(gray, annotation, lambda rest: believed_without(annotation, rest), aside, zeros))
            self.is_current = True

    def _keep(self, doubts: list[check.Doubt]) -> None:
        record, before = self._job.record, self.places
        self._doubts, self.places = doubts, [doubt.place(record.classes, record.geometry) for doubt in doubts]
        if self.places != before:
            self._host.check(self.places, record.revision)
