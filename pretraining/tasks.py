"""Tasks to learn a network's start from: a few slices of some segments of a volume given, others asked.

Volumes are made once, on all cores, and lie on the device one behind the other; tasks are cut from them there, as the engine cuts its slices
(network/augmentation.py) and scales gray values (network/intensity.py).
"""

from __future__ import annotations

import math
import multiprocessing as mp
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import patients
import torch
import torch.nn.functional as F
from synthesize import Rng, grid, render, scene, usable_objects
from torch import Tensor

from sparseseg.network.unet import CONTEXT

BRAIN_PARTS = 5  # of each brain
OFTEN = {"synthetic": 0.5, "head": 0.3, "brain": 0.2}  # how often a task is from which kind of volume
GIVEN, ASKED = 6, 5  # slices of a task
MOST = 6  # segments of a task
CANVASES = ((96, 96), (128, 128), (160, 160), (80, 160), (160, 80))  # pixels; planes are zoomed to fit
POSITION_DROPOUT = 0.3
_ALL_AXES = 0.3  # share of the tasks with slices across all three axes
_STROKES = 0.25  # share of the tasks with labels in parts of the given slices only
_BRAIN_SIDES = (80, 150)  # voxels, of a part of a brain
_QUANTILES = 20_000  # pixels, about, that a task's gray values are scaled by


@dataclass(frozen=True)
class Volume:
    """image (K, J, I) float16; objects uint8, alike; which of them may be segments."""

    image: np.ndarray
    objects: np.ndarray
    usable: list[int]
    shown: list[list[np.ndarray]]  # for each axis, for each usable object: the slices that show it
    spacing_kji: tuple[float, float, float]
    kind: str  # one of OFTEN

    @property
    def relative(self) -> bool:
        """Whether the image's unit is its own range; else it is HU."""
        return self.kind != "head"


def _shown(objects: np.ndarray, usable: Sequence[int]) -> list[list[np.ndarray]]:
    found = []
    for axis in range(3):
        counts = np.stack([np.bincount(plane.ravel(), minlength=256) for plane in np.moveaxis(objects, axis, 0)])
        found.append([np.flatnonzero(counts[:, o]) for o in usable])
    return found


def synthetic(seed: int) -> Volume:
    rng = np.random.default_rng(seed)
    while True:
        shape, spacing = grid(rng)
        objects, wanted = scene(rng, shape, spacing)
        volume = _of(objects, wanted, render(rng, objects, spacing), spacing, "synthetic")
        if volume is not None:
            return volume


def brain(file: Path, seed: int) -> Volume | None:
    """A part of a label map of a brain, with made-up gray values."""
    rng = np.random.default_rng(seed)
    objects, wanted = patients.brain_part(rng, file, _BRAIN_SIDES)
    return _of(objects, wanted, render(rng, objects, (1.0, 1.0, 1.0)), (1.0, 1.0, 1.0), "brain")


def head(file: Path, believed: list[int]) -> Volume | None:
    image, labels, spacing = patients.head(file)
    return _of(labels, believed, image, spacing, "head")


def _of(objects: np.ndarray, wanted: Sequence[int], image: np.ndarray, spacing: tuple[float, float, float], kind: str) -> Volume | None:
    usable = usable_objects(objects, wanted)
    if not usable or objects.max() > 254:
        return None
    if kind != "head":
        low, high = np.percentile(image[::2, ::2, ::2], [1, 99])
        image = (image - low) / max(high - low, 1e-6)
    objects = objects.astype(np.uint8)
    return Volume(image.astype(np.float16), objects, usable, _shown(objects, usable), spacing, kind)


def _made(job: tuple) -> Volume | None:
    torch.set_num_threads(1)
    kind, *rest = job
    return {"synthetic": synthetic, "brain": brain, "head": head}[kind](*rest)


def make(seed: int, folder: Path | None, count: int, makers: int) -> list[Volume]:
    jobs: list[tuple] = [("synthetic", seed * 1_000_003 + n) for n in range(count)]
    if folder is not None:
        library = patients.Library.of(folder)
        jobs += [("head", file, labels) for file, labels in library.heads]
        jobs += [("brain", file, seed + 97 * n + m) for n, file in enumerate(library.brains) for m in range(BRAIN_PARTS)]
    with mp.get_context("spawn").Pool(makers) as pool:
        return [v for v in pool.imap(_made, jobs, chunksize=4) if v is not None]


