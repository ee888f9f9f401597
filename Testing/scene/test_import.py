"""Label maps -> preview, surfaces, applied segments, new segmentations and overlays."""

import numpy as np
import pytest
import slicer
import vtk
from scenes import (
    GRIDS,
    LABELMAP,
    MOVED,
    NOWHERE,
    OBLIQUE,
    PARENTS,
    PLAIN,
    SHAPE,
    SURFACE,
    TURNED,
    fingerprint,
    makeSegmentation,
    makeVolume,
    makeWarp,
    paint,
    paintLayer,
    pointsOf,
    putUnder,
    rawPoints,
    samePoints,
    sameVoxels,
    segmentArray,
    voxels,
)
from vtk.util import numpy_support

from sparseseg.contract.classes import Segment
from sparseseg.contract.errors import InputError
from SparseSegSlicerLib.scene import Surfaces
from SparseSegSlicerLib.scene.AppliedResult import AppliedResult
from SparseSegSlicerLib.scene.KeptStrokes import tokenOf
from SparseSegSlicerLib.scene.SceneImport import (
    boundingBox,
    makePreview,
    makeResultNode,
    placeInStudy,
    setPreviewOpacity,
    showLabels,
)
from SparseSegSlicerLib.scene.Segments import APPLIED_TAG, tagValue
from SparseSegSlicerLib.scene.Surfaces import removeSurfaces

TERM = "Segmentation category and type~SCT^123037004^Anatomical Structure~SCT^23451007^Adrenal gland~^^~Anatomic codes~^^~^^"
TERM_TAG = "TerminologyEntry"
A = Segment("a", "Bone", (0.9, 0.8, 0.6), {TERM_TAG: TERM})
B = Segment("b", "Fat", (0.9, 0.9, 0.1))
C = Segment("c", "Air", (0.1, 0.2, 0.9))
IDS = ["a", "b", "c"]


@pytest.fixture
def scene(scene_host):
    return scene_host.scene


def labelMap():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:5, 1:4] = 1
    labels[3:5, 2:6, 4:7] = 2
    labels[5, 6, 7] = 3
    return labels


def show(preview, volume, labels, ids=IDS, hidden=(), surface=False):
    showLabels(preview, volume, labels, boundingBox(labels), ids, hidden, surface)


def apply(node, volume, labels, ids=IDS, protected=()):
    return AppliedResult().apply(node, volume, labels, boundingBox(labels), ids, protected)


def preparePreview(scene, grid=PLAIN):
    volume = makeVolume(scene, grid)
    return volume, makePreview(makeSegmentation(scene), volume, (A, B, C), 0.5)


def holds(node, volume, labels, ids=IDS):
    """Whether each segment is exactly its value's voxels."""
    return all(sameVoxels(labels == value, node, sid, volume) for value, sid in enumerate(ids, start=1))


def points(segment):
    """A surface's points, in the segmentation's frame."""
    surface = segment.GetRepresentation(SURFACE)
    return numpy_support.vtk_to_numpy(surface.GetPoints().GetData())


# -- preview -----------------------------------------------------------------------------------------------------------


def test_bounding_box():
    assert boundingBox(labelMap()) == (slice(1, 6), slice(2, 7), slice(1, 8))
    assert boundingBox(np.zeros(SHAPE, np.uint8)) == (slice(0, 1), slice(0, 1), slice(0, 1))


@pytest.mark.parametrize("parent", ["none", "linear"])
@pytest.mark.parametrize("grid", GRIDS)
def test_preview_lies_on_the_volumes_voxels(scene, grid, parent):
    volume, preview = preparePreview(scene, GRIDS[grid])
    above = MOVED if parent == "linear" else NOWHERE
    putUnder(volume, above)
    labels = labelMap()
    show(preview, volume, labels)
    assert holds(preview, volume, labels)
    for value, sid in enumerate(IDS, start=1):
        assert samePoints(rawPoints(preview, sid, above), pointsOf(np.argwhere(labels == value), above @ GRIDS[grid]))


def test_preview_under_a_warped_volume(scene):
    """The label map lies on the volume's voxels whatever the volume is under."""
    volume, preview = preparePreview(scene)
    volume.SetAndObserveTransformNodeID(makeWarp(scene).GetID())
    show(preview, volume, labelMap())
    assert preview.GetParentTransformNode() is volume.GetParentTransformNode()
    assert samePoints(rawPoints(preview, "a"), pointsOf(np.argwhere(labelMap() == 1), PLAIN))


