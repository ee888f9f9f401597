"""The panel in the PythonQt-like host: real clicks, real painting, the real worker; every member it uses exists in Slicer's catalogue."""

import os
from pathlib import Path

import numpy as np
import pytest
from driving import MODULE, apply, train, voxels, wait

# ---------------------------------------------------------------- what stands there


def test_the_empty_panel_asks_for_inputs_and_offers_nothing_else(panel, picture):
    ui = panel.ui
    assert ui.messageLabel.text == "Choose a volume and a segmentation."
    for name in ("segmentButton", "markSliceButton", "weightsButton", "applyButton", "discardButton", "nextSliceButton", "saveModelButton"):
        assert not getattr(ui, name).enabled, name
    picture("1-empty")


def test_every_control_has_a_tooltip(panel):
    controls = "QPushButton QCheckBox QComboBox QSpinBox QDoubleSpinBox QTableWidget ctkPathLineEdit ctkSliderWidget qMRMLNodeComboBox"
    named = [w for w in vars(panel.ui).values() if hasattr(w, "className") and w.className() in controls.split()]
    assert len(named) > 30
    assert [w.name for w in named if not w.toolTip] == []


def test_the_shortcuts_live_only_while_the_module_is_shown(host, panel):
    from SparseSegSlicerLib.panel.Widget import _SHORTCUTS

    keys = [key for key, _ in _SHORTCUTS]
    assert len(set(keys)) == len(keys)
    assert [s.key.toString() for s in panel._shortcuts] == keys
    host.exit()
    assert panel._shortcuts == []
    host.enter()
    assert len(panel._shortcuts) == len(keys)


def test_a_new_segmentation_gets_a_structure_and_geometry(host, panel):
    import slicer

    volume = slicer.util.addVolumeFromArray(np.zeros((5, 6, 7), np.int16), name="CT")
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.segmentationSelector.addNode()
    node = panel.controller.segmentationNode
    segmentation = node.GetSegmentation()
    assert [segmentation.GetSegment(s).GetName() for s in segmentation.GetSegmentIDs()] == ["Structure 1"]
    assert node.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()) is volume
    assert panel.ui.editor.segmentationNode() is node
    assert panel.ui.editor.sourceVolumeNode() is volume


def test_only_stroke_effects_are_shown_until_all_are_asked_for(host, panel):
    assert panel.ui.editor.effectNameOrder() == ("Paint", "Draw", "Erase", "Level tracing")  # Scissors claim thousands of voxels
    assert not panel.ui.editor.unorderedEffectsVisible
    host.click(panel.ui.allEffects)
    assert panel.ui.editor.unorderedEffectsVisible


@pytest.mark.parametrize("width", [480, 620])
def test_what_is_needed_all_the_time_stands_at_the_top(host, panel, width):
    """Without scrolling at 1280 x 720, where the module panel is some 480 wide and has 560 in height."""
    from host import standin

    panel.controller.say(type(panel.controller.message)("warning", "Nothing is painted in Spleen, Stomach, Heart and Aorta: they stay empty. " * 2))
    panel.update()
    host.screenshot(panel.top, panel.folder / "top.png", width)
    top = standin.behind(panel.top)
    for name in ("segmentButton", "applyButton", "discardButton", "progressBar", "messageLabel", "checklistLabel"):
        widget = standin.behind(getattr(panel.ui, name))
        assert widget.mapTo(top, widget.rect().bottomLeft()).y() < 200, name


def test_the_checklist_says_what_is_missing(host, panel, begin):
    begin()
    host.spin(0.2)
    assert panel.ui.checklistLabel.text.startswith("Kidney on 3 slices, Liver on 3 slices, Vessel on ")
    assert panel.ui.checklistLabel.text.endswith("; background. Ready to segment.")
    panel.controller.setSegmentChoice("Background", unused=True)
    host.spin(until=lambda: "background too" in panel.ui.checklistLabel.text, timeout_s=20)
    for name in ("Kidney", "Liver", "Vessel"):
        panel.controller.setSegmentChoice(name, unused=True)
    host.spin(until=lambda: panel.ui.checklistLabel.text == "Paint a structure on a few slices.", timeout_s=20)


# ---------------------------------------------------------------- strokes and slices


