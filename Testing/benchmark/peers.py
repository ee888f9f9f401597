"""The peers, each run in a process of its own: `python peers.py METHOD TASK` reads the folder TASK, writes its METHOD.npy and METHOD.json.

A peer is a function that loads its package and returns the call to time. It raises Missing where the package is not there, NotApplicable where the
annotation is of a kind that it does not take. Needs numpy, and what each peer needs.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

Call = Callable[[], np.ndarray]
WALKER_VOXELS = 400_000  # more are walked on a coarser grid
WALKER_BETA = 130  # scikit-image's own


class Missing(Exception):
    """A package is not installed."""


class NotApplicable(Exception):
    """This kind of annotation is nothing for this peer."""


@dataclass(frozen=True)
class Task:
    """What every peer is given. image: (K, J, I); annotation: (K, J, I) uint8, 0 unlabelled, 1 background, 1 + c segment c."""

    folder: Path
    image: np.ndarray
    annotation: np.ndarray
    spacing_kji_mm: tuple[float, float, float]
    segments: int
    modality: str = "CT"
    device: str = "auto"
    seconds: float = 600  # for those that train
    seed: int = 0

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.folder / "image.npy", self.image)
        np.save(self.folder / "annotation.npy", self.annotation)
        about = {name: value for name, value in asdict(self).items() if name not in ("folder", "image", "annotation")}
        (self.folder / "task.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Task:
        about = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        return cls(folder, np.load(folder / "image.npy"), np.load(folder / "annotation.npy"), **about)


def prior(task: Task) -> Call:
    """This project's growing alone: no refiner, no network."""
    from sparseseg.prior import compiled
    from sparseseg.prior.grown import compute_prior

    compiled.warm_up()

    labels = np.maximum(task.annotation, 1) - 1
    return lambda: compute_prior(task.image, labels, task.annotation > 0, task.spacing_kji_mm).label


def grow(task: Task) -> Call:
    """Slicer's Grow from seeds (vtkImageGrowCutSegment) on the whole volume, seed locality 0."""
    library("slicer", "slicer-core")
    library("vtk", "vtk")
    return lambda: growing(task.image, task.annotation)


def grow_region(task: Task) -> Call:
    """The same where Slicer's effect grows: the box of the seeds and a margin of a tenth of it, 3 voxels at least; background elsewhere."""
    library("slicer", "slicer-core")
    library("vtk", "vtk")
    box = seeds_box(task.annotation, 0.1, 3)

    def call() -> np.ndarray:
        label = np.zeros(task.image.shape, np.uint8)
        label[box] = growing(task.image[box], task.annotation[box])
        return label

    return call


def growing(image: np.ndarray, annotation: np.ndarray) -> np.ndarray:
    """(K, J, I) uint8, 0 background."""
    grower = Grower(image, annotation)
    grower.grow()
    return grower.label


class Grower:
    """vtkImageGrowCutSegment, kept for corrections as Slicer's effect keeps it: it goes on from the distances that it has.

    Gray values beyond int16 are scaled into it, fractions kept by scaling up.
    """

    def __init__(self, image: np.ndarray, annotation: np.ndarray) -> None:
        import slicer
        import vtk

        self._shape, self._seeds = image.shape, vtk_image(annotation, vtk.VTK_UNSIGNED_CHAR)
        self._filter = slicer.vtkImageGrowCutSegment()
        self._filter.SetIntensityVolume(vtk_image(as_int16(image), vtk.VTK_SHORT))
        self._filter.SetSeedLabelVolume(self._seeds)
        self._filter.SetDistancePenalty(0.0)

    def paint(self, at: Any, values: Any) -> None:
        """Annotation values at flat indices, or all of them at slice(None)."""
        voxels_of(self._seeds)[at] = values
        self._seeds.Modified()

    def grow(self) -> float:
        """Seconds that it took."""
        start = time.perf_counter()
        self._filter.Update()
        return time.perf_counter() - start

    @property
    def label(self) -> np.ndarray:
        """(K, J, I) uint8, 0 background."""
        return (np.maximum(voxels_of(self._filter.GetOutput()), 1) - 1).astype(np.uint8).reshape(self._shape)


def voxels_of(image: Any) -> np.ndarray:
    """Flat, in the order of (K, J, I); the image's own memory."""
    from vtk.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(image.GetPointData().GetScalars())


def vtk_image(array: np.ndarray, kind: int) -> Any:
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True, array_type=kind))
    return image


def as_int16(image: np.ndarray) -> np.ndarray:
    """Whole numbers that fit stay as they are; others are spread over 4000 levels."""
    low, high = float(image.min()), float(image.max())
    whole = np.issubdtype(image.dtype, np.integer) or bool((image == np.rint(image)).all())
    if whole and low >= -32768 and high <= 32767:
        return image.astype(np.int16)
    return ((image - low) * (4000 / max(high - low, 1e-6))).astype(np.int16)


