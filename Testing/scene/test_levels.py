"""The weight map in the slice views: its levels, and views and displays that are afterwards what they were before."""

import numpy as np
import pytest
import slicer
import vtk
from scenes import LEFT_HANDED, MOVED, PLAIN, SHAPE, makeSegmentation, makeVolume, putUnder, toArray

from SparseSegSlicerLib.scene import LevelMap


@pytest.fixture
def scene(scene_host):
    yield scene_host.scene
    LevelMap.hide(scene_host.scene)  # singletons outlive a scene


def weights(highest=4.0):
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 9 / 8 * highest).astype(np.float32)


def levels(weights):
    return LevelMap.Levels.of(weights.shape, lambda: weights)


def composites(scene):
    return [scene.GetNthNodeByClass(n, "vtkMRMLSliceCompositeNode") for n in range(3)]


def nodes(scene):
    return sorted(scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes()))


def layers(scene):
    return [
        (c.GetBackgroundVolumeID(), c.GetForegroundVolumeID(), c.GetForegroundOpacity(), c.GetLabelVolumeID(), c.GetLabelOpacity())
        for c in composites(scene)
    ]


@pytest.mark.parametrize("grid", [PLAIN, LEFT_HANDED])
def test_levels_lie_on_the_volume_and_say_the_weights(scene, grid):
    volume = makeVolume(scene, grid)
    putUnder(volume, MOVED)
    LevelMap.show(volume, levels(weights()), [])
    node = LevelMap.shown(scene)
    shown = slicer.util.arrayFromVolume(node)
    assert node.IsA("vtkMRMLLabelMapVolumeNode"), "a label layer is never interpolated"
    assert np.array_equal(shown > 0, weights() > 0) and shown.max() == 255
    assert np.abs(shown / 255 * 4 - weights()).max() <= 4 / 255
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    assert np.allclose(toArray(matrix), grid, atol=1e-9) and node.GetParentTransformNode() is volume.GetParentTransformNode()
    colors = node.GetDisplayNode().GetColorNode()
    assert colors.GetColorName(255) == "weight 4" and colors.GetNumberOfColors() == 256
    assert not node.GetSaveWithScene() and not colors.GetSaveWithScene()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    assert node.GetHideFromEditors() and not hierarchy.GetItemByDataNode(node)


def test_very_small_weights_are_seen_and_none_is_no_error(scene):
    volume, small = makeVolume(scene), np.zeros(SHAPE, np.float32)
    small[0, 0, 0], small[1, 1, 1] = 1e-6, 5.0
    LevelMap.show(volume, levels(small), [])
    assert slicer.util.arrayFromVolume(LevelMap.shown(scene))[0, 0, 0] == 1
    LevelMap.show(volume, levels(np.zeros(SHAPE, np.float32)), [])
    assert not slicer.util.arrayFromVolume(LevelMap.shown(scene)).any()
    assert scene.GetNumberOfNodesByClass("vtkMRMLLabelMapVolumeNode") == 1


def test_views_and_displays_become_what_they_were(scene):
    volume, pet, labels = makeVolume(scene), makeVolume(scene, name="PET"), scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    filled, outlined = makeSegmentation(scene, "a"), makeSegmentation(scene, "b")
    outlined.GetDisplayNode().SetVisibility2DFill(False)
    for n, composite in enumerate(composites(scene)):
        composite.SetBackgroundVolumeID(volume.GetID())
        composite.SetForegroundVolumeID(pet.GetID())
        composite.SetForegroundOpacity(0.1 * n)
        composite.SetLabelVolumeID(labels.GetID() if n else None)
        composite.SetLabelOpacity(1 / (3 + n))
    before, there = layers(scene), nodes(scene)
    for _ in range(2):  # shown anew after a stroke
        LevelMap.show(volume, levels(weights()), [filled, outlined, None])
    assert [row[:3] for row in layers(scene)] == [row[:3] for row in before], "the user's layers stay"
    assert {row[3:] for row in layers(scene)} == {(LevelMap.shown(scene).GetID(), 0.6)}
    assert not filled.GetDisplayNode().GetVisibility2DFill()
    LevelMap.hide(scene)
    assert layers(scene) == before and nodes(scene) == there
    assert (filled.GetDisplayNode().GetVisibility2DFill(), outlined.GetDisplayNode().GetVisibility2DFill()) == (True, False)
    LevelMap.hide(scene)
    assert layers(scene) == before


def test_a_label_layer_that_the_user_chose_meanwhile_stays(scene):
    volume, labels = makeVolume(scene), scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    LevelMap.show(volume, levels(weights()), [])
    composites(scene)[1].SetLabelVolumeID(labels.GetID())
    LevelMap.hide(scene)
    assert [row[3] for row in layers(scene)] == [None, labels.GetID(), None]
