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
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .classes import ClassTable
from .errors import OutputError
from .geometry import Geometry
from .job import write_whole

_PLANES = {  # LPS axis of slices, columns and rows; whether rows run against theirs; letters left, right, top, bottom; ends of the slices' axis
    "axial": (2, 0, 1, False, "RLAP", "IS"),
    "coronal": (1, 0, 2, True, "RLSI", "AP"),
    "sagittal": (0, 1, 2, True, "APSI", "RL"),
}
_LPS_AXIS = {plane: row[0] for plane, row in _PLANES.items()}
_MAX_SIDE = 512  # pixels of a picture; larger slices are averaged down to it, which keeps the file small
_PICTURE = (400.0, 460.0)  # units that a picture may be wide and high
_ANNOTATED = 0.05  # of the best annotated slice's cover makes a slice an annotated one: crossing slices leave only lines
_WORTH_SEEING = 0.1  # of the fullest slice's segment voxels
_SAME = 0.005  # Dice; less apart is "about the same"
_LINES = {  # chart colour and dash pattern (for black-and-white prints), and the name in the legend
    "cross_entropy": ("#1769aa", "", "cross-entropy"),
    "dice": ("#c2570c", "6 3", "Dice loss"),
    "fused": ("#1769aa", "", "fused: what the result uses"),
    "network": ("#c2570c", "6 3", "network alone"),
    "prior": ("#6b7280", "2 3", "prior alone"),
}
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
    parts = [_head(data, rows), _table(data, rows), _overlays(data), _curves(data.run), _run_table(data)]
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


