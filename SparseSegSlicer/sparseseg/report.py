"""report.html: what a run made and how far to trust it, in one file that opens offline. Only numpy and the standard library.

Pictures are grey PNGs at voxel resolution, each embedded once; strokes, segments and truth are voxel-exact SVG outlines over them, so they
stay sharp at any size. Radiological display: axial has patient right on the left and anterior up, coronal and sagittal superior up. No
scripts, no links, and a content policy that forbids both.
"""

from __future__ import annotations

import base64
import itertools
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .contract.classes import ClassTable
from .contract.errors import OutputError
from .contract.geometry import Geometry
from .contract.job import write_whole
from .contract.place import AT_A_TIME

_PLANES = {  # LPS axis of slices, columns and rows; whether rows run against theirs; letters left, right, top, bottom; ends of the slices' axis
    "axial": (2, 0, 1, False, "RLAP", "IS"),
    "coronal": (1, 0, 2, True, "RLSI", "AP"),
    "sagittal": (0, 1, 2, True, "APSI", "RL"),
}
_LPS_AXIS = {plane: row[0] for plane, row in _PLANES.items()}
_MAX_SIDE = 512  # pixels of a picture; larger slices are averaged down to it, which keeps the file small
_PICTURE = (400.0, 460.0)  # units that a picture may be wide and high
_ANNOTATED = 0.05  # of the best annotated slice's cover makes a slice an annotated one ...
_SURELY = 0.5  # ... and this much in any case; below that it must stand out from the others along its axis, which slabs may cross
_WORTH_SEEING = 0.2  # of the fullest slice's segment voxels
_SAME = 0.005  # Dice; less apart is "about the same"
_DASH, _MINUS, _CROSS = "\u2013", "\u2212", "\u00d7"
_CANNOT_TELL = "cannot tell"  # of a segment that has no estimate
_LINES = {  # chart colour and dash pattern (for black-and-white prints), and the name in the legend
    "cross_entropy": ("#1769aa", "", "cross-entropy"),
    "dice": ("#c2570c", "6 3", "Dice loss"),
    "estimate": ("#1769aa", "", "estimated Dice"),
}
_CHART = (560, 300, 52, 12, 12, 44)  # width, height, margins left, right, top, bottom
_REASONS = {"budget": "time budget spent", "steps": "all steps done", "finish": "finished by the user", "predicted": "prediction only"}


@dataclass(frozen=True)
class ReportInput:
    """All that a report shows; arrays (K, J, I), memory-mapped or not. `title` and segment names are shown as they are: no patient names.

    annotation: uint8, 0 unlabelled, 1 background, 1 + c segment c, with complete slices filled in; dense, prior (the prior alone) and truth:
    uint8, 0 background, c segment c; run: what report.json holds (parts may be missing).
    """

    title: str
    image: np.ndarray
    annotation: np.ndarray
    dense: np.ndarray
    geometry: Geometry
    classes: ClassTable
    run: dict[str, Any]
    prior: np.ndarray | None = None
    truth: np.ndarray | None = None


@dataclass(frozen=True)
class DiceRow:
    """One segment's numbers, or the mean over segments (without voxels and volume). None: unknown, or nothing to compare."""

    name: str
    voxels: int | None
    volume_ml: float | None
    estimate: float | None
    result: float | None
    prior: float | None


@dataclass(frozen=True)
class Slice:
    """A chosen slice: along array axis `axis`; `far_mm` from the nearest annotated one (0: it is one; None: there is none this way)."""

    plane: str
    axis: int
    index: int
    far_mm: float | None
    labelled: float  # share of its voxels


def write_report(path: Path, data: ReportInput) -> None:
    """Write report.html whole. Raises OutputError where it cannot be written; then nothing has changed."""
    page = render(data).encode("utf-8")
    try:
        write_whole(path, lambda file: file.write(page))
    except OSError as error:
        raise OutputError(f"Could not write {path}: {error.strerror or error}.", "Free space or choose another folder.") from error


