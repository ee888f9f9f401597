"""Which device, which precision, how much fits: decided from a real convolution and the free memory, and said in words."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from ..contract import memory
from ..contract.errors import DeviceError
from ..contract.settings import Settings
from .sampling import working_shape
from .unet import NetworkPlan, Triple, plan_network

_PROBE_CHANNELS, _PROBE_SIZE, _PROBE_RUNS, _PROBE_SECONDS = 16, 48, 10, 2.0
_TRAINING_BYTES_PER_VOXEL_AND_WIDTH = 90  # activations kept for the backward pass; rounded up from a measured peak in fp32
_USEFUL_SHARE_OF_PEAK = 0.25  # of the probe's rate, which a whole training step reached on 2 CPU cores (norms and copies take the rest)
_STEPS_WANTED = 100  # at least, in the time budget
_LONGEST_STEP_S = 0.6  # so that a cancel is heard within a second
_PIXELS, _PIXELS_CUDA, _LEAST_PIXELS = 192**2, 256**2, 64**2  # at most, of a plane on the working grid; no fewer because a device is slow
# of a slab: one from five. Slabs of eight with 3-D kernels and twice the width learned less even on a GPU (docs/accuracy.md)
_SLICES = 1
_WIDTH, _DEPTH = 16, 4  # of what the network begins with (start.py)
_LEAST_SLABS, MOST_SLABS, _SLABS_CUDA = 2, 8, 4  # in a step; of more cores each slab has several
_BELIEF_BYTES = 400_000_000  # of what the network believes: a byte for each class and working voxel


@dataclass(frozen=True)
class Compute:
    """A device that works: it ran a convolution, forward and backward, at `tflops`, in `dtype`."""

    device: torch.device
    dtype: torch.dtype
    name: str
    tflops: float
    free_bytes: int
    why: str

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def autocast(self) -> torch.autocast:
        """The context in which a network works in `dtype`."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


