"""Many inputs, tried in a child process with a limit of memory and of time; what ends the child is counted, and the next child goes on.

Each input is made from the seed and its number alone. An attempt reads it: it may be read, or refused by a SparseSegError; nothing else.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO

from sparseseg.contract.errors import SparseSegError

from .engine import environment
from .trial import Trial

Attempt = Callable[[random.Random], None]
MOST_S = 60.0  # for one input on a busy machine; not a measure of speed
ROOM = 1536 * 2**20  # bytes of address space, above what is taken when all is imported
MOST_BYTES = 200_000_000  # of memory that the inputs of a second may take at their peak: honest ones have some thousand voxels
MOST_WORDS = 1000  # characters of a sentence
_MOST_FAILURES = 5  # of one trial; then it is given up


def fuzzed(trial: Trial, maker: str, count: int) -> None:
    """`count` inputs of a fuzzer, MODULE:NAME, which takes an empty folder and gives an Attempt."""
    first = trial.number * 10_000_000
    last = first + count
    while first < last and len(trial.failures) < _MOST_FAILURES:
        mark = trial.folder / "mark"
        mark.write_text(str(first))
        command = [sys.executable, "-m", "torture.fuzz", maker, str(trial.seed), str(first), str(last - first), str(trial.folder)]
        done = subprocess.run(command, env=environment(trial), cwd=trial.folder, capture_output=True, check=False)
        for line in done.stdout.decode(errors="replace").splitlines():
            if line.startswith('{"number"'):
                failure = json.loads(line)
                trial.broke(f"{maker}, input {failure['number']}: {failure['words']}")
        following = int(mark.read_text())
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip()
            trial.broke(f"{maker}, input {following}: the process ended with {done.returncode}: {words[:200]} ... {words[-200:]}")
            following += 1
        trial.tried += following - first
        first = following


def _attempts(maker: str, folder: Path) -> Attempt:
    module, name = maker.split(":")
    return getattr(importlib.import_module(module), name)(folder)


def _main(maker: str, seed: str, first: int, count: int, parent: Path) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    folder = parent / f"inputs-{first}"  # one that ended in the middle has left its own
    folder.mkdir()
    attempt = _attempts(maker, folder)
    for number in range(20):  # what is imported late is imported now
        with contextlib.suppress(Exception):
            attempt(random.Random(number))
    _limit_memory()
    failures, looked, taken = 0, 0.0, 0
    with open(parent / "mark", "r+b", buffering=0) as mark:
        for number in range(first, first + count):
            _note(mark, number)
            fault = _try(attempt, random.Random(f"{seed}/{maker}/{number}"))
            if time.monotonic() - looked > 1:
                faulthandler.dump_traceback_later(MOST_S, exit=True)
                grown, looked = _peak_bytes() - taken, time.monotonic()
                fault = fault or (f"{grown / 1e6:.0f} MB for it, or one of those just before" if taken and grown > MOST_BYTES else "")
                taken = _reset_peak()
            if fault:
                print(json.dumps({"number": number, "words": fault}), flush=True)
                failures += 1
            if failures >= _MOST_FAILURES:
                break
        _note(mark, number + 1)
    faulthandler.cancel_dump_traceback_later()


def _try(attempt: Attempt, rng: random.Random) -> str:
    """What was wrong with it; empty where it was read or refused."""
    try:
        attempt(rng)
    except SparseSegError as error:
        words = error.sentence
        return "" if len(words) < MOST_WORDS and "\n" not in words and words.endswith((".", "?")) else f"no sentence: {words!r:.300}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:400]
    return ""


def _peak_bytes() -> int:
    """Of this process's memory since the last reset; 0 where the system does not tell."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    return 0


def _reset_peak() -> int:
    """The memory taken now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _note(mark: IO[bytes], number: int) -> None:
    """The input at work, or after the last one the next; numbers never get shorter."""
    mark.seek(0)
    mark.write(str(number).encode())


def _limit_memory() -> None:
    """Where the system has such a limit (Linux)."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
