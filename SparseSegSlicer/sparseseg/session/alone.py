"""The network without any other voice: what it believes as a label map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..contract.belief import Belief
from ..contract.box import planes, shape_of
from ..network.predict import Probabilities
from ..quality.fusion import fuse


def alone(network: Probabilities, tick: Callable[[], None]) -> tuple[np.ndarray, np.ndarray]:
    """Label map and uncertainty, (K, J, I) uint8 both. tick is called plane by plane, and may raise."""
    shape = network.grid.volume_kji
    dense, uncertainty = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    for box in planes(shape):
        tick()
        nothing = np.zeros(shape_of(box), np.uint8)
        dense[box], uncertainty[box] = fuse(Belief(nothing, nothing), network.at(box), 1.0)
    return dense, uncertainty
