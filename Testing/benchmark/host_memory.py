"""What a session keeps and takes of memory in Slicer's process, and the longest poll of its main thread, phase by phase (needs slicer-core).

    python Testing/benchmark/host_memory.py --size 79      # 300 x 512 x 512; 8: 75 x 320 x 320; 670: 640 x 1024 x 1024; 2800: 1972 x 1084 x 1313

The Controller with the volume and the strokes of scene.py, and an engine that only answers. Bytes a voxel beyond what the process held when volume
and strokes were there: memory without mapped files that is kept after the phase, the most of it meanwhile, and mapped files, which the system takes
back when it needs the memory. An applied result, which Slicer would hold too, is among what is kept. Poll: the processor's milliseconds.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from machine import status

from host.scene_host import SceneHost
from scene import SIZES, box_in, build, timed
from sparseseg.contract.box import Box, box_to_json
from sparseseg.contract.protocol import PROTOCOL_VERSION, Open, Preview, Progress, Ready, Result

_EVERY_S = 0.002  # memory is looked at


class Watch:
    """The most memory without mapped files, since it was last asked for, from a thread."""

    def __init__(self) -> None:
        self._most = 0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self._most = max(self._most, status("RssAnon"))
            time.sleep(_EVERY_S)

    def take(self) -> int:
        most, self._most = max(self._most, status("RssAnon")), 0
        return most


class Silent:
    """In the place of the engine's process: it opens any job, and says what it is told to."""

    pid, log = 0, ""

    def __init__(self, **_) -> None:
        self.events: list = []

    def send(self, command) -> None:
        if isinstance(command, Open):
            self.events.append(Ready("open", 1, PROTOCOL_VERSION, 0, {}, "", ""))

    def poll(self) -> list:
        events, self.events = self.events, []
        return events

    def close(self, _grace_s: float) -> threading.Thread:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        return thread


class Session:
    """A host's session, in phases that are measured."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        from SparseSegSlicerLib.session.Controller import Controller
        from SparseSegSlicerLib.session.EngineRun import EngineRun

        self.host, self.folder = SceneHost(), None
        volume, self.node, self.dense, self.ids = build(self.host, shape)
        self.watch, self.voxels, self.numbers = Watch(), math.prod(shape), iter(range(1, 1000))
        self.before = {name: status(name) for name in ("RssAnon", "RssFile", "RssShmem")}
        self.controller = Controller(self.host.scene, makeRun=functools.partial(EngineRun, makeClient=Silent))
        self.volume = volume
        print("| | kept | peak | mapped | longest poll, ms |\n|---|---|---|---|---|")

    def phase(self, name: str, begin: Callable[[], object] | None, ended: Callable[[], bool]) -> None:
        self.watch.take()
        polls = timed(begin, 1) if begin is not None else []
        while not polls or not ended() or not self.controller.isSettled:
            polls += timed(self.controller.poll, 1)
            time.sleep(0.02)
        peak, now = self.watch.take(), {name: status(name) for name in self.before}
        gone = {name: now[name] - self.before[name] for name in now}
        numbers = (gone["RssAnon"], peak - self.before["RssAnon"], gone["RssFile"] + gone["RssShmem"])
        print(f"| {name} | {' | '.join(f'{n / self.voxels:.2f}' for n in numbers)} | {1000 * max(polls):.0f} |", flush=True)

    def begin(self) -> None:
        self.controller.setVolume(self.volume)
        self.controller.setSegmentation(self.node)

    def paint(self, place: int) -> None:
        """A stroke of 30 x 30 voxels."""
        import slicer
        from vtk.util import numpy_support

        segment = self.node.GetSegmentation().GetSegment(self.ids[0])
        image = segment.GetRepresentation("Binary labelmap")
        array = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions())))
        array[len(array) * place // 10, 40:70, 100:130] = segment.GetLabelValue()
        image.Modified()
        self.node.GetSegmentation().InvokeEvent(slicer.vtkSegmentation.SourceRepresentationModified)

    def show(self, box: Box | None = None, shift: int = 0) -> Callable[[], bool]:
        """A preview of all, or of a box; whether it has come."""
        run, revision = self.controller.run, next(self.numbers)
        labels = self.dense if box is None else np.roll(self.dense[box], shift, axis=1)
        np.save(run.folder / f"preview-{revision}.npy", labels)
        self._says(
            Preview("train", revision, str(run.folder / f"preview-{revision}.npy"), "network", 1, 0.0, [] if box is None else box_to_json(box))
        )
        return lambda: self.controller.preview.revision == revision

    def result(self) -> Callable[[], bool]:
        np.save(self.controller.run.folder / "dense.npy", self.dense)
        self._says(Result("train", 999, str(self.controller.run.folder / "dense.npy"), "", "", "", "steps", 1, 1.0, {}, 1.0, []))
        return lambda: self.controller.preview.revision == 999

    def _says(self, event) -> None:
        self.controller.run._client.events.append(event)


def measure(shape: tuple[int, int, int]) -> None:
    session = Session(shape)
    controller, half = session.controller, (slice(0, shape[0] // 2), *(slice(0, n) for n in shape[1:]))
    surfaces = lambda: not controller.preview._old  # noqa: E731
    session.phase("strokes read", session.begin, lambda: controller.strokes is not None)
    for which in (1, 3):
        session.phase("a stroke read", lambda which=which: session.paint(which), lambda: True)
    session.phase("run started", controller.train, lambda: controller.running and controller.run._opened)
    session._says(Progress("train", 1, "training", 1, 0.1, None, 0.1, {}, {}))
    for name, box, shift in (
        ("whole preview", None, 0),
        ("box preview", box_in(shape), 5),
        ("preview of half", half, 5),
        ("whole preview again", None, 0),
    ):
        shown = session.show(box, shift)
        session.phase(name, None, lambda shown=shown: shown() and surfaces())
    shown = session.result()
    session.phase("result", None, lambda: shown() and controller.hasResult and surfaces())
    for which, place in (("first", 5), ("second", 7)):
        session.phase(f"{which} Apply", controller.apply, lambda: not controller.isApplying)
        session.phase("a correction read", lambda place=place: session.paint(place), lambda: True)
        controller.preview.revision, shown = 0, session.result()
        session.phase("result", None, lambda shown=shown: shown() and surfaces())
    session.phase("discarded", controller.discard, lambda: True)
    controller.close()
    session.host.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="79", metavar="M", help="millions of voxels: 8, 79, 670 or 2800 (%(default)s)")
    measure(SIZES[parser.parse_args().size])
