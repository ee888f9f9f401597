"""What the refiner reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Volumes:
    """What there is to see, all (K, J, I): label and confidence of growing, uint8; the image, any real type; labels, uint8, 0 background, c
    segment c, used where labelled, bool. The voice that grows, and the annotation, may change them in place."""

    label: np.ndarray
    confidence: np.ndarray
    image: np.ndarray
    labels: np.ndarray
    labelled: np.ndarray
    spacing_kji_mm: tuple[float, float, float]