def test_painted_slices_appear_in_the_table_and_can_be_declared_complete(host, panel, begin, picture):
    import qt

    begin()
    table = panel.ui.sliceTable
    assert table.rowCount == 3
    assert table.item(1, 0).text() == "axial"
    assert "Liver" in table.item(1, 4).text()
    table.item(1, 2).setCheckState(qt.Qt.Checked)
    host.spin(until=lambda: (0, 20) in panel.controller.strokes.complete, timeout_s=20)
    table.item(2, 3).setCheckState(qt.Qt.Unchecked)
    host.spin(until=lambda: panel.controller.strokes.slices[2].ignored, timeout_s=20)
    assert not panel.controller.strokes.annotation[28].any()
    host.spin(0.2)
    assert "Background" in panel.ui.summaryLabel.text
    picture("2-strokes")


def test_double_click_jumps_and_the_button_marks_the_slice(host, panel, begin):
    import slicer

    from SparseSegSlicerLib.scene import SliceViews

    volume, _ = begin()
    panel.ui.sliceTable.cellDoubleClicked(0, 0)
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    assert SliceViews.sliceShown(red, volume) == (0, 12)
    panel.controller._slices._views.remember(red)
    host.click(panel.ui.markSliceButton)
    assert panel.controller.parameters.pairs("complete") == ((0, 12),)


def test_the_weight_map_is_shown_and_hidden(host, panel, begin):
    begin()
    host.click(panel.ui.slicesSection)
    host.click(panel.ui.weightsButton)
    host.spin(until=lambda: panel.controller.weightMap.isShown, timeout_s=20)
    host.click(panel.ui.weightsButton)
    assert not panel.controller.weightMap.isShown


# ---------------------------------------------------------------- the scenario


@pytest.mark.slow
def test_paint_train_preview_correct_apply_undo(host, panel, begin, picture):
    import slicer

    from SparseSegSlicerLib.scene.SamplePhantom import phantomOverlap
    from SparseSegSlicerLib.session.Controller import State

    volume, strokes = begin(steps=30)
    host.paint(panel.ui.editor, "Vessel", ((24, 25), (60, 64), (48, 52)))
    host.spin(until=lambda: len(panel.controller.strokes.slices) == 4, timeout_s=20)
    before = voxels(panel)
    host.click(panel.ui.segmentButton)
    wait(host, panel, lambda: panel.controller.state is State.TRAINING)
    assert panel.ui.segmentButton.text == "Stop"
    picture("3-training")
    wait(host, panel, lambda: panel.controller.state is State.RESULT)
    assert panel.ui.segmentButton.text == "Segment"
    assert "CPU" in panel.ui.deviceLabel.text
    assert (voxels(panel) == before).all()
    picture("4-result")

    host.paint(panel.ui.editor, "Vessel", ((31, 32), (60, 64), (50, 54)))
    wait(host, panel, lambda: panel.controller.previewIsCurrent)
    vessel = panel.controller.preview.classes.names.index("Vessel") + 1
    assert (panel.controller.preview.labels[31, 60:64, 50:54] == vessel).all()
    train(host, panel)
    corrected = voxels(panel)

    apply(host, panel)
    assert panel.controller.isApplied
    host.spin(0.25)
    picture("5-applied")
    assert phantomOverlap(panel.controller.preview.labels, panel.controller.preview.classes.names) > 0.7
    liver = slicer.util.arrayFromSegmentBinaryLabelmap(strokes, "Liver", volume)
    assert (liver == (panel.controller.preview.labels == panel.controller.preview.classes.names.index("Liver") + 1)).all()
    panel.ui.editor.undo()
    host.spin(0.25)
    assert not panel.controller.isApplied
    assert (voxels(panel) == corrected).all()

    apply(host, panel)
    host.spin(0.25)
    assert not panel.ui.applyButton.enabled, "it is applied"
    assert panel.controller.segmentationNode is panel.ui.editor.segmentationNode() is strokes
    assert (voxels(panel) == corrected).all()
    host.paint(panel.ui.editor, "Liver", ((10, 11), (78, 84), (14, 20)))
    wait(host, panel, lambda: panel.controller.previewIsCurrent)
    apply(host, panel)
    host.spin(0.25)
    assert slicer.util.arrayFromSegmentBinaryLabelmap(strokes, "Liver", volume)[10, 78:84, 14:20].all()
    for _ in range(3):  # Apply, the stroke, Apply
        panel.ui.editor.undo()
    host.spin(0.25)
    assert not panel.controller.isApplied
    assert (voxels(panel) == corrected).all()
    apply(host, panel)
    host.spin(0.25)
    host.click(panel.ui.discardButton)
    assert panel.controller.preview.node is None
    host.spin(0.25)
    assert panel.ui.messageLabel.text == "The result was discarded."


