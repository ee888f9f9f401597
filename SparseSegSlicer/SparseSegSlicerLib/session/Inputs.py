"""The nodes that a session is about: preparing them, and hearing of everything that happens to them and to their scene. No qt."""

from __future__ import annotations

from collections.abc import Callable

import slicer
import vtk

from ..i18n import tr as _
from ..scene import SceneImport
from ..scene.Grids import BINARY_LABELMAP
from ..scene.KeptStrokes import TARGET_ROLE
from ..scene.Nodes import nodesOf
from ..scene.Segments import backgroundSegmentID, markBackground, structureIDs
from ..scene.Surfaces import CLOSED_SURFACE
from .Observers import Observers

_BACKGROUND_COLOR = (0.45, 0.45, 0.45)


class Inputs:
    """Calls what it is given: each name says what has happened."""

    def __init__(self, scene) -> None:
        self._scene = scene
        self._ofScene, self._ofInputs = Observers(), Observers()

    def __len__(self) -> int:
        return len(self._ofScene) + len(self._ofInputs)

    def observeScene(self, closing: Callable, replaced: Callable, adding: Callable, removed: Callable) -> None:
        events = slicer.vtkMRMLScene

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def onNodeRemoved(_caller, _event, node) -> None:
            if not self._scene.IsClosing():
                removed(node)

        for event, call in ((events.StartCloseEvent, closing), (events.StartImportEvent, adding)):
            self._ofScene.add(self._scene, event, lambda *_, call=call: call())
        self._ofScene.add(self._scene, (events.EndCloseEvent, events.EndImportEvent), lambda *_: replaced())
        self._ofScene.add(self._scene, events.NodeAboutToBeRemovedEvent, onNodeRemoved)

    def observe(self, volume, segmentation, painted: Callable, moved: Callable, imageChanged: Callable) -> None:
        contents, events = segmentation.GetSegmentation(), slicer.vtkSegmentation
        changes = [events.SourceRepresentationModified, events.SegmentAdded, events.SegmentRemoved, events.SegmentModified]
        turned = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        for subject, event, call in (
            (contents, changes, painted),
            (segmentation, turned, painted),
            (volume, turned, moved),
        ):
            self._ofInputs.add(subject, event, lambda *_, call=call: call())
        whenVoxelsChange(self._ofInputs, volume, imageChanged)

    def forget(self) -> None:
        self._ofInputs.clear()

    def close(self) -> None:
        self._ofInputs.clear()
        self._ofScene.clear()


def whenVoxelsChange(observers: Observers, volume, call: Callable[[], None]) -> None:
    events = (slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, vtk.vtkCommand.ModifiedEvent)
    heard = _ifImageIsNewer(volume, call)
    observers.add(volume, events, lambda *_: heard())


def _ifImageIsNewer(volume, call: Callable) -> Callable[[], None]:
    """Slicer tells of voxels that a script wrote by the node's own event, which many other things cause too."""
    seen = [_imageTime(volume)]

    def heard() -> None:
        now = _imageTime(volume)
        if now != seen[0]:
            seen[0] = now
            call()

    return heard


def _imageTime(volume) -> int:
    image = volume.GetImageData()
    scalars = None if image is None else image.GetPointData().GetScalars()
    return max(0 if image is None else image.GetMTime(), 0 if scalars is None else scalars.GetMTime())


def prepareSegmentation(node, volumeNode) -> None:
    """A new segmentation gets the volume's geometry, transform and study and, where there is none, a first structure."""
    node.CreateDefaultDisplayNodes()
    if volumeNode is not None:
        node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        SceneImport.placeInStudy(node, volumeNode)
    structureOf(node)


def segmentationOf(scene, volumeNode):
    """A segmentation that the user has made for a volume, that of the Segment Editor first; None where there is none."""
    editor = scene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    edited = editor.GetSegmentationNode() if editor is not None and editor.GetSourceVolumeNode() is volumeNode else None
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    made = [node for node in nodesOf(scene, "vtkMRMLSegmentationNode") if node.GetNodeReference(role) is volumeNode]
    return next((node for node in (edited, *made) if node is not None and whyNoInput(node) is None), None)


def isUntouched(segmentationNode) -> bool:
    """Whether no segment holds anything."""
    segmentation = segmentationNode.GetSegmentation()
    return all(_isEmpty(segmentation.GetSegment(sid)) for sid in segmentation.GetSegmentIDs())


def _isEmpty(segment) -> bool:
    labelmap, surface = segment.GetRepresentation(BINARY_LABELMAP), segment.GetRepresentation(CLOSED_SURFACE)
    return (labelmap is None or labelmap.IsEmpty()) and (surface is None or not surface.GetNumberOfPoints())


def structureOf(segmentationNode, wanted: str = "") -> str:
    """The ID of a structure to paint: the wanted one, else the first; one is made where there is none."""
    segmentation = segmentationNode.GetSegmentation()
    structures = structureIDs(segmentation)
    if wanted in structures:
        return wanted
    return structures[0] if structures else segmentation.AddEmptySegment("", "Structure 1")


def ensureBackground(segmentationNode) -> str:
    """The ID of the background segment, which is made, or tagged, where there was none."""
    segmentation = segmentationNode.GetSegmentation()
    segmentID = backgroundSegmentID(segmentation)
    if not segmentID:
        segmentID = segmentation.AddEmptySegment("", "Background")
        segmentation.GetSegment(segmentID).SetColor(*_BACKGROUND_COLOR)
    markBackground(segmentation.GetSegment(segmentID))
    return segmentID


def whyNoInput(node) -> tuple[str, str] | None:
    """A segmentation that is this module's own is none of the user's: a sentence and an advice."""
    if node.GetAttribute(SceneImport.PREVIEW_ATTRIBUTE):
        return _("That is the preview, which is made anew all the time."), _("Paint corrections in your own segmentation.")
    target = node.GetNodeReference(TARGET_ROLE)
    if target is not None:
        name = target.GetName()
        said, advice = _("Those are the strokes that are kept for {name}."), _("Choose {name}: they are used with it.")
        return said.format(name=name), advice.format(name=name)
    return None
