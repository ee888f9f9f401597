"""The MRML half of Slicer: a scene, the logics that our code asks for, slice nodes and a subject hierarchy. No Qt.

One process has one host: VTK's and slicer's module-level singletons allow no second. `clear` gives each test an empty scene.
"""

from __future__ import annotations

import importlib.util
import tempfile
import types
from pathlib import Path

VIEWS = (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal"))
_LOGICS = {
    "volumes": "vtkSlicerVolumesLogic",
    "terminologies": "vtkSlicerTerminologiesModuleLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "transforms": "vtkSlicerTransformLogic",
    "markups": "vtkSlicerMarkupsLogic",
}
_APPLICATION_LOGIC_NAMES = {"subjecthierarchy": "SubjectHierarchy"}


class SceneHost:
    def __init__(self) -> None:
        import slicer
        import vtk

        vtk.vtkObject.GlobalWarningDisplayOff()  # the wheel has no terminology files, and says so at length
        self.slicer, self.folder = slicer, tempfile.TemporaryDirectory(prefix="scene-host-")
        self.scene = slicer.mrmlScene = slicer.vtkMRMLScene()
        self._makeApplicationLogic()
        self._makeDataIO()
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)  # before any slice node is made
        slicer.modules = types.ModuleType("slicer.modules")
        self.logics = {name: self._makeLogic(name, className) for name, className in _LOGICS.items()}
        for name, logic in self.logics.items():
            self.addModule(name, logic)
        slicer.app = types.SimpleNamespace(
            mrmlScene=lambda: self.scene, applicationLogic=lambda: self.applicationLogic, processEvents=lambda: None, temporaryPath=self.folder.name
        )
        self._keepHierarchy(vtk)
        vtk.vtkObject.GlobalWarningDisplayOn()
        self.clear()

    def addModule(self, name: str, logic) -> None:
        setattr(self.slicer.modules, name, types.SimpleNamespace(logic=lambda: logic))

    def clear(self) -> None:
        """An empty scene with the three slice views and a crosshair."""
        self.scene.Clear()
        self.addViews()
        for name, orientation in VIEWS:  # singletons outlive Clear, and a test may have turned them
            node = self.scene.GetSingletonNode(name, "vtkMRMLSliceNode")
            node.SetOrientation(orientation)
            node.SetMappedInLayout(True)

    def addViews(self) -> None:
        for name, orientation in VIEWS:
            if self.scene.GetSingletonNode(name, "vtkMRMLSliceNode") is None:
                self._addView(name, orientation)
        if self.scene.GetFirstNodeByClass("vtkMRMLCrosshairNode") is None:
            crosshair = self._newNode("vtkMRMLCrosshairNode")
            crosshair.SetSingletonTag("default")
            self.scene.AddNode(crosshair)

    def make_editor(self, segmentationNode, volumeNode):
        """The real segment editor logic, as Slicer's editor widget holds it."""
        logic = self.slicer.vtkSlicerSegmentEditorLogic()
        logic.SetMRMLScene(self.scene)
        logic.SetMRMLApplicationLogic(self.applicationLogic)
        logic.SetSegmentEditorNode(self.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
        logic.SetSegmentationNode(segmentationNode)
        logic.SetSourceVolumeNode(volumeNode)
        logic.SetMaximumNumberOfUndoStates(10)
        return logic

    def load_scene(self, path: Path) -> bool:
        """A .mrb into an empty scene, as File / Open does."""
        return bool(self.scene.ReadFromMRB(str(path), True))

    def close(self) -> None:
        """Before the interpreter ends, in this order, or VTK complains or crashes."""
        for tag in self._tags:
            self.scene.RemoveObserver(tag)
        self.scene.Clear(True)
        self.logics.clear()
        vars(self.slicer.modules).clear()
        self.folder.cleanup()

    def _makeApplicationLogic(self) -> None:
        slicer = self.slicer
        logic = self.applicationLogic = slicer.vtkSlicerApplicationLogic()
        logic.SetMRMLScene(self.scene)
        colors = logic.GetColorLogic()
        colors.SetMRMLScene(self.scene)
        colors.AddDefaultColorNodes()
        logic.SetModuleLogic("Colors", colors)

    def _makeDataIO(self) -> None:
        """What reading a .mrb needs."""
        slicer = self.slicer
        self._cache, self._dataIO = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        self._cache.SetMRMLScene(self.scene)
        self._cache.SetRemoteCacheDirectory(self.folder.name)
        self._dataIO.SetCacheManager(self._cache)
        self.scene.SetCacheManager(self._cache)
        self.scene.SetDataIOManager(self._dataIO)

    def _makeLogic(self, name: str, className: str):
        logic = getattr(self.slicer, className)()
        if hasattr(logic, "SetModuleShareDirectory"):
            logic.SetModuleShareDirectory(_terminologyFolder() or self.folder.name)  # before the scene
        logic.SetMRMLScene(self.scene)
        logic.SetMRMLApplicationLogic(self.applicationLogic)
        self.applicationLogic.SetModuleLogic(_APPLICATION_LOGIC_NAMES.get(name, name.capitalize()), logic)
        return logic

    def _newNode(self, className: str):
        node = self.scene.CreateNodeByClass(className)
        node.UnRegister(None)
        return node

    def _addView(self, name: str, orientation: str) -> None:
        node = self._newNode("vtkMRMLSliceNode")
        node.SetLayoutName(name)
        node.SetName(name)
        node.SetSingletonTag(name)
        node = self.scene.AddNode(node)
        node.SetMappedInLayout(True)  # which in the application the layout does
        node.SetDefaultOrientation(orientation)
        node.SetOrientation(orientation)
        node.SetDimensions(256, 256, 1)
        node.SetFieldOfView(256, 256, 1)
        node.UpdateMatrices()
        composite = self._newNode("vtkMRMLSliceCompositeNode")
        composite.SetLayoutName(name)
        composite.SetSingletonTag(name)
        self.scene.AddNode(composite)

    def _keepHierarchy(self, vtk) -> None:
        """Items for data nodes, which in the application a Qt class makes."""
        scene = self.scene

        def closed(*_):  # the scene's own has gone with all other nodes; asking for it makes a new one
            self.slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)

        closed()

        def giveItem(node):
            hierarchy = self.slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
            shown = node.IsA("vtkMRMLDisplayableNode") or node.IsA("vtkMRMLTransformNode")
            if shown and not node.GetHideFromEditors() and not hierarchy.GetItemByDataNode(node):
                hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def added(_caller, _event, node):
            if not scene.IsImporting():  # the scene may bring its own items along
                giveItem(node)

        def imported(*_):
            if scene.IsBatchProcessing():
                return
            self.slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)  # the items that came with it
            for n in range(scene.GetNumberOfNodes()):
                giveItem(scene.GetNthNode(n))

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removed(_caller, _event, node):
            if scene.IsClosing() or node.IsA("vtkMRMLSubjectHierarchyNode"):
                return
            hierarchy = self.slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
            item = hierarchy.GetItemByDataNode(node) if hierarchy else 0
            if item:
                hierarchy.RemoveItem(item, False, False)

        mrml = self.slicer.vtkMRMLScene
        self._tags = [
            scene.AddObserver(mrml.NodeAddedEvent, added),
            scene.AddObserver(mrml.NodeAboutToBeRemovedEvent, removed),
            scene.AddObserver(mrml.EndImportEvent, imported),
            scene.AddObserver(mrml.EndBatchProcessEvent, imported),
            scene.AddObserver(mrml.EndCloseEvent, closed),
        ]


def _terminologyFolder() -> str:
    """The slicer-core wheel ships none; trame-slicer does."""
    found = importlib.util.find_spec("trame_slicer")
    return str(Path(found.origin).parent / "resources" / "terminologies") if found and found.origin else ""
