"""Keyboard shortcuts of Slicer's main window: a second one with the same keys makes Qt call both ambiguous, and neither does anything.

Read from the sources of Slicer 5.13 (583e9b37); the host raises where a panel asks for keys that are taken.
"""

from PySide6 import QtGui, QtWidgets

from host import pythonqt

OF_SLICER = {
    "qSlicerMainWindow.ui": "Ctrl+O Ctrl+S Ctrl+W Ctrl+Z Ctrl+Y Ctrl+4 Ctrl+2 Ctrl+X Ctrl+C Ctrl+V Ctrl+6 Ctrl+H",
    "qSlicerMainWindow.cxx": "Ctrl+5 Ctrl+0 Ctrl+3 Ctrl+`",
    "qSlicerAppMainWindow.cxx": "Ctrl+1",
    "qSlicerModuleSelectorToolBar.cxx": "Ctrl+F Ctrl+Left Ctrl+Right",
    "qMRMLMarkupsToolBar.cxx": "Ctrl+Shift+A Ctrl+Shift+T Ctrl+Shift+Space",
    "qMRMLSequenceBrowserPlayWidget.cxx": "Ctrl+Shift+Down Ctrl+Shift+Left Ctrl+Shift+Right",
    "qSlicerSubjectHierarchyViewContextMenuPlugin.cxx": "Ctrl+B",
    "qMRMLSegmentEditorWidget.cxx": "1 2 3 4 5 6 7 8 9 0 Shift+1 Shift+2 Shift+3 Shift+4 Shift+5 Shift+6 Shift+7 Shift+8 Shift+9 Shift+0 "
    "Esc Space Z Y Ctrl+Shift+Z Q W / * , . > < I",
    "IBus, before the application sees it": "Ctrl+Shift+U",
}
_OWNER = {QtGui.QKeySequence(keys).toString(): owner for owner, list_ in OF_SLICER.items() for keys in list_.split()}


class QShortcut(QtGui.QShortcut):
    """As qt.QShortcut; ValueError where the keys are taken in the same window."""

    def setKey(self, key):
        """The keys that trigger it; none when it is taken out of use."""
        keys = key.toString()
        if keys:
            owner = _OWNER.get(keys) or next((repr(other) for other in _living(self) if other.key().toString() == keys), None)
            if owner:
                raise ValueError(f"the shortcut {keys} is taken by {owner}: ambiguous, so neither would do anything")
        super().setKey(key)


def _living(shortcut):
    """The others of the same window."""
    parent = shortcut.parent()
    window = parent.window() if isinstance(parent, QtWidgets.QWidget) else None
    return [other for other in (window.findChildren(QtGui.QShortcut) if window else []) if other is not shortcut]


pythonqt.REPLACED["QShortcut"] = QShortcut
