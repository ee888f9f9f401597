"""Cases with dense truth, in the format of shared/data: image.nii.gz or dicom/, truth.nii.gz, case.json, annotations/*.nii.gz.

Label maps: truth 0 background, c segment c; annotation 0 unlabelled, 1 background, 1 + c segment c.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparseseg.contract.classes import ClassTable
from sparseseg.contract.geometry import Geometry
from sparseseg.io import files
from sparseseg.quality.estimate import dice

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Case:
    name: str
    image: np.ndarray  # (K, J, I)
    truth: np.ndarray  # (K, J, I) uint8
    geometry: Geometry
    classes: ClassTable


def load_case(folder: Path) -> Case:
    """Raises InputError where a file is missing or broken."""
    about = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    volume = files.read_volume(folder / "dicom" if (folder / "dicom").is_dir() else folder / "image.nii.gz")
    truth = files.read_volume(folder / "truth.nii.gz").array.astype(np.uint8)
    names = [name for name, _ in sorted(about["labels"].items(), key=lambda item: item[1])]
    return Case(about["name"], volume.array, truth, volume.geometry, ClassTable.numbered(len(names), names))


def mni_case() -> Case:
    """The MNI152 T1 template with its grey and white matter, from the files that nilearn brings (needs the extra `demo`)."""
    import importlib.util

    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise SystemExit("The demo's MRI comes with nilearn: pip install -e '.[demo]', or give --case FOLDER.")
    folder = Path(spec.origin).parent / "datasets" / "data"
    t1, grey, white = (files.read_volume(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz") for kind in ("t1", "gm", "wm"))
    most = np.maximum(grey.array, white.array)
    truth = np.where(most < 128, 0, np.where(grey.array >= white.array, 1, 2)).astype(np.uint8)
    return Case("MNI152 T1", t1.array, truth, t1.geometry, ClassTable.numbered(2, ["grey matter", "white matter"]))


def annotate_slices(truth: np.ndarray, slices: list[tuple[int, int]]) -> np.ndarray:
    """The annotation of somebody who segmented these (axis, index) slices as a whole, background too."""
    annotation = np.zeros(truth.shape, np.uint8)
    for axis, index in slices:
        box = tuple(index if a == axis else slice(None) for a in range(3))
        annotation[box] = truth[box] + 1
    return annotation


def spread_slices(truth: np.ndarray, axis: int, count: int) -> list[tuple[int, int]]:
    """(axis, index) of `count` slices, evenly spread over the extent of the structures; together they show every segment."""
    found = np.flatnonzero(truth.any(axis=tuple(a for a in range(3) if a != axis)))
    low, high = int(found[0]), int(found[-1])
    return [(axis, low + round((n + 0.5) * (high - low) / count)) for n in range(count)]


def score(result: np.ndarray, truth: np.ndarray, annotation: np.ndarray) -> list[float]:
    """Dice of each segment on the voxels that the annotation leaves unlabelled."""
    unseen = annotation == 0
    return [dice(result[unseen], truth[unseen], c) for c in range(1, int(truth.max()) + 1)]
