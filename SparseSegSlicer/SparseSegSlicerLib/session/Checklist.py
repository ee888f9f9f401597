"""What is painted, and what is still missing before Segment can be pressed: one sentence each. No slicer, no qt."""

from __future__ import annotations

from ..scene.StrokeReader import Strokes

_FEW = 3  # slices, from which on a structure is well described


def checklist(strokes: Strokes | None) -> str:
    """Empty where nothing is known of the strokes yet."""
    if strokes is None:
        return ""
    voxels = [row.voxels for row in strokes.slices]
    painted = [segment for segment in strokes.classes.segments if any(row.get(segment.id) for row in voxels)]
    background = strokes.classes.background
    hasBackground = bool(strokes.complete) or (background is not None and any(row.get(background.id) for row in voxels))
    there = ", ".join([f"{segment.name} on {_slices(sum(bool(row.get(segment.id)) for row in voxels))}" for segment in painted])
    return f"{there}{'; background' if there and hasBackground else ''}. {_missing(painted, hasBackground, len(voxels))}".removeprefix(". ")


def _missing(painted: list, hasBackground: bool, slices: int) -> str:
    if not painted:
        return "Paint a structure on a few slices."
    if not hasBackground:
        return "Paint some background too, or mark a slice complete."
    if slices < _FEW:
        return "Ready to segment; strokes on more slices, far apart, make it better."
    return "Ready to segment."


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count} slices"
