"""A job folder on this computer whose engine is on another one: it is kept as if the engine worked in it."""

from __future__ import annotations

import contextlib
import io
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np

from .box import box_from_json, box_to_json, union, whole
from .errors import OutputError, SparseSegError
from .frames import Arriving, apply_changes, changed
from .job import DENSE, MODEL, RECORD, REPORT, UNCERTAINTY, Job
from .job import Update as Taken
from .link import Frame
from .protocol import Error, Event, Preview, Result, Update, Warning

_WHOLE_PREVIEWS_KEPT = 2


class Mirror:
    """Holds the job's lock until `close`. What an event says was taken there is adopted here: a new engine could go on from it."""

    def __init__(self, folder: Path, owner: int) -> None:
        """Raises JobError as Job.open does."""
        self._job: Job | None = Job.open(folder, owner)
        self.folder = folder
        self._turn = threading.RLock()
        self._shape = self._job.record.geometry.shape_kji
        self._shown: np.ndarray | None = None  # (K, J, I) uint8: the label map that the other end has last sent
        self._under_way: dict[str, Taken] = {}  # updates by their commands' ids, until an event shows what became of them
        self._previews: list[tuple[Path, bool]] = []  # and whether each is of the whole volume
        self._arriving = Arriving()
        self.revision = self._job.record.revision

    def close(self) -> None:
        """Release the lock; nothing is written any more. May be called again."""
        with self._turn:
            self._arriving.abandon()
            if self._job is not None:
                self._job.close()
                self._job = None

    def inputs(self) -> list[str]:
        """The files that make the job, beside its image; the record is the last."""
        with self._turn:
            names = self._job.record.files if self._job is not None else []
        return [name for name in (MODEL, *names, RECORD) if (self.folder / name).exists()]

    def update(self, command: Update) -> tuple[Update, bytes]:
        """The command as it is sent, with what changed and no more, and the content of its file. Raises JobError, InputError."""
        with self._turn:
            if self._job is None:
                return command, b""
            update = self._job.update(command.annotation, command.revision, command.complete_slices, command.box)
            box, values = update.box, update.values
            if box is None and not update.is_adopted and (before := self._job.annotation()) is not None:
                differs = union(changed(before, values), *(whole(self._shape) if u.box is None else u.box for u in self._under_way.values()))
                box = differs or (slice(0, 1), slice(0, 1), slice(0, 1))
                values = values[box]
            self._under_way[command.id] = update
        file = io.BytesIO()
        np.lib.format.write_array(file, np.ascontiguousarray(values), allow_pickle=False)
        return replace(command, box=box_to_json(box)), file.getvalue()

    def take(self, frame: Frame) -> None:
        """A part of what an event behind it tells of. Raises ProtocolError."""
        with self._turn:
            if self._job is None:
                return
            if frame.kind == "labels":
                apply_changes(self._labels(), frame)
            elif frame.kind == "part":
                with contextlib.suppress(OSError):  # the event finds it missing
                    self._arriving.part(frame, self.folder)
            elif frame.kind == "absent":
                with contextlib.suppress(OSError):
                    (self.folder / frame.text("name")).unlink()

    def _labels(self) -> np.ndarray:
        if self._shown is None:
            self._shown = np.zeros(self._shape, np.uint8)
        return self._shown

    def mirrored(self, event: Event) -> list[Event]:
        """What hosts are told of an event: the same, with files here, which are written first; and what went wrong in writing them."""
        with self._turn:
            if self._job is None:
                return [event]
            warnings = self._adopt(event)
            try:
                if isinstance(event, Preview):
                    event = self._preview(self._job, event)
                elif isinstance(event, Result):
                    event = self._result(self._job, event)
            except OutputError as error:
                if isinstance(event, Preview):
                    return [*warnings, Warning(event.id, event.revision, "unshown", error.sentence, error.advice)]
                return [*warnings, Error(event.id, event.revision, error.code, error.sentence, error.advice)]
            return [*warnings, event]

    def _adopt(self, event: Event) -> list[Event]:
        """Whatever was taken there is the job's here, too, before the host hears of it and deletes its file."""
        if isinstance(event, Error):
            self._under_way.pop(event.id, None)
        taken = sorted(((update.revision, key) for key, update in self._under_way.items() if update.revision <= event.revision))
        for _, key in taken:
            update = self._under_way.pop(key)
            try:
                assert self._job is not None
                if update.revision > self._job.record.revision or update.is_adopted:
                    self._job.adopt(update)
            except SparseSegError as error:
                sentence = f"The engine has the new annotation, but the job folder has not: {error.sentence}"
                return [Warning(event.id, event.revision, "output", sentence, error.advice)]
            finally:
                self.revision = self._job.record.revision if self._job is not None else self.revision
        return []

    def _preview(self, job: Job, event: Preview) -> Preview:
        box, labels = box_from_json(event.box, self._shape), self._labels()
        path = job.save_array(Path(event.file).name, labels if box is None else labels[box], lasting=False)
        self._previews.append((path, box is None))
        wholes = [n for n, (_, is_whole) in enumerate(self._previews) if is_whole]
        first = wholes[-_WHOLE_PREVIEWS_KEPT] if len(wholes) >= _WHOLE_PREVIEWS_KEPT else 0
        for old, _ in self._previews[:first]:
            with contextlib.suppress(OSError):
                old.unlink()
        self._previews = self._previews[first:]
        return replace(event, file=str(path))

    def _result(self, job: Job, event: Result) -> Result:
        dense = job.save_array(DENSE, self._labels())
        there = {name: str(job.path(name)) if job.path(name).exists() else "" for name in (UNCERTAINTY, MODEL, REPORT)}
        model, report = (there[MODEL] if event.model else "", there[REPORT] if event.report else "")
        return replace(event, file=str(dense), uncertainty=there[UNCERTAINTY], model=model, report=report)
