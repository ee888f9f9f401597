"""The job folder: the contract between a host and the engine (docs/job-folder.md).

Arrays are .npy, (K, J, I), and can be memory-mapped. Every file is written to a temporary name, flushed, and renamed, so a reader sees
the old or the new one, never half. One writer at a time, by a lock that the operating system drops when its process dies. Files of other
programs are neither changed nor deleted: what is ours is known by job.json or, where making a job was interrupted, by its lock.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import math
import os
import re
import shutil
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from .. import __version__
from .box import Box, box_from_json, box_to_json, shape_of, whole
from .channels import IMAGE_TYPES, MOST_CHANNELS
from .classes import ClassTable
from .errors import InputError, JobError, OutputError
from .folders import lock_file, patiently, unlock_file
from .geometry import Geometry
from .hints import Hints
from .settings import Settings

SCHEMA_VERSION = 2  # 2: the record names the annotation's files
_MOST_CHANGES = 64  # of an annotation, before they are written into one file
IMAGE, ANNOTATION, WEIGHTS = "image.npy", "annotation.npy", "weights.npy"
GROWN, PRIOR, NETWORK = "grown.npy", "prior.npy", "network.npy"
VOICES = {"growing": GROWN, "prior": PRIOR, "network": NETWORK}  # what each voice alone says; the last is not there after few steps
DENSE, UNCERTAINTY = "dense.npy", "uncertainty.npy"
MODEL, REPORT, EVENTS, LOG, RECORD, LOCK = "model.pt", "report.json", "events.jsonl", "log.txt", "job.json", "lock"
_REVISIONS = "annotation-[0-9]*.npy"
_OURS = (
    IMAGE,
    ANNOTATION,
    WEIGHTS,
    GROWN,
    PRIOR,
    NETWORK,
    DENSE,
    UNCERTAINTY,
    MODEL,
    REPORT,
    EVENTS,
    LOG,
    RECORD,
    LOCK,
    _REVISIONS,
    "preview-[0-9]*.npy",
)
_RECORD_BEGINS = re.compile(r'\{\s*"schema_version":\s*\d+,\s*"engine_version":\s*"')  # of job.json as it is written here, where the rest is damaged
_UNREADABLE = (OSError, ValueError, EOFError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, MemoryError, RecursionError)
_UNREADABLE_ARRAY = (*_UNREADABLE, SyntaxError, tokenize.TokenError)  # numpy evaluates an array's header as Python text
_EXPORT_AGAIN = "Export the data again."
_WHERE_IS_THE_JOB = "Choose the folder of a job, or start a new one."


@dataclass(frozen=True)
class Change:
    """A part of the annotation that a later revision replaced: the file that holds it, and where it lies."""

    file: str
    box: Box


@dataclass(frozen=True)
class JobRecord:
    """What job.json holds. `complete_slices` are (axis, index) pairs, axis 0 = k, 1 = j, 2 = i; `source_uids` the SOP Instance UIDs of the DICOM
    images that the volume came from, so that a result can refer to them. The annotation is the file `annotation` with all `changes` in turn, so
    that one renamed job.json is a new revision or none. `hints` are what is known without painting; older engines do not ask for them. `channels`:
    what the image's channels are called, in their order, where there are several; or none."""

    geometry: Geometry
    classes: ClassTable
    settings: Settings
    revision: int = 1
    complete_slices: tuple[tuple[int, int], ...] = ()
    source_uids: tuple[str, ...] = ()
    engine_version: str = __version__
    annotation: str = ANNOTATION
    changes: tuple[Change, ...] = ()
    hints: Hints | None = None
    channels: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        hints = {} if self.hints is None else {"hints": self.hints.to_json(self.classes)}
        channels = {"channels": list(self.channels)} if self.channels else {}
        return {
            "schema_version": SCHEMA_VERSION,
            "engine_version": self.engine_version,
            "revision": self.revision,
            "geometry": self.geometry.to_json(),
            "classes": self.classes.to_json(),
            "complete_slices": [list(pair) for pair in self.complete_slices],
            "annotation": self.annotation,
            "changes": [{"file": change.file, "box": box_to_json(change.box)} for change in self.changes],
            "source_uids": list(self.source_uids),
            **hints,
            **channels,
            "settings": self.settings.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any) -> JobRecord:
        """Raises JobError for another schema version, or a record with parts missing or wrong."""
        if not isinstance(data, dict) or "schema_version" not in data:
            raise JobError("job.json is not a record of this program.", "Choose another job folder.")
        if type(data["schema_version"]) is not int or data["schema_version"] != SCHEMA_VERSION:
            raise JobError(f"The job has schema version {data['schema_version']}, this engine reads {SCHEMA_VERSION}.", "Start a new job.")
        try:
            geometry, classes = Geometry.from_json(data["geometry"]), ClassTable.from_json(data["classes"])
            return cls(
                geometry,
                classes,
                Settings.from_json(data["settings"]),
                _checked_revision(data["revision"]),
                checked_slices(data["complete_slices"], geometry.shape_kji),
                tuple(str(uid) for uid in data.get("source_uids", [])),
                str(data["engine_version"]),
                _checked_name(data.get("annotation", ANNOTATION)),
                tuple(Change(_checked_name(c["file"]), _checked_box(c["box"], geometry.shape_kji)) for c in data.get("changes", [])),
                Hints.from_json(data["hints"], classes, geometry) if "hints" in data else None,
                _checked_names(data.get("channels", [])),
            )
        except _UNREADABLE as error:
            raise JobError(f"job.json is damaged ({error}).", "Start a new job.") from error


