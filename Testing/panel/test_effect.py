"""The second face: the effect in Slicer's own Segment Editor, on the session that the module's panel shows too."""

import threading
from pathlib import Path

import numpy as np
import pytest
from driving import MODULE, apply

NAME = "Sparse Segmentation"


class StandInRun:
    """An engine that answers each annotation with a preview: where nothing is painted it believes in the first segment."""

    def __init__(self, image, annotation, record, *_, **__):
        self.classes, self.geometry, self.revision, self.log = record.classes, record.geometry, 1, ""
        self.annotation, self.settings, self.closed = annotation.copy(), None, False

    def train(self, settings, *_):
        self.settings = settings

    def update(self, annotation, complete, boxes):
        self.annotation, self.revision = annotation.copy(), self.revision + 1

    def dense(self):
        """uint8 (K, J, I): background where it is painted, else what is painted, else segment 1."""
        return np.where(self.annotation == 0, 1, self.annotation - 1).astype(np.uint8)

    def poll(self):
        return []

    def close(self):
        self.closed = True
        thread = threading.Thread(target=lambda: None)
        thread.start()
        return thread


@pytest.fixture
def started(host):
    """Slicer has started with the module, whose panel nobody has visited; the engine's self-test is skipped, and its work stood in for."""
    from SparseSegSlicerLib.session.EngineSetup import EngineSetup, EngineState
    from SparseSegSlicerLib.session.Training import Training

    with pytest.MonkeyPatch.context() as patch:
        begin = Training.__init__
        patch.setattr(EngineSetup, "check", lambda self: self._become(EngineState.READY, "CPU, 2 threads"))
        patch.setattr(Training, "__init__", lambda self, session, launch, makeRun: begin(self, session, launch, StandInRun))
        code = host.introduce(MODULE)
        code.registerEffect()
        yield code


@pytest.fixture
def editor(host, started):
    """Slicer's own Segment Editor on the sample."""
    from SparseSegSlicerLib.scene.SamplePhantom import addPhantom

    return open_editor(host, *addPhantom())


