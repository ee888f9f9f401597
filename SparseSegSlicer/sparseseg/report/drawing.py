"""Grey PNGs, and voxel-exact SVG outlines over them."""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from ..contract.classes import ClassTable
from ..contract.geometry import Geometry
from .data import ReportInput
from .slices import PLANES, pixel_mm

_MAX_SIDE = 512  # pixels of a picture; larger slices are averaged down to it, which keeps the file small
_PICTURE = (400.0, 460.0)  # units that a picture may be wide and high


def window_of(data: ReportInput) -> tuple[float, float]:
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


def view(geometry: Geometry, plane: str, shape: tuple[int, ...], content: str, label: str) -> str:
    """An SVG in which one voxel of `content` has its size in the patient, with letters at the edges."""
    height_mm, width_mm = pixel_mm(geometry, plane)
    unit = min(_PICTURE[0] / (shape[1] * width_mm), _PICTURE[1] / (shape[0] * height_mm))
    width, height = shape[1] * width_mm * unit, shape[0] * height_mm * unit
    places = ((12, height / 2), (width - 12, height / 2), (width / 2, 13), (width / 2, height - 11))
    letters = "".join(f'<text x="{x:.1f}" y="{y:.1f}">{letter}</text>' for letter, (x, y) in zip(PLANES[plane][4], places, strict=True))
    return (
        f'<svg class="view" viewBox="0 0 {width:.2f} {height:.2f}" role="img" aria-label="{plane} slice, {label.lower()}">'
        f'<g fill-opacity=".35" stroke-width="1.4" transform="scale({width_mm * unit:.6g} {height_mm * unit:.6g})">{content}</g>{letters}</svg>'
    )


def segments(labels: np.ndarray, classes: ClassTable, offset: int) -> str:
    colors = [rgb(s.color) for s in classes.segments]
    return "".join(path_of(labels == c + offset, f'fill="{color}" stroke="{color}"') for c, color in enumerate(colors, start=1))


def path_of(mask: np.ndarray, look: str = "") -> str:
    """The style that cannot be inherited stands in the path itself: what <use> repeats does not see selectors of its new place."""
    return f'<path vector-effect="non-scaling-stroke" {look} d="{outline(mask)}"/>' if mask.any() else ""


def grey_of(values: np.ndarray, window: tuple[float, float]) -> tuple[np.ndarray, int]:
    """A slice as uint8, averaged down by the returned factor where it is large."""
    factor = math.ceil(max(values.shape) / _MAX_SIDE)
    values = np.nan_to_num(np.asarray(values, np.float32))
    if factor > 1:
        values = np.pad(values, [(0, -n % factor) for n in values.shape], mode="edge")
        values = values.reshape(values.shape[0] // factor, factor, values.shape[1] // factor, factor).mean(axis=(1, 3))
    return np.round(np.clip((values - window[0]) / (window[1] - window[0]), 0, 1) * 255).astype(np.uint8), factor


def rgb(color: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * min(1.0, max(0.0, float(c)))):02x}" for c in color)


def swatch(color: str) -> str:
    return f'<svg class="swatch" viewBox="0 0 12 12" aria-hidden="true"><rect x=".5" y=".5" width="11" height="11" rx="2" fill="{color}"/></svg>'
