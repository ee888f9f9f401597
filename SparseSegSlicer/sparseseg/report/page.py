"""The whole page, and its file."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from ..contract.errors import OutputError
from ..contract.folders import write_whole
from ..contract.place import AT_A_TIME
from .curves import curves
from .data import ReportInput
from .figures import overlays
from .numbers import dice_table, head, table
from .run import run_table
from .slices import choose_slices
from .style import CSS
from .voices import voices


def write_report(path: Path, data: ReportInput) -> None:
    """Write report.html whole. Raises OutputError where it cannot be written; then nothing has changed."""
    page = render(data).encode("utf-8")
    try:
        write_whole(path, lambda file: file.write(page))
    except OSError as error:
        raise OutputError(f"Could not write {path}: {error.strerror or error}.", "Free space or choose another folder.") from error


def render(data: ReportInput) -> str:
    """The whole page."""
    rows, slices = dice_table(data), choose_slices(data)
    parts = [head(data, rows), table(data, rows), _check(data.run), overlays(data, slices), voices(data, slices), curves(data.run), run_table(data)]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(data.title)}</title>\n<style>{CSS}</style></head>\n'
        f"<body><main>\n{''.join(parts)}</main></body></html>\n"
    )


def _check(run: dict[str, Any]) -> str:
    """Where the annotation is probably mistaken; nothing where it is not."""
    places = (run.get("check") or [])[:AT_A_TIME]
    if not places:
        return ""
    rows = "".join(f"<li>{escape(place['sentence'])}</li>" for place in places)
    return (
        f'<section><h2>Check the annotation</h2>\n<ol class="check">{rows}</ol>\n<p class="note">Places where what was painted and everything else '
        "disagree, the surest first. Nothing was changed: correct them and train again, or leave them where the painting is right.</p></section>\n"
    )
