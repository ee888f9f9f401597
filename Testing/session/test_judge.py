"""What the judge knows of the voices: when it looks, the network's share, what users are told, and which segments the refiner corrects."""

from types import SimpleNamespace

import numpy as np
import pytest

from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.classes import ClassTable
from sparseseg.quality import estimate
from sparseseg.quality.shares import OF_STROKES, SHARE, Standing
from sparseseg.session import judge as judge_module
from sparseseg.session.judge import Judge, choose_use

SHAPE = (13, 12, 12)
TRUTH = np.zeros(SHAPE, np.uint8)
TRUTH[:, 2:10, 1:6], TRUTH[:, 2:10, 6:11] = 1, 2
TWO, FIVE = ClassTable.numbered(2), ClassTable.numbered(5)
STANDING = Standing(0.8, 0.9, 1.5)
STEPS = judge_module._STEPS_TO_LEARN


def annotated(*slices, truth=TRUTH, classes=TWO, part=None):
    """Complete slices, or a part of their columns."""
    values = np.zeros(SHAPE, np.uint8)
    for k in slices:
        values[k, :, part or slice(None)] = truth[k, :, part or slice(None)] + 1
    return build_annotation(values, classes)


SURE = SimpleNamespace(believed=lambda value: 1.0, agreement=lambda value: 1.0)  # in place of evidence


def brings_back(labels):
    """Growing that always answers this."""
    return lambda seeds, known: labels


def never(*_):
    pytest.fail("growing was asked")


def told(reverse, has_slices=True):
    return round(estimate.expected(reverse, 1.0, 1.0, has_slices), 4)


# ---------------------------------------------------------------- when it looks


def test_it_is_due_at_each_time_once_and_anew_in_another_run():
    judge = Judge(TWO.ids)
    for _ in range(2):
        assert [at for at in np.linspace(0, 1, 101).round(2).tolist() if judge.is_due(at)] == list(judge_module._AT)
        judge.begin()


def test_looks_that_are_late_are_made_once():
    judge = Judge(TWO.ids)
    assert judge.is_due(0.99)
    assert not judge.is_due(1.0)


# ---------------------------------------------------------------- the network's share


def test_a_network_that_was_weighed_has_its_share_and_more_where_slices_are_complete():
    judge = Judge(TWO.ids)
    assert judge.share == 0
    judge.weigh(STANDING, STEPS, has_slices=False)
    assert (judge.share, judge.standing) == (OF_STROKES, STANDING)
    judge.weigh(STANDING, 10 * STEPS, has_slices=True)
    assert judge.share == SHARE > OF_STROKES > 0


