"""The engine's side of a session: begins its runs, sends strokes, takes its events, ends it. No qt.

Whatever goes wrong ends in one sentence and one piece of advice; the preview that is there stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sparseseg.contract.errors import PackageError, ServerError, SparseSegError
from sparseseg.contract.hints import Hints
from sparseseg.contract.job import JobRecord
from sparseseg.contract.place import Place
from sparseseg.contract.protocol import Check, Device, Error, Preview, Progress, Ready, Result, Warning
from sparseseg.contract.server import Server

from ..i18n import duration
from ..i18n import tr as _
from ..scene.ChannelVolumes import imageOf
from ..scene.DicomFiles import instanceUIDs
from .EngineRun import EngineRun
from .Session import Session
from .States import Launch, Message, Report, State, Until, withoutCommand


class Training:
    """launch() tells how the engine is started, makeRun makes a run of it."""

    def __init__(self, session: Session, launch: Callable[[], Launch], makeRun=EngineRun) -> None:
        self._session, self._launch, self._makeRun = session, launch, makeRun
        self._trainWanted = self._updateWanted = False  # as soon as the strokes are read
        self._ended: list = []  # clean-up threads
        self._launched: Launch | None = None  # how the run was started
        self._hints: Hints | None = None  # those of the run
        self._hintsTold: Hints | None = None  # those that the user was last told of

    # -- what the user asks for ----------------------------------------------------------------------------------------

    def train(self) -> None:
        """Reads the strokes and trains: from the start, or on from the result, also one that was saved with the scene."""
        self._trainWanted = True
        self._readSoon()

    def update(self) -> None:
        """Sends the strokes as they are now."""
        if self._session.hasRun:
            self._updateWanted = True
            self._readSoon()

    def finish(self) -> None:
        """The result comes now, from what was learned so far."""
        if self._session.state is State.TRAINING:
            self._session.run.finish()
            self._session.become(State.FINISHING, self._session.standing(State.FINISHING))

    def saveModel(self, path: Path) -> None:
        session = self._session
        if session.run is None:
            session.say(Message("warning", _("There is no model yet."), _("Press Segment first.")))
            return
        told = lambda saved: session.say(Message("info", _("The model was saved as {name}.").format(name=saved.name)))  # noqa: E731
        session.run.saveModel(path, told, session.complain)

    def _readSoon(self) -> None:
        feed = self._session.feed
        if feed.isSettled or not feed.isReading:
            feed.readNow(self._session.waiting)
        self._session.changed()

    # -- strokes -------------------------------------------------------------------------------------------------------

    def onStrokes(self, problem) -> None:
        """They were read: what was asked for begins, unless a problem (sentence and advice) holds it back."""
        session = self._session
        if problem is not None and not session.isSettled:  # what was painted since may have mended it, and is read next
            return
        wantsTraining, wantsUpdate = self._trainWanted, self._updateWanted
        self.forget()
        self._tellHints()
        if problem is not None and (wantsTraining or wantsUpdate or session.hasRun):
            session.say(Message("warning", problem.sentence, problem.advice, Until.STROKES))
        elif problem is None and wantsTraining:
            self._train()
        elif problem is None and session.hasRun and session.strokesAreNew and (wantsUpdate or session.parameters.get("autoUpdate")):
            self._update()

    def forget(self) -> None:
        """Nothing is asked for."""
        self._trainWanted = self._updateWanted = False

    def _train(self) -> None:
        session = self._session
        try:
            settings = session.parameters.settings()
            if session.hasRun and self._fits() and session.strokes.hinted.hints == self._hints and self._launch() == self._launched:
                if session.strokesAreNew:
                    self._send()
                session.run.train(settings)
            else:
                self.drop()
                self._startRun(settings)
        except SparseSegError as error:
            self.drop()
            session.become(State.IDLE, None)
            session.complain(error)
            return
        session.report.curve, session.report.progress = [], None
        session.become(State.STARTING, session.standing(State.STARTING))

    def _startRun(self, settings) -> None:
        session, launch = self._session, self._launch()
        strokes, model, parameters = session.strokes, session.saved.model(), session.parameters
        others = session.channels.nodes
        record = JobRecord(
            strokes.geometry,
            strokes.classes,
            settings,
            complete_slices=strokes.complete,
            source_uids=instanceUIDs(session.volumeNode),
            hints=strokes.hinted.hints,
            channels=tuple(node.GetName() for node in (session.volumeNode, *others)) if others else (),
        )
        run = self._makeRun(
            imageOf(session.volumeNode, others),
            strokes.annotation,
            record,
            parameters.get("device"),
            launch.python,
            launch.environment,
            launch.temporaryFolder,
            model=model,
            server=launch.server,
        )
        run.train(settings, "" if model else parameters.get("startFrom"))
        parameters.set("settings", parameters.get("settings"))  # these belong to the segmentation now
        session.run, session.feed.table = run, tuple(run.classes.ids)
        session.server = Server.parse(launch.server).title if launch.server else ""
        self._launched = launch
        self._hints = self._hintsTold = strokes.hinted.hints
        session.report = Report()
        session.frames.begin()
        session.feed.take()

    def _update(self) -> None:
        session = self._session
        if self._fits():
            self._send()
        elif session.running:
            session.diary.log(_("The segments have changed: training starts again with the new ones."))
            self._train()
        else:
            session.say(Message("warning", _("The segments have changed."), _("Press Segment to start again with the new ones."), Until.STROKES))

    def _send(self) -> None:
        strokes, boxes = self._session.feed.take()
        self._session.run.update(strokes.annotation, strokes.complete, boxes)

    def _tellHints(self) -> None:
        """The engine takes hints at the beginning of a run alone."""
        session = self._session
        hints = None if session.strokes is None else session.strokes.hinted.hints
        if session.hasRun and hints != self._hintsTold:
            self._hintsTold = hints
            if hints != self._hints:
                advice = _("Press Stop, then Segment.") if session.running else _("Press Segment.")
                session.say(Message("info", _("The hints have changed: a new training takes them."), advice))

    def _fits(self) -> bool:
        run, strokes = self._session.run, self._session.strokes
        return run.classes.ids == strokes.classes.ids and not strokes.geometry.difference_from(run.geometry)

    # -- events --------------------------------------------------------------------------------------------------------

    @property
    def isUrgent(self) -> bool:
        """Whether what the tables say of the strokes has to wait no longer than the strokes."""
        return self._trainWanted

    def poll(self) -> None:
        session, run = self._session, self._session.run
        self._ended = [thread for thread in self._ended if thread.is_alive()]
        if run is None:
            return
        try:
            events = run.poll()
        except SparseSegError as error:
            self._fail(Message("error", error.sentence, error.advice))
            return
        for event in events:
            if session.run is run:
                self.onEvent(event)
        if events:
            session.changed()

    def onEvent(self, event) -> None:
        session = self._session
        if isinstance(event, Progress):
            self._onProgress(event)
        elif isinstance(event, Ready) and event.id == "open":
            session.diary.log(event.summary)
            self._onDevice(event)
        elif isinstance(event, Device):
            self._onDevice(event)
        elif isinstance(event, Preview):
            session.previews.load(session.run, event, session.changed)
        elif isinstance(event, Result):
            self._onResult(event)
        elif isinstance(event, Check):
            self._onPlaces(event.places)
        elif isinstance(event, Warning):
            session.report.onCpu = session.report.onCpu or event.code == "device"
            isBack = event.code == ServerError.code and not event.advice
            session.say(Message("info" if isBack else "warning", event.sentence, event.advice))
        elif isinstance(event, Error):
            self._onError(event)

    def _onDevice(self, event: Ready | Device) -> None:
        """What the engine works on: told once it is chosen, and again where it moves."""
        if event.device:
            report = self._session.report
            report.why = event.why
            report.onCpu = event.device.upper().startswith("CPU")
            self._session.diary.log(f"{event.why}.")

    def _onProgress(self, event: Progress) -> None:
        session, report = self._session, self._session.report
        if session.state is State.STARTING and event.stage == "training":
            session.become(State.TRAINING, session.standing(State.TRAINING))
        before = report.progress
        if before is None or before.stage != event.stage:
            session.diary.log(f"{event.stage} ({duration(event.seconds)})")
        report.progress = event
        if event.estimate:
            report.estimate = event.estimate
        if event.loss and (not report.curve or event.step > report.curve[-1][0]):
            report.curve.append((float(event.step), sum(event.loss.values()), dict(event.estimate)))

    def _onResult(self, event: Result) -> None:
        session, run = self._session, self._session.run
        session.report.estimate = event.estimate or session.report.estimate
        session.report.nextSlices = event.next_slices
        self._onPlaces(event.places)
        session.saved.keep(session.report, event.model, lambda: run is session.run)
        session.previews.loadWhole(run, event.file, event.revision, self._onResultShown)

    def _onResultShown(self) -> None:
        self._session.become(State.RESULT, self._session.standing(State.RESULT))

    def _onPlaces(self, places: list) -> None:
        with self._session.complaining():
            self._session.report.places = [Place.from_json(place, self._session.run.geometry.shape_kji) for place in places]

    def _onError(self, event: Error) -> None:
        message = Message("error", event.sentence, event.advice)
        if event.code == ServerError.code:
            message = replace(message, advice=withoutCommand(event.advice, _('the command in the section "Engine"')))
            self._session.serverFailed(self._launched.server, ServerError(event.sentence, event.advice))
        if event.code == "cancelled":
            return
        if event.code == PackageError.code:
            self._session.engineLacks()
        if event.fatal or not event.id.startswith("update"):
            self._fail(message)
        else:
            self._session.say(message)

    def _fail(self, message: Message) -> None:
        """The run cannot go on; the preview that is there stays and can be applied."""
        session, log = self._session, self._session.engineLog
        self.drop()
        if log:
            session.diary.log(log)
        session.become(State.RESULT if session.preview.labels is not None else State.IDLE, message)

    # -- ends ----------------------------------------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """Ends the worker, if there is one. reason: why, for the user; empty: nothing to say."""
        session = self._session
        wasRunning = session.running
        self.drop()
        session.feed.stop()
        session.previews.forget()
        self.forget()
        if session.state is not State.EMPTY:
            session.state = State.RESULT if wasRunning and session.preview.labels is not None else State.IDLE
        if wasRunning and reason:
            session.say(Message("info", _("Training was stopped because {reason}.").format(reason=reason)))
        session.changed()

    def drop(self) -> None:
        session = self._session
        if session.run is not None:
            self._ended.append(session.run.close())
            session.run = session.feed.sent = session.feed.table = None

    @property
    def ended(self) -> list:
        """Threads that clean up after runs."""
        return self._ended
