"""What a session does in the scene, from painting to quitting, with a scripted engine: Apply, previews, scenes saved, opened and added."""

import threading
import time

import numpy as np
import pytest
from applying import STROKES, read
from applying import resultOf as result
from scenes import makeSegmentation, makeVolume, paint, voxels
from scripted_engine import State

from SparseSegSlicerLib.scene.AppliedResult import Holds
from SparseSegSlicerLib.session.Allowed import Action


def strokes(session):
    return read(session.node, session.volume)


# -- Apply ---------------------------------------------------------------------------------------------------------------


def test_apply_is_asked_for_and_comes_with_a_later_poll(session):
    session.segment()
    saved, before = [], strokes(session)
    session.controller.apply(saved.append)
    assert session.controller.isApplying and Action.APPLY not in session.controller.allowed()
    assert not saved and not session.controller.isApplied and not session.holds(result())
    session.controller.apply(saved.append)  # a second click is none
    session.spin(lambda: not session.controller.isApplying)
    assert saved == [session.node] and session.controller.isApplied and session.holds(result())
    assert np.array_equal(strokes(session), before) and (session.segmentVoxels("background") == (STROKES["background"] > 0)).all()
    assert not session.controller.preview.node.GetDisplayVisibility()


def hold(session, monkeypatch):
    """Apply up to the moment before the swap, with what the thread prepared."""
    session.segment()
    made, swap = [], session.controller._applying._swap
    monkeypatch.setattr(session.controller._applying, "_swap", made.append)
    session.controller.apply(lambda _: session.editor.SaveStateForUndo())
    session.spin(lambda: made)
    monkeypatch.setattr(session.controller._applying, "_swap", swap)
    return lambda: (swap(made[0]), session.spin(lambda: not session.controller.isApplying))


def test_what_is_painted_while_it_is_applied_counts_as_painted_after(session, monkeypatch):
    proceed = hold(session, monkeypatch)
    before = strokes(session)
    over, beside, gone = voxels((2, 4, slice(4, 7))), voxels((5, 6, slice(0, 3))), voxels((2, 2, slice(1, 3)))
    session.paint("a", over)  # where the result has b
    session.paint("b", beside)  # outside of the result's box
    session.paint("background", voxels((1, 1, 1)))
    session.paint("a", gone, erase=True)  # a stroke
    proceed()
    wanted = result()
    wanted[over > 0], wanted[beside > 0], wanted[1, 1, 1], wanted[gone > 0] = 1, 2, 0, 0
    assert session.holds(wanted)
    said = before.copy()
    said[over > 0], said[beside > 0], said[1, 1, 1], said[gone > 0] = 2, 3, 1, 1
    assert np.array_equal(strokes(session), said)
    session.settle()
    assert session.controller.strokesAreNew is False and session.controller.run.revision == 2  # sent as a correction
    session.undo()
    assert not session.controller.isApplied and session.segmentVoxels("a")[over > 0].all()


@pytest.mark.parametrize("what", ["a segment is added", "a segment is deleted", "a segment is duplicated"])
def test_other_segments_while_it_is_applied(session, monkeypatch, what):
    proceed = hold(session, monkeypatch)
    segmentation = session.node.GetSegmentation()
    if what == "a segment is added":
        segmentation.AddEmptySegment("c", "c")
    elif what == "a segment is deleted":
        segmentation.RemoveSegment("b")
    else:
        segmentation.CopySegmentFromSegmentation(segmentation, "a", False)
    proceed()
    assert (session.segmentVoxels("a") == (result() == 1)).all()
    assert ("b" in segmentation.GetSegmentIDs()) == (what != "a segment is deleted")
    assert len(segmentation.GetSegmentIDs()) == {"a segment is deleted": 2}.get(what, 4)


@pytest.mark.parametrize("what", ["undo", "discard", "volume", "segmentation", "scene", "close"])
def test_whatever_ends_it_before_the_swap_leaves_the_segments_alone(session, monkeypatch, what):
    proceed = hold(session, monkeypatch)
    if what == "undo":
        session.paint("a", voxels((5, 5, 5)))
        session.editor.Undo()
        proceed()
        assert session.holds(result())
        return
    {
        "discard": session.controller.discard,
        "volume": lambda: session.controller.setVolume(makeVolume(session.scene, name="other")),
        "segmentation": session.controller.makeSegmentation,
        "scene": session.scene.Clear,
        "close": session.controller.close,
    }[what]()
    if what != "close":
        session.spin(lambda: not session.controller.isApplying)
    if what != "scene":
        assert all((session.segmentVoxels(sid) == (mask > 0)).all() for sid, mask in STROKES.items())


