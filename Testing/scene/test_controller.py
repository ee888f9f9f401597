"""The Controller with the real worker and real MRML, on the sample phantom: what a user does, and what goes wrong."""

import json
import os
import time

import numpy as np
import pytest

pytestmark = pytest.mark.slow
PATIENCE_S = 90
STEPS = 8


@pytest.fixture
def slicer(scene_host):
    import slicer

    return slicer


@pytest.fixture
def make_controller(scene_host, tmp_path):
    from SparseSegSlicerLib.session.Controller import Controller, Launch

    made = []

    def make(**launch):
        folder = tmp_path / "Žluť temp dir"
        folder.mkdir(exist_ok=True)
        made.append(Controller(scene_host.scene, lambda: Launch(temporaryFolder=str(folder), **launch)))
        made[-1].temporary = folder
        return made[-1]

    yield make
    for controller in made:
        for thread in controller.close():
            thread.join(20)


def spin(controller, until, patience_s=PATIENCE_S):
    end = time.monotonic() + patience_s
    while not until():
        assert time.monotonic() < end, f"{controller.state} {controller.message.text()}\n" + "\n".join(controller.log[-15:]) + controller.engineLog
        controller.poll()
        time.sleep(0.02)


def settle(controller):
    """Until the strokes are read as they are now."""
    controller.refresh()
    spin(controller, lambda: controller.isSettled)


@pytest.fixture
def session(make_controller):
    """A controller with the phantom chosen and a short run set up."""
    from SparseSegSlicerLib.scene.SamplePhantom import addPhantom

    def begin(**launch):
        controller = make_controller(**launch)
        volume, strokes = addPhantom()
        controller.parameters.setSetting("steps", STEPS)
        controller.setVolume(volume)
        controller.setSegmentation(strokes)
        spin(controller, lambda: controller.strokes is not None)
        return controller

    return begin


@pytest.fixture
def trained(session):
    controller = session()
    train(controller)
    return controller


def train(controller):
    from SparseSegSlicerLib.session.Controller import State

    controller.train()
    spin(controller, lambda: controller.running or controller.message.level == "error")
    spin(controller, lambda: controller.state is State.RESULT or controller.message.level == "error")
    assert controller.state is State.RESULT, controller.message.text()


def apply(controller, save=lambda node: None):
    controller.apply(save)
    spin(controller, lambda: not controller.isApplying)


def voxels(controller, node=None):
    from SparseSegSlicerLib.scene.SceneExport import takeSnapshot
    from SparseSegSlicerLib.scene.StrokeReader import Choices, readStrokes

    return readStrokes(takeSnapshot(node or controller.segmentationNode, controller.volumeNode), Choices()).annotation


def paint(controller, segment_id, box, value=1):
    """Adds (or takes away) a box of voxels, as an effect of the editor does."""
    import slicer

    array = slicer.util.arrayFromSegmentBinaryLabelmap(controller.segmentationNode, segment_id, controller.volumeNode)
    array[box] = value
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, controller.segmentationNode, segment_id, controller.volumeNode)


def preview_array(controller, segment_id):
    import slicer

    return slicer.util.arrayFromSegmentBinaryLabelmap(controller.preview.node, segment_id, controller.volumeNode)


def left_behind(controller):
    return sorted(p.name for p in controller.temporary.iterdir())


# ---------------------------------------------------------------- the whole way


def test_train_preview_apply_undo_and_go_on(trained, slicer, scene_host):
    from SparseSegSlicerLib.scene.SamplePhantom import phantomOverlap

    controller, strokes = trained, voxels(trained)
    assert {"Liver", "Kidney"} <= controller.report.estimate.keys() <= {"Liver", "Kidney", "Vessel"}
    assert phantomOverlap(controller.preview.labels, controller.preview.classes.names) > 0.7
    liver = controller.preview.classes.names.index("Liver") + 1
    assert (preview_array(controller, "Liver") == (controller.preview.labels == liver)).all()
    assert (voxels(controller) == strokes).all(), "training changed the strokes"

    logic = scene_host.make_editor(controller.segmentationNode, controller.volumeNode)
    apply(controller, lambda node: logic.SaveStateForUndo())
    assert controller.isApplied
    array = slicer.util.arrayFromSegmentBinaryLabelmap(controller.segmentationNode, "Liver", controller.volumeNode)
    assert (array == (controller.preview.labels == liver)).all()
    assert not controller.preview.node.GetDisplayVisibility()
    logic.Undo()
    assert not controller.isApplied
    assert (voxels(controller) == strokes).all()
    settle(controller)
    assert controller.preview.node.GetDisplayVisibility()

    apply(controller, lambda node: logic.SaveStateForUndo())
    settle(controller)
    assert (voxels(controller) == strokes).all(), "Apply changed the kept strokes"
    assert not controller.strokesAreNew
    train(controller)
    apply(controller)
    assert (voxels(controller) == strokes).all(), "Apply changed the kept strokes"


