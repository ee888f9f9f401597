"""Strokes and complete slices -> labels and weights: the method's formula by hand, and each complaint in words."""

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sparseseg.annotation.border import add_border_weight
from sparseseg.annotation.labels import COMPLETE, CORRECTION, STROKE, UNLABELLED, build_annotation
from sparseseg.annotation.slices import annotated_planes, covering_slices, find_complete_slices, values_on
from sparseseg.contract import box
from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.contract.errors import AnnotationError
from sparseseg.contract.settings import Settings
from sparseseg.contract.strokes import merge_strokes

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ONE, TWO, THREE = ClassTable.numbered(1), ClassTable.numbered(2), ClassTable.numbered(3)
ALIKE = Settings(class_balance=0)


def annotation_map(shape, *painted):
    """uint8 zeros with (value, index) painted in this order."""
    result = np.zeros(shape, np.uint8)
    for value, index in painted:
        result[index] = value
    return result


CUBE = annotation_map((2, 2, 2), (1, (0,)), (2, (1, 0, 0)))  # four background voxels, one of the segment, three unlabelled


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("balance", "background", "segment"),
    [(0, 1, 1), (0.5, 5 / 6, 5 / 3), (1, 5 / 8, 5 / 2)],  # N = 5, n = 4 and 1; sum of n^(1-b): 5, 2 + 1, 2
)
def test_weights_of_a_two_by_two_by_two_volume(balance, background, segment):
    weights = build_annotation(CUBE, ONE, Settings(class_balance=balance)).weights
    expected = [[[background, background], [background, background]], [[segment, 0], [0, 0]]]
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_weights_of_a_three_by_three_by_three_volume():
    strokes = annotation_map((3, 3, 3), (1, (slice(0, 2),)), (0, (1, 2, 2)), (0, (1, 2, 1)), (2, (2,)), (3, (1, 2, 1)))
    built = build_annotation(strokes, TWO, Settings(class_balance=0.5))  # n = 16, 9, 1; N = 26; 4 + 3 + 1 = 8
    np.testing.assert_allclose([built.weights[0, 0, 0], built.weights[2, 0, 0], built.weights[1, 2, 1]], [26 / 32, 26 / 24, 26 / 8], rtol=1e-6)
    assert built.weights[1, 2, 2] == 0
    assert [(row.name, row.voxels, row.slices) for row in built.rows] == [
        ("Background", 16, (2, 3, 3)),
        ("segment 1", 9, (1, 3, 3)),
        ("segment 2", 1, (1, 1, 1)),
    ]
    assert [row.weight for row in built.rows] == pytest.approx([13, 9.75, 3.25], rel=1e-6)


def test_no_class_weighs_more_than_ten_times_the_mean():
    strokes = annotation_map((10, 10, 10), (1, ...), (2, (0, 0, 0)))  # with all classes alike the one voxel would weigh 500
    weights = build_annotation(strokes, ONE, Settings(class_balance=1)).weights
    assert weights[0, 0, 0] == 10
    assert weights[1, 1, 1] == pytest.approx(1000 / (2 * 999))


@st.composite
def trainable(draw):
    """An annotation map in which background and both segments occur."""
    strokes = draw(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=5), elements=st.integers(0, 3)))
    strokes.reshape(-1)[:3] = (1, 2, 3)
    return strokes


@given(trainable(), st.floats(0, 1))
def test_weights_are_zero_where_unlabelled_and_positive_where_labelled(strokes, balance):
    built = build_annotation(strokes, TWO, Settings(class_balance=balance))
    assert (built.weights[strokes == 0] == 0).all()
    assert (built.weights[strokes > 0] > 0).all()
    assert (built.labels[strokes > 0] == strokes[strokes > 0] - 1).all()
    assert (built.labelled == (strokes > 0)).all()
    assert (built.origin == np.where(strokes > 0, STROKE, UNLABELLED)).all()


@given(trainable(), st.floats(0, 1))
def test_labelled_voxels_weigh_one_on_average(strokes, balance):
    built = build_annotation(strokes, TWO, Settings(class_balance=balance))
    limit = 10 * 0.999
    if built.weights.max() < limit and built.weights[built.labelled].min() > 0.1001:  # else the limits have been at work
        assert built.weights[built.labelled].mean() == pytest.approx(1, rel=1e-5)


