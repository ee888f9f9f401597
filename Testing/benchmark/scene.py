"""What the panel does on Slicer's main thread, timed on a large volume: `python Testing/benchmark/scene.py` (needs slicer-core, extra `test`).

A volume of 300 x 512 x 512 with 10 segments: reading all strokes and one stroke, taking in whole previews and boxes, applying a result, and the
longest time that one poll of the Controller takes while a run goes on (with a stand-in for the engine, so that only our side is measured).
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
STROKES = 10  # timed, of each kind


def timed(work, repeats: int = 5) -> list[float]:
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return seconds


def line(what: str, seconds: list[float]) -> None:
    print(f"| {what} | {1000 * min(seconds):.0f} | {1000 * statistics.median(seconds):.0f} | {1000 * max(seconds):.0f} |")


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

    def __init__(self, image, annotation, record, *_, **__):
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
    from SparseSegSlicerLib.scene import SceneImport
    from SparseSegSlicerLib.scene.SceneExport import takeSnapshot
    from SparseSegSlicerLib.scene.StrokeReader import readStrokes

    volume, node, dense, ids = build(host)
    print(f"{' x '.join(map(str, SHAPE_KJI))}, {SEGMENTS} segments; milliseconds\n\n| | shortest | median | longest |\n|---|---|---|---|")
    line("reading all strokes, no memory yet: main thread", timed(lambda: takeSnapshot(node, volume)))
    snapshot = takeSnapshot(node, volume)
    line("reading all strokes: in a thread", timed(lambda: readStrokes(snapshot), 3))
    strokes = readStrokes(snapshot)
    measure_strokes(node, volume, ids)
    measure_boxes(host, node, volume, dense, strokes)
    box, names = SceneImport.boundingBox(dense), strokes.classes.ids
    editor = host.make_editor(node, volume)
    measure_apply(node, volume, dense, box, names, editor)
    measure_polls(host, volume, node, dense)
    host.close()


def measure_apply(node, volume, dense, box, names, editor) -> None:
    """The first one, and one on a result; the strokes were copied when they were read."""
    from SparseSegSlicerLib.scene.AppliedResult import AppliedResult
    from SparseSegSlicerLib.scene.Layers import LayerCopies
    from SparseSegSlicerLib.scene.SceneExport import takeSnapshot

    applied = AppliedResult()
    for which in ("first Apply", "second Apply"):
        copies, made = LayerCopies(), []
        takeSnapshot(node, volume, copies=copies)
        line(
            f"{which}, beginning: main thread", timed(lambda c=copies, m=made: m.append(applied.begin(node, volume, dense, box, names, copies=c)), 1)
        )
        line(f"{which}, making what is put in: in a thread", timed(lambda m=made: m[0].make(), 1))
        line(f"{which}, saving the state for undo: main thread", timed(editor.SaveStateForUndo, 1))
        line(f"{which}, swapping: main thread", timed(lambda m=made: applied.finish(node, volume, m[0]), 1))
    editor.Undo()
    editor.Undo()


def measure_strokes(node, volume, ids) -> None:
    """Strokes of 30 x 30 voxels on one slice, each read as a session reads it."""
    from vtk.util import numpy_support

    from SparseSegSlicerLib.scene.Layers import LayerCopies
    from SparseSegSlicerLib.scene.SceneExport import missingMemory, takeSnapshot
    from SparseSegSlicerLib.scene.StrokeReader import StrokeReader

    copies, parts = LayerCopies(), ([], [], [])
    reader = StrokeReader(copies)
    segment = node.GetSegmentation().GetSegment(ids[0])
    for n in range(STROKES + 2):
        image = segment.GetRepresentation("Binary labelmap")
        array = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions())))
        array[20 * n + 1, 40:70, 100:130] = segment.GetLabelValue()
        image.Modified()
        copies.reserve(missingMemory(node, copies))
        taken = []
        seconds = timed(lambda into=taken: into.append(takeSnapshot(node, volume, copies=copies)), 1)
        seconds += timed(lambda taken=taken: reader.read(taken[0], quick=True), 1)
        seconds += timed(reader.details, 1)
        if n >= 2:  # the first is read whole, and the second makes the memory for all later ones
            for into, value in zip(parts, seconds, strict=True):
                into.append(value)
    line("stroke to box: main thread", parts[0])
    line("stroke to box: in a thread", parts[1])
    line("slices and summary of a stroke, after it was sent: in a thread", parts[2])


def measure_boxes(host, node, volume, dense, strokes) -> None:
    """Box previews of 60 x 150 x 150 voxels into a shown whole one, with and without surfaces."""
    from SparseSegSlicerLib.scene.Preview import Preview
    from SparseSegSlicerLib.session.Parameters import Parameters

    parameters = Parameters(host.scene)
    for surfaces, name in ((False, ""), (True, ", surfaces shown")):
        parameters.set("show3D", surfaces)
        preview = Preview(parameters)
        wholes, boxes, steps = show_in_turn(preview, node, volume, dense, strokes.classes)
        line(f"whole preview into the scene{name}: main thread", wholes)
        line(f"box preview into the scene{name}: main thread", boxes)
        if steps:
            line("one step of making surfaces: main thread", steps)
        preview.remove()


def show_in_turn(preview, node, volume, dense, classes) -> tuple[list[float], list[float], list[float]]:
    """Seconds of whole previews, of boxes, and of the surfaces' steps."""
    from SparseSegSlicerLib.scene.LabelLayer import LabelMemory
    from SparseSegSlicerLib.scene.SceneImport import boundingBox

    box, bounds = (slice(100, 160), slice(100, 250), slice(100, 250)), boundingBox(dense)
    values = [np.roll(dense[box], shift, axis=1) for shift in (5, 0)]
    wholes, boxes, steps = [], [], []
    for _ in range(5):
        labels, memory = dense.copy(), LabelMemory.of(dense)
        wholes += timed(lambda m=memory, a=labels: preview.show(node, volume, a, bounds, classes, (), m), 1)
    for n in range(STROKES):
        boxes += timed(lambda n=n: preview.showBox(node, volume, box, values[n % 2], classes, ()), 1)
    preview._surfacesAt = 0.0
    while preview._old:
        steps += timed(lambda: preview.tick(volume, ()), 1)
    return wholes, boxes, steps


def measure_polls(host, volume, node, dense) -> None:
    from sparseseg.contract.protocol import Preview
    from SparseSegSlicerLib.session.Controller import Controller

    controller = Controller(host.scene, makeRun=StandInRun)
    controller.setVolume(volume)
    controller.setSegmentation(node)
    file, part = (Path(host.folder.name) / name for name in ("preview.npy", "box.npy"))
    np.save(file, dense)
    np.save(part, dense[100:160, 100:250, 100:250])
    polls = poll_until(controller, lambda: controller.strokes is not None)
    controller.train()
    polls += poll_until(controller, lambda: controller.running)
    for number in range(1, 9):
        box = [[100, 160], [100, 250], [100, 250]] if number % 3 != 1 else []
        controller._training.onEvent(Preview("train", number, str(part if box else file), "network", number, 0.0, box))
        polls += poll_until(controller, lambda number=number: controller.preview.revision == number)
    polls += poll_until(controller, lambda: not controller.preview._old)
    line(f"each of {len(polls)} polls, reading, importing and surfaces included", polls)
    controller.close()


def poll_until(controller, condition) -> list[float]:
    polls = []
    while not condition():
        polls += timed(controller.poll, 1)
        time.sleep(0.05)
    return polls


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    measure()
