"""What a GPU does with a CT of 300 x 512 x 512 voxels and 5 segments, in one call; without a GPU, the same on a tiny volume and the CPU."""

from __future__ import annotations

import time
from statistics import median

import torch
import training
from common import CT_KJI, SEGMENTS, SPACING_KJI_MM, annotate, organs, times
from methods import Options, Pair
from simulate import opened, with_stroke, worst_stroke
from tables import Row

from cases import Case
from sparseseg.contract.box import box_of
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.network import device

GOALS = {"result s": 60.0, "correction preview s": 1.0, "device memory GB": 8.0}


def gpu(options: Options) -> dict[str, list[Row]]:
    """{"whole run": one row, "training step": one row}; quick without a GPU."""
    shape = (40, 64, 64) if options.quick else CT_KJI
    return {"whole run": [whole_run(shape, options)], "training step": [training_step(shape, options)]}


def whole_run(shape: tuple[int, int, int], options: Options) -> Row:
    """From opening the job to the result, and one correction, by the worker; memory as the device sees it."""
    image, truth = organs(shape)
    geometry = Geometry.from_axes(shape, SPACING_KJI_MM[::-1])
    pair = Pair(Case("phantom", image, truth, geometry, ClassTable.numbered(SEGMENTS)), "5 slices, strokes", annotate(truth)[0])
    used = DeviceMemory()
    with opened(pair, options) as product:
        product.watch = used.look
        trained = product.train()
        stroke, _ = worst_stroke(trained.dense, truth, pair.annotation, [0])
        corrected = with_stroke(pair.annotation, truth, stroke)
        answer = product.update(corrected, box_of(corrected != pair.annotation))  # as hosts do
        peak, on = product.peak_gb, product.device
    first, network = trained.shown[0], next((s for s in trained.shown if s.source == "network"), None)
    return {
        "volume (k j i)": times(shape),
        "device": on,
        "opening s": product.opened_s,
        "first preview s": first.seconds,
        "its Dice": pair.dice(first.dense),
        "first network preview s": network.seconds if network else None,
        "result s": trained.seconds,
        "steps": trained.result.step,
        "result Dice": pair.dice(trained.dense),
        "correction, first answer s": answer.first.seconds,
        "correction preview s": answer.refined.seconds,
        "device memory GB": used.peak_gb,
        "worker memory GB": peak,
    }


class DeviceMemory:
    """The most that other processes took of the GPU since this was made, their CUDA contexts included."""

    def __init__(self) -> None:
        self.before = self.most = self._used()

    def look(self) -> None:
        self.most = max(self.most, self._used())

    @property
    def peak_gb(self) -> float | None:
        return (self.most - self.before) / 1e9 if torch.cuda.is_available() else None

    @staticmethod
    def _used() -> int:
        if not torch.cuda.is_available():
            return 0
        free, total = torch.cuda.mem_get_info()
        return total - free


def training_step(shape: tuple[int, int, int], options: Options) -> Row:
    """The engine's own training step with the plan that it makes for this volume, against the convolution peak of the device."""
    compute, settings = device.choose(options.device), options.settings(steps=0)
    plan = device.plan_run(compute, SPACING_KJI_MM, shape, SEGMENTS + 1, settings)
    image, truth = organs(shape)
    volume = training.training_volume(compute, plan, settings, image, truth)
    loop = training.ours(compute, plan, settings, volume)
    seconds = steps_timed(loop.step, compute.device, 2 if options.quick else 30)
    flops = 3 * training.counted_flops(loop) * plan.voxels_per_step
    peak = training.convolution_peak(compute.device, loop.dtype, options.quick)
    return {
        "device": compute.name,
        "precision": str(loop.dtype)[6:],
        "grid": times(plan.grid_kji),
        "slices in a slab": plan.slices,
        "slabs in a step": plan.batch,
        "widths": " ".join(map(str, plan.network.widths)),
        "steps/s": 1 / seconds,
        "TFLOP/s": flops / seconds / 1e12,
        "convolution peak, TFLOP/s": peak / 1e12,
        "of the peak": flops / seconds / peak,
    }


def steps_timed(step, on: torch.device, count: int) -> float:
    """Median seconds a step after three for warming up."""
    seconds = []
    for _ in range(3 + count):
        start = time.perf_counter()
        step()
        device.synchronize(on)
        seconds.append(time.perf_counter() - start)
    return median(seconds[3:])
