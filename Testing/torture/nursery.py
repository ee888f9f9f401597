"""Workers that begin with everything loaded: copies of one process that has imported the engine and had it train once.

A sweep starts some hundred workers, and loading PyTorch for each takes longer than what is attacked. From the first line on stdin a copy does what
`python -m sparseseg worker` does. Elsewhere than on Linux there are none.
"""

from __future__ import annotations

import faulthandler
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import sparseseg

PATHS = (Path(sparseseg.__file__).parents[1], Path(__file__).parents[1])  # of the engine, and of this package
CAN_COPY = sys.platform == "linux"
_turn = threading.Lock()  # multiprocessing looks at all its processes from any thread, and may learn of an end only once
_LOOK_S = 0.01


class Copy:
    """As subprocess.Popen: what a copy takes and says, whether it has ended, and its end. Its process group is its own."""

    def __init__(self, orders: Path | None, environment: dict[str, str], cwd: Path) -> None:
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = (os.pipe() for _ in range(3))
        streams = [Connection(theirs_in, writable=False), Connection(theirs_out, readable=False), Connection(theirs_err, readable=False)]
        with _turn:
            self._process = _nursery().Process(target=_work, args=(streams, str(orders or ""), environment, str(cwd)), daemon=True)
            self._process.start()
        for stream in streams:
            stream.close()
        self.stdin: IO[bytes] = os.fdopen(ours_in, "wb", buffering=0)
        self.stdout: IO[bytes] = os.fdopen(ours_out, "rb", buffering=0)
        self.stderr: IO[bytes] = os.fdopen(ours_err, "rb")

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def poll(self) -> int | None:
        with _turn:
            return self._process.exitcode

    def wait(self, timeout: float = float("inf")) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a copy of a worker", timeout)
            time.sleep(_LOOK_S)
        return code

    def kill(self) -> None:
        with _turn:
            self._process.kill()


def _nursery() -> Any:
    """Where it does not find the modules, as it says to nobody, copies load them themselves."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torture.warmed"])
    path = os.pathsep.join([*map(str, PATHS), os.environ.get("PYTHONPATH", "")])
    with patch.dict(os.environ, PYTHONPATH=path):
        forkserver.ensure_running()
    return context


def _work(streams: list[Connection], orders: str, environment: dict[str, str], cwd: str) -> None:
    """In the copy."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    tempfile.tempdir = None
    sys.stdin = io.TextIOWrapper(os.fdopen(0, "rb", closefd=False))
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", buffering=0, closefd=False), write_through=True)
    faulthandler.enable(sys.stderr)
    from sparseseg import worker

    from . import sabotage

    if orders:
        sabotage.obey(orders)
    worker.main()
