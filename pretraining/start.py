"""Train what the network knows before it has seen a patient: see sparseseg/network/start.py.

usage: start.py [--seed 1] [--steps N] [--minutes M] [--patients FOLDER] [--out start.pt] [--device auto] [--tasks 16] [--makers N]

A task is a volume, synthetic or of a patient, with a few slices of up to six of its segments given and others asked. The network's body reads all of
them, a ridge regression on its features of the given ones is the head, and the loss is that of the engine on the asked ones. So the body learns
features from which a few slices tell the rest. No case of docs/accuracy.md is among the volumes. The log says the mean Dice on tasks of volumes
that are never learned from. Volumes are made once, on all cores; tasks are cut from them on the device.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing as mp
import os
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "SparseSegSlicer"), str(ROOT / "pretraining"), str(ROOT / "Testing")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from patients import Library  # noqa: E402
from synthesize import Rng, grid, render, scene  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from sparseseg.network.loss import soft_dice_loss, weighted_cross_entropy  # noqa: E402
from sparseseg.network.start import Start, moments, solve_head  # noqa: E402
from sparseseg.network.unet import CONTEXT, UNet3d, plan_network  # noqa: E402

STEPS, TASKS, WIDTH, DEPTH = 2100, 16, 16, 4
SYNTHETIC, BRAIN_PARTS, HELD_OUT = 900, 5, 0.06  # volumes; of each brain; share of all that is only asked about
OFTEN = {"synthetic": 0.5, "head": 0.3, "brain": 0.2}  # how often a task is from which kind of volume
GIVEN, ASKED = 6, 5  # slices of a task
MOST = 6  # segments of a task
CANVASES = ((96, 96), (128, 128), (160, 160), (80, 160), (160, 80))  # pixels; planes are zoomed to fit
POSITION_DROPOUT = 0.3
_EMA = 0.998
_AIR = -1000.0
_NEVER = -1e4  # the logit of a class that the given slices do not show


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
    with np.load(file) as data:
        labels = data["labels"]
    sides = [min(int(rng.integers(80, 150)), n) for n in labels.shape]
    corner = [int(rng.integers(n - s + 1)) for n, s in zip(labels.shape, sides, strict=True)]
    part = labels[tuple(slice(c, c + s) for c, s in zip(corner, sides, strict=True))]
    values, objects = np.unique(part, return_inverse=True)
    objects = objects.reshape(part.shape).astype(np.uint8)
    wanted = [n for n in range(len(values)) if values[n] > 0]
    return _of(objects, wanted, render(rng, objects, (1.0, 1.0, 1.0)), (1.0, 1.0, 1.0), "brain")


def head(file: Path, believed: list[int]) -> Volume | None:
    with np.load(file) as data:
        image, labels, spacing = data["image"], data["labels"], data["spacing_kji_mm"]
    return _of(labels, believed, np.maximum(image, _AIR).astype(np.float32), spacing, "head")


def _of(objects: np.ndarray, wanted: Sequence[int], image: np.ndarray, spacing: Sequence[float], kind: str) -> Volume | None:
    sizes = np.bincount(objects.ravel(), minlength=256)
    usable = [int(o) for o in wanted if 150 < sizes[o] < 0.5 * objects.size]
    if not usable or objects.max() > 254:
        return None
    if kind != "head":
        low, high = np.percentile(image[::2, ::2, ::2], [1, 99])
        image = (image - low) / max(high - low, 1e-6)
    k, j, i = (float(s) for s in spacing)
    objects = objects.astype(np.uint8)
    return Volume(image.astype(np.float16), objects, usable, _shown(objects, usable), (k, j, i), kind)


def _made(job: tuple) -> Volume | None:
    torch.set_num_threads(1)
    kind, *rest = job
    return {"synthetic": synthetic, "brain": brain, "head": head}[kind](*rest)


def make(seed: int, patients: Path | None, count: int, makers: int) -> list[Volume]:
    jobs: list[tuple] = [("synthetic", seed * 1_000_003 + n) for n in range(count)]
    if patients is not None:
        library = Library.of(patients)
        jobs += [("head", file, labels) for file, labels in library.heads]
        jobs += [("brain", file, seed + 97 * n + m) for n, file in enumerate(library.brains) for m in range(BRAIN_PARTS)]
    with mp.get_context("spawn").Pool(makers) as pool:
        return [v for v in pool.imap(_made, jobs, chunksize=4) if v is not None]


class Tasks:
    """Volumes on the device, one behind the other, and tasks cut from them."""

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
        return self._cut([self._draw(rng, canvas) for _ in range(count)], canvas, rng)

    def _draw(self, rng: Rng, canvas: tuple[int, int]) -> dict[str, np.ndarray]:
        """The numbers of one task."""
        kinds = self._kinds
        n = int(rng.choice(kinds[int(rng.choice(len(kinds), p=self._often))]))
        volume = self.volumes[n]
        shown = volume.shown
        picks = rng.permutation(len(volume.usable))[: int(rng.integers(1, MOST + 1))]
        table = np.zeros(256, np.int64)
        table[[volume.usable[p] for p in picks]] = np.arange(1, len(picks) + 1)
        thick = int(np.argmax(volume.spacing_kji)) if max(volume.spacing_kji) > 1.2 * min(volume.spacing_kji) else int(rng.integers(3))
        if rng.random() < 0.3:  # slices of all orientations
            axes = np.concatenate([np.resize(rng.permutation(3), GIVEN), rng.integers(3, size=ASKED)])
            given = int(rng.choice([1, 2]))
        else:
            axes, given = np.full(GIVEN + ASKED, thick), int(rng.choice([2, 3, 3, 4, 5, 6]))
        slices = np.zeros(GIVEN + ASKED, np.int64)
        for axis in set(axes.tolist()):
            where = np.unique(np.concatenate([shown[axis][p] for p in picks]))
            low, high = int(where[0]), int(where[-1])
            even = np.clip(np.round(low + (np.arange(given) + 0.5 + rng.uniform(-0.3, 0.3, given)) * (high - low) / given), low, high)
            first = np.flatnonzero(axes[:GIVEN] == axis)
            slices[first] = np.resize(even, len(first))
            last = GIVEN + np.flatnonzero(axes[GIVEN:] == axis)
            slices[last] = np.clip(
                where[rng.integers(len(where), size=len(last))] + rng.integers(-1, 2, len(last)), 0, volume.objects.shape[axis] - 1
            )
        matrices, centres = self._views(rng, volume, shown, picks, axes, canvas)
        return {"n": np.array(n), "table": table, "axes": axes, "slices": slices, "matrices": matrices, "centres": centres}

    def _views(self, rng: Rng, volume: Volume, shown, picks: np.ndarray, axes: np.ndarray, canvas: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """For each slice: matrix (2, 2), canvas pixels -> voxels, and the centre in voxels. One zoom and turn a task, small ones a given slice."""
        margin, turn = math.exp(rng.uniform(math.log(1.2), math.log(3))), rng.normal(0, 0.3)  # of the window around the segments
        flips = rng.choice([-1.0, 1.0], 3)
        bounds = []
        for axis in range(3):
            where = np.concatenate([shown[axis][p] for p in picks])
            bounds.append((where.min(), where.max()))
        matrices, centres = [], []
        for s, axis in enumerate(axes):
            others = [a for a in range(3) if a != axis]
            spacing = np.array([volume.spacing_kji[a] for a in others])
            shape = np.array([volume.objects.shape[a] for a in others])
            own = rng.normal(0, (0.1, 0.08), 2) if s < GIVEN else np.zeros(2)
            low, high = (np.array([bounds[a][side] for a in others]) for side in (0, 1))
            window = max((high - low + 1) * spacing * margin / canvas)
            edge = min(window, 1.1 * min(shape * spacing / canvas)) * math.exp(own[1])  # of a pixel, mm
            edges = np.maximum(edge, 0.6 * spacing)
            angle = (turn + own[0]) / max(1.0, float(edges.max() / edges.min()))
            rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            matrices.append((rotation * flips[others][None, :]) * edges[None, :] / spacing[:, None])
            half = np.array(canvas) * edges / spacing / 2
            middle = (low + high) / 2 + rng.normal(0, 0.15, 2) * half
            centres.append(np.where(2 * half < shape, np.clip(middle, half - 0.5, np.maximum(half, shape - half) - 0.5), (shape - 1) / 2))
        return np.array(matrices), np.array(centres)

    def _cut(self, draws: list[dict[str, np.ndarray]], canvas: tuple[int, int], rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
        device, slots, tasks = self.device, GIVEN + ASKED, len(draws)
        axes = np.stack([d["axes"] for d in draws])
        shapes = np.stack([np.array(self.volumes[int(d["n"])].objects.shape) for d in draws])
        strides = np.stack([shapes[:, 1] * shapes[:, 2], shapes[:, 2], np.ones(tasks, np.int64)], 1)
        others = np.array([[1, 2], [0, 2], [0, 1]])[axes]  # (T, S, 2)
        across = np.take_along_axis(shapes, axes, 1)

        def to(array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, dtype)

        pixels = torch.stack(torch.meshgrid(*(torch.arange(n, device=device) - (n - 1) / 2 for n in canvas), indexing="ij"))
        matrices = to(np.stack([d["matrices"] for d in draws]))
        places = torch.einsum("tsab,bji->tsaji", matrices, pixels) + to(np.stack([d["centres"] for d in draws]))[..., None, None]
        sides = to(shapes[np.arange(tasks)[:, None, None], others])[..., None, None]  # (T, S, 2, 1, 1)
        steps = to(strides[np.arange(tasks)[:, None, None], others], torch.int64)[..., None, None]
        inside = ((places > -0.5) & (places < sides - 0.5)).all(2)
        offset = to(self._offsets[[int(d["n"]) for d in draws]], torch.int64).view(-1, 1, 1, 1)
        chosen, stride = np.stack([d["slices"] for d in draws]), np.take_along_axis(strides, axes, 1)
        nearest = torch.minimum(places.clamp_min(0), sides - 1).round().long()
        own = offset + to(chosen * stride, torch.int64)[..., None, None] + (nearest * steps).sum(2)
        objects = self._objects[own].long()
        table = to(np.stack([d["table"] for d in draws]), torch.int64)
        labels = torch.gather(table, 1, objects.flatten(1)).view_as(objects)
        image = self._looked_up(places, sides, steps, offset, chosen, across, stride)
        image = self._as_seen(image, labels, inside, draws, rng)
        weights = inside.float() * self._strokes(labels, rng)
        position = torch.zeros(tasks, slots, 3, *canvas, device=device)
        told = to(rng.random((tasks, 1)) > POSITION_DROPOUT)
        relative = places * (2 / (sides - 1).clamp_min(1)) - 1
        deep = to(chosen * (2 / np.maximum(1, across - 1)) - 1)[..., None, None].expand(-1, -1, *canvas)
        position.scatter_(2, to(others, torch.int64)[..., None, None].expand(-1, -1, -1, *canvas), relative)
        position.scatter_(2, to(axes, torch.int64)[..., None, None, None].expand(-1, -1, 1, *canvas), deep[:, :, None])
        position *= told[..., None, None, None]
        orientation = F.one_hot(to(axes, torch.int64), 3).float()[..., None, None].expand(-1, -1, -1, *canvas)
        return torch.cat([image, position, orientation], 2), labels, weights

    def _looked_up(self, places: Tensor, sides: Tensor, steps: Tensor, offset: Tensor, chosen: np.ndarray, across: np.ndarray, stride: np.ndarray):
        """Bilinear, (T, S, 2 CONTEXT + 1, j, i) float32; the border's value outside."""
        at = torch.minimum(places.clamp_min(0), sides - 1)
        low = at.floor()
        part = at - low
        first = low.long()
        second = torch.minimum(first + 1, sides.long() - 1)
        seen = np.clip(chosen[..., None] + np.arange(-CONTEXT, CONTEXT + 1), 0, across[..., None] - 1) * stride[..., None]
        base = offset[:, :, None] + torch.from_numpy(seen).to(self.device)[..., None, None]
        total = torch.zeros((), device=self.device)
        for r in (0, 1):
            for c in (0, 1):
                index = (first if r == 0 else second)[:, :, 0] * steps[:, :, 0] + (first if c == 0 else second)[:, :, 1] * steps[:, :, 1]
                weight = (part[:, :, 0] if r else 1 - part[:, :, 0]) * (part[:, :, 1] if c else 1 - part[:, :, 1])
                total = total + self._image[base + index[:, :, None]].float() * weight[:, :, None]
        return total

    def _as_seen(self, image: Tensor, labels: Tensor, inside: Tensor, draws: list[dict[str, np.ndarray]], rng: Rng) -> Tensor:
        """Gray values as the engine's network sees them (network/intensity.py), now and then as their negative; each slice a little different."""
        tasks, slots = labels.shape[:2]
        device = self.device
        negative = torch.from_numpy(rng.choice([-1.0, 1.0], (tasks, 1, 1, 1, 1), p=(0.2, 0.8))).to(device, torch.float32)
        values = image[:, :GIVEN, CONTEXT].flatten(1)
        known = ((labels > 0) & inside)[:, :GIVEN].flatten(1)
        known = known | ~known.any(1, keepdim=True)
        every = max(1, values.shape[1] // 20_000)
        sampled = torch.where(known[:, ::every], values[:, ::every], torch.nan)
        sampled = torch.where(known[:, ::every].any(1, keepdim=True), sampled, values[:, ::every])
        quarter, centre, three = torch.nanquantile(sampled, torch.tensor([0.25, 0.5, 0.75], device=device), dim=1)
        floor = torch.tensor([0.02 if self.volumes[int(d["n"])].relative else 10.0 for d in draws], device=device)
        scale = torch.maximum((three - quarter) / 1.35, floor) * torch.from_numpy(np.exp(rng.normal(0, 0.2, tasks))).to(device, torch.float32)
        image = torch.asinh((image - centre.view(-1, 1, 1, 1, 1)) / scale.view(-1, 1, 1, 1, 1)) * negative
        gain, shift, noise = np.exp(rng.normal(0, 0.1, (tasks, slots))), rng.normal(0, 0.1, (tasks, slots)), rng.uniform(0, 0.1, (tasks, slots))
        gain, shift, noise = (torch.from_numpy(a).to(device, torch.float32)[..., None, None, None] for a in (gain, shift, noise))
        changed = image * gain + shift + noise * torch.randn_like(image)
        return torch.cat([changed[:, :GIVEN], image[:, GIVEN:]], 1)

    def _strokes(self, labels: Tensor, rng: Rng) -> Tensor:
        """1 where there is a label: everywhere, and in one task of four only in part of the given slices."""
        tasks, slots, j, i = labels.shape
        kept = torch.ones(tasks, slots, j, i, device=self.device)
        few = torch.from_numpy(rng.random(tasks) < 0.25).to(self.device)
        field = torch.randn(tasks, GIVEN, max(2, j // 8), max(2, i // 8), device=self.device)
        field = F.interpolate(field, size=(j, i), mode="bilinear", align_corners=False)
        kept[:, :GIVEN] = torch.where(few.view(-1, 1, 1, 1) & (field < 0.6), 0.0, 1.0)
        return kept


class Learner(nn.Module):
    """The body, and the two numbers that fix the head."""

    def __init__(self) -> None:
        super().__init__()
        self.network = UNet3d(plan_network(1, (192, 192), MOST + 1, WIDTH, DEPTH))
        self.log_ridge, self.log_sharpness = nn.Parameter(torch.tensor(math.log(1e-3))), nn.Parameter(torch.tensor(math.log(8.0)))

    def forward(self, x: Tensor, labels: Tensor, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Logits of the asked slices, (T * ASKED, C, 1, j, i)."""
        tasks, slots, channels, j, i = x.shape
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            features = self.network.features(x.view(tasks * slots, channels, 1, j, i))
        features = features.float().view(tasks, slots, -1, j * i).transpose(2, 3)  # (T, S, n, d)
        given, asked = features[:, :GIVEN].flatten(1, 2), features[:, GIVEN:].flatten(1, 2)
        sums = moments(given, labels[:, :GIVEN].flatten(1), weights[:, :GIVEN].flatten(1), MOST + 1)
        heads = solve_head(sums, self.log_ridge.exp())
        said = self.log_sharpness.exp() * (asked @ heads[..., :-1].transpose(1, 2) + heads[..., None, :, -1])
        missing = sums[..., -1, -1] <= 0  # of the given slices
        said = said.masked_fill(missing[:, None], _NEVER)
        return said.view(tasks, ASKED, j, i, -1).permute(0, 1, 4, 2, 3).flatten(0, 1).unsqueeze(2)


def loss_of(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice loss of the asked slices; voxels of classes that the given ones do not show are left out."""
    asked, counts = (t[:, GIVEN:].flatten(0, 1).unsqueeze(1) for t in (labels, weights))
    counts = counts * (logits.detach().gather(1, asked.unsqueeze(1)).squeeze(1) > _NEVER / 2)
    by_task = zip(*(t.split(ASKED) for t in (logits, asked, counts)), strict=True)
    dice = torch.stack([soft_dice_loss(*task) for task in by_task])
    return weighted_cross_entropy(logits, asked, counts), dice.mean()


@torch.no_grad()
def dice_of(logits: Tensor, labels: Tensor, weights: Tensor) -> list[float]:
    """Of each task, the mean Dice of the segments that are asked for."""
    found = []
    asked, counts = (t[:, GIVEN:].flatten(0, 1) for t in (labels, weights))
    for said, truth, w in zip(*(t.split(ASKED) for t in (logits.argmax(1)[:, 0], asked, counts)), strict=True):
        values = []
        for c in truth.unique().tolist():
            a, b = (said == c) & (w > 0), (truth == c) & (w > 0)
            if c and b.any():
                values.append(float(2 * (a & b).sum() / (a.sum() + b.sum())))
        if values:
            found.append(sum(values) / len(values))
    return found


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def learn(options: argparse.Namespace) -> None:
    begun = time.monotonic()
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True  # a few canvases, over and over
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    volumes = make(options.seed, options.patients, options.volumes, options.makers)
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    order = rng.permutation(len(volumes))
    held = max(1, round(HELD_OUT * len(volumes)))
    tasks, exam = (Tasks([volumes[n] for n in part], device) for part in (order[held:], order[:held]))
    say(f"{len(volumes)} volumes, {held} of them for questions only, after {time.monotonic() - begun:.0f} s")
    learner = Learner().to(device)
    average = deepcopy(learner).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=options.rate, weight_decay=1e-4)
    start, recent = time.monotonic(), []
    for step in range(options.steps):
        progress = max(step / options.steps, (time.monotonic() - begun) / (60 * options.minutes))
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        x, labels, weights = tasks.batch(rng, options.tasks)
        cross_entropy, dice = loss_of(learner(x, labels, weights, dtype), labels, weights)
        optimizer.zero_grad(set_to_none=True)
        (cross_entropy + dice).backward()
        norm = torch.nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
        if torch.isfinite(norm):  # else a task without anything to learn from
            optimizer.step()
        decay = min(_EMA, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.parameters()), list(learner.parameters()), 1 - decay)
        recent.append(torch.stack([cross_entropy.detach(), dice.detach()]))
        if (step + 1) % options.log == 0:
            ce, dl = torch.stack(recent).nanmean(0).tolist()
            recent.clear()
            right = examined(average, exam, options, dtype)
            say(
                f"step {step + 1}, {time.monotonic() - start:.0f} s: cross-entropy {ce:.3f}, Dice loss {dl:.3f}; never learned from: Dice {right:.3f}"
            )
            save(average, options.out)
    save(average, options.out)


def examined(learner: Learner, exam: Tasks, options: argparse.Namespace, dtype: torch.dtype) -> float:
    """Mean Dice of the same tasks each time."""
    rng = np.random.default_rng(7)
    found: list[float] = []
    with torch.no_grad():
        for _ in range(options.exams):
            x, labels, weights = exam.batch(rng, options.tasks)
            found += dice_of(learner(x, labels, weights, dtype), labels, weights)
    return float(np.mean(found))


def save(learner: Learner, path: Path) -> None:
    weights = {name: t.detach().cpu() for name, t in learner.network.state_dict().items() if not name.startswith("head.")}
    Start(learner.network.plan, weights, learner.log_ridge.exp().item(), learner.log_sharpness.exp().item()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then, and lower the learning rate so that it ends there")
    parser.add_argument("--patients", type=Path)
    parser.add_argument("--out", type=Path, default=Path("start.pt"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tasks", type=int, default=TASKS, help="in a step")
    parser.add_argument("--volumes", type=int, default=SYNTHETIC)
    parser.add_argument("--makers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--log", type=int, default=250, help="steps between two lines of the log")
    parser.add_argument("--exams", type=int, default=12, help="batches of tasks that a line of the log is about")
    options = parser.parse_args()
    learn(options)


if __name__ == "__main__":
    main()