def test_five_applies_with_corrections_in_between_and_each_undone(trained, scene_host):
    """Painting goes on in the segmentation with the result: no mode, no other node, and every Apply is one undo step."""
    from SparseSegSlicerLib.scene.AppliedResult import Holds
    from SparseSegSlicerLib.session.Controller import Action

    controller, node = trained, trained.segmentationNode
    logic = scene_host.make_editor(node, controller.volumeNode)
    logic.SetMaximumNumberOfUndoStates(20)
    run, states = controller.run, []
    for n in range(5):
        states.append((voxels(controller), {sid: voxels_of(controller, sid).copy() for sid in ("Liver", "Vessel")}))
        assert Action.APPLY in controller.allowed()
        apply(controller, lambda _: logic.SaveStateForUndo())
        assert Action.APPLY not in controller.allowed() and controller.holding.holds is Holds.BOTH
        assert not controller.preview.node.GetDisplayVisibility()  # until a newer one comes, as the refiner's of the last stroke may
        assert controller.holding.undo is (Holds.BOTH if n else Holds.STROKES)
        settle(controller)
        assert not controller.strokesAreNew and controller.segmentationNode is node
        box = (slice(6 + 7 * n, 7 + 7 * n), slice(78, 84), slice(14, 20))
        assert (controller.preview.labels[box] == 0).any(), "paint where there is something to paint"
        logic.SaveStateForUndo()
        paint(controller, "Vessel", box)
        spin(controller, lambda: controller.previewIsCurrent)
        vessel = controller.preview.classes.names.index("Vessel") + 1
        assert (controller.preview.labels[box] == vessel).all() and controller.preview.node.GetDisplayVisibility()
    assert controller.run is run
    for strokes, segments in reversed(states):
        logic.Undo()  # the stroke
        logic.Undo()  # Apply
        settle(controller)
        assert (voxels(controller) == strokes).all()
        assert all((voxels_of(controller, sid) == array).all() for sid, array in segments.items())
    assert controller.holding.holds is Holds.STROKES


def test_undo_of_an_apply_shows_preview_and_background_strokes_again_and_redo_hides_them(trained, scene_host):
    controller, display = trained, trained.segmentationNode.GetDisplayNode()
    logic = scene_host.make_editor(controller.segmentationNode, controller.volumeNode)

    def shown():
        return bool(controller.preview.node.GetDisplayVisibility()), bool(display.GetSegmentVisibility("Background"))

    assert shown() == (True, True)
    apply(controller, lambda _: logic.SaveStateForUndo())
    assert shown() == (False, False)
    logic.Undo()
    settle(controller)
    assert shown() == (True, True)
    logic.Redo()
    settle(controller)
    assert shown() == (False, False)


def test_surfaces_stay_after_apply_and_a_hidden_preview_stays_hidden(trained):
    controller, name = trained, "Closed surface"
    surface = controller.preview.node.GetSegmentation().GetSegment("Liver").GetRepresentation(name).GetNumberOfPoints()
    apply(controller)
    assert controller.segmentationNode.GetSegmentation().GetSegment("Liver").GetRepresentation(name).GetNumberOfPoints() == surface > 100
    paint(controller, "Vessel", (slice(30, 31), slice(60, 66), slice(40, 46)))
    spin(controller, lambda: controller.previewIsCurrent)
    controller.preview.setVisible(False)  # by the eye in the data tree
    paint(controller, "Vessel", (slice(31, 32), slice(60, 66), slice(40, 46)))
    spin(controller, lambda: controller.previewIsCurrent)
    assert not controller.preview.node.GetDisplayVisibility()
    apply(controller)
    assert controller.segmentationNode.GetSegmentation().GetSegment("Liver").GetRepresentation(name).GetNumberOfPoints() > 100


def test_a_segment_added_after_apply_arrives_at_the_engine(trained):
    controller, spleen = trained, (slice(33, 34), slice(76, 80), slice(46, 52))
    apply(controller)
    add_segments(controller, "Spleen")
    paint(controller, "Spleen", spleen)
    settle(controller)
    train(controller)
    assert controller.preview.classes.ids == ["Kidney", "Liver", "Spleen", "Vessel"]
    assert (controller.preview.labels[spleen] == 3).all()
    apply(controller)
    assert voxels_of(controller, "Spleen")[spleen].all()


def test_erasing_on_a_result_makes_background_there(trained):
    controller = trained
    liver = controller.preview.classes.names.index("Liver") + 1
    apply(controller)
    k = int(np.argmax((controller.preview.labels == liver).sum((1, 2)) * (voxels(controller) == 0).all((1, 2))))
    j, i = np.argwhere(controller.preview.labels[k] == liver).mean(0).astype(int)
    box = (slice(k, k + 1), slice(j - 2, j + 3), slice(i - 2, i + 3))
    paint(controller, "Liver", box, 0)
    spin(controller, lambda: controller.previewIsCurrent)
    assert (controller.strokes.annotation[box] == 1).all()
    assert (controller.preview.labels[box] == 0).all()


def test_apply_takes_no_voxel_from_a_segment_that_takes_no_part(trained):
    controller = trained
    add_segments(controller, "Other")
    paint(controller, "Other", (slice(18, 22), slice(30, 50), slice(20, 50)))
    controller.setSegmentChoice("Other", unused=True)
    settle(controller)
    other = voxels_of(controller, "Other").copy()
    apply(controller)
    assert (voxels_of(controller, "Other") == other).all() and voxels_of(controller, "Liver")[other > 0].any()


