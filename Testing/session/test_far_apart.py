"""An update whose changes lie far apart, each answered in a box of its own; under a limit of memory in limited.py."""

from dataclasses import replace

import numpy as np
import pytest

from phantoms import make_job, two_organs
from sparseseg.contract import box as contract_box
from sparseseg.contract.settings import Settings
from sparseseg.session import session

QUICK = replace(Settings(), steps=4, width=4, depth=2, patch_voxels=16**3, estimate=False)


def send(running, values):
    number = running.job.record.revision + 1
    np.save(running.job.path(f"annotation-{number:04d}.npy"), values)
    running.update(f"annotation-{number:04d}.npy", number, [])


@pytest.mark.slow
def test_a_segment_that_is_erased_leaves_what_was_shown_of_it_also_far_from_a_stroke(tmp_path, compute, host, monkeypatch):
    monkeypatch.setattr(contract_box, "_TOGETHER_VOXELS", 64)
    monkeypatch.setattr(contract_box, "_GAP", 2)
    phantom = two_organs()
    values = np.where(phantom.annotation == 3, 0, phantom.annotation).astype(np.uint8)
    running = session.Session.open(make_job(tmp_path / "job", phantom, QUICK), session.DeviceChoice(chosen=compute), host)
    running.train()
    assert (running.publisher.shown == 2).any()
    send(running, values)
    assert not (running.publisher.shown == 2).any()
    running.close()
