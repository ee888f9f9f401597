"""Child processes: where their code comes from, and how they end.

No code comes from the folder that a program is started in, which is often the patient's: a child runs in this package's folder, does not look for
modules where it runs, and relative folders are taken out of PYTHONPATH. Its full paths stay, as does the user's site-packages: whoever sets these
means them, and Slicer's Python does not start without (SECURITY.md).

A process is ended by its handle, never by a number that may have been given to another one since. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parents[1]
_LOOK_S = 0.05
# a program that is busy for ever with a hostile file does not see that its stdin has ended with its parent (Windows does not tell who that is by now)
_WITH_ITS_PARENT = """
import os, runpy, sys, threading, time

def watch(parent):
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)

threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def child_options(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """For subprocess.run and Popen, of each child that runs Python. environment: as of worker_environment."""
    return {"env": worker_environment(environment), "cwd": _PACKAGE, **no_window()}


def worker_environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The child finds this package wherever it lies, and no module in the folder that it is started in; it speaks UTF-8, and its idle threads sleep
    instead of spinning on the user's cores. given: what to start from, this process's own where None."""
    environment = dict(os.environ if given is None else given)
    before = environment.get("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join([str(_PACKAGE.parent), *(path for path in before if Path(path).is_absolute())])
    environment["PYTHONSAFEPATH"] = "1"  # as -P, for its own children too; a Python too old for the engine says so itself, where -P would confuse it
    environment["PYTHONUTF8"] = "1"
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment


def no_window() -> dict[str, int]:
    """For each child process: on Windows a console program opens a window otherwise, if only for a moment."""
    if sys.platform == "win32":  # pragma: no cover
        return {"creationflags": subprocess.CREATE_NO_WINDOW}
    return {}


def _own_group() -> dict[str, Any]:
    """A process group of its own, so that Ctrl-C reaches only us, and the tree can be ended as one."""
    if sys.platform == "win32":  # pragma: no cover
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | no_window()["creationflags"]}
    return {"start_new_session": True}


def program(name: str) -> str | None:
    """The full path of a program on PATH; never one in the folder that this one runs in, where Windows and relative entries of PATH look."""
    if Path(name).name != name:
        return str(Path(name).absolute())
    folders = [folder for folder in map(Path, os.get_exec_path()) if folder.is_absolute()]
    return next((found for folder in folders if (found := shutil.which(folder / name))), None)


def run(command: Sequence[str], timeout: float, **options: Any) -> subprocess.CompletedProcess[Any]:
    """As subprocess.run with `capture_output`, but what counts towards `timeout` is the time that this process was awake: a computer that slept in
    the meantime has waited for nothing. Raises OSError, TimeoutExpired."""
    options = {name: value for name, value in options.items() if name not in ("capture_output", "check")}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        for _ in range(max(1, int(timeout))):
            with contextlib.suppress(subprocess.TimeoutExpired):
                out, err = process.communicate(timeout=1.0)
                return subprocess.CompletedProcess(command, process.returncode, out, err)
        process.kill()
    raise subprocess.TimeoutExpired(command, timeout)


def isolated(program: Path, *arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    """A program of this package in one file, which takes nothing from the environment, with pipes for stdin and stdout, and ends with this
    process. Its first argument is where it is to look for modules, as JSON: where this process does. Raises OSError."""
    command = [sys.executable, "-I", "-u", "-c", _WITH_ITS_PARENT, str(program), json.dumps([path for path in sys.path if path]), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=cwd, **pipes, **no_window())  # type: ignore[call-overload, no-any-return]


@contextmanager
def patience(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """A process that is not done by then is ended."""
    watch = threading.Timer(seconds, process.kill)
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


class Child:
    """A process in a group of its own, ended with all that it started.

    Its number is its own until somebody waits for it. So looking whether it has ended and ending it take turns, and none that has ended is signalled.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """With pipes for its stdin, stdout and stderr; files in the command by their full paths. Raises OSError."""
        start = program(command[0])
        if start is None:
            raise FileNotFoundError(2, "No such file or directory", command[0])
        options = {**child_options(environment), **_own_group()}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([start, *command[1:]], stdin=pipe, stdout=pipe, stderr=pipe, **options)
        self._turn = threading.Lock()
        self._speaker: int | None = None  # a handle

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        with self._turn:
            return self.process.poll()

    def wait(self, timeout_s: float = float("inf")) -> int | None:
        """Its exit code; None where it still runs after as much time, of this process's own."""
        waited_s = 0.0
        while (code := self.poll()) is None and waited_s < timeout_s:
            time.sleep(_LOOK_S)
            waited_s += _LOOK_S
        return code

    def spoken_for(self, pid: int) -> None:
        """A process of the tree that speaks for it, where the one that was started is a launcher: ended too, also when the launcher is gone. On
        Linux; elsewhere it ends by itself when its stdin does."""
        if sys.platform != "linux" or pid == self.process.pid:
            return
        with self._turn, contextlib.suppress(OSError):
            if self._speaker is None and self.process.poll() is None:
                handle = os.pidfd_open(pid)
                if os.getsid(pid) == self.process.pid:  # whose number is still its own: the lock is ours
                    self._speaker = handle
                else:
                    os.close(handle)

    def kill(self) -> None:
        with self._turn:
            if self.process.poll() is None:
                _end_group(self.process.pid)
            if self._speaker is not None:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(self._speaker, signal.SIGKILL)

    def forget(self) -> None:
        """Once nothing speaks any more."""
        with self._turn:
            if self._speaker is not None:
                os.close(self._speaker)
                self._speaker = None


def _end_group(pid: int) -> None:
    """Of a leader that nobody has waited for."""
    if sys.platform == "win32":  # pragma: no cover
        taskkill = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "taskkill.exe")
        subprocess.run([str(taskkill), "/T", "/F", "/PID", str(pid)], capture_output=True, check=False, **no_window())
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
