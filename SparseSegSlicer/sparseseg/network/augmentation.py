"""Augmentation on the device: one class draws the numbers, one function applies them, in a single resampling pass.

A slab is turned, scaled, bent and mirrored (only if asked: it swaps left and right organs) within its planes, all of its slices alike, so that
labels stay on the slice that they were painted on. Gray values follow, then noise, in each channel by itself. An image is (K, J, I), or (C, K, J, I)
of several channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .sampling import WorkingGrid
from .targets import Targets
from .unet import CONTEXT, SEEN, Triple, triple

_ELASTIC_GRID = 6  # control points along each side
_POSITION_DROPOUT = 0.3  # share of slabs without position, so that the network also works on another volume, where it has none


class Labels(Protocol):
    """What is to be learned of a volume."""

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """y, int64, and w, float32, at flat indices of its own voxels, in their shape."""


class Learned(Protocol):
    """A volume to learn from, on the device: image float16 on the working grid, (K, J, I) or (C, K, J, I); targets on the volume's own."""

    @property
    def grid(self) -> WorkingGrid: ...

    @property
    def image(self) -> Tensor: ...

    @property
    def targets(self) -> Labels: ...


@dataclass
class TrainingVolume:
    """The one volume of a session: Learned, with targets that change as the user corrects."""

    grid: WorkingGrid
    image: Tensor
    targets: Targets


@dataclass(frozen=True)
class Draw:
    """The random numbers of one slab, whose planes are seen whole. axis, index: the own slice in its middle. matrix: 2 x 2, offset from the
    plane's centre -> offset in the volume, in working voxels (rows, columns); shift: (2,), of the centre; gain, offset, noise: of each channel."""

    axis: int
    index: int
    matrix: np.ndarray
    shift: np.ndarray
    elastic: np.ndarray | None  # (2, g, g): displacement in working voxels
    gain: tuple[float, ...]
    offset: tuple[float, ...]
    noise: tuple[float, ...]
    noise_seed: int
    with_position: bool  # whether the network is told where the slab lies
    volume: int = 0  # of which it is, where there are several


class Augmenter:
    """Draws; the spacing decides how far a rotation may turn thick slices."""

    def __init__(
        self,
        grid: WorkingGrid,
        spacing_kji_mm: Sequence[float],
        strength: float = 1.0,
        mirror: bool = False,
        channels: int = 1,
        tells_position: bool = True,
    ) -> None:
        """spacing_kji_mm: of the volume's own voxels; channels: of the image; tells_position: now and then, which helps on this volume alone."""
        self.grid, self.spacing_kji_mm, self.channels, self._tells_position = grid, spacing_kji_mm, channels, tells_position
        self._shape, self._spacing = grid.shape_kji, np.asarray(grid.spacing(spacing_kji_mm))
        self._strength, self._mirror = strength, mirror

    def draw(self, rng: np.random.Generator, axis: int, index: int) -> Draw:
        s = self._strength
        plane = np.array([self._shape[a] for a in range(3) if a != axis])
        elastic = rng.normal(0, 0.01 * s * min(plane), (2, _ELASTIC_GRID, _ELASTIC_GRID)) if s > 0 else None
        return Draw(
            axis,
            index,
            self._matrix(rng, axis),
            rng.normal(0, 0.04 * s, 2) * plane,
            elastic,
            gain=tuple(math.exp(rng.normal(0, 0.1 * s)) for _ in range(self.channels)),
            offset=tuple(rng.normal(0, 0.1 * s) for _ in range(self.channels)),
            noise=tuple(rng.uniform(0, 0.1 * s) for _ in range(self.channels)),
            noise_seed=int(rng.integers(2**31)),
            with_position=(s == 0 or rng.random() > _POSITION_DROPOUT) and self._tells_position,
        )

    def _matrix(self, rng: np.random.Generator, axis: int) -> np.ndarray:
        """Rotation and scale in millimetres, brought to voxels."""
        spacing = np.delete(self._spacing, axis)
        angle = rng.normal(0, 0.15 * self._strength) / max(1.0, spacing.max() / spacing.min())
        scale = np.full(2, math.exp(rng.normal(0, 0.12 * self._strength)))
        if self._mirror:
            scale *= rng.choice([-1.0, 1.0], 2)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return (turn * scale) * spacing[None, :] / spacing[:, None]