def test_a_failure_before_the_swap_is_one_sentence_and_changes_nothing(session, monkeypatch):
    from SparseSegSlicerLib.scene import Replacement

    session.segment()

    def full(*_):
        raise MemoryError("no memory")

    monkeypatch.setattr(Replacement.Replacement, "make", full)
    session.apply()
    assert session.controller.message.level == "error" and not session.controller.isApplied
    assert all((session.segmentVoxels(sid) == (mask > 0)).all() for sid, mask in STROKES.items())
    assert Action.APPLY in session.controller.allowed()


def test_previews_wait_while_a_result_is_applied(session, monkeypatch):
    proceed = hold(session, monkeypatch)
    session.controller.run.shows(result(1))
    for _ in range(20):
        session.controller.poll()
    assert np.array_equal(session.controller.preview.labels, result())
    proceed()
    assert session.holds(result())
    session.spin(lambda: np.array_equal(session.controller.preview.labels, result(1)))
    assert session.controller.preview.node.GetDisplayVisibility() and Action.APPLY in session.controller.allowed()


def test_undo_past_the_first_apply_and_redo_all(session):
    session.segment()
    first = strokes(session)
    session.apply()
    session.show(result(1))
    session.apply()
    session.undo()
    assert session.holds(result()) and session.controller.holding.undo is Holds.STROKES
    session.undo()
    assert session.controller.holding.holds is Holds.STROKES and np.array_equal(strokes(session), first)
    session.undo()  # there is nothing before
    assert np.array_equal(strokes(session), first) and session.controller.preview.node.GetDisplayVisibility()
    session.redo()
    assert session.holds(result()) and np.array_equal(strokes(session), first)
    session.redo()
    assert session.holds(result(1)) and np.array_equal(strokes(session), first)
    session.redo()
    assert session.holds(result(1))


def test_a_segment_that_takes_no_part_keeps_its_voxels_and_its_layer_holds_nothing_else(session):
    """Whatever layers it shares."""
    session.controller.setSegmentChoice("b", unused=True)
    session.settle()
    session.segment(np.where(result() == 2, 0, result()).astype(np.uint8))
    session.apply()
    assert (session.segmentVoxels("b") == (STROKES["b"] > 0)).all()
    image = session.node.GetSegmentation().GetSegment("b").GetRepresentation("Binary labelmap")
    from SparseSegSlicerLib.scene.Layers import imageArray

    assert sorted(np.unique(imageArray(image))) == [0, 2, 3]  # a's strokes have left it


def test_odd_names(session):
    for sid, name in (("a", 'a "quoted" <b> & ž/\\:*?'), ("b", ""), ("background", "фон 背景 \U0001f600")):
        session.node.GetSegmentation().GetSegment(sid).SetName(name)
    session.node.SetName("<x> 'y' / ž")  # no ampersand: Slicer writes it into file names of a scene unescaped
    session.segment()
    session.apply()
    assert session.controller.message.level == "info" and session.holds(result())
    path = session.folder / "scene.mrb"
    assert session.scene.WriteToMRB(str(path), None)
    session.scene.Clear()
    assert session.host.load_scene(path)
    session.spin(lambda: session.controller.strokes is not None)
    segmentation = session.controller.segmentationNode.GetSegmentation()
    assert segmentation.GetSegment("a").GetName() == 'a "quoted" <b> & ž/\\:*?'
    assert session.controller.holding.holds is Holds.BOTH


# -- previews ------------------------------------------------------------------------------------------------------------


def test_a_preview_that_the_user_hid_stays_hidden_whatever_comes(session):
    session.segment()
    preview, shown = session.controller.preview, lambda: bool(session.controller.preview.node.GetDisplayVisibility())
    preview.node.SetDisplayVisibility(False)  # by the eye
    session.show(result(1))
    assert not shown()
    session.apply()
    session.show(result())
    assert not shown(), "Apply and a new preview"
    session.apply()
    session.undo()
    session.redo()
    assert not shown(), "undo and redo"
    preview.node.SetDisplayVisibility(True)
    session.show(result(1))
    session.apply()
    assert not shown()
    session.undo()
    assert shown()


# -- scenes --------------------------------------------------------------------------------------------------------------


