"""Augmentation on the device: one class draws the numbers, one function applies them, in a single resampling pass.

Rotation, scale, mirroring (only if asked: it swaps left and right organs) and elastic deformation are one coordinate grid, so that the
image is interpolated once and the labels are looked up once; intensity, blur and noise follow on the patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .sampling import WorkingGrid
from .targets import Targets
from .unet import Triple

_ELASTIC_GRID = 5  # control points an axis
_POSITION_DROPOUT = 0.25  # share of patches without position, so that the network also works on another volume, where it has none


@dataclass
class TrainingVolume:
    """What training reads, on the device: image float16 on the working grid, targets on the volume's own."""

    grid: WorkingGrid
    image: Tensor
    targets: Targets


@dataclass(frozen=True)
class Draw:
    """The random numbers of one patch, in working voxels. matrix: 3 x 3, patch offset -> volume offset (k, j, i)."""

    centre_kji: tuple[float, float, float]
    matrix: np.ndarray
    elastic: np.ndarray | None  # (3, g, g, g): displacement in voxels
    gain: float
    shift: float
    noise: float
    noise_seed: int
    blur: float  # standard deviation in voxels; 0 = none
    with_position: bool  # whether the network is told where the patch lies


class Augmenter:
    """Draws; the spacing decides how far a rotation may turn thick slices into the plane."""

    def __init__(self, spacing_kji_mm: Sequence[float], strength: float = 1.0, mirror: bool = False) -> None:
        self._spacing = np.asarray(spacing_kji_mm, dtype=float)
        self._strength, self._mirror = strength, mirror

    def draw(self, rng: np.random.Generator, centre_kji: tuple[float, float, float]) -> Draw:
        s = self._strength
        spatial = s > 0 and rng.random() < 0.7
        elastic = rng.normal(0, 1, (3, *[_ELASTIC_GRID] * 3)) * self._elastic_voxels() * s if spatial and rng.random() < 0.4 else None
        return Draw(
            centre_kji,
            self._matrix(rng) if spatial else np.eye(3),
            elastic,
            gain=math.exp(rng.normal(0, 0.12 * s)),
            shift=rng.normal(0, 0.12 * s),
            noise=abs(rng.normal(0, 0.1 * s)) if rng.random() < 0.3 else 0.0,
            noise_seed=int(rng.integers(2**31)),
            blur=rng.uniform(0.4, 0.9) if s > 0 and rng.random() < 0.15 else 0.0,
            with_position=rng.random() > _POSITION_DROPOUT,
        )

    def _matrix(self, rng: np.random.Generator) -> np.ndarray:
        """Rotation and scale in millimetres, brought to voxels."""
        turn = np.eye(3)
        for axis in range(3):
            a, b = (n for n in range(3) if n != axis)
            ratio = max(self._spacing[a], self._spacing[b]) / min(self._spacing[a], self._spacing[b])
            angle = rng.normal(0, 0.15 * self._strength) / max(1.0, ratio)
            part = np.eye(3)
            part[a, a] = part[b, b] = math.cos(angle)
            part[a, b], part[b, a] = -math.sin(angle), math.sin(angle)
            turn = turn @ part
        scale = np.exp(rng.normal(0, 0.08 * self._strength, 3))
        if self._mirror:
            scale *= rng.choice([-1.0, 1.0], 3)
        return (turn * scale) * self._spacing[None, :] / self._spacing[:, None]

    def _elastic_voxels(self) -> np.ndarray:
        """About 1.5 fine voxels, in millimetres the same along each axis."""
        return (1.5 * self._spacing.min() / self._spacing).reshape(3, 1, 1, 1)


def offsets(patch_kji: Triple, device: torch.device) -> Tensor:
    """(3, k, j, i) float32: each voxel's place against the patch's centre."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in patch_kji]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def take_patch(volume: TrainingVolume, draw: Draw, patch_offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One augmented patch: network input (4, k, j, i) float32, labels (k, j, i) int64, weights (k, j, i) float32, 0 outside of the volume."""
    places = _places(draw, patch_offsets)  # (3, k, j, i), in working voxels
    image = _interpolate(volume.image, places, draw, patch_offsets)
    scale, shape = (torch.tensor(v, device=places.device, dtype=torch.float32).view(3, 1, 1, 1) for v in (volume.grid.scale, volume.grid.own_kji))
    own = (places + 0.5) * scale - 0.5
    inside = ((own > -0.5) & (own < shape - 0.5)).all(0)
    nearest = torch.minimum(own.round().clamp_min_(0), shape - 1).long()
    targets = volume.targets
    index = (nearest[0] * targets.labels.shape[1] + nearest[1]) * targets.labels.shape[2] + nearest[2]
    labels = targets.labels.view(-1)[index].long()
    weights = targets.weights(index) * inside
    return torch.cat([_intensities(image, draw), position(places, volume.image.shape, draw.with_position)]), labels, weights


