"""The 3-D U-Net (Cicek et al., MICCAI 2016), with what ten years taught, on slabs of slices around annotated planes.

Kept: encoder, decoder, skip connections, two convolutions a level, any input size. Changed: instance norm instead of batch norm (the batch is a
few slabs), leaky ReLU, one convolution a level in the decoder (most of the work is at full resolution, and the encoder needs it more), and
kernels and pools that are flat across slices where a slab is one slice thick: then it is the 2.5-D case, which sees its neighbours as channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contract.channels import MOST_CHANNELS
from ..contract.classes import MAX_SEGMENTS
from ..contract.numbers import whole

CONTEXT = 2  # slices on each side that a slice sees of the image, as channels
SEEN = 2 * CONTEXT + 1  # slices of each channel of the image
PLACE = 3 + 3  # where each voxel lies in the volume (k, j, i); across which axis the slices lie
IN_CHANNELS = SEEN + PLACE  # of an image of one channel: the slice and its neighbours, of each channel in turn, then the place
_WIDEST = 8  # times the first level's width
_MOST_CLASSES, _MOST_WIDTH, _MOST_LEVELS = MAX_SEGMENTS + 1, 256, 7  # of a plan that a file describes
_POOLABLE = 8  # pixels that a plane must have along each side to be halved, and slices that a slab must
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class NetworkPlan:
    """All that fixes the network's shape. Level l has width * 2**l channels, kernels[l] convolutions, and pools[l] leads down from it."""

    classes: int  # with background
    width: int
    pools: tuple[Triple, ...]  # one fewer than levels
    kernels: tuple[Triple, ...]
    residual: bool = False
    in_channels: int = IN_CHANNELS

    @property
    def channels(self) -> int:
        """Of the image."""
        return (self.in_channels - PLACE) // SEEN

    @property
    def widths(self) -> list[int]:
        return [self.width * min(2**level, _WIDEST) for level in range(len(self.kernels))]

    @property
    def multiple_kji(self) -> Triple:
        """Slab shapes are padded to multiples of this."""
        k, j, i = (math.prod(pool[axis] for pool in self.pools) for axis in range(3))
        return (k, j, i)

    def flops_per_voxel(self) -> float:
        """Multiply-adds times two of all convolutions of one forward pass, by input voxel; a training step costs three times that."""
        widths, total, share = self.widths, 0.0, 1.0
        for level, kernel in enumerate(self.kernels):
            taps = math.prod(kernel)
            before = self.in_channels if level == 0 else widths[level - 1]
            total += 2 * share * widths[level] * (taps * (before + widths[level]) + (before if self.residual else 0))
            if level < len(self.pools):
                total += 2 * share * widths[level] * taps * 2 * widths[level]
                share /= math.prod(self.pools[level])
                total += 2 * share * widths[level] * widths[level + 1]  # narrowing, on the smaller grid
        return total + 2 * widths[0] * self.classes

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NetworkPlan:
        """Raises KeyError, TypeError or ValueError for what is no plan, or one of a size that nobody asks for."""
        pools, kernels = _triples(data["pools"], (1, 2)), _triples(data["kernels"], (1, 3))
        if not len(pools) + 1 == len(kernels) <= _MOST_LEVELS:
            raise ValueError(f"{len(kernels)} levels and {len(pools)} pools")
        if type(data["residual"]) is not bool:
            raise ValueError(f"residual {data['residual']!r:.40}")
        classes, width = whole(data["classes"], 2, _MOST_CLASSES), whole(data["width"], 1, _MOST_WIDTH)
        return cls(classes, width, pools, kernels, data["residual"], whole(data["in_channels"], 1, PLACE + MOST_CHANNELS * SEEN))


def plan_network(slices: int, plane: Sequence[int], classes: int, width: int, depth: int, residual: bool = False, channels: int = 1) -> NetworkPlan:
    """Pools and kernels for slabs of so many slices, of planes of this shape (j, i): planes are halved at each level where they have pixels to
    spare, slabs from the second on. One slice: all flat. channels: of the image."""
    j, i = (float(n) for n in plane)
    pools: list[Triple] = []
    kernels: list[Triple] = [_kernel(slices)]
    for level in range(depth):
        if max(j, i) < _POOLABLE:
            break
        across = 2 if level and slices >= _POOLABLE else 1
        pools.append((across, 2 if j >= _POOLABLE else 1, 2 if i >= _POOLABLE else 1))
        slices, j, i = slices // across, j / pools[-1][1], i / pools[-1][2]
        kernels.append(_kernel(slices))
    return NetworkPlan(classes, width, tuple(pools), tuple(kernels), residual, channels * SEEN + PLACE)


def _kernel(slices: int) -> Triple:
    return (3 if slices > 1 else 1, 3, 3)


def _triples(found: Sequence[Any], allowed: Sequence[int]) -> tuple[Triple, ...]:
    """Raises TypeError or ValueError."""
    if len(found) > _MOST_LEVELS:
        raise ValueError(f"{len(found)} levels")
    lowest, highest = min(allowed), max(allowed)
    triples = tuple(triple(whole(n, lowest, highest) for n in each) for each in found)
    if not all(n in allowed for each in triples for n in each):
        raise ValueError(f"kernels or pools {found!r:.80}")
    return triples


