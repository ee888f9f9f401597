"""The panel's part on DICOM: which file, one question before anything is installed, and what is enabled."""

from pathlib import Path

import qt
import slicer

from ..i18n import tr as _
from ..scene import DicomFiles
from ..session.Allowed import Action
from ..session.DicomExchange import PACKAGES, PACKAGES_SIZE, DicomExchange
from .Dialogs import confirmed

_SLICERS = "slicer"
_KINDS = ("seg", "rtstruct", _SLICERS)  # in the order of the box


class DicomPanel:
    def __init__(self, ui, controller, setup) -> None:
        self.ui, self.controller, self.setup = ui, controller, setup
        self.exchange = DicomExchange(controller, setup, slicer.app.temporaryPath)
        self.exchange.askToInstall = self._confirmed
        if DicomFiles.hasSlicersExporter():
            ui.dicomKindBox.addItem(_("Segmentation (SEG), by Slicer's exporter"))
        ui.dicomExportButton.connect("clicked()", self.onExport)
        ui.dicomLoadButton.connect("clicked()", self.onLoad)

    def onExport(self) -> None:
        kind = _KINDS[self.ui.dicomKindBox.currentIndex]
        with self.controller.complaining():
            node = self.exchange.resultNode()
            DicomFiles.sourceFiles(self.controller.volumeNode)  # what cannot be exported needs no file name
            if kind == _SLICERS:
                folder = qt.QFileDialog.getExistingDirectory(self.ui.dicomSection, _("Export to DICOM: folder"))
                if folder:
                    self.exchange.exportWithSlicer(Path(str(folder)))
                return
            path = qt.QFileDialog.getSaveFileName(self.ui.dicomSection, _("Export to DICOM"), f"{node.GetName()}.dcm", "DICOM (*.dcm)")
            if path:
                self.exchange.export(kind, Path(str(path)).with_suffix(".dcm"))

    def onLoad(self) -> None:
        path = qt.QFileDialog.getOpenFileName(self.ui.dicomSection, _("Load a DICOM segmentation"), "", "DICOM (*.dcm);;" + _("All files") + " (*)")
        if path:
            with self.controller.complaining():
                self.exchange.load(Path(str(path)))

    def update(self) -> None:
        ui, controller = self.ui, self.controller
        free, may = not self.exchange.busy, controller.allowed()
        ui.dicomExportButton.enabled = free and Action.EXPORT in may
        ui.dicomLoadButton.enabled = free and Action.LOAD in may
        ui.dicomLabel.text = _("{what}... You can go on working.").format(what=self.exchange.busy.capitalize()) if self.exchange.busy else ""
        ui.dicomLabel.visible = not free

    def _confirmed(self) -> bool:
        text = _(
            "DICOM needs more packages. Install them?\n\nInstalls: of {packages} and what they need, what {where} lacks.\nSize: {size}.\n"
            "Where: {folder}\nKeeps as they are: Slicer's own packages, its pydicom too.\n\nSlicer can be used meanwhile."
        ).format(packages=", ".join(PACKAGES), where=self.setup.pythonName, size=PACKAGES_SIZE, folder=self.setup.packages)
        return confirmed(text)
