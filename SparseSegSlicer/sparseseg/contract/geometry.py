"""Where a voxel grid lies in the patient.

Conventions, here and in the whole engine: arrays are (K, J, I), the slowest axis first; indices written IJK are fastest first;
world coordinates are LPS millimetres (as in DICOM and ITK). RAS (as in Slicer and NIfTI) appears only in the two methods named so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InputError

SAME_POINT_MM = 1e-3  # corners of two grids closer than this are the same: far below any voxel, above float32 header rounding
_TURNED = 0.01  # axes of unit length that end farther apart than this (about half a degree) are turned, whatever else differs
_LONGEST_AXIS, _MOST_VOXELS = 2**20, 2**40  # beyond what any scanner makes, and far below where products of whole numbers overflow
_SPACINGS_MM = (1e-7, 1e5)  # from below a light microscope's to above a body
_FARTHEST_MM = 1e9
_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_REEXPORT = "Re-export the volume with a valid orientation."
_PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # the LPS axis that a plane's slices are stacked along


@dataclass(frozen=True)
class Geometry:
    """A voxel grid: `shape_kji` voxels, and `ijk_to_lps`, the 4 x 4 matrix from (i, j, k, 1) to LPS millimetres (voxel centres)."""

    shape_kji: tuple[int, int, int]
    ijk_to_lps: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        matrix = np.asarray(self.ijk_to_lps, dtype=float)
        if len(self.shape_kji) != 3 or not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 1 for n in self.shape_kji):
            raise InputError(f"A volume needs three axes of at least one voxel, got shape {tuple(self.shape_kji)}.")
        if max(self.shape_kji) > _LONGEST_AXIS or math.prod(map(int, self.shape_kji)) > _MOST_VOXELS:
            raise InputError(f"{_times(self.shape_kji):.80} voxels are no volume that can be worked on.", "Look at the file's header, or crop it.")
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not _spans_space(matrix[:3, :3]):
            raise InputError("The volume's geometry is unusable: its axes do not span space.", _REEXPORT)
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if spacing.min() < _SPACINGS_MM[0] or spacing.max() > _SPACINGS_MM[1] or np.abs(matrix[:3, 3]).max() > _FARTHEST_MM:
            raise InputError(f"The volume's geometry is unusable: voxels of {_mm(spacing)} mm at {_mm(matrix[:3, 3])} mm.", _REEXPORT)
        if not np.array_equal(matrix[3], (0, 0, 0, 1)):
            raise InputError("The volume's geometry is unusable: its matrix does not end in 0 0 0 1.", _REEXPORT)
        object.__setattr__(self, "shape_kji", tuple(int(n) for n in self.shape_kji))
        object.__setattr__(self, "ijk_to_lps", tuple(tuple(float(v) for v in row) for row in matrix))

    @classmethod
    def from_axes(
        cls,
        shape_kji: Sequence[int],
        spacing_ijk_mm: Sequence[float],
        origin_lps_mm: Sequence[float] = (0, 0, 0),
        direction: Sequence[float] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
    ) -> Geometry:
        """From ITK's terms: spacing in IJK order, origin, and the direction cosines as nine numbers, row by row."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(direction, dtype=float).reshape(3, 3) * np.asarray(spacing_ijk_mm, dtype=float)
        matrix[:3, 3] = origin_lps_mm
        return cls(tuple(shape_kji), tuple(map(tuple, matrix)))  # type: ignore[arg-type]

    @classmethod
    def from_ijk_to_ras(cls, shape_kji: Sequence[int], ijk_to_ras: Any) -> Geometry:
        """From Slicer's terms: a 4 x 4 matrix from (i, j, k, 1) to RAS millimetres."""
        return cls(tuple(shape_kji), tuple(map(tuple, _LPS_RAS @ np.asarray(ijk_to_ras, dtype=float))))  # type: ignore[arg-type]

    def ijk_to_ras(self) -> np.ndarray:
        """The 4 x 4 matrix from (i, j, k, 1) to RAS millimetres."""
        return _LPS_RAS @ self.matrix

    @property
    def matrix(self) -> np.ndarray:
        return np.array(self.ijk_to_lps)

    @property
    def spacing_ijk_mm(self) -> tuple[float, ...]:
        return tuple(float(v) for v in np.linalg.norm(self.matrix[:3, :3], axis=0))

    @property
    def spacing_kji_mm(self) -> tuple[float, float, float]:
        i, j, k = self.spacing_ijk_mm
        return (k, j, i)

    @property
    def origin_lps_mm(self) -> tuple[float, ...]:
        return tuple(float(v) for v in self.matrix[:3, 3])

    @property
    def direction(self) -> tuple[float, ...]:
        """Direction cosines, nine numbers row by row, as ITK has them."""
        return tuple(float(v) for v in (self.matrix[:3, :3] / np.array(self.spacing_ijk_mm)).ravel())

    @property
    def voxels(self) -> int:
        return int(np.prod(self.shape_kji))

    def plane_axis(self, plane: str) -> int:
        """The array axis (0 = k, 1 = j, 2 = i) along which the slices of `plane` (axial, coronal, sagittal) are stacked.

        Oblique volumes: the assignment of the three array axes to the three planes that fits best as a whole.
        """
        if plane not in _PLANES:
            raise InputError(f"Unknown orientation {plane!r}.", "Use axial, coronal or sagittal.")
        return self.planes().index(plane)

    def planes(self) -> tuple[str, str, str]:
        """The plane's name for each array axis, in (k, j, i) order; each name appears once."""
        cosines = np.abs(np.array(self.direction).reshape(3, 3))  # [LPS axis, IJK axis]
        best = max(
            ((a, b, c) for a in range(3) for b in range(3) for c in range(3) if len({a, b, c}) == 3),
            key=lambda p: sum(cosines[p[n], n] for n in range(3)),
        )
        names = {axis: name for name, axis in _PLANES.items()}
        return (names[best[2]], names[best[1]], names[best[0]])

    def difference_from(self, other: Geometry) -> str:
        """How this grid differs from `other`, in words; empty where they are the same within SAME_POINT_MM at every corner.

        Of a voxel's size, the tolerance is at least a thousandth and at most a tenth. Where spacing, direction and origin differ a little,
        the one is named that moves the corners most.
        """
        if self.shape_kji != other.shape_kji:
            return f"{_times(self.shape_kji)} voxels instead of {_times(other.shape_kji)} (k x j x i)"
        if not np.allclose(self.spacing_kji_mm, other.spacing_kji_mm, rtol=1e-4):
            return f"spacing {_mm(self.spacing_kji_mm)} mm instead of {_mm(other.spacing_kji_mm)} mm (k x j x i)"
        corners = np.array(
            [(i, j, k, 1) for k in (0, self.shape_kji[0] - 1) for j in (0, self.shape_kji[1] - 1) for i in (0, self.shape_kji[2] - 1)], dtype=float
        )
        apart = np.linalg.norm((corners @ (self.matrix - other.matrix).T)[:, :3], axis=1)
        voxel = min(self.spacing_kji_mm)
        if apart.max() <= max(min(SAME_POINT_MM, 0.1 * voxel), 1e-3 * voxel):
            return ""
        by_spacing, by_direction, by_origin, turned = self._shares_of_difference(other)
        if turned > _TURNED or by_direction >= max(by_spacing, by_origin):
            return f"axes turned or flipped (corners up to {apart.max():.3g} mm apart)"
        if by_spacing > by_origin:
            spacings = f"{_mm(self.spacing_kji_mm)} mm instead of {_mm(other.spacing_kji_mm)} mm"
            return f"spacing {spacings} (k x j x i; corners up to {apart.max():.3g} mm apart)"
        return f"origin {_mm(self.origin_lps_mm)} instead of {_mm(other.origin_lps_mm)} (LPS mm)"

    def _shares_of_difference(self, other: Geometry) -> tuple[float, float, float, float]:
        """How far (mm) other spacing, other direction and another origin alone move a corner at most; and the largest change of a direction."""
        steps = np.array(self.shape_kji[::-1]) - 1
        spacing = np.array(self.spacing_ijk_mm)
        turned = np.linalg.norm((self.matrix[:3, :3] / spacing - other.matrix[:3, :3] / np.array(other.spacing_ijk_mm)), axis=0) * (steps > 0)
        by_spacing = steps * np.abs(spacing - np.array(other.spacing_ijk_mm))
        by_origin = np.linalg.norm(np.array(self.origin_lps_mm) - other.origin_lps_mm)
        return float(by_spacing.max()), float((steps * spacing * turned).max()), float(by_origin), float(turned.max())

    def to_json(self) -> dict[str, Any]:
        return {"shape_kji": list(self.shape_kji), "ijk_to_lps": [list(row) for row in self.ijk_to_lps]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Geometry:
        rows = tuple(map(tuple, data["ijk_to_lps"]))
        if not all(type(v) in (int, float) for row in rows for v in row):
            raise InputError("The volume's geometry is unusable: its matrix holds something else than numbers.", _REEXPORT)
        return cls(tuple(data["shape_kji"]), rows)


def _spans_space(axes: np.ndarray) -> bool:
    """Whether the columns are three independent directions, however short."""
    lengths = np.linalg.norm(axes, axis=0)
    return bool(np.isfinite(lengths).all() and lengths.min() > 0 and abs(np.linalg.det(axes / lengths)) > 1e-6)


def _times(values: Sequence[int]) -> str:
    return " x ".join(str(v) for v in values)


def _mm(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{v:.6g}" for v in values)
