"""Annotation as hands make it, from exact annotation: contours beside the edge, brushes that are thick or cross the border, instances forgotten.

Annotation maps are (K, J, I) uint8: 0 unlabelled, 1 background, 1 + c segment c; truth is uint8, 0 background, c segment c.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F

from sparseseg.annotation.slices import plane

Rng = np.random.Generator
Slice = tuple[int, int]  # axis, index
_WAVELENGTH = 12  # voxels, along which a contour strays to one side


def complete_slices(annotation: np.ndarray) -> list[Slice]:
    """Those labelled throughout."""
    known = annotation > 0
    return [(a, int(n)) for a in range(3) for n in np.flatnonzero(known.all(axis=tuple(b for b in range(3) if b != a)))]


def contours_off(rng: Rng, annotation: np.ndarray, voxels: float) -> np.ndarray:
    """Each complete slice bent by a smooth random field of so many voxels (standard deviation), within the slice."""
    out = annotation.copy()
    for at in complete_slices(annotation):
        out[plane(*at)] = _bent(rng, out[plane(*at)], voxels)
    return out


def _bent(rng: Rng, labels: np.ndarray, voxels: float) -> np.ndarray:
    """(j, i) uint8, the nearest label at a place that strays."""
    coarse = [max(2, n // _WAVELENGTH + 1) for n in labels.shape]
    field = torch.from_numpy(rng.normal(0, voxels, (1, 2, *coarse)))
    stray = F.interpolate(field, size=labels.shape, mode="bicubic", align_corners=True)[0].numpy()
    there = np.rint(np.indices(labels.shape) + stray).astype(np.intp)
    j, i = (np.clip(t, 0, n - 1) for t, n in zip(there, labels.shape, strict=True))
    return labels[j, i]


def brushed(annotation: np.ndarray, truth: np.ndarray, radius: int, over: int = 0) -> np.ndarray:
    """Strokes drawn again with a brush of this radius (voxels, city blocks) in the slices that they lie on; they stay in what they label, or leave it
    by `over` voxels."""
    out = np.zeros_like(annotation)
    for value in range(1, int(annotation.max(initial=0)) + 1):
        mine, inside = annotation == value, truth == value - 1
        wide = np.zeros_like(mine)
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            for index in np.flatnonzero(np.count_nonzero(mine, axis=others) >= 4):
                at = plane(axis, int(index))
                wide[at] |= grown_by(mine[at], radius)
        allowed = grown_by(inside, over)
        out[((wide & allowed) | mine) & ((out == 0) | mine)] = value
    return out


def brush(line: np.ndarray, at: Slice, inside: np.ndarray, radius: int, over: int) -> np.ndarray:
    """What a brush of this radius (voxels, city blocks) paints along a line in a slice: in that slice alone, at most `over` voxels out of `inside`.

    line, inside (what is meant to be painted): (K, J, I) bool, as is what comes.
    """
    painted, flat = np.zeros_like(line), plane(*at)
    painted[flat] = grown_by(line[flat], radius) & grown_by(inside[flat], over)
    return painted


def grown_by(mask: np.ndarray, voxels: int) -> np.ndarray:
    """A mask and what lies within so many steps across faces of it."""
    out = mask.copy()
    for _ in range(voxels):
        before = out.copy()
        for axis in range(mask.ndim):
            a, b = np.moveaxis(out, axis, 0), np.moveaxis(before, axis, 0)
            a[1:] |= b[:-1]
            a[:-1] |= b[1:]
    return out


def pieces(annotation: np.ndarray, at: Slice, least: int) -> list[tuple[int, np.ndarray]]:
    """Connected pieces of segments on a slice, of so many voxels at least: annotation value and mask, (j, i) bool."""
    found = []
    labels = annotation[plane(*at)]
    for value in range(2, int(labels.max(initial=0)) + 1):
        parts = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray((labels == value).astype(np.uint8))))
        sizes = np.bincount(parts.ravel())
        found += [(value, parts == n) for n in range(1, len(sizes)) if sizes[n] >= least]
    return found


def with_mistake(
    rng: Rng, annotation: np.ndarray, kind: str, least: int = 20, slices: Sequence[Slice] | None = None
) -> tuple[np.ndarray, Slice, np.ndarray] | None:
    """One gross mistake on a complete slice: a piece of a segment is "forgotten" (background there), or "mislabelled" (another segment's label).

    Returns the annotation, the slice and the piece, (j, i) bool; None where no slice has such a piece.
    """
    choices = [(at, *piece) for at in (complete_slices(annotation) if slices is None else slices) for piece in pieces(annotation, at, least)]
    if not choices:
        return None
    at, value, mask = choices[int(rng.integers(len(choices)))]
    others = [int(v) for v in np.unique(annotation) if v > 1 and v != value]
    if kind == "mislabelled" and not others:
        return None
    out = annotation.copy()
    out[plane(*at)][mask] = 1 if kind == "forgotten" else rng.choice(others)
    return out, at, mask


def with_wrong_stroke(
    rng: Rng, annotation: np.ndarray, slices: Sequence[Slice], brush: np.ndarray | None = None, least: int = 12
) -> tuple[np.ndarray, Slice, np.ndarray] | None:
    """One stroke, a connected piece of strokes of a segment on one of the slices, painted as another segment, or as background where there is none.

    brush: the same strokes drawn thicker, of which the stroke's surroundings are taken instead. Returns the annotation, the slice and what is
    mistaken, (K, J, I) bool; None where no slice has such a stroke.
    """
    choices = [(at, *piece) for at in slices for piece in pieces(annotation, at, least)]
    if not choices:
        return None
    at, value, flat = choices[int(rng.integers(len(choices)))]
    others = [int(v) for v in np.unique(annotation) if v > 1 and v != value] or [1]
    mask = np.zeros(annotation.shape, bool)
    mask[plane(*at)] = flat
    out = (annotation if brush is None else brush).copy()
    if brush is not None:
        mask = grown_by(mask, 2) & (brush == value)
    out[mask] = rng.choice(others)
    return out, at, mask
