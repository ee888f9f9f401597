"""Compressed DICOM pixels, decoded in a process of its own: JPEG and its kin are read by foreign code in C and C++, which a hostile file may crash,
keep busy for ever, or make ask for any memory. There (`decoding.py`) that is a sentence. One process serves a whole series; it is started when the
first compressed file comes. Each file is handed over as a nameless copy in a private folder.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..contract.child import isolated, patience
from ..contract.folders import PrivateFolder

_COPY, _RESULT = "pixels.dcm", "pixels.npy"  # as in `decoding.py`
_PATIENCE_S, _SLOWEST = 30.0, 500_000  # seconds for any file; pixel bytes a second that the slowest decoder makes, and more
_PROGRAM = Path(__file__).with_name("decoding.py")


class Decoder:
    """The process, and its folder. To be closed."""

    def __init__(self) -> None:
        self._folder: PrivateFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, clean: Any, decoder: str, needed: int) -> np.ndarray | None:
        """The pixels of a dataset that describes them and nothing else, by "pydicom" or "gdcm", mapped until the next call; None where that cannot,
        for whatever reason, within a memory and a time that honest pixels of `needed` bytes do not reach."""
        folder = self._ready()
        clean.save_as(folder / _COPY, enforce_file_format=True)
        (folder / _RESULT).unlink(missing_ok=True)
        if self._ask(f"{decoder} {needed}"):
            with suppress(OSError, ValueError, EOFError):
                found = np.load(folder / _RESULT, mmap_mode="r", allow_pickle=False)
                return found if found.nbytes <= needed else None
        return None

    def _ready(self) -> Path:
        """Its folder; raises OSError where a process cannot be started."""
        if self._folder is None:
            self._folder = PrivateFolder()
        if self._process is None or self._process.poll() is not None:
            self._process = isolated(_PROGRAM, str(self._folder.path), cwd=self._folder.path)
        return self._folder.path

    def _ask(self, line: str) -> bool:
        """Whether it says that it could; a process that is silent for too long, or gone, could not."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with patience(process, _PATIENCE_S + int(line.split()[1]) / _SLOWEST), suppress(OSError):
            process.stdin.write(f"{line}\n".encode("ascii"))
            process.stdin.flush()
            return process.stdout.readline().strip() == b"done"
        return False

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._process.wait()
        if self._folder is not None:
            self._folder.remove()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
