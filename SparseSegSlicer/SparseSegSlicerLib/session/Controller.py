"""The only state machine on Slicer's side: scene and user on one end, the engine on the other. No qt; any host that polls it can drive it.

Everything that scales with the volume, but the copy of the strokes and the import of a result, happens in a thread or in the engine.
Whatever goes wrong ends in `message`, one sentence and one piece of advice, and the user's segmentation is as it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from sparseseg.contract.errors import SparseSegError
from sparseseg.contract.job import WEIGHTS, JobRecord
from sparseseg.contract.place import Place
from sparseseg.contract.protocol import Check, Device, Error, Progress, Ready, Result, Warning
from sparseseg.contract.protocol import Preview as PreviewEvent

from ..scene import SceneImport, SliceViews
from ..scene.AppliedResult import AppliedResult, Holding, Holds, hideBackground, replaceSegments
from ..scene.DicomFiles import instanceUIDs
from ..scene.Grids import volumeArray, volumeGeometry
from ..scene.Preview import Preview
from ..scene.Segments import backgroundSegmentID
from ..scene.StrokeReader import Reading
from . import Places
from .Allowed import Action, allowed
from .Diary import Diary
from .EngineRun import EngineRun
from .Inputs import Inputs, ensureBackground, prepareSegmentation, whyNoInput
from .Parameters import Parameters
from .PreviewFeed import PreviewFeed
from .SavedSession import SavedSession
from .States import RUNNING, Launch, Message, Report, State
from .StrokeFeed import StrokeFeed
from .WeightMap import WeightMap

_PAINT = Message("info", "Paint each structure, and some background, on a few slices; then press Segment.")
_TURNED = Message("warning", "The views are turned against this volume, so a stroke touches several of its slices.", 'Press "Align views" first.')
_UNDOES = {Holds.STROKES: " Undo (Ctrl+Z) brings back the strokes.", Holds.BOTH: " Undo (Ctrl+Z) brings back the result before.", Holds.NOTHING: ""}


class Controller:
    """`changed` is called after anything that a panel shows may have changed; `waiting` is entered around the two slow main-thread steps;
    `selectSegment` is given the ID of the segment to paint with."""

    def __init__(self, scene, launch: Callable[[], Launch] = Launch, changed: Callable[[], None] = lambda: None, makeRun=EngineRun) -> None:
        self.scene, self._launch, self.changed, self._makeRun = scene, launch, changed, makeRun
        self.waiting: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
        self.selectSegment: Callable[[str], None] = lambda segmentID: None
        self.state, self.report = State.EMPTY, Report()
        self._diary = Diary(lambda: self.changed(), self._names)
        self.say, self.complain, self.complaining = self._diary.say, self._diary.complain, self._diary.complaining
        self.parameters, self.applied = Parameters(scene), AppliedResult()
        self.preview = Preview(self.parameters)
        self._feed = StrokeFeed(self.parameters, self.applied, self._onRead, self._onReadFailed)
        self._previews = PreviewFeed(self.preview, self.parameters, lambda run: run is self._run, self.complain)
        self.weightMap = WeightMap(self.parameters, self._feed.background, self.complain)
        self._saved = SavedSession(scene, self.parameters, self._feed.background)
        self._run: EngineRun | None = None
        self._ended: list = []  # clean-up threads
        self._trainWanted = self._updateWanted = False
        self._token = ""  # of the result that the segmentation held when it was last looked at
        self._nextSlice = 0
        self._views = SliceViews.ViewTracker(scene)
        self._inputs = Inputs(scene)
        self._inputs.observeScene(self._onSceneClose, self._onSceneReplaced, self.parameters.remember, self._onNodeRemoved)
        self._adoptInputs()

    # -- what faces ask --------------------------------------------------------------------------------------------------

    @property
    def volumeNode(self):
        return self.parameters.getNode("volume")

    @property
    def segmentationNode(self):
        return self.parameters.getNode("segmentation")

    @property
    def running(self) -> bool:
        return self.state in RUNNING

    @property
    def hasRun(self) -> bool:
        return self._run is not None

    def allowed(self) -> frozenset[Action]:
        return allowed(self)

    @property
    def holding(self) -> Holding:
        """What the chosen segmentation holds, where its strokes are, and what undo brings back."""
        return self.applied.holding(self.segmentationNode)

    @property
    def isApplied(self) -> bool:
        """Whether the chosen segmentation holds a result, whatever was painted on it since."""
        return bool(self.holding.token)

    @property
    def hasResult(self) -> bool:
        return self.state is State.RESULT and self.preview.labels is not None

    @property
    def strokes(self):
        return self._feed.strokes

    @property
    def summary(self) -> tuple:
        return self._feed.summary

    @property
    def isSettled(self) -> bool:
        """Whether `strokes` are what is painted."""
        return self._feed.isSettled

    @property
    def strokesAreNew(self) -> bool:
        """Whether strokes differ from what the engine has."""
        return self._feed.isNew

    @property
    def previewIsCurrent(self) -> bool:
        """Whether the preview was made from the strokes as they are."""
        if self._run is None or self._feed.isReading or self.strokesAreNew or self.preview.labels is None:
            return False
        return self.preview.revision >= self._run.revision

    @property
    def message(self) -> Message:
        return self._diary.message

    @property
    def log(self) -> list[str]:
        return self._diary.lines

    @property
    def engineLog(self) -> str:
        return self._run.log if self._run else ""

    # -- inputs --------------------------------------------------------------------------------------------------------

    def setVolume(self, node) -> None:
        if node is not self.volumeNode:
            self._leave("another volume was chosen")
            self.parameters.setNode("volume", node)
            self._adoptInputs()

    def setSegmentation(self, node) -> None:
        why = None if node is None else whyNoInput(node)
        if why is not None:
            self.say(Message("warning", *why))
        elif node is not self.segmentationNode:
            self._leave("another segmentation was chosen")
            self.parameters.setNode("segmentation", node)
            self._adoptInputs()

    def makeSegmentation(self):
        """A segmentation for the volume, with a background segment and a first structure, chosen as input."""
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", self.scene.GenerateUniqueName("Segmentation"))
        self.prepareSegmentation(node)
        self.setSegmentation(node)
        return node

    def prepareSegmentation(self, node) -> None:
        prepareSegmentation(node, self.volumeNode)

    def _adoptInputs(self) -> None:
        self._inputs.forget()
        self._feed.clear()
        volume, segmentation = self.volumeNode, self.segmentationNode
        self._adopted = (volume, segmentation)
        if volume is None or segmentation is None:
            self._become(State.EMPTY, Message("info", "Choose a volume and a segmentation."))
            return
        if self.parameters.getNode("slicesOf") is not volume:
            self._beginWith(volume)
        ensureBackground(segmentation)
        self._token = self.holding.token
        self._inputs.observe(volume, segmentation, self._onPainted, self._onVolumeMoved, self._onImageChanged)
        self._become(State.IDLE, _PAINT if SliceViews.areAligned(volume) else _TURNED)
        self._saved.restore(self.report)
        if self.preview.node is not None:
            with self.complaining():
                self._previews.restore(self._onRestored)
        self._feed.refresh()

    def _beginWith(self, volume) -> None:
        """What was decided and learned on another volume does not hold for this one."""
        if self.parameters.getNode("slicesOf") is not None:
            for name in ("complete", "ignored", "kept"):
                self.parameters.set(name, [])
            self._saved.drop()
            self.preview.remove()
        self.parameters.setNode("slicesOf", volume)

    def _onRestored(self) -> None:
        self._become(State.RESULT, Message("info", "The session goes on where the scene was saved.", "Paint corrections, and press Segment."))

    # -- slices and segments ---------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Reads the strokes at the next poll."""
        self._feed.refresh()

    def setSliceChoice(self, axis: int, index: int, complete: bool | None = None, ignored: bool | None = None) -> None:
        for name, wanted in (("complete", complete), ("ignored", ignored)):
            if wanted is not None:
                self.parameters.setMember(name, [axis, index], wanted)
        self.refresh()

    def markShownSlice(self, sliceNode=None) -> None:
        """Declares the slice complete that the view of the mouse (or the given one) shows."""
        with self.complaining():
            node = sliceNode or self._views.sliceNode(self.scene)
            if node is None or self.volumeNode is None:
                raise SparseSegError("There is no slice view or no volume.", "Choose a volume and a layout with slice views.")
            axis, index = SliceViews.sliceShown(node, self.volumeNode)
            self.setSliceChoice(axis, index, complete=True)
            plane = volumeGeometry(self.volumeNode).planes()[axis]
            self.say(Message("info", f"The {plane} slice {index} is complete: what is unpainted on it is background."))

    def jumpToSlice(self, axis: int, index: int) -> None:
        with self.complaining():
            SliceViews.jumpTo(self.volumeNode, axis, index)

    def jumpToNextSlice(self) -> None:
        """The slices that would tell most, one after the other."""
        if self.report.nextSlices:
            axis, index = self.report.nextSlices[self._nextSlice % len(self.report.nextSlices)]
            self._nextSlice += 1
            self.jumpToSlice(axis, index)

    def alignViews(self) -> None:
        if self.volumeNode is not None:
            SliceViews.alignViews(self.volumeNode)

    def setSegmentChoice(self, segmentID: str, locked: bool | None = None, unused: bool | None = None) -> None:
        for name, wanted in (("locked", locked), ("unused", unused)):
            if wanted is not None:
                self.parameters.setMember(name, segmentID, wanted)
        if locked is not None and self.preview.labels is not None:
            self.preview.redraw(self.parameters.get("locked"))
        if unused is not None:
            self.refresh()
        self.changed()

    # -- check my annotation -------------------------------------------------------------------------------------------

    @property
    def places(self) -> list[Place]:
        """Where the strokes are probably mistaken."""
        return Places.shown(self.report.places, self.parameters)

    def showPlace(self, place: Place) -> None:
        with self.complaining():
            SliceViews.jumpToVoxel(self.volumeNode, place.axis, place.centre_kji)

    def fixPlace(self, place: Place) -> None:
        """Shows it, with the segment that it probably belongs to ready for painting."""
        self.showPlace(place)
        self.selectSegment(place.believed or backgroundSegmentID(self.segmentationNode.GetSegmentation()))

    def keepPlace(self, place: Place) -> None:
        """It is right as it is, and not shown again."""
        Places.keep(place, self.parameters)
        self.changed()

    def _onPlaces(self, places: list) -> None:
        with self.complaining():
            self.report.places = [Place.from_json(place, self._run.geometry.shape_kji) for place in places]

    # -- strokes ---------------------------------------------------------------------------------------------------------

    def _onPainted(self) -> None:
        self._feed.touch()
        self.changed()

    def _onRead(self, reading: Reading) -> None:
        if reading.emptied:  # and what that means is read before anything is sent
            self.applied.beginAnew(self.segmentationNode, reading.emptied)
            self.refresh()
            return
        self.preview.follow(self.segmentationNode)
        self._followUndo()
        wantsTraining, self._trainWanted = self._trainWanted, False
        wantsUpdate, self._updateWanted = self._updateWanted, False
        problem = reading.problem
        if problem is not None and (wantsTraining or wantsUpdate or self._run is not None):
            self.say(Message("warning", problem.sentence, problem.advice))
        elif problem is None and wantsTraining:
            self._train()
        elif problem is None and self._run is not None and self.strokesAreNew and (wantsUpdate or self.parameters.get("autoUpdate")):
            self._update()
        self.changed()

    def _onReadFailed(self, error: BaseException) -> None:
        self._trainWanted = self._updateWanted = False
        self.complain(error)

    def _followUndo(self) -> None:
        """Apply was undone, or done again: preview and background strokes are shown or hidden as they were."""
        token = self.holding.token
        if token != self._token:
            hideBackground(self.segmentationNode, bool(token))
            self.preview.setVisible(not self.preview.isAppliedAs(token))
            self._token = token

    def _readSoon(self) -> None:
        if self._feed.isSettled or not self._feed.isReading:
            self._feed.readNow(self.waiting)
        self.changed()

    # -- segmenting ----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Reads the strokes and trains: from the start, or on from the result, also one that was saved with the scene."""
        if Action.SEGMENT in self.allowed():
            self._trainWanted = True
            self._readSoon()

    def stop(self) -> None:
        """The result comes now, from what was learned so far; where there is nothing yet, or it is on its way already, work just ends."""
        if self.state is State.TRAINING:
            self.finish()
        elif self.running:
            self.cancel()

    def update(self) -> None:
        """Sends the strokes as they are now."""
        if self._run is not None:
            self._updateWanted = True
            self._readSoon()

    def finish(self) -> None:
        if self.state is State.TRAINING:
            self._run.finish()
            self._become(State.FINISHING, Message("info", "The result is being computed."))

    def cancel(self) -> None:
        """Ends training; the strokes, and a preview that is there, stay."""
        if self.running:
            self._endRun("you stopped it")

    def saveModel(self, path: Path) -> None:
        if self._run is None:
            self.say(Message("warning", "There is no model yet.", "Press Segment first."))
            return
        self._run.saveModel(path, lambda saved: self.say(Message("info", f"The model was saved as {saved.name}.")), self.complain)

    def _train(self) -> None:
        try:
            settings = self.parameters.settings()
            if self._run is not None and self._fits():
                if self.strokesAreNew:
                    self._send()
                self._run.train(settings)
            else:
                self._dropRun()
                self._startRun(settings)
        except SparseSegError as error:
            self._dropRun()
            self._become(State.IDLE, None)
            self.complain(error)
            return
        self.report.curve, self.report.progress = [], None
        self._become(State.STARTING, Message("info", "The engine is starting. You can go on painting."))

    def _startRun(self, settings) -> None:
        launch, strokes, model = self._launch(), self.strokes, self._saved.model()
        record = JobRecord(strokes.geometry, strokes.classes, settings, complete_slices=strokes.complete, source_uids=instanceUIDs(self.volumeNode))
        run = self._makeRun(
            volumeArray(self.volumeNode),
            strokes.annotation,
            record,
            self.parameters.get("device"),
            launch.python,
            launch.environment,
            launch.temporaryFolder,
            model=model,
        )
        run.train(settings, "" if model else self.parameters.get("startFrom"))
        self.parameters.set("settings", self.parameters.get("settings"))  # these belong to the segmentation now
        self._run, self._feed.table = run, tuple(run.classes.ids)
        self.report, self._nextSlice = Report(), 0
        self._feed.take()

    def _update(self) -> None:
        if self._fits():
            self._send()
        elif self.running:
            self._diary.log("The segments have changed: training starts again with the new ones.")
            self._train()
        else:
            self.say(Message("warning", "The segments have changed.", "Press Segment to start again with the new ones."))

    def _send(self) -> None:
        strokes, box = self._feed.take()
        self._run.update(strokes.annotation, strokes.complete, box)

    def _fits(self) -> bool:
        run, strokes = self._run, self.strokes
        return run.classes.ids == strokes.classes.ids and not strokes.geometry.difference_from(run.geometry)

    # -- polling -------------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Called by the host's timer, twenty times a second or so: a stroke passes through several polls."""
        self._feed.hurried = not self._trainWanted
        self._feed.poll(self.waiting, self.state is not State.EMPTY)
        self._previews.poll()
        if self._run is not None:
            self._take(self._run)
        self.preview.tick(self.volumeNode, self.parameters.get("locked"))
        self._ended = [thread for thread in self._ended if thread.is_alive()]

    def _take(self, run: EngineRun) -> None:
        try:
            events = run.poll()
        except SparseSegError as error:
            self._fail(Message("error", error.sentence, error.advice))
            return
        for event in events:
            if self._run is run:
                self._onEvent(event)
        if events:
            self.changed()

    def _onEvent(self, event) -> None:
        if isinstance(event, Progress):
            self._onProgress(event)
        elif isinstance(event, Ready) and event.id == "open":
            self._diary.log(event.summary)
            self._onDevice(event)
        elif isinstance(event, Device):
            self._onDevice(event)
        elif isinstance(event, PreviewEvent):
            self._previews.load(self._run, event, self.changed)
        elif isinstance(event, Result):
            self._onResult(event)
        elif isinstance(event, Check):
            self._onPlaces(event.places)
        elif isinstance(event, Warning):
            self.report.onCpu = self.report.onCpu or event.code == "device"
            self.say(Message("warning", event.sentence, event.advice))
        elif isinstance(event, Error):
            self._onError(event)

    def _onDevice(self, event: Ready | Device) -> None:
        """What the engine works on: told once it is chosen, and again where it moves."""
        if event.device:
            self.report.why = event.why
            self.report.onCpu = event.device.upper().startswith("CPU")
            self._diary.log(f"{event.why}.")

    def _onProgress(self, event: Progress) -> None:
        if self.state is State.STARTING and event.stage == "training":
            self._become(State.TRAINING, Message("info", "Training. Paint corrections whenever you see something wrong."))
        before = self.report.progress
        if before is None or before.stage != event.stage:
            self._diary.log(f"{event.stage} ({event.seconds:.0f} s)")
        self.report.progress = event
        if event.estimate:
            self.report.estimate = event.estimate
        if event.loss and (not self.report.curve or event.step > self.report.curve[-1][0]):
            self.report.curve.append((float(event.step), sum(event.loss.values()), dict(event.estimate)))

    def _onResult(self, event: Result) -> None:
        self.report.estimate = event.estimate or self.report.estimate
        self.report.nextSlices, self._nextSlice = event.next_slices, 0
        self._onPlaces(event.places)
        run = self._run
        self._saved.keep(self.report, event.model, lambda: run is self._run)
        self._previews.loadWhole(run, event.file, event.revision, self._onResultShown)

    def _onResultShown(self) -> None:
        self._become(State.RESULT, Message("info", "The result is there.", "Paint corrections, go on with Segment, or press Apply."))

    def _onError(self, event: Error) -> None:
        message = Message("error", event.sentence, event.advice)
        if event.code == "cancelled":
            return
        if event.fatal or not event.id.startswith("update"):
            self._fail(message)
        else:
            self.say(message)

    def _fail(self, message: Message) -> None:
        """The run cannot go on; the preview that is there stays and can be applied."""
        log = self.engineLog
        self._dropRun()
        if log:
            self._diary.log(log)
        self._become(State.RESULT if self.preview.labels is not None else State.IDLE, message)

    # -- apply and discard -----------------------------------------------------------------------------------------------

    def apply(self, saveStateForUndo: Callable[[object], None] = lambda node: None) -> None:
        """The result replaces the segments that took part, as often as wanted; strokes are kept, and painting goes on. saveStateForUndo(node) is
        called once, before the segmentation is changed."""
        if Action.APPLY not in self.allowed():
            return
        with self.complaining(), self.waiting():
            node, replaced, undoes = self._applyToNew() if self.parameters.get("target") == "new" else self._applyToSame(saveStateForUndo)
            node.SetDisplayVisibility(True)
            self._token = self.holding.token
            self.preview.setApplied(self._token)
            self.parameters.setNode("applied", node)
            self.say(Message("info", f"{len(replaced)} segments were applied to {node.GetName()}.{undoes}", "Paint on where you see a mistake."))

    def _applyToSame(self, saveStateForUndo: Callable[[object], None]) -> tuple:
        node, preview, locked = self.segmentationNode, self.preview, self.parameters.get("locked")
        replaced = self.applied.apply(
            node,
            self.volumeNode,
            preview.labels,
            preview.box,
            preview.classes.ids,
            [*locked, *self.parameters.get("unused")],
            saveStateForUndo,
            preview.surfaces(self.volumeNode, locked),
        )
        hideBackground(node, True)
        return node, replaced, _UNDOES[self.holding.undo]

    def _applyToNew(self) -> tuple:
        preview = self.preview
        node = SceneImport.makeResultNode(self.segmentationNode, self.volumeNode, preview.classes.segments)
        surfaces = preview.surfaces(self.volumeNode, self.parameters.get("locked"))
        replaceSegments(node, self.volumeNode, preview.labels, preview.box, preview.classes.ids, "new", surfaces)
        return node, preview.classes.ids, ""

    def discard(self) -> None:
        """Ends the session: no preview, no overlay, no model, no engine; the strokes stay."""
        self._leave("")
        self._saved.drop()
        if self.state is not State.EMPTY:
            self._become(State.IDLE, None)
        if self.segmentationNode is not None:
            self.segmentationNode.SetDisplayVisibility(True)
        self.say(Message("info", "The result was discarded."))

    def showWeights(self, shown: bool) -> None:
        """The voxel weight map as a coloured overlay in the slice views, or no longer."""
        if not shown:
            self.weightMap.hide()
        elif self.strokes is None:
            self.say(Message("warning", "There are no strokes to show weights of.", "Paint first."))
        else:
            engines = self._run.folder / WEIGHTS if self._run is not None and not self.strokesAreNew else None
            self.weightMap.show(self.strokes, engines, self.waiting, self.changed)

    # -- life ------------------------------------------------------------------------------------------------------------

    def close(self) -> list:
        """Leaves nothing behind: no process, no observer, no preview, no folder. Returns the threads that finish the clean-up."""
        self._dropRun()
        self.weightMap.hide()
        self.preview.remove()
        self._inputs.close()
        self._views.stop()
        self._feed.close()
        self._previews.close()
        return self._ended

    def _onSceneClose(self) -> None:
        self._endRun("the scene was closed")
        self._inputs.forget()
        self._feed.clear()
        self.preview.release()
        self.report, self.state = Report(), State.EMPTY

    def _onSceneReplaced(self) -> None:
        self.parameters.recall()
        self._views.stop()
        self._views = SliceViews.ViewTracker(self.scene)
        if (self.volumeNode, self.segmentationNode) != self._adopted:
            self._endRun("a scene was loaded")
            self.preview.release()  # a node that is there now has come with the scene
            self.report = Report()
            self._adoptInputs()

    def _onNodeRemoved(self, node) -> None:
        if node is self.volumeNode or node is self.segmentationNode:
            name = "volume" if node is self.volumeNode else "segmentation"
            self._leave(f"the {name} was deleted")
            self.parameters.setNode(name, None)
            self._adoptInputs()
            self.parameters.removeOwn(node)
        elif node is self.preview.node and self.preview.labels is not None:
            self.preview.nodeIsGone()
            if self.state is State.RESULT:
                self._become(State.IDLE, Message("info", "The preview was deleted.", "Press Segment for a new one."))
        else:
            self.parameters.removeOwn(node)

    def _onVolumeMoved(self) -> None:
        if self.preview.node is not None:
            self.preview.node.SetAndObserveTransformNodeID(self.volumeNode.GetTransformNodeID())
        self._onPainted()

    def _onImageChanged(self) -> None:
        """Another image, or other voxels in it: then what was made of the old ones is not of this volume."""
        run = self._run
        if run is None:
            self.refresh()
            return
        try:
            image, difference = volumeArray(self.volumeNode), volumeGeometry(self.volumeNode).difference_from(run.geometry)
        except SparseSegError as error:
            image, difference = None, error.sentence
        if difference:
            self._imageIsAnother("the volume's image was replaced")
        else:
            compare = lambda: run.hasImage(image)  # noqa: E731
            self._feed.background.submit(compare, lambda same: None if same or run is not self._run else self._imageIsAnother(), self.complain)

    def _imageIsAnother(self, reason: str = "the volume's voxels have changed") -> None:
        self._leave(reason)
        self._saved.drop()
        self.say(Message("warning", f"What was made before is gone, because {reason}.", "Press Segment for a new result."))
        self.refresh()

    def _leave(self, reason: str) -> None:
        """The inputs are others now: what was made of the old ones goes."""
        self.preview.remove()  # first: a run that ends without a preview leaves no result
        self._endRun(reason)
        self.weightMap.hide()
        self.report = Report()

    def _endRun(self, reason: str) -> None:
        """Ends the worker, if there is one. reason: why, for the user; empty: nothing to say."""
        wasRunning = self.running
        self._dropRun()
        self._feed.stop()
        self._previews.forget()
        self._trainWanted = self._updateWanted = False
        if self.state is not State.EMPTY:
            self.state = State.RESULT if wasRunning and self.preview.labels is not None else State.IDLE
        if wasRunning and reason:
            self.say(Message("info", f"Training was stopped because {reason}."))
        self.changed()

    def _dropRun(self) -> None:
        if self._run is not None:
            self._ended.append(self._run.close())
            self._run = self._feed.sent = self._feed.table = None

    def _become(self, state: State, message: Message | None) -> None:
        self.state = state
        if message is not None:
            self.say(message)
        self.changed()

    def _names(self) -> tuple:
        nodes = ((self.volumeNode, "the volume"), (self.segmentationNode, "the segmentation"))
        return tuple((node.GetName(), word) for node, word in nodes if node is not None)
