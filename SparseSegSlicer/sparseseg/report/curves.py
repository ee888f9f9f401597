"""Loss and estimate over the time of training, as SVG charts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .data import finite

_LINES = {  # chart colour and dash pattern (for black-and-white prints), and the name in the legend
    "cross_entropy": ("#1769aa", "", "cross-entropy"),
    "dice": ("#c2570c", "6 3", "Dice loss"),
    "estimate": ("#1769aa", "", "estimated Dice"),
}
_CHART = (560, 300, 52, 12, 12, 44)  # width, height, margins left, right, top, bottom


def curves(run: dict[str, Any]) -> str:
    history = [{**entry, "seconds": at} for entry, at in zip(run.get("history") or [], _elapsed(run.get("history") or []), strict=True)]
    losses = _lines([{"seconds": entry["seconds"], **(entry.get("loss") or {})} for entry in history], ("cross_entropy", "dice"))
    estimates = _lines(history, ("estimate",))
    charts = []
    if losses:
        charts.append(_chart("Loss while training", losses, log=_spread(losses) > 20))
    if estimates:
        charts.append(_chart("Estimated mean Dice", estimates, marks=True))
    if not charts:
        return ""
    return f'<section><h2>Training</h2>\n<div class="charts">{"".join(charts)}</div></section>\n'


def _elapsed(history: list[dict[str, Any]]) -> list[float]:
    """Seconds of training so far: a correction or a further run sets the run's clock back, not this one."""
    at, before, total = [], 0.0, 0.0
    for entry in history:
        now = float(entry["seconds"])
        total += now - before if now >= before else 0.0
        before = now
        at.append(total)
    return at


def _lines(history: list[dict[str, Any]], names: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """(seconds, value) of each named quantity that the history has, thinned to some hundred points by averaging."""
    lines = {}
    for name in names:
        points = [(e["seconds"], value) for e in history if (value := finite(e.get(name))) is not None]
        chunk = math.ceil(len(points) / 400)
        if points:
            lines[name] = [tuple(np.mean(points[n : n + chunk], axis=0).tolist()) for n in range(0, len(points), chunk)]
    return lines


def _spread(lines: dict[str, list[tuple[float, float]]]) -> float:
    values = [y for points in lines.values() for _, y in points]
    return max(values) / min(values) if min(values) > 0 else 0.0


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart), the first <= low and the last >= high."""
    if not high > low:
        high = low + 1.0
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [round(n * step, 12) for n in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    steps = [m * 10.0**p for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)]
    first, last = max(s for s in steps if s <= low * 1.001), min(s for s in steps if s >= high * 0.999)
    ticks = [s for s in steps if first <= s <= last]
    return ticks if len(ticks) <= 8 else [t for t in ticks if t in (first, last) or math.isclose(t, 10.0 ** round(math.log10(t)))]


def _chart(title: str, lines: dict[str, list[tuple[float, float]]], log: bool = False, marks: bool = False) -> str:
    """One SVG chart over the time of training."""
    width, height, left, right, top, bottom = _CHART
    longest = max(x for points in lines.values() for x, _ in points)
    unit, name = (60.0, "minutes") if longest > 300 else (1.0, "seconds")
    values = [y for points in lines.values() for _, y in points]
    ticks_x = nice_ticks(0, longest / unit, 6)
    if log:
        ticks_y = _log_ticks(min(values), max(values))
    else:
        low, high = (max(0.0, min(values) - 0.05), min(1.0, max(values) + 0.05)) if marks else (min(0.0, *values), max(values))
        ticks_y = nice_ticks(low, high)
    scale = math.log if log else float

    def place(x: float, y: float) -> tuple[float, float]:
        up = (scale(y) - scale(ticks_y[0])) / (scale(ticks_y[-1]) - scale(ticks_y[0]))
        return left + (width - left - right) * x / ticks_x[-1], height - bottom - (height - top - bottom) * up

    parts = _grid(ticks_x, ticks_y, place)
    keys = []
    for key, points in lines.items():
        color, dash, label = _LINES[key]
        places = [place(x / unit, y) for x, y in points]
        look = f'class="line" stroke="{color}" stroke-dasharray="{dash}"'
        parts.append(f'<path {look} d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in places if marks or len(places) == 1]
        keys.append(f'<span><svg class="key" viewBox="0 0 28 10" aria-hidden="true"><path {look} d="M0 5H28"/></svg>{label}</span>')
    what = f"{name} of training" + (", loss on a logarithmic scale" if log else "")
    axis = f'<text class="x" x="{(left + width - right) / 2}" y="{height - 6}">{what}</text>'
    return (
        f'<figure class="chart"><figcaption><b>{title}</b></figcaption><p class="legend">{"".join(keys)}</p>'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">{"".join(parts)}{axis}</svg></figure>'
    )


def _grid(ticks_x: list[float], ticks_y: list[float], place: Callable[[float, float], tuple[float, float]]) -> list[str]:
    width, height, left, right, top, bottom = _CHART
    parts = []
    for tick in ticks_y:
        y = place(0, tick)[1]
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{width - right}"/><text class="y" x="{left - 7}" y="{y:.1f}">{tick:g}</text>')
    for tick in ticks_x:
        x = place(tick, ticks_y[0])[0]
        line = f'<path class="grid" d="M{x:.1f} {top}V{height - bottom}"/>'
        parts.append(f'{line}<text class="x" x="{x:.1f}" y="{height - bottom + 17}">{tick:g}</text>')
    return parts
