"""The pipe between a host and the worker: one JSON object a line, ASCII, in both directions.

This file is the definition; docs/protocol.md shows an example of each message and is checked against it. A host writes commands to
the worker's stdin, the worker writes events to its stdout. Pipes carry numbers and file names, never arrays.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import IO, Any, ClassVar, TypeVar

from .errors import SparseSegError

PROTOCOL_VERSION = 4  # 2: annotation and previews may travel as boxes; 3: `check`; 4: `share` in `result`, in place of a trust for each segment
MAX_LINE = 1_000_000  # bytes, with the line's end; longer lines are refused whole
MAX_ID = 200  # characters
_QUOTED = 80  # characters of what is refused
_CUT = 4000  # characters of a text and entries of a list, in an event that would be too long for a line; fewer where that is not enough


M = TypeVar("M")


class ProtocolError(SparseSegError, ValueError):
    """A line that is no message of this protocol."""

    code = "protocol"
    exit_code = 2


# -- commands: host -> worker ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """Every command has an `id` of the host's choosing, MAX_ID characters at most; events that answer it carry the same `id`."""

    kind: ClassVar[str] = ""
    id: str


@dataclass(frozen=True)
class Open(Command):
    """Open a job folder (image, annotation, settings) and lock it. Answered by `ready`, or by `error`. `protocol` is the host's; one that does
    not name it is of version 1, and refused as any other version is: it would take a box for the whole volume. `owner`: the process that holds the
    folder for the host (contract/lock.py), where one does."""

    kind: ClassVar[str] = "open"
    job: str
    device: str = "auto"
    protocol: int = field(default=PROTOCOL_VERSION, metadata={"missing": 1})
    owner: int = 0


@dataclass(frozen=True)
class Train(Command):
    """Train on the opened job. `settings` override the job's; `start_from` names a model file; `resume` goes on from the job's
    checkpoint where there is one. Sends `preview` (the prior first) and `progress`; ends in `result` or `error`."""

    kind: ClassVar[str] = "train"
    settings: dict[str, Any] = field(default_factory=dict)
    start_from: str = ""
    resume: bool = True


@dataclass(frozen=True)
class Update(Command):
    """A new annotation: a .npy file inside the job folder, with a revision above the current one. With a `box` the file holds this part of the
    volume only, and the rest is as it was. Answered, idle or training, by `preview` with the new revision, first what growing makes of it, then
    a refined one; or by a non-fatal `error`, and then the old annotation stays."""

    kind: ClassVar[str] = "update"
    annotation: str
    revision: int
    complete_slices: list[list[int]] = field(default_factory=list)
    box: list[list[int]] = field(default_factory=list)  # [first, last + 1] along k, j, i; empty: the whole volume


@dataclass(frozen=True)
class Finish(Command):
    """Make the training's `result` come now, from the best state so far."""

    kind: ClassVar[str] = "finish"


@dataclass(frozen=True)
class Cancel(Command):
    """Stop within a second and go back to idle: the running command ends in `error` with code `cancelled`, then `ready`."""

    kind: ClassVar[str] = "cancel"


@dataclass(frozen=True)
class Predict(Command):
    """Segment the opened job's image with `model` (a file; empty: the job's own model). Ends in `result` or `error`."""

    kind: ClassVar[str] = "predict"
    model: str = ""


@dataclass(frozen=True)
class Close(Command):
    """Stop what is running, close the job, and exit. End of stdin means the same."""

    kind: ClassVar[str] = "close"


# -- events: worker -> host --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """`id` is that of the command answered, empty for events of the worker's own; `revision` is the annotation's it was made from."""

    kind: ClassVar[str] = ""
    id: str
    revision: int


@dataclass(frozen=True)
class Ready(Event):
    """The worker is idle. The first line of all carries the protocol version and the worker's own process number."""

    kind: ClassVar[str] = "ready"
    protocol: int
    pid: int
    versions: dict[str, str]
    device: str  # empty while none is chosen, which needs torch to load; then `device` says it
    why: str  # why this device, in words
    job: str = ""
    summary: str = ""  # the annotation in words


@dataclass(frozen=True)
class Device(Event):
    """The device that the network and the refiner work on, once it is chosen, or another where it moved."""

    kind: ClassVar[str] = "device"
    device: str
    why: str  # why this one, in words


@dataclass(frozen=True)
class Progress(Event):
    """How far it is; also the heartbeat, at least every 2 s. `estimate` maps segment IDs to the Dice that is expected."""

    kind: ClassVar[str] = "progress"
    stage: str  # opening, starting, prior, training, estimating, predicting, saving
    step: int
    seconds: float
    eta_seconds: float | None
    fraction: float  # of the whole run, 0..1
    loss: dict[str, float]  # term -> value, smoothed; empty before the first step
    estimate: dict[str, float]


@dataclass(frozen=True)
class Preview(Event):
    """A dense label map to show (uint8 .npy, full path), or with a `box` this part of it: outside, the preview before it stands. `source` is growing,
    prior (refined), or network (fused with the prior)."""

    kind: ClassVar[str] = "preview"
    file: str
    source: str
    step: int
    seconds: float
    box: list[list[int]] = field(default_factory=list)  # [first, last + 1] along k, j, i; empty: the whole volume


@dataclass(frozen=True)
class Result(Event):
    """The end of `train` or `predict`: finished files (full paths)."""

    kind: ClassVar[str] = "result"
    file: str
    uncertainty: str
    model: str
    report: str
    reason: str  # budget, steps, finish, predicted
    step: int
    seconds: float
    estimate: dict[str, float]
    share: float  # of the network in the result, 0..1; the rest is the prior's
    next_slices: list[list[int]]  # [axis, index], most uncertain first
    places: list[dict[str, Any]] = field(default_factory=list)  # as of `check`


