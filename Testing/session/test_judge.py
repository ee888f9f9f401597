"""What held-out annotation says of the voices: when it is asked, whom it trusts, and what users are told."""

import numpy as np
import pytest

from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.belief import Belief
from sparseseg.contract.classes import ClassTable
from sparseseg.quality import estimate
from sparseseg.session.judge import Judge

SHAPE = (12, 12, 12)
TRUTH = np.zeros(SHAPE, np.uint8)
TRUTH[2:10, 2:10, 1:6], TRUTH[2:10, 2:10, 6:11] = 1, 2
TWO = ClassTable.numbered(2)


def annotated(*slices):
    values = np.zeros(SHAPE, np.uint8)
    for k in slices:
        values[k] = TRUTH[k] + 1
    return build_annotation(values, TWO)


def sure(label, confidence=255):
    return Belief(label, np.full(label.shape, confidence, np.uint8))


def swapped(label, *places):
    """Segment 1 called 2 and the other way round at these k."""
    other = label.copy()
    for k in places:
        other[k] = np.array([0, 2, 1], np.uint8)[label[k]]
    return other


def judge_of(annotation, prior, use=None):
    judge = Judge(TWO.ids)
    judge.hold_out(annotation, lambda rest, held: (prior, use))
    return judge


def expected_of(prior, annotation):
    return estimate.confidences(prior, annotation.labelled, 3)


def measure(judge, annotation, network, refined=True):
    said = Belief(network[judge.held], np.full(judge.held.sum(), 255, np.uint8))
    return judge.measure(said, annotation, expected_of(judge.prior, annotation), lambda _: refined)


def test_what_is_held_out_and_what_the_voices_are_asked_for():
    annotation, asked = annotated(3, 6, 9), []
    judge = Judge(TWO.ids)
    judge.hold_out(annotation, lambda rest, held: asked.append((rest, held)) or (sure(TRUTH), [True, False]))
    ((rest, held),) = asked
    assert (held == judge.held).all()
    assert held[6].all() and held.sum() == 144
    assert (rest == (annotation.labelled & ~held)).all()
    assert judge.use == [True, False]


def test_too_little_annotation_is_not_held_out_and_nobody_is_asked():
    values = np.zeros(SHAPE, np.uint8)
    values[0, 0, 0], values[5, 5, 3], values[9, 9, 8] = 1, 2, 3
    judge = Judge(TWO.ids)
    judge.hold_out(build_annotation(values, TWO), lambda *_: pytest.fail("asked"))
    assert judge.held is None
    assert not judge.is_due(1.0)


def test_it_is_due_three_times_and_then_over():
    judge = judge_of(annotated(3, 6, 9), sure(TRUTH))
    due = [share for share in np.linspace(0, 1, 101).round(2) if judge.is_due(share)]
    assert due == [0.12, 0.3, 0.6]
    assert judge.is_over and judge.measured


def test_late_measurements_are_made_once():
    judge = judge_of(annotated(3, 6, 9), sure(TRUTH))
    assert judge.is_due(0.7) and not judge.is_due(0.7)
    assert judge.is_over


def test_a_network_that_is_better_is_trusted_and_its_dice_told():
    annotation = annotated(3, 6, 9)
    prior = sure(swapped(TRUTH, 5, 6, 7), 150)
    judge = judge_of(annotation, prior)
    scores = measure(judge, annotation, TRUTH)
    assert scores == {"fused": 1.0, "network": 1.0, "prior": 0.0}
    assert judge.trust.tolist() == [0.5, 0.5, 0.5]
    assert judge.estimate == dict.fromkeys(TWO.ids, 1.0)


def test_a_network_that_is_worse_has_no_say():
    annotation = annotated(3, 6, 9)
    judge = judge_of(annotation, sure(TRUTH, 250))
    scores = measure(judge, annotation, swapped(TRUTH, 6))
    assert scores == {"fused": 1.0, "network": 0.0, "prior": 1.0}
    assert not judge.trust.any()
    assert all(0.5 < judge.estimate[i] < 1 for i in TWO.ids)


def test_a_prior_that_was_more_wrong_than_it_believed_is_believed_less():
    annotation, estimates = annotated(3, 6, 9), []
    for wrong in ((), (6,)):
        judge = judge_of(annotation, sure(swapped(TRUTH, *wrong), 240))
        measure(judge, annotation, swapped(TRUTH, 6))
        estimates.append(np.mean([*judge.estimate.values()]))
    assert estimates[1] < estimates[0]


