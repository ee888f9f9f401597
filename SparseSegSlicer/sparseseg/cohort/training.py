"""A run: trains on a cohort, validates on patients that it does not learn from, keeps the best and writes it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..console import Screen
from ..contract.errors import DeviceError, ModelError
from ..contract.folders import write_whole, writing
from ..contract.numbers import number
from ..contract.protocol import Progress
from ..network import device
from ..network.checkpoint import Checkpoint
from ..network.start import shipped
from ..session.host import Clock
from ..stopping import Stop
from .lessons import CohortLearner
from .processes import Processes

_BETWEEN = 50  # steps between two validations, at least
_VALIDATING = 0.1  # of the work, at most
_SAVE_S = 30.0  # between two savings
_LOOKS = 20  # at least, in a run of so many steps


def log_of(model: Path) -> Path:
    """Where the log of a model is written."""
    return model.with_name(f"{model.name}.json")


@dataclass
class _Best:
    weights: dict[str, torch.Tensor]
    dice: dict[str, float]  # by segment ID
    step: int = 0

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.dice.values()))) if self.dice else -1.0


class CohortRun:
    """Trains, validates, keeps the best and writes it."""

    def __init__(self, output: Path, learner: CohortLearner, held: Sequence[int], processes: Processes, show: Screen | None) -> None:
        self._output, self._learner, self._held, self._processes, self._show = output, learner, held, processes, show
        self._cohort, self._clock = learner.cohort, Clock(learner.settings)
        self._curve: list[dict[str, Any]] = []
        self._best = _Best(_copied(learner), {})
        self._saved = time.monotonic()
        slabs = sum(len(learner.slices_of(n)) for n in held)
        cost = slabs / (3 * learner.plan.batch * processes.count)  # in steps: a step goes forward and, twice as dear, back
        self._every = max(_BETWEEN, math.ceil(cost / _VALIDATING))
        if steps := learner.settings.steps:
            self._every = min(self._every, max(1, steps // _LOOKS, round(cost)))

    def describe(self, tell: Callable[[str], None]) -> None:
        """What there is to learn, in lines."""
        cohort, held = self._cohort, ", ".join(self._cohort.members[n].place for n in self._held)
        tell(f"{len(cohort.members)} patients, {len(self._held)} of them held out to validate on: {held}")
        for name, patients in zip(cohort.classes.names, cohort.patients, strict=True):
            tell(f"  {name}: annotated in {patients}")
        size = " x ".join(f"{mm:.3g}" for mm in cohort.spacing_kji_mm)
        each = f"{self._learner.plan.batch} slabs a step" + (f" in each of {self._processes.count} processes" if self._processes.count > 1 else "")
        tell(f"working voxels of {size} mm; {each}; {self._learner.compute.why}")

    def begin(self, start: Checkpoint | None, from_nothing: bool) -> None:
        """With a model's weights, with what comes with the engine, or with none."""
        learner, channels = self._learner, len(self._cohort.intensities)
        if start is not None:
            learner.start_from(start.weights)
        elif not from_nothing and (known := shipped()).fits(learner.plan.network):
            learner.begin_with(known if channels == 1 else known.for_channels([channels**-0.5] * channels))
        for network in (learner.network, learner.average):
            self._processes.mean([parameter.detach() for parameter in network.parameters()])  # of one mind, to the last bit

    def go_on(self, saved: Checkpoint) -> None:
        """From where a run of the same list ended. Raises ModelError."""
        try:
            state = json.loads(saved.training["run"])
            if state["list"] != self._fingerprint():
                raise ModelError(
                    f"{self._output.name} was trained on another list, or with other options.", "Give the same ones, or leave --resume out."
                )
            self._clock = Clock(self._learner.settings, spent_s=number(state["seconds"], 0, 1e9))
            self._curve, self._best = list(state["curve"]), _Best(saved.weights, saved.validation, int(state["best"]))
            self._learner.load_state(saved.training["trainer"], saved.training["average"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"The state in {self._output.name} is damaged ({error!s:.100}).", "Train a new model.") from error

    def train(self, stop: Stop) -> None:
        """To the end of the budget, or until it is asked to stop. Raises DeviceError, TrainingError, WorkerError, OutputError."""
        learner, looked = self._learner, -1
        while True:
            fraction, is_asked = self._processes.most(self._clock.fraction(learner.steps), float(stop.times > 0))
            if fraction >= 1 or is_asked:
                break
            self._step(fraction)
            if learner.steps % self._every == 0:
                looked = learner.steps
                self._look()
                if time.monotonic() - self._saved > _SAVE_S:
                    self._save(is_done=False)
            self._progress(fraction)
        if looked != learner.steps and learner.steps:
            self._look()
        self._save(is_done=not is_asked)

    def _step(self, fraction: float) -> None:
        try:
            self._learner.step(fraction)
        except (RuntimeError, MemoryError) as error:
            if not device.is_out_of_memory(error):
                raise
            batch = self._learner.plan.batch
            raise DeviceError(
                f"{self._learner.compute.name} ran out of memory with {batch} slabs a step.", f"Give --batch {max(1, batch // 2)}."
            ) from error

    def _progress(self, fraction: float) -> None:
        if self._show is not None:
            learner, clock = self._learner, self._clock
            self._show.event(
                Progress("", 0, "training", learner.steps, clock.seconds, clock.eta(learner.steps), fraction, learner.losses(), self._best.dice)
            )

    def _look(self) -> None:
        """Validate, and keep what is best."""
        dice = self._validate()
        best = _Best({}, dice, self._learner.steps)
        if best.mean > self._best.mean or not self._best.dice:
            self._best = replace(best, weights=_copied(self._learner))
        losses = {name: round(value, 6) for name, value in self._learner.losses().items()}
        rounded = {segment: round(value, 4) for segment, value in dice.items()}
        self._curve.append({"step": self._learner.steps, "seconds": round(self._clock.seconds, 1), "loss": losses, "dice": rounded})

    def _validate(self) -> dict[str, float]:
        """By segment ID, the mean over held-out patients of the Dice on the labelled voxels of each; none for what they do not show."""
        learner, classes = self._learner, len(self._cohort.classes)
        sums = torch.zeros(2, classes, dtype=torch.float64)
        for n in self._held[self._processes.rank :: self._processes.count]:
            said, true, both = torch.stack(list(learner.cores.map(learner.overlap, learner.slices_of(n)))).sum(0)[1:].double().unbind(1)
            shown = true > 0
            sums += torch.stack([torch.where(shown, 2 * both / (said + true).clamp_min(1), 0), shown.double()])
        dice, shown = self._processes.total(sums)
        return {segment: float(d / n) for segment, d, n in zip(self._cohort.classes.ids, dice, shown, strict=True) if n}

    def _fingerprint(self) -> str:
        """Of what must be the same for a run to go on."""
        cohort, settings = self._cohort, self._learner.settings
        same = [[(m.own_kji, m.voxels) for m in cohort.members], cohort.classes.ids, list(self._held), settings.seed]
        return hashlib.sha256(json.dumps(same).encode()).hexdigest()

    def _save(self, is_done: bool) -> None:
        """The best so far, and unless it is done what going on needs; the log beside it. Raises OutputError."""
        self._saved = time.monotonic()
        if not self._processes.is_first:
            return
        cohort, learner = self._cohort, self._learner
        state = {"list": self._fingerprint(), "seconds": self._clock.seconds, "curve": self._curve, "best": self._best.step}
        model = Checkpoint(
            learner.plan.network,
            self._best.weights,
            cohort.intensities,
            cohort.classes,
            cohort.spacing_kji_mm,
            cohort.orientations([cohort.members[n] for n in learner.learned]),
            learner.plan.slices,
            {} if is_done else {"trainer": learner.state(), "average": _copied(learner), "run": json.dumps(state)},
            self._best.dice,
            is_upright=True,
        )
        with writing(self._output.parent):
            write_whole(self._output, model.save)
            write_whole(log_of(self._output), lambda file: file.write(json.dumps(self._log(), indent=1).encode()))

    def _log(self) -> dict[str, Any]:
        """No names of patients: places in the list."""
        cohort = self._cohort
        segments = zip(cohort.classes.segments, cohort.patients, strict=True)
        return {
            "engine_version": __version__,
            "patients": len(cohort.members),
            "held_out": [cohort.members[n].place for n in self._held],
            "segments": {s.id: {"name": s.name, "patients": n, "dice": self._best.dice.get(s.id)} for s, n in segments},
            "spacing_kji_mm": list(cohort.spacing_kji_mm),
            "batch": self._learner.plan.batch * self._processes.count,
            "processes": self._processes.count,
            "device": self._learner.compute.name,
            "steps": self._learner.steps,
            "seconds": round(self._clock.seconds, 1),
            "best_step": self._best.step,
            "curve": self._curve,
        }

    def result(self) -> Iterator[str]:
        """In lines."""
        mean = f", Dice {self._best.mean:.3f} on held-out patients at step {self._best.step}" if self._best.dice else ""
        yield f"{self._learner.steps} steps in {self._clock.seconds:.0f} s{mean}"
        for segment in self._cohort.classes.segments:
            if segment.id in self._best.dice:
                yield f"  {segment.name}: Dice {self._best.dice[segment.id]:.3f} on held-out patients"


def _copied(learner: CohortLearner) -> dict[str, torch.Tensor]:
    """The averaged weights, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in learner.average.state_dict().items()}
