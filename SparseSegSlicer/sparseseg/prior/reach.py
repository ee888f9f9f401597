"""How far a correction reaches: beyond, what the user saw and left as it was stands.

A short stroke in a wide gap between annotated slices would carry its label through the whole gap, as nobody labelled anything nearer that could
stop it. But the user saw the result there and corrected one spot of it. So the new prior counts by how much nearer a voxel lies to the
change than to any other annotation.

Measured with five simulated strokes on each of four pairs of real case and annotation: what strokes changed was right by far more often than wrong
within half of the distance to other annotation, and wrong more often than right beyond.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..contract.belief import Belief
from .growing import coarsening, signed_distance

HALF = 0.75  # of the distance to other annotation, from the change: there old and new prior count alike
WORKING_VOXELS = 1_500_000  # distances are measured on a coarser grid where the volume has more


def within_reach(before: Belief, after: Belief, changed: np.ndarray, labelled: np.ndarray, spacing_kji_mm: Sequence[float]) -> Belief:
    """The new prior near the change, the old one far from it.

    before, after: the priors of two annotations; changed: (K, J, I) bool, where these differ; labelled: (K, J, I) bool, the voxels that have a
    label in the newer one: they are as `after` has them. Where both priors say the same, the confidence is that of `after`. Elsewhere with d the
    distance to the change, D that to the rest of the annotation (mm) and a = 1 / (1 + (d / (HALF D))^2), the label of `after` stands where a
    times its logit is at least 1 - a times that of `before`.
    """
    at = np.nonzero((before.label != after.label) & ~labelled)
    if not len(at[0]):
        return after
    share = _share(at, changed, labelled & ~changed, spacing_kji_mm)
    new, old = share * _logit(after.confidence[at]), (1 - share) * _logit(before.confidence[at])
    label, confidence = after.label.copy(), after.confidence.copy()
    label[at] = np.where(new >= old, after.label[at], before.label[at])
    confidence[at] = np.minimum(255 / (1 + np.exp(-np.abs(new - old))), 254)
    return Belief(label, confidence)


def _share(at: tuple[np.ndarray, ...], changed: np.ndarray, others: np.ndarray, spacing_kji_mm: Sequence[float]) -> np.ndarray:
    """How much the new prior counts at these voxels, (n,) float32 in 0..1."""
    factors = coarsening(changed.shape, spacing_kji_mm, WORKING_VOXELS)
    place = tuple(a // f for a, f in zip(at, factors, strict=True))
    near, far = (_distance(mask, factors, spacing_kji_mm)[place] for mask in (changed, others))
    far = np.maximum(far, np.float32(min(spacing_kji_mm) / 2))  # 0 where other annotation lies in the same working voxel
    ratio = near / (HALF * far)
    return 1 / (1 + ratio**2)


def _distance(mask: np.ndarray, factors: Sequence[int], spacing_kji_mm: Sequence[float]) -> np.ndarray:
    """To the nearest voxel of the mask, mm, float32, on a grid whose voxels are factors (k, j, i) of the volume's; infinite without any."""
    small = np.zeros([-(-n // f) for n, f in zip(mask.shape, factors, strict=True)], bool)
    small[tuple(a // f for a, f in zip(np.nonzero(mask), factors, strict=True))] = True
    if not small.any():
        return np.full(small.shape, np.inf, np.float32)
    return np.maximum(-signed_distance(small, [s * f for s, f in zip(spacing_kji_mm, factors, strict=True)]), 0)


def _logit(confidence: np.ndarray) -> np.ndarray:
    """Of a chance in 255ths, a little above 0, so that among unknowns the nearer one wins; (n,) float32."""
    chance = np.clip(confidence.astype(np.float32) / 255, 0.5, 0.999)
    return np.log(chance / (1 - chance)) + np.float32(1e-3)
