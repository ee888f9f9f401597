"""Small volumes with known truth, for tests that need something to learn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.settings import Settings


@dataclass(frozen=True)
class Phantom:
    image: np.ndarray  # (K, J, I) int16, or (C, K, J, I)
    truth: np.ndarray  # (K, J, I) uint8: 0 background, 1 and 2 two organs
    annotation: np.ndarray  # (K, J, I) uint8: three complete axial slices; 0 unlabelled, 1 background, 1 + c segment c
    geometry: Geometry
    classes: ClassTable


def two_organs(shape_kji: tuple[int, int, int] = (24, 40, 36), seed: int = 0) -> Phantom:
    """A bright and a dark ellipsoid in grey noise, annotated on three axial slices."""
    rng = np.random.default_rng(seed)
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape_kji), indexing="ij")
    truth = np.zeros(shape_kji, np.uint8)
    truth[(k / 0.8) ** 2 + ((j + 0.1) / 0.5) ** 2 + ((i - 0.45) / 0.35) ** 2 < 1] = 1
    truth[(k / 0.7) ** 2 + ((j - 0.1) / 0.4) ** 2 + ((i + 0.45) / 0.3) ** 2 < 1] = 2
    image = (np.array([40, 120, -20])[truth] + rng.normal(0, 15, shape_kji)).astype(np.int16)
    annotation = np.zeros(shape_kji, np.uint8)
    for index in (shape_kji[0] // 4, shape_kji[0] // 2, 3 * shape_kji[0] // 4):
        annotation[index] = truth[index] + 1
    geometry = Geometry.from_axes(shape_kji, (1.0, 1.0, 1.5), (-20, 10, 5))
    return Phantom(image, truth, annotation, geometry, ClassTable.numbered(2, ["bright", "dark"]))


def make_job(
    folder: Path, phantom: Phantom, settings: Settings | None = None, annotation: np.ndarray | None = None, hints: Hints | None = None
) -> Path:
    """A job folder with the phantom, quick to train on."""
    settings = settings or replace(Settings(), steps=12, width=4, depth=2, patch_voxels=16**3)
    annotation = phantom.annotation if annotation is None else annotation
    Job.create(folder, phantom.image, annotation, JobRecord(phantom.geometry, phantom.classes, settings, hints=hints)).close()
    return folder


def two_contrasts(shape_kji: tuple[int, int, int] = (24, 32, 32), seed: int = 0) -> Phantom:
    """Lumps of two tissues in a third, image (2, K, J, I) int16: noise that both channels share hides all of them in either; only the channels'
    difference tells one from the other. Annotated on two axial slices, too far apart to say what is between them."""
    rng = np.random.default_rng(seed)
    k, j, i = np.meshgrid(*(np.arange(n) for n in shape_kji), indexing="ij")
    waves = rng.normal(0, 0.5, (40, 3)) @ np.stack([k, j, i]).reshape(3, -1) + rng.uniform(0, 2 * np.pi, (40, 1))
    lumps = np.cos(waves).sum(0).reshape(shape_kji) / np.sqrt(20)
    truth = np.select([lumps > 0.6, lumps < -0.6], [1, 2], 0).astype(np.uint8)
    shared, difference = rng.normal(0, 60, shape_kji), np.array([0, 20, -20])[truth]
    image = np.stack([100 + shared + sign * difference + rng.normal(0, 4, shape_kji) for sign in (1, -1)]).astype(np.int16)
    annotation = np.zeros(shape_kji, np.uint8)
    for index in (shape_kji[0] // 4, 3 * shape_kji[0] // 4):
        annotation[index] = truth[index] + 1
    geometry = Geometry.from_axes(shape_kji, (1.0, 1.0, 1.5), (-20, 10, 5))
    return Phantom(image, truth, annotation, geometry, ClassTable.numbered(2, ["one", "other"]))
