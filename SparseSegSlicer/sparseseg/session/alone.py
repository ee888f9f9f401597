"""The network without any other voice: what it believes as a label map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..contract.belief import Belief
from ..contract.box import planes, shape_of
from ..contract.scratch import Zeros
from ..network.applied import Seen
from ..quality.fusion import fuse


def alone(seen: Seen, tick: Callable[[], None], zeros: Zeros = np.zeros) -> tuple[np.ndarray, np.ndarray]:
    """Label map and uncertainty, (K, J, I) uint8 both, on the volume's own grid. tick is called plane by plane, and may raise; zeros
    makes the arrays."""
    shape = seen.probabilities.grid.volume_kji
    dense, uncertainty = zeros(shape, np.uint8), zeros(shape, np.uint8)
    for box in planes(shape):
        tick()
        nothing = np.zeros(shape_of(box), np.uint8)
        dense[box], uncertainty[box] = fuse(Belief(nothing, nothing), seen.probabilities.at(box), 1.0)
    return np.ascontiguousarray(seen.turn.back(dense)), np.ascontiguousarray(seen.turn.back(uncertainty))
