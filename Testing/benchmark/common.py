"""What the parts share: a phantom of CT size, its annotation, and small helpers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

SEGMENTS = 5
CT_KJI = (300, 512, 512)
SPACING_KJI_MM = (1.0, 1.0, 1.0)
Rows = list[dict[str, Any]]


def organs(shape_kji: Sequence[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """SEGMENTS ellipsoids in noise: image (K, J, I) int16 and truth (K, J, I) uint8, without a float copy of the whole."""
    rng, shape = np.random.default_rng(seed), np.array(shape_kji)
    truth = np.zeros(shape_kji, np.uint8)
    for c in range(1, SEGMENTS + 1):
        half = np.maximum(3, shape * (0.3, 0.11, 0.11)).astype(int)
        centre = (shape * (0.5, 0.5 + 0.25 * np.cos(1.26 * c), 0.5 + 0.25 * np.sin(1.26 * c))).astype(int)
        box = tuple(slice(m - h, m + h + 1) for m, h in zip(centre, half, strict=True))
        axes = np.ogrid[tuple(slice(-h, h + 1) for h in half)]
        truth[box][sum((a / h) ** 2 for a, h in zip(axes, half, strict=True)) <= 1] = c
    image = np.empty(shape_kji, np.int16)
    values = np.arange(SEGMENTS + 1) * 40 - 100
    for k in range(shape_kji[0]):
        image[k] = values[truth[k]] + rng.normal(0, 15, shape_kji[1:]).astype(np.int16)
    return image, truth


def annotate(truth: np.ndarray, slices: int = 5) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Strokes along j on every tenth slice, and `slices` slices with all segments painted: annotation (K, J, I) uint8, complete slices."""
    annotation = np.zeros(truth.shape, np.uint8)
    lines = (slice(None, None, 10), slice(truth.shape[1] // 4, None, truth.shape[1] // 4))
    annotation[lines] = truth[lines] + 1
    found = np.flatnonzero(truth.any(axis=(1, 2)))
    complete = [(0, int(k)) for k in np.linspace(found[0], found[-1], slices + 2)[1:-1]]
    for _, k in complete:
        annotation[k] = np.where(truth[k] > 0, truth[k] + 1, annotation[k])
    return annotation, complete


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    value = call()
    return time.perf_counter() - start, value


def mean(values: Sequence[float]) -> float:
    return float(np.nanmean(values)) if len(values) else float("nan")


def times(values: Sequence[int]) -> str:
    return " x ".join(str(int(v)) for v in values)


def markdown(rows: Rows) -> str:
    """Rows with the same keys as a markdown table."""

    def shown(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return str(value)

    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([shown(row[name]) for name in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
