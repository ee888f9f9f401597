"""Slicer's Markups -> hints, in the volume's own frame: a ROI is the box that holds a segment, control points are places in it or not. No qt."""

from __future__ import annotations

import numpy as np
import slicer
import vtk

from sparseseg.contract.errors import InputError
from sparseseg.contract.hints import Point, Roi, Vector

from ..i18n import tr as _
from .Grids import arrayFromMatrix, nodeToNode

ROI_CLASS, POINTS_CLASS = "vtkMRMLMarkupsROINode", "vtkMRMLMarkupsFiducialNode"
_TO_LPS = np.array([-1.0, -1.0, 1.0])
_RIGHT_ANGLES = 1e-3  # how far a box's axes may be from them


def roiOf(node, volumeNode) -> Roi | None:
    """None where it is not placed yet. Raises InputError where transforms leave no box of it."""
    if min(node.GetSize()) <= 0:
        return None
    box = nodeToNode(node, volumeNode) @ arrayFromMatrix(node.GetObjectToNodeMatrix())
    lengths = np.linalg.norm(box[:3, :3], axis=0)
    axes = (_TO_LPS[:, None] * box[:3, :3] / lengths).T
    if np.abs(axes @ axes.T - np.eye(3)).max() > _RIGHT_ANGLES:
        raise InputError(
            _("A transform shears {name}, so it is no box any more.").format(name=node.GetName()), _("Put it under the transform of the volume.")
        )
    x, y, z = (_vector(axis) for axis in axes)
    return Roi(_vector(_TO_LPS * box[:3, 3]), _vector(lengths * node.GetSize()), (x, y, z))


def pointsOf(node, volumeNode) -> tuple[Point, ...]:
    """Its control points, but those that are not placed."""
    toVolume = vtk.vtkGeneralTransform()  # which holds any transform, linear or not
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), volumeNode.GetParentTransformNode(), toVolume)
    placed = [n for n in range(node.GetNumberOfControlPoints()) if node.GetNthControlPointPositionStatus(n) == node.PositionDefined]
    places = (toVolume.TransformPoint(node.GetNthControlPointPosition(n)) for n in placed)
    return tuple(Point(_vector(_TO_LPS * place)) for place in places)


def makeVisible(node) -> None:
    """Of a new node: whoever adds it may have left that out."""
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()


def _vector(values) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
