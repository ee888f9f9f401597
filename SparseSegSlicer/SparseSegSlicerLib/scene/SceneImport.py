"""Dense label map -> preview and new segmentations. No qt.

The preview is a segmentation of its own, under the volume's parent transform, so that a label map lies on the volume's voxels whatever the
user's segmentation is under. The user's segmentation is changed by `AppliedResult` alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import slicer
import vtk

from sparseseg.contract.classes import ClassTable, Segment

from .Grids import filledImage, volumeGeometry
from .LabelLayer import LabelLayer
from .Layers import imageArray
from .Merging import boxWhere, translate
from .Surfaces import makeSurfaces, removeSurfaces
from .VolumeMemory import LabelMemory

PREVIEW_ATTRIBUTE = "SparseSegSlicer.IsPreview"  # node attribute: made anew all the time, so nobody should paint in it

_FAINT, _THICK = 0.3, 2  # of the preview in slice views: its fill for the opacity that is chosen, its outline in pixels


def boundingBox(labels: np.ndarray) -> tuple[slice, slice, slice]:
    """Of the non-zero voxels; one voxel where there are none. May run in a thread."""
    return boxWhere(labels.shape, lambda planes: labels[planes] != 0) or (slice(0, 1),) * 3


# -- preview -----------------------------------------------------------------------------------------------------------


def makePreview(segmentationNode, volumeNode, segments: Sequence[Segment], opacity: float):
    """An empty segmentation node beside the user's, with the same segment IDs, names, colours and tags; saved with the scene."""
    node = volumeNode.GetScene().AddNewNodeByClass("vtkMRMLSegmentationNode", f"{segmentationNode.GetName()} preview")
    node.SetAttribute(PREVIEW_ATTRIBUTE, "1")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    for segment in segments:
        addSegment(node.GetSegmentation(), segment)
    setPreviewOpacity(node, opacity)
    placeInStudy(node, volumeNode)
    return node


def addSegment(segmentation, segment: Segment) -> None:
    segmentation.AddEmptySegment(segment.id, segment.name, segment.color)
    added = segmentation.GetSegment(segment.id)
    added.SetColor(*segment.color)  # AddEmptySegment ignores the colour in some versions
    for name, value in segment.tags.items():
        added.SetTag(name, value)


def showLabels(previewNode, volumeNode, labels: np.ndarray, box, ids: Sequence[str], hidden: Collection[str], surface: bool) -> LabelLayer:
    """Puts a label map into the preview, all at once: uint8 (K, J, I), value c is ids[c - 1]; `hidden` segments are left empty.

    box: where its non-zero voxels lie (`boundingBox`). IDs that the preview has no longer are skipped.
    """
    layer = LabelLayer()
    removeSurfaces(previewNode)
    previewNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    geometry = volumeGeometry(volumeNode)
    layer.show(previewNode, LabelMemory.of(labels), geometry.ijk_to_ras(), ids, hidden)
    if surface:
        makeSurfaces(previewNode, labels, box, geometry, [sid if sid not in hidden else "" for sid in ids])
    return layer


def setPreviewOpacity(previewNode, opacity: float) -> None:
    """Opacity 0..1 of the surface. In the slice views a thick outline and a faint fill, under which strokes of the same colour are seen; the strokes'
    own display, a strong fill and a thin outline, is the user's."""
    display = previewNode.GetDisplayNode()
    display.SetOpacity2DFill(_FAINT * opacity)
    display.SetOpacity2DOutline(min(1.0, 2 * opacity))
    display.SetSliceIntersectionThickness(_THICK)
    display.SetOpacity3D(opacity)


# -- segmentations -------------------------------------------------------------------------------------------------------


def makeResultNode(sourceNode, volumeNode, segments: Sequence[Segment]):
    """A new, empty segmentation for a result, with the segments' IDs, names, colours and tags, in the volume's study."""
    node = _makeNode(volumeNode, f"{sourceNode.GetName()} dense")
    order = list(sourceNode.GetSegmentation().GetSegmentIDs())
    for segment in sorted(segments, key=lambda s: order.index(s.id) if s.id in order else len(order)):
        addSegment(node.GetSegmentation(), segment)
        original = sourceNode.GetSegmentation().GetSegment(segment.id)
        if original is not None:
            node.GetSegmentation().GetSegment(segment.id).DeepCopyMetadata(original)
    return node


def makeLoaded(volumeNode, name: str, annotation: np.ndarray, box, classes: ClassTable):
    """A segmentation read from a file: annotation values (K, J, I) uint8, 1 background, 1 + c segment c; box: where they are not 0."""
    node = _makeNode(volumeNode, name)
    ids = [classes.background.id if classes.background else "", *classes.ids]
    for segment in (*([classes.background] if classes.background else []), *classes.segments):
        addSegment(node.GetSegmentation(), segment)
    importLabels(node, orientedImage(annotation, box, volumeGeometry(volumeNode).ijk_to_ras(), ids), ids)
    return node


def _makeNode(volumeNode, name: str):
    """An empty segmentation with the volume's geometry and parent transform, in its study."""
    scene = volumeNode.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(name))
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    placeInStudy(node, volumeNode)
    return node


def placeInStudy(node, volumeNode) -> None:
    """Beside the volume in the subject hierarchy: in its study, or its folder."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volumeNode.GetScene())
    if hierarchy is None:
        return
    volumeItem, item = hierarchy.GetItemByDataNode(volumeNode), hierarchy.GetItemByDataNode(node)
    if volumeItem and item:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(volumeItem))


def importLabels(segmentationNode, image, ids: Sequence[str]) -> None:
    """Value n of the image becomes the n-th non-empty ID; existing names, colours and tags stay."""
    named = vtk.vtkStringArray()
    for sid in ids:
        if sid:
            named.InsertNextValue(sid)
    if named.GetNumberOfValues():
        slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(image, segmentationNode, named)


def orientedImage(labels: np.ndarray, box, ijkToFrame: np.ndarray, ids: Sequence[str]):
    """The label map's part in `box`, with value n for the n-th non-empty ID and 0 for the others."""
    values = np.zeros(256, np.uint8)
    used = [value for value, sid in enumerate(ids, start=1) if sid]
    values[used] = np.arange(1, len(used) + 1)
    image = filledImage(labels[box], ijkToFrame, box)
    if not (values[: len(ids) + 1] == np.arange(len(ids) + 1)).all():
        translate(imageArray(image), values)
    return image