def render(data: ReportInput) -> str:
    """The whole page."""
    rows = dice_table(data)
    parts = [_head(data, rows), _table(data, rows), _check(data.run), _overlays(data), _curves(data.run), _run_table(data)]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(data.title)}</title>\n<style>{_CSS}</style></head>\n'
        f"<body><main>\n{''.join(parts)}</main></body></html>\n"
    )


# -- numbers -----------------------------------------------------------------------------------------------------------


def dice_table(data: ReportInput) -> list[DiceRow]:
    """A row for each segment in table order, and the mean over segments. Dice against the truth counts unlabelled voxels only."""
    voxels = np.zeros(256, np.int64)
    for slab in data.dense:
        voxels += np.bincount(slab.reshape(-1), minlength=256)
    result, prior = _dice_by_value(data.dense, data), _dice_by_value(data.prior, data)
    ml = abs(float(np.linalg.det(data.geometry.matrix[:3, :3]))) / 1000
    estimate = data.run.get("estimate") or {}
    rows = [
        DiceRow(s.name, int(voxels[c]), float(voxels[c] * ml), _finite(estimate.get(s.id)), _finite(result.get(c)), _finite(prior.get(c)))
        for c, s in enumerate(data.classes.segments, start=1)
    ]
    return [*rows, DiceRow("Mean", None, None, _mean(r.estimate for r in rows), _mean(r.result for r in rows), _mean(r.prior for r in rows))]


def _dice_by_value(labels: np.ndarray | None, data: ReportInput) -> dict[int, float]:
    """Dice of each segment on unlabelled voxels; nan where neither side has it, empty where one side is unknown."""
    if labels is None or data.truth is None:
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


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _head(data: ReportInput, rows: list[DiceRow]) -> str:
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