@dataclass(frozen=True)
class Check(Event):
    """Where the annotation is probably mistaken, the surest first: all such places (contract/place.py) as they are now, none where the list is
    empty. Sent when the list becomes another one."""

    kind: ClassVar[str] = "check"
    places: list[dict[str, Any]]


@dataclass(frozen=True)
class Warning(Event):
    """Something the user should know; the run goes on."""

    kind: ClassVar[str] = "warning"
    code: str
    sentence: str
    advice: str


@dataclass(frozen=True)
class Error(Event):
    """A command failed; with `fatal` the worker exits. What was there before is unchanged."""

    kind: ClassVar[str] = "error"
    code: str
    sentence: str
    advice: str
    fatal: bool = False


Message = Command | Event
COMMANDS: dict[str, type[Command]] = {c.kind: c for c in (Open, Train, Update, Finish, Cancel, Predict, Close)}
EVENTS: dict[str, type[Event]] = {e.kind: e for e in (Ready, Device, Progress, Preview, Result, Check, Warning, Error)}


def encode(message: Message) -> str:
    """One line of ASCII JSON with its newline. Raises ValueError for a number that JSON lacks (nan, inf), ProtocolError for too long a line."""
    key = "command" if isinstance(message, Command) else "event"
    line = json.dumps({key: message.kind, **asdict(message)}, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"
    _check_length(line)
    return line


def encode_event(event: Event) -> str:
    """As `encode`, but texts and lists of an event that is too long for a line are cut: the host hears less, but it hears of it."""
    most = _CUT
    while True:
        try:
            return encode(event)
        except ProtocolError:
            event = replace(event, **{f.name: _cut(getattr(event, f.name), most) for f in fields(event) if f.name != "id"})
            most //= 2


def _cut(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= most else value[:most] + "..."
    if isinstance(value, dict):
        return {_cut(key, most): _cut(each, most) for key, each in list(value.items())[:most]}
    return [_cut(each, most) for each in value[:most]] if isinstance(value, list) else value


def messages(pipe: IO[bytes], decode: Callable[[str], M]) -> Iterator[M | ProtocolError]:
    """What the lines of a pipe say, until it ends; a ProtocolError for each that says nothing. Of one that is too long no part is taken for a line,
    and no more than MAX_LINE bytes are kept."""
    with contextlib.suppress(OSError, ValueError):  # the other end, or the pipe itself, is gone
        while line := pipe.readline(MAX_LINE + 1):
            try:
                if len(line) > MAX_LINE:
                    while not line.endswith(b"\n") and (line := pipe.readline(MAX_LINE)):
                        pass
                    raise ProtocolError(f"A line is longer than the {MAX_LINE} bytes allowed.", "Send one JSON object a line.")
                if line.strip():
                    yield decode(_text(line))
            except ProtocolError as error:
                yield error


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError(f"Not UTF-8: {line[:_QUOTED]!r}.", "Send ASCII.") from error


def decode_command(line: str) -> Command:
    """Raises ProtocolError, saying what is wrong with the line."""
    return _decode(line, "command", COMMANDS)


def decode_event(line: str) -> Event:
    """Raises ProtocolError, saying what is wrong with the line."""
    return _decode(line, "event", EVENTS)


def _check_length(line: str) -> None:
    if len(line) > MAX_LINE:
        raise ProtocolError(f"A line of {len(line)} characters is longer than the {MAX_LINE} allowed.")


def _finite(text: str) -> float:
    """A number of a message. Raises ProtocolError for NaN and Infinity, which Python reads but JSON lacks, and for 1e999, which becomes one."""
    number = float(text)
    if not math.isfinite(number):
        raise ProtocolError(f"{text[:_QUOTED]} is no number that a message may hold.", "Send null, or leave the message out.")
    return number


def _unequivocal(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ProtocolError for a name that comes twice: readers differ on which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ProtocolError("A name comes twice in an object.", "Name each field once.")
    return found


def _decode(line: str, key: str, known: dict[str, Any]) -> Any:
    _check_length(line)
    try:
        data = json.loads(line, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_unequivocal)
    except ProtocolError:
        raise
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"Not a JSON object: {line[:_QUOTED]!r}.", "Send one JSON object a line.") from error
    if not isinstance(data, dict):
        raise ProtocolError(f"Not a JSON object: {line[:_QUOTED]!r}.", "Send one JSON object a line.")
    kind = data.pop(key, None)
    if not isinstance(kind, str) or kind not in known:
        raise ProtocolError(f"Unknown {key} {kind!r:.{_QUOTED}}.", f"Known: {', '.join(sorted(known))}.")
    return _build(known[kind], kind, data)


def _build(cls: Any, kind: str, data: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    values = {}
    for f in fields(cls):
        if f.name in data:
            if not _fits(data[f.name], hints[f.name]):
                raise ProtocolError(f"{kind}: {f.name} must be {f.type}, got {data[f.name]!r:.{_QUOTED}}.")
            if f.name == "id" and len(data["id"]) > MAX_ID:
                raise ProtocolError(f"{kind}: id has {len(data['id'])} characters, more than the {MAX_ID} allowed.")
            values[f.name] = data[f.name]
        elif "missing" in f.metadata:
            values[f.name] = f.metadata["missing"]
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ProtocolError(f"{kind}: {f.name} is missing.")
    return cls(**values)  # fields that this version does not know are ignored


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value fits a field's type; int serves for float, bool never for a number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, h) for h in arguments)
    if origin is list:
        return isinstance(value, list) and all(_fits(v, arguments[0]) for v in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(v, arguments[1]) for v in value.values())
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
