"""Strokes of two segments and results for them, applied by the real code and painted on by the real editor logic."""

import numpy as np
from scenes import PLAIN, SHAPE, makeSegmentation, makeVolume, paint, paintLayer, sameVoxels, voxels
from vtk.util import numpy_support

from SparseSegSlicerLib.scene.AppliedResult import AppliedResult
from SparseSegSlicerLib.scene.SceneExport import takeSnapshot
from SparseSegSlicerLib.scene.SceneImport import boundingBox
from SparseSegSlicerLib.scene.StrokeReader import readStrokes

IDS = ["a", "b"]
STROKES = {"a": voxels((2, 2, slice(1, 4))), "b": voxels((3, 5, slice(4, 7))), "background": voxels((0, 0, slice(0, 8)))}


def resultOf(shift=0):
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 1 + shift : 4 + shift, 1:5] = 1
    labels[2:5, 4 + shift : 6 + shift, 3:8] = 2
    return labels


def begin(scene, frame=PLAIN, grid=PLAIN):
    """A volume and its strokes: a and b share a layer."""
    volume, node = makeVolume(scene, grid), makeSegmentation(scene, "a", "b", ("background", "Background"))
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    paintLayer(node, {"a": 1, "b": 2}, STROKES["a"] + 2 * STROKES["b"], frame)
    paint(node, "background", STROKES["background"], frame)
    return volume, node


def read(node, volume):
    """(K, J, I): 0 nothing, 1 background, 2 a, 3 b."""
    return readStrokes(takeSnapshot(node, volume)).annotation


class Session:
    """Applies with the real editor logic's undo; paints as its brush does, other segments overwritten."""

    def __init__(self, scene_host, grid=PLAIN):
        self.volume, self.node = begin(scene_host.scene, grid, grid)
        self.applied, self.editor = AppliedResult(), scene_host.make_editor(self.node, self.volume)
        self.editor.SetMaximumNumberOfUndoStates(40)

    def apply(self, labels, protected=()):
        return self.applied.apply(self.node, self.volume, labels, boundingBox(labels), IDS, protected, lambda _: self.editor.SaveStateForUndo())

    def paint(self, segment_id, mask, erase=False):
        self.editor.SaveStateForUndo()
        assert self.editor.ResetModifierLabelmapToDefault()
        modifier = self.editor.GetModifierLabelmap()
        array = numpy_support.vtk_to_numpy(modifier.GetPointData().GetScalars()).reshape(tuple(reversed(modifier.GetDimensions())))
        array[np.asarray(mask) > 0] = 1
        mode = self.editor.ModificationModeRemove if erase else self.editor.ModificationModeAdd
        self.editor.ModifySegmentByLabelmap(self.node, segment_id, modifier, mode, False, False)

    def undo(self):
        self.editor.Undo()
        self.applied.follow(self.node, self.volume)

    def redo(self):
        self.editor.Redo()
        self.applied.follow(self.node, self.volume)

    @property
    def strokes(self):
        return read(self.node, self.volume)

    def holds(self, labels):
        return all(sameVoxels(labels == value, self.node, sid, self.volume) for value, sid in enumerate(IDS, start=1))
