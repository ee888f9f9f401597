"""What is painted, and what to do next: one sentence each. No slicer, no qt."""

from __future__ import annotations

from enum import Enum

from ..i18n import tr as _
from ..scene.StrokeReader import Strokes

_FEW = 3  # slices, from which on a structure is well described


class Standing(Enum):
    """How far the user has come."""

    STROKES = "no result yet"
    RUNNING = "the engine is at work"
    RESULT = "a result that is not applied"
    APPLIED = "a result that is applied"


def checklist(strokes: Strokes | None, standing: Standing = Standing.STROKES) -> str:
    """Empty where nothing is known of the strokes yet."""
    if strokes is None:
        return ""
    voxels = [row.voxels for row in strokes.slices]
    painted = [segment for segment in strokes.classes.segments if any(row.get(segment.id) for row in voxels)]
    background = strokes.classes.background
    hasBackground = bool(strokes.complete) or (background is not None and any(row.get(background.id) for row in voxels))
    there = [_on(segment.name, sum(bool(row.get(segment.id)) for row in voxels)) for segment in painted]
    said = ", ".join(there) + (_("; background") if there and hasBackground else "")
    return f"{said}. {_missing(painted, hasBackground) or _next(standing, len(voxels))}".removeprefix(". ")


def _missing(painted: list, hasBackground: bool) -> str:
    if not painted:
        return _("Paint a structure on a few slices.")
    if not hasBackground:
        return _("Paint some background too, or mark a slice complete.")
    return ""


def _next(standing: Standing, slices: int) -> str:
    if standing is Standing.RUNNING:
        return _("Paint corrections meanwhile; Stop ends with the result so far.")
    if standing is Standing.RESULT:
        return _("Paint where the preview is wrong, or press Apply.")
    if standing is Standing.APPLIED:
        return _("The result is applied; paint on where it is wrong.")
    if slices < _FEW:
        return _("Ready to segment; strokes on more slices, far apart, make it better.")
    return _("Ready to segment.")


def _on(name: str, slices: int) -> str:
    return _("{name} on 1 slice").format(name=name) if slices == 1 else _("{name} on {count} slices").format(name=name, count=slices)
