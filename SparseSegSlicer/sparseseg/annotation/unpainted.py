"""Segments that nobody has painted yet: they stay empty in every result until somebody does, and are told of once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .labels import Annotation

Warn = Callable[[str, str, str], None]


def remark(names: Sequence[str]) -> tuple[str, str]:
    """What is said of unpainted segments, one at least: a sentence, and what to do."""
    one = len(names) == 1
    sentence = f"Nothing is painted in {', '.join(names)}: {'it stays' if one else 'they stay'} empty."
    return sentence, "Paint it on a slice, and it joins in." if one else "Paint them on a slice, and they join in."


class Unpainted:
    """`warn` is given code, sentence and advice: once for each set of segments, not for each annotation that lacks them."""

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self._said: set[tuple[int, ...]] = set()

    def compare(self, annotation: Annotation) -> None:
        values = tuple(value for value, absent in enumerate(annotation.absent) if absent)
        if values and values not in self._said:
            self._said.add(values)
            self._warn("unpainted", *remark([annotation.rows[value].name for value in values]))
