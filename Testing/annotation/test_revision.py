"""Revisions in place and in boxes: always what building the whole annotation anew gives, and a way back."""

import numpy as np
import pytest

from sparseseg.annotation.hinted import HintLabels
from sparseseg.annotation.labels import HINT, build_annotation
from sparseseg.annotation.revision import revise
from sparseseg.contract.box import box_of, whole
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import AnnotationError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints, Point, Roi, SegmentHints
from sparseseg.contract.settings import Settings

ONE, TWO = ClassTable.numbered(1), ClassTable.numbered(2)
SETTINGS = Settings(class_balance=0.5, correction_weight=3)
CUBE = np.array([[[1, 1], [1, 1]], [[2, 0], [0, 0]]], np.uint8)  # four background voxels, one of the segment, three unlabelled


def box_at(k, j, i):
    return (slice(k, k + 1), slice(j, j + 1), slice(i, i + 1))


def same(one, other):
    assert (one.labels == other.labels).all()
    assert (one.origin == other.origin).all()
    assert (one.labelled == other.labelled).all()
    assert (one.table == other.table).all()
    assert one.rows == other.rows
    assert one.complete_slices == other.complete_slices
    assert one.corrections == other.corrections
    assert (one.counts.hints == other.counts.hints).all()
    assert (one.weights == other.weights).all()


def test_a_stroke_changes_its_voxels():
    before = build_annotation(CUBE, ONE, SETTINGS)
    values = np.array([[[2, 2]]], np.uint8)  # the first voxel is the segment's already
    revision = revise(before, values, (slice(1, 2), slice(0, 1), slice(0, 2)), ONE, SETTINGS, ())
    (part,) = revision.changed
    assert part.box == (slice(1, 2), slice(0, 1), slice(1, 2))
    assert part.mask.tolist() == [[[True]]]
    assert revision.annotation.rows[1].voxels == 2


def test_a_spot_is_no_whole_slice():
    annotation = np.zeros((3, 3, 3), np.uint8)
    annotation[0, 0, :2] = 1, 2
    before = build_annotation(annotation, ONE, SETTINGS)
    assert not revise(before, np.full((1, 1, 1), 2, np.uint8), box_at(2, 1, 1), ONE, SETTINGS, ()).whole_slices


def test_nothing_new_changes_nothing():
    before = build_annotation(CUBE, ONE, SETTINGS)
    revision = revise(before, CUBE, None, ONE, SETTINGS, ())
    assert not revision.changed
    same(revision.annotation, build_annotation(CUBE, ONE, SETTINGS))


@pytest.mark.parametrize("complete", [False, True])
def test_a_slice_that_was_completed_is_more_than_a_spot(complete):
    """Painted as a whole, or declared complete."""
    before = build_annotation(CUBE, ONE)
    revision = revise(before, CUBE if complete else np.maximum(CUBE, 1), None, ONE, Settings(), ((0, 1),) if complete else ())
    assert revision.whole_slices
    (part,) = revision.changed
    assert part.box == (slice(1, 2), slice(0, 2), slice(0, 2))
    assert part.mask.tolist() == [[[False, True], [True, True]]]


def test_a_new_stroke_against_the_preview_is_a_correction_and_stays_one():
    before = build_annotation(CUBE, ONE, SETTINGS)
    preview = np.zeros((2, 2, 2), np.uint8)
    first = revise(before, np.full((1, 1, 1), 2, np.uint8), box_at(1, 0, 1), ONE, SETTINGS, (), preview)
    assert first.annotation.corrections == 1
    second = revise(first.annotation, np.full((1, 1, 1), 1, np.uint8), box_at(1, 1, 1), ONE, SETTINGS, (), preview)
    assert second.annotation.corrections == 1
    assert second.annotation.weights[1, 0, 1] == pytest.approx(3 * second.annotation.weights[1, 0, 0])


