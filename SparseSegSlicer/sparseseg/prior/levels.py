"""Gray values as levels: a difference of gray values counts by what it says about the class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .growing import TOP_LEVEL
from .together import Tick

_BINS = 256
_STEPS = 16  # of a bin: levels are looked up, not computed


@dataclass(frozen=True)
class Levels:
    """A gray value's level: table (int16, 0..TOP_LEVEL) at (gray - low) * scale, clipped. Fitted once, so that a box can be looked up later."""

    low: float
    scale: float
    table: np.ndarray

    @classmethod
    def fit(cls, gray: np.ndarray, known: np.ndarray) -> Levels:
        """gray: (K, J, I) float32; known: (K, J, I) int16, -1 unlabelled.

        A gray value's level is the length of the path that the class probabilities P(c | gray) travel up to it (after Bai and Sapiro, A geodesic
        framework for fast interactive image and video segmentation, ICCV 2007), mixed half and half with a linear scale.
        """
        low, high = _useful_range(gray, known)
        scale = (_BINS - 1) / max(high - low, 1e-6)
        bell = np.exp(-0.5 * (np.arange(-25, 26) / (_BINS / 40)) ** 2)
        at, values = np.clip((gray[known >= 0] - low) * scale, 0, _BINS - 1).astype(np.intp), known[known >= 0]
        counts = [np.bincount(at[values == c], minlength=_BINS) for c in np.unique(values)]
        density = np.stack([np.convolve(n / n.sum(), bell / bell.sum())[25:-25] for n in counts])
        chance = density / (density.sum(0) + 1e-3 * density.max())
        change = np.abs(np.diff(chance, axis=1)).sum(0)
        path = np.concatenate([[0], np.cumsum(change / max(change.sum(), 1e-6) + 1 / (_BINS - 1))])
        fine = np.interp(np.arange((_BINS - 1) * _STEPS + 1) / _STEPS, np.arange(_BINS), path * (TOP_LEVEL / path[-1]))
        return cls(low, scale * _STEPS, (fine + 0.5).astype(np.int16))

    def apply(self, gray: np.ndarray) -> np.ndarray:
        """float32 gray values to int16 levels, any shape."""
        at = np.multiply(np.subtract(gray, np.float32(self.low), dtype=np.float32), np.float32(self.scale), dtype=np.float32)
        return self.table[np.clip(at + np.float32(0.5), 0, len(self.table) - 1, out=at).astype(np.int32)]


def _useful_range(gray: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """The painted segments' gray values and twice their spread more on either side, within the image's own; what is beyond is all alike."""
    least, most = np.percentile(gray.ravel()[:: max(1, gray.size // 1_000_000)], [0.1, 99.9])
    low, high = np.percentile(gray[known > 0] if (known > 0).any() else gray, [0.5, 99.5])
    more = 2 * max(high - low, 0.1 * (most - least))
    return max(float(least), float(low - more)), min(float(most), float(high + more))


def blur(volume: np.ndarray, variance: float, spacing_mm: Sequence[float], tick: Tick = lambda: None) -> np.ndarray:
    """Three taps along each axis, (K, J, I) float32; variance is in squares of the shortest voxel edge, 0.5 at most. Borders are repeated."""
    out = volume.astype(np.float32)
    for axis, spacing in enumerate(spacing_mm):
        side = variance / 2 * (min(spacing_mm) / spacing) ** 2
        if out.shape[axis] < 2 or side < 0.01:
            continue
        step = np.diff(out, axis=axis)
        tick()
        step *= np.float32(side)
        turned = np.moveaxis(out, axis, 0)
        turned[:-1] += np.moveaxis(step, axis, 0)
        turned[1:] -= np.moveaxis(step, axis, 0)
        tick()
    return out
