"""The only state machine on Slicer's side: scene and user on one end, the engine on the other. No qt; any host that polls it can drive it.

Everything that scales with the volume, but the copy of the strokes and the import of a result, happens in a thread or in the engine.
Whatever goes wrong ends in `message`, one sentence and one piece of advice, and the user's segmentation is as it was.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import slicer
import vtk

from sparseseg.annotation.labels import SegmentSummary, build_annotation
from sparseseg.contract.box import Box, box_from_json, box_to_json, shape_of, union
from sparseseg.contract.classes import BACKGROUND_TAG
from sparseseg.contract.errors import SparseSegError
from sparseseg.contract.job import WEIGHTS, JobRecord
from sparseseg.contract.place import AT_A_TIME, Place
from sparseseg.contract.protocol import Check, Device, Error, Progress, Ready, Result, Warning
from sparseseg.contract.protocol import Preview as PreviewEvent

from ..scene import SceneImport, SliceViews
from ..scene.DicomFiles import instanceUIDs
from ..scene.Grids import volumeArray, volumeGeometry
from ..scene.LabelLayer import LabelMemory
from ..scene.Layers import LayerCopies
from ..scene.Preview import Preview
from ..scene.SceneExport import missingMemory, takeSnapshot
from ..scene.Segments import backgroundSegmentID
from ..scene.StrokeReader import Choices, Reading, StrokeReader, Strokes
from .Background import Background
from .EngineRun import EngineRun
from .Observers import Observers
from .Parameters import Parameters
from .States import RUNNING, Launch, Message, Report, State

UPDATE_AFTER_S = 0.1  # of quiet after the last stroke
DETAILS_AFTER_S = 1.0  # what the tables say of a stroke that was sent already
_LOG_LINES = 500
_BACKGROUND_COLOR = (0.45, 0.45, 0.45)


class Controller:
    """`changed` is called after anything that a panel shows may have changed; `waiting` is entered around the two slow main-thread steps;
    `selectSegment` is given the ID of the segment to paint with."""

    def __init__(self, scene, launch: Callable[[], Launch] = Launch, changed: Callable[[], None] = lambda: None, makeRun=EngineRun) -> None:
        self.scene, self._launch, self.changed, self._makeRun = scene, launch, changed, makeRun
        self.waiting: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
        self.selectSegment: Callable[[str], None] = lambda segmentID: None
        self.state = State.EMPTY
        self.message = Message("info", "Choose a volume and a segmentation.")
        self.report = Report()
        self.log: list[str] = []
        self.strokes: Strokes | None = None
        self.summary: tuple[SegmentSummary, ...] = ()
        self.parameters = Parameters(scene)
        self.preview = Preview(self.parameters)
        self._background, self._loading = Background("sparseseg strokes"), Background("sparseseg previews")
        self._forgetStrokes()
        self._run: EngineRun | None = None
        self._ended: list = []  # clean-up threads
        self._observers, self._sceneObservers = Observers(), Observers()
        self._views = SliceViews.ViewTracker(scene)
        self._dirtySince: float | None = None
        self._reading = self._trainWanted = self._updateWanted = self._hiddenByApply = False
        self._detailsAt: float | None = None
        self._sent: Strokes | None = None
        self._unsent: Box | None = None  # where the strokes differ from those sent
        self._nextSlice = 0
        self._observeScene()
        self._adoptInputs()

    # -- what the panel asks -------------------------------------------------------------------------------------------

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
    def hasResult(self) -> bool:
        return self.state is State.RESULT and self.preview.labels is not None

    @property
    def isApplied(self) -> bool:
        """Whether the chosen segmentation holds an applied result whose strokes are kept elsewhere."""
        node = self.segmentationNode
        return node is not None and SceneImport.isApplied(node)

    @property
    def strokesAreNew(self) -> bool:
        """Whether strokes differ from what the engine has."""
        return self._dirtySince is not None or not _sameStrokes(self.strokes, self._sent)

    @property
    def previewIsCurrent(self) -> bool:
        """Whether the preview was made from the strokes as they are."""
        if self._run is None or self._reading or self.strokesAreNew or self.preview.labels is None:
            return False
        return self.preview.revision >= self._run.revision

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
        if node is not None and node is self.preview.node:
            self.say(Message("warning", "That is the preview, which is made anew all the time.", "Paint corrections in your own segmentation."))
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
        """A new segmentation gets the volume's geometry, transform and study, a background and, where there is none, a first structure."""
        node.CreateDefaultDisplayNodes()
        if self.volumeNode is not None:
            node.SetReferenceImageGeometryParameterFromVolumeNode(self.volumeNode)
            node.SetAndObserveTransformNodeID(self.volumeNode.GetTransformNodeID())
            SceneImport.placeInStudy(node, self.volumeNode)
        ensureBackground(node)
        if node.GetSegmentation().GetNumberOfSegments() == 1:
            node.GetSegmentation().AddEmptySegment("", "Structure 1")

    def _adoptInputs(self) -> None:
        self._observers.clear()
        self.strokes, self.summary, self._sent = None, (), None
        volume, segmentation = self.volumeNode, self.segmentationNode
        self._adopted = self._inputIDs()
        if volume is None or segmentation is None:
            self._forgetStrokes()
            self._become(State.EMPTY, Message("info", "Choose a volume and a segmentation."))
            return
        if self.parameters.get("slicesOf") != volume.GetID():
            self.parameters.set("slicesOf", volume.GetID())
            self.parameters.set("complete", [])
            self.parameters.set("ignored", [])
            self.parameters.set("kept", [])
        ensureBackground(segmentation)
        self._observeInputs(volume, segmentation)
        welcome = Message("info", "Paint each structure, and some background, on a few slices; then press Train.")
        advice = 'Press "Align views" first.'
        turned = Message("warning", "The views are turned against this volume, so a stroke touches several of its slices.", advice)
        self._become(State.IDLE, welcome if SliceViews.areAligned(volume) else turned)
        self.refresh()

    def _inputIDs(self) -> tuple:
        return tuple(node.GetID() if node is not None else "" for node in (self.volumeNode, self.segmentationNode))

    def _observeInputs(self, volume, segmentation) -> None:
        contents = segmentation.GetSegmentation()
        events = slicer.vtkSegmentation
        painted = [events.SourceRepresentationModified, events.SegmentAdded, events.SegmentRemoved, events.SegmentModified]
        self._observers.add(contents, painted, self._onStrokesChanged)
        self._observers.add(segmentation, slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._onStrokesChanged)
        self._observers.add(volume, slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._onVolumeMoved)
        self._observers.add(volume, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, self._onImageChanged)

    # -- strokes -------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Reads the strokes at the next poll."""
        self._dirtySince = -1e9

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

    def _forgetStrokes(self) -> None:
        """The next reading is a whole one, and no memory is kept for it."""
        self._copies = LayerCopies()
        self._reader = StrokeReader(self._copies)

    def _choices(self) -> Choices:
        table = None if self._run is None else tuple(self._run.classes.ids)
        return Choices(self.parameters.pairs("complete"), self.parameters.pairs("ignored"), tuple(self.parameters.get("unused")), table)

    def _read(self) -> None:
        """Memory first where some is missing, in a thread; then the snapshot here, and its evaluation in a thread."""
        self._dirtySince, self._reading = None, True
        copies = self._copies
        sizes = missingMemory(self.segmentationNode, copies, self.parameters.get("unused"))
        if sizes:
            self._background.submit(lambda: copies.reserve(sizes), lambda _: self._takeSnapshot(), self._onReadFailed)
        else:
            self._takeSnapshot()

    def _takeSnapshot(self) -> None:
        choices, reader = self._choices(), self._reader
        try:
            settings = self.parameters.settings()
            with self.waiting():
                snapshot = takeSnapshot(self.segmentationNode, self.volumeNode, choices.unused, copies=self._copies)
        except SparseSegError as error:
            self._onReadFailed(error)
            return
        quick = self._run is not None and not self._trainWanted
        self._background.submit(lambda: reader.read(snapshot, choices, settings, quick), self._onRead, self._onReadFailed)

    def _readDetails(self) -> None:
        self._detailsAt = None
        reader, settings = self._reader, self.parameters.settings()
        self._background.submit(lambda: reader.details(settings), self._onDetails, self.complain)

    def _onDetails(self, reading: Reading | None) -> None:
        if reading is not None and self.strokes is not None:
            self.strokes, self.summary = reading.strokes, reading.summary
            self.changed()

    def _onRead(self, reading: Reading) -> None:
        self._reading = False
        self.strokes, self.summary, problem = reading.strokes, reading.summary, reading.problem
        self._unsent = union(self._unsent, reading.changed)
        self._detailsAt = None if reading.current else time.monotonic() + DETAILS_AFTER_S
        self.preview.follow(self.segmentationNode)
        if self._hiddenByApply:  # Apply was undone: strokes and preview again
            self._hiddenByApply = False
            self.preview.setVisible(True)
        wantsTraining, self._trainWanted = self._trainWanted, False
        wantsUpdate, self._updateWanted = self._updateWanted, False
        if problem is not None and (wantsTraining or wantsUpdate or self._run is not None):
            self.say(Message("warning", problem.sentence, problem.advice))
        elif problem is None and wantsTraining:
            self._train()
        elif problem is None and self._run is not None and self.strokesAreNew and (wantsUpdate or self.parameters.get("autoUpdate")):
            self._update()
        self.changed()

    def _onReadFailed(self, error: BaseException) -> None:
        wanted = self._trainWanted or self._updateWanted
        self._reading = self._trainWanted = self._updateWanted = False
        self.strokes, self.summary = None, ()
        if self.isApplied and not wanted:
            self.changed()  # Apply has just said so
        else:
            self.complain(error)

    # -- check my annotation -------------------------------------------------------------------------------------------

    @property
    def places(self) -> list[Place]:
        """Where the strokes are probably mistaken, the surest first: a few at a time, and none that the user keeps."""
        if self.isApplied:
            return []
        kept = self.parameters.get("kept")
        return [place for place in self.report.places if not any(_isKept(place, entry) for entry in kept)][:AT_A_TIME]

    def showPlace(self, place: Place) -> None:
        with self.complaining():
            SliceViews.jumpToVoxel(self.volumeNode, place.axis, place.centre_kji)

    def fixPlace(self, place: Place) -> None:
        """Shows it, with the segment that it probably belongs to ready for painting."""
        self.showPlace(place)
        self.selectSegment(place.believed or backgroundSegmentID(self.segmentationNode.GetSegmentation()))

    def keepPlace(self, place: Place) -> None:
        """It is right as it is, and not shown again."""
        self.parameters.setMember("kept", _keptEntry(place), True)
        self.changed()

    def _onPlaces(self, places: list) -> None:
        with self.complaining():
            self.report.places = [Place.from_json(place, self._run.geometry.shape_kji) for place in places]

    # -- training ------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Reads the strokes and trains: from the start, or on from the result."""
        if self.state in (State.IDLE, State.RESULT):
            self._trainWanted = True
            self._readSoon()

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
            self._endRun("you cancelled it")

    def saveModel(self, path: Path) -> None:
        if self._run is None:
            self.say(Message("warning", "There is no model yet.", "Train first."))
            return
        self._run.saveModel(path, lambda saved: self.say(Message("info", f"The model was saved as {saved.name}.")), self.complain)

    def _readSoon(self) -> None:
        if not self._reading:
            self._read()
        elif self._dirtySince is None:
            return  # what is being read is what is there
        self.changed()

    def _train(self) -> None:
        try:
            settings = self.parameters.settings()
            if self._run is not None and self._fits(self._run, self.strokes):
                if self.strokesAreNew:
                    self._send()
                self._run.train(settings)
            else:
                self._dropRun()
                self._run = self._startRun(settings)
        except SparseSegError as error:
            self._dropRun()
            self._become(State.IDLE, None)
            self.complain(error)
            return
        self.report.curve, self.report.progress = [], None
        self._become(State.STARTING, Message("info", "The engine is starting. You can go on painting."))

    def _startRun(self, settings) -> EngineRun:
        launch, strokes = self._launch(), self.strokes
        record = JobRecord(strokes.geometry, strokes.classes, settings, complete_slices=strokes.complete, source_uids=instanceUIDs(self.volumeNode))
        run = self._makeRun(
            volumeArray(self.volumeNode),
            strokes.annotation,
            record,
            self.parameters.get("device"),
            launch.python,
            launch.environment,
            launch.temporaryFolder,
        )
        run.train(settings, self.parameters.get("startFrom"))
        self.report, self._sent, self._unsent, self._nextSlice = Report(), strokes, None, 0
        return run

    def _update(self) -> None:
        if self._fits(self._run, self.strokes):
            self._send()
        elif self.running:
            self._log("The segments have changed: training starts again with the new ones.")
            self._train()
        else:
            self.say(Message("warning", "The segments have changed.", "Press Train to start again with the new ones."))

    def _send(self) -> None:
        self._run.update(self.strokes.annotation, self.strokes.complete, self._unsent)
        self._sent, self._unsent = self.strokes, None

    @staticmethod
    def _fits(run: EngineRun, strokes: Strokes) -> bool:
        return run.classes.ids == strokes.classes.ids and not strokes.geometry.difference_from(run.geometry)

    # -- polling -------------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Called by the host's timer, twenty times a second or so: a stroke passes through several polls."""
        self._background.poll()
        self._loading.poll()
        quiet = self._dirtySince is not None and time.monotonic() - self._dirtySince >= UPDATE_AFTER_S
        if quiet and not self._reading and self.state is not State.EMPTY:
            self._read()
        elif self._detailsAt is not None and self._dirtySince is None and not self._reading and time.monotonic() >= self._detailsAt:
            self._readDetails()
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
            self._log(event.summary)
            self._onDevice(event)
        elif isinstance(event, Device):
            self._onDevice(event)
        elif isinstance(event, PreviewEvent):
            self._loadPreview(event)
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
            self._log(f"{event.why}.")

    def _onProgress(self, event: Progress) -> None:
        if self.state is State.STARTING and event.stage == "training":
            self._become(State.TRAINING, Message("info", "Training. Paint corrections whenever you see something wrong."))
        before = self.report.progress
        if before is None or before.stage != event.stage:
            self._log(f"{event.stage} ({event.seconds:.0f} s)")
        self.report.progress = event
        if event.estimate:
            self.report.estimate = event.estimate
        if event.loss and (not self.report.curve or event.step > self.report.curve[-1][0]):
            self.report.curve.append((float(event.step), sum(event.loss.values()), dict(event.estimate)))

    def _onResult(self, event: Result) -> None:
        self.report.estimate = event.estimate or self.report.estimate
        self.report.nextSlices, self._nextSlice = event.next_slices, 0
        self._onPlaces(event.places)
        self._loadWhole(event.file, event.revision, self._onResultShown)

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
            self._log(log)
        self._become(State.RESULT if self.preview.labels is not None else State.IDLE, message)

    def _loadPreview(self, event: PreviewEvent) -> None:
        if not event.box:
            self._loadWhole(event.file, event.revision, self.changed)
            return

        def load() -> tuple[Box, np.ndarray]:
            box, values = box_from_json(event.box, shape), np.load(event.file)
            if values.shape != shape_of(box):
                raise SparseSegError(f"The engine sent a part of {values.shape} voxels for a box of {shape_of(box)}.", "Repair the installation.")
            return box, values

        def show(outcome: tuple[Box, np.ndarray]) -> None:
            self.preview.showBox(self.segmentationNode, self.volumeNode, *outcome, run.classes, self.parameters.get("locked"))
            self._shown(event.revision)
            self.changed()

        run = self._run
        shape = run.geometry.shape_kji
        self._load(load, show)

    def _loadWhole(self, file: str, revision: int, then: Callable[[], None]) -> None:
        run = self._run
        memory = LabelMemory(run.geometry.shape_kji)

        def load() -> tuple:
            labels = np.load(file)
            memory.array[...] = labels
            return labels, SceneImport.boundingBox(labels)

        def show(outcome: tuple) -> None:
            with self.waiting():
                self.preview.show(self.segmentationNode, self.volumeNode, *outcome, run.classes, self.parameters.get("locked"), memory)
            self._shown(revision)
            then()

        self._load(load, show)

    def _load(self, load: Callable, show: Callable) -> None:
        """One after the other, none left out: a box lies on what the previews before it show."""
        run = self._run

        def done(outcome) -> None:
            if self._run is run and run is not None:
                show(outcome)

        # a preview that was removed before it was read is no loss: a whole one that came later is on its way
        self._loading.submit(load, done, lambda error: None if isinstance(error, FileNotFoundError) else self.complain(error))

    def _shown(self, revision: int) -> None:
        self.preview.revision = revision
        self.preview.setVisible(True)

    def _onResultShown(self) -> None:
        self._become(State.RESULT, Message("info", "The result is there.", "Paint corrections, go on training, or press Apply."))

    # -- apply and discard -----------------------------------------------------------------------------------------------

    def applyTarget(self):
        """The segmentation that Apply writes into: the chosen one, or the one that its strokes were kept for; None for a new one."""
        if self.parameters.get("target") == "new":
            return None
        return self.segmentationNode.GetNodeReference(SceneImport.TARGET_ROLE) or self.segmentationNode

    def apply(self, saveStateForUndo: Callable[[object], None] = lambda node: None, overwrite: Sequence[str] = ()) -> None:
        """saveStateForUndo(node) is called before a segmentation is changed. overwrite: IDs of other segments that lose voxels to the result."""
        if not self.hasResult:
            return
        with self.complaining(), self.waiting():
            target, locked = self.applyTarget(), self.parameters.get("locked")
            if target is None:
                target = SceneImport.makeResultNode(self.segmentationNode, self.volumeNode, self.preview.classes.segments)
                saveStateForUndo, locked = (lambda node: None), ()
            elif target is self.segmentationNode:
                SceneImport.keepStrokes(target, self.volumeNode)
            saveStateForUndo(target)
            replaced = SceneImport.applyResult(
                target, self.volumeNode, self.preview.labels, self.preview.box, self.preview.classes.ids, locked, overwrite
            )
            target.SetDisplayVisibility(True)
            self.preview.setVisible(False)
            self.parameters.setNode("applied", target)
            self._hiddenByApply = target is self.segmentationNode
            undo = " Undo (Ctrl+Z) brings back what was there." if self.parameters.get("target") == "same" else ""
            self.say(Message("info", f"{len(replaced)} segments were applied to {target.GetName()}.{undo}"))

    def goOnCorrecting(self) -> None:
        """After Apply: the kept strokes become the input again; the session, and the place that results go to, stay."""
        target = self.segmentationNode
        kept = target.GetNodeReference(SceneImport.STROKES_ROLE) if target is not None else None
        if kept is None:
            return
        state, sent = self.state, self._sent
        self.parameters.setNode("segmentation", kept)
        self._adoptInputs()
        self._sent = sent
        target.SetDisplayVisibility(False)
        kept.SetDisplayVisibility(True)
        self.preview.setVisible(True)
        self._become(state, Message("info", f"Paint corrections in {kept.GetName()}; Apply writes to {target.GetName()}."))

    def discard(self) -> None:
        """Ends the session: no preview, no overlay, no engine; the strokes stay."""
        self._leave("")
        if self.segmentationNode is not None:
            self.segmentationNode.SetDisplayVisibility(True)
        self.say(Message("info", "The result was discarded."))

    # -- weight map ------------------------------------------------------------------------------------------------------

    def showWeights(self, shown: bool) -> None:
        """The voxel weight map as a coloured overlay in the slice views, or no longer."""
        node = self.parameters.getNode("weights")
        if not shown:
            if node is not None:
                SliceViews.showOverlay(self.volumeNode or node, None, 0.0)
                self.scene.RemoveNode(node)
            return
        if self.strokes is None:
            self.say(Message("warning", "There are no strokes to show weights of.", "Paint first."))
            return
        strokes, settings, run = self.strokes, self.parameters.settings(), self._run
        own = run.folder / WEIGHTS if run is not None and not self.strokesAreNew else None

        def compute() -> np.ndarray:
            if own is not None and own.exists():
                return np.load(own)  # the engine's, in which corrections weigh more
            return build_annotation(strokes.annotation, strokes.classes, settings, strokes.complete).weights

        self._background.submit(compute, self._showWeightMap, self.complain)

    def _showWeightMap(self, weights: np.ndarray) -> None:
        if self.volumeNode is None or weights.shape != volumeGeometry(self.volumeNode).shape_kji:
            return
        with self.waiting():
            node = SceneImport.showVolume(self.volumeNode, self.parameters.getNode("weights"), "Weight map", weights, "ColdToHotRainbow")
            self.parameters.setNode("weights", node)
            SliceViews.showOverlay(self.volumeNode, node, 0.6)
        self.changed()

    # -- life ------------------------------------------------------------------------------------------------------------

    def close(self) -> list:
        """Leaves nothing behind: no process, no observer, no preview, no folder. Returns the threads that finish the clean-up."""
        self._dropRun()
        self.showWeights(False)
        self.preview.remove()
        self._observers.clear()
        self._sceneObservers.clear()
        self._views.stop()
        self._background.close()
        self._loading.close()
        return self._ended

    def _observeScene(self) -> None:
        self._sceneObservers.add(self.scene, slicer.vtkMRMLScene.StartCloseEvent, self._onSceneClose)
        self._sceneObservers.add(self.scene, slicer.vtkMRMLScene.EndCloseEvent, self._onSceneReplaced)
        self._sceneObservers.add(self.scene, slicer.vtkMRMLScene.EndImportEvent, self._onSceneReplaced)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def onNodeRemoved(_caller, _event, node) -> None:
            self._onNodeRemoved(node)

        self._sceneObservers.add(self.scene, slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, onNodeRemoved)

    def _onSceneClose(self, *_) -> None:
        self._endRun("the scene was closed")
        self._observers.clear()
        self._forgetStrokes()
        self.preview.nodeIsGone()
        self.strokes, self._sent, self.report = None, None, Report()
        self.state = State.EMPTY

    def _onSceneReplaced(self, *_) -> None:
        self._views.stop()
        self._views = SliceViews.ViewTracker(self.scene)
        parameters = Parameters(self.scene)
        if parameters.node is not self.parameters.node:
            self.parameters, self.preview = parameters, Preview(parameters)
        if self._inputIDs() != self._adopted:
            self._leave("a scene was loaded")
        if self._run is None:
            self._adoptInputs()

    def _onNodeRemoved(self, node) -> None:
        if self.scene.IsClosing():
            return
        if node is self.volumeNode or node is self.segmentationNode:
            name = "volume" if node is self.volumeNode else "segmentation"
            self._leave(f"the {name} was deleted")
            self.parameters.setNode(name, None)
            self._adoptInputs()
        elif node is self.preview.node and self.preview.labels is not None:
            self.preview.nodeIsGone()
            if self.state is State.RESULT:
                self._become(State.IDLE, Message("info", "The preview was deleted.", "Press Train for a new one."))

    def _onStrokesChanged(self, *_) -> None:
        self._dirtySince = time.monotonic()
        self.changed()

    def _onVolumeMoved(self, *_) -> None:
        if self.preview.node is not None:
            self.preview.node.SetAndObserveTransformNodeID(self.volumeNode.GetTransformNodeID())
        self._onStrokesChanged()

    def _onImageChanged(self, *_) -> None:
        if self._run is None:
            self.refresh()
            return
        try:
            difference = volumeGeometry(self.volumeNode).difference_from(self._run.geometry)
        except SparseSegError as error:
            difference = error.sentence
        if difference:
            self._leave("the volume's image was replaced")
            self.refresh()

    def _leave(self, reason: str) -> None:
        """The inputs are others now: what was made of the old ones goes."""
        self.preview.remove()  # first: a run that ends without a preview leaves no result
        self._endRun(reason)
        self.showWeights(False)
        self.report = Report()

    def _endRun(self, reason: str) -> None:
        """Ends the worker, if there is one. reason: why, for the user; empty: nothing to say."""
        wasRunning = self.running
        self._dropRun()
        self._background.forget()
        self._loading.forget()
        self._reading = self._trainWanted = self._updateWanted = False
        if self.state is not State.EMPTY:
            self.state = State.RESULT if wasRunning and self.preview.labels is not None else State.IDLE
        if wasRunning and reason:
            self.say(Message("info", f"Training was stopped because {reason}."))
        self.changed()

    def _dropRun(self) -> None:
        if self._run is not None:
            self._ended.append(self._run.close())
            self._run = self._sent = None

    # -- words -----------------------------------------------------------------------------------------------------------

    def _become(self, state: State, message: Message | None) -> None:
        self.state = state
        if message is not None:
            self.say(message)
        self.changed()

    def say(self, message: Message) -> None:
        if message != self.message:
            self._log(message.text())
        self.message = message
        self.changed()

    def _log(self, text: str) -> None:
        """Without the names of nodes: in a hospital they may be those of patients, and logs are sent around."""
        for node, word in ((self.volumeNode, "the volume"), (self.segmentationNode, "the segmentation")):
            if node is not None and node.GetName():
                text = text.replace(node.GetName(), word)
        self.log = [*self.log, f"{time.strftime('%H:%M:%S')}  {text}"][-_LOG_LINES:]

    def complain(self, error: BaseException) -> None:
        if isinstance(error, SparseSegError):
            self.say(Message("error", error.sentence, error.advice))
        else:
            self.say(Message("error", f"Unexpected failure: {type(error).__name__}: {error}", "Please report it with the log below."))

    @contextlib.contextmanager
    def complaining(self):
        try:
            yield
        except SparseSegError as error:
            self.complain(error)


def ensureBackground(segmentationNode) -> str:
    """The ID of the background segment, which is made, or tagged, where there was none."""
    segmentation = segmentationNode.GetSegmentation()
    segmentID = backgroundSegmentID(segmentation)
    if not segmentID:
        segmentID = segmentation.AddEmptySegment("", "Background")
        segmentation.GetSegment(segmentID).SetColor(*_BACKGROUND_COLOR)
    segmentation.GetSegment(segmentID).SetTag(BACKGROUND_TAG, "1")
    return segmentID


def _keptEntry(place: Place) -> list:
    return [place.axis, place.index, place.painted, place.believed, box_to_json(place.box)]


def _isKept(place: Place, entry: list) -> bool:
    """Whether it is about the voxels of an entry, of which a later check may see a few more or less."""
    *what, box = entry
    return _keptEntry(place)[:-1] == what and all(first <= n < last for n, (first, last) in zip(place.centre_kji, box, strict=True))


def _sameStrokes(a: Strokes | None, b: Strokes | None) -> bool:
    if a is b:
        return True
    if a is None or b is None:
        return False
    return a.complete == b.complete and a.digest == b.digest and a.classes.ids == b.classes.ids