@dataclass(frozen=True)
class Draw:
    """The numbers of one task: volume, class of each object (256,), and for each slice its axis, index, matrix (2, 2) from canvas pixels to voxels
    of the plane, and centre (2,) in voxels."""

    volume: int
    table: np.ndarray
    axes: np.ndarray
    slices: np.ndarray
    matrices: np.ndarray
    centres: np.ndarray


@dataclass(frozen=True)
class Cut:
    """Where the slices of a batch lie. T tasks, S slices; `rows and columns` are those of each slice's own plane.

    axes, slices: numpy (T, S); others: (T, S, 2), the axes of rows and columns; across: (T, S), how many slices there are; stride: (T, S), from one
    to the next in memory; places: (T, S, 2, j, i), of each pixel, in voxels; sides, steps: (T, S, 2, 1, 1), voxels along rows and columns, and from
    one to the next in memory; offset: (T, 1, 1, 1), of the volume.
    """

    axes: np.ndarray
    slices: np.ndarray
    others: np.ndarray
    across: np.ndarray
    stride: np.ndarray
    places: Tensor
    sides: Tensor
    steps: Tensor
    offset: Tensor

    @property
    def inside(self) -> Tensor:
        """Whether a pixel shows the volume, (T, S, j, i) bool."""
        return ((self.places > -0.5) & (self.places < self.sides - 0.5)).all(2)

    @property
    def clamped(self) -> Tensor:
        """Places, those outside at the border."""
        return torch.minimum(self.places.clamp_min(0), self.sides - 1)


