"""The host's end of an engine on another computer: what client.WorkerClient is for one on this computer, with the same methods and events.

Here it plays the engine: it holds the job's lock, adopts updates, and writes previews and results into the job folder, so hosts see local files.
There a keeper (keeper.py) plays the host of a real worker. Between them lies a Link, which outlives connections: one that breaks is made again.
"""

from __future__ import annotations

import contextlib
import io
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from .. import __version__
from .child import Child
from .errors import Cancelled, ModelError, OutputError, ServerError, SparseSegError, WorkerError
from .frames import digest, parts
from .inbox import Inbox
from .job import IMAGE, MODEL, REPORT, UNCERTAINTY, VOICES, WEIGHTS
from .link import REMOTE_VERSION, Frame, Link, parse, receive
from .mirror import Mirror
from .protocol import (
    MAX_LINE,
    PROTOCOL_VERSION,
    Cancel,
    Close,
    Command,
    Error,
    Event,
    Open,
    Predict,
    Progress,
    ProtocolError,
    Ready,
    Train,
    Update,
    Warning,
    decode_event,
    encode,
)
from .server import Server, no_ssh

KEEP_S = 120.0
RESULTS = (UNCERTAINTY, *VOICES.values(), MODEL, REPORT, WEIGHTS)  # files of a result, beside DENSE
_USUAL = (UNCERTAINTY, MODEL, REPORT)  # the others are of the volume's size
_GIVEN = "given.pt"  # a model that a command names, as it is called there
_STDERR_LINES, _STDERR_BYTES = 200, 10_000  # that are kept, and of one line
_CLOSE_GRACE_S, _KILL_GRACE_S = 5.0, 0.5
_START_S = 60.0  # for the other end to begin, once ssh is there
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0  # between attempts to connect again
_MOST_SAID = 1000  # characters of a sentence
_MOST_NOISE = 200  # lines that a server's shell may say before the engine does
_PROGRESS_EVERY_S = 0.5


