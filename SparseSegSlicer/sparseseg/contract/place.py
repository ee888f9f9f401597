"""A place where paint and everything else disagree: what a check of the annotation reports, as engine and hosts exchange it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .box import Box, box_from_json, box_to_json
from .errors import InputError

AT_A_TIME = 10  # places that a user is shown, the surest first


@dataclass(frozen=True)
class Place:
    """Connected voxels of one slice. axis: 0 = k, 1 = j, 2 = i; box: the least that holds them; centre_ijk: one of them, near their middle.

    painted, believed: segment IDs, empty for background; voxels: how many; sureness: 0..1, the chance that this is a mistake; sentence: what a
    user reads, with the segments' names.
    """

    axis: int
    index: int
    box: Box
    centre_ijk: tuple[int, int, int]
    painted: str
    believed: str
    voxels: int
    sureness: float
    sentence: str

    @property
    def centre_kji(self) -> tuple[int, int, int]:
        i, j, k = self.centre_ijk
        return (k, j, i)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "box": box_to_json(self.box), "centre_ijk": list(self.centre_ijk)}

    @classmethod
    def from_json(cls, data: Any, shape_kji: Sequence[int]) -> Place:
        """Raises InputError for what is no place of a volume of this shape."""
        try:
            box = box_from_json(data["box"], shape_kji)
            i, j, k = (int(n) for n in data["centre_ijk"])
            place = cls(
                int(data["axis"]),
                int(data["index"]),
                box,  # type: ignore[arg-type] # an empty one has no first voxel, below
                (i, j, k),
                str(data["painted"]),
                str(data["believed"]),
                int(data["voxels"]),
                float(data["sureness"]),
                str(data["sentence"]),
            )
            fits = box is not None and all(s.start <= n < s.stop for n, s in zip((k, j, i), box, strict=True))
            fits = fits and place.axis in (0, 1, 2) and place.centre_kji[place.axis] == place.index
        except (KeyError, TypeError, ValueError, InputError):
            fits = False
        if not fits:
            raise InputError(f"No place within {' x '.join(map(str, shape_kji))} voxels: {data!r:.80}.")
        return place