def _mean(values: Any) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _head(data: ReportInput, rows: list[DiceRow]) -> str:
    mean = rows[-1]
    notes = ["Dice is the overlap of two outlines: 1 is perfect, 0 is none."]
    if mean.estimate is not None:
        notes.append(
            "The estimate was measured on annotation held out of the first part of training: slices or strokes that somebody painted and that "
            "neither network nor prior had seen. It tells about places like the painted ones; far from any annotation the result can be worse."
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
        count = f"{len(known)} of {len(segments)} segments" if len(known) < len(segments) else f"{len(segments)} segments" if len(known) > 1 else "1 segment"
        text = f"Estimated mean Dice <b>{mean.estimate:.3f}</b> over {count}, measured on held-out annotation"
    else:
        return "The quality of this result is unknown: there is no truth to compare with, and too little annotation to hold some out."
    lowest = min(known)
    return text + (f". The lowest is {escape(lowest[1])} with {lowest[0]:.3f}." if len(known) > 1 else ".")


def _table(data: ReportInput, rows: list[DiceRow]) -> str:
    columns = [("Dice, result", "result")] if data.truth is not None else []
    columns += [("Dice, prior alone", "prior"), ("Difference", "")] if columns and data.prior is not None else []
    columns += [("Estimate", "estimate")]
    head = "".join(f'<th scope="col">{name}</th>' for name, _ in columns)
    swatches = [_swatch(_rgb(s.color)) for s in data.classes.segments]
    lines = []
    for row, swatch in itertools.zip_longest(rows, swatches, fillvalue=""):
        cells = [_signed(row) if not field else _number(getattr(row, field), 3) for _, field in columns]  # type: ignore[union-attr]
        cells.append(_number(row.volume_ml, 1) if row.volume_ml is not None else "")  # type: ignore[union-attr]
        name = escape(row.name)  # type: ignore[union-attr]
        lines.append(f'<tr><th scope="row">{swatch}{name}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    scope = "Dice against the truth counts only voxels that the annotation leaves unlabelled. " if data.truth is not None else ""
    return (
        f'<section><h2>Segments</h2>\n<div class="wide"><table class="numbers"><thead><tr><th scope="col">Segment</th>{head}<th scope="col">Volume, ml</th></tr></thead>\n'
        f'<tbody>{"".join(lines)}</tbody></table></div>\n<p class="note">{scope}A dash: nothing to measure, or too few held-out voxels.</p></section>\n'
    )


def _signed(row: Any) -> str:
    return "–" if row.result is None or row.prior is None else f"{row.result - row.prior:+.3f}".replace("-", "−")


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")


# -- pictures ----------------------------------------------------------------------------------------------------------


def choose_slices(data: ReportInput) -> list[Slice]:
    """For each orientation the best annotated slice, where there is one, and two with segments in them as far from annotation as possible."""
    labelled = np.asarray(data.annotation) > 0
    covers = [_cover(labelled, axis) for axis in range(3)]
    limit = _ANNOTATED * max(float(c.max()) for c in covers)
    chosen = []
    for plane in _PLANES:
        axis = data.geometry.plane_axis(plane)
        others = tuple(a for a in range(3) if a != axis)
        seen = np.flatnonzero((covers[axis] > 0) & (covers[axis] >= limit))
        share, painted = labelled.mean(axis=others), (np.asarray(data.annotation) > 1).sum(axis=others)
        content = (np.asarray(data.dense) > 0).sum(axis=others)
        first = int(seen[painted[seen].argmax()]) if len(seen) else int(content.argmax())
        spacing = data.geometry.spacing_kji_mm[axis]
        far = np.abs(np.arange(len(content))[:, None] - seen).min(axis=1) * spacing if len(seen) else None
        picks = _farthest(content, seen if len(seen) else np.array([first]), 2 if len(seen) else 1)
        chosen += [Slice(plane, axis, n, None if far is None else float(far[n]), float(share[n])) for n in [first, *picks]]
    return chosen


def _cover(labelled: np.ndarray, axis: int) -> np.ndarray:
    """Share of each slice in fully labelled 2 x 2 squares: the lines that crossing slices leave hold none. Thin strokes alone: plain share."""
    volume = np.moveaxis(labelled, axis, 0)
    rows = volume[:, 1:] & volume[:, :-1]
    squares = (rows[:, :, 1:] & rows[:, :, :-1]).mean(axis=(1, 2)) if min(volume.shape[1:]) > 1 else np.zeros(1)
    return squares if squares.any() or _has_squares(labelled) else volume.mean(axis=(1, 2))


def _has_squares(labelled: np.ndarray) -> bool:
    return any((pair[low] & pair[high]).any() for pair, low, high in _pairs(labelled))


def _pairs(labelled: np.ndarray) -> Any:
    for a, b in ((0, 1), (0, 2), (1, 2)):
        volume = np.moveaxis(labelled, (a, b), (0, 1))
        yield volume[1:] & volume[:-1], np.s_[:, 1:], np.s_[:, :-1]


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
    for change, sign, start, move in ((down, 1, (0, 0), (1, 0)), (down, -1, (1, 0), (-1, 0)), (right, 1, (0, 1), (0, -1)), (right, -1, (0, 0), (0, 1))):
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
        f'<section><h2>Slices</h2>\n<p class="legend">{"".join(legend)}</p>\n{"".join(figures)}<p class="note">Radiological display: the letters at '
        "the edges tell patient right, left, anterior, posterior, superior, inferior. Slice numbers count from 0; positions are of the slice's centre. "
        f"Black and white: {window[0]:.4g} and {window[1]:.4g}.</p></section>\n"
    )


def _figure(data: ReportInput, chosen: Slice, window: tuple[float, float], name: str) -> str:
    """One slice: annotation, result, and the truth over the result, side by side."""
    grey, factor = _grey(display_slice(data.image, data.geometry, chosen.plane, chosen.index), window)
    drawn = {"annotation": data.annotation, "dense": data.dense} | ({"truth": data.truth} if data.truth is not None else {})
    flat = {key: display_slice(array, data.geometry, chosen.plane, chosen.index) for key, array in drawn.items()}
    uri = base64.b64encode(encode_png(grey)).decode("ascii")
    size = f'width="{grey.shape[1] * factor}" height="{grey.shape[0] * factor}"'
    picture = f'<image id="{name}" {size} preserveAspectRatio="none" href="data:image/png;base64,{uri}"/>'
    again = f'<use href="#{name}"/>'
    strokes = f'<path class="background" d="{outline(flat["annotation"] == 1)}"/>' + _segments(flat["annotation"], data.classes, 1)
    result = _segments(flat["dense"], data.classes, 0)
    views = [("Annotation", picture + strokes), ("Result", f'{again}<g id="{name}r">{result}</g>')]
    if "truth" in flat:
        lines = "".join(f'<path d="{outline(flat["truth"] == c)}"/>' for c in range(1, len(data.classes) + 1) if (flat["truth"] == c).any())
        truth = f'<g class="halo"><use href="#{name}t"/></g><g class="truth"><g id="{name}t">{lines}</g></g>'
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
        f'<g transform="scale({width_mm * unit:.6g} {height_mm * unit:.6g})">{content}</g>{letters}</svg>'
    )


def _segments(labels: np.ndarray, classes: ClassTable, offset: int) -> str:
    paths = []
    for value, segment in enumerate(classes.segments, start=1 + offset):
        if (mask := labels == value).any():
            paths.append(f'<path fill="{_rgb(segment.color)}" stroke="{_rgb(segment.color)}" d="{outline(mask)}"/>')
    return "".join(paths)


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
    if chosen.far_mm is None:
        state = "not annotated in this orientation"
    else:
        state = "<b>annotated</b>" if chosen.far_mm == 0 else f"<b>unseen</b>, {chosen.far_mm:.4g} mm from the nearest annotated slice"
    if chosen.labelled and chosen.far_mm != 0:
        state += f"; {max(0.1, 100 * chosen.labelled):.2g} % of it annotated, where other annotation crosses it"
    return f"{chosen.plane.capitalize()}, slice {chosen.index} of 0 to {shape[chosen.axis] - 1}, {letter} {abs(position):.1f} mm: {state}"


def _rgb(color: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * min(1.0, max(0.0, float(c)))):02x}" for c in color)


def _swatch(color: str) -> str:
    return f'<svg class="swatch" viewBox="0 0 12 12" aria-hidden="true"><rect x=".5" y=".5" width="11" height="11" rx="2" fill="{color}"/></svg>'


# -- curves ------------------------------------------------------------------------------------------------------------
