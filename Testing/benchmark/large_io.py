"""How fast volumes come in and go out, format by format: MB of voxels a second, and the memory that it takes beside mapped files.

The phantom is made in slabs straight into files, so that only the disk bounds its size: ellipsoids in noise, int16. Reading is what `segment` does
before it starts its engine: from the file into a job's folder, checked; writing is of a finished job's label map. Each format is read and written in
a process of its own, whose memory without mapped files is asked for every 50 ms (Linux only). All files are removed. `python
Testing/benchmark/large_io.py --help` has the options; numbers are read by people, never by pass/fail tests.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from common import markdown

from sparseseg import io
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.lock import Owner
from sparseseg.contract.settings import Settings
from sparseseg.contract.store import OnDisk

SIZES = {"7": (100, 256, 256), "79": (300, 512, 512), "671": (640, 1024, 1024), "2807": (1972, 1084, 1313)}
QUICK_KJI = (24, 64, 64)
IN = ("raw.nrrd", ".nrrd", ".nii", ".nii.gz", ".mha", ".npy", ".tif", ".zarr")
OUT = (".seg.nrrd", ".nrrd", ".nii.gz", ".mha", ".npy", ".tif", ".zarr")
SPACING_MM = 0.01


def truth_of(shape: Sequence[int], first: int, last: int) -> np.ndarray:
    """Planes first to last of the label map: five ellipsoids."""
    rng = np.random.default_rng(0)
    k, j, i = np.ogrid[first:last, : shape[1], : shape[2]]
    labels = np.zeros((last - first, *shape[1:]), np.uint8)
    for label in range(1, 6):
        middle, radius = rng.uniform(0.25, 0.75, 3) * shape, rng.uniform(0.08, 0.25, 3) * shape
        inside = sum(((axis - m) / r) ** 2 for axis, m, r in zip((k, j, i), middle, radius, strict=True)) < 1
        labels[inside] = label
    return labels


def slabs(shape: Sequence[int], image: bool) -> Iterator[np.ndarray]:
    """The phantom, some planes at a time: its image, or its truth. Noise is repeated from slab to slab, which makes it quick."""
    depth = max(1, 4_000_000 // (shape[1] * shape[2]))
    noise = np.random.default_rng(1).normal(0, 15, (depth, *shape[1:])).astype(np.int16)
    for first in range(0, shape[0], depth):
        labels = truth_of(shape, first, min(shape[0], first + depth))
        yield labels if not image else np.array([40, 120, -20, 80, 0, 160], np.int16)[labels] + noise[: len(labels)]


def make(folder: Path, shape: Sequence[int], image: bool) -> np.ndarray:
    """A .npy of the phantom, mapped."""
    store = OnDisk(folder)
    return store.keep("The phantom", shape, np.int16 if image else np.uint8, slabs(shape, image))


def path_of(folder: Path, ending: str, kind: str) -> Path:
    return folder / (f"{kind}.{ending}" if ending[0] != "." else f"{kind}{ending}")


def one(what: str, ending: str, folder: Path, shape: tuple[int, ...]) -> float:
    """Seconds of reading or writing a file of a format."""
    grid = Geometry.from_axes(shape, (SPACING_MM,) * 3)
    path = path_of(folder, ending, "image" if what == "read" else "result")
    started = time.monotonic()
    if what == "read":
        with Owner(folder / "job"):
            taking = io.Taking((SPACING_MM,)) if ending == ".npy" else io.Taking()
            volume = io.read_volume(path, store=OnDisk(folder / "job"), taking=taking)
            Job.create(folder / "job", volume.array, None, JobRecord(volume.geometry, ClassTable.numbered(5), Settings())).close()
    else:
        io.write_segmentation(path, np.load(folder / "truth.npy", mmap_mode="r"), grid, ClassTable.numbered(5))
    return time.monotonic() - started


def measured(what: str, ending: str, folder: Path, shape: tuple[int, ...]) -> tuple[float, float | None]:
    """Seconds, and the most MB of memory without mapped files, of a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--one", json.dumps([what, ending, str(folder), shape])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak: list[float] = []
    watch = threading.Thread(target=_watch, args=(process, peak))
    watch.start()
    out, _ = process.communicate()
    watch.join()
    if process.returncode:
        raise SystemExit(f"{what} {ending} failed")
    return float(out), max(peak, default=None)


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
            peak += [int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon")]
        except (OSError, ValueError):
            return
        time.sleep(0.05)


def rows(shape: tuple[int, ...], folder: Path, formats: Sequence[str]) -> Iterator[tuple[str, ...]]:
    grid = Geometry.from_axes(shape, (SPACING_MM,) * 3)
    image, truth = make(folder, shape, True), make(folder, shape, False)
    np.lib.format.open_memmap(folder / "truth.npy", "w+", np.uint8, shape)[...] = truth
    for ending in formats:
        cells = []
        if ending in IN:
            path = path_of(folder, ending, "image")
            _write_image(path, image, grid)
            cells += _cells(measured("read", ending, folder, shape), image.nbytes, _size(path))
            _remove(path, folder / "job")
        else:
            cells += [""] * 4
        if ending in OUT:
            cells += _cells(measured("write", ending, folder, shape), truth.nbytes, _size(path_of(folder, ending, "result")))
            _remove(path_of(folder, ending, "result"))
        else:
            cells += [""] * 4
        yield (ending if ending[0] == "." else "NRRD, not packed", *cells)


def _write_image(path: Path, image: np.ndarray, grid: Geometry) -> None:
    if path.name.endswith("raw.nrrd"):
        sizes = " ".join(map(str, image.shape[::-1]))
        head = f"NRRD0004\ntype: short\ndimension: 3\nspace: LPS\nsizes: {sizes}\nspace directions: (0.01,0,0) (0,0.01,0) (0,0,0.01)\n"
        with path.open("wb") as file:
            file.write(f"{head}endian: little\nencoding: raw\n\n".encode("ascii"))
            for plane in image:
                file.write(plane.tobytes())
    else:
        io.write_volume(path, image, grid)


def _cells(found: tuple[float, float | None], voxel_bytes: int, file_bytes: int) -> list[str]:
    seconds, peak = found
    return [f"{seconds:.1f}", f"{voxel_bytes / 1e6 / seconds:.0f}", f"{file_bytes / 1e6:.1f}", "" if peak is None else f"{peak:.0f}"]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _remove(*paths: Path) -> None:
    for path in paths:
        for file in sorted(path.rglob("*"), reverse=True) if path.is_dir() else []:
            file.rmdir() if file.is_dir() else file.unlink()
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["7", "79"], help="millions of voxels")
    parser.add_argument("--folder", type=Path, help="where files are made, and removed (default: the system's for temporary files)")
    every = list(dict.fromkeys((*IN, *OUT)))
    parser.add_argument("--formats", nargs="+", choices=every, default=every, metavar="ENDING", help=f"of {', '.join(every)} (all)")
    parser.add_argument("--quick", action="store_true", help="a tiny volume: shows that it runs, measures nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        what, ending, folder, shape = json.loads(options.one)
        print(one(what, ending, Path(folder), tuple(shape)))
        return 0
    load = f", load {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{load}")
    for shape in [QUICK_KJI] if options.quick else [SIZES[size] for size in options.sizes]:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            columns = [f"{what} {unit}" for what in ("in:", "out:") for unit in ("s", "MB/s", "file, MB", "memory, MB")]
            print(f"\n{' x '.join(map(str, shape))}\n")
            print(markdown([dict(zip(("format", *columns), row, strict=True)) for row in rows(shape, Path(folder), options.formats)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