@dataclass(frozen=True)
class RunPlan:
    """What the engine chose for one run: the network, the working grid's shape (k, j, i), slices in a slab, slabs in a step."""

    network: NetworkPlan
    grid_kji: Triple
    slices: int
    batch: int

    @property
    def voxels_per_step(self) -> int:
        """At most: slabs of the orientation with the largest planes."""
        return math.prod(sorted(self.grid_kji)[1:]) * self.slices * self.batch

    def halved(self) -> RunPlan | None:
        """The next smaller plan after running out of memory: fewer slabs, then thinner ones; None where nothing is left to halve."""
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        return replace(self, slices=self.slices // 2) if self.slices > 1 else None


_most_cores = 1 << 20


def limit_cores(most: int) -> None:
    """Let this process use so many, where others share the machine. To be called before any of them is used."""
    global _most_cores
    _most_cores = most


def usable_cores() -> int:
    """Cores that this process may use: affinity and, on Linux, the container's quota; not what the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(cores, _most_cores)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return max(1, cores)


def use_cores() -> None:
    """Let torch use all of them, in this thread."""
    torch.set_num_threads(usable_cores())


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = memory.free_bytes()
    return 4 << 30 if free is None else free  # where nobody knows, assume a small machine


def candidates() -> list[str]:
    """Device names in order of preference; the CPU is last and always there."""
    found = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def probe(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of a 3 x 3 x 3 convolution, forward and backward, in channels-last memory. Raises what torch raises where it does not work."""
    shape = (1, _PROBE_CHANNELS, _PROBE_SIZE, _PROBE_SIZE, _PROBE_SIZE)
    layout = torch.channels_last_3d
    x = torch.randn(shape, device=device).to(dtype=dtype, memory_format=layout).requires_grad_(True)
    weight = torch.randn(_PROBE_CHANNELS, _PROBE_CHANNELS, 3, 3, 3, device=device).to(dtype=dtype, memory_format=layout).requires_grad_(True)

    def once() -> float:
        start = time.perf_counter()
        F.conv3d(x, weight, padding=1).sum().backward()
        synchronize(device)
        return time.perf_counter() - start

    seconds = [once(), once()]
    while len(seconds) < _PROBE_RUNS and sum(seconds) < _PROBE_SECONDS:
        seconds.append(once())
    if not torch.isfinite(x.grad.float().sum()).item():  # type: ignore[union-attr]
        raise RuntimeError("the convolution gave no finite numbers")
    return 3 * 2 * 27 * _PROBE_CHANNELS**2 * _PROBE_SIZE**3 / min(seconds[1:]) / 1e12


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def choose(requested: str = "auto") -> Compute:
    """The first device that really works; `requested`: auto, cpu, cuda, cuda:N or mps. Raises DeviceError where a named one does not."""
    use_cores()
    if requested != "auto":
        return _tried(requested)
    failures = []
    for name in candidates():
        try:
            compute = _tried(name)
        except DeviceError as error:
            failures.append(error.sentence.rstrip("."))
            continue
        if compute.device.type != "cpu":
            return compute
        reason = "; ".join(failures) or "no CUDA or MPS device was found"
        return replace(compute, why=f"{compute.why}, since {reason}")
    raise DeviceError(f"No device works: {'; '.join(failures)}.", "Reinstall PyTorch.")


def _tried(name: str) -> Compute:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"{name!r} is no device.", f"Found here: {', '.join(candidates())}.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("No CUDA device was found by PyTorch.", f"Found here: {', '.join(candidates())}; `sparseseg doctor` says more.")
    rates: dict[torch.dtype, float] = {}
    failure = ""
    for dtype in precisions(device):
        try:
            rates[dtype] = probe(device, dtype)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            failure = str(error).splitlines()[0]
    if not rates:
        raise DeviceError(
            f"{name} did not run a 3-D convolution ({failure}).", f"Found here: {', '.join(candidates())}; `sparseseg doctor` says more."
        )
    # half precision costs accuracy, so it must pay
    best = max(rates, key=lambda dtype: rates[dtype] * (1.3 if dtype == torch.float32 else 1.0))
    why = f"{title(device)}: a 3-D convolution ran at {rates[best]:.2g} TFLOP/s in {str(best)[6:]}"
    return Compute(device, best, title(device), rates[best], free_memory(device), why)


def precisions(device: torch.device) -> list[torch.dtype]:
    """What is worth trying on the device; half precision is emulated on CPUs, and slow."""
    if device.type == "cuda":
        return [torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16, torch.float32]
    return [torch.bfloat16, torch.float32] if device.type == "cpu" else [torch.float32]


def title(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    return f"CPU, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)


def plan_run(
    compute: Compute, spacing_kji_mm: Sequence[float], own_kji: Sequence[int], classes: int, settings: Settings, channels: int = 1
) -> RunPlan:
    """Working grid, slices and slabs of a step, so that the steps wanted fit the time budget, and activations half of the free memory. A slow device
    gets a coarser grid, never another network: it begins with one that knows something. own_kji: of the box that the network works on; classes:
    with background; channels: of the image. What the user set is taken as it is."""
    own: Triple = (own_kji[0], own_kji[1], own_kji[2])

    def at(pixels: int) -> RunPlan:
        grid = own if settings.full_resolution else working_shape(own, spacing_kji_mm, pixels, max(1, _BELIEF_BYTES // classes))
        slices, batch = settings.slices or _SLICES, settings.batch or _slabs(compute)
        network = plan_network(slices, sorted(grid)[1:], classes, settings.width or _WIDTH, settings.depth or _DEPTH, settings.residual, channels)
        return RunPlan(network, grid, slices, batch)

    pixels = settings.patch_voxels or (_PIXELS_CUDA if compute.is_cuda else _PIXELS)
    plan = at(pixels)
    affordable = _affordable_voxels(compute, plan.network, settings) // (plan.slices * plan.batch)
    if not settings.patch_voxels and affordable < pixels:
        plan = at(max(affordable, _LEAST_PIXELS))
    return fitting(plan, compute)


def fitting(plan: RunPlan, compute: Compute) -> RunPlan:
    """The plan, or with fewer slabs, then thinner ones, where activations would need more than half of the free memory."""
    while _bytes_of(plan) > compute.free_bytes / 2 and (smaller := plan.halved()) is not None:
        plan = smaller
    return plan


def _slabs(compute: Compute) -> int:
    """In a step: one for each core of a CPU, as each core learns from a slab of its own."""
    return min(max(_LEAST_SLABS, usable_cores()), MOST_SLABS) if compute.device.type == "cpu" else _SLABS_CUDA


def _bytes_of(plan: RunPlan) -> int:
    return _TRAINING_BYTES_PER_VOXEL_AND_WIDTH * plan.network.width * plan.voxels_per_step


def _affordable_voxels(compute: Compute, network: NetworkPlan, settings: Settings) -> int:
    per_step = min(_LONGEST_STEP_S, settings.time_budget_s / _STEPS_WANTED)
    return int(per_step * compute.tflops * 1e12 * _USEFUL_SHARE_OF_PEAK / (3 * network.flops_per_voxel()))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch, CUDA or the CPU's allocator said that there is no memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text or "not enough memory" in text)


def release_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def on_cpu(reason: str) -> Compute:
    """The last resort, with its reason in words."""
    compute = _tried("cpu")
    return replace(compute, why=f"{compute.why}, since {reason}")
