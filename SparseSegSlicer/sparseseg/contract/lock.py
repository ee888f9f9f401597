"""Who works on a job folder: locks of the operating system, which end with the process that holds them, however that ends.

There are two, each a file that names its holder. `lock` is the one writer's: the engine's while it has the job open. `host.lock` is the owner's: a
host holds it from before it makes or checks the job until it has the result, so that nobody else comes in between, also while no engine runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from pathlib import Path
from typing import ClassVar

from .errors import JobError, OutputError
from .folders import lock_file, unlock_file, writing

LOCK, HOST_LOCK = "lock", "host.lock"
_ELSEWHERE = "Finish or close that one first, or choose another job folder."
_NAMED = re.compile(r'\{"pid": ?(\d{1,18})\}?\s*', re.ASCII)
_TRIES, _PAUSE_S = 3, 0.02  # who only looks whether a lock is held holds it for a moment


class Lock:
    """The lock on the file `name` in a folder, held until `release`."""

    _held_here: ClassVar[set[tuple[int, int]]] = set()  # the lock files (device, number) that this process holds

    def __init__(self, folder: Path, name: str = LOCK) -> None:
        """Raises JobError where a live process holds the lock, OutputError where it cannot be written, or nothing can be locked in this folder."""
        self._path = folder / name
        with writing(folder):
            self._take(folder)
        self._held_here.add(self._identity)
        try:
            with writing(folder):
                self._name_holder()
        except BaseException:
            self.release()
            raise

    def _take(self, folder: Path) -> None:
        for _ in range(_TRIES):
            self._open()
            try:
                lock_file(self._file)
                if self._is_there():
                    return
            except BlockingIOError:
                pass
            except OSError as error:
                self._file.close()
                sentence = f"Nothing can be locked in {folder} ({error.strerror or error})."
                raise OutputError(sentence, "Choose a folder on a disk of this machine.") from error
            self._file.close()
            if self._identity in self._held_here:
                break
            time.sleep(_PAUSE_S)
        raise _in_use(self._path, self._identity in self._held_here)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        self._file = open(os.open(self._path, flags, 0o600), "r+", encoding="ascii")  # noqa: SIM115 - held open as long as the lock
        status = os.fstat(self._file.fileno())
        self._identity = (status.st_dev, status.st_ino)
        if not stat.S_ISREG(status.st_mode):
            self._file.close()
            raise JobError(f"{self._path} is no plain file.", "Choose another job folder.")

    def _is_there(self) -> bool:
        """Whether the file is still the one of that name: who held it before may have removed it."""
        return _identity(self._path) == self._identity

    def _name_holder(self) -> None:
        """In one write of always the same length, so that a kill leaves the name of the holder before, or of this one; a new one on the disk before
        anything else is in the folder, which is known by it."""
        is_new = os.fstat(self._file.fileno()).st_size == 0
        self._file.seek(0)
        self._file.write(json.dumps({"pid": os.getpid()}).ljust(24))
        self._file.flush()
        self._file.truncate()
        if is_new and self._path.name == LOCK:
            os.fsync(self._file.fileno())

    def remove(self) -> None:
        """Release it, and delete the file."""
        with contextlib.suppress(OSError):
            self._path.unlink()  # while it is held; Windows deletes no open file
            self.release()
            return
        self.release()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def release(self) -> None:
        """May be called again."""
        if not self._file.closed:
            self._held_here.discard(self._identity)
            with contextlib.suppress(OSError):
                unlock_file(self._file)
            with contextlib.suppress(OSError):  # what could not be written when the lock was taken is tried again here
                self._file.close()


class Owner:
    """A host's hold on a job folder, which is made where it is not there, from before the job is made or checked until `release`."""

    def __init__(self, folder: Path) -> None:
        """Raises JobError where another process owns the folder, or has the job in it open; OutputError where it cannot be locked."""
        self._folder, self._made = folder, not folder.exists()
        with writing(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._lock = Lock(folder, HOST_LOCK)
        except BaseException:
            self._leave()
            raise
        try:
            if _is_held(folder / LOCK):
                raise _in_use(folder / LOCK, _identity(folder / LOCK) in Lock._held_here)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """A folder that was made here, and in which nothing was made, goes. May be called again."""
        self._lock.remove()
        self._leave()

    def _leave(self) -> None:
        if self._made:
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def check_owner(folder: Path, owner: int = 0) -> None:
    """Raises JobError where another process than this one and `owner` (a process number; 0: none) owns the job folder."""
    path = folder / HOST_LOCK
    if _is_held(path) and holder(path) not in (os.getpid(), owner):
        raise _in_use(path)


def holder(path: Path) -> int | None:
    """The process that a lock file names, also one of which half was written; None where it is no lock file of ours."""
    try:
        with open(path, encoding="ascii") as file:
            content = _NAMED.fullmatch(file.read(1000))
    except (OSError, ValueError):
        return None
    return int(content[1]) if content else None


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock on a file, which is not made; False where that cannot be told."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with open(path, "r+", encoding="ascii") as file:
            lock_file(file)
            unlock_file(file)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _in_use(path: Path, here: bool = False) -> JobError:
    if here:
        return JobError("The job folder is already open in this process.", _ELSEWHERE)
    pid = holder(path)
    return JobError(f"The job folder is in use by another process{f' (process {pid})' if pid else ''}.", _ELSEWHERE)
