"""Child processes: where their code comes from, how long they are waited for, and that none but them is ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparseseg.contract import child
from sparseseg.contract.child import Child, child_options, program, worker_environment

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
PACKAGE = str(Path(child.__file__).parents[2])
SLEEP = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)"]
TRAP = "import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch(); raise SystemExit('code of the working folder ran')"
MODULES = ("argparse", "json", "numpy", "torch", "SimpleITK", "platform", "queue", "pathlib", "logging", "sitecustomize", "pip", "light_the_torch")


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    """A patient's folder with code in it, where this process is."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text(TRAP)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.glob("*.ran"))


@pytest.mark.parametrize("path", [None, "", ".", os.pathsep, f"{os.pathsep}/somewhere", f"/somewhere{os.pathsep}"])
def test_no_child_loads_code_from_the_folder_that_it_is_started_in(data_folder, path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | ({} if path is None else {"PYTHONPATH": path})
    code = "import argparse, json, logging, numpy, queue, platform"
    for command in (["-c", code], ["-m", "sparseseg", "--version"], ["-m", "pip", "--version"]):
        done = child.run([sys.executable, *command], 60, encoding="utf-8", **child_options(environment))
        assert done.returncode == 0 or "No module named pip" in done.stderr, done.stderr


@pytest.mark.parametrize("path", [None, os.pathsep, "."])
def test_nor_does_the_command_line_itself(data_folder, path):
    (data_folder / "sitecustomize.py").unlink()  # is loaded before any code of ours, where PYTHONPATH has a relative entry
    before = [PACKAGE] if path is None else [path, PACKAGE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(before)}
    environment.pop("PYTHONSAFEPATH", None)
    command = [sys.executable, "-m", "sparseseg", "segment", "image.nrrd", "strokes.nrrd", "-o", "out.nrrd"]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2, done.stderr
    assert "image.nrrd" in done.stderr  # relative to the folder that the user is in


def test_full_paths_of_a_host_stay_and_relative_ones_go():
    given = os.pathsep.join(["", ".", "lib", str(Path("/opt/lib").absolute()), ".."])
    environment = worker_environment({"PYTHONPATH": given, "PYTHONHOME": "/slicer", "PYTHONNOUSERSITE": "1"})
    assert environment["PYTHONPATH"].split(os.pathsep) == [PACKAGE, str(Path("/opt/lib").absolute())]
    assert (environment["PYTHONHOME"], environment["PYTHONNOUSERSITE"], environment["PYTHONSAFEPATH"]) == ("/slicer", "1", "1")


def test_a_program_is_not_taken_from_the_working_folder(tmp_path, monkeypatch):
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tool.exe").write_text("")
        (tmp_path / folder / "tool.exe").chmod(0o755)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", os.pathsep.join(["", ".", str(tmp_path / "there")]))
    assert Path(program("tool.exe")) == tmp_path / "there" / "tool.exe"
    monkeypatch.setenv("PATH", ".")
    assert program("tool.exe") is None
    assert Path(program(f".{os.sep}tool.exe")) == tmp_path / "here" / "tool.exe"  # named by its path


def test_time_that_the_host_slept_is_no_time_that_was_waited(monkeypatch):
    class Popen(subprocess.Popen):
        looks = 0

        def communicate(self, **_):
            type(self).looks += 1
            if self.looks < 30:  # each comes after an hour: the computer slept
                raise subprocess.TimeoutExpired("x", 1)
            return super().communicate()

    monkeypatch.setattr(subprocess, "Popen", Popen)
    assert child.run([sys.executable, "-c", "print(5)"], 60).stdout.strip() == b"5"
    Popen.looks = 0
    with pytest.raises(subprocess.TimeoutExpired):
        child.run([sys.executable, "-c", "print(5)"], 20)


@posix
def test_only_a_process_that_nobody_has_waited_for_is_signalled(monkeypatch):
    signalled = []
    monkeypatch.setattr(os, "killpg", lambda *arguments: signalled.append(arguments))
    monkeypatch.setattr(os, "kill", lambda *arguments: signalled.append(arguments))
    ended = Child([sys.executable, "-c", ""])
    assert ended.wait(60) == 0
    ended.kill()
    ended.kill()
    assert not signalled  # its number may be another's by now
    monkeypatch.undo()
    running = Child(SLEEP)
    running.kill()
    assert running.wait(60) == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="needs handles of processes")
def test_who_speaks_for_a_launcher_that_is_gone_is_ended_by_its_handle():
    launcher = Child([sys.executable, "-c", f"import subprocess; p = subprocess.Popen({SLEEP}); print(p.pid, flush=True); p.wait()"])
    pid = next(int(line) for line in (launcher.process.stdout.readline() for _ in range(2)) if line.strip().isdigit())
    launcher.spoken_for(pid)
    launcher.process.kill()
    assert launcher.wait(60) == -signal.SIGKILL
    os.kill(pid, 0)
    launcher.kill()
    end = time.monotonic() + 30
    while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z" and time.monotonic() < end:
        time.sleep(0.02)
    launcher.kill()  # nobody any more
    launcher.forget()
    assert launcher.process.stdout.read() in (b"", b"here\n")  # all that held the pipe are gone


@pytest.mark.skipif(sys.platform != "linux", reason="needs handles of processes")
def test_a_number_of_somebody_else_is_not_taken_for_the_speaker():
    other = subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL)
    mine = Child(SLEEP)
    mine.spoken_for(other.pid)
    mine.kill()
    mine.wait(60)
    assert other.poll() is None
    other.kill()
    other.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell that a parent has gone")
def test_an_isolated_program_that_is_busy_ends_with_its_parent(tmp_path):
    program = tmp_path / "busy.py"
    program.write_text("import os\nprint(os.getpid(), flush=True)\nwhile True:\n    pass\n")
    code = (
        "import os, sys; from pathlib import Path; from sparseseg.contract.child import isolated\n"
        "process = isolated(Path(sys.argv[1]), cwd=Path.cwd())\n"
        "sys.stdout.buffer.write(process.stdout.readline()); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(program)], capture_output=True, check=False)
    pid = int(done.stdout)
    for _ in range(300):
        if not _is_running(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("it runs on")


def _is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # one that has ended may wait to be taken away
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
