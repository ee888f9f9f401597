"""The network's share of the result, one for the volume, from how it stands to the prior where nobody labelled.

A network that has learned a patient says much the same as the prior, and where the two differ it is about as sure as it should be; one that has not
is sure of what the prior contradicts. So its confidence is held against how often both agree: the gap is its calibration error, with the prior in
place of the truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

_GAPS = (-0.6, -0.2, -0.1)  # agreement less confidence ...
_SHARES = (0.2, 0.4, 0.45)  # ... and the share that goes with it; fitted to the development pairs (docs/accuracy.md)
_OF_STROKES = 0.35  # at most, without complete slices: there most of what the network learns are the prior's own labels, so agreement says less


@dataclass(frozen=True)
class Standing:
    """Over the voxels that nobody labelled and that prior or network give to a segment: how often both say the same, and how sure the network is on
    average, 0..1 both."""

    agreement: float
    confidence: float

    @classmethod
    def of(cls, parts: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Standing | None:
        """From boxes of the prior's labels (k, j, i) uint8, the network's probabilities (C, k, j, i) and where there are labels, bool; None where
        neither gives anything to a segment."""
        count, agreeing, sure = 0, 0, 0.0
        for prior, network, labelled in parts:
            said = network.argmax(0)
            counted = ~labelled & ((prior > 0) | (said > 0))
            count += int(counted.sum())
            agreeing += int((counted & (prior == said)).sum())
            sure += float(network.max(0)[counted].sum(dtype=np.float64))
        return cls(agreeing / count, sure / count) if count else None

    def to_json(self) -> dict[str, Any]:
        return {"agreement": round(self.agreement, 3), "confidence": round(self.confidence, 3)}


def choose(standing: Standing, has_slices: bool) -> float:
    """Between the gaps that are given, linear. has_slices: whether there are complete slices."""
    share = float(np.interp(standing.agreement - standing.confidence, _GAPS, _SHARES))
    return share if has_slices else min(share, _OF_STROKES)
