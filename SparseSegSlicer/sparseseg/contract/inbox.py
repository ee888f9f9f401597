"""What an engine has said and its host has not yet looked at. Standard library only."""

from __future__ import annotations

import queue

from .protocol import Event


class Inbox:
    """Filled by threads; the part that all kinds of clients have in common."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def poll(self) -> list[Event]:
        """The events that have arrived since the last call, at once. When the engine was lost unasked, the last one is a fatal `error`."""
        events = []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def wait(self, timeout_s: float) -> Event | None:
        """The next event, or None when none came in time. For callers that have nothing else to do."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None