@given(trainable())
def test_class_balance_one_gives_every_class_the_same_sum(strokes):
    rows = build_annotation(strokes, TWO, Settings(class_balance=1)).rows
    if max(row.weight / row.voxels for row in rows) < 10:
        assert [row.weight for row in rows] == pytest.approx([sum(row.voxels for row in rows) / 3] * 3, rel=1e-5)


# ---------------------------------------------------------------- complete slices


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_complete_slice_is_background_where_nothing_is_painted(axis):
    strokes = annotation_map((3, 4, 5), (2, (1, 1, 1)))
    built = build_annotation(strokes, ONE, ALIKE, [(axis, 1)])
    expected = np.zeros((3, 4, 5), np.uint8)
    expected[tuple(1 if a == axis else slice(None) for a in range(3))] = COMPLETE
    expected[1, 1, 1] = STROKE
    assert (built.origin == expected).all()
    assert ((built.weights > 0) == (expected > 0)).all()
    assert built.labels.sum() == built.labels[1, 1, 1] == 1
    assert built.rows[0].voxels == {0: 19, 1: 14, 2: 11}[axis]
    assert built.complete_slices == ((axis, 1),)


def test_crossing_complete_slices_count_their_common_voxels_once():
    built = build_annotation(annotation_map((3, 3, 3), (2, (0, 0, 0))), ONE, ALIKE, [(0, 1), (1, 1), (2, 1)])
    assert built.rows[0].voxels == 27 - 8  # all but the eight corners
    assert built.weights[0, 0, 2] == 0


def test_a_stroke_beats_the_background_of_a_complete_slice():
    strokes = annotation_map((3, 3, 3), (2, (1, 0)), (3, (1, 1)), (1, (1, 2, 0)))
    built = build_annotation(strokes, TWO, ALIKE, [(0, 1), (1, 1)])
    assert built.labels[1].tolist() == [[1, 1, 1], [2, 2, 2], [0, 0, 0]]
    assert built.origin[1].tolist() == [[STROKE] * 3, [STROKE] * 3, [STROKE, COMPLETE, COMPLETE]]


# ---------------------------------------------------------------- corrections

BEFORE = annotation_map((1, 1, 6), (1, (0, 0, 0)), (2, (0, 0, 1)), (2, (0, 0, 2)))
AFTER = annotation_map((1, 1, 6), (1, (0, 0, 0)), (2, (0, 0, 1)), (1, (0, 0, 2)), (2, (0, 0, 3)), (2, (0, 0, 4)))
PREVIEW = np.array([[[1, 0, 1, 0, 1, 0]]], np.uint8)


def test_only_new_strokes_that_contradict_the_preview_are_corrections():
    earlier = build_annotation(BEFORE, ONE, ALIKE)
    built = build_annotation(AFTER, ONE, Settings(class_balance=0, correction_weight=7), earlier=earlier, preview=PREVIEW)
    # 0, 1: contradict, but are not new; 2: painted over and contradicts; 3: new and contradicts; 4: new and agrees
    assert built.origin.ravel().tolist() == [STROKE, STROKE, CORRECTION, CORRECTION, STROKE, UNLABELLED]
    assert built.weights.ravel().tolist() == [1, 1, 7, 7, 1, 0]
    assert built.corrections == 2
    assert "2 voxels correct the preview" in built.text()


def test_corrections_multiply_the_weight_of_their_class():
    earlier = build_annotation(BEFORE, ONE)
    plain = build_annotation(AFTER, ONE, Settings(class_balance=0.5)).weights.ravel()
    corrected = build_annotation(AFTER, ONE, Settings(class_balance=0.5, correction_weight=3), earlier=earlier, preview=PREVIEW).weights.ravel()
    np.testing.assert_allclose(corrected, plain * [1, 1, 3, 3, 1, 1], rtol=1e-6)


def test_corrections_stay_corrections_when_the_preview_has_learnt_them():
    first = build_annotation(AFTER, ONE, ALIKE, earlier=build_annotation(BEFORE, ONE, ALIKE), preview=PREVIEW)
    learnt = np.array([[[0, 1, 0, 1, 1, 0]]], np.uint8)
    second = build_annotation(AFTER, ONE, ALIKE, earlier=first, preview=learnt)
    assert second.origin.ravel().tolist() == first.origin.ravel().tolist()
    without = build_annotation(AFTER, ONE, ALIKE, earlier=first)
    assert without.corrections == 2


