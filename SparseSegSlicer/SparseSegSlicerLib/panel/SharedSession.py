"""The session that all faces share: the Controller, what starts its engine, and the timer that polls both.

It belongs to no face, but to the segmentation: it goes on when the panel is left, or when the Segment Editor's user takes another tool. It begins
with the first face, and ends with the last one, at a reload, or with the application.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import slicer

from ..session.Controller import Controller
from ..session.EngineSetup import EngineState
from .Dialogs import waitCursor
from .EventPump import EventPump
from .Install import makeSetup

_PATIENCE_S = 5.0
_SETTING_UP = (EngineState.CHECKING, EngineState.INSTALLING)


class Face(Protocol):
    def scheduleUpdate(self) -> None:
        """What is shown may have changed."""

    def onTimer(self) -> bool:
        """After the Controller was polled; whether something of the face's own is under way that wants the next look soon."""

    def close(self) -> None:
        """The session ends: the face leaves it."""


class SharedSession:
    _current: ClassVar[SharedSession | None] = None

    @classmethod
    def current(cls) -> SharedSession:
        if cls._current is None:
            cls._current = cls()
        return cls._current

    @classmethod
    def closeCurrent(cls) -> None:
        if cls._current is not None:
            cls._current.close()

    def __init__(self) -> None:
        self._faces: list[Face] = []
        self.pump = EventPump(self._poll, None)
        self.setup = makeSetup()
        self.controller = Controller(slicer.mrmlScene, self.setup.launch, self._onChanged)
        self.controller.waiting = waitCursor
        self.controller.whyNoEngine = lambda: self.setup.refusal
        self.controller.engineLacks = self.setup.check  # which offers the installation
        self.controller.serverFailed = self.setup.serverFailed
        self.setup.tidy()
        self.pump.wake()
        self.pump.start()
        slicer.app.connect("aboutToQuit()", self.close)

    def join(self, face: Face) -> None:
        self._faces.append(face)

    def leave(self, face: Face) -> None:
        self._faces.remove(face)
        if not self._faces:
            self._end()

    def close(self) -> None:
        for face in tuple(self._faces):
            face.close()
        self._end()

    def _end(self) -> None:
        if SharedSession._current is not self:
            return
        SharedSession._current = None
        slicer.app.disconnect("aboutToQuit()", self.close)
        self.pump.stop()
        self.setup.close()
        for thread in self.controller.close():
            thread.join(_PATIENCE_S)  # the application is about to go; otherwise folders would stay

    def _onChanged(self) -> None:
        self.pump.wake()
        for face in self._faces:
            face.scheduleUpdate()

    def _poll(self) -> bool:
        """Whether something is under way that wants the next look soon."""
        setup, controller = self.setup, self.controller
        setup.poll()
        controller.poll()
        busy = [face.onTimer() for face in tuple(self._faces)]
        working = controller.running or controller.isApplying or not controller.isSettled
        return any(busy) or setup.state in _SETTING_UP or working
