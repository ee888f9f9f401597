"""What goes wrong inside the process under attack, at the n-th call of one of the operating system's functions.

A file of orders says what: CALL NUMBER DEED, for example "fsync 3 die". Calls count from when the orders were written; without the file all is
as usual. So one process can be attacked again and again, and be left in peace in between.
"""

from __future__ import annotations

import builtins
import errno
import functools
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = {"fsync": ("fsync",), "rename": ("replace", "rename"), "unlink": ("unlink", "remove", "rmdir")}  # and `write`, see _Written
DEEDS = ("die", "fail", "full")  # at this call: end at once; fail with a full disk; fail at each call from this one on


class _Orders:
    def __init__(self, file: str) -> None:
        self._file, self._orders, self._count = file, "", 0

    def look(self, call: str) -> None:
        """Count the call, and do what is ordered."""
        try:
            fd = os.open(self._file, os.O_RDONLY)
        except OSError:
            return
        orders = os.read(fd, 100).decode()
        os.close(fd)
        if orders != self._orders:
            self._orders, self._count = orders, 0
        ordered, number, deed = orders.split()
        if call != ordered:
            return
        self._count += 1
        if deed == "die" and self._count == int(number):
            os.kill(os.getpid(), signal.SIGKILL) if hasattr(signal, "SIGKILL") else os._exit(137)
        if self._count == int(number) or (deed == "full" and self._count > int(number)):
            Path(self._file + ".done").touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _Written:
    """A file open for writing, whose writes are counted. numpy writes to it as to any other object, piece by piece."""

    def __init__(self, file: Any, orders: _Orders) -> None:
        self._file, self._look = file, orders.look

    def write(self, data: Any) -> Any:
        try:
            self._look("write")
        except OSError:
            self._file.write(data[: len(data) // 2])  # a disk is full in the middle
            raise
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)


def obey(file: str) -> None:
    """From here on each call in this process looks at the orders."""
    orders = _Orders(file)

    def counted(call: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            orders.look(call)
            return function(*arguments, **named)

        return wrapper

    for call, names in CALLS.items():
        for name in names:
            setattr(os, name, counted(call, getattr(os, name)))
    plain = builtins.open

    def opened(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        stream = plain(file, mode, *arguments, **named)
        return _Written(stream, orders) if set(mode) & set("wax+") and not isinstance(file, int) else stream

    builtins.open = io.open = opened  # type: ignore[assignment]
