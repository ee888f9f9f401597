"""Segments compete for each voxel: the highest logit wins, background where none is positive. At the volume's own resolution, slab by slab."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..contract.belief import Belief
from ..contract.box import Box, shape_of, slabs, within
from . import compiled
from .refiner_network import Tick
from .refiner_view import View
from .volumes import Volumes

_CALIBRATION = 0.5  # of the logits, for the confidence: fitted once on synthetic volumes, where the network is too sure of itself
# by confidence of growing, how far its label's logit lies from 0
CERTAIN = (0.2 + 1.3 / 255 * np.arange(256)).astype(np.float32)
# by 256ths of the winning logit, 255 times the chance that the decision is right, below 255, which means annotated
CHANCE = np.minimum(255 / (1 + np.exp(-_CALIBRATION * (np.arange(4096) + 0.5) / 256)), 254).astype(np.uint8)


class Gathered(NamedTuple):
    """What the segments of a box add to the logit there. table: (n, 13) int64, a row a segment: value; in the box first and last + 1 k, j, i; where
    its part of `added` begins (-1: it adds nothing), the part's rows and columns; where its k, j, i begin in `nearest` and `share`. These have for
    each place along an axis the two nearest working voxels of the part, (m, 2) int32, and how much the second one counts, (m,) float32.
    added: flat float32."""

    table: np.ndarray
    nearest: np.ndarray
    share: np.ndarray
    added: np.ndarray


def compete(
    label: np.ndarray, confidence: np.ndarray, volumes: Volumes, views: Sequence[View], box: Box, tick: Tick, smooth: bool = False
) -> Box | None:
    """Write label and confidence, (K, J, I) uint8, in a box; annotated voxels keep their label and are certain. Where growing doubts their label
    (confidence below 255), it is as certain as it fares among the segments; with `smooth` the best of these takes its place. Returns where something
    became different, None where nothing did."""
    changed = np.array([np.iinfo(np.int64).max, 0] * 3)
    for part in slabs(box):
        tick()
        _compete((label[part], confidence[part]), volumes, _gathered(views, part), part, changed, smooth)
    if changed[1] == 0:
        return None
    first, last = changed[0::2].tolist(), changed[1::2].tolist()
    return (slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2]))


def decided(volumes: Volumes, views: Sequence[View], box: Box, smooth: bool = False) -> Belief:
    """The label and confidence that `compete` writes in a box, (k, j, i) uint8 both."""
    belief, changed = Belief(np.zeros(shape_of(box), np.uint8), np.zeros(shape_of(box), np.uint8)), np.zeros(6, np.int64)
    for part in slabs(box):
        now = tuple(array[within(part, box)] for array in belief)
        _compete(now, volumes, _gathered(views, part), part, changed, smooth)
    return belief


def _compete(now: tuple[np.ndarray, ...], volumes: Volumes, gathered: Gathered, box: Box, changed: np.ndarray, smooth: bool) -> None:
    grown = volumes.label[box], volumes.confidence[box]
    annotated = (volumes.labels[box], volumes.labelled[box])
    origin = (box[0].start, box[1].start, box[2].start)
    if (loops := compiled.loops()) is not None:
        loops.decide(now, grown, annotated, origin, CERTAIN, CHANCE, *gathered, changed, smooth)
        return
    for k in range(len(now[0])):
        new, sure = _decided(k, *grown, gathered)
        doubted = annotated[1][k] & (grown[1][k] < 255)
        stands = annotated[1][k] & ~doubted
        if not smooth:
            np.copyto(sure, 255 - sure, where=doubted & (new != annotated[0][k]))
            stands |= doubted
        np.copyto(new, annotated[0][k], where=stands)
        np.copyto(sure, np.uint8(255), where=stands & ~doubted)
        differs = (new != now[0][k]) | (sure != now[1][k])
        now[0][k], now[1][k] = new, sure
        if differs.any():
            j, i = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
            first, last = (k, j[0], i[0]), (k + 1, j[-1] + 1, i[-1] + 1)
            changed[0::2] = np.minimum(changed[0::2], np.add(first, origin))
            changed[1::2] = np.maximum(changed[1::2], np.add(last, origin))


def _decided(k: int, grown_label: np.ndarray, grown_confidence: np.ndarray, gathered: Gathered) -> tuple[np.ndarray, np.ndarray]:
    """One slice of a box as refiner_loops.decide does it, before annotation: label and confidence, (j, i) uint8."""
    shape = grown_label.shape[1:]
    best, winner = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.uint8)
    for value, k0, k1, j0, j1, i0, i1, offset, rows, columns, at_k, at_j, at_i in gathered.table.tolist():
        if not k0 <= k < k1:
            continue
        place = (slice(j0, j1), slice(i0, i1))
        logit = CERTAIN[grown_confidence[k][place]]
        logit = np.where(grown_label[k][place] == value, logit, -logit)
        if offset >= 0:
            at = [slice(a, a + n) for a, n in ((at_k + k - k0, 1), (at_j, j1 - j0), (at_i, i1 - i0))]
            (near_k,), near_j, near_i = (gathered.nearest[s] for s in at)
            share_k, share_j, share_i = (gathered.share[s] for s in at)
            a, b = (gathered.added[offset + n * rows * columns :][: rows * columns].reshape(rows, columns) for n in near_k)
            plane = a + share_k[0] * (b - a)
            lines = plane[near_j[:, 0]]
            lines += share_j[:, None] * (plane[near_j[:, 1]] - lines)
            a = lines[:, near_i[:, 0]]
            logit += a + share_i * (lines[:, near_i[:, 1]] - a)
        winner[place][logit > np.maximum(best[place], 0)] = value
        np.maximum(best[place], logit, out=best[place])
    seen = np.isfinite(best)
    size = np.minimum(np.abs(np.where(seen, best, 0)) * np.float32(256), len(CHANCE) - 1).astype(np.intp)
    return winner, np.where(seen, CHANCE[size], grown_confidence[k])


def _gathered(views: Iterable[View], box: Box) -> Gathered:
    rows, nearest, share, added = [], [], [], []
    places = offset = 0
    for view in views:
        common = [slice(max(b.start, v.start), min(b.stop, v.stop)) for b, v in zip(box, view.box, strict=True)]
        if any(c.start >= c.stop for c in common):
            continue
        row = [view.value, *(edge - b.start for c, b in zip(common, box, strict=True) for edge in (c.start, c.stop))]
        axes = [_axis(c, v.start, f, n) for c, v, f, n in zip(common, view.box, view.factors, view.shape, strict=True)]
        if view.added is None:
            row += [-1, 0, 0]
        else:
            part = view.added[tuple(slice(a[0][0, 0], a[0][-1, 1] + 1) for a in axes)].float().numpy()
            row += [offset, *part.shape[1:]]
            added.append(part.ravel())
            offset += part.size
        for near, weight in axes:
            row.append(places)
            places += len(weight)
            nearest.append(near - near[0, 0])
            share.append(weight)
        rows.append(row)
    if not rows:
        return Gathered(np.zeros((0, 13), np.int64), np.zeros((0, 2), np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))
    flat = np.concatenate(added) if added else np.zeros(0, np.float32)
    return Gathered(np.array(rows, np.int64), np.concatenate(nearest), np.concatenate(share), flat)


def _axis(common: slice, start: int, factor: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Between the centres of which two working voxels the volume's voxels lie, (m, 2) int32, and how near the second, (m,) float32."""
    at = np.maximum((np.arange(common.start, common.stop) - start + 0.5) / factor - 0.5, 0)
    first = np.minimum(at.astype(np.int32), size - 1)
    return np.stack([first, np.minimum(first + 1, size - 1)], axis=1), (at - first).astype(np.float32)
