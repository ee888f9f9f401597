"""How the panel looks and behaves on a small screen, in a dark theme, beside Slicer's own editor, and at rest."""

import numpy as np
import pytest

LAPTOP = (480, 560)  # what 1280 x 720 leave for a module's panel
NARROW = 400


@pytest.fixture
def q(host, panel):
    """The Qt widget behind a name of the panel's ui, or behind the panel."""
    from host import standin

    return lambda name="": standin.behind(getattr(panel.ui, name) if name else panel.top)


@pytest.fixture
def shown(host, panel, q):
    """Lays the panel out at a width."""

    def show(width):
        q().show()
        q().resize(width, max(1, q().heightForWidth(width)))
        host.spin(0.1)
        panel.update()
        host.spin(0.1)
        return q()

    return show


@pytest.fixture
def dark(host):
    from PySide6 import QtGui, QtWidgets

    application, before = QtWidgets.QApplication.instance(), QtWidgets.QApplication.palette()
    palette = QtGui.QPalette(QtGui.QColor("#353535"), QtGui.QColor("#2b2b2b"))
    application.setPalette(palette)
    yield palette
    application.setPalette(before)


CURVE = [(n * 10.0, 1 / (n + 1), {"Liver": 0.5 + n / 100}) for n in range(30)]


# ---------------------------------------------------------------- room


def test_the_chart_lets_the_panel_be_narrow_again(host, panel, begin, q, shown):
    begin()
    panel.ui.trainSection.collapsed = False
    panel.controller.report.curve = list(CURVE)
    shown(780)
    assert q("chartLabel").pixmap().width() > 650
    assert q().minimumSizeHint().width() <= NARROW
    shown(NARROW)
    assert q("chartLabel").pixmap().width() <= NARROW


def test_the_chart_follows_a_width_that_changes_while_nothing_else_does(host, panel, begin, q, shown):
    begin()
    panel.ui.trainSection.collapsed = False
    shown(700)
    q().resize(500, q().height())
    host.spin(until=lambda: q("chartLabel").pixmap().width() == q("chartLabel").width() < 500, timeout_s=5)


def test_what_is_needed_to_paint_and_segment_fits_a_laptop(host, panel, begin, q, shown):
    """With 200 pixels for the editor's segments and effects."""
    begin()
    panel.ui.editor.setActiveEffectByName("")
    top = shown(LAPTOP[0])
    needed = "segmentButton messageLabel checklistLabel volumeSelector segmentationSelector paintStructureButton markSliceButton nextSliceButton"
    for name in needed.split():
        assert q(name).mapTo(top, q(name).rect().bottomLeft()).y() < LAPTOP[1] - 200, name
    assert top.heightForWidth(LAPTOP[0]) < 1000


def test_the_panel_asks_for_no_more_than_400_pixels_in_width_whatever_is_open(host, panel, begin, q):
    begin()
    for name in ("engineSection", "slicesSection", "trainSection", "advancedSection", "logSection", "dicomSection"):
        getattr(panel.ui, name).collapsed = False
    panel.update()
    host.spin(0.1)
    assert q().minimumSizeHint().width() <= NARROW


@pytest.mark.parametrize("width", [NARROW, 620])
@pytest.mark.parametrize(("table", "stretched"), [("sliceTable", 4), ("segmentTable", 0)])
def test_tables_fill_their_width_and_cut_no_column(host, panel, begin, q, shown, table, stretched, width):
    begin()
    panel.ui.slicesSection.collapsed = False
    shown(width)
    view = q(table)
    assert view.horizontalHeader().length() == view.viewport().width()
    for column in range(view.columnCount()):
        if column != stretched:
            assert view.columnWidth(column) >= max(view.sizeHintForColumn(column), view.horizontalHeader().sectionSizeHint(column))
    needed = max(view.sizeHintForRow(row) for row in range(view.rowCount()))
    assert view.rowHeight(0) >= needed  # the stretched column takes as many lines as its text needs
    assert view.height() >= view.horizontalHeader().height() + view.verticalHeader().length()


def test_a_table_of_many_slices_scrolls(host, panel, begin, q, shown):
    begin()
    panel.ui.slicesSection.collapsed = False
    for k in range(0, 40):
        panel.controller.setSliceChoice(0, k, complete=True)
    host.spin(until=lambda: panel.ui.sliceTable.rowCount == 40, timeout_s=20)
    shown(480)
    assert q("sliceTable").height() < 350


# ---------------------------------------------------------------- words and numbers


def test_numbers_are_digits_and_weights_are_told_in_the_tooltip(host, panel, begin):
    begin()
    host.spin(0.2)
    text = panel.ui.summaryLabel.text
    assert "Liver: 2\N{NO-BREAK SPACE}601 voxels" in text
    assert "weight" not in text and "e+" not in text
    assert "weighs" in panel.ui.summaryLabel.toolTip and "e+" not in panel.ui.summaryLabel.toolTip


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (5000, None, "5,000"),
        (5000.24, None, "5,000"),
        (1234567, None, "1,234,567"),
        (12.3456, None, "12.3"),
        (0.00312, None, "0.00312"),
        (0.5, None, "0.5"),
        (0, None, "0"),
        (1e20, None, "100" + 6 * ",000"),
        (0.9, 2, "0.90"),
        (-24.0, 1, "-24.0"),
        (float("nan"), None, "-"),
    ],
)
def test_one_function_writes_numbers(host, value, decimals, text):
    from SparseSegSlicerLib.i18n import number

    assert number(value, decimals) == text.replace(",", "\N{NO-BREAK SPACE}")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (150, "2 min"), (7300, "2.0 h")])
