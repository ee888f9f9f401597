"""What volumes cost in memory, asked before it is taken. The one place that knows the costs and how much is free; standard library only.

A header of a few hundred bytes may speak of any number of voxels: what it asks for is refused, with numbers, where less is free, so that nobody's
program is ended by the system for want of memory. What is allowed may still not be there a moment later; this is no reservation.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .errors import TooLargeError

ENGINE_BYTES = 400_000_000  # of a run, whatever the volume: packages, a network and its activations
# labels, growings, beliefs, previews; of volumes whose arrays are mapped (scratch.LEAST_BYTES) no more than of the largest that are not: what is left
# is working grids, 0.99 GB at 79 million voxels with the packages
ENGINE_BYTES_PER_VOXEL, MOST_VOXELS = 20, 67_000_000
_ADVICE = "Close other programs, crop or resample the volume, or use a machine with more memory."
_MEGA, _GIGA = 1e6, 1e9
_UNLIMITED = 1 << 60  # what a control group without a limit says is about 2**63


def check(what: str, needed: float, purpose: str = "be read") -> None:
    """Raises TooLargeError where `needed` bytes are more than are free; not where nobody knows how much is."""
    free = free_bytes()
    if free is not None and needed > free:
        raise TooLargeError(f"{what} needs {amount(needed)} of memory to {purpose}, and {amount(free)} are free.", _ADVICE)


def volume_bytes(shape: Sequence[int], *sizes: int) -> int:
    """Bytes of arrays of this shape, whose elements have `sizes` bytes each: what is held of a volume at once."""
    return math.prod(int(n) for n in shape) * sum(sizes)


def resampling_bytes(shape: Sequence[int], onto: Sequence[int], size: int) -> int:
    """What resampling takes besides the volume: its copy in ITK's memory, and the result in ITK's and in ours; elements of `size` bytes."""
    return volume_bytes(shape, size) + volume_bytes(onto, size, size)


def engine_bytes(shape: Sequence[int]) -> int:
    """What a run on a volume costs, roughly: growing, refining, training and predicting. The image itself is mapped, and not counted; nor are large
    arrays."""
    return ENGINE_BYTES + ENGINE_BYTES_PER_VOXEL * min(volume_bytes(shape, 1), MOST_VOXELS)


def amount(count: float) -> str:
    """Bytes, as a sentence has them."""
    if count < _GIGA:
        return f"{count / _MEGA:.0f} MB"
    return f"{count / _GIGA:.1f} GB" if count < _MEGA * _GIGA else "far too much"


# ---------------------------------------------------------------- how much is free


def free_bytes() -> int | None:
    """Bytes that this process can still have: of the machine, of its control group (a container's limit), of its own limit. None: not known."""
    known = [count for count in (_of_machine(), _of_control_group(), _of_own_limit()) if count is not None]
    return max(0, min(known)) if known else None


def _of_machine() -> int | None:
    with suppress(OSError, ValueError, AttributeError, LookupError):
        if sys.platform == "win32":
            return _of_windows()
        if sys.platform == "darwin":
            return _of_macos()
        found = _table(Path("/proc/meminfo").read_text(encoding="ascii"))
        return (found["MemAvailable:"] + found.get("SwapFree:", 0)) * 1024
    return None


def _table(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    return {parts[0]: int(parts[1]) for line in text.splitlines() if len(parts := line.split()) >= 2 and parts[1].isdigit()}


def _of_windows() -> int:  # pragma: no cover
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [(f"field{n}", ctypes.c_ulonglong) for n in range(7)]

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.field3)  # ullAvailPageFile: what can still be committed, memory and paging file together


def _of_macos() -> int:  # pragma: no cover
    """Half of all at least: macOS compresses and swaps what others leave idle, and calls little of it free."""
    import ctypes

    system = ctypes.CDLL(None)

    def said(name: str) -> int:
        value, size = ctypes.c_uint64(0), ctypes.c_size_t(8)
        if system.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0):
            raise OSError(name)
        return int(value.value)

    pages = sum(map(said, ("vm.page_free_count", "vm.page_purgeable_count", "vm.page_pageable_external_count")))
    return max(said("hw.memsize") // 2, pages * said("hw.pagesize"))


def _of_control_group() -> int | None:
    """The least that any of the groups that this process lies in still allows. Cached files, which the system takes back, do not count as used."""
    found = []
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                root, names = Path("/sys/fs/cgroup/memory"), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            group = root / path.lstrip("/")  # in a container the path may be the host's, and the group is the root
            found += [_left_of(place, *names) for place in (group, *group.parents) if place == root or root in place.parents]
    left = [count for count in found if count is not None]
    return min(left) if left else None


def _left_of(group: Path, limit: str, used: str, cached: str) -> int | None:
    with suppress(OSError, ValueError):  # "max" is no number
        most = int((group / limit).read_text(encoding="ascii"))
        if most < _UNLIMITED:
            files = _table((group / "memory.stat").read_text(encoding="ascii")).get(cached, 0)
            return most - int((group / used).read_text(encoding="ascii")) + files
    return None


def _of_own_limit() -> int | None:
    """What RLIMIT_AS leaves."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            return most - int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    return None
