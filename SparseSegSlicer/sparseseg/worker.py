"""The worker process: stdin lines -> session -> stdout lines. Owns both streams; no mathematics.

The real stdout belongs to the protocol alone: `sys.stdout` and file descriptor 1 point at stderr before torch is imported, so that nothing
that a library prints can reach the host. One thread reads stdin into a queue, which is looked at after every training step and tile; another
keeps the heartbeat.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import logging
import os
import platform
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

from . import __version__
from .contract.box import box_to_json
from .contract.errors import Cancelled, SparseSegError, StuckError
from .contract.folders import ended_in_order
from .contract.job import EVENTS, LOG
from .contract.protocol import (
    MAX_LINE,
    PROTOCOL_VERSION,
    Cancel,
    Check,
    Close,
    Command,
    Device,
    Error,
    Event,
    Finish,
    Open,
    Predict,
    Preview,
    Progress,
    ProtocolError,
    Ready,
    Result,
    Train,
    Update,
    Warning,
    decode_command,
    encode,
)
from .contract.text import VisibleFormatter
from .prior import compiled

if TYPE_CHECKING:
    from .contract.box import Box
    from .contract.place import Place
    from .session.host import Outcome
    from .session.session import Session

_HEARTBEAT_S = 1.0
_PROGRESS_EVERY_S = 0.25
_STUCK_S = {"training": 30.0}  # a step takes well under a second; seen: threads that wait for each other for ever inside a CPU convolution
_STUCK_ELSEWHERE_S = 180.0  # one silent stretch of reading, growing or writing a very large volume
_STUCK_EXIT_CODE = 5
_IDLE_AFTER_S = 1.0  # without a command, until the session catches up on what corrections have left for later
_EXIT_AFTER_EOF_S = 10.0  # a step that does not end must not outlive the host
_log = logging.getLogger("sparseseg")


def main() -> NoReturn:
    """Serve until `close` or the end of stdin; the exit code is 0 then."""
    out = _claim_stdout()
    log = logging.StreamHandler(sys.stderr)
    log.setFormatter(VisibleFormatter())
    logging.basicConfig(handlers=[log], level=logging.INFO)
    try:
        with ended_in_order():
            code = Worker(sys.stdin.buffer, out).serve()
    except SystemExit as asked:  # by a signal
        code = int(asked.code or 0)
    logging.shutdown()
    # not sys.exit: the thread that waits on stdin holds its lock, which makes the interpreter abort while it shuts down
    os._exit(code)


def _claim_stdout() -> IO[str]:
    """A private stream on the real stdout; everybody else's stdout is stderr from here on, also for C code."""
    private = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return open(private, "w", encoding="ascii", newline="\n")


