"""Volumes, segmentations and transforms for the scene tests, made without the code under test. Arrays (K, J, I), matrices 4 x 4 to RAS."""

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

SHAPE = (6, 7, 8)
LABELMAP, SURFACE = "Binary labelmap", "Closed surface"


def affine(axes, origin):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, origin
    return matrix


def rotation(x=0.0, y=0.0, z=0.0):
    """Degrees about R, then A, then S."""
    turn = np.eye(3)
    for angle, (a, b) in zip(np.radians((x, y, z)), ((1, 2), (2, 0), (0, 1)), strict=True):
        step = np.eye(3)
        step[[a, b], [a, b]], step[a, b], step[b, a] = np.cos(angle), -np.sin(angle), np.sin(angle)
        turn = step @ turn
    return turn


PLAIN = affine(np.diag([-0.8, -0.9, 2.5]), (10, 20, -30))  # as scanners write them: i to the left, j backwards, k upwards
OBLIQUE = affine(rotation(x=-11, y=7, z=23) @ np.diag([-0.7, -0.8, 2.5]), (12.3, -45.6, 78.9))
LEFT_HANDED = affine(rotation(x=5, y=-8, z=14) @ np.diag([-0.7, -0.8, -2.5]), (12.3, -45.6, 78.9))
GRIDS = {"plain": PLAIN, "oblique": OBLIQUE, "left-handed": LEFT_HANDED}

MOVED = affine(rotation(z=30), (5, -7, 9))
TURNED = affine(rotation(x=40, y=-15) * 1.25, (-3, 4, 50))
NOWHERE = np.eye(4)
PARENTS = {  # of the volume, of the segmentation
    "no transform": (NOWHERE, NOWHERE),
    "volume": (MOVED, NOWHERE),
    "segmentation": (NOWHERE, MOVED),
    "same on both": (MOVED, MOVED),
    "different": (MOVED, TURNED),
}


def toMatrix(array):
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, float).ravel().tolist())
    return matrix


def toArray(matrix):
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def makeVolume(scene, grid=PLAIN, shape=SHAPE, dtype=np.int16, name="image"):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(shape[:3]))
    values = np.arange(np.prod(shape)).astype(dtype)
    values = values.reshape(-1, shape[3]) if len(shape) == 4 else values
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(values, deep=True))
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(toMatrix(grid))
    node.CreateDefaultDisplayNodes()
    return node


def putUnder(node, matrix, parent=None):
    """Puts a node under a new linear transform; none where the matrix is the identity."""
    if np.array_equal(matrix, NOWHERE):
        return None
    transform = node.GetScene().AddNewNodeByClass("vtkMRMLTransformNode", "transform")
    transform.SetMatrixTransformToParent(toMatrix(matrix))
    if parent is not None:
        transform.SetAndObserveTransformNodeID(parent.GetID())
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def makeWarp(scene):
    """A transform node that is not linear."""
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for r, a, s in [(0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (50, 50, 50)]:
        source.InsertNextPoint(r, a, s)
        target.InsertNextPoint(r, a + (6 if r and s else 0), s)
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
    node.SetAndObserveTransformToParent(spline)
    return node


def makeSegmentation(scene, *segments, name="segmentation"):
    """An empty segmentation node; each of `segments` is an ID, or (ID, name)."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    for segment in segments:
        sid, text = (segment, segment) if isinstance(segment, str) else segment
        node.GetSegmentation().AddEmptySegment(sid, text)
    return node


def paintLayer(node, values, array, grid=PLAIN, start=(0, 0, 0)):
    """Makes `array` a layer of the segmentation: values {segment ID: label value}; `start` is the array's first voxel, `grid` IJK -> frame."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent([v for first, n in zip(reversed(start), reversed(array.shape), strict=True) for v in (first, first + n - 1)])
    image.SetImageToWorldMatrix(toMatrix(grid))
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(np.ascontiguousarray(array).reshape(-1), deep=True))
    for sid, value in values.items():
        segment = node.GetSegmentation().GetSegment(sid)
        segment.SetLabelValue(value)
        segment.AddRepresentation(LABELMAP, image)


def paint(node, sid, mask, grid=PLAIN, start=(0, 0, 0)):
    """A layer of its own for one segment."""
    paintLayer(node, {sid: 1}, np.asarray(mask, np.uint8), grid, start)


def voxels(*places, shape=SHAPE):
    """A mask of the given (k, j, i); slices are allowed: voxels((2, slice(1, 3), 4))."""
    mask = np.zeros(shape, np.uint8)
    for place in places:
        mask[place] = 1
    return mask


def segmentArray(node, sid, volumeNode):
    """One segment on the volume's grid, read by Slicer."""
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, sid, volumeNode)


def rawPoints(node, sid, parent=NOWHERE):
    """World RAS of a segment's voxels, (n, 3), from its own layer; parent: what the segmentation is under."""
    segment = node.GetSegmentation().GetSegment(sid)
    image = segment.GetRepresentation(LABELMAP)
    if image is None or not image.GetNumberOfPoints() or image.GetPointData().GetScalars() is None:
        return np.zeros((0, 3))
    array = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions())))
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return pointsOf(np.argwhere(array == segment.GetLabelValue()) + np.array(image.GetExtent())[[4, 2, 0]], parent @ toArray(matrix))


def pointsOf(places_kji, toWorld):
    """World RAS of voxels, (n, 3)."""
    places = np.asarray(places_kji).reshape(-1, 3)
    return (np.column_stack([places[:, ::-1], np.ones(len(places))]) @ toWorld.T)[:, :3]


def samePoints(some, others):
    """Whether two sets of points are the same, to a hundredth of a millimetre."""
    if len(some) != len(others):
        return False
    apart = np.linalg.norm(np.asarray(some)[:, None] - np.asarray(others)[None], axis=2)
    return len(some) == 0 or bool(apart.min(0).max() < 0.01 and apart.min(1).max() < 0.01)


def sameVoxels(mask, node, sid, volumeNode):
    """Whether a segment, read by Slicer on the volume's grid, is exactly the mask."""
    return np.array_equal(segmentArray(node, sid, volumeNode) > 0, np.asarray(mask) > 0)


def fingerprint(node):
    """Everything of a segmentation node that reading must not change."""
    segmentation = node.GetSegmentation()
    parent = node.GetParentTransformNode()  # not its ID, which changes the node in being asked for
    state = [node.GetMTime(), segmentation.GetMTime(), parent and parent.GetID(), segmentation.GetSourceRepresentationName()]
    for sid in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(sid)
        state += [sid, segment.GetName(), segment.GetColor(), segment.GetLabelValue(), segment.GetMTime()]
        for representation in (LABELMAP, SURFACE):
            data = segment.GetRepresentation(representation)
            state.append(None if data is None else (data.GetAddressAsString(""), data.GetMTime()))
        image = segment.GetRepresentation(LABELMAP)
        if image is not None and image.GetPointData().GetScalars() is not None:
            state.append((image.GetExtent(), numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).tobytes()))
    return state


def sliceNode(scene, layoutName):
    return next(n for n in (scene.GetNthNodeByClass(m, "vtkMRMLSliceNode") for m in range(3)) if n.GetLayoutName() == layoutName)


def resetViews(scene):
    """Slice views outlive the scene's content; each test begins with them as a new scene has them."""
    for name, orientation in (("Red", "Axial"), ("Green", "Coronal"), ("Yellow", "Sagittal")):
        node = sliceNode(scene, name)
        node.SetOrientation(orientation)
        node.JumpSliceByCentering(0, 0, 0)
