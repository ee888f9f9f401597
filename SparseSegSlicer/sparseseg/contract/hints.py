"""Hints: what is known of segments without painting them. The format of a hints file, and of `hints` in job.json (docs/hints.md).

A region of interest that holds all of a segment, points inside and outside of it, and what it is like: one piece, without holes, of some volume,
apart from others. In a file coordinates are RAS millimetres, as Slicer shows them, unless it says LPS; here, as everywhere, they are LPS.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .box import shape_of
from .classes import ClassTable
from .errors import InputError
from .geometry import Geometry
from .region import Region

HINTS_VERSION = 1
RADIUS_VOXELS = 1.5  # of a point that says none, in voxels of the finest axis: the voxel that it lies in, and its neighbours
_FLIPS = {"RAS": np.array([-1.0, -1.0, 1.0]), "LPS": np.ones(3)}  # to LPS
_FILE_KEYS = ("hints_version", "coordinates", "segments", "outside")
_SEGMENT_KEYS = ("roi", "points", "one_piece", "no_holes", "volume_ml", "apart_from")
_MOST_POINTS, _MOST_COVERED = 10_000, 50_000_000  # points; voxels in the boxes around all their balls
_LARGEST = 1e9  # of any number of a hint, in its unit: beyond is a slip
_ORTHONORMAL = 1e-3  # how far an ROI's axes may be from unit length and right angles: rounding in files

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Roi:
    """A box in space that holds all of a segment. axes: its three directions, unit vectors in LPS; size_mm: its whole lengths along them."""

    center_lps_mm: Vector
    size_mm: Vector
    axes: tuple[Vector, Vector, Vector] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    def on(self, geometry: Geometry) -> Region | None:
        """Its voxels; None where it holds the centre of none."""
        return Region.of_box(self.center_lps_mm, self.size_mm, self.axes, geometry)

    def to_json(self) -> dict[str, Any]:
        columns = np.array(self.axes).T.ravel()
        return {"center": list(self.center_lps_mm), "size": list(self.size_mm), "orientation": [float(v) for v in columns]}


@dataclass(frozen=True)
class Point:
    """A place and a little ball around it. radius_mm: None for the volume's own (RADIUS_VOXELS)."""

    at_lps_mm: Vector
    radius_mm: float | None = None

    def on(self, geometry: Geometry) -> Region:
        """Its voxels, the one that it lies in at least, which must be one of the volume's."""
        radius = RADIUS_VOXELS * min(geometry.spacing_kji_mm) if self.radius_mm is None else self.radius_mm
        return Region.of_ball(self.at_lps_mm, radius, geometry)

    def to_json(self) -> dict[str, Any]:
        radius = {} if self.radius_mm is None else {"radius_mm": self.radius_mm}
        return {"at": list(self.at_lps_mm), **radius}


