"""What the command line shows: progress and sentences on stderr, results on stdout."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from .contract.classes import ClassTable
from .contract.protocol import Device, Event, Preview, Progress, Ready, Result, Warning, encode

_REWRITE = "\r\x1b[K"  # back to the line's start, and clear it
_VOICES = {"growing": "growing alone", "prior": "the prior", "network": "the network, step {step}"}  # by a preview's source


class Screen:
    """What a person reads: a progress line on stderr, the result on stdout. With `as_json`, events on stdout instead."""

    def __init__(self, as_json: bool = False) -> None:
        self._json, self._terminal = as_json, sys.stderr.isatty()
        self._last = -1e9
        self._open_line = False

    def stage(self, text: str) -> None:
        if not self._json:
            self._line(text)

    def event(self, event: Event) -> None:
        if self._json:
            sys.stdout.write(encode(event))
            sys.stdout.flush()
        elif isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Preview):
            self._line(f"preview after {event.seconds:.1f} s from {_VOICES.get(event.source, event.source).format(step=event.step)}")
        elif isinstance(event, Ready) and event.job:
            self._line("\n".join(text for text in (event.why, event.summary) if text))
        elif isinstance(event, Device):
            self._line(event.why)
        elif isinstance(event, Warning):
            self._line(f"warning: {event.sentence} {event.advice}".rstrip())

    def done(self, result: Result, classes: ClassTable, output: Path) -> None:
        if self._json:
            return
        mean = f", estimated Dice {np.mean(list(result.estimate.values())):.3f}" if result.estimate else ""
        self._line(f"{result.step} steps in {result.seconds:.0f} s, the network's share {result.share:.2f}{mean}")
        for segment in classes.segments:
            if segment.id in result.estimate:
                self._line(f"  {segment.name}: estimated Dice {result.estimate[segment.id]:.3f}")
        sys.stdout.write(f"{output}\n")

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
            sys.stderr.write(f"{_REWRITE}{text}")
            sys.stderr.flush()
            self._open_line = True
        else:
            self._line(text)

    def _line(self, text: str) -> None:
        start = _REWRITE if self._open_line else ""
        sys.stderr.write(f"{start}{text}\n")
        sys.stderr.flush()
        self._open_line = False
