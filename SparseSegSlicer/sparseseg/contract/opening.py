"""Files that users name, opened only where they are files: a pipe, a device or a socket would be waited for without end, a link may lead anywhere.

Whoever opens a path that was given from outside opens it here. Between the look and the opening a name may change hands; who can do that to
a user's files needs no such tricks.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import IO, Any

from .errors import InputError

_SHOWN, _LONGEST = 60, 255  # characters of a name in a sentence; bytes of one on every system
_KINDS = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))
_OF_WINDOWS = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
_NO_FILE = "Give a file that lies on a disk."


def check_file(path: Path) -> os.stat_result:
    """What the system knows of a file. Raises InputError for what is missing, a folder, no file at all, or may not be looked at."""
    found = _status(path)
    if stat.S_ISDIR(found.st_mode):
        raise InputError(f"{shown(path)} is a folder, not a file.", "Give a file.")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{shown(path)} is {_kind_of(found.st_mode)}, not a file.", _NO_FILE)
    return found


def is_folder(path: Path) -> bool:
    """Raises InputError for a path that cannot be looked up; what is not there is no folder."""
    try:
        return stat.S_ISDIR(_status(path).st_mode)
    except MissingError:
        return False


def open_file(path: Path) -> IO[bytes]:
    """To read. Raises InputError as `check_file`, OSError where it may not be read."""
    check_file(path)
    return path.open("rb")


def read_text(path: Path, most: int, encoding: str = "utf-8") -> str:
    """All of a text file. Raises InputError as `check_file` and for more than `most` bytes, OSError, UnicodeDecodeError."""
    if not check_file(path).st_size:
        return ""  # as the system's own files (/proc) say of themselves, and reading them may wait for ever
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(
            f"{shown(path)} has more than {most // 1_000_000} MB, too many for such a file.", "Check that it is the file that was meant."
        )
    return content.decode(encoding)


class MissingError(InputError):
    """There is no such file."""


def shown(path: Path) -> str:
    """A name as a sentence can hold it."""
    return path.name if len(path.name) <= _SHOWN else f"{path.name[:_SHOWN]}..."


def _kind_of(mode: int) -> str:
    """What an entry that is neither file, folder nor link is; empty for those."""
    return next((name for test, name in _KINDS if test(mode)), "")


def _status(path: Path) -> os.stat_result:
    _check_name(path)
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise MissingError(f"{shown(path)} is a link to a file that is not there.", "Fetch the file, or give another.") from error
        where = str(path) if len(str(path)) < 4 * _SHOWN else shown(path)
        raise MissingError(f"There is no file {where}.", "Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero in it
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Any) -> InputError:
    code = getattr(error, "errno", None)
    if code == errno.ELOOP:
        return InputError(f"{shown(path)} is a link that leads to itself.", "Give the file itself.")
    if code == errno.ENAMETOOLONG:
        return _too_long(path)
    if isinstance(error, PermissionError):
        return InputError(f"{shown(path)} may not be read ({error.strerror}).", "Ask for access to the file, or copy it to your own folder.")
    return InputError(f"{shown(path)!r} cannot be the name of a file ({getattr(error, 'strerror', None) or error}).", "Check the path.")


def _too_long(path: Path) -> InputError:
    return InputError(f"The name {shown(path)} is too long ({len(path.name)} characters).", "Give the file a shorter name.")


def _check_name(path: Path) -> None:
    if len(path.name.encode("utf-8", "replace")) > _LONGEST:
        raise _too_long(path)
    if sys.platform == "win32":  # pragma: no cover
        name = path.name
        if name.split(".")[0].rstrip().upper() in _OF_WINDOWS or name.endswith((".", " ")) or ":" in name:
            raise InputError(f"{name!r} cannot be the name of a file on Windows.", "Give the file another name.")
