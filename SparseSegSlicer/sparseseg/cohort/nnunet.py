"""A list's strokes as a data set of nnU-Net v2, whose "ignore" label is what nobody labelled."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .. import io
from ..console import Screen
from ..contract.classes import ClassTable
from ..contract.errors import InputError, OutputError
from ..contract.folders import writing
from ..network.intensity import looks_like_ct
from .datasets import IGNORE
from .patient import Meaning, Patient
from .patients import read_list
from .reading import Segments, codes, read_image, read_strokes

_ENDING = ".nii.gz"
_MOST_LABELS = 254  # of a label map of 8 bits, beside background


def export(options: argparse.Namespace) -> None:
    """Writes the whole data set or nothing. Raises InputError, OutputError."""
    show, folder = Screen(), options.nnunet
    with options.stop.at_once():
        patients = read_list(options.list, annotated=True)
        if folder.exists():
            raise OutputError(f"{folder} is there already.", "Give a new folder.")
        try:
            with writing(folder.parent):
                write(folder, patients, options.complete_slices, Meaning(options.background, options.unlabelled), show.stage)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    show.wrote(folder)


def write(folder: Path, patients: Sequence[Patient], complete_slices: str, otherwise: Meaning, tell: Callable[[str], None]) -> None:
    """Each patient is read twice, one at a time: its labels' numbers are known when all were seen. Raises InputError, OSError."""
    segments, is_ct = Segments(), []
    for number, patient in enumerate(patients, 1):
        tell(f"reading {number} of {len(patients)}")
        image, channels = read_image(patient)
        segments.add(read_strokes(patient, image, complete_slices, otherwise), patient)
        is_ct.append([looks_like_ct(channel) for channel in channels])
    table = segments.table()
    about = _about(table, np.mean(is_ct, 0) >= 0.5, len(patients))
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number, patient in enumerate(patients, 1):
        tell(f"writing {number} of {len(patients)}")
        image, channels = read_image(patient)
        for n, channel in enumerate(channels):
            io.write_volume(folder / "imagesTr" / f"{patient.name}_{n:04d}{_ENDING}", channel, image.geometry, like=image)
        strokes = read_strokes(patient, image, complete_slices, otherwise)
        annotation = np.take(codes(strokes.classes, table), strokes.annotation)
        io.write_volume(folder / "labelsTr" / f"{patient.name}{_ENDING}", _labels(annotation, len(table)), image.geometry, like=image)
    (folder / "dataset.json").write_text(json.dumps(about, indent=1), encoding="utf-8")  # last: without it there is no data set


def _labels(annotation: np.ndarray, segments: int) -> np.ndarray:
    """0 unlabelled, 1 background, 1 + c segment c -> 0 background, c segment c, and one more for what is unlabelled."""
    table = np.arange(256, dtype=np.int64) - 1
    table[0] = segments + 1
    return np.take(table.astype(np.uint8), annotation)


def _about(table: ClassTable, is_ct: np.ndarray, count: int) -> dict[str, object]:
    """Channels called CT are normalised by their Hounsfield units there, others each by itself. Raises InputError."""
    names = table.names
    if taken := {"background", IGNORE} & set(names):
        raise InputError(f"A segment is called {min(taken)}, which means something else to nnU-Net.", "Rename it.")
    if len(names) >= _MOST_LABELS:
        raise InputError(f"{len(names)} segments leave no label for what is unlabelled.", "Export fewer segments.")
    labels = {"background": 0, **{name: value for value, name in enumerate(names, 1)}, IGNORE: len(names) + 1}
    channels = {str(n): "CT" if ct else f"channel {n + 1}" for n, ct in enumerate(is_ct)}
    return {"channel_names": channels, "labels": labels, "numTraining": count, "file_ending": _ENDING}
