"""Sessions on phantoms, closed when a test ends."""

from dataclasses import replace

import pytest
import torch
from sessions import Host

from phantoms import make_job
from sparseseg.network import device
from sparseseg.session.devices import DeviceChoice
from sparseseg.session.session import Session


@pytest.fixture(scope="session")
def compute():
    return replace(device.choose("cpu"), dtype=torch.float32)


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def session_on(tmp_path, compute, host):
    """session_on(phantom, settings, annotation, hints) -> a session on a job of its own, as of make_job."""
    sessions = []

    def open_one(phantom, settings, annotation=None, hints=None):
        folder = make_job(tmp_path / f"job{len(sessions)}", phantom, settings, annotation, hints)
        sessions.append(Session.open(folder, DeviceChoice(chosen=compute), host))
        return sessions[-1]

    yield open_one
    for each in sessions:
        each.close()
