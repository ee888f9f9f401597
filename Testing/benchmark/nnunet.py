"""nnU-Net v2 on one sparsely annotated volume: its own fingerprint, plan, preprocessing, trainer and prediction; voxels nobody labelled are `ignore`.

Different from its usual run: one case, no validation; the learning rate falls with the clock, not with 1000 epochs; on a CPU the plan is made for
CPU_PLAN_GB of memory and prediction is without mirroring, else one step takes minutes. All its processes and files stay in the task's folder.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from peers import Task

NAME = "Dataset001_Strokes"
CPU_PLAN_GB, GPU_PLAN_GB = 1.5, 8.0


def run(task: Task) -> np.ndarray:
    """(K, J, I) uint8, 0 background. task.seconds are for training alone; the rest comes on top."""
    folder = task.folder / "nnunet"
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder / name)
        (folder / name).mkdir(parents=True, exist_ok=True)
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f", "nnUNet_def_n_proc": "1"}
    write_dataset(folder / "raw" / NAME, task)
    import torch

    on = torch.device("cuda" if task.device != "cpu" and torch.cuda.is_available() else "cpu")
    plan(on.type)
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # patches are made in this process; planning asks for 1 at least
    torch.manual_seed(task.seed)
    trainer = train(folder / "preprocessed" / NAME, on, task.seconds)
    return predict(trainer, task)


def write_dataset(folder: Path, task: Task) -> None:
    labels = {"background": 0, **{f"segment {c}": c for c in range(1, task.segments + 1)}, "ignore": task.segments + 1}
    values = np.where(task.annotation > 0, task.annotation - 1, task.segments + 1).astype(np.uint8)
    for part, name, array in (("imagesTr", "case_0000", task.image), ("labelsTr", "case", values)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        image = sitk.GetImageFromArray(array)
        image.SetSpacing([float(s) for s in task.spacing_kji_mm[::-1]])
        sitk.WriteImage(image, str(folder / part / f"{name}.nii.gz"))
    about = {"channel_names": {"0": task.modality}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")


def plan(kind: str) -> None:
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprint_dataset(1, num_processes=1, verbose=False, show_progress_bar=False)
    api.plan_experiment_dataset(1, gpu_memory_target_in_gb=GPU_PLAN_GB if kind == "cuda" else CPU_PLAN_GB)
    api.preprocess_dataset(1, configurations=("3d_fullres",), num_processes=(1,), show_progress_bar=False)


def train(folder: Path, on, seconds: float):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    plans, dataset = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("nnUNetPlans.json", "dataset.json"))
    plans["continue_training"] = False
    trainer = nnUNetTrainer(plans, "3d_fullres", "all", dataset, on)
    trainer.on_train_start()
    trainer.network.train()
    start, steps = time.monotonic(), 0
    while (gone := time.monotonic() - start) < seconds or not steps:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * max(0.01, 1 - gone / max(seconds, 1e-6)) ** 0.9
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
    print(f"nnU-Net: {steps} steps, patch {trainer.configuration_manager.patch_size}, batch {trainer.batch_size}", flush=True)
    return trainer


def predict(trainer, task: Task) -> np.ndarray:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    cuda = trainer.device.type == "cuda"
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(use_mirroring=cuda, perform_everything_on_device=cuda, device=trainer.device, allow_tqdm=False)
    axes = trainer.inference_allowed_mirroring_axes if cuda else None
    weights = [trainer.network.state_dict()]
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, weights, trainer.dataset_json, "nnUNetTrainer", axes
    )
    image = task.image[None].astype(np.float32)
    return predictor.predict_single_npy_array(image, {"spacing": list(task.spacing_kji_mm)}).astype(np.uint8)
