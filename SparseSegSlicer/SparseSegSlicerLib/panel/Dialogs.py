"""What the panel asks of the user, and shows while it cannot be used."""

import contextlib

import qt
import slicer

from ..i18n import tr as _


def confirmed(question: str) -> bool:
    buttons = qt.QMessageBox.Ok | qt.QMessageBox.Cancel
    return qt.QMessageBox.question(slicer.util.mainWindow(), _("Sparse Segmentation"), question, buttons) == qt.QMessageBox.Ok


@contextlib.contextmanager
def waitCursor():
    qt.QApplication.setOverrideCursor(qt.QCursor(qt.Qt.WaitCursor))
    try:
        yield
    finally:
        qt.QApplication.restoreOverrideCursor()