def test_a_correction_updates_the_preview_and_is_right_there(trained):
    controller = trained
    before = controller.preview.labels.copy()
    box = (slice(30, 31), slice(60, 66), slice(40, 46))
    paint(controller, "Vessel", box)
    spin(controller, lambda: controller.preview.labels is not None and not np.array_equal(controller.preview.labels, before))
    vessel = controller.preview.classes.names.index("Vessel") + 1
    assert (controller.preview.labels[box] == vessel).all()


def test_strokes_leave_and_previews_come_as_boxes(trained, monkeypatch):
    """And the preview segmentation shows all of the label map that they add up to."""
    from sparseseg.contract.protocol import Preview, Update

    controller, sent, came = trained, [], []
    client, take = controller.run._client, controller._training.onEvent
    monkeypatch.setattr(client, "send", lambda command, send=client.send: (sent.append(command), send(command)))
    monkeypatch.setattr(controller._training, "onEvent", lambda event: (came.append(event), take(event)))
    for n in range(3):
        paint(controller, "Vessel", (slice(30 + n, 31 + n), slice(60, 66), slice(40, 46)))
        spin(controller, lambda: controller.previewIsCurrent)
    assert [command.box for command in sent if isinstance(command, Update)] == [[[30 + n, 31 + n], [60, 66], [40, 46]] for n in range(3)]
    boxes = [event.box for event in came if isinstance(event, Preview)]
    assert sum(bool(box) for box in boxes) >= 3
    vessel = controller.preview.classes.names.index("Vessel") + 1
    assert (controller.preview.labels[30:33, 60:66, 40:46] == vessel).all()
    for value, sid in enumerate(controller.preview.classes.ids, start=1):
        assert (preview_array(controller, sid) == (controller.preview.labels == value)).all()


def test_updates_wait_for_the_button_where_auto_update_is_off(trained):
    controller = trained
    controller.parameters.set("autoUpdate", False)
    revision = controller.run.revision
    paint(controller, "Vessel", (slice(30, 31), slice(60, 66), slice(40, 46)))
    settle(controller)
    assert controller.strokesAreNew
    assert controller.run.revision == revision
    controller.update()
    spin(controller, lambda: not controller.strokesAreNew)
    assert controller.run.revision == revision + 1


def test_painting_while_training_is_taken_up(session):
    from SparseSegSlicerLib.session.Controller import State

    controller = session()
    controller.parameters.setSetting("steps", 60)
    controller.train()
    spin(controller, lambda: controller.state is State.TRAINING)
    paint(controller, "Vessel", (slice(30, 31), slice(60, 66), slice(40, 46)))
    spin(controller, lambda: controller.state is State.RESULT)
    vessel = controller.preview.classes.names.index("Vessel") + 1
    assert (controller.preview.labels[30, 60:66, 40:46] == vessel).all()


def test_finish_gives_the_result_now(session):
    from SparseSegSlicerLib.session.Controller import State

    controller = session()
    controller.parameters.setSetting("steps", 100_000)
    controller.train()
    spin(controller, lambda: controller.state is State.TRAINING)
    controller.finish()
    spin(controller, lambda: controller.state is State.RESULT)


def test_a_new_segmentation_can_be_the_target(trained, slicer):
    controller = trained
    strokes = voxels(controller)
    controller.parameters.set("target", "new")
    apply(controller)
    assert (voxels(controller) == strokes).all()
    nodes = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n.GetName().endswith(" dense")]
    assert len(nodes) == 1
    assert list(nodes[0].GetSegmentation().GetSegmentIDs()) == ["Liver", "Kidney", "Vessel"]


def test_a_locked_segment_is_neither_shown_nor_replaced(trained, slicer):
    controller = trained
    before = slicer.util.arrayFromSegmentBinaryLabelmap(controller.segmentationNode, "Kidney", controller.volumeNode).copy()
    controller.setSegmentChoice("Kidney", locked=True)
    assert not preview_array(controller, "Kidney").any()
    assert preview_array(controller, "Liver").any()
    apply(controller)
    assert (slicer.util.arrayFromSegmentBinaryLabelmap(controller.segmentationNode, "Kidney", controller.volumeNode) == before).all()


def test_the_model_is_saved_and_is_a_start_for_another_run(trained, tmp_path):
    controller = trained
    path = tmp_path / "modèle.pt"
    controller.saveModel(path)
    spin(controller, path.exists)
    controller.discard()
    controller.parameters.set("startFrom", str(path))
    train(controller)


def test_the_surface_comes_and_goes_with_its_tick(trained):
    controller, name = trained, "Closed surface"
    contents = controller.preview.node.GetSegmentation()
    assert contents.ContainsRepresentation(name)
    controller.preview.setSurface(False, controller.volumeNode, ())
    assert not contents.ContainsRepresentation(name)
    controller.preview.setSurface(True, controller.volumeNode, ())
    assert contents.GetSegment("Liver").GetRepresentation(name).GetNumberOfPoints() > 100


