"""The 3-D U-Net (Cicek et al., MICCAI 2016), with what ten years taught.

Kept: encoder, decoder, skip connections, two 3 x 3 x 3 convolutions a level, any input size. Changed: instance norm instead of batch norm (the
batch is one or two patches), leaky ReLU, one convolution a level in the decoder (most of the work is at full resolution, and the encoder
needs it more), and pooling and kernels that follow the spacing: an axis with thick slices is neither pooled nor convolved across until the
others have caught up (Isensee et al., nnU-Net, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_WIDTH = 320
IN_CHANNELS = 4  # the image, and where each voxel lies in the volume (k, j, i)
_MOMENTUM = 0.1  # of the norms' remembered statistics, per patch
_POOLABLE = 8  # voxels that an axis must have to be halved
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
    def widths(self) -> list[int]:
        return [min(self.width * 2**level, MAX_WIDTH) for level in range(len(self.kernels))]

    @property
    def multiple_kji(self) -> Triple:
        """Patch shapes must be multiples of this (the network pads others)."""
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
        pools, kernels = (tuple(_triple(t) for t in data[name]) for name in ("pools", "kernels"))
        return cls(int(data["classes"]), int(data["width"]), pools, kernels, bool(data["residual"]), int(data["in_channels"]))


def plan_network(
    spacing_kji_mm: Sequence[float], shape_kji: Sequence[int], classes: int, width: int, depth: int, residual: bool = False
) -> NetworkPlan:
    """Pools and kernels for a spacing and a volume: at each level, those axes are pooled that lie within twice the finest spacing and have
    voxels to spare. Axes too short to pool do not hold up the others."""
    spacing, size = [float(s) for s in spacing_kji_mm], [float(n) for n in shape_kji]
    pools: list[Triple] = []
    kernels: list[Triple] = [_kernel(spacing, size)]
    for _ in range(depth):
        finest = min((s for s, n in zip(spacing, size, strict=True) if n >= _POOLABLE), default=None)
        if finest is None:
            break
        pool = [2 if s < 2 * finest and n >= _POOLABLE else 1 for s, n in zip(spacing, size, strict=True)]
        spacing = [s * p for s, p in zip(spacing, pool, strict=True)]
        size = [n / p for n, p in zip(size, pool, strict=True)]
        pools.append(_triple(pool))
        kernels.append(_kernel(spacing, size))
    return NetworkPlan(classes, width, tuple(pools), tuple(kernels), residual)


def _kernel(spacing: Sequence[float], size: Sequence[float]) -> Triple:
    """1 across slices more than three times as thick as the finest axis that can still be pooled, else 3."""
    finest = min((s for s, n in zip(spacing, size, strict=True) if n >= _POOLABLE), default=max(spacing))
    return _triple([3 if s < 3 * finest else 1 for s in spacing])


def _triple(values: Sequence[Any]) -> Triple:
    k, j, i = values
    return (int(k), int(j), int(i))


class InstanceNorm(nn.Module):
    """Instance norm with scale and shift (Ulyanov et al. 2016) in training; in prediction, with the statistics that training has seen.

    A tile of nothing but air has statistics of its own that say nothing, and normalising by them makes structures of noise; the patches that
    the network was trained on show air beside anatomy. One sample at a time through batch norm's kernel: for one sample the two are the same
    sum, and its kernels keep channels-last memory and bf16; torch's own instance and group norm are slower on the CPU (`make bench-engine`).
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and math.prod(x.shape[2:]) == 1:  # no variance over one voxel
            return x
        if not self.training:
            return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, training=False)
        samples = [F.batch_norm(sample, self.mean, self.variance, self.weight, self.bias, training=True, momentum=_MOMENTUM) for sample in x.split(1)]
        return samples[0] if len(samples) == 1 else torch.cat(samples)


class ConvNormAct(nn.Sequential):
    def __init__(self, before: int, after: int, kernel: Triple) -> None:
        k, j, i = (n // 2 for n in kernel)
        super().__init__(nn.Conv3d(before, after, kernel, padding=(k, j, i), bias=False), InstanceNorm(after), nn.LeakyReLU(0.01, inplace=True))


class Block(nn.Module):
    """Two convolutions; with `residual`, a shortcut around them."""

    def __init__(self, before: int, after: int, kernel: Triple, residual: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvNormAct(before, after, kernel), ConvNormAct(after, after, kernel))
        self.shortcut = nn.Conv3d(before, after, 1, bias=False) if residual else None

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
        self.lift = nn.ModuleList(nn.Conv3d(widths[level + 1], widths[level], 1, bias=False) for level in range(len(plan.pools)))
        self.decoder = nn.ModuleList(ConvNormAct(2 * widths[level], widths[level], plan.kernels[level]) for level in range(len(plan.pools)))
        self.head = nn.Conv3d(widths[0], plan.classes, 1)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, k, j, i) -> logits (N, classes, k, j, i), for any k, j, i."""
        shape = x.shape[2:]
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
        x = self.head(x)
        return x[:, :, : shape[0], : shape[1], : shape[2]]


def _pad_to(x: Tensor, multiple_kji: Triple) -> Tensor:
    missing = [-n % m for n, m in zip(x.shape[2:], multiple_kji, strict=True)]
    return F.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else x


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
