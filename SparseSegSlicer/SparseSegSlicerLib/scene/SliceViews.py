"""Slice views and the volume's slices: which slice a view shows, jumping there, and which view the mouse was in last. No qt."""

from __future__ import annotations

import numpy as np
import slicer

from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry

from ..i18n import tr as _
from .Grids import arrayFromMatrix, matrixBetween, matrixFromArray, sliceCentre, volumeGeometry
from .Nodes import nodesOf

_PARALLEL = 0.999  # cosine: a view turned by less than 2.6 degrees shows the slice itself, not a cut through several
_DEFAULT_ORIENTATION = {"axial": "Axial", "coronal": "Coronal", "sagittal": "Sagittal"}


class RotatedViewError(InputError):
    """A view cuts through several slices of the volume."""


def sliceShown(sliceNode, volumeNode) -> tuple[int, int]:
    """(axis, index), axis 0 = k, of the volume's slice in a view. Raises InputError, with the remedy, where it shows none."""
    geometry = volumeGeometry(volumeNode)
    view = sliceNode.GetLayoutName()
    axes = _ijkToWorld(volumeNode, geometry)
    plane = arrayFromMatrix(sliceNode.GetSliceToRAS())
    directions = axes[:3, :3] / np.linalg.norm(axes[:3, :3], axis=0)
    normal = plane[:3, 2] / np.linalg.norm(plane[:3, 2])
    # a slice's own normal is perpendicular to its two in-plane axes, which in a sheared volume is not the third axis
    normals = np.cross(directions[:, [1, 2, 0]].T, directions[:, [2, 0, 1]].T)
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    cosines = np.abs(normals @ normal)  # i, j, k
    along = int(cosines.argmax())
    if cosines[along] < _PARALLEL:
        raise RotatedViewError(
            _("The {view} view is rotated against the volume, so it cuts through several of its slices.").format(view=view),
            _('Turn it to the volume first: press "Align views", or choose another view.'),
        )
    axis = 2 - along
    # where the plane passes the volume's middle: the view's own middle may be far away, where a slight turn counts
    middle = (axes @ [*((n - 1) / 2 for n in reversed(geometry.shape_kji)), 1])[:3]
    passed = middle + normal * ((plane[:3, 3] - middle) @ normal)
    index = round(float((np.linalg.inv(axes) @ [*passed, 1])[along]))
    if not 0 <= index < geometry.shape_kji[axis]:
        raise InputError(
            _("The {view} view shows a place outside of the volume {name}.").format(view=view, name=volumeNode.GetName()),
            _("Scroll it into the volume."),
        )
    return axis, index


def jumpTo(volumeNode, axis: int, index: int) -> str:
    """Shows a slice in the view of its orientation, which keeps pan and zoom; the view's layout name. Raises InputError where the layout shows no
    slice view."""
    geometry = volumeGeometry(volumeNode)
    nodes = shownSliceNodes(volumeNode.GetScene())
    if not nodes:
        raise InputError(_("The layout shows no slice view."), _("Choose a layout with slice views."))
    node = _viewAlong(nodes, volumeNode, geometry, axis)
    toWorld = _ijkToWorld(volumeNode, geometry) @ np.linalg.inv(geometry.ijk_to_ras())
    centre = (toWorld @ [*sliceCentre(geometry, axis, index), 1])[:3]
    node.JumpSliceByOffsetting(*centre)
    return node.GetLayoutName()


def jumpToVoxel(volumeNode, axis: int, voxel_kji: tuple[int, int, int]) -> None:
    """Shows a voxel in every slice view of the layout, in that along `axis` on its slice."""
    jumpTo(volumeNode, axis, voxel_kji[axis])
    place = (_ijkToWorld(volumeNode, volumeGeometry(volumeNode)) @ [*reversed(voxel_kji), 1])[:3]
    for node in shownSliceNodes(volumeNode.GetScene()):
        node.JumpSliceByOffsetting(*place)


