"""Colours and lengths that follow the user's palette and font, so that words are legible in a dark theme and on a dense screen."""

import qt

_WORDS = {  # on a light window, on a dark one
    "warning": ("#8a5a00", "#f2b55c"),
    "error": ("#b3261e", "#ff8f85"),
}


def isDark(widget) -> bool:
    return widget.palette.color(qt.QPalette.Window).lightness() < 128


def wordStyle(widget, level: str) -> str:
    """The style sheet of a label that says something of this level: info, warning, error."""
    if level not in _WORDS:
        return ""
    weight = "; font-weight: bold" if level == "error" else ""
    return f"color: {_WORDS[level][isDark(widget)]}{weight}"


def lineHeight(widget) -> int:
    """Of a line of the widget's text, in its pixels: what other lengths are counted in."""
    return qt.QFontMetrics(widget.font).height()
