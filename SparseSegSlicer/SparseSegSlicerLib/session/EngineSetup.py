"""Where the engine works and by which Python, whether it can, and installing what it lacks; all in child processes, polled. No qt.

Slicer's extension PyTorch is not needed: it installs with light-the-torch, a tool that picks the build for the graphics driver, and has no
arguments of its own to add; but it imports torch into Slicer afterwards, which locks its libraries and can break Slicer's start-up when an
installation goes wrong. So the same tool is run here in a child process of the chosen interpreter, and a torch that the extension has installed
is used. numba, which compiles growing, comes along where it fits the numpy that is there: numpy itself is never touched, and without numba the
engine does the same, slower. What DICOM needs lies in a folder of its own, since Slicer has a pydicom that other modules rely on.

On a server nothing is installed from here: what it lacks is told, with the command to run there. DICOM's conversions stay on this computer.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from zlib import crc32

from sparseseg.contract import child
from sparseseg.contract.child import child_options
from sparseseg.contract.errors import ServerError, SparseSegError
from sparseseg.contract.folders import PrivateFolder, remove_abandoned
from sparseseg.contract.server import Server

from ..i18n import tr as _
from .Background import Background
from .States import Launch, Message, Until, commandIn, withoutCommand

_NOT_FOR_OTHER_PYTHONS = ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE")
_CHECK_TIMEOUT_S = 180
_INSTALL_TIMEOUT_S = 3600
TORCH, NUMBA, CHOOSER = "torch>=2.6", "numba>=0.60", "light-the-torch>=0.8"
_BESIDE_TORCH = ("torchvision", "torchaudio")  # each version of them works with one version of torch
# Slicer's launcher puts Slicer's own packages before what PYTHONPATH holds; so a folder that is to come first is named when Python runs
_ENGINE_CODE = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('sparseseg', run_name='__main__', alter_sys=True)"
SIZE = "about 0.4 GB to download for the CPU build, up to 3 GB with CUDA"


class EngineState(Enum):
    UNKNOWN = "not checked yet"
    CHECKING = "being checked"
    INSTALLING = "being installed"
    MISSING = "PyTorch is not installed"
    BROKEN = "does not work"
    READY = "ready"


class EngineSetup:
    """`python`: an interpreter chosen by the user; empty: Slicer's own. `startupEnvironment`: the environment from before Slicer changed it; it
    is asked when an interpreter is chosen, by the thread that does. `packagesFolder`: where what DICOM needs is installed. `server`: the address of
    the one that the engine works on, "" where it is still to be named, None where it works on this computer."""

    def __init__(
        self,
        python: str,
        startupEnvironment: Callable[[], Mapping[str, str]],
        temporaryFolder: str,
        run=child.run,
        packagesFolder: str = "",
        server: str | None = None,
    ) -> None:
        self._startupEnvironment, self._temporaryFolder, self._run = startupEnvironment, temporaryFolder, run
        self._packagesFolder = packagesFolder
        self._background = Background("sparseseg setup")
        self.changed: Callable[[], None] = lambda: None
        self.log = ""
        self.setPython(python)
        self.setServer(server)

    def setPython(self, python: str) -> None:
        self._knowNothing()
        self.python = python
        self._environment = self._cleanEnvironment() if python else None

    def setServer(self, server: str | None) -> None:
        """Nothing connects to it but `check` and a run."""
        self._knowNothing()
        self.server = server
        self._outside = self._cleanEnvironment() if server is not None else None  # the system's ssh fails with Slicer's libraries

    def _knowNothing(self) -> None:
        """A check of what was chosen before that is still under way tells nothing any more, and what comes next does not wait for it."""
        self._background.close()
        self._background = Background("sparseseg setup")
        self.state, self.detail, self.remedy = EngineState.UNKNOWN, "", ""  # remedy: the command that mends a server, to run there
        self.installed: dict[str, str] = {}  # versions of what an installation may touch, as the last check found them

    def launch(self) -> Launch:
        """How the worker is started."""
        if self.server:
            return Launch((), self._outside, self._temporaryFolder, self._address)
        return Launch(self.command, self._environment, self._temporaryFolder)

    @property
    def _address(self) -> str:
        """As the engine takes it: users write user@host, as for ssh."""
        return self.server if self.server is None or "://" in self.server else f"ssh://{self.server}"

    @property
    def command(self) -> tuple[str, ...]:
        return (self.python or child.program("PythonSlicer") or sys.executable,)

    @property
    def where(self) -> str:
        """What is checked, and what an installation is for."""
        return self.server or self.pythonName

    @property
    def pythonName(self) -> str:
        return self.python or _("Slicer's own Python")

    @property
    def packages(self) -> Path:
        """The folder of what DICOM needs, one for each interpreter, since such packages hold compiled code."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return Path(self._packagesFolder) / f"dicom-{version}-{crc32(self.command[0].encode()):08x}"

    @property
    def refusal(self) -> Message | None:
        """Why a run would be in vain, where that is known. A server is asked anew by each run."""
        if self.server == "":
            return Message("error", _("No server is named yet."), _('Write its address in the section "Engine", as user@host.'), Until.ENGINE)
        if self.state is EngineState.MISSING:
            return Message(
                "error",
                _("PyTorch, which the engine needs, is not installed."),
                _('Press "Install PyTorch..." in the module Sparse Segmentation.'),
                Until.ENGINE,
            )
        if self.state is EngineState.INSTALLING:
            return Message("info", _("PyTorch is being installed."), _("Press Segment when it is there; you can paint meanwhile."), Until.ENGINE)
        return None

    def plan(self, repair: bool = False) -> str:
        """What an installation changes, in words."""
        torch = ", ".join(["torch", *(name for name in _BESIDE_TORCH if name in self.installed)])
        said = _("Installs: {torch}, the build that fits the graphics driver, light-the-torch, which chooses it, and what they need.")
        lines = [said.format(torch=torch)]
        if "numba" not in self.installed:
            lines.append(_("Also numba, which makes corrections quick, where it fits the numpy that is there."))
        there = [f"{name} {self.installed[name]}" for name in ("torch", *_BESIDE_TORCH) if name in self.installed]
        if there:
            goes = _("Removes first: {names}.") if repair else _("Replaces, where it is too old: {names}.")
            lines.append(goes.format(names=", ".join(there)))
        return "\n".join([*lines, _("Keeps as they are: numpy and Slicer itself.")])

    def checkOnce(self) -> None:
        """At the first visit; afterwards only when asked, since it loads torch for seconds (in a child process). A server when asked, always."""
        if self.state is EngineState.UNKNOWN and self.server is None:
            self.check()

    def check(self) -> None:
        """Runs `sparseseg doctor` in a child process: it loads torch and runs a real convolution on each device. Nothing where no server is named."""
        if self.server is None:
            self._begin(EngineState.CHECKING, self._doctor, self._onChecked)
        elif self.server:
            address = self._address
            self._begin(EngineState.CHECKING, lambda: self._askServer(address), lambda choice: self._become(EngineState.READY, choice))

    def _doctor(self) -> subprocess.CompletedProcess:
        try:
            return self.call("-m", "sparseseg", "doctor", "--json", timeout=_CHECK_TIMEOUT_S)
        except OSError as error:
            raise OSError(f"{self.command[0]} could not be started ({error.strerror or error})") from error

    def _askServer(self, address: str) -> str:
        """What the engine there would work on; for a thread. Raises ServerError."""
        server = Server.parse(address)
        found = server.examine(self._outside)
        if not found.get("works"):
            sentence = _("The engine on {server} does not work: {reason}").format(server=server.title, reason=found.get("choice"))
            raise ServerError(sentence, _("Install it again with {command}.").format(command=server.install))
        return str(found.get("choice"))

    def install(self, repair: bool = False) -> None:
        """Installs PyTorch into `command`'s environment, again from nothing with `repair`; then checks it."""

        def work() -> subprocess.CompletedProcess:
            beside = list(self._versions(*_BESIDE_TORCH))
            if repair:
                self._pip("uninstall", "-y", "torch", *beside)
            done = self._pip("install", "--prefer-binary", CHOOSER)
            if done.returncode == 0:
                done = self.call("-m", "light_the_torch", "install", TORCH, *beside, timeout=_INSTALL_TIMEOUT_S)
            if done.returncode == 0:
                self._installNumba()
            return done

        self._begin(EngineState.INSTALLING, work, self._onInstalled)

    def _installNumba(self) -> None:
        """As a wheel that fits the numpy that is there; where there is none, the log says so and the engine works without."""
        numpy = self._versions("numpy").get("numpy")
        if numpy:
            self._pip("install", "--only-binary", ":all:", NUMBA, f"numpy=={numpy}")

    def installPackages(self, requirements: Sequence[str]) -> subprocess.CompletedProcess:
        """Into the folder `packages`: what is missing or too old in the interpreter, which itself stays as it is. For a thread."""
        with PrivateFolder(self._temporaryFolder) as folder:
            report = folder / "report.json"
            done = self._pip("install", "--dry-run", "--quiet", "--report", str(report), *requirements)
            if done.returncode:
                return done
            wanted = [each["metadata"] for each in json.loads(report.read_text(encoding="utf-8"))["install"]]
        exactly = [f"{each['name']}=={each['version']}" for each in wanted]
        return self._pip("install", "--no-deps", "--upgrade", "--prefer-binary", "--target", str(self.packages), *exactly) if exactly else done

    def tidy(self) -> None:
        """Removes, in a thread, the working folders that a killed Slicer has left."""
        self._background.submit(lambda: remove_abandoned(self._temporaryFolder), lambda _: None, lambda _: None)

    def poll(self) -> None:
        self._background.poll()

    def close(self) -> None:
        self._background.close()

    def _begin(self, state: EngineState, work: Callable, done: Callable) -> None:
        self.state, self.detail = state, ""
        self._background.submit(work, done, self._onFailed)
        self.changed()

    def _onFailed(self, error: BaseException) -> None:
        if not isinstance(error, SparseSegError):
            error = SparseSegError(f"{error}.")
        self.remedy = commandIn(error.advice)
        self._become(EngineState.BROKEN, f"{error.sentence} {withoutCommand(error.advice, _('the command below'))}".strip())

    def serverFailed(self, address: str, error: SparseSegError) -> None:
        """A run has told what is wrong with its server, or with the way to it; that may be another one than is chosen now."""
        if address == self._address:
            self._onFailed(error)

    def engine(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess:
        """Runs a command of the engine to its end, with what DICOM needs; for a thread."""
        return self.call("-c", _ENGINE_CODE, str(self.packages), *arguments, timeout=timeout)

    def call(self, *arguments: str, timeout: float) -> subprocess.CompletedProcess:
        """Runs the engine's Python to its end; for a thread."""
        done = self._run(
            [*self.command, *arguments],
            capture_output=True,
            timeout=timeout,
            encoding="utf-8",
            errors="replace",
            check=False,
            **child_options(self._environment),
        )
        self.log += f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}\n"
        return done

    def _pip(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.call("-m", "pip", *arguments, timeout=_INSTALL_TIMEOUT_S)

    def _versions(self, *names: str) -> dict[str, str]:
        """Of those packages that are installed; empty, and the log says why, where pip does not tell."""
        done = self._pip("list", "--format", "json")
        found = {each["name"]: each["version"] for each in json.loads(done.stdout)} if done.returncode == 0 else {}
        return {name: found[name] for name in names if name in found}

    def _cleanEnvironment(self) -> dict[str, str]:
        """For another Python: without what would make it load Slicer's libraries."""
        return {name: value for name, value in self._startupEnvironment().items() if name not in _NOT_FOR_OTHER_PYTHONS}

    def _onChecked(self, done: subprocess.CompletedProcess) -> None:
        try:
            found = json.loads(done.stdout)
            self.installed = found["versions"]
            missing = not found["torch"] and "torch" not in self.installed
            state = EngineState.READY if found["works"] else EngineState.MISSING if missing else EngineState.BROKEN
            self._become(state, "" if missing else found["choice"])
        except (ValueError, KeyError, TypeError):
            self._become(EngineState.BROKEN, _reason(done))

    def _onInstalled(self, done: subprocess.CompletedProcess) -> None:
        if done.returncode:
            self._become(EngineState.BROKEN, _("PyTorch could not be installed: {reason}").format(reason=_reason(done)))
        else:
            self.check()

    def _become(self, state: EngineState, detail: str) -> None:
        self.state, self.detail = state, detail
        self.changed()


def lastLine(text: str | None) -> str:
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _reason(done: subprocess.CompletedProcess) -> str:
    return lastLine(done.stderr or done.stdout) or f"exit code {done.returncode}"


def freeGigabytes(folder: str) -> float:
    """Free space where packages would be installed."""
    return shutil.disk_usage(folder).free / 2**30
