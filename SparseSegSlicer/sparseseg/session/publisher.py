"""What leaves a session: previews (whole or a box), results, report. It remembers what the user saw."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..annotation.labels import Annotation
from ..contract.belief import Belief
from ..contract.box import Box, planes, shape_of
from ..contract.errors import OutputError
from ..contract.job import DENSE, REPORT, UNCERTAINTY, WEIGHTS, Job
from ..contract.scratch import Zeros, put, read_ahead
from ..prior.together import ahead
from .host import Host

_WHOLE_PREVIEWS_KEPT = 2
_CORNER = (slice(0, 1), slice(0, 1), slice(0, 1))
_MOST_FILES = 200  # of previews; then the next one is whole again, and old ones go


class Publisher:
    """Every file is finished when the host is told of it."""

    def __init__(self, job: Job, host: Host, zeros: Zeros = np.zeros) -> None:
        self._job, self._host, self._zeros = job, host, zeros
        self._numbers = itertools.count(1)
        self._files: list[tuple[Path, bool]] = []  # previews, and whether each is of the whole volume
        self.is_behind = False  # whether the host lacks something of what is shown
        self.told = 0  # previews so far
        self.shown: np.ndarray | None = None  # (K, J, I) uint8, what the user sees: all previews in turn, or the last result

    def show(self, labels: np.ndarray, source: str, step: int, box: Box | None = None) -> None:
        """A preview of the whole volume, or of a box, uint8 of its shape; the array may be changed afterwards."""
        if box is not None:
            if self.shown is None:
                raise ValueError("a box is shown on a preview of the whole volume")
            read_ahead(box, self.shown)
        if box is not None and (self.is_behind or len(self._files) > _MOST_FILES):
            labels, box = self._with(labels, box), None
        try:
            file = self._write(labels)
        except OutputError:  # a full disk: room is made where there is any, for all in one
            self.is_behind = True
            labels, box = labels if box is None else self._with(labels, box), None
            self._remember(labels)
            self._drop(len(self._files))
            file = self._write(labels)
        self._files.append((file, box is None))
        if box is None:
            self.is_behind = False
            self._remember(labels)
            self._drop_old()
        else:
            assert self.shown is not None
            self.shown[box] = labels
        self._tell(file, source, step, box)

    def spare(self) -> Path:
        """A preview that is written before it is known to be needed, for when nothing can be written later: one voxel as it is shown. Raises
        OutputError."""
        return self._write(np.zeros(shape_of(_CORNER), np.uint8) if self.shown is None else self.shown[_CORNER])

    def show_spare(self, spare: Path, step: int) -> None:
        self._files.append((spare, False))
        self._tell(spare, "growing" if self.shown is None else "prior", step, _CORNER)

    def drop_spare(self, spare: Path) -> None:
        """Delete one that was not shown."""
        if all(file != spare for file, _ in self._files):
            with contextlib.suppress(OSError):
                spare.unlink()

    def _write(self, labels: np.ndarray) -> Path:
        return self._job.save_array(f"preview-{self._job.record.revision:04d}-{next(self._numbers):04d}.npy", labels, lasting=False)

    def _tell(self, file: Path, source: str, step: int, box: Box | None) -> None:
        self.told += 1
        self._host.preview(file, source, step, self._job.record.revision, box)

    def _with(self, labels: np.ndarray, box: Box) -> np.ndarray:
        assert self.shown is not None
        self.shown[box] = labels
        return self.shown

    def result(self, dense: np.ndarray, uncertainty: np.ndarray) -> tuple[Path, Path]:
        """The result's two arrays, (K, J, I) uint8: paths of dense and uncertainty."""
        uncertain = self._job.path(UNCERTAINTY)
        result = self._job.save_array(DENSE, dense, first=lambda: self._job.save_array(UNCERTAINTY, uncertainty))  # where it is new, all else is
        self._remember(dense)
        return result, uncertain

    def inputs(self, annotation: Annotation, prior: Belief) -> None:
        """The voxel weight map, float32."""
        self._job.save_planes(WEIGHTS, annotation.labels.shape, np.float32, _planes_of_weights(annotation, prior))

    def voice(self, name: str, labels: Iterator[np.ndarray] | np.ndarray, shape_kji: tuple[int, int, int]) -> None:
        """What one voice alone says, (K, J, I) uint8, or its planes (J, I) in turn."""
        self._job.save_planes(name, shape_kji, np.uint8, iter(labels))

    def report(self, data: dict[str, Any]) -> Path:
        self._job.save_json(REPORT, data)
        return self._job.path(REPORT)

    def _remember(self, labels: np.ndarray) -> None:
        if self.shown is None:
            self.shown = self._zeros(labels.shape, np.uint8)
        put(self.shown, labels)

    def _drop_old(self) -> None:
        """All previews before the last whole ones: a host that has not read them needs them no more."""
        wholes = [n for n, (_, is_whole) in enumerate(self._files) if is_whole]
        first = wholes[-_WHOLE_PREVIEWS_KEPT] if len(wholes) >= _WHOLE_PREVIEWS_KEPT else 0
        self._drop(first)

    def _drop(self, count: int) -> None:
        for file, _ in self._files[:count]:
            with contextlib.suppress(OSError):  # the next session deletes it
                file.unlink()
        self._files = self._files[count:]


def _planes_of_weights(annotation: Annotation, prior: Belief) -> Iterator[np.ndarray]:
    def weights(box: Box) -> np.ndarray:
        return annotation.weights_in(box, prior.confidence[box])[0]

    return ahead(weights, planes(annotation.labels.shape), lambda: None)  # who writes them looks up
