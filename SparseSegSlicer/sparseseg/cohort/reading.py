"""A patient's volumes and strokes as files have them, and one table of segments for all patients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import io
from ..annotation.labels import labels_in
from ..annotation.slices import find_complete_slices
from ..contract.box import whole
from ..contract.classes import ClassTable, Segment
from ..contract.errors import AnnotationError, InputError
from .patient import Meaning, Patient

_NUMBERED = re.compile(r"(segment|label) (\d+)")  # what io calls a label map's values; a segment 1 has value 2


@dataclass(frozen=True)
class Strokes:
    """annotation (K, J, I) uint8: 0 unlabelled, 1 background, 1 + c segment c of `classes`; values: the segments' in their label map, none in
    another file; is_named: whether they have names of their own."""

    annotation: np.ndarray
    classes: ClassTable
    values: tuple[int, ...]
    is_named: bool
    remarks: tuple[str, ...]


@contextmanager
def of_patient(patient: Patient) -> Iterator[None]:
    """Whose fault it is belongs into the sentence."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{patient.place}: {error.sentence}", error.advice) from error


def read_image(patient: Patient) -> tuple[io.Image, list[np.ndarray]]:
    """The first image, and all as arrays (K, J, I) on its grid. Raises InputError."""
    with of_patient(patient):
        if any(image.startswith(("http://", "https://")) for image in patient.images):
            raise InputError("an annotated image is an address.", "Fetch the series, and give its folder.")
        first = io.read_volume(Path(patient.images[0]))
        return first, [first.array, *(io.read_channel(Path(path), first).array for path in patient.images[1:])]


def read_strokes(patient: Patient, image: io.Image, complete_slices: str, otherwise: Meaning) -> Strokes:
    """With the complete slices filled in (auto, none). otherwise: what label maps mean whose list does not say it. Raises InputError."""
    meaning = patient.meaning if patient.meaning != Meaning() else otherwise
    with of_patient(patient):
        assert patient.annotation is not None
        found = io.read_annotation(patient.annotation, image.geometry, meaning.background, unlabelled=meaning.unlabelled, series=image.series)
        complete = find_complete_slices(found.annotation) if complete_slices == "auto" else ()
        labels, origin = labels_in(found.annotation, whole(image.geometry.shape_kji), complete)
        annotation = np.where(origin > 0, labels + np.uint8(1), np.uint8(0))
        if annotation.max() < 2:
            raise AnnotationError("No segment has a painted voxel.", "Paint a structure there, or take the patient off the list.")
        classes, values = _by_value(found.classes, meaning) if found.note else (found.classes, ())
        return Strokes(annotation, classes, values, not values or bool(meaning.names), found.remarks)


def _by_value(classes: ClassTable, meaning: Meaning) -> tuple[ClassTable, tuple[int, ...]]:
    """Segments of a label map, by the names that its data set has for the values. Raises InputError."""
    parts = [_NUMBERED.fullmatch(name) for name in classes.names]
    values = tuple(int(part[2]) + (part[1] == "segment") for part in parts if part)
    if not meaning.names:
        return classes, values
    if unknown := [value for value in values if value not in meaning.names]:
        raise InputError(f"its annotation has the value {unknown[0]}, which dataset.json does not know.", "Add it to the labels there.")
    return classes.with_names([meaning.names[value] for value in values]), values


class Segments:
    """Those of all patients: by value in label maps, else by name; IDs are made anew where two names have the same."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[Segment, int, Patient]] = {}  # by name in small letters: the segment, its value, who had it first
        self._background: dict[str, Patient] = {}
        self._patients: dict[str, int] = {}
        self._first_of: dict[bool, Patient] = {}  # with names of their own, and without

    def add(self, strokes: Strokes, patient: Patient) -> None:
        """Raises InputError where a patient contradicts another."""
        self._first_of.setdefault(strokes.is_named, patient)
        names = [_key(name) for name in strokes.classes.names]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{patient.place} has two segments called {twice}.", "Patients' segments are matched by name; rename one of them.")
        for key, segment, value in zip(names, strokes.classes.segments, strokes.values or [0] * len(names), strict=True):
            self._first.setdefault(key, (segment, value, patient))
            self._patients[key] = self._patients.get(key, 0) + 1
        if strokes.classes.background is not None:
            self._background.setdefault(_key(strokes.classes.background.name), patient)
        self._check()

    def _check(self) -> None:
        if len(self._first_of) > 1:
            named, other = self._first_of[True], self._first_of[False]
            raise InputError(
                f"{other.place} has a label map, and {named.place} segments with names.", "Give all patients' annotation in the same form."
            )
        for name in self._first.keys() & self._background.keys():
            one, other = self._first[name][2], self._background[name]
            raise InputError(
                f"{name} is a segment for {one.place}, and the background for {other.place}.", "Say the same for all, with --background."
            )

    def table(self) -> ClassTable:
        """In the order of values, or of first appearance. Raises InputError for too many."""
        found = sorted(self._first.values(), key=lambda each: each[1])
        taken: set[str] = set()
        segments = []
        for segment, _, _ in found:
            number = 1
            own = segment.id
            while own in taken:
                number += 1
                own = f"{segment.id}_{number}"
            taken.add(own)
            segments.append(replace(segment, id=own, extra={}))
        return ClassTable(tuple(segments))

    def patients(self, name: str) -> int:
        """How many have it."""
        return self._patients[_key(name)]


def codes(own: ClassTable, table: ClassTable) -> np.ndarray:
    """(256,) uint8: an annotation's values in terms of the patient's own segments -> in terms of the table's."""
    result = np.zeros(256, np.uint8)
    result[1] = 1
    places = {_key(name): 2 + n for n, name in enumerate(table.names)}
    for n, name in enumerate(own.names):
        result[2 + n] = places[_key(name)]
    return result


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()
