"""Voxel weights in the slice views: as levels in the label layer, which is never interpolated and leaves the user's foreground alone. No qt.

Whatever it changes in views and displays is remembered there, in attributes, so that it can be taken back exactly, also in a scene that was saved
meanwhile. Its nodes are singletons: a saved scene names them, but does not hold them, and no other node may ever get their ID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import vtk

from ..i18n import number
from ..i18n import tr as _
from .Grids import matrixFromArray, volumeGeometry
from .Nodes import newNode, nodesOf
from .VolumeMemory import LabelMemory, zeros

_TAG = "SparseSegSlicerWeights"
_NODE, _COLORS = "vtkMRMLLabelMapVolumeNode", "vtkMRMLColorTableNode"
_LEVELS = 255
_SCALE = ((0.27, 0.0, 0.33), (0.23, 0.32, 0.55), (0.13, 0.57, 0.55), (0.37, 0.79, 0.38), (0.99, 0.91, 0.15))  # dark to bright; no segment's colours
_OPACITY = 0.6
_BEFORE = "SparseSegSlicer.Before"  # attribute: what was there before; in a view a reference, too


@dataclass(frozen=True)
class Levels:
    """Level n stands for the weight n / 255 of the highest, rounded up, so that 0 is where the weight is."""

    memory: LabelMemory
    highest: float

    @classmethod
    def of(cls, shape_kji: Sequence[int], planes: Callable[[], Iterable[np.ndarray]]) -> Levels:
        """May run in a thread. planes(): of weights, 0 or more, along k."""
        memory, highest = LabelMemory(zeros(shape_kji)), max(float(plane.max(initial=0)) for plane in planes()) or 1.0
        for plane, levels in zip(planes(), memory.array, strict=True):
            levels[...] = np.minimum(np.ceil(plane * (_LEVELS / highest)), _LEVELS)
        return cls(memory, highest)


def shown(scene):
    """The node, None where there is none."""
    return scene.GetSingletonNode(_TAG, _NODE)


def show(volumeNode, levels: Levels, segmentationNodes: Iterable) -> None:
    """Over the volume, in all slice views; of the segmentations, outlines are left, so that no colours mix."""
    scene = volumeNode.GetScene()
    node = shown(scene) or _make(scene, _NODE, "Weight map")
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(levels.memory.array.shape))
    image.GetPointData().SetScalars(levels.memory.scalars)
    node.SetIJKToRASMatrix(matrixFromArray(volumeGeometry(volumeNode).ijk_to_ras()))
    node.SetAndObserveImageData(image)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetSaveWithScene(False)
    node.GetDisplayNode().SetAndObserveColorNodeID(_colors(scene, levels.highest).GetID())
    for composite in nodesOf(scene, "vtkMRMLSliceCompositeNode"):
        if composite.GetAttribute(_BEFORE) is None:
            composite.SetAttribute(_BEFORE, repr(composite.GetLabelOpacity()))
            composite.SetNodeReferenceID(_BEFORE, composite.GetLabelVolumeID())
        composite.SetLabelVolumeID(node.GetID())
        composite.SetLabelOpacity(_OPACITY)
    for display in (segmentation.GetDisplayNode() for segmentation in segmentationNodes if segmentation is not None):
        if display is not None and display.GetVisibility2DFill():
            display.SetAttribute(_BEFORE, "filled")
            display.SetVisibility2DFill(False)


def hide(scene) -> None:
    """Views and displays become what they were; where the user has chosen another label layer since, that stays."""
    node = shown(scene)
    for composite in nodesOf(scene, "vtkMRMLSliceCompositeNode"):
        before = composite.GetAttribute(_BEFORE)
        if before is not None:
            if composite.GetNodeReferenceID("labelVolume") in (None, f"{_NODE}{_TAG}"):
                composite.SetLabelVolumeID(composite.GetNodeReferenceID(_BEFORE))
                composite.SetLabelOpacity(float(before))
            composite.SetNodeReferenceID(_BEFORE, None)
            composite.RemoveAttribute(_BEFORE)
    for display in nodesOf(scene, "vtkMRMLSegmentationDisplayNode"):
        if display.GetAttribute(_BEFORE):
            display.RemoveAttribute(_BEFORE)
            display.SetVisibility2DFill(True)
    for gone in (node and node.GetDisplayNode(), node, scene.GetSingletonNode(_TAG, _COLORS)):
        if gone is not None:
            scene.RemoveNode(gone)


def _make(scene, className: str, name: str):
    """Out of all selectors and of the subject hierarchy, whose saved items would be of nothing."""
    node = newNode(scene, className, name, _TAG)
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    return scene.AddNode(node)


def _colors(scene, highest: float):
    """Each level's colour, and the weight that it stands for as its name, which the data probe shows."""
    node = scene.GetSingletonNode(_TAG, _COLORS) or _make(scene, _COLORS, "Weights")
    node.SetTypeToUser()
    node.SetNumberOfColors(_LEVELS + 1)
    node.SetColor(0, _("none"), 0.0, 0.0, 0.0, 0.0)
    places = np.linspace(0, 1, len(_SCALE))
    for level in range(1, _LEVELS + 1):
        color = [float(np.interp(level / _LEVELS, places, channel)) for channel in zip(*_SCALE, strict=True)]
        node.SetColor(level, _("weight {weight}").format(weight=number(highest * level / _LEVELS)), *color, 1.0)
    return node