def test_a_correction_that_is_erased_or_painted_over_in_agreement_is_one_no_longer():
    first = build_annotation(AFTER, ONE, ALIKE, earlier=build_annotation(BEFORE, ONE, ALIKE), preview=PREVIEW)
    again = annotation_map((1, 1, 6), (1, (0, 0, 0)), (2, (0, 0, 1)), (2, (0, 0, 2)))
    second = build_annotation(again, ONE, ALIKE, earlier=first, preview=PREVIEW)  # 2 says again what the preview says, 3 and 4 are erased
    assert second.origin.ravel().tolist() == [STROKE, STROKE, STROKE, UNLABELLED, UNLABELLED, UNLABELLED]


def test_the_background_of_a_complete_slice_is_no_correction():
    earlier = build_annotation(BEFORE, ONE, ALIKE)
    built = build_annotation(BEFORE, ONE, ALIKE, [(0, 0)], earlier, np.ones_like(BEFORE))
    assert built.corrections == 0
    assert built.origin.ravel().tolist() == [STROKE, STROKE, STROKE, COMPLETE, COMPLETE, COMPLETE]


@given(trainable(), st.data())
def test_earlier_labels_are_kept(strokes, data):
    preview = data.draw(arrays.arrays(np.uint8, strokes.shape, elements=st.integers(0, 2)))
    more = strokes.copy()
    more[(strokes == 0) & data.draw(arrays.arrays(np.bool_, strokes.shape))] = 3
    first = build_annotation(strokes, TWO, ALIKE)
    second = build_annotation(more, TWO, ALIKE, earlier=first, preview=preview)
    assert (second.labels[strokes > 0] == first.labels[strokes > 0]).all()
    assert (second.origin[strokes > 0] == STROKE).all()
    assert ((second.origin == CORRECTION) == ((more > 0) & (strokes == 0) & (preview != 2))).all()


def test_the_memory_order_of_the_annotation_does_not_matter():
    strokes = annotation_map((2, 2, 2), (1, (0,)), (2, (1, 0)))
    more = annotation_map((2, 2, 2), (1, (0,)), (2, (1,)))
    earlier = build_annotation(strokes, ONE)
    for order in "CF":
        preview = np.zeros((2, 2, 2), np.uint8, order=order)
        built = build_annotation(np.array(more, order=order), ONE, earlier=earlier, preview=preview)
        assert (built.origin == CORRECTION).sum() == built.corrections == 2
        assert built.weights[1, 1].tolist() == (4 * built.weights[1, 0]).tolist()


# ---------------------------------------------------------------- the slices that hold the strokes


def test_covering_slices_are_those_that_were_painted_on_in_every_orientation_and_next_to_each_other():
    annotation = np.zeros((12, 14, 16), np.uint8)
    annotation[4, 2:9, 3:12] = 2
    annotation[5, 2:8, 3:11] = 2
    annotation[:, 10, 2:14] = 1
    annotation[1:11, 1:5, 14] = 3
    found = covering_slices(annotation)
    counts = values_on(annotation, found, 4)
    assert found == [(0, 4), (0, 5), (1, 10), (2, 14)]
    assert counts[0, 4][:4].tolist() == [0, 12, 63, 4]
    assert counts[2, 14][:4].tolist() == [0, 0, 0, 40]


def test_covering_slices_list_what_was_asked_for_and_nothing_outside():
    annotation = np.zeros((3, 4, 5), np.uint8)
    found = covering_slices(annotation, extra=[(2, 4), (0, 3)])
    assert found == [(2, 4)]
    assert not values_on(annotation, found, 2)[2, 4].any()


def test_covering_slices_leave_no_stroke_out():
    rng = np.random.default_rng(3)
    annotation = (rng.random((9, 10, 11)) > 0.97).astype(np.uint8) * 2
    found = covering_slices(annotation)
    left = annotation.copy()
    for axis, index in found:
        left[(slice(None),) * axis + (index,)] = 0
    assert annotation.any()
    assert not left.any()


# ---------------------------------------------------------------- strokes that overlap

WHOLE = (slice(0, 1), slice(0, 1), slice(0, 5))


def line(value, text):
    return WHOLE, np.array([[[value * (letter == "x") for letter in text]]], np.uint8)


def test_voxels_claimed_by_two_segments_are_unlabelled_and_counted():
    merged, overlaps = merge_strokes((1, 1, 5), [line(2, "xxx.."), line(3, ".xxx."), line(4, "....x")])
    assert merged.ravel().tolist() == [2, 0, 0, 3, 4]
    assert overlaps == {(2, 3): 2}


