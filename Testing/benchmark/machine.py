"""The machine that a benchmark ran on, how much of it processes may use, and what they used."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "VTK_SMP_MAX_THREADS")


def machine(on: str) -> dict[str, Any]:
    """What a table says about the machine; on: the device asked for."""
    import torch

    from sparseseg.network import device

    compute = device.choose(on)
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "CPU": cpu_name(),
        "usable cores": device.usable_cores(),
        "device": compute.name,
        "precision chosen": str(compute.dtype)[6:],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load before": load,
    }


def cpu_name() -> str:
    if sys.platform == "darwin":
        return subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False).stdout.strip()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def limit_threads(count: int) -> None:
    """All processes started from here on use this many threads and, where the system can say so, cores."""
    for name in _THREADS:
        os.environ[name] = str(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def resident_bytes() -> int:
    return status("VmRSS") or peak_bytes()


def peak_bytes(pid: int | str = "self") -> int:
    """Linux: a process's own peak (getrusage's includes its parent's there); elsewhere getrusage, in bytes on macOS, only for this one; else 0."""
    if (peak := status("VmHWM", pid)) or pid != "self" or sys.platform == "win32":
        return peak
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> None:
    with contextlib.suppress(OSError):  # not Linux, or not allowed: then the warm-up's own small peak is the least that is reported
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def status(name: str, pid: int | str = "self") -> int:
    """Bytes from /proc/PID/status; 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0
