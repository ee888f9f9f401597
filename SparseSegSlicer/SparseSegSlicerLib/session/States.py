"""What a session is in, and what it has said: plain values between the Controller and whoever shows it. No slicer, no qt."""

from __future__ import annotations

import re
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


_COMMAND = re.compile("`([^`]+)`")
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


_THERE = {  # the same of an engine that works on a server
    State.STARTING: _("The engine is starting on {server}. You can go on painting."),
    State.TRAINING: _("Training on {server}. Paint corrections whenever you see something wrong."),
    State.FINISHING: _("The result is being computed on {server}."),
}


def standing(state: State, server: str = "") -> Message:
    """server: where the engine works, if not on this computer."""
    return Message("info", _THERE[state].format(server=server)) if server and state in _THERE else STANDING[state]


def commandIn(advice: str) -> str:
    """The command that an advice gives, between back-quotes, to be run in a terminal; empty if none."""
    found = _COMMAND.search(advice)
    return found[1] if found else ""


def withoutCommand(advice: str, instead: str) -> str:
    """instead: words for where the command is shown, since it is longer than a line of the panel."""
    return _COMMAND.sub(instead, advice, count=1)


@dataclass(frozen=True)
class Launch:
    """How the engine is started: the interpreter's command line (empty: this process's own), the environment (None: this process's), and on which
    server, by its address (empty: on this computer)."""

    python: Sequence[str] = ()
    environment: Mapping[str, str] | None = None
    temporaryFolder: str | None = None
    server: str = ""


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
