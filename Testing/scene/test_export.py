"""Strokes in a segmentation node -> annotation on the volume's voxels."""

import numpy as np
import pytest
import slicer
import vtk
from scenes import (
    GRIDS,
    LABELMAP,
    LEFT_HANDED,
    MOVED,
    OBLIQUE,
    PARENTS,
    PLAIN,
    SHAPE,
    SURFACE,
    TURNED,
    affine,
    fingerprint,
    makeSegmentation,
    makeVolume,
    makeWarp,
    paint,
    paintLayer,
    pointsOf,
    putUnder,
    rawPoints,
    resetViews,
    rotation,
    samePoints,
    sliceNode,
    voxels,
)

from sparseseg.contract.errors import InputError
from sparseseg.contract.store import IN_MEMORY
from SparseSegSlicerLib.scene.ChannelVolumes import imageOf
from SparseSegSlicerLib.scene.Grids import volumeArray, volumeGeometry
from SparseSegSlicerLib.scene.SceneExport import takeSnapshot
from SparseSegSlicerLib.scene.Segments import APPLIED_TAG
from SparseSegSlicerLib.scene.SliceViews import alignViews, jumpTo
from SparseSegSlicerLib.scene.StrokeReader import Choices, readStrokes


def read(segmentationNode, volumeNode, **choices):
    chosen = Choices(**choices)
    before = fingerprint(segmentationNode)
    strokes = readStrokes(takeSnapshot(segmentationNode, volumeNode, chosen.unused), chosen)
    assert fingerprint(segmentationNode) == before, "reading changed the user's segmentation"
    return strokes


def placesOf(strokes, value):
    return np.argwhere(strokes.annotation == value).tolist()


@pytest.fixture
def scene(scene_host):
    resetViews(scene_host.scene)
    return scene_host.scene


# -- where the strokes lie ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parents", PARENTS)
@pytest.mark.parametrize("grid", GRIDS)
def test_strokes_on_the_voxels_are_read_exactly(scene, grid, parents):
    ofVolume, ofSegmentation = PARENTS[parents]
    volume, node = makeVolume(scene, GRIDS[grid]), makeSegmentation(scene, "bone", "fat", ("rest", "Background"))
    putUnder(volume, ofVolume)
    putUnder(node, ofSegmentation)
    frame = np.linalg.inv(ofSegmentation) @ ofVolume @ GRIDS[grid]
    drawn = {
        "bone": voxels((0, 0, 0), (5, 6, 7), (2, slice(1, 4), 3)),
        "fat": voxels((0, 0, 1), (4, 5, slice(2, 6))),
        "rest": voxels((5, 0, 0), (1, slice(None), 7)),
    }
    paintLayer(node, {"bone": 1, "fat": 2}, drawn["bone"] + 2 * drawn["fat"], frame)
    paint(node, "rest", drawn["rest"][1:, :, :], frame, start=(1, 0, 0))
    strokes = read(node, volume)
    assert np.array_equal(strokes.annotation, 2 * drawn["bone"] + 3 * drawn["fat"] + drawn["rest"])
    assert strokes.classes.names == ["bone", "fat"] and strokes.classes.background.id == "rest"
    assert strokes.notes == ()
    for sid, value in (("bone", 2), ("fat", 3), ("rest", 1)):  # millimetres in the world: the layer's own, and the annotation's
        assert samePoints(rawPoints(node, sid, ofSegmentation), pointsOf(placesOf(strokes, value), ofVolume @ GRIDS[grid]))


def test_world_coordinates_by_hand(scene):
    """The volume's voxel (k 1, j 2, i 3) is at (10 - 0.8 * 3, 20 - 0.9 * 2, -30 + 2.5) mm, 100 mm further right under its transform."""
    volume, node = makeVolume(scene), makeSegmentation(scene, "a")
    putUnder(volume, affine(np.eye(3), (100, 0, 0)))
    paint(node, "a", np.ones((1, 1, 1)), affine(np.diag([-0.8, -0.9, 2.5]), (107.6, 18.2, -27.5)))
    assert placesOf(read(node, volume), 2) == [[1, 2, 3]]


def test_segmentation_under_a_child_of_the_volumes_transform(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, "a")
    parent = putUnder(volume, TURNED)
    putUnder(node, MOVED, parent)
    paint(node, "a", voxels((3, 2, 1), (0, 6, 7)), np.linalg.inv(MOVED) @ PLAIN)
    assert placesOf(read(node, volume), 2) == [[0, 6, 7], [3, 2, 1]]