def test_a_segment_of_few_held_out_voxels_is_not_judged():
    few = TRUTH.copy()
    few[6][few[6] == 2] = 0
    few[6, 2:4, 6:10] = 2  # 8 voxels
    values = np.zeros(SHAPE, np.uint8)
    for k in (3, 6, 9):
        values[k] = few[k] + 1
    annotation = build_annotation(values, TWO)
    judge = judge_of(annotation, sure(few, 250))
    measure(judge, annotation, few)
    assert list(judge.estimate) == [TWO.ids[0]]
    assert judge.trust[2] == 0


def test_the_estimate_follows_the_prior_and_not_the_trusted_networks_dice():
    annotation = annotated(3, 6, 9)
    judge = judge_of(annotation, sure(TRUTH, 250))
    measure(judge, annotation, swapped(TRUTH, 6))
    before = dict(judge.estimate)
    judge.renew_estimate(expected_of(sure(TRUTH, 128), annotation))
    assert all(judge.estimate[i] < before[i] for i in TWO.ids)
    judge.renew_estimate(expected_of(sure(np.zeros(SHAPE, np.uint8)), annotation))
    assert set(judge.estimate.values()) == {0.0}  # the prior has lost the segments


def test_segments_that_nobody_painted_hinder_no_judgement_and_get_none():
    values = np.zeros(SHAPE, np.uint8)
    for k in (3, 6, 9):
        values[k] = np.array([1, 3, 5], np.uint8)[TRUTH[k]]
    annotation, prior = build_annotation(values, ClassTable.numbered(5)), sure(np.array([0, 2, 4], np.uint8)[TRUTH], 250)
    judge = Judge(ClassTable.numbered(5).ids)
    judge.hold_out(annotation, lambda rest, held: (prior, None))
    assert judge.held[6].all() and judge.held.sum() == 144
    truth = np.array([0, 2, 4], np.uint8)[TRUTH]
    said = Belief(truth[judge.held], np.full(144, 255, np.uint8))
    judge.measure(said, annotation, estimate.confidences(prior, annotation.labelled, 6), lambda _: True)
    assert list(judge.estimate) == ["Segment_2", "Segment_4"]
    assert np.flatnonzero(judge.trust[1:]).tolist() == [1, 3]


def test_nothing_is_known_of_a_segment_that_was_erased():
    annotation = annotated(3, 6, 9)
    judge = judge_of(annotation, sure(swapped(TRUTH, 5, 6, 7), 150))
    measure(judge, annotation, TRUTH)
    assert judge.trust.all() and list(judge.estimate) == TWO.ids
    erased = build_annotation(np.where(annotation.labels == 2, 0, annotation.labelled * (annotation.labels + 1)).astype(np.uint8), TWO)
    judge.annotated(erased, (slice(0, 12),) * 3)
    assert judge.trust[2] == 0 and judge.trust[1] > 0
    assert list(judge.estimate) == TWO.ids[:1]
    judge.renew_estimate(expected_of(sure(TRUTH), annotation))
    assert list(judge.estimate) == TWO.ids[:1]
    assert not (judge.held & ~erased.labelled).any()


def test_released_it_holds_nothing_and_keeps_what_it_found():
    annotation = annotated(3, 6, 9)
    judge = judge_of(annotation, sure(swapped(TRUTH, 6), 150))
    measure(judge, annotation, TRUTH)
    found = judge.trust.copy(), dict(judge.estimate)
    judge.release()
    assert judge.held is None and judge.prior is None and judge.done
    assert not judge.is_due(1.0)
    assert (judge.trust == found[0]).all() and judge.estimate == found[1]
    judge.forget()
    assert not judge.trust.any() and judge.estimate == {} and not judge.done and not judge.measured


def test_it_comes_back_from_its_state():
    annotation = annotated(3, 6, 9)
    judge = judge_of(annotation, sure(swapped(TRUTH, 6), 150))
    measure(judge, annotation, TRUTH)
    judge.release()
    other = Judge(TWO.ids)
    other.load_state(judge.state())
    assert (other.trust == judge.trust).all() and other.done
    for each in (judge, other):
        each.renew_estimate(expected_of(sure(TRUTH, 200), annotation))
    assert other.estimate == judge.estimate
