"""Image values -> what the network sees: centred on the segments, squashed far from them, on the working grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..contract.numbers import number
from .sampling import WorkingGrid

_SAMPLES = 200_000  # voxels looked at for percentiles
_FARTHEST = 1e39  # beyond any value of an image, which are float32
_LARGEST = 1e30  # float32 has room for the arithmetic up to here
_AIR_HU = -500  # CT in Hounsfield units goes below this; other images are scaled by their own percentiles


@dataclass(frozen=True)
class Gray:
    """What is to be known of an image for that: values (n,) float64 within segments, the range of all, and whether they are no Hounsfield units."""

    values: np.ndarray
    low: float
    high: float
    is_relative: bool

    @classmethod
    def of(cls, image: np.ndarray, inside: np.ndarray) -> Gray:
        """Arguments as of Intensity.fit."""
        return cls((inside if len(inside) else _sample(image)).astype(np.float64), *_range(image))


@dataclass(frozen=True)
class Intensity:
    """v -> asinh((u - centre) / scale) with u = v (CT) or u = (v - p1) / (p99 - p1) of the volume at hand (`relative`).

    asinh keeps full contrast within a few scales of the segments' own values and still tells air from bone, unlike clipping.
    """

    centre: float
    scale: float
    relative: bool

    @classmethod
    def fit(cls, image: np.ndarray, inside: np.ndarray) -> Intensity:
        """image (K, J, I), and its values at voxels labelled as a segment (1-D; the whole image's where none are given)."""
        return cls.fit_all([Gray.of(image, inside)])

    @classmethod
    def fit_all(cls, images: Sequence[Gray]) -> Intensity:
        """One for several images; absolute where most of them are CT, also for those that show no air."""
        relative = 2 * sum(gray.is_relative for gray in images) > len(images)
        values = np.concatenate([(gray.values - gray.low) / (gray.high - gray.low) if relative else gray.values for gray in images])
        quarter, centre, three_quarters = np.percentile(values, [25, 50, 75])
        floor = 0.02 if relative else 10.0
        return cls(float(centre), float(max((three_quarters - quarter) / 1.35, floor)), relative)

    def apply(
        self, image: np.ndarray, grid: WorkingGrid, device: torch.device, tick: Callable[[], None] = lambda: None, out: Tensor | None = None
    ) -> Tensor:
        """(K, J, I), any real type -> the grid's shape, float16 on the device (`out`, or a new one), each voxel the mean of those it covers.

        Slice by slice, so that no float copy of the whole is made.
        """
        low, high, _ = _range(image)
        offset, gain = (low, 1 / (high - low)) if self.relative else (0.0, 1.0)
        result = torch.empty(grid.shape_kji, dtype=torch.float16, device=device) if out is None else out
        (planes, rows, columns), own, working = grid.box, grid.own_kji[0], grid.shape_kji[0]
        for k in range(working):
            tick()
            first, last = k * own // working, -(-(k + 1) * own // working)  # whole numbers: k * (own / working) may fall short of one
            seen = np.asarray(image[planes.start + first : planes.start + last, rows, columns])
            slab = torch.from_numpy(seen.astype(np.float32)).clamp_(-_LARGEST, _LARGEST).to(device)
            slab = torch.asinh(((slab - offset) * gain - self.centre) / self.scale).mean(0)
            result[k] = slab if slab.shape == grid.shape_kji[1:] else F.adaptive_avg_pool2d(slab[None], grid.shape_kji[1:])[0]
        return result

    def unit(self, image: np.ndarray) -> float:
        """How many gray values of an image, near the segments' own, are 1 to the network."""
        low, high, _ = _range(image)
        return self.scale * (high - low) if self.relative else self.scale

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Intensity:
        """Raises KeyError, TypeError or ValueError."""
        if type(data["relative"]) is not bool:
            raise ValueError(f"relative {data['relative']!r:.40}")
        return cls(number(data["centre"], -_FARTHEST, _FARTHEST), number(data["scale"], 1 / _FARTHEST, _FARTHEST), data["relative"])


def apply_all(
    intensities: Sequence[Intensity],
    channels: np.ndarray | Sequence[np.ndarray],
    grid: WorkingGrid,
    device: torch.device,
    tick: Callable[[], None] = lambda: None,
) -> Tensor:
    """Each channel of an image (C, K, J, I) by its own intensity, (C, k, j, i) as `apply` says."""
    result = torch.empty((len(channels), *grid.shape_kji), dtype=torch.float16, device=device)
    for seen, intensity, channel in zip(result, intensities, channels, strict=True):
        intensity.apply(channel, grid, device, tick, seen)
    return result


def _sample(image: np.ndarray) -> np.ndarray:
    """Every n-th voxel, about _SAMPLES of them, without reading the rest where the array is memory-mapped."""
    step = max(1, round((image.size / _SAMPLES) ** (1 / 3)))
    return np.asarray(image[::step, ::step, ::step]).ravel()


def looks_like_ct(image: np.ndarray) -> bool:
    """Whether an image (K, J, I) shows air in Hounsfield units."""
    return not _range(image)[2]


def _range(image: np.ndarray) -> tuple[float, float, bool]:
    low, high = (float(v) for v in np.percentile(_sample(image), [1, 99]))
    return low, max(high, low + 1e-6 * max(1.0, abs(low))), low > _AIR_HU
