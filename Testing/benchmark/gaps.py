"""How long a session goes without looking up at its host, stage by stage: `cancel` is heard between two ticks only.

    python Testing/benchmark/gaps.py --shape 512 512 600 --budget 30

One session in this process, on the phantom of common.py: opening, a run with a stroke and a new annotation in it, prediction, the same idle, and
what an idle worker catches up on. Of each way from one tick to the next: how often, the longest by the clock and of the main thread's own time
(the clock alone tells of a busy machine, the thread's time alone misses what it waits for), and where it was then. Numbers are read by people.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the worker has it
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from common import SEGMENTS, annotate, organs

import sparseseg
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.settings import Settings
from sparseseg.prior import compiled
from sparseseg.session.devices import DeviceChoice
from sparseseg.session.session import Session

PACKAGE = str(Path(sparseseg.__file__).parent)
SAMPLE_S = 0.02
SHOWN_FRAMES = 3


@dataclass
class Way:
    """Between two ticks of these stages."""

    count: int = 0
    clock_s: float = 0.0
    thread_s: float = 0.0
    over_s: float = 0.0
    where: str = ""


@dataclass
class Gaps:
    """A session's host that keeps the time between two ticks. `limit_s`: longer ones count as `over`."""

    limit_s: float = 0.5
    ways: dict[str, Way] = field(default_factory=dict)
    finishing: bool = False
    updates: list[Callable[[Session], None]] = field(default_factory=list)
    stage: str = "start"
    on_tick: Callable[[str, int], None] = lambda stage, step: None

    def __post_init__(self) -> None:
        self._places: list[str] = []
        self._main = threading.get_ident()
        self._ended = threading.Event()
        self._begin()
        threading.Thread(target=self._sample, daemon=True).start()

    def close(self) -> None:
        self._ended.set()

    def tick(self, stage: str, step: int = 0, *_: Any, **__: Any) -> None:
        clock_s, thread_s = time.monotonic() - self._clock, time.thread_time() - self._thread
        way = self.ways.setdefault(f"{self.stage} -> {stage}", Way())
        way.count += 1
        way.over_s += clock_s if clock_s > self.limit_s else 0.0
        if clock_s > way.clock_s:
            way.where = "; ".join(f"{place} ({n})" for place, n in Counter(self._places).most_common(3))
        way.clock_s, way.thread_s = max(way.clock_s, clock_s), max(way.thread_s, thread_s)
        self.stage = stage
        self.on_tick(stage, step)
        self._begin()

    def mark(self, stage: str) -> None:
        """As a tick: a part of the measurement is over."""
        self.tick(stage)

    def _begin(self) -> None:
        self._places.clear()
        self._clock, self._thread = time.monotonic(), time.thread_time()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            frames = [frame for frame in traceback.extract_stack(sys._current_frames()[self._main]) if frame.filename.startswith(PACKAGE)]
            self._places.append(" < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-SHOWN_FRAMES:])))

    @property
    def update_waits(self) -> bool:
        return bool(self.updates)

    def take_update(self) -> Callable[[Session], None] | None:
        return self.updates.pop(0) if self.updates else None

    def preview(self, *_: Any) -> None: ...
    def check(self, *_: Any) -> None: ...
    def warning(self, code: str, sentence: str, advice: str) -> None:
        print(f"{code}: {sentence}", flush=True)


def measure(shape: tuple[int, int, int], budget_s: float, folder: Path, limit_s: float = 0.5, settings: Settings | None = None) -> Gaps:
    """All stages of a session on a volume of this shape."""
    image, truth = organs(shape)
    annotation, slices = annotate(truth)
    record = JobRecord(
        Geometry.from_axes(shape, (0.8, 0.8, 1.0)), ClassTable.numbered(SEGMENTS), settings or Settings(time_budget_s=budget_s), 1, tuple(slices)
    )
    Job.create(folder, image, annotation, record).close()
    del image
    threading.Thread(target=compiled.warm_up, daemon=True).start()  # as the worker does
    gaps = Gaps(limit_s)
    session = Session.open(folder, DeviceChoice("cpu"), gaps)
    gaps.mark("opened")

    def send(part: tuple[slice, ...] | None) -> Callable[[Session], None]:
        revision = session.job.record.revision + 1 + len(gaps.updates)
        name = f"annotation-{revision:04d}.npy"
        np.save(folder / name, annotation if part is None else annotation[part])
        gaps._begin()  # the host's own time
        box = None if part is None else [[s.start, s.stop] for s in part]
        return lambda running: running.update(name, revision, [list(pair) for pair in slices], box)

    def stroke(at: float) -> tuple[slice, ...]:
        part = tuple(slice(int(n * at), int(n * at) + max(2, n // 50)) for n in shape)
        annotation[part] = truth[part] + 1
        return part

    def in_training(stage: str, step: int) -> None:
        if stage == "training" and step in plan:
            gaps.updates.append(send(plan.pop(step)()))

    plan: dict[int, Callable[[], tuple[slice, ...] | None]] = {2: lambda: stroke(0.5), 4: lambda: None}
    gaps.on_tick = in_training
    session.train({})
    gaps.on_tick = lambda stage, step: None
    gaps.mark("trained")
    session.predict("")
    gaps.mark("predicted")
    send(stroke(0.4))(session)
    gaps.mark("stroke taken")
    send(None)(session)
    gaps.mark("annotation taken")
    session.prior._corrections = 100  # renewal is due
    session.idle()
    gaps.mark("caught up")
    session.train({"time_budget_s": 5.0})
    gaps.mark("trained again")
    session.close()
    gaps.mark("closed")
    gaps.close()
    return gaps


def table(gaps: Gaps) -> str:
    rows = ["| from -> to | ticks | longest (s) | main thread's own (s) | over the limit, all (s) | where |", "|---|---|---|---|---|---|"]
    for name, way in sorted(gaps.ways.items(), key=lambda pair: -pair[1].clock_s):
        rows.append(f"| {name} | {way.count} | {way.clock_s:.2f} | {way.thread_s:.2f} | {way.over_s:.1f} | {way.where} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(600, 512, 512), metavar=("K", "J", "I"))
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of training")
    parser.add_argument("--limit", type=float, default=0.5, help="seconds; what is longer is counted")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        gaps = measure(tuple(options.shape), options.budget, Path(folder) / "job", options.limit)
    print(table(gaps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
