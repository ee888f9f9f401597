"""What a session is in, in one place: its inputs, what they hold, what was painted, the engine's run, what it said, and what is shown. No qt.

The parts of the Controller act on it; faces ask it. What happens next is decided by the Controller and its parts, not here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from sparseseg.contract.errors import SparseSegError

from ..scene import SliceViews
from ..scene.AppliedResult import AppliedResult, Holding
from ..scene.Preview import Preview
from .Channels import Channels
from .Diary import Diary
from .EngineRun import EngineRun
from .Frames import Frames
from .HintBook import HintBook
from .Parameters import Parameters
from .PreviewFeed import PreviewFeed
from .SavedSession import SavedSession
from .States import RUNNING, Message, Report, State, Until, standing
from .StrokeFeed import StrokeFeed
from .WeightMap import WeightMap


class Session:
    """`changed` is called after anything that a face shows may have changed; `waiting` is entered around the slow main-thread steps; `selectSegment`
    is given the ID of the segment to paint with; `whyNoEngine` tells what keeps the engine from running, if that is known, `engineLacks` is called
    where a run lacked a package, and `serverFailed` with its address where a server, or the way to it, was at fault. onRead(reading) and
    onReadFailed(error) hear of strokes that were read, onOtherChannels(reason) of channels that are others now."""

    def __init__(self, scene, changed: Callable[[], None], onRead: Callable, onReadFailed: Callable, onOtherChannels: Callable) -> None:
        self.scene, self.changed = scene, changed
        self.waiting: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
        self.selectSegment: Callable[[str], None] = lambda segmentID: None
        self.whyNoEngine: Callable[[], Message | None] = lambda: None
        self.engineLacks: Callable[[], None] = lambda: None
        self.serverFailed: Callable[[str, SparseSegError], None] = lambda address, error: None
        self.state, self.report = State.EMPTY, Report()
        self.run: EngineRun | None = None
        self.server = ""  # that the last run works on; empty: on this computer
        self.isApplying = False  # a result is on its way into the segmentation
        self.diary = Diary(lambda: self.changed(), self._names, self._situation, lambda: self.standing(self.state))
        self.say, self.complain, self.complaining = self.diary.say, self.diary.complain, self.diary.complaining
        self.parameters, self.applied = Parameters(scene), AppliedResult()
        self.preview = Preview(self.parameters)
        self.channels = Channels(self.parameters, onOtherChannels)
        self.hints = HintBook(self.parameters, lambda: self.feed.touch())
        self.feed = StrokeFeed(self.parameters, self.applied, self.hints, onRead, onReadFailed)
        self.previews = PreviewFeed(self.preview, self.parameters, lambda run: run is self.run, self.complain)
        self.weightMap = WeightMap(scene, self.parameters, self.feed.background, self.complain)
        self.frames = Frames(self)
        self.saved = SavedSession(scene, self.parameters, self.feed.background)

    # -- inputs --------------------------------------------------------------------------------------------------------

    @property
    def volumeNode(self):
        return self.parameters.getNode("volume")

    @property
    def segmentationNode(self):
        return self.parameters.getNode("segmentation")

    @property
    def holding(self) -> Holding:
        """What the chosen segmentation holds, where its strokes are, and what undo brings back."""
        return self.applied.holding(self.segmentationNode)

    @property
    def isApplied(self) -> bool:
        """Whether the chosen segmentation holds a result, whatever was painted on it since."""
        return bool(self.holding.token)

    # -- strokes -------------------------------------------------------------------------------------------------------

    @property
    def strokes(self):
        return self.feed.strokes

    @property
    def summary(self) -> tuple:
        return self.feed.summary

    @property
    def isSettled(self) -> bool:
        """Whether `strokes` are what is painted."""
        return self.feed.isSettled

    @property
    def strokesAreNew(self) -> bool:
        """Whether strokes differ from what the engine has."""
        return self.feed.isNew

    # -- engine and preview --------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self.state in RUNNING

    @property
    def hasRun(self) -> bool:
        return self.run is not None

    @property
    def hasResult(self) -> bool:
        return self.state is State.RESULT and self.preview.labels is not None

    @property
    def previewIsCurrent(self) -> bool:
        """Whether the preview was made from the strokes as they are."""
        if self.run is None or self.feed.isReading or self.strokesAreNew or self.preview.labels is None:
            return False
        return self.preview.revision >= self.run.revision

    @property
    def eraseMisleads(self) -> bool:
        """Whether there is a preview, from which erasing takes nothing: it takes strokes. From an applied result it takes what it looks like."""
        return self.preview.labels is not None and not self.isApplied

    # -- words ---------------------------------------------------------------------------------------------------------

    @property
    def message(self) -> Message:
        return self.diary.message

    @property
    def log(self) -> list[str]:
        return self.diary.lines

    @property
    def engineLog(self) -> str:
        return self.run.log if self.run else ""

    def standing(self, state: State) -> Message:
        """What is said in a state as long as there is nothing else to say."""
        return standing(state, self.server)

    def become(self, state: State, message: Message | None) -> None:
        self.state = state
        if message is not None:
            self.say(message)
        self.changed()

    def _situation(self, until: Until) -> tuple:
        """What a message belongs to, as it is now."""
        of = {
            Until.STATE: lambda: self.state,
            Until.PAINT: lambda: self.strokes is not None and any(row.voxels for row in self.strokes.slices),
            Until.STROKES: lambda: self.feed.readings,
            Until.APPLIED: lambda: (self.holding.token, self.isApplying),
            Until.ENGINE: lambda: self.whyNoEngine(),
            Until.VIEWS: lambda: self.volumeNode is None or SliceViews.areAligned(self.volumeNode),
        }[until]
        return (self.volumeNode, self.segmentationNode, of())

    def _names(self) -> tuple:
        nodes = ((self.volumeNode, "the volume"), (self.segmentationNode, "the segmentation"))
        return tuple((node.GetName(), word) for node, word in nodes if node is not None)
