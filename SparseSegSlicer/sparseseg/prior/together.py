"""Work in a few threads while the caller looks up: compiled kernels and numpy release the interpreter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Tick = Callable[[], None]
Result = TypeVar("Result")

THREADS = 2  # the growings are bound by memory: more gain little, and torch wants the rest
_LOOK_UP_S = 0.1


class _Stopped(Exception):
    """Raised in the threads once the caller's tick has raised."""


def together(tasks: Iterable[Callable[[Tick], Result]], tick: Tick, threads: int = THREADS) -> list[Result]:
    """What the tasks return, in their order. Each is given a tick of its own to call now and then; the caller's tick is called from this thread
    all the while, and what it raises is raised here once the tasks have ended."""
    stop = threading.Event()

    def look_up() -> None:
        if stop.is_set():
            raise _Stopped

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(task, look_up) for task in tasks]
        try:
            pending = set(futures)
            while pending:
                tick()
                _, pending = wait(pending, timeout=_LOOK_UP_S)
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise
