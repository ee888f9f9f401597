"""What the panel does on Slicer's main thread, timed on a large volume: `python Testing/benchmark/scene.py` (needs slicer-core, extra `test`).

A volume of 300 x 512 x 512 with 10 segments: reading strokes, importing a result, and the longest time that one poll of the Controller takes
while a run goes on (with a stand-in for the engine, so that only our side is measured).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from host.scene_host import SceneHost

SHAPE_KJI = (300, 512, 512)
SEGMENTS = 10


def timed(work, repeats: int = 5) -> list[float]:
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return seconds


def line(what: str, seconds: list[float]) -> None:
    print(f"| {what} | {1000 * statistics.median(seconds):.0f} | {1000 * max(seconds):.0f} |")


def build(host):
    """A CT-sized volume, a segmentation with ten painted segments on ten slices of all orientations, and a dense label map."""
    import slicer

    from SparseSegSlicerLib.scene import SceneImport

    rng = np.random.default_rng(0)
    volume = slicer.util.addVolumeFromArray(rng.integers(-1000, 1000, SHAPE_KJI, np.int16), ijkToRAS=np.diag([-0.8, -0.8, 1.0, 1.0]), name="CT")
    dense = np.zeros(SHAPE_KJI, np.uint8)
    for value in range(1, SEGMENTS + 1):
        dense[40:260, 40 * value : 40 * value + 36, 60:450] = value
    strokes = np.zeros(SHAPE_KJI, np.uint8)
    for index in (60, 120, 180, 240):
        strokes[index] = dense[index]
    strokes[:, 250], strokes[:, :, 250] = dense[:, 250], dense[:, :, 250]
    strokes[150, 5:30, 60:450] = SEGMENTS + 1
    node = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "strokes")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    ids = [node.GetSegmentation().AddEmptySegment(f"S{n:02d}", f"organ {n}") for n in range(SEGMENTS)]
    ids.append(node.GetSegmentation().AddEmptySegment("Background", "Background"))
    whole = tuple(slice(0, n) for n in SHAPE_KJI)
    SceneImport.importLabels(node, SceneImport.orientedImage(strokes, whole, np.diag([-0.8, -0.8, 1.0, 1.0]), ids), ids)
    return volume, node, dense, ids


class StandInRun:
    """Takes everything and says nothing; the benchmark hands its files to the Controller."""

    def __init__(self, image, annotation, record, *_):
        self.classes, self.geometry, self.revision, self.folder, self.log = record.classes, record.geometry, 1, Path(), ""

    def train(self, *_):
        pass

    def poll(self):
        return []

    def close(self):
        import threading

        thread = threading.Thread(target=lambda: None)
        thread.start()
        return thread


def measure() -> None:
    host = SceneHost()
    from sparseseg.contract.protocol import Preview
    from SparseSegSlicerLib.scene import SceneImport
    from SparseSegSlicerLib.scene.SceneExport import takeSnapshot
    from SparseSegSlicerLib.scene.StrokeReader import Choices, readStrokes
    from SparseSegSlicerLib.session.Controller import Controller

    volume, node, dense, _ = build(host)
    print(f"{' x '.join(map(str, SHAPE_KJI))}, {SEGMENTS} segments; milliseconds\n\n| | median | longest |\n|---|---|---|")
    line("reading strokes: main thread", timed(lambda: takeSnapshot(node, volume)))
    snapshot = takeSnapshot(node, volume)
    line("reading strokes: in a thread", timed(lambda: readStrokes(snapshot, Choices())))
    strokes = readStrokes(snapshot)
    preview = SceneImport.makePreview(node, volume, strokes.classes.segments, 0.5)
    box = SceneImport.boundingBox(dense)
    names = strokes.classes.ids
    line("importing a preview, slice views only", timed(lambda: SceneImport.showLabels(preview, volume, dense, box, names, (), False)))
    line("importing a preview with surfaces", timed(lambda: SceneImport.showLabels(preview, volume, dense, box, names, (), True)))
    editor = host.make_editor(node, volume)
    line("Apply: saving the state for undo", timed(editor.SaveStateForUndo, 1))
    line("Apply: replacing the segments", timed(lambda: SceneImport.applyResult(node, volume, dense, box, names, (), ()), 1))
    editor.Undo()
    host.scene.RemoveNode(preview)

    controller = Controller(host.scene, makeRun=StandInRun)
    controller.setVolume(volume)
    controller.setSegmentation(node)
    file = Path(host.folder.name) / "preview.npy"
    np.save(file, dense)
    polls = poll_until(controller, lambda: controller.strokes is not None)
    controller.train()
    polls += poll_until(controller, lambda: controller.running)
    for number in range(3):
        shown = controller.preview.labels
        controller._onEvent(Preview("train", 1, str(file), "network", number, 0.0))
        polls += poll_until(controller, lambda shown=shown: controller.preview.labels is not shown)
    line("one poll, reading and importing included", polls)
    polls.sort()
    line(f"one poll, the {len(polls) - 4} others", polls[:-4])
    controller.close()
    host.close()


def poll_until(controller, condition) -> list[float]:
    polls = []
    while not condition():
        polls += timed(controller.poll, 1)
        time.sleep(0.05)
    return polls


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    measure()