@dataclass(frozen=True)
class SegmentHints:
    """What is known of one segment. volume_ml: least and most, None where that is open; apart_from: label values of segments it never touches."""

    roi: Roi | None = None
    inside: tuple[Point, ...] = ()
    outside: tuple[Point, ...] = ()
    one_piece: bool = False
    no_holes: bool = False
    volume_ml: tuple[float | None, float | None] = (None, None)
    apart_from: tuple[int, ...] = ()

    @property
    def shapes(self) -> bool:
        """Whether something is known of the segment as a whole, which only a whole label map can be held to."""
        return self.one_piece or self.no_holes or self.volume_ml != (None, None) or bool(self.apart_from)

    def to_json(self, classes: ClassTable) -> dict[str, Any]:
        points = [p.to_json() | {"inside": inside} for inside, some in ((True, self.inside), (False, self.outside)) for p in some]
        found = {
            "roi": self.roi.to_json() if self.roi else None,
            "points": points,
            "one_piece": self.one_piece,
            "no_holes": self.no_holes,
            "volume_ml": None if self.volume_ml == (None, None) else list(self.volume_ml),
            "apart_from": [classes.ids[value - 1] for value in self.apart_from],
        }
        return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class Hints:
    """segments[c - 1] are those of label value c, one for each segment of the table; outside: points of none of the segments."""

    segments: tuple[SegmentHints, ...]
    outside: tuple[Point, ...] = field(default=())

    @classmethod
    def from_json(cls, data: Any, classes: ClassTable, geometry: Geometry) -> Hints:
        """Raises InputError, which names the key, for anything that is not understood, does not fit the segments, or lies outside of the volume."""
        flip = _check_head(data)
        given: dict[int, tuple[str, Any]] = {}
        for key, values in _table(data.get("segments", {}), "segments").items():
            value = _value_of(key, classes, "segments")
            if value in given:
                raise InputError(f"Hints: segments has {classes.names[value - 1]} twice, as {given[value][0]!r} and {key!r}.", "Leave one of them.")
            given[value] = (key, values)
        segments = tuple(_segment(*given[value], value, classes, flip) if value in given else SegmentHints() for value in range(1, len(classes) + 1))
        outside = tuple(_point(p, f"outside, point {n}", flip, {"at", "radius_mm"})[0] for n, p in _numbered(data.get("outside", []), "outside"))
        hints = cls(segments, outside)
        hints._check_places(classes, geometry)
        return hints

    def to_json(self, classes: ClassTable) -> dict[str, Any]:
        """What `from_json` reads, by segment ID, in LPS."""
        segments = {segment: hints.to_json(classes) for segment, hints in zip(classes.ids, self.segments, strict=True)}
        return {
            "hints_version": HINTS_VERSION,
            "coordinates": "LPS",
            "segments": {segment: hints for segment, hints in segments.items() if hints},
            "outside": [point.to_json() for point in self.outside],
        }

    @property
    def apart(self) -> tuple[tuple[int, int], ...]:
        """Pairs of label values that may not touch, the lower first, each once."""
        pairs = {(min(c, d), max(c, d)) for c, hints in enumerate(self.segments, 1) for d in hints.apart_from}
        return tuple(sorted(pairs))

    def _check_places(self, classes: ClassTable, geometry: Geometry) -> None:
        if len(self.outside) + sum(len(hints.inside) + len(hints.outside) for hints in self.segments) > _MOST_POINTS:
            raise InputError(f"Hints: there are more than {_MOST_POINTS} points.", "Paint instead.")
        claims = [_Claim.of(point, f"outside, point {n}", 0, False, geometry) for n, point in enumerate(self.outside, 1)]
        for value, (name, hints) in enumerate(zip(classes.names, self.segments, strict=True), 1):
            for inside, points in ((True, hints.inside), (False, hints.outside)):
                kind = "inside" if inside else "outside"
                claims += [_Claim.of(point, f"{name}, {kind} point {n}", value, inside, geometry) for n, point in enumerate(points, 1)]
            if hints.roi is not None:
                _check_roi(hints, name, [claim for claim in claims if claim.value == value and claim.inside], geometry)
        _check_claims(claims)


class _Claim(NamedTuple):
    """A point on the volume: what the user knows it by, its segment (0: any), what it says of it, its voxel, (3,) k, j, i, and its ball."""

    where: str
    value: int
    inside: bool
    at: np.ndarray
    ball: Region

    @classmethod
    def of(cls, point: Point, where: str, value: int, inside: bool, geometry: Geometry) -> _Claim:
        """Raises InputError where it lies outside of the volume."""
        at = np.rint(np.linalg.solve(geometry.matrix, [*point.at_lps_mm, 1]))[2::-1]
        if (at < 0).any() or (at >= geometry.shape_kji).any():
            raise InputError(f"Hints: {where} lies outside of the volume.", "Check its place, and the coordinates (RAS or LPS).")
        return cls(where, value, inside, at.astype(np.int64), point.on(geometry))

    def contradicts(self, other: _Claim) -> bool:
        """Whether both cannot be true of one voxel."""
        if self.inside and other.inside:
            return self.value != other.value
        return self.inside != other.inside and (self.value == other.value or 0 in (self.value, other.value))


