"""The preview node of one session: made when first needed, kept in step with the user's segments, removed without a trace. No qt.

Labels come whole, or as a box of what the last ones became. Surfaces follow when no box has come for a moment, one segment at each `tick`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator

import numpy as np
import vtk

from sparseseg.contract.box import Box, slabs, union, within
from sparseseg.contract.classes import ClassTable

from . import SceneImport
from .Grids import volumeGeometry
from .LabelLayer import LabelLayer, clear
from .Segments import describeSegment
from .Surfaces import CLOSED_SURFACE, CoarseLabels, removeSurfaces, setSurface, showSurfaces
from .VolumeMemory import LabelMemory, zeros

SURFACES_AFTER_S = 1.0  # without a new box
_RESTS = "SparseSegSlicer.Rests"  # node attribute: hidden by us, and shown again with the next labels
_APPLIED_AS = "SparseSegSlicer.AppliedAs"  # node attribute: which Apply has put these labels into the segmentation


class Preview:
    """`labels` is the label map that is shown, uint8 (K, J, I), value c is the c-th segment of `classes`; None before the first one. `box` holds
    all its voxels that are not zero; `revision` is that of the annotation it was made from."""

    def __init__(self, parameters) -> None:
        self._parameters = parameters
        self._layer = LabelLayer()
        self._forget()
        self._lost: tuple | None = None  # labels, box, classes of a node that was deleted
        self._withheld = False

    @property
    def node(self):
        return self._parameters.getNode("preview")

    # -- labels --------------------------------------------------------------------------------------------------------

    def show(self, segmentationNode, volumeNode, labels: np.ndarray, box: Box, classes: ClassTable, locked: Collection[str], memory=None) -> None:
        """A whole label map. memory: a LabelMemory that holds it already, so that nothing is copied here."""
        self.labels, self.box, self.classes, self._lost = labels, box, classes, None
        if self.node is None:
            opacity = float(self._parameters.get("opacity"))
            self._parameters.setNode("preview", SceneImport.makePreview(segmentationNode, volumeNode, classes.segments, opacity))
            if self._withheld:
                self._rest()
        self._addMissing(segmentationNode, classes)
        self.node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        grid = volumeGeometry(volumeNode).ijk_to_ras()
        self._layer.show(self.node, memory or LabelMemory.of(labels), grid, classes.ids, locked)
        self._surfacesAreOld(self.node.GetSegmentation().GetSegmentIDs(), 0.0)

    def showBox(self, segmentationNode, volumeNode, box: Box, values: np.ndarray, classes: ClassTable, locked: Collection[str]) -> None:
        """A part of the label map; outside of it, the labels before stand."""
        for _ in self.putBox(segmentationNode, volumeNode, box, values, classes, locked):
            pass

    def putBox(self, segmentationNode, volumeNode, box: Box, values: np.ndarray, classes: ClassTable, locked: Collection[str]) -> Iterator[None]:
        """As `showBox`, a few slices at a time. Once begun it is to be ended, though not before anything else is done."""
        self._takeBase(volumeGeometry(volumeNode).shape_kji, classes)
        labels, layer, involved = self.labels, self._layer, np.zeros(256, bool)
        self.box = union(self.box, box)
        for part in slabs(box):
            new = values[within(part, box)]
            involved |= _exchange(labels[part], new)
            layer.put(part, new)
            yield
            if labels is not (self._lost[0] if self._lost else self.labels):  # gone meanwhile
                return
        if self._lost:
            return
        absent = self.node is None or any(self._isMissing(segmentationNode, sid) for sid in classes.ids)
        if absent or not layer.tell(self.node):
            self.show(segmentationNode, volumeNode, labels, self.box, classes, locked)
        self._surfacesAreOld([sid for value, sid in enumerate(classes.ids, start=1) if involved[value]], SURFACES_AFTER_S)

    def redraw(self, locked: Collection[str]) -> None:
        """After a lock was set or taken off."""
        if self.labels is not None and self.node is not None:
            self._layer.claim(self.node, self.classes.ids, locked)
            self._surfacesAreOld(self.node.GetSegmentation().GetSegmentIDs(), 0.0)

    def _takeBase(self, shape_kji, classes: ClassTable) -> None:
        """The labels that a box changes: those shown, or of a node that the user deleted; nothing where there are none of these segments."""
        if self.labels is None and self._lost is not None:
            self.labels, self.box, self.classes = self._lost
        if self.labels is None or self.labels.shape != tuple(shape_kji) or self.classes.ids != classes.ids:
            self.labels, self.box, self.classes = zeros(shape_kji), None, classes
            self._layer = LabelLayer()
        self._lost = None

    # -- surfaces ------------------------------------------------------------------------------------------------------

    def tick(self, volumeNode, locked: Collection[str], until: float = math.inf) -> None:
        """Makes one segment's surface, where one is old and it is time; called by the host's timer. What takes longer goes on until then
        (of time.perf_counter), and at the next call."""
        if not self._old or self.labels is None or self.node is None or volumeNode is None or time.monotonic() < self._surfacesAt:
            return
        self._coarse = self._coarse or CoarseLabels(self.labels, self.box)
        if not self._coarse.isMade:
            self._coarse.goOn(until)
            return
        self._makeSurface(self._old.pop(0), volumeNode, locked)
        if not self._old:
            self._coarse = None
            showSurfaces(self.node)

    def setSurface(self, shown: bool, volumeNode, locked: Collection[str]) -> None:
        self._parameters.set("show3D", bool(shown))
        if self.node is None:
            return
        if not shown:
            self._old, self._coarse = [], None
            removeSurfaces(self.node)
        elif self.labels is not None and not self.node.GetSegmentation().ContainsRepresentation(CLOSED_SURFACE):
            self._surfacesAreOld(self.node.GetSegmentation().GetSegmentIDs(), 0.0)
            while self._old:
                self.tick(volumeNode, locked)

    def _surfacesAreOld(self, segmentIDs: Collection[str], after_s: float) -> None:
        """They stand until they are made again; where there is none, an empty one holds Slicer back from making its own, slowly."""
        segmentation = self.node.GetSegmentation()
        if not self._parameters.get("show3D"):
            if segmentation.ContainsRepresentation(CLOSED_SURFACE):
                removeSurfaces(self.node)
            return
        for sid in segmentation.GetSegmentIDs():
            if segmentation.GetSegment(sid).GetRepresentation(CLOSED_SURFACE) is None:
                setSurface(self.node, sid, vtk.vtkPolyData())
        self._old += [sid for sid in segmentIDs if sid not in self._old]
        self._coarse, self._surfacesAt = None, time.monotonic() + after_s

    def _makeSurface(self, segmentID: str, volumeNode, locked: Collection[str]) -> None:
        if self.node.GetSegmentation().GetSegment(segmentID) is None:
            return
        ids = self.classes.ids
        visible = segmentID in ids and segmentID not in locked
        surface = self._coarse.surface(ids.index(segmentID) + 1, volumeGeometry(volumeNode).ijk_to_ras()) if visible else vtk.vtkPolyData()
        setSurface(self.node, segmentID, surface)

    # -- segments and node ---------------------------------------------------------------------------------------------

    def follow(self, segmentationNode) -> None:
        """Names, colours and deletions in the user's segmentation hold for the preview too."""
        if self.node is None:
            return
        segmentation, shown = segmentationNode.GetSegmentation(), self.node.GetSegmentation()
        for sid in list(shown.GetSegmentIDs()):
            original, copy = segmentation.GetSegment(sid), shown.GetSegment(sid)
            if original is None:
                clear(copy)
                shown.RemoveSegment(sid)
            elif (original.GetName(), original.GetColor()) != (copy.GetName(), copy.GetColor()):
                copy.SetName(original.GetName())
                copy.SetColor(*original.GetColor())

    def setOpacity(self, opacity: float) -> None:
        self._parameters.set("opacity", float(opacity))
        if self.node is not None:
            SceneImport.setPreviewOpacity(self.node, opacity)

    def setVisible(self, visible: bool) -> None:
        if self.node is not None:
            self.node.SetDisplayVisibility(visible)

    def withhold(self, withheld: bool) -> None:
        """Hides it whatever comes, or shows it again where there is something to preview."""
        if withheld != self._withheld:
            self._withheld = withheld
            if withheld:
                self._rest()
            elif self.node is not None and not self.node.GetAttribute(_APPLIED_AS):
                self._wake()

    # -- applied or not ------------------------------------------------------------------------------------------------

    def setApplied(self, token: str) -> None:
        """These labels are those of a result now: nothing is left to preview, as long as the segmentation holds it."""
        self.node.SetAttribute(_APPLIED_AS, f"as {token}")
        self._rest()

    def followResult(self, token: str) -> None:
        """The segmentation holds the result of another Apply now, or none: after undo and redo."""
        if self.isAppliedAs(token):
            self._rest()
        else:
            self._wake()

    def isAppliedAs(self, token: str) -> bool:
        return self.node is not None and self.node.GetAttribute(_APPLIED_AS) == f"as {token}"

    def isNew(self) -> None:
        """Other labels came: shown, unless the user has hidden them."""
        if self.node is not None and self.node.GetAttribute(_APPLIED_AS):
            self.node.RemoveAttribute(_APPLIED_AS)
            self._wake()

    def _rest(self) -> None:
        """Not shown while there is nothing to preview."""
        if self.node is not None and self.node.GetDisplayVisibility():
            self.node.SetAttribute(_RESTS, "1")
            self.setVisible(False)

    def _wake(self) -> None:
        """Shown again; one that the user has hidden stays hidden."""
        if self.node is not None and self.node.GetAttribute(_RESTS) and not self._withheld:
            self.node.RemoveAttribute(_RESTS)
            self.setVisible(True)

    def nodeIsGone(self) -> None:
        """The user deleted the node: nothing is shown, but the next box has something to lie on."""
        lost = (self.labels, self.box, self.classes) if self.labels is not None else None
        self._forget()
        self._lost = lost

    def release(self) -> None:
        """The node belongs to nobody any more: its scene was closed."""
        self._forget()
        self._lost = None

    def empty(self) -> None:
        """Before the node goes, which would take the voxels of each segment out of the layer."""
        if self.node is not None:
            for sid in self.node.GetSegmentation().GetSegmentIDs():
                clear(self.node.GetSegmentation().GetSegment(sid))

    def remove(self) -> None:
        node = self.node
        self.empty()
        self.release()
        if node is not None and node.GetScene() is not None:
            node.GetScene().RemoveNode(node)

    def _forget(self) -> None:
        self.labels: np.ndarray | None = None
        self.box: Box | None = None
        self.classes: ClassTable | None = None
        self.revision = 0
        self._layer = LabelLayer()
        self._old: list[str] = []  # segments whose surface is
        self._coarse: CoarseLabels | None = None
        self._surfacesAt = 0.0

    def _isMissing(self, segmentationNode, segmentID: str) -> bool:
        shown, segmentation = self.node.GetSegmentation(), segmentationNode.GetSegmentation()
        return shown.GetSegment(segmentID) is None and segmentation.GetSegment(segmentID) is not None

    def _addMissing(self, segmentationNode, classes: ClassTable) -> None:
        for segment in classes.segments:
            if self._isMissing(segmentationNode, segment.id):
                original = segmentationNode.GetSegmentation().GetSegment(segment.id)
                SceneImport.addSegment(self.node.GetSegmentation(), describeSegment(segment.id, original))


def _exchange(labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Puts new labels in the place of others; which of all values have gone or come, bool."""
    involved, changed = np.zeros(256, bool), labels != new
    for values in (labels, new):
        involved[values[changed]] = True
    np.copyto(labels, new, where=changed)
    return involved
