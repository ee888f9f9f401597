"""The server's end of an engine that is used over ssh (contract/remote.py is the host's): `worker --remote`.

What ssh starts is a bridge, which ends with its connection. It starts a keeper, or finds the one of an earlier connection, and passes bytes between
the two. The keeper plays the host of a worker of the usual kind: it makes the job's folder from what arrives, and sends what the worker writes there.
All lies in one private folder with the keeper's socket, and is removed when the host says goodbye, or has not come back within the time it named.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from . import __version__
from .contract.box import box_from_json, whole
from .contract.child import child_options
from .contract.client import WorkerClient
from .contract.errors import OutputError, SparseSegError
from .contract.folders import PREFIX, PrivateFolder, own_folder, remove_abandoned
from .contract.frames import Arriving, changes, checked_name, digest, parts
from .contract.job import IMAGE, WEIGHTS
from .contract.link import REMOTE_VERSION, TELL_S, Frame, Link, parse, receive
from .contract.protocol import (
    MAX_LINE,
    PROTOCOL_VERSION,
    Close,
    Error,
    Event,
    Open,
    Predict,
    Preview,
    ProtocolError,
    Ready,
    Result,
    Train,
    decode_command,
    encode_event,
)

_SOCKET, _VOLUMES = "socket", "volumes"
_SHORTEST_S, _LONGEST_S = 1, 3600  # that a host may let its session be kept
_SILENT_S = 6 * TELL_S  # a host that says nothing for so long is gone, whatever the network thinks
_LOOK_S = 0.2
_GOODBYE_S = 3.0
_CLOSE_GRACE_S = 5.0
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MOST_SAID = 1000  # characters of a sentence
_CHUNK = 1 << 16


# -- the bridge --------------------------------------------------------------------------------------------------------


def bridge() -> NoReturn:
    """Serve one connection on stdin and stdout; the exit code is 0 where it came to a session."""
    if not hasattr(socket, "AF_UNIX"):
        sys.stderr.write("The engine serves other computers from Linux and macOS only.\n")
        sys.exit(3)
    versions = {"remote": REMOTE_VERSION, "protocol": PROTOCOL_VERSION, "version": __version__}
    system = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    _say(Frame("hello", {**versions, **system}))
    start = sys.stdin.buffer.readline(MAX_LINE)  # nothing comes behind it before its answer
    if not start.strip():
        sys.exit(0)  # a host that wanted to know the versions
    try:
        keeper = _keeper(parse(start))
    except OSError as error:
        _say(Frame("failed", {"sentence": f"The server has no place for a session ({error.strerror or error}).", "advice": "Free disk space there."}))
        sys.exit(1)
    except ProtocolError as error:
        _say(Frame("failed", {"sentence": error.sentence, "advice": error.advice}))
        sys.exit(2)
    if keeper is None:
        _say(Frame("gone"))
        sys.exit(1)
    keeper.sendall(start)
    threading.Thread(target=_pump_in, args=(keeper,), daemon=True).start()
    with contextlib.suppress(OSError):
        while data := keeper.recv(_CHUNK):
            _write_all(1, data)
    os._exit(0)


def _say(frame: Frame) -> None:
    with contextlib.suppress(OSError):
        _write_all(1, frame.encode())


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _pump_in(keeper: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, _CHUNK):
            keeper.sendall(data)
    with contextlib.suppress(OSError):
        keeper.shutdown(socket.SHUT_RDWR)
    os._exit(0)


def _keeper(start: Frame | str) -> socket.socket | None:
    """A connection to the keeper of the session that a host wants, a new one where it names none; None where it is no more. Raises OSError,
    ProtocolError."""
    if not isinstance(start, Frame) or start.kind != "start":
        raise ProtocolError("A host begins with a frame 'start'.")
    if token := start.text("session"):
        folder = own_folder(token)
        if folder is None:
            return None
    else:
        remove_abandoned()
        folder = _start_keeper()
    found = socket.socket(socket.AF_UNIX)
    try:
        found.connect(str(folder / _SOCKET))
    except OSError:
        found.close()
        if token:
            return None
        raise
    return found


def _start_keeper() -> Path:
    """In a session of its own, which the end of the connection does not end; its folder."""
    command = [sys.executable, "-m", "sparseseg", "worker", "--keep"]
    nothing = subprocess.DEVNULL
    keeper = subprocess.Popen(command, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing, start_new_session=True, **child_options())
    assert keeper.stdout is not None
    folder = own_folder(keeper.stdout.readline().decode("utf-8", errors="replace").strip())
    if folder is None:
        raise OSError("no keeper could be started")
    return folder


# -- the keeper --------------------------------------------------------------------------------------------------------


def keep() -> NoReturn:
    """Keep one session; says the name of its folder on stdout first."""
    with PrivateFolder() as folder:
        keeper = Keeper(folder)
        sys.stdout.write(folder.name + "\n")
        sys.stdout.flush()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)  # ssh's connection would last as long as somebody holds its pipes
        keeper.serve()
    keeper.say_goodbye()
    os._exit(0)


class Keeper:
    """The host of one worker, for a host on another computer."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError, WorkerError."""
        self._folder = folder
        (folder / _VOLUMES).mkdir(mode=0o700)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / _SOCKET))
        self._listener.listen(2)
        self._listener.settimeout(_LOOK_S)
        self._worker = WorkerClient(environment={**os.environ, "TMPDIR": str(folder)})  # what libraries leave there goes, too
        self._link = Link()
        self._connection: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._alone_since: float | None = time.monotonic()
        self._keep_s = float(_SHORTEST_S + 30)  # until a host says
        self._results: list[str] = []
        self._jobs = 0
        self._image = ""  # the hash of the present job's image
        self._failure: SparseSegError | None = None  # of the present job's files
        self._arriving = Arriving()
        self._opens: dict[str, int] = {}
        self._shown: np.ndarray | None = None  # (K, J, I) uint8: the label map that the host has
        self._sent: dict[str, tuple[int, int]] = {}  # files of results, as they were
        self._closing = self._over = False

    # -- connections -----------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Until the host says goodbye, the worker ends, or nobody comes."""
        speaker = threading.Thread(target=self._send_events, name="events", daemon=True)
        speaker.start()
        while not self._over or not (self._closing or self._link.drained(0.0)):  # a host that is away hears of the end when it comes back
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                self._welcome(connection)
            if self._alone_since is not None and time.monotonic() - self._alone_since > self._keep_s:
                break
        self._worker.close(_CLOSE_GRACE_S).join()

    def say_goodbye(self) -> None:
        """Once nothing is left here."""
        self._link.put(Frame("bye"), patient=False)
        self._link.close()
        if self._connection is not None:
            self._link.drained(_GOODBYE_S)

    def _welcome(self, connection: socket.socket) -> None:
        """A host that comes, or comes back; whatever connection there was is over."""
        connection.settimeout(_SILENT_S)
        pipe = connection.makefile("rb")
        try:
            start = parse(pipe.readline(MAX_LINE))
            if not isinstance(start, Frame):
                raise ProtocolError("A host begins with a frame 'start'.")
            self._leave()
            number = self._link.attach(start.number("received"))
            self._keep_s = float(min(max(start.number("keep_s"), _SHORTEST_S), _LONGEST_S))
            self._results = [checked_name(str(name)) for name in start.fields.get("results") or []]
            connection.sendall(Frame("session", {"session": self._folder.name, "received": self._link.received}).encode())
        except (OSError, ProtocolError):
            self._alone_since = self._alone_since or time.monotonic()
            connection.close()
            return
        self._connection, self._alone_since = connection, None
        writer = threading.Thread(target=self._write, args=(number, connection), name="writer", daemon=True)
        reader = threading.Thread(target=self._read, args=(pipe, connection), name="reader", daemon=True)
        self._threads = [writer, reader]
        for thread in self._threads:
            thread.start()

    def _leave(self) -> None:
        """End the present connection; its threads have dealt with what they have."""
        self._link.detach()
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._connection, self._threads = None, []

    def _write(self, number: int, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._link.write(number, connection.makefile("wb"))

    def _read(self, pipe: IO[bytes], connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):
                for message in receive(pipe):
                    if self._link.heard(message):
                        self._take(message)
                        self._link.dealt_with(message)
        except Exception as error:  # it would be sent again, and again not be understood
            self._put(Error("", 0, ProtocolError.code, f"The server could not go on: {error}"[:_MOST_SAID], "Please report it.", fatal=True))
            self._over = True
            self._link.drained(_GOODBYE_S)
        finally:
            self._alone_since = time.monotonic()
            self._link.detach()
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # the bridge ends

    # -- what comes ------------------------------------------------------------------------------------------------------

    @property
    def _job(self) -> Path:
        return self._folder / f"job-{self._jobs}"

    def _take(self, message: Frame | str) -> None:
        if isinstance(message, str):
            try:
                self._take_command(message)
            except ProtocolError as error:
                self._put(Error("", 0, error.code, error.sentence, error.advice))
        elif message.kind == "job":
            self._begin_job(message)
        elif message.kind == "part" and self._failure is None:
            try:
                self._take_part(message)
            except OSError as error:
                self._failure = OutputError(f"The server cannot keep the job ({error.strerror or error}).", "Free disk space on the server.")

    def _begin_job(self, frame: Frame) -> None:
        self._jobs += 1
        self._image, self._failure = frame.text("image"), None
        if not _HASH.fullmatch(self._image):
            raise ProtocolError("A job needs the hash of its image.")
        self._arriving.abandon()
        try:
            self._job.mkdir(mode=0o700)
            found = self._find_volume()
            if found is not None:
                self._use_volume(found)
        except OSError as error:
            found = None
            self._failure = OutputError(f"The server cannot keep the job ({error.strerror or error}).", "Free disk space on the server.")
        self._link.put(Frame("want", {"image": found is None and self._failure is None}), patient=False)

    def _find_volume(self) -> Path | None:
        """The image, where this session or another one of this user has it."""
        parent = self._folder.parent
        folders = [self._folder, *(own for each in parent.glob(f"{PREFIX}*") if (own := own_folder(each.name)) is not None)]
        for path in (folder / _VOLUMES / f"{self._image}.npy" for folder in folders):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if digest(file) == self._image:
                    return path
        return None

    def _use_volume(self, path: Path) -> None:
        """As this session's, and the present job's. Raises OSError."""
        ours = self._folder / _VOLUMES / f"{self._image}.npy"
        for source, target in ((path, ours), (ours, self._job / IMAGE)):
            if source != target and not target.exists():
                try:
                    os.link(source, target)
                except OSError:
                    shutil.copyfile(source, target)

    def _take_part(self, frame: Frame) -> None:
        if self._jobs == 0:
            raise ProtocolError("There is no job.")
        whole_file = self._arriving.part(frame, self._job)
        if whole_file is not None and whole_file.name == IMAGE:
            with open(whole_file, "rb") as file:
                if digest(file) != self._image:
                    raise ProtocolError("The image is not the one that was announced.")
            self._use_volume(whole_file)

    def _take_command(self, line: str) -> None:
        command = decode_command(line)
        if isinstance(command, Open):
            if self._failure is not None:
                self._put(Error(command.id, 0, self._failure.code, self._failure.sentence, self._failure.advice))
                return
            self._opens[command.id] = self._jobs
            command = replace(command, job=str(self._job), owner=0)
        elif isinstance(command, Train) and command.start_from:
            command = replace(command, start_from=str(self._job / checked_name(command.start_from)))
        elif isinstance(command, Predict) and command.model:
            command = replace(command, model=str(self._job / checked_name(command.model)))
        if isinstance(command, Close):
            self._closing = True
            self._worker.close(_CLOSE_GRACE_S)
        else:
            self._worker.send(command)

    # -- what goes -------------------------------------------------------------------------------------------------------

    def _send_events(self) -> None:
        """All that the worker says, until it has ended."""
        while self._worker.running or not self._over:
            event = self._worker.wait(_LOOK_S)
            if event is not None:
                self._send(event)
            elif not self._worker.running:
                break
        self._over = True

    def _send(self, event: Event) -> None:
        if isinstance(event, Ready) and event.id in self._opens:
            self._opened(self._opens.pop(event.id))
        elif isinstance(event, Preview):
            self._send_labels(Path(event.file), event.box)
            event = replace(event, file=Path(event.file).name)
        elif isinstance(event, Result):
            for name in self._results:
                self._send_file(self._job / name)
            self._send_labels(Path(event.file), [])
            file, uncertainty, model, report = (Path(name).name for name in (event.file, event.uncertainty, event.model, event.report))
            event = replace(event, file=file, uncertainty=uncertainty, model=model, report=report)
        self._put(event, patient=True)

    def _put(self, event: Event, patient: bool = False) -> None:
        self._link.put(encode_event(event), patient)

    def _opened(self, number: int) -> None:
        image = np.load(self._folder / f"job-{number}" / IMAGE, mmap_mode="r")
        self._shown, self._sent = np.zeros(image.shape[-3:], np.uint8), {}
        for older in range(1, number):
            shutil.rmtree(self._folder / f"job-{older}", ignore_errors=True)

    def _send_labels(self, file: Path, edges: list[list[int]]) -> None:
        """What the host lacks to have this label map. One that is gone was overtaken by a whole one, which is on its way."""
        assert self._shown is not None
        try:
            values = np.load(file, mmap_mode="r")
        except (OSError, ValueError):
            return
        for frame in changes(self._shown, values, box_from_json(edges, self._shown.shape) or whole(self._shown.shape)):
            self._link.put(frame)

    def _send_file(self, path: Path) -> None:
        """A file of a result, where it is another one now."""
        try:
            file = open(path, "rb")  # noqa: SIM115
        except OSError:
            self._link.put(Frame("absent", {"name": path.name}))
            return
        with file:
            status = os.fstat(file.fileno())
            now = (status.st_mtime_ns, status.st_size)
            if self._sent.get(path.name) == now:
                return
            self._sent[path.name] = now
            unit = 4 if path.name == WEIGHTS else 1
            for frame in parts(file, path.name, unit):
                self._link.put(frame)
