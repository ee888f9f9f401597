"""One trained model kept warm, and volumes segmented with it, one after the other: no job, no annotation, no other voice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import io
from ..contract import memory
from ..contract.channels import stack
from ..contract.classes import ClassTable
from ..contract.errors import InputError
from ..contract.folders import write_whole, writing
from ..contract.frames import digest
from ..network import checkpoint, device
from ..network.applied import Applied
from ..session.alone import alone
from ..session.session import check_channels
from .dicomweb import at_hand
from .patient import Patient
from .pictures import picture
from .trouble import estimates

Tick = Callable[[], None]


@dataclass(frozen=True)
class Segmented:
    """What became of one volume. output: the file, `sha256` and `bytes_written` of its content; voxels and estimate (the Dice to expect): by segment
    ID; shape_kji; seconds: of `read`, `network` and `write`; bytes_read: of all image files; remarks: what the user should know, in sentences."""

    output: str
    sha256: str
    bytes_written: int
    bytes_read: int
    shape_kji: tuple[int, int, int]
    voxels: dict[str, int]
    estimate: dict[str, float]
    seconds: dict[str, float]
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for another process."""
        return {**asdict(self), "shape_kji": list(self.shape_kji), "remarks": list(self.remarks)}


class Segmenter:
    """A model on a device. `sha256`: of the model's file; `written`: the segments of its results."""

    def __init__(self, model: Path, requested: str = "auto", dicom: str = "seg", insecure: bool = False, only: Sequence[str] = ()) -> None:
        """requested: a device, as device.choose; dicom: what a .dcm file becomes; insecure: archives may be asked over http; only: names of the
        segments that are written, where that is not all. Raises ModelError, DeviceError, InputError for a name that the model does not know."""
        self.sha256 = sha256_of(model)
        self._applied = Applied(checkpoint.load(model), device.choose(requested), self._warn)
        self._dicom, self._insecure = dicom, insecure
        self.written, self._code = _written(self._applied.model.classes, only)
        self._remarks: list[str] = []

    @property
    def device(self) -> str:
        """In words."""
        return self._applied.compute.name

    def _warn(self, _code: str, sentence: str, _advice: str) -> None:
        self._remarks.append(sentence)

    def segment(self, patient: Patient, output: Path, tick: Tick = lambda: None, picture_file: Path | None = None) -> Segmented:
        """Segment one volume; the result is in `output` whole (its ending says what it is), or not at all. picture_file: an SVG of it, too. tick is
        called several times a second where that can be, and may raise.

        Raises InputError for a volume that cannot be used, with its sentence, ModelError where it does not fit the model, OutputError.
        """
        self._remarks = []
        seconds: dict[str, float] = {}
        with ExitStack() as held:
            with _timed(seconds, "read"):
                files = held.enter_context(at_hand(patient.images, self._insecure, tick))  # until a result that refers to them is written
                image, channels, bytes_read = self._read(files, output)
            shape = image.geometry.shape_kji
            memory.check(patient.name, memory.volume_bytes(shape, 1, 1, 1), "be segmented")  # labels, uncertainty, and one of them turned
            with _timed(seconds, "network"):
                seen = self._applied.believe(channels, image.geometry, tick)
                labels, uncertainty = alone(seen, tick)
                found = estimates(self._applied.model, labels, uncertainty)
            with _timed(seconds, "write"):
                self._write(output, image, labels, uncertainty)
                if picture_file is not None:
                    self._draw(picture_file, image, labels, uncertainty)
        ids = self._applied.model.classes.ids
        voxels = dict(zip(ids, np.bincount(labels.reshape(-1), minlength=len(ids) + 1).tolist()[1:], strict=True))
        return Segmented(str(output), sha256_of(output), output.stat().st_size, bytes_read, shape, voxels, found, seconds, tuple(self._remarks))

    def _read(self, files: Sequence[Path], output: Path) -> tuple[io.Image, np.ndarray, int]:
        """The image, all channels (C, K, J, I), and bytes of their files."""
        image = io.read_volume(files[0])
        if io.suffix(output) == ".dcm":
            io.check_possible(self._dicom, image.series, files[0])
        others = [io.read_channel(file, image) for file in files[1:]]
        self._remarks += [remark for each in (image, *others) for remark in each.remarks]
        array = stack([each.array for each in (image, *others)])
        channels = array if array.ndim == 4 else array[None]
        check_channels(channels)
        return image, channels, sum(_bytes_of(file, each.series) for file, each in zip(files, (image, *others), strict=True))

    def _write(self, output: Path, image: io.Image, labels: np.ndarray, uncertainty: np.ndarray) -> None:
        labels = self._code[labels]
        if io.suffix(output) != ".dcm":
            io.write_segmentation(output, labels, image.geometry, self.written, like=image)
            return
        assert image.series is not None  # checked when it was read
        self._remarks += io.write_dicom(output, self._dicom, io.Dense(labels, self.written, uncertainty), image.series)

    def _draw(self, file: Path, image: io.Image, labels: np.ndarray, uncertainty: np.ndarray) -> None:
        drawn = picture(image.array, labels, uncertainty, image.geometry, self._applied.model.classes).encode("utf-8")
        with writing(file.parent):
            write_whole(file, lambda opened: opened.write(drawn), lasting=False)


def _written(classes: ClassTable, only: Sequence[str]) -> tuple[ClassTable, np.ndarray]:
    """The table of those segments, in the model's order, and (256,) uint8: the value that each of the model's values is written as."""
    if unknown := [name for name in only if name not in classes.names]:
        raise InputError(f"The model has no segment called {unknown[0]!r:.80}.", f"It has {', '.join(classes.names)}.")
    chosen = [c for c, name in enumerate(classes.names, 1) if name in only or not only]
    code = np.zeros(256, np.uint8)
    code[chosen] = range(1, len(chosen) + 1)
    return ClassTable(tuple(classes.segments[c - 1] for c in chosen), classes.background), code


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal digits. Raises OSError."""
    with open(path, "rb") as file:
        return digest(file)


def _bytes_of(file: Path, series: io.Series | None) -> int:
    files = {frame.file for frame in series.frames} if series else {file}
    return sum(each.stat().st_size for each in files)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[part] = round(time.monotonic() - start, 3)
