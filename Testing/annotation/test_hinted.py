"""Hints as labels: where they lie, what they yield to, and what is said where paint contradicts them."""

import itertools

import numpy as np
import pytest

from sparseseg.annotation.contradictions import contradictions
from sparseseg.annotation.hinted import HintLabels
from sparseseg.annotation.labels import COMPLETE, HINT, HINT_WEIGHT, STROKE, build_annotation
from sparseseg.contract.box import whole
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import AnnotationError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints, Point, Roi, SegmentHints
from sparseseg.contract.settings import Settings

ONE, TWO = ClassTable.numbered(1, ["liver"]), ClassTable.numbered(2, ["liver", "spleen"])
SHAPE = (5, 6, 7)
GRID = Geometry.from_axes(SHAPE, (1, 1, 1))  # a point (x, y, z) is the voxel k = z, j = y, i = x
BOX = Roi((3, 2, 2), (3.0, 1.9, 1.9))  # voxels i 2..4, j 2, k 2


def voxels(values):
    """{annotation value: its (k, j, i) voxels, sorted}"""
    return {int(v): [tuple(map(int, place)) for place in np.argwhere(values == v)] for v in np.unique(values) if v}


def hinted(*segments, outside=()):
    return HintLabels(Hints(segments, outside), GRID)


def in_box(hints, box):
    values = np.zeros([s.stop - s.start for s in box], np.uint8)
    index, found = hints.within(box)
    values[index] = found
    return values


def labels_of(*segments, outside=()):
    return in_box(hinted(*segments, outside=outside), whole(SHAPE))


def point(x, y, z, radius=0.0):
    return Point((x, y, z), radius)


def test_points_are_balls_of_labels():
    found = voxels(labels_of(SegmentHints(inside=(point(3, 2, 1, 1.0),))))
    assert found == {2: [(0, 2, 3), (1, 1, 3), (1, 2, 2), (1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3)]}


def test_a_point_that_says_no_radius_has_its_neighbours_and_no_more():
    assert len(voxels(labels_of(SegmentHints(inside=(Point((3, 2, 2)),))))[2]) == 19  # with the diagonals in a plane


def test_a_region_alone_labels_the_wall_around_it():
    values = labels_of(SegmentHints(roi=BOX))
    expected = np.zeros(SHAPE, np.uint8)
    expected[1:4, 1:4, 1:6] = 1
    expected[2, 2, 2:5] = 0
    assert (values == expected).all()


def test_no_wall_where_a_segment_has_no_region_and_one_around_all_where_each_has():
    assert not labels_of(SegmentHints(roi=BOX), SegmentHints()).any()
    beside = Roi((5, 2, 2), (1.0, 1.9, 1.9))  # shares the face between i 4 and 5
    values = labels_of(SegmentHints(roi=BOX), SegmentHints(roi=beside))
    assert values[2, 2].tolist() == [0, 1, 0, 0, 0, 0, 1]


def test_a_region_up_to_the_volumes_edge_has_no_wall_there():
    values = labels_of(SegmentHints(roi=Roi((3, 2.5, 0), (100, 100, 3.0))))  # slices 0 and 1
    assert (values[2] == 1).all() and not values[[0, 1, 3, 4]].any()


@pytest.mark.parametrize("seed", range(10))
def test_the_wall_is_all_that_touches_a_region_however_turned(seed):
    rng, shape = np.random.default_rng(seed), (8, 9, 10)
    rois = [
        Roi(tuple(rng.uniform(2, 7, 3)), tuple(rng.uniform(2, 6, 3)), tuple(map(tuple, np.linalg.qr(rng.normal(size=(3, 3)))[0]))) for _ in range(2)
    ]
    hints = HintLabels(Hints(tuple(SegmentHints(roi) for roi in rois)), Geometry.from_axes(shape, (1, 1, 1)))
    inside = np.logical_or.reduce([roi.holds(np.indices(shape).reshape(3, -1)).reshape(shape) for roi in hints.rois])
    around = np.pad(inside, 1)
    near = np.logical_or.reduce([np.roll(around, by, (0, 1, 2)) for by in itertools.product((-1, 0, 1), repeat=3)])[1:-1, 1:-1, 1:-1]
    values = np.zeros(shape, np.uint8)
    index, found = hints.within(whole(shape))
    values[index] = found
    assert (values == (near & ~inside)).all()


def test_a_ball_is_cut_by_its_region_and_claims_of_two_are_nobodys():
    cut = labels_of(SegmentHints(roi=BOX, inside=(point(3, 2, 2, 1.0),)))
    assert voxels(cut)[2] == [(2, 2, 2), (2, 2, 3), (2, 2, 4)]
    both = labels_of(SegmentHints(inside=(point(2, 2, 2, 1.0),)), SegmentHints(inside=(point(4, 2, 2, 1.0),)))
    assert both[2, 2].tolist() == [0, 2, 2, 0, 3, 3, 0]


def test_not_one_segment_is_background_only_where_it_is_none():
    no = SegmentHints(outside=(point(1, 1, 1),))
    assert voxels(labels_of(no)) == {1: [(1, 1, 1)]}
    assert not labels_of(no, SegmentHints()).any()
    assert voxels(labels_of(no, no)) == {1: [(1, 1, 1)]}
    assert voxels(labels_of(SegmentHints(), SegmentHints(), outside=(point(1, 1, 1),))) == {1: [(1, 1, 1)]}


