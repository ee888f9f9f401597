"""The prior: what growing and interpolation say from the annotation alone, and how far to trust them.

Three growings that mind distance differently vote on every voxel; the votes are blurred a little and the most voted label wins. Confidence
follows from their agreement, from shape interpolation where complete slices allow it, and from how far the label had to travel.
(Interpolation has no vote: on CT and MR with 3 to 9 complete slices growing is right more often, and a vote lowered the mean Dice.)

Growing gives each voxel the label of its geodesically nearest labelled voxel, as Grow from seeds does (Zhu et al., An effective
interactive medical image segmentation method using fast GrowCut, MICCAI workshop 2014), but by raster sweeps (Toivanen, Pattern
Recognition Letters 1996; Criminisi et al., GeoS, ECCV 2008), whole planes at a time. Distances are integers and the label rides in
their low byte: one minimum updates both, and ties always break alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import SimpleITK as sitk

from ..contract.belief import Belief, Box

Tick = Callable[[], None]
Show = Callable[[np.ndarray], None]

LEVELS = 1000  # growing sees the image in this many gray levels
ROUNDS = 2  # each sweeps six ways; a third changes Dice by less than 0.001
COARSE_VOXELS = 20_000_000  # larger regions are grown on a coarser grid
# the growings: whether the image is blurred a little, and what a straight path across the region costs, in parts of all levels; the first is the
# best alone (mean Dice 0.825 over the 20 pairs of docs/accuracy.md, the others 0.808 and 0.816, all three 0.833)
GROWINGS = ((True, 0.2), (False, 0.1), (False, 0.4))
TRAVEL = 2 * LEVELS  # a label that came this far is trusted half; fitted once so that confidence is about a probability
REACH = 4.0  # voxels (of the shortest edge) over which the say of interpolation falls to 1 / e
_MARGIN = 0.5  # how far beyond the painted segments they may reach, in parts of their extent on each side
_FAR, _WALL = 1 << 30, 1 << 28  # of a packed distance: not reached yet; the step out of the volume. Their sum fits int32.
_BLOCK = 1 << 16  # voxels of a plane at a time, so that they stay in the processor's cache
_OUTSIDE = 250  # confidence in background beyond the margin


def compute_prior(
    image: np.ndarray,
    labels: np.ndarray,
    labelled: np.ndarray,
    spacing_kji_mm: Sequence[float],
    tick: Tick = lambda: None,
    early: Show | None = None,
) -> Belief:
    """First guess at every voxel.

    image: (K, J, I), any real type; labels: (K, J, I) uint8, 0 background, c segment c, used where labelled, (K, J, I) bool. Slices that are
    labelled throughout are interpolated between. tick is called several times a second; what it raises ends the work. early is given the labels,
    (K, J, I) uint8, that the first growing alone finds, in a third of the time.
    """
    label, confidence = np.zeros(image.shape, np.uint8), np.zeros(image.shape, np.uint8)
    if not labelled.any():
        return Belief(label, confidence)
    box = _region(labels, labelled)
    confidence[:] = _OUTSIDE
    factors = coarsening([s.stop - s.start for s in box], spacing_kji_mm, COARSE_VOXELS)
    gray, known = _pool(image[box], labels[box], labelled[box], factors, tick)
    spacing = [s * f for s, f in zip(spacing_kji_mm, factors, strict=True)]

    def finish(part: np.ndarray) -> None:
        _enlarge(part, factors, label[box], tick)
        np.copyto(label, labels, where=labelled)

    def show(part: np.ndarray) -> None:
        if early is not None:
            finish(part)
            early(label.copy())

    small = _vote(gray, known, spacing, tick, show)
    finish(small.label)
    _enlarge(small.confidence, factors, confidence[box], tick)
    np.copyto(confidence, np.uint8(255), where=labelled)
    return Belief(label, confidence)


def _vote(gray: np.ndarray, known: np.ndarray, spacing_mm: Sequence[float], tick: Tick, show: Show) -> Belief:
    """gray: (K, J, I) float32; known: (K, J, I) int16, -1 unlabelled. show is given the first growing's labels, (K, J, I) uint8."""
    across_mm = float(np.prod(np.multiply(gray.shape, spacing_mm))) ** (1 / 3)

    @cache
    def levels(is_blurred: bool) -> np.ndarray:
        return by_class(blur(gray, 0.25, spacing_mm, tick) if is_blurred else gray, known, tick)

    ballots: list[np.ndarray] = []
    travelled = np.zeros(gray.shape, np.int32)
    # two of three see thin walls, which a blur opens: with one, a long gap (ct-aorta, slices-3) lost 0.04 Dice, and others won 0.001 on average
    for is_blurred, length_cost in GROWINGS:
        label, distance = grow(levels(is_blurred), known, [length_cost * LEVELS / across_mm * s for s in spacing_mm], tick)
        if not ballots:
            show(label)
        ballots.append(label)
        travelled += distance
    winner, share = _count(ballots, int(known.max()) + 1, spacing_mm, tick)
    between, weight = interpolate(known, spacing_mm, tick)
    if weight is not None:
        share = (len(ballots) * share + weight * (between == winner)) / (len(ballots) + weight)
    return Belief(winner, _confidence(share, travelled / np.float32(len(ballots))))