def alignViews(volumeNode) -> None:
    """Turns every slice view to the volume's own planes, so that strokes stay on single slices."""
    for node in sliceNodes(volumeNode.GetScene()):
        node.RotateToVolumePlane(volumeNode)


def areAligned(volumeNode) -> bool:
    """Whether every slice view of the layout shows slices of the volume."""
    for node in shownSliceNodes(volumeNode.GetScene()):
        try:
            sliceShown(node, volumeNode)
        except RotatedViewError:
            return False
        except InputError:  # it shows a place elsewhere
            continue
    return True


def sliceNodes(scene) -> list:
    return nodesOf(scene, "vtkMRMLSliceNode")


def shownVolume(scene):
    """The scalar volume that the slice views show; None where they show none."""
    for composite in nodesOf(scene, "vtkMRMLSliceCompositeNode"):
        shown = composite.GetBackgroundVolumeID()
        node = scene.GetNodeByID(shown) if shown else None
        # not a label map, nor a volume of vectors or tensors, which are scalar volumes by inheritance
        if node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode" and node.GetImageData() is not None:
            return node
    return None


def shownSliceNodes(scene) -> list:
    """Those of the layout that is chosen now: Slicer keeps the nodes of all views that were ever shown."""
    return [node for node in sliceNodes(scene) if node.IsMappedInLayout()]


def _ijkToWorld(volumeNode, geometry) -> np.ndarray:
    toWorld = matrixBetween(volumeNode.GetParentTransformNode(), None)
    if toWorld is None:
        raise InputError(_("{name} is under a transform that is not linear.").format(name=volumeNode.GetName()), _("Harden the transform first."))
    return toWorld @ geometry.ijk_to_ras()


def _viewAlong(nodes: list, volumeNode, geometry, axis: int):
    """The first view that shows slices along this axis; else the one of that orientation, turned to the volume."""
    for node in nodes:
        try:
            if sliceShown(node, volumeNode)[0] == axis:
                return node
        except InputError:
            continue
    axes = _ijkToWorld(volumeNode, geometry)
    wanted = _DEFAULT_ORIENTATION[Geometry.from_ijk_to_ras(geometry.shape_kji, axes).planes()[axis]]
    node = next((n for n in nodes if n.GetDefaultOrientation() == wanted), nodes[0])
    node.SetOrientation(wanted)
    # not RotateToVolumePlane: it takes the axis nearest to the view's own, which in a very oblique volume may be another one
    along = 2 - axis
    order = [n for n in range(3) if n != along] + [along]
    frame = np.eye(4)
    frame[:3, order] = np.linalg.qr(axes[:3, order])[0]  # the slice's plane and its normal, also in a sheared volume
    node.RotateToAxes(matrixFromArray(frame), along)
    return node


class ViewTracker:
    """Remembers the slice view that the mouse was in last, which is what a user means by "this slice"."""

    def __init__(self, scene) -> None:
        self._crosshair = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self._lastID = ""
        self._tag = 0
        if self._crosshair is not None:
            self._tag = self._crosshair.AddObserver(slicer.vtkMRMLCrosshairNode.CursorPositionModifiedEvent, self._onMoved)

    def sliceNode(self, scene):
        """The view of the mouse, if the layout still shows it, else the first one; None without views."""
        shown = shownSliceNodes(scene)
        return next((node for node in shown if node.GetID() == self._lastID), None) or next(iter(shown), None)

    def remember(self, sliceNode) -> None:
        self._lastID = sliceNode.GetID()

    def _onMoved(self, caller, _event) -> None:
        node = caller.GetCursorPositionXYZ([0.0, 0.0, 0.0])
        if node is not None:
            self._lastID = node.GetID()

    def stop(self) -> None:
        if self._crosshair is not None:
            self._crosshair.RemoveObserver(self._tag)
            self._crosshair = None
