"""The job folder: the contract between a host and the engine (docs/job-folder.md).

Arrays are .npy, (K, J, I), and can be memory-mapped. Every file is written to a temporary name, flushed, and renamed, so a reader sees
the old or the new one, never half. One writer at a time (lock.py). Files of other programs are neither changed nor deleted: what is ours is known
by job.json or, where making a job was interrupted, by its lock.

An update is one transaction, the renaming of job.json. What job.json names, nobody changes: what a host hands over is copied first, under a name
that no host uses; and the record holds a checksum of each array, so that one that is another all the same is noticed when the job is opened. CRC-32
takes 30 ms for 79 million voxels, once when a job is opened, and nothing to speak of for a correction; it is there against accidents, not intent.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
import tokenize
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from .. import __version__
from .box import Box, box_from_json, box_to_json, shape_of, whole
from .channels import IMAGE_TYPES, MOST_CHANNELS
from .classes import ClassTable
from .errors import InputError, JobError, SparseSegError
from .folders import Sparsely, adopt_file, patiently, write_whole, writing
from .geometry import Geometry
from .hints import Hints
from .lock import HOST_LOCK, LOCK, Lock, check_owner, holder
from .scratch import Scratch, put
from .settings import Settings
from .store import SLAB_VOXELS, file_of, slabs, write_header

SCHEMA_VERSION = 2  # 2: the record names the annotation's files
_MOST_CHANGES = 64  # of an annotation, before they are written into one file
IMAGE, ANNOTATION, WEIGHTS = "image.npy", "annotation.npy", "weights.npy"
GROWN, PRIOR, NETWORK = "grown.npy", "prior.npy", "network.npy"
VOICES = {"growing": GROWN, "prior": PRIOR, "network": NETWORK}  # what each voice alone says; the last is not there after few steps
DENSE, UNCERTAINTY = "dense.npy", "uncertainty.npy"
MODEL, REPORT, EVENTS, LOG, RECORD = "model.pt", "report.json", "events.jsonl", "log.txt", "job.json"
_OURS = (IMAGE, ANNOTATION, WEIGHTS, GROWN, PRIOR, NETWORK, DENSE, UNCERTAINTY, MODEL, REPORT, EVENTS, LOG, RECORD, LOCK, HOST_LOCK)
_HANDED_OVER = re.compile(r"annotation-(\d{1,16})\.npy", re.ASCII)  # what a host names in an update
_TAKEN_OVER = re.compile(r"annotation-\d{1,16}-(all|(all-)?[0-9a-f]{8})\.npy", re.ASCII)  # what a record names
_PREVIEW = re.compile(r"preview-\d[\d-]*\.npy", re.ASCII)
_PART = re.compile(r"\.(.+)\.(\d+)\.part")  # what `write_whole`, or a store of arrays, leaves when it is killed; and whose it is
_SCRATCH = re.compile(r"scratch-\d+\.npy", re.ASCII)  # an array of `store.OnDisk`
_MAPPED = re.compile(r"mapped-\d+", re.ASCII)  # an array of `scratch.Scratch`
_MOST_REVISION = 2**53 - 1  # what every reader of JSON takes for a whole number
_MOST_RECORD = 2**26  # bytes
_MOST_LOG = 2**22  # bytes, then events and log begin anew with the next session
_RECORD_BEGINS = re.compile(r'\{\s*"schema_version":\s*\d+,\s*"engine_version":\s*"')  # of job.json as it is written here, where the rest is damaged
_UNREADABLE = (OSError, ValueError, EOFError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, MemoryError, RecursionError)
_CHANGED = "is not what the job holds: it was changed from outside, or is damaged"
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
    what the image's channels are called, in their order, where there are several; or none. `checksums`: of the voxels in the files of the image and
    of the annotation; of one that is not among them nothing is checked. Raises InputError for values that a record cannot hold."""

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
    checksums: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        _checked_revision(self.revision)
        checked_slices(self.complete_slices, self.geometry.shape_kji)
        for name in self.files:
            _checked_name(name)

    @property
    def files(self) -> list[str]:
        """Those that the annotation is made of."""
        return [self.annotation, *(change.file for change in self.changes)]

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
            "checksums": {name: crc for name, crc in self.checksums.items() if name == IMAGE or name in self.files},
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
            raise JobError(f"The job has schema version {data['schema_version']!r:.20}, this engine reads {SCHEMA_VERSION}.", "Start a new job.")
        try:
            geometry, classes = Geometry.from_json(data["geometry"]), ClassTable.from_json(data["classes"])
            return cls(
                geometry,
                classes,
                Settings.from_json(data["settings"]),
                _checked_revision(data["revision"]),
                checked_slices(data["complete_slices"], geometry.shape_kji),
                _checked_uids(data.get("source_uids", [])),
                str(data["engine_version"]),
                _checked_name(data.get("annotation", ANNOTATION)),
                tuple(Change(_checked_name(c["file"]), _checked_box(c["box"], geometry.shape_kji)) for c in data.get("changes", [])),
                Hints.from_json(data["hints"], classes, geometry) if "hints" in data else None,
                _checked_names(data.get("channels", [])),
                _checked_sums(data.get("checksums", {})),
            )
        except _UNREADABLE as error:
            raise JobError(f"job.json is damaged ({error!s:.300}).", "Start a new job.") from error


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
    if not isinstance(name, str) or (name != ANNOTATION and not _HANDED_OVER.fullmatch(name) and not _TAKEN_OVER.fullmatch(name)):
        raise InputError(f"{name!r:.80} is no file of an annotation.")
    return name