def test_next_slice_jumps_to_the_suggestions_one_after_the_other(trained):
    from SparseSegSlicerLib.scene import SliceViews

    controller = trained
    assert len(controller.report.nextSlices) >= 2
    shown = []
    for axis, _ in controller.report.nextSlices[:2]:
        controller.jumpToNextSlice()
        shown += [s for n in SliceViews.sliceNodes(controller.scene) if (s := SliceViews.sliceShown(n, controller.volumeNode))[0] == axis][:1]
    assert shown == [tuple(pair) for pair in controller.report.nextSlices[:2]]


def test_the_weight_map_lies_over_the_image_and_goes_again(trained, slicer):
    from sparseseg.annotation.labels import build_annotation
    from sparseseg.prior.standing import in_doubt
    from SparseSegSlicerLib.scene import LevelMap

    controller = trained
    controller.showWeights(True)
    spin(controller, lambda: controller.weightMap.isShown)
    levels = slicer.util.arrayFromVolume(LevelMap.shown(controller.scene))
    strokes = controller.strokes
    plain = build_annotation(strokes.annotation, strokes.classes, controller.parameters.settings()).weights
    highest = plain[~(doubted := in_doubt(np.maximum(strokes.annotation, 1) - 1, strokes.annotation > 0))].max()
    shown, step = levels * (highest / 255), highest / 255
    assert ((shown > 0) == (plain > 0)).all() and (shown <= plain + step).all()
    # the engine's, with its trust
    assert doubted.any() and np.allclose(shown[~doubted], plain[~doubted], atol=step) and (shown[doubted] < plain[doubted] + step).all()
    controller.showWeights(False)
    assert not controller.weightMap.isShown


# ---------------------------------------------------------------- slices


def test_a_complete_slice_makes_its_rest_background(session):
    controller = session()
    rows = {row.name: row.voxels for row in controller.summary}
    controller.setSliceChoice(0, 20, complete=True)
    spin(controller, lambda: {row.name: row.voxels for row in controller.summary} != rows)
    more = {row.name: row.voxels for row in controller.summary}
    assert more["Liver"] == rows["Liver"]
    unlabelled = int((controller.strokes.annotation[20] == 0).sum())
    assert more["Background"] == rows["Background"] + unlabelled
    assert [(s.axis, s.index, s.complete) for s in controller.strokes.slices] == [(0, 12, False), (0, 20, True), (0, 28, False)]


def test_the_views_are_turned_to_a_new_oblique_volume_and_a_later_turn_is_told(make_controller, slicer):
    import vtk

    from SparseSegSlicerLib.scene.SliceViews import areAligned, sliceNodes

    turned = vtk.vtkTransform()
    turned.RotateX(25)
    matrix = np.array([[turned.GetMatrix().GetElement(r, c) for c in range(4)] for r in range(4)])
    controller = make_controller()
    volume = slicer.util.addVolumeFromArray(np.zeros((9, 9, 9), np.int16), ijkToRAS=matrix, name="oblique")
    controller.setVolume(volume)
    controller.makeSegmentation()
    assert controller.message.level == "info" and areAligned(volume)
    for node in sliceNodes(controller.scene):
        node.SetOrientation(node.GetDefaultOrientation())
    again = make_controller()  # as when the module is reloaded
    assert again.message.level == "warning"
    assert "turned against" in again.message.sentence
    again.alignViews()
    assert areAligned(volume)


def test_the_shown_slice_is_marked_and_a_rotated_view_refused(session):
    from SparseSegSlicerLib.scene import SliceViews

    controller = session()
    controller.jumpToSlice(0, 17)
    node = next(n for n in SliceViews.sliceNodes(controller.scene) if SliceViews.sliceShown(n, controller.volumeNode) == (0, 17))
    controller.markShownSlice(node)
    assert (0, 17) in controller.parameters.pairs("complete")
    matrix = node.GetSliceToRAS()
    matrix.SetElement(2, 0, 0.5)
    matrix.SetElement(0, 2, -0.5)
    node.UpdateMatrices()
    controller.markShownSlice(node)
    assert controller.message.level == "error"
    assert "rotated" in controller.message.sentence
    assert "Align views" in controller.message.advice


# ---------------------------------------------------------------- segments change


def test_a_segment_deleted_during_training_leaves_the_preview_and_the_run_goes_on_without_it(session):
    from SparseSegSlicerLib.session.Controller import State

    controller = session()
    controller.parameters.setSetting("steps", 100_000)
    controller.train()
    spin(controller, lambda: controller.state is State.TRAINING and controller.preview.labels is not None)
    controller.segmentationNode.GetSegmentation().RemoveSegment("Vessel")
    settle(controller)
    assert "Vessel" not in controller.preview.node.GetSegmentation().GetSegmentIDs()
    spin(controller, lambda: controller.state is State.TRAINING and len(controller.run.classes) == 2)
    controller.finish()
    spin(controller, lambda: controller.state is State.RESULT)
    assert [s.id for s in controller.preview.classes.segments] == ["Kidney", "Liver"]
    apply(controller)
    assert "Vessel" not in controller.segmentationNode.GetSegmentation().GetSegmentIDs()


