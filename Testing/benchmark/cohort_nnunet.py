"""nnU-Net v2, unchanged, on a data set that `sparseseg cohort export` wrote: it plans, preprocesses and trains ten steps. Seconds and losses."""

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
from nnunet import CPU_PLAN_GB, NAME

from cohort import REPOSITORY, chosen, written

STEPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=Path, default=REPOSITORY.parent / "shared" / "training")
    parser.add_argument("--count", type=int, default=6, help="patients")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{part}"] = str(folder / part)
            (folder / part).mkdir()
        os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f", "nnUNet_def_n_proc": "1"}
        lines = [written(folder, file, slices=5) for file in chosen(options)[0]]
        (folder / "list.csv").write_text("\n".join(["image,annotation", *lines]), encoding="utf-8")
        timed("export", lambda: export(folder))
        timed("plan and preprocess", plan)
        os.environ |= {"nnUNet_n_proc_DA": "0"}  # patches are made in this process
        losses = timed(f"{STEPS} steps and a validation", lambda: train(folder / "preprocessed" / NAME))
        assert len(losses) == STEPS and np.isfinite(losses).all()
        print("losses", " ".join(f"{loss:.3f}" for loss in losses), flush=True)


def timed(what: str, work):
    start = time.monotonic()
    result = work()
    print(f"{what}: {time.monotonic() - start:.0f} s", flush=True)
    return result


def export(folder: Path) -> None:
    command = [sys.executable, "-m", "sparseseg", "cohort", "export", folder / "list.csv", "--nnunet", folder / "raw" / NAME]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)


def plan() -> None:
    """As its command does, for so little memory that a step of a CPU takes seconds."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprint_dataset(1, num_processes=1, check_dataset_integrity=True, verbose=False, show_progress_bar=False)
    api.plan_experiment_dataset(1, gpu_memory_target_in_gb=CPU_PLAN_GB)
    api.preprocess_dataset(1, configurations=("3d_fullres",), num_processes=(1,), show_progress_bar=False)


def train(folder: Path) -> list[float]:
    """Of each step."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    losses: list[float] = []

    class TenSteps(nnUNetTrainer):
        """Its own loop for one short epoch."""

        def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, STEPS, 1

        def train_step(self, batch: dict) -> dict:
            result = super().train_step(batch)
            losses.append(float(result["loss"]))
            return result

    plans, dataset = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("nnUNetPlans.json", "dataset.json"))
    plans["continue_training"] = False
    torch.manual_seed(0)
    TenSteps(plans, "3d_fullres", 0, dataset, torch.device("cpu")).run_training()
    return losses


if __name__ == "__main__":
    main()