def _checked_names(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or len(names) > MOST_CHANNELS or not all(isinstance(name, str) for name in names):
        raise InputError(f"{names!r:.80} are no names of channels.")
    return tuple(names)


def _checked_uids(uids: Any) -> tuple[str, ...]:
    if not isinstance(uids, list) or not all(isinstance(uid, str) for uid in uids):
        raise InputError(f"{uids!r:.80} are no UIDs of images.")
    return tuple(uids)


def _checked_sums(sums: Any) -> dict[str, int]:
    if not isinstance(sums, dict) or not all(type(crc) is int and 0 <= crc < 2**32 for crc in sums.values()):
        raise InputError(f"{sums!r:.80} are no checksums.")
    return sums


def _checked_box(data: Any, shape_kji: Sequence[int]) -> Box:
    box = box_from_json(data, shape_kji)
    return whole(shape_kji) if box is None else box


def _checked_revision(revision: Any) -> int:
    if type(revision) is not int or not 0 <= revision <= _MOST_REVISION:
        raise InputError(f"A revision is a whole number from 0 to {_MOST_REVISION}, got {revision!r:.80}.")
    return revision


@dataclass(frozen=True)
class Update:
    """A new annotation that is not adopted yet. box: where it changed, None where it is a whole one; values: uint8 of the box, a copy of the file's.
    is_adopted: whether it was, and the host sends it again, having heard no answer."""

    file: str
    revision: int
    complete_slices: tuple[tuple[int, int], ...]
    box: Box | None
    values: np.ndarray
    is_adopted: bool = False


class Job:
    """One job folder, held by this process until `close`. Make it with `create` or `open`."""

    def __init__(self, folder: Path, lock: Lock, record: JobRecord) -> None:
        self.folder, self._lock, self.record = folder, lock, record
        self.tick: Callable[[], None] = lambda: None  # called several times a second while arrays are written; may raise

    @classmethod
    def create(cls, folder: Path, image: np.ndarray, annotation: np.ndarray | None, record: JobRecord) -> Job:
        """Make a private folder (0700) and write the inputs, arrays in C order. An older job of any schema version is replaced.

        image: (K, J, I), or (C, K, J, I) of 1 to 4 channels, any real type; annotation: (K, J, I) uint8, or None for a job that only predicts. An
        array that `store.OnDisk` keeps in the folder is not copied: its file becomes the job's. A folder that holds an older job keeps the files that
        are not ours; one that holds other files and no job is refused untouched. Raises JobError, OutputError.
        """
        check_place(folder)
        with writing(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                folder.chmod(0o700)
        check_owner(folder)
        lock = Lock(folder)
        try:
            _remove_contents(folder, spare_own=True)
            job = cls(folder, lock, record)
            sums = {}
            for name, array in ((IMAGE, image), (ANNOTATION, annotation)):
                if array is not None:
                    sums[name] = checksum(array)
                    job._take(name, array)
            job.save_record(replace(record, checksums=sums))  # last: a folder with job.json is complete
        except BaseException:
            lock.release()
            raise
        return job

    @classmethod
    def open(cls, folder: Path, owner: int = 0) -> Job:
        """owner: the process that this one works for, if it holds the folder as its owner (lock.Owner). What dead sessions left goes.

        Raises JobError for a folder that is missing, foreign, damaged, of another version, or held by another live process.
        """
        if not _is_plain(folder / RECORD):
            raise JobError(f"{folder} holds no job.", _WHERE_IS_THE_JOB)
        JobRecord.from_json(_read_json(folder / RECORD))  # before the lock, which would be left in a foreign folder
        check_owner(folder, owner)
        lock = Lock(folder)
        try:
            job = cls(folder, lock, JobRecord.from_json(_read_json(folder / RECORD)))
            job._sweep()
            return job
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

    def check_image(self, tick: Callable[[], None] = lambda: None) -> None:
        """Raises JobError where the image is not the one that the job was made with."""
        if IMAGE in self.record.checksums and checksum(self.channels(), tick) != self.record.checksums[IMAGE]:
            raise JobError(f"{IMAGE} in the job folder {_CHANGED}.", _EXPORT_AGAIN)

    def annotation(self) -> np.ndarray | None:
        """(K, J, I) uint8, 0 unlabelled, 1 background, 1 + c segment c; memory-mapped where nothing changed it; None for a job without one.

        Raises JobError where a file of it is missing, damaged, or not the one that the job was given.
        """
        record = self.record
        if record.annotation == ANNOTATION and ANNOTATION not in record.checksums and not self.path(ANNOTATION).exists():
            return None
        annotation = self._load_unchanged(record.annotation, record.geometry.shape_kji)
        if record.changes:
            annotation = self._mapped(record.annotation, mode="c")  # what is changed of it is in memory, and nowhere else
        for change in record.changes:
            annotation[change.box] = self._load_unchanged(change.file, shape_of(change.box))
        return annotation

    def _load_unchanged(self, name: str, shape: Sequence[int]) -> np.ndarray:
        array, known = self._load(name, ("uint8",), shape), self.record.checksums.get(name)
        if known is not None and checksum(array) != known:
            raise JobError(f"{name} in the job folder {_CHANGED}.", _EXPORT_AGAIN)
        return array

    def update(self, name: str, revision: int, complete_slices: Sequence[Sequence[int]], box: Any = None) -> Update:
        """A new annotation that a file in the folder holds, checked: with a box (as of the protocol) this part of it. Nothing is adopted yet.

        The revision that the job has may be sent again, as long as it is the same. Raises InputError or JobError.
        """
        record, shape = self.record, self.record.geometry.shape_kji
        is_handed_over = isinstance(name, str) and _HANDED_OVER.fullmatch(name) and name not in record.files
        if not is_handed_over or _checked_revision(revision) < record.revision:
            raise JobError(
                f"An update must name a file in the job folder and a revision above {record.revision}, got {name!r:.80}, {revision}.",
                "Call the file annotation-N.npy, with the revision for N.",
            )
        slices, where = checked_slices(complete_slices, shape), box_from_json(box if box else [], shape)
        if revision == record.revision:
            return self._sent_again(name, slices, where)
        return Update(name, revision, slices, where, self._copied(self._load(name, ("uint8",), None if where is None else shape_of(where))))

    def _copied(self, values: np.ndarray) -> np.ndarray:
        """What the host writes to its file afterwards changes nothing; mapped where it is large."""
        copy = Scratch(self.folder).zeros(values.shape, values.dtype)
        put(copy, values)
        return copy

    def _sent_again(self, name: str, slices: tuple[tuple[int, int], ...], box: Box | None) -> Update:
        """The present revision once more. Its file may be gone: it was taken over."""
        annotation = self.annotation()
        same = annotation is not None and set(slices) == set(self.record.complete_slices)
        if annotation is not None and same and self.path(name).exists():
            here = annotation if box is None else annotation[box]
            same = np.array_equal(self._load(name, ("uint8",), here.shape), here)
        if annotation is None or not same:
            raise JobError(
                f"The job has a revision {self.record.revision} already, and that is another annotation.",
                f"An update must have a revision above {self.record.revision}.",
            )
        return Update(name, self.record.revision, slices, box, annotation if box is None else annotation[box], is_adopted=True)

    def adopt(self, update: Update) -> None:
        """Make it the job's annotation: one rename of job.json, and what comes after that cannot fail. The host's file is taken away.

        Raises OutputError, or whatever came before the rename; then the old annotation, revision and slices stay.
        """
        if update.is_adopted:
            self._drop(update.file)
            return
        before = self.record
        name, crc = self._keep(update.values, update.revision)
        try:
            changes = () if update.box is None else (*before.changes, Change(name, update.box))
            base = name if update.box is None else before.annotation
            after = replace(before, annotation=base, changes=changes, checksums={**before.checksums, name: crc})
            self.save_record(replace(after, revision=update.revision, complete_slices=update.complete_slices))
        except BaseException:
            self._drop(name)
            raise
        self._drop(update.file, *(set(before.files) - set(self.record.files)))
        if len(changes) > _MOST_CHANGES:
            with contextlib.suppress(SparseSegError, MemoryError, OSError):  # the next one tries again
                self.gather_changes()

    def gather_changes(self) -> None:
        """Write the annotation and all its changes into one file. Raises OutputError; then all is as it was."""
        before, annotation = self.record, self.annotation()
        if not before.changes or annotation is None:
            return
        name, crc = self._keep(annotation, before.revision, "-all")
        try:
            self.save_record(replace(before, annotation=name, changes=(), checksums={**before.checksums, name: crc}))
        except BaseException:
            self._drop(name)
            raise
        self._drop(*before.files)

    def _keep(self, values: np.ndarray, revision: int, which: str = "") -> tuple[str, int]:
        """Write a part of the annotation under a name that says what is in it, and that no host uses; the name, and the checksum."""
        crc = checksum(values)
        name = f"annotation-{revision:04d}{which}-{crc:08x}.npy"
        self.save_array(name, values)
        return name, crc

    def _drop(self, *names: str) -> None:
        """Delete files of an annotation that the record does not name (any more)."""
        for name in set(names) - set(self.record.files):
            with contextlib.suppress(OSError):  # a reader on Windows may hold it; the next session deletes it
                self.path(name).unlink()

    def _sweep(self) -> None:
        """What dead sessions left: previews, half-written files, annotations that no record names and no update can. A host may be writing one."""
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                with contextlib.suppress(OSError):
                    if self._is_left(path.name) or (path.name in (EVENTS, LOG) and path.lstat().st_size > _MOST_LOG):
                        path.unlink()

    def _is_left(self, name: str) -> bool:
        part = _PART.fullmatch(name)
        whole_name = part[1] if part else name
        if given := _HANDED_OVER.fullmatch(whole_name):
            return int(given[1]) <= self.record.revision and name not in self.record.files
        if part:
            return _is_our_name(whole_name) and not _is_own(name)
        return bool(_PREVIEW.fullmatch(name) or _TAKEN_OVER.fullmatch(name)) and name not in self.record.files

    def dense(self) -> np.ndarray | None:
        """The last result, (K, J, I) uint8, or None."""
        return self.result(DENSE)

    def result(self, name: str) -> np.ndarray | None:
        """One of a result's arrays of uint8, (K, J, I), memory-mapped; or None. Raises JobError."""
        return self._load(name, ("uint8",)) if self.path(name).exists() else None

    def save_record(self, record: JobRecord) -> None:
        def adopted() -> None:  # whatever fails after it is on the disk, as for want of memory: it is the job's
            self.record = record

        self.save_json(RECORD, record.to_json(), adopted)

    def save_json(self, name: str, data: Any, named: Callable[[], Any] = lambda: None) -> None:
        """Numbers that JSON lacks (nan, inf) are written as null. named: as of write_whole."""
        text = json.dumps(_without_nan(data), indent=1, ensure_ascii=True, allow_nan=False)
        self._save(name, lambda file: file.write(text.encode("ascii")), named=named)

    def save_array(self, name: str, array: np.ndarray, lasting: bool = True, first: Callable[[], Any] = lambda: None) -> Path:
        """lasting: whether it must survive a power cut the moment after, for which the disk is waited for; first:
        called when all is written, before the file gets its name. What that or `tick` raises leaves the old file."""
        if array.dtype.hasobject:
            raise ValueError("Object arrays hold no voxels.")

        return self._save_parts(name, array.shape, array.dtype, slabs(array), lasting, first)

    def _take(self, name: str, array: np.ndarray) -> None:
        """An array becomes a file of the job: its own, where a store keeps it in the folder, else a copy."""
        path = file_of(array, self.folder)
        if path is not None:
            with contextlib.suppress(PermissionError):  # Windows renames no file that is mapped
                adopt_file(path, self.path(name))
                return
        self.save_array(name, array)

    def save_planes(self, name: str, shape_kji: Sequence[int], dtype: Any, planes: Iterable[np.ndarray]) -> Path:
        """An array that is made plane by plane, (J, I) each, so that it need not fit into memory."""
        return self._save_parts(name, shape_kji, dtype, planes)

    def _save_parts(
        self, name: str, shape: Sequence[int], dtype: Any, parts: Iterable[np.ndarray], lasting: bool = True, first: Callable[[], Any] = lambda: None
    ) -> Path:
        def write(file: IO[bytes]) -> None:
            write_header(file, shape, dtype)
            sparsely, waiting = Sparsely(file), 0
            for part in parts:
                self.tick()
                sparsely.write(np.ascontiguousarray(part, dtype).reshape(-1).view(np.uint8).data)
                waiting += part.size
                if lasting and waiting >= SLAB_VOXELS:  # the disk is waited for by and by, not long at the end
                    file.flush()
                    os.fsync(file.fileno())
                    waiting = 0
            sparsely.end()
            first()

        return self._save(name, write, lasting)

    def save_bytes(self, name: str, write: Callable[[IO[bytes]], Any]) -> Path:
        """`write` receives an open binary file; the file gets its name only once it is whole."""
        return self._save(name, write)

    def _save(self, name: str, write: Callable[[IO[bytes]], Any], lasting: bool = True, named: Callable[[], Any] = lambda: None) -> Path:
        with writing(self.folder):
            write_whole(self.path(name), write, lasting, named)
        return self.path(name)

    def _load(self, name: str, types: Sequence[str], shape: Sequence[int] | None = None) -> np.ndarray:
        array = self._mapped(name)
        _check(array, name, types, self.record.geometry.shape_kji if shape is None else tuple(shape))
        return array

    def _mapped(self, name: str, mode: Literal["r", "c"] = "r") -> np.ndarray:
        try:
            if _is_plain(self.path(name)):  # opening a pipe would wait for who writes to it
                return np.lib.format.open_memmap(self.path(name), mode=mode)
            error: BaseException | None = None
        except _UNREADABLE_ARRAY as unreadable:
            error = unreadable
        raise JobError(f"{name} in the job folder is missing, truncated or foreign.", _EXPORT_AGAIN) from error


def _check(array: np.ndarray, name: str, types: Sequence[str], shape: Sequence[int]) -> None:
    if array.shape != tuple(shape) or array.dtype.name not in types:
        raise JobError(f"{name} is {array.shape} {array.dtype}, the job expects {tuple(shape)} {' or '.join(types)}.", _EXPORT_AGAIN)


def checksum(array: np.ndarray, tick: Callable[[], None] = lambda: None, crc: int = 0) -> int:
    """CRC-32 of the values in C order, whatever order the array has; a slice at a time, since it may be larger than memory."""
    if array.ndim > 2:
        for part in array:
            crc = checksum(part, tick, crc)
        return crc
    tick()
    return zlib.crc32(np.ascontiguousarray(array).data, crc)


def check_place(folder: Path) -> None:
    """Raises JobError where a job can be neither made nor opened: in a file's place, and among files of other programs."""
    if "\0" in str(folder):
        raise JobError(f"{str(folder)!r} is no name of a folder.", "Choose an empty or a new folder.")
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise JobError(f"{folder} is a file, not a folder.", "Choose an empty or a new folder.")
        if folder.exists() and any(folder.iterdir()) and not _holds_ours(folder):
            raise JobError(f"{folder} is not empty and holds no job.", "Choose an empty or a new folder.")


def remove_job(folder: Path) -> None:
    """Delete a job folder, be the job damaged or of another version, and all in it that is ours. Other files stay, and then the folder.

    Raises JobError where it is in use or holds no job, OutputError where it cannot be deleted.
    """
    if not folder.is_dir() or not _holds_ours(folder):
        raise JobError(f"{folder} holds no job.", _WHERE_IS_THE_JOB)
    check_owner(folder)
    lock = Lock(folder)
    try:
        _remove_contents(folder)
        (folder / HOST_LOCK).unlink(missing_ok=True)  # of a dead owner
        lock.remove()
    finally:
        lock.release()
    with contextlib.suppress(OSError):
        folder.rmdir()  # stays where the user keeps files of their own in it


def _remove_contents(folder: Path, spare_own: bool = False) -> None:
    """All that is ours but the locks; job.json first, since a folder with job.json is complete. spare_own: not what this process keeps there."""
    with writing(folder):
        (folder / RECORD).unlink(missing_ok=True)
        for path in folder.iterdir():
            if path.name not in (LOCK, HOST_LOCK) and _is_our_name(path.name) and not (spare_own and _is_own(path.name)):
                patiently(path.unlink)


def _is_our_name(name: str) -> bool:
    part = _PART.fullmatch(name)
    whole_name = part[1] if part else name
    return whole_name in _OURS or any(pattern.fullmatch(whole_name) for pattern in (_HANDED_OVER, _TAKEN_OVER, _PREVIEW, _SCRATCH, _MAPPED))


def _is_own(name: str) -> bool:
    """Whether this process keeps an array in the file."""
    part = _PART.fullmatch(name)
    return part is not None and bool(_SCRATCH.fullmatch(part[1])) and int(part[2]) == os.getpid()


def _holds_ours(folder: Path) -> bool:
    """Whether a folder holds a job of any schema version, damaged or not; or nothing but what an interrupted `create` or `remove_job` left."""
    if (folder / RECORD).exists():
        with contextlib.suppress(JobError, ValueError):
            return _is_our_record(_read_text(folder / RECORD))
    names = {path.name for path in folder.iterdir()}
    if names and names <= {LOCK, HOST_LOCK}:  # empty: ended before it named its process
        return all(holder(folder / name) is not None or (folder / name).stat().st_size == 0 for name in names)
    return all(map(_is_our_name, names)) and any(holder(folder / name) is not None for name in (LOCK, HOST_LOCK))


def _is_our_record(text: str) -> bool:
    if _RECORD_BEGINS.match(text):
        return True
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"schema_version", "engine_version"} <= set(data)


def _without_nan(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_without_nan(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _is_plain(path: Path) -> bool:
    """Whether there is a file of this name, and it is no link, pipe, device or folder. Raises JobError for a path that no system knows."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise JobError(f"{path.parent} cannot be read: {reason}.", _WHERE_IS_THE_JOB) from error


def _read_text(path: Path) -> str:
    """Raises JobError."""
    try:
        if path.lstat().st_size <= _MOST_RECORD and _is_plain(path):
            return path.read_text(encoding="ascii")
        error: BaseException | None = None
    except (OSError, ValueError) as unreadable:
        error = unreadable
    raise JobError(f"{path.name} is damaged.", "Start a new job.") from error


def _read_json(path: Path) -> Any:
    """Raises JobError."""
    text = _read_text(path)
    try:
        return json.loads(text, parse_constant=_refuse_number)
    except (ValueError, RecursionError) as error:
        raise JobError(f"{path.name} is damaged ({error}).", "Start a new job.") from error


def _refuse_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
