"""The preview's label map as one layer that all its segments share: taken over whole, or written box by box. No qt.

A segment's label value is its value in the label map, so nothing is renumbered; a hidden segment is taken off the layer and has an empty one of
its own. Slicer shows of a layer only the values that a segment claims.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import slicer

from sparseseg.contract.box import Box

from .Grids import BINARY_LABELMAP, matrixFromArray
from .VolumeMemory import LabelMemory


class LabelLayer:
    def __init__(self) -> None:
        self._image = slicer.vtkOrientedImageData()
        self._memory: LabelMemory | None = None

    def show(self, previewNode, memory: LabelMemory, ijkToFrame: np.ndarray, ids: Sequence[str], hidden: Collection[str]) -> None:
        """All of it; value c is ids[c - 1]. Takes the memory over, so that nothing of the volume's size is copied here."""
        self._memory = memory
        image = self._image
        image.SetExtent([v for n in reversed(memory.array.shape) for v in (0, n - 1)])
        image.SetImageToWorldMatrix(matrixFromArray(ijkToFrame))
        image.GetPointData().SetScalars(memory.scalars)
        self.claim(previewNode, ids, hidden)
        self.tell(previewNode)

    def claim(self, previewNode, ids: Sequence[str], hidden: Collection[str]) -> None:
        """Puts each segment on the layer with its value, or on an empty one where it is hidden or not of these IDs."""
        segmentation = previewNode.GetSegmentation()
        for sid in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(sid)
            value = ids.index(sid) + 1 if sid in ids and sid not in hidden else 0
            shown = segment.GetRepresentation(BINARY_LABELMAP)
            if value and (shown is not self._image or segment.GetLabelValue() != value):
                segment.SetLabelValue(value)
                segment.AddRepresentation(BINARY_LABELMAP, self._image)
            elif not value and (shown is None or shown.GetNumberOfPoints()):
                clear(segment)

    def put(self, box: Box, labels: np.ndarray) -> None:
        """A box of it, in place, to be told of when all is there."""
        if self._memory is not None:
            np.copyto(self._memory.array[box], labels, where=self._memory.array[box] != labels)

    def tell(self, previewNode) -> bool:
        """Views draw it again; false where somebody else has changed the layer, so that it must be shown anew. Not by the image's own event, on which
        Slicer would throw away the surfaces: they are made again later."""
        if not self._isHeld():
            return False
        self._memory.scalars.Modified()
        segmentation = previewNode.GetSegmentation()
        segmentation.InvokeEvent(slicer.vtkSegmentation.SourceRepresentationModified)
        segmentation.InvokeEvent(slicer.vtkSegmentation.RepresentationModified)
        return True

    def _isHeld(self) -> bool:
        if self._memory is None or self._image.GetPointData().GetScalars() is not self._memory.scalars:
            return False
        return tuple(reversed(self._image.GetDimensions())) == self._memory.array.shape


def clear(segment) -> None:
    """Takes a segment off the layer that it shares, which keeps its voxels: so a removal does not go through all of them."""
    segment.AddRepresentation(BINARY_LABELMAP, slicer.vtkOrientedImageData())
