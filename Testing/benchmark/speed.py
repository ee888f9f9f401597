"""How fast answers come on volumes of 7 and 79 million voxels, by the real worker, beside Grow from seeds; how soon it stops; what memory it takes.

For each size, on the phantom of common.py: starting, opening, the first and the refined preview and their Dice; ten corrections on the worst slices
while the worker is idle, and ten while it trains, sent as boxes; `cancel` in every phase. Seconds count from sending a command, or, for a correction,
from writing its file, until the preview's file is read. Numbers are read by people, never by pass/fail tests; `--quick` shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the worker has it
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from common import CT_KJI, SEGMENTS, SPACING_KJI_MM, Rows, annotate, markdown, organs
from machine import machine, peak_bytes, status
from product import PATIENCE_S, Product, Refused, Shown
from scores import painted_dice
from simulate import worst_stroke

from cases import Case
from sparseseg.contract.box import Box, box_of, box_to_json
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.protocol import Cancel, Command, Error, Event, Open, Predict, Preview, Progress, Ready, Result, Train
from sparseseg.contract.settings import Settings

SIZES = {"7": (100, 256, 256), "79": CT_KJI}
QUICK_KJI = (40, 64, 64)
PARTS = ("idle", "training", "cancel", "grow")
LARGE = 20_000_000  # voxels, from which on growing from seeds takes minutes
CANCEL_AT = (0.2, 0.6)  # of a phase, where it is cancelled
STEADY_STEPS = 3  # of training, before it is corrected or cancelled
SECONDS = 600.0  # that a training may take which is cancelled anyway


@dataclass
class Numbers:
    """What was measured at one size; seconds where nothing else is said."""

    shape: tuple[int, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    dice: dict[str, float | None] = field(default_factory=dict)
    corrections: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by state of the worker
    cancel: dict[str, list[float | None]] = field(default_factory=dict)  # by phase; None: done before it could be cancelled
    memory_gb: dict[str, float | None] = field(default_factory=dict)
    grow: dict[str, Any] = field(default_factory=dict)


class Memory:
    """The most that a process held, with mapped pages of files and without, looked at from a thread; a context. 0 where the system does not say."""

    def __init__(self, pid: int) -> None:
        self._pid, self.anonymous = pid, 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def so_far(self, name: str) -> dict[str, float | None]:
        return {name: peak_bytes(self._pid) / 1e9 or None, f"{name}, without mapped files": self.anonymous / 1e9 or None}

    def _look(self) -> None:
        while not self._end.wait(0.02):
            self.anonymous = max(self.anonymous, status("RssAnon", self._pid))


class Strokes:
    """An annotation, (K, J, I) uint8, and the corrections made to it, as a clinician makes them who sees the truth."""

    def __init__(self, truth: np.ndarray, annotation: np.ndarray) -> None:
        self.truth, self.annotation = truth, annotation
        self.made: list[tuple[np.ndarray, np.ndarray]] = []  # flat indices, values
        self._rng = np.random.default_rng(0)

    def correct(self, shown: np.ndarray) -> tuple[Box, np.ndarray]:
        """A line through the worst place of what is shown, or any line where all is right: painted, its box, and where in it."""
        stroke, _ = worst_stroke(shown, self.truth, self.annotation, (0, 1, 2))
        if not stroke.any():
            stroke = self._anywhere()
        box = box_of(stroke)
        assert box is not None
        here = stroke[box]
        self.annotation[box][here] = self.truth[box][here] + 1
        at = np.flatnonzero(stroke)
        self.made.append((at, self.annotation.reshape(-1)[at]))
        return box, here

    def _anywhere(self) -> np.ndarray:
        stroke, places = np.zeros(self.truth.shape, bool), np.flatnonzero((self.truth > 0) & (self.annotation == 0))
        k, j, i = np.unravel_index(int(self._rng.choice(places)), self.truth.shape)
        stroke[k, j, i : i + 12] = self.truth[k, j, i : i + 12] == self.truth[k, j, i]
        return stroke


def measure(shape: tuple[int, int, int], options: argparse.Namespace) -> Numbers:
    numbers = Numbers(shape)
    image, truth = organs(shape)
    begin = annotate(truth)[0]
    case = Case("phantom", image, truth, Geometry.from_axes(shape, SPACING_KJI_MM[::-1]), ClassTable.numbered(SEGMENTS))
    settings = Settings(time_budget_s=SECONDS)
    if options.quick:
        settings = Settings(time_budget_s=SECONDS, width=4, depth=2, patch_voxels=16**3)
    strokes = Strokes(truth, begin.copy())
    with tempfile.TemporaryDirectory(prefix="sparseseg-bench-", ignore_cleanup_errors=True) as folder:
        with (
            Product(Path(folder) / "job", case, begin, settings, options.device, copies=False) as product,
            Memory(product.client.pid) as memory,
        ):
            numbers.seconds |= {"process to ready": product.started_s, "open to ready": product.open_s}
            previews(product, strokes, numbers)
            if "idle" in options.parts:
                numbers.corrections["idle"] = corrections(product, strokes, options.corrections)
                numbers.dice["after corrections"] = dice(product, strokes)
            numbers.memory_gb |= memory.so_far("opening to corrections")
            if "training" in options.parts:
                with training(product):
                    numbers.corrections["training"] = corrections(product, strokes, options.corrections)
            if "cancel" in options.parts:
                numbers.cancel |= cancels(product)
            numbers.memory_gb |= memory.so_far("all of it")
        if "grow" in options.parts and (np.prod(shape) < LARGE or options.grow_large):
            numbers.grow = beside(Path(folder), image, begin, strokes)
    return numbers


# -- answers -----------------------------------------------------------------------------------------------------------


def previews(product: Product, strokes: Strokes, numbers: Numbers) -> None:
    """The previews before anything is learned; then the run is cancelled, and the worker idle."""
    shown: list[Shown] = []
    keep = product.keep(shown, time.perf_counter())
    product.client.send(Train("train"))
    while not shown or shown[-1].source == "growing":
        wait_for(product, lambda event: keep(event) or isinstance(event, Preview))
        name = "refined preview" if shown[-1].source != "growing" else "growing, all of it" if len(shown) > 1 else "first preview"
        numbers.seconds[name] = shown[-1].seconds
        if len(shown) == 1:
            first = product.dense.copy()  # scored later: that would take the cores from the refiner
    numbers.cancel["beginning to learn, the first time"] = [cancel(product)]
    numbers.dice["first preview"] = mean(painted_dice(first, strokes.truth, strokes.annotation))
    numbers.dice["refined preview"] = dice(product, strokes)


def corrections(product: Product, strokes: Strokes, number: int) -> list[dict[str, Any]]:
    return [corrected(product, strokes) for _ in range(number)]


def corrected(product: Product, strokes: Strokes) -> dict[str, Any]:
    """One stroke: seconds to both answers, the share of its voxels that each shows right, and the box of the last."""
    box, here = strokes.correct(product.dense)
    right: list[float] = []
    answer = product.update(strokes.annotation, box, lambda: right.append(float((product.dense[box] == strokes.truth[box])[here].mean())))
    row = {"voxels": int(here.sum()), "first": answer.first.seconds, "refined": answer.refined.seconds}
    return row | {"right at first": right[0], "right at last": right[-1], "box": box_to_json(answer.refined.box)}


def dice(product: Product, strokes: Strokes) -> float | None:
    """Mean Dice of what is shown, where nobody has annotated by now."""
    return mean(painted_dice(product.dense, strokes.truth, strokes.annotation))


def mean(by_segment: dict[int, float]) -> float | None:
    return round(float(np.mean([*by_segment.values()])), 4) if by_segment else None


# -- stopping ----------------------------------------------------------------------------------------------------------

_numbers = count(1)


def cancel(product: Product) -> float:
    """Seconds from `cancel` to `ready`, whether the command at work was stopped or came to its end."""
    mine = f"cancel {next(_numbers)}"
    start = time.perf_counter()
    product.client.send(Cancel(mine))
    wait_for(product, lambda event: isinstance(event, Ready) and event.id == mine)
    return time.perf_counter() - start


@contextmanager
def training(product: Product) -> Iterator[None]:
    """A training at work, past its first steps, nothing held out; cancelled at the end."""
    product.client.send(Train("train", {"estimate": False}))
    wait_for(product, learning)
    yield
    cancel(product)


def learning(event: Event) -> bool:
    return isinstance(event, Progress) and event.stage == "training" and event.step >= STEADY_STEPS


def cancels(product: Product) -> dict[str, list[float | None]]:
    """For each phase, the seconds to stop in it."""
    train, learn, few = Train("train"), Train("train", {"estimate": False}), Train("train", {"estimate": False, "steps": STEADY_STEPS})
    opening, predict = Open("open", str(product.folder), product.on), Predict("predict")
    takes, found = phases(product), {}
    for phase, command, begun, anew in (
        ("opening", opening, None, False),
        ("growing", train, None, True),
        ("refining", train, is_preview("growing"), True),
        ("checking", train, is_preview("prior"), True),
        ("training", learn, learning, False),
    ):
        found[phase] = [cancelled(product, command, begun, share * takes.get(phase, 1.0), anew) for share in CANCEL_AT]
    product.open()
    product.ask(few, Result, product.keep([], 0.0))
    found["beginning to predict"] = [cancelled(product, predict, None, share * 0.2) for share in CANCEL_AT]
    found["predicting"] = [cancelled(product, predict, stage("predicting"), share) for share in CANCEL_AT]
    found["saving"] = [cancelled(product, few, stage("saving"), share * 0.1) for share in CANCEL_AT]
    return found


def phases(product: Product) -> dict[str, float]:
    """Seconds that each phase takes before the first step, in a worker that has loaded everything, some annotation being held out."""
    takes = {"opening": product.open()}
    product.client.send(Train("train"))
    for phase, end in (("growing", is_preview("growing")), ("refining", is_preview("prior")), ("checking", stage("training"))):
        start = time.perf_counter()
        wait_for(product, end)
        takes[phase] = time.perf_counter() - start
    cancel(product)
    return takes


def cancelled(product: Product, command: Command, begun: Callable[[Event], bool] | None, delay_s: float, anew: bool = False) -> float | None:
    """Seconds that `cancel` takes so long after a phase of the command (or it itself) has begun; None where it was done by then. anew: the job is
    opened before, so that nothing is known."""
    if anew:
        product.open()
    product.client.send(command)
    done = begun is not None and is_end(wait_for(product, lambda event: begun(event) or is_end(event, command.id)), command.id)
    until = time.perf_counter() + delay_s
    while not done and (left := until - time.perf_counter()) > 0:
        event = product.client.wait(left)
        done = event is not None and is_end(event, command.id)
    seconds = cancel(product)
    if isinstance(command, Open):
        product.open()  # whether or not it was stopped
    return None if done else seconds


def is_end(event: Event, command: str) -> bool:
    return isinstance(event, Result | Ready | Error) and event.id == command


def is_preview(source: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Preview) and event.source == source


def stage(name: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Progress) and event.stage == name


def wait_for(product: Product, wanted: Callable[[Event], bool], patience_s: float = PATIENCE_S) -> Event:
    """The next event that is wanted. Raises Refused for an error that is no cancelling, and where nothing comes in time."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        event = product.client.wait(0.2)
        if event is None:
            continue
        if isinstance(event, Error) and event.code != "cancelled":
            raise Refused(f"{event.sentence} {event.advice}".strip())
        if wanted(event):
            return event
    raise Refused(f"nothing in {patience_s:.0f} s; the worker's log:\n{product.client.log}")


