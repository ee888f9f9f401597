"""`sparseseg doctor`: what is installed, what each device really does, and what the engine would choose and why."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from . import __version__
from .contract.errors import DeviceError, PackageError
from .contract.settings import Settings
from .prior import compiled

_PACKAGES = (
    "torch",
    "torchvision",
    "torchaudio",
    "numpy",
    "SimpleITK",
    "numba",
    "pydicom",
    "highdicom",
    "tifffile",
    "imagecodecs",
    "zarr",
)  # those an installation may touch
_TYPICAL = ((2.0, 0.8, 0.8), (150, 512, 512), 6)  # spacing (mm), shape, both (k, j, i), and classes of an abdominal CT


def examine() -> dict[str, Any]:
    """All findings as plain values; `works` is False where not even the CPU runs a convolution, `torch` where PyTorch does not load."""
    found: dict[str, Any] = {
        "versions": {"sparseseg": __version__, "python": platform.python_version()} | _installed(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    try:
        return found | _tried()
    except PackageError as error:
        return found | {"torch": False, "devices": [], "works": False, "choice": str(error)}


def _installed() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _tried() -> dict[str, Any]:
    """What works here. Raises PackageError."""
    from .network import device

    device.use_cores()
    found: dict[str, Any] = {
        "torch": True,
        "cores": device.usable_cores(),
        "devices": [_examine(name) for name in device.candidates()],
        "growing": "compiled by numba" if compiled.warm_up() else "by numpy: corrections take longer; install numba to compile them",
        "works": True,
    }
    try:
        compute = device.choose()
    except DeviceError as error:
        return {**found, "works": False, "choice": str(error)}
    plan = device.plan_run(compute, *_TYPICAL, Settings())
    grid = " x ".join(map(str, plan.grid_kji))
    network = f"width {plan.network.width}, {len(plan.network.kernels)} levels, a grid of {grid}, {plan.batch} slabs of {plan.slices} a step"
    return {**found, "choice": f"{compute.why}. For a CT of 150 x 512 x 512: {network}."}


def _examine(name: str) -> dict[str, Any]:
    import torch

    from .network import device

    chosen = torch.device(name)
    rates: dict[str, Any] = {}
    for dtype in device.precisions(chosen):
        try:
            rates[str(dtype)[6:]] = round(device.probe(chosen, dtype), 3)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            rates[str(dtype)[6:]] = f"does not work ({str(error).splitlines()[0]})"
    return {"name": name, "title": device.title(chosen), "free_gib": round(device.free_memory(chosen) / 2**30, 1), "tflops": rates}


def text(found: dict[str, Any]) -> str:
    """The findings for a person."""
    lines = [", ".join(f"{name} {version}" for name, version in found["versions"].items())]
    lines.append(found["system"] + (f", {found['cores']} usable cores" if "cores" in found else ""))
    for each in found["devices"]:
        lines.append(f"{each['title']}: {each['free_gib']} GiB free; 3-D convolution, forward and backward:")
        lines += [f"  {dtype}: {rate} TFLOP/s" if isinstance(rate, float) else f"  {dtype}: {rate}" for dtype, rate in each["tflops"].items()]
    return "\n".join(lines + [f"{name}: {found[name]}" for name in ("growing", "choice") if name in found])
