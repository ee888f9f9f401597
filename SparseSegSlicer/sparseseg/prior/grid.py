"""The grid that the growings run on: a box of the volume, whose cells are some voxels along each axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..annotation.labels import CORRECTION
from ..contract.box import Box, intersection, shape_of, union, whole, with_margin, within
from . import standing
from .compiled import kernels
from .together import THREADS, Tick, together

Triple = tuple[int, int, int]

MARGIN = 0.5  # how far beyond the painted segments they may reach, in parts of their extent on each side
_LEAST_MARGIN = 8  # voxels
_FEW_ROWS, _FEW_VOXELS = 16, 100_000  # that are looked at together for labels in doubt
_THIN = 3  # voxels: painted on no more slices than this, segments may reach along the whole axis


def coarsening(shape_kji: Sequence[int], spacing_kji_mm: Sequence[float], most: int) -> Triple:
    """How many voxels make one, for each axis: the finest axis is halved first, until there are at most `most`."""
    factors = [1, 1, 1]
    while math.prod(-(-n // f) for n, f in zip(shape_kji, factors, strict=True)) > most:
        usable = [a for a in range(3) if shape_kji[a] >= 4 * factors[a]] or [0, 1, 2]
        factors[min(usable, key=lambda a: spacing_kji_mm[a] * factors[a])] *= 2
    return factors[0], factors[1], factors[2]


def region(labels: np.ndarray, labelled: np.ndarray, tick: Tick = lambda: None, bounds: Box | None = None) -> Box:
    """The painted segments' box and MARGIN of its size more on each side: beyond is background. One slice says nothing of how far they go: then all
    of that axis. Without background in it, the whole volume. bounds: where segments are known to lie: that box instead, or the least that holds
    both where a segment is labelled outside of it."""
    painted = _extent(labels, labelled, tick)
    if bounds is None:
        return _around(painted, labels, labelled, _THIN)
    if painted is None or intersection(painted, bounds) == painted:
        return bounds
    return union(bounds, _around(painted, labels, labelled)) or bounds


def _around(painted: Box | None, labels: np.ndarray, labelled: np.ndarray, thin: int = 0) -> Box:
    everything = whole(labels.shape)
    if painted is None:
        return everything
    box, all_of_thin = [], []
    for s, size in zip(painted, labels.shape, strict=True):
        extent = s.stop - s.start
        more = max(_LEAST_MARGIN, int(MARGIN * extent))
        box.append(slice(max(0, s.start - more), min(size, s.stop + more)))
        all_of_thin.append(slice(0, size) if extent <= thin else box[-1])
    near = (box[0], box[1], box[2])
    planes = range(near[0].start, near[0].stop)
    has_background = any((labelled[k][near[1:]] & (labels[k][near[1:]] == 0)).any() for k in planes)
    return (all_of_thin[0], all_of_thin[1], all_of_thin[2]) if has_background else everything


def _extent(labels: np.ndarray, labelled: np.ndarray, tick: Tick) -> Box | None:
    """Of the labelled voxels of segments; plane by plane, so that nothing of the volume's size is made."""
    planes, rows, columns = (np.zeros(n, bool) for n in labels.shape)
    for k in range(labels.shape[0]):
        if k % 16 == 0:
            tick()
        painted = labelled[k] & (labels[k] > 0)
        along = painted.any(axis=1)
        if along.any():
            planes[k] = True
            rows |= along
            columns |= painted.any(axis=0)
    if not planes.any():
        return None
    used = [np.flatnonzero(a) for a in (planes, rows, columns)]
    return (slice(int(used[0][0]), int(used[0][-1]) + 1), slice(int(used[1][0]), int(used[1][-1]) + 1), slice(int(used[2][0]), int(used[2][-1]) + 1))


@dataclass(frozen=True)
class Cells:
    """What is in the cells of a box: mean gray (float32), commonest label (int16, -1 none, the smaller of equals), and the mean gray of the
    voxels with that label (float32, 0 where none): a border cell with the gray of the tissue around would leak; firm: as known, of the voxels that
    are not in doubt. All (k, j, i)."""

    mean: np.ndarray
    known: np.ndarray
    own: np.ndarray
    firm: np.ndarray


