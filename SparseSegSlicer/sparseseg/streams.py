"""The three streams of a worker: who may write where, and that nobody waits for a reader who has gone.

The real stdout belongs to the protocol alone: `sys.stdout` and file descriptor 1 point at stderr before torch is imported, so that nothing that a
library prints can reach the host. What Python writes to stderr is written by a thread, and dropped where nobody reads it.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import select
import sys
import threading
import time
from typing import IO

_WAITING_LINES = 1000  # for stderr; further ones are dropped
_LAST_LINES_S = 1.0  # that are waited for at the end
_PAUSE_S = 0.05


def claim() -> tuple[IO[bytes], IO[str], Stderr]:
    """stdin, a private stream on the real stdout, and stderr, which is everybody else's stdout from here on, also for C code. Raises OSError where
    there is no stdout."""
    os.fstat(1)
    for number in (0, 2):
        _fill(number)  # or the next file that is opened gets this number, and what is meant for stderr
    private = os.dup(1)
    if hasattr(os, "set_blocking"):
        os.set_blocking(private, True)
    os.dup2(2, 1)
    stderr = Stderr(os.dup(2))
    sys.stdout = sys.stderr = stderr  # type: ignore[assignment]
    stdin = sys.stdin.buffer if sys.stdin is not None else open(0, "rb")  # noqa: SIM115
    return stdin, open(private, "w", encoding="ascii", newline="\n"), stderr


def _fill(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)


class Stderr(io.TextIOBase):
    """Text to a file descriptor, by a thread: closed, full or not read, it holds nobody up."""

    encoding = "utf-8"  # type: ignore[assignment]

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._texts: queue.Queue[str] = queue.Queue(_WAITING_LINES)
        threading.Thread(target=self._write_on, name="stderr", daemon=True).start()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        with contextlib.suppress(queue.Full):
            self._texts.put_nowait(text)
        return len(text)

    def _write_on(self) -> None:
        with contextlib.suppress(OSError), open(self._descriptor, "wb", buffering=0, closefd=False) as file:
            while True:
                data = memoryview(self._texts.get().encode("utf-8", errors="backslashreplace"))
                while data:
                    done = file.write(data)
                    if done is None:  # a pipe that was made non-blocking, and is full
                        time.sleep(_PAUSE_S)
                    data = data[done or 0 :]
                self._texts.task_done()

    def drain(self) -> None:
        """Let what was written out, as far as somebody reads it."""
        waiter = threading.Thread(target=self._texts.join, daemon=True)
        waiter.start()
        waiter.join(_LAST_LINES_S)


def nobody_reads(pipe: IO[str]) -> bool:
    """Whether the other end of a pipe is closed, as far as the system tells without writing to it."""
    if not hasattr(select, "poll"):
        return False
    with contextlib.suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(pipe.fileno(), 0)
        return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))
    return False
