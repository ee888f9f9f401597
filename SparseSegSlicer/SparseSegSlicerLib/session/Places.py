"""Places where the strokes are probably mistaken: which of them are shown, and which the user keeps. No qt."""

from __future__ import annotations

from collections.abc import Sequence

from sparseseg.contract.box import box_to_json
from sparseseg.contract.place import AT_A_TIME, Place

from .Parameters import Parameters


def shown(places: Sequence[Place], parameters: Parameters) -> list[Place]:
    """The surest first: a few at a time, and none that the user keeps."""
    kept = parameters.get("kept")
    return [place for place in places if not any(_isKept(place, entry) for entry in kept)][:AT_A_TIME]


def keep(place: Place, parameters: Parameters) -> None:
    """It is right as it is."""
    parameters.setMember("kept", _entry(place), True)


def _entry(place: Place) -> list:
    return [place.axis, place.index, place.painted, place.believed, box_to_json(place.box)]


def _isKept(place: Place, entry: list) -> bool:
    """Whether it is about the voxels of an entry, of which a later check may see a few more or less."""
    *what, box = entry
    return _entry(place)[:-1] == what and all(first <= n < last for n, (first, last) in zip(place.centre_kji, box, strict=True))
