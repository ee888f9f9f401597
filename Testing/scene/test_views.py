"""Slice views: which of the volume's slices they show, and how to get to one."""

import numpy as np
import pytest
import slicer
import vtk
from scenes import (
    GRIDS,
    LEFT_HANDED,
    MOVED,
    NOWHERE,
    OBLIQUE,
    PLAIN,
    SHAPE,
    TURNED,
    affine,
    makeVolume,
    makeWarp,
    pointsOf,
    putUnder,
    resetViews,
    rotation,
    sliceNode,
    toArray,
)

from sparseseg.contract.errors import InputError
from SparseSegSlicerLib.scene.SliceViews import ViewTracker, alignViews, areAligned, jumpTo, sliceNodes, sliceShown

AXES = {"Red": 0, "Green": 1, "Yellow": 2}  # of the grids here: axial slices are stacked along k, coronal along j, sagittal along i
EVERY_SLICE = [(axis, index) for axis in range(3) for index in range(SHAPE[axis])]


@pytest.fixture
def scene(scene_host):
    resetViews(scene_host.scene)
    return scene_host.scene


def lookAt(node, volume, kji, parent=NOWHERE):
    """Moves a view along its normal to one voxel of the volume, by hand."""
    grid = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(grid)
    node.JumpSliceByOffsetting(*pointsOf([kji], parent @ toArray(grid))[0])


# -- which slice is shown ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("view", "axis"), AXES.items())
def test_slice_shown_in_each_view(scene, view, axis):
    volume, node = makeVolume(scene), sliceNode(scene, view)
    for index in range(SHAPE[axis]):
        kji = [1, 1, 1]
        kji[axis] = index
        lookAt(node, volume, kji)
        assert sliceShown(node, volume) == (axis, index)


def test_slice_shown_by_hand(scene):
    """S = -30 + 2.5 k: the plane at -21.3 mm is nearest to k = 3 (-22.5), that at -21.2 to k = 4 (-20)."""
    volume, node = makeVolume(scene), sliceNode(scene, "Red")
    node.SetSliceOffset(-21.3)
    assert sliceShown(node, volume) == (0, 3)
    node.SetSliceOffset(-21.2)
    assert sliceShown(node, volume) == (0, 4)


def test_nearest_slice_at_the_border(scene):
    """Half a voxel beyond the outermost centres is still inside of the volume."""
    volume, node = makeVolume(scene), sliceNode(scene, "Red")
    for offset, index in ((-31.2, 0), (-16.3, 5)):
        node.SetSliceOffset(offset)
        assert sliceShown(node, volume) == (0, index)
    for offset in (-31.3, -16.2):
        node.SetSliceOffset(offset)
        with pytest.raises(InputError, match=r"The Red view shows a place outside of the volume image\. Scroll it into the volume\."):
            sliceShown(node, volume)


@pytest.mark.parametrize("parent", [NOWHERE, MOVED, TURNED])
@pytest.mark.parametrize("grid", [OBLIQUE, LEFT_HANDED])
def test_slice_shown_after_turning_the_view_to_the_volume(scene, grid, parent):
    volume = makeVolume(scene, grid)
    putUnder(volume, parent)
    shown = set()
    for view in AXES:
        node = sliceNode(scene, view)
        node.RotateToVolumePlane(volume)
        lookAt(node, volume, (2, 3, 4), parent)
        shown.add(sliceShown(node, volume))
    assert shown == {(0, 2), (1, 3), (2, 4)}


def test_rotated_view_is_refused_with_the_remedy(scene):
    volume = makeVolume(scene, OBLIQUE)
    with pytest.raises(InputError, match=r"The Red view is rotated against the volume.*press \"Align views\""):
        sliceShown(sliceNode(scene, "Red"), volume)


@pytest.mark.parametrize(("degrees", "refused"), [(2, False), (3, True)])
def test_a_slightly_turned_view_is_accepted(scene, degrees, refused):
    volume = makeVolume(scene, affine(rotation(x=degrees) @ PLAIN[:3, :3], PLAIN[:3, 3]))
    node = sliceNode(scene, "Red")
    lookAt(node, volume, (2, 3, 3))
    if refused:
        with pytest.raises(InputError, match="rotated"):
            sliceShown(node, volume)
    else:
        assert sliceShown(node, volume) == (0, 2)


def test_slightly_turned_view_far_from_the_volume(scene):
    """300 mm away, two degrees are ten millimetres, which is four slices."""
    volume, node = makeVolume(scene, affine(rotation(x=2) @ PLAIN[:3, :3], (10, 300, 40))), sliceNode(scene, "Red")
    for index in range(SHAPE[0]):
        lookAt(node, volume, (index, 3, 3.5))
        assert sliceShown(node, volume) == (0, index)
        assert jumpTo(volume, 0, 5 - index) == "Red" and sliceShown(node, volume) == (0, 5 - index)


def test_volume_under_a_turn_of_90_degrees(scene):
    """Its k slices lie coronally in the world, and the Green view shows them."""
    volume = makeVolume(scene)
    parent = affine(rotation(x=90), (0, 0, 0))
    putUnder(volume, parent)
    node = sliceNode(scene, "Green")
    lookAt(node, volume, (4, 0, 0), parent)
    assert sliceShown(node, volume) == (0, 4)
    assert jumpTo(volume, 0, 1) == "Green" and sliceShown(node, volume) == (0, 1)


