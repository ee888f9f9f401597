"""What a session is in, and what it has said: plain values between the Controller and whoever shows it. No slicer, no qt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from sparseseg.contract.place import Place
from sparseseg.contract.protocol import Progress

from ..i18n import tr as _


class State(Enum):
    EMPTY = "choose a volume and a segmentation"
    IDLE = "ready to train"
    STARTING = "starting"
    TRAINING = "training"
    FINISHING = "finishing"
    RESULT = "result"


RUNNING = (State.STARTING, State.TRAINING, State.FINISHING)


class Until(Enum):
    """What a message belongs to: it goes when that changes, and every message with the inputs."""

    STATE = "what the session is doing"
    PAINT = "whether anything is painted"
    STROKES = "the strokes as they were read"
    APPLIED = "the result that the segmentation holds"
    ENGINE = "whether the engine can be used"
    VIEWS = "whether the views are turned against the volume"


@dataclass(frozen=True)
class Message:
    level: str  # info, warning, error
    sentence: str
    advice: str = ""
    until: Until = Until.STATE

    def text(self) -> str:
        return f"{self.sentence} {self.advice}".strip()


STANDING = {  # what is said in a state as long as there is nothing else to say
    State.EMPTY: Message("info", _("Choose a volume and a segmentation.")),
    State.IDLE: Message("info", ""),
    State.STARTING: Message("info", _("The engine is starting. You can go on painting.")),
    State.TRAINING: Message("info", _("Training. Paint corrections whenever you see something wrong.")),
    State.FINISHING: Message("info", _("The result is being computed.")),
    State.RESULT: Message("info", _("The result is there."), _("Paint corrections, go on with Segment, or press Apply.")),
}


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
