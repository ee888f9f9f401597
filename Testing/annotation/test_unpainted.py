"""Segments that nobody painted: they change nothing for the others, and are told of once."""

import numpy as np
import pytest

from sparseseg.annotation.hinted import HintLabels
from sparseseg.annotation.labels import build_annotation
from sparseseg.annotation.revision import revise
from sparseseg.annotation.unpainted import Unpainted, remark
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints, Point, SegmentHints
from sparseseg.contract.settings import Settings

NAMES = ["liver", "stomach", "kidney", "spleen"]
FOUR, TWO = ClassTable.numbered(4, NAMES), ClassTable.numbered(2, NAMES[::2])
BALANCES = [Settings(class_balance=b) for b in (0, 0.5, 1)]


def strokes(*values):
    """One voxel of each annotation value, beside each other, and 20 of background."""
    painted = np.zeros((4, 5, 6), np.uint8)
    painted[3, :4, :5] = 1
    painted[0, 0, : len(values)] = values
    return painted


BOX = (slice(0, 1), slice(0, 1), slice(0, 4))


def values_in_box(*values):
    return np.array([[[*values, *[0] * (4 - len(values))]]], np.uint8)


@pytest.mark.parametrize("settings", BALANCES)
def test_the_painted_ones_weigh_as_if_the_others_were_not_there(settings):
    some, alone = build_annotation(strokes(2, 4), FOUR, settings), build_annotation(strokes(2, 3), TWO, settings)
    np.testing.assert_array_equal(some.weights, alone.weights)
    assert [row.weight for row in some.rows] == [alone.rows[0].weight, alone.rows[1].weight, 0, alone.rows[2].weight, 0]
    assert [row.voxels for row in some.rows] == [20, 1, 0, 1, 0]
    assert some.absent.tolist() == [False, False, True, False, True]
    assert np.isfinite(some.table).all()
    assert "stomach: 0 voxels on 0 k, 0 j, 0 i slices, weight 0" in some.text()
    assert some.painted_slices().tolist() == [1, 1, 0, 1, 0]


def test_a_point_says_enough():
    hints = Hints((*[SegmentHints()] * 3, SegmentHints(inside=(Point((2, 2, 2), 0.0),))))
    built = build_annotation(strokes(2, 4), FOUR, hints=HintLabels(hints, Geometry.from_axes((4, 5, 6), (1, 1, 1))))
    assert built.absent.tolist() == [False, False, True, False, False]


def test_a_segment_joins_in_and_is_emptied_again_as_if_built_anew():
    first = build_annotation(strokes(2, 4), FOUR)
    joined = revise(first, values_in_box(2, 4, 3, 5), BOX, FOUR, Settings(), ())
    assert not joined.emptied and not joined.annotation.absent.any()
    assert joined.annotation.rows == build_annotation(strokes(2, 4, 3, 5), FOUR).rows
    fewer = revise(joined.annotation, values_in_box(2, 4, 3), BOX, FOUR, Settings(), ())
    assert fewer.emptied and fewer.annotation.absent.tolist() == [False, False, False, False, True]
    still = revise(fewer.annotation, values_in_box(2, 4, 3, 2), BOX, FOUR, Settings(), ())
    assert not still.emptied  # it was empty before
    np.testing.assert_array_equal(still.annotation.table, build_annotation(strokes(2, 4, 3, 2), FOUR).table)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["spleen"], ("Nothing is painted in spleen: it stays empty.", "Paint it on a slice, and it joins in.")),
        (["stomach", "spleen"], ("Nothing is painted in stomach, spleen: they stay empty.", "Paint them on a slice, and they join in.")),
    ],
)
def test_it_is_said_in_one_sentence_with_what_to_do(names, said):
    assert remark(names) == said


def test_each_set_is_told_once():
    told = []
    unpainted = Unpainted(lambda *said: told.append(said))
    for painted in ((2, 4), (2, 4), (2, 4, 5), (2, 3, 4, 5), (4, 2), (2, 3)):
        unpainted.compare(build_annotation(strokes(*painted), FOUR))
    assert told == [
        ("unpainted", "Nothing is painted in stomach, spleen: they stay empty.", "Paint them on a slice, and they join in."),
        ("unpainted", "Nothing is painted in stomach: it stays empty.", "Paint it on a slice, and it joins in."),
        ("unpainted", "Nothing is painted in kidney, spleen: they stay empty.", "Paint them on a slice, and they join in."),
    ]


def test_segments_of_one_name_are_told_apart():
    told = []
    unpainted = Unpainted(lambda *said: told.append(said[1]))
    twins = ClassTable.numbered(3, ["liver", "rib", "rib"])
    unpainted.compare(build_annotation(strokes(2, 3), twins))
    unpainted.compare(build_annotation(strokes(2, 4), twins))
    assert told == ["Nothing is painted in rib: it stays empty."] * 2