def test_any_box_holds_what_the_whole_does():
    hints = hinted(SegmentHints(roi=BOX, inside=(point(3, 2, 2),)), SegmentHints(roi=Roi((1, 4, 3), (3, 3, 3))))
    everything, rng = in_box(hints, whole(SHAPE)), np.random.default_rng(0)
    for _ in range(50):
        low = [int(rng.integers(n)) for n in SHAPE]
        box = tuple(slice(a, int(rng.integers(a, n)) + 1) for a, n in zip(low, SHAPE, strict=True))
        assert (in_box(hints, box) == everything[box]).all()


def test_growing_looks_where_hints_say():
    roi, spot = SegmentHints(roi=Roi((3, 2, 2), (0.5, 0.5, 0.5))), SegmentHints(inside=(point(1, 1, 1),))
    far = HintLabels(Hints((roi,)), Geometry.from_axes((40, 6, 50), (1, 1, 1)))
    assert far.extent([5]) == (slice(0, 11), slice(0, 6), slice(0, 12))
    assert hinted(roi, spot).extent([5, 0]) == whole(SHAPE)
    assert hinted(roi, spot).extent([5, 5]) is None
    assert hinted(SegmentHints(one_piece=True)).extent([5]) is None


# ---------------------------------------------------------------- with paint


def built(strokes, *segments, slices=(), classes=ONE):
    return build_annotation(strokes, classes, Settings(class_balance=0), slices, hints=hinted(*segments))


def test_paint_and_complete_slices_win_and_hints_weigh_less():
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[0, 0, 0] = 2
    strokes[1, 2, 3] = 1  # in the ball
    annotation = built(strokes, SegmentHints(inside=(point(3, 2, 1, 1.0),)), slices=((0, 2),))
    assert annotation.origin[1, 2, 3] == STROKE and annotation.labels[1, 2, 3] == 0
    assert annotation.origin[2, 2, 3] == COMPLETE and annotation.labels[2, 2, 3] == 0
    assert annotation.origin[1, 2, 2] == HINT and annotation.labels[1, 2, 2] == 1
    assert annotation.weights[1, 2, 2] == pytest.approx(HINT_WEIGHT * annotation.weights[0, 0, 0])
    assert annotation.counts.hints.tolist() == [0, 5]
    assert annotation.rows[1].weight == pytest.approx(float(annotation.weights[annotation.labels == 1].sum()))
    assert "5 voxels are labelled by hints alone" in annotation.text()
    assert annotation.painted.sum() == annotation.labelled.sum() - 5


def test_hints_alone_can_be_trained_on_and_what_is_missing_is_said():
    nothing = np.zeros(SHAPE, np.uint8)
    assert built(nothing, SegmentHints(roi=BOX, inside=(point(3, 2, 2),))).rows[1].voxels == 1
    with pytest.raises(AnnotationError, match="Nothing is labelled"):
        built(nothing, SegmentHints(one_piece=True))
    with pytest.raises(AnnotationError, match=r"No background is labelled.*Or add points outside to the hints"):
        built(nothing, SegmentHints(inside=(point(3, 2, 2),)))
    with pytest.raises(AnnotationError, match="No segment has a painted voxel"):
        built(nothing, SegmentHints(roi=BOX))
    pointed = built(nothing, SegmentHints(roi=BOX, inside=(point(3, 2, 2),)), SegmentHints(roi=BOX), classes=TWO)
    assert pointed.absent.tolist() == [False, False, True]  # a point labels, a region does not


def test_on_how_many_slices_a_segment_is_painted_leaves_hints_out():
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[1, 1:4, 1:6], strokes[4, 5, 6] = 2, 1
    annotation = built(strokes, SegmentHints(inside=(point(3, 2, 3),)), SegmentHints(inside=(point(3, 2, 4),)), classes=TWO)
    assert annotation.painted_slices().tolist() == [1, 1, 0]


def test_paint_against_hints_is_counted_and_said():
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[2, 2, 2:7] = 2  # two voxels beyond the region
    strokes[2, 2, 3] = 1
    strokes[0, 0, 0] = 2
    annotation = built(strokes, SegmentHints(roi=BOX, inside=(point(3, 2, 2),), outside=(point(4, 2, 2), point(0, 0, 0))), classes=ONE)
    said = [found.sentence(ONE) for found in contradictions(annotation, [whole(SHAPE)])]
    assert said == [
        "3 voxels painted as liver lie outside of its ROI; the paint stands.",
        "2 voxels painted as liver lie outside of it, as a point says; the paint stands.",
        "1 voxel at a point said to be inside liver is painted as something else; the paint stands.",
    ]
    part = contradictions(annotation, [(slice(2, 3), slice(2, 3), slice(6, 7))])
    assert [found.sentence(ONE) for found in part] == ["1 voxel painted as liver lies outside of its ROI; the paint stands."]


def test_paint_that_fits_is_no_contradiction_nor_is_any_without_hints():
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[2, 2, 2:5], strokes[4] = 2, 1
    assert not contradictions(built(strokes, SegmentHints(roi=BOX, inside=(point(3, 2, 2),), outside=(point(6, 5, 4),))), [whole(SHAPE)])
    assert not contradictions(build_annotation(strokes, ONE), [whole(SHAPE)])