@pytest.mark.slow
def test_an_unpainted_segment_is_remarked_on_and_training_goes_on_without_it(host, panel, begin):
    _, strokes = begin()
    strokes.GetSegmentation().AddEmptySegment("Spleen", "Spleen")
    remark = "Nothing is painted in Spleen: it stays empty. Paint it on a slice, and it joins in."
    host.spin(until=lambda: remark in panel.ui.summaryLabel.text, timeout_s=20)
    seen, say = [], panel.controller.say
    panel.controller.say = lambda message: (seen.append((message.level, message.text())), say(message))
    train(host, panel)
    assert seen.count(("warning", remark)) == 1
    assert remark in panel.ui.logText.toPlainText()
    rows = {panel.ui.segmentTable.item(n, 0).text(): panel.ui.segmentTable.item(n, 3).text() for n in range(panel.ui.segmentTable.rowCount)}
    assert rows["Spleen"] == "" and rows["Liver"] != ""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["OverwriteNone", "OverwriteAllSegments"])
def test_apply_respects_locks_and_takes_nothing_from_others_in_any_mode(host, panel, begin, mode):
    import qt
    import slicer

    volume, strokes = begin()
    segmentation = strokes.GetSegmentation()
    segmentation.AddEmptySegment("Other", "Other")
    array = np.zeros((40, 96, 96), np.uint8)
    array[18:22, 30:50, 20:50] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, strokes, "Other", volume)
    panel.controller.setSegmentChoice("Other", unused=True)
    host.spin(until=lambda: panel.controller.isSettled, timeout_s=20)
    train(host, panel)
    row = next(n for n in range(panel.ui.segmentTable.rowCount) if panel.ui.segmentTable.item(n, 0).text() == "Kidney")
    kidney = slicer.util.arrayFromSegmentBinaryLabelmap(strokes, "Kidney", volume).copy()
    panel.ui.segmentTable.item(row, 2).setCheckState(qt.Qt.Checked)
    panel.ui.editor.mrmlSegmentEditorNode().SetOverwriteMode(getattr(slicer.vtkMRMLSegmentEditorNode, mode))
    apply(host, panel)
    assert panel.controller.isApplied and slicer.util.arrayFromSegmentBinaryLabelmap(strokes, "Liver", volume)[array > 0].any()
    assert (slicer.util.arrayFromSegmentBinaryLabelmap(strokes, "Kidney", volume) == kidney).all()
    assert (slicer.util.arrayFromSegmentBinaryLabelmap(strokes, "Other", volume) == array).all()


@pytest.mark.slow
def test_cancel_and_the_error_paths_leave_the_scene_as_it_was(host, panel, begin, picture, monkeypatch):
    from SparseSegSlicerLib.session.Controller import Launch, State

    begin(steps=100_000)
    before = voxels(panel)
    host.click(panel.ui.segmentButton)
    wait(host, panel, lambda: panel.controller.state is State.TRAINING)
    panel.controller.cancel()
    host.spin(0.25)
    assert "stopped because you stopped it" in panel.ui.messageLabel.text
    assert (voxels(panel) == before).all()
    host.click(panel.ui.discardButton)
    monkeypatch.setattr(panel.controller._training, "_launch", lambda: Launch(python=("/nowhere/python",)))
    host.click(panel.ui.segmentButton)
    host.spin(until=lambda: panel.controller.message.level == "error", timeout_s=30)
    host.spin(0.25)
    assert "could not be started" in panel.ui.messageLabel.text
    assert "bold" in panel.ui.messageLabel.styleSheet
    assert panel.controller.state is State.IDLE
    assert (voxels(panel) == before).all()
    picture("6-error")


@pytest.mark.slow
def test_the_tutorial_of_the_in_slicer_test_runs_here_too(host, panel):
    from SparseSegSlicerLib.panel.SelfTest import runTutorial

    runTutorial(panel, budgetS=8.0)


# ---------------------------------------------------------------- life


