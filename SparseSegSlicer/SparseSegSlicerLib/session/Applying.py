"""The result becomes the user's segments, and undo brings back what was there. No qt."""

from __future__ import annotations

from collections.abc import Callable

from ..scene import SceneImport
from ..scene.AppliedResult import Holds, hideBackground, replaceSegments
from .Session import Session
from .States import Message

_UNDOES = {Holds.STROKES: " Undo (Ctrl+Z) brings back the strokes.", Holds.BOTH: " Undo (Ctrl+Z) brings back the result before.", Holds.NOTHING: ""}


class Applying:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._token = ""  # of the result that the segmentation held when it was last looked at

    def adopt(self) -> None:
        """Another segmentation was chosen."""
        self._token = self._session.holding.token

    def followUndo(self) -> None:
        """Apply was undone, or done again: preview and background strokes are shown or hidden as they were."""
        session = self._session
        token = session.holding.token
        if token != self._token:
            hideBackground(session.segmentationNode, bool(token))
            session.preview.setVisible(not session.preview.isAppliedAs(token))
            self._token = token

    def apply(self, saveStateForUndo: Callable[[object], None]) -> None:
        """The result replaces the segments that took part, or goes into a new segmentation. saveStateForUndo(node) is called once, before the
        segmentation is changed."""
        session = self._session
        with session.complaining(), session.waiting():
            node, replaced, undoes = self._toNew() if session.parameters.get("target") == "new" else self._toSame(saveStateForUndo)
            node.SetDisplayVisibility(True)
            self.adopt()
            session.preview.setApplied(self._token)
            session.parameters.setNode("applied", node)
            session.say(Message("info", f"{len(replaced)} segments were applied to {node.GetName()}.{undoes}", "Paint on where you see a mistake."))

    def _toSame(self, saveStateForUndo: Callable[[object], None]) -> tuple:
        session = self._session
        node, preview, locked = session.segmentationNode, session.preview, session.parameters.get("locked")
        replaced = session.applied.apply(
            node,
            session.volumeNode,
            preview.labels,
            preview.box,
            preview.classes.ids,
            [*locked, *session.parameters.get("unused")],
            saveStateForUndo,
            preview.surfaces(session.volumeNode, locked),
        )
        hideBackground(node, True)
        return node, replaced, _UNDOES[session.holding.undo]

    def _toNew(self) -> tuple:
        session, preview = self._session, self._session.preview
        node = SceneImport.makeResultNode(session.segmentationNode, session.volumeNode, preview.classes.segments)
        surfaces = preview.surfaces(session.volumeNode, session.parameters.get("locked"))
        replaceSegments(node, session.volumeNode, preview.labels, preview.box, preview.classes.ids, "new", surfaces)
        return node, preview.classes.ids, ""
