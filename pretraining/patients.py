"""Real shapes to learn from: head and neck CT with clinical contours, and label maps of brains with made-up gray values.

Files of a folder with `head-neck-ct/*.npz` (image int16 HU, labels uint8, spacing_kji_mm), `head-neck-ct.json` (the volumes of its organs, ml) and
`brain-labels/*.npz` (labels uint16, 1 mm); see pretraining/README.md. No case that anything is scored on is among them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from synthesize import Rng, Sample, annotated, render, usable_objects

_ORGANS = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Esophagus", "Larynx", "Mandible")  # labels 1..7
_BELIEVED = (0.25, 3.0)  # times an organ's median volume: beyond, a contour is distrusted
_MOST = 6  # segments at once
_BRAIN_SIDES = (64, 112)  # voxels, of a part of a brain
_AIR = -1000.0


@dataclass(frozen=True)
class Library:
    """heads: files, each with the labels that are believed; brains: files."""

    heads: list[tuple[Path, list[int]]]
    brains: list[Path]

    @classmethod
    def of(cls, folder: Path) -> Library:
        about = json.loads((folder / "head-neck-ct.json").read_text(encoding="utf-8"))
        middle = {name: float(np.median([a["volumes_ml"][name] for a in about if name in a["volumes_ml"]])) for name in _ORGANS}
        heads = [(folder / a["file"], _believed(a["volumes_ml"], middle)) for a in about]
        return cls([(file, labels) for file, labels in heads if labels and file.is_file()], sorted((folder / "brain-labels").glob("*.npz")))

    def sample(self, rng: Rng) -> Sample:
        """A head or a part of a brain, annotated; tries again where there is nothing to go by."""
        while True:
            sample = self._head(rng) if rng.random() < 0.65 or not self.brains else self._brain(rng)
            if sample is not None:
                return sample

    def _head(self, rng: Rng) -> Sample | None:
        file, believed = self.heads[int(rng.integers(len(self.heads)))]
        image, labels, spacing = head(file)
        chosen = rng.permutation(believed)[: int(rng.integers(1, _MOST + 1))]
        truth = _numbered(labels, [[int(c)] for c in chosen])
        return annotated(rng, image, truth, spacing)

    def _brain(self, rng: Rng) -> Sample | None:
        objects, structures = brain_part(rng, self.brains[int(rng.integers(len(self.brains)))], _BRAIN_SIDES)
        usable = usable_objects(objects, structures)
        if not usable:
            return None
        chosen = rng.permutation(usable)[: int(rng.integers(1, _MOST + 1))]
        truth = _numbered(objects, [[int(c)] for c in chosen])
        return annotated(rng, render(rng, objects, (1.0, 1.0, 1.0)), truth, (1.0, 1.0, 1.0))


def brain_part(rng: Rng, file: Path, sides: tuple[int, int]) -> tuple[np.ndarray, list[int]]:
    """A random box of a label map with so many voxels a side: its objects numbered from 0, uint8, and which of them are no background."""
    with np.load(file) as data:
        labels = data["labels"]
    size = [min(int(rng.integers(*sides)), n) for n in labels.shape]
    corner = [int(rng.integers(n - s + 1)) for n, s in zip(labels.shape, size, strict=True)]
    part = labels[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))]
    values, objects = np.unique(part, return_inverse=True)
    return objects.reshape(part.shape).astype(np.uint8), [n for n in range(len(values)) if values[n] > 0]


def head(file: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """HU (K, J, I) float32, nothing below air; labels, uint8; spacing."""
    with np.load(file) as data:
        image, labels, (k, j, i) = data["image"], data["labels"], (float(s) for s in data["spacing_kji_mm"])
    return np.maximum(image, _AIR).astype(np.float32), labels, (k, j, i)


def _believed(volumes_ml: dict[str, Any], middle: dict[str, float]) -> list[int]:
    low, high = _BELIEVED
    return [n for n, name in enumerate(_ORGANS, 1) if name in volumes_ml and low < volumes_ml[name] / middle[name] < high]


def _numbered(labels: np.ndarray, groups: list[list[int]]) -> np.ndarray:
    """Segments 1, 2, ... of groups of labels, uint8, alike."""
    table = np.zeros(int(labels.max()) + 1, np.uint8)
    for n, group in enumerate(groups, 1):
        table[group] = n
    return table[labels]
