"""A few small patients with strokes, as files and a list; the command line on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import sparseseg
from phantoms import Phantom, two_organs
from sparseseg import cli, io

FULL_PRECISION = "import torch; from sparseseg.network import device; device.precisions = lambda _: [torch.float32]"
MAIN = f"import sys; {FULL_PRECISION}; from sparseseg.cli import main; sys.exit(main(sys.argv[1:]))"


def patients(count: int, shape_kji: tuple[int, int, int] = (12, 24, 26)) -> list[Phantom]:
    return [two_organs((shape_kji[0], shape_kji[1] + n % 2, shape_kji[2]), seed=n) for n in range(count)]


def write_list(folder: Path, phantoms: list[Phantom], ending: str = ".seg.nrrd") -> Path:
    """list.csv with an image and an annotation of each."""
    folder.mkdir(exist_ok=True)
    lines = ["image,annotation"]
    for n, phantom in enumerate(phantoms):
        io.write_volume(folder / f"p{n}.nrrd", phantom.image, phantom.geometry)
        io.write_annotation(folder / f"p{n}-strokes{ending}", phantom.annotation, phantom.geometry, phantom.classes)
        lines.append(f"p{n}.nrrd,p{n}-strokes{ending}")
    (folder / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "list.csv"


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def train(source: Path, model: Path, *more: object) -> dict:
    """In this process; the log."""
    assert run("cohort", "train", source, "-o", model, "--device", "cpu", *more) == 0
    return json.loads(model.with_name(f"{model.name}.json").read_text(encoding="utf-8"))


def start(*arguments: object, rank: int = 0, count: int = 1, port: int = 0) -> subprocess.Popen:
    """In a process of its own, one of `count` as torchrun starts them, in float32."""
    environment = {**os.environ, "PYTHONPATH": str(Path(sparseseg.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    if count > 1:
        environment |= {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", MAIN, "cohort", "train", *map(str, arguments), "--device", "cpu"]
    heard = None if sys.platform == "win32" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", preexec_fn=heard)
