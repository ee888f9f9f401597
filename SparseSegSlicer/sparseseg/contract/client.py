"""The host's end of the pipe: start the worker, send commands, poll events, and end the whole process tree. Standard library only.

Nothing here blocks its caller: writing, reading and waiting for the end are done by threads; `poll` returns what has arrived. Slicer calls it
from a timer, the command line from a loop (`wait`).
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence

from .child import Child
from .errors import WorkerError
from .inbox import Inbox
from .protocol import Close, Command, Error, ProtocolError, Ready, decode_event, encode, messages
from .remote import RemoteClient
from .server import Server

_STDERR_LINES, _STDERR_BYTES = 200, 10_000  # that are kept, and of one line
_CLOSE_GRACE_S = 5.0


def connect(engine: str = "", python: Sequence[str] = (sys.executable,), environment: Mapping[str, str] | None = None) -> WorkerClient | RemoteClient:
    """The engine at an address: empty: a worker on this computer, run by `python`; ssh://user@host[:port][?python=PATH]: one on another computer,
    by its own python. environment: of the child process, be it the worker or `ssh`; a host that changes library paths for itself passes the one
    that it was started with. Both clients have the same methods, and the same events name local files; what goes wrong on the way to a server is
    an `error` with code `connection`. Raises WorkerError (ServerError where the address or `ssh` is at fault)."""
    return RemoteClient(Server.parse(engine), environment) if engine else WorkerClient(python, environment)


class WorkerClient(Inbox):
    """One worker process. `python`: the interpreter's command line, which may be another environment's; files in it by their full paths."""

    def __init__(self, python: Sequence[str] = (sys.executable,), environment: Mapping[str, str] | None = None) -> None:
        """environment: of the worker; this process's own where None. Raises WorkerError where the program cannot be started."""
        super().__init__()
        self._outbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._asked_to_end = False
        self._worker_pid = 0
        try:
            self._child = Child([*python, "-u", "-m", "sparseseg", "worker"], environment)
        except OSError as error:
            raise WorkerError(
                f"The engine could not be started with {python[0]} ({error.strerror or error}).", "Check the Python interpreter in the settings."
            ) from error
        self._process = self._child.process
        for target in (self._write, self._read, self._read_stderr):
            threading.Thread(target=target, name=f"worker {target.__name__}", daemon=True).start()

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    @property
    def pid(self) -> int:
        """The worker's own process number; under a launcher it is not that of the process that was started."""
        return self._worker_pid or self._process.pid

    @property
    def log(self) -> str:
        """The last lines that the worker wrote to stderr."""
        return "\n".join(self._stderr)

    def send(self, command: Command) -> None:
        """Queue a command; it is written by a thread."""
        self._outbox.put(encode(command))

    def close(self, grace_s: float = _CLOSE_GRACE_S) -> threading.Thread:
        """Ask the worker to end, and end it by force after `grace_s`; returns at once, the thread ends when the process has."""
        self._asked_to_end = True
        self.send(Close("close"))
        self._outbox.put(None)
        reaper = threading.Thread(target=self._reap, args=(grace_s,), name="worker reaper", daemon=True)
        reaper.start()
        return reaper

    def kill(self) -> None:
        """End the worker and all its children now; nothing where it has ended."""
        self._asked_to_end = True
        self._outbox.put(None)  # a worker that is out of reach ends with its stdin
        self._child.kill()

    def _reap(self, grace_s: float) -> None:
        if self._child.wait(grace_s) is None:
            self.kill()
            self._child.wait()

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with contextlib.suppress(OSError):  # the worker is gone: _read says so
            while (line := self._outbox.get()) is not None:
                pipe.write(line.encode("ascii"))
                pipe.flush()
        with contextlib.suppress(OSError):
            pipe.close()

    def _read(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        said_goodbye = False
        for event in messages(pipe, decode_event):
            if isinstance(event, ProtocolError):
                self._stderr.append(f"not understood: {event}")
                continue
            if isinstance(event, Ready) and not self._worker_pid:
                self._worker_pid = event.pid
                self._child.spoken_for(event.pid)
            said_goodbye = isinstance(event, Error) and event.fatal
            self._events.put(event)
        pipe.close()
        code = self._child.wait()
        self._child.forget()
        if not self._asked_to_end and not said_goodbye:
            advice = "Start it again: training goes on from the last checkpoint. The engine's log may say why."
            self._events.put(Error("", 0, "worker", f"The engine process ended unexpectedly ({_reason(code)}).", advice, fatal=True))

    def _read_stderr(self) -> None:
        pipe = self._process.stderr
        assert pipe is not None
        while line := pipe.readline(_STDERR_BYTES):
            self._stderr.append(line.decode("utf-8", errors="replace").rstrip())
        pipe.close()


def _reason(code: int | None) -> str:
    if code == -9:
        return "killed, perhaps for lack of memory"
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
