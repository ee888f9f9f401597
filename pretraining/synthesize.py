"""Synthetic volumes with dense truth and a simulated sparse annotation, for training the refiner.

In the spirit of SynthSeg (Billot et al., Medical Image Analysis 2023) and SynthMorph (Hoffmann et al., IEEE TMI 2022): random shapes, random
contrasts, so that a network learns to read annotation and image, not anatomy. Volumes are (K, J, I); lengths are in edges of the shortest voxel.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "SparseSegSlicer"), str(ROOT / "Testing")]

import hands  # noqa: E402
from sparseseg.contract.belief import Belief  # noqa: E402
from sparseseg.prior.grown import compute_prior  # noqa: E402
from sparseseg.prior.levels import blur  # noqa: E402

Rng = np.random.Generator
ENLARGED, _LARGE = 0.12, 5_000_000  # share of the volumes that are seen at twice the resolution, where that gives so many voxels at most
EXACT, MISTAKES = 0.4, 0.15  # shares of the annotations; mistakes of those with complete slices that are not exact


@dataclass(frozen=True)
class Sample:
    """image (K, J, I) float16; truth uint8, 0 background, c segment c; labels alike, not always right, where labelled, bool; what the prior makes of
    them."""

    image: np.ndarray
    truth: np.ndarray
    labels: np.ndarray
    labelled: np.ndarray
    prior: Belief
    spacing_kji: tuple[float, float, float]


# --- fields and places


def noise(rng: Rng, shape: Sequence[int], spacing: Sequence[float], wavelength: float) -> np.ndarray:
    """A smooth random field of about unit variance, (K, J, I) float32."""
    coarse = [max(2, round(n * s / wavelength) + 2) for n, s in zip(shape, spacing, strict=True)]
    if np.prod(coarse) > np.prod(shape):
        return rng.standard_normal(tuple(shape), dtype=np.float32)
    small = torch.from_numpy(rng.standard_normal((1, 1, *coarse), dtype=np.float32))
    return F.interpolate(small, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0].numpy() * np.float32(1.4)


def places(rng: Rng, shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """Where each voxel lies, (3, K, J, I) float32, warped at random: straight shapes become crooked."""
    axes = [np.arange(n, dtype=np.float32) * np.float32(s) for n, s in zip(shape, spacing, strict=True)]
    where = np.stack(np.meshgrid(*axes, indexing="ij"))
    for wavelength in (rng.uniform(20, 60), rng.uniform(8, 20)):
        strength = np.float32(wavelength * rng.uniform(0, 0.22))
        for axis in range(3):
            where[axis] += strength * noise(rng, shape, spacing, wavelength)
    return where


# --- shapes, each (K, J, I) bool


def ellipsoid(rng: Rng, where: np.ndarray, extent: np.ndarray, size: float) -> np.ndarray:
    """Any directions; rounded boxes at times, bumps at times."""
    centre = extent * rng.uniform(0.1, 0.9, 3)
    radii = size * np.exp(rng.uniform(-0.5, 0.5, 3))
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0] if rng.random() < 0.7 else np.eye(3)
    matrix = (turn / radii[:, None]).astype(np.float32)
    local = np.einsum("ab,bkji->akji", matrix, where - centre.astype(np.float32).reshape(3, 1, 1, 1))
    if rng.random() < 0.2:
        return (local**4).sum(0) < 1
    bumps = rng.uniform(0, 0.6) * _bumps(rng, local.shape[1:], extent, size * rng.uniform(0.4, 1.5))
    return (local**2).sum(0) + bumps < 1


def _bumps(rng: Rng, shape: Sequence[int], extent: np.ndarray, wavelength: float) -> np.ndarray:
    return noise(rng, shape, extent / np.array(shape), max(3.0, wavelength))


def tube(rng: Rng, where: np.ndarray, extent: np.ndarray, radius: float) -> np.ndarray:
    """A vessel across the whole volume along one axis (mostly the longest), or part of it, winding a little, its width changing."""
    axis = int(extent.argmax()) if rng.random() < 0.75 else int(rng.integers(3))
    others = [a for a in range(3) if a != axis]
    t = where[axis] / np.float32(extent[axis])
    squared = np.zeros(t.shape, np.float32)
    for a in others:
        middle = np.full(t.shape, extent[a] * rng.uniform(0.2, 0.8), np.float32)
        for turns in (0.5, 1.0, 2.0):
            swing = extent[a] * rng.uniform(0, 0.18) / turns
            middle += np.float32(swing) * np.sin(np.float32(2 * np.pi * turns) * t + np.float32(rng.uniform(0, 6.3)))
        squared += (where[a] - middle) ** 2
    width = radius * (1 + rng.uniform(0, 0.4) * np.sin(2 * np.pi * rng.uniform(0.3, 2) * t + rng.uniform(0, 6.3)))
    inside = squared < width**2
    if rng.random() < 0.4:
        first, last = np.sort(rng.uniform(0, 1, 2))
        inside &= (t > min(first, 0.6)) & (t < max(last, min(first, 0.6) + 0.3))
    return inside


def winding(rng: Rng, shape: Sequence[int], spacing: Sequence[float], extent: np.ndarray, radius: float) -> np.ndarray:
    """A tube along a smooth random walk, like bowel or an arched vessel."""
    knots = extent * rng.uniform(0.1, 0.9, (int(rng.integers(3, 7)), 3))
    curve = F.interpolate(torch.from_numpy(knots.T[None].copy()), size=240, mode="linear", align_corners=True)
    curve = F.avg_pool1d(F.pad(curve, (20, 20), mode="replicate"), 41, 1)[0].numpy().T
    seeds = np.zeros(tuple(shape), np.uint8)
    at = np.clip(np.round(curve / np.array(spacing)).astype(int), 0, np.array(shape) - 1)
    seeds[tuple(at.T)] = 1
    return distance(seeds > 0, spacing) < radius


def sheet(rng: Rng, shape: Sequence[int], spacing: Sequence[float], inside: np.ndarray, thickness: float) -> np.ndarray:
    """A folded layer within a shape, like cortex."""
    wavelength = rng.uniform(14, 40)
    return inside & (np.abs(noise(rng, shape, spacing, wavelength)) < thickness / wavelength * 3)


def parcels(rng: Rng, where: np.ndarray, extent: np.ndarray, inside: np.ndarray, count: int) -> np.ndarray:
    """A whole divided among `count` neighbours: 1..count inside, 0 outside, uint8."""
    centres = np.argwhere(inside)
    if not len(centres):
        return np.zeros(inside.shape, np.uint8)
    picks = centres[rng.integers(len(centres), size=count)]
    bias = rng.uniform(0, 0.3 * float(extent.min()), count)
    nearest, best = np.zeros(inside.shape, np.uint8), np.full(inside.shape, np.inf, np.float32)
    for n, (k, j, i) in enumerate(picks):
        far = np.sqrt(((where - where[:, k, j, i].reshape(3, 1, 1, 1)) ** 2).sum(0)) + np.float32(bias[n])
        nearest[far < best] = n + 1
        np.minimum(best, far, out=best)
    return nearest * inside


def distance(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """To the mask, outside of it positive; any dimension."""
    volume = sitk.GetImageFromArray(mask.astype(np.uint8))
    volume.SetSpacing([float(s) for s in spacing[::-1]])
    return sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(volume, insideIsPositive=False, squaredDistance=False, useImageSpacing=True))


# --- scenes


def grid(rng: Rng) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """A shape and a spacing: cubes, long narrow volumes, stacks of thick slices."""
    kind = rng.random()
    if kind < 0.3:
        thick = float(np.exp(rng.uniform(np.log(1.2), np.log(5))))
        shape = [int(rng.integers(16, 44)), int(rng.integers(64, 120)), int(rng.integers(64, 120))]
        spacing = [thick, 1.0, 1.0]
    elif kind < 0.6:
        shape, spacing = [int(rng.integers(90, 170)), int(rng.integers(40, 60)), int(rng.integers(40, 60))], [1.0, 1.0, 1.0]
    else:
        shape, spacing = [int(n) for n in rng.integers(48, 92, 3)], [1.0, 1.0, 1.0]
    order = np.arange(3) if kind < 0.6 and rng.random() < 0.7 else rng.permutation(3)
    shape, spacing = [shape[a] for a in order], [spacing[a] for a in order]
    return (shape[0], shape[1], shape[2]), (spacing[0], spacing[1], spacing[2])


def scene(rng: Rng, shape: Sequence[int], spacing: Sequence[float]) -> tuple[np.ndarray, list[int]]:
    """Objects on materials: a map of object numbers (K, J, I) uint8, and those that may be segmented."""
    where, extent = places(rng, shape, spacing), np.array(shape) * np.array(spacing)
    objects = np.argmax([noise(rng, shape, spacing, rng.uniform(15, 60)) for _ in range(rng.integers(1, 5))], axis=0).astype(np.uint8)
    count = int(objects.max()) + 1
    if rng.random() < 0.5:  # air around a body
        body = (((where - extent.reshape(3, 1, 1, 1) / 2) / (extent.reshape(3, 1, 1, 1) * rng.uniform(0.45, 0.8, (3, 1, 1, 1)))) ** 2).sum(0) < 1
        objects[~body] = count
        count += 1
    wanted: list[int] = []
    blobs = 0.25 if max(extent) > 1.8 * min(extent) and rng.random() < 0.6 else 0.6  # long narrow volumes are mostly about vessels
    if rng.random() < 0.35:
        count = _add_parcels(rng, objects, where, shape, spacing, count, wanted)
    for _ in range(int(rng.integers(1, 9))):
        mask = _shape(rng, where, extent, shape, spacing, blobs)
        objects[mask] = count
        wanted.append(count)
        count += 1
        if rng.random() < 0.25:  # one within the other, or around it
            core = distance(~mask, spacing) > rng.uniform(1.5, 5)
            objects[core] = count
            wanted.append(count)
            count += 1
    return objects, wanted


def _add_parcels(rng: Rng, objects: np.ndarray, where: np.ndarray, shape, spacing, count: int, wanted: list[int]) -> int:
    extent = np.array(shape) * np.array(spacing)
    whole = ellipsoid(rng, where, extent, float(extent.min()) * rng.uniform(0.3, 0.7))
    if rng.random() < 0.35:
        whole = sheet(rng, shape, spacing, whole, rng.uniform(3, 8))
    number = int(rng.integers(2, 16))
    map_ = parcels(rng, where, extent, whole, number)
    np.copyto(objects, map_ + np.uint8(count - 1), where=map_ > 0)
    wanted.extend(range(count, count + number))
    return count + number


def _shape(rng: Rng, where: np.ndarray, extent: np.ndarray, shape: Sequence[int], spacing: Sequence[float], blobs: float) -> np.ndarray:
    if rng.random() < blobs:
        return ellipsoid(rng, where, extent, float(np.exp(rng.uniform(np.log(4), np.log(0.45 * max(extent.min(), 20))))))
    if rng.random() < 0.63:
        return tube(rng, where, extent, float(np.exp(rng.uniform(np.log(2), np.log(11)))))
    return winding(rng, shape, spacing, extent, rng.uniform(2.5, 8))


def mixed(rng: Rng, objects: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Some objects hold several materials (contrast medium and clot, gas and fluid, rim and core): the map of materials, uint8."""
    materials = objects.copy()
    for value in range(int(objects.max()) + 1):
        count = int(materials.max()) + 1
        if rng.random() > 0.35 or count > 200:
            continue
        inside = objects == value
        kind = rng.random()
        if kind < 0.25:
            part = distance(~inside, spacing) > rng.uniform(1, 5)
        elif kind < 0.6:  # side by side along one axis, like the two lumina of a dissected vessel
            along = np.where(np.arange(3) == np.argmax(np.multiply(objects.shape, spacing)), 0.1, 1.0)
            part = inside & (noise(rng, objects.shape, along * spacing, rng.uniform(6, 25)) > rng.uniform(-0.5, 0.5))
        else:
            part = inside & (noise(rng, objects.shape, spacing, rng.uniform(10, 120)) > rng.uniform(-0.8, 0.8))
        materials[part] = count
    return materials