def test_same_warp_on_both_is_exact(scene):
    volume, node, warp = makeVolume(scene), makeSegmentation(scene, "a"), makeWarp(scene)
    volume.SetAndObserveTransformNodeID(warp.GetID())
    node.SetAndObserveTransformNodeID(warp.GetID())
    paint(node, "a", voxels((3, 2, 1)))
    assert placesOf(read(node, volume), 2) == [[3, 2, 1]]


@pytest.mark.parametrize("warped", ["volume", "segmentation", "parent of the volume's transform"])
def test_warp_on_one_is_refused(scene, warped):
    volume, node, warp = makeVolume(scene), makeSegmentation(scene, "a"), makeWarp(scene)
    under = {"volume": volume, "segmentation": node}.get(warped) or putUnder(volume, MOVED)
    under.SetAndObserveTransformNodeID(warp.GetID())
    paint(node, "a", voxels((3, 2, 1)))
    with pytest.raises(InputError, match=r"image and segmentation are under different transforms, and one is not linear\. Harden"):
        takeSnapshot(node, volume)


@pytest.mark.parametrize("shift", [(2, -1, 3), (-2, 1, -3), (0, 0, 40), (-40, 0, 0)])
@pytest.mark.parametrize("grid", GRIDS)
def test_reference_geometry_shifted_by_whole_voxels(scene, grid, shift):
    """shift: k, j, i. What falls outside of the volume is counted."""
    matrix = GRIDS[grid]
    volume, node = makeVolume(scene, matrix), makeSegmentation(scene, "a")
    drawn = np.random.default_rng(0).random(SHAPE) < 0.2
    other = matrix @ affine(np.eye(3), shift[::-1])
    paint(node, "a", drawn, other)
    expected = [p for p in (np.argwhere(drawn) + shift).tolist() if all(0 <= x < n for x, n in zip(p, SHAPE, strict=True))]
    strokes = read(node, volume)
    assert placesOf(strokes, 2) == expected
    lost = int(drawn.sum()) - len(expected)
    assert f"{lost} painted voxels lie outside of the volume and are not used." in strokes.notes


def test_coarser_grid_is_nearest_neighbour(scene):
    """Coarse voxel (1, 0, 2) is twice as long in each direction and covers 2 x 2 x 2 voxels: k 2..3, j 0..1, i 4..5."""
    volume, node = makeVolume(scene, OBLIQUE), makeSegmentation(scene, "a", "b")
    coarse = OBLIQUE @ affine(np.diag([2, 2, 2]), (0.5, 0.5, 0.5))
    drawn = np.zeros((3, 3, 4), np.uint8)
    drawn[1, 0, 2], drawn[2, 2, 0] = 1, 2
    paintLayer(node, {"a": 1, "b": 2}, drawn, coarse)
    strokes = read(node, volume)
    expected = np.kron(drawn, np.ones((2, 2, 2), np.uint8))  # 6 x 6 x 8
    expected = np.pad(expected, ((0, 0), (0, 1), (0, 0)))
    assert np.array_equal(strokes.annotation, np.where(expected, expected + 1, 0))
    assert strokes.notes == ()


def test_much_coarser_grid(scene):
    """Coarse voxels are 3 x 3 x 3 voxels; the outermost reach beyond their centres to the volume's border."""
    volume, node = makeVolume(scene, LEFT_HANDED), makeSegmentation(scene, "a")
    paint(node, "a", np.ones((2, 2, 2)), LEFT_HANDED @ affine(np.diag([3, 3, 3]), (1, 1, 1)))
    assert np.array_equal(read(node, volume).annotation == 2, voxels((slice(0, 6), slice(0, 6), slice(0, 6))))


