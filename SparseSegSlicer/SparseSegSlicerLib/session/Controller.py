"""The only state machine on Slicer's side: scene and user on one end, the engine on the other. No qt; any host that polls it can drive it.

It holds the verbs, and decides what a change of the scene means; `Session` is what it is in, `Choosing` what it is about, and parts do the work:
`Training` with the engine, `Applying` with the result, `Slices` with views. What scales with the volume is done in a thread or in the engine. What
goes wrong ends in `message`, one sentence and one piece of advice, and the scene is as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from sparseseg.contract.errors import SparseSegError
from sparseseg.contract.job import WEIGHTS
from sparseseg.contract.place import Place

from ..i18n import tr as _
from ..scene import SliceViews
from ..scene.Grids import volumeArray, volumeGeometry
from ..scene.StrokeReader import Reading
from .Allowed import Action, allowed
from .Applying import Applying
from .Choosing import Choosing
from .EngineRun import EngineRun
from .HintBook import Entry
from .Inputs import Inputs, prepareSegmentation
from .Slices import Slices
from .States import STANDING, Launch, Message, Report, State, Until
from .Training import Training

MOMENT_S = 0.02  # of a poll, for all that only the main thread may do and that takes longer
_PAINT = Message("info", _("Paint each structure, and some background, on a few slices; then press Segment."), until=Until.PAINT)
_TURNED = Message(
    "warning",
    _("The views are turned against this volume, so a stroke touches several of its slices."),
    _('Press "Align views" first.'),
    Until.VIEWS,
)


class Controller(Choosing):
    """Its constructor takes up what the scene has chosen; the host calls `poll`, and `close` at the end."""

    def __init__(self, scene, launch: Callable[[], Launch] = Launch, changed: Callable[[], None] = lambda: None, makeRun=EngineRun) -> None:
        super().__init__(scene, changed, self._onRead, self._onReadFailed, self._onOtherChannels)
        self._training, self._applying, self._slices = Training(self, launch, makeRun), Applying(self), Slices(self)
        self._inputs = Inputs(scene)
        self._inputs.observeScene(self._onSceneClose, self._onSceneReplaced, self.parameters.remember, self._onNodeRemoved)
        self._adoptInputs()

    def allowed(self) -> frozenset[Action]:
        return allowed(self)

    # -- inputs --------------------------------------------------------------------------------------------------------

    def _adoptInputs(self) -> None:
        self._inputs.forget()
        self.hints.close()
        self.channels.close()
        self.feed.clear()
        volume, segmentation = self.volumeNode, self.segmentationNode
        self._adopted = (volume, segmentation)
        if volume is None or segmentation is None:
            self.become(State.EMPTY, STANDING[State.EMPTY])
            return
        if self.parameters.getNode("slicesOf") is not volume:
            self._beginWith(volume)
        self._applying.adopt()
        self._inputs.observe(volume, segmentation, self._onPainted, self._onVolumeMoved, self._onImageChanged)
        self.hints.observe()
        self.channels.observe()
        self.become(State.IDLE, _PAINT if SliceViews.areAligned(volume) else _TURNED)
        self.saved.restore(self.report)
        if self.preview.node is not None:
            with self.complaining():
                self.previews.restore(self._onRestored)
        self.frames.follow()
        self.feed.refresh()

    def _beginWith(self, volume) -> None:
        """What was decided and learned on another volume does not hold for this one. Strokes are to lie on its slices."""
        if self.parameters.getNode("slicesOf") is not None:
            for name in ("complete", "ignored", "kept"):
                self.parameters.set(name, [])
            self.hints.clear()
            self.channels.clear()
            self.saved.drop()
            self.preview.remove()
            self.frames.forget()
        if self.isUntouched:
            prepareSegmentation(self.segmentationNode, volume)
        self.parameters.setNode("slicesOf", volume)
        if not SliceViews.areAligned(volume):
            SliceViews.alignViews(volume)

    def _onRestored(self) -> None:
        self.become(State.RESULT, Message("info", _("The session goes on where the scene was saved."), _("Paint corrections, and press Segment.")))

    # -- slices and segments ---------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Reads the strokes at the next poll."""
        self.feed.refresh()

    def setSliceChoice(self, axis: int, index: int, complete: bool | None = None, ignored: bool | None = None) -> None:
        self._slices.choose(axis, index, complete, ignored)

    def markShownSlice(self, sliceNode=None) -> None:
        """Declares the slice complete that the view of the mouse (or the given one) shows."""
        self._slices.markShown(sliceNode)

    def jumpToSlice(self, axis: int, index: int) -> None:
        self._slices.jumpTo(axis, index)

    def jumpToNextSlice(self) -> None:
        """The slices that would tell most, one after the other."""
        self._slices.jumpToNext()

    def alignViews(self) -> None:
        self._slices.align()

    def setSegmentChoice(self, segmentID: str, locked: bool | None = None, unused: bool | None = None) -> None:
        for name, wanted in (("locked", locked), ("unused", unused)):
            if wanted is not None:
                self.parameters.setMember(name, segmentID, wanted)
        if locked is not None and self.preview.labels is not None:
            self.preview.redraw(self.parameters.get("locked"))
        if unused is not None:
            self.refresh()
        self.changed()

    def hintsOf(self, segmentID: str) -> Entry:
        """What is said of a segment, or of BACKGROUND, without painting it."""
        return self.hints.entry(segmentID)

    def setHints(self, segmentID: str, **changes) -> None:
        """changes: fields of Entry. A run that is under way keeps those that it has."""
        self.hints.write(segmentID, **changes)
        self.feed.touch()
        self.changed()

    @property
    def places(self) -> list[Place]:
        """Where the strokes are probably mistaken."""
        return self._slices.places

    def showPlace(self, place: Place) -> None:
        self._slices.showPlace(place)

    def fixPlace(self, place: Place) -> None:
        """Shows it, with the segment that it probably belongs to ready for painting."""
        self._slices.fixPlace(place)

    def keepPlace(self, place: Place) -> None:
        """It is right as it is, and not shown again."""
        self._slices.keepPlace(place)

    # -- strokes ---------------------------------------------------------------------------------------------------------

    def _onPainted(self) -> None:
        self.feed.touch()
        self.changed()

    def _onRead(self, reading: Reading) -> None:
        if reading.emptied:  # and what that means is read before anything is sent
            self.applied.beginAnew(self.segmentationNode, reading.emptied)
            self.refresh()
            return
        self.preview.follow(self.segmentationNode)
        self._applying.followUndo()
        self._training.onStrokes(reading.problem)
        self.changed()

    def _onReadFailed(self, error: BaseException) -> None:
        self._training.forget()
        self.complain(error)

    # -- segmenting ----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Reads the strokes and trains: from the start, or on from the result, also one that was saved with the scene."""
        if (refusal := self.whyNoEngine()) is not None:
            self.say(refusal)
        elif Action.SEGMENT in self.allowed():
            self._training.train()

    def stop(self) -> None:
        """The result comes now, from what was learned so far; where there is nothing yet, or it is on its way already, work just ends."""
        if self.state is State.TRAINING:
            self.finish()
        elif self.running:
            self.cancel()

    def update(self) -> None:
        """Sends the strokes as they are now."""
        self._training.update()

    def finish(self) -> None:
        self._training.finish()

    def cancel(self) -> None:
        """Ends training; the strokes, and a preview that is there, stay."""
        if self.running:
            self._training.end(_("you stopped it"))

    def saveModel(self, path: Path) -> None:
        self._training.saveModel(path)

    def poll(self) -> None:
        """Called by the host's timer, twenty times a second or so: a stroke passes through several polls."""
        self.feed.hurried = not self._training.isUrgent
        until = time.perf_counter() + MOMENT_S
        self.feed.poll(self.waiting, self.state is not State.EMPTY, until)
        if not self.isApplying:  # labels that are applied stay as they are meanwhile
            self.previews.poll(until)
        self._applying.poll(until)
        self._training.poll()
        self.preview.tick(self.volumeNode, self.parameters.get("locked"), until)

    # -- apply and discard -----------------------------------------------------------------------------------------------

    def apply(self, saveStateForUndo: Callable[[object], None] = lambda node: None) -> None:
        """The result replaces the segments that took part, as often as wanted, a moment later; strokes are kept, and painting goes on.
        saveStateForUndo(node) is called once, before the segmentation is changed."""
        if Action.APPLY in self.allowed():
            self.previews.settle()
            self._applying.apply(saveStateForUndo)

    def discard(self) -> None:
        """Ends the session: no preview, no overlay, no model, no engine; the strokes stay."""
        self._leave("")
        self.saved.drop()
        self.frames.forget()
        if self.state is not State.EMPTY:
            self.become(State.IDLE, None)
        if self.segmentationNode is not None:
            self.segmentationNode.SetDisplayVisibility(True)
        self.say(Message("info", _("The result was discarded.")))

    def showWeights(self, shown: bool) -> None:
        """The voxel weight map as a coloured overlay in the slice views, or no longer."""
        if not shown:
            self.weightMap.hide()
        elif self.strokes is None:
            self.say(Message("warning", _("There are no strokes to show weights of."), _("Paint first."), Until.PAINT))
        else:
            engines = self.run.folder / WEIGHTS if self.run is not None and not self.strokesAreNew else None
            self.weightMap.show(self.strokes, engines, self.waiting, self.changed)

    # -- life ------------------------------------------------------------------------------------------------------------

    def close(self) -> list:
        """Leaves nothing behind: no process, no observer, no preview, no folder. Returns the threads that finish the clean-up."""
        self._training.drop()
        self.weightMap.hide()
        self.preview.remove()
        self._inputs.close()
        self.hints.close()
        self.channels.close()
        self._applying.close()
        self._slices.close()
        self.feed.close()
        self.previews.close()
        return self._training.ended

    def _onSceneClose(self) -> None:
        self._training.end(_("the scene was closed"))
        self._applying.forget()
        self.weightMap.hide()
        self._inputs.forget()
        self.hints.close()
        self.channels.close()
        self.feed.clear()
        self.preview.empty()
        self.preview.release()
        self.report, self.state = Report(), State.EMPTY

    def _onSceneReplaced(self) -> None:
        self.parameters.recall()
        self.weightMap.hide()  # also what a scene that was saved with it has kept of it
        self._slices.close()
        self._slices.watchViews()
        if (self.volumeNode, self.segmentationNode) != self._adopted:
            self._training.end(_("a scene was loaded"))
            self.preview.release()  # a node that is there now has come with the scene
            self.report = Report()
            self._adoptInputs()

    def _onNodeRemoved(self, node) -> None:
        if node is self.volumeNode or node is self.segmentationNode:
            name = "volume" if node is self.volumeNode else "segmentation"
            self._leave(_("the volume was deleted") if name == "volume" else _("the segmentation was deleted"))
            self.parameters.setNode(name, None)
            self._adoptInputs()
            self.parameters.removeOwn(node)
        elif node is self.preview.node and self.preview.labels is not None:
            self.preview.nodeIsGone()
            if self.state is State.RESULT:
                self.become(State.IDLE, Message("info", _("The preview was deleted."), _("Press Segment for a new one.")))
        elif self.channels.forgetNode(node):
            self._onOtherChannels(_("a channel was deleted"))
        elif self.hints.forgetNode(node):
            self.feed.touch()
            self.changed()
        else:
            self.parameters.removeOwn(node)

    def _onVolumeMoved(self) -> None:
        if self.preview.node is not None:
            self.preview.node.SetAndObserveTransformNodeID(self.volumeNode.GetTransformNodeID())
        self.channels.follow()
        self._onPainted()

    def _onImageChanged(self) -> None:
        """Another image, or other voxels in it: then what was made of the old ones is not of this volume."""
        self.frames.follow()
        run = self.run
        if self.frames.isLeft:
            return
        if run is None:
            self.refresh()
            return
        try:
            image, difference = volumeArray(self.volumeNode), volumeGeometry(self.volumeNode).difference_from(run.geometry)
        except SparseSegError as error:
            image, difference = None, error.sentence
        if difference:
            self._imageIsAnother(_("the volume's image was replaced"))
        else:
            self.feed.background.submit(lambda: run.hasImage(image), lambda same: self._onCompared(run, same), self.complain)

    def _onOtherChannels(self, reason: str) -> None:
        """What was made of other channels is not of these."""
        if self.run is not None or self.preview.labels is not None:
            self._imageIsAnother(reason)
        else:
            self.saved.drop()
            self.changed()

    def _onCompared(self, run, same: bool) -> None:
        if run is self.run and not same:
            self._imageIsAnother(_("the volume's voxels have changed"))

    def _imageIsAnother(self, reason: str) -> None:
        self._leave(reason)
        self.saved.drop()
        self.frames.forget()
        self.say(Message("warning", _("What was made before is gone, because {reason}.").format(reason=reason), _("Press Segment for a new result.")))
        self.refresh()

    def _leave(self, reason: str) -> None:
        """The inputs are others now: what was made of the old ones goes."""
        self._applying.forget()
        self.preview.remove()  # first: a run that ends without a preview leaves no result
        self._training.end(reason)
        self.weightMap.hide()
        self.report = Report()
