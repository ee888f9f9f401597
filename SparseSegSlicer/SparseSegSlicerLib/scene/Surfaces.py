"""Smoothed surfaces of a label map for the 3-D views, one segment at a time, so that no step keeps the user waiting. No qt.

Surfaces are made on a grid so coarse that they take the same short time for any volume.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from sparseseg.contract.box import Box, box_of
from sparseseg.contract.geometry import Geometry

from .Grids import matrixFromArray

CLOSED_SURFACE = "Closed surface"
_SURFACE_VOXELS = 1_000_000  # of the coarse grid, at most
_SMOOTHING = 15


class CoarseLabels:
    """A label map on the surfaces' grid, once `goOn` has made it; may be made in a thread."""

    def __init__(self, labels: np.ndarray, box: Box) -> None:
        cropped = labels[box]
        self.step = max(1, int(np.ceil((cropped.size / _SURFACE_VOXELS) ** (1 / 3))))
        self.start = [part.start for part in box]
        self._taken = cropped[:: self.step, :: self.step, :: self.step]
        self.array, self._planes = np.zeros(self._taken.shape, np.uint8), 0

    @property
    def isMade(self) -> bool:
        return self._planes == len(self.array)

    def goOn(self, until: float = math.inf) -> None:
        """Plane by plane, one at least; until: of time.perf_counter. Reading a few voxels of all pages of a large map takes its time."""
        while not self.isMade:
            self.array[self._planes] = self._taken[self._planes]
            self._planes += 1
            if time.perf_counter() > until:
                break

    def surface(self, value: int, ijkToFrame: np.ndarray):
        """In the frame that the matrix leads to; empty where no voxel has the value. May run in a thread."""
        mask = self.array == value
        box = box_of(mask)
        if box is None:
            return vtk.vtkPolyData()
        mask = np.pad(mask[box], 1).view(np.uint8)  # a border of zeros closes the surface
        first = [start + self.step * (part.start - 1) for start, part in zip(self.start, box, strict=True)]
        toFrame = vtk.vtkTransform()
        toFrame.SetMatrix(matrixFromArray(ijkToFrame @ _scaling(self.step, first)))
        image = vtk.vtkImageData()
        image.SetDimensions(*reversed(mask.shape))
        image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(mask.reshape(-1), deep=True))
        return _surface(image, toFrame)


def makeSurfaces(previewNode, labels: np.ndarray, box: Box, geometry: Geometry, ids: Sequence[str]) -> None:
    """Of all segments, now: ids[c - 1] is value c; the others' are empty."""
    coarse = CoarseLabels(labels, box)
    coarse.goOn()
    for sid in previewNode.GetSegmentation().GetSegmentIDs():
        setSurface(previewNode, sid, coarse.surface(ids.index(sid) + 1, geometry.ijk_to_ras()) if sid in ids else vtk.vtkPolyData())
    showSurfaces(previewNode)


def setSurface(previewNode, segmentID: str, surface) -> None:
    """An empty one where there is nothing: Slicer asks only the first segment whether there are surfaces to show."""
    previewNode.GetSegmentation().GetSegment(segmentID).AddRepresentation(CLOSED_SURFACE, surface)


def showSurfaces(previewNode) -> None:
    """Tells the views, after surfaces were set."""
    previewNode.GetDisplayNode().SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)
    previewNode.GetSegmentation().InvokeEvent(slicer.vtkSegmentation.RepresentationModified)
    previewNode.Modified()


def removeSurfaces(previewNode) -> None:
    previewNode.GetSegmentation().RemoveRepresentation(CLOSED_SURFACE)


def _scaling(step: int, start_kji: Sequence[int]) -> np.ndarray:
    matrix = np.diag([step, step, step, 1.0])
    matrix[:3, 3] = list(reversed(start_kji))
    return matrix


def _surface(image, toFrame):
    contour = vtk.vtkDiscreteFlyingEdges3D()
    contour.SetInputData(image)
    contour.ComputeNormalsOff()
    contour.ComputeGradientsOff()
    contour.SetValue(0, 1)
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(contour.GetOutputPort())
    smooth.SetNumberOfIterations(_SMOOTHING)
    smooth.SetPassBand(0.05)
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    smooth.NormalizeCoordinatesOn()
    place = vtk.vtkTransformPolyDataFilter()
    place.SetInputConnection(smooth.GetOutputPort())
    place.SetTransform(toFrame)
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(place.GetOutputPort())
    normals.SplittingOff()
    normals.SetFlipNormals(toFrame.GetMatrix().Determinant() < 0)  # left-handed axes turn the surface inside out
    normals.Update()
    surface = vtk.vtkPolyData()
    surface.ShallowCopy(normals.GetOutput())
    return surface
