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
from sparseseg.contract.client import WorkerClient
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.protocol import Command, Error, Event, Open, Preview, Ready, Result, Train, Update
from sparseseg.contract.settings import Settings

PATIENCE_S = 600  # beyond the budget


class Refused(Exception):
    """The worker answered with an error."""


@dataclass(frozen=True)
class Shown:
    """One preview. seconds: since the command that asked for it (train or update); dense: (K, J, I) uint8."""

    seconds: float
    source: str
    step: int
    revision: int
    dense: np.ndarray = field(repr=False)


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


class Product:
    """One worker with one job open. Use as a context; the worker ends with it."""

    def __init__(
        self, folder: Path, case: Case, annotation: np.ndarray, settings: Settings, on: str = "auto", watch: Callable[[], None] | None = None
    ):
        """watch: called several times a second while waiting. Raises Refused where the worker does not take the job."""
        self.folder, self.revision, self.watch = folder, 1, watch or (lambda: None)
        Job.create(folder, case.image, annotation, JobRecord(case.geometry, case.classes, settings)).close()
        self._budget, start = settings.time_budget_s, time.perf_counter()
        self.client = WorkerClient()
        try:
            self.ready = self._until(Open("open", str(folder), on), Ready)
        except BaseException:
            self.client.close().join()
            raise
        self.opened_s = time.perf_counter() - start  # starting Python and torch, choosing the device, opening the job

    def __enter__(self) -> Product:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close().join()

    @property
    def peak_gb(self) -> float | None:
        return peak_bytes(self.client.pid) / 1e9 or None

    def train(self, start_from: str = "", **settings: Any) -> Trained:
        self._budget = settings.get("time_budget_s", self._budget)
        start, shown = time.perf_counter(), []
        result = self._until(Train("train", settings, start_from), Result, self._keep(shown, start))
        return Trained(time.perf_counter() - start, result, shown, np.load(result.file))

    def update(self, annotation: np.ndarray) -> Shown:
        """Give the idle worker a new annotation; the preview that answers it."""
        self.revision += 1
        name = f"annotation-{self.revision:04d}.npy"
        np.save(self.folder / name, annotation)
        start, shown = time.perf_counter(), []
        self._until(Update("update", name, self.revision), Preview, self._keep(shown, start))
        return shown[-1]

    def _keep(self, shown: list[Shown], start: float) -> Callable[[Event], None]:
        def keep(event: Event) -> None:
            if isinstance(event, Preview):
                shown.append(Shown(time.perf_counter() - start, event.source, event.step, event.revision, np.load(event.file)))

        return keep

    def _until(self, command: Command, kind: type, look: Callable[[Event], None] = lambda _: None) -> Any:
        self.client.send(command)
        end = time.monotonic() + self._budget + PATIENCE_S
        while time.monotonic() < end:
            event = self.client.wait(0.2)
            self.watch()
            if event is None:
                continue
            look(event)
            if isinstance(event, Error):
                raise Refused(f"{event.sentence} {event.advice}".strip())
            if isinstance(event, kind) and event.id == command.id:
                return event
        raise Refused(f"no answer to {command.kind} in time; the worker's log:\n{self.client.log}")


def default_budget(on: str) -> float:
    """Seconds that a run may take: 60 with a GPU, 180 without."""
    import torch

    return 60.0 if on != "cpu" and torch.cuda.is_available() else 180.0


os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the worker has it
