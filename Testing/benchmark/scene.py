"""What the panel does on Slicer's main thread, timed on a large volume (needs slicer-core, extra `test`).

    python Testing/benchmark/scene.py --size 79      # 300 x 512 x 512; 8: 75 x 320 x 320; 670: 640 x 1024 x 1024; 2800: 1972 x 1084 x 1313

A volume with 10 segments: reading all strokes and one stroke, taking in whole previews and boxes, applying a result, and the
longest time that one poll of the Controller takes while a run goes on (with a stand-in for the engine, so that only our side is measured). Times are
the processor's in this thread, which other programs disturb less. Kept: bytes of memory without mapped files that the process holds, beyond those
when volume and strokes were there, for each voxel. What a session takes in each of its phases: host_memory.py.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from machine import status

from host.scene_host import SceneHost
from sparseseg.contract.box import Box, box_to_json, whole

SIZES = {"8": (75, 320, 320), "79": (300, 512, 512), "670": (640, 1024, 1024), "2800": (1972, 1084, 1313)}
SEGMENTS = 10
STROKES = 10  # timed, of each kind


def timed(work, repeats: int = 5) -> list[float]:
    seconds = []
    for _ in range(repeats):
        begin = time.thread_time()
        work()
        seconds.append(time.thread_time() - begin)
    return seconds


class Table:
    """Lines of milliseconds, and of memory kept since it was begun."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._voxels, self._before = math.prod(shape), status("RssAnon")
        print(f"{' x '.join(map(str, shape))}, {SEGMENTS} segments; milliseconds, and bytes a voxel\n")
        print("| | shortest | median | longest | kept |\n|---|---|---|---|---|")

    def line(self, what: str, seconds: list[float]) -> None:
        times = " | ".join(f"{1000 * of(seconds):.0f}" for of in (min, statistics.median, max))
        print(f"| {what} | {times} | {(status('RssAnon') - self._before) / self._voxels:.2f} |")


