"""Sessions on volumes that count as large or huge: the same result as ever, in mapped files, or a refusal with numbers."""

from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
from sessions import send

from phantoms import two_organs
from sparseseg.contract import disk, scratch
from sparseseg.contract.box import box_of, union
from sparseseg.contract.errors import OutputError
from sparseseg.contract.settings import Settings
from sparseseg.prior import grown
from sparseseg.session import prior_voice, publisher

QUICK = Settings(steps=4, width=4, depth=2, patch_voxels=16**3, estimate=False, seed=3)
SPOT = (slice(9, 10), slice(18, 22), slice(8, 12))


def run(session_on, host, settings=QUICK):
    """What a session shows and gives: its result, its uncertainty, and the previews of a correction."""
    phantom = two_organs()
    running = session_on(phantom, settings)
    outcome = running.train()
    annotation = phantom.annotation.copy()
    annotation[SPOT] = 3 - phantom.truth[SPOT]
    send(running, 2, annotation, SPOT)
    running.idle()
    return [np.load(outcome.dense), np.load(outcome.uncertainty), *(dense for _, revision, dense in host.previews if revision == 2)]


@pytest.mark.parametrize("huge", [False, True])
def test_what_is_kept_where_changes_nothing_of_what_is_shown(session_on, host, monkeypatch, huge):
    plain = run(session_on, host)
    host.previews.clear()
    monkeypatch.setattr(scratch, "LEAST_BYTES", 1000)
    monkeypatch.setattr(scratch, "HUGE_VOXELS", 1 if huge else 1 << 40)
    for one, other in zip(run(session_on, host), plain, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [code for code, _ in host.warnings] == ["large"] * huge


def test_what_a_correction_will_read_is_asked_for_before(session_on, host, monkeypatch):
    """Of everything that is kept of the volume, where the correction changes what is shown."""
    phantom, asked = two_organs(), []
    running = session_on(phantom, QUICK)
    running.train()
    for module in (grown, prior_voice, publisher):
        monkeypatch.setattr(module, "read_ahead", lambda box, *arrays: asked.extend((box, id(array)) for array in arrays))
    annotation, before = phantom.annotation.copy(), running.publisher.shown.copy()
    annotation[SPOT] = 3 - phantom.truth[SPOT]
    send(running, 2, annotation, SPOT)
    changed, voice = box_of(running.publisher.shown != before), running.prior
    kept = (voice.grown.label, voice.grown.confidence, voice.stands.label, voice.stands.confidence, running.publisher.shown)
    for array in (*kept, running.labels.labels, running.labels.labelled):
        assert union(*(box for box, which in asked if which == id(array))) == union(changed, *(box for box, which in asked if which == id(array)))


def test_of_a_huge_volume_it_is_not_told_how_good_the_result_is(session_on, host, monkeypatch):
    monkeypatch.setattr(scratch, "HUGE_VOXELS", 1)
    running = session_on(two_organs(), replace(QUICK, estimate=True))
    assert running.train().estimate == {} and not host.checks


def test_a_disk_that_is_too_small_is_said_before_anything_is_begun(session_on, monkeypatch):
    monkeypatch.setattr(scratch, "LEAST_BYTES", 1000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(10, 9, 1000))
    with pytest.raises(OutputError, match=r"To be segmented, a volume of 24 x 40 x 36 voxels needs 1 MB of disk in .*, and 0 MB are free\."):
        session_on(two_organs(), QUICK)
