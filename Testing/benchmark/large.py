"""What a run on a volume of 7 million to 2.8 billion voxels takes: time, memory, disk, bytes read and written, and Dice, by the real worker.

    python Testing/benchmark/large.py --size 79      # 300 x 512 x 512; 7: 100 x 256 x 256; 670: 640 x 1024 x 1024; 2800: 1972 x 1084 x 1313
    python Testing/benchmark/large.py --size 2800 --folder /somewhere/large --without result
    python Testing/benchmark/large.py --draw large.png 7.json 79.json ...   # cost against size, of runs with --json; needs matplotlib

The phantom is that of common.py, made plane by plane straight on the disk, and removed at the end. Prints a column of a Markdown table. Nothing here
holds the volume in memory: previews are mapped, truth is made where it is asked for. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the worker has it
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from common import CT_KJI, SEGMENTS, SPACING_KJI_MM, markdown
from machine import machine, status
from plots import against_size
from product import Product
from speed import cancel

from sparseseg.contract.box import Box
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.protocol import Event, Preview, Progress, Result, Train
from sparseseg.contract.settings import Settings

SIZES = {"1": (48, 144, 144), "7": (100, 256, 256), "79": CT_KJI, "670": (640, 1024, 1024), "2800": (1972, 1084, 1313)}
STROKES, LONGEST = 10, 40  # corrections, and their voxels at most
STEPS = 20  # of training, before the result
LOOKED_AT = 40  # slices, about, that a correction is chosen from
PATIENCE_S = 4 * 3600


class Phantom:
    """SEGMENTS ellipsoids in noise, as common.organs makes them, and their annotation as of common.annotate: plane by plane."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape, size = shape, np.array(shape)
        self._half = np.maximum(3, size * (0.3, 0.11, 0.11)).astype(int)
        turns = 1.26 * np.arange(1, SEGMENTS + 1)
        self._centres = [(size * (0.5, 0.5 + 0.25 * np.cos(a), 0.5 + 0.25 * np.sin(a))).astype(int) for a in turns]
        first, last = self._centres[0][0] - self._half[0], self._centres[0][0] + self._half[0]
        self.complete = [int(k) for k in np.linspace(first, last, 7)[1:-1]]

    def truth(self, k: int) -> np.ndarray:
        """Of one slice, (J, I) uint8."""
        plane = np.zeros(self.shape[1:], np.uint8)
        for c, centre in enumerate(self._centres, 1):
            if abs(k - centre[0]) > self._half[0]:
                continue
            box = tuple(slice(m - h, m + h + 1) for m, h in zip(centre[1:], self._half[1:], strict=True))
            j, i = np.ogrid[tuple(slice(-h, h + 1) for h in self._half[1:])]
            inside = ((k - centre[0]) / self._half[0]) ** 2 + (j / self._half[1]) ** 2 + (i / self._half[2]) ** 2 <= 1
            plane[box][inside] = c
        return plane

    def images(self) -> Iterator[np.ndarray]:
        rng, values = np.random.default_rng(0), np.arange(SEGMENTS + 1) * 40 - 100
        for k in range(self.shape[0]):
            yield values[self.truth(k)] + rng.normal(0, 15, self.shape[1:]).astype(np.int16)

    def annotations(self) -> Iterator[np.ndarray]:
        quarter = self.shape[1] // 4
        for k in range(self.shape[0]):
            truth, plane = self.truth(k), np.zeros(self.shape[1:], np.uint8)
            if k % 10 == 0:
                plane[quarter::quarter] = truth[quarter::quarter] + 1
            yield np.where(truth > 0, truth + 1, plane) if k in self.complete else plane

    def write(self, path: Path, planes: Iterator[np.ndarray], kind: Any) -> np.ndarray:
        """To a file; mapped, for changes that are nowhere else."""
        array = np.lib.format.open_memmap(path, "w+", kind, self.shape)
        for k, plane in enumerate(planes):
            array[k] = plane
        array.flush()
        return np.load(path, mmap_mode="c")

    def dice(self, found: np.ndarray, annotation: np.ndarray) -> float:
        """Mean over the segments, where nobody annotated."""
        both, sizes = np.zeros(SEGMENTS + 1), np.zeros(SEGMENTS + 1)
        for k in range(self.shape[0]):
            free, truth = annotation[k] == 0, self.truth(k)
            one, other = found[k][free], truth[free]
            sizes += np.bincount(one, minlength=SEGMENTS + 1) + np.bincount(other, minlength=SEGMENTS + 1)
            both += np.bincount(one[one == other], minlength=SEGMENTS + 1)
        return float((2 * both[1:] / sizes[1:]).mean())


