"""Growing in a box that is known beforehand, whatever was painted: a point, or one slice, says little about how far a segment goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..contract.box import Box, union
from .grid import Grid, region
from .grown import Grown
from .scales import choose_factors
from .together import Tick


class BoundedGrown(Grown):
    """Grown whose region is `bounds`, and around segments' labels outside of it as far as any growing goes."""

    def __init__(self, image: np.ndarray, spacing_kji_mm: Sequence[float], bounds: Box, origin: np.ndarray | None = None) -> None:
        super().__init__(image, spacing_kji_mm, origin)
        self._bounds = bounds

    def _choose_grid(self, labels: np.ndarray, labelled: np.ndarray, tick: Tick) -> Grid:
        where = self._bounds
        if _labels_beyond(where, labels, labelled):
            where = union(where, region(labels, labelled, tick)) or where
        return Grid.of(where, choose_factors(self._image, labels, labelled, where, self._spacing, tick), self._spacing)


def _labels_beyond(box: Box, labels: np.ndarray, labelled: np.ndarray) -> bool:
    """Whether a segment is labelled outside of a box; plane by plane."""
    for k, (values, known) in enumerate(zip(labels, labelled, strict=True)):
        if not known.any():
            continue
        outside = known & (values > 0)
        if box[0].start <= k < box[0].stop:
            outside[box[1:]] = False
        if outside.any():
            return True
    return False
