"""Files that a user asked for: written whole or not at all."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ..contract.errors import InputError, OutputError
from ..contract.folders import patiently

COPY_AGAIN = "Copy or export the file again."
WRITE_SUFFIXES = (".seg.nrrd", ".nrrd", ".nii.gz", ".nii", ".mha", ".dcm")


def suffix(path: Path, suffixes: tuple[str, ...] = WRITE_SUFFIXES) -> str:
    """The first of `suffixes` that the file's name ends in, or nothing."""
    return next((known for known in suffixes if path.name.lower().endswith(known)), "")


def unreadable(path: Path, error: Exception) -> InputError:
    """What is said of an input that cannot be read, where the format's own reader knows no better cause."""
    if "orthonormal" in str(error):
        return InputError(f"The axes of {path.name} are not at right angles.", "Resample the image to a grid with right angles.")
    if isinstance(error, PermissionError):
        return InputError(f"{path.name} may not be read ({error.strerror}).", "Ask for access to the file, or copy it to your own folder.")
    return damaged(path)


def damaged(path: Path) -> InputError:
    """What is said where nothing better is known."""
    return InputError(f"{path.name} cannot be read: it is damaged, cut short, or not an image.", COPY_AGAIN)


def check_output(path: Path) -> None:
    """Whether a result could be written to `path`, asked before long work. Nothing is left behind.

    Raises InputError for a suffix that cannot be written, OutputError for a folder or a place that cannot be written to.
    """
    path = Path(path)
    if not suffix(path):
        raise InputError(f"Cannot write {path.name}: its format is not known.", f"Use one of {', '.join(WRITE_SUFFIXES)}.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder.", "Give a file name.")
    if not path.parent.is_dir():
        raise OutputError(f"There is no folder {path.parent}.", "Make the folder first, or choose another.")
    trial = _temporary(path)
    try:
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise OutputError(f"The folder {path.parent} cannot be written to ({error.strerror}).", "Choose another folder.") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new name beside `path` to write to; it takes the place of `path` when all went well, and is removed when not.

    Raises OutputError where writing fails; an existing file is then untouched.
    """
    check_output(path)
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        patiently(lambda: temporary.replace(path))
    except (OSError, EOFError, RuntimeError, zlib.error, InputError) as error:
        reason = (getattr(error, "strerror", None) or (str(error).strip() or "no reason is known").splitlines()[-1]).replace(
            temporary.name, path.name
        )
        raise OutputError(
            f"{path.name} could not be written ({reason}).", "Free space or choose another place; an earlier file is unchanged."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{uuid4().hex}{suffix(path)}")
