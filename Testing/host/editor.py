"""Stand-in for the segment editor: Slicer's own editor logic does the work, a box shows segments and effects."""

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from host import editor_picture, effects, errors
from host.standin import behaviour, standin
from host.standins import qMRMLWidget

EFFECTS = (
    "Threshold", "Paint", "Draw", "Erase", "Level tracing", "Grow from seeds", "Fill between slices",
    "Margin", "Hollow", "Smoothing", "Scissors", "Islands", "Logical operators", "Mask volume",
)  # fmt: skip


@behaviour
class qMRMLSegmentEditorWidget(qMRMLWidget):
    """State lives in the segment editor node, as in Slicer; `_sync` brings logic, signals and picture up to date."""

    with_shortcuts, observing = set(), set()  # editors: two at a time are ambiguous, and would both paint

    def prepare(self):
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self.logic.SetMaximumNumberOfUndoStates(5)
        self.editor_node, self.effect, self.effects = None, None, {}
        self.order, self._syncing = (), False
        self.shown = {"segmentation": None, "volume": None, "segment": ""}  # what the signals have told so far
        self.observed = {"node": [], "segmentation": [], "scene": []}  # (object, tag)
        self.values.update(undoEnabled=True, maximumNumberOfUndoStates=5, unorderedEffectsVisible=True)
        for name in ("segmentationNodeSelectorVisible", "sourceVolumeNodeSelectorVisible", "maskingSectionVisible", "addRemoveSegmentButtonsVisible"):
            self.values[name] = True
        self.destroyed.connect(lambda *_: self._release())  # a bound method would be disconnected before
        self.do_updateEffectList()

    def _observe(self, what, observed, events):
        """Follow another object in place of the one before; None for none."""
        for old, tag in self.observed[what]:
            old.RemoveObserver(tag)
        self.observed[what] = [(observed, observed.AddObserver(event, self._sync)) for event in events] if observed is not None else []

    def _release(self):
        for what in self.observed:
            self._observe(what, None, ())
        self.with_shortcuts.discard(self)
        self.observing.discard(self)
        for effect in self._scripted():
            effect.do_cleanup()

    # -- nodes

    def do_setMRMLSegmentEditorNode(self, node):
        self._observe("node", node, [vtk.vtkCommand.ModifiedEvent])
        self.editor_node = node
        self.logic.SetSegmentEditorNode(node)
        self._sync()

    def do_mrmlSegmentEditorNode(self):
        return self.editor_node

    def do_setMRMLScene(self, scene):
        if scene is not None and self.editor_node is None:
            raise RuntimeError("qMRMLSegmentEditorWidget: call setMRMLSegmentEditorNode before setMRMLScene, else selections are lost")
        self.logic.SetMRMLScene(scene)
        super().do_setMRMLScene(scene)
        self._observe("scene", scene, [slicer.vtkMRMLScene.NodeRemovedEvent, slicer.vtkMRMLScene.EndCloseEvent])
        self._sync()

    def do_setSegmentationNode(self, node):
        if node is None and self.editor_node is None:
            return
        self._need(self.editor_node, "a segment editor node before setSegmentationNode")
        if node is not None and not node.IsA("vtkMRMLSegmentationNode"):
            raise TypeError(f"{node.GetClassName()} is no segmentation node")
        if node is not self.do_segmentationNode():
            self._activate(None)
        self.editor_node.SetAndObserveSegmentationNode(node)
        reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) if node is not None else None
        if reference is not None:  # Slicer selects the volume which the segmentation was made for
            self.editor_node.SetAndObserveSourceVolumeNode(reference)
        self._sync()

    def do_setSegmentationNodeID(self, node_id):
        self.do_setSegmentationNode(self._node_by_id(node_id))

    def do_segmentationNode(self):
        return self.editor_node.GetSegmentationNode() if self.editor_node else None

    def do_segmentationNodeID(self):
        return _id(self.do_segmentationNode())

    def do_setSourceVolumeNode(self, node):
        if node is None and self.editor_node is None:
            return
        self._need(self.editor_node, "a segment editor node before setSourceVolumeNode (floods the log or crashes)")
        if node is not None:
            segmentation = self._need(self.do_segmentationNode(), "a segmentation node before setSourceVolumeNode (floods the log or crashes)")
            if segmentation.GetNodeReference(segmentation.GetReferenceImageGeometryReferenceRole()) is None:
                segmentation.SetReferenceImageGeometryParameterFromVolumeNode(node)
        self.editor_node.SetAndObserveSourceVolumeNode(node)
        self._sync()

    def do_setSourceVolumeNodeID(self, node_id):
        self.do_setSourceVolumeNode(self._node_by_id(node_id))

    def do_sourceVolumeNode(self):
        return self.editor_node.GetSourceVolumeNode() if self.editor_node else None

    def do_sourceVolumeNodeID(self):
        return _id(self.do_sourceVolumeNode())

    def do_setCurrentSegmentID(self, segment_id):
        if segment_id and segment_id not in self._segment_ids():
            raise ValueError(f"setCurrentSegmentID: no segment '{segment_id}' in {self._segment_ids()}")
        if self.editor_node is not None:
            self.editor_node.SetSelectedSegmentID(segment_id)
        self._sync()

    def do_currentSegmentID(self):
        return (self.editor_node.GetSelectedSegmentID() or "") if self.editor_node else ""

    def _need(self, node, what):
        if node is None:
            raise RuntimeError(f"qMRMLSegmentEditorWidget needs {what}")
        return node

    def _node_by_id(self, node_id):
        return self.scene.GetNodeByID(node_id) if self.scene and node_id else None

    def _segment_ids(self):
        node = self.do_segmentationNode()
        return list(node.GetSegmentation().GetSegmentIDs()) if node else []

    # -- following MRML

    def _sync(self, *_):
        if self._syncing:
            return
        self._syncing = True
        try:
            self._follow()
        finally:
            self._syncing = False
        self.update()

    def _follow(self):
        """Hand the nodes to the logic, choose a segment that exists, tell what changed."""
        segmentation, volume = self.do_segmentationNode(), self.do_sourceVolumeNode()
        if segmentation is not None and self._segment_ids() and segmentation.GetDisplayNode() is None:
            errors.tell("qMRMLSegmentsModel::updateItemDataFromSegment: No display node for segmentation!")
        if segmentation is not self.shown["segmentation"]:
            kind = slicer.vtkSegmentation
            events = [kind.SegmentAdded, kind.SegmentRemoved, kind.SegmentModified, kind.SegmentsOrderModified]
            self._observe("segmentation", segmentation and segmentation.GetSegmentation(), events)
            self.logic.SetSegmentationNode(segmentation)
        if self.editor_node is not None and self.do_currentSegmentID() not in self._segment_ids():
            self.editor_node.SetSelectedSegmentID(next(iter(self._segment_ids()), ""))
        if self.editor_node is not None:
            self.logic.SetSourceVolumeNode(volume)
            self.logic.SetCurrentSegmentID(self.do_currentSegmentID())
        now = {"segmentation": segmentation, "volume": volume, "segment": self.do_currentSegmentID()}
        before, self.shown = self.shown, now
        signals = {
            "segmentation": "segmentationNodeChanged(vtkMRMLSegmentationNode*)",
            "volume": "sourceVolumeNodeChanged(vtkMRMLVolumeNode*)",
            "segment": "currentSegmentIDChanged(QString)",
        }
        for key, signature in signals.items():
            if now[key] != before[key]:
                self.emit_(signature, now[key])
        if now["volume"] is not before["volume"]:
            for effect in self._scripted():
                effect.in_python("sourceVolumeNodeChanged")
                effect.in_python("masterVolumeNodeChanged")

    def do_updateWidgetFromMRML(self):
        self._sync()

    # -- undo

    def do_saveStateForUndo(self):
        if self.values["undoEnabled"]:
            self.logic.SaveStateForUndo()

    def do_undo(self):
        self.logic.Undo()

    def do_redo(self):
        self.logic.Redo()

    def set_maximumNumberOfUndoStates(self, count):
        self.logic.SetMaximumNumberOfUndoStates(count)

    # -- effects and views

    def do_updateEffectList(self):
        """Effects that were registered since are cloned, and their options placed below."""
        for effect in effects.registered:
            if effect.values["name"] not in self.effects:
                cloned = self.effects[effect.values["name"]] = effect.clone(self)
                cloned.frame.setParent(self)
        self.update()

    def _scripted(self):
        return [effect for effect in self.effects.values() if hasattr(effect, "in_python")]

    def do_availableEffectNames(self):
        return (*EFFECTS, *(effect.values["name"] for effect in self._scripted()))

    def do_setEffectNameOrder(self, names):
        self.order = names
        self.update()

    def do_effectNameOrder(self):
        return self.order

    def do_effectByName(self, name):
        if name not in self.do_availableEffectNames():
            return None
        if name not in self.effects:
            self.effects[name] = standin("qSlicerSegmentEditorAbstractEffect")()
            self.effects[name].values["name"], self.effects[name].editor = name, self
        return self.effects[name]

    def do_setActiveEffectByName(self, name):
        if name and name not in self.do_availableEffectNames():
            raise ValueError(f"no segment editor effect '{name}', there are {self.do_availableEffectNames()}")
        self._activate(self.do_effectByName(name))

    def do_setActiveEffect(self, effect):
        self._activate(effect and effect._q)

    def _activate(self, effect):
        if effect is not None:
            self._need(self.editor_node, "a segment editor node before an effect")
        if effect is self.effect:
            return
        before, self.effect = self.effect, effect
        if self.editor_node is not None:
            self.editor_node.SetActiveEffectName(effect.values["name"] if effect else "")
        if before in self._scripted():
            before.do_deactivate()
        if effect in self._scripted():
            effect.do_activate()
        self._place_options()

    def do_activeEffect(self):
        return self.effect

    shortcuts_installed = property(lambda self: self in self.with_shortcuts)
    views_observed = property(lambda self: self in self.observing)

    def do_installKeyboardShortcuts(self, parent=None):
        self._join(self.with_shortcuts, "two segment editors have installed the same keyboard shortcuts: ambiguous, so neither does anything")

    def do_uninstallKeyboardShortcuts(self):
        self.with_shortcuts.discard(self)

    def do_setupViewObservations(self):
        self._join(self.observing, "two segment editors observe the views: each stroke is painted twice")

    def do_removeViewObservations(self):
        self.observing.discard(self)

    def _join(self, editors, complaint):
        if editors - {self}:
            errors.tell(complaint)
        editors.add(self)

    # -- what a user would do with the mouse

    def stroke(self, segment_id, region, erase=False):
        """One brush stroke with undo; obeys mask and overwrite mode. `region`: three (start, stop) or slices for k, j, i, or (N, 3) indices kji."""
        self._need(self.do_sourceVolumeNode(), "a segmentation and a source volume before a stroke")
        self.do_setCurrentSegmentID(segment_id)
        self.do_saveStateForUndo()
        if not self.logic.ResetModifierLabelmapToDefault():
            raise RuntimeError("the editor logic has no modifier label map")
        modifier = self.logic.GetModifierLabelmap()
        array_kji = numpy_support.vtk_to_numpy(modifier.GetPointData().GetScalars()).reshape(tuple(reversed(modifier.GetDimensions())))
        array_kji[_index(region, modifier.GetExtent())] = 1
        modifier.GetPointData().GetScalars().Modified()
        mode = self.logic.ModificationModeRemove if erase else self.logic.ModificationModeAdd
        self.logic.ModifySegmentByLabelmap(self.do_segmentationNode(), segment_id, modifier, mode, False, False)
        self.update()

    # -- picture

    def _options(self):
        """The active effect's, where it has some."""
        return self.effect.frame if self.effect in self._scripted() else None

    def _place_options(self):
        frame = self._options()
        if frame is not None:
            height = self._options_height()
            frame.setGeometry(0, self.height() - height, self.width(), height)
        self.updateGeometry()
        self.update()

    def _options_height(self):
        frame = self._options()
        return 0 if frame is None else max(frame.layout().heightForWidth(self.width()), frame.sizeHint().height())

    def resizeEvent(self, event):
        self._place_options()

    def sizeHint(self):
        size = editor_picture.size(len(self._segment_ids()), self.effect is not None and self._options() is None)
        size.setHeight(size.height() + self._options_height())
        return size

    minimumSizeHint = sizeHint

    def paintEvent(self, event):
        node, current = self.do_segmentationNode(), self.do_currentSegmentID()
        segments = [(node.GetSegmentation().GetSegment(i), i == current) for i in self._segment_ids()]
        others = [n for n in self.do_availableEffectNames() if n not in self.order]
        names = [*self.order, *(others if self.values["unorderedEffectsVisible"] else [])]
        editor_picture.draw(self, segments, names, self.effect.values["name"] if self.effect else "", self._options_height())


def _id(node):
    return node.GetID() if node else ""


def _index(region, extent):
    """An index into an array (K, J, I) whose first voxel is at `extent`."""
    first = np.array(extent[4::-2])
    if isinstance(region, np.ndarray) and region.ndim == 2:
        return tuple((region - first).T)
    pairs = [(r.start, r.stop) if isinstance(r, slice) else r for r in region]
    return tuple(slice(start - offset, stop - offset) for (start, stop), offset in zip(pairs, first.tolist(), strict=True))
