"""The loss: weighted softmax cross-entropy, and a soft Dice, both blind to unlabelled voxels.

With logits z, p = softmax(z), labels y and weights w (0 where unlabelled):

    L_ce   = - sum_x w(x) log p_y(x)(x) / sum_x w(x)                                    (Cicek et al. 2016, weighted softmax loss)
    L_dice = 1 - mean_c (2 sum_x m p_c [y = c] + e) / (sum_x m p_c + sum_x m [y = c] + e)   (Milletari et al. 2016, on labelled voxels)

with m(x) = min(w(x), 1), and c over the classes that occur in the batch. The mask is applied to the sums, never to the logits: a masked
logit of 0 would still be a probability.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_SMOOTH = 1.0  # voxels


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """logits (N, C, k, j, i) float, labels (N, k, j, i) int64, weights (N, k, j, i) float, >= 0 -> scalar. Zero where all weights are zero."""
    per_voxel = F.cross_entropy(_blind(logits, weights), labels, reduction="none")
    return (per_voxel * weights).sum() / weights.sum().clamp_min(1e-8)


def soft_dice_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Same arguments; 1 - mean Dice over the classes present among labelled voxels. Zero where nothing is labelled."""
    mask = weights.clamp_max(1.0).unsqueeze(1)
    probabilities = torch.softmax(_blind(logits, weights), 1) * mask
    truth = torch.zeros_like(probabilities).scatter_(1, labels.unsqueeze(1), mask.to(probabilities.dtype))
    both = torch.where(truth > 0, probabilities, torch.zeros((), device=logits.device)).sum((0, 2, 3, 4))
    sizes = probabilities.sum((0, 2, 3, 4)) + truth.sum((0, 2, 3, 4))
    present = (truth.sum((0, 2, 3, 4)) > 0).float()
    dice = (2 * both + _SMOOTH) / (sizes + _SMOOTH)
    return ((1 - dice) * present).sum() / present.sum().clamp_min(1.0)


def _blind(logits: Tensor, weights: Tensor) -> Tensor:
    """Logits in at least float32, with a constant where nothing is labelled: even a nan there reaches neither value nor gradient, and the
    weight of 0 keeps the constant out of every sum."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return torch.where(weights.unsqueeze(1) > 0, logits, torch.zeros((), dtype=logits.dtype, device=logits.device))
