"""Work in a thread of its own, while the caller looks up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

T = TypeVar("T")
_LOOK_S = 0.05


class Aside(Protocol):
    """How somebody else's long work is done: its result, or what it or the caller's looking up raises."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


def at_once(work: Callable[[], T]) -> T:
    """For who has nobody to look up at."""
    return work()


def aside(work: Callable[[], T], tick: Callable[[], None]) -> T:
    """What `work` returns or raises. It must only read, and leave nothing behind: where tick, called some times a second from this thread, raises, it
    is left alone and goes on to its end for nothing, so that a user who cancels does not wait for it."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="aside", daemon=True)
    thread.start()
    while thread.is_alive():
        tick()
        thread.join(_LOOK_S)
    if failure:
        raise failure[0]
    return result[0]
