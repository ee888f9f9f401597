"""Weight map and prior: how long they take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import CT_KJI, SEGMENTS, SPACING_KJI_MM, Rows, annotate, organs, timed, times

from cases import SHARED, load_case, score
from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.settings import Settings
from sparseseg.io import files
from sparseseg.prior import compiled
from sparseseg.prior.grown import compute_prior

PRIOR_KJI = (112, 101, 122)
PROTOCOLS = ("slices-3", "slices-5", "strokes-3")


def weights(options: argparse.Namespace) -> Rows:
    """Strokes and complete slices -> labels and weights; numpy, one thread."""
    truth = organs((40, 64, 64) if options.quick else CT_KJI)[1]
    annotation, complete = annotate(truth)
    classes = ClassTable.numbered(SEGMENTS)
    seconds = [timed(lambda: build_annotation(annotation, classes, Settings(), complete))[0] for _ in range(1 if options.quick else 5)]
    row = {
        "volume (k j i)": times(truth.shape),
        "segments": SEGMENTS,
        "complete slices": len(complete),
        "painted voxels": np.count_nonzero(annotation),
    }
    return [row | {"seconds": median(seconds), "min": min(seconds), "max": max(seconds)}]


def prior(options: argparse.Namespace) -> Rows:
    """Growing from nothing, compiled where numba is, in two threads: a phantom, and the real cases where they are."""
    compiled.warm_up()
    image, truth = organs((24, 40, 40) if options.quick else PRIOR_KJI)
    annotation, complete = annotate(truth)
    for _, k in complete:
        annotation[k] = truth[k] + 1
    rows = [prior_row("phantom", image, truth, annotation, SPACING_KJI_MM, options)]
    if not options.quick and SHARED.is_dir():
        for folder in sorted(p for p in SHARED.iterdir() if (p / "case.json").exists()):
            case = load_case(folder)
            for protocol in PROTOCOLS:
                painted = read_annotation(folder, protocol)
                rows.append(prior_row(f"{folder.name}, {protocol}", case.image, case.truth, painted, case.geometry.spacing_kji_mm, options))
    return rows


def prior_row(
    name: str, image: np.ndarray, truth: np.ndarray, annotation: np.ndarray, spacing: Sequence[float], options: argparse.Namespace
) -> dict[str, Any]:
    labels = np.maximum(annotation, 1) - 1
    runs = [timed(lambda: compute_prior(image, labels, annotation > 0, spacing)) for _ in range(1 if options.quick else 3)]
    dice = float(np.nanmean(score(runs[0][1].label, truth, annotation)))
    row = {"case": name, "volume (k j i)": times(image.shape), "segments": int(truth.max()), "seconds": median(s for s, _ in runs)}
    return row | {"max": max(s for s, _ in runs), "mean Dice": dice}


def read_annotation(folder: Path, protocol: str) -> np.ndarray:
    return files.read_volume(folder / "annotations" / f"{protocol}.nii.gz").array.astype(np.uint8)
