"""The panel's part on the engine: where it works, what is missing, one question before anything is installed, and the verdict of a child process."""

import sys
import sysconfig
from pathlib import Path

import qt
import slicer

from ..i18n import number
from ..i18n import tr as _
from ..session.EngineSetup import SIZE, EngineSetup, EngineState, freeGigabytes
from .Dialogs import confirmed
from .EnginePlace import EnginePlace, chosenServer
from .Theme import wordStyle

_PYTHON_KEY = "SparseSegSlicer/Python"  # belongs to the machine, so in the application's settings and not in the scene
_AFTER_TYPING_MS = 800
_LACKING = (EngineState.MISSING, EngineState.BROKEN)


def makeSetup() -> EngineSetup:
    """With the Python and the server that were chosen on this machine."""
    python = str(slicer.app.userSettings().value(_PYTHON_KEY) or "")
    packages = str(Path(slicer.app.slicerUserSettingsFilePath).parent / "SparseSegSlicer")
    return EngineSetup(python, slicer.util.startupEnvironment, slicer.app.temporaryPath, packagesFolder=packages, server=chosenServer())


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
        ui.checkButton.connect("clicked()", self.onCheck)
        self.place = EnginePlace(ui, setup)
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

    def onCheck(self) -> None:
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
        question = _("Remove PyTorch and install it again for {python}?") if repair else _("Install PyTorch for {python}?")
        size = _("Size: {size}; {free} GB are free.\nWhere: {where}\n\nSlicer can be used meanwhile.")
        size = size.format(size=SIZE, free=number(round(freeGigabytes(sys.prefix))), where=where)
        text = "\n\n".join([question.format(python=self.setup.where), self.setup.plan(repair), size])
        return confirmed(text)

    def update(self) -> None:
        setup, ui = self.setup, self.ui
        busy, lacking = setup.state in (EngineState.CHECKING, EngineState.INSTALLING), setup.state in _LACKING
        here, text = setup.server is None, self._words()
        for label in (ui.engineLabel, ui.engineNotice):
            label.text, label.styleSheet = text, wordStyle(label, "error" if lacking else "info")
        ui.engineNotice.visible = here and (lacking or setup.state is EngineState.INSTALLING)
        ui.installHereButton.visible = lacking and here
        ui.installHereButton.text = _("Repair PyTorch...") if setup.state is EngineState.BROKEN else _("Install PyTorch...")
        ui.installButton.enabled = lacking
        ui.repairButton.enabled = not busy
        ui.checkButton.enabled = not busy and setup.server != ""
        for widget in (ui.installButton, ui.repairButton, ui.pythonLabel, ui.pythonPath):
            widget.visible = here
        ui.pythonPath.enabled = ui.engineBox.enabled = setup.state is not EngineState.INSTALLING
        self.place.update()

    def _words(self) -> str:
        """What is known of the engine; what is wrong with a server is a sentence already."""
        setup = self.setup
        if setup.server == "":
            return _NO_SERVER
        if setup.server and setup.state is EngineState.BROKEN:
            return setup.detail
        return f"{_STATE_TEXT[setup.state].format(where=setup.where, size=SIZE)} {setup.detail}".strip()


_NO_SERVER = _("Write the server's address, then press Check.")
_STATE_TEXT = {
    EngineState.UNKNOWN: _("The engine ({where}) was not checked yet."),
    EngineState.CHECKING: _("The engine ({where}) is being checked..."),
    EngineState.INSTALLING: _("The engine ({where}) is being installed; this can take many minutes. You can go on working..."),
    EngineState.MISSING: _("The engine ({where}) needs PyTorch, which is not installed there ({size})."),
    EngineState.BROKEN: _("The engine ({where}) does not work:"),
    EngineState.READY: _("The engine ({where}) is ready."),
}
