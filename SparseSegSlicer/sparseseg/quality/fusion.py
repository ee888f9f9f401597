"""How the beliefs of prior and network are mixed into the result: score_c = t_c p_c + (1 - t_c) q_c, the highest wins.

p_c is what the network gives class c, q_c what the prior does, t the trust in the network, one number in 0..1 for each class. Both are kept as a
label and one byte: the prior's confidence lies between all classes alike (0) and its label alone (255); the network's uncertainty u says that
its label has a chance of 1 - u / 510, and what is left is shared by the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..contract.belief import Belief


def fuse(prior: Belief, network: Belief | None, trust: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and uncertainty (0 sure .. 255 two classes alike), uint8 both, in the shape of the beliefs' arrays (a box or a list of voxels).

    network: its label and, as its confidence, 255 - u; None where there is no network. trust: (classes,), background first.
    """
    shares = np.asarray(trust, np.float32)
    if network is None or not shares.any():
        return prior.label.copy(), 255 - prior.confidence
    classes = len(shares)
    certain = prior.confidence.astype(np.float32) / 255
    mine = (255 + network.confidence.astype(np.float32)) / 510
    best, second = (np.full(certain.shape, -1, np.float32) for _ in range(2))
    label = np.zeros(certain.shape, np.uint8)
    for c, share in enumerate(shares):
        score = (1 - share) * ((1 - certain) / classes + np.where(prior.label == c, certain, 0))
        score += share * np.where(network.label == c, mine, (1 - mine) / max(1, classes - 1))
        higher = score > best
        second = np.where(higher, best, np.maximum(second, score))
        label[higher] = c
        best = np.maximum(best, score)
    return label, np.clip(255 * (1 - (best - second)), 0, 255).astype(np.uint8)