def test_finer_and_turned_grid_is_nearest_neighbour(scene):
    """Each voxel takes the value of the fine voxel in which its centre lies."""
    volume, node = makeVolume(scene, PLAIN), makeSegmentation(scene, "a")
    fine = affine(rotation(z=20, x=10) @ np.diag([0.5, 0.5, 0.5]), (2.13, 11.27, -31.4))
    drawn = np.random.default_rng(1).random((30, 24, 24)) < 0.5
    paint(node, "a", drawn, fine)
    centres = pointsOf(np.argwhere(np.ones(SHAPE)), PLAIN)
    place = np.rint((np.column_stack([centres, np.ones(len(centres))]) @ np.linalg.inv(fine).T)[:, 2::-1]).astype(int)
    inside = ((place >= 0) & (place < drawn.shape)).all(1)
    expected = np.zeros(len(centres), bool)
    expected[inside] = drawn[tuple(place[inside].T)]
    assert expected.sum() > 20
    assert np.array_equal(read(node, volume).annotation.reshape(-1) == 2, expected)


def test_painted_outside_on_another_grid_is_counted(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, "a")
    coarse = PLAIN @ affine(np.diag([2, 2, 2]), (0.5, 0.5, 0.5))
    paint(node, "a", voxels((0, 0, 0), (0, 0, 3), (0, 0, 4), (5, 0, 0)), coarse)
    strokes = read(node, volume)
    assert len(placesOf(strokes, 2)) == 16
    assert "2 painted voxels lie outside of the volume and are not used." in strokes.notes


def test_unused_segments_are_not_counted_as_outside(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, "a", "b")
    paintLayer(node, {"a": 1, "b": 2}, np.array([[[1, 2]]], np.uint8), PLAIN, start=(0, 0, 7))  # b's only voxel is at i = 8
    assert read(node, volume, unused=("b",)).notes == ()
    assert "1 painted voxels lie outside" in " ".join(read(node, volume).notes)


def test_oblique_plane_of_strokes_is_read_whole(scene):
    """A brush in a turned slice view touches many slices of each orientation."""
    volume, node = makeVolume(scene, shape=(20, 20, 20)), makeSegmentation(scene, "a")
    k, j, i = np.indices((20, 20, 20))
    drawn = np.abs(0.5 * k + 0.6 * j + 0.62 * i - 17) < 0.5
    paint(node, "a", drawn)
    strokes = read(node, volume)
    assert np.array_equal(strokes.annotation == 2, drawn) and drawn.sum() > 200
    covered = np.zeros(drawn.shape, bool)
    for row in strokes.slices:
        covered[(slice(None),) * row.axis + (row.index,)] = True
    assert covered[drawn].all()


# -- layers and segments -----------------------------------------------------------------------------------------------


def test_overlap_is_unlabelled_and_reported(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, ("a", "Bone"), ("b", "Fat"), ("c", "Air"))
    paint(node, "a", voxels((1, slice(0, 4), 2)))
    paint(node, "b", voxels((1, slice(2, 6), 2)))
    paint(node, "c", voxels((1, 3, 2), (4, 4, 4)))
    strokes = read(node, volume)
    assert placesOf(strokes, 2) == [[1, 0, 2], [1, 1, 2]]
    assert placesOf(strokes, 3) == [[1, 4, 2], [1, 5, 2]]
    assert placesOf(strokes, 4) == [[4, 4, 4]]
    assert set(strokes.notes) == {
        "Bone and Fat overlap in 2 voxels, which count as unlabelled.",
        "Bone and Air overlap in 1 voxels, which count as unlabelled.",
        "Fat and Air overlap in 1 voxels, which count as unlabelled.",
    }


def test_overlap_with_the_background_is_reported(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, ("a", "Bone"), ("z", "Background"))
    paint(node, "a", voxels((1, slice(0, 4), 2)))
    paint(node, "z", voxels((1, slice(3, 6), 2)))
    strokes = read(node, volume)
    assert strokes.notes == ("Background and Bone overlap in 1 voxels, which count as unlabelled.",)
    assert len(placesOf(strokes, 2)) == 3 and len(placesOf(strokes, 1)) == 2


def test_renamed_and_reordered_segments(scene):
    """Values follow the IDs, so that a session goes on when the user sorts the table."""
    volume, node = makeVolume(scene), makeSegmentation(scene, "a", "b", "c")
    paintLayer(node, {"a": 1, "b": 2, "c": 3}, voxels((0, 0, 0)) + 2 * voxels((1, 1, 1)) + 3 * voxels((2, 2, 2)))
    segmentation = node.GetSegmentation()
    segmentation.GetSegment("a").SetName("Zygomaticus")
    segmentation.GetSegment("c").SetColor(0.25, 0.5, 0.75)
    segmentation.SetSegmentIndex("c", 0)
    assert segmentation.GetSegmentIDs() == ("c", "a", "b")
    strokes = read(node, volume)
    assert [s.id for s in strokes.classes.segments] == ["a", "b", "c"]
    assert strokes.classes.names == ["Zygomaticus", "b", "c"]
    assert strokes.classes.segments[2].color == (0.25, 0.5, 0.75)
    assert [placesOf(strokes, v) for v in (2, 3, 4)] == [[[0, 0, 0]], [[1, 1, 1]], [[2, 2, 2]]]