class RemoteClient(Inbox):
    """One engine on another computer."""

    def __init__(self, server: Server, environment: Mapping[str, str] | None = None, keep_s: float = KEEP_S, results: Sequence[str] = _USUAL) -> None:
        """environment: of `ssh`; keep_s: how long to try again where the connection breaks, and how long the server keeps the session then; results:
        the files of a result that are wanted, beside DENSE. Raises ServerError where `ssh` cannot be started; all else comes as an event."""
        super().__init__()
        self._server, self._environment, self._keep_s, self._results = server, environment, keep_s, tuple(results)
        self._outbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._ending = threading.Event()
        self._link, self._session, self._bye = Link(), "", False
        self._joined = self._was_joined = False  # whether this connection, any connection, came to a session
        self._told = 0.0
        self._mirror: Mirror | None = None
        self._opens: dict[str, Mirror] = {}
        self._ready: Ready | None = None
        self._stops = 0  # `cancel` and `close` in the outbox
        self._counting = threading.Lock()
        self._child = self._start()
        self._holder = threading.Thread(target=self._hold, name="ssh session", daemon=True)
        self._holder.start()
        threading.Thread(target=self._send_all, name="ssh sender", daemon=True).start()

    @property
    def running(self) -> bool:
        return self._holder.is_alive()

    @property
    def pid(self) -> int:
        """Of the present `ssh`."""
        return self._child.process.pid

    @property
    def log(self) -> str:
        """The last lines of stderr, from ssh and from there."""
        return "\n".join(self._stderr)

    def send(self, command: Command) -> None:
        """Queue a command; it, and the files that it names, are sent by a thread."""
        if isinstance(command, Cancel | Close):
            with self._counting:
                self._stops += 1
        self._outbox.put(command)

    def close(self, grace_s: float = _CLOSE_GRACE_S) -> threading.Thread:
        """Ask the engine to end, and end the connection by force after `grace_s`; returns at once, the thread ends when it has ended."""
        self._ending.set()
        self.send(Close("close"))
        self._outbox.put(None)
        reaper = threading.Thread(target=self._reap, args=(grace_s,), name="ssh reaper", daemon=True)
        reaper.start()
        return reaper

    def kill(self) -> None:
        """End the connection within a moment, in which the engine is asked to end; where that does not get there, it ends when nobody comes back."""
        if not self.running:
            return
        self._ending.set()
        self._outbox.put(None)
        self._link.put(encode(Close("close")), patient=False)
        threading.Thread(target=self._reap, args=(_KILL_GRACE_S,), name="ssh reaper", daemon=True).start()

    def _reap(self, grace_s: float) -> None:
        self._holder.join(grace_s)
        self._link.close()
        self._child.kill()
        self._holder.join()

    # -- connections -----------------------------------------------------------------------------------------------------

    def _start(self) -> Child:
        try:
            return Child(self._server.command("worker", "--remote"), self._environment)
        except OSError as error:
            raise no_ssh(error) from error

    def _hold(self) -> None:
        """Connection after connection, until the engine says goodbye or is lost."""
        lost: BaseException | None = None
        try:
            self._converse(self._child)
            while not self._bye and not self._ending.is_set():
                self._connect_again()
        except _Final as raised:
            lost = raised.__cause__
        except Exception as raised:  # a host that hears nothing would wait for ever
            lost = raised
        self._link.close()
        for mirror in (self._mirror, *self._opens.values()):
            if mirror is not None:
                mirror.close()  # before the host hears of it, and opens the job anew
        if lost is not None and not self._ending.is_set():
            if not isinstance(lost, SparseSegError):
                lost = SparseSegError(f"Unexpected failure: {type(lost).__name__}: {lost}"[:_MOST_SAID], "Please report it.")
            self._events.put(Error("", self._revision, lost.code, lost.sentence, lost.advice, fatal=True))

    def _connect_again(self) -> None:
        """Until it works, for as long as the other end waits. Raises ServerError, WorkerError."""
        title, start, pause_s = self._server.title, time.monotonic(), _PAUSE_S
        self._warn(f"The connection to {title} was lost; the engine goes on there.", f"Trying again for {self._keep_s:.0f} s.")
        while True:
            self._joined = False
            try:
                self._child = self._start()
                self._converse(self._child)
                return
            except ServerError as error:
                if self._ending.wait(pause_s):
                    return
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                if time.monotonic() - start > self._keep_s:
                    raise ServerError(
                        f"The connection to {title} was lost, and could not be made again within {self._keep_s:.0f} s: {error.sentence}",
                        "Your strokes are kept. Start again when the server can be reached.",
                    ) from error

    def _converse(self, child: Child) -> None:
        """One connection, to its end. Raises ServerError where it does not come about."""
        said: list[str] = []
        listener = threading.Thread(target=self._read_stderr, args=(child, said), name="ssh stderr", daemon=True)
        listener.start()
        alarm = threading.Timer(_START_S, child.kill)
        alarm.daemon = True
        alarm.start()
        try:
            with contextlib.suppress(OSError):  # it broke
                if not self._join(child):
                    raise self._server.explain(self._ended(child, listener), "\n".join(said))
                alarm.cancel()
                self._talk(child)
        except ProtocolError as error:
            sentence = f"{self._server.title} says what no engine says: {error.sentence}"
            raise _Final from ServerError(sentence, f"See what `{' '.join(self._server.login)} true` prints: it should be nothing.")
        finally:
            alarm.cancel()
            child.kill()
            child.wait(5.0)
        if not self._joined:
            raise self._server.explain(self._ended(child, listener), "\n".join(said))

    def _ended(self, child: Child, listener: threading.Thread) -> int | None:
        with contextlib.suppress(OSError):
            assert child.process.stdin is not None
            child.process.stdin.close()
        code = child.wait(5.0)
        listener.join(1.0)
        return code

    def _join(self, child: Child) -> bool:
        """Compare versions, then begin a session, or come back to it. False where the connection ends before. Raises ServerError."""
        stdin, stdout = child.process.stdin, child.process.stdout
        assert stdin is not None and stdout is not None
        hello = _expect(stdout, ("hello",))
        if hello is None:
            return False
        try:
            self._server.compare(hello.fields)
        except ServerError as error:
            raise _Final from error
        versions = {"remote": REMOTE_VERSION, "protocol": PROTOCOL_VERSION, "version": __version__}
        place = {"session": self._session, "received": self._link.received, "keep_s": round(self._keep_s), "results": list(self._results)}
        stdin.write(Frame("start", {**versions, **place}).encode())
        stdin.flush()
        answer = _expect(stdout, ("session", "gone", "failed"))
        if answer is None:
            return False
        if answer.kind == "failed":
            raise _Final from ServerError(answer.text("sentence"), answer.text("advice"))
        if answer.kind == "gone":
            sentence = f"The engine on {self._server.title} ended while it could not be reached."
            raise _Final from WorkerError(sentence, "Start it again: your strokes are kept, and are sent anew.")
        self._session = answer.text("session")
        connection = self._link.attach(answer.number("received"))
        writer = threading.Thread(target=self._write, args=(connection, stdin), name="ssh writer", daemon=True)
        writer.start()
        if self._was_joined:
            self._warn(f"Connected to {self._server.title} again.", "")
        self._joined = self._was_joined = True
        return True

    def _write(self, connection: int, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._link.write(connection, pipe)

    def _talk(self, child: Child) -> None:
        pipe = child.process.stdout
        assert pipe is not None
        try:
            for message in receive(pipe):
                if self._link.heard(message):
                    self._take(message)
                    self._link.dealt_with(message)
                if self._bye:
                    return
        finally:
            self._link.detach()

    def _read_stderr(self, child: Child, said: list[str]) -> None:
        pipe = child.process.stderr
        assert pipe is not None
        while line := pipe.readline(_STDERR_BYTES):
            text = line.decode("utf-8", errors="replace").rstrip()
            self._stderr.append(text)
            said[:] = [*said, text][-_STDERR_LINES:]
        pipe.close()

    def _warn(self, sentence: str, advice: str) -> None:
        self._events.put(Warning("", self._revision, ServerError.code, sentence, advice))

    @property
    def _revision(self) -> int:
        return self._mirror.revision if self._mirror is not None else 0

    # -- what comes ------------------------------------------------------------------------------------------------------

    def _take(self, message: Frame | str) -> None:
        if isinstance(message, str):
            try:
                self._take_event(decode_event(message))
            except ProtocolError as error:
                self._stderr.append(f"not understood: {error}")
        elif message.kind == "bye":
            self._bye = True
        elif message.kind == "want":
            self._wanted.put(message.fields.get("image") is True)
        elif self._mirror is not None:
            self._mirror.take(message)

    def _take_event(self, event: Event) -> None:
        if isinstance(event, Ready):
            self._ready = self._ready or event
            if event.id in self._opens:
                self._mirror = self._opens.pop(event.id)
            if event.job and self._mirror is not None:
                event = replace(event, job=str(self._mirror.folder))
        elif isinstance(event, Error) and event.id in self._opens:
            self._opens.pop(event.id).close()
        for each in self._mirror.mirrored(event) if self._mirror is not None else [event]:
            self._events.put(each)

    # -- what goes -------------------------------------------------------------------------------------------------------

    def _send_all(self) -> None:
        dropping = False  # what was sent before a `cancel` that came while a job was being sent
        while (command := self._outbox.get()) is not None:
            if isinstance(command, Cancel | Close):
                with self._counting:
                    self._stops -= 1
                if dropping and isinstance(command, Cancel) and self._ready is not None:
                    self._events.put(replace(self._ready, id=command.id))
                    dropping = False
                    continue
                dropping = False
            try:
                if dropping:
                    raise Cancelled
                self._send(command)
            except Cancelled as error:
                dropping = True
                self._refuse(command, error)
            except SparseSegError as error:
                self._refuse(command, error)
            except OSError as error:
                self._refuse(command, OutputError(f"The job could not be read ({error.strerror or error}).", "Export the data again."))

    def _refuse(self, command: Command, error: SparseSegError) -> None:
        self._events.put(Error(command.id, self._revision, error.code, error.sentence, error.advice))

    def _send(self, command: Command) -> None:
        if isinstance(command, Open):
            command = self._send_job(command)
        elif isinstance(command, Update) and self._mirror is not None:
            command, values = self._mirror.update(command)
            self._put_file(io.BytesIO(values), command.annotation)
        elif isinstance(command, Train) and command.start_from:
            self._put_model(command.start_from)
            command = replace(command, start_from=_GIVEN)
        elif isinstance(command, Predict) and command.model:
            self._put_model(command.model)
            command = replace(command, model=_GIVEN)
        self._link.put(encode(command))

    def _send_job(self, command: Open) -> Open:
        """All files of it, the image only where it is not there already. Raises Cancelled."""
        if self._mirror is not None:
            self._mirror.close()
        mirror = Mirror(Path(command.job), command.owner)
        try:
            start = time.monotonic()
            with open(mirror.folder / IMAGE, "rb") as image:
                self._link.put(Frame("job", {"image": digest(image)}))
                if self._is_wanted():
                    unit = np.load(mirror.folder / IMAGE, mmap_mode="r").dtype.itemsize
                    self._put_file(image, IMAGE, unit, lambda share: self._tell(command.id, share, time.monotonic() - start))
            for name in mirror.inputs():
                with open(mirror.folder / name, "rb") as file:
                    self._put_file(file, name)
        except BaseException:
            mirror.close()
            raise
        self._opens[command.id] = mirror
        return replace(command, job="", owner=0)

    def _is_wanted(self) -> bool:
        while not self._ending.is_set():
            self._look_up()
            with contextlib.suppress(queue.Empty):
                return self._wanted.get(timeout=0.1)
        raise Cancelled

    def _look_up(self) -> None:
        if self._stops:
            raise Cancelled

    def _put_model(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                self._put_file(file, _GIVEN)
        except OSError as error:
            raise ModelError(f"{path} cannot be read ({error.strerror or error}).", "Choose another model file.") from error

    def _put_file(self, file: IO[bytes], name: str, unit: int = 1, tell: Callable[[float], None] | None = None) -> None:
        """tell: of the share that is under way, after each piece; then `cancel` is heard in between."""
        for frame in parts(file, name, unit):
            self._link.put(frame)
            if tell is not None:
                self._look_up()
                tell((frame.number("offset") + frame.number("raw")) / max(1, frame.number("size")))

    def _tell(self, command_id: str, share: float, seconds: float) -> None:
        now = time.monotonic()
        if now - self._told > _PROGRESS_EVERY_S:
            self._told = now
            eta = round(seconds / share - seconds, 2) if share else None
            self._events.put(Progress(command_id, self._revision, "opening", 0, round(seconds, 2), eta, round(share, 4), {}, {}))


class _Final(Exception):
    """No further attempt can help. Its cause is what to say."""


def _expect(pipe: IO[bytes], kinds: Sequence[str]) -> Frame | None:
    """The first frame of these kinds; what a shell prints before is passed over. None where the connection ends. Raises ProtocolError."""
    for _ in range(_MOST_NOISE):
        line = pipe.readline(MAX_LINE)
        if not line:
            return None
        with contextlib.suppress(ProtocolError):
            if isinstance(found := parse(line), Frame) and found.kind in kinds:
                return found
    raise ProtocolError("nothing but other lines.")
