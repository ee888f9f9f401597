"""The voices once on a few voxels, so that what is compiled at first use is compiled before a user waits for it."""

from __future__ import annotations

import numpy as np
import torch

from ..contract.belief import Belief
from ..contract.box import Part
from .grown import Grown
from .reach import Reach
from .refiner import Refined

_SHAPE = (8, 16, 16)


def rehearse(device: torch.device, dtype: torch.dtype) -> None:
    """Growing, refiner and reach from the start, and a correction. A second from numba's cache; some seconds the first time on a machine."""
    image = np.zeros(_SHAPE, np.int16)
    image[:, 4:12, 4:12] = 100
    labels, labelled = np.zeros(_SHAPE, np.uint8), np.zeros(_SHAPE, bool)
    labels[4, 6:10, 6:10] = 1
    labelled[4] = True
    spacing = (2.0, 1.0, 1.0)
    grown = Grown.start(image, labels, labelled, spacing)
    refined = Refined.start(grown.label, grown.confidence, image, labels, labelled, spacing, device, dtype)
    reach = Reach(labelled, spacing)
    box = (slice(6, 7), slice(6, 8), slice(6, 8))
    labels[box], labelled[box] = 1, True
    reach.annotate(labelled, box)
    grown.update(box, labels, labelled)
    refined.update(box, labels, labelled)
    before, after = Belief(grown.label, grown.confidence), Belief(refined.label[box], refined.confidence[box])
    reach.share([Part(box, np.ones((1, 2, 2), bool))], labelled, box).within(before, after, box)