def _count(ballots: Sequence[np.ndarray], classes: int, spacing_mm: Sequence[float], tick: Tick) -> tuple[np.ndarray, np.ndarray]:
    """The most voted label after a small blur, (K, J, I) uint8, and its share of the votes, (K, J, I) float32."""
    shape = ballots[0].shape
    winner, best = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    for value in range(classes):
        votes = np.zeros(shape, np.float32)
        for label in ballots:
            votes += label == value
        tick()
        votes = blur(votes, 0.5, spacing_mm, tick)
        winner[votes > best] = value
        np.maximum(best, votes, out=best)
        tick()
    return winner, best / np.float32(len(ballots))


def _confidence(share: np.ndarray, travelled: np.ndarray) -> np.ndarray:
    """share: float32, of the votes; travelled: float32, mean distance in levels, is overwritten."""
    doubt = np.multiply(travelled, np.float32(1 / (255 * TRAVEL)), out=travelled)
    doubt += np.float32(1 / 255)
    return np.clip(np.divide(share, doubt, out=doubt), 0, 254, out=doubt).astype(np.uint8)


def grow(
    levels: np.ndarray, known: np.ndarray, step_costs: Sequence[float], tick: Tick = lambda: None, rounds: int = ROUNDS
) -> tuple[np.ndarray, np.ndarray]:
    """Each voxel's geodesically nearest label, (K, J, I) uint8, and how far it is, (K, J, I) int32.

    levels: (K, J, I) int32, 0..LEVELS; known: (K, J, I) int16, -1 unlabelled. Going to one of the 26 neighbours costs the difference of
    levels plus the length of the step, a voxel's edges being step_costs (k, j, i) long. Exact once rounds are many.
    """
    inside = (slice(1, -1),) * 3
    gray = np.full([n + 2 for n in levels.shape], _WALL, np.int32)
    gray[inside] = levels << 8
    key = np.full(gray.shape, _FAR, np.int32)
    key[inside] = np.where(known >= 0, known.astype(np.int32), np.int32(_FAR))
    orders = ((0, 1, 2), (1, 0, 2), (2, 0, 1))  # each axis first in turn
    grays = [np.ascontiguousarray(gray.transpose(order)) for order in orders]
    for _ in range(rounds):
        for order, turned_gray in zip(orders, grays, strict=True):
            turned = np.array(key.transpose(order), order="C")
            tick()
            _sweep(turned_gray, turned, [step_costs[a] for a in order], tick)
            key = np.ascontiguousarray(turned.transpose(np.argsort(order)))
    return (key[inside] & 255).astype(np.uint8), key[inside] >> 8


