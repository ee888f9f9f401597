"""Training speed beside MONAI's BasicUNet, and why the norm is computed as it is."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import SEGMENTS, SPACING_KJI_MM, Rows, annotate, organs, times
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.belief import Belief
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.settings import Settings
from sparseseg.network import device
from sparseseg.network.augmentation import Augmenter, TrainingVolume, plane_input
from sparseseg.network.device import Compute, RunPlan
from sparseseg.network.intensity import Intensity
from sparseseg.network.sampling import WorkingGrid
from sparseseg.network.targets import Targets
from sparseseg.network.trainer import Trainer
from sparseseg.network.unet import InstanceNorm

TRAINING_KJI = (160, 192, 192)
DEPTH = 4  # BasicUNet always pools four times


@dataclass(frozen=True)
class Loop:
    """A training step to be timed; example: an input of its network."""

    dtype: torch.dtype
    step: Callable[[], None]
    network: nn.Module
    example: Tensor


def training(options: argparse.Namespace) -> Rows:
    """Voxels a second of the engine's training step and of a plain MONAI loop in 2-D, at equal slices, widths, levels and batch, interleaved."""
    compute = device.choose(options.device)
    width, shape = (4, (64, 64, 64)) if options.quick else (32 if compute.is_cuda else 16, TRAINING_KJI)
    settings = Settings(width=width, depth=DEPTH)
    plan = device.plan_run(compute, SPACING_KJI_MM, shape, SEGMENTS + 1, settings)
    image, truth = organs(shape)
    volume = training_volume(compute, plan, settings, image, truth)
    half = compute.dtype if compute.dtype != torch.float32 else torch.bfloat16
    loops: dict[str, Loop] = {"ours, as chosen": ours(compute, plan, settings, volume)}
    if compute.dtype != torch.float32:
        plain = Compute(compute.device, torch.float32, compute.name, compute.tflops, compute.free_bytes, compute.why)
        loops["ours, float32"] = ours(plain, plan, settings, volume)
    try:
        loops["MONAI BasicUNet, plain"] = monai(compute, plan, volume, torch.float32, channels_last=False)
        loops["MONAI BasicUNet, autocast, channels last"] = monai(compute, plan, volume, half, channels_last=True)
    except ImportError:
        print("MONAI is not installed (pip install -e '.[bench]'): only ours is measured.")
    rounds, steps = (2, 1) if options.quick else (7, 20 if compute.is_cuda else 2)
    seconds = interleaved({name: loop.step for name, loop in loops.items()}, rounds, steps, compute.device)
    peaks = {dtype: convolution_peak(compute.device, dtype, options.quick) for dtype in {loop.dtype for loop in loops.values()}}
    print(f"{plan.batch} slabs of {plan.slices} a step, grid {times(plan.grid_kji)}, widths {plan.network.widths}, {compute.why}")
    print(f"our own count: {plan.network.flops_per_voxel() / 1e3:.1f} kFLOP a voxel, forward; a training step takes three times that")
    reference = seconds.get("MONAI BasicUNet, plain")
    return [training_row(name, loops[name], s, reference, plan, peaks) for name, s in seconds.items()]


def training_row(name: str, loop: Loop, seconds: list[float], reference: list[float] | None, plan: RunPlan, peaks: dict) -> dict[str, Any]:
    rate = plan.voxels_per_step / median(seconds)
    flops = counted_flops(loop)
    row = {"loop": name, "precision": str(loop.dtype)[6:], "ms a step": 1000 * median(seconds), "voxels/s": rate}
    ratios = [r / s for r, s in zip(reference, seconds, strict=True)] if reference else []
    row["times MONAI plain (min to max)"] = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
    return row | {
        "kFLOP/voxel forward": flops / 1e3,
        "GFLOP/s": 3 * flops * rate / 1e9,
        "of conv peak": f"{3 * flops * rate / peaks[loop.dtype]:.0%}",
    }


def training_volume(compute: Compute, plan: RunPlan, settings: Settings, image: np.ndarray, truth: np.ndarray) -> TrainingVolume:
    """Whole axial slices as the user's labels, so that all slabs are of one size, and the truth as what is believed elsewhere."""
    grid, on = WorkingGrid.of_whole(image.shape, plan.grid_kji), compute.device
    working = Intensity.fit(image, image[truth > 0]).apply(image, grid, on)
    painted = np.zeros_like(truth)
    for _, k in annotate(truth)[1]:
        painted[k] = truth[k] + 1
    annotation = build_annotation(painted, ClassTable.numbered(SEGMENTS), settings)
    return TrainingVolume(grid, working, Targets(annotation, Belief(truth, np.full_like(truth, 250)), settings, on))


