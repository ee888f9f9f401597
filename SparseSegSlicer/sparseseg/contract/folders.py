"""Private working folders, which a killed program leaves to the next one to remove, and files that are in use for a moment.

The owner of a folder holds an operating-system lock on the file `host.lock` in it. The lock ends with the process, however that ends; so whether
a folder is abandoned can be told without process numbers, which are given out anew.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TypeVar

PREFIX = "sparseseg-"
_LOCK = "host.lock"
_YOUNG_S = 60.0  # a folder that is just being made is not locked yet
_TRIES, _PAUSE_S = 6, 0.05
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


class PrivateFolder:
    """A new folder in `parent` (empty: the system's for temporary files) that only this user can read (0700), held until `remove`."""

    def __init__(self, parent: str | Path | None = None) -> None:
        """Raises OSError."""
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent or None))
        self._lock = open(self.path / _LOCK, "a+", encoding="ascii")  # noqa: SIM115 - held open as long as the folder
        lock_file(self._lock)

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
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # also of a lock that its owner holds
            if _is_mine(folder) and time.time() - (folder / _LOCK).stat().st_mtime > _YOUNG_S:
                with open(folder / _LOCK, "r+", encoding="ascii") as lock:
                    lock_file(lock)
                    emptied = _empty(folder)
                    unlock_file(lock)
                if emptied:
                    _remove(folder)


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
        """Raises OSError where it is locked already."""
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

    def unlock_file(file: IO[str]) -> None:
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock_file(file: IO[str]) -> None:
        """Raises OSError where it is locked already."""
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock_file(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