def render(rng: Rng, objects: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Gray values: each object its own mean and texture, some alike; partial volume, bias field, noise. (K, J, I) float32."""
    objects = mixed(rng, objects, spacing)
    count, shape = int(objects.max()) + 1, objects.shape
    contrast = np.exp(rng.uniform(np.log(0.2), 0))
    mean = 0.5 + contrast * (rng.random(count) - 0.5)
    for _ in range(int(rng.integers(0, max(1, count // 2)))):  # look alike
        a, b = rng.integers(count, size=2)
        mean[a] = mean[b] + rng.normal(0, 0.02)
    if rng.random() < 0.25:  # air or metal, far from all else
        mean[rng.integers(count)] = rng.choice([-1.5, 2.5])
    image = mean.astype(np.float32)[objects]
    for wavelength in (rng.uniform(3, 8), rng.uniform(8, 30)):
        texture = (contrast * rng.uniform(0, 0.15, count) * (rng.random(count) < 0.5)).astype(np.float32)
        if texture.any():
            image += texture[objects] * noise(rng, shape, spacing, wavelength)
    for _ in range(int(rng.integers(0, 4))):
        image = blur(image, rng.uniform(0.1, 0.5), spacing)
    if rng.random() < 0.5:
        image *= np.exp(rng.uniform(0, 0.25) * noise(rng, shape, spacing, rng.uniform(40, 120)))
    grain = rng.standard_normal(shape, dtype=np.float32)
    if rng.random() < 0.4:
        grain = 2 * blur(grain, 0.5, spacing)
    return image + np.float32(contrast * np.exp(rng.uniform(np.log(0.01), np.log(0.25)))) * grain


def usable_objects(objects: np.ndarray, wanted: Sequence[int]) -> list[int]:
    """Those that are neither specks nor most of the volume."""
    sizes = np.bincount(objects.ravel(), minlength=256)
    return [int(o) for o in wanted if 150 < sizes[o] < 0.5 * objects.size]


def choose(rng: Rng, objects: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """The objects that are segments: truth (K, J, I) uint8, numbered from 1. Some segments are two objects."""
    usable = usable_objects(objects, wanted)
    rng.shuffle(usable)
    truth, table = int(rng.integers(1, 7)), np.zeros(256, np.uint8)
    for n, o in enumerate(usable[:truth]):
        table[o] = n + 1
    if len(usable) > truth and rng.random() < 0.25:
        table[usable[truth]] = rng.integers(1, truth + 1)
    return table[objects]


# --- annotation, as the protocols do it


def annotate(rng: Rng, truth: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Annotation map (K, J, I) uint8: complete slices along one axis or all, strokes, or a mixture; more often than not by imprecise hands."""
    kind = rng.random()
    slices, strokes = np.zeros(truth.shape, bool), np.zeros(truth.shape, bool)
    thick = int(np.argmax(spacing)) if max(spacing) > 1 else int(rng.integers(3)) if rng.random() < 0.4 else int(np.argmax(truth.shape))
    if kind < 0.4:
        _slices(rng, truth, slices, thick, int(rng.choice([2, 3, 3, 3, 4, 5, 5, 7])))
    elif kind < 0.55:
        for axis in range(3):
            _slices(rng, truth, slices, axis, int(rng.choice([1, 2, 3, 3])))
    elif kind < 0.9:
        axes = range(3) if rng.random() < 0.75 else [thick]
        for axis in axes:
            _strokes(rng, truth, strokes, axis, int(rng.choice([2, 2, 3, 3, 4])))
    else:
        _slices(rng, truth, slices, thick, int(rng.choice([1, 2, 3])))
        for axis in range(3):
            _strokes(rng, truth, strokes, axis, int(rng.choice([1, 2])))
    return by_hand(rng, truth, slices, strokes)


def by_hand(rng: Rng, truth: np.ndarray, slices: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    """What hands make of complete slices and strokes, (K, J, I) bool both, as an annotation map: four in ten exact; else contours stray, brushes are
    thick and may cross the border, and at times a piece is forgotten or mislabelled."""
    exact = truth + np.uint8(1)
    drawn, planes = np.where(strokes, exact, 0).astype(np.uint8), np.where(slices, exact, 0).astype(np.uint8)
    if rng.random() < EXACT:
        return np.where(slices, planes, drawn)
    if strokes.any():
        drawn = hands.brushed(drawn, truth, int(rng.integers(1, 4)), int(rng.choice([0, 0, 1, 1, 2])))
    if slices.any():
        planes = hands.contours_off(rng, planes, rng.uniform(0.4, 2.2))
        if rng.random() < MISTAKES:
            mistake = hands.with_mistake(rng, planes, str(rng.choice(["forgotten", "forgotten", "mislabelled"])))
            planes = planes if mistake is None else mistake[0]
    return np.where(slices, planes, drawn)


def spread(rng: Rng, truth: np.ndarray, axis: int, count: int) -> list[int]:
    """Slices evenly over the segments' extent, a little jittered at times."""
    found = np.flatnonzero(truth.any(axis=tuple(a for a in range(3) if a != axis)))
    low, high = int(found[0]), int(found[-1])
    jitter = rng.uniform(-0.3, 0.3, count) * (rng.random() < 0.5)
    return sorted({int(np.clip(round(low + (n + 0.5 + jitter[n]) * (high - low) / count), low, high)) for n in range(count)})


def _slices(rng: Rng, truth: np.ndarray, labelled: np.ndarray, axis: int, count: int) -> None:
    for index in spread(rng, truth, axis, count):
        labelled[(slice(None),) * axis + (index,)] = True


def _strokes(rng: Rng, truth: np.ndarray, labelled: np.ndarray, axis: int, count: int) -> None:
    for index in spread(rng, truth, axis, count):
        box = (slice(None),) * axis + (index,)
        labelled[box] |= _slice_strokes(rng, truth[box])


def _slice_strokes(rng: Rng, truth: np.ndarray) -> np.ndarray:
    """Medial lines in the segments, a broken ring around them, a few straight lines in the background. (J, I) bool."""
    drawn = np.zeros(truth.shape, bool)
    for value in np.unique(truth[truth > 0]):
        if rng.random() < 0.92:
            drawn |= _medial_line(rng, truth == value)
    outside = truth == 0
    if not outside.any() or outside.all():
        return drawn | (outside & _lines(rng, truth.shape, 3))
    far = distance(~outside, (1.0, 1.0))
    gap = rng.uniform(1.5, 5)
    ring = (far > gap) & (far <= gap + 1.1) & (noise(rng, (1, *truth.shape), (1, 1, 1), rng.uniform(8, 40))[0] > rng.uniform(-1, 0.6))
    return drawn | ring | (_lines(rng, truth.shape, int(rng.integers(0, 4))) & (far > 3))


def _medial_line(rng: Rng, mask: np.ndarray) -> np.ndarray:
    deep = mask & (distance(~mask, (1.0, 1.0)) >= rng.uniform(0, 1.5))
    line = sitk.GetArrayFromImage(sitk.BinaryThinning(sitk.GetImageFromArray((deep if deep.any() else mask).astype(np.uint8)))) > 0
    if rng.random() < 0.3:  # part of it
        part = line & (noise(rng, (1, *mask.shape), (1, 1, 1), 20)[0] > rng.uniform(-1, 0.2))
        line = part if part.any() else line
    if rng.random() < 0.2:  # a thicker brush
        line = mask & (distance(line, (1.0, 1.0)) < 1.5) if line.any() else line
    return line


def _lines(rng: Rng, shape: Sequence[int], count: int) -> np.ndarray:
    drawn = np.zeros(shape, bool)
    for _ in range(count):
        if rng.random() < 0.5:
            drawn[rng.integers(shape[0])] = True
        else:
            drawn[:, rng.integers(shape[1])] = True
    return drawn


def correct(rng: Rng, truth: np.ndarray, prior: Belief, annotation: np.ndarray) -> None:
    """A stroke where the prior is wrong, into the annotation: along one row, within one segment."""
    wrong = np.flatnonzero(prior.label != truth)
    if not len(wrong):
        return
    at = list(np.unravel_index(int(rng.choice(wrong)), truth.shape))
    axis = int(rng.integers(3))
    value = truth[tuple(at)]
    for step in range(int(rng.integers(3, 15))):
        here = [*at]
        here[axis] = min(at[axis] + step, truth.shape[axis] - 1)
        if truth[tuple(here)] != value:
            return
        annotation[tuple(here)] = value + 1


def synthesize(rng: Rng) -> Sample:
    """One sample; tries again where a scene has nothing to segment or the prior has nothing to go by."""
    while True:
        shape, spacing = grid(rng)
        objects, wanted = scene(rng, shape, spacing)
        sample = annotated(rng, render(rng, objects, spacing), choose(rng, objects, wanted), spacing)
        if sample is not None:
            return sample


def annotated(rng: Rng, image: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float]) -> Sample | None:
    """A volume with a simulated annotation and its prior; None where there is nothing to go by. image: (K, J, I); truth: uint8, alike."""
    if not truth.any() or (truth > 0).all():
        return None
    if image.size * 8 <= _LARGE and rng.random() < ENLARGED:
        image, truth = enlarged(rng, image, truth)
    annotation = annotate(rng, truth, spacing)
    if not (annotation > 1).any() or not (annotation == 1).any():
        return None
    prior = _prior(image, annotation, spacing)
    if rng.random() < 0.25:
        for _ in range(int(rng.integers(1, 4))):
            correct(rng, truth, prior, annotation)
        prior = _prior(image, annotation, spacing)
    return Sample(image.astype(np.float16), truth, np.maximum(annotation, 1) - 1, annotation > 0, prior, spacing)


def enlarged(rng: Rng, image: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with voxels of half the edge, and noise of their own: as a finer scanner sees it, where strokes are one voxel thin."""
    fine = F.interpolate(torch.from_numpy(image[None, None]), scale_factor=2, mode="trilinear", align_corners=False)[0, 0].numpy()
    spread = float(np.subtract(*np.percentile(image[::2, ::2, ::2], (90, 10))))
    fine += np.float32(spread * np.exp(rng.uniform(np.log(0.02), np.log(0.3)))) * rng.standard_normal(fine.shape, dtype=np.float32)
    return fine, truth.repeat(2, 0).repeat(2, 1).repeat(2, 2)


def _prior(image: np.ndarray, annotation: np.ndarray, spacing: Sequence[float]) -> Belief:
    return compute_prior(image, np.maximum(annotation, 1) - np.uint8(1), annotation > 0, spacing)
