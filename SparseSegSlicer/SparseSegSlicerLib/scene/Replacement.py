"""What Apply puts into a segmentation, made beforehand: the result as one layer, layers that others shared without what is replaced, the strokes to
be kept, and surfaces. All but the constructor's inputs and `put` is arrays and images that are in no scene, and may run in a thread. No qt.

What is painted while it is made counts as painted after Apply: `follow` puts it onto the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import vtk

from sparseseg import __version__
from sparseseg.contract.box import Box, shape_of, union, within

from . import KeptStrokes, Merging
from .Grids import BINARY_LABELMAP, filledImage, holdLabelmaps
from .Layers import imageArray, keyOf
from .Segments import APPLIED_TAG
from .Snapshot import Snapshot
from .Surfaces import CLOSED_SURFACE, CoarseLabels, showSurfaces


class Replacement:
    """labels: uint8 (K, J, I), value c becomes shown[c - 1], where that is not empty; nobody may write to it until `make` has ended. grid: IJK -> the
    segmentation's frame. snapshot: what is painted, whose strokes are to be kept; None: nothing is, as in a new segmentation."""

    def __init__(
        self, labels: np.ndarray, box: Box, shown: Sequence[str], grid: np.ndarray, token: str, surfaces: bool, snapshot: Snapshot | None = None
    ) -> None:
        self.replaced = [sid for sid in shown if sid]
        self.snapshot = snapshot  # as it is followed
        self.strokes = None
        self._labels, self._box, self._shown, self._grid, self._token, self._wanted = labels, box, shown, grid, token, surfaces
        self._begun = snapshot
        self._surfaces: dict[str, object] = {}
        self._others: dict[str, object] = {}  # key of a layer -> what it becomes for the segments that stay
        self._shared: set[str] | None = set()  # keys of other layers that segments that stay may share; None: any

    # -- in any thread -------------------------------------------------------------------------------------------------

    def make(self) -> Replacement:
        self._image = filledImage(self._labels[self._box], self._grid, self._box)
        Merging.translate(imageArray(self._image), self._table())
        if self._wanted:
            coarse = CoarseLabels(self._labels, self._box)
            coarse.goOn()
            self._surfaces = {sid: coarse.surface(value, self._grid) for value, sid in enumerate(self._shown, start=1) if sid}
        if self.snapshot is not None:
            self._keep()
            self._cleanOthers()
        return self

    def follow(self, snapshot: Snapshot) -> Replacement:
        """After something was painted since the snapshot that this was made from."""
        self.snapshot = snapshot
        painted = Merging.changed(self._begun.layers, snapshot.layers)
        if painted is not None:
            box = union(self._box, painted)
            self._image = filledImage(np.broadcast_to(np.uint8(0), shape_of(box)), self._grid, box)
            values = imageArray(self._image)
            values[within(self._box, box)] = imageArray(self._applied)
            for _, piece in Merging.pieces(painted):
                self._repaint(values[within(piece, box)], piece)
        self._cleanOthers()
        return self

    def _table(self) -> np.ndarray:
        """Of a value of the labels: n for that of the n-th segment that is replaced."""
        table = np.zeros(256, np.uint8)
        table[[value for value, sid in enumerate(self._shown, start=1) if sid]] = np.arange(1, len(self.replaced) + 1)
        return table

    def _keep(self) -> None:
        """The strokes as they are, beside the result as it is applied; and of segments that stay, which hold an earlier result, what they hold."""
        snapshot = self.snapshot
        self.strokes = KeptStrokes.gathered(snapshot, self._grid, self.replaced)
        self._applied = KeptStrokes.keptImage(imageArray(self._image), self._grid, self._box)
        voxels = Merging.labelledIn(imageArray(self._applied))
        for value, sid in enumerate(self.replaced, start=1):
            KeptStrokes.addResult(self.strokes, sid, self._token, self._applied if voxels[value] else None, value)
        images = {}
        for place in self._heldPlaces():
            image, value = KeptStrokes.layerImage(snapshot.layers, place, self._grid, images)
            KeptStrokes.addResult(self.strokes, snapshot.segments[place].id, self._token, image, value)

    def _heldPlaces(self) -> list[int]:
        kept, segments = self.snapshot.kept, self.snapshot.segments
        return [] if kept is None else [place for place in kept.places if segments[place].id not in self.replaced]

    def _cleanOthers(self) -> None:
        """Layers that are shared by segments that are replaced and others, for those others alone."""
        self._others, self._shared = {}, set()
        for layer in self.snapshot.layers:
            gone = [value for value, place in layer.places.items() if self.snapshot.segments[place].id in self.replaced]
            if not gone or len(gone) == len(layer.places):
                continue
            if layer.isOnGrid:
                self._others[layer.key] = filledImage(layer.values, self._grid, layer.box)
                for plane in imageArray(self._others[layer.key]):
                    plane[np.isin(plane, gone)] = 0
            else:
                self._shared.add(layer.key)

    def _repaint(self, values: np.ndarray, box: Box) -> None:
        """What was painted in a box, and what was erased there, in the result's values, in place; 255 stands for the segments that stay."""
        codes = np.array([self.replaced.index(s.id) + 1 if s.id in self.replaced else 255 for s in self.snapshot.segments], np.uint8)
        before, after = (Merging.filled(snapshot.layers, codes, box) for snapshot in (self._begun, self.snapshot))
        for then in Merging.without(before, after):
            values[(then != 0) & (values == then)] = 0
        for now in Merging.without(after, before):
            values[now != 0] = np.where(now == 255, 0, now)[now != 0]

    # -- on the main thread ------------------------------------------------------------------------------------------------

    def put(self, segmentationNode) -> None:
        """Nothing is copied here, where the segmentation consists of label maps on the volume's grid."""
        segmentation = segmentationNode.GetSegmentation()
        before = {sid: segmentation.GetSegment(sid).GetRepresentation(CLOSED_SURFACE) for sid in segmentation.GetSegmentIDs()}
        if segmentation.GetSourceRepresentationName() != BINARY_LABELMAP:
            holdLabelmaps(segmentation, self._grid, self._labels.shape)
            self._others, self._shared = {}, None  # those were of other layers
        held = [] if self.snapshot is None else [self.snapshot.segments[place].id for place in self._heldPlaces()]
        for data in (self._image, *self._others.values(), *self._surfaces.values()):
            data.Modified()  # what is older than the state saved for undo, Slicer's history takes for that state
        modified = segmentationNode.StartModify()
        for sid in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(sid)
            if sid in self.replaced:
                self._replace(segmentation, sid)
            elif segment.GetRepresentation(BINARY_LABELMAP) is not None:
                image = self._others.get(keyOf(segment.GetRepresentation(BINARY_LABELMAP)))
                if image is not None:
                    segment.AddRepresentation(BINARY_LABELMAP, image)
            if sid in held:  # its corrections are among the strokes now
                segment.SetTag(APPLIED_TAG, self._token)
        if self._wanted:
            self._setSurfaces(segmentationNode, before)
        segmentationNode.EndModify(modified)
        segmentation.InvokeEvent(slicer.vtkSegmentation.SourceRepresentationModified)
        segmentation.InvokeEvent(slicer.vtkSegmentation.RepresentationModified)

    def _replace(self, segmentation, segmentID: str) -> None:
        segment = segmentation.GetSegment(segmentID)
        shown = segment.GetRepresentation(BINARY_LABELMAP)
        if shown is not None and (self._shared is None or keyOf(shown) in self._shared):
            segmentation.SeparateSegmentLabelmap(segmentID)  # Slicer's slow way to take it out of a layer that others share
        segment.SetLabelValue(self.replaced.index(segmentID) + 1)
        segment.AddRepresentation(BINARY_LABELMAP, self._image)
        segment.SetTag(APPLIED_TAG, self._token)
        # what Slicer's DICOM SEG export asks for
        segment.SetTag("DICOM.SegmentAlgorithmType", "SEMIAUTOMATIC")
        segment.SetTag("DICOM.SegmentAlgorithmName", f"SparseSegSlicer {__version__}")

    def _setSurfaces(self, segmentationNode, before: dict) -> None:
        """Those of the bounded grid; Slicer would make its own slowly, and does so where it finds none."""
        segmentation = segmentationNode.GetSegmentation()
        for sid in segmentation.GetSegmentIDs():
            surface = self._surfaces[sid] if sid in self._surfaces else before.get(sid) or vtk.vtkPolyData()
            segmentation.GetSegment(sid).AddRepresentation(CLOSED_SURFACE, surface)
        showSurfaces(segmentationNode)
