"""The simulated clinician: where he paints, what his time is, when a Dice is reached, and how two arms compare; on numbers small enough to see."""

import json
import sys
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import accuracy
import clinician
import methods
import product
from clinician import Hand, Point, Start

import hands


def drawn(*rows):
    """(1, J, I) uint8 of rows of digits, dots being 0."""
    return np.array([[[0 if c == "." else int(c) for c in row] for row in rows]], np.uint8)


# -- painting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("radius", "over", "expected"),
    [
        (1, 0, drawn("......", ".11...", "......")),
        (1, 1, drawn("..1...", ".111..", "..1...")),
        (2, 1, drawn(".11...", "1111..", ".11...")),
    ],
)
def test_a_brush_leaves_what_is_meant_by_so_many_voxels(radius, over, expected):
    line, inside = drawn("......", "..1...", "......"), drawn("......", "111...", "......")
    assert np.array_equal(hands.brush(line > 0, (0, 0), inside > 0, radius, over), expected > 0)


def test_a_brush_stays_in_its_slice():
    line = np.zeros((3, 5, 5), bool)
    line[1, 2, 1:4] = True
    found = hands.brush(line, (0, 1), np.ones_like(line), 1, 1)
    assert found[1].sum() == 3 * 3 + 2
    assert not found[[0, 2]].any()
    assert np.array_equal(hands.brush(line, (1, 2), np.ones_like(line), 1, 0)[:, 2], [[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]])


def test_the_last_paint_stands_and_its_box_is_told():
    truth = drawn("11..22", "11..22", "11..22")
    annotation = drawn("......", ".2333.", "......")
    box = clinician.paint(annotation, truth, drawn("......", "1.....", "......") > 0, (0, 0))
    assert np.array_equal(annotation, drawn("2.....", "22333.", "2....."))
    assert box == (slice(0, 1), slice(0, 3), slice(0, 2))
    clinician.paint(annotation, truth, drawn("......", "..1...", "......") > 0, (0, 0))
    assert np.array_equal(annotation, drawn("2.1...", "21113.", "2.1..."))
    assert clinician.paint(annotation, truth, np.zeros(truth.shape, bool), (0, 0)) is None


def test_the_first_slice_shows_the_most_segments_and_is_near_the_middle():
    truth = np.zeros((12, 4, 4), np.uint8)
    truth[1:11, 0, 0] = 1
    assert clinician.first_slice(truth) == 5
    truth[[1, 2, 8], 2, 2] = 2
    assert clinician.first_slice(truth) == 8


def test_a_segment_that_the_first_slice_does_not_show_gets_a_stroke_where_it_is_largest():
    truth = np.zeros((7, 9, 9), np.uint8)
    truth[2:5, 1:4, 1:4] = 1
    truth[5, 6, 4], truth[6, 5:8, 2:9] = 2, 2
    start = clinician.begin(truth)
    assert (start.at, start.strokes) == ((0, 4), 1)
    assert np.array_equal(start.slice[4], truth[4] + 1) and not start.slice[[0, 1, 2, 3, 5, 6]].any()
    assert set(np.unique(start.annotation[6])) == {0, 3}
    assert not start.annotation[[0, 1, 2, 3, 5]].any()
    both = np.where(truth == 1, 1, 0).astype(np.uint8)
    assert clinician.begin(both).strokes == 0


# -- time --------------------------------------------------------------------------------------------------------------


class Slow:
    """An arm that shows given labels in turn, the last for ever, each after so many seconds of waiting; it keeps what it was given."""

    source = "slow"

    def __init__(self, shown, waits_s):
        self.shown, self.waits_s, self.given, self.seconds = shown, waits_s, [], 0.0

    def answer(self, annotation, box, painted_s):
        n = len(self.given)
        self.given.append((annotation.copy(), box))
        self.seconds = painted_s + self.waits_s[n]
        return self.shown[min(n, len(self.shown) - 1)]


def blocks():
    """Truth of one segment in six slices, and an answer that misses its last two."""
    truth = np.zeros((6, 12, 12), np.uint8)
    truth[:, 3:9, 2:10] = 1
    missed = truth.copy()
    missed[4:] = 0
    return truth, missed


def test_a_stroke_costs_its_time_and_the_waiting():
    truth, missed = blocks()
    arm = Slow([missed, missed, truth], [1.5, 0.25, 2.0])
    points = clinician.worked(arm, truth, clinician.begin(truth), Hand(stroke_s=4, content=0.99))
    assert [p.seconds for p in points] == [1.5, 1.5 + 4 + 0.25, 5.75 + 4 + 2.0]
    assert [(p.strokes, p.waited_s, p.source) for p in points] == [(0, 1.5, "slow"), (1, 0.25, "slow"), (2, 2.0, "slow")]
    dice = 2 * 3 / (5 + 3)  # of slices beside the first, 3 of 5 found
    assert [p.dice for p in points] == [dice, dice, 1.0]


