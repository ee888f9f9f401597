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
    per_voxel = F.cross_entropy(logits.float(), labels, reduction="none")
    # where(), not a product: 0 x inf would be nan, and an unlabelled voxel must not reach the gradient
    per_voxel = torch.where(weights > 0, per_voxel, torch.zeros((), device=logits.device))
    return (per_voxel * weights).sum() / weights.sum().clamp_min(1e-8)


def soft_dice_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Same arguments; 1 - mean Dice over the classes present among labelled voxels. Zero where nothing is labelled."""
    mask = weights.clamp_max(1.0).unsqueeze(1)
    probabilities = torch.softmax(logits.float(), 1) * mask
    truth = torch.zeros_like(probabilities).scatter_(1, labels.unsqueeze(1), mask.to(probabilities.dtype))
    both = torch.where(truth > 0, probabilities, torch.zeros((), device=logits.device)).sum((0, 2, 3, 4))
    sizes = probabilities.sum((0, 2, 3, 4)) + truth.sum((0, 2, 3, 4))
    present = (truth.sum((0, 2, 3, 4)) > 0).float()
    dice = (2 * both + _SMOOTH) / (sizes + _SMOOTH)
    return ((1 - dice) * present).sum() / present.sum().clamp_min(1.0)
