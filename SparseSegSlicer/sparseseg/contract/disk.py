"""What is free on a disk, asked before it is written to. As with `memory`, what is allowed may be gone a moment later; this is no reservation.

Standard library only.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .errors import OutputError
from .memory import amount, volume_bytes

JOB_BYTES_PER_VOXEL = 12  # of a job that is done, but its image: annotation, weights (4), voices (3), result, uncertainty, previews (2)


def check(folder: Path, needed: float, what: str) -> None:
    """Raises OutputError where `what`, the sentence's subject, needs more bytes than are free where `folder` lies or will lie; not where nobody knows
    how many are."""
    free = free_bytes(folder)
    if free is not None and needed > free:
        sentence = f"{what} needs {amount(needed)} of disk in {folder}, and {amount(free)} are free."
        raise OutputError(sentence, f"Free {amount(needed - free)} there, or choose another folder.")


def job_bytes(shape: Sequence[int], itemsize: int, channels: int, folder: Path) -> int:
    """What a job of an image of this shape, (K, J, I), takes in its folder beyond what an earlier one holds there; an element has `itemsize` bytes.
    Several volumes are also kept one by one, before they are one image. What is read, image and annotation, is always kept beside what is there."""
    read = itemsize * channels * (1 if channels == 1 else 2)
    held = sum(path.lstat().st_size for path in folder.iterdir() if path.is_file())
    return max(volume_bytes(shape, read, JOB_BYTES_PER_VOXEL) - held, volume_bytes(shape, read, 1))


def free_bytes(folder: Path) -> int | None:
    """Bytes that this user can still write where a folder lies, or will lie. None: not known."""
    for place in (folder.absolute(), *folder.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return None