def test_renaming_and_reordering_harm_nothing(trained):
    controller = trained
    revision, segmentation = controller.run.revision, controller.segmentationNode.GetSegmentation()
    segmentation.GetSegment("Liver").SetName("Hepar ä")
    segmentation.SetSegmentIndex("Vessel", 0)
    settle(controller)
    assert controller.run.revision == revision, "nothing new to train on"
    assert controller.preview.node.GetSegmentation().GetSegment("Liver").GetName() == "Hepar ä"
    apply(controller)
    assert segmentation.GetSegment("Liver").GetName() == "Hepar ä"
    assert segmentation.GetNthSegmentID(0) == "Vessel"


def test_a_new_painted_segment_starts_the_training_again(session):
    from SparseSegSlicerLib.session.Controller import State

    controller = session()
    controller.parameters.setSetting("steps", 100_000)
    controller.train()
    spin(controller, lambda: controller.state is State.TRAINING)
    controller.segmentationNode.GetSegmentation().AddEmptySegment("Spine", "Spine")
    paint(controller, "Spine", (slice(33, 34), slice(76, 80), slice(46, 52)))
    spin(controller, lambda: controller.state is State.TRAINING and len(controller.run.classes) == 4)
    controller.finish()
    spin(controller, lambda: controller.state is State.RESULT)
    assert "Spine" in [s.id for s in controller.preview.classes.segments]


def add_segments(controller, *names):
    for name in names:
        controller.segmentationNode.GetSegmentation().AddEmptySegment(name, name)
    settle(controller)


def test_unpainted_segments_are_remarked_on_join_in_when_painted_and_are_empty_again(session):
    from SparseSegSlicerLib.session.Controller import Message, State

    controller, spleen = session(), (slice(33, 34), slice(76, 80), slice(46, 52))
    add_segments(controller, "Spleen", "Stomach")
    remark = Message("warning", "Nothing is painted in Spleen, Stomach: they stay empty.", "Paint them on a slice, and they join in.")
    assert controller.strokes.notes == (remark.text(),)
    said = []
    controller.say, say = lambda message: (said.append(message), say(message)), controller.say
    train(controller)
    run = controller.run
    assert said.count(remark) == 1
    assert run.classes.ids == ["Kidney", "Liver", "Spleen", "Stomach", "Vessel"]
    assert set(np.unique(controller.preview.labels)) == {0, 1, 2, 5}
    assert "Spleen" in controller.preview.node.GetSegmentation().GetSegmentIDs() and "Spleen" not in controller.report.estimate

    paint(controller, "Spleen", spleen)
    settle(controller)
    spin(controller, lambda: controller.previewIsCurrent and preview_array(controller, "Spleen").any())
    assert controller.run is run and controller.state is State.RESULT
    assert preview_array(controller, "Spleen")[spleen].all()
    assert controller.strokes.notes == ("Nothing is painted in Stomach: it stays empty. Paint it on a slice, and it joins in.",)

    paint(controller, "Spleen", spleen, 0)
    settle(controller)
    spin(controller, lambda: controller.previewIsCurrent and not preview_array(controller, "Spleen").any())
    train(controller)
    assert controller.run is run
    assert set(np.unique(controller.preview.labels)) == {0, 1, 2, 5}
    assert [message.sentence for message in said if message.level == "warning"].count(remark.sentence) == 1
    apply(controller)
    assert controller.isApplied and not voxels_of(controller, "Spleen").any() and voxels_of(controller, "Liver").any()


def voxels_of(controller, segment_id):
    import slicer

    return slicer.util.arrayFromSegmentBinaryLabelmap(controller.segmentationNode, segment_id, controller.volumeNode)


def test_a_segment_that_is_made_during_training_disturbs_nothing_until_it_is_painted(session):
    from SparseSegSlicerLib.session.Controller import State

    controller = session()
    controller.parameters.setSetting("steps", 100_000)
    controller.train()
    spin(controller, lambda: controller.state is State.TRAINING)
    run, revision = controller.run, controller.run.revision
    add_segments(controller, "Spleen")
    assert controller.run is run and run.revision == revision and controller.state is State.TRAINING
    assert controller.strokes.notes == ("Nothing is painted in Spleen; left out.",)
    assert not controller.strokesAreNew
    paint(controller, "Spleen", (slice(33, 34), slice(76, 80), slice(46, 52)))
    spin(controller, lambda: controller.state is State.TRAINING and len(controller.run.classes) == 4)
    assert controller.run is not run


# ---------------------------------------------------------------- what goes wrong


def test_no_painted_segment_at_all_is_one_sentence_and_nothing_starts(session):
    from SparseSegSlicerLib.session.Controller import State

    controller = session()
    for name in ("Kidney", "Liver", "Vessel"):
        controller.setSegmentChoice(name, unused=True)
    add_segments(controller, "Spleen")
    controller.train()
    spin(controller, lambda: controller.message.level == "warning")
    assert controller.message.text() == "No segment has a painted voxel. Paint each structure on a few slices."
    assert controller.state is State.IDLE
    assert left_behind(controller) == []


def test_no_background_is_one_sentence_and_nothing_starts(session):
    from SparseSegSlicerLib.session.Controller import State

    controller = session()
    controller.setSegmentChoice("Background", unused=True)
    settle(controller)
    controller.train()
    spin(controller, lambda: controller.message.level == "warning")
    assert controller.message.sentence == "No background is labelled."
    assert controller.state is State.IDLE
    assert left_behind(controller) == []


