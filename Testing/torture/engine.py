"""A real worker at the end of raw pipes: it can be killed, stopped, sent half lines, and left unread."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparseseg.contract.protocol import PROTOCOL_VERSION

from .nursery import CAN_COPY, PATHS, Copy
from .trial import Broken, Trial

PATIENCE_S = 120.0  # for one answer on a slow, busy machine; not a measure of speed
Events = list[dict[str, Any]]


def environment(trial: Trial) -> dict[str, str]:
    """What a program under attack is started with."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
        "PYTHONUTF8": "1",
        "PYTHONFAULTHANDLER": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TMPDIR": str(trial.temporary),
        "TEMP": str(trial.temporary),
        "TMP": str(trial.temporary),
    }


class Engine:
    """One worker. `events` is all that it said, `text` its stderr; `orders` names the file of sabotage.py, if it is to be sabotaged.
    copied: it may begin with everything loaded, see nursery.py."""

    def __init__(self, trial: Trial, orders: Path | None = None, copied: bool = False) -> None:
        self.process = Copy(orders, environment(trial), trial.folder) if copied and CAN_COPY else self._start(trial, orders)
        self.events: Events = []
        self.text = b""
        self.reading = threading.Event()  # cleared: the host stops reading
        self.reading.set()
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._ended = self._leaving = False
        for target in (self._read, self._read_text):
            threading.Thread(target=target, daemon=True).start()

    @staticmethod
    def _start(trial: Trial, orders: Path | None) -> subprocess.Popen[bytes]:
        sabotaged = f"from torture import sabotage; sabotage.obey({str(orders)!r}); from sparseseg import worker; worker.main()"
        start = ["-m", "sparseseg", "worker"] if orders is None else ["-c", sabotaged]
        return subprocess.Popen(
            [sys.executable, "-u", *start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(trial),
            cwd=trial.folder,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    # -- to the worker -------------------------------------------------------------------------------------------------

    def send(self, command: str, id: str, **fields: Any) -> None:
        self.raw(json.dumps({"command": command, "id": id, **fields}).encode() + b"\n")

    def raw(self, data: bytes) -> None:
        """A worker that is gone takes nothing; that shows in what it says."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def open(self, folder: Path, id: str = "open") -> dict[str, Any]:
        self.send("open", id, job=str(folder), device="cpu", protocol=PROTOCOL_VERSION)
        return self.answer(id, "ready", "error")

    def signal(self, name: str) -> None:
        """SIGSTOP, SIGCONT, SIGKILL ... to the worker alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, getattr(signal, name))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.rest()

    def close_stdout(self) -> None:
        """The host's end is closed after what is said next, as when its reading part has died."""
        self._leaving = True

    def end(self, patience_s: float = PATIENCE_S) -> int:
        """The end of stdin, and the exit code that follows."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        return self.wait(patience_s)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        try:
            code = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise Broken(f"the worker did not end within {patience_s:.0f} s; {self.last}; it is at {self.where()}") from None
        self.rest()
        return code

    # -- from the worker -----------------------------------------------------------------------------------------------

    def next(self, patience_s: float) -> dict[str, Any] | None:
        """The next event; None where none came in time, or the worker has ended."""
        if self._ended:
            return None
        try:
            event = self._queue.get(timeout=patience_s)
        except queue.Empty:
            return None
        if event is None:
            self._ended = True
            return None
        self.events.append(event)
        return event

    def until(self, wanted: Callable[[dict[str, Any]], bool], patience_s: float = PATIENCE_S) -> dict[str, Any] | None:
        """The next event that is wanted; None where the worker ended before. Raises Broken where it only keeps silent or says other things."""
        end = time.monotonic() + patience_s
        while (left := end - time.monotonic()) > 0:
            event = self.next(left)
            if event is not None and wanted(event):
                return event
            if self._ended:
                return None
        last = self.last
        raise Broken(f"no answer within {patience_s:.0f} s; {last}; it is at {self.where()}")

    def answer(self, id: str, *kinds: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """The first event of these kinds that answers the command. Raises Broken where the worker ends without one."""
        event = self.until(lambda e: e["id"] == id and e["event"] in kinds, patience_s)
        if event is None:
            raise Broken(f"the worker ended without an answer to {id}; {self.last}")
        return event

    def verdict(self, id: str) -> dict[str, Any]:
        """The event that answers an update, heard already or to come. Raises Broken where the worker ends without one."""
        event = next((e for e in self.of(id) if verdict(e)), None) or self.until(lambda e: e["id"] == id and bool(verdict(e)))
        if event is None:
            raise Broken(f"the worker ended without an answer to {id}; {self.last}")
        return event

    def rest(self) -> Events:
        """All that it said until it ended, or what has arrived by now; joined to `events`."""
        patience = 5.0 if self.process.poll() is not None else 0.0
        while self.next(patience) is not None:
            pass
        return self.events

    def of(self, id: str, *kinds: str) -> Events:
        return [e for e in self.events if e["id"] == id and (not kinds or e["event"] in kinds)]

    @property
    def last(self) -> str:
        """For a failure's words: what it said last."""
        said = [f"{e['event']} {e['id']} {e.get('stage') or e.get('sentence') or ''}".strip() for e in self.events[-3:]]
        return f"last: {said}; exit code {self.process.poll()}; {self.text[-300:].decode(errors='replace').strip()}"

    def where(self) -> str:
        """The worker's end, with what its main thread is at."""
        self.signal("SIGABRT")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.kill()
        time.sleep(0.2)
        main_thread = self.text.rsplit(b"Current thread", 1)[-1]
        calls = re.findall(rb'File "\S*?([^/"]+)", line (\d+)', main_thread)
        return " < ".join(f"{name.decode()}:{line.decode()}" for name, line in calls[:6])

    def _read(self) -> None:
        """Whole lines into the queue; what is no event, or half a one, is one that says so."""
        assert self.process.stdout is not None
        rest = b""
        while self.reading.wait() and not self._leaving and (data := os.read(self.process.stdout.fileno(), 65536)):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._queue.put(_event(line))
        self.process.stdout.close()
        if rest:
            self._queue.put({"event": "half a line", "id": "", "sentence": rest[:100].decode(errors="replace")})
        self._queue.put(None)

    def _read_text(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.text = (self.text + line)[-100_000:]


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line.decode("ascii"))
        if isinstance(event, dict) and {"event", "id", "revision"} <= set(event):
            return event
    except ValueError:
        pass
    return {"event": "no event", "id": "", "sentence": line[:100].decode(errors="replace")}


def verdict(event: dict[str, Any]) -> str:
    """How an event answers an update: `taken` (a preview, or a warning that none can be shown), `refused`; empty where it is another event."""
    if event["event"] == "preview" or event.get("code") == "unshown":
        return "taken"
    return "refused" if event["event"] == "error" else ""


def processes_left(group: int) -> bool:
    """Whether a process of a worker's group lives on, a moment after the worker's end."""
    for _ in range(40):
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return False
        time.sleep(0.05)
    return True
