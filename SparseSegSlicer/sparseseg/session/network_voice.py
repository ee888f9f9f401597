"""The network as a voice: it learns this one volume step by step, and says what it believes when asked.

Its belief is kept (a byte for each class and working voxel) until it has learned on: a correction in between is answered without asking the
network again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from ..annotation.discriminant import Classes
from ..annotation.labels import Annotation
from ..contract.belief import Belief
from ..contract.box import Box
from ..contract.errors import DeviceError, ModelError
from ..contract.folders import writing
from ..contract.geometry import Geometry
from ..contract.job import MODEL, Job
from ..contract.scratch import Zeros
from ..contract.settings import Settings
from ..contract.turn import Turn
from ..network import checkpoint, device
from ..network.applied import Applied, Seen, Warn, check_memory, predict_within_memory, size
from ..network.augmentation import Augmenter, TrainingVolume
from ..network.device import RunPlan
from ..network.intensity import Intensity, apply_all
from ..network.predict import Input, Probabilities
from ..network.sampling import WorkingGrid, shape_at
from ..network.start import Start, shipped
from ..network.targets import Targets
from ..network.trainer import Trainer
from ..network.unet import Triple
from .devices import DeviceChoice

Tick = Callable[[str], None]


class NetworkVoice:
    """One trainer on one volume. `warn` takes code, sentence and advice; `tick` a stage, and may raise."""

    def __init__(self, job: Job, devices: DeviceChoice, warn: Warn, tick: Tick, zeros: Zeros = np.zeros) -> None:
        self._job, self._devices, self._warn, self._tick, self._zeros = job, devices, warn, tick, zeros
        self.compute = devices.compute(lambda: tick("starting"))
        self.spacing = job.record.geometry.spacing_kji_mm
        self.classes = len(job.record.classes) + 1
        self._channels = job.channels()
        self.trainer: Trainer | None = None
        self._input: Input | None = None
        self._intensities: tuple[Intensity, ...] = ()  # of each channel
        self._start: Start | None = None  # to begin with, until there are labels
        self._belief: Probabilities | None = None
        self._belief_steps = -1
        self._calibrated: Probabilities | None = None

    @property
    def steps(self) -> int:
        return self.trainer.steps if self.trainer else 0

    # -- beginning -----------------------------------------------------------------------------------------------------

    def begin(
        self, annotation: Annotation, region: Box, settings: Settings, start: checkpoint.Checkpoint | None, saved: checkpoint.Checkpoint | None
    ) -> None:
        """A new trainer on a region of the volume: with an earlier model's weights (start), going on from a checkpoint of this job (saved), or with
        what the engine's own start knows, once it has labels to learn from. Raises ModelError where the model is for another number of channels, or
        for a grid that there is no memory for, or where its training state is damaged."""
        model, self._start = start or saved, None
        if model is not None:
            model.check_channels(len(self._channels))
        own: Triple = tuple(s.stop - s.start for s in region)  # type: ignore[assignment]
        plan = device.plan_run(self.compute, self.spacing, own, self.classes, settings, len(self._channels))
        if model is not None:
            plan = _with_network(plan, model, self.classes, own, self._job.record.geometry)
            check_memory(plan.grid_kji, self.classes, len(self._channels))
        self._load_image(plan, annotation, region, model)
        self.trainer = self._new_trainer(plan, settings)
        self._belief = self._calibrated = None
        if start is not None:
            self.trainer.start_from(start.weights)
        elif saved is not None:
            self.trainer.load_state(saved.training.get("trainer", {}), saved.weights)
        else:
            self._start = self._known(plan, annotation)

    def _known(self, plan: RunPlan, annotation: Annotation) -> Start | None:
        """What the engine's networks begin with, where it fits; without it training begins from nothing. Of several channels it looks at their
        discriminant at first, and learns to look at each."""
        try:
            start = shipped()
        except ModelError as error:
            self._warn("model", f"The network begins from nothing: {error.sentence}", error.advice)
            return None
        if not start.fits(plan.network):
            return None
        return start if len(self._channels) == 1 else start.for_channels(self._shares(annotation))

    def _shares(self, annotation: Annotation) -> list[float]:
        """Of each channel, as the network sees it, in the gray value that tells the labels apart best; of length 1."""
        weights = Classes.of(self._channels, annotation.labels, annotation.labelled, lambda: self._tick("starting")).weights()
        seen = weights * [intensity.unit(channel) for intensity, channel in zip(self._intensities, self._channels, strict=True)]
        return [float(share) for share in seen / max(float(np.linalg.norm(seen)), 1e-6)]

    def saved(self) -> checkpoint.Checkpoint | None:
        """The job's own checkpoint, if it holds a training state of the same segments. One that cannot be read is told of, and replaced in time."""
        path = self._job.path(MODEL)
        if not os.path.lexists(path):
            return None
        try:
            saved = checkpoint.load(path)
            saved.check_channels(len(self._channels))
        except ModelError as error:
            self.begins_anew(error)
            if path.is_dir():
                with writing(self._job.folder):
                    path.rename(path.with_name(f"{MODEL}.{uuid4().hex}"))  # somebody's; a checkpoint could not take its place
            return None
        same = saved.training and saved.classes.ids == self._job.record.classes.ids
        return saved if same else None

    def begins_anew(self, error: ModelError) -> None:
        """Tell that a checkpoint costs itself, not the job."""
        self._warn("model", f"The network begins anew: {error.sentence}", "Nothing else of the session is lost.")

    def _new_trainer(self, plan: RunPlan, settings: Settings) -> Trainer:
        assert self._input is not None
        augmenter = Augmenter(self._input.grid, self.spacing, mirror=settings.mirror, channels=len(self._channels))
        volume = TrainingVolume(self._input.grid, self._input.image, None)  # type: ignore[arg-type]  # until `learn_from`
        return Trainer(self.compute, plan, volume, augmenter, settings)

    def _load_image(self, plan: RunPlan, annotation: Annotation, region: Box, model: checkpoint.Checkpoint | None) -> None:
        if model is not None:
            self._intensities = model.intensities
        elif not self._intensities or self.trainer is None:
            self._intensities = tuple(Intensity.fit(channel, _values_inside(channel, annotation)) for channel in self._channels)
        grid = WorkingGrid(self._job.record.geometry.shape_kji, region, plan.grid_kji)
        self._input = Input(self._seen(self._intensities, grid, "starting"), grid)

    def _seen(self, intensities: Sequence[Intensity], grid: WorkingGrid, stage: str) -> torch.Tensor:
        return apply_all(intensities, self._channels, grid, self.compute.device, lambda: self._tick(stage))

    # -- learning ------------------------------------------------------------------------------------------------------

    def learn_from(self, annotation: Annotation, belief: Belief, settings: Settings) -> None:
        """Train on these labels from the next step on; they are trusted as the belief is sure of them."""
        assert self.trainer is not None and self._input is not None
        within, tick = self._input.grid.box, lambda: self._tick("starting")
        made, slices = (tick, belief.confidence, within, self._zeros), self.trainer.plan.slices
        self.trainer.volume.targets = Targets(annotation, belief, settings, self.compute.device, *made, slices=slices)
        if self._start is not None:
            self._begin_with(self._start, tick)
            self._start = None

    def _begin_with(self, start: Start, tick: Callable[[], None]) -> None:
        """Where memory runs out the head begins from nothing; the first step will ask for less."""
        assert self.trainer is not None
        try:
            self.trainer.begin_with(start, tick)
        except (RuntimeError, MemoryError) as error:
            if not device.is_out_of_memory(error):
                raise
            device.release_memory(self.compute.device)
            self.trainer.start_from(start.weights)

    def learn_change(self, boxes: Sequence[Box], annotation: Annotation, belief: Belief, is_painted: bool, tick: Callable[[], None]) -> None:
        """The same, where only some boxes of them changed. is_painted: by the user: then its slices come first for a while."""
        assert self.trainer is not None
        targets = self.trainer.volume.targets
        if is_painted:
            targets.change(boxes, annotation, belief, tick, belief.confidence)
            return
        for box in boxes:
            targets.put(box, annotation, belief, tick, belief.confidence)

    def step(self, progress: float) -> None:
        """One step; where memory runs out, a smaller one; where nothing is left to halve, on the CPU."""
        while True:
            trainer = self.trainer
            assert trainer is not None
            try:
                trainer.step(progress)
                return
            except (RuntimeError, MemoryError) as error:
                if not device.is_out_of_memory(error):
                    raise
            smaller = trainer.plan.halved()
            device.release_memory(self.compute.device)
            if smaller is not None:
                trainer.replan(smaller)
                self._warn("memory", f"{self.compute.name} ran out of memory; going on with {size(smaller.batch, smaller.slices)} a step.", "")
            else:
                self._move_to_cpu()

    def _move_to_cpu(self) -> None:
        if self.compute.device.type == "cpu":
            raise DeviceError("There is not enough memory to train on a single slice.", "Close other programs, or crop the volume.")
        before = self.trainer
        assert before is not None and self._input is not None
        state, average, targets = before.state(), averaged_weights(before), before.volume.targets
        self.compute = device.on_cpu(f"{self.compute.name} has too little free memory")
        self._devices.replace(self.compute)
        self._warn("device", f"Training goes on on the CPU: {self.compute.why}.", "Free memory on the graphics card and train again to be faster.")
        self._input = replace(self._input, image=self._seen(self._intensities, self._input.grid, "starting"))
        self.trainer = self._new_trainer(before.plan, before.settings)
        self.trainer.load_state(state, average)
        self.trainer.volume.targets = targets.on(self.compute.device)

    # -- believing -----------------------------------------------------------------------------------------------------

    def belief(self) -> Probabilities:
        """What it believes of the whole region, anew where it has learned on."""
        assert self.trainer is not None
        if self._belief is None or self._belief_steps != self.trainer.steps:
            self._belief, self._belief_steps = self._asked(), self.trainer.steps
        return self._belief

    def calibrate(self, temperature: float) -> None:
        """Make what it believes less sure (above 1) or surer, for the result."""
        self._calibrated = self.belief().tempered(temperature, lambda: self._tick("training"))

    @property
    def known_belief(self) -> Probabilities | None:
        """What it last said, as sure as it should be, be it from some steps ago; None where it was never asked and calibrated."""
        return self._calibrated

    def _asked(self) -> Probabilities:
        trainer = self.trainer
        assert trainer is not None and self._input is not None
        orientations, slices = trainer.volume.targets.sampler.orientations, trainer.plan.slices
        return predict_within_memory(trainer.average, self._input, orientations, slices, self.compute, self._ticking("training"), self._warn)

    def predict_with(self, model: checkpoint.Checkpoint) -> Seen:
        """What another model believes of the job's image. Raises ModelError."""
        return Applied(model, self.compute, self._warn).believe(self._channels, self._job.record.geometry, self._ticking("predicting"))

    def _ticking(self, stage: str) -> Callable[[], None]:
        return lambda: self._tick(stage)

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self, state: dict[str, Any]) -> Path:
        """The job's model.pt: weights, and with `state` all that resuming needs."""
        trainer = self.trainer
        assert trainer is not None and self._input is not None
        orientations, everything = tuple(trainer.volume.targets.sampler.orientations), {"trainer": trainer.state(), **state}
        saved = checkpoint.Checkpoint(
            trainer.plan.network,
            averaged_weights(trainer),
            self._intensities,
            self._job.record.classes,
            self._input.grid.spacing(self.spacing),
            orientations,
            trainer.plan.slices,
            everything,
        )
        return self._job.save_bytes(MODEL, saved.save)

    def describe(self) -> dict[str, Any]:
        """For the report."""
        trainer = self.trainer
        assert trainer is not None
        return {
            "device": self.compute.name,
            "why": self.compute.why,
            "precision": str(self.compute.dtype)[6:],
            "network": {**trainer.plan.network.to_json(), "parameters": sum(p.numel() for p in trainer.network.parameters())},
            "grid_kji": list(trainer.plan.grid_kji),
            "slices": trainer.plan.slices,
            "batch": trainer.plan.batch,
            "orientations": trainer.volume.targets.sampler.orientations,
            "supervised": round(trainer.supervised, 3),
        }


def averaged_weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The averaged weights, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in trainer.average.state_dict().items()}


def _values_inside(image: np.ndarray, annotation: Annotation) -> np.ndarray:
    """The image's values where segments were painted, (n,); plane by plane."""
    parts = [
        np.asarray(image[k])[annotation.labelled[k] & (annotation.labels[k] > 0)] for k in np.flatnonzero(annotation.counts.slices[0][1:].sum(0))
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _with_network(plan: RunPlan, model: checkpoint.Checkpoint, classes: int, own_kji: Triple, geometry: Geometry) -> RunPlan:
    """The model's network with this job's number of classes, on the model's working grid."""
    turn = Turn.upright(geometry) if model.is_upright else Turn()
    grid_kji = shape_at(own_kji, geometry.spacing_kji_mm, turn.triple_back(model.spacing_kji_mm))
    return replace(plan, network=replace(model.network, classes=classes), grid_kji=grid_kji, slices=model.slices)
