"""Which device, which precision, how much fits: decided from a real convolution and the free memory, and said in words."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from ..contract.errors import DeviceError
from ..contract.settings import Settings
from .sampling import WorkingGrid
from .unet import NetworkPlan, Triple, plan_network

_PROBE_CHANNELS, _PROBE_SIZE, _PROBE_RUNS, _PROBE_SECONDS = 16, 48, 10, 2.0
_TRAINING_BYTES_PER_VOXEL_AND_WIDTH = 90  # activations kept for the backward pass; rounded up from a measured peak in fp32
_USEFUL_SHARE_OF_PEAK = 0.25  # of the probe's rate, which a whole training step reached on 2 CPU cores (norms and copies take the rest)
_SHORTEST_HALVED = 16  # voxels
_STEPS_WANTED = 100  # at least, in the time budget
_LONGEST_STEP_S = 0.6  # so that a cancel is heard within a second
_GRID_PATCHES = 4.5  # a volume of more patches than this is worked on at a coarser grid: a network that sees little context learns slowly


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


@dataclass(frozen=True)
class RunPlan:
    """What the engine chose for one run: the network, the working grid's shape, the patch on that grid (k, j, i), patches per step."""

    network: NetworkPlan
    grid_kji: Triple
    patch_kji: Triple
    batch: int

    @property
    def voxels_per_step(self) -> int:
        return math.prod(self.patch_kji) * self.batch

    def halved(self) -> RunPlan | None:
        """The next smaller plan after running out of memory: fewer patches, then smaller ones; None where nothing is left to halve.

        The side with the most multiples of the network's pooling is halved first; none gets below that multiple, or below 8 voxels.
        """
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        multiple, patch = self.network.multiple_kji, list(self.patch_kji)
        for axis in sorted(range(3), key=lambda a: -patch[a] / multiple[a]):
            half = patch[axis] // 2 // multiple[axis] * multiple[axis]
            if half >= max(multiple[axis], 8):
                patch[axis] = half
                return replace(self, patch_kji=(patch[0], patch[1], patch[2]))
        return None


def usable_cores() -> int:
    """Cores that this process may use: affinity and, on Linux, the container's quota; not what the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
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
    try:
        if sys.platform == "win32":
            return _free_windows()
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, AttributeError):
        pass
    return 4 << 30  # macOS says no such thing to an unprivileged process: assume a small machine


def _free_windows() -> int:  # pragma: no cover
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [(f"field{n}", ctypes.c_ulonglong) for n in range(7)]

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined]
    return int(status.field1)  # ullAvailPhys


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


def plan_run(compute: Compute, spacing_kji_mm: Sequence[float], shape_kji: Sequence[int], classes: int, settings: Settings) -> RunPlan:
    """Width, depth, working grid and patch so that the steps wanted fit the time budget, and activations fit half of the free memory.

    classes: with background. What the user set is taken as it is.
    """
    width = settings.width or (32 if compute.is_cuda else 16)
    depth = settings.depth or (4 if compute.is_cuda else 3)
    network = plan_network(spacing_kji_mm, shape_kji, classes, width, depth, settings.residual)
    while not settings.width and network.width > 8 and _affordable_voxels(compute, network, settings) < 32**3:
        network = replace(network, width=network.width // 2)
    largest = 128**3 if compute.is_cuda else 64**3
    wanted = settings.patch_voxels or min(_affordable_voxels(compute, network, settings), largest)
    in_memory = int(0.5 * compute.free_bytes / (_TRAINING_BYTES_PER_VOXEL_AND_WIDTH * network.width))
    voxels = max(512, min(wanted, in_memory))
    grid_voxels = int(
        _GRID_PATCHES * (settings.patch_voxels or largest)
    )  # not of what is affordable: the grid must not hang on the load of the machine
    grid = shape_kji if settings.full_resolution else working_shape(spacing_kji_mm, shape_kji, grid_voxels)
    spacing = WorkingGrid(_triple(shape_kji), _triple(grid)).spacing(spacing_kji_mm)
    network = plan_network(spacing, grid, classes, network.width, depth, settings.residual)
    return RunPlan(network, _triple(grid), patch_shape(spacing, grid, network.multiple_kji, voxels), settings.batch or (2 if compute.is_cuda else 1))


def working_shape(spacing_kji_mm: Sequence[float], shape_kji: Sequence[int], voxels: int) -> Triple:
    """The volume's grid, its finest axes halved until it has at most `voxels` voxels."""
    shape, spacing = [int(n) for n in shape_kji], [float(s) for s in spacing_kji_mm]
    while math.prod(shape) > voxels and max(shape) >= _SHORTEST_HALVED:
        finest = min(s for s, n in zip(spacing, shape, strict=True) if n >= _SHORTEST_HALVED)
        for a in range(3):
            if spacing[a] < 1.5 * finest and shape[a] >= _SHORTEST_HALVED:
                shape[a], spacing[a] = math.ceil(shape[a] / 2), spacing[a] * 2
    return _triple(shape)


def _triple(values: Sequence[int]) -> Triple:
    k, j, i = values
    return (int(k), int(j), int(i))


def _affordable_voxels(compute: Compute, network: NetworkPlan, settings: Settings) -> int:
    per_step = min(_LONGEST_STEP_S, settings.time_budget_s / _STEPS_WANTED)
    return max(16**3, int(per_step * compute.tflops * 1e12 * _USEFUL_SHARE_OF_PEAK / (3 * network.flops_per_voxel())))


def patch_shape(spacing_kji_mm: Sequence[float], shape_kji: Sequence[int], multiple_kji: Triple, voxels: int) -> Triple:
    """About `voxels` voxels, as near to a cube in millimetres as the volume allows, in multiples of the network's pooling."""
    largest = [math.ceil(n / m) * m for n, m in zip(shape_kji, multiple_kji, strict=True)]
    patch = list(multiple_kji)
    while True:
        free = [a for a in range(3) if patch[a] + multiple_kji[a] <= largest[a]]
        axis = min(free, key=lambda a: patch[a] * spacing_kji_mm[a], default=None)
        if axis is None or math.prod(patch) / patch[axis] * (patch[axis] + multiple_kji[axis]) > voxels:
            return (patch[0], patch[1], patch[2])
        patch[axis] += multiple_kji[axis]


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
