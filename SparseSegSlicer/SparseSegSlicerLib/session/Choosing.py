"""Which volumes and segmentation a session is about, and which segment is painted: chosen, taken up from what the user looks at, or made. No qt.

What follows from another choice is the Controller's: it leaves what was made of the old inputs, and adopts the new ones.
"""

from __future__ import annotations

from ..i18n import tr as _
from ..scene import SliceViews
from .Allowed import Action
from .Inputs import ensureBackground, isUntouched, prepareSegmentation, segmentationOf, structureOf, whyNoInput
from .Session import Session
from .States import Message, State


class Choosing(Session):
    """allowed(), _leave(reason), _adoptInputs() and _onOtherChannels(reason) are the Controller's."""

    def setVolume(self, node) -> None:
        self.setInputs(node, self.segmentationNode)

    def setSegmentation(self, node) -> None:
        self.setInputs(self.volumeNode, node)

    def setInputs(self, volume, segmentation) -> None:
        """Both at once: what a segmentation remembers is dropped where the volume is another than its own."""
        why = None if segmentation is None else whyNoInput(segmentation)
        if why is not None:
            self.say(Message("warning", *why))
        elif not self._isOn(volume, segmentation):
            same = segmentation is self.segmentationNode
            self._leave(_("another volume was chosen") if same else _("another segmentation was chosen"))
            self.parameters.setNode("volume", volume)
            self.parameters.setNode("segmentation", segmentation)
            self._adoptInputs()

    def offerInputs(self, volume, segmentation) -> None:
        """What another editor shows: taken, unless that would end a session that has something to lose."""
        if Action.DISCARD not in self.allowed():
            self.setInputs(volume, segmentation)

    def whyElsewhere(self, volume, segmentation) -> Message | None:
        """Why this session is not on these inputs; None where it is."""
        if self._isOn(volume, segmentation):
            return None
        if why := whyNoInput(segmentation):
            return Message("warning", *why)
        others = [node.GetName() for node in (self.segmentationNode, self.volumeNode) if node is not None]
        if not others:
            return Message("info", _("No session is under way."), _("Press Segment to begin one here."))
        said = _("The session is on {0} with {1}.") if len(others) == 2 else _("The session is on {0}.")
        return Message("warning", said.format(*others), _("Press Segment to end it and to begin one here; strokes stay."))

    def _isOn(self, volume, segmentation) -> bool:
        return volume is self.volumeNode and segmentation is self.segmentationNode

    def setChannel(self, place: int, node) -> None:
        """One of up to three more volumes that are seen together with the first; None for none."""
        if node is self.channels.node(place) or self.state is State.EMPTY:
            return
        why = None if node is None else self.channels.whyNot(node, self.volumeNode)
        if why is not None:
            self.say(why)
            return
        self.channels.set(place, node)
        self._onOtherChannels(_("other channels were chosen"))
        if node is not None and self.channels.isElsewhere(node, self.volumeNode):
            said = _("{channel} lies on another grid: it is resampled to that of {volume} (linear).")
            self.say(Message("info", said.format(channel=node.GetName(), volume=self.volumeNode.GetName())))

    def makeSegmentation(self):
        """A segmentation for the volume, with a first structure, chosen as input."""
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", self.scene.GenerateUniqueName("Segmentation"))
        self.prepareSegmentation(node)
        self.setSegmentation(node)
        return node

    def prepareSegmentation(self, node) -> None:
        prepareSegmentation(node, self.volumeNode)

    def takeUpShown(self) -> None:
        """On opening: what the slice views show becomes the input, unless another volume is worked on; a segmentation of it is chosen, or made."""
        shown = SliceViews.shownVolume(self.scene)
        if shown is not None and (self.volumeNode is None or self.isUntouched):
            self.setVolume(shown)
        if self.volumeNode is not None and self.segmentationNode is None:
            node = segmentationOf(self.scene, self.volumeNode)
            self.setSegmentation(node) if node is not None else self.makeSegmentation()

    @property
    def isUntouched(self) -> bool:
        """Whether nothing is painted, and nothing was made."""
        return self.preview.labels is None and not self.running and (self.segmentationNode is None or isUntouched(self.segmentationNode))

    def paintStructure(self, segmentID: str = "") -> None:
        """Has a structure ready for painting: this one, if it is one, else the first."""
        if self.segmentationNode is not None:
            self.selectSegment(structureOf(self.segmentationNode, segmentID))

    def paintBackground(self) -> None:
        """Has the background ready for painting, which takes from the preview what is no part of it. It is made when it is first asked for."""
        if self.segmentationNode is not None:
            self.selectSegment(ensureBackground(self.segmentationNode))