def test_terminology_is_kept(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, "a")
    segment = node.GetSegmentation().GetSegment("a")
    name, term = segment.GetTerminologyEntryTagName(), "Segmentation category and type~SCT^123037004^Anatomical Structure~SCT^23451007^Adrenal~^^"
    segment.SetTag(name, term)
    paint(node, "a", voxels((0, 0, 0)))
    assert read(node, volume).classes.segments[0].tags == {name: term}


def test_sixty_segments(scene):
    ids = [f"s{n:03}" for n in range(60)]
    volume, node = makeVolume(scene), makeSegmentation(scene, *ids)
    values = np.zeros(SHAPE, np.uint8)
    values.reshape(-1)[:120] = np.repeat(np.arange(1, 61), 2)
    paintLayer(node, {sid: n for n, sid in enumerate(ids, start=1)}, values)
    strokes = read(node, volume)
    assert [s.id for s in strokes.classes.segments] == ids
    assert np.array_equal(strokes.annotation.reshape(-1)[:120], np.repeat(np.arange(2, 62), 2))


def test_254_segments_are_the_most(scene):
    ids = [f"s{n:03}" for n in range(254)]
    volume, node = makeVolume(scene), makeSegmentation(scene, *ids)
    values = np.zeros(SHAPE, np.uint16)
    values.reshape(-1)[:254] = np.arange(1, 255)
    paintLayer(node, {sid: n for n, sid in enumerate(ids, start=1)}, values)
    strokes = read(node, volume)
    assert np.array_equal(strokes.annotation.reshape(-1)[:254], np.arange(2, 256))
    node.GetSegmentation().AddEmptySegment("one more")
    with pytest.raises(InputError, match="255 segments are more than the 254"):
        takeSnapshot(node, volume)
    assert len(read(node, volume, unused=("one more",)).classes) == 254


@pytest.mark.parametrize("value", [300, 30_000])
def test_large_label_values(scene, value):
    volume, node = makeVolume(scene), makeSegmentation(scene, "a", "b")
    array = (value * voxels((1, 2, 3)).astype(np.int16)) + (value - 1) * voxels((3, 2, 1)).astype(np.int16) + 7 * voxels((4, 4, 4)).astype(np.int16)
    paintLayer(node, {"a": value, "b": value - 1}, array.astype(np.int16))  # 7 belongs to no segment
    strokes = read(node, volume)
    assert placesOf(strokes, 2) == [[1, 2, 3]] and placesOf(strokes, 3) == [[3, 2, 1]]
    assert np.count_nonzero(strokes.annotation) == 2


def test_empty_segments_keep_their_place_and_are_named(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, ("a", "Never painted"), "b", ("c", "Erased"), "d")
    paint(node, "b", voxels((1, 1, 1)))
    paint(node, "c", voxels())
    paint(node, "d", voxels((2, 2, 2)))
    strokes = read(node, volume)
    assert [s.id for s in strokes.classes.segments] == ["a", "b", "c", "d"]
    assert placesOf(strokes, 3) == [[1, 1, 1]] and placesOf(strokes, 5) == [[2, 2, 2]]
    assert strokes.notes == ("Nothing is painted in Never painted, Erased: they stay empty. Paint them on a slice, and they join in.",)
    assert strokes.slices[0].voxels == {"b": 1}


def test_empty_segments_that_a_training_does_not_know_are_left_out_without_gaps(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, ("a", "Never painted"), "b", ("c", "Erased"), "d")
    paint(node, "b", voxels((1, 1, 1)))
    paint(node, "c", voxels())
    paint(node, "d", voxels((2, 2, 2)))
    strokes = read(node, volume, table=("b", "d"))
    assert [s.id for s in strokes.classes.segments] == ["b", "d"]
    assert placesOf(strokes, 2) == [[1, 1, 1]] and placesOf(strokes, 3) == [[2, 2, 2]]
    assert strokes.notes == ("Nothing is painted in Never painted, Erased; left out.",)
    assert strokes.slices[0].voxels == {"b": 1}


