"""A session of six segments of which two are painted: the others stay empty until they are painted, and again once that is erased."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sessions import send

from phantoms import two_organs
from sparseseg.contract.box import whole
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import AnnotationError, Cancelled
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.settings import Settings
from sparseseg.network.predict import Probabilities
from sparseseg.network.sampling import WorkingGrid
from sparseseg.session.devices import DeviceChoice
from sparseseg.session.session import Session

QUICK = Settings(steps=12, width=4, depth=2, patch_voxels=16**3)
SIX = ClassTable.numbered(6, ["stomach", "bright", "gall", "dark", "spleen", "vein"])
BRIGHT, DARK, SPLEEN = 2, 4, 5
AMONG_SIX = np.array([0, BRIGHT, DARK], np.uint8)  # what the two organs of the phantom are called here
PLAIN = two_organs()
TRUTH = AMONG_SIX[PLAIN.truth]
ANNOTATION = np.where(PLAIN.annotation > 0, TRUTH + 1, 0).astype(np.uint8)
STROKES = np.where(np.arange(36) % 5 < 2, ANNOTATION, 0).astype(np.uint8)  # the same slices, none of them labelled throughout
ALL_FOUR = ("unpainted", "Nothing is painted in stomach, gall, spleen, vein: they stay empty.")


@pytest.fixture
def opened(session_on):
    """opened(annotation, settings) -> a session of the six segments; or of another phantom."""
    six = replace(PLAIN, truth=TRUTH, annotation=ANNOTATION, classes=SIX)
    return lambda annotation=ANNOTATION, settings=QUICK, phantom=None: session_on(phantom or six, settings, annotation)


def without(annotation, *values):
    return np.where(np.isin(annotation, [value + 1 for value in values]), 0, annotation).astype(np.uint8)


def shown(host):
    """Which segments each preview has."""
    return [set(np.unique(dense).tolist()) - {0} for *_, dense in host.previews]


@pytest.mark.slow
def test_the_painted_ones_are_trained_and_the_others_empty_and_named_once(opened, host):
    running = opened()
    assert host.warnings == []  # nothing was asked for yet
    outcome = running.train()
    assert host.warnings == [ALL_FOUR]
    assert shown(host) == [{BRIGHT, DARK}] * len(host.previews)
    dense = np.load(outcome.dense)
    assert set(np.unique(dense)) == {0, BRIGHT, DARK}
    np.testing.assert_array_equal(dense[ANNOTATION > 0], ANNOTATION[ANNOTATION > 0] - 1)
    assert set(outcome.estimate) == {"Segment_2", "Segment_4"}
    report = json.loads(running.job.path("report.json").read_text(encoding="utf-8"))
    assert set(report["estimate"]) == {"Segment_2", "Segment_4"}
    assert "spleen: 0 voxels" in report["annotation"]
    running.train()
    assert host.warnings == [ALL_FOUR]


def test_the_prior_is_that_of_the_painted_ones_alone(opened):
    some, alone = opened(settings=replace(QUICK, estimate=False)), opened(PLAIN.annotation, replace(QUICK, estimate=False), PLAIN)
    for running in (some, alone):
        running.train({"steps": 1})
    np.testing.assert_array_equal(some.prior.stands.label, AMONG_SIX[alone.prior.stands.label])
    np.testing.assert_array_equal(some.prior.stands.confidence, alone.prior.stands.confidence)


@pytest.mark.slow
@pytest.mark.parametrize("annotation", [ANNOTATION, STROKES], ids=["slices", "strokes"])
def test_a_segment_that_is_painted_later_joins_in_and_one_that_is_erased_is_empty_again(opened, host, annotation):
    running = opened(without(annotation, DARK))
    running.train()
    assert host.warnings == [("unpainted", "Nothing is painted in stomach, gall, dark, spleen, vein: they stay empty.")]
    assert shown(host)[-1] == {BRIGHT}
    send(running, 2, annotation)
    assert host.warnings[1:] == [ALL_FOUR]
    assert shown(host)[-1] == {BRIGHT, DARK}
    seen = host.previews[-1][2]
    np.testing.assert_array_equal(seen[annotation > 0], annotation[annotation > 0] - 1)
    both = running.train()
    assert set(np.unique(np.load(both.dense))) == {0, BRIGHT, DARK}

    before = len(host.previews)
    send(running, 3, without(annotation, DARK))
    assert len(host.previews) > before
    assert shown(host)[before:] == [{BRIGHT}] * (len(host.previews) - before)
    assert list(running.judge.estimate) == ["Segment_2"]
    running.idle()
    outcome = running.train()
    assert set(np.unique(np.load(outcome.dense))) == {0, BRIGHT}
    assert "Segment_4" not in outcome.estimate
    assert len(host.warnings) == 2  # each set was told before


@pytest.mark.parametrize("box", [True, False])
def test_erased_while_training_it_goes_from_the_result(opened, host, box):
    running = opened(STROKES)

    def erase(stage, step):
        if stage == "training" and step == 2 and not host.has_sent and running.job.record.revision == 1:
            host.updates.append(lambda session: send(session, 2, without(STROKES, DARK), whole(STROKES.shape) if box else None))

    host.on_tick = erase
    outcome = running.train()
    assert running.job.record.revision == 2
    assert set(np.unique(np.load(outcome.dense))) == {0, BRIGHT}
    assert shown(host)[-1] == {BRIGHT}
    assert set(outcome.estimate) <= {"Segment_2"}


def test_painted_while_training_it_is_in_the_result(opened, host):
    running = opened(without(STROKES, DARK))

    def paint(stage, step):
        if stage == "training" and step == 2 and not host.has_sent and running.job.record.revision == 1:
            host.updates.append(lambda session: send(session, 2, STROKES))

    host.on_tick = paint
    outcome = running.train()
    dense = np.load(outcome.dense)
    assert set(np.unique(dense)) == {0, BRIGHT, DARK}
    np.testing.assert_array_equal(dense[STROKES > 0], STROKES[STROKES > 0] - 1)
    assert [sentence for _, sentence in host.warnings][1:] == [ALL_FOUR[1]]


def test_an_erasure_that_is_cancelled_is_made_up_for_by_the_next_stroke(opened, host):
    running = opened(STROKES, replace(QUICK, estimate=False))
    running.train()

    def cancel(stage, step):
        if stage == "prior":
            raise Cancelled

    host.on_tick = cancel
    send(running, 2, without(STROKES, DARK))
    host.on_tick = lambda *_: None
    stroke = without(STROKES, DARK)
    stroke[9, :4, :4] = 1
    send(running, 3, stroke, (slice(9, 10), slice(0, 4), slice(0, 4)))
    assert shown(host)[-1] == {BRIGHT}


def believed(running, dense, share=0.5):
    """The network is sure of a label map, and has this share of the result."""
    classes = np.zeros((7, *dense.shape), np.uint8)
    np.put_along_axis(classes, dense[None].astype(np.int64), 255, axis=0)
    grid = WorkingGrid.of_whole(dense.shape, dense.shape)
    network = running.network
    network._belief = network._calibrated = Probabilities(torch.from_numpy(classes), grid)
    network._belief_steps = network.steps
    running.judge.share = share


def test_a_network_that_names_an_unpainted_segment_is_not_heard(opened):
    running = opened(settings=replace(QUICK, estimate=False))
    running.train()
    stands = running.prior.stands
    free = ANNOTATION == 0
    stands.confidence[free] = 0  # so that anybody may win
    believed(running, np.full(TRUTH.shape, DARK, np.uint8))
    assert (running._fused()[free] == DARK).all()
    believed(running, np.full(TRUTH.shape, SPLEEN, np.uint8), share=0.9)
    dense, _ = running.together.result(lambda: None)
    np.testing.assert_array_equal(dense, running._fused())
    assert set(np.unique(dense)) <= {0, BRIGHT, DARK}


@pytest.mark.parametrize("voice", ["network", "prior", "prior, overruled"])
def test_what_a_voice_saw_of_an_erased_segment_far_from_its_paint_goes_too(opened, host, voice):
    walled, far = without(STROKES, DARK), (slice(20, 23), slice(36, 40), slice(30, 34))
    walled[1:4, :5, :5] = 1
    painted = walled.copy()
    painted[2, 2, 2] = DARK + 1
    running = opened(painted, replace(QUICK, estimate=False, refine=False))
    running.train()
    assert not (running.prior.stands.label[far] == DARK).any()
    seen = running.prior.stands.label.copy()
    if voice == "network":
        seen[far] = DARK
    else:
        running.prior.stands.label[far] = DARK
    if voice != "prior":
        believed(running, seen)
        running.prior.stands.confidence[far] = 100
    running._show(running._fused(), "network")
    assert (host.previews[-1][2][far] == DARK).any() == (voice != "prior, overruled")
    first = len(host.previews)
    send(running, 2, walled)
    assert shown(host)[first:] == [{BRIGHT}, {BRIGHT}]  # growing's answer, and then what stands
    assert not (running.prior.stands.label == DARK).any()


@pytest.mark.slow
def test_taken_up_again_nothing_is_estimated_of_an_erased_segment(opened, host, compute):
    running = opened()
    running.train()
    assert set(running.judge.estimate) == {"Segment_2", "Segment_4"}
    send(running, 2, without(ANNOTATION, DARK))
    folder = running.job.folder
    running.close()
    again = Session.open(folder, DeviceChoice(chosen=compute), host)
    outcome = again.train({"steps": 2})
    again.close()
    assert set(outcome.estimate) <= {"Segment_2"}
    assert set(np.unique(np.load(outcome.dense))) == {0, BRIGHT}


def test_a_job_without_annotation_is_refused_and_the_next_update_is_answered_to_the_end(tmp_path, host, compute):
    Job.create(tmp_path / "job", PLAIN.image, None, JobRecord(PLAIN.geometry, SIX, QUICK)).close()
    running = Session.open(tmp_path / "job", DeviceChoice(chosen=compute), host)
    with pytest.raises(AnnotationError, match="The job has no annotation"):
        running.train()
    send(running, 2, ANNOTATION)
    assert [source for source, *_ in host.previews][-1] == "prior"
    assert host.warnings == [ALL_FOUR]
    running.close()