def _check_roi(hints: SegmentHints, name: str, inside: Sequence[_Claim], geometry: Geometry) -> None:
    roi, least = hints.roi.on(geometry) if hints.roi else None, hints.volume_ml[0]
    if roi is None:
        raise InputError(f"Hints: {name}, roi holds no voxel of the volume.", "Check its center and size, and the coordinates (RAS or LPS).")
    for claim in inside:
        if not roi.holds(claim.at[:, None])[0]:
            raise InputError(f"Hints: {claim.where} lies outside of its roi.", "Move one of the two.")
    if least is not None and least > roi.volume_ml:
        raise InputError(f"Hints: {name}, volume_ml is at least {least:g}, but its roi holds {roi.volume_ml:.4g} ml only.", "Correct one of the two.")


def _check_claims(claims: Sequence[_Claim]) -> None:
    """Raises InputError where a point lies in the ball of one that contradicts it."""
    if not claims:
        return
    covered = sum(math.prod(shape_of(claim.ball.box)) for claim in claims)
    if covered > _MOST_COVERED:
        raise InputError(f"Hints: the balls around points cover {covered:.3g} voxels.", "Give smaller radii, or paint.")
    places = np.stack([claim.at for claim in claims], axis=1)
    for claim in claims:
        for n in np.flatnonzero(claim.ball.holds(places)).tolist():
            if claim.contradicts(claims[n]):
                raise InputError(
                    f"Hints: {claims[n].where} lies within the radius of {claim.where}, which contradicts it.", "Move one, or give a radius."
                )


def classes_of(data: Any) -> ClassTable:
    """The table of the segments that a hints file names, in its order. Raises InputError where it names none."""
    _check_head(data)
    names = list(_table(data.get("segments", {}), "segments"))
    if not names:
        raise InputError("Hints: segments is empty, so there is nothing to segment.", "Name each segment there, with a point inside.")
    return ClassTable.numbered(len(names), names)


# -- one key after the other -------------------------------------------------------------------------------------------


def _check_head(data: Any) -> np.ndarray:
    """What takes its coordinates to LPS, (3,)."""
    _known_keys(_table(data, "the file"), _FILE_KEYS, "the file")
    version = data.get("hints_version")
    if type(version) is not int or version != HINTS_VERSION:
        raise InputError(f"Hints: hints_version must be {HINTS_VERSION}, got {version!r:.40}.", f'Write "hints_version": {HINTS_VERSION}.')
    system = data.get("coordinates", "RAS")
    if not isinstance(system, str) or system not in _FLIPS:
        raise InputError(f"Hints: coordinates must be RAS or LPS, got {system!r:.40}.", "RAS is what Slicer shows.")
    return _FLIPS[system]


def _segment(where: str, data: Any, value: int, classes: ClassTable, flip: np.ndarray) -> SegmentHints:
    _known_keys(_table(data, where), _SEGMENT_KEYS, where)
    roi = None if data.get("roi") is None else _roi(data["roi"], f"{where}, roi", flip)
    points = [_point(p, f"{where}, point {n}", flip) for n, p in _numbered(data.get("points", []), f"{where}, points")]
    apart = tuple(_value_of(other, classes, f"{where}, apart_from") for _, other in _numbered(data.get("apart_from", []), f"{where}, apart_from"))
    if value in apart:
        raise InputError(f"Hints: {where}, apart_from names the segment itself.", "Name others there.")
    return SegmentHints(
        roi,
        tuple(point for point, inside in points if inside),
        tuple(point for point, inside in points if not inside),
        _flag(data.get("one_piece", False), f"{where}, one_piece"),
        _flag(data.get("no_holes", False), f"{where}, no_holes"),
        _range(data.get("volume_ml"), f"{where}, volume_ml"),
        apart,
    )


def _roi(data: Any, where: str, flip: np.ndarray) -> Roi:
    _known_keys(_table(data, where), ("center", "size", "orientation"), where)
    center, size = (_vector(data.get(key), f"{where}, {key}") for key in ("center", "size"))
    if min(size) <= 0:
        raise InputError(f"Hints: {where}, size must be above 0 along each axis, got {list(size)}.", "Give whole lengths in mm.")
    given = data.get("orientation", [1, 0, 0, 0, 1, 0, 0, 0, 1])
    flat = [v for row in given for v in row] if isinstance(given, list) and all(isinstance(row, list) for row in given) else given
    rows = np.array(_numbers(flat, 9, f"{where}, orientation")).reshape(3, 3)
    if np.abs(rows.T @ rows - np.eye(3)).max() > _ORTHONORMAL:
        raise InputError(
            f"Hints: {where}, orientation must be three directions of length 1 at right angles.",
            "Its columns are the box's axes, as in Slicer's file.",
        )
    axes = [_triple(column) for column in (flip[:, None] * rows).T]
    return Roi(_triple(flip * center), size, (axes[0], axes[1], axes[2]))