def test_nothing_painted_at_all(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, "a", "Background")
    strokes = read(node, volume)
    assert not strokes.annotation.any() and strokes.classes.names == ["a"] and strokes.slices == ()
    assert not read(makeSegmentation(scene), volume).annotation.any()


def test_background_by_tag_by_name_or_none(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, "a", ("b", " BACKground "), "c")
    paintLayer(node, {"a": 1, "b": 2, "c": 3}, voxels((0, 0, 0)) + 2 * voxels((1, 1, 1)) + 3 * voxels((2, 2, 2)))
    named = read(node, volume)
    assert named.classes.background.id == "b" and [s.id for s in named.classes.segments] == ["a", "c"]
    assert [placesOf(named, v) for v in (1, 2, 3)] == [[[1, 1, 1]], [[0, 0, 0]], [[2, 2, 2]]]
    node.GetSegmentation().GetSegment("c").SetTag("SparseSegSlicer.Background", "1")
    tagged = read(node, volume)
    assert tagged.classes.background.id == "c" and [placesOf(tagged, v) for v in (1, 2, 3)] == [[[2, 2, 2]], [[0, 0, 0]], [[1, 1, 1]]]
    none = read(node, volume, unused=("c",))  # the background was unticked, which does not make another segment the background
    assert none.classes.background is None and [s.id for s in none.classes.segments] == ["a", "b"]


def test_unused_segments_leave_no_trace(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, "a", "b", "c")
    paintLayer(node, {"a": 1, "b": 2}, voxels((0, 0, 0)) + 2 * voxels((1, 1, 1)))
    paint(node, "c", voxels((0, 0, 0), (5, 5, 5)))
    strokes = read(node, volume, unused=("b", "c"))
    assert placesOf(strokes, 2) == [[0, 0, 0]] and np.count_nonzero(strokes.annotation) == 1
    assert strokes.classes.names == ["a"] and strokes.notes == ()


def test_a_result_without_its_strokes_counts_as_strokes_and_that_is_said(scene):
    """So is one that was loaded from a file."""
    volume, node = makeVolume(scene), makeSegmentation(scene, ("a", "Bone"), "b")
    paint(node, "a", voxels((0, 0, slice(0, 4))))
    paint(node, "b", voxels((1, 1, 1)))
    node.GetSegmentation().GetSegment("a").SetTag(APPLIED_TAG, "1")
    strokes = read(node, volume)
    assert len(placesOf(strokes, 2)) == 4
    assert strokes.notes == ("In Bone: a result without the strokes it was made from: all of it counts as strokes.",)
    assert read(node, volume, unused=("a",)).notes == ()


# -- closed surfaces ---------------------------------------------------------------------------------------------------


def box(low_kji, high_kji, grid):
    """The closed surface around voxels low..high."""
    cube, triangles, place, transform = vtk.vtkCubeSource(), vtk.vtkTriangleFilter(), vtk.vtkTransformPolyDataFilter(), vtk.vtkTransform()
    cube.SetBounds(*[v + d for low, high in zip(reversed(low_kji), reversed(high_kji), strict=True) for v, d in ((low, -0.5), (high, 0.5))])
    triangles.SetInputConnection(cube.GetOutputPort())
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(grid).ravel().tolist())
    transform.SetMatrix(matrix)
    place.SetInputConnection(triangles.GetOutputPort())
    place.SetTransform(transform)
    place.Update()
    return place.GetOutput()


@pytest.mark.parametrize("parents", ["no transform", "different"])
@pytest.mark.parametrize("grid", ["plain", "oblique"])
def test_closed_surfaces_are_read_and_stay_surfaces(scene, grid, parents):
    ofVolume, ofSegmentation = PARENTS[parents]
    volume, node = makeVolume(scene, GRIDS[grid]), makeSegmentation(scene, "a", "b")
    putUnder(volume, ofVolume)
    putUnder(node, ofSegmentation)
    frame = np.linalg.inv(ofSegmentation) @ ofVolume @ GRIDS[grid]
    segmentation = node.GetSegmentation()
    segmentation.SetSourceRepresentationName(SURFACE)
    segmentation.GetSegment("a").AddRepresentation(SURFACE, box((1, 2, 3), (2, 4, 6), frame))
    segmentation.GetSegment("b").AddRepresentation(SURFACE, box((4, 0, 1), (4, 3, 2), frame))
    strokes = read(node, volume)
    assert np.array_equal(strokes.annotation == 2, voxels((slice(1, 3), slice(2, 5), slice(3, 7))))
    assert np.array_equal(strokes.annotation == 3, voxels((4, slice(0, 4), slice(1, 3))))
    assert not segmentation.ContainsRepresentation(LABELMAP) and segmentation.GetSourceRepresentationName() == SURFACE


