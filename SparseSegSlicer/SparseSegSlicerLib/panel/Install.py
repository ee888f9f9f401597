"""The panel's part on the engine: what is missing, one question before anything is installed, and the verdict of a child process."""

import sys
import sysconfig

import qt
import slicer

from ..session.EngineSetup import SIZE, EngineSetup, EngineState, freeGigabytes

_PYTHON_KEY = "SparseSegSlicer/Python"  # belongs to the machine, so in the application's settings and not in the scene


def makeSetup() -> EngineSetup:
    """With the Python that was chosen on this machine."""
    python = str(slicer.app.userSettings().value(_PYTHON_KEY) or "")
    return EngineSetup(python, slicer.util.startupEnvironment, slicer.app.temporaryPath)


class Install:
    def __init__(self, ui, setup: EngineSetup) -> None:
        self.ui, self.setup = ui, setup
        self.setup.changed = self.update
        ui.pythonPath.currentPath = self.setup.python
        ui.pythonPath.connect("currentPathChanged(QString)", self.onPythonChosen)
        ui.installButton.connect("clicked()", self.onInstall)
        ui.repairButton.connect("clicked()", self.onRepair)
        ui.checkButton.connect("clicked()", self.setup.check)
        self.update()

    def close(self) -> None:
        self.setup.changed = lambda: None

    def onPythonChosen(self, path: str) -> None:
        path = str(path or "").strip()
        if path == self.setup.python:
            return
        slicer.app.userSettings().setValue(_PYTHON_KEY, path)
        self.setup.setPython(path)
        self.setup.check()

    def onInstall(self) -> None:
        if self._confirmed("Install PyTorch"):
            self.setup.install()

    def onRepair(self) -> None:
        if self._confirmed("Remove PyTorch and install it again"):
            self.setup.install(repair=True)

    def _confirmed(self, what: str) -> bool:
        where = self.setup.python or sysconfig.get_path("purelib")
        free = freeGigabytes(sys.prefix)
        text = (
            f"{what} for {self.setup.where}?\n\nWhat: PyTorch, the build that fits the graphics driver, light-the-torch, which chooses it, "
            f"and numba, which makes corrections quick, if it fits Slicer's numpy.\n"
            f"Size: {SIZE}; {free:.0f} GB are free.\nWhere: {where}\n\nSlicer can be used meanwhile. Nothing else is changed."
        )
        buttons = qt.QMessageBox.Ok | qt.QMessageBox.Cancel
        return qt.QMessageBox.question(slicer.util.mainWindow(), "Sparse Segmentation", text, buttons) == qt.QMessageBox.Ok

    def update(self) -> None:
        setup, ui = self.setup, self.ui
        busy = setup.state in (EngineState.CHECKING, EngineState.INSTALLING)
        ui.engineLabel.text = f"The engine ({setup.where}) {_STATE_TEXT[setup.state]}" + (f" {setup.detail}" if setup.detail else "")
        ui.engineLabel.styleSheet = "color: #c0392b" if setup.state in (EngineState.MISSING, EngineState.BROKEN) else ""
        ui.installButton.enabled = setup.state in (EngineState.MISSING, EngineState.BROKEN)
        ui.repairButton.enabled = ui.checkButton.enabled = not busy
        if setup.state in (EngineState.MISSING, EngineState.BROKEN):
            ui.engineSection.collapsed = False


_STATE_TEXT = {
    EngineState.UNKNOWN: "was not checked yet.",
    EngineState.CHECKING: "is being checked...",
    EngineState.INSTALLING: "is being installed; this can take many minutes. You can go on working...",
    EngineState.MISSING: f"needs PyTorch, which is not installed there ({SIZE}).",
    EngineState.BROKEN: "does not work:",
    EngineState.READY: "is ready.",
}
