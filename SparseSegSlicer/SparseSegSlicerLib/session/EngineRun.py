"""One training of one volume: its job folder, its worker process, and what was sent to it. No slicer, no qt; never waits.

The host calls `poll` from a timer. Arrays are written by a thread; the worker is started again from its checkpoint when it dies.
"""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from sparseseg.contract.box import Box, box_to_json, joined, shape_of, union
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.client import WorkerClient, connect
from sparseseg.contract.errors import OutputError, SparseSegError, StuckError, WorkerError
from sparseseg.contract.folders import PrivateFolder, write_whole
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import IMAGE, MODEL, Job, JobRecord
from sparseseg.contract.lock import Owner
from sparseseg.contract.protocol import PROTOCOL_VERSION, Error, Event, Finish, Open, Ready, Train, Update, Warning
from sparseseg.contract.remote import RemoteClient
from sparseseg.contract.settings import Settings
from sparseseg.contract.store import OnDisk, Store, slabs, write_header

from ..i18n import tr as _
from .Background import Background

_RESTARTS = 2
_UPDATE = "update-"  # and the revision: the id of an update
_RESTARTABLE = (StuckError.code, WorkerError.code)
_KILL_GRACE_S = 2.0
_SOME_VOXEL = (slice(0, 1),) * 3  # an update must hold a voxel, also where complete slices alone changed


