"""A box or ball in space as voxels: asked plane by plane or point by point, so that nothing of the volume's size is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .box import Box, intersection, shape_of, whole
from .geometry import Geometry

_ON_THE_EDGE = 1e-6  # of the half length: a voxel whose centre lies on the face is inside, whatever rounding says


@dataclass(frozen=True)
class Region:
    """box: the least box of voxels that may hold it, within the volume; rows, (3, 4): a voxel (k, j, i, 1) lies at rows @ it, in half lengths along
    the region's axes; it is inside where each of these is at most 1 (a box), or their squares' sum is (a ball). fills_box: all of `box` is inside."""

    box: Box
    rows: np.ndarray
    is_ball: bool
    fills_box: bool
    voxel_mm3: float

    @classmethod
    def of_box(cls, center_lps_mm: Sequence[float], size_mm: Sequence[float], axes: Sequence[Sequence[float]], geometry: Geometry) -> Region | None:
        """axes: three unit vectors, LPS; None where no voxel's centre lies in it."""
        region = cls._of(np.array(center_lps_mm), np.array(size_mm) / 2, np.array(axes), geometry, is_ball=False)
        return region if region is not None and region.voxels else None

    @classmethod
    def of_ball(cls, center_lps_mm: Sequence[float], radius_mm: float, geometry: Geometry) -> Region:
        """The voxel nearest to the centre is always in it. The centre must lie in the volume."""
        center = np.linalg.solve(geometry.matrix, [*center_lps_mm, 1])
        nearest = geometry.matrix @ np.rint(center)
        reach = max(radius_mm, float(np.linalg.norm((nearest - [*center_lps_mm, 1])[:3])), 1e-3 * min(geometry.spacing_kji_mm))
        region = cls._of(np.array(center_lps_mm), np.full(3, reach), np.eye(3), geometry, is_ball=True)
        assert region is not None
        return region

    @classmethod
    def _of(cls, center: np.ndarray, half: np.ndarray, axes: np.ndarray, geometry: Geometry, is_ball: bool) -> Region | None:
        rows = (axes / half[:, None]) @ geometry.matrix[:3]
        rows[:, 3] -= (axes / half[:, None]) @ center
        rows = rows[:, [2, 1, 0, 3]]
        to_voxels = np.linalg.inv(rows[:, :3])
        middle = -to_voxels @ rows[:, 3]
        reach = np.linalg.norm(to_voxels, axis=1) if is_ball else np.abs(to_voxels).sum(axis=1)
        low = np.ceil(middle - reach * (1 + _ON_THE_EDGE)).clip(-1, np.array(geometry.shape_kji) + 1).astype(int)
        high = np.floor(middle + reach * (1 + _ON_THE_EDGE)).clip(-2, geometry.shape_kji).astype(int)
        box = intersection((slice(low[0], high[0] + 1), slice(low[1], high[1] + 1), slice(low[2], high[2] + 1)), whole(geometry.shape_kji))
        if box is None:
            return None
        k, j, i = (slice(int(s.start), int(s.stop)) for s in box)
        along = np.abs(rows[:, :3])
        straight = bool((np.sort(along, axis=1)[:, :2] <= _ON_THE_EDGE * along.max(axis=1, keepdims=True)).all())
        return cls((k, j, i), rows, is_ball, straight and not is_ball, float(np.prod(geometry.spacing_kji_mm)))

    @property
    def voxels(self) -> int:
        """How many it holds."""
        if self.fills_box:
            return int(np.prod(shape_of(self.box)))
        return sum(int(self.plane(k).sum()) for k in range(self.box[0].start, self.box[0].stop))

    @property
    def volume_ml(self) -> float:
        return self.voxels * self.voxel_mm3 / 1000

    def holds(self, places: np.ndarray) -> np.ndarray:
        """Whether voxels, (3, n) k, j, i, are in it: (n,) bool."""
        at = self.rows[:, :3] @ places + self.rows[:, 3:]
        return np.asarray((at**2).sum(axis=0) <= 1 + 2 * _ON_THE_EDGE) if self.is_ball else np.asarray((np.abs(at) <= 1 + _ON_THE_EDGE).all(axis=0))

    def plane(self, k: int) -> np.ndarray:
        """Which voxels of `box` on one of its slices are in it, (j, i) bool."""
        j, i = (np.arange(s.start, s.stop) for s in self.box[1:])
        if self.fills_box:
            return np.ones((len(j), len(i)), bool)
        at = [row[0] * k + row[3] + (row[1] * j)[:, None] + (row[2] * i)[None] for row in self.rows]
        if self.is_ball:
            return np.asarray(at[0] ** 2 + at[1] ** 2 + at[2] ** 2 <= 1 + 2 * _ON_THE_EDGE)
        return np.asarray((np.abs(at[0]) <= 1 + _ON_THE_EDGE) & (np.abs(at[1]) <= 1 + _ON_THE_EDGE) & (np.abs(at[2]) <= 1 + _ON_THE_EDGE))

    def places(self) -> np.ndarray:
        """All its voxels, (3, n) int64 k, j, i, in their order in memory."""
        found = []
        for k in range(self.box[0].start, self.box[0].stop):
            j, i = np.nonzero(self.plane(k))
            found.append(np.stack([np.full(len(j), k), j + self.box[1].start, i + self.box[2].start]))
        return np.concatenate(found, axis=1).astype(np.int64)
