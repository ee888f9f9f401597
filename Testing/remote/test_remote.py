"""An engine over a real sshd on this computer: a session as with a local one, and nothing left behind."""

import time
from pathlib import Path

import numpy as np
import pytest

from phantoms import make_job, two_organs
from sparseseg.contract.job import DENSE, Job
from sparseseg.contract.protocol import Cancel, Error, Preview, Ready, Result, Train, Update


def left(sshd):
    """What a server's sessions have left, waited for a little."""
    for _ in range(100):
        if not (found := sorted(sshd.temporary.iterdir())):
            break
        time.sleep(0.1)
    return found


@pytest.mark.timeout(180)
def test_a_session_with_a_correction_is_as_with_a_local_engine(sshd, talk, tmp_path):
    make_job(tmp_path / "job", two_organs())
    ready = talk.open(tmp_path / "job")
    assert (ready.job, ready.revision) == (str(tmp_path / "job"), 1)
    talk.client.send(Train("train", {"steps": 3}))
    first = talk.until(Preview, id="train")
    assert Path(first.file).parent == tmp_path / "job"
    result = talk.until(Result, id="train")
    dense = np.load(result.file)
    assert dense.any() and Path(result.file) == tmp_path / "job" / DENSE
    print(result, [type(e).__name__ for e in talk.events])
    for file in (result.uncertainty, result.model, result.report):
        assert Path(file).parent == tmp_path / "job" and Path(file).stat().st_size
    talk.client.close().join()
    assert not left(sshd)
