"""The section of slices: annotation, result and truth side by side."""

from __future__ import annotations

import base64
from html import escape

import numpy as np

from ..contract.geometry import Geometry
from .data import MINUS, ReportInput
from .drawing import encode_png, grey_of, path_of, rgb, segments, swatch, view, window_of
from .slices import LPS_AXIS, PLANES, UNSURE, Slice, display_slice


def picture_id(number: int) -> str:
    """Under which <use> finds the grey picture of a chosen slice again; with "r" after it its result's outlines, with "t" its truth's."""
    return f"p{number}"


def overlays(data: ReportInput, slices: list[Slice]) -> str:
    """The section; each slice's picture is embedded here and nowhere else."""
    window = window_of(data)
    legend = [f"<span>{swatch(rgb(s.color))}{escape(s.name)}</span>" for s in data.classes.segments]
    legend += [f"<span>{swatch('#9aa0a6')}annotated as background</span>"]
    if data.truth is not None:
        legend += [f"<span>{swatch('#ffffff')}truth</span>"]
    figures = []
    plane = ""
    for number, chosen in enumerate(slices):
        if chosen.plane != plane:
            plane = chosen.plane
            figures.append(f"<h3>{plane.capitalize()}</h3>\n")
        figures.append(_figure(data, chosen, window, picture_id(number)))
    return (
        f'<section><h2>Slices</h2>\n<p class="legend">{"".join(legend)}</p>\n{"".join(figures)}'
        '<p class="note">Radiological display: the letters at the edges tell patient right, left, anterior, posterior, superior, inferior. Slice '
        f"numbers count from 0; positions are of the slice's centre. Black is {_shown(window[0])}, white {_shown(window[1])}.</p></section>\n"
    )


def _shown(value: float) -> str:
    return f"{value:.4g}".replace("-", MINUS)


def _figure(data: ReportInput, chosen: Slice, window: tuple[float, float], name: str) -> str:
    """One slice: annotation, result, and the truth over the result, side by side."""
    grey, factor = grey_of(display_slice(data.image, data.geometry, chosen.plane, chosen.index), window)
    drawn = {"annotation": data.annotation, "dense": data.dense} | ({"truth": data.truth} if data.truth is not None else {})
    flat = {key: display_slice(array, data.geometry, chosen.plane, chosen.index) for key, array in drawn.items()}
    picture = _image(grey, factor, f'id="{name}"')
    again = f'<use href="#{name}"/>'
    strokes = path_of(flat["annotation"] == 1, 'class="background"') + segments(flat["annotation"], data.classes, 1)
    result = segments(flat["dense"], data.classes, 0)
    views = [("Annotation", picture + strokes), ("Result", f'{again}<g id="{name}r">{result}</g>')]
    if data.uncertainty is not None and chosen.why == UNSURE:
        views.append(("Uncertainty: white where two classes are alike", _heat(data.uncertainty, data, chosen)))
    if "truth" in flat:
        lines = "".join(path_of(flat["truth"] == c) for c in range(1, len(data.classes) + 1))
        truth = f'<g class="halo"><use href="#{name}t"/></g><g class="truth"><g id="{name}t" fill="none">{lines}</g></g>'
        views.append(("Truth over the result", f'{again}<g class="plain"><use href="#{name}r"/></g>{truth}'))
    return side_by_side(data.geometry, chosen, flat["dense"].shape, views)


def _image(grey: np.ndarray, factor: int, attributes: str = "") -> str:
    uri = base64.b64encode(encode_png(grey)).decode("ascii")
    size = f'width="{grey.shape[1] * factor}" height="{grey.shape[0] * factor}"'
    return f'<image {attributes} {size} preserveAspectRatio="none" href="data:image/png;base64,{uri}"/>'


def _heat(uncertainty: np.ndarray, data: ReportInput, chosen: Slice) -> str:
    return _image(*grey_of(display_slice(uncertainty, data.geometry, chosen.plane, chosen.index), (0, 255)))


def side_by_side(geometry: Geometry, chosen: Slice, shape: tuple[int, ...], views: list[tuple[str, str]]) -> str:
    """(label, content) of each view of a slice, and what slice it is."""
    cells = "".join(f"<div>{view(geometry, chosen.plane, shape, content, label)}<p>{label}</p></div>" for label, content in views)
    return f'<figure><div class="views">{cells}</div><figcaption>{_caption(geometry, chosen)}</figcaption></figure>\n'


def _caption(geometry: Geometry, chosen: Slice) -> str:
    shape = geometry.shape_kji
    centre = [chosen.index if n == chosen.axis else (shape[n] - 1) / 2 for n in range(3)]
    position = float((geometry.matrix @ [*centre[::-1], 1])[LPS_AXIS[chosen.plane]])
    letter = PLANES[chosen.plane][5][position >= 0]
    state = "not annotated in this orientation" if chosen.far_mm is None else "<b>annotated</b>"
    if chosen.far_mm:
        state = f"<b>unseen</b>, {chosen.far_mm:.4g} mm from the nearest annotated {chosen.plane} one"
    if chosen.labelled and chosen.far_mm != 0:
        state += f"; {max(0.1, 100 * chosen.labelled):.2g} % of it annotated, where other annotation crosses it"
    why = f"{chosen.why}; " if chosen.why else ""
    return f"{chosen.plane.capitalize()}, slice {chosen.index} of 0 to {shape[chosen.axis] - 1}, {letter} {abs(position):.1f} mm: {why}{state}"
