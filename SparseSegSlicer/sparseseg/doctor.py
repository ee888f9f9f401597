"""`sparseseg doctor`: what is installed, what each device really does, and what the engine would choose and why."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import torch

from . import __version__
from .contract.errors import DeviceError
from .contract.settings import Settings
from .network import device
from .prior import compiled

_TYPICAL = ((2.0, 0.8, 0.8), (150, 512, 512), 6)  # spacing (mm), shape, both (k, j, i), and classes of an abdominal CT


def examine() -> dict[str, Any]:
    """All findings as plain values; `works` is False where not even the CPU runs a convolution."""
    torch.set_num_threads(device.usable_cores())
    found: dict[str, Any] = {
        "versions": {"sparseseg": __version__, "python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda or "none"}
        | {package: importlib.metadata.version(package) for package in ("numpy", "SimpleITK", "numba") if _is_installed(package)},
        "system": f"{platform.system()} {platform.machine()}",
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
    found["choice"] = f"{compute.why}. For a CT of 150 x 512 x 512: {network}."
    return found


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _examine(name: str) -> dict[str, Any]:
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
    lines = [", ".join(f"{name} {version}" for name, version in found["versions"].items()), f"{found['system']}, {found['cores']} usable cores"]
    for each in found["devices"]:
        lines.append(f"{each['title']}: {each['free_gib']} GiB free; 3-D convolution, forward and backward:")
        lines += [f"  {dtype}: {rate} TFLOP/s" if isinstance(rate, float) else f"  {dtype}: {rate}" for dtype, rate in each["tflops"].items()]
    return "\n".join([*lines, f"growing: {found['growing']}", f"choice: {found['choice']}"])
