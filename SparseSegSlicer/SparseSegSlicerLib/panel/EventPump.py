"""Polls the Controller on the main thread: quickly while something is under way, else just often enough to notice that something is.

Stops with the widget or the application.
"""

import time

import qt

QUICK_MS = 40
RESTING_MS = 250
_LINGER_S = 3.0  # after the last sign of life: an answer is often followed by a better one


class EventPump:
    """poll() is called at each tick and says whether something is under way; who begins something that cannot wait calls `wake`."""

    def __init__(self, poll, parent) -> None:
        self._timer = qt.QTimer(parent)
        self._timer.setInterval(RESTING_MS)
        self._timer.connect("timeout()", self._tick)
        self._poll, self._wokenAt = poll, time.monotonic()

    @property
    def isResting(self) -> bool:
        return self._timer.interval == RESTING_MS

    def start(self) -> None:
        self._timer.start()

    def wake(self) -> None:
        self._wokenAt = time.monotonic()
        self._setInterval(QUICK_MS)

    def stop(self) -> None:
        self._timer.stop()
        self._timer.disconnect("timeout()", self._tick)

    def _tick(self) -> None:
        if self._poll():
            self.wake()
        elif time.monotonic() - self._wokenAt > _LINGER_S:
            self._setInterval(RESTING_MS)

    def _setInterval(self, ms: int) -> None:
        if self._timer.interval != ms:  # setting it begins it anew
            self._timer.setInterval(ms)
