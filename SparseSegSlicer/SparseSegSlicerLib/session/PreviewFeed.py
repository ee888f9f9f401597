"""Label maps into the preview: from the engine's files, or from a preview that was saved with the scene. Read in a thread, shown by `poll`. No qt."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sparseseg.contract.box import Box, box_from_json, shape_of
from sparseseg.contract.errors import SparseSegError
from sparseseg.contract.protocol import Preview as PreviewEvent

from ..i18n import tr as _
from ..scene import SceneImport
from ..scene.Preview import Preview
from ..scene.SceneExport import takeSnapshot
from ..scene.StrokeReader import readResult
from ..scene.VolumeMemory import LabelMemory, load
from .Background import Background
from .EngineRun import EngineRun
from .Parameters import Parameters

_ENDED = object()


class PreviewFeed:
    """One after the other, none left out: a box lies on what the previews before it show. isRun(run) tells whether a run is still the one."""

    def __init__(self, preview: Preview, parameters: Parameters, isRun: Callable[[EngineRun], bool], complain: Callable) -> None:
        self._preview, self._parameters, self._isRun, self._complain = preview, parameters, isRun, complain
        self._background = Background("sparseseg previews")
        self._read: deque[tuple[EngineRun, Iterator[None]]] = deque()  # and not yet shown
        self._begun: Iterator[None] | None = None  # of them

    def poll(self, until: float) -> None:
        """Shows what was read; a large box over several polls. until: of time.perf_counter, though something at least."""
        self._background.poll()
        while self._begun or self._read:
            self._goOn()
            if time.perf_counter() > until:
                break

    def settle(self) -> None:
        """Ends what is being shown, so that the labels are those of one preview."""
        while self._begun:
            self._goOn()

    def _goOn(self) -> None:
        showing, self._begun = self._begun, None
        if showing is None:
            run, showing = self._read.popleft()
            if not self._isRun(run):
                return
        if next(showing, _ENDED) is not _ENDED:
            self._begun = showing

    def forget(self) -> None:
        self.settle()
        self._read.clear()
        self._background.forget()

    def close(self) -> None:
        self._background.close()

    def load(self, run: EngineRun, event: PreviewEvent, then: Callable[[], None]) -> None:
        if event.box:
            self._loadBox(run, event, then)
        else:
            self.loadWhole(run, event.file, event.revision, then)

    def _loadBox(self, run: EngineRun, event: PreviewEvent, then: Callable[[], None]) -> None:
        shape = run.geometry.shape_kji

        def read() -> tuple[Box, np.ndarray]:
            box = box_from_json(event.box, shape)
            return box, _loaded(event.file, shape_of(box))

        def show(outcome: tuple[Box, np.ndarray]) -> Iterator[None]:
            yield from self._preview.putBox(*self._inputs(), *outcome, run.classes, self._parameters.get("locked"))
            self._shown(event.revision, then)

        self._submit(run, read, show)

    def loadWhole(self, run: EngineRun, file: str, revision: int, then: Callable[[], None]) -> None:
        shape = run.geometry.shape_kji

        def read() -> tuple:
            labels = _loaded(file, shape)
            return labels, SceneImport.boundingBox(labels), LabelMemory(_loaded(file, shape))

        def show(outcome: tuple) -> Iterator[None]:
            labels, box, memory = outcome
            self._preview.show(*self._inputs(), labels, box, run.classes, self._parameters.get("locked"), memory)
            self._shown(revision, then)
            yield

        self._submit(run, read, show)

    def restore(self, then: Callable[[], None]) -> None:
        """The labels of a preview node that came with the scene."""
        segmentation, volume = self._inputs()
        snapshot = takeSnapshot(self._preview.node, volume, results=True)

        def read() -> tuple:
            labels, classes = readResult(snapshot)
            return labels, SceneImport.boundingBox(labels), classes, LabelMemory.of(labels)

        def show(outcome: tuple) -> None:
            labels, box, classes, memory = outcome
            if self._preview.node is not None and self._preview.labels is None and self._inputs() == (segmentation, volume):
                self._preview.show(segmentation, volume, labels, box, classes, self._parameters.get("locked"), memory)
                then()

        self._background.submit(read, show, self._complain)

    def _inputs(self) -> tuple:
        return self._parameters.getNode("segmentation"), self._parameters.getNode("volume")

    def _shown(self, revision: int, then: Callable[[], None]) -> None:
        self._preview.revision = revision
        self._preview.isNew()
        then()

    def _submit(self, run: EngineRun, read: Callable[[], Any], show: Callable[[Any], Iterator[None]]) -> None:
        def done(outcome: Any) -> None:
            self._read.append((run, show(outcome)))

        # a preview that was removed before it was read is no loss: a whole one that came later is on its way
        self._background.submit(read, done, lambda error: None if isinstance(error, FileNotFoundError) else self._complain(error))


def _loaded(file: str, shape: tuple[int, int, int]) -> np.ndarray:
    """The engine's labels of a box of this shape."""
    labels = load(file)
    if labels.shape != shape:
        raise SparseSegError(
            _("The engine sent a part of {part} voxels for a box of {box}.").format(part=labels.shape, box=shape),
            _("Repair the installation."),
        )
    return labels