# -- volumes -----------------------------------------------------------------------------------------------------------


def test_colour_volume_is_refused(scene):
    with pytest.raises(InputError, match=r"image has 3 values a voxel\. Convert it to a scalar volume"):
        volumeArray(makeVolume(scene, shape=(*SHAPE, 3), dtype=np.uint8))


def test_volume_without_image_is_refused(scene):
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    for use in (volumeGeometry, volumeArray, lambda v: takeSnapshot(makeSegmentation(scene, "a"), v)):
        with pytest.raises(InputError, match=r"The volume nothing holds no image\. Choose a loaded volume\."):
            use(volume)


TYPES = [("float64", "float32"), ("int16", "int16"), ("uint8", "uint8"), ("int64", "float32"), ("float32", "float32")]


@pytest.mark.parametrize(("stored", "given"), TYPES)
def test_voxel_types(scene, stored, given):
    array = imageOf(makeVolume(scene, dtype=np.dtype(stored), shape=(2, 3, 4)), [])(IN_MEMORY)
    assert array.dtype == given and array.shape == (2, 3, 4)
    assert array[1, 2, 3] == 23 and array[0, 0, 1] == 1 and array[1, 0, 0] == 12


@pytest.mark.parametrize("grid", GRIDS)
def test_volume_geometry_is_without_the_transform(scene, grid):
    volume = makeVolume(scene, GRIDS[grid])
    putUnder(volume, MOVED)
    geometry = volumeGeometry(volume)
    assert geometry.shape_kji == SHAPE
    assert np.allclose(geometry.ijk_to_ras(), GRIDS[grid], atol=1e-9)


# -- slices ------------------------------------------------------------------------------------------------------------


def cross(scene, grid=PLAIN):
    """An axial cross in k = 2, a coronal one in j = 5, a sagittal one in i = 1; `a` on the first, `b` on the others."""
    volume, node = makeVolume(scene, grid), makeSegmentation(scene, "a", "b")
    drawn = voxels((2, slice(1, 4), slice(3, 7))) + 2 * voxels((slice(3, 6), 5, slice(3, 8)), (slice(3, 6), slice(0, 5), 1))
    paintLayer(node, {"a": 1, "b": 2}, drawn, grid)
    return volume, node


def test_slice_rows(scene):
    volume, node = cross(scene)
    rows = read(node, volume).slices
    assert [(row.axis, row.index, row.plane, row.voxels) for row in rows] == [
        (0, 2, "axial", {"a": 12}),
        (1, 5, "coronal", {"b": 15}),
        (2, 1, "sagittal", {"b": 15}),
    ]
    # by hand: S = -30 + 2.5 * 2, A = 20 - 0.9 * 5, R = 10 - 0.8 * 1
    assert [row.position_mm for row in rows] == pytest.approx([-25.0, 15.5, 9.2])
    assert not any(row.complete or row.ignored for row in rows)


def test_slice_positions_are_those_of_the_views(scene):
    volume, node = cross(scene)
    for row in read(node, volume).slices:
        plane = sliceNode(scene, jumpTo(volume, row.axis, row.index)).GetSliceToRAS()
        assert plane.GetElement({"sagittal": 0, "coronal": 1, "axial": 2}[row.plane], 3) == pytest.approx(row.position_mm)