def test_preview_follows_the_volume_to_another_transform(scene):
    volume, preview = preparePreview(scene, OBLIQUE)
    show(preview, volume, labelMap())
    putUnder(volume, TURNED)
    show(preview, volume, labelMap())
    assert holds(preview, volume, labelMap())
    assert samePoints(rawPoints(preview, "b", TURNED), pointsOf(np.argwhere(labelMap() == 2), TURNED @ OBLIQUE))


def test_updates_replace(scene):
    volume, preview = preparePreview(scene, OBLIQUE)
    for labels in (labelMap(), np.where(labelMap() == 1, 2, 0).astype(np.uint8), labelMap()[::-1].copy(), labelMap()):
        show(preview, volume, labels)
        assert holds(preview, volume, labels)
    assert preview.GetSegmentation().GetSegmentIDs() == ("a", "b", "c")


def test_names_colours_and_tags_survive_updates(scene):
    volume, preview = preparePreview(scene)
    for _ in range(2):
        show(preview, volume, labelMap())
        for segment in (A, B, C):
            shown = preview.GetSegmentation().GetSegment(segment.id)
            assert shown.GetName() == segment.name and shown.GetColor() == segment.color
        assert tagValue(preview.GetSegmentation().GetSegment("a"), TERM_TAG) == TERM


def test_hidden_segments_are_empty_also_when_they_were_shown_before(scene):
    volume, preview = preparePreview(scene)
    labels = labelMap()
    show(preview, volume, labels, hidden=("b",))
    assert holds(preview, volume, np.where(labels == 2, 0, labels))
    show(preview, volume, labels)
    assert holds(preview, volume, labels)
    show(preview, volume, labels, hidden=("a",), surface=True)
    assert holds(preview, volume, np.where(labels == 1, 0, labels))
    show(preview, volume, labels, hidden=IDS)
    assert holds(preview, volume, np.zeros_like(labels))


def test_hidden_segments_lose_their_surface(scene):
    volume, preview = preparePreview(scene)
    show(preview, volume, labelMap(), surface=True)
    show(preview, volume, labelMap(), hidden=("a",), surface=True)
    surface = preview.GetSegmentation().GetSegment("a").GetRepresentation(SURFACE)
    assert surface is None or not surface.GetNumberOfPoints()


def test_segment_removed_from_the_preview_is_skipped(scene):
    volume, preview = preparePreview(scene)
    preview.GetSegmentation().RemoveSegment("b")
    show(preview, volume, labelMap(), surface=True)
    assert preview.GetSegmentation().GetSegmentIDs() == ("a", "c")
    assert sameVoxels(labelMap() == 1, preview, "a", volume) and sameVoxels(labelMap() == 3, preview, "c", volume)


def test_empty_label_map_empties_the_preview(scene):
    volume, preview = preparePreview(scene)
    nothing = np.zeros(SHAPE, np.uint8)
    for surface in (False, True):
        show(preview, volume, labelMap(), surface=surface)
        show(preview, volume, nothing, surface=surface)
        assert holds(preview, volume, nothing)


def test_254_segments(scene):
    volume = makeVolume(scene)
    segments = [Segment(f"s{n}", f"S {n}", (0.5, 0.5, 0.5)) for n in range(254)]
    preview = makePreview(makeSegmentation(scene), volume, segments, 0.5)
    labels = np.zeros(SHAPE, np.uint8)
    labels.reshape(-1)[5:259] = np.arange(1, 255)
    show(preview, volume, labels, [s.id for s in segments], hidden=("s7",))
    for value, place in ((1, 5), (2, 6), (254, 258)):
        assert np.flatnonzero(segmentArray(preview, f"s{value - 1}", volume)).tolist() == [place]
    assert not segmentArray(preview, "s7", volume).any()


def test_opacity(scene):
    _, preview = preparePreview(scene)
    display = preview.GetDisplayNode()
    for opacity in (0.0, 0.5, 1.0):
        setPreviewOpacity(preview, opacity)
        wanted = (0.3 * opacity, min(1, 2 * opacity), opacity)
        assert (display.GetOpacity2DFill(), display.GetOpacity2DOutline(), display.GetOpacity3D()) == pytest.approx(wanted)


