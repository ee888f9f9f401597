"""The strokes as they are now: read when they have changed and rest, and what of them the engine has not got yet. No qt.

The main thread copies the layers that changed, large ones over several polls; everything else is done in a thread, and handed over by `poll`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sparseseg.annotation.labels import SegmentSummary
from sparseseg.contract.box import Box, joined
from sparseseg.contract.errors import SparseSegError

from ..scene.AppliedResult import AppliedResult
from ..scene.Layers import LayerCopies
from ..scene.SceneExport import copyAhead, missingMemory, takeSnapshot
from ..scene.StrokeReader import Choices, Reading, StrokeReader, Strokes
from .Background import Background
from .HintBook import HintBook
from .Parameters import Parameters

UPDATE_AFTER_S = 0.1  # of quiet after the last stroke
DETAILS_AFTER_S = 1.0  # what the tables say of a stroke that was sent already


class StrokeFeed:
    """done(reading) and failed(error) are called from `poll`. table: IDs of the segments that the engine knows, None where it has not begun."""

    def __init__(self, parameters: Parameters, applied: AppliedResult, hints: HintBook, done: Callable[[Reading], None], failed: Callable) -> None:
        self._parameters, self._applied, self._hints, self._done, self._failed = parameters, applied, hints, done, failed
        self.background = Background("sparseseg strokes")
        self.table: tuple[str, ...] | None = None
        self.hurried = True  # whether what the tables say can wait
        self._reading = False
        self._goOn: Callable[[], None] | None = None  # with the copy, at the next poll
        self._until = 0.0  # the present poll may copy
        self._dirtySince: float | None = None
        self.readings = 0  # so far
        self.clear()

    def clear(self) -> None:
        """The next reading is a whole one, and no memory is kept for it."""
        self._copies = LayerCopies()
        self._reader = StrokeReader(self._copies)
        self.forget()

    def forget(self) -> None:
        """Nothing is known of the strokes."""
        self.strokes: Strokes | None = None
        self.summary: tuple[SegmentSummary, ...] = ()
        self.sent: Strokes | None = None
        self._unsent: list[Box] = []  # where the strokes differ from those sent
        self._detailsAt: float | None = None

    def stop(self) -> None:
        """What is under way is dropped."""
        self.background.forget()
        self._reading, self._goOn = False, None

    def close(self) -> None:
        self.background.close()

    # -- when to read ----------------------------------------------------------------------------------------------------

    @property
    def isReading(self) -> bool:
        return self._reading

    @property
    def isSettled(self) -> bool:
        """Whether what is known is what is there."""
        return self._dirtySince is None and not self._reading

    def touch(self, *_) -> None:
        """Something was painted just now."""
        self._dirtySince = time.monotonic()

    def refresh(self) -> None:
        """Reads at the next poll."""
        self._dirtySince = -1e9

    def readNow(self, waiting) -> None:
        """Unless what is being read is what is there; a newer stroke is read after it."""
        if not self._reading:
            self._read(waiting)

    def poll(self, waiting, active: bool, until: float) -> None:
        """waiting(): a context for the copy. active: whether there is anything to read. until: of time.perf_counter, copies a plane at least."""
        self._until = until
        self.background.poll()
        if self._goOn is not None and active:
            goOn, self._goOn = self._goOn, None
            goOn()
        now = time.monotonic()
        if active and self._dirtySince is not None and now - self._dirtySince >= UPDATE_AFTER_S and not self._reading:
            self._read(waiting)
        elif self._detailsAt is not None and now >= self._detailsAt and self.isSettled:
            self._readDetails()

    # -- what the engine has ---------------------------------------------------------------------------------------------

    @property
    def isNew(self) -> bool:
        """Whether strokes differ from what the engine has."""
        return self._dirtySince is not None or not _same(self.strokes, self.sent)

    def take(self) -> tuple[Strokes, list[Box]]:
        """The strokes, to be sent, and where they differ from those sent before."""
        unsent, self.sent, self._unsent = self._unsent, self.strokes, []
        return self.strokes, unsent

    def lendCopies(self) -> LayerCopies:
        """What is copied of the layers already."""
        return self._copies.lend()

    # -- reading ---------------------------------------------------------------------------------------------------------

    def _read(self, waiting) -> None:
        """Memory first where some is missing, in a thread; then the snapshot here, and its evaluation in a thread."""
        self._dirtySince, self._reading = None, True
        copies, (segmentation, _) = self._copies, self._inputs()
        sizes = missingMemory(segmentation, copies, self._parameters.get("unused"))
        if sizes:
            self.background.submit(lambda: copies.reserve(sizes), lambda _: self._takeSnapshot(waiting), self._onFailed)
        else:
            self._takeSnapshot(waiting)

    def _inputs(self) -> tuple:
        """Segmentation and volume; what was undone meanwhile has the strokes that belong to it."""
        inputs = self._parameters.getNode("segmentation"), self._parameters.getNode("volume")
        self._applied.follow(*inputs)
        return inputs

    def _takeSnapshot(self, waiting) -> None:
        """Once all layers are copied as they are at one moment."""
        parameters, reader, quick = self._parameters, self._reader, self.hurried and self.table is not None
        unused = tuple(parameters.get("unused"))
        choices = Choices(
            parameters.pairs("complete"), parameters.pairs("ignored"), unused, self.table, self._hints.read(parameters.getNode("volume"))
        )
        try:
            settings, inputs = parameters.settings(), self._inputs()
            if not copyAhead(*inputs, self._copies, self._until, unused):
                self._goOn = lambda: self._takeSnapshot(waiting)
                return
            with waiting():
                snapshot = takeSnapshot(*inputs, unused, copies=self._copies)
        except SparseSegError as error:
            self._onFailed(error)
            return
        self.background.submit(lambda: reader.read(snapshot, choices, settings, quick), self._onRead, self._onFailed)

    def _onRead(self, reading: Reading) -> None:
        self._reading = False
        self.readings += 1
        self.strokes, self.summary = reading.strokes, reading.summary
        if reading.changed is not None:
            self._unsent = joined([*self._unsent, reading.changed])
        self._detailsAt = None if reading.current else time.monotonic() + DETAILS_AFTER_S
        self._done(reading)

    def _onFailed(self, error: BaseException) -> None:
        self._reading = False
        self.strokes, self.summary = None, ()
        self._failed(error)

    def _readDetails(self) -> None:
        self._detailsAt = None
        reader, settings = self._reader, self._parameters.settings()
        self.background.submit(lambda: reader.details(settings), self._onDetails, self._failed)

    def _onDetails(self, reading: Reading | None) -> None:
        if reading is not None and self.strokes is not None:
            self.strokes, self.summary = reading.strokes, reading.summary


def _same(a: Strokes | None, b: Strokes | None) -> bool:
    if a is None or b is None:
        return a is b
    return a is b or (a.complete == b.complete and a.digest == b.digest and a.classes.ids == b.classes.ids)