def nodesOf(scene, kind=""):
    """(class, name) of all nodes but those that tell where others are stored."""
    found = [(scene.GetNthNode(n).GetClassName(), scene.GetNthNode(n).GetName()) for n in range(scene.GetNumberOfNodes())]
    return sorted((name, text) for name, text in found if kind in name and "Storage" not in name)


def itemsOf(scene):
    """(name, class of the node) of all items in the subject hierarchy."""
    import slicer
    import vtk

    hierarchy, items = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene), vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    ids = [items.GetId(n) for n in range(items.GetNumberOfIds())]
    return sorted((hierarchy.GetItemName(i), hierarchy.GetItemDataNode(i) and hierarchy.GetItemDataNode(i).GetClassName()) for i in ids)


def errors(capfd):
    said = capfd.readouterr()
    return [line for line in (said.out + said.err).splitlines() if "ERR|" in line]


def showWeights(session):
    session.controller.showWeights(True)
    session.spin(lambda: session.controller.weightMap.isShown)


@pytest.mark.parametrize("way", ["opened", "added to an empty scene", "added to itself"])
@pytest.mark.parametrize("what", ["preview", "preview and weight map", "applied"])
def test_a_saved_scene_comes_back_without_ghosts_or_errors(session, capfd, what, way):
    session.segment()
    if what == "applied":
        session.apply()
    labels, scene = session.controller.preview.labels, session.scene
    segmentations, items = nodesOf(scene, "Segmentation"), itemsOf(scene)
    if "weight map" in what:
        showWeights(session)
    path = session.folder / "scene.mrb"
    assert scene.WriteToMRB(str(path), None)
    if way != "added to itself":
        scene.Clear()
    capfd.readouterr()
    assert scene.ReadFromMRB(str(path), way == "opened")
    session.spin(lambda: session.controller.preview.labels is not None and session.controller.isSettled)
    assert errors(capfd) == []
    assert all(kind for _, kind in itemsOf(scene)), "an item of nothing"
    assert not session.controller.weightMap.isShown
    if way == "opened":
        assert itemsOf(scene) == items
    if way != "added to itself":
        assert nodesOf(scene, "Segmentation") == segmentations
    assert np.array_equal(session.controller.preview.labels, labels)
    assert session.controller.holding.holds is (Holds.BOTH if what == "applied" else Holds.STROKES)
    session.controller.discard()
    assert len([name for _, name in nodesOf(scene) if name.endswith("preview")]) == (way == "added to itself")  # of the session that was added


def test_what_is_loaded_after_a_scene_with_weight_map_is_neither_shown_nor_taken_away(session):
    """A reference to a node that is not saved must not be to the next one that is loaded."""
    session.segment()
    showWeights(session)
    path = session.folder / "scene.mrb"
    assert session.scene.WriteToMRB(str(path), None)
    session.scene.Clear()
    assert session.host.load_scene(path)
    session.spin(lambda: session.controller.strokes is not None)
    mine = makeVolume(session.scene, name="mine"), session.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "mine too")
    composites = [session.scene.GetNthNodeByClass(n, "vtkMRMLSliceCompositeNode") for n in range(3)]
    assert {(c.GetForegroundVolumeID(), c.GetLabelVolumeID(), c.GetLabelOpacity()) for c in composites} == {(None, None, 1.0)}
    session.controller.showWeights(False)
    session.controller.discard()
    assert all(node.GetScene() is session.scene for node in mine)
    assert session.controller.segmentationNode.GetDisplayNode().GetVisibility2DFill()


def test_apply_undo_save_open_and_add_in_between(session):
    session.segment()
    first = strokes(session)
    session.apply()
    session.undo()
    session.redo()
    session.paint("a", voxels((5, 5, slice(0, 3))))
    session.settle()
    wanted = strokes(session)
    path = session.folder / "scene.mrb"
    assert session.scene.WriteToMRB(str(path), None)
    session.undo()
    session.undo()
    assert np.array_equal(strokes(session), first) and not session.controller.isApplied
    session.redo()
    assert session.holds(result())
    assert session.scene.ReadFromMRB(str(path), False)  # the same tokens twice
    session.settle()
    session.undo()
    assert np.array_equal(strokes(session), first)
    session.redo()
    assert session.holds(result()) and np.array_equal(strokes(session), first)
    session.scene.Clear()
    assert session.host.load_scene(path)
    session.spin(lambda: session.controller.strokes is not None and session.controller.state is State.RESULT)
    session.volume, session.node = session.controller.volumeNode, session.controller.segmentationNode
    session.editor = session.host.make_editor(session.node, session.volume)
    assert np.array_equal(strokes(session), wanted)
    session.segment(result(1))
    session.apply()
    assert session.holds(result(1)) and np.array_equal(strokes(session), wanted)
    session.undo()
    assert np.array_equal(strokes(session), wanted) and session.segmentVoxels("a")[5, 5, 0]


