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
    hinted, background = strokes.hinted, strokes.classes.background
    counts = [(segment.name, sum(bool(row.get(segment.id)) for row in voxels)) for segment in strokes.classes.segments]
    known = [_on(name, count) for value, (name, count) in enumerate(counts, start=2) if count or hinted.labels(value)]
    hasBackground = bool(strokes.complete) or (background is not None and any(row.get(background.id) for row in voxels)) or hinted.labels(1)
    said = ", ".join(known) + (_("; background") if known and hasBackground else "")
    missing = str(hinted.refusal) if hinted.refusal is not None else _missing(known, hasBackground)
    return f"{said}. {missing or _next(standing, len(voxels))}".removeprefix(". ")


def _missing(known: list, hasBackground: bool) -> str:
    if not known:
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
    if not slices:
        return _("{name} by hints").format(name=name)
    return _("{name} on 1 slice").format(name=name) if slices == 1 else _("{name} on {count} slices").format(name=name, count=slices)