def ours(compute: Compute, plan: RunPlan, settings: Settings, volume: TrainingVolume) -> Loop:
    """The engine's own step: sampling, augmentation, network, both losses, clipping, AdamW, moving average."""
    trainer = Trainer(compute, plan, volume, Augmenter(volume.grid, SPACING_KJI_MM), settings)
    return Loop(compute.dtype, lambda: trainer.step(0.5), trainer.network, plane_input(volume.image, 0, 0, plan.slices)[None])


def monai(compute: Compute, plan: RunPlan, volume: TrainingVolume, dtype: torch.dtype, channels_last: bool) -> Loop:
    """What MONAI's users write: random slices without augmentation, BasicUNet in 2-D, DiceCELoss, AdamW. Slabs are too thin for its four pools."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import BasicUNet

    on, net, shape = compute.device, plan.network, volume.grid.shape_kji
    labels = F.interpolate(volume.targets.labels[None, None].float(), size=shape, mode="nearest")[0, 0]
    model = BasicUNet(spatial_dims=2, in_channels=net.in_channels, out_channels=net.classes, features=(*net.widths, net.widths[0]))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(on, memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss, rng = DiceCELoss(to_onehot_y=True, softmax=True), np.random.default_rng(0)

    def slices(first: int) -> Tensor:
        """As many as in a slab, with the channels that ours sees, as a batch."""
        return plane_input(volume.image, 0, first, plan.slices).transpose(0, 1)

    def step() -> None:
        firsts = [int(first) for first in rng.integers(0, shape[0] - plan.slices + 1, plan.batch)]
        x = torch.cat([slices(first) for first in firsts])
        y = torch.cat([labels[first : first + plan.slices, None] for first in firsts])
        optimizer.zero_grad()
        with torch.autocast(on.type, dtype, enabled=dtype != torch.float32):
            logits = model(x.contiguous(memory_format=layout))
        loss(logits.float(), y).backward()
        optimizer.step()

    return Loop(dtype, step, model, slices(0))


def interleaved(steps: dict[str, Callable[[], Any]], rounds: int, repeats: int, on: torch.device) -> dict[str, list[float]]:
    """Seconds a call of each, one number a round, A B A B: what disturbs the machine disturbs all alike."""
    for step in steps.values():
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            device.synchronize(on)
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            device.synchronize(on)
            seconds[name].append((time.perf_counter() - start) / repeats)
    return seconds


def counted_flops(loop: Loop) -> float:
    """FLOPs of the convolutions in one forward pass, by input voxel, as PyTorch counts them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        loop.network(loop.example)
    return counter.get_total_flops() / (loop.example.numel() / loop.example.shape[1])


def convolution_peak(on: torch.device, dtype: torch.dtype, quick: bool) -> float:
    """FLOP/s of the faster of two plain convolutions, forward and backward: the engine's probe, and 32 channels on 64 x 64 x 64."""
    probed = device.probe(on, dtype) * 1e12
    return probed if quick else max(probed, convolution_rate(on, dtype, 32, 64))


def convolution_rate(on: torch.device, dtype: torch.dtype, channels: int, side: int) -> float:
    conv = nn.Conv3d(channels, channels, 3, padding=1, bias=False).to(on, dtype, memory_format=torch.channels_last_3d)
    x = torch.randn(1, channels, side, side, side, device=on).to(dtype, memory_format=torch.channels_last_3d).requires_grad_(True)
    seconds = interleaved({"conv": lambda: conv(x).sum().backward()}, 5, 2, on)["conv"]
    return 3 * 2 * 27 * channels**2 * side**3 / min(seconds)


def norm(options: argparse.Namespace) -> Rows:
    """Why InstanceNorm runs on batch norm's kernel: the same sums by PyTorch's three norms, forward and backward, channels last."""
    compute = device.choose(options.device)
    channels, side = (4, 16) if options.quick else (16, 64)
    layers = {
        "ours (batch norm of one sample)": InstanceNorm(channels),
        "torch instance norm": nn.InstanceNorm3d(channels, affine=True),
        "torch group norm": nn.GroupNorm(channels, channels),
    }
    x = torch.randn(1, channels, side, side, side, device=compute.device).to(compute.dtype, memory_format=torch.channels_last_3d).requires_grad_(True)

    def call(layer: nn.Module) -> None:
        with compute.autocast():
            y = layer(x)
        y.backward(torch.ones_like(y))

    calls = {name: partial(call, layer.to(compute.device)) for name, layer in layers.items()}
    seconds = interleaved(calls, 3 if options.quick else 9, 3, compute.device)
    least = median(next(iter(seconds.values())))
    return [{"norm": name, "ms": 1000 * median(s), "times ours": median(s) / least} for name, s in seconds.items()]
