"""Volume -> label map: overlapping tiles, each decides its own core, argmax at once; no full-resolution float volume per class, ever."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..contract.belief import Box
from .augmentation import offsets, position
from .device import Compute
from .sampling import WorkingGrid, tile_cores
from .unet import Triple, UNet3d

_SLAB_VOXELS = 2**20


@dataclass(frozen=True)
class Input:
    """What the network looks at: image float16 on the device, on the working grid; whether it was trained on this very volume, and so may be
    told where each voxel lies."""

    image: Tensor
    grid: WorkingGrid
    is_trained_on: bool = True


@torch.no_grad()
def tile_probabilities(
    network: UNet3d, data: Input, tile_kji: Triple, compute: Compute, wanted: Callable[[Box], bool] | None = None
) -> Iterator[tuple[Box, Tensor]]:
    """(box, softmax (C, k, j, i) float32): boxes of the volume's own grid that together cover it, each voxel once; of
    tiles that are not wanted, by their box, none."""
    shape = data.grid.shape_kji
    tile_kji = tuple(min(t, n) for t, n in zip(tile_kji, shape, strict=True))  # type: ignore[assignment]
    base = offsets(tile_kji, data.image.device) + torch.tensor([(t - 1) / 2 for t in tile_kji], device=data.image.device).view(3, 1, 1, 1)
    cores = [tile_cores(n, t, min(t // 4, n - 1)) for n, t in zip(shape, tile_kji, strict=True)]
    for core in itertools.product(*cores):
        box = _own_box(core, data.grid)
        if wanted is not None and not wanted(box):
            continue
        start = [c[0] for c in core]
        corner = torch.tensor(start, dtype=torch.float32, device=data.image.device).view(3, 1, 1, 1)
        tile = tuple(slice(a, a + t) for a, t in zip(start, tile_kji, strict=True))
        part = torch.cat([data.image[tile].float()[None], position(base + corner, shape, data.is_trained_on)])
        with torch.autocast(compute.device.type, compute.dtype, enabled=compute.dtype != torch.float32):
            logits = network(part[None].contiguous(memory_format=torch.channels_last_3d))[0]
        for slab in _slabs(box):
            yield slab, torch.softmax(_on_own_grid(logits.float(), start, slab, data.grid), 0)


def _slabs(box: Box) -> Iterator[Box]:
    """A tile of a coarse grid covers many own voxels: in slabs, so that few of them have a float for each class at a time."""
    k, j, i = box
    step = max(1, _SLAB_VOXELS // max(1, (j.stop - j.start) * (i.stop - i.start)))
    for first in range(k.start, k.stop, step):
        yield (slice(first, min(first + step, k.stop)), j, i)


def _own_box(core: Sequence[tuple[int, int, int]], grid: WorkingGrid) -> Box:
    """The own voxels whose centres lie in the tile's core; cores that touch give boxes that touch."""
    k, j, i = (slice(_first(first, s), _first(last, s)) for (_, first, last), s in zip(core, grid.scale, strict=True))
    return (k, j, i)


def _first(working: int, scale: float) -> int:
    """The first own voxel with its centre behind the border before this working voxel."""
    return math.ceil(working * scale - 0.5 - 1e-9)


def _on_own_grid(logits: Tensor, start: Sequence[int], box: Box, grid: WorkingGrid) -> Tensor:
    """(C, k, j, i) of a tile -> (C, k, j, i) of the box, trilinear between working voxels; a plain crop where the grids are the same."""
    if grid.own_kji == grid.shape_kji:
        return logits[(slice(None), *(slice(b.start - a, b.stop - a) for a, b in zip(start, box, strict=True)))]
    axes = []
    for axis, (a, b) in enumerate(zip(start, box, strict=True)):
        working = (torch.arange(b.start, b.stop, device=logits.device) + 0.5) / grid.scale[axis] - 0.5 - a
        axes.append(working.float() * 2 / max(1, logits.shape[axis + 1] - 1) - 1)
    k, j, i = torch.meshgrid(*axes, indexing="ij")
    return F.grid_sample(logits[None], torch.stack([i, j, k], -1)[None], mode="bilinear", padding_mode="border", align_corners=True)[0]


def predict(
    network: UNet3d, data: Input, tile_kji: Triple, compute: Compute, tick: Callable[[float], None] = lambda _: None
) -> tuple[np.ndarray, np.ndarray]:
    """Dense (K, J, I) uint8 and uncertainty (K, J, I) uint8, 0 sure .. 255 two classes alike, both on the volume's own grid.

    `tick` is called after every tile with the share that is done; it may raise.
    """
    dense, uncertainty = np.zeros(data.grid.own_kji, np.uint8), np.zeros(data.grid.own_kji, np.uint8)
    done = 0
    for box, probabilities in tile_probabilities(network, data, tile_kji, compute):
        dense[box], uncertainty[box] = decide(probabilities)
        done += dense[box].size
        tick(done / dense.size)
    return dense, uncertainty


def decide(probabilities: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(C, ...) -> the most probable class and how near the second is, 0 sure .. 255 alike, uint8 both, on the CPU."""
    best = probabilities.topk(2, dim=0)
    unsure = (255 * (1 - (best.values[0] - best.values[1]))).clamp_(0, 255)
    return best.indices[0].to(torch.uint8).cpu().numpy(), unsure.to(torch.uint8).cpu().numpy()