def test_the_same_value_twice_is_no_overlap():
    merged, overlaps = merge_strokes((1, 1, 5), [line(2, "xxx.."), line(2, ".xxx.")])
    assert merged.ravel().tolist() == [2, 2, 2, 2, 0]
    assert overlaps == {}


@pytest.mark.parametrize("order", [(2, 3, 4), (2, 4, 3), (4, 2, 3), (2, 3, 4, 2), (4, 4, 3, 3, 2, 2)])
def test_three_segments_on_one_voxel_dispute_it_in_pairs(order):
    merged, overlaps = merge_strokes((1, 1, 5), [line(value, "..x..") for value in order])
    assert not merged.any()
    assert overlaps == {(2, 3): 1, (2, 4): 1, (3, 4): 1}


def test_overlaps_are_counted_where_the_boxes_meet():
    first, second = (slice(0, 3), slice(1, 3), slice(0, 4)), (slice(2, 4), slice(0, None), slice(3, 5))
    merged, overlaps = merge_strokes((4, 3, 5), [(first, np.full((3, 2, 4), 2, np.uint8)), (second, np.full((2, 3, 2), 3, np.uint8))])
    assert overlaps == {(2, 3): 2}
    assert np.argwhere((merged == 0) & (np.indices(merged.shape)[0] == 2)).tolist()[-2:] == [[2, 1, 3], [2, 2, 3]]


def test_strokes_lie_in_their_boxes():
    box = (slice(1, 2), slice(0, 2), slice(2, 3))
    merged, _ = merge_strokes((2, 2, 3), [(box, np.array([[[5], [0]]], np.uint8))])
    assert np.argwhere(merged == 5).tolist() == [[1, 0, 2]]
    assert np.count_nonzero(merged) == 1


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 31)), max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_strokes_does_not_matter(strokes, random):
    lines = [line(value, "".join("x" if bits >> n & 1 else "." for n in range(5))) for value, bits in strokes]
    merged, overlaps = merge_strokes((1, 1, 5), lines)
    claims = [{value for value, bits in strokes if bits >> n & 1} for n in range(5)]
    assert merged.ravel().tolist() == [claim.pop() if len(claim) == 1 else 0 for claim in claims]
    random.shuffle(lines)
    again, overlaps_again = merge_strokes((1, 1, 5), lines)
    assert (again == merged).all()
    claims = [{value for value, bits in strokes if bits >> n & 1} for n in range(5)]
    pairs = Counter(pair for claim in claims for pair in itertools.combinations(sorted(claim), 2))
    assert overlaps_again == overlaps == pairs


# ---------------------------------------------------------------- complete slices found


def test_axial_slices_are_found():
    strokes = annotation_map((12, 10, 10), *[(2, (k, slice(2, 8), slice(3, 7))) for k in (2, 6, 10)], (1, (4, 5, 5)))
    assert find_complete_slices(strokes) == ((0, 2), (0, 6), (0, 10))


def test_three_crossing_slices_are_found_each_on_its_axis():
    strokes = annotation_map((13, 13, 13), (2, (6,)), (2, (slice(None), 4)), (3, (slice(None), slice(None), 9)))
    assert find_complete_slices(strokes) == ((0, 6), (1, 4), (2, 9))
    assert find_complete_slices(strokes, axes=(1,)) == ((1, 4),)


def test_strokes_through_several_slices_are_no_complete_slices():
    strokes = annotation_map((12, 12, 12), (2, (slice(3, 7), slice(4, 8), slice(5, 9))))
    assert find_complete_slices(strokes) == ()


def test_neighbouring_painted_slices_are_not_found():
    strokes = annotation_map((12, 10, 10), (2, (slice(5, 7),)))
    assert find_complete_slices(strokes) == ()


def test_background_strokes_make_no_slice_complete():
    strokes = annotation_map((9, 9, 9), (1, (4,)), (1, (slice(None), 2)), (2, (slice(3, 6), slice(3, 6), slice(3, 6))), (0, (4, 8, 8)))
    assert find_complete_slices(strokes) == ()


def test_a_stroke_is_no_complete_slice():
    for stroke in ((10, 10, slice(5, 10)), (10, slice(9, 11), slice(2, 18)), (10, slice(10, 13), slice(5, 8))):
        assert find_complete_slices(annotation_map((20, 20, 20), (2, stroke))) == ()