def test_a_python_that_is_not_there_is_one_sentence(session):
    from SparseSegSlicerLib.session.Controller import State

    controller = session(python=("/nowhere/python",))
    controller.train()
    spin(controller, lambda: controller.message.level == "error")
    assert "could not be started" in controller.message.sentence
    assert controller.state is State.IDLE
    assert left_behind(controller) == []


def test_a_python_without_torch_ends_in_words_and_the_scene_is_as_it_was(session, tmp_path):
    from SparseSegSlicerLib.session.Controller import State

    fake = tmp_path / "torch"
    fake.mkdir()
    (fake / "__init__.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')", encoding="utf-8")
    controller = session(environment={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])})
    strokes = voxels(controller)
    controller.train()
    spin(controller, lambda: controller.message.level == "error")
    assert controller.message.sentence == "PyTorch, which the engine needs, is not installed."
    assert "Traceback" not in "\n".join(controller.log)
    assert controller.state in (State.IDLE, State.RESULT)  # growing needs no torch: its preview may be there already, to look at or apply
    assert (voxels(controller) == strokes).all()


def test_a_killed_worker_is_started_again(session):
    from SparseSegSlicerLib.session.Controller import State

    controller = session()
    controller.parameters.setSetting("steps", 60)
    controller.train()
    spin(controller, lambda: controller.state is State.TRAINING)
    pid = controller.run.workerPid
    os.kill(pid, 9)
    spin(controller, lambda: controller.run is not None and controller.run.workerPid not in (pid, 0) and "again" in "\n".join(controller.log))
    spin(controller, lambda: controller.state is State.RESULT)


def test_an_engine_of_another_version_is_refused(session, monkeypatch):
    from SparseSegSlicerLib.session import EngineRun
    from SparseSegSlicerLib.session.Controller import State

    ours = EngineRun.PROTOCOL_VERSION
    controller = session()
    monkeypatch.setattr(EngineRun, "PROTOCOL_VERSION", ours + 1)
    controller.train()
    spin(controller, lambda: controller.message.level == "error")
    assert controller.message.sentence == f"The engine speaks version {ours} of the protocol, this module version {ours + 1}."
    assert controller.state is State.IDLE
    spin(controller, lambda: not controller._training.ended)
    assert left_behind(controller) == []


def test_an_engine_refuses_a_module_of_another_version(session, monkeypatch):
    from sparseseg.contract.protocol import PROTOCOL_VERSION, Open
    from SparseSegSlicerLib.session import EngineRun
    from SparseSegSlicerLib.session.Controller import State

    controller = session()
    monkeypatch.setattr(EngineRun, "Open", lambda *arguments, owner: Open(*arguments, protocol=PROTOCOL_VERSION - 1, owner=owner))
    controller.train()
    spin(controller, lambda: controller.message.level == "error")
    told = f"The host speaks version {PROTOCOL_VERSION - 1} of the protocol, this engine version {PROTOCOL_VERSION}."
    assert controller.message.sentence == told
    assert controller.state is State.IDLE


def test_a_stroke_that_is_undone_at_once_is_nothing_new(trained):
    controller, box = trained, (slice(30, 31), slice(60, 66), slice(40, 46))
    revision = controller.run.revision
    controller.parameters.set("autoUpdate", False)
    paint(controller, "Vessel", box)
    settle(controller)
    assert controller.strokesAreNew and not controller.previewIsCurrent
    paint(controller, "Vessel", box, 0)
    settle(controller)
    assert not controller.strokesAreNew and controller.previewIsCurrent
    assert controller.run.revision == revision


def test_a_full_disk_is_one_sentence(session, monkeypatch):
    from SparseSegSlicerLib.session import EngineRun
    from SparseSegSlicerLib.session.Controller import State

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    controller = session()
    monkeypatch.setattr(EngineRun.Job, "create", full)
    controller.train()
    spin(controller, lambda: controller.message.level == "error")
    assert controller.state is State.IDLE
    assert "No space left" in controller.message.sentence


def test_cancel_keeps_the_strokes_and_leaves_no_process(session):
    from SparseSegSlicerLib.session.Controller import State

    controller = session()
    controller.parameters.setSetting("steps", 100_000)
    strokes = voxels(controller)
    controller.train()
    spin(controller, lambda: controller.state is State.TRAINING)
    pid = controller.run.workerPid
    controller.cancel()
    assert not controller.running
    spin(controller, lambda: not controller._training.ended and not alive(pid))
    assert left_behind(controller) == []
    assert (voxels(controller) == strokes).all()


@pytest.mark.parametrize(
    "what", ["volume deleted", "segmentation deleted", "scene closed", "another volume", "another segmentation", "image replaced"]
)
def test_whatever_happens_to_the_scene_ends_the_worker_cleanly(session, slicer, what):
    controller = session()
    controller.parameters.setSetting("steps", 100_000)
    controller.train()
    spin(controller, lambda: controller.preview.labels is not None)
    pid, volume = controller.run.workerPid, controller.volumeNode
    if what == "volume deleted":
        controller.scene.RemoveNode(volume)
    elif what == "segmentation deleted":
        controller.scene.RemoveNode(controller.segmentationNode)
    elif what == "scene closed":
        controller.scene.Clear()
    elif what == "another volume":
        controller.setVolume(slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16), name="other"))
    elif what == "another segmentation":
        controller.makeSegmentation()
    else:
        slicer.util.updateVolumeFromArray(volume, np.zeros((3, 4, 5), np.int16))
    assert not controller.running
    assert controller.preview.node is None, "a preview of other inputs is none"
    assert not controller.hasResult
    spin(controller, lambda: not controller._training.ended and not alive(pid))
    assert left_behind(controller) == []