def test_he_paints_in_the_worst_slice_and_goes_on_where_he_has_not_painted():
    truth, missed = blocks()
    arm = Slow([missed], [1.0] * 4)
    clinician.worked(arm, truth, clinician.begin(truth), Hand(strokes=2))
    (first, none), (second, box), (third, another) = arm.given
    assert none is None
    for before, after, place in ((first, second, box), (second, third, another)):
        changed = after != before
        assert changed.any() and set(np.unique(after[changed])) == {2}
        outside = np.ones(truth.shape, bool)
        outside[place] = False
        assert not changed[outside].any()
        assert sum(place_.stop - place_.start == 1 for place_ in place) == 1  # one slice
        assert (truth[changed] == 1).mean() > 0.5


@pytest.mark.parametrize(
    ("hand", "strokes"),
    [(Hand(strokes=3), 3), (Hand(limit_s=10), 2), (Hand(limit_s=6.1), 2), (Hand(limit_s=6), 1), (Hand(content=0.5), 0)],
)
def test_he_gives_up_or_is_content(hand, strokes):
    truth, missed = blocks()
    points = clinician.worked(Slow([missed], [1.0] * 9), truth, clinician.begin(truth), hand)  # answers at 1, 6, 11 s
    assert [p.strokes for p in points] == [*range(strokes + 1)]


def test_he_stops_where_nothing_is_wrong_that_he_has_not_painted():
    truth, _ = blocks()
    start = clinician.begin(truth)
    shown = truth.copy()
    start.annotation[5, 5, 5] = 1  # wrong, and his own paint
    shown[5, 5, 5] = 0
    assert len(clinician.worked(Slow([shown], [1.0]), truth, start, Hand(content=1.0))) == 1


def test_strokes_before_the_first_answer_cost_time():
    truth, _ = blocks()
    start = clinician.begin(truth)
    (point,) = clinician.worked(Slow([truth], [1.0]), truth, Start(start.at, start.slice, start.annotation, 2), Hand(stroke_s=4))
    assert (point.seconds, point.strokes, point.waited_s) == (9.0, 2, 1.0)


class Clock:
    """In place of a Product: what is asked of it takes time of a clock of its own."""

    def __init__(self):
        self.now, self.training, self.asked = 100.0, False, []

    def perf_counter(self):
        return self.now

    def begin(self):
        self.training = True
        self.asked.append("begin")

    def _answer(self, name, took_s):
        self.now += took_s
        self.asked.append(name)
        return SimpleNamespace(refined=SimpleNamespace(source="prior", dense=np.zeros((1, 1, 1), np.uint8)))

    def first_answer(self):
        self.training = True
        return self._answer("first", 1.5)

    def update(self, annotation, box):
        return self._answer("update", 0.5)

    def pass_time(self, until):
        self.asked.append(f"until {until:g}")
        self.now = max(self.now, until)


def test_this_project_is_on_the_walls_clock_and_trains_again(monkeypatch):
    clock, box = Clock(), (slice(0, 1),) * 3
    monkeypatch.setattr(clinician.time, "perf_counter", clock.perf_counter)
    arm = clinician.Ours(clock)
    arm.answer(None, None, 8.0)  # two strokes before the first answer
    assert arm.seconds == 9.5
    clock.now += 3.0  # choosing the stroke, while he paints
    arm.answer(None, box, 13.5)
    assert arm.seconds == 14.0
    clock.now, clock.training = clock.now + 10.0, False  # longer than he paints
    arm.answer(None, box, 18.0)
    assert arm.seconds == 24.5
    assert clock.asked == ["first", "until 105.5", "update", "until 110", "update", "begin"]


def test_of_growing_the_filters_time_is_added_up():
    calls = []

    def submit(call, image, annotation):
        calls.append(image)
        return SimpleNamespace(result=lambda: (0.25, annotation))

    arm = clinician.Growing(SimpleNamespace(submit=submit), "the image")
    assert arm.answer("annotation", None, 4.0) == "annotation" and arm.seconds == 4.25
    arm.answer("annotation", (slice(0, 1),) * 3, 8.25)
    assert arm.seconds == 8.5
    assert calls == ["the image", None]  # it goes on from what it has


# -- tables ------------------------------------------------------------------------------------------------------------


def points(*seen):
    """Of (seconds, Dice), one stroke after the other."""
    return [Point(seconds, n, dice, 0.5, "prior") for n, (seconds, dice) in enumerate(seen)]


def row(ours, grow, case="a", limit_s=300.0):
    arms = {name: {"points": [vars(p) for p in found]} for name, found in (("sparseseg", ours), ("grow", grow))}
    return {"case": case, "slice": 7, "segments": ["x"], "load": 0.1, "hand": vars(Hand(limit_s=limit_s)), "arms": arms}


