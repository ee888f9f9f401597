"""Grow from seeds (vtkImageGrowCutSegment) from nothing and then with corrections, as Slicer's effect keeps it: `python growcut.py FOLDER`.

Reads image.npy, annotation.npy and strokes.npz (what simulate's strokes became: flat indices and values of each, in turn) there; writes
growcut.json, and the label maps before and after the corrections, first.npy and last.npy. The filter keeps its distances between two updates. `grown`
is the same for who does not know the corrections before.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from peers import Grower, library

_kept: list[Grower] = []  # of `grown`, in a process of its own


def grown(image: np.ndarray | None, annotation: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds and labels, (K, J, I) uint8; with an image from nothing, without one on from the last call. Raises Missing."""
    if image is not None:
        library("slicer", "slicer-core")
        library("vtk", "vtk")
        _kept[:] = [Grower(image, annotation)]
    else:
        _kept[0].paint(slice(None), annotation.ravel())
    return _kept[0].grow(), _kept[0].label


def main(folder: Path) -> int:
    from machine import peak_bytes

    image, annotation = np.load(folder / "image.npy"), np.load(folder / "annotation.npy")
    with np.load(folder / "strokes.npz") as file:
        strokes = [(file[f"at{n}"], file[f"value{n}"]) for n in range(len(file.files) // 2)]
    grower = Grower(image, annotation)
    first, corrections = grower.grow(), []
    np.save(folder / "first.npy", grower.label)
    for at, value in strokes:
        grower.paint(at, value)
        corrections.append(grower.grow())
    np.save(folder / "last.npy", grower.label)
    found = {"first": first, "corrections": corrections, "peak_gb": peak_bytes() / 1e9}
    (folder / "growcut.json").write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
