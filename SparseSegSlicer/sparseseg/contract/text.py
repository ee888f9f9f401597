"""Text from files, such as names and descriptions, as it may be shown: a terminal obeys control characters, and readers are misled by others."""

from __future__ import annotations

import logging
import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, format (also the direction of writing), half a character, line and paragraph separators
_JOINERS = "\u200c\u200d"  # which Persian and Indian names are written with


def visible(text: str, keep: str = "") -> str:
    """The same text with characters that act, instead of being seen, as their numbers: ESC becomes \\x1b. Those in `keep` stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_numbered(c) if unicodedata.category(c) in _HIDDEN and c not in _JOINERS and c not in keep else c for c in text)


class VisibleFormatter(logging.Formatter):
    """For logs, which are read in terminals, too."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), keep="\n")


def _numbered(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