def _sweep(gray: np.ndarray, key: np.ndarray, costs: Sequence[float], tick: Tick) -> None:
    """Carry labels from plane to plane along the first axis, there and back. Planes are flat: their walls stop the wrapped neighbours."""
    planes, rows, columns = gray.shape
    gray, key = gray.reshape(planes, -1), key.reshape(planes, -1)
    moves = [(r * columns + c, round(float(np.linalg.norm(np.multiply(costs, (1, r, c))))) << 8) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    first, last = columns + 1, (rows - 1) * columns - 1
    spare = np.empty(_BLOCK, np.int32)
    for before, here in [(p - 1, p) for p in range(1, planes)] + [(p + 1, p) for p in range(planes - 2, -1, -1)]:
        tick()
        for start in range(first, last, _BLOCK):
            stop = min(start + _BLOCK, last)
            path, level, nearest = spare[: stop - start], gray[here, start:stop], key[here, start:stop]
            for offset, cost in moves:
                np.subtract(gray[before, start + offset : stop + offset], level, out=path)
                np.abs(path, out=path)
                path += key[before, start + offset : stop + offset]
                path += cost
                np.minimum(nearest, path, out=nearest)


def by_class(gray: np.ndarray, known: np.ndarray, tick: Tick = lambda: None, bins: int = 256) -> np.ndarray:
    """Gray values as levels, (K, J, I) int32 in 0..LEVELS, monotone: a difference counts by what it says about the class.

    A gray value's level is the length of the path that the class probabilities P(c | gray) travel up to it (after Bai and Sapiro, A geodesic
    framework for fast interactive image and video segmentation, ICCV 2007), mixed half and half with a linear scale.
    """
    low, high = _useful_range(gray, known)
    tick()
    scale = (bins - 1) / max(high - low, 1e-6)
    bell = np.exp(-0.5 * (np.arange(-25, 26) / (bins / 40)) ** 2)
    at, values = np.clip((gray[known >= 0] - low) * scale, 0, bins - 1).astype(np.intp), known[known >= 0]
    counts = [np.bincount(at[values == c], minlength=bins) for c in np.unique(values)]
    density = np.stack([np.convolve(n / n.sum(), bell / bell.sum())[25:-25] for n in counts])
    chance = density / (density.sum(0) + 1e-3 * density.max())
    change = np.abs(np.diff(chance, axis=1)).sum(0)
    path = np.concatenate([[0], np.cumsum(change / max(change.sum(), 1e-6) + 1 / (bins - 1))])
    levels = np.empty(gray.shape, np.int32)
    for k in range(len(gray)):
        tick()
        levels[k] = np.interp((gray[k] - low) * scale, np.arange(bins), path * (LEVELS / path[-1])) + 0.5
    return levels


def _useful_range(gray: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """The painted segments' gray values and twice their spread more on either side, within the image's own; what is beyond is all alike."""
    least, most = np.percentile(gray.ravel()[:: max(1, gray.size // 1_000_000)], [0.1, 99.9])
    low, high = np.percentile(gray[known > 0] if (known > 0).any() else gray, [0.5, 99.5])
    more = 2 * max(high - low, 0.1 * (most - least))
    return max(float(least), float(low - more)), min(float(most), float(high + more))


def interpolate(known: np.ndarray, spacing_mm: Sequence[float], tick: Tick = lambda: None) -> tuple[np.ndarray, np.ndarray | None]:
    """Shape-based interpolation between slices that are labelled throughout (Raya and Udupa, IEEE Trans. Medical Imaging 1990).

    known: (K, J, I) int16, -1 unlabelled. Between two such slices of one axis each segment's signed distance (mm, in the plane) is blended
    linearly; the deepest segment wins, background where there is none. Returns labels, (K, J, I) uint8, and weights, (K, J, I) float32: near 1
    beside a complete slice, falling with the distance, 0 on it and outside; None where no axis has two complete slices with others between.
    Where several axes have them, the nearest slice decides.
    """
    label, weight = np.zeros(known.shape, np.uint8), np.zeros(known.shape, np.float32)
    for axis in range(3):
        turned, labels, weights = (np.moveaxis(volume, axis, 0) for volume in (known, label, weight))
        whole = [int(p) for p in np.flatnonzero((turned >= 0).all(axis=(1, 2)))]
        in_plane_mm = [s for a, s in enumerate(spacing_mm) if a != axis]
        for a, b in itertools.pairwise(whole):
            for p, between in _between(turned, a, b, in_plane_mm, tick):
                near = np.float32(np.exp(-min(p - a, b - p) * spacing_mm[axis] / (REACH * min(spacing_mm))))
                labels[p] = np.where(near > weights[p], between, labels[p])
                weights[p] = np.maximum(weights[p], near)
    return label, weight if weight.any() else None


def _between(known: np.ndarray, a: int, b: int, in_plane_mm: Sequence[float], tick: Tick) -> Iterator[tuple[int, np.ndarray]]:
    """The slices between the complete ones a and b of the first axis: index and labels, uint8."""
    depths = {}
    for value in np.union1d(known[a], known[b]):
        if value > 0 and b > a + 1:
            depths[int(value)] = _depth_pair(known[a] == value, known[b] == value, in_plane_mm)
            tick()
    for p in range(a + 1, b):
        tick()
        deepest, winner = np.zeros(known.shape[1:], np.float32), np.zeros(known.shape[1:], np.uint8)
        for value, (one, other) in depths.items():
            depth = one + np.float32((p - a) / (b - a)) * (other - one)
            winner[depth > deepest] = value
            np.maximum(deepest, depth, out=deepest)
        yield p, winner


def _depth_pair(one: np.ndarray, other: np.ndarray, in_plane_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Signed distances, mm, inside positive, of one segment on two slices. Missing on one, it shrinks to its core halfway."""
    if not one.any():
        return _depth_pair(other, one, in_plane_mm)[::-1]
    depth = _depth(one, in_plane_mm)
    return depth, _depth(other, in_plane_mm) if other.any() else np.minimum(depth, 0) - depth.max()


def _depth(mask: np.ndarray, in_plane_mm: Sequence[float]) -> np.ndarray:
    return signed_distance(mask, in_plane_mm) + np.float32(0.5 * min(in_plane_mm))  # the border runs half a voxel outside of the outermost voxels


def signed_distance(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """From each voxel to the outermost voxels of the mask (2-D or 3-D, not empty), between centres, float32 in the unit of spacing (the array's
    order): positive inside, 0 in those voxels, negative outside."""
    volume = sitk.GetImageFromArray(mask.astype(np.uint8))
    volume.SetSpacing([float(s) for s in spacing[::-1]])
    return sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(volume, insideIsPositive=True, squaredDistance=False, useImageSpacing=True))


def blur(volume: np.ndarray, variance: float, spacing_mm: Sequence[float], tick: Tick = lambda: None) -> np.ndarray:
    """Three taps along each axis, (K, J, I) float32; variance is in squares of the shortest voxel edge, 0.5 at most. Borders are repeated."""
    out = volume.astype(np.float32)
    for axis, spacing in enumerate(spacing_mm):
        side = variance / 2 * (min(spacing_mm) / spacing) ** 2
        if out.shape[axis] < 2 or side < 0.01:
            continue
        step = np.diff(out, axis=axis)
        tick()
        step *= np.float32(side)
        turned = np.moveaxis(out, axis, 0)
        turned[:-1] += np.moveaxis(step, axis, 0)
        turned[1:] -= np.moveaxis(step, axis, 0)
        tick()
    return out


def _region(labels: np.ndarray, labelled: np.ndarray) -> Box:
    """The painted segments' box and _MARGIN of its size more on each side: beyond is background. Without background in it, the whole volume."""
    painted = labelled & (labels > 0)
    box = []
    for axis, size in enumerate(labels.shape):
        used = np.flatnonzero(painted.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, size)
        more = max(8, int(_MARGIN * (high - low)))
        box.append(slice(max(0, low - more), min(size, high + more)))
    near = (box[0], box[1], box[2])
    return near if (labelled[near] & ~painted[near]).any() else (slice(0, labels.shape[0]), slice(0, labels.shape[1]), slice(0, labels.shape[2]))


def coarsening(shape_kji: Sequence[int], spacing_kji_mm: Sequence[float], most: int) -> tuple[int, int, int]:
    """How many voxels make one, for each axis: the finest axis is halved first, until there are at most `most`."""
    factors = [1, 1, 1]
    while math.prod(-(-n // f) for n, f in zip(shape_kji, factors, strict=True)) > most:
        usable = [a for a in range(3) if shape_kji[a] >= 4 * factors[a]] or [0, 1, 2]
        factors[min(usable, key=lambda a: spacing_kji_mm[a] * factors[a])] *= 2
    return factors[0], factors[1], factors[2]


def _pool(image: np.ndarray, labels: np.ndarray, labelled: np.ndarray, factors: Sequence[int], tick: Tick) -> tuple[np.ndarray, np.ndarray]:
    """Mean gray value, (K, J, I) float32, and the commonest label, (K, J, I) int16, -1 where no voxel of the cell is labelled."""
    shape = [-(-n // f) for n, f in zip(image.shape, factors, strict=True)]
    gray, known = np.empty(shape, np.float32), np.full(shape, -1, np.int16)
    cell = [np.arange(n) // f for n, f in zip(image.shape, factors, strict=True)]
    for k in range(shape[0]):
        tick()
        slab = slice(k * factors[0], (k + 1) * factors[0])
        mean = np.nan_to_num(np.asarray(image[slab], np.float32), posinf=0, neginf=0).mean(axis=0)
        for axis in (0, 1):
            f, n = factors[axis + 1], image.shape[axis + 1]
            if f > 1:
                mean = np.add.reduceat(mean, np.arange(0, n, f), axis=axis) / np.bincount(cell[axis + 1]).reshape((-1, 1) if axis == 0 else (1, -1))
        gray[k] = mean
        where = np.nonzero(labelled[slab])
        code = (cell[1][where[1]] * shape[2] + cell[2][where[2]]) * 256 + labels[slab][where]
        codes, counts = np.unique(code, return_counts=True)
        codes = codes[np.argsort(counts, kind="stable")]  # the commonest is written last
        known[k].reshape(-1)[codes // 256] = codes % 256
    return gray, known


def _enlarge(small: np.ndarray, factors: Sequence[int], out: np.ndarray, tick: Tick) -> None:
    for k in range(out.shape[0]):
        if k % 16 == 0:
            tick()
        out[k] = small[k // factors[0]].repeat(factors[1], axis=0).repeat(factors[2], axis=1)[: out.shape[1], : out.shape[2]]