def test_a_filled_slice_with_background_strokes_on_it_is_not_complete():
    filled = ((2, (10, slice(5, 12), slice(5, 12))), (3, (10, slice(13, 17), slice(13, 17))))
    assert find_complete_slices(annotation_map((20, 20, 20), *filled)) == ((0, 10),)
    assert find_complete_slices(annotation_map((20, 20, 20), *filled, (1, (10, 2)))) == ()
    crossing = annotation_map((20, 20, 20), (1, (slice(None), slice(None), 2)), *filled)  # painted on a slice of another orientation
    assert find_complete_slices(crossing) == ((0, 10),)


def test_a_slice_labelled_in_every_voxel_is_complete_however_thin_its_segments():
    strokes = annotation_map((12, 12, 12), (1, (6,)), (2, (6, 3)))
    assert find_complete_slices(strokes) == ((0, 6),)
    strokes[6, 0, 0] = 0
    assert find_complete_slices(strokes) == ()


def test_planes_that_strokes_lie_on_are_found():
    strokes = annotation_map((20, 20, 20), (1, (5, 3, slice(2, 18))), (2, (5, 10, slice(5, 10))), (2, (slice(4, 16), 15, 15)))
    assert annotated_planes(strokes > 0, 3.0) == ((0, 5), (1, 3), (1, 10), (1, 15), (2, 15))
    assert annotated_planes(np.zeros((3, 4, 5), bool), 3.0) == ()


@pytest.mark.parametrize("case", ["ct-abdomen", "ct-aorta", "ct-dicom", "mr-macaque-brain"])
@pytest.mark.parametrize("protocol", ["slices-3", "slices-5", "ortho-3", "strokes-2", "strokes-3"])
def test_complete_slices_of_real_annotations(case, protocol):
    path = DATA / case / "annotations" / f"{protocol}.nii.gz"
    if not path.is_file():
        pytest.skip(f"development data {case} is not beside the repository")
    strokes = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    expected = tuple((axis, index) for axis in range(3) for index, plane in enumerate(np.moveaxis(strokes, axis, 0)) if plane.all())
    assert len(expected) == {"slices-3": 3, "slices-5": 5, "ortho-3": 9}.get(protocol, 0)
    assert find_complete_slices(strokes) == expected
    assert find_complete_slices(np.where(strokes > 1, strokes, 0)) == expected  # without the background, too


def test_a_slice_at_the_border_is_found():
    assert find_complete_slices(annotation_map((9, 9, 9), (2, (0,)), (2, (8,)))) == ((0, 0), (0, 8))


# ---------------------------------------------------------------- border weight


def test_border_weight_along_a_line():
    strokes = np.array([[[1, 1, 2, 2, 0, 2]]], np.uint8)  # the border runs between voxels 1 and 2; voxels are 2 mm wide
    built = add_border_weight(build_annotation(strokes, ONE, ALIKE), (1, 1, 2), 3, 2)
    near = 1 + 3 * math.exp(-0.5)  # 2 mm from the border's voxel, width 2 mm
    np.testing.assert_allclose(built.weights.ravel(), [near, 4, 4, near, 0, 1], rtol=1e-6)  # voxel 5 is 6 mm away: three widths
    assert [row.weight for row in built.rows] == pytest.approx([near + 4, near + 5], rel=1e-6)


def test_border_weight_leaves_lone_strokes_as_they_are():
    strokes = np.array([[[1, 0, 2]]], np.uint8)
    built = build_annotation(strokes, ONE, ALIKE)
    assert (add_border_weight(built, (1, 1, 1), 5, 3).weights == built.weights).all()


def test_border_weight_is_added_after_the_limits_and_not_scaled_back():
    strokes = annotation_map((1, 10, 100), (1, ...), (2, (0, 0, 0)))
    built = build_annotation(strokes, ONE, Settings(class_balance=1))  # weight of the one voxel: cut to 10
    assert add_border_weight(built, (1, 1, 1), 3, 0.1).weights[0, 0, 0] == 13


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.5, 0.7, 1.1)])
def test_border_distances_are_those_of_brute_force(spacing):
    rng = np.random.default_rng(3)
    strokes = (rng.integers(1, 4, (6, 7, 8)) * (rng.random((6, 7, 8)) < 0.15)).astype(np.uint8)
    built = build_annotation(strokes, TWO, ALIKE)
    places = [tuple(p) for p in np.argwhere(strokes)]
    steps = [s * d for d in np.eye(3, dtype=int) for s in (-1, 1)]
    border = [p for p in places if any(strokes[q] not in (0, strokes[p]) for d in steps if (q := tuple(p + d)) in places)]
    assert 2 <= len(border) < len(places)
    expected = np.zeros(strokes.shape)
    for place in places:
        distance = min(np.linalg.norm((np.array(place) - other) * spacing) for other in border)
        expected[place] = 1 + (2 * math.exp(-(distance**2) / (2 * 0.8**2)) if distance < 3 * 0.8 - 1e-6 else 0)
    np.testing.assert_allclose(add_border_weight(built, spacing, 2, 0.8).weights, expected, rtol=1e-5)