def test_a_level_is_reached_by_the_first_answer_that_is_as_good():
    seen = points((1, 0.7), (6, 0.85), (11, 0.8), (16, 0.91))
    assert [clinician.reached(seen, level, 300).strokes for level in (0.7, 0.8, 0.85, 0.9)] == [0, 1, 1, 3]
    assert clinician.reached(seen, 0.95, 300) is None
    assert clinician.reached(seen, 0.9, 15) is None


@pytest.mark.parametrize(
    ("mine", "other", "expected"),
    [
        (points((2, 0.9)), points((1, 0.5), (8, 0.9)), (4.0, False)),
        (points((2, 0.9)), points((1, 0.5), (120, 0.6)), (50.0, True)),  # the limit
        (points((2, 0.9)), points((1, 0.5), (80, 0.6)), (40.0, True)),  # no stroke left after 80 s: it may have come after 81
        (points((2, 0.9)), points((1, 0.5), (101, 0.9)), (50.0, True)),  # too late
        (points((1, 0.5), (80, 0.6)), points((50, 0.9)), (0.5, True)),
        (points((1, 0.5)), points((1, 0.5)), (None, False)),
        ([], points((1, 0.9)), (None, False)),
    ],
)
def test_growings_time_through_ours(mine, other, expected):
    assert clinician.ratio(mine, other, 0.9, 100) == expected


def test_the_table_says_who_came_when_or_not_at_all():
    a = row(points((2, 0.7), (10, 0.86), (20, 0.92)), points((0.5, 0.7), (25, 0.81), (301, 0.82)))
    b = row(points((4, 0.82)), points((6, 0.82), (170, 0.82)), "b")
    found = clinician.level_table([a, b])
    assert found[0] == {"case": "a", "Dice": "0.80", "sparseseg": "10.0 s, strokes: 1", "grow": "25.0 s, strokes: 1", "times as fast": "2.50"}
    assert [line["grow"] for line in found[:3]] == ["25.0 s, strokes: 1", "not within 300 s", "not within 300 s"]
    assert [line["times as fast"] for line in found] == ["2.50", "30.00 (bound)", "15.00 (bound)", "1.50", "", "", "8.75 (4 of 6, bounds: 2)"]
    assert found[4]["sparseseg"] == "not with 0 strokes (4 s)"
    assert found[5]["grow"] == "not with 1 strokes (170 s)"


def test_an_arm_that_was_not_run_has_its_reason():
    only = row(points((2, 0.95)), [])
    only["arms"]["grow"] = {"reason": "Missing: slicer-core is not installed"}
    found = clinician.level_table([only])
    assert {line["grow"] for line in found[:3]} == {"Missing: slicer-core is not installed"}
    assert found[-1]["times as fast"] == ""
    assert clinician.said(only) == "a, sparseseg 0.950 after 2 s and 0 strokes"
    assert clinician.curves([only]) == [{"sparseseg": [(2, 0.95)]}]
    assert clinician.end_row(only, "grow")["last Dice"] is None
    ended = clinician.end_row(row(points((2, 0.5), (7, 0.6)), []), "sparseseg")
    assert (ended["first answer, s"], ended["strokes"], ended["last Dice"], ended["waiting, median s"]) == (2, "1", 0.6, 0.5)


def test_an_arm_that_fails_leaves_the_other(monkeypatch):
    class Failing(Slow):
        def answer(self, annotation, box, painted_s):
            raise product.Refused("There was not enough memory.")

    case = methods.phantom_pairs()[0].case
    arms = {"sparseseg": Failing([], []), "grow": Slow([case.truth], [1.0])}
    monkeypatch.setattr(clinician, "ARMS", {name: lambda *_, arm=arm: nullcontext(arm) for name, arm in arms.items()})
    found = clinician.simulated(case, methods.Options(), Hand())
    assert found["arms"]["sparseseg"] == {"reason": "Refused: There was not enough memory."}
    assert [p["dice"] for p in found["arms"]["grow"]["points"]] == [1.0]
    json.dumps(found, allow_nan=False)


# -- all of it ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_quick_run_has_both_arms(tmp_path, capsys):
    assert accuracy.main(["--quick", "--device", "cpu", "--clinician", "--out", str(tmp_path)]) == 0
    (found,) = json.loads((tmp_path / "clinician.json").read_text())["rows"]
    for arm in found["arms"].values():
        if "reason" in arm:
            assert arm["reason"].startswith("Missing")
            continue
        seen = arm["points"]
        assert [p["strokes"] for p in seen] == [0, 1, 2]
        assert seen[0]["dice"] > 0.9
        for before, after in pairwise(seen):
            assert after["seconds"] - before["seconds"] == pytest.approx(found["hand"]["stroke_s"] + after["waited_s"])
    assert "points" in found["arms"]["sparseseg"]
    assert "| phantom | 0.90 |" in (tmp_path / "clinician.md").read_text()
    assert "phantom, sparseseg 0." in capsys.readouterr().out
