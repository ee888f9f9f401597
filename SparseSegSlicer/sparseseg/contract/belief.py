"""What a voice believes about the voxels of a volume."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Belief(NamedTuple):
    """label: (K, J, I) uint8, 0 background, c segment c, labelled voxels carry their own label.

    confidence: (K, J, I) uint8, 255 times about the chance that the label is right; 255 at labelled voxels, 0 where nothing is known.
    """

    label: np.ndarray
    confidence: np.ndarray
