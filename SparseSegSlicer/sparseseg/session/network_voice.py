"""The network as a voice: it learns this one volume step by step, and says what it believes when asked.

Its belief is kept (two bytes a voxel) until it has learned on: a correction in between is answered without asking the network again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..annotation.labels import Annotation
from ..contract.belief import Belief
from ..contract.box import Box
from ..contract.errors import DeviceError
from ..contract.job import MODEL, Job
from ..contract.settings import Settings
from ..network import checkpoint, device
from ..network.augmentation import Augmenter, TrainingVolume
from ..network.device import RunPlan
from ..network.intensity import Intensity
from ..network.predict import Input, decide_at, predict
from ..network.sampling import WorkingGrid
from ..network.targets import Targets
from ..network.trainer import Trainer
from ..network.unet import Triple, UNet3d
from .devices import DeviceChoice

_MIN_SIDE = 8  # voxels: below that a 3-D network makes no sense, except along one axis
Warn = Callable[[str, str, str], None]
Tick = Callable[[str], None]


class NetworkVoice:
    """One trainer on one volume. `warn` takes code, sentence and advice; `tick` a stage, and may raise."""

    def __init__(self, job: Job, devices: DeviceChoice, warn: Warn, tick: Tick) -> None:
        self._job, self._devices, self._warn, self._tick = job, devices, warn, tick
        self.compute = devices.compute(lambda: tick("starting"))
        self.spacing = job.record.geometry.spacing_kji_mm
        self.classes = len(job.record.classes) + 1
        self.trainer: Trainer | None = None
        self._input: Input | None = None
        self._intensity: Intensity | None = None
        self._belief: Belief | None = None
        self._belief_steps = -1

    @property
    def steps(self) -> int:
        return self.trainer.steps if self.trainer else 0

    # -- beginning -----------------------------------------------------------------------------------------------------

    def begin(self, annotation: Annotation, settings: Settings, start: checkpoint.Checkpoint | None, saved: checkpoint.Checkpoint | None) -> None:
        """A new trainer: with an earlier model's weights (start), going on from a checkpoint of this job (saved), or from nothing."""
        model, shape = start or saved, self._job.record.geometry.shape_kji
        plan = device.plan_run(self.compute, self.spacing, shape, self.classes, settings)
        if model is not None:
            plan = _with_network(plan, model, self.classes, shape, self.spacing)
        self._load_image(plan, annotation, model)
        self.trainer = self._new_trainer(plan, settings)
        self._belief = None
        if start is not None:
            self.trainer.start_from(start.weights)
        elif saved is not None:
            self.trainer.load_state(saved.training["trainer"], saved.weights)

    def saved(self) -> checkpoint.Checkpoint | None:
        """The job's own checkpoint, if it holds a training state of the same segments."""
        if not self._job.path(MODEL).exists():
            return None
        saved = checkpoint.load(self._job.path(MODEL))
        same = saved.training and saved.classes.ids == self._job.record.classes.ids
        return saved if same else None

    def _new_trainer(self, plan: RunPlan, settings: Settings) -> Trainer:
        assert self._input is not None
        augmenter = Augmenter(self._input.grid.spacing(self.spacing), mirror=settings.mirror)
        volume = TrainingVolume(self._input.grid, self._input.image, None)  # type: ignore[arg-type]  # until `learn_from`
        return Trainer(self.compute, plan, volume, augmenter, settings)

    def _load_image(self, plan: RunPlan, annotation: Annotation, model: checkpoint.Checkpoint | None) -> None:
        image = self._job.image()
        if model is not None:
            self._intensity = model.intensity
        elif self._intensity is None or self.trainer is None:
            self._intensity = Intensity.fit(image, _values_inside(image, annotation))
        grid = WorkingGrid(self._job.record.geometry.shape_kji, plan.grid_kji)
        self._input = Input(self._intensity.apply(image, grid.shape_kji, self.compute.device, lambda: self._tick("starting")), grid)

    # -- learning ------------------------------------------------------------------------------------------------------

    def learn_from(self, annotation: Annotation, belief: Belief, held: np.ndarray | None, settings: Settings, trust: np.ndarray) -> None:
        """Train on these labels from the next step on."""
        assert self.trainer is not None
        self.trainer.volume.targets = Targets(annotation, belief, held, settings, self.compute.device, lambda: self._tick("starting"), trust)

    def learn_change(self, box: Box, annotation: Annotation, belief: Belief, held: np.ndarray | None, trust: np.ndarray) -> None:
        """The same, where only a box of them changed."""
        assert self.trainer is not None
        self.trainer.volume.targets.put(box, annotation, belief, held, trust=trust)

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
                self._warn("memory", f"{self.compute.name} ran out of memory; going on with patches of {_times(smaller.patch_kji)} voxels.", "")
            else:
                self._move_to_cpu()

    def _move_to_cpu(self) -> None:
        if self.compute.device.type == "cpu":
            raise DeviceError("There is not enough memory to train even the smallest patch.", "Close other programs, or crop the volume.")
        before = self.trainer
        assert before is not None and self._input is not None and self._intensity is not None
        state, average, targets = before.state(), averaged_weights(before), before.volume.targets
        self.compute = device.on_cpu(f"{self.compute.name} has too little free memory")
        self._devices.replace(self.compute)
        self._warn("device", f"Training goes on on the CPU: {self.compute.why}.", "Free memory on the graphics card and train again to be faster.")
        image = self._intensity.apply(self._job.image(), self._input.grid.shape_kji, self.compute.device, lambda: self._tick("starting"))
        self._input = replace(self._input, image=image)
        self.trainer = self._new_trainer(before.plan, before.settings)
        self.trainer.load_state(state, average)
        self.trainer.volume.targets = targets.on(self.compute.device)

    # -- believing -----------------------------------------------------------------------------------------------------

    def belief(self) -> Belief:
        """The network's own labels and, as their confidence, 255 minus its uncertainty; of the whole volume, anew where it has learned on."""
        assert self.trainer is not None and self._input is not None
        if self._belief is None or self._belief_steps != self.trainer.steps:
            label, uncertainty = self._predicted(self.trainer.average, self._input, self.trainer.plan.patch_kji, "training")
            self._belief, self._belief_steps = Belief(label, 255 - uncertainty), self.trainer.steps
        return self._belief

    @property
    def known_belief(self) -> Belief | None:
        """What it last said, be it from some steps ago; None where it was never asked."""
        return self._belief

    def belief_at(self, mask: np.ndarray) -> Belief:
        """The same at the true voxels of a mask (K, J, I) alone, (n,), in their order in memory."""
        assert self.trainer is not None and self._input is not None
        network, tile = self.trainer.average, self.trainer.plan.patch_kji
        label, uncertainty = decide_at(network, self._input, tile, self.compute, mask, lambda: self._tick("estimating"))
        return Belief(label, 255 - uncertainty)

    def predict_with(self, model: checkpoint.Checkpoint) -> tuple[np.ndarray, np.ndarray]:
        """Labels and uncertainty of the job's image by another model alone, (K, J, I) uint8 both."""
        network = model.build_network(self.compute.device)
        grid = _grid_of_model(model, self._job.record.geometry.shape_kji, self.spacing)
        image = model.intensity.apply(self._job.image(), grid.shape_kji, self.compute.device, lambda: self._tick("predicting"))
        return self._predicted(network, Input(image, grid, is_trained_on=False), model.patch_kji, "predicting")

    def _predicted(self, network: UNet3d, data: Input, tile: Triple, stage: str) -> tuple[np.ndarray, np.ndarray]:
        """predict(), with smaller tiles where memory runs out."""
        while True:
            try:
                return predict(network, data, tile, self.compute, lambda _: self._tick(stage))
            except (RuntimeError, MemoryError) as error:
                if not device.is_out_of_memory(error) or max(tile) <= 2 * _MIN_SIDE:
                    raise
            device.release_memory(self.compute.device)
            k, j, i = (max(_MIN_SIDE, n // 2) for n in tile)
            tile = (k, j, i)
            self._warn("memory", f"{self.compute.name} ran out of memory; predicting in tiles of {_times(tile)} voxels.", "")

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self, state: dict[str, Any]) -> Path:
        """The job's model.pt: weights, and with `state` all that resuming needs."""
        trainer = self.trainer
        assert trainer is not None and self._intensity is not None and self._input is not None
        plan, spacing = trainer.plan, self._input.grid.spacing(self.spacing)
        everything = {"trainer": trainer.state(), **state}
        weights = averaged_weights(trainer)
        saved = checkpoint.Checkpoint(plan.network, weights, self._intensity, self._job.record.classes, spacing, plan.patch_kji, everything)
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
            "patch_kji": list(trainer.plan.patch_kji),
            "batch": trainer.plan.batch,
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


def _with_network(plan: RunPlan, model: checkpoint.Checkpoint, classes: int, shape_kji: Triple, spacing: tuple[float, float, float]) -> RunPlan:
    """The model's network with this job's number of classes, on the model's working grid, with a patch that suits both."""
    network, grid = replace(model.network, classes=classes), _grid_of_model(model, shape_kji, spacing)
    patch = device.patch_shape(model.spacing_kji_mm, grid.shape_kji, network.multiple_kji, int(np.prod(plan.patch_kji)))
    return replace(plan, network=network, grid_kji=grid.shape_kji, patch_kji=patch)


def _grid_of_model(model: checkpoint.Checkpoint, shape_kji: Triple, spacing: tuple[float, float, float]) -> WorkingGrid:
    """The grid on which this volume has the spacing that the model was trained at."""
    k, j, i = (max(1, round(n * own / wanted)) for n, own, wanted in zip(shape_kji, spacing, model.spacing_kji_mm, strict=True))
    return WorkingGrid(shape_kji, (k, j, i))


def _times(values: Any) -> str:
    return " x ".join(str(int(v)) for v in values)
