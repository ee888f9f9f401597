"""One opened job kept warm: the annotation now, the voices, the judge, the publisher. It only says who works next; the worker only talks.

A run is: growing answers, the refiner corrects it, the judge holds annotation out, the network learns. Between any two steps, and within the
long ones before learning, a new annotation is taken up at once: growing answers, the refiner follows, then the run goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..annotation.border import add_border_weight
from ..annotation.hinted import HintLabels
from ..annotation.labels import Annotation, build_annotation
from ..annotation.revision import Revision, revise
from ..annotation.unpainted import Unpainted
from ..contract import disk, memory
from ..contract.aside import aside
from ..contract.box import Box, box_among, joined, whole
from ..contract.errors import AnnotationError, Cancelled, InputError, JobError, ModelError, OutputError, SparseSegError
from ..contract.folders import writing
from ..contract.job import GROWN, MODEL, NETWORK, PRIOR, Job, Update
from ..contract.numbers import number
from ..contract.numbers import whole as whole_number
from ..contract.scratch import Scratch, is_huge, run_bytes
from ..contract.settings import Settings
from ..contract.store import same
from ..quality import estimate, suggest
from .checker import Checker
from .devices import DeviceChoice
from .host import Clock, Host, Outcome
from .judge import Judge
from .known import Known
from .prior_voice import PriorVoice
from .publisher import Publisher
from .together import Together

if TYPE_CHECKING:
    from ..network.checkpoint import Checkpoint
    from .network_voice import NetworkVoice

T = TypeVar("T")
_CHECKPOINT_EVERY_S = 30.0
_PREVIEW_EVERY_S = 10.0
_PREVIEW_COST = 0.1  # share of the time that previews may take
_STEPS_TO_TRUST = 20  # a network that learned for fewer is left out of the result
_AFTER_UPDATE = 0.5  # where in the run (and its learning rate) a correction takes training back to, at most
_MIN_SIDE = 8  # voxels: below that a 3-D network makes no sense, except along one axis
_HISTORY_EVERY_S = 0.5
_LONGEST_S = 1e9  # that a run has taken
_CHECK_AFTER_S = 3.0  # of a run without a new annotation, until the last one is looked at for mistakes
_CHECK_COST = 2.5  # times growing, about, to look for mistakes
_QUICK_CHECK = 0.1  # share of a run that looking may take before learning; where it takes longer the network learns first
_LATE_CHECK = 0.5  # and this is how much of the run is over then
_AT_THE_END = {"prediction": 1, "estimate": 1, "fusion": 2}  # how often a run does them then: voices are joined for the result, and saved alone
_SHOWN_LATER = "Go on painting, or segment again, to see it."
_log = logging.getLogger("sparseseg")
_LARGE = (
    "A volume of this size is looked at on a coarser grid, and it is not told how good the result is, nor where the annotation may be wrong.",
    "Crop or resample the volume for more.",
)
_NO_ANNOTATION = ("The job has no annotation.", "Paint each structure on a few slices, and some background.")


class _UpdateWaits(Exception):
    """A new annotation has arrived while a long step was at work that can be done again."""


class Session:
    """Made by `open`; everything stays until `close`. Not thread-safe: one thread works, the host's `tick` looks at the world."""

    def __init__(self, job: Job, devices: DeviceChoice, host: Host) -> None:
        self.job, self.devices, self.host = job, devices, host
        self.settings = job.record.settings
        self.annotation: Annotation | None = None
        self.network: NetworkVoice | None = None
        self.judge = Judge(job.record.classes.ids)
        self._stage = "opening"  # what was last told
        self.zeros = Scratch(job.folder).zeros  # makes arrays of the volume's size
        self.publisher = Publisher(job, host, self.zeros)
        job.tick = self._look_up
        record = job.record
        self.hints = None if record.hints is None else HintLabels(record.hints, record.geometry)
        self.known = None if record.hints is None or self.hints is None else Known(record.hints, self.hints, record, host)
        self.unpainted = Unpainted(host.warning)
        self.prior = self._new_prior()
        self.together = Together(self.judge, self.known, lambda: self.labels, lambda: self.prior, lambda: self.network, self.zeros)
        self.checker = Checker(job, host)
        self._taken: Revision | None = None  # adopted, and not answered yet
        self._spare: Path | None = None  # what answers it where nothing else can
        self.history: list[dict[str, Any]] = []
        self.timings: dict[str, float] = {}
        self._clock = Clock(self.settings)
        self._hurried = False  # whether a waiting update ends the step at work
        self._running = False  # whether `train` is at work
        self._unlearned: list[Box] = []  # where the network has not got the annotation as it is
        self._updated_at = 0.0  # when a run has last taken a new annotation
        self._is_huge = is_huge(job.record.geometry.shape_kji)  # then what takes further growings of the whole is left out

    @classmethod
    def open(cls, folder: Path, devices: DeviceChoice, host: Host, owner: int = 0) -> Session:
        """owner: the host's process, if it holds the folder. Raises JobError, AnnotationError, InputError: the job stays as it was, unlocked."""
        job = Job.open(folder, owner)
        try:
            shape = job.record.geometry.shape_kji
            what = f"A volume of {' x '.join(map(str, shape))} voxels"
            memory.check(what, memory.engine_bytes(shape), "be segmented")
            disk.check(folder, run_bytes(shape), f"To be segmented, {what[0].lower()}{what[1:]}")
            host.tick("opening")
            job.check_image(lambda: host.tick("opening"))
            check_channels(job.channels(), job.record.channels, lambda: host.tick("opening"))
            session = aside(lambda: cls(job, devices, host), lambda: host.tick("opening"))  # hints are long where they label much
            session.annotation = session._aside(session._annotation_of_job)
        except BaseException:
            job.close()
            raise
        return session

    def _annotation_of_job(self) -> Annotation | None:
        annotation, record = self.job.annotation(), self.job.record
        if annotation is None:
            return None
        slices = record.complete_slices
        return self._with_border(build_annotation(annotation, record.classes, self.settings, slices, hints=self.hints, zeros=self.zeros))

    def close(self) -> None:
        self.network = None
        self.job.close()

    @property
    def labels(self) -> Annotation:
        if self.annotation is None:
            raise AnnotationError(*_NO_ANNOTATION)
        return self.annotation

    def _new_prior(self) -> PriorVoice:
        spacing = self.job.record.geometry.spacing_kji_mm
        return PriorVoice(self.job.channels(), spacing, self.settings, self.devices, lambda: self._tick("prior"), self.host.warning, self.zeros)

    def _with_border(self, annotation: Annotation) -> Annotation:
        if self.settings.border_weight <= 0:
            return annotation
        settings, spacing = self.settings, self.job.record.geometry.spacing_kji_mm
        return add_border_weight(annotation, spacing, settings.border_weight, settings.border_width_mm, self.zeros)

    # -- a new annotation ----------------------------------------------------------------------------------------------

    def update(self, name: str, revision: int, complete_slices: list[list[int]], box: list[list[int]] | None = None) -> None:
        """Take a new annotation, or a box of one, and show what it changes."""
        self.take(name, revision, complete_slices, box)
        self.answer()

    def take(self, name: str, revision: int, complete_slices: list[list[int]], box: list[list[int]] | None = None) -> None:
        """Take a new annotation, or a box of one; several may be taken before they are answered.

        Raises InputError, JobError, AnnotationError, OutputError, MemoryError or Cancelled where it is refused; then the old annotation stays.
        """
        update = self.job.update(name, revision, complete_slices, box)
        spare = self.publisher.spare()
        try:
            adopted = self._adopt(update)
        except BaseException:
            self.publisher.drop_spare(spare)
            raise
        if self._spare is not None:
            self.publisher.drop_spare(self._spare)
        self._taken, self._spare = adopted if self._taken is None else self._taken.then(adopted), spare

    def answer(self) -> None:
        """Show what was taken: at once what growing makes of it, then what the refiner does. It is answered by a preview, whatever happens: what
        fails is a warning. Raises Cancelled only where that ends a run."""
        told, spare = self.publisher.told, self._spare
        if self._taken is None or spare is None:
            return
        try:
            self._show_taken()
        except Exception as error:
            self._say_unshown(error, self.publisher.told > told)
            if isinstance(error, Cancelled) and self._running:
                raise
        finally:
            self._spare = None
            if self.publisher.told == told:  # nothing has changed, or it could not be shown
                self.publisher.show_spare(spare, self._steps)
            self.publisher.drop_spare(spare)

    def _show_taken(self) -> None:
        start, adopted = time.monotonic(), self._taken
        if adopted is not None and self._answer(adopted, start):
            self._follow_up()
            self.timings["correction"] = time.monotonic() - start

    def _answer(self, adopted: Revision, start: float) -> bool:
        """Growing's answer to a new annotation; whether there is something to refine."""
        changed = [part.box for part in adopted.changed]
        begun, answers = self.prior.can_answer, []
        also = self._aside(self._shown_absent) if begun and adopted.emptied else None
        self._taken = None  # from here on all know of it, also where it is cancelled
        try:  # each must know, whatever becomes of the others
            if begun:
                answers = self.prior.answer(adopted, also)
        finally:
            if adopted.changed:
                self.judge.leave_out(adopted.annotation.absent)
                self.checker.annotated(adopted.annotation)
            self.annotation = self._with_border(adopted.annotation)
        self.unpainted.compare(self.labels)
        if self.known:
            self.known.compare(self.labels, changed)
        if not begun:
            self._grow()
            return True
        if not answers:
            if self.publisher.is_behind and self.publisher.shown is not None:
                self._show(self.publisher.shown, self._source)
            return False
        for box, labels in answers:
            self._show_box(box, labels, "growing")
        self._learn_change(changed)
        self.timings["answer"] = time.monotonic() - start
        return True

    def _say_unshown(self, error: Exception, is_answered: bool) -> None:
        """What failed after a new annotation became the job's; is_answered: growing's answer to it has been shown."""
        if isinstance(error, Cancelled):
            if not is_answered:
                self.host.warning("unshown", "The new annotation is kept; what it changes is not shown, since that was cancelled.", _SHOWN_LATER)
            return
        if isinstance(error, MemoryError):
            reason, advice = "There was not enough memory.", f"Close other programs. {_SHOWN_LATER}"
        elif isinstance(error, SparseSegError):
            reason, advice = error.sentence, f"{error.advice} {_SHOWN_LATER}".strip()
        else:
            _log.error("after an update was adopted", exc_info=error)
            reason, advice = f"Unexpected failure: {type(error).__name__}: {error}.", f"Please report it with the job's log.txt. {_SHOWN_LATER}"
        self.host.warning("unshown", f"The new annotation is kept, but not all that it changes could be shown. {reason}", advice)

    def _follow_up(self) -> None:
        """The refiner's part of an update; it waits where a newer one is there. In a run the whole of it has its own turn."""
        if self.host.update_waits:
            return
        if self.prior.is_complete:
            self._refine_corrections()
        elif not self._running:
            self._hurried = True
            try:
                self._refine_all()
            except _UpdateWaits:
                pass  # the next update goes on from here
            finally:
                self._hurried = False

    def _adopt(self, update: Update) -> Revision:
        """The new annotation is the job's and ours, or nothing has changed."""
        classes, earlier = self.job.record.classes, self.annotation
        if earlier is None:
            if update.box is not None:
                raise JobError("The job has no annotation yet that a part of it could change.", "Send the whole annotation.")
            settings, slices = self.settings, update.complete_slices
            annotation = self._aside(lambda: build_annotation(update.values, classes, settings, slices, hints=self.hints, zeros=self.zeros))
            self.job.adopt(update)
            self.annotation = annotation
            return Revision(annotation, (), True, lambda: None)
        if update.is_adopted:
            self.job.adopt(update)
            return Revision(earlier, (), False, lambda: None)
        shown, tick = self.publisher.shown, self._look_up
        revision = revise(earlier, update.values, update.box, classes, self.settings, update.complete_slices, shown, tick)
        try:
            self.job.adopt(update)  # may fail (a full disk): only then is it ours
        except BaseException:
            revision.take_back()
            raise
        self.annotation = revision.annotation
        self._unlearned = joined([*self._unlearned, *(part.box for part in revision.changed)])
        return revision

    def _refine_corrections(self) -> None:
        """What the refiner makes of corrections that only growing has answered."""
        boxes = self.prior.refine(self.labels)
        self._learn_change(boxes, is_painted=False)
        for box in boxes:
            self._show_box(box, self.together.labels_in(box), self._source)

    def idle(self) -> None:
        """Nothing is asked for: catch up on what a later correction would have to wait for."""
        self._show_taken()  # what was cancelled before it could be shown
        if self.annotation is not None and self.prior.is_complete:
            if self.prior.has_open_corrections:
                self._refine_corrections()
            if self._is_huge:
                return
            self.prior.renew_if_due(self.labels)
            self.checker.look(self.prior.gray, self.labels, self.prior.grown_without, self._aside, self.zeros)

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self, overrides: dict[str, Any] | None = None, start_from: str = "", resume: bool = True) -> Outcome:
        """Train until the budget is spent or the host wants to finish. Raises SparseSegError; the labels and earlier results stay."""
        self.settings = Settings.from_json({**self.job.record.settings.to_json(), **(overrides or {})})
        if not self.prior.is_for(self.settings):
            self.prior = self._new_prior()
        self._clock = Clock(self.settings)
        self.unpainted.compare(self.labels)
        if self._is_huge and self.prior.grown is None:
            self.host.warning("large", *_LARGE)
        self._running = True
        self._show_taken()  # what was cancelled before it could be shown
        self.judge.begin()
        if self.known:
            self.known.compare(self.labels, [whole(self.labels.labels.shape)])
        try:
            self._grow()
            self._whole(self._refine_all)
            self._whole(self._judge_refiner)
            self._begin_network(start_from, resume)
            self._learn_from()
            self._learn()
            return self._finish_training("finish" if self.host.finishing else "steps" if self.settings.steps else "budget")
        finally:
            self._running = False

    def _grow(self) -> None:
        """Growing as a whole, where it is not there yet, and its previews."""
        start = time.monotonic()
        if self.prior.is_complete:
            if not self.prior.has_open_corrections:
                self._show(self._fused(), "prior")
            return
        is_new = self.prior.grown is None or self.prior.grown.plan is None
        label = self.together.placed(self.prior.grow(self.labels, early=lambda label: self._show(self.together.placed(label), "growing")))
        self.devices.start()  # not before: loading torch beside growing would double the time to the first answer
        if is_new:
            self.timings["prior"] = time.monotonic() - start
            if self.publisher.shown is None or not same(label, self.publisher.shown, self._look_up):
                self._show(label, "growing")

    def _refine_all(self) -> None:
        if self.prior.is_complete:
            self._refine_corrections()
            return
        start = time.monotonic()
        self.prior.refine_all(self.labels)
        self.timings["refiner"] = time.monotonic() - start
        self._show(self._fused(), "prior")

    def _begin_network(self, start_from: str, resume: bool) -> None:
        """The network of this run: the one still warm, the checkpoint's, an earlier model's weights, or a new one."""
        self.devices.compute(self._look_up)  # it loads torch, in a thread
        from ..network import checkpoint
        from .network_voice import NetworkVoice

        start = checkpoint.load(Path(start_from)) if start_from else None
        if self.network is not None and self.network.trainer is not None and resume and start is None:
            self.network.trainer.settings = self.settings
            self._clock.spent_steps, self._clock.begin = self.network.steps, _AFTER_UPDATE
            return
        network = self.network or NetworkVoice(self.job, self.devices, self.host.warning, self._tick, self.zeros)
        saved = network.saved() if resume and network.trainer is None and start is None else None
        if saved is None or not self._goes_on(network, saved):
            network.begin(self.labels, self.prior.region, self.settings, start, None)
            self.judge.forget()
        self.network = network

    def _goes_on(self, network: NetworkVoice, saved: Checkpoint) -> bool:
        """Whether the run could go on from a checkpoint; one with nonsense in it costs the checkpoint, not the job."""
        try:
            network.begin(self.labels, self.prior.region, self.settings, None, saved)
            self.judge.forget()
            self._resume(saved, network.steps)
        except ModelError as error:
            network.begins_anew(error)
            return False
        return True

    def _resume(self, saved: Checkpoint, steps: int) -> None:
        """Raises ModelError; then only the judge has changed."""
        training = saved.training
        try:
            finished, spent_s = bool(training["finished"]), number(training["seconds"], 0, _LONGEST_S)
            spent_steps = whole_number(training["spent_steps"], 0, steps)
            self.judge.load_state(training)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"Its training state is damaged ({error!s:.200}).", "Train a new model.") from error
        self.judge.leave_out(self.labels.absent)
        if finished:
            self._clock.spent_steps, self._clock.begin = steps, _AFTER_UPDATE
        else:
            self._clock.spent_s, self._clock.spent_steps = spent_s, spent_steps
            self.host.warning("resumed", f"Training goes on from step {steps} of an earlier run.", "")

    def _judge_refiner(self) -> None:
        """Where the refiner sees a segment coarsely only, held-out annotation tells whether it corrects it at all."""
        if not self._estimates or self.prior.use is not None or not self.prior.is_seen_coarsely:
            return
        classes = len(self.job.record.classes) + 1
        held = self._aside(lambda: estimate.split(self.labels.labels, self.labels.painted, classes, self.zeros))  # hints prove nothing
        if held is not None and self.prior.refine_only(self.prior.use_without(self.labels, held), self.labels):
            self._show(self._fused(), "prior")

    @property
    def _estimates(self) -> bool:
        return self.settings.estimate and not self._is_huge

    @property
    def _check_is_due(self) -> bool:
        """Whether to look for mistakes: soon where that is quick, else after the network has learned for a while."""
        if self._is_huge or self.checker.is_current or time.monotonic() - self._updated_at < _CHECK_AFTER_S:
            return False
        quick = _CHECK_COST * self.timings.get("prior", 0.0) <= _QUICK_CHECK * self.settings.time_budget_s
        return quick or self._clock.fraction(self._steps) >= _LATE_CHECK

    def _check(self) -> None:
        """Look for mistakes in the annotation; a new annotation comes first, and then it is looked at after a while."""
        self._hurried = True
        try:
            self.checker.look(self.prior.gray, self.labels, self.prior.grown_without, self._aside, self.zeros)
        except _UpdateWaits:
            pass
        finally:
            self._hurried = False

    def _learn(self) -> None:
        """Step by step, until the run is over; in between updates, estimates, previews and checkpoints."""
        network = self.network
        assert network is not None
        last_preview = last_saved = time.monotonic()
        self._tick("training")
        while self._clock.fraction(network.steps) < 1 and not self.host.finishing:
            if self._check_is_due:
                self._check()
                self._tick("training")  # by its stage a step that never ends is told from long work
            network.step(self._clock.schedule(network.steps))
            self._tick("training")
            self._take_updates()
            if self.judge.is_due(self._clock.fraction(network.steps)):
                self._look()
                last_preview = time.monotonic()
            if time.monotonic() - last_preview > self._preview_interval() and self._steps >= _STEPS_TO_TRUST:
                self._show_all_voices()
                last_preview = time.monotonic()
            if time.monotonic() - last_saved > _CHECKPOINT_EVERY_S:
                self._save_checkpoint()
                last_saved = time.monotonic()

    def _take_updates(self) -> None:
        """New annotations that have arrived, each answered by growing; then all of them refined."""
        taken = False
        while (update := self.host.take_update()) is not None:
            update(self)
            taken = True
            self._updated_at = time.monotonic()
        if taken:
            if self.prior.is_complete and self.prior.has_open_corrections:
                self._refine_corrections()
            self._clock.take_back(_AFTER_UPDATE, self._steps)

    def _whole(self, work: Callable[[], None]) -> None:
        """Do a long step that leaves nothing half done; begin it again where a new annotation comes in between."""
        while True:
            self._hurried = True
            try:
                work()
                return
            except _UpdateWaits:
                self._hurried = False
                self._take_updates()
            finally:
                self._hurried = False

    # -- the network's labels ------------------------------------------------------------------------------------------

    def _learn_from(self) -> None:
        assert self.network is not None
        self.network.learn_from(self.labels, self.prior.stands, self.settings)
        self._unlearned = []

    def _learn_change(self, boxes: list[Box], is_painted: bool = True) -> None:
        boxes = joined([*boxes, *self._unlearned])  # those of an update that failed half way, too
        if self.network is None or self.network.trainer is None or self.network.trainer.volume.targets is None or not boxes:
            return
        if self.annotation is not None and self.annotation.border is not None:
            self._learn_from()  # the border's weight reaches beyond the box
        else:
            self.network.learn_change(boxes, self.labels, self.prior.stands, is_painted, self._look_up)
            self._unlearned = []

    # -- the judge -----------------------------------------------------------------------------------------------------

    def _weigh(self) -> None:
        """Ask the network, make it as sure as it should be, and give it its share; none before it has learned."""
        if self._steps < _STEPS_TO_TRUST:
            self.judge.share = 0.0
            return
        start = time.monotonic()
        standing = self.together.standing(lambda: self._tick("training"))
        if standing is not None:
            assert self.network is not None
            self.network.calibrate(standing.temperature)
            self.judge.weigh(standing, self._steps, self.labels.has_complete_slices)
        self._reserve("prediction", start)

    def _reserve(self, what: str, start: float) -> None:
        """Of the time budget, for what the end of the run does again, as long as it has just taken."""
        self.timings[what] = time.monotonic() - start
        self._clock.reserved_s = sum(times * self.timings.get(part, 0.0) for part, times in _AT_THE_END.items())

    def _show_all_voices(self) -> None:
        """What all voices say now."""
        self._weigh()
        start = time.monotonic()
        self._show(self._fused(), self._source)
        self._reserve("fusion", start)

    def _look(self) -> None:
        """The same, and the estimate of it."""
        self._show_all_voices()
        if self._estimates:
            start = time.monotonic()
            self._whole(self._estimate_shown)
            self._reserve("estimate", start)
            self.history.append({"seconds": self._clock.seconds, "step": self._steps, "estimate": self.judge.mean_estimate})

    def _estimate_shown(self) -> None:
        """Of what the user sees: a correction may have come since all voices were asked."""
        assert self.publisher.shown is not None
        self.judge.look(
            self.publisher.shown,
            self.together.evidence(lambda: self._tick("estimating")),
            self.labels,
            self.prior.grown_from,
            self._aside,
            self.zeros,
        )

    # -- what is shown -------------------------------------------------------------------------------------------------

    @property
    def _steps(self) -> int:
        return self.network.steps if self.network else 0

    @property
    def _source(self) -> str:
        """Whose word a preview of everything is."""
        return "network" if self.together.network_counts else "prior"

    def _fused(self) -> np.ndarray:
        """All voices together."""
        return self.together.labels(lambda: self._tell("prior"))

    def _show(self, labels: np.ndarray, source: str) -> None:
        self.publisher.show(labels, source, self._steps)

    def _show_box(self, box: Box, labels: np.ndarray, source: str) -> None:
        if self.known:
            self.known.hold_places(labels, self.labels.labelled[box], box)
        self.together.with_paint(labels, box)
        if self.publisher.shown is None:
            self._show(self.together.placed(self.prior.grown.label) if self.prior.grown else labels, "growing")
        else:
            self.publisher.show(labels, source, self._steps, box)

    def _shown_absent(self) -> Box | None:
        """Where the user sees segments that have lost their last label."""
        return None if self.publisher.shown is None else box_among(self.publisher.shown, self.labels.absent)

    def _preview_interval(self) -> float:
        return max(_PREVIEW_EVERY_S, self.timings.get("prediction", 0) / _PREVIEW_COST)

    # -- results -------------------------------------------------------------------------------------------------------

    def _finish_training(self, reason: str) -> Outcome:
        self._tick("predicting")
        self._weigh()
        evidence = self.together.no_evidence() if self._estimates else None
        dense, uncertainty = self.together.result(lambda: self._tick("predicting"), evidence)
        if evidence is not None:
            self.judge.look(dense, evidence, self.labels, self.prior.grown_from, self._aside, self.zeros)
        self._tick("saving")
        self.job.gather_changes()
        self._save_voices()
        model = self._save_model(finished=True)
        report = self.publisher.report(self._report(reason))
        return self._outcome(dense, uncertainty, model, report, reason)

    def _save_voices(self) -> None:
        """The weight map, and each voice alone: for who wants to see what made the result."""
        shape, prior = self.job.record.geometry.shape_kji, self.prior
        assert prior.grown is not None
        self.publisher.inputs(self.labels, prior.stands)
        self.publisher.voice(GROWN, prior.grown.label, shape)
        self.publisher.voice(PRIOR, prior.stands.label, shape)
        if self._steps < _STEPS_TO_TRUST:
            with writing(self.job.folder):
                self.job.path(NETWORK).unlink(missing_ok=True)  # an earlier network's
        else:
            self.publisher.voice(NETWORK, self.together.network_alone(lambda: self._tick("saving")), shape)

    def predict(self, model: str = "") -> Outcome:
        """Segment the job's image with a model alone: no annotation, no prior. Raises ModelError, InputError."""
        self._clock = Clock(self.settings)
        self.devices.compute(lambda: self._tell("starting"))  # it loads torch, in a thread
        from ..network import checkpoint
        from .alone import alone
        from .network_voice import NetworkVoice

        loaded = checkpoint.load(Path(model) if model else self.job.path(MODEL))
        if len(loaded.classes) != len(self.job.record.classes):
            raise InputError(
                f"The model knows {len(loaded.classes)} segments, the job has {len(self.job.record.classes)}.",
                "Use the model's own table of segments.",
            )
        network = self.network or NetworkVoice(self.job, self.devices, self.host.warning, self._tick, self.zeros)
        dense, uncertainty = alone(network.predict_with(loaded), lambda: self._tick("predicting"), self.zeros)
        labelled = self.zeros(dense.shape, bool) if self.annotation is None else self.annotation.labelled
        self.together.hold_result(dense, uncertainty, labelled, lambda: self._tick("predicting"))
        return self._outcome(dense, uncertainty, None, None, "predicted")

    def _outcome(self, dense: np.ndarray, uncertainty: np.ndarray, model: Path | None, report: Path | None, reason: str) -> Outcome:
        result, uncertain = self.publisher.result(dense, uncertainty)
        labelled = self.annotation.painted if self.annotation else None
        slices = self._aside(lambda: suggest.next_slices(uncertainty, labelled))
        estimated, share = (dict(self.judge.estimate), round(self.judge.share, 3)) if model else ({}, 1.0)
        return Outcome(
            result, uncertain, model, report, reason, self._steps, self._clock.seconds, estimated, share, slices, self.checker.places if model else []
        )

    def _save_checkpoint(self) -> None:
        """What a kill would cost without it is less than the run."""
        try:
            self._save_model(finished=False)
        except OutputError as error:
            self.host.warning("model", f"What was learned so far is not saved: {error.sentence}", error.advice)

    def _save_model(self, finished: bool) -> Path:
        assert self.network is not None
        state = {
            **self.judge.state(),
            "seconds": self._clock.seconds,
            "spent_steps": self._clock.spent_steps,
            "finished": finished,
            "revision": self.job.record.revision,
        }
        return self.network.save(state)

    def _report(self, reason: str) -> dict[str, Any]:
        assert self.network is not None
        return {
            "reason": reason,
            **({"channels": list(self.job.record.channels)} if self.job.record.channels else {}),
            "seconds": self._clock.seconds,
            "steps": self._steps,
            **self.network.describe(),
            "settings": self.settings.to_json(),
            "annotation": self.labels.text(),
            "annotation_precision": round(self._aside(lambda: self.prior.precision(self.labels)), 3),
            "hints": self.known.report(self.labels) if self.known else [],
            "estimate": self.judge.estimate,
            **self.judge.describe(),
            "check": [place.to_json() for place in self.checker.places],
            "timings": self.timings,
            "history": self.history,
        }

    def _tick(self, stage: str) -> None:
        """Tell the host, and leave the step at work where a newer annotation ends it."""
        self._tell(stage)
        if self._hurried and self.host.update_waits:
            raise _UpdateWaits

    def _look_up(self) -> None:
        """Tell the host that the stage goes on."""
        self._tell(self._stage)

    def _aside(self, work: Callable[[], T]) -> T:
        """Long work that only reads, while this thread looks up."""
        return aside(work, self._look_up)

    def _tell(self, stage: str) -> None:
        self._stage = stage
        trainer = self.network.trainer if self.network else None
        steps, clock = self._steps, self._clock
        loss = trainer.losses() if trainer else {}
        last = self.history[-1]["seconds"] if self.history else -1.0
        if stage == "training" and loss and clock.seconds - last > _HISTORY_EVERY_S:
            self.history.append({"seconds": clock.seconds, "step": steps, "loss": loss})
        self.host.tick(stage, steps, clock.fraction(steps), clock.eta(steps) if trainer else None, loss, self.judge.estimate)


