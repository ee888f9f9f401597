"""A session without a process around it: what happens when memory runs out, numbers go wrong, labels change."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sessions import send

import hands
from phantoms import two_organs
from sparseseg.annotation.labels import CORRECTION, build_annotation
from sparseseg.contract.belief import Belief
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import AnnotationError, Cancelled, DeviceError, JobError, OutputError, TrainingError
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.settings import Settings
from sparseseg.network import applied, device, start
from sparseseg.network.cores import Cores
from sparseseg.network.start import shipped
from sparseseg.network.trainer import Trainer
from sparseseg.prior import reach
from sparseseg.prior.grown import Grown
from sparseseg.prior.standing import in_doubt
from sparseseg.quality import shares
from sparseseg.session import judge, prior_voice
from sparseseg.session import session as session_module
from sparseseg.session.devices import DeviceChoice
from sparseseg.session.session import Session

QUICK = Settings(steps=12, width=4, depth=2, patch_voxels=16**3)


@pytest.fixture
def opened(session_on):
    """opened(settings) -> a session on the phantom."""
    return lambda settings=QUICK, phantom=None, annotation=None: session_on(phantom or two_organs(), settings, annotation)


def out_of_memory(times, plain=Trainer._batch):
    """Trainer._batch that fails as CUDA does, this many times."""
    left = [times]

    def batch(self):
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return plain(self)

    return batch


@pytest.mark.slow
def test_out_of_memory_halves_the_step_and_goes_on(opened, host, monkeypatch):
    running = opened()
    monkeypatch.setattr(Trainer, "_batch", out_of_memory(1))
    outcome = running.train()
    assert outcome.step == 12
    ((code, sentence),) = host.warnings
    assert code == "memory" and sentence.endswith(" ran out of memory; going on with 1 slab of 1 slice a step.")
    assert (running.network.trainer.plan.batch, running.network.trainer.plan.slices) == (1, 1)


@pytest.mark.slow
def test_with_one_slab_left_slices_are_halved(opened, host, monkeypatch):
    monkeypatch.setattr(device, "_SLICES", 4)
    running = opened()
    monkeypatch.setattr(Trainer, "_batch", out_of_memory(2))
    assert running.train().step == 12
    assert [sentence.split("going on with ")[1] for _, sentence in host.warnings] == ["1 slab of 4 slices a step.", "1 slab of 2 slices a step."]


@pytest.mark.slow
def test_out_of_memory_to_the_end_is_one_sentence(opened, monkeypatch):
    running = opened()
    monkeypatch.setattr(Trainer, "_batch", out_of_memory(10**9))
    with pytest.raises(DeviceError, match="not enough memory"):
        running.train()


@pytest.mark.slow
def test_where_nothing_is_left_to_halve_the_cpu_takes_over(opened, host, compute, monkeypatch):
    running = opened()
    running.train({"steps": 3})
    steps = running.network.trainer.steps
    monkeypatch.setattr(device.RunPlan, "halved", lambda self: None)
    monkeypatch.setattr(Trainer, "_batch", out_of_memory(1))
    monkeypatch.setattr(running.network, "compute", replace(compute, device=torch.device("meta"), name="GPU"))
    running.network.step(0.5)
    assert running.network.compute.device.type == "cpu"
    assert "GPU has too little free memory" in running.devices.known.why
    assert host.warnings[-1][0] == "device"
    assert running.network.steps == steps + 1


SHIPPED = replace(QUICK, width=16, depth=2)  # what is shipped fits this one


def test_a_run_begins_with_what_is_shipped(opened, monkeypatch):
    begun = []
    plain = Trainer.begin_with
    monkeypatch.setattr(Trainer, "begin_with", lambda self, start, tick: begun.append(start) or plain(self, start, tick))
    running = opened(SHIPPED)
    assert running.train().step == 12
    assert begun == [shipped()]
    running.train()  # goes on
    assert len(begun) == 1


def test_out_of_memory_at_the_beginning_leaves_the_body(opened, host, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Trainer, "_moments", fail)
    assert opened(SHIPPED).train().step == 12
    assert host.warnings == []


def test_without_what_is_shipped_a_run_begins_from_nothing_and_says_so(opened, host, monkeypatch, tmp_path):
    monkeypatch.setattr(start, "FILE", tmp_path / "start.pt")
    shipped.cache_clear()
    try:
        assert opened(SHIPPED).train().step == 12
    finally:
        shipped.cache_clear()
    ((code, sentence),) = host.warnings
    assert code == "model" and sentence.startswith("The network begins from nothing: start.pt, which networks begin with, cannot be read")


@pytest.mark.parametrize(("at_once", "said"), [(1, "1 slab of 2 slices"), (4, "2 slabs of 4 slices")])
def test_out_of_memory_in_prediction_takes_fewer_and_thinner_slabs_at_once(opened, host, monkeypatch, at_once, said):
    monkeypatch.setattr(device, "_SLICES", 4)
    monkeypatch.setattr(applied, "cores_of", lambda _: Cores(1, at_once))
    running = opened()
    plain, left = applied.predict, [1]

    def predict(*arguments, **options):
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("out of memory")
        return plain(*arguments, **options)

    monkeypatch.setattr(applied, "predict", predict)
    assert running.train().step == 12
    running.network.belief()
    ((code, sentence),) = host.warnings
    assert code == "memory" and sentence.endswith(f" ran out of memory; predicting {said} at a time.")


@pytest.mark.slow
def test_not_a_number_goes_back_to_the_last_good_state(opened, monkeypatch):
    running = opened(replace(QUICK, steps=40))
    plain = Trainer.step

    def step(self, progress):
        if self.steps == 23:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("nan"))
        plain(self, progress)

    monkeypatch.setattr(Trainer, "step", step)
    running.train()
    assert running.network.trainer.bad_states == 1
    assert running.network.trainer.rate_factor == 0.5
    assert all(torch.isfinite(p).all() for p in running.network.trainer.average.parameters())


@pytest.mark.slow
def test_a_loss_that_stays_not_a_number_ends_in_one_sentence(opened, monkeypatch):
    running = opened(replace(QUICK, steps=200))
    nan = torch.full((), float("nan"))
    monkeypatch.setattr("sparseseg.network.trainer.soft_dice_loss", lambda *_: nan.clone().requires_grad_())
    with pytest.raises(TrainingError, match="not-a-number"):
        running.train()


def test_cancel_leaves_the_session_usable_and_the_files_as_they_were(opened, host):
    running = opened()
    before = {p.name: p.read_bytes() for p in running.job.folder.iterdir() if "preview" not in p.name}

    def cancel(stage, step):
        if step == 5:
            raise Cancelled

    host.on_tick = cancel
    with pytest.raises(Cancelled):
        running.train()
    assert {p.name: p.read_bytes() for p in running.job.folder.iterdir() if "preview" not in p.name} == before
    host.on_tick = lambda *_: None
    assert running.train({"steps": 3}).reason == "steps"


def test_finishing_at_once_gives_the_prior(opened, host):
    host.finishing = True
    running = opened()
    outcome = running.train()
    assert (outcome.reason, outcome.step) == ("finish", 0)
    np.testing.assert_array_equal(np.load(outcome.dense), host.previews[-1][2])


def test_a_correction_weighs_more_and_stays_one(opened, host):
    running = opened()
    running.train()
    phantom = two_organs()
    wrong = running.publisher.shown.copy()
    index = 9
    annotation = phantom.annotation.copy()
    annotation[index, :5, :5] = 3  # a stroke of segment 2 where background was shown
    assert (wrong[index, :5, :5] != 2).all()
    np.save(running.job.folder / "annotation-2.npy", annotation)
    running.update("annotation-2.npy", 2, [])
    corrected = running.annotation.origin == CORRECTION
    assert corrected.sum() == 25
    plain = running.annotation.weights[(running.annotation.labels == 2) & (running.annotation.origin == 1)]
    np.testing.assert_allclose(running.annotation.weights[corrected], plain[0] * running.settings.correction_weight, rtol=1e-5)
    assert host.previews[-1][:2] == ("prior", 2)
    assert (host.previews[-1][2][index, :5, :5] == 2).all()
    np.save(running.job.folder / "annotation-3.npy", annotation)
    running.update("annotation-3.npy", 3, [])
    assert (running.annotation.origin == CORRECTION).sum() == 25


def test_the_slice_of_a_correction_is_learned_from_first_however_far_the_refiner_carries_it(opened, monkeypatch):
    running = opened(replace(QUICK, estimate=False))
    running.train()
    targets, boxes = running.network.trainer.volume.targets, []
    put = targets.put
    monkeypatch.setattr(targets, "put", lambda box, *rest, **named: boxes.append(box) or put(box, *rest, **named))
    annotation, box = two_organs().annotation.copy(), (slice(9, 10), slice(4, 9), slice(4, 9))
    annotation[box] = 3
    send(running, 2, annotation, box)
    assert targets.sampler.slices == [(0, 6), (0, 9), (0, 12), (0, 18)]
    assert len(boxes) == 2 and boxes[1][0].start <= 6  # what the refiner changed holds other painted slices
    rng = np.random.default_rng(0)
    assert [targets.sampler.draw(rng) for _ in range(60)].count((0, 9)) > 30


def test_an_update_that_cannot_be_saved_leaves_the_old_annotation(opened, monkeypatch):
    running = opened()
    before = running.annotation
    changed = two_organs().annotation
    changed[3] = 2
    np.save(running.job.folder / "annotation-2.npy", changed)
    labels, origin = before.labels.copy(), before.origin.copy()

    def full(*_):
        raise OutputError("Could not write.")

    monkeypatch.setattr(running.job, "adopt", full)
    with pytest.raises(OutputError):
        running.update("annotation-2.npy", 2, [])
    assert running.annotation is before
    np.testing.assert_array_equal(before.labels, labels)
    np.testing.assert_array_equal(before.origin, origin)
    np.testing.assert_array_equal(before.labelled, origin > 0)


@pytest.mark.slow
def test_a_second_run_from_scratch_is_estimated_anew(opened):
    running = opened(replace(QUICK, steps=20))
    running.train()
    looked = [entry["step"] for entry in running.history if "estimate" in entry]
    assert looked == [6, 12]  # at 0.3 and 0.6 of 20 steps
    running.train(resume=False)
    assert [entry["step"] for entry in running.history if "estimate" in entry] == 2 * looked


def test_the_estimate_is_told_while_training_and_kept_over_time(opened, host):
    told = []
    running = opened(replace(QUICK, steps=18))  # too few for the network to be heard
    host.on_tick = lambda stage, step: told.append((step, dict(running.judge.estimate)))
    outcome = running.train()
    assert {step for step, estimate in told if estimate} >= set(range(7, 19)) and not any(estimate for step, estimate in told if step < 6)
    looks = [entry for entry in running.history if "estimate" in entry]
    assert [entry["step"] for entry in looks] == [6, 11]
    assert set(outcome.estimate) == {"Segment_1", "Segment_2"} and min(outcome.estimate.values()) > 0.5
    report = json.loads(running.job.path("report.json").read_text(encoding="utf-8"))
    assert report["estimate"] == outcome.estimate
    assert [entry for entry in report["history"] if "estimate" in entry] == looks
    assert looks[-1]["estimate"] == pytest.approx(np.mean(list(outcome.estimate.values())), abs=1e-4)  # nothing has changed since


def test_without_estimates_nothing_is_estimated(opened):
    running = opened(replace(QUICK, estimate=False))
    outcome = running.train()
    assert outcome.estimate == {} and not any("estimate" in entry for entry in running.history)


def test_a_network_of_few_steps_has_no_say_and_later_its_share(opened, monkeypatch):
    running = opened(replace(QUICK, steps=12, estimate=False))
    outcome = running.train()
    assert outcome.share == 0 and not running.together.network_counts and running.network.known_belief is None
    monkeypatch.setattr(session_module, "_STEPS_TO_TRUST", 20)
    outcome = running.train()
    assert outcome.step == 24
    assert outcome.share == pytest.approx(running.judge.share) == pytest.approx(shares.SHARE * 24 / judge._STEPS_TO_LEARN)
    standing = running.together.standing(lambda: None).to_json()
    report = json.loads(running.job.path("report.json").read_text(encoding="utf-8"))
    assert report["share"] == outcome.share and {name: report[name] for name in standing} == standing


def test_the_result_hears_the_network_as_sure_as_it_should_be(opened):
    running = opened(replace(QUICK, steps=24, estimate=False))
    running.train()
    raw, heard, temperature = running.network.belief(), running.network.known_belief, running.judge.standing.temperature
    assert temperature != pytest.approx(1, abs=0.05)
    np.testing.assert_array_equal(heard.classes, raw.tempered(temperature).classes)


def test_time_is_kept_for_what_the_end_of_a_run_does_again(opened):
    running = opened(replace(QUICK, steps=60))
    running.train()
    prediction, estimated, fused = (running.timings[part] for part in ("prediction", "estimate", "fusion"))
    assert min(estimated, fused) > 0
    assert running._clock.reserved_s == prediction + estimated + 2 * fused


def test_a_checkpoint_that_cannot_be_read_is_told_of_and_training_begins_anew(opened, host):
    running = opened()
    torch.save({"format": "sparseseg-model", "version": 1}, running.job.path("model.pt"))
    assert running.train().step == 12
    ((code, sentence),) = host.warnings
    assert code == "model" and sentence == "The network begins anew: model.pt has model version 1, this engine reads 2 and 3."


def test_a_run_that_is_taken_up_again_keeps_share_and_estimate(opened, host, compute, monkeypatch):
    monkeypatch.setattr(session_module, "_STEPS_TO_TRUST", 10)
    first = opened()
    first.train()
    share, estimate = first.judge.share, dict(first.judge.estimate)
    assert share > 0 and estimate
    first.close()
    again = Session.open(first.job.folder, DeviceChoice(chosen=compute), host)
    known = []

    def look(stage, step):
        known.append((step, again.judge.share, dict(again.judge.estimate)))

    host.on_tick = look
    again.train({"steps": 1})
    again.close()
    assert (12, share, estimate) in known


@pytest.mark.slow
def test_the_same_seed_gives_the_same_result(opened):
    results = [np.load(opened(replace(QUICK, seed=5)).train().dense) for _ in range(2)]
    np.testing.assert_array_equal(*results)


def test_all_annotation_is_trained_on_from_the_first_step(opened, host):
    running = opened(replace(QUICK, steps=20, pseudo_label_weight=0.0))
    seen = {}

    def look(stage, step):
        if stage == "training" and running.network is not None:
            targets = running.network.trainer.volume.targets
            _, weights = targets.at(torch.arange(targets.labels.numel()))
            seen[step] = int((weights > 0).sum()), len(targets.sampler.slices)

    host.on_tick = look
    running.train()
    assert seen == dict.fromkeys(range(21), (3 * 40 * 36, 3))
    assert set(running.judge.estimate) == {"Segment_1", "Segment_2"}


@pytest.mark.slow
def test_a_coarser_working_grid_still_gives_the_result_on_the_volumes_own(opened):
    phantom = two_organs((32, 64, 60))
    running = opened(replace(QUICK, steps=60, patch_voxels=1000), phantom)
    outcome = running.train()
    assert running.network.trainer.plan.grid_kji == (24, 32, 30)  # 32 x 30 pixels are fewer than 1000
    dense = np.load(outcome.dense)
    assert dense.shape == (32, 64, 60)
    assert (dense == phantom.truth).mean() > 0.9


@pytest.mark.slow
def test_the_user_may_take_a_model_of_other_segments_as_a_start(opened, tmp_path):
    first = opened()
    model = first.train().model
    second = opened(phantom=two_organs(seed=1))
    outcome = second.train(start_from=str(model))
    assert outcome.step == 12


def test_a_stroke_changes_its_surroundings_a_complete_slice_all(opened, monkeypatch):
    """What the user saw is held far from strokes; a slice that was segmented as a whole says something about all of its gap."""
    phantom = two_organs()
    stroke, whole = phantom.annotation.copy(), phantom.annotation.copy()
    stroke[9, 18:22, 18] = 3
    whole[9] = phantom.truth[9] + 1
    asked = []

    def within(self, *arguments, plain=reach.Share.within):
        asked.append(self._changes)
        return plain(self, *arguments)

    monkeypatch.setattr(reach.Share, "within", within)
    running = opened()
    running.train()
    assert not asked
    for revision, annotation in ((2, stroke), (3, np.maximum(stroke, whole))):
        name = f"annotation-{revision:04d}.npy"
        np.save(running.job.path(name), annotation)
        running.update(name, revision, [])
    assert len(asked) == 2  # growing's answer to the stroke, and the refiner's
    (changed,) = asked[0]
    expected = stroke != phantom.annotation
    np.testing.assert_array_equal(changed.mask, expected[changed.box])
    assert changed.mask.sum() == expected.sum()


def bar_with_a_step():
    """A dark segment beside a bar that is brighter from slice 8 on; slices 2 and 37 are complete, and say that the bar is background."""
    phantom = two_organs((40, 24, 24))
    truth = np.zeros((40, 24, 24), np.uint8)
    truth[:, 4:8, 4:20] = 1
    image = np.where(truth == 1, -100, 0).astype(np.int16)
    image[:, 14:18, 4:20] = 100
    image[8:, 14:18, 4:20] = 160
    image += np.random.default_rng(0).normal(0, 2, image.shape).astype(np.int16)
    annotation = np.zeros(truth.shape, np.uint8)
    for index in (2, 37):
        annotation[index] = truth[index] + 1
    return replace(phantom, image=image, truth=truth, annotation=annotation, classes=ClassTable.numbered(1))


@pytest.mark.parametrize("holds", [True, False])
def test_what_a_stroke_does_not_reach_stays_as_the_user_saw_it(opened, host, monkeypatch, holds):
    """A stroke on slice 20 says that the bar is the segment there. Growing from nothing carries that to the step, nearer to slice 2 than to it."""
    if not holds:
        monkeypatch.setattr(reach.Share, "within", lambda self, before, after, *_: Belief(after.label.copy(), after.confidence.copy()))
    phantom = bar_with_a_step()
    running = opened(Settings(refine=False), phantom=phantom)
    stroke = phantom.annotation.copy()
    stroke[20, 16, 5:19] = 2
    for revision, annotation in ((2, phantom.annotation), (3, stroke)):
        name = f"annotation-{revision:04d}.npy"
        np.save(running.job.path(name), annotation)
        running.update(name, revision, [])
    before, after = (next(p[2] for p in reversed(host.previews) if p[1] == n)[:, 14:18, 4:20] for n in (2, 3))
    assert not before.any()
    assert after[17:24].mean() > 0.8
    assert (after[9:12].mean() < 0.1) if holds else (after[9:12].mean() > 0.8)


def test_an_update_cancelled_while_growing_leaves_no_prior_of_the_old_annotation(opened, host):
    running = opened(Settings(refine=False))
    running.prior.grow(running.labels)
    old = running.prior.grown.label.copy()
    annotation = two_organs().annotation.copy()
    annotation[9] = 1
    np.save(running.job.path("annotation-0002.npy"), annotation)

    def cancel(stage, step):
        if stage == "prior" and running.job.record.revision == 2:  # it is adopted
            raise Cancelled

    host.on_tick = cancel
    running.update("annotation-0002.npy", 2, [])
    assert [(source, revision) for source, revision, _ in host.previews] == [("growing", 2)]
    host.on_tick = lambda stage, step: None
    assert old[9].any()
    assert not running.prior.grow(running.labels)[9].any()


def test_boxes_answer_a_stroke_twice_and_leave_the_rest(opened, host):
    running = opened()
    running.train({"estimate": False})
    annotation, box = two_organs().annotation.copy(), (slice(20, 21), slice(18, 20), slice(2, 6))
    annotation[box] = 3
    seen = len(host.previews)
    send(running, 2, annotation, box)
    first, second = host.previews[seen:]
    assert (first[:2], second[:2]) == (("growing", 2), ("prior", 2))
    for part in host.boxes[seen:]:
        assert np.prod([s.stop - s.start for s in part]) < annotation.size / 2
    assert (second[2][box] == 2).all()
    np.testing.assert_array_equal(running.publisher.shown, second[2])


def test_many_strokes_in_boxes_are_one_annotation(opened):
    """What the voices were told in boxes is what they would be told at once."""
    rng = np.random.default_rng(3)
    phantom = two_organs()
    running = opened(replace(QUICK, estimate=False))
    running.train()
    annotation = phantom.annotation.copy()
    for revision in range(2, 10):
        k, j, i = (int(rng.integers(2, n - 6)) for n in annotation.shape)
        box = (slice(k, k + 1), slice(j, j + 4), slice(i, i + 4))
        annotation[box] = 0 if revision % 3 == 0 else phantom.truth[box] + 1
        send(running, revision, annotation, box)
    anew = build_annotation(annotation, running.job.record.classes)
    np.testing.assert_array_equal(running.annotation.labels, anew.labels)
    np.testing.assert_array_equal(running.annotation.labelled, anew.labelled)
    grown = Grown.start(running.job.image(), anew.labels, anew.labelled, running.job.record.geometry.spacing_kji_mm, plan=running.prior.grown.plan)
    np.testing.assert_array_equal(running.prior.grown.label, grown.label)
    np.testing.assert_array_equal(running.prior.grown.confidence, grown.confidence)
    np.testing.assert_array_equal(running.job.annotation(), annotation)
    np.testing.assert_array_equal(running.publisher.shown[anew.labelled], anew.labels[anew.labelled])


@pytest.mark.parametrize("smooth", [False, True])
def test_paint_stands_unless_smoothing_is_asked_for_and_then_but_at_rims(opened, smooth):
    exact = two_organs().annotation
    painted = hands.contours_off(np.random.default_rng(0), exact, 2)
    running = opened(replace(QUICK, estimate=False, smooth_contours=smooth), annotation=painted)
    outcome = running.train()
    dense, labels, labelled = np.load(outcome.dense), running.annotation.labels, running.annotation.labelled
    overruled = labelled & (dense != labels)
    assert overruled.any() == smooth
    assert not (overruled & ~in_doubt(labels, labelled)).any()
    np.testing.assert_array_equal(running.publisher.shown, dense)
    if smooth:
        assert (dense == exact - 1)[overruled].mean() > 0.6


def test_labels_in_doubt_weigh_less_and_the_report_says_how_precise_they_are(opened):
    precise = {}
    for off in (0, 2):
        painted = hands.contours_off(np.random.default_rng(0), two_organs().annotation, off)
        running = opened(replace(QUICK, estimate=False), annotation=painted)
        running.train()
        plain, written = running.annotation.weights, np.load(running.job.path("weights.npy"))
        doubted = in_doubt(running.annotation.labels, running.annotation.labelled)
        assert (written < plain)[doubted].mean() > 0.9 and (written > 0)[doubted].all()
        np.testing.assert_array_equal(written[~doubted], plain[~doubted])
        precise[off] = json.loads(running.job.path("report.json").read_text(encoding="utf-8"))["annotation_precision"]
    assert precise[2] < precise[0] < 1


def test_a_cancelled_stroke_is_answered_with_the_next_one(opened, host):
    phantom = two_organs()
    running = opened(replace(QUICK, estimate=False))
    running.train()
    annotation, one, two = phantom.annotation.copy(), (slice(9, 10), slice(0, 40), slice(0, 36)), (slice(20, 21), slice(18, 20), slice(2, 6))
    annotation[one] = np.where(np.arange(36) % 3 == 0, phantom.truth[one] + 1, 0)

    def cancel(stage, step):
        if stage == "prior":
            raise Cancelled

    host.on_tick = cancel
    send(running, 2, annotation, one)
    host.on_tick = lambda *_: None
    annotation[two] = 3
    send(running, 3, annotation, two)
    labelled = annotation > 0
    np.testing.assert_array_equal(running.publisher.shown[labelled], annotation[labelled] - 1)
    np.testing.assert_array_equal(running.publisher.shown, np.where(labelled, running.annotation.labels, running.prior.stands.label))
    assert (running.prior.stands.label[two] == 2).all()


def test_a_mistake_that_is_painted_in_a_run_is_told_in_that_run(opened, host, monkeypatch):
    monkeypatch.setattr(session_module, "_CHECK_AFTER_S", 0.0)
    running, phantom = opened(replace(QUICK, estimate=False)), two_organs()
    forgetful = phantom.annotation.copy()
    forgetful[12][phantom.truth[12] == 1] = 1

    def paint(stage, step):
        if stage == "training" and step == 2 and not host.has_sent and running.job.record.revision == 1:
            assert host.checks == []
            np.save(running.job.path("annotation-0002.npy"), forgetful)
            host.updates.append(lambda session: session.update("annotation-0002.npy", 2, []))

    host.on_tick = paint
    outcome = running.train()
    ((places, revision),) = host.checks
    assert revision == 2
    assert [(place.index, place.believed) for place in places] == [(12, "Segment_1")]
    assert outcome.places == places


def test_an_update_that_comes_while_mistakes_are_looked_for_is_answered_first(opened, host, monkeypatch):
    running, phantom = opened(replace(QUICK, estimate=False)), two_organs()
    looked = []

    def look(gray, annotation, believed_without, *_):
        looked.append(len(host.previews))
        if len(looked) == 1:
            np.save(running.job.path("annotation-0002.npy"), phantom.annotation)
            host.updates.append(lambda session: session.update("annotation-0002.npy", 2, []))
        believed_without(annotation, annotation.labelled)

    monkeypatch.setattr(running.checker, "look", look)
    running.train()
    assert running.job.record.revision == 2
    assert looked[0] >= 2  # after growing and refiner have answered
    answered = [revision for _, revision, _ in host.previews]
    assert 2 in answered


def test_a_correction_that_comes_while_the_result_is_estimated_is_estimated_with_it(opened, host):
    running, phantom, looked = opened(replace(QUICK, steps=20)), two_organs(), []
    annotation = phantom.annotation.copy()
    annotation[9] = np.where(phantom.truth[9] == 1, 1, phantom.truth[9] + 1)

    class Look:
        """As the judge's, with a correction that comes during the first."""

        def __init__(self, plain):
            self.plain = plain

        def __call__(self, result, evidence, of, grow, *_):
            looked.append((running.job.record.revision, result[9].copy()))
            if len(looked) == 1:
                np.save(running.job.path("annotation-0002.npy"), annotation)
                host.updates.append(lambda session: session.update("annotation-0002.npy", 2, []))
            self.plain(result, evidence, of, grow)

    running.judge.look = Look(running.judge.look)
    running.train()
    assert [revision for revision, _ in looked[:2]] == [1, 2]
    assert (looked[0][1] == 1).any() and not (looked[1][1] == 1).any()