def checked_slices(pairs: Sequence[Sequence[int]], shape_kji: Sequence[int] | None = None) -> tuple[tuple[int, int], ...]:
    """(axis, index) pairs as tuples; raises InputError where one is something else, or lies outside of `shape_kji` where that is given."""
    try:
        whole = all(type(n) is int or isinstance(n, np.integer) for pair in pairs for n in pair)
        fits = whole and all(axis in (0, 1, 2) and index >= 0 for axis, index in pairs)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError("A complete slice is an (axis, index) pair with axis 0, 1 or 2.")
    for axis, index in pairs:
        if shape_kji is not None and index >= shape_kji[axis]:
            raise InputError(f"Complete slice {index} along axis {'kji'[axis]} lies outside of the volume.")
    return tuple((int(axis), int(index)) for axis, index in pairs)


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or (not fnmatch.fnmatchcase(name, ANNOTATION) and not fnmatch.fnmatchcase(name, _REVISIONS)):
        raise InputError(f"{name!r:.80} is no file of an annotation.")
    return name


def _checked_names(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or len(names) > MOST_CHANNELS or not all(isinstance(name, str) for name in names):
        raise InputError(f"{names!r:.80} are no names of channels.")
    return tuple(names)


def _checked_box(data: Any, shape_kji: Sequence[int]) -> Box:
    box = box_from_json(data, shape_kji)
    return whole(shape_kji) if box is None else box


def _checked_revision(revision: Any) -> int:
    if type(revision) is not int or revision < 0:
        raise InputError(f"A revision is a whole number, got {revision!r}.")
    return revision


@dataclass(frozen=True)
class Update:
    """A new annotation that is not adopted yet. box: where it changed, None where it is a whole one; values: uint8 of the box, as in the file."""

    file: str
    revision: int
    complete_slices: tuple[tuple[int, int], ...]
    box: Box | None
    values: np.ndarray


class Job:
    """One job folder, held by this process until `close`. Make it with `create` or `open`."""

    def __init__(self, folder: Path, lock: Lock, record: JobRecord) -> None:
        self.folder, self._lock, self.record = folder, lock, record

    @classmethod
    def create(cls, folder: Path, image: np.ndarray, annotation: np.ndarray | None, record: JobRecord) -> Job:
        """Make a private folder (0700) and write the inputs, arrays in C order. An older job of any schema version is replaced.

        image: (K, J, I), or (C, K, J, I) of 1 to 4 channels, any real type; annotation: (K, J, I) uint8, or None for a job that only predicts. A
        folder that holds an older job keeps the files that are not ours; one that holds other files and no job is refused untouched. Raises JobError,
        OutputError.
        """
        with _writing(folder):
            if folder.exists() and not folder.is_dir():
                raise JobError(f"{folder} is a file, not a folder.", "Choose an empty or a new folder.")
            if folder.exists() and any(folder.iterdir()) and not _holds_ours(folder):
                raise JobError(f"{folder} is not empty and holds no job.", "Choose an empty or a new folder.")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                folder.chmod(0o700)
        lock = Lock(folder)
        try:
            _remove_contents(folder)
            job = cls(folder, lock, record)
            job.save_array(IMAGE, image)
            if annotation is not None:
                job.save_array(ANNOTATION, annotation)
            job.save_record(record)  # last: a folder with job.json is complete
        except BaseException:
            lock.release()
            raise
        return job

    @classmethod
    def open(cls, folder: Path) -> Job:
        """Raises JobError for a folder that is missing, foreign, damaged, of another version, or locked by a live process."""
        if not (folder / RECORD).is_file():
            raise JobError(f"{folder} holds no job.", _WHERE_IS_THE_JOB)
        JobRecord.from_json(_read_json(folder / RECORD))  # before the lock, which would be left in a foreign folder
        lock = Lock(folder)
        try:
            return cls(folder, lock, JobRecord.from_json(_read_json(folder / RECORD)))
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path(self, name: str) -> Path:
        return self.folder / name

    def image(self) -> np.ndarray:
        """Its first channel, (K, J, I), memory-mapped, the type it was written in."""
        return self.channels()[0]

    def channels(self) -> np.ndarray:
        """The image, (C, K, J, I), memory-mapped. Raises JobError."""
        shape, names = self.record.geometry.shape_kji, self.record.channels
        array = self._mapped(IMAGE)
        if array.ndim == 4 and not 1 <= len(array) <= MOST_CHANNELS:
            raise JobError(f"The image has {len(array)} channels, not 1 to {MOST_CHANNELS}.", "Choose fewer volumes.")
        _check(array, IMAGE, IMAGE_TYPES, (len(array), *shape) if array.ndim == 4 else shape)
        channels = array if array.ndim == 4 else array[None]
        if names and len(names) != len(channels):
            raise JobError(f"The image has {len(channels)} channels, the job names {len(names)}.", _EXPORT_AGAIN)
        return channels

    def annotation(self) -> np.ndarray | None:
        """(K, J, I) uint8, 0 unlabelled, 1 background, 1 + c segment c; memory-mapped where nothing changed it; None for a job without one."""
        record = self.record
        if record.annotation == ANNOTATION and not self.path(ANNOTATION).exists():
            return None
        annotation = self._load(record.annotation, ("uint8",))
        if record.changes:
            annotation = np.array(annotation)
        for change in record.changes:
            annotation[change.box] = self._load(change.file, ("uint8",), shape_of(change.box))
        return annotation

    def update(self, name: str, revision: int, complete_slices: Sequence[Sequence[int]], box: Any = None) -> Update:
        """A new annotation that a file in the folder holds, checked: with a box (as of the protocol) this part of it. Nothing is adopted yet.

        Raises InputError or JobError.
        """
        if not isinstance(name, str) or Path(name).name != name or _checked_revision(revision) <= self.record.revision:
            raise JobError(f"An update must name a file in the job folder and a revision above {self.record.revision}, got {name!r}, {revision}.")
        shape = self.record.geometry.shape_kji
        slices, where = checked_slices(complete_slices, shape), box_from_json(box if box else [], shape)
        values = self._load(name, ("uint8",), None if where is None else shape_of(where))
        return Update(_checked_name(name), revision, slices, where, values)

    def adopt(self, update: Update) -> None:
        """Make it the job's annotation: one rename of job.json. Raises OutputError; then the old annotation, revision and slices stay."""
        before = self.record
        changes = () if update.box is None else (*before.changes, Change(update.file, update.box))
        base = update.file if update.box is None else before.annotation
        self.save_record(replace(before, revision=update.revision, complete_slices=update.complete_slices, annotation=base, changes=changes))
        self._drop_unnamed(before)
        if len(changes) > _MOST_CHANGES:
            self.gather_changes()

    def gather_changes(self) -> None:
        """Write the annotation and all its changes into one file. Raises OutputError; then all is as it was."""
        before, annotation = self.record, self.annotation()
        if not before.changes or annotation is None:
            return
        name = f"annotation-{before.revision:04d}-all.npy"
        self.save_array(name, annotation)
        self.save_record(replace(before, annotation=name, changes=()))
        self._drop_unnamed(before)

    def _drop_unnamed(self, before: JobRecord) -> None:
        """Delete the annotation's files that an earlier record named and this one does not."""
        named = {self.record.annotation, *(change.file for change in self.record.changes)}
        for name in {before.annotation, *(change.file for change in before.changes)} - named:
            with contextlib.suppress(OSError):  # a reader on Windows may hold it; it is ours to delete with the job
                self.path(name).unlink()

    def dense(self) -> np.ndarray | None:
        """The last result, (K, J, I) uint8, or None."""
        return self._load(DENSE, ("uint8",)) if self.path(DENSE).exists() else None

    def save_record(self, record: JobRecord) -> None:
        self.save_json(RECORD, record.to_json())
        self.record = record

    def save_json(self, name: str, data: Any) -> None:
        """Numbers that JSON lacks (nan, inf) are written as null."""
        text = json.dumps(_without_nan(data), indent=1, ensure_ascii=True, allow_nan=False)
        self._save(name, lambda file: file.write(text.encode("ascii")))

    def save_array(self, name: str, array: np.ndarray, lasting: bool = True) -> Path:
        """lasting: whether it must survive a power cut the moment after, for which the disk is waited for."""
        return self._save(name, lambda file: np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False), lasting)

    def save_planes(self, name: str, shape_kji: Sequence[int], dtype: Any, planes: Iterable[np.ndarray]) -> Path:
        """An array that is made plane by plane, (J, I) each, so that it need not fit into memory."""
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": tuple(int(n) for n in shape_kji)}

        def write(file: IO[bytes]) -> None:
            np.lib.format.write_array_header_1_0(file, header)
            for plane in planes:
                file.write(np.ascontiguousarray(plane, dtype).tobytes())

        return self._save(name, write)

    def save_bytes(self, name: str, write: Callable[[IO[bytes]], Any]) -> Path:
        """`write` receives an open binary file; the file gets its name only once it is whole."""
        return self._save(name, write)

    def _save(self, name: str, write: Callable[[IO[bytes]], Any], lasting: bool = True) -> Path:
        with _writing(self.folder):
            write_whole(self.path(name), write, lasting)
        return self.path(name)

    def _load(self, name: str, types: Sequence[str], shape: Sequence[int] | None = None) -> np.ndarray:
        array = self._mapped(name)
        _check(array, name, types, self.record.geometry.shape_kji if shape is None else tuple(shape))
        return array

    def _mapped(self, name: str) -> np.ndarray:
        try:
            return np.lib.format.open_memmap(self.path(name), mode="r")
        except _UNREADABLE_ARRAY as error:
            raise JobError(f"{name} in the job folder is missing, truncated or foreign.", _EXPORT_AGAIN) from error