def test_times_are_told_as_exactly_as_they_are_known(host, seconds, text):
    from SparseSegSlicerLib.i18n import duration

    assert duration(seconds) == text


def test_what_was_said_of_another_volume_goes_with_it(host, panel, begin):
    import slicer

    from SparseSegSlicerLib.session.States import Message

    begin()
    panel.controller.say(Message("warning", "This volume is odd."))
    panel.update()
    assert panel.ui.messageLabel.text == "This volume is odd."
    panel.ui.volumeSelector.setCurrentNode(slicer.util.addVolumeFromArray(np.zeros((5, 6, 7), np.int16), name="CT"))
    panel.update()
    assert "odd" not in panel.ui.messageLabel.text


def test_instructions_go_once_they_are_followed(host, panel, begin, monkeypatch):
    begin()
    host.spin(until=lambda: "Ready to segment" in panel.ui.checklistLabel.text, timeout_s=10)
    assert "Paint each structure" not in panel.ui.messageLabel.text
    monkeypatch.setattr(type(panel.controller), "hasResult", True)
    panel.update()
    assert "Ready to segment" not in panel.ui.checklistLabel.text


# ---------------------------------------------------------------- keys


def test_space_never_presses_a_control_of_the_panel(host, panel, begin, q):
    from PySide6 import QtCore, QtWidgets

    begin()
    controls = [w for w in q().findChildren(QtWidgets.QAbstractButton) if w.objectName() and w is not q("editor")]
    controls += q().findChildren(QtWidgets.QTableWidget)
    ours = [w for w in controls if hasattr(panel.ui, w.objectName())]
    assert len(ours) > 25
    assert [w.objectName() for w in ours if w.focusPolicy() != QtCore.Qt.NoFocus] == []


def test_a_second_shortcut_with_the_same_keys_is_refused_by_the_host(host):
    import qt
    import slicer

    first, second = qt.QShortcut(slicer.util.mainWindow()), qt.QShortcut(slicer.util.mainWindow())
    for keys in ("Ctrl+Shift+T", "Space", "Ctrl+Z"):
        with pytest.raises(ValueError, match=r"taken by q(MRML|Slicer)"):
            first.setKey(qt.QKeySequence(keys))
    first.setKey(qt.QKeySequence("Ctrl+Shift+F12"))
    with pytest.raises(ValueError, match="ambiguous"):
        second.setKey(qt.QKeySequence("Ctrl+Shift+F12"))
    first.setKey(qt.QKeySequence())
    second.setKey(qt.QKeySequence("Ctrl+Shift+F12"))
    for shortcut in (first, second):
        shortcut.deleteLater()


def test_the_keys_are_told_where_a_user_looks(host, panel):
    import slicer

    from SparseSegSlicerLib.panel.Widget import _SHORTCUTS

    help_text = slicer.modules.sparsesegslicer.helpText
    for keys, button in _SHORTCUTS:
        assert f"({keys})" in getattr(panel.ui, button).toolTip
        assert keys in help_text


# ---------------------------------------------------------------- two editors


@pytest.fixture
def slicers_editor(host):
    """The Segment Editor module's own editor, visited and left as that module does."""
    import slicer

    editor = slicer.qMRMLSegmentEditorWidget()
    node = host.scene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
    node.UnRegister(None)
    node.SetSingletonTag("SegmentEditor")
    editor.setMRMLSegmentEditorNode(host.scene.AddNode(node))
    editor.setMRMLScene(host.scene)

    class Module:
        def enter(self):
            editor.setupViewObservations()
            editor.installKeyboardShortcuts()
            editor.updateWidgetFromMRML()

        def exit(self):
            editor.setActiveEffect(None)
            editor.uninstallKeyboardShortcuts()
            editor.removeViewObservations()

    module = Module()
    module.editor = editor
    return module