def triple(values: Iterable[Any]) -> Triple:
    """Three whole numbers."""
    k, j, i = values
    return (int(k), int(j), int(i))


class InstanceNorm(nn.Module):
    """Instance norm with scale and shift (Ulyanov et al. 2016), by the statistics of the slab at hand in training and in prediction: slabs are whole
    planes, which always show what is normal around a structure.

    On a CPU one sample at a time through batch norm's kernel: for one sample the two are the same sum, and its kernels keep channels-last memory
    and bf16; torch's own instance and group norm are slower there (`make bench-engine`).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if math.prod(x.shape[2:]) == 1:  # no variance over one voxel
            return x
        if x.device.type != "cpu":
            return F.instance_norm(x, weight=self.weight, bias=self.bias)
        samples = [F.batch_norm(sample, None, None, self.weight, self.bias, training=True) for sample in x.split(1)]
        return samples[0] if len(samples) == 1 else torch.cat(samples)


class Conv(nn.Conv3d):
    """A 3-D convolution. Flat ones run as 2-D convolutions of every slice, which are the same sums in the same memory: torch 2.13's flat 3-D ones
    end the process on CPUs with AMX (bf16, 16 channels, one slice of 176 x 176)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size[0] > 1:
            return super().forward(x)
        slices = x.transpose(1, 2).flatten(0, 1)
        y = F.conv2d(slices, self.weight.squeeze(2), self.bias, padding=self.padding[1:])  # type: ignore[arg-type]
        return y.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


class ConvNormAct(nn.Sequential):
    def __init__(self, before: int, after: int, kernel: Triple) -> None:
        k, j, i = (n // 2 for n in kernel)
        super().__init__(Conv(before, after, kernel, padding=(k, j, i), bias=False), InstanceNorm(after), nn.LeakyReLU(0.01, inplace=True))


class Block(nn.Module):
    """Two convolutions; with `residual`, a shortcut around them."""

    def __init__(self, before: int, after: int, kernel: Triple, residual: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvNormAct(before, after, kernel), ConvNormAct(after, after, kernel))
        self.shortcut = Conv(before, after, 1, bias=False) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) if self.shortcut is None else self.body(x) + self.shortcut(x)


class UNet3d(nn.Module):
    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__()
        self.plan = plan
        widths = plan.widths
        self.encoder = nn.ModuleList(
            Block(plan.in_channels if level == 0 else widths[level - 1], widths[level], kernel, plan.residual)
            for level, kernel in enumerate(plan.kernels)
        )
        self.lift = nn.ModuleList(Conv(widths[level + 1], widths[level], 1, bias=False) for level in range(len(plan.pools)))
        self.decoder = nn.ModuleList(ConvNormAct(2 * widths[level], widths[level], plan.kernels[level]) for level in range(len(plan.pools)))
        self.head = Conv(widths[0], plan.classes, 1)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, k, j, i) -> logits (N, classes, k, j, i), for any k, j, i."""
        k, j, i = x.shape[2:]
        return self.head(self._body(x))[:, :, :k, :j, :i]

    def features(self, x: Tensor) -> Tensor:
        """The same input -> what the head reads, (N, width, k, j, i)."""
        k, j, i = x.shape[2:]
        return self._body(x)[:, :, :k, :j, :i]

    def _body(self, x: Tensor) -> Tensor:
        x = _pad_to(x, self.plan.multiple_kji)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x)
            if level < len(self.plan.pools):
                skips.append(x)
                x = F.max_pool3d(x, self.plan.pools[level])
        for level in reversed(range(len(self.plan.pools))):
            # narrowing before enlarging does the 1 x 1 x 1 convolution on the small grid
            x = F.interpolate(self.lift[level](x), size=skips[level].shape[2:], mode="nearest")
            x = self.decoder[level](torch.cat([skips.pop(), x], 1))
        return x


def shapes_of(plan: NetworkPlan) -> dict[str, tuple[int, ...]]:
    """Of the weights of a UNet3d, by their names and in its parameters' order, without making one: torch's way to do so loads it for seconds."""
    shapes: dict[str, tuple[int, ...]] = {}
    widths = plan.widths

    def block(name: str, before: int, after: int, kernel: Triple) -> None:
        shapes.update({f"{name}.0.weight": (after, before, *kernel), f"{name}.1.weight": (after,), f"{name}.1.bias": (after,)})

    for level, (width, kernel) in enumerate(zip(widths, plan.kernels, strict=True)):
        before = plan.in_channels if level == 0 else widths[level - 1]
        block(f"encoder.{level}.body.0", before, width, kernel)
        block(f"encoder.{level}.body.1", width, width, kernel)
        if plan.residual:
            shapes[f"encoder.{level}.shortcut.weight"] = (width, before, 1, 1, 1)
    for level in range(len(plan.pools)):
        shapes[f"lift.{level}.weight"] = (widths[level], widths[level + 1], 1, 1, 1)
    for level in range(len(plan.pools)):
        block(f"decoder.{level}", 2 * widths[level], widths[level], plan.kernels[level])
    return shapes | {"head.weight": (plan.classes, widths[0], 1, 1, 1), "head.bias": (plan.classes,)}


def _pad_to(x: Tensor, multiple_kji: Triple) -> Tensor:
    missing = [-n % m for n, m in zip(x.shape[2:], multiple_kji, strict=True)]
    return F.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else x


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
