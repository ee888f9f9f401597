"""Volumes and results that the engine writes part by part, as Slicer's own readers read them."""

import numpy as np
import pytest
import vtk
from vtk.util import numpy_support

from phantoms import two_organs
from sparseseg import io

PHANTOM = two_organs()


@pytest.fixture
def scene(scene_host):
    return scene_host.scene


@pytest.mark.parametrize("kind", ["i2", "f4"])
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii.gz", "a.nii"])
def test_a_volume_is_read_with_its_place(scene, tmp_path, name, kind):
    io.write_volume(tmp_path / name, PHANTOM.image.astype(kind), PHANTOM.geometry)
    storage, node = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode"), scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    storage.SetFileName(str(tmp_path / name))
    assert storage.ReadData(node)
    values = numpy_support.vtk_to_numpy(node.GetImageData().GetPointData().GetScalars())
    np.testing.assert_array_equal(values.reshape(PHANTOM.image.shape), PHANTOM.image)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    found = [[matrix.GetElement(row, column) for column in range(4)] for row in range(4)]
    np.testing.assert_allclose(found, PHANTOM.geometry.ijk_to_ras(), atol=1e-5)


def test_a_segmentation_is_read_with_its_segments(scene, tmp_path):
    io.write_segmentation(tmp_path / "a.seg.nrrd", PHANTOM.truth, PHANTOM.geometry, PHANTOM.classes)
    storage, node = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode"), scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage.SetFileName(str(tmp_path / "a.seg.nrrd"))
    assert storage.ReadData(node)
    segments = [node.GetSegmentation().GetNthSegment(n) for n in range(node.GetSegmentation().GetNumberOfSegments())]
    assert [segment.GetName() for segment in segments] == ["bright", "dark"]
    layer = segments[0].GetRepresentation("Binary labelmap")
    values = numpy_support.vtk_to_numpy(layer.GetPointData().GetScalars())
    assert np.bincount(values, minlength=3)[1:].tolist() == np.bincount(PHANTOM.truth.ravel())[1:].tolist()