# -- inputs that change while a run is on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["created", "duplicated", "deleted", "renamed"])
def test_segments_that_come_and_go_while_a_run_is_on(session, what):
    session.train()
    session.show(result())
    segmentation = session.node.GetSegmentation()
    if what == "created":
        segmentation.AddEmptySegment("", 'new "one" & <more>')
    elif what == "duplicated":
        segmentation.CopySegmentFromSegmentation(segmentation, "a", False)
    elif what == "deleted":
        segmentation.RemoveSegment("b")
    else:
        segmentation.GetSegment("a").SetName("ž & <b>")
    session.settle()
    assert session.controller.message.level != "error" and session.controller.running
    shown = session.controller.preview.node.GetSegmentation()
    assert ("b" in shown.GetSegmentIDs()) == (what != "deleted")
    assert shown.GetSegment("a").GetName() == segmentation.GetSegment("a").GetName()


def test_two_inputs_exchanged_while_a_run_is_on(session):
    other, others = makeVolume(session.scene, name="other"), makeSegmentation(session.scene, "a", ("background", "Background"), name="others")
    paint(others, "a", voxels((1, 1, slice(0, 4))))
    paint(others, "background", voxels((4, 4, slice(0, 4))))
    session.train()
    session.show(result())
    for volume, node in ((other, others), (session.volume, session.node), (other, session.node), (session.volume, others)):
        session.controller.setVolume(volume)
        session.controller.setSegmentation(node)
        assert not session.controller.running and session.controller.preview.node is None
        session.settle()
        assert session.controller.strokes.classes.ids == (["a"] if node is others else ["a", "b"])
        session.train()
        session.show(result() * 0 + 1)
    assert all((session.segmentVoxels(sid) == (mask > 0)).all() for sid, mask in STROKES.items())
    assert len([name for _, name in nodesOf(session.scene) if name.endswith("preview")]) <= 2


def test_another_image_of_the_same_geometry_in_the_same_volume(session):
    import vtk
    from vtk.util import numpy_support

    session.segment()
    image = vtk.vtkImageData()
    image.DeepCopy(session.volume.GetImageData())
    session.volume.SetAndObserveImageData(image)  # the same voxels
    session.settle()
    for _ in range(20):
        session.controller.poll()
    assert session.controller.hasRun
    image = vtk.vtkImageData()
    image.DeepCopy(session.volume.GetImageData())
    numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[5] += 7
    session.volume.SetAndObserveImageData(image)
    session.spin(lambda: not session.controller.hasRun)
    assert session.controller.preview.node is None and "voxels have changed" in session.controller.message.text()


# -- ends ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def others():
    """Threads that were there before."""
    return set(threading.enumerate())


@pytest.mark.parametrize("state", ["empty", "idle", "reading", "starting", "training", "finishing", "result", "weights", "applying", "applied"])
def test_closing_in_any_state_leaves_nothing(others, session, state):
    controller, before = session.controller, nodesOf(session.scene)
    if state == "empty":
        controller.setSegmentation(None)
    elif state == "reading":
        session.paint("a", voxels((5, 5, slice(0, 3))))
        controller.refresh()
        controller.poll()
    elif state == "starting":
        session.start()
    elif state == "training":
        session.train()
        session.show(result())
    elif state == "finishing":
        session.train()
        controller.finish()
    elif state != "idle":
        session.segment()
        if state == "weights":
            showWeights(session)
        elif state == "applying":
            controller.apply()
            controller.poll()
        elif state == "applied":
            session.apply()
    for thread in controller.close():
        thread.join(20)
    assert list(session.folder.iterdir()) == []
    assert len(controller._inputs) == 0
    left = [node for node in nodesOf(session.scene) if node not in before]
    assert [name for _, name in left if "strokes" not in name and "SegmentationDisplay" not in name] == []
    assert bool([name for _, name in left if name == "segmentation strokes"]) == (state == "applied")
    end = time.monotonic() + 20
    while left := [thread.name for thread in threading.enumerate() if thread not in others and thread.name.startswith("sparseseg")]:
        assert time.monotonic() < end, left
        time.sleep(0.01)
