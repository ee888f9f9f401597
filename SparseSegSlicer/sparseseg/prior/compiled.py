"""The one door to numba: compiled kernels where it is installed and warm, None where not, and then numpy does the same work.

Compiling takes several seconds at the first use on a machine and 0.3 s from the cache afterwards, so it is done once, in a background thread
(`warm_up`), while numpy answers; `kernels` returns the module from the moment it is usable.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

_lock = threading.Lock()
_kernels: ModuleType | None = None


def kernels() -> ModuleType | None:
    """The compiled kernels, or None where numba is missing or not yet warm."""
    return _kernels


def loops() -> ModuleType | None:
    """The refiner's compiled loops, as kernels()."""
    if _kernels is None:
        return None
    from . import refiner_loops

    return refiner_loops


def ready() -> bool:
    return _kernels is not None


@cache
def available() -> bool:
    return find_spec("numba") is not None


def warm_up() -> bool:
    """Compile (or load from the cache) everything; may run in a background thread. Whether kernels are ready: not where numba is missing or
    cannot load, which is no error, as numpy does the same, slower."""
    global _kernels
    with _lock:
        if _kernels is None and available():
            _choose_cache()
            try:
                from . import kernels as module

                module.compile_all()
            except (ImportError, OSError, RuntimeError):  # a numba that does not fit this numpy or processor
                return False
            _kernels = module
    return ready()


def wait(seconds: float, tick: Callable[[], None]) -> bool:
    """Until `warm_up`, which another thread has begun, is done, so many seconds at most; whether the kernels are ready. Loading them from the cache
    is quicker than growing a large volume without; compiling them is not."""
    end = time.monotonic() + seconds
    while _lock.locked() and time.monotonic() < end:
        tick()
        time.sleep(0.02)
    return ready()


def _choose_cache() -> None:
    """numba keeps what it compiled beside the source, where an extension's folder may be read-only or shared between users of different
    processors; without a cache every start would compile anew. So: a folder of the user's own, unless somebody chose one. numba reads the
    variable once, when it is imported."""
    if "NUMBA_CACHE_DIR" in os.environ or "numba" in sys.modules:
        return
    home = {"win32": os.environ.get("LOCALAPPDATA"), "darwin": str(Path("~/Library/Caches").expanduser())}.get(
        sys.platform, os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    )
    for parent in (home, tempfile.gettempdir()):
        folder = Path(parent or tempfile.gettempdir()) / f"sparseseg-numba-{_user()}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK) or not _is_ours(folder):
                continue
        except OSError:
            continue
        os.environ["NUMBA_CACHE_DIR"] = str(folder)
        return


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")


def _is_ours(folder: Path) -> bool:
    """Cached code is run: a folder that another user made in a shared place is not trusted."""
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