class Watch:
    """From a thread: the most that a process held in memory without mapped files, and the least that was free of a disk, since the last `take`."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._pid, self._folder, self._before = pid, folder.parent, shutil.disk_usage(folder).free
        self._io = self._bytes()
        self._anonymous = self._disk = 0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self._anonymous = max(self._anonymous, status("RssAnon", self._pid))
            self._disk = max(self._disk, self._before - shutil.disk_usage(self._folder).free)
            time.sleep(0.05)

    def _bytes(self) -> dict[str, int]:
        lines = Path(f"/proc/{self._pid}/io").read_text(encoding="ascii").splitlines()
        return {name: int(count) for name, count in (line.split(": ") for line in lines)}

    def take(self, phase: str) -> dict[str, float]:
        now, before = self._bytes(), self._io
        rows = {
            f"{phase}: peak memory without mapped files, GB": self._anonymous / 1e9,
            f"{phase}: disk taken beside the job's input, at most, GB": self._disk / 1e9,
            f"{phase}: read from the disk, GB": (now["read_bytes"] - before["read_bytes"]) / 1e9,
            f"{phase}: written to it, GB": (now["write_bytes"] - before["write_bytes"]) / 1e9,
        }
        self._anonymous, self._disk, self._io = 0, 0, now
        return rows


class Mapped(Product):
    """A host that maps what it is shown."""

    def _see(self, event: Event) -> Box | None:
        if isinstance(event, Preview) and not event.box:
            self.dense = np.load(event.file, mmap_mode="c")
            return None
        return super()._see(event)


def measure(shape: tuple[int, int, int], folder: Path, options: argparse.Namespace) -> dict[str, float]:
    phantom = Phantom(shape)
    image, annotation = (
        phantom.write(folder / f"{name}.npy", planes, kind)
        for name, planes, kind in (("image", phantom.images(), np.int16), ("annotation", phantom.annotations(), np.uint8))
    )
    case = SimpleNamespace(image=image, geometry=Geometry.from_axes(shape, SPACING_KJI_MM[::-1]), classes=ClassTable.numbered(SEGMENTS))
    settings = Settings(time_budget_s=86_400, steps=STEPS)
    with Mapped(folder / "job", case, annotation, settings, options.device, copies=False) as product:  # type: ignore[arg-type]
        del image, case
        (folder / "image.npy").unlink()
        watch, rows = Watch(product.client.pid, folder), {"open, s": product.open_s}
        rows |= previews(product, phantom, annotation) | watch.take("first previews")
        if "corrections" not in options.without:
            rows |= corrections(product, phantom, annotation) | watch.take("corrections")
        if "result" not in options.without:
            rows |= result(product, phantom, annotation) | watch.take("training and result")
        rows["peak memory with mapped files, GB"] = status("VmHWM", product.client.pid) / 1e9
    return rows


def previews(product: Product, phantom: Phantom, annotation: np.ndarray) -> dict[str, float]:
    """Seconds until growing's and the refined preview, and their Dice; then the run is cancelled."""
    shown: list[Any] = []
    start = time.perf_counter()
    keep = product.keep(shown, start)
    product.client.send(Train("train"))
    while not shown or shown[-1].source == "growing":
        product.until("train", Preview, keep, PATIENCE_S)
        if len(shown) == 1:
            first = product.dense
    cancel(product)
    assert product.dense is not None
    return {
        "first preview, s": shown[0].seconds,
        "refined preview, s": shown[-1].seconds,
        "Dice, first preview": phantom.dice(first, annotation),
        "Dice, refined preview": phantom.dice(product.dense, annotation),
    }


