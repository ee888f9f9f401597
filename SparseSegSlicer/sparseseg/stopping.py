"""Ctrl-C, and the signals that ask a program to end, at any moment.

They are only counted, and the work looks at the count where it can stop with nothing half done. While nothing but reading is at work, where there
is nothing to undo, the first one raises KeyboardInterrupt, once: it could land anywhere, also in the midst of removing what must not be left.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

if sys.platform == "win32":  # pragma: no cover
    _CTRL_C, _TO_END = [signal.SIGINT, signal.SIGBREAK], [signal.SIGTERM]  # SIGBREAK: Ctrl-Break, and how another process asks
else:
    _CTRL_C, _TO_END = [signal.SIGINT], [signal.SIGTERM, signal.SIGHUP]
_INTERRUPTED = 130


class Stop:
    """times: how often the user has asked to stop; is_final: whether the rest of the work is not wanted, not even the best result so far."""

    def __init__(self) -> None:
        self.times = 0
        self.is_final = False
        self.exit_code = _INTERRUPTED
        self._may_raise = self._may_leave = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Work that leaves nothing behind: it ends in KeyboardInterrupt where this was asked meanwhile or before."""
        self._may_raise = True
        try:
            self.check()
            yield
        except Exception:
            self.check()  # what was interrupted may say so in words of its own
            raise
        finally:
            self._may_raise = False
        self.check()

    @contextmanager
    def by_leaving(self) -> Iterator[None]:
        """Work that leaves nothing behind, and in which nothing may be raised: torch, raised in while it is loaded, aborts. It ends the process."""
        self.check()
        self._may_leave = True
        try:
            yield
        finally:
            self._may_leave = False

    def check(self) -> None:
        if self.times:
            raise KeyboardInterrupt

    def ask(self, number: int, _frame: FrameType | None = None) -> None:
        """A handler of signals."""
        self.times += 1
        if number not in _CTRL_C:
            self.exit_code = 128 + number
        self.is_final = self.times > 1 or number not in _CTRL_C
        if self._may_leave:
            os._exit(self.exit_code)
        if self._may_raise:
            self._may_raise = False
            raise KeyboardInterrupt


@contextmanager
def asked() -> Iterator[Stop]:
    """What the user asks for until the end. Signals that are ignored, or that another part of the process waits for, stay as they are."""
    stop = Stop()
    before = _taken(stop)
    hook = sys.unraisablehook

    def quiet(unraisable: Any) -> None:  # a raise that landed where nothing can be raised is counted all the same
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)

    sys.unraisablehook = quiet
    try:
        yield stop
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _taken(stop: Stop) -> dict[int, Any]:
    """The handlers before."""
    if threading.current_thread() is not threading.main_thread():
        return {}  # only the main one hears signals
    before: dict[int, Any] = {}
    for number in (*_CTRL_C, *_TO_END):
        handler = signal.getsignal(number)
        if handler == signal.SIG_DFL or (number in _CTRL_C and callable(handler)):
            before[number] = signal.signal(number, stop.ask)
    return before
