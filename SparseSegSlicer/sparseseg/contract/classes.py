"""The table of segments: which label value means which segment, and all that must come back unchanged."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import InputError

MAX_SEGMENTS = 254  # annotation.npy is uint8: 0 unlabelled, 1 background, 1 + c segment c
BACKGROUND_TAG = "SparseSegSlicer.Background"  # a segment tag with this name marks the background segment


@dataclass(frozen=True)
class Segment:
    """One structure. `id` identifies it (never the name or the order); `color` is RGB in 0..1; `tags` are Slicer's segment tags
    (terminology among them, verbatim), and `extra` any further header fields of a .seg.nrrd segment, to be written back as they came."""

    id: str
    name: str
    color: tuple[float, float, float]
    tags: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A color out of range, as files of other programs may hold, goes to the next that is one."""
        color = [min(max(float(v), 0.0), 1.0) if math.isfinite(v) else 0.5 for v in self.color]
        return {"id": self.id, "name": self.name, "color": color, "tags": self.tags, "extra": self.extra}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Segment:
        """Raises InputError, KeyError, TypeError or ValueError where a part is missing or of another type."""
        r, g, b = data["color"]
        if not all(type(v) in (int, float) and 0 <= v <= 1 for v in (r, g, b)):
            raise InputError(f"A segment's color is three numbers from 0 to 1, got {data['color']!r:.80}.", "Make the job again.")
        tags, extra = dict(data.get("tags", {})), dict(data.get("extra", {}))
        if not all(isinstance(text, str) for text in (data["id"], data["name"], *tags, *tags.values(), *extra, *extra.values())):
            raise InputError("A segment's ID, name, tags and further fields must be text.", "Make the job again.")
        return cls(data["id"], data["name"], (float(r), float(g), float(b)), tags, extra)


@dataclass(frozen=True)
class ClassTable:
    """`segments[c - 1]` is label value c; `background` is the user's background segment, if the annotation has one as a segment."""

    segments: tuple[Segment, ...]
    background: Segment | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", tuple(self.segments))
        ids = self.ids + ([self.background.id] if self.background else [])
        if len(self.segments) > MAX_SEGMENTS:
            raise InputError(
                f"{len(self.segments)} segments are more than the {MAX_SEGMENTS} that one label map can hold.", "Split the segmentation."
            )
        if len(set(ids)) != len(ids):
            raise InputError("Two segments have the same ID.", "Give each segment an ID of its own.")

    @classmethod
    def numbered(cls, count: int, names: Sequence[str] | None = None) -> ClassTable:
        """A table for a plain label map: segments 1..count with generated names and well-separated colours."""
        names = names or [f"segment {c}" for c in range(1, count + 1)]
        return cls(tuple(Segment(f"Segment_{c}", names[c - 1], distinct_color(c - 1)) for c in range(1, count + 1)))

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def ids(self) -> list[str]:
        """Of the segments, without the background, in the order of their label values."""
        return [s.id for s in self.segments]

    @property
    def names(self) -> list[str]:
        return [s.name for s in self.segments]

    def with_names(self, names: Sequence[str]) -> ClassTable:
        return replace(self, segments=tuple(replace(s, name=n) for s, n in zip(self.segments, names, strict=True)))

    def to_json(self) -> dict[str, Any]:
        return {
            "segments": [{"value": value, **s.to_json()} for value, s in enumerate(self.segments, start=1)],
            "background": self.background.to_json() if self.background else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ClassTable:
        """Raises InputError, KeyError, TypeError or ValueError where a part is missing or of another type."""
        if not isinstance(data, dict):
            raise InputError("The table of segments is no table.", "Make the job again.")
        background = data.get("background")
        rows = sorted(data["segments"], key=lambda row: row["value"])
        if [row["value"] for row in rows] != list(range(1, len(rows) + 1)) or not all(type(row["value"]) is int for row in rows):
            raise InputError("The table of segments has gaps or doubles in its label values.", "Make the job again.")
        return cls(tuple(Segment.from_json(row) for row in rows), Segment.from_json(background) if background else None)


def distinct_color(index: int) -> tuple[float, float, float]:
    """RGB in 0..1; neighbouring indices get far-apart hues (steps of the golden ratio)."""
    r, g, b = colorsys.hsv_to_rgb((0.05 + index * 0.618034) % 1.0, 0.62, 0.92 if index % 2 == 0 else 0.75)
    return (round(r, 4), round(g, 4), round(b, 4))
