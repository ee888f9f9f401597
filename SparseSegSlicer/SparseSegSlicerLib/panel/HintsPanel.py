"""The section "Hints": what is known of a segment without painting it. It shows the Controller's entry of one segment, and writes what is changed."""

import qt
import slicer

from ..i18n import tr as _
from ..scene.Hinting import BACKGROUND
from ..scene.HintNodes import makeVisible
from ..scene.Segments import structureIDs
from ..session.States import State
from .Section import Section

_SELECTORS = {"roi": "hintRoiSelector", "inside": "hintInsideSelector", "outside": "hintOutsideSelector"}  # by field of the entry
_CHECKS = {"onePiece": "hintOnePiece", "noHoles": "hintNoHoles"}
_SPINS = {"leastMl": "hintLeastMl", "mostMl": "hintMostMl"}


class HintsPanel(Section):
    def __init__(self, ui, controller) -> None:
        super().__init__()
        self._ui, self._controller, self._segments = ui, controller, None
        self._places = {name: self._makePlaceButton(name) for name in _SELECTORS}
        for name, selector in _SELECTORS.items():
            widget = getattr(ui, selector)
            widget.connect("currentNodeChanged(vtkMRMLNode*)", lambda node, name=name: self._write(name, node))
            widget.connect("nodeAddedByUser(vtkMRMLNode*)", lambda node, name=name: self._onAdded(name, node))
        for name, check in _CHECKS.items():
            getattr(ui, check).connect("toggled(bool)", lambda on, name=name: self._write(name, bool(on)))
        for name, spin in _SPINS.items():
            getattr(ui, spin).connect("valueChanged(double)", lambda value, name=name: self._write(name, float(value)))
        ui.hintSegmentBox.connect("currentIndexChanged(int)", lambda index: self.update())

    # -- showing ---------------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        self._listSegments()
        self._showEntry()

    @property
    def _segmentID(self) -> str | None:
        """None where there is no segmentation."""
        index = self._ui.hintSegmentBox.currentIndex
        return self._segments[index][0] if self._segments and 0 <= index < len(self._segments) else None

    def _listSegments(self) -> None:
        """The structures, and the background; which one is chosen stays."""
        wanted, box, chosen = self._wanted(), self._ui.hintSegmentBox, self._segmentID
        if wanted == self._segments:
            return
        self._segments = wanted
        box.clear()
        box.addItems([name for __, name in wanted])
        ids = [segmentID for segmentID, __ in wanted]
        box.currentIndex = ids.index(chosen) if chosen in ids else 0 if ids else -1

    def _wanted(self) -> list:
        node = self._controller.segmentationNode
        if node is None:
            return []
        segmentation = node.GetSegmentation()
        structures = [(sid, segmentation.GetSegment(sid).GetName()) for sid in structureIDs(segmentation)]
        return [*structures, (BACKGROUND, _("Background (none of them)"))]

    def _showEntry(self) -> None:
        ui, segmentID = self._ui, self._segmentID
        ui.hintSegmentBox.enabled = segmentID is not None
        entry, isStructure = self._controller.hintsOf(segmentID or BACKGROUND), bool(segmentID)
        for name, selector in _SELECTORS.items():
            widget, node = getattr(ui, selector), getattr(entry, name)
            if widget.currentNode() is not node:
                widget.setCurrentNode(node)
            if self._places[name].currentNode() is not node:
                self._places[name].setCurrentNode(node)
            widget.enabled = isStructure or (name == "inside" and segmentID is not None)
        for name, check in _CHECKS.items():
            getattr(ui, check).checked = getattr(entry, name)
            getattr(ui, check).enabled = isStructure
        for name, spin in _SPINS.items():
            if getattr(ui, spin).value != getattr(entry, name):
                getattr(ui, spin).value = getattr(entry, name)
            getattr(ui, spin).enabled = isStructure

    # -- what the user does ----------------------------------------------------------------------------------------------

    def _write(self, name: str, value) -> None:
        if not self._isOurs and self._controller.state is not State.EMPTY and self._segmentID is not None:
            self._controller.setHints(self._segmentID, **{name: value})

    def _onAdded(self, name: str, node) -> None:
        """The next clicks into the views place it."""
        makeVisible(node)
        self._ui.editor.setActiveEffect(None)
        self._places[name].setCurrentNode(node)
        self._places[name].setPlaceModeEnabled(True)

    def _makePlaceButton(self, name: str):
        """Slicer's own, beside the selector."""
        place = slicer.qSlicerMarkupsPlaceWidget()
        place.setMRMLScene(slicer.mrmlScene)
        place.setSizePolicy(qt.QSizePolicy.Fixed, qt.QSizePolicy.Fixed)
        place.buttonsVisible = False
        place.placeButton().show()
        place.placeMultipleMarkups = place.ForcePlaceSingleMarkup if name == "roi" else place.ForcePlaceMultipleMarkups
        getattr(self._ui, _SELECTORS[name]).parent().layout().addWidget(place)
        return place