def test_close_leaves_nothing_behind(trained, slicer):
    controller = trained
    pid, scene = controller.run.workerPid, controller.scene
    controller.showWeights(True)
    spin(controller, lambda: controller.weightMap.isShown)
    for thread in controller.close():
        thread.join(20)
    assert not alive(pid)
    assert left_behind(controller) == []
    assert controller.preview.node is None
    assert len(controller._inputs) == 0
    assert not [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n.GetName().endswith("preview")]
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1


def test_the_log_names_no_patient(trained):
    controller = trained
    controller.volumeNode.SetName("Doe^Jane 1970")
    controller.segmentationNode.SetName("Jane's liver")
    apply(controller)
    assert "Jane's liver" in controller.message.text()
    controller.volumeNode.SetAndObserveImageData(None)
    controller.train()
    spin(controller, lambda: controller.message.level == "error")
    assert "Doe^Jane 1970" in controller.message.text()
    log = "\n".join(controller.log) + controller.engineLog
    assert "Doe" not in log
    assert "Jane" not in log


def test_the_preview_is_no_input(trained):
    controller = trained
    before = controller.segmentationNode
    controller.setSegmentation(controller.preview.node)
    assert controller.segmentationNode is before
    assert "preview" in controller.message.sentence


# ---------------------------------------------------------------- saved with the scene


def test_choices_come_back_with_the_scene(session, tmp_path, scene_host):
    controller = session()
    controller.setSliceChoice(0, 20, complete=True)
    controller.setSliceChoice(0, 28, ignored=True)
    controller.setSegmentChoice("Kidney", locked=True)
    controller.parameters.setSetting("class_balance", 0.8)
    settle(controller)
    strokes, path = voxels(controller), tmp_path / "Scène ž" / "scene.mrb"
    path.parent.mkdir()
    assert controller.scene.WriteToMRB(str(path), None)
    controller.scene.Clear()
    assert scene_host.load_scene(path)
    spin(controller, lambda: controller.strokes is not None)
    assert controller.parameters.pairs("complete") == ((0, 20),)
    assert controller.parameters.pairs("ignored") == ((0, 28),)
    assert controller.parameters.get("locked") == ["Kidney"]
    assert controller.parameters.settings().class_balance == 0.8
    assert (voxels(controller) == strokes).all()


def saved(controller, path):
    """The scene, once all that belongs into it is there."""
    spin(controller, lambda: controller.isSettled and controller.parameters.getNode("model") is not None)
    assert controller.scene.WriteToMRB(str(path), None)


def test_the_next_day_the_session_goes_on(trained, make_controller, tmp_path, scene_host, monkeypatch):
    """Strokes, complete slices, settings, model, estimate and preview come back with the scene, whether or not Apply was pressed."""
    from SparseSegSlicerLib.session.Controller import Action, State

    controller = trained
    controller.setSliceChoice(0, 20, complete=True)
    spin(controller, lambda: controller.previewIsCurrent)
    train(controller)
    apply(controller)
    paint(controller, "Vessel", (slice(30, 31), slice(60, 66), slice(40, 46)))
    spin(controller, lambda: controller.previewIsCurrent)
    strokes, labels, report = voxels(controller), controller.preview.labels.copy(), controller.report
    steps = report.progress.step
    saved(controller, tmp_path / "scene.mrb")
    controller.scene.Clear()
    assert scene_host.load_scene(tmp_path / "scene.mrb")
    spin(controller, lambda: controller.strokes is not None and controller.state is State.RESULT)
    assert (voxels(controller) == strokes).all() and (controller.preview.labels == labels).all()
    assert controller.report.estimate == report.estimate and controller.report.nextSlices == report.nextSlices
    assert controller.parameters.pairs("complete") == ((0, 20),) and controller.parameters.settings().steps == STEPS
    assert Action.APPLY in controller.allowed() and controller.preview.node.GetDisplayVisibility()
    train(controller)
    assert controller.report.progress.step > steps, "the network began anew"
    apply(controller)
    assert (voxels(controller) == strokes).all()


def test_a_scene_saved_with_preview_and_weight_map_leaves_no_ghosts(trained, tmp_path, scene_host, slicer, capfd):
    controller = trained
    controller.showWeights(True)
    spin(controller, lambda: controller.weightMap.isShown)
    saved(controller, tmp_path / "scene.mrb")
    controller.scene.Clear()
    capfd.readouterr()
    assert scene_host.load_scene(tmp_path / "scene.mrb")
    spin(controller, lambda: controller.preview.labels is not None)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(controller.scene)
    import vtk

    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    names = sorted(hierarchy.GetItemName(items.GetId(n)) for n in range(items.GetNumberOfIds()))
    assert all(hierarchy.GetItemDataNode(items.GetId(n)) for n in range(items.GetNumberOfIds())), names
    said = capfd.readouterr()
    told = [line for line in (said.out + said.err).splitlines() if "ERR|" in line]
    assert told == []
    controller.discard()
    assert not [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n.GetName().endswith("preview")]
    assert controller.scene.GetNumberOfNodesByClass("vtkMRMLTextNode") == 0