def scaled(shape: tuple[int, int, int], *ranges: tuple[int, int] | None) -> tuple[slice, ...]:
    """A box that is given in voxels of 300 x 512 x 512, in those of another size."""
    limits = [range_ or (0, full) for range_, full in zip(ranges, SIZES["79"], strict=True)]
    return tuple(slice(a * n // full, b * n // full) for (a, b), n, full in zip(limits, shape, SIZES["79"], strict=True))


def build(host, shape: tuple[int, int, int]):
    """A volume, a segmentation with ten painted segments on ten slices of all orientations, and a dense label map."""
    import slicer

    from SparseSegSlicerLib.scene import SceneImport

    rng = np.random.default_rng(0)
    volume = slicer.util.addVolumeFromArray(rng.integers(-1000, 1000, shape, np.int16), ijkToRAS=np.diag([-0.8, -0.8, 1.0, 1.0]), name="CT")
    dense = np.zeros(shape, np.uint8)
    for value in range(1, SEGMENTS + 1):
        dense[scaled(shape, (40, 260), (40 * value, 40 * value + 36), (60, 450))] = value
    strokes = np.zeros(shape, np.uint8)
    for index in (shape[0] * fifth // 5 for fifth in range(1, 5)):
        strokes[index] = dense[index]
    j, i = shape[1] * 250 // 512, shape[2] * 250 // 512
    strokes[:, j], strokes[:, :, i] = dense[:, j], dense[:, :, i]
    strokes[shape[0] // 2][scaled(shape, None, (5, 30), (60, 450))[1:]] = SEGMENTS + 1
    node = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "strokes")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    ids = [node.GetSegmentation().AddEmptySegment(f"S{n:02d}", f"organ {n}") for n in range(SEGMENTS)]
    ids.append(node.GetSegmentation().AddEmptySegment("Background", "Background"))
    SceneImport.importLabels(node, SceneImport.orientedImage(strokes, whole(shape), np.diag([-0.8, -0.8, 1.0, 1.0]), ids), ids)
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


def measure(shape: tuple[int, int, int]) -> None:
    host = SceneHost()
    from SparseSegSlicerLib.scene import SceneImport
    from SparseSegSlicerLib.scene.SceneExport import takeSnapshot
    from SparseSegSlicerLib.scene.StrokeReader import readStrokes

    volume, node, dense, ids = build(host, shape)
    table = Table(shape)
    table.line("reading all strokes, no memory yet: main thread", timed(lambda: takeSnapshot(node, volume)))
    snapshot = takeSnapshot(node, volume)
    table.line("reading all strokes: in a thread", timed(lambda: readStrokes(snapshot), 3))
    strokes = readStrokes(snapshot)
    measure_strokes(table, node, volume, ids)
    measure_boxes(table, host, node, volume, dense, strokes)
    box, names = SceneImport.boundingBox(dense), strokes.classes.ids
    editor = host.make_editor(node, volume)
    measure_apply(table, node, volume, dense, box, names, editor)
    measure_polls(table, host, volume, node, dense)
    host.close()


def measure_apply(table: Table, node, volume, dense, box, names, editor) -> None:
    """The first one, and one on a result; the strokes were copied when they were read."""
    from SparseSegSlicerLib.scene.AppliedResult import AppliedResult
    from SparseSegSlicerLib.scene.Layers import LayerCopies
    from SparseSegSlicerLib.scene.SceneExport import takeSnapshot

    applied = AppliedResult()
    for which in ("first Apply", "second Apply"):
        copies, made = LayerCopies(), []
        takeSnapshot(node, volume, copies=copies)
        table.line(
            f"{which}, beginning: main thread", timed(lambda c=copies, m=made: m.append(applied.begin(node, volume, dense, box, names, copies=c)), 1)
        )
        table.line(f"{which}, making what is put in: in a thread", timed(lambda m=made: m[0].make(), 1))
        table.line(f"{which}, saving the state for undo: main thread", timed(editor.SaveStateForUndo, 1))
        table.line(f"{which}, swapping: main thread", timed(lambda m=made: applied.finish(node, volume, m[0]), 1))
    editor.Undo()
    editor.Undo()


def measure_strokes(table: Table, node, volume, ids) -> None:
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
        array[len(array) * (2 * n + 1) // 30, 40:70, 100:130] = segment.GetLabelValue()
        image.Modified()
        copies.reserve(missingMemory(node, copies))
        taken = []
        seconds = timed(lambda into=taken: into.append(takeSnapshot(node, volume, copies=copies)), 1)
        seconds += timed(lambda taken=taken: reader.read(taken[0], quick=True), 1)
        seconds += timed(reader.details, 1)
        if n >= 2:  # the first is read whole, and the second makes the memory for all later ones
            for into, value in zip(parts, seconds, strict=True):
                into.append(value)
    table.line("stroke to box: main thread", parts[0])
    table.line("stroke to box: in a thread", parts[1])
    table.line("slices and summary of a stroke, after it was sent: in a thread", parts[2])


def measure_boxes(table: Table, host, node, volume, dense, strokes) -> None:
    """Box previews of 60 x 150 x 150 voxels into a shown whole one, with and without surfaces."""
    from SparseSegSlicerLib.scene.Preview import Preview
    from SparseSegSlicerLib.session.Parameters import Parameters

    parameters = Parameters(host.scene)
    for surfaces, name in ((False, ""), (True, ", surfaces shown")):
        parameters.set("show3D", surfaces)
        preview = Preview(parameters)
        wholes, boxes, steps = show_in_turn(preview, node, volume, dense, strokes.classes)
        table.line(f"whole preview into the scene{name}: main thread", wholes)
        table.line(f"box preview into the scene{name}: main thread", boxes)
        if steps:
            table.line("one step of making surfaces: main thread", steps)
        preview.remove()


def box_in(shape: tuple[int, int, int]) -> Box:
    """Of a correction: 60 x 150 x 150 voxels, or what a small volume has of them."""
    return tuple(slice(n // 5, min(n, n // 5 + size)) for n, size in zip(shape, (60, 150, 150), strict=True))


def show_in_turn(preview, node, volume, dense, classes) -> tuple[list[float], list[float], list[float]]:
    """Seconds of whole previews, of boxes, and of the surfaces' steps."""
    from SparseSegSlicerLib.scene.LabelLayer import LabelMemory
    from SparseSegSlicerLib.scene.SceneImport import boundingBox

    box, bounds = box_in(dense.shape), boundingBox(dense)
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


def measure_polls(table: Table, host, volume, node, dense) -> None:
    from sparseseg.contract.protocol import Preview
    from SparseSegSlicerLib.session.Controller import Controller

    controller = Controller(host.scene, makeRun=StandInRun)
    controller.setVolume(volume)
    controller.setSegmentation(node)
    file, part = (Path(host.folder.name) / name for name in ("preview.npy", "box.npy"))
    np.save(file, dense)
    np.save(part, dense[box_in(dense.shape)])
    polls = poll_until(controller, lambda: controller.strokes is not None)
    controller.train()
    polls += poll_until(controller, lambda: controller.running)
    for number in range(1, 9):
        box = box_to_json(box_in(dense.shape)) if number % 3 != 1 else []
        controller._training.onEvent(Preview("train", number, str(part if box else file), "network", number, 0.0, box))
        polls += poll_until(controller, lambda number=number: controller.preview.revision == number)
    polls += poll_until(controller, lambda: not controller.preview._old)
    table.line(f"each of {len(polls)} polls, reading, importing and surfaces included", polls)
    controller.close()


def poll_until(controller, condition) -> list[float]:
    polls = []
    while not condition():
        polls += timed(controller.poll, 1)
        time.sleep(0.05)
    return polls


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="79", metavar="M", help="millions of voxels: 8, 79, 670 or 2800 (%(default)s)")
    measure(SIZES[parser.parse_args().size])
