"""What a worker writes into a job folder for people: events and log. A log that cannot be opened or written is worth a word, and no failure."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
from pathlib import Path

from .contract.job import EVENTS, LOG
from .contract.text import VisibleFormatter

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


class JobLog:
    """The two files of an open job; everything that the logger `sparseseg` says goes into one, every event into the other."""

    def __init__(self, folder: Path) -> None:
        self._complaints: list[str] = []
        self._events, self._log = (_Lines(folder / name, self._complaints) for name in (EVENTS, LOG))
        self._handler = _Handler(self._log)
        self._handler.setFormatter(VisibleFormatter())
        logging.getLogger("sparseseg").addHandler(self._handler)

    def event(self, line: str) -> None:
        """line: ASCII, with its end."""
        self._events.write(line)

    def complaint(self) -> str:
        """What could not be written and why, once for each file; empty where there is nothing new."""
        return self._complaints.pop() if self._complaints else ""

    def close(self) -> None:
        logging.getLogger("sparseseg").removeHandler(self._handler)
        self._handler.close()
        self._events.close()
        self._log.close()


class _Lines:
    """A plain file that lines are appended to as long as that works: no pipe, device or link, which a foreign folder may hold."""

    def __init__(self, path: Path, complaints: list[str]) -> None:
        self._path, self._complaints = path, complaints
        self._lock = threading.Lock()
        self._torn = self._told = False
        self._file: int | None = None
        try:
            self._file = os.open(path, _FLAGS, 0o600)
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                self.close()
                self._complain("it is no plain file")
        except OSError as error:
            self._complain(error.strerror or str(error))

    def write(self, text: str) -> None:
        data = text.encode("utf-8", errors="backslashreplace")
        with self._lock:
            if self._file is None:
                return
            try:
                done = os.write(self._file, b"\n" + data if self._torn else data)  # what follows half a line is a line of its own
                self._torn = done < len(data)
                if self._torn:
                    self._complain("the disk is full")
            except OSError as error:
                self._complain(error.strerror or str(error))

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            file, self._file = self._file, None
            if file is not None:
                os.close(file)

    def _complain(self, reason: str) -> None:
        if not self._told:
            self._told = True
            self._complaints.append(f"{self._path.name} in the job folder cannot be written: {reason}.")


class _Handler(logging.Handler):
    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.write(self.format(record) + "\n")
