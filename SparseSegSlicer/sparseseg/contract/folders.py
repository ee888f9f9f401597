"""Private working folders, which a killed program leaves to the next one to remove; files that are in use for a moment, written whole, and locked.

The owner of a folder holds an operating-system lock on the file `host.lock` in it. The lock ends with the process, however that ends; so whether
a folder is abandoned can be told without process numbers, which are given out anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from .errors import OutputError

PREFIX = "sparseseg-"
_MADE_HERE = re.compile(PREFIX + r"[a-z0-9_]{8}")  # as tempfile names a folder
_LOCK = "host.lock"
_YOUNG_S = 60.0  # a folder that is just being made has no lock yet, or one that says nothing because it is not held yet
_TRIES, _PAUSE_S = 6, 0.05
_ZEROS = memoryview(bytes(1 << 16))
T = TypeVar("T")


def patiently(action: Callable[[], T]) -> T:
    """What action() returns. Windows refuses to rename or remove a file that a virus scanner, an indexer or a process that is just ending holds
    open, so it is tried again a little later. Raises the last PermissionError. Not for a main thread."""
    for _ in range(_TRIES - 1):
        try:
            return action()
        except PermissionError:
            time.sleep(_PAUSE_S)
    return action()


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns an operating system's refusal into a sentence: OutputError."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        free = ""
        with contextlib.suppress(OSError):
            free = f" ({shutil.disk_usage(folder).free // 2**20} MiB free)"
        raise OutputError(f"Could not write in {folder}: {error.strerror or error}{free}.", "Free space or choose another folder.") from error


def write_whole(path: Path, write: Callable[[IO[bytes]], Any], lasting: bool = True, named: Callable[[], Any] = lambda: None) -> None:
    """Write a file so that `path` holds the old content or the whole new one; after a power cut too, if it is `lasting`. named: called the moment
    that the new one is there, before anything else can fail. Raises OSError; then nothing has changed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")

    def give_name() -> None:
        os.replace(temporary, path)
        named()

    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        patiently(give_name)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if lasting:
        _flush_names(path.parent)


def adopt_file(path: Path, name: Path) -> None:
    """Give a file that is whole another name in its folder, and lastingly so. Raises OSError; then nothing has changed."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    patiently(lambda: os.replace(path, name))
    _flush_names(name.parent)


def _flush_names(folder: Path) -> None:
    """Names last, too, and in the order in which they were given. Where a folder cannot be flushed, its file system sees to that."""
    if sys.platform != "win32":
        with contextlib.suppress(OSError, MemoryError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


class Sparsely:
    """Writes to an open, empty file, but for longer runs of zeros, which take no room where the file system knows such files."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), len(_ZEROS)):
            piece = view[start : start + len(_ZEROS)]
            if piece == _ZEROS[: len(piece)]:
                self._file.seek(len(piece), os.SEEK_CUR)
            else:
                self._file.write(piece)

    def end(self) -> None:
        """To be called at last: the file may end in zeros."""
        self._file.truncate()


class PrivateFolder:
    """A new folder in `parent` (empty: the system's for temporary files) that only this user can read (0700), held until `remove`."""

    def __init__(self, parent: str | Path | None = None) -> None:
        """Raises OSError; then none was made."""
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent or None))
        try:
            self._lock = open(self.path / _LOCK, "a+", encoding="ascii")  # noqa: SIM115 - held open as long as the folder
            try:
                lock_file(self._lock)
                self._lock.write(str(os.getpid()))  # a lock that says something has been held
                self._lock.flush()
            except BaseException:
                self._lock.close()
                raise
        except BaseException:
            _remove(self.path)
            raise

    def remove(self) -> None:
        """With all that is in it. What is in use for longer is left to `remove_abandoned`. May be called again."""
        if not self._lock.closed:
            emptied = _empty(self.path)
            unlock_file(self._lock)
            self._lock.close()
            if emptied:
                _remove(self.path)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()


def remove_abandoned(parent: str | Path | None = None) -> None:
    """Remove this user's private folders whose owners are gone; others, and what only looks like one, stay."""
    with contextlib.suppress(OSError):
        for folder in Path(parent or tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):  # also of a lock that its owner holds
                if _is_mine(folder):
                    _remove_if_abandoned(folder)


def own_folder(name: str) -> Path | None:
    """This user's private folder of that name among the system's temporary files; None where there is none."""
    folder = Path(tempfile.gettempdir(), name)
    return folder if _MADE_HERE.fullmatch(name) and _is_mine(folder) else None


def _remove_if_abandoned(folder: Path) -> None:
    lock = folder / _LOCK
    if not lock.exists():  # ended before it was made, and nothing else was; or after it was removed, and all else before
        if _MADE_HERE.fullmatch(folder.name) and _is_old(folder):
            folder.rmdir()
    elif lock.stat().st_size or _is_old(lock):
        with open(lock, "r+", encoding="ascii") as file:
            lock_file(file)
            emptied = _empty(folder)
            unlock_file(file)
        if emptied:
            _remove(folder)


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _YOUNG_S


def _is_mine(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def _empty(folder: Path) -> bool:
    """Remove all but the lock, by which a folder that must be left is known later; whether nothing had to be left."""
    return all([_remove(path) for path in folder.iterdir() if path.name != _LOCK])


def _remove(path: Path) -> bool:
    try:
        patiently(lambda: shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink())
    except OSError:
        return not path.exists()
    return True


if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    _BYTE = 1 << 30  # a byte far behind the content, so that others can still read who holds the lock

    def lock_file(file: IO[str]) -> None:
        """Raises BlockingIOError where it is locked already, another OSError where it cannot be locked."""
        file.seek(_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                raise BlockingIOError(error.errno, error.strerror) from error
            raise
        finally:
            file.seek(0)

    def unlock_file(file: IO[str]) -> None:
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock_file(file: IO[str]) -> None:
        """Raises BlockingIOError where it is locked already, another OSError where it cannot be locked."""
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock_file(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
