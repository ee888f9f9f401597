"""An update is the job's or it is not: what fails before leaves all as it was, what fails after is a warning, and each is answered once."""

import json

import numpy as np
import pytest
from sessions import send

from phantoms import two_organs
from sparseseg.contract.errors import Cancelled, JobError, OutputError
from sparseseg.contract.job import RECORD, Job
from sparseseg.contract.settings import Settings

QUICK = Settings(refine=False, estimate=False)
STROKE = (slice(9, 10), slice(4, 8), slice(0, 12))
FULL = OutputError("Could not write in the folder: No space left on device.", "Free space or choose another folder.")


@pytest.fixture
def phantom():
    return two_organs()


@pytest.fixture
def running(session_on, phantom):
    session = session_on(phantom, QUICK)
    send(session, 2, phantom.annotation)
    return session


@pytest.fixture
def stroke(phantom):
    annotation = phantom.annotation.copy()
    annotation[STROKE] = 1
    return annotation


def on_disk(running):
    return json.loads((running.job.folder / RECORD).read_text())["revision"]


def adopted(running):
    return running.job.record.revision == 3 == on_disk(running)


def full_disk(monkeypatch, after_adoption, times=10**6):
    """From here on, or from the next adoption on, no preview can be written, so many times."""
    saved, left = Job.save_array, iter(range(times))
    start = None

    def save(job, name, *arguments, **options):
        nonlocal start
        start = job.record.revision if start is None else start
        if name.startswith("preview") and job.record.revision > start - (not after_adoption) and next(left, None) is not None:
            raise FULL
        return saved(job, name, *arguments, **options)

    monkeypatch.setattr(Job, "save_array", save)


def test_a_disk_that_is_full_before_refuses_and_nothing_is_changed(running, host, stroke, monkeypatch):
    before, told = running.annotation.labels.copy(), len(host.previews)
    with monkeypatch.context() as patch:
        full_disk(patch, after_adoption=False)
        with pytest.raises(OutputError, match="No space"):
            send(running, 3, stroke, STROKE)
    assert running.job.record.revision == 2 == on_disk(running)
    assert len(host.previews) == told
    np.testing.assert_array_equal(running.annotation.labels, before)
    send(running, 3, stroke, STROKE)
    assert adopted(running)


def test_a_disk_that_fills_up_after_adoption_is_a_warning_and_the_update_is_answered(running, host, stroke, monkeypatch):
    told = len(host.previews)
    with monkeypatch.context() as patch:
        full_disk(patch, after_adoption=True)
        send(running, 3, stroke, STROKE)
    assert adopted(running)
    assert [revision for _, revision, _ in host.previews[told:]] == [3]
    ((code, sentence),) = host.warnings[-1:]
    assert code == "unshown" and "is kept" in sentence and "No space" in sentence
    send(running, 3, stroke, STROKE)  # the host may send it again
    later = (slice(2, 3), slice(0, 1), slice(0, 3))
    stroke[later] = 1
    send(running, 4, stroke, later)
    np.testing.assert_array_equal(host.previews[-1][2], running.publisher.shown)
    assert not host.previews[-1][2][STROKE].any(), "what could not be shown comes with the next preview"


def test_old_previews_make_room_on_a_full_disk(running, host, stroke, monkeypatch):
    full_disk(monkeypatch, after_adoption=True, times=1)
    send(running, 3, stroke, STROKE)
    assert adopted(running) and not host.warnings
    assert not host.previews[-1][2][STROKE].any()
    previews = sorted(path.name for path in running.job.folder.glob("preview-*"))
    assert all(name.startswith("preview-0003") for name in previews), "the old ones have gone"
    assert np.load(running.job.folder / previews[0]).shape == stroke.shape


@pytest.mark.parametrize("error", [MemoryError(), ValueError("a fault"), Cancelled()])
def test_growing_that_fails_after_adoption_is_made_up_for(running, host, stroke, monkeypatch, error):
    told = len(host.previews)

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(type(running.prior.grown), "update", fail)
        patch.setattr(type(running.prior.grown), "renew", fail)
        send(running, 3, stroke, STROKE)
    assert adopted(running)
    assert [revision for _, revision, _ in host.previews[told:]] == [3]
    assert [code for code, _ in host.warnings] == ["unshown"]
    send(running, 3, stroke, STROKE)
    later = (slice(2, 3), slice(0, 1), slice(0, 3))
    stroke[later] = 1
    send(running, 4, stroke, later)
    assert not host.previews[-1][2][STROKE].any()


def test_a_border_that_fails_after_adoption_is_no_refusal(session_on, phantom, host, stroke, monkeypatch):
    running = session_on(phantom, Settings(refine=False, border_weight=1.0))
    send(running, 2, phantom.annotation)
    told = len(host.previews)
    with monkeypatch.context() as patch:
        patch.setattr("sparseseg.session.session.add_border_weight", lambda *_: (_ for _ in ()).throw(MemoryError()))
        send(running, 3, stroke, STROKE)
    assert adopted(running)
    assert [revision for _, revision, _ in host.previews[told:]] == [3]
    assert (running.annotation.labels[STROKE] == 0).all() and running.annotation.labelled[STROKE].all()
    later = (slice(2, 3), slice(0, 1), slice(0, 3))
    stroke[later] = 1
    send(running, 4, stroke, later)
    assert not host.previews[-1][2][STROKE].any()


def test_a_revision_without_room_in_memory_is_taken_back(running, stroke, monkeypatch):
    before = running.annotation.labels.copy()
    monkeypatch.setattr("sparseseg.annotation.revision.summary", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        send(running, 3, stroke, STROKE)
    np.testing.assert_array_equal(running.annotation.labels, before)
    assert running.job.record.revision == 2 == on_disk(running)


def test_the_same_revision_is_welcome_again_and_another_is_not(running, host, phantom, stroke):
    send(running, 3, stroke, STROKE)
    told = len(host.previews)
    send(running, 3, stroke, STROKE)
    running.update("annotation-0003.npy", 3, [])  # its file was taken over
    assert [revision for _, revision, _ in host.previews[told:]] == [3, 3]
    with pytest.raises(JobError, match="a revision 3 already, and that is another annotation"):
        send(running, 3, phantom.annotation, STROKE)
    running.job.path("annotation-0003.npy").unlink()
    with pytest.raises(JobError, match="another annotation"):
        running.update("annotation-0003.npy", 3, [[0, 2]])
    np.testing.assert_array_equal(running.job.annotation(), stroke)