def test_a_preview_looks_other_than_strokes_of_the_same_colours(scene):
    """A faint fill and a thick outline, at the opacity that is set at first; strokes have Slicer's: a strong fill, a thin outline."""
    _, preview = preparePreview(scene)
    strokes = makeSegmentation(scene, "a").GetDisplayNode()
    display = preview.GetDisplayNode()
    assert display.GetOpacity2DFill() < 0.4 * strokes.GetOpacity2DFill() and display.GetOpacity2DOutline() == 1
    assert display.GetSliceIntersectionThickness() > strokes.GetSliceIntersectionThickness()


# -- surfaces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [3_000_000, 2_000, 300])
@pytest.mark.parametrize("grid", GRIDS)
def test_surface_lies_around_the_voxels(scene, grid, most, monkeypatch):
    """In voxels, a box from 10 to 29 has its surface at 9.5 and 29.5; coarse steps may move it by as much as they are long."""
    monkeypatch.setattr(Surfaces, "_SURFACE_VOXELS", most)
    matrix = GRIDS[grid]
    volume = makeVolume(scene, matrix, shape=(40, 40, 40), dtype=np.uint8)
    preview = makePreview(makeSegmentation(scene), volume, (A, B), 0.5)
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[10:30, 12:32, 5:25] = 2
    show(preview, volume, labels, ["a", "b"], surface=True)
    step = {3_000_000: 1, 2_000: 2, 300: 3}[most]
    surface = points(preview.GetSegmentation().GetSegment("b"))
    ijk = (np.column_stack([surface, np.ones(len(surface))]) @ np.linalg.inv(matrix).T)[:, :3]
    assert np.abs(ijk.min(0) - (4.5, 11.5, 9.5)).max() < 0.25 + step / 2
    assert np.abs(ijk.max(0) - (24.5, 31.5, 29.5)).max() < 0.25 + (step - 1) * 1.5
    assert len(surface) < 20_000 / step**2


@pytest.mark.parametrize("grid", GRIDS)
def test_surface_normals_point_outwards(scene, grid):
    """Else the 3-D view culls the front and shows the inside of the back."""
    volume, preview = preparePreview(scene, GRIDS[grid])
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:5, 1:6, 1:7] = 1
    show(preview, volume, labels, surface=True)
    surface = preview.GetSegmentation().GetSegment("a").GetRepresentation(SURFACE)
    normals = numpy_support.vtk_to_numpy(surface.GetPointData().GetNormals())
    outwards = points(preview.GetSegmentation().GetSegment("a")) - pointsOf([(2.5, 3, 3.5)], GRIDS[grid])
    assert ((normals * outwards).sum(1) > 0).mean() > 0.95
    first = vtk.vtkIdList()
    surface.GetCellPoints(0, first)
    p, q, r = (np.array(surface.GetPoint(first.GetId(n))) for n in range(3))
    assert np.cross(q - p, r - p) @ (p - pointsOf([(2.5, 3, 3.5)], GRIDS[grid])[0]) > 0  # the triangles' winding agrees


def test_surfaces_are_shown_and_removed(scene):
    """Also where the first segment has none: Slicer asks the first one whether there are surfaces at all."""
    volume, preview = preparePreview(scene)
    labels = np.where(labelMap() == 1, 0, labelMap()).astype(np.uint8)
    show(preview, volume, labels, surface=True)
    segmentation = preview.GetSegmentation()
    assert segmentation.ContainsRepresentation(SURFACE)
    assert preview.GetDisplayNode().GetDisplayRepresentationName3D() == SURFACE
    assert len(points(segmentation.GetSegment("b"))) and not segmentation.GetSegment("a").GetRepresentation(SURFACE).GetNumberOfPoints()
    removeSurfaces(preview)
    assert not segmentation.ContainsRepresentation(SURFACE)
    assert segmentation.GetSegment("b").GetRepresentation(SURFACE) is None
    assert holds(preview, volume, labels)


def test_update_without_surface_drops_the_old_one(scene):
    volume, preview = preparePreview(scene)
    show(preview, volume, labelMap(), surface=True)
    show(preview, volume, labelMap())
    assert preview.GetSegmentation().GetSegment("a").GetRepresentation(SURFACE) is None


# -- apply -------------------------------------------------------------------------------------------------------------