def fill(task: Task) -> Call:
    """Slicer's Fill between slices: ITK's morphological contour interpolation, on all axes; takes complete slices only."""
    if not complete_slices(task.annotation):
        raise NotApplicable("takes complete slices only")
    itk = library("itk", "itk-morphologicalcontourinterpolation")
    if not hasattr(itk, "MorphologicalContourInterpolator"):
        raise Missing("itk-morphologicalcontourinterpolation is not installed")

    def call(labels: np.ndarray) -> np.ndarray:
        image = itk.image_from_array(labels)
        filler = itk.MorphologicalContourInterpolator[type(image)].New(Input=image)
        filler.Update()
        return itk.array_from_image(filler.GetOutput())

    tiny = np.zeros((3, 8, 8), np.uint8)
    tiny[::2, 2:6, 2:6] = 1
    call(tiny)  # ITK loads its libraries at the first call, which takes seconds
    return lambda: call(np.maximum(task.annotation, 1) - 1)


def walker(task: Task) -> Call:
    """scikit-image's random walker (beta 130, conjugate gradients), in the seeds' region, on a coarser grid above WALKER_VOXELS."""
    segmentation = library("skimage.segmentation", "scikit-image")
    box = seeds_box(task.annotation, 0.2, 8)
    factors = pooling([s.stop - s.start for s in box], task.spacing_kji_mm, WALKER_VOXELS)

    def call() -> np.ndarray:
        image = pooled(task.image[box].astype(np.float32), factors, np.mean)
        image = np.clip(image, *np.percentile(image, [0.5, 99.5]))
        seeds = pooled(task.annotation[box], factors, np.max).astype(np.int32)
        spacing = np.multiply(task.spacing_kji_mm, factors)
        walked = segmentation.random_walker(image, seeds, beta=WALKER_BETA, mode="cg_j", tol=1e-3, spacing=spacing / spacing.min())
        fine = walked
        for axis, factor in enumerate(factors):
            fine = fine.repeat(factor, axis)
        label = np.zeros(task.image.shape, np.uint8)
        label[box] = np.maximum(fine[tuple(slice(s.stop - s.start) for s in box)], 1) - 1
        return label

    return call


def nnunet(task: Task) -> Call:
    """nnU-Net v2 trained on this one volume, what is not annotated being its ignore label."""
    library("nnunetv2", "nnunetv2")
    import nnunet as runner

    return lambda: runner.run(task)


def missing(task: Task) -> Call:
    """For the tests: a peer whose package is never there."""
    library("no_such_package_of_anybody", "no-such-package")
    raise AssertionError


def broken(task: Task) -> Call:
    """For the tests: a peer that ends its process."""
    import os

    os._exit(9)


PEERS: dict[str, Callable[[Task], Call]] = {
    "prior": prior,
    "grow": grow,
    "grow-region": grow_region,
    "fill": fill,
    "walker": walker,
    "nnunet": nnunet,
}
HIDDEN = {"missing": missing, "broken": broken}


def library(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Missing(f"{package} is not installed ({error})") from error


def complete_slices(annotation: np.ndarray) -> list[tuple[int, int]]:
    """(axis, index) of the slices that are labelled throughout."""
    whole = [(annotation > 0).all(axis=others) for others in ((1, 2), (0, 2), (0, 1))]
    return [(axis, int(index)) for axis in range(3) for index in np.flatnonzero(whole[axis])]


def seeds_box(annotation: np.ndarray, share: float, least: int) -> tuple[slice, ...]:
    """The box of all seeds, background's too, and on each side a share of it more, at least `least` voxels."""
    box = []
    for axis, size in enumerate(annotation.shape):
        found = np.flatnonzero(annotation.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = int(found[0]), int(found[-1])
        margin = int(max(least, share * (high - low)))
        box.append(slice(max(0, low - margin), min(size, high + margin + 1)))
    return tuple(box)


def pooling(shape: Sequence[int], spacing_mm: Sequence[float], voxels: int) -> list[int]:
    """How many voxels of each axis make one, the finest axis first, so that `voxels` suffice."""
    factors = [1, 1, 1]
    while np.prod([-(-n // f) for n, f in zip(shape, factors, strict=True)]) > voxels:
        axis = min(range(3), key=lambda a: spacing_mm[a] * factors[a] if shape[a] > factors[a] else np.inf)
        factors[axis] += 1
    return factors


def pooled(volume: np.ndarray, factors: Sequence[int], how: Callable[..., np.ndarray]) -> np.ndarray:
    """Blocks of `factors` voxels become one; borders are repeated to full blocks."""
    padded = np.pad(volume, [(0, -n % f) for n, f in zip(volume.shape, factors, strict=True)], mode="edge")
    shape = [part for n, f in zip(padded.shape, factors, strict=True) for part in (n // f, f)]
    return how(padded.reshape(shape), axis=(1, 3, 5))


def main(method: str, folder: Path) -> int:
    from machine import peak_bytes

    outcome: dict[str, Any] = {"method": method}
    try:
        call = {**PEERS, **HIDDEN}[method](Task.load(folder))
        start = time.perf_counter()
        label = call()
        outcome |= {"status": "ok", "seconds": time.perf_counter() - start, "peak_gb": peak_bytes() / 1e9}
        np.save(folder / f"{method}.npy", label)
    except (Missing, NotApplicable) as error:
        outcome |= {"status": "missing" if isinstance(error, Missing) else "not applicable", "reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        outcome |= {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:500]}
    (folder / f"{method}.json").write_text(json.dumps(outcome), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
