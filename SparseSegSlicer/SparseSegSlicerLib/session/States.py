"""What a session is in, and what it has said: plain values between the Controller and whoever shows it. No slicer, no qt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from sparseseg.contract.place import Place
from sparseseg.contract.protocol import Progress


class State(Enum):
    EMPTY = "choose a volume and a segmentation"
    IDLE = "ready to train"
    STARTING = "starting"
    TRAINING = "training"
    FINISHING = "finishing"
    RESULT = "result"


RUNNING = (State.STARTING, State.TRAINING, State.FINISHING)


@dataclass(frozen=True)
class Message:
    level: str  # info, warning, error
    sentence: str
    advice: str = ""

    def text(self) -> str:
        return f"{self.sentence} {self.advice}".strip()


@dataclass(frozen=True)
class Launch:
    """How the engine is started: the interpreter's command line (empty: this process's own) and the environment (None: this process's)."""

    python: Sequence[str] = ()
    environment: Mapping[str, str] | None = None
    temporaryFolder: str | None = None


@dataclass
class Report:
    """What a run has said so far, for the panel."""

    progress: Progress | None = None
    curve: list[tuple[float, float, dict[str, float]]] = field(default_factory=list)  # step, loss, estimate by segment ID
    estimate: dict[str, float] = field(default_factory=dict)
    nextSlices: list[list[int]] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)  # where the strokes are probably mistaken, those that the user keeps among them
    why: str = ""
    onCpu: bool = False