# -- Grow from seeds ---------------------------------------------------------------------------------------------------


def beside(folder: Path, image: np.ndarray, annotation: np.ndarray, strokes: Strokes) -> dict[str, Any]:
    """Grow from seeds on the same annotation, with the same strokes, in a process of its own; {"missing": why} where it is not there."""
    np.save(folder / "image.npy", image)
    np.save(folder / "annotation.npy", annotation)
    made = {f"{name}{n}": part for n, stroke in enumerate(strokes.made) for name, part in zip(("at", "value"), stroke, strict=True)}
    np.savez(folder / "strokes.npz", **made)
    command = [sys.executable, str(Path(__file__).with_name("growcut.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=1800, check=False)
    if done.returncode or not (folder / "growcut.json").exists():
        return {"missing": done.stderr.strip()[-500:]}
    found = json.loads((folder / "growcut.json").read_text(encoding="utf-8"))
    for name, painted in (("first", annotation), ("last", strokes.annotation)):
        found[f"dice {name}"] = mean(painted_dice(np.load(folder / f"{name}.npy"), strokes.truth, painted))
    return found


# -- tables ------------------------------------------------------------------------------------------------------------


def table(found: Sequence[Numbers]) -> Rows:
    """A row for each thing measured, a column for each size, and one for Grow from seeds where it was measured."""
    columns: dict[str, dict[str, str]] = {}
    for numbers in found:
        size = f"{np.prod(numbers.shape) / 1e6:.3g} M"
        columns[size] = ours(numbers)
        if "first" in numbers.grow:
            columns[f"Grow from seeds, {size}"] = theirs(numbers.grow)
    names = dict.fromkeys(name for column in columns.values() for name in column)
    return [{"": name} | {head: column.get(name, "") for head, column in columns.items()} for name in names]


def ours(numbers: Numbers) -> dict[str, str]:
    rows = {f"{name}, s": shown(value) for name, value in numbers.seconds.items()}
    for name, value in numbers.dice.items():
        rows[f"Dice, {name}"] = "" if value is None else f"{value:.3f}"
    for state, strokes in numbers.corrections.items():
        for answer in ("first", "refined"):
            rows[f"correction, {state}, {answer} answer, s: median (worst)"] = spread([s[answer] for s in strokes])
        rows[f"correction, {state}, voxels right at first; at last"] = "; ".join(
            f"{np.mean([s[name] for s in strokes]):.3f}" for name in ("right at first", "right at last")
        )
    for phase, seconds in numbers.cancel.items():
        known = [s for s in seconds if s is not None]
        rows[f"cancel, {phase}, s: worst"] = shown(max(known)) if known else "done before"
    return rows | {f"peak memory, {name}, GB": shown(value) for name, value in numbers.memory_gb.items()}


def theirs(grow: dict[str, Any]) -> dict[str, str]:
    rows = {"first preview, s": shown(grow["first"]), "Dice, first preview": f"{grow['dice first']:.3f}"}
    if grow["corrections"]:
        rows["correction, idle, first answer, s: median (worst)"] = spread(grow["corrections"])
        rows["Dice, after corrections"] = f"{grow['dice last']:.3f}"
    return rows | {"peak memory, opening to corrections, GB": shown(grow["peak_gb"])}


def spread(seconds: Sequence[float]) -> str:
    return f"{shown(median(seconds))} ({shown(max(seconds))})" if seconds else ""


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=[*SIZES], default=[*SIZES], metavar="M", help="millions of voxels: 7, 79 (both)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS], metavar="NAME", help=f"beside the previews: {', '.join(PARTS)} (all)")
    parser.add_argument("--grow-large", action="store_true", help="Grow from seeds on the large volume, too: minutes")
    parser.add_argument("--corrections", type=int, default=10, metavar="N", help="strokes in each state (%(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers, too")
    parser.add_argument("--quick", action="store_true", help="a tiny volume, two strokes: shows that it runs, measures nothing")
    options = parser.parse_args(arguments)
    if options.quick:
        options.corrections = 2
    about = machine(options.device)
    print(markdown([about]), flush=True)
    found: list[Numbers] = []
    for shape in [QUICK_KJI] if options.quick else [SIZES[size] for size in options.sizes]:
        found.append(measure(shape, options))
        print(f"\n{markdown(table(found))}", flush=True)
        if options.json:
            options.json.write_text(json.dumps({"machine": about, "sizes": [vars(n) for n in found]}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
