"""The preview node of one session: made when first needed, kept in step with the user's segments, removed without a trace. No qt."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from sparseseg.contract.classes import ClassTable

from . import SceneImport
from .Segments import describeSegment


class Preview:
    """`labels` is the label map that is shown, uint8 (K, J, I), value c is the c-th segment of `classes`; None before the first one."""

    def __init__(self, parameters) -> None:
        self._parameters = parameters
        self.labels: np.ndarray | None = None
        self.box = None
        self.classes: ClassTable | None = None
        self._surfaceIsOld = True

    @property
    def node(self):
        return self._parameters.getNode("preview")

    def show(self, segmentationNode, volumeNode, labels: np.ndarray, box, classes: ClassTable, locked: Collection[str]) -> None:
        self.labels, self.box, self.classes = labels, box, classes
        if self.node is None:
            opacity = float(self._parameters.get("opacity"))
            self._parameters.setNode("preview", SceneImport.makePreview(segmentationNode, volumeNode, classes.segments, opacity))
        self._addMissing(segmentationNode, classes)
        self.redraw(volumeNode, locked)

    def redraw(self, volumeNode, locked: Collection[str]) -> None:
        """The same label map again, for instance after a lock was set."""
        if self.labels is not None and self.node is not None:
            surface = bool(self._parameters.get("show3D"))
            SceneImport.showLabels(self.node, volumeNode, self.labels, self.box, self.classes.ids, locked, surface)
            self._surfaceIsOld = not surface

    def follow(self, segmentationNode) -> None:
        """Names, colours and deletions in the user's segmentation hold for the preview too."""
        if self.node is None:
            return
        segmentation, shown = segmentationNode.GetSegmentation(), self.node.GetSegmentation()
        for sid in list(shown.GetSegmentIDs()):
            original, copy = segmentation.GetSegment(sid), shown.GetSegment(sid)
            if original is None:
                shown.RemoveSegment(sid)
            elif (original.GetName(), original.GetColor()) != (copy.GetName(), copy.GetColor()):
                copy.SetName(original.GetName())
                copy.SetColor(*original.GetColor())

    def setOpacity(self, opacity: float) -> None:
        self._parameters.set("opacity", float(opacity))
        if self.node is not None:
            SceneImport.setPreviewOpacity(self.node, opacity)

    def setSurface(self, shown: bool, volumeNode, locked: Collection[str]) -> None:
        self._parameters.set("show3D", bool(shown))
        if self.node is None:
            return
        if not shown:
            SceneImport.removeSurfaces(self.node)
            self._surfaceIsOld = True
        elif self._surfaceIsOld:
            self.redraw(volumeNode, locked)

    def setVisible(self, visible: bool) -> None:
        if self.node is not None:
            self.node.SetDisplayVisibility(visible)

    def remove(self) -> None:
        node = self.node
        self.labels = self.box = self.classes = None
        self._surfaceIsOld = True
        if node is not None and node.GetScene() is not None:
            node.GetScene().RemoveNode(node)

    def _addMissing(self, segmentationNode, classes: ClassTable) -> None:
        shown, segmentation = self.node.GetSegmentation(), segmentationNode.GetSegmentation()
        for segment in classes.segments:
            original = segmentation.GetSegment(segment.id)
            if shown.GetSegment(segment.id) is None and original is not None:
                SceneImport.addSegment(shown, describeSegment(segment.id, original))
