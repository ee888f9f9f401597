"""How good a label map is where nobody annotated: Dice, surface Dice at one voxel and HD95, for each segment.

Overlap counts voxels whose annotation is 0. Surfaces are those of the whole structures (cutting them at annotated slices would make surfaces that
are none), and of their voxels those count whose annotation is 0. A surface voxel has one of its six neighbours outside of the structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from cases import score

TOLERANCE_VOXELS = 1.0
METRICS = ("dice", "surface_dice", "hd95_mm")


def scores(result: np.ndarray, truth: np.ndarray, annotation: np.ndarray, spacing_kji_mm: Sequence[float]) -> dict[str, Any]:
    """{metric: {"mean": number or None, "segments": [number or None, ...]}}; None where neither map has the segment among the counted voxels.

    result, truth: (K, J, I) uint8, 0 background, c segment c; annotation: (K, J, I) uint8, 0 unlabelled. The annotation stands in the result.
    """
    result = with_annotation(result, annotation)
    surfaces = [surface_scores(result == c, truth == c, annotation == 0, spacing_kji_mm) for c in range(1, int(truth.max()) + 1)]
    columns = (score(result, truth, annotation), [s[0] for s in surfaces], [s[1] for s in surfaces])
    return {name: {"mean": mean_of(values), "segments": [number(v) for v in values]} for name, values in zip(METRICS, columns, strict=True)}


def mean_dice(result: np.ndarray, truth: np.ndarray, annotation: np.ndarray) -> float | None:
    """The mean over the segments of truth, quicker than all scores."""
    by_segment, _ = overlap(result, truth, annotation)
    return mean_of([dice for c, dice in by_segment.items() if c <= truth.max()])


def painted_dice(result: np.ndarray, truth: np.ndarray, annotation: np.ndarray) -> dict[int, float]:
    """Dice of each segment that the annotation has, on the voxels that it leaves unlabelled. Segments that neither map has there are left out."""
    by_segment, painted = overlap(result, truth, annotation)
    return {c: dice for c, dice in by_segment.items() if c in painted}


def overlap(result: np.ndarray, truth: np.ndarray, annotation: np.ndarray) -> tuple[dict[int, float], set[int]]:
    """Dice of each segment that either map has on the voxels that the annotation leaves unlabelled; and the segments that the annotation has.

    Plane by plane, so that a large volume is no more work than it must be.
    """
    classes = int(max(truth.max(), result.max())) + 1
    counts, painted = np.zeros((classes, classes), np.int64), np.zeros(256, bool)
    for ours, theirs, drawn in zip(result, truth, annotation, strict=True):
        unseen = drawn == 0
        code = ours[unseen].astype(np.int32) * classes + theirs[unseen]
        counts += np.bincount(code, minlength=classes**2).reshape(classes, classes)
        painted[np.unique(drawn[~unseen])] = True
    sizes = counts.sum(0) + counts.sum(1)
    by_segment = {c: float(2 * counts[c, c] / sizes[c]) for c in range(1, classes) if sizes[c]}
    return by_segment, {int(value) - 1 for value in np.flatnonzero(painted) if value > 1}


def with_annotation(result: np.ndarray, annotation: np.ndarray) -> np.ndarray:
    return np.where(annotation > 0, annotation - 1, result).astype(np.uint8)


def surface_scores(result: np.ndarray, truth: np.ndarray, counted: np.ndarray, spacing_kji_mm: Sequence[float]) -> tuple[float, float]:
    """Surface Dice (tolerance TOLERANCE_VOXELS, voxels as cubes of side 1) and 95 % Hausdorff distance (mm, the larger of the two directions).

    All bool (K, J, I). A structure that only one of them has: 0 and the volume's diagonal. nan where no surface voxel counts.
    """
    a, b = surface(result), surface(truth)
    if not a.any() or not b.any():
        none = not ((a | b) & counted).any()
        diagonal = float(np.linalg.norm(np.multiply(result.shape, spacing_kji_mm)))
        return (float("nan"), float("nan")) if none else (0.0, diagonal)
    box = bounding_box(a | b)
    a, b, counted = a[box], b[box], counted[box]
    voxels = [distance(b, (1, 1, 1))[a & counted], distance(a, (1, 1, 1))[b & counted]]
    mm = [distance(b, spacing_kji_mm)[a & counted], distance(a, spacing_kji_mm)[b & counted]]
    total = sum(map(len, voxels))
    if not total:
        return float("nan"), float("nan")
    near = sum(int((d <= TOLERANCE_VOXELS + 1e-4).sum()) for d in voxels)
    return near / total, max(float(np.percentile(d, 95)) for d in mm if len(d))


def surface(mask: np.ndarray) -> np.ndarray:
    """The voxels of the mask that have one of their six neighbours outside of it; beyond the volume is outside. Bool (K, J, I)."""
    padded = np.pad(mask, 1)
    inner = padded.copy()
    for axis in range(3):
        inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    return mask & ~inner[1:-1, 1:-1, 1:-1]


def distance(to: np.ndarray, spacing_kji_mm: Sequence[float]) -> np.ndarray:
    """Each voxel's distance to the nearest voxel of the mask, which must not be empty; (K, J, I) float32."""
    image = sitk.GetImageFromArray(to.astype(np.uint8))
    image.SetSpacing([float(s) for s in spacing_kji_mm[::-1]])
    squared = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=True, useImageSpacing=True)
    far = np.sqrt(np.maximum(sitk.GetArrayFromImage(squared), 0))
    far[to] = 0
    return far


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(3):
        found = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def number(value: float) -> float | None:
    """JSON has no nan."""
    return round(float(value), 5) if np.isfinite(value) else None


def mean_of(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None and np.isfinite(v)]
    return number(float(np.mean(known))) if known else None