# ---------------------------------------------------------------- summary and refusals


def test_the_summary_names_every_class_and_the_share_that_is_labelled():
    named = ClassTable((Segment("a", "liver", (1, 0, 0)),), Segment("b", "rest", (0, 0, 0)))
    text = build_annotation(CUBE, named, ALIKE, [(0, 0)]).text()
    assert "5 of 8 voxels labelled (62 %), 1 complete slices." in text
    assert "rest: 4 voxels on 1 k, 2 j, 2 i slices, weight 4" in text
    assert "liver: 1 voxels on 1 k, 1 j, 1 i slices, weight 1" in text


@pytest.mark.parametrize(
    ("strokes", "classes", "slices", "words"),
    [
        (annotation_map((2, 2, 2)), ONE, [], "Nothing is labelled.*Paint each structure"),
        (annotation_map((2, 2, 2), (2, (0,))), ONE, [], "No background is labelled.*Background, or declare a slice complete"),
        (annotation_map((2, 2, 2), (2, (0,))), ONE, [(0, 0)], "No background is labelled"),  # complete, but painted all over
        (annotation_map((2, 2, 2), (1, (0,))), TWO, [], "No segment has a painted voxel"),
        (annotation_map((2, 2, 2)), TWO, [(0, 0)], "No segment has a painted voxel"),
        (annotation_map((2, 2, 2), (3, (1,))), THREE, [], "No background is labelled"),
        (annotation_map((2, 2, 2), (1, (0,)), (3, (1,))), ONE, [], r"has value 3, but there are 1 segments \(highest value 2\)"),
        (CUBE, ONE, [(0, 2)], "Complete slice 2 along axis k lies outside"),
        (CUBE, ONE, [(2, -1)], "Complete slice -1 along axis i lies outside"),
        (CUBE, ONE, [(3, 0)], "Complete slice 0 along axis 3 lies outside"),
        (CUBE.astype(np.int16), ONE, [], "3-D map of type uint8, got 3-D int16"),
        (CUBE > 0, ONE, [], "got 3-D bool"),
        (CUBE[0], ONE, [], "got 2-D uint8"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(strokes, classes, slices, words):
    with pytest.raises(AnnotationError, match=words):
        build_annotation(strokes, classes, ALIKE, slices)


def test_a_refused_annotation_is_not_changed():
    strokes = annotation_map((2, 2, 2), (2, (0,)))
    before = strokes.copy()
    with pytest.raises(AnnotationError):
        build_annotation(strokes, ONE, ALIKE, [(0, 0)])
    assert (strokes == before).all()


def test_the_highest_value_of_a_full_table_fits():
    table = ClassTable.numbered(254)
    strokes = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    built = build_annotation(strokes, table)
    assert built.labels.max() == 254
    assert list(itertools.islice((row.voxels for row in built.rows), 3)) == [1, 1, 1]


def test_it_has_complete_slices_where_one_is_labelled_throughout():
    values = np.zeros((4, 5, 6), np.uint8)
    values[1, 1:4], values[2, :, 3] = 2, 1
    assert not build_annotation(values, ClassTable.numbered(1)).has_complete_slices
    values[:, 2][values[:, 2] == 0] = 1  # across the second axis
    assert build_annotation(values, ClassTable.numbered(1)).has_complete_slices


def test_the_border_is_the_same_in_slabs(monkeypatch):
    values = np.random.default_rng(5).integers(0, 4, (12, 9, 10)).astype(np.uint8)
    made = build_annotation(values, ClassTable.numbered(2))
    whole = add_border_weight(made, (2.0, 1.0, 1.5), 5, 1.3)
    monkeypatch.setattr(box, "_SLAB_VOXELS", 200)
    parts = add_border_weight(made, (2.0, 1.0, 1.5), 5, 1.3)
    np.testing.assert_array_equal(parts.border, whole.border)
    assert [row.weight for row in parts.rows] == pytest.approx([row.weight for row in whole.rows])
