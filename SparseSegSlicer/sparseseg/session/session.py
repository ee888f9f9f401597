"""One opened job kept warm: volume, labels, weights, prior, trainer. Open, update, train, predict; the worker only talks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ..annotation.border import add_border_weight
from ..annotation.labels import Annotation, build_annotation, changed_voxels
from ..contract.belief import Belief, Box
from ..contract.errors import AnnotationError, DeviceError, InputError
from ..contract.job import DENSE, MODEL, PRIOR, REPORT, UNCERTAINTY, WEIGHTS, Job
from ..contract.settings import Settings
from ..network import checkpoint, device
from ..network.augmentation import Augmenter
from ..network.device import Compute, RunPlan
from ..network.intensity import Intensity
from ..network.predict import Input, predict, tile_probabilities
from ..network.sampling import PatchSampler, TrainingVolume, WorkingGrid, to_device
from ..network.trainer import Trainer
from ..network.unet import Triple, UNet3d
from ..prior.growing import compute_prior
from ..prior.reach import within_reach
from ..prior.refiner import refine
from ..quality import estimate, suggest
from ..quality.fusion import Fusion, prior_belief
from ..session.judge import choose_use

_HELD_OUT_SHARE = 0.6  # of the run that trains without the held-out annotation, where some is held out
_ESTIMATE_AT = (0.2, 0.5, 1.0)  # of that part
_CHECKPOINT_EVERY_S = 30.0
_PREVIEW_EVERY_S = 10.0
_PREVIEW_COST = 0.1  # share of the time that previews may take
_PREVIEWS_KEPT = 2
_STEPS_TO_TRUST = 50  # a network that learned for fewer is left out of the result
_AFTER_UPDATE = 0.5  # where in the run (and its learning rate) a correction takes training back to, at most
_MIN_SIDE = 8  # voxels: below that a 3-D network makes no sense, except along one axis
_HISTORY_EVERY_S = 0.5


class Host(Protocol):
    """What a session tells, and asks, while it works. `tick` may raise Cancelled, and everything here returns at once."""

    @property
    def finishing(self) -> bool: ...
    def tick(
        self,
        stage: str,
        step: int = 0,
        fraction: float = 0.0,
        eta: float | None = None,
        loss: dict[str, float] | None = None,
        estimate: dict[str, float] | None = None,
    ) -> None: ...
    def preview(self, file: Path, source: str, step: int, revision: int) -> None: ...
    def warning(self, code: str, sentence: str, advice: str) -> None: ...
    def take_update(self) -> Callable[[Session], None] | None: ...


@dataclass(frozen=True)
class Outcome:
    """Finished files and numbers of one training or prediction."""

    dense: Path
    uncertainty: Path
    model: Path | None
    report: Path | None
    reason: str
    step: int
    seconds: float
    estimate: dict[str, float]
    trust: dict[str, float]
    next_slices: list[list[int]]


@dataclass
class Clock:
    """How much of a run is over, by the clock, or by steps where their number is fixed."""

    settings: Settings
    reserved_s: float = 0.0  # for the final prediction
    spent_s: float = 0.0  # in earlier parts of a resumed run
    spent_steps: int = 0
    begin: float = 0.0  # where in the schedule of the learning rate this run begins: > 0 where it goes on from a trained state
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return self.spent_s + time.monotonic() - self.started

    def fraction(self, steps: int) -> float:
        if self.settings.steps:
            return min(1.0, (steps - self.spent_steps) / self.settings.steps)
        return min(1.0, self.seconds / max(0.5, self.settings.time_budget_s - self.reserved_s))

    def schedule(self, steps: int) -> float:
        """How far along the learning rate's schedule the run is, 0..1."""
        return self.begin + (1 - self.begin) * self.fraction(steps)

    def eta(self, steps: int) -> float:
        if self.settings.steps:
            done = self.fraction(steps)
            return self.seconds * (1 - done) / done + self.reserved_s if done > 0 else self.reserved_s
        return max(0.0, self.settings.time_budget_s - self.seconds)

    def take_back(self, fraction: float, steps: int) -> None:
        """Give the run time again, as if only `fraction` of it were over."""
        if self.fraction(steps) > fraction:
            self.spent_s = fraction * (self.settings.time_budget_s - self.reserved_s)
            self.spent_steps = steps - round(fraction * self.settings.steps)
            self.started = time.monotonic()


