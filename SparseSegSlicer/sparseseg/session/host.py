"""What a session tells its host, and what it gives in the end; and how much of a run is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..contract.box import Box
from ..contract.place import Place
from ..contract.settings import Settings


class Host(Protocol):
    """What a session tells, and asks, while it works. `tick` may raise Cancelled, and everything here returns at once."""

    @property
    def finishing(self) -> bool: ...
    @property
    def update_waits(self) -> bool:
        """Whether a new annotation has arrived that `take_update`, or the end of the command at work, brings."""
        ...

    def tick(
        self,
        stage: str,
        step: int = 0,
        fraction: float = 0.0,
        eta: float | None = None,
        loss: dict[str, float] | None = None,
        estimate: dict[str, float] | None = None,
    ) -> None: ...
    def preview(self, file: Path, source: str, step: int, revision: int, box: Box | None) -> None: ...
    def check(self, places: list[Place], revision: int) -> None: ...
    def warning(self, code: str, sentence: str, advice: str) -> None: ...
    def take_update(self) -> Callable[[Any], None] | None:
        """What takes the oldest new annotation into the session that it is given; None where none has arrived."""
        ...


@dataclass(frozen=True)
class Outcome:
    """Finished files and numbers of one training or prediction."""

    dense: Path
    uncertainty: Path
    model: Path | None
    report: Path | None
    reason: str
    step: int
    seconds: float
    estimate: dict[str, float]
    share: float  # of the network in the result, 0..1
    next_slices: list[list[int]]
    places: list[Place]


@dataclass
class Clock:
    """How much of a run is over, by the clock, or by steps where their number is fixed."""

    settings: Settings
    reserved_s: float = 0.0  # for the final prediction and estimate
    spent_s: float = 0.0  # in earlier parts of a resumed run
    spent_steps: int = 0
    begin: float = 0.0  # where in the schedule of the learning rate this run begins: > 0 where it goes on from a trained state
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return self.spent_s + time.monotonic() - self.started

    def fraction(self, steps: int) -> float:
        if self.settings.steps:
            return min(1.0, (steps - self.spent_steps) / self.settings.steps)
        return min(1.0, self.seconds / max(0.5, self.settings.time_budget_s - self.reserved_s))

    def schedule(self, steps: int) -> float:
        """How far along the learning rate's schedule the run is, 0..1."""
        return self.begin + (1 - self.begin) * self.fraction(steps)

    def eta(self, steps: int) -> float:
        if self.settings.steps:
            done = self.fraction(steps)
            return self.seconds * (1 - done) / done + self.reserved_s if done > 0 else self.reserved_s
        return max(0.0, self.settings.time_budget_s - self.seconds)

    def take_back(self, fraction: float, steps: int) -> None:
        """Give the run time again, as if only `fraction` of it were over."""
        if self.fraction(steps) > fraction:
            self.spent_s = fraction * (self.settings.time_budget_s - self.reserved_s)
            self.spent_steps = steps - round(fraction * self.settings.steps)
            self.started = time.monotonic()