def _check(array: np.ndarray, name: str, types: Sequence[str], shape: Sequence[int]) -> None:
    if array.shape != tuple(shape) or array.dtype.name not in types:
        raise JobError(f"{name} is {array.shape} {array.dtype}, the job expects {tuple(shape)} {' or '.join(types)}.", _EXPORT_AGAIN)


class Lock:
    """An operating-system lock on the file `lock` in a folder; the file names the process. A killed process holds it no longer."""

    _held_here: ClassVar[set[tuple[int, int]]] = set()  # the lock files (device, number) that this process holds

    def __init__(self, folder: Path) -> None:
        """Raises JobError where a live process holds the lock, OutputError where it cannot be written."""
        self._path = folder / LOCK
        with _writing(folder):
            self._file = open(self._path, "a+", encoding="ascii")  # noqa: SIM115 - held open as long as the lock
        status = os.fstat(self._file.fileno())
        self._identity = (status.st_dev, status.st_ino)
        try:
            lock_file(self._file)
        except OSError as error:
            here = self._identity in self._held_here
            sentence = "The job folder is already open in this process." if here else f"The job folder is in use by another process{self._owner()}."
            self._file.close()
            raise JobError(sentence, "Finish or close that one first, or choose another job folder.") from error
        self._held_here.add(self._identity)
        try:
            with _writing(folder):
                self._file.truncate(0)
                self._file.write(json.dumps({"pid": os.getpid()}))
                self._file.flush()
        except BaseException:
            self.release()
            raise

    def _owner(self) -> str:
        pid = _pid_in(self._path)
        return f" (process {pid})" if pid else ""

    def release(self) -> None:
        """May be called again."""
        if not self._file.closed:
            self._held_here.discard(self._identity)
            unlock_file(self._file)
            with contextlib.suppress(OSError):  # what could not be written when the lock was taken is tried again here
                self._file.close()


