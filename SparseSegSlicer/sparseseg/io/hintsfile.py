"""A hints file (docs/hints.md), with what it takes from Slicer's own Markups files (.mrk.json)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..contract.errors import InputError
from ..contract.opening import read_text

_FLIP = (-1.0, -1.0, 1.0)  # between RAS and LPS
_LONGEST = 16_000_000  # bytes of a hints file or of a Markups file: several hundred thousand points
_PLACED = "defined"  # a control point's status, where it has one


def read_hints(path: Path) -> Any:
    """The file's JSON, for `Hints.from_json`, with each {"file": NAME} replaced by what that Markups file (beside it) holds. Raises InputError."""
    data = _read_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("segments", {}), dict):
        return data  # what is wrong is said where it is understood
    system = data.get("coordinates", "RAS")
    for key, hints in data.get("segments", {}).items():
        if not isinstance(hints, dict):
            continue
        if _names_file(hints.get("roi")):
            hints["roi"] = _roi(path.parent, hints["roi"], f"{key}, roi", system)
        if "points" in hints:
            hints["points"] = _with_points(path.parent, hints["points"], f"{key}, points", system)
    if "outside" in data:
        data["outside"] = _with_points(path.parent, data["outside"], "outside", system)
    return data


def _names_file(data: Any) -> bool:
    return isinstance(data, dict) and "file" in data


def _with_points(folder: Path, data: Any, where: str, system: Any) -> Any:
    """A list of points, with the points of a file in place of what names it; such a name may stand alone in place of the list."""
    points: list[Any] = []
    for point in data if isinstance(data, list) else [data]:
        points += _points(folder, point, where, system) if _names_file(point) else [point]
    return points if isinstance(data, list) or _names_file(data) else data


def _points(folder: Path, named: dict[str, Any], where: str, system: Any) -> list[dict[str, Any]]:
    markup, flips = _markup(folder, named["file"], ("Fiducial",), where, system)
    rest = {key: value for key, value in named.items() if key != "file"}
    points = markup.get("controlPoints", [])
    try:
        return [{"at": _turned(p["position"], flips), **rest} for p in points if p.get("positionStatus", _PLACED) == _PLACED]
    except (TypeError, LookupError, AttributeError, ValueError, ArithmeticError) as error:
        raise _damaged(named["file"], where) from error


def _roi(folder: Path, named: dict[str, Any], where: str, system: Any) -> dict[str, Any]:
    if set(named) != {"file"}:
        raise InputError(f"Hints: {where} names a file and has other keys.", "Leave one of them.")
    markup, flips = _markup(folder, named["file"], ("ROI",), where, system)
    try:
        found = {"center": _turned(markup["center"], flips), "size": markup["size"]}
        if "orientation" in markup:
            rows = [markup["orientation"][n : n + 3] for n in (0, 3, 6)]
            found["orientation"] = [v * (_FLIP[n] if flips else 1.0) for n, row in enumerate(rows) for v in row]
    except (TypeError, LookupError, ValueError, ArithmeticError) as error:
        raise _damaged(named["file"], where) from error
    return found


def _markup(folder: Path, name: Any, kinds: Sequence[str], where: str, system: Any) -> tuple[dict[str, Any], bool]:
    """The first markup of a kind in a file, and whether its coordinates are to be turned into those of the hints."""
    if not isinstance(name, str):
        raise InputError(f"Hints: {where}, file must be a file's name, got {name!r:.80}.")
    data = _read_json(folder / name)
    markups = data.get("markups") if isinstance(data, dict) else None
    for markup in markups if isinstance(markups, list) else []:
        if isinstance(markup, dict) and markup.get("type") in kinds:
            units = markup.get("coordinateUnits", "mm")
            if units != "mm" and not (isinstance(units, list) and units[:1] == ["mm"]):
                raise InputError(f"Hints: {where}, {name} is not in millimetres.", "Save it from Slicer in its usual unit.")
            return markup, markup.get("coordinateSystem", "LPS") != system
    raise InputError(f"Hints: {where}, {name} holds no {' or '.join(kinds)}.", "Save the markup in Slicer as .mrk.json.")


def _turned(position: Sequence[float], flips: bool) -> list[float]:
    return [v * f for v, f in zip(position, _FLIP if flips else (1.0, 1.0, 1.0), strict=True)]


def _damaged(name: str, where: str) -> InputError:
    return InputError(f"Hints: {where}, {name} is no markup as Slicer writes it.", "Save it again.")


def _read_json(path: Path) -> Any:
    """Raises InputError; a key that comes twice, NaN and Infinity are refused."""
    try:
        text = read_text(path, _LONGEST)
    except InputError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} cannot be read as text.", "Give a JSON file (docs/hints.md).") from error
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, path), parse_constant=lambda text: _no_number(text, path))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{path.name} is not JSON{place}.", "Correct it there (docs/hints.md has an example).") from error


def _once(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"{path.name} has the key {key!r:.80} twice.", "Leave one of them.")
        found[key] = value
    return found


def _no_number(text: str, path: Path) -> float:
    raise InputError(f"{path.name} has {text}, which is no number.", "Give millimetres, or leave the hint out.")
