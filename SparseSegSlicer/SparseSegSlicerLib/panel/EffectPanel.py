"""The session as options of a Segment Editor effect: the verbs where painting is done. No behaviour of its own.

Painting is another effect, so this one is left for most of the time; the session goes on meanwhile, and with it what is polled and updated.
"""

import slicer

from .SharedSession import SharedSession
from .Status import Status


class EffectPanel:
    """`effect` is Slicer's side of it, which belongs to one editor. Its owner calls `enter`, `exit`, `follow` and `leave`."""

    def __init__(self, effect, uiPath: str) -> None:
        self.effect = effect
        self.uiWidget = slicer.util.loadUI(uiPath)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.session = SharedSession.current()
        self.controller = self.session.controller
        self.status = Status(self.ui, self.controller)
        self._active = self._updateDue = False
        self.ui.segmentButton.connect("clicked()", self.onSegment)
        self.ui.applyButton.connect("clicked()", self.onApply)
        self.ui.moreLabel.connect("linkActivated(QString)", self.onMore)
        effect.addOptionsWidget(self.uiWidget)
        self.session.join(self)

    # -- life ------------------------------------------------------------------------------------------------------------

    @property
    def isClosed(self) -> bool:
        return self.controller is None

    def enter(self) -> None:
        self._active = True
        self.controller.selectSegment = self.onSelectSegment
        self.session.setup.checkOnce()
        self.follow()

    def exit(self) -> None:
        self._active = False

    def follow(self) -> None:
        """The session takes up what the editor shows, if it is free to."""
        if self._active and None not in self._shown():
            self.controller.offerInputs(*self._shown())
        self.update()

    def close(self) -> None:
        """The session ends, and its options go. May be called again."""
        if not self.isClosed:
            self.uiWidget.deleteLater()
            self.leave()

    def leave(self) -> None:
        """The editor goes, and the options with it. May be called again."""
        if not self.isClosed:
            self.controller = None
            self.session.leave(self)

    # -- clicks ----------------------------------------------------------------------------------------------------------

    def onSegment(self) -> None:
        if self._elsewhere() is not None:
            self.controller.setInputs(*self._shown())
        if self._elsewhere() is None:
            self.status.segment()

    def onApply(self) -> None:
        self.controller.apply(lambda node: self.effect.saveStateForUndo())

    def onSelectSegment(self, segmentID: str) -> None:
        """With a brush, which is another effect."""
        self.effect.parameterSetNode().SetSelectedSegmentID(segmentID)
        self.effect.selectEffect("Paint")

    def onMore(self, link: str) -> None:
        slicer.util.selectModule("SparseSegSlicer")

    # -- showing ---------------------------------------------------------------------------------------------------------

    def onTimer(self) -> bool:
        if self._updateDue:
            self.update()
        return False

    def scheduleUpdate(self) -> None:
        self._updateDue = True

    def update(self) -> None:
        if self.isClosed or not self._active:
            return
        self._updateDue = False
        self.status.update()
        elsewhere = self._elsewhere()
        if elsewhere is not None:
            self.status.offerSegmentOnly()
            self.status.say(elsewhere)

    def _elsewhere(self):
        """What to say where the session is not on what the editor shows."""
        shown = self._shown()
        return None if None in shown else self.controller.whyElsewhere(*shown)

    def _shown(self) -> tuple:
        """The editor's volume and segmentation."""
        node = self.effect.parameterSetNode()
        return (node.GetSourceVolumeNode(), node.GetSegmentationNode()) if node is not None else (None, None)
