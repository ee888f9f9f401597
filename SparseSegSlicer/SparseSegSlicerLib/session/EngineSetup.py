"""Which Python runs the engine, whether it can, and installing what it lacks; all in child processes, polled. No qt.

PyTorch's own extension installs it, too, but imports it into Slicer afterwards, which locks its libraries and can break Slicer's start-up
when an installation goes wrong. So the tool that it uses, light-the-torch, which picks the build for the graphics driver, is run here in a
child process of the chosen interpreter. numba, which compiles growing, comes along where it fits the numpy that is there: numpy itself is never
touched, and without numba the engine does the same, slower. Slicer ships everything else that the engine needs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from sparseseg.contract.client import worker_environment

from .Background import Background
from .States import Launch

_NOT_FOR_OTHER_PYTHONS = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE")
_CHECK_TIMEOUT_S = 180
_INSTALL_TIMEOUT_S = 3600
TORCH, NUMBA = "torch>=2.6", "numba>=0.60"
SIZE = "about 0.4 GB to download for the CPU build, up to 3 GB with CUDA"


class EngineState(Enum):
    UNKNOWN = "not checked yet"
    CHECKING = "being checked"
    INSTALLING = "being installed"
    MISSING = "PyTorch is not installed"
    BROKEN = "does not work"
    READY = "ready"


class EngineSetup:
    """`python`: an interpreter chosen by the user; empty: Slicer's own. `startupEnvironment`: the environment from before Slicer changed it."""

    def __init__(self, python: str, startupEnvironment: Callable[[], Mapping[str, str]], temporaryFolder: str, run=subprocess.run) -> None:
        self._startupEnvironment, self._temporaryFolder, self._run = startupEnvironment, temporaryFolder, run
        self._background = Background("sparseseg setup")
        self.changed: Callable[[], None] = lambda: None
        self.log = ""
        self.setPython(python)

    def setPython(self, python: str) -> None:
        self.python, self.state, self.detail = python, EngineState.UNKNOWN, ""

    def launch(self) -> Launch:
        """How the worker is started."""
        return Launch(self.command, self._environment(), self._temporaryFolder)

    @property
    def command(self) -> tuple[str, ...]:
        return (self.python or shutil.which("PythonSlicer") or sys.executable,)

    @property
    def where(self) -> str:
        return self.python or "Slicer's own Python"

    def checkOnce(self) -> None:
        """At the first visit; afterwards only when asked, since it loads torch for seconds (in a child process)."""
        if self.state is EngineState.UNKNOWN:
            self.check()

    def check(self) -> None:
        """Runs `sparseseg doctor` in a child process: it loads torch and runs a real convolution on each device."""
        self._begin(EngineState.CHECKING, lambda: self.call("-m", "sparseseg", "doctor", "--json", timeout=_CHECK_TIMEOUT_S), self._onChecked)

    def install(self, repair: bool = False) -> None:
        """Installs PyTorch into `command`'s environment, again from nothing with `repair`; then checks it."""

        def work() -> subprocess.CompletedProcess:
            if repair:
                self.call("-m", "pip", "uninstall", "-y", "torch", timeout=_INSTALL_TIMEOUT_S)
            done = self.call("-m", "pip", "install", "--prefer-binary", "light-the-torch>=0.5", timeout=_INSTALL_TIMEOUT_S)
            if done.returncode == 0:
                done = self.call("-m", "light_the_torch", "install", TORCH, timeout=_INSTALL_TIMEOUT_S)
            if done.returncode == 0:
                self._installNumba()
            return done

        self._begin(EngineState.INSTALLING, work, self._onInstalled)

    def _installNumba(self) -> None:
        """As a wheel that fits the numpy that is there; where there is none, the log says so and the engine works without."""
        numpy = self.call("-c", "import numpy; print(numpy.__version__)", timeout=_CHECK_TIMEOUT_S)
        if numpy.returncode == 0:
            self.call("-m", "pip", "install", "--only-binary", ":all:", NUMBA, f"numpy=={numpy.stdout.strip()}", timeout=_INSTALL_TIMEOUT_S)

    def poll(self) -> None:
        self._background.poll()

    def close(self) -> None:
        self._background.close()

    def _begin(self, state: EngineState, work: Callable, done: Callable) -> None:
        self.state, self.detail = state, ""
        self._background.submit(work, done, lambda error: self._become(EngineState.BROKEN, f"{self.command[0]}: {error}"))
        self.changed()

    def call(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess:
        """Runs the engine's Python to its end; for a thread."""
        environment = worker_environment(self._environment())
        hidden = {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {}
        done = self._run(
            [*self.command, *arguments],
            env=environment,
            capture_output=True,
            timeout=timeout,
            encoding="utf-8",
            errors="replace",
            check=False,
            **hidden,
        )
        self.log += f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}\n"
        return done

    def _environment(self) -> dict[str, str] | None:
        """For another Python, without what would make it load Slicer's libraries; None: as this process."""
        if not self.python:
            return None
        return {name: value for name, value in self._startupEnvironment().items() if name not in _NOT_FOR_OTHER_PYTHONS}

    def _onChecked(self, done: subprocess.CompletedProcess) -> None:
        try:
            found = json.loads(done.stdout)
            self._become(EngineState.READY if found["works"] else EngineState.BROKEN, found["choice"])
        except (ValueError, KeyError, TypeError):
            missing = "No module named 'torch'" in done.stderr
            self._become(EngineState.MISSING if missing else EngineState.BROKEN, "" if missing else _lastLine(done))

    def _onInstalled(self, done: subprocess.CompletedProcess) -> None:
        if done.returncode:
            self._become(EngineState.BROKEN, f"PyTorch could not be installed: {_lastLine(done)}")
        else:
            self.check()

    def _become(self, state: EngineState, detail: str) -> None:
        self.state, self.detail = state, detail
        self.changed()


def _lastLine(done: subprocess.CompletedProcess) -> str:
    lines: Sequence[str] = [line for line in (done.stderr or done.stdout or "").splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit code {done.returncode}"


def freeGigabytes(folder: str) -> float:
    """Free space where packages would be installed."""
    return shutil.disk_usage(folder).free / 2**30
