"""Where the engine works: on this computer, or on a server that is reached by ssh; and the command that mends what is wrong there."""

import qt
import slicer

from ..session.EngineSetup import EngineSetup

_PLACE_KEY, _SERVER_KEY = "SparseSegSlicer/Engine", "SparseSegSlicer/Server"  # of the machine, as the Python
_ON_SERVER = "server"


def chosenServer() -> str | None:
    """The address that was written on this machine, None where the engine works on it."""
    settings = slicer.app.userSettings()
    return _address() if settings.value(_PLACE_KEY) == _ON_SERVER else None


def _address() -> str:
    return str(slicer.app.userSettings().value(_SERVER_KEY) or "")


class EnginePlace:
    """An address is taken as it is typed, and asked for nothing until Check or Segment: a login at half a name would be one too many."""

    def __init__(self, ui, setup: EngineSetup) -> None:
        self._ui, self._setup = ui, setup
        ui.engineBox.currentIndex = 0 if setup.server is None else 1
        ui.serverAddress.text = _address()
        ui.engineBox.connect("currentIndexChanged(int)", self.onPlace)
        ui.serverAddress.connect("textEdited(QString)", self.onAddress)
        ui.serverAddress.connect("returnPressed()", ui.checkButton.click)
        ui.copyCommandButton.connect("clicked()", self.onCopy)

    def onPlace(self, index: int) -> None:
        slicer.app.userSettings().setValue(_PLACE_KEY, _ON_SERVER if index == 1 else "")
        self._choose(_address() if index == 1 else None)
        if index == 1:
            self._ui.serverAddress.setFocus()

    def onAddress(self, text: str) -> None:
        slicer.app.userSettings().setValue(_SERVER_KEY, str(text).strip())
        self._choose(str(text).strip())

    def onCopy(self) -> None:
        qt.QApplication.clipboard().setText(self._setup.remedy)

    def _choose(self, server: str | None) -> None:
        self._setup.setServer(server)
        self._setup.changed()
        self._setup.checkOnce()

    def update(self) -> None:
        ui, setup = self._ui, self._setup
        for widget in (ui.serverLabel, ui.serverAddress):
            widget.visible = setup.server is not None
        for widget in (ui.commandLabel, ui.serverCommand, ui.copyCommandButton):
            widget.visible = setup.remedy != ""
        ui.serverCommand.text = setup.remedy
        ui.serverCommand.cursorPosition = 0
