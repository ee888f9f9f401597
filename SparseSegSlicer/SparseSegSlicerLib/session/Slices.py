"""Which slices are complete or left out, which one to look at next, and where the strokes are probably mistaken. No qt."""

from __future__ import annotations

from sparseseg.contract.errors import SparseSegError
from sparseseg.contract.place import Place

from ..i18n import tr as _
from ..scene import SliceViews
from ..scene.Grids import volumeGeometry
from . import Places
from .Inputs import ensureBackground
from .Session import Session
from .States import Message


class Slices:
    """Of the volume that a session is about; axis 0 is k, indices count from 0."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._suggestions: list | None = None
        self._next = 0
        self.watchViews()

    def watchViews(self) -> None:
        """The slice views of the scene as it is now: the one that the mouse was in is meant."""
        self._views = SliceViews.ViewTracker(self._session.scene)

    def close(self) -> None:
        self._views.stop()

    def choose(self, axis: int, index: int, complete: bool | None = None, ignored: bool | None = None) -> None:
        for name, wanted in (("complete", complete), ("ignored", ignored)):
            if wanted is not None:
                self._session.parameters.setMember(name, [axis, index], wanted)
        self._session.feed.refresh()

    def markShown(self, sliceNode=None) -> None:
        """Declares the slice complete that the view of the mouse (or the given one) shows."""
        session = self._session
        with session.complaining():
            node = sliceNode or self._views.sliceNode(session.scene)
            if node is None or session.volumeNode is None:
                raise SparseSegError(_("There is no slice view or no volume."), _("Choose a volume and a layout with slice views."))
            axis, index = SliceViews.sliceShown(node, session.volumeNode)
            self.choose(axis, index, complete=True)
            plane = volumeGeometry(session.volumeNode).planes()[axis]
            said = _("The {plane} slice {index} is complete: what is unpainted on it is background.").format(plane=plane, index=index)
            session.say(Message("info", said))

    def jumpTo(self, axis: int, index: int) -> None:
        with self._session.complaining():
            SliceViews.jumpTo(self._session.volumeNode, axis, index)

    def jumpToNext(self) -> None:
        """The slices that would tell most, one after the other."""
        suggestions = self._session.report.nextSlices
        if suggestions is not self._suggestions:
            self._suggestions, self._next = suggestions, 0
        if suggestions:
            axis, index = suggestions[self._next % len(suggestions)]
            self._next += 1
            self.jumpTo(axis, index)

    def align(self) -> None:
        if self._session.volumeNode is not None:
            SliceViews.alignViews(self._session.volumeNode)

    # -- check my annotation -------------------------------------------------------------------------------------------

    @property
    def places(self) -> list[Place]:
        """Where the strokes are probably mistaken."""
        return Places.shown(self._session.report.places, self._session.parameters)

    def showPlace(self, place: Place) -> None:
        with self._session.complaining():
            SliceViews.jumpToVoxel(self._session.volumeNode, place.axis, place.centre_kji)

    def fixPlace(self, place: Place) -> None:
        """Shows it, with the segment that it probably belongs to ready for painting."""
        self.showPlace(place)
        self._session.selectSegment(place.believed or ensureBackground(self._session.segmentationNode))

    def keepPlace(self, place: Place) -> None:
        """It is right as it is, and not shown again."""
        Places.keep(place, self._session.parameters)
        self._session.changed()