def painted(scene, frame=PLAIN):
    """Strokes in a and b on one layer, c and a stranger on another."""
    node = makeSegmentation(scene, ("c", "Air"), ("a", "Bone"), ("b", "Fat"), ("other", "Screw"))
    segmentation = node.GetSegmentation()
    for segment in (A, B, C):
        segmentation.GetSegment(segment.id).SetColor(*segment.color)
    segmentation.GetSegment("a").SetTag(TERM_TAG, TERM)
    paintLayer(node, {"a": 1, "b": 2}, voxels((0, 0, slice(0, 4))) + 2 * voxels((0, 6, slice(0, 4))), frame)
    paintLayer(node, {"c": 1, "other": 2}, voxels((5, 0, slice(0, 4))) + 2 * voxels(OTHER), frame)
    return node


OTHER = (slice(2, 5), 3, slice(None))  # the stranger's voxels: partly in the result's a and b
STROKES = {"a": voxels((0, 0, slice(0, 4))), "b": voxels((0, 6, slice(0, 4))), "c": voxels((5, 0, slice(0, 4))), "other": voxels(OTHER)}


def test_apply_replaces_and_keeps_what_the_segments_are(scene):
    volume, node = makeVolume(scene), painted(scene)
    assert apply(node, volume, labelMap()) == IDS
    segmentation = node.GetSegmentation()
    assert holds(node, volume, labelMap())
    assert segmentation.GetSegmentIDs() == ("c", "a", "b", "other")
    for segment in (A, B, C):
        applied = segmentation.GetSegment(segment.id)
        assert (applied.GetName(), applied.GetColor()) == (segment.name, segment.color)
        assert tagValue(applied, "DICOM.SegmentAlgorithmType") == "SEMIAUTOMATIC"
        assert tagValue(applied, "DICOM.SegmentAlgorithmName").startswith("SparseSegSlicer ")
        assert len(tagValue(applied, APPLIED_TAG)) == 32
    assert tagValue(segmentation.GetSegment("a"), TERM_TAG) == TERM
    assert tagValue(segmentation.GetSegment("other"), "DICOM.SegmentAlgorithmType") == ""
    assert tokenOf(node.GetSegmentation())


@pytest.mark.parametrize("parents", PARENTS)
@pytest.mark.parametrize("grid", GRIDS)
def test_apply_is_exact_under_transforms(scene, grid, parents):
    ofVolume, ofSegmentation = PARENTS[parents]
    frame = np.linalg.inv(ofSegmentation) @ ofVolume @ GRIDS[grid]
    volume, node = makeVolume(scene, GRIDS[grid]), painted(scene, frame)
    putUnder(volume, ofVolume)
    putUnder(node, ofSegmentation)
    apply(node, volume, labelMap())
    # in world coordinates: where transforms differ, Slicer's own way back to the volume's voxels is off by some
    expected = {sid: labelMap() == value for value, sid in enumerate(IDS, start=1)} | {"other": STROKES["other"]}
    for sid, mask in expected.items():
        assert samePoints(rawPoints(node, sid, ofSegmentation), pointsOf(np.argwhere(mask), ofVolume @ GRIDS[grid]))


def test_apply_refuses_a_warp_and_changes_nothing(scene):
    volume, node = makeVolume(scene), painted(scene)
    node.SetAndObserveTransformNodeID(makeWarp(scene).GetID())
    before = fingerprint(node)
    with pytest.raises(InputError, match="one is not linear"):
        apply(node, volume, labelMap())
    assert fingerprint(node) == before


def test_protected_segments_stay(scene):
    volume, node = makeVolume(scene), painted(scene)
    assert apply(node, volume, labelMap(), protected=("a",)) == ["b", "c"]
    assert sameVoxels(STROKES["a"], node, "a", volume)
    assert sameVoxels(labelMap() == 2, node, "b", volume) and sameVoxels(labelMap() == 3, node, "c", volume)
    assert tagValue(node.GetSegmentation().GetSegment("a"), APPLIED_TAG) == ""


def test_all_protected_changes_nothing(scene):
    volume, node = makeVolume(scene), painted(scene)
    assert apply(node, volume, labelMap(), protected=IDS) == []
    assert all(sameVoxels(mask, node, sid, volume) for sid, mask in STROKES.items())


