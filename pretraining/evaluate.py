"""Dice of the prior and of the refiner on real cases with truth, on the voxels that the annotation leaves unlabelled.

usage: evaluate.py [--data FOLDER] [--weights FILE] [--threads N]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "SparseSegSlicer"), str(ROOT / "Testing")]

from cases import SHARED, load_case, score  # noqa: E402
from sparseseg.contract.belief import Belief  # noqa: E402
from sparseseg.io import files  # noqa: E402
from sparseseg.prior import compiled  # noqa: E402
from sparseseg.prior.grown import compute_prior  # noqa: E402
from sparseseg.prior.refiner import Refined  # noqa: E402
from sparseseg.prior.refiner_network import WEIGHTS, Refiner  # noqa: E402

PRIORS: dict[tuple[str, str], Belief] = {}


def half_precision() -> torch.dtype:
    """bf16 where the processor has it."""
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32


def load_network(path: Path) -> Refiner:
    network = Refiner()
    network.load_state_dict({name: w.float() for name, w in torch.load(path, map_location="cpu", weights_only=True).items()})
    return network.to(memory_format=torch.channels_last_3d).eval().requires_grad_(False)  # type: ignore[call-overload,no-any-return]


def evaluate(network: torch.nn.Module | None, data: Path, say=print) -> tuple[float, float]:
    """Says one line for each case and annotation; mean Dice of prior and refiner."""
    means = []
    for folder in sorted(p for p in data.iterdir() if (p / "case.json").is_file()):
        case = load_case(folder)
        spacing = case.geometry.spacing_kji_mm
        for path in sorted((folder / "annotations").glob("*.nii.gz")):
            key = (folder.name, path.name.removesuffix(".nii.gz"))
            annotation = files.read_volume(path).array.astype(np.uint8)
            labelled = annotation > 0
            labels = np.where(labelled, annotation - 1, 0).astype(np.uint8)
            if key not in PRIORS:
                PRIORS[key] = compute_prior(case.image, labels, labelled, spacing)
            start = time.perf_counter()
            grown = PRIORS[key]
            refined = Refined.start(grown.label, grown.confidence, case.image, labels, labelled, spacing, dtype=half_precision(), network=network)
            seconds = time.perf_counter() - start
            before, after = (score(r.label, case.truth, annotation) for r in (grown, refined))
            means.append((np.mean(before), np.mean(after)))
            each = " ".join(f"{a:.3f}>{b:.3f}" for a, b in zip(before, after, strict=True))
            say(f"{key[0]:17s} {key[1]:9s} {means[-1][0]:.3f} -> {means[-1][1]:.3f} ({means[-1][1] - means[-1][0]:+.3f}) {seconds:5.1f} s  {each}")
    before, after = np.mean(means, axis=0)
    say(f"mean {before:.4f} -> {after:.4f}; worst {min(b - a for a, b in means):+.3f}")
    return float(before), float(after)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    compiled.warm_up()
    evaluate(load_network(options.weights), options.data)