def open_editor(host, volume, segmentation):
    import slicer

    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMaximumNumberOfUndoStates(10)
    editor.setMRMLSegmentEditorNode(host.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setMRMLScene(host.scene)
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(volume)
    return editor


def activate(host, editor):
    """The options of the effect, activated."""
    editor.setActiveEffectByName(NAME)
    host.spin(0.1)
    return editor.activeEffect().self().panel


def answer(host, controller):
    """The engine's preview of what it has."""
    from sparseseg.contract.protocol import Preview

    run = controller.run
    file = Path(host.folder.name) / f"preview-{run.revision}.npy"
    np.save(file, run.dense())
    controller._training.onEvent(Preview("train", run.revision, str(file), "network", run.revision, 0.0, []))
    host.spin(until=lambda: controller.preview.labels is not None and controller.preview.revision == run.revision, timeout_s=20)
    host.spin(0.1)


def segmented(host, panel):
    """After a press on Segment: training, with a first preview."""
    from SparseSegSlicerLib.session.States import State

    host.click(panel.ui.segmentButton)
    host.spin(until=lambda: panel.controller.hasRun and panel.controller.isSettled, timeout_s=30)
    panel.controller.become(State.TRAINING, None)
    answer(host, panel.controller)


def finish(host, controller):
    from SparseSegSlicerLib.session.States import State

    controller.become(State.RESULT, None)
    host.spin(0.1)


def voxels(controller):
    from SparseSegSlicerLib.scene.SceneExport import takeSnapshot
    from SparseSegSlicerLib.scene.StrokeReader import readStrokes

    return readStrokes(takeSnapshot(controller.segmentationNode, controller.volumeNode)).annotation


# ---------------------------------------------------------------- in the editor


def test_the_effect_is_in_every_editor_made_before_or_after(host, started):
    import slicer

    editor = slicer.qMRMLSegmentEditorWidget()
    assert NAME in editor.availableEffectNames()
    effect = editor.effectByName(NAME)
    assert (effect.name, effect.title, effect.perSegment, effect.showEffectCursorInSliceView) == (NAME, NAME, False, False)
    assert "Background" in effect.helpText()
    assert not effect.self().icon().isNull()
    assert not slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(effect), "it is there"


def test_an_editor_that_does_not_use_it_gets_no_session_and_no_node(host, editor):
    from SparseSegSlicerLib.panel.SharedSession import SharedSession

    editor.setActiveEffectByName("Paint")
    assert SharedSession._current is None
    assert host.scene.GetSingletonNode("SparseSegSlicer", "vtkMRMLScriptedModuleNode") is None


def test_its_options_show_what_is_painted_and_what_may_be_done(host, editor):
    panel = activate(host, editor)
    host.spin(until=lambda: panel.ui.checklistLabel.text.endswith("Ready to segment."), timeout_s=20)
    assert panel.controller.segmentationNode is editor.segmentationNode()
    assert panel.controller.volumeNode is editor.sourceVolumeNode()
    wanted = {"segment": True, "apply": False, "discard": False, "paintBackground": True, "markSlice": True, "nextSlice": False}
    assert {name: getattr(panel.ui, f"{name}Button").enabled for name in wanted} == wanted
    assert [w.name for w in vars(panel.ui).values() if hasattr(w, "className") and w.className() == "QPushButton" and not w.toolTip] == []


def test_segment_gives_a_preview_and_the_session_outlives_the_effect(host, editor):
    panel = activate(host, editor)
    segmented(host, panel)
    controller = panel.controller
    assert panel.ui.segmentButton.text == "Stop"
    assert controller.preview.node is not None
    editor.setActiveEffectByName("Paint")
    assert not panel.uiWidget.visible
    host.paint(editor, "Vessel", ((31, 32), (60, 64), (50, 54)))
    host.spin(until=lambda: controller.run.revision == 2, timeout_s=20)
    answer(host, controller)
    vessel = controller.preview.classes.names.index("Vessel") + 1
    assert (controller.preview.labels[31, 60:64, 50:54] == vessel).all()
    assert activate(host, editor) is panel
    assert panel.ui.segmentButton.text == "Stop"
    host.click(panel.ui.discardButton)
    assert not controller.hasRun


def test_apply_is_one_undo_step_of_the_editor(host, editor):
    import slicer

    panel = activate(host, editor)
    segmented(host, panel)
    before = voxels(panel.controller)
    finish(host, panel.controller)
    apply(host, panel)
    assert panel.controller.isApplied
    host.spin(0.1)
    assert not panel.ui.applyButton.enabled
    assert editor.activeEffect().name == NAME
    liver = slicer.util.arrayFromSegmentBinaryLabelmap(editor.segmentationNode(), "Liver", editor.sourceVolumeNode())
    assert liver.sum() > 1000
    editor.undo()
    host.spin(0.2)
    assert not panel.controller.isApplied
    assert (voxels(panel.controller) == before).all()
    assert panel.ui.applyButton.enabled


def test_paint_background_gives_the_brush_with_a_background_that_was_not_there_before(host, editor):
    editor.setSegmentationNode(None)
    node = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Fresh")
    node.CreateDefaultDisplayNodes()
    node.GetSegmentation().AddEmptySegment("Liver", "Liver")
    editor.setSegmentationNode(node)
    panel = activate(host, editor)
    assert list(node.GetSegmentation().GetSegmentIDs()) == ["Liver"], "who only looks at the effect gets nothing added"
    host.click(panel.ui.paintBackgroundButton)
    names = [node.GetSegmentation().GetSegment(sid).GetName() for sid in node.GetSegmentation().GetSegmentIDs()]
    assert names == ["Liver", "Background"]
    assert editor.currentSegmentID() == node.GetSegmentation().GetSegmentIDs()[1]
    assert editor.activeEffect().name == "Paint"


def test_mark_this_slice_and_the_link_to_the_module(host, editor):
    import slicer

    from SparseSegSlicerLib.scene import SliceViews

    panel = activate(host, editor)
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    SliceViews.jumpTo(editor.sourceVolumeNode(), 0, 12)
    panel.controller._slices._views.remember(red)
    host.click(panel.ui.markSliceButton)
    assert panel.controller.parameters.pairs("complete") == ((0, 12),)
    panel.ui.moreLabel.linkActivated("module")
    assert slicer.util.mainWindow().moduleSelector().selectedModule == "SparseSegSlicer"


# ---------------------------------------------------------------- one session


def test_the_panel_shows_the_same_session(host, editor):
    effect = activate(host, editor)
    segmented(host, effect)
    editor.setActiveEffect(None)
    _, widget, _ = host.load_module(MODULE)
    host.enter()
    panel = widget.panel
    assert panel.controller is effect.controller
    assert panel.ui.segmentButton.text == "Stop"
    assert panel.ui.segmentationSelector.currentNode() is editor.segmentationNode()
    finish(host, panel.controller)
    apply(host, panel)
    host.exit()
    activate(host, editor)
    assert not effect.ui.applyButton.enabled, "it is applied"
    assert "applied to" in effect.ui.messageLabel.text


def test_a_session_goes_on_when_the_panel_goes(host, editor):
    effect = activate(host, editor)
    _, widget, _ = host.load_module(MODULE)
    segmented(host, effect)
    widget.cleanup()
    assert effect.controller.hasRun
    host.paint(editor, "Vessel", ((31, 32), (60, 64), (50, 54)))
    host.spin(until=lambda: effect.controller.run.revision == 2, timeout_s=20)


def test_another_segmentation_is_taken_where_nothing_would_be_lost(host, editor):
    panel = activate(host, editor)
    other = another_segmentation(host, editor)
    editor.setSegmentationNode(other)
    assert editor.activeEffect() is None
    assert activate(host, editor) is panel
    assert panel.controller.segmentationNode is other


def test_a_session_elsewhere_is_named_and_ended_by_segment_alone(host, editor):
    panel = activate(host, editor)
    first, volume = editor.segmentationNode(), editor.sourceVolumeNode()
    panel.controller.setSliceChoice(0, 12, complete=True)
    host.spin(until=lambda: panel.controller.strokes is not None and panel.controller.isSettled, timeout_s=30)
    segmented(host, panel)
    run, other = panel.controller.run, another_segmentation(host, editor)
    editor.setSegmentationNode(other)
    activate(host, editor)
    assert panel.controller.segmentationNode is first and not run.closed
    assert panel.ui.messageLabel.text.startswith(f"The session is on {first.GetName()} with {volume.GetName()}.")
    assert panel.ui.segmentButton.text == "Segment"
    for name in ("applyButton", "discardButton", "markSliceButton", "nextSliceButton"):
        assert not getattr(panel.ui, name).enabled
    host.click(panel.ui.segmentButton)
    assert run.closed
    assert panel.controller.segmentationNode is other
    host.spin(until=lambda: panel.controller.hasRun, timeout_s=30)
    editor.setSegmentationNode(first)
    panel.controller.cancel()
    activate(host, editor)
    assert panel.controller.parameters.pairs("complete") == ((0, 12),), "what was decided on the first is kept"


def test_both_inputs_change_at_once_and_neither_loses_what_it_remembers(host, editor):
    import slicer

    panel = activate(host, editor)
    first, volume = editor.segmentationNode(), editor.sourceVolumeNode()
    panel.controller.setSliceChoice(0, 12, complete=True)
    second = slicer.util.addVolumeFromArray(np.zeros((40, 96, 96), np.int16), name="Another")
    other = another_segmentation(host, editor)
    other.SetReferenceImageGeometryParameterFromVolumeNode(second)
    editor.setSegmentationNode(other)
    editor.setSourceVolumeNode(second)
    activate(host, editor)
    assert (panel.controller.volumeNode, panel.controller.segmentationNode) == (second, other)
    editor.setSegmentationNode(first)
    editor.setSourceVolumeNode(volume)
    activate(host, editor)
    assert panel.controller.parameters.pairs("complete") == ((0, 12),)


def test_the_preview_is_no_segmentation_to_work_on(host, editor):
    panel = activate(host, editor)
    segmented(host, panel)
    controller = panel.controller
    editor.setSegmentationNode(controller.preview.node)
    editor.setSourceVolumeNode(controller.volumeNode)
    activate(host, editor)
    assert panel.ui.messageLabel.text.startswith("That is the preview")
    host.click(panel.ui.segmentButton)
    assert controller.running and controller.segmentationNode is not controller.preview.node


def another_segmentation(host, editor):
    """With a structure, as a user would make it."""
    node = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Second")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(editor.sourceVolumeNode())
    for name in ("Background", "Liver"):
        node.GetSegmentation().AddEmptySegment(name, name)
    copied = editor.segmentationNode().GetSegmentation()
    for name in ("Background", "Liver"):
        node.GetSegmentation().GetSegment(name).DeepCopy(copied.GetSegment(name))
    return node


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("how", ["editor", "quit", "scene"])
def test_nothing_outlives_its_end(host, editor, how):
    import slicer

    from host import standin
    from SparseSegSlicerLib.panel.SharedSession import SharedSession

    panel = activate(host, editor)
    segmented(host, panel)
    controller, run, pump = panel.controller, panel.controller.run, panel.session.pump
    if how == "scene":
        editor.setSegmentationNode(None)  # as Slicer's module does when a scene begins to close
        host.close_scene()
        assert run.closed and controller.run is None
        assert SharedSession._current is panel.session
        return
    if how == "editor":
        import shiboken6

        shiboken6.delete(standin.behind(editor))
    else:
        slicer.app.aboutToQuit()
    assert run.closed
    assert len(controller._inputs) == 0
    assert not pump._timer.active
    assert controller.preview.node is None
    assert SharedSession._current is None
    assert panel.isClosed


def test_after_a_reload_the_effect_begins_anew(host, editor, started):
    import sys

    import slicer

    from SparseSegSlicerLib.panel.SharedSession import SharedSession

    old = activate(host, editor)
    segmented(host, old)
    controller, run = old.controller, old.controller.run
    _, widget, _ = host.load_module(MODULE)
    ours = ("SparseSegSlicerLib", "SparseSegSlicerEffect", "sparseseg")
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ours}
    try:
        widget.onReload()
        assert run.closed and old.isClosed and SharedSession._current is None
        assert len(controller._inputs) == 0
        editor.setActiveEffect(None)
        new = activate(host, editor)
        assert type(new) is not type(old), "the code is new, too"
        assert new.controller.segmentationNode is editor.segmentationNode()
        assert len([w for w in editor.activeEffect().optionsFrame().findChildren("QPushButton") if w.name == "segmentButton"]) == 1
        assert slicer.modules.SparseSegSlicerWidget.panel.session is new.session
        new.session.close()
    finally:
        sys.modules.update(kept)
