"""Which slices are shown, and which way round: radiological display."""

from __future__ import annotations

import math
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
    """A chosen slice: along array axis `axis`; `far_mm` from the nearest annotated one (0: it is one; None: there is none this way); `labelled`: the
    share of its voxels; `why` it is shown, where not for being annotated or far from that."""

    plane: str
    axis: int
    index: int
    far_mm: float | None
    labelled: float
    why: str = ""


MIDDLE, UNSURE = "through the middle of the segments", "where the result is least sure"


def choose_slices(data: ReportInput) -> list[Slice]:
    """For each orientation the best annotated slice, where there is one, and two with segments in them as far from annotation as possible; where the
    uncertainty is known also the slice that holds most of it, and one through the middle of the segments."""
    sums = _sums(data)
    covers = sums.covers()
    best = max(float(c.max()) for c in covers)
    chosen = []
    for plane in PLANES:
        axis = data.geometry.plane_axis(plane)
        seen = np.flatnonzero(_annotated(covers[axis], best))
        share, painted, content = sums.labelled[axis] / sums.size(axis), sums.painted[axis], sums.content[axis]
        first = int(seen[painted[seen].argmax()]) if len(seen) else int(content.argmax())
        spacing = data.geometry.spacing_kji_mm[axis]
        far = np.abs(np.arange(len(content))[:, None] - seen).min(axis=1) * spacing if len(seen) else None
        picks = dict.fromkeys([first, *_farthest(content, seen if len(seen) else np.array([first]), 2 if len(seen) else 1)], "")
        if data.uncertainty is not None:
            middle, unsure = int(np.searchsorted(content.cumsum(), content.sum() / 2)), sums.unsure[axis]
            picks |= ({middle: MIDDLE} if content.any() else {}) | ({int(unsure.argmax()): UNSURE} if unsure.any() else {})
        chosen += [Slice(plane, axis, n, None if far is None else float(far[n]), float(share[n]), why) for n, why in picks.items()]
    return chosen


@dataclass
class _Sums:
    """For each axis, of each slice along it: how many voxels are labelled, painted with segments, and segments in the result; the uncertainty where
    nobody annotated; and the labelled 2 x 2 squares in it."""

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        self.labelled, self.painted, self.content, self.unsure, self.squares = ([np.zeros(n, np.int64) for n in self.shape] for _ in range(5))

    def size(self, axis: int) -> int:
        """Voxels of a slice along it."""
        return math.prod(self.shape) // self.shape[axis]

    def covers(self) -> list[np.ndarray]:
        """How much of each slice is filled with labelled squares: the lines that crossing slices leave hold none. Plain shares of labelled voxels
        where all strokes are too thin for that."""
        counts = self.squares if any(s.any() for s in self.squares) else self.labelled
        return [count / self.size(axis) for axis, count in enumerate(counts)]


def _sums(data: ReportInput) -> _Sums:
    """A plane after the other: the arrays may be larger than memory."""
    sums = _Sums(data.dense.shape)
    before = np.zeros(sums.shape[1:], bool)
    for k, (annotation, dense) in enumerate(zip(data.annotation, data.dense, strict=True)):
        labelled = np.asarray(annotation) > 0
        for found, plane in ((sums.labelled, labelled), (sums.painted, annotation > 1), (sums.content, dense > 0)):
            _add(found, k, plane)
        if data.uncertainty is not None:
            _add(sums.unsure, k, np.where(labelled, 0, data.uncertainty[k]))
        if labelled.any():
            rows, both = labelled[1:] & labelled[:-1], labelled & before
            sums.squares[0][k] = np.count_nonzero(rows[:, 1:] & rows[:, :-1])
            sums.squares[1] += np.count_nonzero(both[:, 1:] & both[:, :-1], axis=1)
            sums.squares[2] += np.count_nonzero(both[1:] & both[:-1], axis=0)
        before = labelled
    return sums


def _add(sums: list[np.ndarray], k: int, plane: np.ndarray) -> None:
    rows = plane.sum(axis=1, dtype=np.int64)
    sums[0][k] += rows.sum()
    sums[1] += rows
    sums[2] += plane.sum(axis=0, dtype=np.int64)


def _annotated(cover: np.ndarray, best: float) -> np.ndarray:
    return np.asarray((cover > 0) & (cover >= _ANNOTATED * best) & ((cover > 2 * np.median(cover)) | (cover >= _SURELY * best)))


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
