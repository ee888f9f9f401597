"""The panel's part on the engine: what is missing, one question before anything is installed, and the verdict of a child process."""

import sys
import sysconfig
from pathlib import Path

import qt
import slicer

from ..session.EngineSetup import SIZE, EngineSetup, EngineState, freeGigabytes

_PYTHON_KEY = "SparseSegSlicer/Python"  # belongs to the machine, so in the application's settings and not in the scene
_AFTER_TYPING_MS = 800
_LACKING = (EngineState.MISSING, EngineState.BROKEN)


def makeSetup() -> EngineSetup:
    """With the Python that was chosen on this machine."""
    python = str(slicer.app.userSettings().value(_PYTHON_KEY) or "")
    packages = str(Path(slicer.app.slicerUserSettingsFilePath).parent / "SparseSegSlicer")
    return EngineSetup(python, slicer.util.startupEnvironment, slicer.app.temporaryPath, packagesFolder=packages)


class Install:
    def __init__(self, ui, setup: EngineSetup) -> None:
        self.ui, self.setup = ui, setup
        self.setup.changed = self.update
        self._typing = qt.QTimer(ui.engineSection)  # the path's box tells of each letter
        self._typing.setSingleShot(True)
        self._typing.setInterval(_AFTER_TYPING_MS)
        self._typing.connect("timeout()", self.onPythonChosen)
        ui.pythonPath.currentPath = self.setup.python
        ui.pythonPath.connect("currentPathChanged(QString)", lambda path: self._typing.start())
        ui.installButton.connect("clicked()", self.onInstall)
        ui.repairButton.connect("clicked()", self.onRepair)
        ui.installHereButton.connect("clicked()", self.onInstallHere)
        ui.checkButton.connect("clicked()", self.setup.check)
        self.update()

    def close(self) -> None:
        self._typing.stop()
        self.setup.changed = lambda: None

    def onPythonChosen(self) -> None:
        path = str(self.ui.pythonPath.currentPath or "").strip()
        if path != self.setup.python:
            slicer.app.userSettings().setValue(_PYTHON_KEY, path)
            self.setup.setPython(path)
            self.setup.check()

    def onInstall(self) -> None:
        self._install(repair=False)

    def onRepair(self) -> None:
        self._install(repair=True)

    def onInstallHere(self) -> None:
        self._install(repair=self.setup.state is EngineState.BROKEN)

    def _install(self, repair: bool) -> None:
        if self._confirmed(repair):
            self.setup.install(repair)

    def _confirmed(self, repair: bool) -> bool:
        where = self.setup.python or sysconfig.get_path("purelib")
        text = (
            f"{'Remove PyTorch and install it again' if repair else 'Install PyTorch'} for {self.setup.where}?\n\n{self.setup.plan(repair)}\n\n"
            f"Size: {SIZE}; {freeGigabytes(sys.prefix):.0f} GB are free.\nWhere: {where}\n\nSlicer can be used meanwhile."
        )
        buttons = qt.QMessageBox.Ok | qt.QMessageBox.Cancel
        return qt.QMessageBox.question(slicer.util.mainWindow(), "Sparse Segmentation", text, buttons) == qt.QMessageBox.Ok

    def update(self) -> None:
        setup, ui = self.setup, self.ui
        busy, lacking = setup.state in (EngineState.CHECKING, EngineState.INSTALLING), setup.state in _LACKING
        text = f"The engine ({setup.where}) {_STATE_TEXT[setup.state]}" + (f" {setup.detail}" if setup.detail else "")
        for label in (ui.engineLabel, ui.engineNotice):
            label.text, label.styleSheet = text, "color: #c0392b" if lacking else ""
        ui.engineNotice.visible = lacking or setup.state is EngineState.INSTALLING
        ui.installHereButton.visible = lacking
        ui.installHereButton.text = "Repair PyTorch..." if setup.state is EngineState.BROKEN else "Install PyTorch..."
        ui.installButton.enabled = lacking
        ui.repairButton.enabled = ui.checkButton.enabled = not busy
        ui.pythonPath.enabled = setup.state is not EngineState.INSTALLING


_STATE_TEXT = {
    EngineState.UNKNOWN: "was not checked yet.",
    EngineState.CHECKING: "is being checked...",
    EngineState.INSTALLING: "is being installed; this can take many minutes. You can go on working...",
    EngineState.MISSING: f"needs PyTorch, which is not installed there ({SIZE}).",
    EngineState.BROKEN: "does not work:",
    EngineState.READY: "is ready.",
}
