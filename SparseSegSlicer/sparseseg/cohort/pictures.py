"""A small picture of a result: two axial slices, through the middle of what was found and where the network was least sure, as one SVG file."""

from __future__ import annotations

import base64
from html import escape

import numpy as np

from ..contract.classes import ClassTable
from ..contract.geometry import Geometry
from ..report.data import ReportInput
from ..report.drawing import encode_png, grey_of, segments, view, window_of
from ..report.slices import display_slice

_SIDE = 192  # pixels of a slice at most
_WIDTH, _GAP = 400, 10
_STYLE = (
    "text{font:600 14px system-ui,sans-serif;fill:#ffe9a8;text-anchor:middle;dominant-baseline:central;paint-order:stroke;"
    "stroke:#000;stroke-width:2.5px}.note{fill:#5a6472;stroke:none;font-weight:400}.view g{fill-rule:evenodd;stroke-linejoin:round}"
)
_PLANE = "axial"


def picture(image: np.ndarray, labels: np.ndarray, uncertainty: np.ndarray, geometry: Geometry, classes: ClassTable) -> str:
    """image (K, J, I), labels and uncertainty (K, J, I) uint8 -> the text of an SVG file."""
    nothing = np.broadcast_to(np.uint8(0), labels.shape)
    data = ReportInput("", image, nothing, labels, geometry, classes, {})
    window = window_of(data)
    views, x, height = [], 0, 0.0
    for index, said in zip(_chosen(labels, uncertainty, geometry), ("the middle", "the least sure slice"), strict=True):
        drawn, tall = _slice(data, index, window, said)
        views.append(f'<svg x="{x}" width="{_WIDTH}" height="{tall:.0f}">{drawn}</svg>')
        views.append(f'<text class="note" x="{x + _WIDTH / 2}" y="{tall + 14:.0f}">{escape(said)}, slice {index}</text>')
        x, height = x + _WIDTH + _GAP, tall + 26
    size = f'viewBox="0 0 {x - _GAP} {height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>{"".join(views)}</svg>\n'


def _chosen(labels: np.ndarray, uncertainty: np.ndarray, geometry: Geometry) -> tuple[int, int]:
    """Along the axis of axial slices: the middle of the segments, and where most is in doubt."""
    axis = geometry.plane_axis(_PLANE)
    others = tuple(a for a in range(3) if a != axis)
    found = np.flatnonzero((labels > 0).any(axis=others))
    middle = int(found[len(found) // 2]) if len(found) else labels.shape[axis] // 2
    doubt = uncertainty.sum(axis=others, dtype=np.int64)
    return middle, int(doubt.argmax())


def _slice(data: ReportInput, index: int, window: tuple[float, float], said: str) -> tuple[str, float]:
    """One slice, and how tall it is where it is as wide as all."""
    values = display_slice(data.image, data.geometry, _PLANE, index)
    step = -(-max(values.shape) // _SIDE)
    grey, _ = grey_of(values[::step, ::step], window)
    flat = display_slice(data.dense, data.geometry, _PLANE, index)[::step, ::step]
    uri = base64.b64encode(encode_png(grey)).decode("ascii")
    shape = grey.shape
    content = f'<image width="{shape[1]}" height="{shape[0]}" preserveAspectRatio="none" href="data:image/png;base64,{uri}"/>'
    drawn = view(data.geometry, _PLANE, shape, content + segments(flat, data.classes, 0), said)
    box = drawn.split('viewBox="', 1)[1].split('"', 1)[0].split()
    return drawn, _WIDTH * float(box[3]) / float(box[2])