class Tasks:
    """Volumes on the device, and tasks cut from them."""

    def __init__(self, volumes: Sequence[Volume], device: torch.device) -> None:
        self.volumes, self.device = volumes, device
        kinds = {kind: [n for n, v in enumerate(volumes) if v.kind == kind] for kind in OFTEN}
        self._kinds = [found for found in kinds.values() if found]
        often = np.array([OFTEN[kind] for kind, found in kinds.items() if found])
        self._often = often / often.sum()
        sizes = [v.image.size for v in volumes]
        self._offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._image = torch.cat([torch.from_numpy(v.image.ravel()) for v in volumes]).to(device)
        self._objects = torch.cat([torch.from_numpy(v.objects.ravel()) for v in volumes]).to(device)

    def batch(self, rng: Rng, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of so many tasks, all on one canvas: input (T, S, channels, j, i) float32, labels (T, S, j, i) int64, weights alike, float32; the first
        GIVEN of S slices are given."""
        canvas = CANVASES[int(rng.integers(len(CANVASES)))]
        return self.cut([self._draw(rng, canvas) for _ in range(count)], canvas, rng)

    def _draw(self, rng: Rng, canvas: tuple[int, int]) -> Draw:
        n = int(rng.choice(self._kinds[int(rng.choice(len(self._kinds), p=self._often))]))
        volume = self.volumes[n]
        picks = rng.permutation(len(volume.usable))[: int(rng.integers(1, MOST + 1))]
        table = np.zeros(256, np.int64)
        table[[volume.usable[p] for p in picks]] = np.arange(1, len(picks) + 1)
        shown = [np.unique(np.concatenate([volume.shown[axis][p] for p in picks])) for axis in range(3)]
        axes, slices = _slices(rng, volume, shown)
        return Draw(n, table, axes, slices, *_views(rng, volume, shown, axes, canvas))

    def cut(self, draws: Sequence[Draw], canvas: tuple[int, int], rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        """What `batch` says, of these draws."""
        cut = self._placed(draws, canvas)
        labels, inside = self._labels(cut, draws), cut.inside
        image = self._as_seen(self._looked_up(cut), labels, inside, draws, rng)
        weights = inside.float() * self._strokes(labels, rng)
        told = self._to(rng.random((len(draws), 1)) > POSITION_DROPOUT)
        orientation = F.one_hot(self._to(cut.axes, torch.int64), 3).float()[..., None, None].expand(-1, -1, -1, *canvas)
        return torch.cat([image, self._position(cut) * told[..., None, None, None], orientation], 2), labels, weights

    def _to(self, array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, dtype)

    def _placed(self, draws: Sequence[Draw], canvas: tuple[int, int]) -> Cut:
        tasks = np.arange(len(draws))[:, None, None]
        axes, slices = np.stack([d.axes for d in draws]), np.stack([d.slices for d in draws])
        shapes = np.stack([np.array(self.volumes[d.volume].objects.shape) for d in draws])
        strides = np.stack([shapes[:, 1] * shapes[:, 2], shapes[:, 2], np.ones_like(shapes[:, 0])], 1)
        others = np.array([[1, 2], [0, 2], [0, 1]])[axes]
        pixels = torch.stack(torch.meshgrid(*(torch.arange(n, device=self.device) - (n - 1) / 2 for n in canvas), indexing="ij"))
        matrices, centres = (self._to(np.stack(part)) for part in ([d.matrices for d in draws], [d.centres for d in draws]))
        return Cut(
            axes,
            slices,
            others,
            np.take_along_axis(shapes, axes, 1),
            np.take_along_axis(strides, axes, 1),
            torch.einsum("tsab,bji->tsaji", matrices, pixels) + centres[..., None, None],
            self._to(shapes[tasks, others])[..., None, None],
            self._to(strides[tasks, others], torch.int64)[..., None, None],
            self._to(self._offsets[[d.volume for d in draws]], torch.int64).view(-1, 1, 1, 1),
        )

    def _labels(self, cut: Cut, draws: Sequence[Draw]) -> Tensor:
        """At the nearest voxels, (T, S, j, i) int64."""
        slices = self._to(cut.slices * cut.stride, torch.int64)[..., None, None]
        objects = self._objects[cut.offset + slices + (cut.clamped.round().long() * cut.steps).sum(2)].long()
        table = self._to(np.stack([d.table for d in draws]), torch.int64)
        return torch.gather(table, 1, objects.flatten(1)).view_as(objects)

    def _looked_up(self, cut: Cut) -> Tensor:
        """Each slice and its neighbours, bilinear, (T, S, 2 CONTEXT + 1, j, i) float32; the border's value outside."""
        at = cut.clamped
        part, first = at - at.floor(), at.floor().long()
        second = torch.minimum(first + 1, cut.sides.long() - 1)
        seen = np.clip(cut.slices[..., None] + np.arange(-CONTEXT, CONTEXT + 1), 0, cut.across[..., None] - 1) * cut.stride[..., None]
        base = cut.offset[:, :, None] + self._to(seen, torch.int64)[..., None, None]
        total = torch.zeros((), device=self.device)
        for row, row_share in ((first[:, :, 0], 1 - part[:, :, 0]), (second[:, :, 0], part[:, :, 0])):
            for column, column_share in ((first[:, :, 1], 1 - part[:, :, 1]), (second[:, :, 1], part[:, :, 1])):
                index = row * cut.steps[:, :, 0] + column * cut.steps[:, :, 1]
                total = total + self._image[base + index[:, :, None]].float() * (row_share * column_share)[:, :, None]
        return total

    def _position(self, cut: Cut) -> Tensor:
        """Where each pixel lies in the volume, -1..1 along k, j, i, (T, S, 3, j, i)."""
        tasks, slots, _, *canvas = cut.places.shape
        position = torch.zeros(tasks, slots, 3, *canvas, device=self.device)
        deep = self._to(cut.slices * (2 / np.maximum(1, cut.across - 1)) - 1)[..., None, None].expand(-1, -1, *canvas)
        within = cut.places * (2 / (cut.sides - 1).clamp_min(1)) - 1
        position.scatter_(2, self._to(cut.others, torch.int64)[..., None, None].expand(-1, -1, -1, *canvas), within)
        return position.scatter_(2, self._to(cut.axes, torch.int64)[..., None, None, None].expand(-1, -1, 1, *canvas), deep[:, :, None])

    def _as_seen(self, image: Tensor, labels: Tensor, inside: Tensor, draws: Sequence[Draw], rng: Rng) -> Tensor:
        """Gray values as the engine's network sees them, now and then as their negative; each given slice a little different."""
        tasks, slots = labels.shape[:2]
        negative = self._to(rng.choice([-1.0, 1.0], (tasks, 1, 1, 1, 1), p=(0.2, 0.8)))
        centre, scale = self._scaling(image[:, :GIVEN, CONTEXT].flatten(1), ((labels > 0) & inside)[:, :GIVEN].flatten(1), draws)
        scale = scale * self._to(np.exp(rng.normal(0, 0.2, tasks)))
        image = torch.asinh((image - centre.view(-1, 1, 1, 1, 1)) / scale.view(-1, 1, 1, 1, 1)) * negative
        changes = np.exp(rng.normal(0, 0.1, (tasks, slots))), rng.normal(0, 0.1, (tasks, slots)), rng.uniform(0, 0.1, (tasks, slots))
        gain, shift, noise = (self._to(change)[..., None, None, None] for change in changes)
        changed = image * gain + shift + noise * torch.randn_like(image)
        return torch.cat([changed[:, :GIVEN], image[:, GIVEN:]], 1)

    def _scaling(self, values: Tensor, known: Tensor, draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        """Median and spread of the segments' gray values, (T,) both; of all where there are none. values, known: (T, n)."""
        every = max(1, values.shape[1] // _QUANTILES)
        values, known = values[:, ::every], known[:, ::every]
        counted = torch.where(known | ~known.any(1, keepdim=True), values, torch.nan)
        quarter, centre, three_quarters = torch.nanquantile(counted, torch.tensor([0.25, 0.5, 0.75], device=self.device), dim=1)
        floor = torch.tensor([0.02 if self.volumes[d.volume].relative else 10.0 for d in draws], device=self.device)
        return centre, torch.maximum((three_quarters - quarter) / 1.35, floor)

    def _strokes(self, labels: Tensor, rng: Rng) -> Tensor:
        """1 where there is a label: everywhere, and in some tasks only in parts of the given slices."""
        tasks, slots, j, i = labels.shape
        kept = torch.ones(tasks, slots, j, i, device=self.device)
        few = torch.from_numpy(rng.random(tasks) < _STROKES).to(self.device)
        field = torch.randn(tasks, GIVEN, max(2, j // 8), max(2, i // 8), device=self.device)
        field = F.interpolate(field, size=(j, i), mode="bilinear", align_corners=False)
        kept[:, :GIVEN] = torch.where(few.view(-1, 1, 1, 1) & (field < 0.6), 0.0, 1.0)
        return kept


def _slices(rng: Rng, volume: Volume, shown: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Axes and indices of a task's slices, (GIVEN + ASKED,) both: the given ones evenly over the segments, a little jittered, fewer of them several
    times; the asked ones anywhere. shown: for each axis, the slices that show a segment."""
    spacing = volume.spacing_kji
    thick = int(np.argmax(spacing)) if max(spacing) > 1.2 * min(spacing) else int(rng.integers(3))
    if rng.random() < _ALL_AXES:
        axes = np.concatenate([np.resize(rng.permutation(3), GIVEN), rng.integers(3, size=ASKED)])
        given = int(rng.choice([1, 2]))
    else:
        axes, given = np.full(GIVEN + ASKED, thick), int(rng.choice([2, 3, 3, 4, 5, 6]))
    slices = np.zeros(GIVEN + ASKED, np.int64)
    for axis in set(axes.tolist()):
        where, size = shown[axis], volume.objects.shape[axis]
        low, high = int(where[0]), int(where[-1])
        even = np.clip(np.round(low + (np.arange(given) + 0.5 + rng.uniform(-0.3, 0.3, given)) * (high - low) / given), low, high)
        first, last = np.flatnonzero(axes[:GIVEN] == axis), GIVEN + np.flatnonzero(axes[GIVEN:] == axis)
        slices[first] = np.resize(even, len(first))
        slices[last] = np.clip(where[rng.integers(len(where), size=len(last))] + rng.integers(-1, 2, len(last)), 0, size - 1)
    return axes, slices


def _views(rng: Rng, volume: Volume, shown: Sequence[np.ndarray], axes: np.ndarray, canvas: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Matrices and centres of a task's slices. One zoom and turn for all, and small ones for each given slice."""
    margin, turn = math.exp(rng.uniform(math.log(1.2), math.log(3))), rng.normal(0, 0.3)  # of the window around the segments
    flips = rng.choice([-1.0, 1.0], 3)
    bounds = np.array([(where[0], where[-1]) for where in shown])
    matrices, centres = [], []
    for s, axis in enumerate(axes):
        others = [a for a in range(3) if a != axis]
        spacing, shape = np.array(volume.spacing_kji)[others], np.array(volume.objects.shape)[others]
        low, high = bounds[others].T
        own_turn, own_zoom = rng.normal(0, (0.1, 0.08), 2) if s < GIVEN else (0.0, 0.0)
        window = max((high - low + 1) * spacing * margin / canvas)
        edge = min(window, 1.1 * min(shape * spacing / canvas)) * math.exp(own_zoom)  # of a pixel, mm
        edges = np.maximum(edge, 0.6 * spacing)
        angle = (turn + own_turn) / max(1.0, float(edges.max() / edges.min()))
        rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        matrices.append((rotation * flips[others][None, :]) * edges[None, :] / spacing[:, None])
        half = np.array(canvas) * edges / spacing / 2
        middle = (low + high) / 2 + rng.normal(0, 0.15, 2) * half
        centres.append(np.where(2 * half < shape, np.clip(middle, half - 0.5, np.maximum(half, shape - half) - 0.5), (shape - 1) / 2))
    return np.array(matrices), np.array(centres)
