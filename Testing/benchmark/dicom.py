"""DICOM: how long reading a series, and writing and reading a SEG take."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from common import CT_KJI, SPACING_KJI_MM, Rows, timed, times

import dicoms
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.io import dicomseg, dicomseries

SEGMENTS = 10


def dicom(options: argparse.Namespace) -> Rows:
    """512 x 512 x 300 with 10 segments, files in the system's cache."""
    shape = (6, 32, 32) if options.quick else CT_KJI
    truth = np.zeros(shape, np.uint8)
    step = shape[1] // (SEGMENTS + 2)
    for c in range(1, SEGMENTS + 1):
        truth[1:-1, c * step : (c + 1) * step, 2:-2] = c
    classes = ClassTable.numbered(SEGMENTS)
    image = np.random.default_rng(0).integers(0, 2000, shape).astype(np.int16)
    with tempfile.TemporaryDirectory(prefix="sparseseg-bench-") as folder:
        dicoms.write_series(Path(folder) / "series", image, Geometry.from_axes(shape, SPACING_KJI_MM), intercept=-1024)
        series = dicomseries.find_series(Path(folder) / "series")
        seg = Path(folder) / "seg.dcm"
        work = {
            "reading the series": lambda: dicomseries.read_series(Path(folder) / "series"),
            "writing the SEG, the series' headers included": lambda: dicomseg.write_seg(seg, truth, series, classes),
            "reading the SEG": lambda: dicomseg.read_seg(seg, series.geometry),
        }
        rows = []
        for name, call in work.items():
            seconds = [timed(call)[0] for _ in range(1 if options.quick else 3)]
            rows.append({"what": name, "volume (k j i)": times(shape), "segments": SEGMENTS, "seconds": median(seconds), "max": max(seconds)})
    return rows