def _table(data: ReportInput, rows: list[DiceRow]) -> str:
    columns = [("Dice, result", "result")] if data.truth is not None else []
    columns += [("Dice, prior alone", "prior"), ("Difference", "")] if columns and data.prior is not None else []
    columns += [("Estimate", "estimate")]
    head = "".join(f'<th scope="col">{name}</th>' for name, _ in columns)
    swatches = [*(_swatch(_rgb(s.color)) for s in data.classes.segments), ""]
    lines = []
    for row, swatch in zip(rows, swatches, strict=True):
        cells = [_cell(row, field) for _, field in columns]
        cells.append("" if row.volume_ml is None else _number(row.volume_ml, 1))
        lines.append(f'<tr><th scope="row">{swatch}{escape(row.name)}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    scope = "Dice against the truth counts only voxels that the annotation leaves unlabelled. " if data.truth is not None else ""
    return (
        '<section><h2>Segments</h2>\n<div class="wide"><table class="numbers"><thead><tr>'
        f'<th scope="col">Segment</th>{head}<th scope="col">Volume, ml</th></tr></thead>\n<tbody>{"".join(lines)}</tbody></table></div>\n'
        f'<p class="note">{scope}A dash: nothing to measure. {_CANNOT_TELL.capitalize()}: too little of the segment is annotated, or the result has '
        "none of it between the annotated slices.</p></section>\n"
    )


def _check(run: dict[str, Any]) -> str:
    """Where the annotation is probably mistaken; nothing where it is not."""
    places = (run.get("check") or [])[:AT_A_TIME]
    if not places:
        return ""
    rows = "".join(f"<li>{escape(place['sentence'])}</li>" for place in places)
    return (
        f'<section><h2>Check the annotation</h2>\n<ol class="check">{rows}</ol>\n<p class="note">Places where what was painted and everything else '
        "disagree, the surest first. Nothing was changed: correct them and train again, or leave them where the painting is right.</p></section>\n"
    )


def _cell(row: DiceRow, field: str) -> str:
    """A number of a row, or the difference."""
    value = getattr(row, field) if field else None
    if field == "estimate" and value is None:
        return _CANNOT_TELL
    return _number(value, 3) if field else _difference(row)


def _difference(row: DiceRow) -> str:
    return _DASH if row.result is None or row.prior is None else f"{row.result - row.prior:+.3f}".replace("-", _MINUS)


def _number(value: float | None, digits: int) -> str:
    return _DASH if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")


# -- pictures ----------------------------------------------------------------------------------------------------------


def choose_slices(data: ReportInput) -> list[Slice]:
    """For each orientation the best annotated slice, where there is one, and two with segments in them as far from annotation as possible."""
    labelled = np.asarray(data.annotation) > 0
    covers = _covers(labelled)
    best = max(float(c.max()) for c in covers)
    chosen = []
    for plane in _PLANES:
        axis = data.geometry.plane_axis(plane)
        others = tuple(a for a in range(3) if a != axis)
        seen = np.flatnonzero(_annotated(covers[axis], best))
        share, painted = labelled.mean(axis=others), (np.asarray(data.annotation) > 1).sum(axis=others)
        content = (np.asarray(data.dense) > 0).sum(axis=others)
        first = int(seen[painted[seen].argmax()]) if len(seen) else int(content.argmax())
        spacing = data.geometry.spacing_kji_mm[axis]
        far = np.abs(np.arange(len(content))[:, None] - seen).min(axis=1) * spacing if len(seen) else None
        picks = _farthest(content, seen if len(seen) else np.array([first]), 2 if len(seen) else 1)
        chosen += [Slice(plane, axis, n, None if far is None else float(far[n]), float(share[n])) for n in [first, *picks]]
    return chosen


def _annotated(cover: np.ndarray, best: float) -> np.ndarray:
    return np.asarray((cover > 0) & (cover >= _ANNOTATED * best) & ((cover > 2 * np.median(cover)) | (cover >= _SURELY * best)))


def _covers(labelled: np.ndarray) -> list[np.ndarray]:
    """For each axis, how much of each slice is filled with labelled 2 x 2 squares: the lines that crossing slices leave hold none.

    Plain shares of labelled voxels where all strokes are too thin for that.
    """
    squares = []
    for axis in range(3):
        volume = np.moveaxis(labelled, axis, 0)
        rows = volume[:, 1:] & volume[:, :-1]
        squares.append((rows[:, :, 1:] & rows[:, :, :-1]).sum(axis=(1, 2)) / volume[0].size)
    if any(s.any() for s in squares):
        return squares
    return [labelled.mean(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]


def _farthest(content: np.ndarray, taken: np.ndarray, count: int) -> list[int]:
    """Up to `count` slices worth seeing, each as far as possible from all taken ones, the fuller one on a tie."""
    worth = content >= max(1.0, _WORTH_SEEING * float(content.max()))
    picks: list[int] = []
    for _ in range(count):
        apart = np.abs(np.arange(len(content))[:, None] - np.array([*taken, *picks])).min(axis=1) * worth
        if apart.max() == 0:
            break
        picks.append(int(max(np.flatnonzero(apart == apart.max()), key=lambda n: content[n])))
    return picks


def display_slice(array: np.ndarray, geometry: Geometry, plane: str, index: int) -> np.ndarray:
    """The slice of a (K, J, I) array as it is shown, (rows, columns): axial with R left and A up, coronal R left, S up, sagittal A left, S up."""
    _, column_lps, row_lps, rows_against, _, _ = _PLANES[plane]
    axes = [_LPS_AXIS[p] for p in geometry.planes()]  # LPS axis of each array axis
    taken = np.asarray(array[tuple(index if n == geometry.plane_axis(plane) else slice(None) for n in range(3))])
    if axes.index(row_lps) > axes.index(column_lps):
        taken = taken.T
    flip_row = (_along(geometry, axes.index(row_lps), row_lps) < 0) != rows_against
    flip_column = _along(geometry, axes.index(column_lps), column_lps) < 0
    return taken[:: -1 if flip_row else 1, :: -1 if flip_column else 1]


def pixel_mm(geometry: Geometry, plane: str) -> tuple[float, float]:
    """Height and width in mm of a pixel of display_slice."""
    axes = [_LPS_AXIS[p] for p in geometry.planes()]
    _, column_lps, row_lps, *_ = _PLANES[plane]
    return geometry.spacing_kji_mm[axes.index(row_lps)], geometry.spacing_kji_mm[axes.index(column_lps)]


def _along(geometry: Geometry, axis: int, lps: int) -> float:
    return float(geometry.matrix[lps, 2 - axis])


def _window(data: ReportInput) -> tuple[float, float]:
    """Intensities shown black and white: the segments' own range and as much again on both sides, within the volume's."""
    step = tuple(max(1, round(n / 96)) for n in data.dense.shape)
    part = tuple(slice(None, None, s) for s in step)
    values = np.nan_to_num(np.asarray(data.image[part], np.float32))
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    inside = values[(np.asarray(data.dense[part]) > 0) | (np.asarray(data.annotation[part]) > 1)]
    if len(inside) >= 50:
        a, b = (float(v) for v in np.percentile(inside, (2, 98)))
        low, high = max(low, a - (b - a)), min(high, b + (b - a))
    return (low, high) if high > low else (low, low + 1)


def encode_png(grey: np.ndarray) -> bytes:
    """A PNG of a uint8 (rows, columns) picture, 8-bit grey; each row is stored as its difference from the one above or before."""
    rows, columns = grey.shape
    up, before = grey.copy(), grey.copy()
    up[1:] -= grey[:-1]
    before[:, 1:] -= grey[:, :-1]
    packed = min((zlib.compress(np.pad(d, ((0, 0), (1, 0)), constant_values=kind).tobytes(), 9) for kind, d in ((1, before), (2, up))), key=len)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks)


def outline(mask: np.ndarray) -> str:
    """SVG path data of a bool (rows, columns) mask's border along pixel edges, closed loops (fill-rule evenodd); one unit a pixel."""
    padded = np.pad(mask, 1).astype(np.int8)
    down, right = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}  # corner (x, y) -> moves away from it, the mask on the right hand
    sides = ((down, 1, (0, 0), (1, 0)), (down, -1, (1, 0), (-1, 0)), (right, 1, (0, 1), (0, -1)), (right, -1, (0, 0), (0, 1)))
    for change, sign, start, move in sides:
        for y, x in np.argwhere(change == sign).tolist():
            steps.setdefault((x + start[0], y + start[1]), []).append(move)
    loops = []
    while steps:
        x, y = begin = next(iter(steps))
        moves: list[tuple[int, int]] = []
        while (x, y) in steps:
            move = steps[x, y].pop()
            if not steps[x, y]:
                del steps[x, y]
            moves.append(move)
            x, y = x + move[0], y + move[1]
        runs = [(move, len(list(group))) for move, group in itertools.groupby(moves)]
        loops.append(f"M{begin[0]} {begin[1]}" + "".join(f"h{dx * n}" if dx else f"v{dy * n}" for (dx, dy), n in runs) + "z")
    return "".join(loops)


