"""The host itself: it must refuse what Slicer would refuse, and really do what the panel relies on."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SHAPE_KJI = (6, 10, 12)


@pytest.fixture
def qt(host):
    import qt

    return qt


@pytest.fixture
def slicer(host):
    return host.slicer


@pytest.fixture
def editor(host, slicer):
    """A segment editor on a volume and a segmentation with segments "fg" and "bg"."""
    volume = slicer.util.addVolumeFromArray(np.zeros(SHAPE_KJI, np.int16), name="ct")
    segmentation = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "seg")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.GetSegmentation().AddEmptySegment("fg", "foreground", (0, 1, 0))
    segmentation.GetSegmentation().AddEmptySegment("bg", "background", (1, 0, 0))
    widget = slicer.qMRMLSegmentEditorWidget()
    widget.setMaximumNumberOfUndoStates(10)
    widget.setMRMLSegmentEditorNode(host.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    widget.setMRMLScene(host.scene)
    widget.setSegmentationNode(segmentation)
    return widget


def voxels(slicer, editor, segment_id):
    return slicer.util.arrayFromSegmentBinaryLabelmap(editor.segmentationNode(), segment_id, editor.sourceVolumeNode())


# PythonQt's rules


def test_unknown_members_are_refused(qt, slicer):
    button = qt.QPushButton("x")
    with pytest.raises(AttributeError, match="no attribute named 'nonsense'"):
        _ = button.nonsense
    with pytest.raises(AttributeError, match="'nonsense' does not exist on QPushButton"):
        button.nonsense = 1
    with pytest.raises(AttributeError, match="no attribute named 'setNonsense'"):
        slicer.qMRMLNodeComboBox().setNonsense(1)
    with pytest.raises(AttributeError, match="no attribute named 'do_currentNode'"):
        _ = slicer.qMRMLNodeComboBox().do_currentNode


@pytest.mark.parametrize("name", ["Signal", "QNonsense", "ctkSliderWidget"])
def test_qt_has_only_qts_classes(qt, name):
    with pytest.raises(AttributeError, match=name):
        getattr(qt, name)


def test_properties_are_attributes_and_name_is_the_object_name(qt):
    label = qt.QLabel("text")
    label.name = "title"
    assert (label.text, label.objectName, label.enabled) == ("text", "title", True)
    with pytest.raises(AttributeError, match="'width' of QLabel object is not writable"):
        label.width = 3


def test_wrong_types_are_refused(host, qt, slicer):
    with pytest.raises(AttributeError, match="type 'int' does not accept 'many'"):
        qt.QSpinBox().maximum = "many"
    with pytest.raises(ValueError, match="none of"):
        slicer.qMRMLNodeComboBox().setMRMLScene("scene")
    with pytest.raises(ValueError, match="none of"):
        slicer.qMRMLSegmentEditorWidget().setMaximumNumberOfUndoStates("5")
    with pytest.raises(TypeError):
        qt.QLabel(text="keyword arguments do not exist in PythonQt")


def test_unknown_signals_are_refused(qt, slicer):
    with pytest.raises(ValueError, match="has no signal 'pressedTwice\\(\\)'"):
        qt.QPushButton().connect("pressedTwice()", print)
    with pytest.raises(ValueError, match="has no signal 'currentNodeChanged\\(int\\)'"):
        slicer.qMRMLNodeComboBox().connect("currentNodeChanged(int)", print)


def test_slots_get_as_many_arguments_as_they_take(host, qt):
    got, button = [], qt.QPushButton()
    button.checkable = True
    button.connect("clicked(bool)", lambda: got.append("none"))
    button.connect("clicked(bool)", lambda checked: got.append(checked))
    button.clicked.connect(lambda *all: got.append(all))
    host.click(button)
    assert got == ["none", True, (True,)]
    assert button.disconnect("clicked(bool)")
    host.click(button)
    assert len(got) == 3


def test_exceptions_in_slots_are_recorded_and_do_not_reach_the_caller(host, qt):
    button = qt.QPushButton()
    button.connect("clicked()", lambda: 1 / 0)
    host.click(button)
    assert len(host.errors) == 1 and "ZeroDivisionError" in host.errors[0]
    host.errors.clear()


def test_exceptions_in_vtk_observers_are_recorded(host, slicer):
    tag = host.scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, lambda *_: [][1])
    host.scene.AddNewNodeByClass("vtkMRMLTextNode")
    host.scene.RemoveObserver(tag)
    assert len(host.errors) == 1 and "IndexError" in host.errors[0]
    host.errors.clear()


def test_enumerations_are_integers(qt):
    assert int(qt.Qt.AlignLeft | qt.Qt.AlignTop) == 33
    label = qt.QLabel()
    label.setAlignment(qt.Qt.AlignLeft | qt.Qt.AlignTop)
    assert label.alignment == 33 and isinstance(qt.QMessageBox.Yes, int)


def test_a_python_subclass_overrides_virtual_functions(host, qt, tmp_path):
    class Square(qt.QWidget):
        def __init__(self, color):
            qt.QWidget.__init__(self)
            self.color, self.painted = color, 0

        def paintEvent(self, event):
            super().paintEvent(event)
            self.painted += 1
            painter = qt.QPainter(self)
            painter.fillRect(self.rect, qt.QColor(self.color))
            painter.end()

        def mousePressEvent(self, event):
            raise RuntimeError("pressed")

    square = Square("#ff0000")
    square.setMinimumSize(20, 20)
    image = qt.QImage(str(host.screenshot(square, tmp_path / "square.png", 40)))
    assert square.painted and qt.QColor(image.pixel(10, 10)).name() == "#ff0000"


def test_overriding_in_a_class_of_slicer_is_refused(slicer):
    class Box(slicer.qMRMLNodeComboBox):
        def paintEvent(self, event):
            pass

    with pytest.raises(TypeError, match="cannot be overridden"):
        Box()


def test_modal_dialogs_need_a_scripted_answer(host, qt, slicer):
    with pytest.raises(RuntimeError, match="without a scripted answer"):
        qt.QMessageBox.question(None, "title", "really?")
    box = qt.QMessageBox()
    box.text = "hello"
    with pytest.raises(RuntimeError, match=r"QMessageBox\.exec"):
        box.exec_()
    host.answers["QMessageBox", "question"] = qt.QMessageBox.Yes
    assert qt.QMessageBox.question(None, "title", "really?") == qt.QMessageBox.Yes
    assert host.dialogs[-1] == ("QMessageBox", "question", (None, "title", "really?"))
    host.answers["ctkMessageBox", "exec"] = lambda *content: qt.QMessageBox.Ok
    slicer.util.errorDisplay("broken")
    assert "broken" in host.dialogs[-1][2]


# the catalogue


def members_of_version(version):
    code = "from host import catalogue as c; print('nodeAddedByUserAction(vtkMRMLNode*)' in c.members('qMRMLNodeComboBox').signals)"
    env = {**os.environ, "SLICER_QT_API": version, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("version", "answer"), [("5.12.3", "True"), ("5.10.0", "False")])
def test_the_catalogue_follows_the_version(version, answer):
    assert members_of_version(version).stdout.strip() == answer


def test_an_unknown_version_is_refused():
    assert "no API catalogue for Slicer 4.11" in members_of_version("4.11").stderr


# stand-ins


def test_the_node_combo_box_follows_the_scene(host, slicer):
    box, told = slicer.qMRMLNodeComboBox(), []
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.noneEnabled = True
    box.connect("currentNodeChanged(vtkMRMLNode*)", told.append)
    box.setMRMLScene(host.scene)
    node = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a")
    host.scene.AddNewNodeByClass("vtkMRMLTextNode", "text")
    assert (box.nodeCount(), box.currentNode(), box.currentNodeID) == (1, None, "")
    box.setCurrentNode(node)
    assert box.currentNode() is node and told == [node]
    host.scene.RemoveNode(node)
    assert box.currentNode() is None and told == [node, None]


def test_without_none_the_combo_box_takes_the_first_node(host, slicer):
    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    box.setMRMLScene(host.scene)
    node = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a")
    assert box.currentNodeID == node.GetID()


def test_the_path_edit_and_the_slider_tell_changes(slicer, host):
    import ctk

    told, path, slider = [], ctk.ctkPathLineEdit(), ctk.ctkSliderWidget()
    path.connect("currentPathChanged(QString)", told.append)
    slider.connect("valueChanged(double)", told.append)
    path.currentPath = "/tmp/x"
    slider.maximum = 10
    slider.value = 7
    assert told == ["/tmp/x", 7.0] and (path.currentPath, slider.value) == ("/tmp/x", 7.0)


def test_a_collapsed_button_hides_its_contents(host, qt):
    import ctk

    box = ctk.ctkCollapsibleButton()
    label = qt.QLabel("inside")
    qt.QVBoxLayout(box).addWidget(label)
    box.show()
    box.collapsed = True
    assert not label.visible
    box.collapsed = False
    assert label.visible


# the segment editor


def test_the_editor_refuses_a_wrong_order(host, slicer):
    editor = slicer.qMRMLSegmentEditorWidget()
    with pytest.raises(RuntimeError, match="before setMRMLScene"):
        editor.setMRMLScene(host.scene)
    volume = slicer.util.addVolumeFromArray(np.zeros(SHAPE_KJI, np.int16))
    with pytest.raises(RuntimeError, match="editor node before setSourceVolumeNode"):
        editor.setSourceVolumeNode(volume)
    editor.setMRMLSegmentEditorNode(host.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setMRMLScene(host.scene)
    with pytest.raises(RuntimeError, match="segmentation node before setSourceVolumeNode"):
        editor.setSourceVolumeNode(volume)


def test_the_editor_chooses_volume_and_segment(editor):
    assert editor.sourceVolumeNode().GetName() == "ct"
    assert editor.currentSegmentID() == "fg"


def test_the_editor_paints_erases_and_undoes(host, slicer, editor):
    box = ((1, 3), (2, 5), (4, 8))
    host.paint(editor, "fg", box)
    expected = np.zeros(SHAPE_KJI, np.uint8)
    expected[1:3, 2:5, 4:8] = 1
    assert np.array_equal(voxels(slicer, editor, "fg"), expected)
    host.paint(editor, "fg", np.array([[1, 2, 4], [2, 4, 7]]), erase=True)
    assert voxels(slicer, editor, "fg").sum() == 22
    editor.undo()
    assert np.array_equal(voxels(slicer, editor, "fg"), expected)
    editor.undo()
    assert voxels(slicer, editor, "fg").sum() == 0
    editor.redo()
    assert np.array_equal(voxels(slicer, editor, "fg"), expected)


def test_the_overwrite_mode_decides_about_other_segments(host, slicer, editor):
    node, box = editor.mrmlSegmentEditorNode(), ((1, 3), (2, 5), (4, 8))
    host.paint(editor, "fg", box)
    node.SetOverwriteMode(node.OverwriteNone)
    host.paint(editor, "bg", box)
    assert (voxels(slicer, editor, "fg").sum(), voxels(slicer, editor, "bg").sum()) == (24, 24)
    node.SetOverwriteMode(node.OverwriteAllSegments)
    host.paint(editor, "bg", ((1, 3), (2, 5), (4, 6)))
    assert voxels(slicer, editor, "fg").sum() == 12


def test_the_editor_tells_what_changed(host, editor):
    told = []
    editor.connect("segmentationNodeChanged(vtkMRMLSegmentationNode*)", lambda node: told.append(node))
    editor.connect("currentSegmentIDChanged(QString)", lambda segment: told.append(segment))
    editor.setCurrentSegmentID("bg")
    editor.segmentationNode().GetSegmentation().RemoveSegment("bg")
    editor.setSegmentationNode(None)
    assert told == ["bg", "fg", None, ""]
    with pytest.raises(ValueError, match="no segment 'third'"):
        editor.setCurrentSegmentID("third")


def test_effects_and_shortcuts(editor):
    editor.setEffectNameOrder(["Paint", "Draw", "Erase"])
    editor.unorderedEffectsVisible = False
    editor.setActiveEffectByName("Paint")
    assert editor.activeEffect().property("name") == "Paint" and editor.mrmlSegmentEditorNode().GetActiveEffectName() == "Paint"
    editor.setActiveEffect(None)
    assert editor.activeEffect() is None
    with pytest.raises(ValueError, match="no segment editor effect 'Pain'"):
        editor.setActiveEffectByName("Pain")
    editor.installKeyboardShortcuts()
    assert editor._q.shortcuts_installed
    editor.uninstallKeyboardShortcuts()
    assert not editor._q.shortcuts_installed


def test_closing_the_scene_empties_the_editor(host, editor):
    host.close_scene()
    assert editor.segmentationNode() is None and editor.currentSegmentID() == ""


def test_the_picture_of_the_editor_shows_the_segments_colors(host, qt, editor, tmp_path):
    editor.setEffectNameOrder(["Paint", "Draw"])
    image = qt.QImage(str(host.screenshot(editor, tmp_path / "editor.png")))
    colors = {qt.QColor(image.pixel(15, y)).name() for y in range(image.height())}
    assert {"#00ff00", "#ff0000"} <= colors and image.width() == 420


# application, views, timers


def test_the_application(host, qt, slicer):
    slicer.app.settings().setValue("a/b", 3)
    assert int(slicer.app.userSettings().value("a/b")) == 3
    assert slicer.app.applicationVersion.startswith("5.") and slicer.app.majorVersion == 5
    assert slicer.app.mrmlScene() is host.scene and slicer.util.mainWindow().name == "qSlicerMainWindow"
    slicer.app.setOverrideCursor(qt.QCursor(qt.Qt.WaitCursor))
    slicer.app.restoreOverrideCursor()
    slicer.app.temporaryPath = "/tmp/x"
    assert slicer.app.temporaryPath == "/tmp/x"
    with pytest.raises(AttributeError, match="no attribute named 'nonsense'"):
        slicer.app.nonsense()
    with pytest.raises(ValueError, match="no constructor"):
        slicer.qSlicerApplication()


def test_slice_views_have_real_nodes_and_logics(host, slicer):
    volume = slicer.util.addVolumeFromArray(np.zeros(SHAPE_KJI, np.int16))
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    red = slicer.app.layoutManager().sliceWidget("Red")
    assert red.mrmlSliceNode().GetOrientation() == "Axial" and red.sliceLogic().GetSliceCompositeNode().GetBackgroundVolumeID() == volume.GetID()
    assert slicer.app.layoutManager().sliceViewNames() == ("Red", "Green", "Yellow")
    host.close_scene()
    assert red.mrmlSliceNode().GetScene() is host.scene
    host.clear_scene()
    assert red.mrmlSliceNode().GetScene() is host.scene and red.sliceLogic().GetSliceCompositeNode().GetScene() is host.scene


def test_timers_run_while_the_host_spins(host, qt):
    fired = []
    qt.QTimer.singleShot(5, lambda: fired.append("once"))
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: fired.append("tick"))
    timer.start(2)
    host.spin(until=lambda: {"once", "tick"} <= set(fired))
    with pytest.raises(TimeoutError):
        host.spin(until=lambda: False, timeout_s=0.01)


def test_a_disabled_button_cannot_be_clicked(host, qt):
    button = qt.QPushButton()
    button.enabled = False
    with pytest.raises(AssertionError, match="cannot be clicked"):
        host.click(button)


# modules

MODULE = """
import qt, slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import *

