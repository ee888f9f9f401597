"""Lists of patients: a table (CSV), JSON lines, or a folder (one folder a patient, BIDS, an nnU-Net dataset)."""

from __future__ import annotations

import csv
import io as text_io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..contract.channels import MOST_CHANNELS
from ..contract.errors import InputError
from ..contract.opening import is_folder, read_text
from .datasets import read_folder
from .patient import Patient as Patient
from .patient import stem

_MOST_BYTES = 64_000_000  # of a list: some 100,000 patients
_MOST_DEPTH = 8  # parts of a path in a name
_LONGEST_NAME = 120
_IMAGE, _COLUMN = re.compile(r"image(\d*)"), "image"
_OF_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that its files may not have
_URL = re.compile(r"https?://")


def read_list(source: Path, annotated: bool) -> list[Patient]:
    """All patients of a list, or those that have an annotation (annotated), in its order. Files are not looked at.

    Raises InputError with the place in the list where it cannot be understood, where a name occurs twice, or where nobody is left.
    """
    source = Path(source)
    found = read_folder(source, annotated) if is_folder(source) else list(_read_file(source))
    if not found:
        raise InputError(f"{source.name} lists no patient.", "See docs/cohorts.md for what a list looks like.")
    found = _named(found)
    if annotated and not (found := [patient for patient in found if patient.annotation]):
        raise InputError(f"No patient of {source.name} has an annotation.", "Name annotations in a column `annotation`; see docs/cohorts.md.")
    channels = {len(patient.images): patient for patient in reversed(found)}
    if len(channels) > 1:
        few, many = channels[min(channels)], channels[max(channels)]
        raise InputError(
            f"{few.place} has {len(few.images)} and {many.place} {len(many.images)} images of a patient.", "Give each patient the same channels."
        )
    return found


# ---------------------------------------------------------------- files


def _read_file(source: Path) -> Iterator[Patient]:
    try:
        text = read_text(source, _MOST_BYTES, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source.name} cannot be read as text ({error}).", "Save the list as CSV or JSON lines, in UTF-8.") from error
    for place, row in (_json_rows if text.lstrip().startswith("{") else _csv_rows)(text, source.name):
        yield _patient(row, source.parent, place)


def _csv_rows(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    header = text.partition("\n")[0]
    rows = csv.reader(text_io.StringIO(text), delimiter=max(",;\t", key=header.count), strict=True)
    try:
        columns = [column.strip().lower() for column in next(rows, [])]
        if _COLUMN not in columns:
            raise InputError(f"{name} has no column `image` in its first line.", "Write a header, for example: image,annotation")
        for row in rows:
            if any(cell.strip() for cell in row):
                if len(row) > len(columns):
                    raise InputError(f"{name}, line {rows.line_num} has {len(row)} cells, its header {len(columns)}.", "Quote cells with commas.")
                yield f"{name}, line {rows.line_num}", dict(zip(columns, (cell.strip() for cell in row), strict=False))
    except csv.Error as error:
        raise InputError(f"{name}, line {rows.line_num} is no CSV ({error}).", "Save the list again as CSV.") from error


def _json_rows(text: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{name}, line {number} is no JSON ({error!s:.100}).", 'Write one object a line, as {"image": "a.nrrd"}.') from error
            if not isinstance(row, dict):
                raise InputError(f"{name}, line {number} is no JSON object.", 'Write one object a line, as {"image": "a.nrrd"}.')
            yield f"{name}, line {number}", row


def _patient(row: Mapping[str, Any], folder: Path, place: str) -> Patient:
    """Of one row: `image`, or a list of them, `image2`, ...; `annotation`; `name`; whatever else it has."""
    given = row.get(_COLUMN)
    listed = list(given) if isinstance(given, list) else [given]
    numbered = sorted((int(match[1]), key) for key in row if (match := _IMAGE.fullmatch(key)) and match[1])
    images = [*listed, *(row[key] for _, key in numbered if row[key])]
    annotation, name = row.get("annotation") or None, row.get("name") or ""
    if not all(isinstance(text, str) and text for text in (*images, *([annotation] if annotation else []))) or not isinstance(name, str | int):
        raise InputError(f"{place} names no image, or one that is no text.", "Give each line an image, and leave out what there is not.")
    if len(images) > MOST_CHANNELS:
        raise InputError(f"{place} has {len(images)} images.", f"A patient has {MOST_CHANNELS} channels at most.")
    taken = {_COLUMN, "annotation", "name", *(key for _, key in numbered)}
    extra = {key: str(value) for key, value in row.items() if key not in taken and value not in (None, "")}
    return Patient(str(name), tuple(_path(text, folder) for text in images), Path(_path(annotation, folder)) if annotation else None, extra, place)


def _path(text: str, folder: Path) -> str:
    """Counted from the list's own folder; an address stays as it is."""
    return text if _URL.match(text) else str(folder / text)


# ---------------------------------------------------------------- names


def _named(patients: Sequence[Patient]) -> list[Patient]:
    """With names of their own: what the list says, else the fewest last parts of the images' paths that tell all of them apart."""
    unnamed = [patient for patient in patients if not patient.name]
    names: Callable[[Patient], str] = lambda patient: patient.name  # noqa: E731
    if unnamed:
        depth = next((d for d in range(1, _MOST_DEPTH) if len({_of_path(p, d).casefold() for p in unnamed}) == len(unnamed)), _MOST_DEPTH)
        names = lambda patient: patient.name or _of_path(patient, depth)  # noqa: E731
    result: dict[str, Patient] = {}
    for patient in patients:
        name = _safe(names(patient))
        if (before := result.get(name.casefold())) is not None:
            raise InputError(
                f"{patient.place} and {before.place} are both called {name}.", "Give each patient a name of its own, in a column `name`."
            )
        result[name.casefold()] = replace(patient, name=name)
    return list(result.values())


def _of_path(patient: Patient, depth: int) -> str:
    path = PurePosixPath(_URL.sub("", patient.images[0]).replace("\\", "/"))
    return _safe("-".join((*path.parent.parts[::-1][: depth - 1][::-1], stem(path.name))))


def _safe(name: str) -> str:
    """Letters that every file system takes."""
    safe = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._-")[:_LONGEST_NAME].rstrip("._-") or "patient"
    return f"{safe}_" if _OF_WINDOWS.fullmatch(safe) else safe
