"""The panel's side of a session with an engine behind a real sshd: its Check, a run with a correction, and a server that refuses."""

import os
import time
from dataclasses import replace

import numpy as np
import pytest

from phantoms import two_organs
from sparseseg.contract.job import JobRecord
from sparseseg.contract.protocol import Error, Preview, Result
from sparseseg.contract.settings import Settings
from SparseSegSlicerLib.session.EngineRun import EngineRun
from SparseSegSlicerLib.session.EngineSetup import EngineSetup, EngineState

PATIENCE_S = 120
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def setup(sshd, tmp_path):
    """As the panel makes it, with the server's address written into it."""
    setup = EngineSetup("", lambda: {**os.environ, "LD_LIBRARY_PATH": "/nowhere"}, str(tmp_path))
    setup.setServer(sshd.address())
    yield setup
    setup.close()


@pytest.fixture
def begin(tmp_path, setup):
    runs = []

    def begin():
        phantom, launch = two_organs(), setup.launch()
        settings = replace(Settings(), steps=6, width=4, depth=2, patch_voxels=16**3)
        record = JobRecord(phantom.geometry, phantom.classes, settings)
        folder = tmp_path / "host"
        folder.mkdir(exist_ok=True)
        annotation = phantom.annotation.copy()
        runs.append(EngineRun(phantom.image, annotation, record, "cpu", (), launch.environment, str(folder), server=launch.server))
        runs[-1].annotation, runs[-1].parent = annotation, folder
        runs[-1].train(settings)
        return runs[-1]

    yield begin
    for run in runs:
        run.close().join(PATIENCE_S)


def until(run, wanted):
    """The next event that is wanted; none of the polls before it may have waited."""
    end, longest = time.monotonic() + PATIENCE_S, 0.0
    while time.monotonic() < end:
        start = time.monotonic()
        events = run.poll()
        longest = max(longest, time.monotonic() - start)
        for event in events:
            if wanted(event):
                assert longest < 0.5, "a host's main thread calls this"
                return event
            assert not (isinstance(event, Error) and event.fatal), event
        time.sleep(0.02)
    raise AssertionError(f"nothing came in {PATIENCE_S} s\n{run.log}")


def checked(setup):
    setup.check()
    end = time.monotonic() + PATIENCE_S
    while setup.state is EngineState.CHECKING:
        assert time.monotonic() < end
        setup.poll()
        time.sleep(0.02)
    return setup.state


def test_check_says_what_the_server_would_work_on(setup):
    assert checked(setup) is EngineState.READY, setup.detail
    assert "CPU" in setup.detail


def test_check_tells_a_key_that_is_refused_with_the_command_to_try(sshd, setup):
    sshd.configure(key="other_key")
    assert checked(setup) is EngineState.BROKEN
    assert "does not accept your key" in setup.detail and setup.remedy.startswith("ssh -p")


def test_a_run_with_a_correction_is_as_one_on_this_computer(begin):
    run = begin()
    result = until(run, lambda event: isinstance(event, Result))
    before = np.load(result.file)
    assert set(np.unique(before)) == {0, 1, 2}
    k, j, i = (int(n) for n in np.argwhere((before == 0) & (run.annotation == 0))[0])
    run.annotation[k, j, i] = 2
    revision = run.update(run.annotation, (), [(slice(k, k + 1), slice(j, j + 1), slice(i, i + 1))])
    until(run, lambda event: isinstance(event, Preview) and event.revision == revision)
    run.train(Settings(steps=12))
    after = np.load(until(run, lambda event: isinstance(event, Result)).file)
    assert after[k, j, i] == 1, "the stroke has arrived"
    run.close().join(PATIENCE_S)
    assert not list(run.parent.iterdir())


def test_a_run_whose_key_is_refused_ends_at_once_and_does_not_try_again(sshd, begin):
    sshd.configure(key="other_key")
    run = begin()
    event = until(run, lambda event: isinstance(event, Error))
    assert event.fatal and event.code == "connection" and "does not accept your key" in event.sentence
    time.sleep(1.0)
    assert run.poll() == []