def position(places: Tensor, shape_kji: Sequence[int], known: bool = True) -> Tensor:
    """Three input channels: where each voxel lies in the volume, -1..1 along each axis, from places (3, k, j, i) in working voxels; else 0.

    One patient is trained on, so position tells left from right and one region of a brain from the next, which small patches cannot.
    """
    if not known:
        return torch.zeros_like(places)
    half = torch.tensor([max(1, n - 1) / 2 for n in shape_kji], dtype=torch.float32, device=places.device).view(3, 1, 1, 1)
    return places / half - 1


def _places(draw: Draw, patch_offsets: Tensor) -> Tensor:
    device = patch_offsets.device
    if np.array_equal(draw.matrix, np.eye(3)):
        places = patch_offsets.clone()
    else:
        matrix = torch.tensor(draw.matrix, dtype=torch.float32, device=device)
        places = (matrix @ patch_offsets.reshape(3, -1)).view_as(patch_offsets)
    if draw.elastic is not None:
        field = torch.tensor(draw.elastic, dtype=torch.float32, device=device)
        places += F.interpolate(field[None], size=patch_offsets.shape[1:], mode="trilinear", align_corners=True)[0]
    return places + torch.tensor(draw.centre_kji, dtype=torch.float32, device=device).view(3, 1, 1, 1)


def _interpolate(image: Tensor, places: Tensor, draw: Draw, patch_offsets: Tensor) -> Tensor:
    """Trilinear, the border's value outside. Only the box that the patch can reach is turned into float32."""
    low, high = _reach(draw, patch_offsets.shape[1:], image.shape)
    box = image[low[0] : high[0], low[1] : high[1], low[2] : high[2]].float()
    scale = [2 / max(1, n - 1) for n in box.shape]
    grid = torch.stack([(places[a] - low[a]) * scale[a] - 1 for a in (2, 1, 0)], dim=-1)
    return F.grid_sample(box[None, None], grid[None], mode="bilinear", padding_mode="border", align_corners=True)[0]


def _reach(draw: Draw, patch_kji: Sequence[int], shape: Sequence[int]) -> tuple[list[int], list[int]]:
    """The box of the volume that holds every place of the patch; from the drawn numbers alone, so that nothing waits for the device."""
    half = np.abs(draw.matrix) @ ((np.array(patch_kji) - 1) / 2)
    if draw.elastic is not None:
        half = half + np.abs(draw.elastic).reshape(3, -1).max(1)
    centre = np.array(draw.centre_kji)
    low = np.clip(np.floor(centre - half).astype(int) - 1, 0, np.array(shape) - 1)
    high = np.clip(np.ceil(centre + half).astype(int) + 2, low + 1, shape)
    return [int(v) for v in low], [int(v) for v in high]


def _intensities(image: Tensor, draw: Draw) -> Tensor:
    image = image * draw.gain + draw.shift
    if draw.blur > 0:
        image = _blurred(image, draw.blur)
    if draw.noise > 0:
        generator = torch.Generator(device=image.device).manual_seed(draw.noise_seed)
        image = image + torch.randn(image.shape, generator=generator, device=image.device) * draw.noise
    return image


def _blurred(image: Tensor, sigma: float) -> Tensor:
    side = math.exp(-1 / (2 * sigma**2))
    taps = [side / (1 + 2 * side), 1 / (1 + 2 * side), side / (1 + 2 * side)]
    x = F.pad(image[None], (1, 1, 1, 1, 1, 1), mode="replicate")[0]
    for axis in (1, 2, 3):
        n = x.shape[axis] - 2
        x = sum(x.narrow(axis, step, n) * tap for step, tap in enumerate(taps))  # type: ignore[assignment]
    return x
