"""The vote: several labels for every cell become one label and a confidence for every voxel.

A voxel counts what the 27 cells around it say, weighted by how near they are (quadratic B-splines between the centres of cells, so that borders
come out smooth where cells are larger than voxels; a small blur where they are not), and the most voted label wins, the smaller of equals. All
counts are integers and nothing reaches farther than one cell, so a part of the grid can be counted again alone and comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .compiled import kernels
from .grid import Grid

TRAVEL = 2  # (of all levels) a label that came this far is trusted half; fitted once so that confidence is about a probability
_BLUR = 0.5  # variance, in squares of the shortest edge, where a cell is a voxel
_UNIT = 64  # the weights of three neighbours along an axis sum to this


@dataclass(frozen=True)
class Ballots:
    """labels: (N, K, J, I) uint8, of N growings; travelled: (K, J, I) int32, the sum of their distances in levels; between: (K, J, I) uint8, what
    interpolation says, and weight: (K, J, I) float32, how much it counts beside one growing, 0 where nothing."""

    labels: np.ndarray
    travelled: np.ndarray
    between: np.ndarray
    weight: np.ndarray


def taps(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each axis, (factor, 3) int32: how much a voxel at this place in its cell hears the cell before, its own, and the next."""
    shortest = min(grid.spacing_kji_mm)
    k, j, i = (_taps(f, _BLUR / 2 * (shortest / s) ** 2) for f, s in zip(grid.factors, grid.spacing_kji_mm, strict=True))
    return k, j, i


def _taps(factor: int, blur: float) -> np.ndarray:
    if factor == 1:
        before = after = np.full(1, round(_UNIT * blur))
    else:
        place = (np.arange(factor) + 0.5) / factor
        before, after = np.rint(_UNIT * (1 - place) ** 2 / 2), np.rint(_UNIT * place**2 / 2)
    return np.ascontiguousarray(np.stack([before, _UNIT - before - after, after], axis=1), np.int32)


def count_plane(
    ballots: Ballots,
    weights: Sequence[np.ndarray],
    plane: int,
    again: np.ndarray,
    top_level: int,
    label: np.ndarray,
    confidence: np.ndarray,
) -> None:
    """Decide the voxels of one plane of cells. weights: see taps; again: (J, I) bool, which cells; label and confidence: the plane's voxels,
    (k, J', I') uint8, from the region's corner, are written where the cells say."""
    compiled = kernels()
    count: Callable[..., None] = _count_in_numpy if compiled is None else compiled.count_plane
    b = ballots
    count(b.labels, b.travelled, b.between, b.weight, *weights, plane, again, float(TRAVEL * top_level), label, confidence)


def _count_in_numpy(
    ballots: np.ndarray,
    travelled: np.ndarray,
    between: np.ndarray,
    weight: np.ndarray,
    taps_k: np.ndarray,
    taps_j: np.ndarray,
    taps_i: np.ndarray,
    plane: int,
    again: np.ndarray,
    travel: float,
    label: np.ndarray,
    confidence: np.ndarray,
) -> None:
    """As in kernels.py, but all cells of the smallest box around those to be counted."""
    rows, columns = (np.flatnonzero(again.any(axis=a)) for a in (1, 0))
    if not len(rows):
        return
    cells = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    factors = (len(taps_k), len(taps_j), len(taps_i))
    # the cell of each voxel, and the voxel's place in it, along every axis
    at_j, at_i = (np.arange(c.start * f, min(c.stop * f, n)) for c, f, n in zip(cells, factors[1:], label.shape[1:], strict=True))
    voxels = (slice(None), slice(int(at_j[0]), int(at_j[-1]) + 1), slice(int(at_i[0]), int(at_i[-1]) + 1))
    near = [np.clip(np.arange(s.start - 1, s.stop + 1), 0, n - 1) for s, n in zip((slice(plane, plane + 1), *cells), travelled.shape, strict=True)]
    around = ballots[:, near[0][:, None, None], near[1][:, None], near[2]]
    best = np.zeros((label.shape[0], len(at_j), len(at_i)), np.int32)
    winner = np.zeros(best.shape, np.uint8)
    at_k = np.arange(label.shape[0])
    for value in np.unique(around):
        votes = (around == value).sum(axis=0, dtype=np.int32)
        votes = _spread(votes, 0, at_k * 0, taps_k[at_k])
        votes = _spread(votes, 1, at_j // factors[1] - cells[0].start, taps_j[at_j % factors[1]])
        votes = _spread(votes, 2, at_i // factors[2] - cells[1].start, taps_i[at_i % factors[2]])
        winner[votes > best] = value
        np.maximum(best, votes, out=best)
    cell = (plane, (at_j // factors[1])[:, None], at_i // factors[2])
    n = len(ballots)
    share = best / float(n * _UNIT**3)
    share = (n * share + weight[cell] * (between[cell] == winner)) / (n + weight[cell].astype(np.float64))
    sure = 255 * share / (1 + travelled[cell] / (n * travel))
    chosen = np.broadcast_to(again[cell[1:]], winner.shape)
    np.copyto(label[voxels], winner, where=chosen)
    np.copyto(confidence[voxels], np.minimum(sure, 254).astype(np.uint8), where=chosen)


def _spread(votes: np.ndarray, axis: int, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Along one axis from cells to voxels: voxel x hears the cells first[x], first[x] + 1 and first[x] + 2 with weights[x]."""
    shape = [-1 if a == axis else 1 for a in range(3)]
    return sum(np.take(votes, first + n, axis=axis) * weights[:, n].reshape(shape) for n in range(3))  # type: ignore[return-value]