class Session:
    """Made by `open`; everything stays until `close`. Not thread-safe: one thread works, the host's `tick` looks at the world."""

    def __init__(self, job: Job, compute: Compute, host: Host) -> None:
        self.job, self.compute, self.host = job, compute, host
        self.classes = len(job.record.classes) + 1
        self.spacing = job.record.geometry.spacing_kji_mm
        self.settings = job.record.settings
        self.estimate: dict[str, float] = {}
        self.trust = np.zeros(self.classes, np.float32)
        self.annotation: Annotation | None = None
        self.history: list[dict[str, Any]] = []
        self.timings: dict[str, float] = {}
        self._prior: Belief | None = None
        self._plain_prior: Belief | None = None  # as growing left it
        self._corrected = False  # whether the refiner has seen it
        self._use: list[bool] | None = None  # which segments' prior it corrects
        self._earlier: tuple[Belief, np.ndarray] | None = None  # the prior before the last correction, and the voxels that this changed
        self._trainer: Trainer | None = None
        self._input: Input | None = None
        self._intensity: Intensity | None = None
        self._held_out: np.ndarray | None = None
        self._training_prior: Belief | None = None  # from the annotation without the held-out part
        self._doubt: dict[int, float] = {}  # by segment value: how many times as wrong as it believes the prior is
        self._found: dict[int, float] = {}  # by value of the segments for which the network is trusted: its held-out Dice
        self._estimated = False
        self._estimates_made = 0
        self._clock = Clock(self.settings)
        self._shown = itertools.count(1)
        self._last_dense: np.ndarray | None = None
        self._previews: list[Path] = []

    @classmethod
    def open(cls, folder: Path, compute: Compute, host: Host) -> Session:
        """Raises JobError, AnnotationError, InputError: the job stays as it was, unlocked."""
        job = Job.open(folder)
        try:
            host.tick("opening")
            check_image(job.image())
            session = cls(job, compute, host)
            annotation = job.annotation()
            if annotation is not None:
                session.annotation = session._build(annotation, job.record.complete_slices)
        except BaseException:
            job.close()
            raise
        return session

    def close(self) -> None:
        self._trainer = self._input = None
        self.job.close()

    # -- annotation ----------------------------------------------------------------------------------------------------

    def update(self, name: str, revision: int, complete_slices: list[list[int]], box: list[list[int]]) -> None:
        """Take a new annotation, show what it changes at once. Raises InputError or JobError; then the old annotation stays."""
        update = self.job.update(name, revision, complete_slices, box)
        annotation = update.values
        if update.box is not None:
            annotation = np.array(self.job.annotation())
            annotation[update.box] = update.values
        built = self._build(annotation, update.complete_slices, self.annotation)
        self.job.adopt(update)  # may fail (a full disk): only then is it ours
        self._earlier = self._before(built)
        self.annotation = built
        self._make_prior()
        if self._trainer is not None:
            self._set_labels()
            self._show_network()
        else:
            self._correct_prior()
            self._show(self._with_strokes(self.prior.label.copy()), "prior", 0)

    def _before(self, correction: Annotation) -> tuple[Belief, np.ndarray] | None:
        """The prior that the user saw, and what the correction changes of the annotation; None where the correction is about more than spots."""
        if self._prior is None or not self._corrected or self.annotation is None:
            return None
        changed = changed_voxels(self.annotation, correction)
        return None if changed is None else (self._prior, changed)

    def _build(self, annotation: np.ndarray | None, complete_slices: tuple[tuple[int, int], ...], earlier: Annotation | None = None) -> Annotation:
        if annotation is None:
            raise AnnotationError("The job has no annotation.", "Paint each structure on a few slices, and some background.")
        built = build_annotation(annotation, self.job.record.classes, self.settings, complete_slices, earlier, self._last_dense)
        if self.settings.border_weight > 0:
            built = add_border_weight(built, self.spacing, self.settings.border_weight, self.settings.border_width_mm)
        return built

    @property
    def labels(self) -> Annotation:
        if self.annotation is None:
            raise AnnotationError("The job has no annotation.", "Paint each structure on a few slices, and some background.")
        return self.annotation

    @property
    def prior(self) -> Belief:
        if self._prior is None:
            self._make_prior()
        assert self._prior is not None
        return self._prior

    def _make_prior(self, early: Callable[[np.ndarray], None] | None = None) -> None:
        self._prior, self._corrected = None, False  # growing may be cancelled: that of an earlier annotation must not stay
        self._prior = self._plain_prior = self._grown(self.labels.labelled, early)

    def _grown(self, labelled: np.ndarray, early: Callable[[np.ndarray], None] | None = None) -> Belief:
        start = time.monotonic()
        prior = compute_prior(self.job.image(), self.labels.labels, labelled, self.spacing, lambda: self._tick("prior"), early)
        self.timings["prior"] = time.monotonic() - start
        return prior

    def _correct_prior(self, early: Callable[[np.ndarray], None] | None = None) -> None:
        if self._prior is None:
            self._make_prior(early)
        if not self._corrected:
            assert self._plain_prior is not None
            prior = self._refined(self._plain_prior, self.labels.labelled, self._use)
            if self._earlier is not None:
                before, changed = self._earlier
                prior = within_reach(before, prior, changed, self.labels.labelled, self.spacing)
            self._prior, self._corrected = prior, True

    def _refined(self, prior: Belief, labelled: np.ndarray, use: list[bool] | None = None) -> Belief:
        if not self.settings.refine:
            return prior
        start = time.monotonic()
        on, dtype = self.compute.device, self.compute.dtype
        refined = refine(prior, self.job.image(), self.labels.labels, labelled, self.spacing, on, dtype, lambda: self._tick("prior"), use)
        self.timings["refiner"] = time.monotonic() - start
        return refined

    def _refines(self, value: int) -> bool:
        return self.settings.refine and (self._use is None or value > len(self._use) or self._use[value - 1])

    def _prior_without(self, held: np.ndarray) -> Belief:
        """What the prior is without the held-out annotation; which segments the refiner corrects is decided there."""
        rest = self.labels.labelled & ~held
        grown = self._grown(rest)
        refined = self._refined(grown, rest)
        self._use = choose_use(grown, refined, self.labels.labels, rest, held, self.spacing)
        if all(self._use):
            return refined
        self._corrected = False  # it was for all segments
        return self._refined(grown, rest, self._use)

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self, overrides: dict[str, Any] | None = None, start_from: str = "", resume: bool = True) -> Outcome:
        """Train until the budget is spent or the host wants to finish. Raises SparseSegError; the labels and earlier results stay."""
        self.settings = Settings.from_json({**self.job.record.settings.to_json(), **(overrides or {})})
        start = checkpoint.load(Path(start_from)) if start_from else None
        self._clock = Clock(self.settings)
        self._correct_prior(early=lambda label: self._show(label, "prior", 0))
        self._show(self._with_strokes(self.prior.label.copy()), "prior", 0)
        trainer = self._prepare(start, resume)
        last_preview = last_saved = time.monotonic()
        self._tick("training")
        while self._clock.fraction(trainer.steps) < 1 and not self.host.finishing:
            trainer = self._safe_step()
            self._tick("training")
            if (update := self.host.take_update()) is not None:
                update(self)
                self._clock.take_back(_AFTER_UPDATE, trainer.steps)
            self._estimate_if_due()
            if time.monotonic() - last_preview > self._preview_interval() and not self._holding:
                self._show_network()
                last_preview = time.monotonic()
            if time.monotonic() - last_saved > _CHECKPOINT_EVERY_S:
                self._save_model(finished=False)
                last_saved = time.monotonic()
        if self._holding:
            self._end_holding()
        return self._finish_training("finish" if self.host.finishing else "steps" if self.settings.steps else "budget")

    def _prepare(self, start: checkpoint.Checkpoint | None, resume: bool) -> Trainer:
        """The trainer of this run: the one still warm, the checkpoint's, an earlier model's weights, or a new one; with this run's labels."""
        saved = self._saved() if resume and self._trainer is None and start is None else None
        if self._trainer is None or not resume or start is not None:
            shape = self.job.record.geometry.shape_kji
            plan = device.plan_run(self.compute, self.spacing, shape, self.classes, self.settings)
            if start or saved:
                plan = _with_network(plan, (start or saved), self.classes, shape, self.spacing)  # type: ignore[arg-type]
            self._load_image(plan, start or saved)
            self._trainer = self._new_trainer(plan)
            self._estimated, self._estimates_made = False, 0
            self._doubt, self._found, self.estimate = {}, {}, {}
            if start is not None:
                self._trainer.start_from(start.weights)
        else:
            self._trainer.settings = self.settings
            self._clock.spent_steps, self._clock.begin = self._trainer.steps, _AFTER_UPDATE
        if saved is not None:
            self._resume(saved)
        self._set_labels()
        return self._trainer

    def _saved(self) -> checkpoint.Checkpoint | None:
        """The job's own checkpoint, if it holds a training state of the same segments."""
        if not self.job.path(MODEL).exists():
            return None
        saved = checkpoint.load(self.job.path(MODEL))
        same = saved.training and saved.classes.ids == self.job.record.classes.ids
        return saved if same else None

    def _resume(self, saved: checkpoint.Checkpoint) -> None:
        training = saved.training
        assert self._trainer is not None
        self._trainer.load_state(training["trainer"], saved.weights)
        self.trust = np.array(training["trust"], np.float32)
        self.estimate, self._estimated = dict(training["estimate"]), bool(training["estimated"])
        self._doubt, self._found = dict(training["doubt"]), dict(training["found"])
        if training["finished"]:
            self._clock.spent_steps, self._clock.begin = self._trainer.steps, _AFTER_UPDATE
        else:
            self._clock.spent_s, self._clock.spent_steps = float(training["seconds"]), int(training["spent_steps"])
            self.host.warning("resumed", f"Training goes on from step {self._trainer.steps} of an earlier run.", "")

    def _new_trainer(self, plan: RunPlan) -> Trainer:
        assert self._input is not None
        empty = torch.zeros(1, dtype=torch.uint8, device=self.compute.device)  # until _set_labels
        volume = TrainingVolume(self._input.grid, self._input.image, empty, empty)
        nothing = PatchSampler(self.labels.labels, self.labels.weights, self.classes)
        augmenter = Augmenter(self._input.grid.spacing(self.spacing), mirror=self.settings.mirror)
        return Trainer(self.compute, plan, volume, nothing, augmenter, self.settings)

    def _load_image(self, plan: RunPlan, model: checkpoint.Checkpoint | None) -> None:
        image = self.job.image()
        if model is not None:
            self._intensity = model.intensity
        else:
            labelled = self.annotation is not None
            inside = np.asarray(image)[self.labels.labelled & (self.labels.labels > 0)] if labelled else np.empty(0)
            self._intensity = Intensity.fit(image, inside)
        grid = WorkingGrid(self.job.record.geometry.shape_kji, plan.grid_kji)
        self._input = Input(self._intensity.apply(image, grid.shape_kji, self.compute.device), grid)

    @property
    def _holding(self) -> bool:
        """Whether this part of the run trains without the held-out annotation."""
        return self._held_out is not None

    def _set_labels(self) -> None:
        """Give the trainer this revision's labels and weights, without the held-out ones while there are some."""
        trainer, annotation = self._trainer, self.labels
        assert trainer is not None
        self._held_out = None
        if self.settings.estimate and not self._estimated and not self.settings.ignore_weights:
            self._held_out = estimate.split(annotation.labels, annotation.labelled, self.classes)
        labelled = annotation.labelled
        if self._held_out is not None:
            labelled = labelled & ~self._held_out
            self._training_prior = self._prior_without(self._held_out)
        self._correct_prior()
        prior = self._training_prior if self._holding else self.prior
        assert prior is not None
        labels, weights = training_labels(annotation, labelled, prior, self.settings)
        on = self.compute.device
        sampler = PatchSampler(labels, weights, self.classes, labelled)
        trainer.set_labels(to_device(labels, on, torch.uint8), to_device(weights, on, torch.float16), sampler)

    def _safe_step(self) -> Trainer:
        """One step; where memory runs out, a smaller one; where nothing is left to halve, on the CPU."""
        trainer = self._trainer
        assert trainer is not None
        while True:
            try:
                trainer.step(self._clock.schedule(trainer.steps))
                return trainer
            except (RuntimeError, MemoryError) as error:
                if not device.is_out_of_memory(error):
                    raise
            smaller = trainer.plan.halved()
            device.release_memory(self.compute.device)
            if smaller is not None:
                trainer.replan(smaller)
                self.host.warning(
                    "memory", f"{self.compute.name} ran out of memory; going on with patches of {_times(smaller.patch_kji)} voxels.", ""
                )
            else:
                trainer = self._move_to_cpu()

    def _move_to_cpu(self) -> Trainer:
        if self.compute.device.type == "cpu":
            raise DeviceError("There is not enough memory to train even the smallest patch.", "Close other programs, or crop the volume.")
        assert self._trainer is not None
        state, average, plan = self._trainer.state(), _cpu_weights(self._trainer), self._trainer.plan
        self.compute = device.on_cpu(f"{self.compute.name} has too little free memory")
        self.host.warning(
            "device", f"Training goes on on the CPU: {self.compute.why}.", "Free memory on the graphics card and train again to be faster."
        )
        self._load_image(plan, None)
        self._trainer = self._new_trainer(plan)
        self._trainer.load_state(state, average)
        self._set_labels()
        return self._trainer

    # -- estimate ------------------------------------------------------------------------------------------------------

    def _estimate_if_due(self) -> None:
        if not self._holding:
            return
        assert self._trainer is not None
        share = self._clock.fraction(self._trainer.steps) / _HELD_OUT_SHARE
        due = sum(share >= at for at in _ESTIMATE_AT)
        if due > self._estimates_made:
            self._estimates_made = due
            self._measure()
            if share >= 1:
                self._end_holding()

    def _measure(self) -> None:
        """Network against prior on the held-out annotation: sets the estimate and the trust."""
        held = self._held_out
        assert held is not None and self._trainer is not None and self._input is not None
        places = np.flatnonzero(held)
        probabilities = np.zeros((self.classes, len(places)), np.float32)
        for box, values in tile_probabilities(self._trainer.average, self._input, self._trainer.plan.patch_kji, self.compute, _box_around(held)):
            chosen = held[box].nonzero()
            own = np.ravel_multi_index((chosen[0] + box[0].start, chosen[1] + box[1].start, chosen[2] + box[2].start), held.shape)
            probabilities[:, np.searchsorted(places, own)] = values.cpu().numpy()[:, chosen[0], chosen[1], chosen[2]]
            self._tick("estimating")
        prior, truth = self._training_prior, self.labels.labels[held]
        assert prior is not None
        belief = prior_belief(torch.from_numpy(prior.label[held]), torch.from_numpy(prior.confidence[held]), self.classes).numpy()
        counted = [c for c in range(1, self.classes) if (truth == c).sum() >= estimate.MIN_VOXELS]
        network = {c: estimate.dice(probabilities.argmax(0), truth, c) for c in counted}
        alone = {c: estimate.dice(prior.label[held], truth, c) for c in counted}
        expected = {c: estimate.expected_dice(prior.label[held], 255 - prior.confidence[held], c) for c in counted}
        limits = [estimate.REFINED_DOUBT if self._refines(c) else estimate.GROWN_DOUBT for c in range(self.classes)]
        self._doubt = {c: estimate.overconfidence(alone[c], expected[c], limits[c]) for c in counted}
        self._found = {}
        self._update_estimate()
        ids = self.job.record.classes.ids
        self.trust = estimate.choose_trust(network, {c: self.estimate[ids[c - 1]] for c in counted}, self.classes)
        fused = (belief + self.trust[:, None] * (probabilities - belief)).argmax(0)
        self.trust[[c for c in counted if estimate.dice(fused, truth, c) < alone[c]]] = 0
        fused = (belief + self.trust[:, None] * (probabilities - belief)).argmax(0)
        self._found = {c: network[c] for c in counted if self.trust[c] > 0}
        self._update_estimate()
        together = {c: estimate.dice(fused, truth, c) for c in counted}
        scores = {"fused": _mean(together), "network": _mean(network), "prior": _mean(alone)}
        self.history.append({"seconds": self._clock.seconds, "step": self._trainer.steps, "held_out": scores})

    def _update_estimate(self) -> None:
        """The Dice expected where nobody labelled: what the prior believes, as far as it was right on held-out annotation; or the network's
        held-out Dice, where that is trusted because it is higher."""
        free = ~self.labels.labelled
        label, unsure = self.prior.label[free], 255 - self.prior.confidence[free]
        for c, doubt in self._doubt.items():
            expected = estimate.expected_dice(label, unsure, c)
            prior = 1 - min(1.0, (1 - expected) * doubt) if expected == expected else 0.0
            self.estimate[self.job.record.classes.segments[c - 1].id] = round(max(prior, self._found.get(c, 0.0)), 4)

    def _end_holding(self) -> None:
        if not self._estimates_made:  # the user finished early
            self._measure()
        self._estimated = True
        self._set_labels()

    # -- results -------------------------------------------------------------------------------------------------------

    def _finish_training(self, reason: str) -> Outcome:
        trainer = self._trainer
        assert trainer is not None
        if trainer.steps < _STEPS_TO_TRUST:
            self.trust = np.zeros_like(self.trust)
        dense, uncertainty = self._predict_fused("predicting")
        self._update_estimate()
        self._tick("saving")
        self.job.save_array(WEIGHTS, self.labels.weights)
        self.job.save_array(PRIOR, self.prior.label)
        model = self._save_model(finished=True)
        report = self._report(reason)
        return self._outcome(dense, uncertainty, model, report, reason)

    def predict(self, model: str = "") -> Outcome:
        """Segment the job's image with a model alone: no annotation, no prior. Raises ModelError, InputError."""
        self._clock = Clock(self.settings)
        path = Path(model) if model else self.job.path(MODEL)
        loaded = checkpoint.load(path)
        if len(loaded.classes) != len(self.job.record.classes):
            raise InputError(
                f"The model knows {len(loaded.classes)} segments, the job has {len(self.job.record.classes)}.",
                "Use the model's own table of segments.",
            )
        network = loaded.build_network(self.compute.device)
        grid = _grid_of_model(loaded, self.job.record.geometry.shape_kji, self.spacing)
        data = Input(loaded.intensity.apply(self.job.image(), grid.shape_kji, self.compute.device), grid, is_trained_on=False)
        dense, uncertainty = self._predicted(network, data, loaded.patch_kji, None, "predicting")
        return self._outcome(dense, uncertainty, None, None, "predicted")

    def _outcome(self, dense: np.ndarray, uncertainty: np.ndarray, model: Path | None, report: Path | None, reason: str) -> Outcome:
        uncertain = self.job.save_array(UNCERTAINTY, uncertainty)
        result = self.job.save_array(DENSE, dense)  # last: where it is new, all else is
        self._last_dense = dense
        ids = self.job.record.classes.ids
        labelled = self.annotation.labelled if self.annotation else None
        step = self._trainer.steps if self._trainer else 0
        trust = {segment: round(float(t), 3) for segment, t in zip(ids, self.trust[1:], strict=True)} if model else {}
        return Outcome(
            result,
            uncertain,
            model,
            report,
            reason,
            step,
            self._clock.seconds,
            self.estimate if model else {},
            trust,
            suggest.next_slices(uncertainty, labelled),
        )

    def _predict_fused(self, stage: str) -> tuple[np.ndarray, np.ndarray]:
        assert self._trainer is not None and self._input is not None
        start = time.monotonic()
        dense, uncertainty = self._predicted(self._trainer.average, self._input, self._trainer.plan.patch_kji, Fusion(self.prior, self.trust), stage)
        self._clock.reserved_s = self.timings["prediction"] = time.monotonic() - start
        uncertainty[self.labels.labelled] = 0
        return self._with_strokes(dense), uncertainty

    def _predicted(self, network: UNet3d, data: Input, tile: Triple, fusion: Fusion | None, stage: str) -> tuple[np.ndarray, np.ndarray]:
        """predict(), with smaller tiles where memory runs out."""
        while True:
            try:
                return predict(network, data, tile, self.compute, fusion, lambda _: self._tick(stage))
            except (RuntimeError, MemoryError) as error:
                if not device.is_out_of_memory(error) or max(tile) <= 2 * _MIN_SIDE:
                    raise
            device.release_memory(self.compute.device)
            k, j, i = (max(_MIN_SIDE, n // 2) for n in tile)
            tile = (k, j, i)
            self.host.warning("memory", f"{self.compute.name} ran out of memory; predicting in tiles of {_times(tile)} voxels.", "")

    def _with_strokes(self, dense: np.ndarray) -> np.ndarray:
        """The user's labels stand in every result."""
        np.copyto(dense, self.labels.labels, where=self.labels.labelled)
        return dense

    def _show_network(self) -> None:
        assert self._trainer is not None
        dense, _ = self._predict_fused("training")
        self._show(dense, "network", self._trainer.steps)

    def _show(self, dense: np.ndarray, source: str, step: int) -> None:
        self._last_dense = dense
        file = self.job.save_array(f"preview-{self.job.record.revision:04d}-{next(self._shown):04d}.npy", dense)
        self._previews.append(file)
        for old in self._previews[:-_PREVIEWS_KEPT]:
            old.unlink(missing_ok=True)
        self._previews = self._previews[-_PREVIEWS_KEPT:]
        self.host.preview(file, source, step, self.job.record.revision)

    def _preview_interval(self) -> float:
        return max(_PREVIEW_EVERY_S, self.timings.get("prediction", 0) / _PREVIEW_COST)

    def _save_model(self, finished: bool) -> Path:
        trainer = self._trainer
        assert trainer is not None and self._intensity is not None and self._input is not None
        state = {
            "trainer": trainer.state(),
            "trust": [float(t) for t in self.trust],
            "estimate": self.estimate,
            "doubt": self._doubt,
            "found": self._found,
            "estimated": self._estimated,
            "seconds": self._clock.seconds,
            "spent_steps": self._clock.spent_steps,
            "finished": finished,
            "revision": self.job.record.revision,
        }
        plan = trainer.plan
        saved = checkpoint.Checkpoint(
            plan.network,
            _cpu_weights(trainer),
            self._intensity,
            self.job.record.classes,
            self._input.grid.spacing(self.spacing),
            plan.patch_kji,
            state,
        )
        return self.job.save_bytes(MODEL, saved.save)

    def _report(self, reason: str) -> Path:
        trainer = self._trainer
        assert trainer is not None
        data = {
            "reason": reason,
            "seconds": self._clock.seconds,
            "steps": trainer.steps,
            "device": self.compute.name,
            "why": self.compute.why,
            "precision": str(self.compute.dtype)[6:],
            "network": {**trainer.plan.network.to_json(), "parameters": sum(p.numel() for p in trainer.network.parameters())},
            "grid_kji": list(trainer.plan.grid_kji),
            "patch_kji": list(trainer.plan.patch_kji),
            "batch": trainer.plan.batch,
            "settings": self.settings.to_json(),
            "annotation": self.labels.text(),
            "estimate": self.estimate,
            "trust": [float(t) for t in self.trust],
            "timings": self.timings,
            "history": self.history,
        }
        self.job.save_json(REPORT, data)
        return self.job.path(REPORT)

    def _tick(self, stage: str) -> None:
        trainer, clock = self._trainer, self._clock
        steps = trainer.steps if trainer else 0
        loss = trainer.losses() if trainer else {}
        last = self.history[-1]["seconds"] if self.history else -1.0
        if stage == "training" and loss and clock.seconds - last > _HISTORY_EVERY_S:
            self.history.append({"seconds": clock.seconds, "step": steps, "loss": loss})
        self.host.tick(stage, steps, clock.fraction(steps), clock.eta(steps) if trainer else None, loss, self.estimate)


def training_labels(annotation: Annotation, labelled: np.ndarray, prior: Belief, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """What the network trains on, (K, J, I) uint8 and float16: the user's labels with their weights, and the prior's as pseudo-labels with
    small ones.

    This is the update of y and w from prior knowledge: where only the prior speaks, w = pseudo_label_weight * max(0, 2 q - 1)^2 with q its
    confidence. labelled: bool, the voxels whose labels may be used.
    """
    if settings.ignore_weights:
        return np.where(labelled, annotation.labels, 0).astype(np.uint8), np.ones(annotation.labels.shape, np.float16)
    labels = np.where(labelled, annotation.labels, prior.label)
    certain = np.maximum(np.linspace(-1, 1, 256), 0) ** 2  # a label that is wrong half of the time teaches nothing
    weights = (settings.pseudo_label_weight * certain).astype(np.float16)[prior.confidence]
    np.copyto(weights, annotation.weights, where=labelled, casting="same_kind")
    return labels, weights


def check_image(image: np.ndarray) -> None:
    """Raises InputError for an image that nothing can be learned from."""
    if min(image.shape) < 2 or sorted(image.shape)[1] < _MIN_SIDE:
        raise InputError(
            f"The image has {_times(image.shape)} voxels, too few for a 3-D network.", "It takes 2 slices and 8 voxels along the other axes."
        )
    low, high = np.inf, -np.inf
    for slab in image:  # slice by slice: the array may be memory-mapped and larger than memory
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        if not np.isfinite(low) or not np.isfinite(high):
            raise InputError("The image holds voxels that are not a number or infinite.", "Replace them, for example with the Simple Filters module.")
    if low == high:
        raise InputError(f"The image is constant ({low:g} everywhere).", "Choose the volume that shows the anatomy.")


def _with_network(plan: RunPlan, model: checkpoint.Checkpoint, classes: int, shape_kji: Triple, spacing: tuple[float, float, float]) -> RunPlan:
    """The model's network with this job's number of classes, on the model's working grid, with a patch that suits both."""
    network, grid = replace(model.network, classes=classes), _grid_of_model(model, shape_kji, spacing)
    patch = device.patch_shape(model.spacing_kji_mm, grid.shape_kji, network.multiple_kji, int(np.prod(plan.patch_kji)))
    return replace(plan, network=network, grid_kji=grid.shape_kji, patch_kji=patch)


def _grid_of_model(model: checkpoint.Checkpoint, shape_kji: Triple, spacing: tuple[float, float, float]) -> WorkingGrid:
    """The grid on which this volume has the spacing that the model was trained at."""
    k, j, i = (max(1, round(n * own / wanted)) for n, own, wanted in zip(shape_kji, spacing, model.spacing_kji_mm, strict=True))
    return WorkingGrid(shape_kji, (k, j, i))


def _box_around(mask: np.ndarray) -> Box:
    places = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    first_and_last = [(int(p[0]), int(p[-1])) for p in places]
    k, j, i = (slice(first, last + 1) for first, last in first_and_last)
    return (k, j, i)


def _cpu_weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in trainer.average.state_dict().items()}


def _mean(by_class: dict[int, float]) -> float:
    return float(np.mean(list(by_class.values()))) if by_class else 0.0


def _times(values: Any) -> str:
    return " x ".join(str(int(v)) for v in values)