def _overlays(data: ReportInput) -> str:
    window = _window(data)
    legend = [f"<span>{_swatch(_rgb(s.color))}{escape(s.name)}</span>" for s in data.classes.segments]
    legend += [f"<span>{_swatch('#9aa0a6')}annotated as background</span>"]
    if data.truth is not None:
        legend += [f"<span>{_swatch('#ffffff')}truth</span>"]
    figures = []
    plane = ""
    for number, chosen in enumerate(choose_slices(data)):
        if chosen.plane != plane:
            plane = chosen.plane
            figures.append(f"<h3>{plane.capitalize()}</h3>\n")
        figures.append(_figure(data, chosen, window, f"p{number}"))
    return (
        f'<section><h2>Slices</h2>\n<p class="legend">{"".join(legend)}</p>\n{"".join(figures)}'
        '<p class="note">Radiological display: the letters at the edges tell patient right, left, anterior, posterior, superior, inferior. Slice '
        f"numbers count from 0; positions are of the slice's centre. Black is {_shown(window[0])}, white {_shown(window[1])}.</p></section>\n"
    )


def _shown(value: float) -> str:
    return f"{value:.4g}".replace("-", _MINUS)


def _figure(data: ReportInput, chosen: Slice, window: tuple[float, float], name: str) -> str:
    """One slice: annotation, result, and the truth over the result, side by side."""
    grey, factor = _grey(display_slice(data.image, data.geometry, chosen.plane, chosen.index), window)
    drawn = {"annotation": data.annotation, "dense": data.dense} | ({"truth": data.truth} if data.truth is not None else {})
    flat = {key: display_slice(array, data.geometry, chosen.plane, chosen.index) for key, array in drawn.items()}
    uri = base64.b64encode(encode_png(grey)).decode("ascii")
    size = f'width="{grey.shape[1] * factor}" height="{grey.shape[0] * factor}"'
    picture = f'<image id="{name}" {size} preserveAspectRatio="none" href="data:image/png;base64,{uri}"/>'
    again = f'<use href="#{name}"/>'
    strokes = _path(flat["annotation"] == 1, 'class="background"') + _segments(flat["annotation"], data.classes, 1)
    result = _segments(flat["dense"], data.classes, 0)
    views = [("Annotation", picture + strokes), ("Result", f'{again}<g id="{name}r">{result}</g>')]
    if "truth" in flat:
        lines = "".join(_path(flat["truth"] == c) for c in range(1, len(data.classes) + 1))
        truth = f'<g class="halo"><use href="#{name}t"/></g><g class="truth"><g id="{name}t" fill="none">{lines}</g></g>'
        views.append(("Truth over the result", f'{again}<g class="plain"><use href="#{name}r"/></g>{truth}'))
    shape = flat["dense"].shape
    cells = "".join(f"<div>{_view(data.geometry, chosen.plane, shape, content, label)}<p>{label}</p></div>" for label, content in views)
    return f'<figure><div class="views">{cells}</div><figcaption>{_caption(data.geometry, chosen)}</figcaption></figure>\n'