def test_a_stroke_while_the_refiner_begins_is_answered_before_it_ends(opened, host):
    phantom = two_organs()
    running = opened(replace(QUICK, estimate=False))
    annotation = phantom.annotation.copy()
    annotation[20, 18:20, 2:6] = 3

    def stroke(stage, step):
        if running.prior.grown is not None and not running.prior.is_complete and running.job.record.revision == 1 and not host.has_sent:
            np.save(running.job.path("annotation-0002.npy"), annotation)
            host.updates.append(lambda session: session.update("annotation-0002.npy", 2, []))

    host.on_tick = stroke
    running.train()
    assert [(source, revision) for source, revision, _ in host.previews[:3]] == [("growing", 1), ("growing", 2), ("prior", 2)]


def test_after_many_strokes_the_voices_are_renewed_while_idle_and_what_stands_stays(opened, host, monkeypatch):
    monkeypatch.setattr(prior_voice, "_RENEW_AFTER", 2)
    running = opened(replace(QUICK, estimate=False))
    running.train()
    annotation = two_organs().annotation.copy()
    for revision in (2, 3):
        box = (slice(19 + revision, 20 + revision), slice(18, 20), slice(2, 6))
        annotation[box] = 3
        send(running, revision, annotation, box)
    before, stands, seen = running.prior.grown, running.prior.stands.label.copy(), len(host.previews)
    running.idle()
    assert running.prior.grown is not before
    np.testing.assert_array_equal(running.prior.stands.label, stands)
    assert len(host.previews) == seen
    box = (slice(2, 3), slice(5, 8), slice(5, 8))
    annotation[box] = 1
    send(running, 4, annotation, box)
    assert not running.publisher.shown[box].any()