def _point(data: Any, where: str, flip: np.ndarray, keys: Sequence[str] | set[str] = ("at", "inside", "radius_mm")) -> tuple[Point, bool]:
    """[x, y, z], or a table with `at`; and whether it lies inside."""
    if isinstance(data, list):
        data = {"at": data}
    _known_keys(_table(data, where), keys, where)
    radius = None
    if data.get("radius_mm") is not None:
        radius = _number(data["radius_mm"], f"{where}, radius_mm")
        if radius < 0:
            raise InputError(f"Hints: {where}, radius_mm must not be negative, got {radius:g}.", "0 is the voxel alone.")
    at = _vector(data.get("at"), f"{where}, at")
    return Point(_triple(flip * at), radius), _flag(data.get("inside", True), f"{where}, inside")


def _range(data: Any, where: str) -> tuple[float | None, float | None]:
    if data is None:
        return (None, None)
    if not isinstance(data, list) or len(data) != 2:
        raise InputError(f"Hints: {where} must be [least, most], got {data!r:.80}.", "Either may be null.")
    low, high = (None if v is None else _number(v, where) for v in data)
    if (low is not None and low < 0) or (high is not None and high <= 0):
        raise InputError(f"Hints: {where} must not be negative, got {data}.", "Give millilitres; either may be null.")
    if low is not None and high is not None and low > high:
        raise InputError(f"Hints: {where} has its least, {low:g}, above its most, {high:g}.", "Write [least, most].")
    return (low, high)


def _value_of(key: Any, classes: ClassTable, where: str) -> int:
    """The label value of a segment by its ID or its name."""
    if key in classes.ids:
        return classes.ids.index(key) + 1
    found = [value for value, name in enumerate(classes.names, 1) if name == key]
    if len(found) > 1:
        raise InputError(f"Hints: {where} names {key!r:.80}, which {len(found)} segments are called.", f"Name one of {', '.join(classes.ids)}.")
    if not found:
        raise InputError(f"Hints: {where} names {key!r:.80}, but there is no such segment.", f"There are {', '.join(classes.names)}.")
    return found[0]


# -- what JSON holds ---------------------------------------------------------------------------------------------------


def _table(data: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise InputError(f"Hints: {where} must be a table of keys and values, got {data!r:.80}.", "Write {...} there.")
    return data


def _known_keys(data: Mapping[str, Any], known: Sequence[str] | set[str], where: str) -> None:
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise InputError(f"Hints: {where} has an unknown key {unknown[0]!r:.80}.", f"Known: {', '.join(sorted(known))}.")


def _numbered(data: Any, where: str) -> Iterator[tuple[int, Any]]:
    if not isinstance(data, list):
        raise InputError(f"Hints: {where} must be a list, got {data!r:.80}.", "Write [...] there.")
    return enumerate(data, 1)


def _flag(data: Any, where: str) -> bool:
    if not isinstance(data, bool):
        raise InputError(f"Hints: {where} must be true or false, got {data!r:.80}.")
    return data


def _number(data: Any, where: str) -> float:
    if isinstance(data, bool) or not isinstance(data, (int, float)) or not abs(data) <= _LARGEST:
        raise InputError(f"Hints: {where} must be a number, got {data!r:.80}.", "Give millimetres, or millilitres for a volume.")
    return float(data)


def _numbers(data: Any, count: int, where: str) -> list[float]:
    if not isinstance(data, list) or len(data) != count:
        raise InputError(f"Hints: {where} must be {count} numbers, got {data!r:.80}.", "Write them as a list.")
    return [_number(v, where) for v in data]


def _vector(data: Any, where: str) -> Vector:
    return _triple(_numbers(data, 3, where))


def _triple(values: Any) -> Vector:
    x, y, z = (float(v) + 0.0 for v in values)  # + 0.0: no -0.0 in files
    return (x, y, z)