def test_the_share_grows_with_the_first_steps():
    judge, found = Judge(TWO.ids), []
    for steps in (0, STEPS // 4, STEPS // 2, STEPS):
        judge.weigh(STANDING, steps, has_slices=True)
        found.append(judge.share)
    np.testing.assert_allclose(found, SHARE * np.array([0, 0.25, 0.5, 1]))


# ---------------------------------------------------------------- the estimate


def test_what_growing_from_the_result_between_the_slices_says_of_them_is_told():
    annotation, asked, judge = annotated(2, 6, 10), [], Judge(TWO.ids)
    found = TRUTH.copy()
    found[2][TRUTH[2] == 2] = 0  # of three slices with segment 2, one is not brought back

    def grow(seeds, known):
        asked.append((seeds.copy(), known.copy()))
        return found

    judge.look(TRUTH, SURE, annotation, grow)
    ((seeds, known),) = asked
    assert np.flatnonzero(known.any(axis=(1, 2))).tolist() == [0, 4, 8, 12]
    np.testing.assert_array_equal(seeds, np.where(known, TRUTH, 0))
    assert judge.estimate == {"Segment_1": told(1), "Segment_2": told(2 * 2 / 5)}
    assert judge.mean_estimate == pytest.approx((told(1) + told(2 * 2 / 5)) / 2)


def test_of_strokes_something_else_is_expected_than_of_complete_slices(monkeypatch):
    monkeypatch.setattr(estimate, "SLICES", (0.25, 0.5, 0.0, 0.0))
    monkeypatch.setattr(estimate, "STROKES", (0.0, 0.5, 0.0, 0.0))
    for part, expected in ((None, 0.75), (slice(0, 11), 0.5)):
        judge = Judge(TWO.ids)
        judge.look(TRUTH, SURE, annotated(2, 6, 10, part=part), brings_back(TRUTH))
        assert judge.estimate == dict.fromkeys(TWO.ids, expected)


@pytest.mark.parametrize("slices", [(6,), (6, 7)])
def test_where_there_is_nothing_between_nothing_can_be_told_and_what_was_told_is_void(slices):
    judge = Judge(TWO.ids)
    judge.look(TRUTH, SURE, annotated(2, 6, 10), brings_back(TRUTH))
    judge.look(TRUTH, SURE, annotated(*slices), never)
    assert judge.estimate == {} and judge.mean_estimate is None


def test_segments_that_nobody_painted_get_none():
    spread = np.array([0, 2, 4], np.uint8)[TRUTH]
    judge = Judge(FIVE.ids)
    judge.look(spread, SURE, annotated(2, 6, 10, truth=spread, classes=FIVE), brings_back(spread))
    assert judge.estimate == {"Segment_2": told(1), "Segment_4": told(1)}


def test_a_look_that_is_broken_off_changes_nothing():
    class Over(Exception):
        pass

    def breaks_off(*_):
        raise Over

    judge = Judge(TWO.ids)
    judge.look(TRUTH, SURE, annotated(2, 6, 10), brings_back(TRUTH))
    before = dict(judge.estimate)
    with pytest.raises(Over):
        judge.look(TRUTH, SURE, annotated(2, 10), breaks_off)
    assert judge.estimate == before != {}


def test_nothing_is_known_of_a_segment_that_was_erased():
    judge = Judge(TWO.ids)
    judge.look(TRUTH, SURE, annotated(2, 6, 10), brings_back(TRUTH))
    judge.leave_out(np.array([False, False, True]))
    assert judge.estimate == {"Segment_1": told(1)}
    judge.leave_out(np.array([False, False, True]))  # again: there is nothing left to forget
    assert list(judge.estimate) == ["Segment_1"]


# ---------------------------------------------------------------- saving


def judged():
    judge = Judge(TWO.ids)
    judge.weigh(STANDING, STEPS // 2, has_slices=True)
    judge.look(TRUTH, SURE, annotated(2, 6, 10), brings_back(TRUTH))
    return judge


def test_it_comes_back_from_its_state():
    judge, other = judged(), Judge(TWO.ids)
    state = judge.state()
    other.load_state(state)
    assert other.share == judge.share > 0
    assert other.estimate == judge.estimate != {}
    other.leave_out(np.array([False, True, True]))
    assert state["estimate"] == judge.estimate != {}  # the state is not shared


def test_forgetting_is_as_if_nothing_was_ever_looked_at():
    judge = judged()
    assert judge.is_due(1.0)
    judge.forget()
    assert judge.state() == {"share": 0.0, "estimate": {}}
    assert judge.describe() == {"share": 0.0}
    assert judge.is_due(1.0)


def test_the_report_has_the_share_and_what_it_was_chosen_by():
    judge = Judge(TWO.ids)
    assert judge.describe() == {"share": 0.0}
    judge.weigh(Standing(0.98765, 0.87654, 1.23456), STEPS, has_slices=True)
    assert judge.describe() == {"share": SHARE, "agreement": 0.988, "confidence": 0.877, "temperature": 1.23}


# ---------------------------------------------------------------- which segments the refiner corrects


LEAST = judge_module._LEAST_HELD


def refined(after_wrong=0, before_wrong=0, factors=(1, 2, 2), held_by_grid=True, voxels=LEAST):
    """Refiner's labels, growing's, and the truth, with so many wrong voxels of segment 1 among `voxels` that are held out and as many of background;
    segment 2 is seen on the volume's own grid, and segment 3 not at all. Beside the rest, with a voxel of each."""
    n = 2 * voxels
    truth = np.r_[np.ones(voxels), np.zeros(voxels), 1, 2, 3].astype(np.uint8)
    held, after, before = np.arange(n + 3) < n, truth.copy(), truth.copy()
    after[:after_wrong] = before[:before_wrong] = 0
    truth, held, after, before = (array.reshape(1, 1, -1) for array in (truth, held, after, before))
    volumes = SimpleNamespace(labels=truth, labelled=~held, label=before)
    views = {1: SimpleNamespace(factors=factors, held_by_grid=held_by_grid), 2: SimpleNamespace(factors=(1, 1, 1), held_by_grid=False)}
    return SimpleNamespace(volumes=volumes, at=lambda box: SimpleNamespace(label=after[box]), views=views), held


@pytest.mark.parametrize(
    ("made", "corrected"),
    [
        (refined(), True),
        (refined(after_wrong=5, before_wrong=5), True),  # as good as growing
        (refined(after_wrong=6, before_wrong=5), False),
        (refined(after_wrong=5, before_wrong=6), True),
        (refined(after_wrong=6, before_wrong=5, factors=(1, 1, 1)), True),  # needs no proof on the volume's own grid
        (refined(after_wrong=6, before_wrong=5, voxels=LEAST - 1), True),  # too few to judge by
        (refined(held_by_grid=False), False),
        (refined(held_by_grid=False, factors=(1, 1, 1)), True),
    ],
)
def test_a_segment_that_is_seen_coarsely_must_prove_itself(made, corrected):
    assert choose_use(*made) == [corrected, True, True]
