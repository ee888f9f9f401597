"""What can go wrong, in the user's words: a code for programs, one sentence on what happened, one on what to do."""

from __future__ import annotations

_MOST = 900  # characters of a sentence: what is quoted from a file may have any number


class SparseSegError(Exception):
    """A refusal or failure that a person can act on.

    `sentence` says what happened, `advice` what to do about it; the middle of a very long one is left out. `code` is stable and documented in
    docs/protocol.md.
    """

    code = "internal"
    exit_code = 1

    def __init__(self, sentence: str, advice: str = "") -> None:
        self.sentence, self.advice = _shortened(sentence), _shortened(advice)
        super().__init__(f"{self.sentence} {self.advice}".strip())


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[: _MOST // 2]} ... {text[-_MOST // 2 :]}"


class InputError(SparseSegError, ValueError):
    """An image, annotation, model or option that cannot be used; nothing was written."""

    code = "input"
    exit_code = 2


class TooLargeError(InputError):
    """A file that needs more memory or time than there is, or than its kind can need."""


class AnnotationError(InputError):
    """The annotation cannot be trained on: nothing labelled, no background, an empty segment."""

    code = "annotation"


class JobError(InputError):
    """A job folder that is damaged, foreign, of another version, or in use."""

    code = "job"


class ModelError(InputError):
    """A model file that is damaged, foreign, unsafe, or made for other data."""

    code = "model"


class OutputError(SparseSegError, OSError):
    """A result that could not be written: no such folder, no permission, no space."""

    code = "output"
    exit_code = 2


class DeviceError(SparseSegError, RuntimeError):
    """The requested device is missing, does not work, or ran out of memory with nothing left to try."""

    code = "device"
    exit_code = 3


class PackageError(SparseSegError, ImportError):
    """A package that the engine cannot do without is not installed, or does not load."""

    code = "package"
    exit_code = 3


class WorkerError(SparseSegError, RuntimeError):
    """The worker process ended, could not start, or broke the protocol."""

    code = "worker"
    exit_code = 4


class StuckError(WorkerError):
    """A step of the worker did not end; the process ended itself, and its checkpoint is on disk."""

    code = "stuck"


class ServerError(WorkerError):
    """Another computer, an engine's or an archive, cannot be reached or used, or was lost."""

    code = "connection"


class TrainingError(SparseSegError, RuntimeError):
    """Training could not go on (for example the loss stayed not-a-number)."""

    code = "training"


class Cancelled(SparseSegError):
    """The user asked to stop; not a fault."""

    code = "cancelled"
    exit_code = 130

    def __init__(self) -> None:
        super().__init__("Cancelled.", "The annotation and earlier results are kept.")
