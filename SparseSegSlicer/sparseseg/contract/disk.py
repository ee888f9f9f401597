"""What is free on a disk, asked before it is written to. As with `memory`, what is allowed may be gone a moment later; this is no reservation.

Standard library only.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from .errors import OutputError
from .memory import amount


def check(folder: Path, needed: float, what: str) -> None:
    """Raises OutputError where `what`, the sentence's subject, needs more bytes than are free where `folder` lies or will lie; not where nobody knows
    how many are."""
    free = free_bytes(folder)
    if free is not None and needed > free:
        sentence = f"{what} needs {amount(needed)} of disk in {folder}, and {amount(free)} are free."
        raise OutputError(sentence, f"Free {amount(needed - free)} there, or choose another folder.")


def free_bytes(folder: Path) -> int | None:
    """Bytes that this user can still write where a folder lies, or will lie. None: not known."""
    for place in (folder.absolute(), *folder.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return None
