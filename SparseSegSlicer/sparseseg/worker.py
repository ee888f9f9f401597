"""The worker process: stdin lines -> session -> stdout lines. Owns both streams; no mathematics.

One thread reads stdin into a queue, which is looked at after every training step and tile; another keeps the heartbeat, and ends a process that
got stuck. Each command is answered once: also one that is cancelled before its turn, and an update that is taken but cannot be shown.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib.metadata
import logging
import math
import os
import platform
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

from . import __version__, streams
from .contract.aside import aside
from .contract.box import box_to_json
from .contract.errors import Cancelled, SparseSegError, StuckError
from .contract.protocol import (
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
    encode_event,
    messages,
)
from .contract.text import VisibleFormatter
from .joblog import JobLog
from .prior import compiled

if TYPE_CHECKING:
    from .contract.box import Box
    from .contract.place import Place
    from .session.devices import DeviceChoice
    from .session.host import Outcome
    from .session.session import Session

_HEARTBEAT_S = 1.0
_PROGRESS_EVERY_S = 0.25
_STUCK_S = {"training": 30.0}  # a step takes well under a second; seen: threads that wait for each other for ever inside a CPU convolution
_STUCK_ELSEWHERE_S = 180.0  # one silent stretch of reading, growing or writing a very large volume
_STUCK_EXIT_CODE = 5
_START_S = 120.0  # within which the threads run
_SPINNING_S = 60.0  # of its own time, for each core: a process that worked so long without a heartbeat is at nothing of ours
_GONE_EXIT_CODE = 141  # nobody reads stdout any more; what a shell says of a program that ended so
_BEAT_S = 0.1
_MOST_WAITING = 1000  # commands, for one at work to end; more are refused
_MOST_SAID = 1000  # characters of a sentence
_IDLE_AFTER_S = 1.0  # without a command, until the session catches up on what corrections have left for later
_EXIT_AFTER_EOF_S = 10.0  # a step that does not end must not outlive the host
_log = logging.getLogger("sparseseg")


def main() -> NoReturn:
    """Serve until `close` or the end of stdin; the exit code is 0 then. A signal ends the process at once, as a kill does: all on disk is whole."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        with _starting():
            stdin, stdout, stderr = streams.claim()
    except OSError:
        os._exit(_GONE_EXIT_CODE)
    log = logging.StreamHandler(stderr)
    log.setFormatter(VisibleFormatter())
    logging.basicConfig(handlers=[log], level=logging.INFO)
    code = Worker(stdin, stdout).serve()
    logging.shutdown()
    stderr.drain()
    # not sys.exit: the thread that waits on stdin holds its lock, which makes the interpreter abort while it shuts down
    os._exit(code)


