"""One training of one volume: its job folder, its worker process, and what was sent to it. No slicer, no qt; never waits.

The host calls `poll` from a timer. Arrays are written by a thread; the worker is started again from its checkpoint when it dies.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sparseseg.contract.classes import ClassTable
from sparseseg.contract.client import WorkerClient
from sparseseg.contract.errors import OutputError, SparseSegError, StuckError, WorkerError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import MODEL, Job, JobRecord, write_whole
from sparseseg.contract.protocol import PROTOCOL_VERSION, Error, Event, Finish, Open, Preview, Ready, Train, Update, Warning
from sparseseg.contract.settings import Settings

from .Background import Background

_RESTARTS = 2
_RESTARTABLE = (StuckError.code, WorkerError.code)
_KILL_GRACE_S = 2.0


class EngineRun:
    """`train` may be sent again after a result: it goes on from what was learned."""

    def __init__(
        self,
        image: np.ndarray,
        annotation: np.ndarray,
        record: JobRecord,
        device: str = "auto",
        python: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        parentFolder: str | None = None,
        makeClient: Callable[..., WorkerClient] = WorkerClient,
    ) -> None:
        """image: (K, J, I), kept until it is written; annotation: (K, J, I) uint8. Raises WorkerError, OutputError."""
        self._device, self._makeClient = device, makeClient
        self._clientArguments = {"environment": environment} | ({"python": tuple(python)} if python else {})
        self.classes: ClassTable = record.classes
        self.geometry: Geometry = record.geometry
        self.revision = record.revision
        self._latest: tuple[np.ndarray, list[list[int]]] | None = None
        self._numbers = itertools.count(1)
        self._train: Train | None = None
        self._restartsLeft = _RESTARTS
        self._opened = False
        self._waiting: list = []  # commands for a worker that has not opened the job yet
        self._background = Background("sparseseg job")
        self._failures: list[Event] = []
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="sparseseg-", dir=parentFolder or None))
        except OSError as error:
            raise OutputError(f"No temporary folder could be made: {error.strerror or error}.", "Free disk space and try again.") from error
        self._client = self._start()  # loads torch while the volume is being written
        self._background.submit(lambda: Job.create(self.folder, image, annotation, record).close(), lambda _: self._open(), self._failed)

    @property
    def log(self) -> str:
        """The last lines of the engine's own log."""
        return self._client.log

    @property
    def workerPid(self) -> int:
        return self._client.pid

    # -- commands ------------------------------------------------------------------------------------------------------

    def train(self, settings: Settings, startFrom: str = "") -> None:
        self._restartsLeft = _RESTARTS
        self._train = Train(f"train-{next(self._numbers)}", settings.to_json(), startFrom)
        self._send(self._train)

    def update(self, annotation: np.ndarray, completeSlices: Sequence[tuple[int, int]]) -> int:
        """A new annotation with the same segments; returns its revision."""
        self.revision += 1
        self._latest = (annotation, [list(pair) for pair in completeSlices])
        self._writeUpdate(self.revision)
        return self.revision

    def finish(self) -> None:
        self._send(Finish(f"finish-{next(self._numbers)}"))

    def saveModel(self, path: Path, done: Callable[[Path], None], failed: Callable[[BaseException], None]) -> None:
        """Copies the model in a thread."""
        source = self.folder / MODEL

        def copy() -> Path:
            if not source.exists():
                raise OutputError("There is no model yet.", "Let the training run for half a minute first.")
            try:
                with open(source, "rb") as model:
                    write_whole(path, lambda file: shutil.copyfileobj(model, file))
            except OSError as error:
                raise OutputError(f"Could not write {path}: {error.strerror or error}.", "Free space or choose another folder.") from error
            return path

        self._background.submit(copy, done, failed)

    def poll(self) -> list[Event]:
        """What the worker said since the last call. Previews of an older annotation than the last one sent are left out."""
        self._background.poll()
        events, self._failures = self._failures, []
        for event in self._client.poll():
            events += self._take(event)
        return events

    def close(self) -> threading.Thread:
        """Ends the worker and removes the job folder, in a thread."""
        self._background.close()
        reaper = self._client.close(_KILL_GRACE_S)
        thread = threading.Thread(target=self._cleanUp, args=(reaper,), name="sparseseg clean-up")
        thread.start()
        return thread

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _start(self) -> WorkerClient:
        self._opened = False
        try:
            return self._makeClient(**self._clientArguments)
        except WorkerError:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def _send(self, command) -> None:
        if self._opened:
            self._client.send(command)
        else:
            self._waiting.append(command)

    def _open(self) -> None:
        self._client.send(Open("open", str(self.folder), self._device))

    def _take(self, event: Event) -> list[Event]:
        if isinstance(event, Ready) and event.id == "" and event.protocol != PROTOCOL_VERSION:
            return [Error("", 0, WorkerError.code, "The engine speaks another protocol version.", "Repair the installation.", fatal=True)]
        if isinstance(event, Ready) and event.id == "open":
            self._onOpened(event)
        if isinstance(event, Error) and event.fatal and event.code in _RESTARTABLE and self._restartsLeft and self._train is not None:
            return [self._restart(event)]
        if isinstance(event, Preview) and event.revision < self.revision:
            return []
        return [event]

    def _onOpened(self, ready: Ready) -> None:
        self._opened = True
        waiting, self._waiting = self._waiting, []
        if ready.revision < self.revision and not any(isinstance(command, Update) for command in waiting):
            self._writeUpdate(self.revision)  # it was on its way to a worker that died
        for command in waiting:
            self._client.send(command)

    def _restart(self, event: Error) -> Event:
        self._restartsLeft -= 1
        self._client.kill()
        try:
            self._client = self._start()
        except WorkerError as error:
            return Error(event.id, event.revision, error.code, error.sentence, error.advice, fatal=True)
        self._waiting = [self._train]
        self._open()
        return Warning(event.id, event.revision, "restarted", event.sentence, "It was started again.")

    def _writeUpdate(self, revision: int) -> None:
        annotation, completeSlices = self._latest  # type: ignore[misc]
        name = f"annotation-{revision:04d}.npy"

        def write() -> None:
            try:
                write_whole(self.folder / name, lambda file: np.lib.format.write_array(file, annotation, allow_pickle=False))
            except OSError as error:
                raise OutputError(f"The new strokes could not be written: {error.strerror or error}.", "Free disk space and try again.") from error

        def send(_: None) -> None:
            if revision == self.revision:
                self._send(Update(f"update-{revision}", name, revision, completeSlices))

        self._background.submit(write, send, self._failed)

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, SparseSegError):
            error = SparseSegError(f"Unexpected failure: {type(error).__name__}: {error}", "Please report it.")
        self._failures.append(Error("job", self.revision, error.code, error.sentence, error.advice, fatal=not self._opened))

    def _cleanUp(self, reaper: threading.Thread) -> None:
        reaper.join()
        shutil.rmtree(self.folder, ignore_errors=True)