@pytest.mark.slow
def test_closing_the_scene_empties_the_panel(host, panel, begin):
    begin()
    host.close_scene()
    host.spin(0.25)
    assert panel.ui.editor.segmentationNode() is None
    assert panel.ui.messageLabel.text == "Choose a volume and a segmentation."
    begin()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cleanup", "quit", "reload"])
def test_no_process_folder_or_observer_outlives_the_panel(host, begin, panel, how):
    import slicer

    from SparseSegSlicerLib.session.Controller import State

    begin(steps=100_000)
    host.click(panel.ui.segmentButton)
    controller = panel.controller
    wait(host, panel, lambda: controller.state is State.TRAINING)
    pid, folder = controller.run.workerPid, controller.run.folder
    if how == "quit":
        slicer.app.aboutToQuit()
    elif how == "cleanup":
        slicer.modules.SparseSegSlicerWidget.cleanup()
    else:
        panel.close()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert len(controller._inputs) == 0


def test_missing_torch_is_said_and_installed_only_after_a_yes(host, panel):
    import qt

    from SparseSegSlicerLib.session.EngineSetup import EngineState

    setup = panel.install.setup
    setup._become(EngineState.MISSING, "")
    installed = []
    setup.install = lambda repair=False: installed.append(repair)
    assert "needs PyTorch" in panel.ui.engineLabel.text
    panel.ui.engineSection.collapsed = False
    host.answers["QMessageBox", "question"] = qt.QMessageBox.Cancel
    host.click(panel.ui.installButton)
    assert installed == []
    host.answers["QMessageBox", "question"] = qt.QMessageBox.Ok
    host.click(panel.ui.installButton)
    host.click(panel.ui.repairButton)
    assert installed == [False, True]
    text = host.dialogs[0][2][2]
    assert "PyTorch" in text
    assert "GB" in text
    assert "Where:" in text


def test_the_log_is_copied_and_names_no_patient(host, panel, begin):
    import qt

    volume, _ = begin()
    volume.SetName("Doe^Jane")
    host.click(panel.ui.trainSection)
    host.click(panel.ui.logSection)
    host.click(panel.ui.copyLogButton)
    text = qt.QApplication.clipboard().text()
    assert "Paint each structure" in text
    assert "Doe" not in text


def test_settings_of_the_panel_reach_the_engine(host, panel, begin):
    begin()
    panel.ui.timeBudget.value = 33
    panel.ui.classBalance.value = 0.8
    panel.ui.mirror.checked = True
    settings = panel.controller.parameters.settings()
    assert (settings.time_budget_s, settings.class_balance, settings.mirror) == (33, 0.8, True)
    panel.update()
    assert panel.ui.timeBudget.value == 33


def test_nothing_of_torch_is_in_this_process(host, panel, begin):
    import subprocess
    import sys

    modules = "sparseseg.contract.client, sparseseg.annotation.labels, sparseseg.contract.job"
    code = f"import sys; sys.path[:0] = sys.argv[1:]; import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(MODULE.parent)], check=True)


# ---------------------------------------------------------------- real data