def check_channels(channels: np.ndarray, names: Sequence[str] = (), tick: Callable[[], None] = lambda: None) -> None:
    """channels: (C, K, J, I); names: what they are called, or none. Raises InputError for an image that nothing can be learned from."""
    shape = channels.shape[1:]
    if min(shape) < 2 or sorted(shape)[1] < _MIN_SIDE:
        raise InputError(
            f"The image has {' x '.join(map(str, shape))} voxels, too few for a 3-D network.",
            "It takes 2 slices and 8 voxels along the other axes.",
        )
    for n, channel in enumerate(channels):
        name = names[n] if names else f"channel {n + 1}"
        _check_channel(channel, f"The image's {name}" if len(channels) > 1 else "The image", tick)


def _check_channel(image: np.ndarray, what: str, tick: Callable[[], None]) -> None:
    low, high = np.inf, -np.inf
    for slab in image:  # slice by slice: the array may be memory-mapped and larger than memory
        tick()
        least, most = float(slab.min()), float(slab.max())
        if not np.isfinite(least) or not np.isfinite(most):  # before min and max, which pass over what is not a number
            raise InputError(f"{what} holds voxels that are not a number or infinite.", "Replace them, for example with the Simple Filters module.")
        low, high = min(low, least), max(high, most)
    if low == high:
        raise InputError(f"{what} is constant ({low:g} everywhere).", "Choose the volume that shows the anatomy.")
