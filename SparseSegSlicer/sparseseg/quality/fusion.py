"""How the voices' beliefs are mixed into the result: linear pools of probabilities (Stone 1961), the highest wins.

First growing and refiner: q_c = GROWN g_c + (1 - GROWN) r_c, then prior and network: score_c = s p_c + (1 - s) q_c, with s the network's share, one
number for the volume, as a share for each class would compare classes on different scales. The prior is kept as a label and one byte: its
confidence lies between all classes alike (0) and its label alone (255). The refiner is surer than it is right (of voxels at borders with a
confidence of 0.75 to 0.94 it had 20 to 60 % right), so its confidence counts squared. Where the network has nothing to say (outside of its region)
the prior has all of it.
"""

from __future__ import annotations

import numpy as np

from ..contract.belief import Belief

GROWN = 0.3  # growing's share of the prior


def _tables() -> tuple[np.ndarray, np.ndarray]:
    """By refiner's and growing's confidence, (256, 256): the confidence where both say the same, and where they differ, uint8."""
    certain = np.arange(256) / 255
    ours, theirs = (1 - GROWN) * certain[:, None] ** 2, GROWN * certain[None, :]
    return np.round(255 * (ours + theirs)).astype(np.uint8), np.round(255 * np.abs(ours - theirs)).astype(np.uint8)


_SAME, _OTHER = _tables()
_GROWN_WINS = GROWN * np.arange(256)[None, :] / 255 > (1 - GROWN) * (np.arange(256)[:, None] / 255) ** 2


def pool(grown: Belief, refined: Belief, labelled: np.ndarray) -> Belief:
    """Growing and refiner as one belief; labelled voxels stay as the refiner has them. All arrays alike, a box or a list of voxels; new ones."""
    at = (refined.confidence, grown.confidence)
    same = refined.label == grown.label
    label = np.where(same | labelled | ~_GROWN_WINS[at], refined.label, grown.label)
    confidence = np.where(labelled, refined.confidence, np.where(same, _SAME[at], _OTHER[at]))
    return Belief(label, confidence)


def fuse(prior: Belief, network: np.ndarray | None, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels and uncertainty (0 sure .. 255 two classes alike), uint8 both, in the shape of the prior's arrays (a box or a list of voxels).

    network: (C, ...) float32, the probabilities of all classes, background first, that add to 1, or to 0 where it says nothing; None where there is
    no network.
    """
    if network is None or share <= 0:
        return prior.label.copy(), 255 - prior.confidence
    classes = len(network)
    others = 1 - share * network.sum(0)
    certain = prior.confidence * np.float32(1 / 255)
    floor = others * (1 - certain) / classes
    certain *= others
    best, second = (np.full(certain.shape, -1, np.float32) for _ in range(2))
    score, part = (np.empty(certain.shape, np.float32) for _ in range(2))
    label = np.zeros(certain.shape, np.uint8)
    for c, probability in enumerate(network):  # in place and without masks, either of which costs more than the arithmetic
        np.multiply(certain, prior.label == c, out=score)
        score += floor
        score += np.multiply(probability, share, out=part)
        np.maximum(second, np.minimum(best, score, out=part), out=second)
        np.maximum(label, np.multiply(score > best, np.uint8(c)), out=label)
        np.maximum(best, score, out=best)
    uncertainty = np.clip(255 * (1 - (best - second)), 0, 255).astype(np.uint8)
    silent = ~network.any(0)
    np.copyto(label, prior.label, where=silent)  # even where it believes in all classes alike
    np.copyto(uncertainty, 255 - prior.confidence, where=silent)
    return label, uncertainty
