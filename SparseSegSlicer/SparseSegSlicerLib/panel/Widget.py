"""The panel: clicks become Controller calls, the Controller's state becomes text, enabled and visible. No behaviour of its own."""

import contextlib
from pathlib import Path

import qt
import slicer

from sparseseg.contract.errors import InputError

from ..i18n import number
from ..i18n import tr as _
from ..scene.Nodes import newNode
from ..scene.Segments import structureIDs
from ..scene.SliceViews import shownVolume
from ..session.Allowed import Action
from ..session.Observers import Observers
from .ChannelsPanel import ChannelsPanel
from .Chart import Chart
from .Dialogs import waitCursor
from .DicomPanel import DicomPanel
from .HintsPanel import HintsPanel
from .Install import Install
from .SharedSession import SharedSession
from .Status import Status, onClicks
from .Tables import PlaceTable, SegmentTable, SliceTable
from .Theme import wordStyle

PAINTING = ("Paint", "Draw", "Level tracing")
STROKE_EFFECTS = ("Paint", "Draw", "Erase", "Level tracing")  # Scissors fill or cut thousands of voxels: no strokes
_SHORTCUTS = (  # keys that neither Slicer's window, toolbars and Segment Editor nor input methods take: Qt lets none of two with the same keys act
    ("Ctrl+Shift+G", "segmentButton"),
    ("Ctrl+Shift+M", "markSliceButton"),
    ("Ctrl+Shift+N", "nextSliceButton"),
    ("Ctrl+Shift+R", "updateButton"),
)
_EDITOR_TAG = "SparseSegSlicer"  # of the singleton node: with Slicer's own, two editors would act on each click
_SPINS = {
    "timeBudget": ("time_budget_s", float),
    "classBalance": ("class_balance", float),
    "correctionWeight": ("correction_weight", float),
    "pseudoLabelWeight": ("pseudo_label_weight", float),
    "borderWeight": ("border_weight", float),
    "learningRate": ("learning_rate", float),
    "steps": ("steps", int),
    "seed": ("seed", int),
}
_CHECKS = {"mirror": "mirror", "estimateQuality": "estimate", "fullResolution": "full_resolution", "smoothContours": "smooth_contours"}
_ALLOWED = {  # what a button does, for which it is enabled; more of them: Status
    "updateButton": Action.UPDATE,
    "paintStructureButton": Action.CHOOSE_SLICES,
    "alignButton": Action.CHOOSE_SLICES,
    "weightsButton": Action.SHOW_WEIGHTS,
    "saveModelButton": Action.SAVE_MODEL,
}


