"""A connection that may break, and the messages that cross it: each arrives once and in order, whatever connections it takes.

Both ends count what they have received. What was sent is kept until the other end says that it has it; a new connection begins by telling each
other these counts, and goes on from there. A message is a line of ASCII JSON, of this module (`frame`) or of protocol.py, and what a frame says of
its `bytes`: so many of them follow its line. docs/protocol.md. Standard library only.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from .protocol import MAX_LINE, ProtocolError

REMOTE_VERSION = 1  # of what this module and frames.py say; protocol.py has a version of its own
MAX_BYTES = 1 << 25  # that may follow a line
_MOST_KEPT = 1 << 24  # bytes on their way, before who sends has to wait
_TELL_EVERY = 32  # messages, or
_TELL_BYTES = 1 << 19  # as much of them, until the other end is told; and
TELL_S = 5.0  # at the latest, as a sign of life


@dataclass(frozen=True)
class Frame:
    """A message of this layer. fields: what its line says, `frame` and `bytes` aside; data: the bytes behind it."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    data: bytes = b""

    def encode(self) -> bytes:
        line = {"frame": self.kind, **self.fields, **({"bytes": len(self.data)} if self.data else {})}
        return json.dumps(line, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n" + self.data

    def text(self, name: str) -> str:
        return self._field(name, str)

    def number(self, name: str) -> int:
        value: int = self._field(name, int)
        if value < 0:
            raise ProtocolError(f"A frame {self.kind!r:.80} has a negative {name}.")
        return value

    def _field(self, name: str, kind: type) -> Any:
        value = self.fields.get(name)
        if type(value) is not kind:
            raise ProtocolError(f"A frame {self.kind!r:.80} needs {name}, got {value!r:.80}.")
        return value


def receive(pipe: IO[bytes]) -> Iterator[Frame | str]:
    """What comes out of a pipe until it ends: frames, and the lines of protocol.py as they are. Raises OSError where it breaks, ProtocolError where
    it holds something else: what comes behind that cannot be told apart any more."""
    while line := pipe.readline(MAX_LINE + 1):
        if not line.endswith(b"\n"):
            if len(line) > MAX_LINE:
                raise ProtocolError(f"A line is longer than the {MAX_LINE} bytes allowed.")
            return  # cut
        found = parse(line)
        if isinstance(found, str):
            yield found
            continue
        size = found.fields.pop("bytes", 0)
        if type(size) is not int or not 0 <= size <= MAX_BYTES:
            raise ProtocolError(f"A frame {found.kind!r:.80} says that {size!r:.80} bytes follow.")
        data = pipe.read(size) if size else b""
        if len(data) < size:
            return
        yield Frame(found.kind, found.fields, data)


def parse(line: bytes) -> Frame | str:
    """A frame without its bytes, or another line's text. Raises ProtocolError for what is no JSON object."""
    try:
        text = line.decode("ascii")
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"Not a JSON object: {line[:80]!r}.") from error
    if not isinstance(data, dict):
        raise ProtocolError(f"Not a JSON object: {line[:80]!r}.")
    kind = data.pop("frame", None)
    if kind is not None and not isinstance(kind, str):
        raise ProtocolError(f"Unknown frame {kind!r:.80}.")
    return text if kind is None else Frame(kind, data)


class Link:
    """One end. `put` by who sends; `attach`, `write` and `heard` by who holds the present connection."""

    def __init__(self) -> None:
        self.received = 0  # messages of the other end, that were dealt with
        self._condition = threading.Condition()
        self._kept: deque[bytes] = deque()  # not known to have arrived
        self._kept_bytes = 0
        self._next = 0  # of those kept, the next to be written
        self._arrived = 0  # messages of this end that the other has
        self._connection = 0
        self._told, self._untold_bytes = 0, 0
        self._closed = False

    def put(self, message: str | Frame, patient: bool = True) -> bool:
        """Send it, now or over a later connection; False where the link was closed. patient: wait while much is under way. Not for who reads, since
        that is how the other end says what has arrived."""
        data = message.encode("ascii") if isinstance(message, str) else message.encode()
        with self._condition:
            while patient and self._kept_bytes > _MOST_KEPT and not self._closed:
                self._condition.wait()
            if self._closed:
                return False
            self._kept.append(data)
            self._kept_bytes += len(data)
            self._condition.notify_all()
            return True

    def attach(self, received: int) -> int:
        """A new connection, whose other end has received so many messages; its number, for `write`. Raises ProtocolError where that cannot be."""
        with self._condition:
            self._forget(received)
            self._next, self._told = 0, self.received
            self._connection += 1
            self._condition.notify_all()
            return self._connection

    def write(self, connection: int, pipe: IO[bytes]) -> None:
        """Write what there is, and what is put, until the connection is another one, or the link is closed and all is written. Raises OSError."""
        while (data := self._take(connection)) is not None:
            pipe.write(data)
            pipe.flush()

    def _take(self, connection: int) -> bytes | None:
        with self._condition:
            while connection == self._connection:
                if self._next < len(self._kept):
                    self._next += 1
                    return self._kept[self._next - 1]
                if self._closed:
                    return None
                is_due = self._untold >= _TELL_EVERY or self._untold_bytes >= _TELL_BYTES
                if is_due or not self._condition.wait(TELL_S):
                    self._told, self._untold_bytes = self.received, 0
                    return Frame("ack", {"received": self.received}).encode()
            return None

    @property
    def _untold(self) -> int:
        return self.received - self._told

    def heard(self, message: Frame | str) -> bool:
        """Note what has come: whether it is a message for somebody, which `dealt_with` counts. Raises ProtocolError."""
        if isinstance(message, Frame) and message.kind == "ack":
            with self._condition:
                self._forget(message.number("received"))
                self._condition.notify_all()
            return False
        return True

    def dealt_with(self, message: Frame | str) -> None:
        """Only now: what breaks in between is sent again."""
        with self._condition:
            self.received += 1
            self._untold_bytes += len(message.data) if isinstance(message, Frame) else 0
            if self._untold >= _TELL_EVERY or self._untold_bytes >= _TELL_BYTES:
                self._condition.notify_all()

    def _forget(self, received: int) -> None:
        if not self._arrived <= received <= self._arrived + len(self._kept):
            raise ProtocolError(f"The other end says that it has {received} messages, of {self._arrived + len(self._kept)}.")
        while self._arrived < received:
            self._kept_bytes -= len(self._kept.popleft())
            self._arrived += 1
            self._next = max(0, self._next - 1)

    def drained(self, timeout_s: float) -> bool:
        """Wait until all has arrived."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._kept, timeout_s)

    def detach(self) -> None:
        """The connection is gone: nobody writes to it any more."""
        with self._condition:
            self._connection += 1
            self._condition.notify_all()

    def close(self) -> None:
        """Nothing more is put; what is there is still written."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
