"""A result belongs to the frame of a sequence that it was made on: while its volume shows another, it is hidden, with its strokes. No qt."""

from __future__ import annotations

from ..i18n import tr as _
from ..scene.Sequences import frameOf, frameWords
from .States import Message

_NONE = -1


class Frames:
    """Which frame, and whether it is left, is remembered with the segmentation."""

    def __init__(self, session) -> None:
        self._session = session

    @property
    def isLeft(self) -> bool:
        return self._session.parameters.get("frameIsLeft")

    def begin(self) -> None:
        """A run begins: what comes of it belongs to the frame that is shown."""
        frame = frameOf(self._session.volumeNode)
        self._session.parameters.set("frame", _NONE if frame is None else frame.index)

    def forget(self) -> None:
        """What was made is gone: strokes may be used on any frame."""
        self._session.parameters.set("frame", _NONE)
        self.follow()

    def follow(self) -> None:
        """The volume may show another frame than before."""
        session, own = self._session, self._session.parameters.get("frame")
        frame = frameOf(session.volumeNode)
        left, wasLeft = frame is not None and own not in (_NONE, frame.index), self.isLeft
        session.preview.withhold(left)
        if left == wasLeft:
            return
        session.parameters.set("frameIsLeft", left)
        if session.segmentationNode is not None:
            session.segmentationNode.SetDisplayVisibility(not left)
        if left:
            belongs = _("Strokes and result belong to {theirs}; this is {shown}, so they are hidden.")
            belongs = belongs.format(theirs=frameWords(frame.browser, own), shown=frame.words)
            session.say(Message("warning", belongs, _("Go back to that frame, or make another segmentation for this one.")))
        elif own != _NONE and frame is not None:
            session.say(Message("info", _("This is {frame} again: strokes and result are shown.").format(frame=frame.words)))
        session.changed()
