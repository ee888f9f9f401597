"""From the volume's own grid to a coarser one, straight from what the volumes are stored as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..contract.box import Box
from . import compiled
from .volumes import Volumes

_SLAB = 4_000_000  # voxels at a time where they must be float


class Pooled(NamedTuple):
    """Of one segment on its working grid, (k, j, i): mean logit of growing and share of voxels of other segments, float32; how far the labels in
    each working voxel agree, float32 in 0..1; the annotation, int8: -1 none, 0 mostly against the segment, 1 for it."""

    belief: Tensor
    other: Tensor
    agreement: Tensor
    known: Tensor


def pool_beliefs(volumes: Volumes, box: Box, factors: Sequence[int], value: int) -> Pooled:
    sums = _sums([v[box] for v in (volumes.label, volumes.confidence, volumes.labels, volumes.labelled)], factors, value)
    counts = [torch.from_numpy(np.bincount(np.arange(s.stop - s.start) // f)).float() for s, f in zip(box, factors, strict=True)]
    count = counts[0][:, None, None] * counts[1][:, None] * counts[2]
    sign, sure, other, mine, against = sums.float() if sums.dtype != torch.float32 else sums
    known = torch.where(against > mine, 0, torch.where(mine > 0, 1, -1)).to(torch.int8)
    return Pooled((0.2 * sign + 1.3 / 255 * sure) / count, other / count, sign.abs() / count, known)


def _sums(views: Sequence[np.ndarray], factors: Sequence[int], value: int) -> Tensor:
    """As refiner_loops.pool_sums says, (5, k, j, i)."""
    shape = [-(-n // f) for n, f in zip(views[0].shape, factors, strict=True)]
    if (loops := compiled.loops()) is not None:
        out = np.zeros((5, *shape), np.int32)
        loops.pool_sums(*views, tuple(factors), value, out)
        return torch.from_numpy(out)
    sums = torch.empty([5, *shape])
    for cells, voxels in _slabs(views[0].shape, factors[0]):
        label, confidence, labels, labelled = (torch.from_numpy(np.ascontiguousarray(v[voxels])) for v in views)
        mine, sign = label == value, torch.where(label == value, 1.0, -1.0)
        parts = [sign, sign * confidence, (label > 0) & ~mine, labelled & (labels == value), labelled & (labels != value)]
        for n, part in enumerate(parts):
            sums[n, cells] = _mean(part.float(), factors, divisor=1)
    return sums


def pool_gray(image: np.ndarray, box: Box, factors: Sequence[int]) -> Tensor:
    """Mean gray value in a box of the image (K, J, I), (k, j, i) float32; what is no number or infinite counts as 0."""
    part = image[box]
    out = torch.empty([-(-n // f) for n, f in zip(part.shape, factors, strict=True)])
    for cells, voxels in _slabs(part.shape, factors[0]):
        gray = torch.from_numpy(np.array(part[voxels], np.float32))
        out[cells] = _mean(torch.nan_to_num_(gray, 0, 0, 0), factors)
    return out


def _mean(volume: Tensor, factors: Sequence[int], divisor: int | None = None) -> Tensor:
    if tuple(factors) == (1, 1, 1):
        return volume
    size = [min(f, n) for f, n in zip(factors, volume.shape, strict=True)]
    return F.avg_pool3d(volume[None, None], size, ceil_mode=True, count_include_pad=False, divisor_override=divisor)[0, 0]


def _slabs(shape: Sequence[int], factor: int) -> Iterator[tuple[slice, slice]]:
    """Working slices and the volume's slices that make them, few at a time."""
    step = max(1, _SLAB // (factor * shape[1] * shape[2]))
    for first in range(0, -(-shape[0] // factor), step):
        yield slice(first, first + step), slice(first * factor, min((first + step) * factor, shape[0]))
