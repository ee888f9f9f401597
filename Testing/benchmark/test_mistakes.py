"""Simulated mistakes and how the check of annotation is fitted to them, scored and summed: on numbers small enough to see."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import mistakes

import hands
from sparseseg.annotation.slices import plane


def strokes():
    annotation = np.zeros((6, 12, 30), np.uint8)
    annotation[2, 3, 2:20], annotation[2, 8, 2:20], annotation[4, 5, 2:20] = 2, 3, 2
    annotation[2, 0, :] = 1
    return annotation


def test_one_stroke_is_painted_as_another_segment():
    annotation = strokes()
    wrong, at, where = hands.with_wrong_stroke(np.random.default_rng(0), annotation, [(0, 2), (0, 4)])
    assert where[plane(*at)].sum() == where.sum() == 18
    (before,) = np.unique(annotation[where])
    assert set(np.unique(wrong[where])) == {5 - before}
    assert (wrong == annotation)[~where].all()


def test_a_stroke_of_the_only_segment_becomes_background_and_a_thick_one_changes_as_a_whole():
    annotation = np.where(strokes() == 3, 0, strokes()).astype(np.uint8)
    thick = np.where(hands.grown_by(annotation == 2, 1), 2, annotation).astype(np.uint8)
    wrong, at, where = hands.with_wrong_stroke(np.random.default_rng(0), annotation, [(0, 4)], thick)
    assert at == (0, 4)
    assert set(np.unique(wrong[where])) == {1}
    assert (where[3:6, 5] == (thick[3:6, 5] == 2)).all()
    assert hands.with_wrong_stroke(np.random.default_rng(0), annotation, [(0, 3)]) is None


def test_an_entry_is_right_where_it_and_the_mistake_share_half_of_the_smaller():
    where = np.zeros((6, 12, 30), bool)
    where[2, 2:8, 2:8] = True

    def judged(rows, columns, cover=1.0):
        k, j, i = np.meshgrid([2], rows, columns, indexing="ij")
        return mistakes._judged(mistakes.replace(piece(index=2, cover=cover), voxels=(k.ravel(), j.ravel(), i.ravel())), where)

    assert judged(range(2, 8), range(2, 8)).right
    assert judged(range(12), range(30)).right  # all of the mistake is in it
    assert judged(range(2, 8), range(5, 11)).right
    assert not judged(range(2, 8), range(6, 12)).right
    small = judged(range(2, 4), range(2, 4), cover=0.1)
    assert (small.right, small.part) == (True, True)


def piece(axis=0, index=5, **evidence):
    numbers = dict.fromkeys(vars(mistakes.check.Evidence)["__dataclass_fields__"], 0.0) | evidence
    box = tuple(slice(index, index + 1) if a == axis else slice(0, 5) for a in range(3))
    return mistakes.Piece(axis, index, (), box, 0, 1, True, mistakes.check.Evidence(**numbers))


def test_weights_are_fitted_so_that_what_tells_mistakes_counts():
    rng = np.random.default_rng(0)
    found = tuple(mistakes.Found(piece(cover=float(n % 2), gray=float(rng.normal())), n % 2 == 1 and n > 20, False) for n in range(200))
    weights, strokes = mistakes.fit([mistakes.Run("a", "slices-3", "exact", "none", found)])
    assert weights["cover"] > 2 > abs(weights["gray"])
    assert strokes == {"constant": -9.0}
    covered = mistakes.check.sureness(piece(cover=1.0), weights, strokes)
    assert covered == pytest.approx(0.9, abs=0.08)  # as often as it is a mistake
    assert mistakes.check.sureness(piece(cover=0.0), weights, strokes) < 0.1


def test_the_threshold_is_the_lowest_that_is_precise_enough():
    listed = [[(0.9, True), (0.5, True)], [(0.6, True), (0.3, False)], [(0.7, True), (0.2, False)]]
    assert mistakes.threshold(listed) == pytest.approx(0.22)  # 4 of 5 are right
    assert mistakes.threshold([[(0.91, False)]]) == pytest.approx(0.92)


def test_a_table_counts_runs_that_were_found_and_entries_that_are_right():
    rows = [
        {"case": "a", "annotation": "s", "hands": "exact", "mistake": "forgotten", "right": 2, "entries": 3},
        {"case": "a", "annotation": "s", "hands": "exact", "mistake": "forgotten", "right": 0, "entries": 1},
        {"case": "a", "annotation": "s", "hands": "exact", "mistake": "none", "right": 0, "entries": 2},
    ]
    *_, total = mistakes.tables(rows)["Cases"]
    assert list(total.values()) == ["**all**", 2, 0.5, 4, 0.5, 1, 2]
