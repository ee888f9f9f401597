"""Folders as lists of patients: an nnU-Net dataset, BIDS, or one folder a patient."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..contract.errors import InputError
from .patient import Meaning, Patient, stem

IGNORE = "ignore"  # what nnU-Net calls the label that means nothing
_IMAGES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_CHANNEL = re.compile(r"(.+)_(\d{4})")
_OF_TREE = re.compile(r"image(\d*)")
_MOST_BYTES = 10_000_000  # of a dataset.json


def read_folder(folder: Path, annotated: bool) -> list[Patient]:
    """In the order of names. Raises InputError where it cannot be understood."""
    try:
        if (folder / "dataset.json").is_file():
            return list(_nnunet(folder, annotated))
        if (folder / "dataset_description.json").is_file() or any(folder.glob("sub-*/**/anat")):
            return list(_bids(folder))
        return [patient for own in sorted(folder.iterdir()) if own.is_dir() and (patient := _of_tree(own, folder)) is not None]
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror or error}).", "Ask for access to the folder, or copy it.") from error


# ---------------------------------------------------------------- nnU-Net


def _nnunet(folder: Path, annotated: bool) -> Iterator[Patient]:
    """Cases of imagesTr with their labelsTr; of imagesTs where no annotation is asked for and there are any."""
    about = _about(folder / "dataset.json")
    ending, meaning = str(about.get("file_ending", ".nii.gz")), _meaning(about, folder.name)
    images = folder / "imagesTs"
    if annotated or not images.is_dir():
        images = folder / "imagesTr"
    channels: dict[str, dict[int, str]] = {}
    for path in sorted(images.glob(f"*{ending}")):
        if match := _CHANNEL.fullmatch(path.name.removesuffix(ending)):
            channels.setdefault(match[1], {})[int(match[2])] = str(path)
    wanted = len(about.get("channel_names") or about.get("modality") or ["image"])
    for case, found in channels.items():
        place = f"{folder.name}, case {case}"
        if sorted(found) != list(range(wanted)):
            raise InputError(f"{place} has channels {sorted(found)}, dataset.json has {wanted}.", "Complete the images of the case, or remove it.")
        labels = folder / "labelsTr" / f"{case}{ending}"
        yield Patient(case, tuple(found[n] for n in range(wanted)), labels if labels.is_file() else None, {}, place, meaning)


def _about(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("too long")
        about = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(about, dict):
            raise ValueError("no object")
        return about
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error!s:.100}).", "Write it as nnU-Net describes, or give a CSV list.") from error


def _meaning(about: Mapping[str, Any], name: str) -> Meaning:
    """0 background; the ignore label, where there is one, is unlabelled."""
    labels = about.get("labels")
    if not isinstance(labels, dict) or not all(type(value) is int for value in labels.values()) or labels.get("background") != 0:
        raise InputError(
            f"The labels in the dataset.json of {name} are not understood.", "Give each name one number, background 0; regions are not supported."
        )
    names = {value: label for label, value in labels.items() if label not in ("background", IGNORE)}
    return Meaning("0", labels.get(IGNORE, -1), names)


# ---------------------------------------------------------------- BIDS


def _bids(folder: Path) -> Iterator[Patient]:
    """A patient for each subject, or each of its sessions: the image of one kind in anat, T1w where there is any, else the commonest; and what
    derivatives have of it that ends in _dseg or .seg.nrrd."""
    found = {place: _by_kind(place) for place in sorted(folder.glob("sub-*/**/anat")) if place.is_dir()}
    kinds = Counter(kind for images in found.values() for kind in images)
    if not kinds:
        return
    kind = "T1w" if "T1w" in kinds else kinds.most_common(1)[0][0]
    for place, images in found.items():
        if kind not in images:
            continue
        inside = place.relative_to(folder)
        name = "_".join(inside.parts[:-1])
        if len(images[kind]) > 1:
            raise InputError(
                f"{folder.name}, {inside} has {len(images[kind])} images {kind}.", "Give a CSV list that names one of them for each patient."
            )
        yield Patient(name, (str(images[kind][0]),), _derived(folder, inside), {}, f"{folder.name}, {name}")


def _by_kind(place: Path) -> dict[str, list[Path]]:
    kinds: dict[str, list[Path]] = {}
    for path in sorted(place.iterdir()):
        if path.name.endswith((".nii.gz", ".nii")):
            kinds.setdefault(stem(path.name).rpartition("_")[2], []).append(path)
    return kinds


def _derived(folder: Path, inside: Path) -> Path | None:
    """Raises InputError where there are several."""
    places = [*folder.glob(f"derivatives/{inside.as_posix()}"), *folder.glob(f"derivatives/*/{inside.as_posix()}")]
    found = [path for place in places for path in sorted(place.iterdir()) if path.name.endswith(".seg.nrrd") or stem(path.name).endswith("_dseg")]
    return _only(found, f"{folder.name}, {inside}", "segmentations in derivatives")


# ---------------------------------------------------------------- one folder a patient


def _of_tree(own: Path, folder: Path) -> Patient | None:
    """image.nrrd (or .nii.gz, .mha), or a folder dicom; image2.nrrd, ... further channels; annotation.seg.nrrd, or another file that ends so, or
    annotation.nrrd. None for a folder with none of it."""
    place = f"{folder.name}, {own.name}"
    files = [path for path in sorted(own.iterdir()) if path.is_file()]
    images = sorted((int(match[1] or 1), path) for path in files if _ends(path, _IMAGES) and (match := _OF_TREE.fullmatch(stem(path.name))))
    if (own / "dicom").is_dir():
        images = [(1, own / "dicom"), *images]
    if not images:
        return None
    if [number for number, _ in images] != list(range(1, len(images) + 1)):
        raise InputError(f"{place} has images {', '.join(path.name for _, path in images)}.", "Call them image, image2, ..., each once.")
    named = [path for path in files if stem(path.name) == "annotation" and _ends(path, _IMAGES)]
    annotation = _only(named or [path for path in files if path.name.endswith(".seg.nrrd")], place, "annotations")
    return Patient(own.name, tuple(str(path) for _, path in images), annotation, {}, place)


def _ends(path: Path, endings: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(endings)


def _only(found: list[Path], place: str, what: str) -> Path | None:
    if len(found) > 1:
        raise InputError(f"{place} has {len(found)} {what} ({found[0].name}, {found[1].name}).", "Keep one, or give a CSV list that names it.")
    return found[0] if found else None
