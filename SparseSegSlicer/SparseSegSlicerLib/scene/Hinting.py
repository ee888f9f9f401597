"""What is known without painting, beside the strokes: hints checked against the volume, and which segments they label. May run in a thread."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparseseg.annotation.hinted import HintLabels
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import SparseSegError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints, SegmentHints

BACKGROUND = ""  # in place of a segment's ID: what is none of the segments


@dataclass(frozen=True)
class Given:
    """What the user gave: hints by segment ID, or BACKGROUND, in order. refusal: why they cannot be used."""

    segments: tuple[tuple[str, SegmentHints], ...] = ()
    refusal: SparseSegError | None = None

    @property
    def pointed(self) -> set[str]:
        """IDs of the segments that have points inside."""
        return {segmentID for segmentID, hints in self.segments if hints.inside}


@dataclass(frozen=True)
class Hinted:
    """hints: None where there are none. voxels: how many they label beside the strokes, by annotation value. refusal: why they cannot be used."""

    hints: Hints | None = None
    voxels: tuple[int, ...] = ()
    refusal: SparseSegError | None = None

    def labels(self, value: int) -> bool:
        """Whether they alone label something with an annotation value."""
        return value < len(self.voxels) and self.voxels[value] > 0


class Hinting:
    """Keeps what the hints label for as long as they, the segments and the volume stay the same."""

    def __init__(self) -> None:
        self._of: tuple[Given, list[str], Geometry] | None = None
        self._hinted = Hinted()
        self._labels: HintLabels | None = None

    def beside(self, annotation: np.ndarray, given: Given, classes: ClassTable, geometry: Geometry) -> Hinted:
        """annotation: (K, J, I) uint8, as that of Strokes."""
        if self._of is None or self._of[:2] != (given, classes.ids) or geometry.difference_from(self._of[2]):
            self._of, (self._hinted, self._labels) = (given, classes.ids, geometry), _understood(given, classes, geometry)
        if self._labels is None:
            return self._hinted
        free = annotation.reshape(-1)[self._labels.places] == 0
        voxels = np.bincount(self._labels.values[free], minlength=len(classes) + 2)
        return Hinted(self._hinted.hints, tuple(voxels.tolist()))


def _understood(given: Given, classes: ClassTable, geometry: Geometry) -> tuple[Hinted, HintLabels | None]:
    """Checked as the engine checks them."""
    if given.refusal is not None or not given.segments:
        return Hinted(refusal=given.refusal), None
    known = dict(given.segments)
    hints = Hints(tuple(known.get(segmentID, SegmentHints()) for segmentID in classes.ids), known.get(BACKGROUND, SegmentHints()).inside)
    try:
        checked = Hints.from_json(hints.to_json(classes), classes, geometry)
    except SparseSegError as error:
        return Hinted(refusal=error), None
    return Hinted(checked), HintLabels(checked, geometry)
