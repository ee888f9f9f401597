"""Work in a few threads while the caller looks up: compiled kernels and numpy release the interpreter."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Tick = Callable[[], None]
Item = TypeVar("Item")
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


def ahead(work: Callable[[Item], Result], items: Iterable[Item], tick: Tick, threads: int = THREADS) -> Iterator[Result]:
    """work(item) of each item, in their order: of a few more than are taken the work goes on in the threads, and no more results than that wait. tick
    is called from this thread before each, and what it or the work raises is raised here."""
    rest, begun = iter(items), deque[Future[Result]]()
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                begun.extend(pool.submit(work, item) for item in islice(rest, 2 * threads - len(begun)))
                if not begun:
                    return
                tick()
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
