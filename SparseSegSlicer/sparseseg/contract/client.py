"""The host's end of the pipe: start the worker, send commands, poll events, and end the whole process tree. Standard library only.

Nothing here blocks its caller: writing, reading and waiting for the end are done by threads; `poll` returns what has arrived. Slicer calls it
from a timer, the command line from a loop (`wait`).
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import WorkerError
from .protocol import Close, Command, Error, Event, ProtocolError, Ready, decode_event, encode

_STDERR_LINES = 200
_CLOSE_GRACE_S = 5.0


class WorkerClient:
    """One worker process. `python`: the interpreter's command line, which may be another environment's."""

    def __init__(self, python: Sequence[str] = (sys.executable,), environment: Mapping[str, str] | None = None) -> None:
        """environment: of the worker; this process's own where None. Raises WorkerError where the program cannot be started."""
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._asked_to_end = False
        self._worker_pid = 0
        self._heard = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [*python, "-u", "-m", "sparseseg", "worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=worker_environment(environment),
                **_own_group(),  # type: ignore[call-overload]
            )
        except OSError as error:
            raise WorkerError(
                f"The engine could not be started with {python[0]} ({error.strerror or error}).", "Check the Python interpreter in the settings."
            ) from error
        for target in (self._write, self._read, self._read_stderr):
            threading.Thread(target=target, name=f"worker {target.__name__}", daemon=True).start()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The worker's own process number; under a launcher it is not that of the process that was started."""
        return self._worker_pid or self._process.pid

    @property
    def silent_s(self) -> float:
        """Seconds since the worker last said something; while it works it speaks at least every 2 s."""
        return time.monotonic() - self._heard

    @property
    def log(self) -> str:
        """The last lines that the worker wrote to stderr."""
        return "\n".join(self._stderr)

    def send(self, command: Command) -> None:
        """Queue a command; it is written by a thread."""
        self._outbox.put(encode(command))

    def poll(self) -> list[Event]:
        """The events that have arrived since the last call, at once. When the worker died unasked, the last one is a fatal `error`."""
        events = []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def wait(self, timeout_s: float) -> Event | None:
        """The next event, or None when none came in time. For callers that have nothing else to do."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self, grace_s: float = _CLOSE_GRACE_S) -> threading.Thread:
        """Ask the worker to end, and end it by force after `grace_s`; returns at once, the thread ends when the process has."""
        self._asked_to_end = True
        self.send(Close("close"))
        self._outbox.put(None)
        reaper = threading.Thread(target=self._reap, args=(grace_s,), name="worker reaper", daemon=True)
        reaper.start()
        return reaper

    def kill(self) -> None:
        """End the worker and all its children now."""
        self._asked_to_end = True
        _kill_tree(self._process.pid)
        if self._worker_pid and self._worker_pid != self._process.pid:
            _kill_tree(self._worker_pid)

    def _reap(self, grace_s: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
            return
        self.kill()
        self._process.wait()

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
        for line in pipe:
            self._heard = time.monotonic()
            try:
                event = decode_event(line.decode("ascii", errors="replace"))
            except ProtocolError as error:
                self._stderr.append(f"not understood: {error}")
                continue
            if isinstance(event, Ready):
                self._worker_pid = event.pid
            said_goodbye = isinstance(event, Error) and event.fatal
            self._events.put(event)
        pipe.close()
        code = self._process.wait()
        if not self._asked_to_end and not said_goodbye:
            advice = "Start it again: training goes on from the last checkpoint. The engine's log may say why."
            self._events.put(Error("", 0, "worker", f"The engine process ended unexpectedly ({_reason(code)}).", advice, fatal=True))

    def _read_stderr(self) -> None:
        pipe = self._process.stderr
        assert pipe is not None
        for line in pipe:
            self._stderr.append(line.decode("utf-8", errors="replace").rstrip())
        pipe.close()


def worker_environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The worker finds this package wherever it lies, speaks UTF-8, and its idle threads sleep instead of spinning on the user's cores."""
    environment = dict(os.environ if given is None else given)
    package_parent = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (package_parent, environment.get("PYTHONPATH", "")) if p)
    environment["PYTHONUTF8"] = "1"
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment


def _own_group() -> dict[str, object]:
    """A process group of its own, so that Ctrl-C reaches only us, and the tree can be ended as one; no console window on Windows."""
    if sys.platform == "win32":  # pragma: no cover
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | no_window()["creationflags"]}
    return {"start_new_session": True}


def no_window() -> dict[str, int]:
    """For each child process: on Windows a console program opens a window otherwise, if only for a moment."""
    if sys.platform == "win32":  # pragma: no cover
        return {"creationflags": subprocess.CREATE_NO_WINDOW}
    return {}


def _kill_tree(pid: int) -> None:
    if sys.platform == "win32":  # pragma: no cover
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(pid)], capture_output=True, check=False, **no_window())
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(pid)
        if group != os.getpgrp():  # never our own
            os.killpg(group, signal.SIGKILL)


def _reason(code: int) -> str:
    if code == -9:
        return "killed, perhaps for lack of memory"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
