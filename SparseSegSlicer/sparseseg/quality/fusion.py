"""How the beliefs of the voices are mixed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..contract.belief import Belief, Box


@dataclass(frozen=True)
class Fusion:
    """How network and prior are mixed: score_c = t_c p_c + (1 - t_c) q_c, with p the network's softmax, q the prior's belief, and t the trust,
    one number in 0..1 for each class (background first)."""

    prior: Belief
    trust: np.ndarray

    def scores(self, probabilities: Tensor, box: Box) -> Tensor:
        """probabilities (C, k, j, i) of the box -> scores (C, k, j, i)."""
        device = probabilities.device
        label, confidence = (torch.from_numpy(a[box]).to(device) for a in (self.prior.label, self.prior.confidence))
        trust = torch.from_numpy(self.trust.astype(np.float32)).to(device).view(-1, 1, 1, 1)
        return prior_belief(label, confidence, len(probabilities)).lerp_(probabilities, trust)


def prior_belief(label: Tensor, confidence: Tensor, classes: int) -> Tensor:
    """The prior as probabilities (classes, ...) float32: label and confidence (...) uint8. The confidence lies between all classes alike (0)
    and only the label (255), so that the label is always the most probable."""
    certain = confidence.float() / 255
    shared = ((1 - certain) / classes).expand(classes, *label.shape).clone()
    return shared.scatter_add_(0, label.long()[None], certain[None])
