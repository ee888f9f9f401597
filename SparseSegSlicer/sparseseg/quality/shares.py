"""How far the network is believed beside the prior: first it is made as sure as it should be, then it has a share, one for the volume.

A network that has learned a patient says much the same as the prior, and where the two differ it is about as sure as it should be; one that has not
is sure of what the prior contradicts. So its probabilities are calibrated by a temperature (Guo et al., On calibration of modern neural networks,
ICML 2017), with the prior in place of the truth: it is as sure, on average, as both agree. What it has not learned it is then hardly sure of, and a
fixed share decides only where the prior is unsure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

SHARE, OF_STROKES = 0.5, 0.45  # with complete slices, and without; looked up from the development pairs (docs/accuracy.md)
LEAST = 0.5 / 255  # the probability of what a byte calls 0, so that a flat enough temperature makes all classes alike
_SAMPLE = 20_000  # voxels, about, that a temperature is found from
_COLDEST, _HOTTEST, _HALVINGS = 0.5, 20.0, 18


@dataclass(frozen=True)
class Standing:
    """Over the voxels that nobody labelled and that prior or network give to a segment: how often both say the same, and how sure the network is on
    average, 0..1 both; and the temperature at which it is as sure as they agree."""

    agreement: float
    confidence: float
    temperature: float

    @classmethod
    def of(cls, parts: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Standing | None:
        """From boxes of the prior's labels (k, j, i) uint8, the network's probabilities (C, k, j, i) and where there are labels, bool; None where
        neither gives anything to a segment."""
        count, agreeing, sure, sample = 0, 0, 0.0, _Sample()
        for prior, network, labelled in parts:
            said, surest = highest(network)
            counted = np.flatnonzero(~labelled & ((prior > 0) | (said > 0)))
            count += len(counted)
            agreeing += int((prior == said).reshape(-1)[counted].sum())
            sure += float(surest.reshape(-1)[counted].sum(dtype=np.float64))
            sample.add(network.reshape(len(network), -1), counted)
        if not count:
            return None
        agreement = agreeing / count
        return cls(agreement, sure / count, _temperature(sample.voxels(), agreement))

    def to_json(self) -> dict[str, Any]:
        return {"agreement": round(self.agreement, 3), "confidence": round(self.confidence, 3), "temperature": round(self.temperature, 2)}


def highest(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class with the highest of the probabilities (C, ...) float32, uint8, the first of such classes; and that probability. As argmax and max,
    which take several times as long."""
    best, label = probabilities[0].copy(), np.zeros(probabilities.shape[1:], np.uint8)
    for c, probability in enumerate(probabilities[1:], 1):
        np.maximum(label, np.multiply(probability > best, np.uint8(c)), out=label)
        np.maximum(best, probability, out=best)
    return label, best


class _Sample:
    """Every n-th of the voxels, n as large as it must be for _SAMPLE to twice as many."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._every, self._held = 1, 0

    def add(self, found: np.ndarray, at: np.ndarray) -> None:
        """found: (C, n); at: which of the n there are."""
        self._parts.append(found[:, at[:: self._every]])
        self._held += self._parts[-1].shape[1]
        while self._held > 2 * _SAMPLE:
            self._parts = [self.voxels()[:, ::2]]
            self._every, self._held = 2 * self._every, self._parts[0].shape[1]

    def voxels(self) -> np.ndarray:
        return np.concatenate(self._parts, axis=1)


def _temperature(probabilities: np.ndarray, wanted: float) -> float:
    """At which the highest of the probabilities (C, n) is `wanted` on average; the nearest end of the range where none does."""
    logs = np.log(np.maximum(probabilities, LEAST))
    low, high = _COLDEST, _HOTTEST
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        raised = np.exp(logs / middle)
        low, high = (middle, high) if (raised.max(0) / raised.sum(0)).mean() > wanted else (low, middle)
    return float(high)
