"""Volume -> probabilities on the working grid: slabs of whole planes, in every orientation that was learned, averaged.

Classes are kept as one byte each, on the working grid alone; whoever needs the volume's own voxels asks for a box of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..contract.box import Box, intersection, shape_of
from .augmentation import plane_input
from .cores import batches, cores_of
from .device import Compute
from .sampling import WorkingGrid
from .unet import UNet3d

_FULL = 255  # the byte of a probability of 1


@dataclass(frozen=True)
class Input:
    """What the network looks at: image float16 on the device, on the working grid; whether it was trained on this very volume, and so may be
    told where each voxel lies."""

    image: Tensor
    grid: WorkingGrid
    is_trained_on: bool = True


@dataclass(frozen=True)
class Probabilities:
    """What the network believes: classes (C, k, j, i) uint8 on the working grid, 255 times the probability, on the CPU."""

    classes: Tensor
    grid: WorkingGrid

    def at(self, box: Box) -> np.ndarray | None:
        """The classes' probabilities at own voxels of a box of the volume, (C, k, j, i) float32 0..1; trilinear between working voxels, those at
        the border beyond them. 0 outside of the grid's box, None where none of them is within."""
        part = self.part(box)
        if part is None:
            return None
        inside, found = part
        if inside == box:
            return found
        result = np.zeros((len(found), *shape_of(box)), np.float32)
        k, j, i = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(inside, box, strict=True))
        result[:, k, j, i] = found
        return result

    def part(self, box: Box) -> tuple[Box, np.ndarray] | None:
        """The part of a box that is within the grid's box, and the probabilities there, as of `at`; None where there is none."""
        inside = intersection(box, self.grid.box)
        return None if inside is None else (inside, self._inside(inside))

    @property
    def is_said_everywhere(self) -> bool:
        """Whether any class is possible at each voxel; none is where a network's answer is no number."""
        return all(bool(self.classes[:, k].any(0).all()) for k in range(self.classes.shape[1]))

    def tempered(self, temperature: float, tick: Callable[[], None] = lambda: None) -> Probabilities:
        """p ** (1 / temperature), to a sum of 1 again; what a byte calls 0 counts as half a step. tick is called plane by plane, and may raise."""
        result = torch.empty_like(self.classes)
        for k in range(result.shape[1]):
            tick()
            raised = self.classes[:, k].float().clamp_min_(0.5).mul_(1 / _FULL).pow_(1 / temperature)
            result[:, k] = raised.div_(raised.sum(0)).mul_(_FULL).add_(0.5)
        return Probabilities(result, self.grid)

    def _inside(self, box: Box) -> np.ndarray:
        local = [slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, self.grid.box, strict=True)]
        if self.grid.own_kji == self.grid.shape_kji:
            k, j, i = local
            return self.classes[:, k, j, i].numpy() * np.float32(1 / _FULL)
        sides, seen = [], []
        for axis, s in enumerate(local):
            working = (np.arange(s.start, s.stop, dtype=np.float32) + np.float32(0.5)) / np.float32(self.grid.scale[axis]) - np.float32(0.5)
            working = working.clip(0, self.grid.shape_kji[axis] - 1)
            first = int(working[0])
            sides.append(working - first)
            seen.append(slice(first, int(np.ceil(working[-1])) + 1))
        k, j, i = seen
        result = self.classes[:, k, j, i].numpy() * np.float32(1 / _FULL)
        for axis in (0, 2, 1):  # along rows, where values are picked one by one, before there are as many rows as the box has
            result = _between(result, axis + 1, sides[axis])
        return result


def _between(values: np.ndarray, axis: int, at: np.ndarray) -> np.ndarray:
    """Linear interpolation along one axis, at places (n,) float32 within it. Torch would start threads of its own in each thread that asks."""
    lower = np.minimum(at.astype(np.intp), values.shape[axis] - 1)
    share = (at - lower).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    low, high = values.take(lower, axis), values.take(np.minimum(lower + 1, values.shape[axis] - 1), axis)
    high -= low
    high *= share
    low += high
    return low


@torch.no_grad()
def predict(
    network: UNet3d,
    data: Input,
    orientations: Sequence[int],
    slices: int,
    compute: Compute,
    tick: Callable[[float], None] = lambda _: None,
    at_once: int = 0,
) -> Probabilities:
    """Every slab, in each of these orientations (axes); at_once: how many slabs are worked on as one, 0: as the device likes best. `tick` is called
    after them with the share that is done; it may raise."""
    grid, classes = data.grid, network.plan.classes
    total = torch.zeros((classes, *grid.shape_kji), dtype=torch.float16)
    cores = cores_of(compute.device.type)
    slabs = [(axis, first, min(slices, grid.shape_kji[axis] - first)) for axis in orientations for first in range(0, grid.shape_kji[axis], slices)]
    work = batches(slabs, lambda slab: (slab[0], slab[2]), at_once or cores.at_once)
    answers = cores.map(lambda batch: _asked(network, data, batch, compute), work)
    for done, (batch, answer) in enumerate(zip(work, answers, strict=True), 1):
        for (axis, first, thick), found in zip(batch, answer, strict=True):
            total.narrow(axis + 1, first, thick).add_(found.movedim(1, axis + 1))
        tick(done / len(work))
    return Probabilities(_as_bytes(total.div_(len(orientations))), grid)


def _as_bytes(probabilities: Tensor) -> Tensor:
    result = torch.empty(probabilities.shape, dtype=torch.uint8)
    for bytes_, values in zip(result, probabilities, strict=True):
        bytes_.copy_(values.float().mul_(_FULL).add_(0.5))
    return result


@torch.no_grad()
def _asked(network: UNet3d, data: Input, slabs: Sequence[tuple[int, int, int]], compute: Compute) -> Tensor:
    """Softmax of slabs of one shape, (N, C, k, j, i) float16 on the CPU, k across their planes. slabs: axis, first slice, how many."""
    seen = torch.stack([plane_input(data.image, *slab, data.is_trained_on) for slab in slabs])
    with compute.autocast():
        logits = network(seen.contiguous(memory_format=torch.channels_last_3d))
    return torch.softmax(logits.float(), 1).to(torch.float16).cpu()