class Widget:
    """`uiWidget` is placed in the module's layout by its owner, which also calls `enter`, `exit` and `close`."""

    def __init__(self, uiPath: str) -> None:
        self.uiWidget = slicer.util.loadUI(uiPath)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.session = SharedSession.current()
        self.controller = self.session.controller
        self.install = Install(self.ui, self.session.setup)
        self.status = Status(self.ui, self.controller)
        self.dicom = DicomPanel(self.ui, self.controller, self.install.setup)
        self.slices, self.segments = SliceTable(self.ui.sliceTable, self.controller), SegmentTable(self.ui.segmentTable, self.controller)
        self.places = PlaceTable(self.ui.placeTable, self.ui.placesSection, self.controller)
        self.channels, self.hints = ChannelsPanel(self.ui, self.controller), HintsPanel(self.ui, self.controller)
        self.chart = Chart(self.ui.chartLabel)
        self._shortcuts: list = []
        self._entered = self._updating = self._updateDue = False
        self._logLength, self._shownEffect = -1, ""
        self._setUpEditor()
        self._connect()
        self._observers = Observers()  # after the Controller's, which are called first
        self._observers.add(slicer.mrmlScene, slicer.vtkMRMLScene.StartCloseEvent, lambda *_: self.onSceneClosing())
        self._observers.add(
            slicer.mrmlScene, (slicer.vtkMRMLScene.EndCloseEvent, slicer.vtkMRMLScene.EndImportEvent), lambda *_: self.onSceneReplaced()
        )
        self.session.join(self)
        self.update()

    # -- life ------------------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        if self._entered or self.controller is None:
            return
        self._entered = True
        self.controller.selectSegment = self.onSelectSegment
        self._takeUpShown()
        self.ui.editor.updateEffectList()  # effects may have been registered since
        self.ui.editor.setupViewObservations()
        self.ui.editor.installKeyboardShortcuts()
        for keys, button in _SHORTCUTS:
            shortcut = qt.QShortcut(slicer.util.mainWindow() or self.uiWidget)
            shortcut.setKey(qt.QKeySequence(keys))
            shortcut.connect("activated()", getattr(self.ui, button).click)
            self._shortcuts.append(shortcut)
        self.install.setup.checkOnce()
        self.update()

    def exit(self) -> None:
        if not self._entered:
            return
        self._entered = False
        self.ui.editor.setActiveEffect(None)
        self.ui.editor.uninstallKeyboardShortcuts()
        self.ui.editor.removeViewObservations()
        for shortcut in self._shortcuts:
            shortcut.setKey(qt.QKeySequence())
            shortcut.deleteLater()
        self._shortcuts = []

    def close(self) -> None:
        """Module reloaded or application quitting: nothing stays behind. May be called again."""
        if self.controller is None:
            return
        self._observers.clear()
        self.exit()
        self._updating = True  # what the selectors signal from now on, losing their scene, is not the user's choice
        self.channels.close()
        self.hints.close()
        self.dicom.exchange.close()
        self.install.close()
        self.controller = None
        self.session.leave(self)
        self.uiWidget.deleteLater()  # Slicer's Reload would only hide it, with all that observes the scene

    def onSceneClosing(self) -> None:
        self.ui.editor.setActiveEffect(None)
        self.ui.editor.setSegmentationNode(None)
        self.ui.editor.removeViewObservations()

    def onSceneReplaced(self) -> None:
        if self._entered:
            self._attachEditor()
            self.ui.editor.setupViewObservations()
        self.update()

    def _takeUpShown(self) -> None:
        """What the user looks at is ready for painting, where nothing was painted yet."""
        controller = self.controller
        controller.takeUpShown()
        self._attachEditor()
        if controller.segmentationNode is not None and controller.isUntouched:
            controller.paintStructure()

    # -- editor ----------------------------------------------------------------------------------------------------------

    def _setUpEditor(self) -> None:
        editor = self.ui.editor
        editor.setMaximumNumberOfUndoStates(10)
        editor.setEffectNameOrder(list(STROKE_EFFECTS))
        editor.unorderedEffectsVisible = False
        editor.setMRMLSegmentEditorNode(_segmentEditorNode(slicer.mrmlScene))  # before the scene, as Slicer's own module does
        editor.setMRMLScene(slicer.mrmlScene)

    def _attachEditor(self) -> None:
        """The editor shows the inputs; the segmentation first, since a volume without one floods the log."""
        editor, controller = self.ui.editor, self.controller
        editor.setMRMLSegmentEditorNode(_segmentEditorNode(slicer.mrmlScene))
        if editor.segmentationNode() is not controller.segmentationNode:
            editor.setSegmentationNode(controller.segmentationNode)
            self._selectStructure()
        if controller.segmentationNode is not None and editor.sourceVolumeNode() is not controller.volumeNode:
            editor.setSourceVolumeNode(controller.volumeNode)

    def _selectStructure(self) -> None:
        """The editor selects the first segment, which may be the background: the first strokes are none."""
        node, editor = self.controller.segmentationNode, self.ui.editor
        structures = structureIDs(node.GetSegmentation()) if node is not None else []
        if structures and editor.currentSegmentID() not in structures:
            editor.setCurrentSegmentID(structures[0])

    # -- clicks ------------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        ui, controller = self.ui, self.controller
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onVolume)
        ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onSegmentation)
        ui.segmentationSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self.onSegmentationAdded)
        ui.allEffects.connect("toggled(bool)", lambda on: setattr(ui.editor, "unorderedEffectsVisible", on))
        clicks = {
            "paintStructureButton": lambda: controller.paintStructure(str(ui.editor.currentSegmentID())),
            "alignButton": controller.alignViews,
            "segmentButton": self.status.segment,
            "updateButton": controller.update,
            "applyButton": self.onApply,
            "saveModelButton": self.onSaveModel,
            "copyLogButton": self.onCopyLog,
        }
        onClicks(ui, clicks)
        ui.weightsButton.connect("toggled(bool)", controller.showWeights)
        # not the preview's own method: after a scene was closed it is another preview
        ui.opacitySlider.connect("valueChanged(double)", lambda value: controller.preview.setOpacity(value))
        ui.show3D.connect("toggled(bool)", self.onShow3D)
        ui.autoUpdate.connect("toggled(bool)", lambda on: self._setParameter("autoUpdate", bool(on)))
        ui.targetBox.connect("currentIndexChanged(int)", lambda index: self._setParameter("target", "new" if index == 1 else "same"))
        ui.deviceBox.connect("currentIndexChanged(int)", lambda index: self._setParameter("device", ui.deviceBox.currentText))
        ui.startFromPath.connect("currentPathChanged(QString)", lambda path: self._setParameter("startFrom", str(path)))
        for name, (setting, kind) in _SPINS.items():
            signal = "valueChanged(int)" if name in ("timeBudget", "steps", "seed") else "valueChanged(double)"
            getattr(ui, name).connect(signal, lambda value, setting=setting, kind=kind: self._setSetting(setting, kind(value)))
        for name, setting in _CHECKS.items():
            getattr(ui, name).connect("toggled(bool)", lambda on, setting=setting: self._setSetting(setting, bool(on)))

    def onVolume(self, node) -> None:
        if not self._updating:
            self.controller.setVolume(node)
            if node is not None:
                slicer.util.setSliceViewerLayers(background=node, fit=True)
            self._attachEditor()

    def onSegmentation(self, node) -> None:
        if not self._updating:
            self.controller.setSegmentation(node)
            self._attachEditor()

    def onSegmentationAdded(self, node) -> None:
        """Prepared before it is chosen: the editor complains of segments without a display node."""
        self.controller.prepareSegmentation(node)
        self.ui.segmentationSelector.setCurrentNode(node)

    def onSelectSegment(self, segmentID: str) -> None:
        """With a brush, unless another stroke tool is in the hand."""
        self._attachEditor()
        self.ui.editor.setCurrentSegmentID(segmentID)
        if self._effect() not in PAINTING:
            self.ui.editor.setActiveEffectByName("Paint")

    def onApply(self) -> None:
        self.ui.editor.setActiveEffect(None)
        self.controller.apply(self._saveStateForUndo)

    def onShow3D(self, on) -> None:
        with waitCursor():
            self.controller.preview.setSurface(bool(on), self.controller.volumeNode, self.controller.parameters.get("locked"))

    def onSaveModel(self) -> None:
        path = qt.QFileDialog.getSaveFileName(self.uiWidget, _("Save model"), "", _("Model") + " (*.pt)")
        if path:
            self.controller.saveModel(Path(str(path)).with_suffix(".pt"))

    def onCopyLog(self) -> None:
        qt.QApplication.clipboard().setText("\n".join([*self.controller.log, "", self.controller.engineLog, self.install.setup.log]))

    def _saveStateForUndo(self, node) -> None:
        """The editor's own undo, which belongs to the segmentation that it shows."""
        if self.ui.editor.segmentationNode() is not node:
            self.ui.editor.setSegmentationNode(node)
            self.ui.editor.setSourceVolumeNode(self.controller.volumeNode)
        self.ui.editor.saveStateForUndo()

    def _setParameter(self, name: str, value) -> None:
        if not self._updating:
            self.controller.parameters.set(name, value)

    def _setSetting(self, name: str, value) -> None:
        if self._updating:
            return
        with contextlib.suppress(InputError):  # the boxes' ranges are the engine's
            self.controller.parameters.setSetting(name, value)

    # -- showing -------------------------------------------------------------------------------------------------------------

    def onTimer(self) -> bool:
        """Whether something of the panel's own is under way that wants the next look soon."""
        self.dicom.exchange.poll()
        if self._entered and self.controller.volumeNode is None and shownVolume(slicer.mrmlScene) is not None:
            self._takeUpShown()
        if self._updateDue or self._effect() != self._shownEffect:
            self.update()
        self.chart.follow()
        return bool(self.dicom.exchange.busy)

    def _effect(self) -> str:
        effect = self.ui.editor.activeEffect()
        return "" if effect is None else str(effect.name)

    def scheduleUpdate(self) -> None:
        """At the next timer tick, so that a burst of changes is shown once."""
        self._updateDue = True

    def update(self) -> None:
        if self.controller is None:
            return
        self._updateDue, self._updating, self._shownEffect = False, True, self._effect()
        try:
            self._showInputs()
            self._showSettings()
            self._showButtons()
            self.status.update()
            self._showWords()
            self.slices.update()
            self.places.update()
            self.segments.update()
            self.channels.update()
            self.hints.update()
            self.dicom.update()
            self.chart.show(self.controller.report.curve, self._colors())
        finally:
            self._updating = False

    def _showInputs(self) -> None:
        ui, controller = self.ui, self.controller
        for selector, node in ((ui.volumeSelector, controller.volumeNode), (ui.segmentationSelector, controller.segmentationNode)):
            if selector.currentNode() is not node:
                selector.setCurrentNode(node)
        if self._entered and controller.segmentationNode is not None:
            self._attachEditor()

    def _showSettings(self) -> None:
        ui, parameters = self.ui, self.controller.parameters
        settings = parameters.settings()
        for name, (setting, __) in _SPINS.items():
            box = getattr(ui, name)
            if not _isBeingTypedIn(box):
                box.value = type(box.value)(getattr(settings, setting))  # a QSpinBox holds whole numbers
        for name, setting in _CHECKS.items():
            getattr(ui, name).checked = getattr(settings, setting)
        ui.autoUpdate.checked, ui.show3D.checked = parameters.get("autoUpdate"), parameters.get("show3D")
        if not _isBeingTypedIn(ui.opacitySlider):
            ui.opacitySlider.value = parameters.get("opacity")
        ui.targetBox.currentIndex = 1 if parameters.get("target") == "new" else 0
        ui.deviceBox.currentText = parameters.get("device")
        if not _isBeingTypedIn(ui.startFromPath):
            ui.startFromPath.currentPath = parameters.get("startFrom")

    def _showButtons(self) -> None:
        ui, controller, may = self.ui, self.controller, self.controller.allowed()
        for name, action in _ALLOWED.items():
            getattr(ui, name).enabled = action in may
        ui.eraseLabel.visible = self._effect() == "Erase" and controller.eraseMisleads
        ui.updateButton.visible = not controller.parameters.get("autoUpdate")
        ui.weightsButton.checked = ui.weightsButton.checked and Action.CHOOSE_SLICES in may

    def _showWords(self) -> None:
        ui, controller = self.ui, self.controller
        report = controller.report
        slow = _("Without a graphics card, training takes several times longer.") if report.onCpu else ""
        why = _("On {server}: {why}").format(server=controller.server, why=report.why) if controller.server else report.why
        ui.deviceLabel.text = f"{why}. {slow}".strip() if report.why else ""
        ui.deviceLabel.styleSheet = wordStyle(ui.deviceLabel, "warning" if report.onCpu else "info")
        ui.summaryLabel.text, ui.summaryLabel.toolTip = self._summary(), self._weights()
        if len(controller.log) != self._logLength:
            self._logLength = len(controller.log)
            ui.logText.setPlainText("\n".join(controller.log))

    def _summary(self) -> str:
        rows = [_("{name}: {count} voxels").format(name=row.name, count=number(row.voxels)) for row in self.controller.summary]
        notes = list(self.controller.strokes.notes) if self.controller.strokes is not None else []
        return "\n".join(["; ".join(rows), *notes]).strip()

    def _weights(self) -> str:
        rows = [f"{row.name} {number(round(row.weight))}" for row in self.controller.summary]
        return _("What is painted. How much it weighs in training: {weights}.").format(weights=", ".join(rows)) if rows else ""

    def _colors(self) -> dict:
        strokes = self.controller.strokes
        return {s.id: (s.name, s.color) for s in strokes.classes.segments} if strokes is not None else {}


def _isBeingTypedIn(box) -> bool:
    """Writing a number anew rewrites its text, so what the user has typed of it until now would be gone."""
    focused = qt.QApplication.focusWidget()
    return focused is not None and (box.hasFocus() or box.isAncestorOf(focused))


def _segmentEditorNode(scene):
    """This module's own: brush and masking are remembered, and what Slicer's Segment Editor module shows is left alone."""
    node = scene.GetSingletonNode(_EDITOR_TAG, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = scene.AddNode(newNode(scene, "vtkMRMLSegmentEditorNode", tag=_EDITOR_TAG))
    return node