@dataclass(frozen=True)
class Grid:
    """region: of the volume; factors: voxels a cell, (k, j, i), the last cells may hold fewer. Boxes in cells count from the region's corner."""

    region: Box
    factors: Triple
    spacing_kji_mm: tuple[float, float, float]  # of the cells

    @classmethod
    def of(cls, region: Box, factors: Triple, spacing_kji_mm: Sequence[float]) -> Grid:
        k, j, i = (float(s) * f for s, f in zip(spacing_kji_mm, factors, strict=True))
        return cls(region, factors, (k, j, i))

    @property
    def shape(self) -> Triple:
        k, j, i = (-(-(s.stop - s.start) // f) for s, f in zip(self.region, self.factors, strict=True))
        return k, j, i

    @property
    def is_fine(self) -> bool:
        return self.factors == (1, 1, 1)

    def cells(self, voxels: Box) -> Box | None:
        """The cells that a box of the volume touches; None outside of the region."""
        box = intersection(voxels, self.region)
        if box is None:
            return None
        local = within(box, self.region)
        k, j, i = (slice(s.start // f, -(-s.stop // f)) for s, f in zip(local, self.factors, strict=True))
        return (k, j, i)

    def voxels(self, cells: Box) -> Box:
        """Those of the volume in a box of cells."""
        k, j, i = (slice(r.start + c.start * f, min(r.start + c.stop * f, r.stop)) for r, c, f in zip(self.region, cells, self.factors, strict=True))
        return (k, j, i)

    def pool(
        self,
        image: np.ndarray,
        labels: np.ndarray,
        labelled: np.ndarray,
        cells: Box | None = None,
        tick: Tick = lambda: None,
        origin: np.ndarray | None = None,
    ) -> Cells:
        """image: (K, J, I), any real type; labels: (K, J, I) uint8, used where labelled, bool; origin: (K, J, I) uint8, where labels came from, as
        in annotation.labels, strokes if None. Of a box of cells, or of all."""
        cells = cells or whole(self.shape)
        shape = [s.stop - s.start for s in cells]
        found = Cells(np.empty(shape, np.float32), np.empty(shape, np.int16), np.empty(shape, np.float32), np.empty(shape, np.int16))
        compiled = kernels()
        plane: Callable[..., None] = _pool_plane if compiled is None else compiled.pool_plane

        def planes(first: int, look_up: Tick) -> None:
            for k in range(first, shape[0], THREADS):
                look_up()
                slab = self.voxels((slice(cells[0].start + k, cells[0].start + k + 1), cells[1], cells[2]))
                gray, here, there = gray_of(image[slab]), np.ascontiguousarray(labels[slab]), np.ascontiguousarray(labelled[slab])
                doubt = in_doubt_at(slab, labels, labelled, origin) if there.any() else there
                plane(gray, here, there, doubt, self.factors[1:], found.mean[k], found.known[k], found.own[k], found.firm[k])

        together([partial(planes, first) for first in range(min(THREADS, shape[0]))], tick)
        return found


def in_doubt_at(box: Box, labels: np.ndarray, labelled: np.ndarray, origin: np.ndarray | None = None) -> np.ndarray:
    """standing.in_doubt of a box of the volume, (k, j, i) bool; labels, labelled, origin: (K, J, I)."""
    doubt = np.zeros(shape_of(box), bool)
    for rows, found in rows_in_doubt(box, labels, labelled, origin):
        doubt[within(rows, box)] = found
    return doubt


def rows_in_doubt(box: Box, labels: np.ndarray, labelled: np.ndarray, origin: np.ndarray | None = None) -> Iterator[tuple[Box, np.ndarray]]:
    """The same for those rows of the box that have labels; others cost hardly more than a look. Corrections are never in doubt: whoever draws on a
    result looks closely."""
    planes, _, columns = shape_of(box)
    depth = max(_FEW_ROWS, _FEW_VOXELS // (planes * columns))
    for j in range(box[1].start, box[1].stop, depth):
        rows = (box[0], slice(j, min(j + depth, box[1].stop)), box[2])
        if labelled[rows].any():
            around = with_margin(rows, standing.MARGIN, labels.shape)
            trusted = None if origin is None else origin[around] == CORRECTION
            yield rows, standing.in_doubt(np.array(labels[around]), np.array(labelled[around]), trusted)[within(rows, around)]


def gray_of(part: np.ndarray) -> np.ndarray:
    """float32 without NaN and infinities."""
    gray = np.ascontiguousarray(part, np.float32)
    return gray if np.issubdtype(part.dtype, np.integer) else np.nan_to_num(gray, posinf=0, neginf=0)


def _pool_plane(
    gray: np.ndarray,
    labels: np.ndarray,
    labelled: np.ndarray,
    doubt: np.ndarray,
    factors: Sequence[int],
    mean: np.ndarray,
    known: np.ndarray,
    own: np.ndarray,
    firm: np.ndarray,
) -> None:
    """As in kernels.py."""
    cell = [np.arange(n) // f for n, f in zip(gray.shape[1:], factors, strict=True)]
    total = gray.sum(axis=0, dtype=np.float64)
    for axis, f in enumerate(factors):
        total = np.add.reduceat(total, np.arange(0, gray.shape[axis + 1], f), axis=axis)
    mean[:] = total / (gray.shape[0] * np.outer(*[np.bincount(c) for c in cell]))
    known[:], own[:], firm[:] = -1, 0, -1
    for chosen, commonest in ((labelled, known), (labelled & ~doubt, firm)):
        where = np.nonzero(chosen)
        code = (cell[0][where[1]] * mean.shape[1] + cell[1][where[2]]) * 256 + labels[where]
        codes, inverse, counts = np.unique(code, return_inverse=True, return_counts=True)
        order = np.lexsort((-codes, counts))  # the commonest is written last, the smaller label of equals
        commonest.reshape(-1)[codes[order] // 256] = codes[order] % 256
        if commonest is known:
            grays = np.bincount(inverse, gray[where], minlength=len(codes))
            own.reshape(-1)[codes[order] // 256] = grays[order] / counts[order]
