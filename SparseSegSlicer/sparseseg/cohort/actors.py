"""Who segments volumes, one at a time each: the same interface for child processes of this computer and for actors of a Ray cluster.

What crosses are plain values. An answer says what became of a volume, or that whoever worked on it is gone; no name of a patient is in a log.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from .. import __version__
from ..contract.errors import OutputError, SparseSegError, TooLargeError, WorkerError
from .patient import Patient
from .web import AccessError


@dataclass(frozen=True)
class Task:
    """name: in the manifest; images: as of a Patient; output: where the result goes, picture: where its picture goes."""

    name: str
    images: tuple[str, ...]
    output: str
    picture: str


@dataclass(frozen=True)
class Answer:
    """What became of a task: `done`, as Segmented.to_json; `refused`, the volume cannot be used; `died`, whoever worked on it did, or was at fault,
    so that it may be tried again; or `stop`: nothing can be done for any volume. All but the first with a sentence and an advice."""

    name: str
    kind: str
    result: dict[str, Any]

    @property
    def sentence(self) -> str:
        return f"{self.result['sentence']} {self.result['advice']}".strip()

    @property
    def error(self) -> SparseSegError:
        return error_of(self.result)


class Actors(Protocol):
    """Some that work. What `wait` and `free` say is new at each call."""

    def free(self) -> list[tuple[str, int]]:
        """Host and process of each that would begin at once, in the order in which `submit` takes them."""
        ...

    def submit(self, task: Task) -> None: ...
    def wait(self, timeout_s: float) -> list[Answer]:
        """The answers that have come, at the latest after so long; none is told twice. Raises SparseSegError where nobody can work."""
        ...

    def close(self) -> None:
        """End them, and what they work on. May be called again."""
        ...


@dataclass(frozen=True)
class Setting:
    """What each works with: model: path and SHA-256 of the file; device, dicom and insecure as of Segmenter; threads: cores each may use, 0: all;
    engine: the driver's version."""

    model: str
    sha256: str
    device: str
    dicom: str
    insecure: bool = False
    threads: int = 0
    engine: str = __version__


class Servant:
    """What lives in a process of its own: a segmenter, and its answers."""

    def __init__(self, setting: Setting) -> None:
        """Raises SparseSegError."""
        from ..network import device
        from .segmenting import Segmenter

        if setting.engine != __version__:
            sentence = f"{socket.gethostname()} has version {__version__} of the engine, this computer {setting.engine}."
            raise WorkerError(sentence, "Install the same everywhere.")
        if setting.threads:
            device.limit_cores(setting.threads)
        self._segmenter = Segmenter(Path(setting.model), setting.device, setting.dicom, setting.insecure)
        if self._segmenter.sha256 != setting.sha256:
            raise WorkerError(f"{setting.model} is another file on {socket.gethostname()}.", "Put the model where all computers see the same file.")

    @staticmethod
    def place() -> tuple[str, int]:
        return socket.gethostname(), os.getpid()

    def answer(self, task: Task) -> tuple[str, dict[str, Any]]:
        """The kind and the content of an Answer; nothing is raised."""
        patient = Patient(task.name, task.images)
        try:
            return "done", self._segmenter.segment(patient, Path(task.output), picture_file=Path(task.picture)).to_json()
        except (TooLargeError, WorkerError) as error:  # another computer, or a later moment, may have more memory
            return "died", error_json(error)
        except (OutputError, AccessError) as error:
            return "stop", error_json(error)
        except SparseSegError as error:
            return "refused", error_json(error)
        except MemoryError:
            return "died", error_json(memory_gone())
        except Exception as error:
            from ..network import device

            if device.is_out_of_memory(error):
                return "died", error_json(memory_gone())
            return "died", error_json(WorkerError(f"It failed unexpectedly ({type(error).__name__}: {error!s:.200}).", "Please report this."))


def memory_gone() -> WorkerError:
    return WorkerError("There was not enough memory for it.", "Use fewer actors, crop the volume, or a computer with more memory.")


def error_json(error: SparseSegError) -> dict[str, Any]:
    return {"code": error.code, "sentence": error.sentence, "advice": error.advice, "exit_code": error.exit_code}


def error_of(data: dict[str, Any]) -> SparseSegError:
    """The opposite of error_json, with its code."""
    error = SparseSegError(data["sentence"], data["advice"])
    error.code, error.exit_code = data["code"], data["exit_code"]
    return error


def spread(setting: Setting, count: int, gpus: int) -> list[Setting]:
    """For each of so many on one computer: its own GPU in turn, or its share of the cores."""
    from ..network import device

    if gpus and setting.device == "auto":
        return [replace(setting, device=f"cuda:{n % gpus}") for n in range(count)]
    return [replace(setting, threads=max(1, device.usable_cores() // count))] * count


def count_of(asked: int, gpus: int, cores: int) -> int:
    """How many work: as many as asked for, else one a GPU, else one a core."""
    return asked or gpus or max(1, cores)