def test_deleted_segment_is_not_made_again(scene):
    volume, node = makeVolume(scene), painted(scene)
    node.GetSegmentation().RemoveSegment("b")
    assert apply(node, volume, labelMap()) == ["a", "c"]
    assert node.GetSegmentation().GetSegmentIDs() == ("c", "a", "other")
    assert sameVoxels(labelMap() == 1, node, "a", volume) and sameVoxels(labelMap() == 3, node, "c", volume)


@pytest.mark.parametrize("layers", ["apart", "shared with a replaced segment", "one layer for all"])
def test_segments_that_take_no_part_lose_no_voxel(scene, layers):
    """However the layers are shared."""
    volume, node = makeVolume(scene), painted(scene)
    if layers == "apart":
        paint(node, "other", STROKES["other"])
    elif layers == "one layer for all":
        paintLayer(node, {sid: n for n, sid in enumerate(STROKES, start=1)}, sum(n * mask for n, mask in enumerate(STROKES.values(), start=1)))
    apply(node, volume, labelMap())
    assert STROKES["other"][labelMap() > 0].any()
    assert holds(node, volume, labelMap()) and sameVoxels(STROKES["other"], node, "other", volume)


def test_apply_twice(scene):
    volume, node = makeVolume(scene, OBLIQUE), painted(scene, OBLIQUE)
    apply(node, volume, labelMap())
    apply(node, volume, labelMap()[::-1, ::-1])
    assert holds(node, volume, labelMap()[::-1, ::-1])
    assert sameVoxels(STROKES["other"], node, "other", volume)


def test_closed_surface_is_made_again_only_where_it_was(scene):
    volume, node = makeVolume(scene), painted(scene)
    apply(node, volume, labelMap())
    assert not node.GetSegmentation().ContainsRepresentation(SURFACE)
    node.CreateClosedSurfaceRepresentation()
    apply(node, volume, labelMap())
    surface = points(node.GetSegmentation().GetSegment("b"))
    middle = pointsOf([(3.5, 3.5, 5)], PLAIN)[0]
    assert np.abs((surface.min(0) + surface.max(0)) / 2 - middle).max() < 0.2


def test_apply_to_closed_surfaces(scene):
    """A segmentation of surfaces becomes one of label maps, on the volume's grid."""
    volume, node = makeVolume(scene), painted(scene)
    node.CreateClosedSurfaceRepresentation()
    node.GetSegmentation().SetSourceRepresentationName(SURFACE)
    node.GetSegmentation().RemoveRepresentation(LABELMAP)
    apply(node, volume, labelMap())
    assert holds(node, volume, labelMap())
    assert node.GetSegmentation().GetSourceRepresentationName() == LABELMAP
    assert node.GetSegmentation().ContainsRepresentation(SURFACE)


# -- result nodes ------------------------------------------------------------------------------------------------------


def test_result_node(scene):
    volume, node = makeVolume(scene, OBLIQUE), painted(scene, OBLIQUE)
    putUnder(volume, MOVED)
    before = fingerprint(node)
    result = makeResultNode(node, volume, (A, B, C))
    assert fingerprint(node) == before
    assert result.GetName() == "segmentation dense" and result.GetParentTransformNode() is volume.GetParentTransformNode()
    assert result.GetSegmentation().GetSegmentIDs() == ("c", "a", "b")  # as in the user's table
    apply(result, volume, labelMap())
    assert holds(result, volume, labelMap())
    segment = result.GetSegmentation().GetSegment("a")
    assert (segment.GetName(), segment.GetColor(), tagValue(segment, TERM_TAG)) == ("Bone", A.color, TERM)
    assert makeResultNode(node, volume, (A,)).GetName() != "segmentation dense"


def test_result_node_of_a_segment_that_was_deleted(scene):
    volume, node = makeVolume(scene), painted(scene)
    node.GetSegmentation().RemoveSegment("a")
    result = makeResultNode(node, volume, (A, B))
    assert result.GetSegmentation().GetSegmentIDs() == ("b", "a")
    assert result.GetSegmentation().GetSegment("a").GetName() == "Bone"


# -- the scene ---------------------------------------------------------------------------------------------------------


def test_new_nodes_go_to_the_volumes_study(scene):
    volume, node = makeVolume(scene), painted(scene)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    made = [
        makePreview(node, volume, (A,), 0.5),
        makeResultNode(node, volume, (A,)),
    ]
    assert [hierarchy.GetItemParent(hierarchy.GetItemByDataNode(n)) for n in made] == [study] * 2
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) != study
    placeInStudy(node, volume)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
