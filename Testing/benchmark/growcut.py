"""Grow from seeds (vtkImageGrowCutSegment) from nothing and then with corrections, as Slicer's effect keeps it: `python growcut.py FOLDER`.

Reads image.npy, annotation.npy and strokes.npz (what simulate's strokes became: flat indices and values of each, in turn) there; writes
growcut.json, and the label maps before and after the corrections, first.npy and last.npy. The filter keeps its distances between two updates.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np


def main(folder: Path) -> int:
    import slicer
    import vtk
    from machine import peak_bytes
    from peers import as_int16, vtk_image
    from vtk.util.numpy_support import vtk_to_numpy

    image, annotation = np.load(folder / "image.npy"), np.load(folder / "annotation.npy")
    with np.load(folder / "strokes.npz") as file:
        strokes = [(file[f"at{n}"], file[f"value{n}"]) for n in range(len(file.files) // 2)]
    seeds = vtk_image(annotation, vtk.VTK_UNSIGNED_CHAR)
    painted = vtk_to_numpy(seeds.GetPointData().GetScalars())
    grower = slicer.vtkImageGrowCutSegment()
    grower.SetIntensityVolume(vtk_image(as_int16(image), vtk.VTK_SHORT))
    grower.SetSeedLabelVolume(seeds)
    grower.SetDistancePenalty(0.0)

    def grown(name: str) -> None:
        label = vtk_to_numpy(grower.GetOutput().GetPointData().GetScalars()).reshape(image.shape)
        np.save(folder / name, (np.maximum(label, 1) - 1).astype(np.uint8))

    def update() -> float:
        start = time.perf_counter()
        grower.Update()
        return time.perf_counter() - start

    first, corrections = update(), []
    grown("first.npy")
    for at, value in strokes:
        painted[at] = value
        seeds.Modified()
        corrections.append(update())
    grown("last.npy")
    found = {"first": first, "corrections": corrections, "peak_gb": peak_bytes() / 1e9}
    (folder / "growcut.json").write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