def _view(geometry: Geometry, plane: str, shape: tuple[int, ...], content: str, label: str) -> str:
    """An SVG in which one voxel of `content` has its size in the patient, with letters at the edges."""
    height_mm, width_mm = pixel_mm(geometry, plane)
    unit = min(_PICTURE[0] / (shape[1] * width_mm), _PICTURE[1] / (shape[0] * height_mm))
    width, height = shape[1] * width_mm * unit, shape[0] * height_mm * unit
    places = ((12, height / 2), (width - 12, height / 2), (width / 2, 13), (width / 2, height - 11))
    letters = "".join(f'<text x="{x:.1f}" y="{y:.1f}">{letter}</text>' for letter, (x, y) in zip(_PLANES[plane][4], places, strict=True))
    return (
        f'<svg class="view" viewBox="0 0 {width:.2f} {height:.2f}" role="img" aria-label="{plane} slice, {label.lower()}">'
        f'<g fill-opacity=".35" stroke-width="1.4" transform="scale({width_mm * unit:.6g} {height_mm * unit:.6g})">{content}</g>{letters}</svg>'
    )


def _segments(labels: np.ndarray, classes: ClassTable, offset: int) -> str:
    colors = [_rgb(s.color) for s in classes.segments]
    return "".join(_path(labels == c + offset, f'fill="{color}" stroke="{color}"') for c, color in enumerate(colors, start=1))


