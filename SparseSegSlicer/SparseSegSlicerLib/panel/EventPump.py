"""Polls the Controller on the main thread; stops with the widget or the application."""

import qt

_EVERY_MS = 40


class EventPump:
    def __init__(self, poll, parent) -> None:
        self._timer = qt.QTimer(parent)
        self._timer.setInterval(_EVERY_MS)
        self._timer.connect("timeout()", poll)
        self._poll = poll

    def start(self) -> None:
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()
        self._timer.disconnect("timeout()", self._poll)
