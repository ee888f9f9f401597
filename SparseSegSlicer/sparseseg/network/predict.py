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

from ..contract.box import Box
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


@dataclass(frozen=True)
class Tile:
    """What the network says of one tile: logits (C, k, j, i) float32 on the working grid, where it begins there, and the box of own voxels that
    are its to decide."""

    logits: Tensor
    start: list[int]
    box: Box


@torch.no_grad()
def tiles(network: UNet3d, data: Input, tile_kji: Triple, compute: Compute, wanted: Callable[[Box], bool] = lambda _: True) -> Iterator[Tile]:
    """Overlapping tiles whose boxes together cover the volume, each voxel once. `wanted` is asked of each box; what is not wanted is left out."""
    shape = data.grid.shape_kji
    tile_kji = tuple(min(t, n) for t, n in zip(tile_kji, shape, strict=True))  # type: ignore[assignment]
    base = offsets(tile_kji, data.image.device) + torch.tensor([(t - 1) / 2 for t in tile_kji], device=data.image.device).view(3, 1, 1, 1)
    cores = [tile_cores(n, t, min(t // 4, n - 1)) for n, t in zip(shape, tile_kji, strict=True)]
    for core in itertools.product(*cores):
        box = _own_box(core, data.grid)
        if not wanted(box):
            continue
        start = [c[0] for c in core]
        corner = torch.tensor(start, dtype=torch.float32, device=data.image.device).view(3, 1, 1, 1)
        tile = tuple(slice(a, a + t) for a, t in zip(start, tile_kji, strict=True))
        part = torch.cat([data.image[tile].float()[None], position(base + corner, shape, data.is_trained_on)])
        with torch.autocast(compute.device.type, compute.dtype, enabled=compute.dtype != torch.float32):
            logits = network(part[None].contiguous(memory_format=torch.channels_last_3d))[0]
        yield Tile(logits.float(), start, box)


def tile_probabilities(network: UNet3d, data: Input, tile_kji: Triple, compute: Compute) -> Iterator[tuple[Box, Tensor]]:
    """(box, softmax (C, k, j, i) float32): boxes of the volume's own grid that together cover it, each voxel once."""
    for tile in tiles(network, data, tile_kji, compute):
        for slab in _slabs(tile.box):
            axes = [torch.arange(s.start, s.stop, device=tile.logits.device) for s in slab]
            yield slab, torch.softmax(_on_own_grid(tile, torch.meshgrid(*axes, indexing="ij"), data.grid), 0)


@torch.no_grad()
def decide_at(
    network: UNet3d, data: Input, tile_kji: Triple, compute: Compute, mask: np.ndarray, tick: Callable[[], None] = lambda: None
) -> tuple[np.ndarray, np.ndarray]:
    """Label and uncertainty (as of `predict`) at the true voxels of a mask (K, J, I) alone, (n,) uint8, in their order in memory."""
    places = np.flatnonzero(mask)
    label, uncertainty = np.zeros(len(places), np.uint8), np.zeros(len(places), np.uint8)
    for tile in tiles(network, data, tile_kji, compute, lambda box: bool(mask[box].any())):
        tick()
        at = [inside + s.start for inside, s in zip(np.nonzero(mask[tile.box]), tile.box, strict=True)]
        points = tuple(torch.from_numpy(axis).to(tile.logits.device).view(-1, 1, 1) for axis in at)
        logits = _on_own_grid(tile, points, data.grid).flatten(1)
        found = np.searchsorted(places, np.ravel_multi_index(at, mask.shape))
        label[found], uncertainty[found] = decide(torch.softmax(logits, 0))
    return label, uncertainty


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


def _on_own_grid(tile: Tile, at: Sequence[Tensor], grid: WorkingGrid) -> Tensor:
    """Logits (C, ...) at own voxels, k, j, i of three dimensions each, trilinear between working voxels; just those where the grids are the same."""
    if grid.own_kji == grid.shape_kji:
        k, j, i = (axis - a for axis, a in zip(at, tile.start, strict=True))
        return tile.logits[:, k, j, i]
    sides = []
    for axis, (voxels, a) in enumerate(zip(at, tile.start, strict=True)):
        working = (voxels + 0.5) / grid.scale[axis] - 0.5 - a
        sides.append(working.float() * 2 / max(1, tile.logits.shape[axis + 1] - 1) - 1)
    k, j, i = sides
    return F.grid_sample(tile.logits[None], torch.stack([i, j, k], -1)[None], mode="bilinear", padding_mode="border", align_corners=True)[0]


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