class Tiny(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Tiny")
        parent.categories = ["Segmentation"]

class TinyWidget(ScriptedLoadableModuleWidget):
    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        ui = slicer.util.loadUI(self.resourcePath("UI/Tiny.ui"))
        self.layout.addWidget(ui)
        self.ui = slicer.util.childWidgetVariables(ui)
        ui.setMRMLScene(slicer.mrmlScene)
        self.log = []
    def enter(self):
        self.log.append(("enter", self.parent.isEntered))
    def exit(self):
        self.log.append(("exit", self.parent.isEntered))
    def cleanup(self):
        self.log.append("cleanup")
"""

UI = """<ui version="4.0"><class>Tiny</class><widget class="qMRMLWidget" name="Tiny"><layout class="QVBoxLayout">
<item><widget class="ctkCollapsibleButton" name="box"><property name="text"><string>Inputs</string></property>
<layout class="QVBoxLayout"><item><widget class="qMRMLNodeComboBox" name="selector">
<property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
<property name="noneEnabled"><bool>true</bool></property><property name="SlicerParameterName" stdset="0"><string>input</string></property>
</widget></item></layout></widget></item>
<item><widget class="QPushButton" name="run"><property name="text"><string>Run</string></property></widget></item></layout></widget>
<customwidgets><customwidget><class>qMRMLWidget</class><extends>QWidget</extends><container>1</container></customwidget>
<customwidget><class>qMRMLNodeComboBox</class><extends>QWidget</extends></customwidget>
<customwidget><class>ctkCollapsibleButton</class><extends>QWidget</extends><container>1</container></customwidget></customwidgets>
<connections><connection><sender>Tiny</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal><receiver>selector</receiver>
<slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>"""


@pytest.fixture
def module_path(tmp_path):
    (tmp_path / "Resources" / "UI").mkdir(parents=True)
    (tmp_path / "Resources" / "UI" / "Tiny.ui").write_text(UI)
    (tmp_path / "Tiny.py").write_text(MODULE)
    return tmp_path / "Tiny.py"


def test_a_module_with_a_ui_file(host, slicer, module_path, tmp_path):
    _, widget, top = host.load_module(module_path)
    assert slicer.modules.tiny.title == "Tiny" and slicer.modules.TinyWidget is widget and top.self() is widget
    assert widget.ui.selector.noneEnabled and widget.ui.selector.SlicerParameterName == "input"
    assert widget.ui.selector.mrmlScene() is host.scene and widget.ui.selector.nodeTypes == ("vtkMRMLScalarVolumeNode",)
    host.enter()
    host.exit()
    assert widget.log == [("enter", True), ("exit", False)]
    assert host.screenshot(top, tmp_path / "panel.png").stat().st_size > 500
    host.unload()
    assert widget.log[-1] == "cleanup" and not hasattr(slicer.modules, "tiny")


def test_a_ui_file_with_an_unknown_signal_is_refused(host, slicer, module_path, tmp_path):
    (tmp_path / "Resources" / "UI" / "Tiny.ui").write_text(UI.replace("mrmlSceneChanged(vtkMRMLScene*)", "sceneChanged()"))
    with pytest.raises(ValueError, match="has no signal 'sceneChanged"):
        host.load_module(module_path)


def test_packaging_records(host, slicer):
    from host import catalogue

    if catalogue.version() == "5.10.0":
        with pytest.raises(ImportError):
            importlib.import_module("slicer.packaging")
        slicer.util.pip_install("torch")
        assert host.pip_calls == [("pip_install", "torch")] and not hasattr(slicer.util, "LazyImport")
        return
    packaging = importlib.import_module("slicer.packaging")

    packaging.pip_ensure(["torch>=2.6"], requester="test")
    assert host.pip_calls == [("pip_ensure", ["torch>=2.6"])]


def test_the_hosts_modules_leave_with_it(host):
    host.deactivate()
    try:
        with pytest.raises(ImportError):
            import qt  # noqa: F401
        assert not hasattr(host.slicer, "packaging")
    finally:
        host.activate()
