"""Check my annotation: what is compared, what counts as a mistake, what is left out, and what a user reads."""

import numpy as np
import pytest

from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.belief import Belief
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.quality import check

SHAPE = (20, 40, 40)
TRUTH = np.zeros(SHAPE, np.uint8)
TRUTH[2:18, 5:17, 5:17], TRUTH[2:18, 22:36, 22:36] = 1, 2
IMAGE = (np.array([0, 100, 200])[TRUTH] + np.random.default_rng(0).normal(0, 10, SHAPE)).astype(np.int16)
TWO = ClassTable.numbered(2, ["liver", "left kidney"])
GEOMETRY = Geometry.from_axes(SHAPE, (1.0, 1.0, 1.0), (0, 0, 0))
SLICES = (4, 10, 15)


def believed(truth=TRUTH, confidence=230):
    return lambda rest: Belief(truth, np.full(truth.shape, confidence, np.uint8))


def painted(labels=TRUTH, slices=SLICES):
    values = np.zeros(SHAPE, np.uint8)
    for k in slices:
        values[k] = labels[k] + 1
    return build_annotation(values, TWO, complete_slices=[(0, k) for k in slices])


def relabelled(box, value):
    labels = TRUTH.copy()
    labels[box] = value
    return labels


FORGOTTEN = (slice(10, 11), slice(5, 17), slice(5, 17))


def test_a_forgotten_structure_is_found_and_told_in_words():
    annotation = painted(relabelled(FORGOTTEN, 0))
    (doubt,) = check.doubts(IMAGE, annotation, believed())
    place = doubt.place(TWO, GEOMETRY)
    assert (place.axis, place.index, place.box, place.voxels) == (0, 10, FORGOTTEN, 144)
    assert (place.painted, place.believed) == ("", "Segment_1")
    assert TRUTH[place.centre_kji] == 1
    assert place.sentence == "The axial slice 10 is complete, but what looks like liver is background there (144 voxels)."
    assert check.LEAST_SURE <= place.sureness <= 1


def test_a_structure_painted_as_another_segment_is_found():
    (doubt,) = check.doubts(IMAGE, painted(relabelled(FORGOTTEN, 2)), believed())
    place = doubt.place(TWO, GEOMETRY)
    assert (place.index, place.painted, place.believed) == (10, "Segment_2", "Segment_1")
    assert place.sentence == "On the axial slice 10, what is painted as left kidney looks like liver (144 voxels)."


def test_a_stroke_with_the_wrong_segment_is_found():
    values = np.zeros(SHAPE, np.uint8)
    for n, k in enumerate(SLICES):
        values[k, 9 + n, 6:16], values[k, 29 + n, 24:34], values[k, 1 + n, 3:37] = 2, 3, 1
    values[10, 10, 6:16] = 3
    (doubt,) = check.doubts(IMAGE, build_annotation(values, TWO), believed())
    place = doubt.place(TWO, GEOMETRY)
    assert (place.axis, place.index, place.voxels) == (0, 10, 10)
    assert place.sentence == "On the axial slice 10, a stroke of left kidney looks like liver (10 voxels)."


def test_right_paint_and_contours_that_are_off_by_a_voxel_are_not_spoken_of():
    off = np.roll(TRUTH, 1, axis=1)
    assert check.doubts(IMAGE, painted(), believed()) == []
    assert check.doubts(IMAGE, painted(off), believed()) == []


def test_paint_that_is_believed_to_be_background_is_left_to_the_user():
    extra = (slice(10, 11), slice(5, 15), slice(25, 35))
    assert check.doubts(IMAGE, painted(relabelled(extra, 1)), believed()) == []


def test_gray_values_that_speak_against_a_belief_make_it_less_sure():
    annotation = painted(relabelled(FORGOTTEN, 0))
    (doubt,) = check.doubts(IMAGE, annotation, believed())
    dark = IMAGE.copy()
    dark[10, 5:17, 5:17] = IMAGE[10, :12, 20:32]  # as background is
    found = check.pieces(dark, annotation.labels, annotation.labelled, 3, believed())
    assert max(check.sureness(piece) for piece in found) < doubt.sureness


def test_each_slice_is_believed_without_itself():
    """What is asked is never shown the slice that it is compared with; so a mistake cannot vouch for itself."""
    annotation, asked = painted(), []

    def answer(rest):
        asked.append(rest.any(axis=(1, 2)))
        return Belief(TRUTH, np.full(SHAPE, 230, np.uint8))

    check.doubts(IMAGE, annotation, answer)
    hidden = [{k for k in SLICES if not there[k]} for there in asked]
    assert sorted(hidden, key=min) == [{4}, {10}, {15}]
    assert not any(there[[k for k in range(SHAPE[0]) if k not in SLICES]].any() for there in asked)


def test_strokes_of_a_thick_brush_are_held_out_together_with_what_they_reach():
    labelled = np.zeros(SHAPE, bool)
    labelled[3:6, 9:12, 5:30] = labelled[12, 20, 5:30] = True
    planes = check.annotated(labelled)
    assert planes == [(0, 3), (0, 4), (0, 5), (0, 12)]
    assert check.folds(planes, labelled) == [planes[:3], planes[3:]]
    rest = check.without(labelled, planes[1:2])
    assert rest[12].sum() == 25
    assert rest.sum() == 25


def test_the_mirror_image_of_a_mistake_is_explained_by_it():
    """The middle slice is mistaken; held out, the outer ones are believed to be like it, and seem wrong."""
    annotation = painted(relabelled(FORGOTTEN, 2))

    def like_the_others(rest):
        outer = not rest[4].any() or not rest[15].any()
        return Belief(np.where((TRUTH == 1) & outer, 2, TRUTH).astype(np.uint8), np.full(SHAPE, 255 if outer else 230, np.uint8))

    found = check.pieces(IMAGE, annotation.labels, annotation.labelled, 3, like_the_others)
    assert {piece.index for piece in found} == {4, 10, 15}
    sure = {4: 0.8, 10: 0.9, 15: 0.8}
    kept = check.listed([check.Doubt(piece, sure[piece.index]) for piece in found])
    assert [doubt.piece.index for doubt in kept] == [10]


def test_the_surest_come_first_and_unsure_ones_not_at_all():
    labels = TRUTH.copy()
    labels[4, 5:17, 5:17], labels[15, 22:36, 22:36] = 0, 0
    found = check.pieces(IMAGE, painted(labels).labels, painted(labels).labelled, 3, believed())
    assert len(found) == 2
    doubts = [check.Doubt(piece, value) for piece, value in zip(found, (0.6, 0.9), strict=True)]
    assert [doubt.sureness for doubt in check.listed(doubts, 0.5)] == [0.9, 0.6]
    assert [doubt.sureness for doubt in check.listed(doubts, 0.7)] == [0.9]


@pytest.mark.parametrize("change", ["repainted", "erased", "elsewhere"])
def test_a_doubt_stands_until_its_voxels_are_changed(change):
    (doubt,) = check.doubts(IMAGE, painted(relabelled(FORGOTTEN, 0)), believed())
    assert doubt.stands(painted(relabelled(FORGOTTEN, 0)))
    labels = relabelled(FORGOTTEN, 0)
    if change == "repainted":
        labels[10, 8, 8] = 1
        assert not doubt.stands(painted(labels))
    elif change == "erased":
        assert not doubt.stands(painted(labels, (4, 15)))
    else:
        labels[10, 30, 5] = 1
        assert doubt.stands(painted(labels))


def test_annotation_on_one_slice_only_is_not_checked():
    assert check.doubts(IMAGE, painted(slices=(10,)), believed()) == []
