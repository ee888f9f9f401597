"""What a volume of a cohort costs, and how that adds up: seconds and bytes of reading, network and writing; volumes a minute with 1 actor and with 2;
changes of the manifest a second.

    python Testing/benchmark/cohort_throughput.py MODEL IMAGE [--volumes 12] [--actors 1 2] [--way --local] [--parts volume actors manifest]

IMAGE is any file or DICOM folder that MODEL takes; the cohort is made of so many links to it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sparseseg.cohort.manifest import Manifest
from sparseseg.cohort.patient import Patient
from sparseseg.cohort.segmenting import Segmenter
from sparseseg.network import device

PARTS = ("volume", "actors", "manifest")


def main() -> None:
    options = parsed()
    found: dict[str, object] = {"cores": device.usable_cores(), "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for part in options.parts:
            found[part] = {"volume": volume, "actors": actors, "manifest": manifest}[part](options, Path(name))
            print(json.dumps({part: found[part]}, indent=1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--volumes", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--way", default="", help="--local: child processes; else a Ray cluster of this computer")
    parser.add_argument("--folder", type=Path, help="where results and manifest are written (default: the system's temporary files)")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def volume(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Of one warm segmenter: medians of wall seconds, and of this process's own seconds on cores, which other programs do not lengthen."""
    segmenter = Segmenter(options.model, options.device)
    runs, spent = [], []
    for _ in range(options.repeats + 1):  # the first one loads and compiles
        start = time.process_time()
        runs.append(segmenter.segment(Patient("a", (str(options.image),)), folder / "a.seg.nrrd", picture_file=folder / "a.svg"))
        spent.append(time.process_time() - start)
    last = runs[-1]
    seconds = {part: round(float(np.median([run.seconds[part] for run in runs[1:]])), 2) for part in last.seconds}
    sizes = {"bytes_read": last.bytes_read, "bytes_written": last.bytes_written, "bytes_picture": (folder / "a.svg").stat().st_size}
    return {"shape_kji": last.shape_kji, "seconds": seconds, "core_seconds": round(float(np.median(spent[1:])), 2), **sizes, "on": segmenter.device}


def actors(options: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """Wall seconds of the whole command, and volumes a minute between the first that began and the last that ended."""
    links = folder / "links"
    links.mkdir()
    for n in range(options.volumes):
        (links / f"{n:03d}{''.join(options.image.suffixes)}").symlink_to(options.image.absolute())
    (links / "list.csv").write_text("\n".join(["image", *sorted(path.name for path in links.iterdir())]) + "\n", encoding="utf-8")
    rows = []
    for count in options.actors:
        out = folder / f"out-{count}"
        command = [sys.executable, "-m", "sparseseg", "cohort", "segment", options.model, links / "list.csv", "-o", out, "--actors", count]
        start = time.monotonic()
        subprocess.run([*map(str, command), "--device", options.device, *options.way.split()], check=True, stdout=subprocess.DEVNULL)
        whole = time.monotonic() - start
        files = sorted(path.stat().st_mtime for path in (out / "segmentations").iterdir())
        between = files[-1] - files[count - 1]  # from when each had done its first
        rows.append({"actors": count, "command_s": round(whole, 1), "a_minute": round(60 * (len(files) - count) / between, 2)})
    return rows


def manifest(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Series a second, each begun and done: two transactions, each on the disk before the next."""
    opened = Manifest(folder)
    names = [f"{n:05d}" for n in range(10_000)]
    opened.begin({name: ["a.nrrd"] for name in names})
    result = {
        **{"estimate": {"s": 0.9}, "voxels": {"s": 1}, "remarks": [], "seconds": {"read": 1.0, "network": 1.0, "write": 1.0}},
        **{"bytes_read": 1, "bytes_written": 1, "output": "a.seg.nrrd", "sha256": "0" * 64},
    }
    start, done = time.monotonic(), 0
    for name in names:
        opened.started(name, "node", 1)
        opened.done(name, "0" * 64, "1", result)
        done += 1
        if time.monotonic() - start > 10:
            break
    rate = done / (time.monotonic() - start)
    opened.close()
    return {"series": done, "series_a_second": round(rate, 1)}


if __name__ == "__main__":
    main()
