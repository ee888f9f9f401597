"""How the beliefs of prior and network are mixed into the result: one linear pool of probabilities (Stone 1961), score_c = s p_c + (1 - s) q_c, the
highest wins.

p_c is what the network gives class c, q_c what the prior does, s the network's share, one number for the volume: a share for each class would
compare classes on different scales. The prior is kept as a label and one byte: its confidence lies between all classes alike (0) and its label
alone (255). Where the network has nothing to say (outside of its region) the prior has all of it.
"""

from __future__ import annotations

import numpy as np

from ..contract.belief import Belief


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
    label = np.zeros(certain.shape, np.uint8)
    for c, probability in enumerate(network):
        score = floor + np.where(prior.label == c, certain, 0) + share * probability
        higher = score > best
        second = np.where(higher, best, np.maximum(second, score))
        label[higher] = c
        best = np.maximum(best, score)
    uncertainty = np.clip(255 * (1 - (best - second)), 0, 255).astype(np.uint8)
    silent = ~network.any(0)
    np.copyto(label, prior.label, where=silent)  # even where it believes in all classes alike
    np.copyto(uncertainty, 255 - prior.confidence, where=silent)
    return label, uncertainty
