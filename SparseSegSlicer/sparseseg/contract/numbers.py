"""Numbers from files, checked where they are read."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any, low: float, high: float) -> float:
    """A finite number from low to high. Raises ValueError."""
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{value!r:.40} is no number from {low:g} to {high:g}")
    return float(value)


def whole(value: Any, low: int, high: int) -> int:
    """A whole number from low to high. Raises ValueError."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r:.40} is no whole number from {low} to {high}")
    return value
