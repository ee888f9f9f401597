"""What every test has: one thread, hypothesis with fixed seeds, a phantom and a job of it, code in a process of its own, and Slicer's hosts.

One host a process: VTK's and Qt's singletons outlive any test, so the hosts are made when first asked for, and closed at the end.
"""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the tests' own processes, several at once; an engine takes the cores that it finds

import numpy as np
import pytest
from hypothesis import settings

import sparseseg
from phantoms import make_job, two_organs

settings.register_profile("engine", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("engine")

_hosts = {}


def make_host(kind):
    """The host of this process. A panel host serves scene tests too; a scene host that is there already is grown into one."""
    pytest.importorskip("slicer", reason="slicer-core is not installed (pip install -e '.[test]')", exc_type=ImportError)
    if kind == "panel" and "panel" not in _hosts:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        pytest.importorskip("PySide6", reason="PySide6 is not installed (pip install -e '.[test]')")
    if "scene" not in _hosts:
        from host.scene_host import SceneHost

        _hosts["scene"] = SceneHost()
    if kind == "panel" and "panel" not in _hosts:
        from host.slicer_host import Host

        _hosts["panel"] = Host(_hosts["scene"])
    return _hosts[kind]


@pytest.fixture
def scene_host():
    """Real MRML with an empty scene."""
    host = make_host("scene")
    host.clear()
    yield host
    host.clear()


def pytest_sessionfinish():
    for kind in ("panel", "scene"):
        if kind in _hosts:
            _hosts.pop(kind).close()


@pytest.fixture(autouse=True)
def one_thread():
    """device.choose takes all the cores that it may; a test must not leave that to the next one."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def start_python():
    """start_python(code, *arguments) -> a process that has the package on its path, with pipes for stdin, stdout, stderr; ended after the test."""
    started = []
    path = os.pathsep.join([str(Path(sparseseg.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

    def start(code, *arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, text=True, encoding="utf-8", env={**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"}, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def phantom():
    return two_organs()


@pytest.fixture
def job(tmp_path, phantom):
    return make_job(tmp_path / "Žluť job dir", phantom)


@pytest.fixture
def correct(phantom):
    """correct(folder, revision) -> name of a new annotation file in the job folder: one more slice of truth."""

    def write(folder, revision):
        annotation = phantom.annotation.copy()
        index = 2 + revision
        annotation[index] = phantom.truth[index] + 1
        name = f"annotation-{revision:04d}.npy"
        np.save(folder / name, annotation)
        return name

    return write