def test_sheared_volume(scene):
    """A tilted gantry: the axial slices are stacked along a direction that leans; each is still a plane of one index."""
    sheared = PLAIN.copy()
    sheared[1, 2] = 0.8
    volume, node = makeVolume(scene, sheared), sliceNode(scene, "Red")
    lookAt(node, volume, (3, 6, 7))
    assert sliceShown(node, volume) == (0, 3)
    for axis, index in EVERY_SLICE:
        assert sliceShown(sliceNode(scene, jumpTo(volume, axis, index)), volume) == (axis, index)


def test_warped_volume_is_refused(scene):
    volume = makeVolume(scene)
    volume.SetAndObserveTransformNodeID(makeWarp(scene).GetID())
    with pytest.raises(InputError, match=r"image is under a transform that is not linear\. Harden"):
        sliceShown(sliceNode(scene, "Red"), volume)
    with pytest.raises(InputError, match="not linear"):
        jumpTo(volume, 0, 1)


# -- going to a slice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("parent", [NOWHERE, MOVED, TURNED])
@pytest.mark.parametrize("grid", GRIDS)
def test_jump_shows_the_slice(scene, grid, parent, aligned):
    """From wherever the views are; those that must be turned to the volume are."""
    volume = makeVolume(scene, GRIDS[grid])
    putUnder(volume, parent)
    if aligned:
        alignViews(volume)
    for axis, index in EVERY_SLICE:
        view = jumpTo(volume, axis, index)
        assert sliceShown(sliceNode(scene, view), volume) == (axis, index)


@pytest.mark.parametrize("seed", range(30))
def test_jump_in_volumes_turned_anyhow(scene, seed):
    """Also where two views are nearest to the same axis of the volume."""
    x, y, z = np.random.default_rng(seed).uniform(-180, 180, 3)
    volume = makeVolume(scene, affine(rotation(x, y, z) @ np.diag([0.7, 0.8, 2.5]), (1, 2, 3)))
    for align in (False, True):
        if align:
            alignViews(volume)
        for axis in range(3):
            view = jumpTo(volume, axis, 3)
            assert sliceShown(sliceNode(scene, view), volume) == (axis, 3)


def test_jump_uses_the_view_of_that_orientation(scene):
    volume = makeVolume(scene)
    alignViews(volume)
    assert [jumpTo(volume, axis, 2) for axis in range(3)] == ["Red", "Green", "Yellow"]


def test_jump_leaves_the_other_views_alone(scene):
    volume = makeVolume(scene, OBLIQUE)
    alignViews(volume)
    others = [sliceNode(scene, name) for name in ("Green", "Yellow")]
    before = [toArray(node.GetSliceToRAS()).tolist() for node in others]
    assert jumpTo(volume, 0, 5) == "Red"
    assert [toArray(node.GetSliceToRAS()).tolist() for node in others] == before


def test_jump_brings_back_a_view_that_looks_elsewhere(scene):
    volume, node = makeVolume(scene), sliceNode(scene, "Red")
    node.SetSliceOffset(500)
    assert jumpTo(volume, 0, 0) == "Red" and sliceShown(node, volume) == (0, 0)


def test_jump_without_views(scene):
    volume = makeVolume(scene)
    for node in sliceNodes(scene):
        scene.RemoveNode(node)
    with pytest.raises(InputError, match="shows no slice view"):
        jumpTo(volume, 0, 0)
    assert areAligned(volume)
    alignViews(volume)


@pytest.mark.parametrize("grid", [OBLIQUE, LEFT_HANDED])
def test_align_views(scene, grid):
    volume = makeVolume(scene, grid)
    assert not areAligned(volume)
    alignViews(volume)
    assert areAligned(volume)
    axes = set()
    for node in sliceNodes(scene):
        lookAt(node, volume, (1, 1, 1))
        axes.add(sliceShown(node, volume)[0])
    assert axes == {0, 1, 2}


def test_views_beside_the_volume_count_as_aligned(scene):
    volume = makeVolume(scene)
    sliceNode(scene, "Red").SetSliceOffset(500)
    assert areAligned(volume)


# -- the view of the mouse -----------------------------------------------------------------------------------------------


def crosshair(scene):
    return scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")


def test_tracker_follows_the_mouse(scene):
    tracker = ViewTracker(scene)
    assert tracker.sliceNode(scene) is sliceNodes(scene)[0]
    for view in ("Green", "Yellow", "Red", "Green"):
        crosshair(scene).SetCursorPositionXYZ([10.0, 20.0, 0.0], sliceNode(scene, view))
        assert tracker.sliceNode(scene) is sliceNode(scene, view)
    crosshair(scene).SetCursorPositionInvalid()  # the mouse has left the view, for instance to press a button
    assert tracker.sliceNode(scene) is sliceNode(scene, "Green")
    tracker.remember(sliceNode(scene, "Yellow"))
    assert tracker.sliceNode(scene) is sliceNode(scene, "Yellow")
    tracker.stop()


def test_tracker_forgets_a_deleted_view(scene):
    tracker = ViewTracker(scene)
    tracker.remember(sliceNode(scene, "Green"))
    scene.RemoveNode(sliceNode(scene, "Green"))
    assert tracker.sliceNode(scene) is sliceNodes(scene)[0]
    tracker.stop()


def test_stop_removes_the_observer(scene):
    event, tracker = slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent, ViewTracker(scene)
    assert crosshair(scene).HasObserver(event)
    tracker.stop()
    assert not crosshair(scene).HasObserver(event)
    tracker.stop()


def test_tracker_without_crosshair_or_views(scene):
    scene.RemoveNode(crosshair(scene))
    tracker = ViewTracker(scene)
    for node in sliceNodes(scene):
        scene.RemoveNode(node)
    assert tracker.sliceNode(scene) is None
    tracker.stop()