@pytest.mark.parametrize("grid", [OBLIQUE, LEFT_HANDED])
def test_slice_rows_of_an_oblique_volume(scene, grid):
    """The position is that of the slice's middle; the view shows it there when it has jumped to it."""
    volume, node = cross(scene, grid)
    alignViews(volume)
    rows = read(node, volume).slices
    assert [(row.axis, row.index, row.plane) for row in rows] == [(0, 2, "axial"), (1, 5, "coronal"), (2, 1, "sagittal")]
    middles = {0: (2, 3, 3.5), 1: (2.5, 5, 3.5), 2: (2.5, 3, 1)}
    for row in rows:
        point = pointsOf(middles[row.axis], grid)[0]
        assert row.position_mm == pytest.approx(point[{"sagittal": 0, "coronal": 1, "axial": 2}[row.plane]])
        plane = sliceNode(scene, jumpTo(volume, row.axis, row.index)).GetSliceToRAS()
        assert sum((point[n] - plane.GetElement(n, 3)) * plane.GetElement(n, 2) for n in range(3)) == pytest.approx(0, abs=1e-6)


def test_volume_with_permuted_axes_names_the_planes_rightly(scene):
    """i runs to the head, j to the left, k to the back: axis 2 is axial, 1 sagittal, 0 coronal."""
    grid = affine(np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float), (0, 0, 0))
    volume, node = cross(scene, grid)
    rows = read(node, volume).slices
    assert [(row.axis, row.index, row.plane, row.position_mm) for row in rows] == [
        (0, 2, "coronal", -2.0),
        (1, 5, "sagittal", -5.0),
        (2, 1, "axial", 1.0),
    ]


def test_ignored_slice_is_unlabelled_and_stays_in_the_table(scene):
    volume, node = cross(scene)
    strokes = read(node, volume, ignored=((0, 2),))
    assert np.array_equal(strokes.annotation, 3 * voxels((slice(3, 6), 5, slice(3, 8)), (slice(3, 6), slice(0, 5), 1)))
    assert strokes.classes.names == ["a", "b"] and "Nothing is painted in a: it stays empty." in strokes.notes[0]
    row = strokes.slices[0]
    assert (row.axis, row.index, row.ignored, row.voxels) == (0, 2, True, {"a": 12})


def test_ignored_slice_keeps_what_an_included_slice_crosses(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, "a")
    paint(node, "a", voxels((2, slice(None), slice(2, 6)), (slice(None), 3, slice(1, 7))))
    strokes = read(node, volume, ignored=((0, 2),))
    assert np.array_equal(strokes.annotation == 2, voxels((slice(None), 3, slice(1, 7))))
    both = read(node, volume, ignored=((0, 2), (1, 3)))
    assert not both.annotation.any()
    assert [(row.axis, row.index, row.ignored) for row in both.slices] == [(0, 2, True), (1, 3, True)]


def test_complete_slices_are_kept(scene):
    volume, node = cross(scene)
    strokes = read(node, volume, complete=((0, 2), (2, 6), (1, 99)), ignored=((2, 6),))
    assert strokes.complete == ((0, 2),)  # not the ignored one, not the one that the volume no longer has
    rows = {(row.axis, row.index): row for row in strokes.slices}
    assert rows[0, 2].complete and not rows[1, 5].complete
    assert rows[2, 6].voxels == {"a": 3, "b": 3} and rows[2, 6].ignored
    assert (1, 99) not in rows


def test_complete_slice_without_strokes_is_listed(scene):
    volume, node = cross(scene)
    strokes = read(node, volume, complete=((0, 0),))
    assert strokes.complete == ((0, 0),)
    assert strokes.slices[0].index == 0 and strokes.slices[0].complete and strokes.slices[0].voxels == {}


def test_segments_of_a_loaded_file_share_one_layer(scene, tmp_path):
    """Written and read back as .seg.nrrd, by Slicer."""
    volume, node = cross(scene, OBLIQUE)
    wanted = read(node, volume).annotation
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "strokes.seg.nrrd"))
    assert storage.WriteData(node)
    loaded = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "loaded")
    assert storage.ReadData(loaded)
    assert np.array_equal(read(loaded, volume).annotation, wanted)


def test_strokes_of_the_segment_editor(scene_host):
    """Painted, overwritten and erased by Slicer's own editor logic."""
    scene = scene_host.scene
    volume, node = makeVolume(scene, OBLIQUE), makeSegmentation(scene, "a", "b")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels((2, slice(1, 5), 3)), node, "a", volume)
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels((4, 1, slice(1, 5))), node, "b", volume)
    strokes = read(node, volume)
    assert np.array_equal(strokes.annotation, 2 * voxels((2, slice(1, 5), 3)) + 3 * voxels((4, 1, slice(1, 5))))