def test_adding_a_saved_session_keeps_the_one_under_way_and_both_go_on(trained, tmp_path, slicer):
    from SparseSegSlicerLib.session.Controller import State

    controller = trained
    controller.setSliceChoice(0, 20, complete=True)
    spin(controller, lambda: controller.previewIsCurrent)
    saved(controller, tmp_path / "scene.mrb")
    controller.setSliceChoice(0, 12, complete=True)
    spin(controller, lambda: controller.previewIsCurrent)
    labels, run, node, preview = controller.preview.labels, controller.run, controller.segmentationNode, controller.preview.node
    assert controller.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    settle(controller)
    assert controller.segmentationNode is node and controller.preview.node is preview
    assert controller.preview.labels is labels and controller.run is run
    assert controller.parameters.pairs("complete") == ((0, 12), (0, 20))

    others = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n not in (node, preview)]
    added = next(n for n in others if n.GetNodeReference("SparseSegSlicer.Preview"))
    controller.setVolume(added.GetNodeReference("SparseSegSlicer.Volume"))
    controller.setSegmentation(added)
    spin(controller, lambda: controller.strokes is not None and controller.state is State.RESULT)
    assert controller.parameters.pairs("complete") == ((0, 20),)
    assert controller.preview.node in others and controller.preview.labels.any()
    assert len([n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n.GetName().endswith("preview")]) == 1
    train(controller)


def test_a_session_added_to_an_empty_scene_is_taken_up(trained, tmp_path, scene_host):
    from SparseSegSlicerLib.session.Controller import State

    controller = trained
    strokes = voxels(controller)
    saved(controller, tmp_path / "scene.mrb")
    controller.scene.Clear()
    assert controller.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    spin(controller, lambda: controller.strokes is not None and controller.state is State.RESULT)
    assert (voxels(controller) == strokes).all()


def test_deleting_a_segmentation_that_was_added_takes_its_preview_and_model_along_but_no_strokes(trained, tmp_path, slicer):
    controller = trained
    apply(controller)
    saved(controller, tmp_path / "scene.mrb")
    before = controller.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
    assert controller.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    added = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n is not controller.segmentationNode]
    controller.scene.RemoveNode(next(n for n in reversed(added) if n.GetNodeReference("SparseSegSlicer.Preview")))
    assert controller.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == before + 1
    assert controller.scene.GetNumberOfNodesByClass("vtkMRMLTextNode") == 1
    assert controller.preview.node is not None and controller.hasResult


def test_other_voxels_in_the_same_volume_are_noticed(trained, slicer):
    controller = trained
    strokes = voxels(controller)
    array = slicer.util.arrayFromVolume(controller.volumeNode)
    slicer.util.arrayFromVolumeModified(controller.volumeNode)  # as many modules say it, and nothing changed
    settle(controller)
    assert controller.hasResult
    array[5, 5, 5] += 100
    slicer.util.arrayFromVolumeModified(controller.volumeNode)
    spin(controller, lambda: not controller.hasRun)
    assert controller.preview.node is None and not controller.hasResult
    assert "voxels have changed" in controller.message.text()
    assert (voxels(controller) == strokes).all()
    train(controller)


def test_strokes_that_are_kept_are_no_input(trained):
    controller, before = trained, trained.segmentationNode
    apply(controller)
    controller.setSegmentation(controller.holding.strokesNode)
    assert controller.segmentationNode is before
    assert "kept for" in controller.message.sentence


def test_unreadable_parameters_count_as_defaults(scene_host):
    from SparseSegSlicerLib.session.Parameters import Parameters

    parameters = Parameters(scene_host.scene)
    parameters.node.SetParameter("opacity", "not json")
    parameters.node.SetParameter("locked", json.dumps("no list"))
    assert parameters.get("opacity") == 0.5
    assert parameters.get("locked") == []
    with pytest.raises(KeyError):
        parameters.set("unknown", 1)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().split()[2] != "Z"
    except OSError:
        return True


# ---------------------------------------------------------------- check my annotation


def test_a_stroke_with_the_wrong_segment_is_listed_until_it_is_mended(session):
    """The liver's stroke on the middle slice painted as kidney; what the engine says of it arrives, and goes once it is corrected."""
    controller = session()
    stroke = (voxels(controller) == controller.strokes.classes.ids.index("Liver") + 2) & (np.arange(40)[:, None, None] == 20)
    assert stroke.any()
    paint(controller, "Liver", stroke, 0)
    paint(controller, "Kidney", stroke, 1)
    settle(controller)
    train(controller)
    spin(controller, lambda: controller.places)
    assert {(place.axis, place.index, place.painted, place.believed) for place in controller.places} == {(0, 20, "Kidney", "Liver")}
    paint(controller, "Kidney", stroke, 0)
    paint(controller, "Liver", stroke, 1)
    spin(controller, lambda: not controller.places)


def test_right_strokes_are_not_spoken_of(trained):
    assert trained.places == []