@pytest.mark.slow
def test_the_whole_way_on_a_real_ct(host, panel, picture):
    """Paint three slices of ct-abdomen, train, preview, correct a slice, apply, undo."""
    import slicer

    from cases import SHARED, load_case, score
    from sparseseg.io import files
    from SparseSegSlicerLib.session.Controller import State

    if not (SHARED / "ct-abdomen").is_dir():
        pytest.skip("shared/data is not there")
    case = load_case(SHARED / "ct-abdomen")
    annotation = files.read_volume(SHARED / "ct-abdomen" / "annotations" / "slices-3.nii.gz").array.astype(np.uint8)
    volume = slicer.util.addVolumeFromArray(case.image, ijkToRAS=case.geometry.ijk_to_ras(), name="CT")
    panel.ui.volumeSelector.setCurrentNode(volume)
    panel.ui.segmentationSelector.addNode()
    node = panel.controller.segmentationNode
    segmentation = node.GetSegmentation()
    segmentation.RemoveSegment(segmentation.GetSegmentIdBySegmentName("Structure 1"))
    host.spin(until=lambda: panel.ui.paintBackgroundButton.enabled, timeout_s=10)
    host.click(panel.ui.paintBackgroundButton)
    ids = {value: segmentation.AddEmptySegment("", name) for value, name in enumerate(case.classes.names, start=2)}
    for value, sid in {1: segmentation.GetSegmentIdBySegmentName("Background"), **ids}.items():
        host.paint(panel.ui.editor, sid, np.argwhere(annotation == value))
    host.spin(until=lambda: panel.controller.strokes is not None and len(panel.controller.strokes.classes) == 5, timeout_s=30)
    read = np.bincount(voxels(panel).ravel())  # the segments in the order of their IDs, which are random
    assert sorted(read[2:]) == sorted(np.bincount(annotation.ravel())[2:])
    assert ((voxels(panel) > 0) == (annotation > 0)).all()
    panel.ui.timeBudget.value = 25
    train(host, panel)

    def mean_dice():
        order = [case.classes.names.index(name) + 1 for name in panel.controller.preview.classes.names]
        lookup = np.array([0, *order], np.uint8)
        return np.mean(score(lookup[panel.controller.preview.labels], case.truth, annotation))

    first = mean_dice()
    assert first > 0.88
    picture("8-ct")
    before = voxels(panel)
    fourth_organ = [0 if annotation[k].any() else int((case.truth[k] == 4).sum()) for k in range(len(annotation))]
    where = int(np.argmax(fourth_organ))
    host.paint(panel.ui.editor, ids[5], np.argwhere((case.truth == 4) & (np.arange(len(annotation))[:, None, None] == where)))
    wait(host, panel, lambda: panel.controller.previewIsCurrent)
    organ = panel.controller.preview.classes.names.index(case.classes.names[3]) + 1
    assert (panel.controller.preview.labels[where][case.truth[where] == 4] == organ).all()
    corrected = voxels(panel)
    assert (corrected != before).any()
    apply(host, panel)
    assert panel.controller.isApplied
    panel.ui.editor.undo()
    assert (voxels(panel) == corrected).all()
    assert panel.controller.state is State.RESULT


@pytest.mark.slow
def test_the_panel_needs_nothing_that_slicer_5_10_lacks():
    """The quick tests of both faces again, with the members that Slicer 5.10.0 has; a process has one catalogue."""
    import subprocess
    import sys

    if os.environ.get("SLICER_QT_API"):
        pytest.skip("this is that run, or one with a catalogue of its own")
    files = [__file__, str(Path(__file__).with_name("test_effect.py"))]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, env={**os.environ, "SLICER_QT_API": "5.10.0"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture
def sample_data(host, monkeypatch):
    """Slicer's module, and our source in it; nothing is written before it is wanted."""
    import sys

    import slicer

    from host import sample_data

    monkeypatch.setitem(sys.modules, "SampleData", sample_data)
    host.load_module(MODULE)
    slicer.app.startupCompleted()  # also that of modules that earlier tests loaded
    yield sample_data.SampleDataLogic()
    del slicer.modules.sampleDataSources


def test_the_sample_is_registered_once_and_its_button_shows_it(host, sample_data):
    import slicer

    (source,) = sample_data.sampleDataSourcesByCategory("Sparse Segmentation")
    assert Path(source.thumbnailFileName).is_file()
    assert not list(Path(slicer.app.temporaryPath).glob("*.nrrd"))
    volume, strokes = sample_data.press(source)
    assert volume.GetName() == source.sampleName == "SparseSegPhantom"
    assert list(strokes.GetSegmentation().GetSegmentIDs()) == ["Background", "Liver", "Kidney", "Vessel"]
    composites = [slicer.mrmlScene.GetNthNodeByClass(n, "vtkMRMLSliceCompositeNode") for n in range(3)]
    assert {node.GetBackgroundVolumeID() for node in composites} == {volume.GetID()}


def test_a_script_gets_the_sample_that_the_button_makes(host, sample_data):
    from driving import voxelsOf

    (source,) = sample_data.sampleDataSourcesByCategory("Sparse Segmentation")
    downloaded, made = sample_data.downloadSamples("SparseSegPhantom"), sample_data.press(source)
    assert sample_data.downloadSample("SparseSegPhantom").IsA("vtkMRMLScalarVolumeNode")
    assert [node.GetName() for node in downloaded] == ["SparseSegPhantom", "SparseSegPhantom segmentation"]
    (image, strokes), (otherImage, otherStrokes) = voxelsOf(*made), voxelsOf(*downloaded)
    assert (image == otherImage).all() and (strokes == otherStrokes).all()
    assert sorted(downloaded[1].GetSegmentation().GetSegmentIDs()) == ["Background", "Kidney", "Liver", "Vessel"]