def _path(mask: np.ndarray, look: str = "") -> str:
    """The style that cannot be inherited stands in the path itself: what <use> repeats does not see selectors of its new place."""
    return f'<path vector-effect="non-scaling-stroke" {look} d="{outline(mask)}"/>' if mask.any() else ""


def _grey(values: np.ndarray, window: tuple[float, float]) -> tuple[np.ndarray, int]:
    """A slice as uint8, averaged down by the returned factor where it is large."""
    factor = math.ceil(max(values.shape) / _MAX_SIDE)
    values = np.nan_to_num(np.asarray(values, np.float32))
    if factor > 1:
        values = np.pad(values, [(0, -n % factor) for n in values.shape], mode="edge")
        values = values.reshape(values.shape[0] // factor, factor, values.shape[1] // factor, factor).mean(axis=(1, 3))
    return np.round(np.clip((values - window[0]) / (window[1] - window[0]), 0, 1) * 255).astype(np.uint8), factor


def _caption(geometry: Geometry, chosen: Slice) -> str:
    shape = geometry.shape_kji
    centre = [chosen.index if n == chosen.axis else (shape[n] - 1) / 2 for n in range(3)]
    position = float((geometry.matrix @ [*centre[::-1], 1])[_LPS_AXIS[chosen.plane]])
    letter = _PLANES[chosen.plane][5][position >= 0]
    state = "not annotated in this orientation" if chosen.far_mm is None else "<b>annotated</b>"
    if chosen.far_mm:
        state = f"<b>unseen</b>, {chosen.far_mm:.4g} mm from the nearest annotated {chosen.plane} one"
    if chosen.labelled and chosen.far_mm != 0:
        state += f"; {max(0.1, 100 * chosen.labelled):.2g} % of it annotated, where other annotation crosses it"
    return f"{chosen.plane.capitalize()}, slice {chosen.index} of 0 to {shape[chosen.axis] - 1}, {letter} {abs(position):.1f} mm: {state}"


def _rgb(color: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * min(1.0, max(0.0, float(c)))):02x}" for c in color)


def _swatch(color: str) -> str:
    return f'<svg class="swatch" viewBox="0 0 12 12" aria-hidden="true"><rect x=".5" y=".5" width="11" height="11" rx="2" fill="{color}"/></svg>'


# -- curves ------------------------------------------------------------------------------------------------------------


def _curves(run: dict[str, Any]) -> str:
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
        points = [(e["seconds"], value) for e in history if (value := _finite(e.get(name))) is not None]
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


# -- the run -----------------------------------------------------------------------------------------------------------


