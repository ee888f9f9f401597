"""A small CT-like volume with strokes, made on the spot: sample data that needs no download. No qt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer

from sparseseg import __version__
from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.contract.geometry import Geometry
from sparseseg.io import write_annotation, write_volume

from .Grids import matrixFromArray
from .SceneImport import boundingBox, importLabels, orientedImage
from .Segments import markBackground

NAME = "SparseSegPhantom"
FILES = (f"{NAME}-{__version__}.nrrd", f"{NAME}-{__version__}.seg.nrrd")
_SHAPE_KJI = (40, 96, 96)
_SPACING_KJI_MM = (3.0, 1.2, 1.2)
_SEGMENTS = (("Liver", (0.87, 0.56, 0.35)), ("Kidney", (0.72, 0.29, 0.21)), ("Vessel", (0.85, 0.15, 0.15)))
_BACKGROUND = ("Background", (0.45, 0.45, 0.45))
_SLICES = (12, 20, 28)


def makePhantom(seed: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """image int16 (Hounsfield-like), truth uint8 (0 background, 1 liver, 2 kidney, 3 vessel), annotation uint8 (0 unlabelled, 1 background,
    1 + c segment c); all (K, J, I). The annotation is what a person might paint: thick strokes on three axial slices."""
    rng = np.random.default_rng(seed)
    k, j, i = (np.linspace(-1, 1, n)[(slice(None),) + (None,) * (2 - axis)] for axis, n in enumerate(_SHAPE_KJI))
    body = (j / 0.85) ** 2 + (i / 0.95) ** 2 < 1
    liver = (k / 0.75) ** 2 + ((j + 0.1) / 0.45) ** 2 + ((i + 0.35 + 0.1 * k) / 0.42) ** 2 < 1
    kidney = (k / 0.6) ** 2 + ((j - 0.25) / 0.22) ** 2 + ((i - 0.45) / 0.18) ** 2 < 1
    vessel = (j - 0.1 * np.sin(3 * k) - 0.35) ** 2 + (i - 0.08 * k) ** 2 < 0.13**2
    truth = np.zeros(_SHAPE_KJI, np.uint8)
    for value, shape in enumerate((liver, kidney, vessel), start=1):
        truth[np.broadcast_to(shape & body, _SHAPE_KJI)] = value
    image = np.where(np.broadcast_to(body, _SHAPE_KJI), 40.0, -1000.0)
    for value, intensity in enumerate((110.0, 190.0, 280.0), start=1):
        image[truth == value] = intensity
    image += 8 * _smooth(rng.normal(size=_SHAPE_KJI)) + rng.normal(scale=22, size=_SHAPE_KJI)
    return image.astype(np.int16), truth, _strokes(truth, np.broadcast_to(body, _SHAPE_KJI))


def phantomOverlap(labels: np.ndarray, names: list[str]) -> float:
    """Mean Dice of a result (K, J, I) against the phantom's truth; names[c - 1] is what value c stands for."""
    truth = makePhantom()[1]
    values = {name: value for value, (name, _) in enumerate(_SEGMENTS, start=1)}
    pairs = [(labels == value, truth == values[name]) for value, name in enumerate(names, start=1)]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]))


def _smooth(noise: np.ndarray) -> np.ndarray:
    for axis in range(3):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-4, 5)) / 3
    return noise


def _strokes(truth: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Each structure's inner part on a few slices, and two bands of background."""
    annotation = np.zeros(truth.shape, np.uint8)
    for index in _SLICES:
        for value in range(1, len(_SEGMENTS) + 1):
            annotation[index][_eroded(truth[index] == value, 2)] = value + 1
        band = np.zeros(truth.shape[1:], bool)
        band[8:12, 20:76] = band[82:86, 24:72] = band[44:48, 4:8] = band[46:50, 66:72] = True
        annotation[index][band & (truth[index] == 0)] = 1
        annotation[index][_eroded(body[index] & (truth[index] == 0), 6)] = 1
    return annotation


def _eroded(mask: np.ndarray, times: int) -> np.ndarray:
    for _ in range(times):
        mask = mask & np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1)
    return mask


def addPhantom():
    """Adds volume and strokes to the scene; returns the two nodes."""
    image, _, annotation = makePhantom()
    scene, ijkToRAS = slicer.mrmlScene, _ijkToRAS()
    volume = slicer.util.addVolumeFromArray(image, ijkToRAS=matrixFromArray(ijkToRAS), name=scene.GenerateUniqueName(NAME))
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevelMinMax(-160, 320)
    strokes = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(f"{NAME} segmentation"))
    strokes.CreateDefaultDisplayNodes()
    strokes.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation, ids = strokes.GetSegmentation(), []
    for name, color in (_BACKGROUND, *_SEGMENTS):
        ids.append(segmentation.AddEmptySegment(name, name))
        segmentation.GetSegment(name).SetColor(*color)
    markBackground(segmentation.GetSegment(_BACKGROUND[0]))
    importLabels(strokes, orientedImage(annotation, boundingBox(annotation), ijkToRAS, ids), ids)
    return [volume, strokes]


def writePhantom(folder: Path) -> list[Path]:
    """The same as two files, an image and a segmentation; files of this version that are there already are left alone."""
    paths = [folder / name for name in FILES]
    if not all(path.exists() for path in paths):
        image, _, annotation = makePhantom()
        geometry = Geometry.from_ijk_to_ras(_SHAPE_KJI, _ijkToRAS())
        background, *segments = (Segment(name, name, color) for name, color in (_BACKGROUND, *_SEGMENTS))
        write_volume(paths[0], image, geometry)
        write_annotation(paths[1], annotation, geometry, ClassTable(tuple(segments), background))
    return paths


def _ijkToRAS() -> np.ndarray:
    """4 x 4, with the middle at the origin."""
    k, j, i = _SPACING_KJI_MM
    matrix = np.diag([-i, -j, k, 1.0])
    matrix[:3, 3] = [i * _SHAPE_KJI[2] / 2, j * _SHAPE_KJI[1] / 2, -k * _SHAPE_KJI[0] / 2]
    return matrix
