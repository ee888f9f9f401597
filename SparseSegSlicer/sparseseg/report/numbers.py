"""Dice of the voices and of the result, the estimate, volumes: as numbers, a verdict and a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from html import escape

import numpy as np

from .data import DASH, MINUS, ReportInput, finite
from .drawing import rgb, swatch

_SAME = 0.005  # Dice; less apart is "about the same"
_CANNOT_TELL = "cannot tell"  # of a segment that has no estimate


@dataclass(frozen=True)
class DiceRow:
    """One segment's numbers, or the mean over segments (without voxels and volume). None: unknown, or nothing to compare."""

    name: str
    voxels: int | None
    volume_ml: float | None
    estimate: float | None
    result: float | None
    voices: dict[str, float | None] = field(default_factory=dict)  # of each voice alone

    @property
    def prior(self) -> float | None:
        return self.voices.get("prior")


def dice_table(data: ReportInput) -> list[DiceRow]:
    """A row for each segment in table order, and the mean over segments. Dice against the truth counts unlabelled voxels only."""
    voxels = np.zeros(256, np.int64)
    for slab in data.dense:
        voxels += np.bincount(slab.reshape(-1), minlength=256)
    result = _dice_by_value(data.dense, data)
    alone = {name: _dice_by_value(labels, data) for name, labels in data.voices.items()}
    ml = abs(float(np.linalg.det(data.geometry.matrix[:3, :3]))) / 1000
    estimate = data.run.get("estimate") or {}
    rows = [
        DiceRow(s.name, int(voxels[c]), float(voxels[c] * ml), finite(estimate.get(s.id)), finite(result.get(c)), _at(alone, c))
        for c, s in enumerate(data.classes.segments, start=1)
    ]
    voice_means = {name: _mean(r.voices[name] for r in rows) for name in alone}
    return [*rows, DiceRow("Mean", None, None, _mean(r.estimate for r in rows), _mean(r.result for r in rows), voice_means)]


def _at(alone: dict[str, dict[int, float]], c: int) -> dict[str, float | None]:
    return {name: finite(dice.get(c)) for name, dice in alone.items()}


def _dice_by_value(labels: np.ndarray, data: ReportInput) -> dict[int, float]:
    """Dice of each segment on unlabelled voxels; nan where neither side has it, empty where the truth is unknown."""
    if data.truth is None:
        return {}
    both, ours, theirs = (np.zeros(256, np.int64) for _ in range(3))
    for mine, truth, annotation in zip(labels, data.truth, data.annotation, strict=True):
        free = annotation == 0
        a, b = mine[free], truth[free]
        both += np.bincount(a[a == b], minlength=256)
        ours += np.bincount(a, minlength=256)
        theirs += np.bincount(b, minlength=256)
    total = ours + theirs
    return {c: 2 * int(both[c]) / int(total[c]) if total[c] else math.nan for c in range(1, len(data.classes) + 1)}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def head(data: ReportInput, rows: list[DiceRow]) -> str:
    mean = rows[-1]
    notes = ["Dice is the overlap of two outlines: 1 is perfect, 0 is none."]
    if mean.estimate is not None:
        notes.append(
            "The estimate is how well slices of the result bring back the annotation: those half-way between annotated slices are taken for an "
            "annotation, and what grows from them is compared with what was painted. Far from any annotation the result can be worse."
        )
    notes.append("A figure does not replace a look: check the outlines below, unseen slices above all, before using the result.")
    return f'<header><h1>{escape(data.title)}</h1>\n<p class="verdict">{_verdict(rows)}</p>\n<p class="note">{" ".join(notes)}</p></header>\n'


def _verdict(rows: list[DiceRow]) -> str:
    mean, segments = rows[-1], rows[:-1]
    if mean.result is not None:
        known = [(r.result, r.name) for r in segments if r.result is not None]
        text = f"Mean Dice <b>{mean.result:.3f}</b> against the truth, on voxels that nobody annotated"
        if mean.prior is not None:
            gain = mean.result - mean.prior
            how = "about the same as" if abs(gain) < _SAME else "better than" if gain > 0 else "<b>worse than</b>"
            text += f": {how} the prior alone, {mean.prior:.3f}"
    elif mean.estimate is not None:
        known = [(r.estimate, r.name) for r in segments if r.estimate is not None]
        text = f"Estimated mean Dice <b>{mean.estimate:.3f}</b> ({len(known)} of {len(segments)} segments)"
        text += ", by how well slices of the result bring back the annotation"
    else:
        return "The quality of this result is unknown: there is no truth to compare with, and nothing that an estimate can be made from."
    lowest = min(known)
    return text + (f". The lowest is {escape(lowest[1])} with {lowest[0]:.3f}." if len(known) > 1 else ".")


def table(data: ReportInput, rows: list[DiceRow]) -> str:
    columns = _columns(data)
    names = "".join(f'<th scope="col">{name}</th>' for name in columns)
    swatches = [*(swatch(rgb(s.color)) for s in data.classes.segments), ""]
    lines = []
    for row, mark in zip(rows, swatches, strict=True):
        cells = [cell(row) for cell in columns.values()]
        lines.append(f'<tr><th scope="row">{mark}{escape(row.name)}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    scope = "Dice against the truth counts only voxels that the annotation leaves unlabelled. " if data.truth is not None else ""
    return (
        '<section><h2>Segments</h2>\n<div class="wide"><table class="numbers"><thead><tr>'
        f'<th scope="col">Segment</th>{names}</tr></thead>\n<tbody>{"".join(lines)}</tbody></table></div>\n'
        f'<p class="note">{scope}A dash: nothing to measure. {_CANNOT_TELL.capitalize()}: too little of the segment is annotated, or the result has '
        "none of it between the annotated slices.</p></section>\n"
    )


def _columns(data: ReportInput) -> dict[str, Callable[[DiceRow], str]]:
    """Each column's heading, and what a row shows there."""
    columns: dict[str, Callable[[DiceRow], str]] = {}
    if data.truth is not None:
        columns |= {f"Dice, {name}": partial(_voice, name) for name in data.voices}
        columns["Dice, result"] = lambda row: _number(row.result, 3)
        if "prior" in data.voices:
            columns["Difference to the prior"] = _difference
    columns["Estimate"] = lambda row: _CANNOT_TELL if row.estimate is None else _number(row.estimate, 3)
    columns["Volume, ml"] = lambda row: "" if row.volume_ml is None else _number(row.volume_ml, 1)
    return columns


def _voice(name: str, row: DiceRow) -> str:
    return _number(row.voices[name], 3)


def _difference(row: DiceRow) -> str:
    return DASH if row.result is None or row.prior is None else f"{row.result - row.prior:+.3f}".replace("-", MINUS)


def _number(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")
