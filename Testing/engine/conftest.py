"""Every engine test: one thread, hypothesis with fixed seeds, and a way to run code in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from hypothesis import settings

import sparseseg

settings.register_profile("engine", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("engine")


@pytest.fixture(autouse=True)
def one_thread():
    """device.choose takes all the cores that it may; a test must not leave that to the next one."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


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
