"""On which grid the growings run, and everything else that stays as it is until growing is renewed.

Fine noise makes paths wander and borders leak, so on large noisy volumes growing is better, not only faster, on cells that average it away;
where neighbours hardly differ, cells only lose thin walls. Noise is measured on the annotation: the median difference of neighbours that carry the
same label, in parts of the distance between the darkest and the brightest class.

Measured (Dice, growing alone, 70 pairs of case and annotation): up to 4.4 M voxels, whatever the noise, all voxels were better than an eighth of
them, or worse by at most 0.01, in 47 of 50 pairs, as structures are few voxels thick there. Of the larger ones noise is 0.03 to 0.04 in plant cells
(14 M voxels; an eighth loses 0.01), 0.07 to 0.7 in CT and a phantom (16 to 79 M), where about a million cells gain up to 0.14. So the threshold
could lie anywhere between 0.04 and 0.07; leaving out any case but the plant cells does not move it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..contract.box import Box
from ..contract.scratch import is_huge
from .grid import Cells, Grid, Triple, coarsening, gray_of
from .growing import TOP_LEVEL, step_costs
from .levels import Levels, blur
from .together import Tick

# the growings: whether the image is blurred a little, what a straight path across the region costs, in parts of all levels, and whether it starts
# from firm labels only (standing.py)
GROWINGS = ((True, 0.14, True), (False, 0.1, True), (False, 0.6, False), (True, 0.2, True), (False, 0.14, False))
_FEW = 3  # of them, the first, on grids of more than ALL_VOXELS cells, for memory
ALL_VOXELS = 5_000_000  # a region of so many is grown at full resolution whatever the noise
SHARP_CELLS, NOISY_CELLS = 16_000_000, 1_300_000  # at most, of a larger one
HUGE_CELLS = 3_000_000  # of a noisy huge one (scratch.is_huge), whose cells average hundreds of voxels even so
QUICK_CELLS = 1_000_000  # of a first answer, where the grid has more than twice as many
NOISY = 0.05
_PLANES = 24  # on which noise is measured


@dataclass(frozen=True)
class Plan:
    """grid; tables: of the plain and the blurred gray values; blurred: which growings see these; firm: which start from firm labels only; costs:
    (27,) int32 of each growing; classes: what had labels."""

    grid: Grid
    tables: tuple[Levels, Levels]
    blurred: tuple[bool, ...]
    firm: tuple[bool, ...]
    costs: tuple[np.ndarray, ...]
    classes: frozenset[int]

    @classmethod
    def of(cls, grid: Grid, cells: Cells, classes: frozenset[int], tick: Tick = lambda: None) -> Plan:
        across_mm = float(np.prod(np.multiply(grid.shape, grid.spacing_kji_mm))) ** (1 / 3)
        plain = Levels.fit(with_own(grid, cells.mean, cells), cells.firm)
        tick()
        blurred = Levels.fit(with_own(grid, blurred_mean(grid, cells, tick), cells), cells.firm)
        growings = GROWINGS if math.prod(grid.shape) <= ALL_VOXELS else GROWINGS[:_FEW]
        costs = tuple(step_costs([length * TOP_LEVEL / across_mm * s for s in grid.spacing_kji_mm]) for _, length, _ in growings)
        return cls(grid, (plain, blurred), tuple(g[0] for g in growings), tuple(g[2] for g in growings), costs, classes)


def blurred_mean(grid: Grid, cells: Cells, tick: Tick = lambda: None) -> np.ndarray:
    return blur(cells.mean, 0.25, grid.spacing_kji_mm, tick)


def with_own(grid: Grid, gray: np.ndarray, cells: Cells) -> np.ndarray:
    """Gray values, (k, j, i) float32, but where a cell of several voxels is labelled, those of its labelled voxels."""
    return gray if grid.is_fine else np.where(cells.known >= 0, cells.own, gray)


def choose_factors(
    image: np.ndarray, labels: np.ndarray, labelled: np.ndarray, region: Box, spacing_kji_mm: Sequence[float], tick: Tick = lambda: None
) -> Triple:
    """How many voxels make a cell, (k, j, i)."""
    shape = [s.stop - s.start for s in region]
    if math.prod(shape) <= ALL_VOXELS:
        return (1, 1, 1)
    if noise(image, labels, labelled, region, tick) < NOISY:
        return coarsening(shape, spacing_kji_mm, SHARP_CELLS)
    return coarsening(shape, spacing_kji_mm, HUGE_CELLS if is_huge(shape) else NOISY_CELLS)


def noise(image: np.ndarray, labels: np.ndarray, labelled: np.ndarray, region: Box, tick: Tick = lambda: None) -> float:
    """The median difference between labelled neighbours of one class, in parts of the distance between the darkest and the brightest class
    (medians), on some planes. Infinite where no such neighbours or no two classes are labelled."""
    planes = [k for k in range(region[0].start, region[0].stop) if labelled[k][region[1:]].any()]
    differences, grays, values = [], [], []
    for k in planes[:: max(1, len(planes) // _PLANES)]:
        tick()
        gray, value, known = gray_of(image[k][region[1:]]), labels[k][region[1:]], labelled[k][region[1:]]
        for axis in (0, 1):
            g, v, w = (np.moveaxis(a, axis, 0) for a in (gray, value, known))
            same = w[1:] & w[:-1] & (v[1:] == v[:-1])
            differences.append(np.abs(g[1:][same] - g[:-1][same]))
        grays.append(gray[known])
        values.append(value[known])
    if not planes:
        return math.inf
    step, gray, value = np.concatenate(differences), np.concatenate(grays), np.concatenate(values)
    middles = [float(np.median(gray[value == c])) for c in np.unique(value)]
    span = max(middles) - min(middles)
    return float(np.median(step)) / span if len(step) and span > 0 else math.inf