def test_two_segment_editors_leave_each_other_alone(host, panel, begin, slicers_editor):
    import slicer

    volume, strokes = begin()
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
    other.CreateDefaultDisplayNodes()
    other.GetSegmentation().AddEmptySegment("thing", "thing")
    ours, theirs = panel.ui.editor, slicers_editor.editor
    assert ours.mrmlSegmentEditorNode() is not theirs.mrmlSegmentEditorNode()
    before = slicer.util.arrayFromSegmentBinaryLabelmap(strokes, "Liver", volume).copy()
    for _ in range(2):
        host.exit()
        slicers_editor.enter()
        theirs.setSegmentationNode(other)
        theirs.setSourceVolumeNode(volume)
        theirs.setActiveEffectByName("Paint")
        assert ours.segmentationNode() is strokes and ours.activeEffect() is None
        host.paint(theirs, "thing", ((1, 2), (2, 5), (4, 8)))
        slicers_editor.exit()
        host.enter()
        assert ours.segmentationNode() is strokes and theirs.segmentationNode() is other
        ours.setActiveEffectByName("Paint")
        host.paint(ours, "Liver", ((1, 2), (2, 5), (4, 8)))
        ours.undo()
        ours.setActiveEffect(None)
    assert (slicer.util.arrayFromSegmentBinaryLabelmap(strokes, "Liver", volume) == before).all()
    assert slicer.util.arrayFromSegmentBinaryLabelmap(other, "thing", volume).sum() == 12
    assert host.errors == []  # the host tells of views observed twice and of ambiguous shortcuts


def test_create_new_prepares_a_segmentation_before_it_is_shown(host, panel):
    """Slicer chooses the node before it says that a user added it, and its editor complains of segments without a display node."""
    import slicer

    panel.ui.volumeSelector.setCurrentNode(slicer.util.addVolumeFromArray(np.zeros((5, 6, 7), np.int16), name="CT"))
    node = panel.ui.segmentationSelector.addNode()
    assert panel.controller.segmentationNode is node and panel.ui.segmentationSelector.currentNode() is node
    assert node.GetDisplayNode() is not None
    assert host.errors == []


# ---------------------------------------------------------------- colours


def contrast(a, b):
    """Of two colours, as the W3C defines it: 4.5 is legible."""

    def luminance(color):
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (color.redF(), color.greenF(), color.blueF())]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    bright, dim = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("level", ["warning", "error"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_are_legible_in_both_themes(host, panel, q, request, theme, level):
    from PySide6 import QtGui

    if theme == "dark":
        request.getfixturevalue("dark")
    panel.controller.say(type(panel.controller.message)(level, "Something is wrong.", "Do something."))
    panel.update()
    color = panel.ui.messageLabel.styleSheet.split("color: ")[1].split(";")[0]
    assert contrast(QtGui.QColor(color), q().palette().color(QtGui.QPalette.Window)) > 4.5


@pytest.mark.parametrize("ratio", [1, 2])
def test_the_chart_is_drawn_in_the_themes_colours_and_the_screens_pixels(host, panel, begin, q, shown, dark, ratio):
    begin()
    panel.ui.trainSection.collapsed = False
    drawn, label = [], q("chartLabel")
    label.devicePixelRatioF, label.setPixmap = lambda: float(ratio), drawn.append
    panel.controller.report.curve = list(CURVE)
    shown(480)
    pixmap = drawn[-1]
    assert (pixmap.width(), pixmap.devicePixelRatio()) == (ratio * label.width(), ratio)
    assert pixmap.toImage().pixelColor(2, 2).lightness() < 128


# ---------------------------------------------------------------- at rest


def test_the_timer_rests_when_nothing_runs_and_wakes_at_a_stroke(host, panel, begin, monkeypatch):
    from SparseSegSlicerLib.panel import EventPump

    monkeypatch.setattr(EventPump, "_LINGER_S", 0.2)
    begin()
    host.spin(until=lambda: panel.session.pump.isResting, timeout_s=10)
    host.paint(panel.ui.editor, "Liver", ((1, 2), (2, 5), (4, 8)))
    assert not panel.session.pump.isResting
    host.spin(until=lambda: panel.controller.isSettled and panel.session.pump.isResting, timeout_s=10)


def test_the_timer_is_quick_while_the_engine_works(host, panel, begin, monkeypatch):
    from SparseSegSlicerLib.panel import EventPump
    from SparseSegSlicerLib.session.States import State

    monkeypatch.setattr(EventPump, "_LINGER_S", 0.0)
    begin()
    host.spin(until=lambda: panel.session.pump.isResting, timeout_s=10)
    panel.controller.state = State.TRAINING
    host.spin(until=lambda: not panel.session.pump.isResting, timeout_s=5)
    host.spin(0.3)
    assert not panel.session.pump.isResting
    panel.controller.state = State.IDLE


# ---------------------------------------------------------------- views


def test_jumps_go_to_views_of_the_layout(host, panel, begin):
    import slicer

    from SparseSegSlicerLib.scene import SliceViews

    volume, _ = begin()
    red, yellow, green = (slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode") for name in ("Red", "Yellow", "Green"))
    before = red.GetSliceOffset()
    red.SetMappedInLayout(False)
    panel.controller.jumpToSlice(0, 31)
    assert red.GetSliceOffset() == before
    assert (0, 31) in [SliceViews.sliceShown(node, volume) for node in (yellow, green)]
    panel.controller.markShownSlice()
    assert panel.controller.parameters.pairs("complete") == ((0, 31),) or red.GetSliceOffset() == before
    for node in (yellow, green):
        node.SetMappedInLayout(False)
    panel.controller.jumpToSlice(0, 12)
    assert panel.controller.message.text() == "The layout shows no slice view. Choose a layout with slice views."