class Worker:
    """One host, one session at a time. It is the session's Host: `tick`, `preview`, `warning`, `take_update`, `finishing`."""

    def __init__(self, stdin: IO[bytes], stdout: IO[str]) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._inbox: queue.SimpleQueue[Command | ProtocolError] = queue.SimpleQueue()
        self._write_lock = threading.Lock()
        self._session: Session | None = None
        self._events: IO[str] | None = None
        self._log_handler: logging.Handler | None = None
        self._answering = ""  # the id of the command at work
        self._updates: deque[Update] = deque()  # for the training at work
        self._later: deque[Command] = deque()  # arrived while another command was at work, done after it
        self._finish = self._closing = self._idling = False
        self._told_device = ""
        self._working: type[Command] | None = None
        self._cancel_id: str | None = None
        self._progress: Progress | None = None
        self._started = self._last_line = self._last_tick = time.monotonic()

    # -- the loop ------------------------------------------------------------------------------------------------------

    def serve(self) -> int:
        threading.Thread(target=self._read, name="stdin", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        threading.Thread(target=compiled.warm_up, name="warm up", daemon=True).start()
        self._ready("")
        try:
            while not self._closing:
                self._handle(self._later.popleft() if self._later else self._next())
        except KeyboardInterrupt:
            pass
        finally:
            self._close_session()
        return 0

    def _next(self) -> Command | ProtocolError:
        """The next command; while none comes, the session catches up."""
        try:
            return self._inbox.get(timeout=_IDLE_AFTER_S)
        except queue.Empty:
            pass
        if self._session is not None:
            self._idling = True
            try:
                self._session.idle()
            except Cancelled:
                pass  # a command has come
            except Exception as error:  # nobody asked for this work
                _log.error("while idle", exc_info=error)
            finally:
                self._idling = False
        return self._inbox.get()

    def _handle(self, command: Command | ProtocolError) -> None:
        """One command from start to end; whatever it raises becomes an `error` event."""
        if isinstance(command, ProtocolError):
            self._error("", command)
            return
        self._answering, self._started, self._last_tick = command.id, time.monotonic(), time.monotonic()
        self._finish, self._working = False, type(command)
        if isinstance(command, Open | Train | Predict | Update):  # the heartbeat begins here
            self._progress = Progress(command.id, self._revision, "opening" if isinstance(command, Open) else "starting", 0, 0.0, None, 0.0, {}, {})
        try:
            self._do(command)
        except Exception as error:  # the worker must survive anything that a command does
            self._progress = None
            self._error(command.id, error)
        finally:
            self._progress = self._working = None
        self._later.extendleft(reversed(self._updates))  # too late for the run: done now, idle
        self._updates.clear()
        if self._cancel_id is not None and not self._closing:
            self._ready(self._cancel_id)
        self._cancel_id = None

    def _do(self, command: Command) -> None:
        if isinstance(command, Close):
            self._closing = True
        elif isinstance(command, Open):
            self._open(command)
        elif isinstance(command, Cancel):
            self._ready(command.id)  # nothing runs: idle already
        elif isinstance(command, Finish):
            self._emit(Warning(command.id, self._revision, "idle", "Nothing is running that could be finished.", ""))
        elif isinstance(command, Train):
            self._result(self._opened().train(command.settings, command.start_from, command.resume))
        elif isinstance(command, Predict):
            self._result(self._opened().predict(command.model))
        elif isinstance(command, Update):
            self._opened().update(command.annotation, command.revision, command.complete_slices, command.box)

    def _opened(self) -> Session:
        if self._session is None:
            raise SparseSegError("No job is open.", "Send `open` first.")
        return self._session

    def _open(self, command: Open) -> None:
        if command.protocol != PROTOCOL_VERSION:
            raise ProtocolError(
                f"The host speaks version {command.protocol} of the protocol, this engine version {PROTOCOL_VERSION}.",
                "Bring the extension and the engine to the same version.",
            )
        self._close_session()
        from .session.devices import DeviceChoice
        from .session.session import Session

        devices = DeviceChoice(command.device)
        self._session = Session.open(Path(command.job), devices, self, command.owner)
        if command.device not in ("auto", "cpu"):  # one that may not be there
            try:
                devices.compute(lambda: self.tick("opening"))
            except BaseException:
                self._close_session()
                raise
        self._log_to(Path(command.job))
        self._progress = None
        self._ready(command.id)

    def _close_session(self) -> None:
        self._told_device = ""
        if self._session is not None:
            self._session.close()
            self._session = None
            gc.collect()  # a session and its voices hold each other, and their arrays are large
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._log_handler is not None:
            _log.removeHandler(self._log_handler)
            self._log_handler.close()
            self._log_handler = None

    def _log_to(self, folder: Path) -> None:
        self._events = open(folder / EVENTS, "a", encoding="ascii", newline="\n")  # noqa: SIM115 - open as long as the session
        self._log_handler = logging.FileHandler(folder / LOG, encoding="utf-8")
        self._log_handler.setFormatter(VisibleFormatter())
        _log.addHandler(self._log_handler)

    # -- the session's host --------------------------------------------------------------------------------------------

    @property
    def finishing(self) -> bool:
        return self._finish

    def tick(
        self,
        stage: str,
        step: int = 0,
        fraction: float = 0.0,
        eta: float | None = None,
        loss: dict[str, float] | None = None,
        estimate: dict[str, float] | None = None,
    ) -> None:
        """Note the progress and look at what the host wants. Raises Cancelled."""
        if self._idling:
            if not self._inbox.empty():
                raise Cancelled
            return
        self._last_tick = time.monotonic()
        self._tell_device()
        seconds = self._last_tick - self._started
        before = self._progress
        rounded = {term: round(value, 5) for term, value in (loss or {}).items()}
        self._progress = Progress(self._answering, self._revision, stage, step, round(seconds, 2), eta, round(fraction, 4), rounded, estimate or {})
        if before is None or before.stage != stage or time.monotonic() - self._last_line > _PROGRESS_EVERY_S:
            self._emit(self._progress)
        while not self._inbox.empty():
            self._interrupt(self._inbox.get())

    def preview(self, file: Path, source: str, step: int, revision: int, box: Box | None) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        self._emit(Preview(self._answering, revision, str(file), source, step, seconds, box_to_json(box)))

    def check(self, places: list[Place], revision: int) -> None:
        self._emit(Check("" if self._idling else self._answering, revision, [place.to_json() for place in places]))

    def warning(self, code: str, sentence: str, advice: str) -> None:
        self._emit(Warning(self._answering, self._revision, code, sentence, advice))

    @property
    def update_waits(self) -> bool:
        return bool(self._updates) or any(isinstance(command, Update) for command in self._later)

    def take_update(self) -> Callable[[Session], None] | None:
        if not self._updates:
            return None
        update = self._updates.popleft()
        return lambda session: self._apply(session, update)

    def _apply(self, session: Session, update: Update) -> None:
        """An update in the middle of training: answered under its own id, and refused without harm to the run."""
        training = self._answering
        self._answering = update.id
        try:
            session.update(update.annotation, update.revision, update.complete_slices, update.box)
        except Cancelled:
            raise
        except Exception as error:
            self._error(update.id, error)
        finally:
            self._answering = training

    def _interrupt(self, command: Command | ProtocolError) -> None:
        """A command that arrives while another is at work."""
        if isinstance(command, ProtocolError):
            self._error("", command)
        elif isinstance(command, Cancel | Close):
            self._closing = self._closing or isinstance(command, Close)
            self._cancel_id = command.id
            raise Cancelled
        elif self._working is Open or self._working is Update:
            self._later.append(command)
        elif isinstance(command, Finish) and self._working is Train:
            self._finish = True
        elif isinstance(command, Update) and self._working is Train:
            self._updates.append(command)
        else:
            busy = SparseSegError(f"The worker is busy; `{command.kind}` was not done.", "Wait for the result, or send `cancel`.")
            busy.code = "busy"
            self._error(command.id, busy)

    # -- lines ---------------------------------------------------------------------------------------------------------

    @property
    def _revision(self) -> int:
        return self._session.job.record.revision if self._session else 0

    def _ready(self, command_id: str) -> None:
        session = self._session
        device, why, job, summary = "", "", "", ""
        if session is not None:
            job = str(session.job.folder)
            if (compute := session.devices.known) is not None:
                device, why = compute.name, compute.why
                self._told_device = device
            summary = session.annotation.text() if session.annotation else "no annotation"
        self._emit(Ready(command_id, self._revision, PROTOCOL_VERSION, os.getpid(), _versions(), device, why, job, summary))

    def _tell_device(self) -> None:
        compute = self._session.devices.known if self._session else None
        if compute is not None and compute.name != self._told_device:
            self._told_device = compute.name
            self._emit(Device(self._answering, self._revision, compute.name, compute.why))

    def _result(self, outcome: Outcome) -> None:
        self._emit(
            Result(
                self._answering,
                self._revision,
                str(outcome.dense),
                str(outcome.uncertainty),
                str(outcome.model or ""),
                str(outcome.report or ""),
                outcome.reason,
                outcome.step,
                round(outcome.seconds, 2),
                outcome.estimate,
                outcome.share,
                outcome.next_slices,
                [place.to_json() for place in outcome.places],
            )
        )

    def _error(self, command_id: str, error: Exception, fatal: bool = False) -> None:
        if isinstance(error, SparseSegError):
            code, sentence, advice = error.code, error.sentence, error.advice
        elif isinstance(error, MemoryError) or "out of memory" in str(error).lower():
            code, sentence, advice = (
                "memory",
                "There was not enough memory for this.",
                "Close other programs, crop the volume, or choose another device.",
            )
        else:
            code, sentence, advice = "internal", f"Unexpected failure: {type(error).__name__}: {error}", "Please report it with the job's log.txt."
            _log.error("unexpected failure", exc_info=error)
        self._emit(Error(command_id, self._revision, code, sentence, advice, fatal))

    def _emit(self, event: Event) -> None:
        line = encode(event)
        with self._write_lock:
            self._last_line = time.monotonic()
            if self._events is not None and not isinstance(event, Progress):
                with contextlib.suppress(OSError, ValueError):  # a full disk must not silence the worker
                    self._events.write(line)
                    self._events.flush()
            try:
                self._stdout.write(line)
                self._stdout.flush()
            except OSError:  # the host is gone
                self._closing = True

    # -- threads -------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """stdin -> inbox. The end of stdin means close; a process that does not notice is ended."""
        while line := self._stdin.readline(MAX_LINE + 2):
            if not line.strip():
                continue
            try:
                self._inbox.put(decode_command(line.decode("utf-8", errors="replace")))
            except ProtocolError as error:
                self._inbox.put(error)
        self._inbox.put(Close(""))
        time.sleep(_EXIT_AFTER_EOF_S)
        os._exit(0)

    def _beat(self) -> None:
        """The last progress again, with the time that has passed, while a long step says nothing; the end, where it is too long."""
        while True:
            time.sleep(_HEARTBEAT_S / 4)
            progress, now = self._progress, time.monotonic()
            if progress is None:
                continue
            if now - self._last_tick > _STUCK_S.get(progress.stage, _STUCK_ELSEWHERE_S):
                self._give_up(progress)
            if now - self._last_line >= _HEARTBEAT_S:
                self._emit(replace(progress, seconds=round(now - self._started, 2)))

    def _give_up(self, progress: Progress) -> None:
        """A thread that hangs in C code cannot be stopped, only its process; the checkpoint is on disk."""
        error = StuckError(
            f"The engine got stuck while {progress.stage} and has ended itself.", "Start it again: training goes on from the last checkpoint."
        )
        self._error(progress.id, error, fatal=True)
        _log.error(error.sentence)
        os._exit(_STUCK_EXIT_CODE)


def _versions() -> dict[str, str]:
    versions = {"sparseseg": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "SimpleITK"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