def _run_table(data: ReportInput) -> str:
    run = data.run
    order = f"(k {_CROSS} j {_CROSS} i)"
    training = (_amount(run, "steps", "{:,} steps"), _amount(run, "seconds", "{:.1f} s"), _REASONS.get(str(run.get("reason")), run.get("reason")))
    values = {
        "Device": f" {_DASH} ".join(str(run[k]) for k in ("device", "why") if run.get(k)),
        "Precision": run.get("precision"),
        "Network": _network(run.get("network") or {}),
        "Working grid": f"{_times(run['grid_kji'])} voxels {order}" if run.get("grid_kji") else None,
        "Learned from": _learned(run),
        "Training": ", ".join(str(t) for t in training if t),
        "Timings": ", ".join(f"{name} {seconds:.2f} s" for name, seconds in (run.get("timings") or {}).items()),
        "Network's share of the result": _share(run),
        "Volume": f"{_times(data.geometry.shape_kji)} voxels of {_times(data.geometry.spacing_kji_mm)} mm {order}",
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
    supervised = _finite(run.get("supervised"))
    return text if supervised is None else f"{text}; {100 * supervised:.0f} % of the voxels that it computed had a label"


def _share(run: dict[str, Any]) -> str | None:
    value = _finite(run.get("share"))
    return None if value is None else f"{value:.2f}; the prior has the rest"


def _precision(run: dict[str, Any]) -> str | None:
    """Of the labels where two meet and at the rims of strokes."""
    value = _finite(run.get("annotation_precision"))
    return (
        None
        if value is None
        else f"{value:.2f}: how far the image and all other labels agree with those at contours and rims, 0.2 not at all, 0.8 fully"
    )


def _amount(run: dict[str, Any], key: str, form: str) -> str | None:
    return None if run.get(key) is None else form.format(run[key])


def _times(values: Sequence[float]) -> str:
    return f" {_CROSS} ".join(f"{v:.4g}" if isinstance(v, float) else str(int(v)) for v in values)


_CSS = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5a6472;--line:#d5dae1;--paper:#fff;--band:#f5f7f9}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ed;--soft:#a0a9b4;--line:#3a414a;--paper:#15181c;--band:#1e2328}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1160px;margin:0 auto;padding:32px 24px 48px}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .5rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.3rem 0 .4rem}
.verdict{font-size:1.15rem;margin:.2rem 0 .5rem}
.note{color:var(--soft);font-size:.875rem;max-width:60rem;margin:.5rem 0}
.wide{overflow-x:auto}
.check{margin:.4rem 0;padding-left:1.6rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.38rem .9rem .38rem 0;border-bottom:1px solid var(--line);font-weight:400}
thead th{color:var(--soft);font-size:.875rem;border-bottom-color:var(--soft)}
.numbers th+th,.numbers td{text-align:right;padding-left:1.3rem;white-space:nowrap}
.numbers tbody th{overflow-wrap:anywhere;min-width:9rem}
.numbers tbody tr:last-child>*{font-weight:600;border-bottom:0}
.run{font-size:.9rem}.run th{color:var(--soft);white-space:nowrap;padding-right:1.6rem}.run td{white-space:pre-line;overflow-wrap:anywhere}
.swatch{width:12px;height:12px;margin-right:.5em;vertical-align:-1px;overflow:visible}.swatch rect{stroke:#6b7280;stroke-width:1}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.3rem;margin:.4rem 0;font-size:.875rem}
.key{width:28px;height:10px;margin-right:.5em}
figure{margin:0 0 1rem;break-inside:avoid}
figcaption{font-size:.875rem;margin-top:.15rem}
h2,h3,.legend{break-after:avoid}section>.note{break-before:avoid}
.views{display:grid;grid-template-columns:repeat(auto-fit,minmax(0,1fr));grid-auto-flow:column;grid-auto-columns:1fr;gap:10px}
.views p{margin:.1rem 0 0;color:var(--soft);font-size:.8rem;text-align:center}
.view{display:block;width:100%;max-height:460px;background:#000}
.view g{fill-rule:evenodd;stroke-linejoin:round}
.view .background{fill:#9aa0a6;fill-opacity:.16;stroke:#c9ced4;stroke-width:.8;stroke-dasharray:3 3}
.view .plain{stroke-opacity:0}
.halo{stroke:#000;stroke-opacity:.55;stroke-width:3.2}
.truth{stroke:#fff}
.view text{fill:#ffe9a8;font-size:14px;font-weight:600;text-anchor:middle;dominant-baseline:central;paint-order:stroke;stroke:#000;stroke-width:2.5px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.5rem}
.chart svg:not(.key){width:100%;height:auto;display:block}
.chart text{fill:var(--soft);font-size:12px}.chart .x{text-anchor:middle}.chart .y{text-anchor:end;dominant-baseline:central}
.grid{stroke:var(--line);stroke-width:1;fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
@media print{
:root{--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;color-scheme:light}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
main{padding:0;max-width:none}body{font-size:10.5pt}.wide{overflow:visible}.charts{grid-template-columns:1fr 1fr}tr{break-inside:avoid}
}
@media (max-width:600px){main{padding:20px 12px}}
"""
