"""Memory that prediction takes, in a process of its own."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import CT_KJI, SEGMENTS, SPACING_KJI_MM, Rows, organs, times
from machine import peak_bytes, reset_peak, resident_bytes

from sparseseg.contract.belief import Belief
from sparseseg.contract.box import planes
from sparseseg.contract.settings import Settings
from sparseseg.network import device
from sparseseg.network.device import Compute, RunPlan
from sparseseg.network.intensity import Intensity
from sparseseg.network.predict import Input, predict
from sparseseg.network.sampling import WorkingGrid
from sparseseg.network.unet import UNet3d
from sparseseg.quality.fusion import fuse


def memory(options: argparse.Namespace) -> Rows:
    """Memory that predicting a whole CT takes beyond the volume's own bytes, on the CPU, in a process of its own."""
    if sys.platform == "win32":
        print("skipped: Windows has no getrusage, and its peak cannot be reset")
        return []
    shape = (40, 64, 64) if options.quick else CT_KJI
    with tempfile.TemporaryDirectory(prefix="sparseseg-bench-") as folder:
        file = Path(folder) / "image.npy"
        np.save(file, organs(shape)[0])
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            row = pool.submit(measure_memory, str(file), options.quick).result()
    return [row]


def measure_memory(file: str, quick: bool) -> dict[str, Any]:
    """In the fresh process: a tiny prediction first, so that torch itself is not counted."""
    settings = Settings(width=4, depth=2, patch_voxels=16**3) if quick else Settings()
    compute = device.choose("cpu")
    predict_whole(compute, organs((32, 32, 32))[0], Settings(width=4, depth=2, patch_voxels=16**3))
    torch_own = resident_bytes()
    reset_peak()
    image = np.load(file, mmap_mode="r")
    start = time.perf_counter()
    plan, outputs = predict_whole(compute, image, settings)
    seconds = time.perf_counter() - start
    over = peak_bytes() - torch_own - image.nbytes
    return {
        "volume (k j i)": times(image.shape),
        "segments": SEGMENTS,
        "own bytes, GB": image.nbytes / 1e9,
        "peak over own bytes, GB": over / 1e9,
        "of it beliefs and results, GB": outputs / 1e9,
        "torch's own, GB": torch_own / 1e9,
        "seconds": seconds,
        "grid": times(plan.grid_kji),
        "slices in a slab": plan.slices,
        "width": plan.network.width,
        "precision": str(compute.dtype)[6:],
    }


def predict_whole(compute: Compute, image: np.ndarray, settings: Settings) -> tuple[RunPlan, int]:
    """As Session predicts: the working grid, an untrained network of the planned size in all orientations, and fusion with a prior, slice by slice.
    The bytes of both beliefs and of the results."""
    plan = device.plan_run(compute, SPACING_KJI_MM, image.shape, SEGMENTS + 1, settings)
    rng = np.random.default_rng(0)
    prior = Belief(rng.integers(0, SEGMENTS + 1, image.shape, np.uint8), rng.integers(0, 256, image.shape, np.uint8))
    network = UNet3d(plan.network).to(compute.device, memory_format=torch.channels_last_3d).requires_grad_(False)
    grid = WorkingGrid.of_whole(image.shape, plan.grid_kji)
    working = Intensity.fit(image, np.empty(0)).apply(image, grid, compute.device)
    said = predict(network, Input(working, grid), (0, 1, 2), plan.slices, compute)
    dense, unsure = np.empty_like(prior.label), np.empty_like(prior.label)
    for box in planes(image.shape):
        dense[box], unsure[box] = fuse(Belief(prior.label[box], prior.confidence[box]), said.at(box), 0.5)
    return plan, said.classes.nbytes + sum(a.nbytes for a in (prior.label, prior.confidence, dense, unsure))