def corrections(product: Product, phantom: Phantom, annotation: np.ndarray) -> dict[str, float]:
    answers = []
    for _ in range(STROKES):
        box = wrong_line(product, phantom, annotation)
        annotation[box] = phantom.truth(box[0].start)[box[1:]] + 1
        answers.append(product.update(annotation, box))
    assert product.dense is not None
    first, refined = ([getattr(answer, name).seconds for answer in answers] for name in ("first", "refined"))
    return {
        "correction, first answer, s: median": median(first),
        "correction, first answer, s: worst": max(first),
        "correction, refined, s: median": median(refined),
        "correction, refined, s: worst": max(refined),
        "Dice after corrections": phantom.dice(product.dense, annotation),
    }


def result(product: Product, phantom: Phantom, annotation: np.ndarray) -> dict[str, float]:
    """Seconds of STEPS of training with all that comes before, and of the result after them, until its files are there; and its Dice."""
    start, learned = time.perf_counter(), []
    keep = product.keep([], start)

    def look(event: Event) -> None:
        keep(event)
        if isinstance(event, Progress) and event.step >= STEPS and not learned:
            learned.append(time.perf_counter())

    product.client.send(Train("result"))
    found = product.until("result", Result, look, PATIENCE_S)
    end = time.perf_counter()
    return {
        f"{STEPS} steps, s": learned[0] - start,
        "the result after them, s": end - learned[0],
        "Dice, result": phantom.dice(np.load(found.file, mmap_mode="r"), annotation),
    }


def wrong_line(product: Product, phantom: Phantom, annotation: np.ndarray) -> Box:
    """A piece of the row that is wrong in most places, where nobody annotated, of some slices."""
    assert product.dense is not None
    best, place = -1, (0, 0)
    for k in range(3, phantom.shape[0], max(1, phantom.shape[0] // LOOKED_AT)):
        wrong = ((product.dense[k] != phantom.truth(k)) & (annotation[k] == 0)).sum(axis=1)
        if wrong.max() > best:
            best, place = int(wrong.max()), (k, int(wrong.argmax()))
    k, j = place
    at = np.flatnonzero((product.dense[k, j] != phantom.truth(k)[j]) & (annotation[k, j] == 0))
    first = int(at[0]) if len(at) else 0
    last = int(at[at < first + LONGEST][-1]) if len(at) else 0
    return slice(k, k + 1), slice(j, j + 1), slice(first, last + 1)


def main(arguments: Sequence[str] | None = None, show: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=[*SIZES], default="79", metavar="M", help="millions of voxels: 1, 7, 79, 670 or 2800 (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the phantom and the job lie meanwhile (a temporary folder)")
    parser.add_argument("--without", nargs="+", choices=("corrections", "result"), default=[], metavar="PART", help="corrections, result")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers, too")
    parser.add_argument("--draw", nargs="+", type=Path, metavar="FILE", help="a picture to make, and the JSON files to make it of; nothing is run")
    options = parser.parse_args(arguments)
    if options.draw is not None:
        against_size([json.loads(file.read_text(encoding="utf-8")) for file in options.draw[1:]], options.draw[0])
        return 0
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    about, shape = machine(options.device), SIZES[options.size]
    show(markdown([about]))
    with tempfile.TemporaryDirectory(prefix="sparseseg-large-", dir=options.folder, ignore_cleanup_errors=True) as folder:
        rows = measure(shape, Path(folder), options)
    head = f"{np.prod(shape, dtype=np.int64) / 1e6:.0f} M"
    show(f"\n{markdown([{'': name, head: value} for name, value in rows.items()])}")
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "shape": shape, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