def offsets(plane: Sequence[int], device: torch.device) -> Tensor:
    """(2, rows, columns) float32: each pixel's place against the plane's centre."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in plane]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def take_slab(volume: Learned, draw: Draw, slices: int) -> tuple[Tensor, Tensor, Tensor]:
    """One augmented slab of so many slices: network input (N, k, j, i) float32, with k across its planes; labels (k, j, i) int64,
    weights (k, j, i) float32, 0 outside of the box."""
    grid, device = volume.grid, volume.image.device
    places = _places(draw, [grid.shape_kji[a] for a in range(3) if a != draw.axis], device)
    first = grid.slice_of(draw.axis, draw.index) - slices // 2
    image = _gray(_interpolate(_slices(volume.image, draw.axis, first - CONTEXT, slices + 2 * CONTEXT), places), draw)
    labels, weights = _looked_up(volume, draw, places, first, slices)
    return network_input(image, draw.axis, first, grid.shape_kji, places, draw.with_position), labels, weights


def plane_input(image: Tensor, axis: int, first: int, slices: int, with_position: bool = True) -> Tensor:
    """The same input, (N, k, j, i), of slices as they are. image: on the working grid."""
    shape = triple(image.shape[-3:])
    plane = [shape[a] for a in range(3) if a != axis]
    middle = torch.tensor([(n - 1) / 2 for n in plane], device=image.device).view(2, 1, 1)
    seen = _slices(image, axis, first - CONTEXT, slices + 2 * CONTEXT).float()
    return network_input(seen, axis, first, shape, offsets(plane, image.device) + middle, with_position)


def network_input(image: Tensor, axis: int, first: int, shape_kji: Triple, places: Tensor, with_position: bool) -> Tensor:
    """(N, k, j, i) float32, N as of unet.plan_network: each slice with its neighbours, of each channel in turn; where each voxel lies in the volume,
    -1..1 along k, j, i (0 where that is not told); 1 for the axis across which the slices lie.

    image: (k + 2 CONTEXT, j, i), or (C, ...) of several channels; places: (2, j, i), of each pixel in its plane, in working voxels. One patient is
    trained on, so position tells left from right and one region of a brain from the next.
    """
    slices, (rows, columns) = image.shape[-3] - 2 * CONTEXT, image.shape[-2:]
    channels = image if image.dim() == 4 else image[None]
    seen = [channel[n : n + slices] for channel in channels for n in range(SEEN)]
    position = torch.zeros(3, slices, rows, columns, device=image.device)
    if with_position:
        across = torch.arange(first, first + slices, device=image.device) * (2 / max(1, shape_kji[axis] - 1)) - 1
        position[axis] = across.view(-1, 1, 1)
        for place, a in zip(places, (a for a in range(3) if a != axis), strict=True):
            position[a] = place * (2 / max(1, shape_kji[a] - 1)) - 1
    orientation = torch.zeros(3, slices, rows, columns, device=image.device)
    orientation[axis] = 1
    return torch.cat([torch.stack(seen), position, orientation])


def _slices(image: Tensor, axis: int, first: int, count: int) -> Tensor:
    """Slices across an axis, (count, j, i), or (C, count, j, i); those beyond the volume are its last ones."""
    axis -= 3
    index = torch.arange(first, first + count, device=image.device).clamp(0, image.shape[axis] - 1)
    return image.index_select(axis, index).movedim(axis, -3)


def _places(draw: Draw, plane: Sequence[int], device: torch.device) -> Tensor:
    """Where each pixel of the slab is taken from, (2, j, i) in working voxels."""
    at = offsets(plane, device)
    matrix = torch.tensor(draw.matrix, dtype=torch.float32, device=device)
    places = (matrix @ at.reshape(2, -1)).view_as(at)
    if draw.elastic is not None:
        field = torch.tensor(draw.elastic, dtype=torch.float32, device=device)
        places += F.interpolate(field[None], size=at.shape[1:], mode="bicubic", align_corners=False)[0]
    centre = [(n - 1) / 2 + shift for n, shift in zip(plane, draw.shift, strict=True)]
    return places + torch.tensor(centre, dtype=torch.float32, device=device).view(2, 1, 1)


def _interpolate(slices: Tensor, places: Tensor) -> Tensor:
    """Bilinear within each slice, the border's value outside."""
    scale = [2 / max(1, n - 1) for n in slices.shape[-2:]]
    grid = torch.stack([places[1] * scale[1] - 1, places[0] * scale[0] - 1], dim=-1)
    flat = slices.reshape(1, -1, *slices.shape[-2:]).float()
    return F.grid_sample(flat, grid[None], mode="bilinear", padding_mode="border", align_corners=True).reshape(*slices.shape[:-2], *places.shape[1:])


def _gray(image: Tensor, draw: Draw) -> Tensor:
    gain, offset, noise = (torch.tensor(numbers, device=image.device).view(-1, 1, 1, 1) for numbers in (draw.gain, draw.offset, draw.noise))
    result = image * gain + offset
    if any(draw.noise):
        generator = torch.Generator(device=image.device).manual_seed(draw.noise_seed)
        result = result + torch.randn(image.shape, generator=generator, device=image.device) * noise
    return result.view_as(image)


def _looked_up(volume: Learned, draw: Draw, places: Tensor, first: int, slices: int) -> tuple[Tensor, Tensor]:
    """Labels and weights at the nearest own voxels; the middle slice is the drawn one, whichever of the own slices of its working slice that is."""
    grid, axis = volume.grid, draw.axis
    others = [a for a in range(3) if a != axis]
    shape = grid.volume_kji
    own = np.clip(np.arange(first, first + slices), 0, grid.shape_kji[axis] - 1)
    inside = torch.from_numpy(own == np.arange(first, first + slices)).to(places.device).view(-1, 1, 1)
    own = grid.own_slices(axis)[own]
    own[slices // 2] = draw.index
    strides = (shape[1] * shape[2], shape[2], 1)
    index = (torch.from_numpy(own).to(places.device) * strides[axis]).view(-1, 1, 1)
    for place, a in zip(places, others, strict=True):
        at = (place + 0.5) * float(grid.scale[a]) - 0.5
        inside = inside & (at > -0.5) & (at < grid.own_kji[a] - 0.5)
        index = index + (at.round().clamp(0, grid.own_kji[a] - 1).long() + grid.box[a].start) * strides[a]
    labels, weights = volume.targets.at(index)
    return labels, weights * inside
