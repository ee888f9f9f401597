"""The way of a clinician from a loaded volume to the first preview: what is chosen, made and said without a click, and how many clicks are left."""

import numpy as np
import pytest
from driving import apply, wait

MODULE_CLICKS = 1  # opening the module


@pytest.fixture
def left(host, panel):
    """The panel before it is entered."""
    host.exit()
    return panel


def shown_volume(shape=(10, 24, 24), turned=False, name="MR"):
    """A bright cube in noise, in the slice views; turned: oblique against them."""
    import slicer

    from SparseSegSlicerLib.scene.Grids import matrixFromArray

    image = np.random.default_rng(1).normal(0, 5, shape).astype(np.int16)
    image[2:8, 8:16, 8:16] += 100
    matrix = np.diag([1.0, 1.0, 2.0, 1.0])
    if turned:
        c, s = np.cos(0.3), np.sin(0.3)
        matrix = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1.0]]) @ matrix
    volume = slicer.util.addVolumeFromArray(image, ijkToRAS=matrixFromArray(matrix), name=name)
    volume.CreateDefaultDisplayNodes()
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return volume


def segment_names(panel):
    segmentation = panel.controller.segmentationNode.GetSegmentation()
    return [segmentation.GetSegment(sid).GetName() for sid in segmentation.GetSegmentIDs()]


def effect(panel):
    active = panel.ui.editor.activeEffect()
    return None if active is None else active.name


# ---------------------------------------------------------------- on opening


def test_on_opening_the_shown_volume_is_chosen_and_a_structure_is_ready_for_painting(host, left):
    volume = shown_volume()
    host.enter()
    assert left.controller.volumeNode is volume and left.ui.volumeSelector.currentNode() is volume
    assert segment_names(left) == ["Structure 1"]
    assert left.ui.editor.currentSegmentID() == left.controller.segmentationNode.GetSegmentation().GetNthSegmentID(0)
    assert effect(left) == "Paint"


def test_on_opening_without_a_volume_nothing_is_made(host, left):
    import slicer

    host.enter()
    assert left.controller.volumeNode is None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_volume_that_is_shown_later_is_taken_up_too(host, panel):
    volume = shown_volume()
    host.spin(until=lambda: panel.controller.volumeNode is volume, timeout_s=10)
    assert segment_names(panel) == ["Structure 1"]


def test_the_views_are_turned_to_an_oblique_volume(host, left):
    from SparseSegSlicerLib.scene.SliceViews import areAligned

    volume = shown_volume(turned=True)
    assert not areAligned(volume)
    host.enter()
    assert areAligned(volume)
    assert left.controller.message.level == "info"


def test_a_segmentation_of_that_volume_is_only_looked_at(host, left):
    """It is chosen as it is: no segment is added, no brush is in the hand."""
    import slicer

    volume = shown_volume()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "by hand")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    sid = node.GetSegmentation().AddEmptySegment("", "Tumour")
    mask = np.zeros((10, 24, 24), np.uint8)
    mask[5, 10:14, 10:14] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, sid, volume)
    host.enter()
    host.spin(0.3)
    assert left.controller.segmentationNode is node
    assert segment_names(left) == ["Tumour"] and effect(left) is None


def test_the_background_is_not_what_first_strokes_land_in(host, panel, begin):
    _, strokes = begin()
    assert strokes.GetSegmentation().GetNthSegmentID(0) == "Background"
    assert panel.ui.editor.currentSegmentID() == "Liver"


def test_another_volume_is_taken_up_as_long_as_nothing_was_painted(host, left):
    first = shown_volume(name="first")
    host.enter()
    made = left.controller.segmentationNode
    host.exit()
    second = shown_volume(shape=(6, 24, 24), name="second")
    host.enter()
    assert left.controller.volumeNode is second and left.controller.segmentationNode is made
    assert made.GetNodeReference(made.GetReferenceImageGeometryReferenceRole()) is second
    left.ui.editor._q.stroke(left.ui.editor.currentSegmentID(), ((2, 3), (8, 16), (8, 16)))
    host.exit()
    import slicer

    slicer.util.setSliceViewerLayers(background=first)
    host.enter()
    assert left.controller.volumeNode is second


# ---------------------------------------------------------------- painting


def test_background_is_made_when_it_is_first_painted(host, left):
    from SparseSegSlicerLib.scene.Segments import backgroundSegmentID

    shown_volume()
    host.enter()
    host.click(left.ui.paintBackgroundButton)
    host.click(left.ui.paintBackgroundButton)
    assert segment_names(left) == ["Structure 1", "Background"]
    assert left.ui.editor.currentSegmentID() == backgroundSegmentID(left.controller.segmentationNode.GetSegmentation())
    host.click(left.ui.paintStructureButton)
    assert left.ui.editor.currentSegmentID() != backgroundSegmentID(left.controller.segmentationNode.GetSegmentation())
    assert effect(left) == "Paint"


def test_the_structure_that_is_chosen_stays_chosen(host, left):
    shown_volume()
    host.enter()
    second = left.controller.segmentationNode.GetSegmentation().AddEmptySegment("", "Structure 2")
    left.ui.editor.setCurrentSegmentID(second)
    left.ui.editor.setActiveEffectByName("Draw")
    host.click(left.ui.paintStructureButton)
    assert left.ui.editor.currentSegmentID() == second and effect(left) == "Draw"


# ---------------------------------------------------------------- the whole way


def test_five_clicks_from_a_loaded_volume_to_the_first_preview(host, left):
    shown_volume()
    for name, value in {"steps": 4, "width": 4, "depth": 2, "patch_voxels": 16**3}.items():
        left.controller.parameters.setSetting(name, value)
    clicks = MODULE_CLICKS
    host.enter()
    editor = left.ui.editor

    def stroke(region):  # with the segment and the brush that are there
        nonlocal clicks
        assert effect(left) == "Paint"
        editor._q.stroke(editor.currentSegmentID(), region)
        clicks += 1

    def click(button):
        nonlocal clicks
        host.click(button)
        clicks += 1

    stroke(((5, 6), (10, 14), (10, 14)))
    click(left.ui.paintBackgroundButton)
    stroke(((5, 6), (2, 5), (2, 20)))
    host.spin(until=lambda: left.ui.segmentButton.enabled, timeout_s=10)
    click(left.ui.segmentButton)
    wait(host, left, lambda: left.controller.preview.labels is not None)
    assert clicks == 5
    assert left.controller.preview.labels[5, 11, 11] == 1

    # ---- erasing in the preview is what everybody tries first: what it does is said in place, until the result is applied
    assert not left.ui.eraseLabel.isVisibleTo(left.uiWidget)
    editor.setActiveEffectByName("Erase")
    host.spin(until=lambda: left.ui.eraseLabel.isVisibleTo(left.uiWidget), timeout_s=10)
    wait(host, left, lambda: left.controller.hasResult)
    apply(host, left)
    editor.setActiveEffectByName("Erase")
    host.spin(until=lambda: not left.ui.eraseLabel.isVisibleTo(left.uiWidget), timeout_s=10)