class Worker:
    """One host, one session at a time. It is the session's Host: `tick`, `preview`, `warning`, `take_update`, `finishing`."""

    def __init__(self, stdin: IO[bytes], stdout: IO[str]) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._inbox: queue.SimpleQueue[Command | ProtocolError] = queue.SimpleQueue()
        self._write_lock = threading.Lock()
        self._session: Session | None = None
        self._log: JobLog | None = None
        self._answering = ""  # the id of the command at work
        self._waiting: deque[Command] = deque()  # for the one at work to end; updates, for training to take them
        self._unshown: list[str] = []  # the ids of updates that were taken, until a preview shows them
        self._stop = self._closing = self._idling = self._gone = False
        self._told_device = ""
        self._working: type[Command] | None = None
        self._at_work = ""  # the id of the command that is, but of an update: what ends the process does not refuse it
        self._settled = False  # whether the update at work was taken or refused
        self._finishes: list[str] = []  # the ids of what ends the command at work
        self._cancels: list[str] = []
        self._progress: Progress | None = None
        self._ticks = 0
        self._ended = threading.Event()
        self._started = self._last_line = time.monotonic()

    # -- the loop ------------------------------------------------------------------------------------------------------

    def serve(self) -> int:
        with _starting():
            threading.Thread(target=self._read, name="stdin", daemon=True).start()
            threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
            threading.Thread(target=compiled.warm_up, name="warm up", daemon=True).start()
        self._ready("")
        try:
            while not self._closing:
                if self._inbox.empty() and self._waiting:
                    self._handle(self._waiting.popleft())
                else:
                    self._receive(self._next())
        finally:
            self._drop_waiting()
            self._close_session()
            self._ended.set()
        return _GONE_EXIT_CODE if self._gone else 0

    def _next(self) -> Command | ProtocolError:
        """The next command; while none comes, the session catches up."""
        try:
            return self._inbox.get(timeout=_IDLE_AFTER_S)
        except queue.Empty:
            pass
        if self._session is not None:
            self._idling, self._answering = True, ""
            try:
                self._session.idle()
            except Cancelled:
                pass  # a command has come
            except Exception as error:  # nobody asked for this work
                _note("while idle", error)
            finally:
                self._idling = False
        return self._inbox.get()

    def _receive(self, command: Command | ProtocolError) -> None:
        """A command that arrives while none is at work. All that have arrived are seen before the first of them begins: there may be a `cancel`."""
        if isinstance(command, ProtocolError):
            self._error("", command)
        elif isinstance(command, Cancel | Close):
            self._closing = isinstance(command, Close)
            self._drop_waiting()
            if not self._closing:
                self._ready(command.id)
        else:
            self._let_wait(command)

    def _handle(self, command: Command) -> None:
        """One command from start to end; whatever it raises becomes an `error` event."""
        self._answering, self._started, self._working, self._stop = command.id, time.monotonic(), type(command), False
        before, self._settled, self._at_work = self._revision, False, "" if isinstance(command, Update) else command.id
        if not isinstance(command, Finish):  # the heartbeat begins here
            self._ticks += 1
            self._progress = Progress(command.id, self._revision, "opening" if isinstance(command, Open) else "starting", 0, 0.0, None, 0.0, {}, {})
        try:
            self._do(command)
        except Exception as error:  # the worker must survive anything that a command does
            self._progress = None
            self._fail(command, before, error)
        finally:
            self._progress = self._working = None
        done, self._finishes, self._cancels = [*self._finishes, *self._cancels], [], []
        for each in done if not self._closing else []:
            self._ready(each)

    def _fail(self, command: Command, before: int, error: Exception) -> None:
        """The answer to a command that raised. before: the revision when it began. An update that is the job's by now was not refused, even if there
        was no memory to go on with it."""
        if isinstance(command, Update) and (self._settled or before < command.revision <= self._revision):
            self._say_unshown(error.sentence if isinstance(error, SparseSegError) else type(error).__name__)
            _note("an update could not be shown", error)
        else:
            self._error(command.id, error)

    def _do(self, command: Command) -> None:
        if isinstance(command, Open):
            self._open(command)
        elif isinstance(command, Finish):
            self._emit(Warning(command.id, self._revision, "idle", "Nothing is running that could be finished.", ""))
        elif isinstance(command, Train):
            self._expect_finish()
            self._result(self._opened().train(command.settings, command.start_from, command.resume))
        elif isinstance(command, Predict):
            self._result(self._opened().predict(command.model))
        elif isinstance(command, Update):
            with contextlib.suppress(Cancelled):  # each update is answered
                self._take_updates(self._session, command)

    def _expect_finish(self) -> None:
        """A `finish` that came right behind the training that begins."""
        for command in list(takewhile(lambda each: isinstance(each, Update | Finish), self._waiting)):
            if isinstance(command, Finish):
                self._waiting.remove(command)
                self._finishes.append(command.id)

    def _let_wait(self, command: Command) -> None:
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(command)
        else:
            self._refuse(command, f"{_MOST_WAITING} commands wait already", "Wait for their answers, or send `cancel`.")

    def _refuse(self, command: Command, why: str, advice: str) -> None:
        busy = SparseSegError(f"{why}; `{command.kind}` was not done.", advice)
        busy.code = "busy"
        self._error(command.id, busy)

    def _drop_waiting(self) -> None:
        """What was sent before a `cancel` or `close` is not begun any more."""
        while self._waiting:
            self._error(self._waiting.popleft().id, Cancelled())

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
        DeviceChoice, Session = aside(_load_session, lambda: self.tick("opening"))
        devices = DeviceChoice(command.device)
        self._session = Session.open(Path(command.job), devices, self, command.owner)
        if command.device not in ("auto", "cpu"):  # one that may not be there
            try:
                devices.compute(lambda: self.tick("opening"))
            except BaseException:
                self._close_session()
                raise
        self._log = JobLog(Path(command.job))
        self._progress = None
        self._ready(command.id)

    def _close_session(self) -> None:
        self._told_device = ""
        session, self._session = self._session, None
        if session is not None:
            session.close()
            del session
            gc.collect()  # a session and its voices hold each other, and their arrays are large
        log, self._log = self._log, None
        if log is not None:
            log.close()

    # -- the session's host --------------------------------------------------------------------------------------------

    @property
    def finishing(self) -> bool:
        return bool(self._finishes)

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
        self._ticks += 1
        if self._idling:
            if not self._inbox.empty():
                raise Cancelled
            return
        self._tell_device()
        seconds = time.monotonic() - self._started
        before = self._progress
        losses, estimates = _numbers(loss or {}), _numbers(estimate or {})
        eta = eta if eta is not None and math.isfinite(eta) else None
        self._progress = Progress(self._answering, self._revision, stage, step, round(seconds, 2), eta, round(fraction, 4), losses, estimates)
        if before is None or before.stage != stage or time.monotonic() - self._last_line > _PROGRESS_EVERY_S:
            self._emit(self._progress)
        self._look_up()

    def _look_up(self) -> None:
        """What has arrived meanwhile. Raises Cancelled, at every look until the command at work has ended."""
        while not self._inbox.empty() and not self._stop:
            self._interrupt(self._inbox.get())
        if self._stop:
            raise Cancelled

    def preview(self, file: Path, source: str, step: int, revision: int, box: Box | None) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        if not self._unshown:
            self._emit(Preview(self._answering, revision, str(file), source, step, seconds, box_to_json(box)))
        while self._unshown:
            self._emit(Preview(self._unshown[0], revision, str(file), source, step, seconds, box_to_json(box)))
            del self._unshown[0]  # now that it has its answer

    def check(self, places: list[Place], revision: int) -> None:
        self._emit(Check("" if self._idling else self._answering, revision, [place.to_json() for place in places]))

    def warning(self, code: str, sentence: str, advice: str) -> None:
        self._emit(Warning(self._answering, self._revision, code, sentence, advice))

    @property
    def update_waits(self) -> bool:
        return any(isinstance(command, Update) for command in self._mine())

    def take_update(self) -> Callable[[Session], None] | None:
        return self._take_updates if self.update_waits else None

    def _mine(self) -> list[Command]:
        """What waits and is about the open job."""
        return list(takewhile(lambda command: not isinstance(command, Open), self._waiting))

    def _take_updates(self, session: Session | None, first: Update | None = None) -> None:
        """The one at work and all updates that wait: each taken, or refused, on its own; then what they change together is shown, as the answer to
        each that was taken. Raises Cancelled."""
        before = self._answering
        if self._working is Update:
            self._answering = ""  # what is shown though none of them was taken is the worker's own
        try:
            try:
                if first is not None:  # it does not wait: once it is refused nothing takes it
                    self._take(first)
                    self._settled = True
                    self._look_up()
                for update in [command for command in self._mine() if isinstance(command, Update)]:
                    if update in self._waiting:  # not cancelled meanwhile
                        self._waiting.remove(update)
                        self._take(update)
                        self._look_up()
            finally:
                if session is not None:
                    session.answer()  # where it is cancelled, it says so at its first look
            self._say_unshown("Nothing shows it yet.")
        except Exception as error:
            self._say_unshown(error.sentence if isinstance(error, SparseSegError) else str(error))
            if isinstance(error, Cancelled) or (first is not None and not self._settled):
                raise
            _note("an update could not be shown", error)
        finally:
            self._answering = before

    def _take(self, update: Update) -> None:
        answering, self._answering = self._answering, update.id
        before = self._revision
        try:
            self._unshown.append(update.id)  # first: between its becoming the job's and its answer nothing may fail
            self._opened().take(update.annotation, update.revision, update.complete_slices, update.box)
        except Exception as error:
            if self._revision != before:
                raise  # taken all the same
            if self._unshown[-1:] == [update.id]:
                del self._unshown[-1]
            self._error(update.id, error)
            self._answering = answering
            if isinstance(error, Cancelled):
                raise

    def _say_unshown(self, why: str) -> None:
        """The answer to updates that were taken, where no preview is."""
        sentence = f"The new annotation is taken, but could not be shown: {why}"
        while self._unshown:
            self._emit(Warning(self._unshown[0], self._revision, "unshown", sentence[:_MOST_SAID], "It is shown with the next preview."))
            del self._unshown[0]

    def _interrupt(self, command: Command | ProtocolError) -> None:
        """A command that arrives while another is at work."""
        if isinstance(command, ProtocolError):
            self._error("", command)
        elif isinstance(command, Cancel | Close):
            self._stop = True
            self._closing = isinstance(command, Close)
            if not self._closing:
                self._cancels.append(command.id)
            self._drop_waiting()
        elif isinstance(command, Finish) and self._working is Train:
            self._finishes.append(command.id)
        elif self._working in (Open, Update) or (isinstance(command, Update) and self._working is Train):
            self._let_wait(command)
        else:
            self._refuse(command, "The worker is busy", "Wait for the result, or send `cancel`.")

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
                _numbers(outcome.estimate),
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
            _note("unexpected failure", error)
        self._emit(Error(command_id, self._revision, code, sentence[:_MOST_SAID], advice[:_MOST_SAID], fatal))

    def _emit(self, event: Event) -> None:
        line, log = encode_event(event), self._log
        with self._write_lock:
            self._last_line = time.monotonic()
            if log is not None and not isinstance(event, Progress):
                log.event(line)
            try:
                if not self._gone:
                    self._stdout.write(line)
                    self._stdout.flush()
            except (OSError, ValueError):
                self._lose_host()
        if log is not None and (complaint := log.complaint()):
            self._emit(Warning("", self._revision, "log", complaint, "The work goes on without it."))

    def _lose_host(self) -> None:
        """Nobody listens any more: end what is at work."""
        self._gone = True
        self._inbox.put(Close(""))
        self._end_soon(_GONE_EXIT_CODE)

    # -- threads -------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """stdin -> inbox. The end of stdin means close; a process that does not notice is ended."""
        for command in messages(self._stdin, decode_command):
            self._inbox.put(command)
            if isinstance(command, Close):
                break
        self._inbox.put(Close(""))
        self._end_soon(0)

    def _end_soon(self, code: int) -> None:
        """By force, where the main thread does not get there: it may wait for a host that does not read. Where a thread that finds no memory in its
        first moment is waited for, for ever, the system does."""
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 2 * _EXIT_AFTER_EOF_S)

        def end() -> None:
            time.sleep(_EXIT_AFTER_EOF_S)
            os._exit(code)

        threading.Thread(target=end, name="end", daemon=True).start()

    def _beat(self) -> None:
        """The last progress again, with the time that has passed, while a long step says nothing; the end, where it is too long.

        How long is counted in this thread's own beats, and only those in time: a process that was stopped, or a computer that slept, has not been at
        work all that while. Waiting for a host to read is not being stuck either."""
        quiet_s, ticks, beat = 0.0, self._ticks, time.monotonic()
        while not self._ended.wait(_BEAT_S):
            _let_live()
            before, beat = beat, time.monotonic()
            if not self._gone and streams.nobody_reads(self._stdout):
                self._lose_host()
            progress = self._progress
            if ticks != self._ticks or (progress is None and not self._idling):
                quiet_s, ticks = 0.0, self._ticks
            elif beat - before < 2 * _BEAT_S and not self._write_lock.locked():
                quiet_s += beat - before
            stage = "idle" if progress is None else progress.stage
            if quiet_s > _STUCK_S.get(stage, _STUCK_ELSEWHERE_S):
                self._give_up("" if progress is None else self._at_work, stage)
            if progress is not None and beat - self._last_line >= _HEARTBEAT_S:
                self._emit(replace(progress, seconds=round(beat - self._started, 2)))

    def _give_up(self, command_id: str, stage: str) -> None:
        """A thread that hangs in C code cannot be stopped, only its process; the checkpoint is on disk."""
        error = StuckError(f"The engine got stuck while {stage} and has ended itself.", "Start it again: training goes on from the last checkpoint.")
        _log.error(error.sentence)
        self._error(command_id, error, fatal=True)
        os._exit(_STUCK_EXIT_CODE)


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Ends the process where its first threads do not begin: one that finds no memory in its first moment is waited for for ever, and the heartbeat,
    which would notice, is not there yet. The interpreter's own watchdog is a thread in C that needs neither memory nor the interpreter's lock."""
    faulthandler.dump_traceback_later(_START_S, exit=True, file=2)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _note(what: str, error: Exception) -> None:
    """In the log; where there is no memory even for that, the answer is what counts."""
    with contextlib.suppress(MemoryError):
        _log.error(what, exc_info=error)


def _let_live() -> None:
    """For a while. A library that spins while it holds the interpreter's lock lets no thread of ours run, also not the one that would end it (seen:
    OpenBLAS, loaded where there is no memory). Then the system does, by SIGPROF. It counts time at work: a stopped process spends none."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, _SPINNING_S * (os.cpu_count() or 1))


def _load_session() -> tuple[type[DeviceChoice], type[Session]]:
    """What a worker can do without until it opens a job."""
    from .session.devices import DeviceChoice
    from .session.session import Session

    return DeviceChoice, Session


def _numbers(terms: dict[str, float]) -> dict[str, float]:
    """Those that a message can hold."""
    return {name: round(value, 5) for name, value in terms.items() if math.isfinite(value)}


def _versions() -> dict[str, str]:
    versions = {"sparseseg": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "SimpleITK"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
