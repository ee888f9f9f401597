"""How the result was made: device, network, training, settings."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from .. import __version__
from .data import CROSS, DASH, ReportInput, finite

_REASONS = {"budget": "time budget spent", "steps": "all steps done", "finish": "finished by the user", "predicted": "prediction only"}


def run_table(data: ReportInput) -> str:
    run = data.run
    order = f"(k {CROSS} j {CROSS} i)"
    training = (_amount(run, "steps", "{:,} steps"), _amount(run, "seconds", "{:.1f} s"), _REASONS.get(str(run.get("reason")), run.get("reason")))
    values = {
        "Device": f" {DASH} ".join(str(run[k]) for k in ("device", "why") if run.get(k)),
        "Precision": run.get("precision"),
        "Network": _network(run.get("network") or {}),
        "Working grid": f"{_times(run['grid_kji'])} voxels {order}" if run.get("grid_kji") else None,
        "Learned from": _learned(run),
        "Training": ", ".join(str(t) for t in training if t),
        "Timings": ", ".join(f"{name} {seconds:.2f} s" for name, seconds in (run.get("timings") or {}).items()),
        "Network's share of the result": _share(run),
        "Volume": f"{_times(data.geometry.shape_kji)} voxels of {_times(data.geometry.spacing_kji_mm)} mm {order}",
        "Channels": f"{', '.join(run['channels'])}; pictures show the first" if run.get("channels") else None,
        "Annotation": run.get("annotation"),
        "Precision of the annotation": _precision(run),
        "Settings": ", ".join(f"{name} {value}" for name, value in (run.get("settings") or {}).items()),
        "Engine": f"SparseSegSlicer {run.get('engine_version', __version__)}",
    }
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{escape(str(value))}</td></tr>' for name, value in values.items() if value)
    return f'<section><h2>Run</h2>\n<table class="run"><tbody>{rows}</tbody></table></section>\n'


def _network(network: dict[str, Any]) -> str | None:
    if not network:
        return None
    levels = len(network.get("kernels") or []) or "?"
    text = f"3-D U-Net, width {network.get('width', '?')}, {levels} levels" + (", residual" if network.get("residual") else "")
    return text + (f", {network['parameters']:,} parameters" if "parameters" in network else "")


def _learned(run: dict[str, Any]) -> str | None:
    if not run.get("slices"):
        return None
    names = ", ".join("kji"[axis] for axis in run.get("orientations") or [])
    text = f"{run.get('batch', 1)} slabs of {run['slices']} a step, across {names}"
    supervised = finite(run.get("supervised"))
    return text if supervised is None else f"{text}; {100 * supervised:.0f} % of the voxels that it computed had a label"


def _share(run: dict[str, Any]) -> str | None:
    value = finite(run.get("share"))
    return None if value is None else f"{value:.2f}; the prior has the rest"


def _precision(run: dict[str, Any]) -> str | None:
    """Of the labels where two meet and at the rims of strokes."""
    value = finite(run.get("annotation_precision"))
    return (
        None
        if value is None
        else f"{value:.2f}: how far the image and all other labels agree with those at contours and rims, 0.2 not at all, 0.8 fully"
    )


def _amount(run: dict[str, Any], key: str, form: str) -> str | None:
    return None if run.get(key) is None else form.format(run[key])


def _times(values: Sequence[float]) -> str:
    return f" {CROSS} ".join(f"{v:.4g}" if isinstance(v, float) else str(int(v)) for v in values)
