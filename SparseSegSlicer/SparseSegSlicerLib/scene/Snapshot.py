"""What is painted at one moment: copies of layers on the volume's grid, which a thread may read while the user paints on. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparseseg.contract.classes import Segment
from sparseseg.contract.geometry import Geometry

from .Layers import Layer


@dataclass(frozen=True)
class Kept:
    """Of the segments at `places`, which hold an applied result: the strokes that it was made from, the result as it was applied, and what had been
    erased from results before. What differs from `result` now is a correction. token: which Apply it was."""

    token: str
    places: tuple[int, ...]
    strokes: tuple[Layer, ...]
    result: tuple[Layer, ...]
    erased: tuple[Layer, ...]  # of a single segment, at place 0

    def only(self, codes: np.ndarray) -> np.ndarray:
        """The codes of these segments, 0 for the others."""
        held = np.zeros_like(codes)
        held[list(self.places)] = codes[list(self.places)]
        return held

    def isSame(self, other: Kept | None) -> bool:
        return (
            other is not None
            and (self.token, self.places) == (other.token, other.places)
            and all(
                one.values is another.values
                for mine, theirs in ((self.strokes, other.strokes), (self.result, other.result), (self.erased, other.erased))
                for one, another in zip(mine, theirs, strict=True)
            )
        )


@dataclass(frozen=True)
class Snapshot:
    """loose: names of segments that hold a result whose strokes are not here, so that all of it counts as strokes."""

    geometry: Geometry
    segments: tuple[Segment, ...]
    background: int  # place in `segments`, or -1
    layers: tuple[Layer, ...]
    kept: Kept | None = None
    loose: tuple[str, ...] = ()

    @property
    def allLayers(self) -> tuple[Layer, ...]:
        kept = self.kept
        return self.layers if kept is None else (*self.layers, *kept.strokes, *kept.result, *kept.erased)

    def continues(self, other: Snapshot) -> bool:
        """Whether nothing but what is painted may differ."""
        ids = [[segment.id for segment in snapshot.segments] for snapshot in (self, other)]
        sameKept = other.kept is None if self.kept is None else self.kept.isSame(other.kept)
        return ids[0] == ids[1] and self.background == other.background and sameKept and not self.geometry.difference_from(other.geometry)

    def isSame(self, other: Snapshot) -> bool:
        """Of two where one continues the other: whether nothing was painted in between."""
        layers = [{layer.key: (id(layer.values), layer.places) for layer in snapshot.layers} for snapshot in (self, other)]
        return layers[0] == layers[1]

    @property
    def strokeLayers(self) -> tuple[Layer, ...]:
        return self.layers if self.kept is None else (*self.layers, *self.kept.strokes)
