"""Markups as hints: in the volume's own frame, whatever transforms there are."""

import itertools

import numpy as np
import pytest
from scenes import GRIDS, MOVED, NOWHERE, PARENTS, PLAIN, makeVolume, makeWarp, putUnder, rotation, samePoints, toMatrix
from vtk.util.numpy_support import vtk_to_numpy

from sparseseg.contract.errors import InputError
from SparseSegSlicerLib.scene.Grids import volumeGeometry
from SparseSegSlicerLib.scene.HintNodes import POINTS_CLASS, ROI_CLASS, pointsOf, roiOf

SOME = (2, 3, 4)  # k, j, i
STRAIGHT = np.eye(3)


@pytest.fixture
def scene(scene_host):
    return scene_host.scene


def makeRoi(scene, center=(0, 0, 0), size=(1, 1, 1), axes=STRAIGHT):
    node = scene.AddNewNodeByClass(ROI_CLASS, "box")
    turned = np.eye(4)
    turned[:3, :3] = axes
    node.SetAndObserveObjectToNodeMatrix(toMatrix(turned))
    node.SetSize(*size)
    node.SetCenter(*center)
    return node


def makePoints(scene, *places):
    node = scene.AddNewNodeByClass(POINTS_CLASS, "points")
    for place in places:
        node.AddControlPoint(*place)
    return node


def worldOf(volume, kji, parent=NOWHERE):
    """World RAS of a voxel."""
    return (parent @ volumeGeometry(volume).ijk_to_ras() @ [*reversed(kji), 1])[:3]


def voxelOf(volume, point):
    geometry = volumeGeometry(volume)
    return tuple(np.rint(np.linalg.solve(geometry.matrix, [*point.at_lps_mm, 1]))[2::-1].astype(int).tolist())


@pytest.mark.parametrize("parents", PARENTS)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_point_is_the_voxel_that_it_lies_on_in_the_views(scene, grid, parents):
    volume = makeVolume(scene, GRIDS[grid])
    above, beside = PARENTS[parents]
    putUnder(volume, above)
    points = makePoints(scene)
    putUnder(points, beside)
    points.AddControlPointWorld(*worldOf(volume, SOME, above))
    (point,) = pointsOf(points, volume)
    assert voxelOf(volume, point) == SOME and point.radius_mm is None


@pytest.mark.parametrize("parents", PARENTS)
@pytest.mark.parametrize("axes", [STRAIGHT, rotation(x=20, y=-30, z=50)])
def test_a_box_has_the_corners_that_slicer_draws(scene, axes, parents):
    """Not what IsPointInROIWorld says, which forgets that a transform stretches."""
    volume = makeVolume(scene, GRIDS["oblique"])
    above, beside = PARENTS[parents]
    putUnder(volume, above)
    roi = makeRoi(scene, (5, -6, 7), (4.0, 6.0, 9.0), axes)
    putUnder(roi, beside)
    drawn = roi.CreateROIBoxPolyDataWorld()
    found = roiOf(roi, volume)
    signs = np.array(list(itertools.product((-1, 1), repeat=3)))
    corners = found.center_lps_mm + (signs * found.size_mm / 2) @ np.array(found.axes)
    world = np.column_stack([corners * (-1, -1, 1), np.ones(8)]) @ above.T
    assert samePoints(np.unique(vtk_to_numpy(drawn.GetPoints().GetData()).round(4), axis=0), world[:, :3])


def test_what_is_not_placed_is_no_hint(scene):
    volume = makeVolume(scene)
    assert roiOf(scene.AddNewNodeByClass(ROI_CLASS), volume) is None
    points = makePoints(scene, (1, 2, 3), (4, 5, 6))
    points.UnsetNthControlPointPosition(0)
    assert [point.at_lps_mm for point in pointsOf(points, volume)] == [(-4, -5, 6)]


def test_a_box_under_a_warp_is_refused_but_points_follow_it(scene):
    volume, roi, points = makeVolume(scene), makeRoi(scene), makePoints(scene, (1, 2, 3))
    warp = makeWarp(scene)
    for node in (roi, points):
        node.SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(InputError, match="box and image are under different transforms, and one is not linear"):
        roiOf(roi, volume)
    world = [0, 0, 0]
    points.GetNthControlPointPositionWorld(0, world)
    (point,) = pointsOf(points, volume)
    assert np.allclose(point.at_lps_mm, np.array(world) * (-1, -1, 1), atol=1e-4)


def test_a_sheared_box_is_refused(scene):
    volume, roi = makeVolume(scene), makeRoi(scene)
    shear = np.eye(4)
    shear[0, 1] = 0.5
    putUnder(roi, shear)
    with pytest.raises(InputError, match="shears box"):
        roiOf(roi, volume)


def test_a_stretched_box_is_as_long_as_it_looks(scene):
    volume, roi = makeVolume(scene, PLAIN), makeRoi(scene, (0, 0, 0), (2, 3, 4))
    putUnder(roi, MOVED @ np.diag([2, 1, 3, 1]))
    found = roiOf(roi, volume)
    assert np.allclose(found.size_mm, (4, 3, 12))
    assert np.allclose(found.center_lps_mm, (-5, 7, 9))
