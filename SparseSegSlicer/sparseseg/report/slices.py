"""Which slices are shown, and which way round: radiological display."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contract.geometry import Geometry
from .data import ReportInput

PLANES = {  # LPS axis of slices, columns and rows; whether rows run against theirs; letters left, right, top, bottom; ends of the slices' axis
    "axial": (2, 0, 1, False, "RLAP", "IS"),
    "coronal": (1, 0, 2, True, "RLSI", "AP"),
    "sagittal": (0, 1, 2, True, "APSI", "RL"),
}
LPS_AXIS = {plane: row[0] for plane, row in PLANES.items()}
_ANNOTATED = 0.05  # of the best annotated slice's cover makes a slice an annotated one ...
_SURELY = 0.5  # ... and this much in any case; below that it must stand out from the others along its axis, which slabs may cross
_WORTH_SEEING = 0.2  # of the fullest slice's segment voxels


@dataclass(frozen=True)
class Slice:
    """A chosen slice: along array axis `axis`; `far_mm` from the nearest annotated one (0: it is one; None: there is none this way)."""

    plane: str
    axis: int
    index: int
    far_mm: float | None
    labelled: float  # share of its voxels


def choose_slices(data: ReportInput) -> list[Slice]:
    """For each orientation the best annotated slice, where there is one, and two with segments in them as far from annotation as possible."""
    labelled = np.asarray(data.annotation) > 0
    covers = _covers(labelled)
    best = max(float(c.max()) for c in covers)
    chosen = []
    for plane in PLANES:
        axis = data.geometry.plane_axis(plane)
        others = tuple(a for a in range(3) if a != axis)
        seen = np.flatnonzero(_annotated(covers[axis], best))
        share, painted = labelled.mean(axis=others), (np.asarray(data.annotation) > 1).sum(axis=others)
        content = (np.asarray(data.dense) > 0).sum(axis=others)
        first = int(seen[painted[seen].argmax()]) if len(seen) else int(content.argmax())
        spacing = data.geometry.spacing_kji_mm[axis]
        far = np.abs(np.arange(len(content))[:, None] - seen).min(axis=1) * spacing if len(seen) else None
        picks = _farthest(content, seen if len(seen) else np.array([first]), 2 if len(seen) else 1)
        chosen += [Slice(plane, axis, n, None if far is None else float(far[n]), float(share[n])) for n in [first, *picks]]
    return chosen


def _annotated(cover: np.ndarray, best: float) -> np.ndarray:
    return np.asarray((cover > 0) & (cover >= _ANNOTATED * best) & ((cover > 2 * np.median(cover)) | (cover >= _SURELY * best)))


def _covers(labelled: np.ndarray) -> list[np.ndarray]:
    """For each axis, how much of each slice is filled with labelled 2 x 2 squares: the lines that crossing slices leave hold none.

    Plain shares of labelled voxels where all strokes are too thin for that.
    """
    squares = []
    for axis in range(3):
        volume = np.moveaxis(labelled, axis, 0)
        rows = volume[:, 1:] & volume[:, :-1]
        squares.append((rows[:, :, 1:] & rows[:, :, :-1]).sum(axis=(1, 2)) / volume[0].size)
    if any(s.any() for s in squares):
        return squares
    return [labelled.mean(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]


def _farthest(content: np.ndarray, taken: np.ndarray, count: int) -> list[int]:
    """Up to `count` slices worth seeing, each as far as possible from all taken ones, the fuller one on a tie."""
    worth = content >= max(1.0, _WORTH_SEEING * float(content.max()))
    picks: list[int] = []
    for _ in range(count):
        apart = np.abs(np.arange(len(content))[:, None] - np.array([*taken, *picks])).min(axis=1) * worth
        if apart.max() == 0:
            break
        picks.append(int(max(np.flatnonzero(apart == apart.max()), key=lambda n: content[n])))
    return picks


def display_slice(array: np.ndarray, geometry: Geometry, plane: str, index: int) -> np.ndarray:
    """The slice of a (K, J, I) array as it is shown, (rows, columns): axial with R left and A up, coronal R left, S up, sagittal A left, S up."""
    _, column_lps, row_lps, rows_against, _, _ = PLANES[plane]
    axes = [LPS_AXIS[p] for p in geometry.planes()]  # LPS axis of each array axis
    taken = np.asarray(array[tuple(index if n == geometry.plane_axis(plane) else slice(None) for n in range(3))])
    if axes.index(row_lps) > axes.index(column_lps):
        taken = taken.T
    flip_row = (_along(geometry, axes.index(row_lps), row_lps) < 0) != rows_against
    flip_column = _along(geometry, axes.index(column_lps), column_lps) < 0
    return taken[:: -1 if flip_row else 1, :: -1 if flip_column else 1]


def pixel_mm(geometry: Geometry, plane: str) -> tuple[float, float]:
    """Height and width in mm of a pixel of display_slice."""
    axes = [LPS_AXIS[p] for p in geometry.planes()]
    _, column_lps, row_lps, *_ = PLANES[plane]
    return geometry.spacing_kji_mm[axes.index(row_lps)], geometry.spacing_kji_mm[axes.index(column_lps)]


def _along(geometry: Geometry, axis: int, lps: int) -> float:
    return float(geometry.matrix[lps, 2 - axis])
