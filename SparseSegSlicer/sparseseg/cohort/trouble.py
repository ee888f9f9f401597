"""How good a result is to be expected where nobody annotated anything: what the model reached on patients held out from its training, lowered by how
little the network itself is sure of this volume.

The second is what `quality.estimate` calls believed: the Dice that a result itself expects of a segment, from its uncertainty. It costs nothing. That
it ranks volumes by their true Dice is measured (docs/cohorts.md).
"""

from __future__ import annotations

import numpy as np

from ..contract.box import planes
from ..network.checkpoint import Checkpoint
from ..quality.estimate import Evidence


def estimates(model: Checkpoint, labels: np.ndarray, uncertainty: np.ndarray) -> dict[str, float]:
    """The Dice to expect of each segment, by its ID; labels and uncertainty (K, J, I) uint8. 0 for one that was not found: it is missing, or missed.
    Of a model without held-out patients it is the network's own word, which is too good."""
    evidence = Evidence(len(model.classes) + 1)
    for box in planes(labels.shape):
        found = labels[box].reshape(-1)
        evidence.count(found, 255 - uncertainty[box].reshape(-1), found, found)
    return {
        segment: round(model.validation.get(segment, 1.0) * evidence.believed(value), 4) for value, segment in enumerate(model.classes.ids, start=1)
    }
