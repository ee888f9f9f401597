"""What a report is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..contract.classes import ClassTable
from ..contract.geometry import Geometry

DASH, MINUS, CROSS = "\u2013", "\u2212", "\u00d7"


@dataclass(frozen=True)
class ReportInput:
    """All that a report shows; arrays (K, J, I), memory-mapped or not. `title` and segment names are shown as they are: no patient names.

    annotation: uint8, 0 unlabelled, 1 background, 1 + c segment c, with complete slices filled in; dense, voices and truth: uint8,
    0 background, c segment c; uncertainty: uint8, 0 sure .. 255 two classes alike, or None; voices: what "growing", "prior" and "network" say
    alone, in this order, those that are there; run: what report.json holds (parts may be missing).
    """

    title: str
    image: np.ndarray
    annotation: np.ndarray
    dense: np.ndarray
    geometry: Geometry
    classes: ClassTable
    run: dict[str, Any]
    voices: dict[str, np.ndarray] = field(default_factory=dict)
    truth: np.ndarray | None = None
    uncertainty: np.ndarray | None = None


def finite(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
