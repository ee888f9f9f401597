"""Several channels as one gray value a voxel, for the voices that look at one: a linear discriminant of the labels.

Of two classes it is Fisher's, but for classes of unlike spread (background is many tissues): the direction along which two normal densities
overlap least. Of more classes it is the one along which pairs of them overlap least on average; the first direction of the multi-class discriminant
(Rao 1948) sets the outermost class far apart and lets others fall together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..contract.scratch import Zeros

_SPREAD = 100.0  # of a class along the direction, on average
_FEW = 20  # voxels of a class, by which its spread is drawn to what all classes have
_RIDGE = 1e-3  # of the variance of each channel, so that a direction is never told by rounding alone
_TRIES, _NARROWER = 512, (0.3, 0.1, 0.03)  # directions at first, then around the best one
_BLOCK = 1 << 20  # pairs of classes along directions at a time
OUTDATED = 0.05  # of overlap, that a direction may have more than the best one before it is replaced: growing then begins anew


@dataclass(frozen=True)
class Classes:
    """What labels say of the channels: means (n, C) and covariances (n, C, C) of the n classes that have labels, float64, in channels of mean 0 and
    variance 1 over the classes; centre and scale (C,) bring them there, scale 0 for a channel that is the same at all labelled voxels."""

    means: np.ndarray
    covariances: np.ndarray
    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, channels: np.ndarray, labels: np.ndarray, labelled: np.ndarray, tick: Callable[[], None] = lambda: None) -> Classes:
        """channels: (C, K, J, I), any real type, finite; labels: (K, J, I) uint8, used where labelled, bool. Plane by plane; at least one voxel is
        labelled."""
        counts, sums, squares = np.zeros(256), np.zeros((256, len(channels))), np.zeros((256, len(channels), len(channels)))
        origin: np.ndarray | None = None
        for k in range(labels.shape[0]):
            if not labelled[k].any():
                continue
            tick()
            known = labelled[k]
            gray, value = np.stack([channel[k][known] for channel in channels]).astype(np.float64), labels[k][known]
            origin = gray[:, :1].copy() if origin is None else origin  # near the values, so that little is lost to rounding
            gray -= origin
            for c in np.unique(value):
                mine = gray[:, value == c]
                counts[c] += mine.shape[1]
                sums[c] += mine.sum(1)
                squares[c] += mine @ mine.T
        assert origin is not None
        there = counts > 0
        n = counts[there][:, None]
        means = sums[there] / n
        covariances = squares[there] / n[..., None] - means[:, :, None] * means[:, None, :]
        pooled = covariances.mean(0)
        covariances = (n[..., None] * covariances + _FEW * pooled) / (n[..., None] + _FEW)
        middle = means.mean(0)
        variance = np.maximum(np.diag(pooled) + means.var(0), 0)
        scale = np.divide(1, np.sqrt(variance), out=np.zeros_like(variance), where=variance > 0)
        covariances = covariances * np.outer(scale, scale) + _RIDGE * np.eye(len(channels))
        return cls((means - middle) * scale, covariances, middle + origin[:, 0], scale)

    def overlap(self, directions: np.ndarray) -> np.ndarray:
        """Of two classes along each direction, (m, C) -> (m,): the Bhattacharyya coefficient of their normal densities, 0 apart .. 1 alike, on
        average over all pairs."""
        a, b = np.triu_indices(len(self.means), 1)
        if not len(a):
            return np.ones(len(directions))
        return np.concatenate([self._overlap(part, a, b) for part in np.array_split(directions, -(-len(a) * len(directions) // _BLOCK))])

    def _overlap(self, directions: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        means = directions @ self.means.T
        variances = np.maximum(np.einsum("mc,ncd,md->mn", directions, self.covariances, directions), 1e-12)
        both = variances[:, a] + variances[:, b]
        distance = (means[:, a] - means[:, b]) ** 2 / (4 * both) + np.log(both / (2 * np.sqrt(variances[:, a] * variances[:, b]))) / 2
        return np.exp(-distance).mean(1)

    def weights(self) -> np.ndarray:
        """What a gray value of each channel counts along the best direction, (C,): classes are then _SPREAD wide on average."""
        direction = self.best_direction()
        spread = np.sqrt(np.einsum("c,ncd,d->n", direction, self.covariances, direction).mean())
        return _SPREAD / max(float(spread), 1e-6) * direction * self.scale

    def best_direction(self) -> np.ndarray:
        """(C,), of the channels as they are scaled; always the same for the same labels."""
        used = self.scale > 0
        if len(self.means) < 2 or used.sum() < 2:
            return used / max(1.0, np.sqrt(used.sum()))
        rng = np.random.default_rng(0)
        whole = np.linalg.inv(np.linalg.cholesky(self.covariances.mean(0)))  # evenly spread where classes are round
        best = self._best_of(rng.normal(size=(_TRIES, len(used))) @ whole * used)
        for width in _NARROWER:
            around = best + width * rng.normal(size=(_TRIES // 4, len(used))) * used
            best = self._best_of(np.concatenate([best[None], around]))
        return best * np.sign(best[np.abs(best).argmax()])

    def _best_of(self, directions: np.ndarray) -> np.ndarray:
        """Of length 1."""
        best = directions[self.overlap(directions).argmin()]
        return best / max(float(np.linalg.norm(best)), 1e-12)


class Gray:
    """image: the gray values, (K, J, I): of one channel that itself, of several their discriminant, float32, its classes about 100 wide."""

    def __init__(self, channels: np.ndarray, image: np.ndarray, weights: np.ndarray | None = None) -> None:
        """weights: (C,), what a gray value of each channel counts; None where the first channel is seen."""
        self._channels, self.image, self.weights = channels, image, weights

    @classmethod
    def of(
        cls, channels: np.ndarray, labels: np.ndarray, labelled: np.ndarray, tick: Callable[[], None] = lambda: None, zeros: Zeros = np.zeros
    ) -> Gray:
        """Arrays as in Classes.of; channels are kept; zeros makes the image. Where labels say nothing, as they are few and alike, the first one."""
        if len(channels) == 1 or not labelled.any():
            return cls(channels, channels[0])
        classes = Classes.of(channels, labels, labelled, tick)
        weights = classes.weights()
        if not weights.any():
            return cls(channels, channels[0])
        image = zeros(labels.shape, np.float32)
        for k in range(len(image)):
            tick()
            image[k] = np.tensordot(weights, channels[:, k] - classes.centre[:, None, None], 1)
        return cls(channels, image, weights)

    def is_outdated(self, labels: np.ndarray, labelled: np.ndarray, tick: Callable[[], None] = lambda: None) -> bool:
        """Whether another direction tells these labels apart clearly better."""
        if len(self._channels) == 1 or not labelled.any():
            return False
        classes = Classes.of(self._channels, labels, labelled, tick)
        if self.weights is None:
            return bool(classes.weights().any())
        mine = np.divide(self.weights, classes.scale, out=np.zeros_like(self.weights), where=classes.scale > 0)
        held, best = classes.overlap(np.stack([mine, classes.best_direction()]))
        return bool(held > best + OUTDATED)
