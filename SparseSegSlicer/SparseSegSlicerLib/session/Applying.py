"""The result becomes the user's segments, and undo brings back what was there. No qt.

Apply takes a moment: a thread prepares what the main thread then swaps in, in one undo step. Whatever fails before leaves the scene as it was; what
is painted in between counts as painted after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sparseseg.contract.box import Box

from ..i18n import tr as _
from ..scene import SceneImport
from ..scene.AppliedResult import Holds, hideBackground
from ..scene.Grids import volumeGeometry
from ..scene.Layers import LayerCopies
from ..scene.Replacement import Replacement
from ..scene.SceneExport import copyAhead, missingMemory, takeSnapshot
from .Background import Background
from .Session import Session
from .States import Message, Until

_UNDOES = {
    Holds.STROKES: _("Undo (Ctrl+Z) brings back the strokes."),
    Holds.BOTH: _("Undo (Ctrl+Z) brings back the result before."),
    Holds.NOTHING: "",
}


@dataclass(frozen=True)
class _Job:
    """What Apply was asked for with. Its labels are not written to as long as it is under way: previews wait."""

    segmentationNode: object
    volumeNode: object
    labels: Any
    box: Box
    ids: list[str]
    protected: list[str]
    saveStateForUndo: Callable[[object], None]
    copies: LayerCopies


class Applying:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._background = Background("sparseseg apply")
        self._job: _Job | None = None
        self._goOn: Callable[[], None] | None = None  # with copying layers, at the next poll
        self._until = 0.0  # the present poll may copy
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
            session.preview.followResult(token)
            self._token = token

    # -- under way -----------------------------------------------------------------------------------------------------

    def apply(self, saveStateForUndo: Callable[[object], None]) -> None:
        """The result replaces the segments that took part, or goes into a new segmentation, at one of the next polls. saveStateForUndo(node) is
        called once, before the segmentation is changed."""
        session, preview, parameters = self._session, self._session.preview, self._session.parameters
        protected = [*parameters.get("locked"), *parameters.get("unused")]
        inputs, copies = (session.segmentationNode, session.volumeNode), session.feed.lendCopies()
        self._job = job = _Job(*inputs, preview.labels, preview.box, list(preview.classes.ids), protected, saveStateForUndo, copies)
        session.isApplying = True
        session.say(Message("info", _("The result is being applied."), until=Until.APPLIED))
        with self._failing():
            if parameters.get("target") == "new":
                grid = volumeGeometry(job.volumeNode).ijk_to_ras()
                new = Replacement(job.labels, job.box, job.ids, grid, "new", parameters.get("show3D"))
                self._submit(new.make, self._toNew)
            else:
                sizes = missingMemory(job.segmentationNode, job.copies)
                self._submit(partial(job.copies.reserve, sizes), lambda __: self._begin())

    def poll(self, until: float) -> None:
        """Goes on with what is under way; called by the host's timer. until: of time.perf_counter, copies a plane at least."""
        self._until = until
        if self._job is not None and not self._isMeant(self._job):
            self.forget()
        if self._goOn is not None:
            goOn, self._goOn = self._goOn, None
            with self._failing():
                goOn()
        self._background.poll()

    def forget(self) -> None:
        """What is under way is dropped; the scene is as it was."""
        self._background.forget()
        self._goOn = None
        self._job, self._session.isApplying = None, False
        self._session.changed()

    def close(self) -> None:
        self._job = None
        self._background.close()

    def _begin(self) -> None:
        """Copies the strokes as they are."""
        job, session = self._job, self._session
        if not self._areCopied():
            self._goOn = self._begin
            return
        with session.waiting():
            surfaces = session.parameters.get("show3D")
            replacement = session.applied.begin(*self._inputs(), job.labels, job.box, job.ids, job.protected, surfaces, job.copies)
        self._submit(replacement.make, self._swap)

    def _swap(self, replacement: Replacement) -> None:
        """Once nothing was painted since the copy: into the segmentation."""
        job, session = self._job, self._session
        if not self._areCopied():
            self._goOn = partial(self._swap, replacement)
            return
        now = takeSnapshot(*self._inputs(), copies=job.copies)
        if not now.continues(replacement.snapshot):
            self._begin()
        elif not now.isSame(replacement.snapshot):
            self._submit(partial(replacement.follow, now), self._swap)
        else:
            replaced = session.applied.finish(*self._inputs(), replacement, job.saveStateForUndo)
            hideBackground(job.segmentationNode, True)
            self._finished(job.segmentationNode, replaced, _UNDOES[session.holding.undo])

    def _toNew(self, replacement: Replacement) -> None:
        job, segments = self._job, self._session.preview.classes.segments
        node = SceneImport.makeResultNode(job.segmentationNode, job.volumeNode, segments)
        replacement.put(node)
        self._finished(node, replacement.replaced, "")

    def _finished(self, node, replaced: list[str], undoes: str) -> None:
        session = self._session
        self.forget()
        node.SetDisplayVisibility(True)
        self.adopt()
        session.preview.setApplied(self._token)
        session.parameters.setNode("applied", node)
        said = _("{count} segments were applied to {name}.").format(count=len(replaced), name=node.GetName())
        session.say(Message("info", f"{said} {undoes}".strip(), _("Paint on where you see a mistake."), Until.APPLIED))

    def _areCopied(self) -> bool:
        """All layers as they are now; a large one is copied over several polls."""
        self._session.applied.follow(*self._inputs())
        return copyAhead(*self._inputs(), self._job.copies, self._until)

    def _inputs(self) -> tuple:
        return self._job.segmentationNode, self._job.volumeNode

    def _isMeant(self, job: _Job) -> bool:
        """Whether inputs and result are still those that Apply was asked for with."""
        session = self._session
        inputs = session.segmentationNode, session.volumeNode
        return inputs == (job.segmentationNode, job.volumeNode) and session.preview.labels is job.labels and not session.frames.isLeft

    def _submit(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        def done(outcome: Any) -> None:
            with self._failing():
                then(outcome)

        self._background.submit(work, done, self._failed)

    @contextlib.contextmanager
    def _failing(self):
        try:
            yield
        except Exception as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self.forget()
        self._session.complain(error)
