"""Pictures: Dice against time, Dice against the number of annotated slices, Dice over interactions. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tables import OURS, Row, pairs_of, value

COLORS = {OURS: "C3", "prior": "C1", "grow": "C0", "grow-region": "C9", "fill": "C2", "walker": "C4", "nnunet": "C5"}


def figure(rows: int, columns: int, width: float = 3.6, height: float = 2.8) -> tuple[Any, np.ndarray]:
    """Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure((width * columns, height * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(fig)
    return fig, np.array(fig.subplots(rows, columns, squeeze=False))


def against_time(rows: Sequence[Row], file: Path) -> None:
    """One picture for each case and protocol: the previews of ours as a curve that ends in the result, each peer as a point."""
    pairs = pairs_of(rows)
    columns = min(5, len(pairs))
    fig, axes = figure(-(-len(pairs) // columns), columns)
    for ax, ((case, protocol), by) in zip(axes.flat, pairs, strict=False):
        for method, row in by.items():
            if (dice := value(row, "dice")) is None:
                continue
            known = [(p["seconds"], p["dice"]) for p in row.get("previews", []) if p["dice"] is not None]
            curve = [*known, (row["seconds"], dice)]
            ax.plot(*zip(*curve, strict=True), marker="o", markersize=4, color=COLORS.get(method), label=method)
        ax.set(title=f"{case}, {protocol}", xlabel="seconds", ylabel="Dice", xscale="log")
        ax.grid(alpha=0.3)
    finish(fig, axes, len(pairs), file)


def against_slices(rows: Sequence[Row], file: Path) -> bool:
    """One picture for each case with two or more numbers of complete axial slices. False where there is none."""
    cases: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        count = slices_of(row["protocol"])
        if count is not None and (dice := value(row, "dice")) is not None:
            cases.setdefault(row["case"], {}).setdefault(row["method"], []).append((count, dice))
    cases = {name: methods for name, methods in cases.items() if max(len({n for n, _ in points}) for points in methods.values()) > 1}
    if not cases:
        return False
    fig, axes = figure(1, len(cases))
    for ax, (name, methods) in zip(axes.flat, cases.items(), strict=True):
        for method, points in methods.items():
            ax.plot(*zip(*sorted(points), strict=True), marker="o", markersize=4, color=COLORS.get(method), label=method)
        ax.set(title=name, xlabel="complete axial slices", ylabel="Dice", xticks=sorted({n for points in methods.values() for n, _ in points}))
        ax.grid(alpha=0.3)
    finish(fig, axes, len(cases), file)
    return True


def against_size(runs: Sequence[Row], file: Path) -> None:
    """What runs of large.py of several sizes took: seconds, memory without mapped files, and what went over the disk, where it was anything. runs:
    their JSON."""
    runs = sorted(runs, key=lambda run: np.prod(run["shape"], dtype=np.int64))
    panels = {
        "seconds": {
            "open": "open, s",
            "first preview": "first preview, s",
            "refined preview": "refined preview, s",
            "correction, first answer (worst)": "correction, first answer, s: worst",
            "correction, refined (worst)": "correction, refined, s: worst",
            "result after training": "the result after them, s",
        },
        "peak memory without mapped files, GB": {
            phase: f"{phase}: peak memory without mapped files, GB" for phase in ("first previews", "corrections", "training and result")
        },
        "read and written, GB": {
            f"{phase}: {way}": f"{phase}: {row}, GB"
            for phase in ("first previews", "corrections", "training and result")
            for way, row in (("read", "read from the disk"), ("written", "written to it"))
        },
    }
    fig, axes = figure(1, len(panels), 4.4, 4.2)
    for ax, (title, rows) in zip(axes.flat, panels.items(), strict=True):
        for n, (name, row) in enumerate(rows.items()):
            points = [(float(np.prod(run["shape"], dtype=np.int64)), run["rows"][row]) for run in runs if run["rows"].get(row)]
            if points:
                ax.plot(*zip(*points, strict=True), marker="o", markersize=4, color=f"C{n}", label=name)
        ax.set(title=title, xlabel="voxels", xscale="log")
        if "memory" in title:
            ax.set_ylim(bottom=0)
        else:
            ax.set_yscale("log")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    fig.savefig(file)


def slices_of(protocol: str) -> int | None:
    kind, _, count = protocol.partition("-")
    return int(count) if kind in ("slices", "even") and count.isdigit() else None


def lines(titles: Sequence[str], curves: Sequence[dict[str, Sequence[tuple[float, float]]]], xlabel: str, file: Path) -> None:
    """One picture for each title, with named curves of (x, Dice)."""
    columns = min(5, len(titles))
    fig, axes = figure(-(-len(titles) // columns), columns)
    for ax, title, named in zip(axes.flat, titles, curves, strict=False):
        for name, points in named.items():
            ax.plot(*zip(*points, strict=True), marker="o", markersize=4, color=COLORS.get(name), label=name)
        ax.set(title=title, xlabel=xlabel, ylabel="Dice")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7)
    finish(fig, axes, len(titles), file, legend=False)


def finish(fig: Any, axes: np.ndarray, used: int, file: Path, legend: bool = True) -> None:
    for ax in axes.flat[used:]:
        ax.set_axis_off()
    if legend:
        named = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        fig.legend(named.values(), named.keys(), loc="outside lower center", ncols=max(1, min(len(named), 3 * axes.shape[1])), fontsize=8)
    fig.savefig(file)
