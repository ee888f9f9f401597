"""The section that shows what each voice says alone, on one slice far from the annotation, and how much of a say the network had."""

from __future__ import annotations

from typing import Any

import numpy as np

from .data import ReportInput, finite
from .drawing import segments
from .figures import picture_id, side_by_side
from .slices import Slice, display_slice

_ABOUT = {
    "growing": "<b>Growing</b> gives each voxel the label that is nearest along paths of even gray value; it learns nothing.",
    "prior": "The <b>prior</b> is growing and the refiner together: a network that was trained on other images and corrects what grew.",
    "network": "The <b>network</b> has learned this image's annotation and nothing else; where it says nothing the prior is shown.",
    "together": "<b>Together</b> they are the result, in which all that was painted stands.",
}


def voices(data: ReportInput, slices: list[Slice]) -> str:
    """Nothing where there is only one voice. Grey picture, result and truth are those of the section of slices, used again."""
    if len(data.voices) < 2:
        return ""
    number = farthest(data, slices)
    chosen, name = slices[number], picture_id(number)
    again = f'<use href="#{name}"/>'
    truth = "" if data.truth is None else f'<g class="halo"><use href="#{name}t"/></g><g class="truth"><use href="#{name}t"/></g>'
    flat = {key: display_slice(labels, data.geometry, chosen.plane, chosen.index) for key, labels in data.voices.items()}
    drawn = {key: segments(labels, data.classes, 0) for key, labels in flat.items()} | {"together": f'<use href="#{name}r"/>'}
    shape = next(iter(flat.values())).shape
    views = [(key.capitalize(), f"{again}{outlines}{truth}") for key, outlines in drawn.items()]
    about = " ".join(_ABOUT[key] for key in drawn)
    return f'<section><h2>The voices</h2>\n{_say(data.run)}{side_by_side(data.geometry, chosen, shape, views)}<p class="note">{about}</p></section>\n'


def farthest(data: ReportInput, slices: list[Slice]) -> int:
    """Which of the chosen slices lies farthest from the annotation, of those that show segments; the first on a tie."""

    def rank(chosen: Slice) -> tuple[bool, float]:
        return bool(np.take(data.dense, chosen.index, axis=chosen.axis).any()), chosen.far_mm or 0.0

    return max(range(len(slices)), key=lambda number: rank(slices[number]))


def _say(run: dict[str, Any]) -> str:
    """How much of a say the network had, and why."""
    share, agreement, confidence = (finite(run.get(key)) for key in ("share", "agreement", "confidence"))
    if share is None:
        return ""
    if share == 0:
        return "<p>The network had no say in the result.</p>\n"
    why = ""
    if agreement is not None and confidence is not None:
        why = (
            f" It agreed with the prior on {agreement:.2f} of the voxels, was {confidence:.2f} sure on average,"
            " and was taken to be as sure as it agreed. Both are counted where nobody painted and either of them sees a segment."
        )
    return f"<p>The network had {share:.2f} of the say.{why}</p>\n"
