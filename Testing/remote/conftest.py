"""A real sshd on this computer."""

import os

import pytest
from servers import PACKAGES, SSHD, Sshd, Talk


@pytest.fixture
def start_sshd(tmp_path, monkeypatch):
    """start_sshd(environment) -> Sshd; stopped after the test."""
    if SSHD is None or os.name != "posix":
        pytest.skip("sshd is not installed (Debian: openssh-server)")
    started = []

    def start(environment=None):
        folder = tmp_path / f"sshd-{len(started)}"
        folder.mkdir()
        temporary = tmp_path / f"server-{len(started)}"  # what a server's sessions leave lies here
        temporary.mkdir()
        given = {"PYTHONPATH": PACKAGES, "OMP_NUM_THREADS": "1"} if environment is None else environment
        started.append(Sshd(folder, {"TMPDIR": str(temporary), **given}))
        started[-1].temporary = temporary
        monkeypatch.setenv("PATH", f"{folder}/bin{os.pathsep}{os.environ['PATH']}")
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def sshd(start_sshd):
    return start_sshd()


@pytest.fixture
def start_talk(sshd):
    talks = []

    def start(server=None, **options):
        talks.append(Talk(server or sshd.server(), **options))
        return talks[-1]

    yield start
    for talk in talks:
        talk.client.close(2.0).join()


@pytest.fixture
def talk(start_talk):
    return start_talk()
