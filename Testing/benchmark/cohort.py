"""The second use: one network from a few slices of each of many patients, beside the same network from all of their slices; Dice on others.

Patients of a folder with head-neck-ct (pretraining/README.md). What the engine's networks begin with has learned from these patients, so both begin
from nothing. Written again after each volume: --out may be read while it works.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cases import spread_slices
from sparseseg import io
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.quality.estimate import dice

REPOSITORY = Path(__file__).resolve().parents[2]
ORGANS = {1: "Brainstem", 2: "SpinalCord", 3: "RightParotid", 4: "LeftParotid", 7: "Mandible"}  # by label; those that most patients have
BELIEVED = (0.25, 3.0)  # times an organ's median volume, as in pretraining/patients.py
CLASSES = ClassTable.numbered(len(ORGANS), list(ORGANS.values()))


def main() -> None:
    options = parsed()
    results = {"options": {name: str(value) for name, value in vars(options).items()}, "arms": {}}
    learned, others = chosen(options)
    with tempfile.TemporaryDirectory() as name:
        for arm in options.arms:
            folder = Path(name, arm)
            folder.mkdir()
            lines = [written(folder, file, options.slices if arm == "sparse" else 0) for file in learned]
            (folder / "list.csv").write_text("\n".join(["image,annotation", *lines]), encoding="utf-8")
            results["arms"][arm] = row = train(folder, options)
            for number, file in enumerate(others):
                row.setdefault("dice", []).append(scored(folder, file, number))
                options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(table(results))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=Path, default=REPOSITORY.parent / "shared" / "training")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--count", type=int, default=20, help="patients to learn from, and as many others")
    parser.add_argument("--slices", type=int, default=5, help="of each patient that are annotated in the sparse arm, axial, as a whole")
    parser.add_argument("--arms", nargs="+", default=["sparse", "dense"], choices=["sparse", "dense"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bench-cohort.json"))
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Files of patients who have all organs, of believable size: to learn from, and others."""
    about = json.loads((options.patients / "head-neck-ct.json").read_text(encoding="utf-8"))
    middle = {name: np.median([a["volumes_ml"][name] for a in about if name in a["volumes_ml"]]) for name in ORGANS.values()}

    def is_whole(volumes: dict[str, float]) -> bool:
        return all(BELIEVED[0] * middle[name] <= volumes.get(name, 0) <= BELIEVED[1] * middle[name] for name in ORGANS.values())

    files = [options.patients / a["file"] for a in about if is_whole(a["volumes_ml"])]
    order = np.random.default_rng(options.seed).permutation(len(files))
    picked = [files[n] for n in order[: 2 * options.count]]
    return picked[: options.count], picked[options.count :]


def loaded(file: Path) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """Image (K, J, I) int16, truth (K, J, I) uint8: 0 background, 1 + n the n-th of ORGANS; grid."""
    with np.load(file) as data:
        image, labels, (k, j, i) = data["image"], data["labels"], data["spacing_kji_mm"]
    truth = np.zeros(labels.shape, np.uint8)
    for value, label in enumerate(ORGANS, 1):
        truth[labels == label] = value
    return image, truth, Geometry.from_axes(image.shape, (i, j, k))


def written(folder: Path, file: Path, slices: int) -> str:
    """A line of the list; slices: how many are annotated, all of them if 0."""
    image, truth, geometry = loaded(file)
    annotation = truth + np.uint8(1)
    if slices:
        kept = [index for _, index in spread_slices(truth, 0, slices)]
        annotation[np.setdiff1d(np.arange(len(annotation)), kept)] = 0
    names = f"{file.stem}.nrrd", f"{file.stem}.seg.nrrd"
    io.write_volume(folder / names[0], image, geometry)
    io.write_annotation(folder / names[1], annotation, geometry, CLASSES)
    return ",".join(names)


def run(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "sparseseg", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def train(folder: Path, options: argparse.Namespace) -> dict:
    start = time.monotonic()
    model = folder / "model.pt"
    run("cohort", "train", folder / "list.csv", "-o", model, "--steps", options.steps, "--held-out", "0.1", "--from-nothing")
    log = json.loads(model.with_name("model.pt.json").read_text(encoding="utf-8"))
    return {"wall_s": round(time.monotonic() - start), "training_s": log["seconds"], "steps": log["steps"], "log": log}


def scored(folder: Path, file: Path, number: int) -> dict[str, float]:
    """Dice of each organ of a patient that the model does not know."""
    image, truth, geometry = loaded(file)
    source, result = folder / f"other-{number}.nrrd", folder / f"other-{number}-result.nrrd"
    io.write_volume(source, image, geometry)
    run("predict", folder / "model.pt", source, "-o", result)
    found = io.read_labels(result, geometry)
    return {name: round(dice(found, truth, value), 4) for value, name in enumerate(ORGANS.values(), 1)}


def table(results: dict) -> str:
    """In Markdown: the mean Dice of each organ and over all."""
    lines = [f"| arm | steps | {' | '.join(ORGANS.values())} | mean |", f"|---|---|{'---|' * (len(ORGANS) + 1)}"]
    for arm, row in results["arms"].items():
        means = [np.mean([patient[name] for patient in row["dice"]]) for name in ORGANS.values()]
        lines.append(f"| {arm} | {row['steps']} | {' | '.join(f'{mean:.3f}' for mean in [*means, np.mean(means)])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
