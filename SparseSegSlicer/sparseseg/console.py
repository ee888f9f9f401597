"""What the command line shows: progress and sentences on stderr, results on stdout. It never ends the work: what cannot be shown is not."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from .contract.classes import ClassTable
from .contract.errors import SparseSegError
from .contract.protocol import Device, Error, Event, Preview, Progress, Ready, Result, Warning, encode
from .contract.text import visible

_REWRITE = "\r\x1b[K"  # back to the line's start, and clear it
_VOICES = {"growing": "growing alone", "prior": "the prior", "network": "the network, step {step}"}  # by a preview's source


class Console:
    """In place of a standard stream, None where that is closed. Letters that it does not know are written as their numbers, and so is what a terminal
    would obey. is_lost: nobody reads it any more, or its disk is full; from then on it takes all and shows nothing."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.is_lost = False
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def write(self, text: str) -> int:
        self._send(visible(text, keep="\n"))
        return len(text)

    def rewrite(self, text: str) -> None:
        """In place of the line that a terminal shows last, which has not ended yet."""
        self._send(_REWRITE + visible(text, keep="\n"))

    def flush(self) -> None:
        self._send("", flush=True)

    def _send(self, text: str, flush: bool = False) -> None:
        if self._stream is None or self.is_lost:
            return
        try:
            self._stream.write(text)
            if flush:
                self._stream.flush()
        except (OSError, ValueError):  # ValueError: closed
            self.is_lost = True
            _discard(self._stream)


def _discard(stream: TextIO) -> None:
    """What is still in its buffer goes nowhere, or Python would try again at its end, and complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def consoles() -> Iterator[tuple[Console, Console]]:
    """stdout and stderr for everybody in this process."""
    before = sys.stdout, sys.stderr
    both = Console(sys.stdout), Console(sys.stderr)
    sys.stdout, sys.stderr = both  # type: ignore[assignment]
    try:
        yield both
    finally:
        for each in both:
            each.flush()
        sys.stdout, sys.stderr = before


def occupy_closed() -> None:
    """Where a standard stream is closed, the next file to be opened would take its number, and what libraries print would go there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def say_error(error: SparseSegError, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(encode(Error("", 0, error.code, error.sentence, error.advice, fatal=True)))
    else:
        sys.stderr.write(f"sparseseg: {visible(str(error))}\n")


class Screen:
    """What a person reads: a progress line on stderr, the result on stdout. With `as_json`, events on stdout instead."""

    def __init__(self, as_json: bool = False) -> None:
        self._out, self._err = _console(sys.stdout), _console(sys.stderr)
        self._json, self._terminal = as_json, self._err.isatty()
        self._last = -1e9
        self._open_line = False

    def stage(self, text: str) -> None:
        if not self._json:
            self._line(text)

    def event(self, event: Event) -> None:
        if self._json:
            self._out.write(encode(event))
            self._out.flush()
        elif isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Preview):
            self._line(f"preview after {event.seconds:.1f} s from {_VOICES.get(event.source, event.source).format(step=event.step)}")
        elif isinstance(event, Ready) and event.job:
            for text in filter(None, (event.why, *event.summary.split("\n"))):
                self._line(text)
        elif isinstance(event, Device):
            self._line(event.why)
        elif isinstance(event, Warning):
            self._line(f"warning: {event.sentence} {event.advice}".rstrip())

    def done(self, result: Result, classes: ClassTable, output: Path) -> None:
        """The end: the numbers, and on stdout the file."""
        if self._json:
            return
        mean = f", estimated Dice {np.mean(list(result.estimate.values())):.3f}" if result.estimate else ""
        self._line(f"{result.step} steps in {result.seconds:.0f} s, the network's share {result.share:.2f}{mean}")
        for segment in classes.segments:
            if segment.id in result.estimate:
                self._line(f"  {segment.name}: estimated Dice {result.estimate[segment.id]:.3f}")
        self.wrote(output)

    def wrote(self, output: Path) -> None:
        self._out.write(f"{visible(str(output))}\n")

    def _progress(self, event: Progress) -> None:
        """A line rewritten in place; where stderr is a file, a line every few seconds."""
        now = time.monotonic()
        if now - self._last < (0.2 if self._terminal else 5.0):
            return
        self._last = now
        parts = [f"{event.stage:<10}", f"{100 * event.fraction:3.0f} %"]
        if event.eta_seconds is not None:
            parts.append(f"{int(event.eta_seconds) // 60}:{int(event.eta_seconds) % 60:02d} left")
        if event.loss:
            parts.append(f"step {event.step}, loss {sum(event.loss.values()):.3f}")
        if event.estimate:
            parts.append(f"estimated Dice {np.mean(list(event.estimate.values())):.3f}")
        text = "  ".join(parts)
        if self._terminal:
            self._err.rewrite(text)
            self._err.flush()
            self._open_line = True
        else:
            self._line(text)

    def _line(self, text: str) -> None:
        """A whole line; what would begin another one in it does not."""
        show = self._err.rewrite if self._open_line else self._err.write
        show(f"{visible(text)}\n")
        self._err.flush()
        self._open_line = False


def _console(stream: TextIO | Console | None) -> Console:
    return stream if isinstance(stream, Console) else Console(stream)
