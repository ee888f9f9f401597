"""The job folder: the contract between a host and the engine (docs/job-folder.md).

Arrays are .npy, (K, J, I), and can be memory-mapped. Every file is written to a temporary name, flushed, and renamed, so a reader sees
the old or the new one, never half. One writer at a time, by a lock that the operating system drops when its process dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from . import __version__
from .classes import ClassTable
from .errors import InputError, JobError, OutputError
from .geometry import Geometry
from .settings import Settings

SCHEMA_VERSION = 1
IMAGE, ANNOTATION, WEIGHTS, PRIOR = "image.npy", "annotation.npy", "weights.npy", "prior.npy"
DENSE, UNCERTAINTY = "dense.npy", "uncertainty.npy"
MODEL, REPORT, EVENTS, LOG, RECORD, LOCK = "model.pt", "report.json", "events.jsonl", "log.txt", "job.json", "lock"
_OURS = (
    IMAGE,
    ANNOTATION,
    WEIGHTS,
    PRIOR,
    DENSE,
    UNCERTAINTY,
    MODEL,
    REPORT,
    EVENTS,
    LOG,
    RECORD,
    LOCK,
    "annotation-*.npy",
    "preview-*.npy",
    ".*.part",
)
_IMAGE_TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32")


@dataclass(frozen=True)
class JobRecord:
    """What job.json holds. `complete_slices` are (axis, index) pairs, axis 0 = k, 1 = j, 2 = i."""

    geometry: Geometry
    classes: ClassTable
    settings: Settings
    revision: int = 1
    complete_slices: tuple[tuple[int, int], ...] = ()
    engine_version: str = __version__

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "engine_version": self.engine_version,
            "revision": self.revision,
            "geometry": self.geometry.to_json(),
            "classes": self.classes.to_json(),
            "complete_slices": [list(pair) for pair in self.complete_slices],
            "settings": self.settings.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any) -> JobRecord:
        """Raises JobError for another schema version or a record with parts missing."""
        if not isinstance(data, dict) or "schema_version" not in data:
            raise JobError("job.json is not a record of this program.", "Choose another job folder.")
        if data["schema_version"] != SCHEMA_VERSION:
            raise JobError(f"The job has schema version {data['schema_version']}, this engine reads {SCHEMA_VERSION}.", "Start a new job.")
        try:
            return cls(
                Geometry.from_json(data["geometry"]),
                ClassTable.from_json(data["classes"]),
                Settings.from_json(data["settings"]),
                int(data["revision"]),
                checked_slices(data["complete_slices"]),
                str(data["engine_version"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(f"job.json is damaged ({error}).", "Start a new job.") from error


def checked_slices(pairs: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """(axis, index) pairs as tuples; raises InputError where one is something else."""
    if not all(len(pair) == 2 and pair[0] in (0, 1, 2) and int(pair[1]) >= 0 for pair in pairs):
        raise InputError("A complete slice is an (axis, index) pair with axis 0, 1 or 2.")
    return tuple((int(axis), int(index)) for axis, index in pairs)


class Job:
    """One job folder, held by this process until `close`. Make it with `create` or `open`."""

    def __init__(self, folder: Path, lock: Lock, record: JobRecord) -> None:
        self.folder, self._lock, self.record = folder, lock, record

    @classmethod
    def create(cls, folder: Path, image: np.ndarray, annotation: np.ndarray | None, record: JobRecord) -> Job:
        """Make a private folder (0700) and write the inputs. A folder with foreign files is refused; an older job is replaced.

        image: (K, J, I), any real type; annotation: (K, J, I) uint8, or None for a job that only predicts. Raises JobError, OutputError.
        """
        if folder.exists() and any(folder.iterdir()) and not (folder / RECORD).exists() and not (folder / LOCK).exists():
            raise JobError(f"{folder} is not empty and holds no job.", "Choose an empty or a new folder.")
        with _writing(folder):
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
            raise JobError(f"{folder} holds no job.", "Choose the folder of a job, or start a new one.")
        lock = Lock(folder)
        try:
            record = JobRecord.from_json(_read_json(folder / RECORD))
            return cls(folder, lock, record)
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
        """(K, J, I), memory-mapped, the type it was written in."""
        return self._load(IMAGE, _IMAGE_TYPES)

    def annotation(self, name: str = ANNOTATION) -> np.ndarray | None:
        """(K, J, I) uint8, 0 unlabelled, 1 background, 1 + c segment c; None for a job without one."""
        if name == ANNOTATION and not self.path(name).exists():
            return None
        return self._load(name, ("uint8",))

    def dense(self) -> np.ndarray | None:
        """The last result, (K, J, I) uint8, or None."""
        return self._load(DENSE, ("uint8",)) if self.path(DENSE).exists() else None

    def adopt_annotation(self, name: str, revision: int, complete_slices: Sequence[Sequence[int]]) -> None:
        """Make the checked file `name` the job's annotation; from here on this revision is the job's."""
        with _writing(self.folder):
            if name != ANNOTATION:
                os.replace(self.path(name), self.path(ANNOTATION))
        self.save_record(replace(self.record, revision=revision, complete_slices=checked_slices(complete_slices)))

    def save_record(self, record: JobRecord) -> None:
        self.record = record
        self.save_json(RECORD, record.to_json())

    def save_json(self, name: str, data: Any) -> None:
        text = json.dumps(data, indent=1, ensure_ascii=True)
        self._save(name, lambda file: file.write(text.encode("ascii")))

    def save_array(self, name: str, array: np.ndarray) -> Path:
        return self._save(name, lambda file: np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False))

    def save_bytes(self, name: str, write: Callable[[IO[bytes]], Any]) -> Path:
        """`write` receives an open binary file; the file gets its name only once it is whole."""
        return self._save(name, write)

    def _save(self, name: str, write: Callable[[IO[bytes]], Any]) -> Path:
        with _writing(self.folder):
            write_whole(self.path(name), write)
        return self.path(name)

    def _load(self, name: str, types: Sequence[str]) -> np.ndarray:
        path = self.path(name)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise JobError(f"{name} in the job folder is missing, truncated or foreign.", "Export the data again.") from error
        if array.shape != self.record.geometry.shape_kji or array.dtype.name not in types:
            expected = f"{self.record.geometry.shape_kji} {' or '.join(types)}"
            raise JobError(f"{name} is {array.shape} {array.dtype}, the job expects {expected}.", "Export the data again.")
        return array


class Lock:
    """An operating-system lock on the file `lock` in a folder; the file names the process. A killed process holds it no longer."""

    def __init__(self, folder: Path) -> None:
        """Raises JobError where a live process holds the lock."""
        self._path = folder / LOCK
        with _writing(folder):
            self._file = open(self._path, "a+", encoding="ascii")  # noqa: SIM115 - held open as long as the lock
        try:
            _lock_file(self._file)
        except OSError as error:
            owner = self._owner()
            self._file.close()
            raise JobError(
                f"The job folder is in use by another process{owner}.", "Finish or close that one first, or choose another job folder."
            ) from error
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid()}))
        self._file.flush()

    def _owner(self) -> str:
        try:
            return f" (process {json.loads(self._path.read_text(encoding='ascii'))['pid']})"
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def release(self) -> None:
        if not self._file.closed:
            _unlock_file(self._file)
            self._file.close()


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    _BYTE = 1 << 30  # a byte far behind the content, so that others can still read who holds the lock

    def _lock_file(file: IO[str]) -> None:
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

    def _unlock_file(file: IO[str]) -> None:
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock_file(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock_file(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that `path` holds the old content or the whole new one. Raises OSError; then nothing has changed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def remove_job(folder: Path) -> None:
    """Delete a job folder and all in it that is ours. Raises JobError where it is in use or holds no job."""
    Job.open(folder).close()
    _remove_contents(folder, keep_lock=False)
    with contextlib.suppress(OSError):
        folder.rmdir()  # stays where the user keeps files of their own in it


def _remove_contents(folder: Path, keep_lock: bool = True) -> None:
    for path in folder.iterdir():
        if any(path.match(pattern) for pattern in _OURS) and not (keep_lock and path.name == LOCK):
            path.unlink()


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
    except (OSError, ValueError) as error:
        raise JobError(f"{path.name} is damaged.", "Start a new job.") from error
