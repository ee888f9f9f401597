"""This project as its hosts run it: a job folder, a worker process, commands and events; and what came when."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from machine import peak_bytes

from cases import Case
from sparseseg.contract.box import Box, box_from_json, box_to_json
from sparseseg.contract.client import WorkerClient
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.protocol import Command, Device, Error, Event, Open, Preview, Ready, Result, Train, Update
from sparseseg.contract.settings import Settings

PATIENCE_S = 600  # beyond the budget


class Refused(Exception):
    """The worker answered with an error."""


@dataclass(frozen=True)
class Shown:
    """One preview, read. seconds: since the command that asked for it (train or update); dense: (K, J, I) uint8, all that the user sees then; box:
    the part of it that this preview brought, None for all."""

    seconds: float
    source: str
    step: int
    revision: int
    dense: np.ndarray = field(repr=False)
    box: Box | None = None


@dataclass(frozen=True)
class Trained:
    """The end of one `train`; seconds since it was sent."""

    seconds: float
    result: Result
    shown: list[Shown]
    dense: np.ndarray = field(repr=False)

    @property
    def estimate(self) -> float | None:
        values = list(self.result.estimate.values())
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class Answer:
    """What came of one `update`: growing's answer (the same as the other where only one came), and the refined and fused one."""

    first: Shown
    refined: Shown


class Product:
    """One worker with one job open. Use as a context; the worker ends with it.

    dense: what the user sees, (K, J, I) uint8: all previews and results so far, boxes put in. It is changed in place; what is given out is a copy,
    but with copies=False, for large volumes, where it is `dense` itself.
    """

    def __init__(
        self,
        folder: Path,
        case: Case,
        annotation: np.ndarray,
        settings: Settings,
        on: str = "auto",
        watch: Callable[[], None] | None = None,
        copies: bool = True,
    ):
        """watch: called several times a second while waiting. Raises Refused where the worker does not take the job."""
        self.folder, self.revision, self.watch, self.on = folder, 1, watch or (lambda: None), on
        self.dense: np.ndarray | None = None
        self.training = False  # whether what `begin` began is at work
        self.device = ""  # its name, where it is chosen already
        self._copies = copies
        Job.create(folder, case.image, annotation, JobRecord(case.geometry, case.classes, settings)).close()
        self._budget, start = settings.time_budget_s, time.perf_counter()
        self.client = WorkerClient()
        try:
            self.until("", Ready)
            self.started_s = time.perf_counter() - start  # starting Python
            self.open_s = self.open()
        except BaseException:
            self.client.close().join()
            raise
        self.opened_s = time.perf_counter() - start  # both

    def __enter__(self) -> Product:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close().join()

    @property
    def peak_gb(self) -> float | None:
        return peak_bytes(self.client.pid) / 1e9 or None

    def open(self) -> float:
        """Open the job, or open it anew, with nothing left of what the session knew; seconds that it took."""
        start = time.perf_counter()
        self.ready: Ready = self.ask(Open("open", str(self.folder), self.on), Ready)
        self.device = self.ready.device or self.device
        return time.perf_counter() - start

    def train(self, start_from: str = "", **settings: Any) -> Trained:
        self._budget = settings.get("time_budget_s", self._budget)
        shown: list[Shown] = []
        start = time.perf_counter()
        result = self.ask(Train("train", settings, start_from), Result, self.keep(shown, start))
        seconds = time.perf_counter() - start
        self.dense = np.load(result.file)
        return Trained(seconds, result, shown, self._given())

    def begin(self) -> None:
        """Start training, from the start or on from its result, and do not wait: `pass_time` and `update` take in what comes."""
        self.training = True
        self.client.send(Train("train"))

    def first_answer(self) -> Answer:
        """`begin`, and what is shown before anything is learned: growing's answer and the refined one."""
        start = time.perf_counter()
        self.begin()
        return self._answers("train", start)

    def pass_time(self, until: float) -> None:
        """Take in what comes until then (time.perf_counter), and what has come in any case. Raises Refused for an error."""
        while True:
            event = self.client.wait(min(0.2, max(0.0, until - time.perf_counter())))
            self.watch()
            if event is not None:
                self._take(event, self._see)
            elif time.perf_counter() >= until:
                return

    def update(self, annotation: np.ndarray, box: Box | None = None, see: Callable[[], None] = lambda: None) -> Answer:
        """Give the worker a new annotation, (K, J, I) uint8, or only a box of it, the same as before elsewhere; both answers to it. Their seconds
        begin with writing the file. see: called after each answer."""
        self.revision += 1
        name, command = f"annotation-{self.revision:04d}.npy", f"update {self.revision}"
        start = time.perf_counter()
        np.save(self.folder / name, annotation if box is None else annotation[box])
        self.client.send(Update(command, name, self.revision, [], box_to_json(box)))
        return self._answers(command, start, see)

    def _answers(self, command: str, start: float, see: Callable[[], None] = lambda: None) -> Answer:
        shown: list[Shown] = []
        keep = self.keep(shown, start, command)
        while not shown or shown[-1].source == "growing":
            self.until(command, Preview, keep)
            see()
        return Answer(shown[0], shown[-1])

    def keep(self, shown: list[Shown], start: float, command: str = "") -> Callable[[Event], None]:
        """Takes in each preview; those that answer this command (all, where none is named) are appended to `shown`."""

        def look(event: Event) -> None:
            box = self._see(event)
            if isinstance(event, Preview) and command in ("", event.id):
                shown.append(Shown(time.perf_counter() - start, event.source, event.step, event.revision, self._given(), box))

        return look

    def _see(self, event: Event) -> Box | None:
        """Take in what is shown from now on: a preview, or the result of what `begin` began. The box that a preview changes, None for all."""
        if isinstance(event, Result) and self.training:
            self.dense, self.training = np.load(event.file), False
        if not isinstance(event, Preview):
            return None
        try:
            part = np.load(event.file)
        except FileNotFoundError:  # the engine keeps the last ones only: where events have waited, a newer one of everything follows
            return None
        if not event.box:
            self.dense = part
            return None
        assert self.dense is not None, "a box on top of nothing"
        box = box_from_json(event.box, self.dense.shape)
        self.dense[box] = part
        return box

    def _given(self) -> np.ndarray:
        assert self.dense is not None
        return self.dense.copy() if self._copies else self.dense

    def ask(self, command: Command, kind: type, look: Callable[[Event], None] = lambda _: None) -> Any:
        self.client.send(command)
        return self.until(command.id, kind, look)

    def until(self, command: str, kind: type, look: Callable[[Event], None] = lambda _: None, patience_s: float = PATIENCE_S) -> Any:
        """The next event of this kind that answers a command; `look` is given all on the way and this one. Raises Refused for an error."""
        end = time.monotonic() + self._budget + patience_s
        while time.monotonic() < end:
            event = self.client.wait(0.2)
            self.watch()
            if event is None:
                continue
            self._take(event, look)
            if isinstance(event, kind) and event.id == command:
                return event
        raise Refused(f"no {kind.__name__} for {command or 'the start'} in time; the worker's log:\n{self.client.log}")

    def _take(self, event: Event, look: Callable[[Event], Any]) -> None:
        if isinstance(event, Device):
            self.device = event.device
        look(event)
        if isinstance(event, Error):
            raise Refused(f"{event.sentence} {event.advice}".strip())


def default_budget(on: str) -> float:
    """Seconds that a run may take: 60 with a GPU, 180 without."""
    import torch

    return 60.0 if on != "cpu" and torch.cuda.is_available() else 180.0


os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the worker has it