@pytest.mark.parametrize(
    ("values", "slices", "words"),
    [
        (np.zeros((2, 2, 2), np.uint8), (), "Nothing is labelled"),
        (np.ones((2, 2, 2), np.uint8), (), "No segment has a painted voxel"),
        (np.full((2, 2, 2), 2, np.uint8), (), "No background"),
        (np.full((2, 2, 2), 3, np.uint8), (), "has value 3"),
        (np.full((2, 2, 2), 1, np.int8), (), "uint8"),
        (CUBE, ((0, 2),), "outside of the volume"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_and_leaves_all_as_it_was(values, slices, words):
    before = build_annotation(CUBE, ONE, SETTINGS)
    with pytest.raises(AnnotationError, match=words):
        revise(before, values, None, ONE, SETTINGS, slices)
    same(before, build_annotation(CUBE, ONE, SETTINGS))


def test_a_revision_can_be_taken_back():
    before = build_annotation(CUBE, ONE, SETTINGS)
    revise(before, np.full((1, 1, 1), 2, np.uint8), box_at(1, 1, 1), ONE, SETTINGS, ((0, 1), (1, 0))).take_back()
    same(before, build_annotation(CUBE, ONE, SETTINGS))


HINTED = HintLabels(
    Hints((SegmentHints(Roi((2, 2, 2), (3, 3, 3)), (Point((2, 2, 2)),)), SegmentHints(Roi((4, 3, 1), (2, 3, 2)), (Point((4, 3, 1), 1.0),)))),
    Geometry.from_axes((4, 5, 6), (1, 1, 1)),
)


def test_what_is_erased_or_complete_no_longer_is_a_hints_again():
    annotation = np.zeros((4, 5, 6), np.uint8)
    annotation[2, 2, 2] = 1
    before = build_annotation(annotation, TWO, SETTINGS, ((0, 1),), hints=HINTED)
    assert (before.origin == HINT).any() and not (before.origin[1] == HINT).any()
    revision = revise(before, np.zeros((1, 1, 1), np.uint8), box_at(2, 2, 2), TWO, SETTINGS, ())
    same(revision.annotation, build_annotation(np.zeros_like(annotation), TWO, SETTINGS, hints=HINTED))
    assert revision.annotation.origin[2, 2, 2] == HINT
    revision.take_back()
    same(before, build_annotation(annotation, TWO, SETTINGS, ((0, 1),), hints=HINTED))


def test_a_stroke_over_a_hint_against_the_preview_is_a_correction():
    before = build_annotation(np.zeros((4, 5, 6), np.uint8), TWO, SETTINGS, hints=HINTED)
    assert before.labels[2, 2, 2] == 1
    stroke = np.full((1, 1, 1), 2, np.uint8)  # as the hint says, but the preview does not
    assert revise(before, stroke, box_at(2, 2, 2), TWO, SETTINGS, (), np.zeros((4, 5, 6), np.uint8)).annotation.corrections == 1


@pytest.mark.parametrize("hints", [None, HINTED], ids=["strokes", "with hints"])
@pytest.mark.parametrize("seed", range(20))
def test_many_revisions_are_what_building_anew_gives(seed, hints):
    """Strokes, erasing, complete slices that come and go, whole annotations; with and without a preview."""
    rng = np.random.default_rng(seed)
    shape = (4, 5, 6)
    current = rng.choice(4, shape, p=[0.6, 0.2, 0.1, 0.1]).astype(np.uint8)
    current[0, 0, :3], slices = [1, 2, 3], ()
    annotation = build_annotation(current, TWO, SETTINGS, slices, hints=hints)
    for step in range(12):
        preview = rng.integers(0, 3, shape).astype(np.uint8) if step % 2 else None
        low = [int(rng.integers(0, n)) for n in shape]
        box = tuple(slice(a, int(rng.integers(a, n)) + 1) for a, n in zip(low, shape, strict=True))
        changed = current.copy()
        changed[box] = rng.integers(0, 4, changed[box].shape)
        changed[0, 0, :3] = [1, 2, 3]
        box = whole(shape) if step == 7 else box_of(changed != current) or box_at(1, 1, 1)
        if step % 3 == 0:
            slices = tuple({(int(a), int(rng.integers(shape[a]))) for a in rng.integers(0, 3, 2)})
        earlier = build_annotation(current, TWO, SETTINGS, annotation.complete_slices, hints=hints)
        earlier.origin[:] = annotation.origin  # corrections of earlier revisions
        expected = build_annotation(changed, TWO, SETTINGS, slices, earlier, preview, hints)
        was_labelled, was = annotation.labelled.copy(), annotation.labels.copy()
        revision = revise(annotation, changed[box], box, TWO, SETTINGS, slices, preview)
        annotation, current = revision.annotation, changed
        same(annotation, expected)
        differ = (was_labelled != annotation.labelled) | (was_labelled & (was != annotation.labels))
        assert [part.box for part in revision.changed] == ([box_of(differ)] if differ.any() else [])
        for part in revision.changed:
            assert (part.mask == differ[part.box]).all()