def test_an_erased_background_is_refused_in_words_and_the_next_stroke_is_taken(opened):
    running = opened(replace(QUICK, estimate=False))
    running.train()
    phantom = two_organs()
    without = np.where(phantom.annotation == 1, 0, phantom.annotation).astype(np.uint8)
    with pytest.raises(AnnotationError, match="No background is labelled"):
        send(running, 2, without)
    annotation, box = phantom.annotation.copy(), (slice(20, 21), slice(18, 20), slice(2, 6))
    annotation[box] = 3
    send(running, 2, annotation, box)
    np.testing.assert_array_equal(running.annotation.labelled, annotation > 0)
    assert (running.publisher.shown[box] == 2).all()


def test_thousands_of_single_voxels_stand(opened):
    rng = np.random.default_rng(0)
    running = opened(replace(QUICK, estimate=False))
    running.train()
    phantom = two_organs()
    annotation = np.where(rng.random(phantom.truth.shape) < 0.1, phantom.truth + 1, phantom.annotation).astype(np.uint8)
    send(running, 2, annotation)
    labelled = annotation > 0
    np.testing.assert_array_equal(running.publisher.shown[labelled], annotation[labelled] - 1)


def test_a_box_of_an_annotation_that_is_not_there_is_refused(tmp_path, compute, host):
    phantom = two_organs()
    folder = tmp_path / "job"
    Job.create(folder, phantom.image, None, JobRecord(phantom.geometry, phantom.classes, QUICK)).close()
    running = Session.open(folder, DeviceChoice(chosen=compute), host)
    box = (slice(12, 13), slice(0, 40), slice(0, 36))
    with pytest.raises(JobError, match="no annotation yet"):
        send(running, 2, phantom.annotation, box)
    send(running, 2, phantom.annotation)
    assert running.annotation.labelled.sum() == (phantom.annotation > 0).sum()
    running.close()


def test_a_run_may_leave_the_refiner_out(opened, host):
    running = opened(replace(QUICK, estimate=False))
    running.train({"refine": False})
    grown = running.prior.grown
    np.testing.assert_array_equal(running.prior.stands.label, grown.label)
    running.train({"refine": True})
    assert running.prior.grown is not grown


@pytest.mark.parametrize(("budget", "steps_before"), [(86400, 0), (1.0, 6)])
def test_where_looking_for_mistakes_takes_long_the_network_learns_first(opened, monkeypatch, budget, steps_before):
    running, looked = opened(replace(QUICK, estimate=False, time_budget_s=budget)), []
    plain = running.checker.look

    def look(*arguments):
        looked.append(running.network.steps)
        plain(*arguments)

    monkeypatch.setattr(running.checker, "look", look)
    monkeypatch.setattr(session_module, "_CHECK_COST", 100 if budget == 86400 else 1e6)
    running.train()
    assert looked[0] == steps_before and running.checker.is_current
