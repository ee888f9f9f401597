"""Voxel grids: the volume's, the segmentation's, and the matrices between them. No qt; nodes are only read. All arrays (K, J, I)."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry

from ..i18n import tr as _

BINARY_LABELMAP = "Binary labelmap"  # the name of Slicer's representation, fixed by its file format


def volumeGeometry(volumeNode) -> Geometry:
    """The volume's own grid, without its parent transform. Raises InputError where it holds no image."""
    image = volumeNode.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or 0 in image.GetDimensions():
        raise InputError(_("The volume {name} holds no image.").format(name=volumeNode.GetName()), _("Choose a loaded volume."))
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return Geometry.from_ijk_to_ras(tuple(reversed(image.GetDimensions())), arrayFromMatrix(matrix))


def volumeArray(volumeNode) -> np.ndarray:
    """(K, J, I), a view of the node's voxels. Raises InputError for colour images."""
    shape = volumeGeometry(volumeNode).shape_kji
    scalars = volumeNode.GetImageData().GetPointData().GetScalars()
    if scalars.GetNumberOfComponents() != 1:
        raise InputError(
            _("The volume {name} has {count} values a voxel.").format(name=volumeNode.GetName(), count=scalars.GetNumberOfComponents()),
            _("Convert it to a scalar volume first (module Vector to Scalar Volume)."),
        )
    return numpy_support.vtk_to_numpy(scalars).reshape(shape)


def arrayFromMatrix(matrix) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def matrixFromArray(array: np.ndarray):
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, float).ravel().tolist())
    return matrix


def matrixBetween(sourceTransform, targetTransform) -> np.ndarray | None:
    """4 x 4 from one transform node's frame to another's (None: world); None where a transform on the way is not linear."""
    matrix = vtk.vtkMatrix4x4()
    linear = slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(sourceTransform, targetTransform, matrix)
    return arrayFromMatrix(matrix) if linear else None


def nodeToNode(source, target) -> np.ndarray:
    """4 x 4 from one node's frame to another's. Raises InputError where a transform on the way is not linear."""
    between = matrixBetween(source.GetParentTransformNode(), target.GetParentTransformNode())
    if between is None:
        raise InputError(
            _("{one} and {other} are under different transforms, and one is not linear.").format(one=source.GetName(), other=target.GetName()),
            _("Harden that transform, or put both under the same one."),
        )
    return between


def gridInSegmentation(volumeNode, segmentationNode, geometry: Geometry) -> np.ndarray:
    """4 x 4 from the volume's IJK to the frame in which the segmentation's layers lie, both parent transforms included."""
    return nodeToNode(volumeNode, segmentationNode) @ geometry.ijk_to_ras()


def makeLabelmaps(segmentation, grid: np.ndarray, shape_kji) -> None:
    """Gives a segmentation of closed surfaces labelmaps on a grid; grid: IJK -> the segmentation's frame."""
    converter = slicer.vtkSegmentationConverter
    geometry = converter.SerializeImageGeometry(emptyImage(grid, shape_kji))
    segmentation.SetConversionParameter(converter.GetReferenceImageGeometryParameterName(), geometry)
    segmentation.CreateRepresentation(BINARY_LABELMAP)


def holdLabelmaps(segmentation, grid: np.ndarray, shape_kji) -> None:
    """Makes labelmaps what a segmentation consists of, where it was closed surfaces."""
    if segmentation.GetSourceRepresentationName() != BINARY_LABELMAP:
        makeLabelmaps(segmentation, grid, shape_kji)
        segmentation.SetSourceRepresentationName(BINARY_LABELMAP)


def emptyImage(grid: np.ndarray, shape_kji, box=None):
    image = slicer.vtkOrientedImageData()
    ranges = [(part.start, part.stop) for part in box] if box else [(0, n) for n in shape_kji]
    image.SetExtent([v for start, stop in reversed(ranges) for v in (start, stop - 1)])
    image.SetImageToWorldMatrix(matrixFromArray(grid))
    return image


def filledImage(array: np.ndarray, grid: np.ndarray, box):
    """An image of these voxels, copied; box: where they lie. May run in a thread."""
    image = emptyImage(grid, (), box)
    scalars = vtk.vtkDataArray.CreateDataArray(numpy_support.get_vtk_array_type(array.dtype))
    scalars.SetNumberOfValues(array.size)
    np.copyto(numpy_support.vtk_to_numpy(scalars).reshape(array.shape), array)
    image.GetPointData().SetScalars(scalars)
    return image


def sliceCentre(geometry: Geometry, axis: int, index: int) -> np.ndarray:
    """RAS millimetres of a slice's middle, without parent transforms."""
    kji = [(n - 1) / 2 for n in geometry.shape_kji]
    kji[axis] = index
    return (geometry.ijk_to_ras() @ [*reversed(kji), 1])[:3]
