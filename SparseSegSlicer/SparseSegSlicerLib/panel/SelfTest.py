"""The tutorial as a test: the same steps in a running Slicer (CTest, or Reload and Test) and in the test host."""

import time

import numpy as np
import qt

from ..i18n import tr as _
from ..scene.SamplePhantom import addPhantom, phantomOverlap
from ..scene.SceneExport import takeSnapshot
from ..scene.StrokeReader import Choices, readStrokes
from ..session.EngineSetup import EngineState
from ..session.States import State

_PATIENCE_S = 180


def runTutorial(panel, budgetS: float = 10.0) -> str:
    """Sample data, segment, preview, apply, undo; what was left out, and why, or "". Raises AssertionError where a step does not do what it says.

    Where PyTorch is not installed, as on the machines that build extensions, the way ends at the button that offers to install it.
    """
    controller, ui, setup = panel.controller, panel.ui, panel.install.setup
    if setup.state is EngineState.UNKNOWN:
        setup.check()
    waitFor(lambda: setup.state not in (EngineState.UNKNOWN, EngineState.CHECKING), "the engine's self-test")
    missing = setup.state is EngineState.MISSING
    check(missing or setup.state is EngineState.READY, f"the engine is not ready: {setup.detail}")
    volume, strokes = addPhantom()
    ui.volumeSelector.setCurrentNode(volume)
    ui.segmentationSelector.setCurrentNode(strokes)
    waitFor(lambda: controller.strokes is not None, "the strokes")
    before = _voxels(strokes, volume)
    controller.parameters.setSetting("time_budget_s", budgetS)
    ui.segmentButton.click()
    if missing:
        panel.update()
        check("Install PyTorch" in ui.messageLabel.text, "the missing PyTorch is not said")
        check(not controller.running, "training began without PyTorch")
        return _("Training, preview, Apply and undo were skipped: PyTorch is not installed.")
    waitFor(lambda: controller.preview.labels is not None, "the first preview")
    waitFor(lambda: controller.state is State.RESULT or controller.message.level == "error", "the result")
    check(controller.state is State.RESULT, controller.message.text())
    check(np.array_equal(_voxels(strokes, volume), before), "training changed the strokes")
    panel.update()
    ui.applyButton.click()
    waitFor(lambda: not controller.isApplying, "the applied result")
    check(controller.isApplied, controller.message.text())
    check(phantomOverlap(controller.preview.labels, controller.preview.classes.names) > 0.7, "the result does not resemble the phantom")
    ui.editor.undo()
    check(not controller.isApplied, "undo left the result")
    check(np.array_equal(_voxels(strokes, volume), before), "undo did not bring the strokes back")
    controller.discard()
    return ""


def waitFor(condition, what: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        check(time.monotonic() < end, f"{what} did not come in {_PATIENCE_S} s")
        qt.QApplication.processEvents()
        time.sleep(0.02)


def check(condition, complaint: str) -> None:
    if not condition:
        raise AssertionError(complaint)


def _voxels(segmentationNode, volumeNode) -> np.ndarray:
    return readStrokes(takeSnapshot(segmentationNode, volumeNode), Choices()).annotation
