"""A session on a small volume with an engine that says what a test tells it to: what happens in the scene, without torch and without waiting."""

import shutil
import tempfile
import threading
import time
from pathlib import Path

import applying
import numpy as np
import slicer
from applying import STROKES, resultOf
from scenes import PLAIN, makeSegmentation, makeVolume, paintLayer

from sparseseg.contract.classes import BACKGROUND_TAG
from sparseseg.contract.protocol import Preview, Progress, Result
from sparseseg.contract.store import IN_MEMORY
from SparseSegSlicerLib.session.Controller import Controller, Launch, State

PATIENCE_S = 30


class ScriptedRun:
    """In the place of an EngineRun, with a job folder of its own."""

    def __init__(self, image, annotation, record, device, python, environment, parentFolder, model=None, server=""):
        self.record, self.classes, self.geometry, self.revision, self.log = record, record.classes, record.geometry, record.revision, ""
        self.server, self.model = server, model
        self.folder = Path(tempfile.mkdtemp(prefix="scripted-", dir=parentFolder))
        self.image = np.array(image(IN_MEMORY) if callable(image) else image)
        self._events, self._numbers = [], 0

    def train(self, *_):
        pass

    def finish(self):
        pass

    def update(self, annotation, slices, boxes):
        self.revision += 1
        return self.revision

    def hasImage(self, image):
        return np.array_equal(image, self.image[0] if self.image.ndim == 4 else self.image)

    def poll(self):
        events, self._events = self._events, []
        return events

    def close(self):
        thread = threading.Thread(target=shutil.rmtree, args=(self.folder,))
        thread.start()
        return thread

    def says(self, *events):
        self._events += events

    def begins(self):
        self._events.append(Progress("train", 1, "training", 1, 0.1, None, 0.1, {}, {}))

    def shows(self, labels):
        self._events.append(Preview("train", self.revision, self._write(labels), "network", 1, 0.0))

    def ends(self, labels):
        self._events.append(Result("train", self.revision, self._write(labels), "", "", "", "steps", 1, 1.0, {"a": 0.9}, 1.0, []))

    def _write(self, labels):
        self._numbers += 1
        file = self.folder / f"labels-{self._numbers}.npy"
        np.save(file, labels)
        return str(file)


class Session(applying.Session):
    """A volume with strokes in one layer, chosen as inputs; what a user does is a method."""

    def __init__(self, scene_host, folder):
        self.host, self.scene, self.folder = scene_host, scene_host.scene, folder
        self.volume, self.node = makeVolume(self.scene), makeSegmentation(self.scene, "a", "b", ("background", "Background"))
        self.node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        paintLayer(self.node, {"a": 1, "b": 2, "background": 3}, sum(n * mask for n, mask in enumerate(STROKES.values(), start=1)), PLAIN)
        self.node.GetSegmentation().GetSegment("background").SetTag(BACKGROUND_TAG, "1")
        self.editor = scene_host.make_editor(self.node, self.volume)
        self.editor.SetMaximumNumberOfUndoStates(40)
        self.launch = Launch(temporaryFolder=str(folder))  # of the next run
        self.controller = Controller(self.scene, lambda: self.launch, makeRun=ScriptedRun)
        self.controller.setVolume(self.volume)
        self.controller.setSegmentation(self.node)
        self.spin(lambda: self.controller.strokes is not None)

    def spin(self, until, patience_s=PATIENCE_S):
        end = time.monotonic() + patience_s
        while not until():
            assert time.monotonic() < end, f"{self.controller.state} {self.controller.message.text()}\n" + "\n".join(self.controller.log[-15:])
            self.controller.poll()
            time.sleep(0.005)

    def settle(self):
        self.controller.refresh()
        self.spin(lambda: self.controller.isSettled)

    def start(self):
        self.controller.train()
        self.spin(lambda: self.controller.state is State.STARTING)

    def train(self):
        self.start()
        self.controller.run.begins()
        self.spin(lambda: self.controller.state is State.TRAINING)

    def segment(self, labels=None):
        self.train()
        self.controller.run.ends(resultOf() if labels is None else labels)
        self.spin(lambda: self.controller.state is State.RESULT)

    def show(self, labels):
        """A new preview."""
        self.controller.run.shows(labels)
        self.spin(lambda: np.array_equal(self.controller.preview.labels, labels))

    def apply(self):
        self.controller.apply(lambda _: self.editor.SaveStateForUndo())
        self.spin(lambda: not self.controller.isApplying)

    def undo(self):
        self.editor.Undo()
        self.settle()

    def redo(self):
        self.editor.Redo()
        self.settle()

    def segmentVoxels(self, segment_id):
        return slicer.util.arrayFromSegmentBinaryLabelmap(self.node, segment_id, self.volume) > 0

    def holds(self, labels):
        return all((self.segmentVoxels(sid) == (labels == value)).all() for value, sid in enumerate(("a", "b"), start=1))

    def close(self):
        for thread in self.controller.close():
            thread.join(PATIENCE_S)
