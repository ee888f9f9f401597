"""VTK observers that can all be taken away at once."""

from __future__ import annotations

from collections.abc import Callable


class Observers:
    def __init__(self) -> None:
        self._tags: list[tuple[object, int]] = []

    def __len__(self) -> int:
        return len(self._tags)

    def add(self, subject, events, callback: Callable) -> None:
        for event in events if isinstance(events, (list, tuple)) else [events]:
            self._tags.append((subject, subject.AddObserver(event, callback)))

    def clear(self) -> None:
        tags, self._tags = self._tags, []
        for subject, tag in tags:
            subject.RemoveObserver(tag)