class EngineRun:
    """`train` may be sent again after a result: it goes on from what was learned.

    An update goes out as the box that the worker does not have: what changed since the last one that was sent, with what it refused or lost; what
    lies far apart as several updates. Updates that come while one is being written, or before the worker has opened the job, leave together. Boxes
    are cut from the annotation when they are written: they may hold strokes newer than their revision, never older ones.
    """

    def __init__(
        self,
        image: np.ndarray | Callable[[Store], np.ndarray],
        annotation: np.ndarray,
        record: JobRecord,
        device: str = "auto",
        python: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        parentFolder: str | None = None,
        makeClient: Callable[..., WorkerClient | RemoteClient] = connect,
        model: Callable[[], bytes] | None = None,
        server: str = "",
    ) -> None:
        """image: (K, J, I) or (C, K, J, I), as of sparseseg.contract.channels.stack, or what makes it, in a thread, by a store;
        annotation: (K, J, I) uint8. model() gives, in a thread, the checkpoint of an earlier run of this volume, from which training goes on. server:
        the address of the one that the engine works on; empty: this computer. Raises WorkerError, OutputError, ServerError."""
        self._device, self._makeClient = device, makeClient
        self._clientArguments = {"environment": environment} | ({"python": tuple(python)} if python else {}) | ({"engine": server} if server else {})
        self.classes: ClassTable = record.classes
        self.geometry: Geometry = record.geometry
        self.revision = record.revision
        self._annotation, self._slices = annotation, [list(pair) for pair in record.complete_slices]
        self._owed: list[Box] = []  # what the worker lacks and no update on its way holds
        self._underWay: dict[int, Box] = {}  # revision -> box, sent or being written, and not yet seen in an event
        self._writing = False
        self._numbers = itertools.count(1)
        self._train: Train | None = None
        self._restartsLeft = _RESTARTS
        self._opened = False
        self._waiting: list = []  # commands for a worker that has not opened the job yet
        self._background = Background("sparseseg job")
        self._failures: list[Event] = []
        try:
            self._private = PrivateFolder(parentFolder)
        except OSError as error:
            sentence = _("No temporary folder could be made: {reason}.").format(reason=error.strerror or error)
            raise OutputError(sentence, _("Free disk space and try again.")) from error
        self.folder = self._private.path / "job"
        try:
            self._owner = Owner(self.folder)  # from here to its end, also while no engine runs
        except SparseSegError:
            self._private.remove()
            raise
        self._client = self._start()  # loads torch while the volume is being written

        def create() -> None:
            Job.create(self.folder, image(OnDisk(self.folder)) if callable(image) else image, annotation, record).close()
            if model is not None:
                (self.folder / MODEL).write_bytes(model())

        self._background.submit(create, lambda _: self._open(), self._failed)

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

    def update(self, annotation: np.ndarray, completeSlices: Sequence[tuple[int, int]], boxes: Sequence[Box]) -> int:
        """A new annotation with the same segments; returns its revision, the first of several where it leaves in several parts. boxes: where it
        differs from the last one given. The array may be the same one, written in place."""
        self.revision += 1
        self._annotation, self._slices = annotation, [list(pair) for pair in completeSlices]
        self._owe(*(boxes or [_SOME_VOXEL]))
        self._sendOwed()
        return self.revision

    def finish(self) -> None:
        self._send(Finish(f"finish-{next(self._numbers)}"))

    def saveModel(self, path: Path, done: Callable[[Path], None], failed: Callable[[BaseException], None]) -> None:
        """Copies the model in a thread."""
        source = self.folder / MODEL

        def copy() -> Path:
            if not source.exists():
                raise OutputError(_("There is no model yet."), _("Let the training run for half a minute first."))
            try:
                with open(source, "rb") as model:
                    write_whole(path, lambda file: shutil.copyfileobj(model, file))
            except OSError as error:
                sentence = _("Could not write {path}: {reason}.").format(path=path, reason=error.strerror or error)
                raise OutputError(sentence, _("Free space or choose another folder.")) from error
            return path

        self._background.submit(copy, done, failed)

    def hasImage(self, image: np.ndarray) -> bool:
        """Whether these are the voxels that the engine works on: all of them, or those of the first channel, (K, J, I). May run in a thread."""
        try:
            written = np.load(self.folder / IMAGE, mmap_mode="r")
        except (OSError, ValueError):
            return False
        written = written[0] if written.ndim == 4 and image.ndim == 3 else written
        return written.shape == image.shape and all(
            np.array_equal(mine, other.astype(mine.dtype, copy=False)) for mine, other in zip(written, image, strict=True)
        )

    def poll(self) -> list[Event]:
        """What the worker said since the last call; every preview, since each may be a part of what is to be shown."""
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

    def _start(self) -> WorkerClient | RemoteClient:
        self._opened = False
        try:
            return self._makeClient(**self._clientArguments)
        except WorkerError:
            self._remove()
            raise

    def _send(self, command) -> None:
        if self._opened:
            self._client.send(command)
        else:
            self._waiting.append(command)

    def _open(self) -> None:
        self._client.send(Open("open", str(self.folder), self._device, owner=os.getpid()))

    def _take(self, event: Event) -> list[Event]:
        if isinstance(event, Ready) and event.id == "" and event.protocol != PROTOCOL_VERSION:
            sentence = _("The engine speaks version {its} of the protocol, this module version {ours}.").format(
                its=event.protocol, ours=PROTOCOL_VERSION
            )
            return [Error("", 0, WorkerError.code, sentence, _("Repair the installation."), fatal=True)]
        if isinstance(event, Error) and event.fatal and event.code in _RESTARTABLE and self._restartsLeft and self._train is not None:
            return [self._restart(event)]
        if isinstance(event, Ready) and event.id == "open":
            self._onOpened(event)
        elif isinstance(event, Error) and event.id.startswith(_UPDATE) and self._onRefused(int(event.id.removeprefix(_UPDATE))):
            return []
        if adopted := {revision for revision in self._underWay if revision <= event.revision}:
            self._settled(adopted)
            if self._owed and not self._underWay:  # refused before
                self._sendNext()
        return [event]

    def _settled(self, revisions: set[int]) -> None:
        """The worker has these, by their own updates or later ones, or will get them with others: their files go."""
        for revision in revisions:
            self._underWay.pop(revision, None)
        if revisions:
            names = [self.folder / _fileOf(revision) for revision in revisions]
            self._background.submit(lambda: [name.unlink(missing_ok=True) for name in names], lambda _: None, lambda _: None)

    def _onOpened(self, ready: Ready) -> None:
        """The worker has what its record holds; all later updates were on their way to one that died."""
        self._opened = True
        for revision, box in self._underWay.items():
            if revision > ready.revision:
                self._owe(box)
        self._settled(set(self._underWay))
        waiting, self._waiting = self._waiting, []
        for command in waiting:
            self._client.send(command)
        self._sendOwed()

    def _onRefused(self, revision: int) -> bool:
        """The worker keeps its old annotation, so what a refused update held goes with others: once it is known what becomes of those that have left
        already, or at once as one with all that is owed, as parts may be right together alone. Whether it goes so; else it waits for a next one."""
        refused = self._underWay.get(revision)
        if refused is None:  # it has gone with others
            return False
        self._owe(refused)
        self._settled({revision})
        if any(later > revision for later in self._underWay):
            return True
        self._owed = [union(*self._owed)]
        if self._owed == [refused]:
            return False
        self._sendNext()
        return True

    def _sendNext(self) -> None:
        """What is owed, as a revision of its own."""
        self.revision += 1
        self._sendOwed()

    def _owe(self, *boxes: Box) -> None:
        self._owed = joined([*self._owed, *boxes])

    def _restart(self, event: Error) -> Event:
        self._restartsLeft -= 1
        self._client.kill()
        try:
            self._client = self._start()
        except WorkerError as error:
            return Error(event.id, event.revision, error.code, error.sentence, error.advice, fatal=True)
        self._waiting = [self._train]
        self._open()
        return Warning(event.id, event.revision, "restarted", event.sentence, _("It was started again."))

    def _sendOwed(self) -> None:
        """Writes what the worker lacks, in a thread, and names it to the worker at a later poll."""
        if not self._owed or self._writing or not self._opened:
            return
        annotation, revision, client = self._annotation, self.revision, self._client
        box = self._owed.pop(0)
        name = _fileOf(revision)
        command = Update(f"{_UPDATE}{revision}", name, revision, self._slices, [] if shape_of(box) == annotation.shape else box_to_json(box))
        self._writing = True
        self._underWay[revision] = box

        def write() -> None:
            try:
                write_whole(self.folder / name, lambda file: _write(file, annotation[box]), lasting=False)
            except OSError as error:
                sentence = _("The new strokes could not be written: {reason}.").format(reason=error.strerror or error)
                raise OutputError(sentence, _("Free disk space and try again.")) from error

        def written(__: None) -> None:
            self._writing = False
            if client is self._client and self._opened:
                client.send(command)
            if self._owed and self.revision == revision:
                self._sendNext()
            self._sendOwed()

        def failed(error: BaseException) -> None:
            self._writing = False
            if revision in self._underWay:
                self._owe(self._underWay.pop(revision))
            self._failed(error)

        self._background.submit(write, written, failed)

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, SparseSegError):
            sentence = _("Unexpected failure: {kind}: {error}").format(kind=type(error).__name__, error=error)
            error = SparseSegError(sentence, _("Please report it."))
        self._failures.append(Error("job", self.revision, error.code, error.sentence, error.advice, fatal=not self._opened))

    def _cleanUp(self, reaper: threading.Thread) -> None:
        reaper.join()
        self._remove()

    def _remove(self) -> None:
        self._owner.release()
        self._private.remove()


def _write(file: IO[bytes], values: np.ndarray) -> None:
    """As a .npy file, a few planes at a time, since they may be most of a volume."""
    write_header(file, values.shape, values.dtype)
    for slab in slabs(values):
        file.write(np.ascontiguousarray(slab).data)


def _fileOf(revision: int) -> str:
    return f"annotation-{revision:04d}.npy"
