"""A list of annotated patients -> volumes that can be drawn from: upright, on one working spacing, with one intensity, in files that are mapped.

Each volume is read twice, one at a time: what is common to all is known only when all were seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..annotation.labels import weight_table
from ..annotation.slices import covering_slices
from ..contract.classes import ClassTable
from ..contract.errors import AnnotationError
from ..contract.settings import Settings
from ..contract.turn import Turn
from ..network import device
from ..network.checkpoint import Checkpoint
from ..network.device import Compute, RunPlan
from ..network.intensity import Gray, Intensity, apply_all
from ..network.sampling import WorkingGrid, shape_at
from ..network.unet import Triple
from .patient import Meaning, Patient
from .reading import Segments, codes, read_image, read_strokes

_GRAYS = 20_000  # values of a patient's segments that are looked at
_FITTING = 0.9  # of the volumes, whose planes the device affords at the working spacing
_LEAST_SHARE = 1 / 20  # of all slices must lie across an axis for the network to be asked along it

Tick = Callable[[str], None]


@dataclass(frozen=True)
class Member:
    """A patient in the cohort, turned upright. own_kji and spacing_kji_mm: of its own voxels; slices: (axis, index), painted on, or all
    axial ones of a volume that is labelled throughout; voxels: labelled ones
    of each class with background; file: what its files begin with."""

    place: str
    file: str
    own_kji: Triple
    spacing_kji_mm: tuple[float, float, float]
    slices: tuple[tuple[int, int], ...]
    voxels: tuple[int, ...]
    classes: ClassTable
    grays: tuple[Gray, ...]


@dataclass(frozen=True)
class Cohort:
    """All that is common. patients: of each segment, how many have it; spacing_kji_mm: of the working grids; plan: its grid is the largest."""

    members: tuple[Member, ...]
    classes: ClassTable
    patients: tuple[int, ...]
    intensities: tuple[Intensity, ...]
    spacing_kji_mm: tuple[float, float, float]
    plan: RunPlan

    def grid(self, member: Member) -> WorkingGrid:
        return WorkingGrid.of_whole(member.own_kji, shape_at(member.own_kji, member.spacing_kji_mm, self.spacing_kji_mm))

    def orientations(self, members: Sequence[Member]) -> tuple[int, ...]:
        """The axes across which enough of their slices lie."""
        axes = [axis for member in members for axis, _ in member.slices]
        return tuple(axis for axis in range(3) if axes.count(axis) >= max(1, _LEAST_SHARE * len(axes)))

    def weights(self, members: Sequence[Member], settings: Settings) -> np.ndarray:
        """The weight of each value of an annotation, (256,) float32, 0 of what is unlabelled. Raises AnnotationError where a class has no label."""
        voxels = np.sum([member.voxels for member in members], 0)
        if not voxels[0]:
            raise AnnotationError("No patient has labelled background.", "Paint background on some slices, or say --complete-slices auto.")
        table = np.zeros(256, np.float32)
        table[1 : 1 + len(voxels)] = weight_table(voxels, settings)[1]
        return table


def look(patients: Sequence[Patient], folder: Path, complete_slices: str, otherwise: Meaning, tick: Tick) -> tuple[list[Member], Segments]:
    """Reads all once, and keeps the annotation, upright, in the folder. tick is called with what is read, and may raise. Raises InputError."""
    segments, members = Segments(), []
    for number, patient in enumerate(patients):
        tick(f"reading {number + 1} of {len(patients)}")
        members.append(_looked(patient, folder, f"{number:06d}", complete_slices, otherwise, segments))
    return members, segments


def _looked(patient: Patient, folder: Path, file: str, complete_slices: str, otherwise: Meaning, segments: Segments) -> Member:
    image, channels = read_image(patient)
    strokes = read_strokes(patient, image, complete_slices, otherwise)
    segments.add(strokes, patient)
    inside = strokes.annotation > 1
    grays = tuple(Gray.of(channel, _some(channel[inside])) for channel in channels)
    turn = Turn.upright(image.geometry)
    annotation = np.ascontiguousarray(turn.there(strokes.annotation))
    np.save(annotation_file(folder, file), annotation)
    found = [(0, k) for k in range(len(annotation))] if annotation.all() else covering_slices(annotation)
    voxels = np.bincount(annotation.reshape(-1), minlength=256)[1:]
    own, spacing = turn.triple(image.geometry.shape_kji), turn.triple(image.geometry.spacing_kji_mm)
    return Member(patient.place, file, own, spacing, tuple(found), tuple(voxels.tolist()), strokes.classes, grays)


def _some(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, len(values) // _GRAYS)]


def join(members: Sequence[Member], segments: Segments, compute: Compute, settings: Settings, start: Checkpoint | None) -> Cohort:
    """What all have in common: one table, one intensity of each channel, one spacing that the device affords. start: a model to begin with, whose
    intensities, spacing and network are taken. Raises InputError."""
    table, channels = segments.table(), len(members[0].grays)
    classes = len(table) + 1
    joined = tuple(replace(member, voxels=_in_terms_of(table, member)) for member in members)
    if start is not None:
        start.check_channels(channels)
        intensities, spacing = start.intensities, start.spacing_kji_mm
    else:
        intensities = tuple(Intensity.fit_all([member.grays[n] for member in members]) for n in range(channels))
        spacing = _spacing(joined, compute, settings, classes, channels)
    largest = max((shape_at(member.own_kji, member.spacing_kji_mm, spacing) for member in joined), key=lambda shape: sorted(shape)[::-1])
    plan = device.plan_run(compute, spacing, largest, classes, settings, channels)
    if start is not None:
        plan = replace(plan, network=replace(start.network, classes=classes), slices=start.slices)
    plan = device.fitting(replace(plan, grid_kji=largest), compute)
    return Cohort(joined, table, tuple(map(segments.patients, table.names)), intensities, spacing, plan)


def _in_terms_of(table: ClassTable, member: Member) -> tuple[int, ...]:
    voxels = np.zeros(len(table) + 1, np.int64)
    for value, count in enumerate(member.voxels, 1):
        if count:
            voxels[codes(member.classes, table)[value] - 1] += count
    return tuple(voxels.tolist())


def _spacing(members: Sequence[Member], compute: Compute, settings: Settings, classes: int, channels: int) -> tuple[float, float, float]:
    """At which most volumes are as fine as the device affords each of them."""
    each = []
    for member in members:
        plan = device.plan_run(compute, member.spacing_kji_mm, member.own_kji, classes, settings, channels)
        each.append(WorkingGrid.of_whole(member.own_kji, plan.grid_kji).spacing(member.spacing_kji_mm))
    k, j, i = (float(mm) for mm in np.quantile(each, _FITTING, axis=0, method="higher"))
    return (k, j, i)


def prepare(patients: Sequence[Patient], cohort: Cohort, folder: Path, tick: Tick) -> None:
    """Reads all a second time, and writes what is drawn from into the folder: image (C, k, j, i) float16 on the working grid, and the annotation in
    terms of the common table, (K, J, I) uint8. Raises InputError, OSError."""
    for number, (patient, member) in enumerate(zip(patients, cohort.members, strict=True)):
        tick(f"preparing {number + 1} of {len(patients)}")
        image, channels = read_image(patient)
        turn = Turn.upright(image.geometry)
        upright = [turn.there(channel) for channel in channels]
        np.save(image_file(folder, member), apply_all(cohort.intensities, upright, cohort.grid(member), torch.device("cpu")).numpy())
        annotation = np.load(annotation_file(folder, member.file))
        np.save(annotation_file(folder, member.file), np.take(codes(member.classes, cohort.classes), annotation))


def image_file(folder: Path, member: Member) -> Path:
    return folder / f"{member.file}-image.npy"


def annotation_file(folder: Path, file: str) -> Path:
    return folder / f"{file}-annotation.npy"