def write_whole(path: Path, write: Callable[[IO[bytes]], Any], lasting: bool = True) -> None:
    """Write a file so that `path` holds the old content or the whole new one; after a power cut too, if it is `lasting`. Raises OSError; then
    nothing has changed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        patiently(lambda: os.replace(temporary, path))
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def remove_job(folder: Path) -> None:
    """Delete a job folder, be the job damaged or of another version, and all in it that is ours. Other files stay, and then the folder.

    Raises JobError where it is in use or holds no job, OutputError where it cannot be deleted.
    """
    if not folder.is_dir() or not _holds_ours(folder):
        raise JobError(f"{folder} holds no job.", _WHERE_IS_THE_JOB)
    lock = Lock(folder)
    try:
        _remove_contents(folder)
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()  # while it is held; Windows deletes no open file
    finally:
        lock.release()
    with contextlib.suppress(OSError):
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()  # stays where the user keeps files of their own in it


def _remove_contents(folder: Path) -> None:
    """All that is ours but the lock; job.json first, since a folder with job.json is complete."""
    with _writing(folder):
        (folder / RECORD).unlink(missing_ok=True)
        for path in folder.iterdir():
            if path.name != LOCK and _is_our_name(path.name):
                patiently(path.unlink)


def _is_our_name(name: str) -> bool:
    part = re.fullmatch(r"\.(.+)\.\d+\.part", name)  # what `write_whole` leaves when it is killed
    return any(fnmatch.fnmatchcase(part[1] if part else name, pattern) for pattern in _OURS)


def _holds_ours(folder: Path) -> bool:
    """Whether a folder holds a job of any schema version, damaged or not; or nothing but what an interrupted `create` or `remove_job` left."""
    with contextlib.suppress(OSError, ValueError):
        if (folder / RECORD).exists():
            return _is_our_record((folder / RECORD).read_text(encoding="ascii"))
    names = {path.name for path in folder.iterdir()}
    if names == {LOCK}:
        return _pid_in(folder / LOCK) is not None or (folder / LOCK).stat().st_size == 0  # empty: ended before it named its process
    return all(map(_is_our_name, names)) and _pid_in(folder / LOCK) is not None


def _is_our_record(text: str) -> bool:
    if _RECORD_BEGINS.match(text):
        return True
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"schema_version", "engine_version"} <= set(data)


def _pid_in(path: Path) -> int | None:
    """The process that a lock file names; None where it is no lock file of ours."""
    try:
        content = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError, RecursionError):
        return None
    return content["pid"] if isinstance(content, dict) and set(content) == {"pid"} and type(content["pid"]) is int else None


def _without_nan(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns an operating system's refusal into a sentence."""
    try:
        yield
    except OSError as error:
        free = ""
        with contextlib.suppress(OSError):
            free = f" ({shutil.disk_usage(folder).free // 2**20} MiB free)"
        raise OutputError(f"Could not write in {folder}: {error.strerror or error}{free}.", "Free space or choose another folder.") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError, RecursionError) as error:
        raise JobError(f"{path.name} is damaged.", "Start a new job.") from error
