"""A session looks up at its host several times a second: what is long is done in parts, or aside. benchmark/gaps.py measures it at full size."""

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phantoms import make_job, two_organs
from sparseseg.annotation import revision
from sparseseg.annotation.labels import build_annotation
from sparseseg.contract import box as contract_box
from sparseseg.contract import job as jobs
from sparseseg.contract import store
from sparseseg.contract.aside import aside
from sparseseg.contract.errors import Cancelled
from sparseseg.contract.job import Job
from sparseseg.contract.settings import Settings
from sparseseg.network.sampling import SliceSampler
from sparseseg.prior import reach
from sparseseg.quality import check, estimate, reverse, suggest
from sparseseg.session import judge, prior_voice, session

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmark"))

QUICK = replace(Settings(), steps=4, width=4, depth=2, patch_voxels=16**3)


def cancel():
    raise Cancelled


def test_who_waits_for_work_aside_looks_up_all_the_while():
    looks, done = [], threading.Event()

    def look():
        looks.append(threading.get_ident())
        if len(looks) == 3:
            done.set()

    def work():
        assert done.wait(60)
        return threading.get_ident()

    assert aside(work, look) != threading.get_ident()
    assert set(looks) == {threading.get_ident()}


def test_what_work_aside_raises_comes_here_and_who_cancels_does_not_wait_for_it():
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 / 0, lambda: None)
    held = threading.Event()
    try:
        with pytest.raises(Cancelled):
            aside(lambda: held.wait(60), cancel)
    finally:
        held.set()


LONG = (
    (session, "build_annotation"),
    (estimate, "split"),
    (suggest, "next_slices"),
    (reverse, "slices_between"),
    (reverse, "dice"),
    (check, "annotated"),
    (check, "_pieces_of"),
    (SliceSampler, "look"),
    (prior_voice, "precision"),
    (reach.Reach, "_count"),
    (reach.Share, "within"),
)


def test_what_reads_the_whole_volume_in_one_go_is_done_aside(tmp_path, compute, host, monkeypatch):
    where = {}

    def watched(name, plain):
        def call(*arguments, **options):
            where.setdefault(name, set()).add(threading.current_thread().name)
            return plain(*arguments, **options)

        return call

    for owner, name in LONG:
        monkeypatch.setattr(owner, name, watched(name, getattr(owner, name)))
    monkeypatch.setattr(prior_voice.PriorVoice, "is_seen_coarsely", True)
    monkeypatch.setattr(judge.Judge, "is_due", lambda self, share: share > 0.5 and self._looked == 0 and not setattr(self, "_looked", 1))
    phantom = two_organs()
    folder = make_job(tmp_path / "job", phantom, QUICK)
    running = session.Session.open(folder, session.DeviceChoice(chosen=compute), host)
    running.train()
    annotation = phantom.annotation.copy()
    annotation[20, 18:20, 2:6] = 3
    np.save(folder / "annotation-0002.npy", annotation)
    running.update("annotation-0002.npy", 2, [])
    running.close()
    assert where == {name: {"aside"} for _, name in LONG}


def save_planes(job, name, array):
    job.save_planes(name, array.shape, array.dtype, iter(array))


@pytest.mark.parametrize("save", [Job.save_array, save_planes])
def test_arrays_are_written_in_parts_and_who_cancels_keeps_the_old_file(tmp_path, phantom, monkeypatch, save):
    monkeypatch.setattr(jobs, "slabs", lambda array: iter(array))
    with Job.open(make_job(tmp_path / "job", phantom)) as job:
        ticks = []
        job.tick = lambda: ticks.append(1)
        labels = np.asfortranarray(phantom.truth)
        save(job, "dense.npy", labels)
        np.testing.assert_array_equal(np.load(job.path("dense.npy")), labels)
        assert len(ticks) == len(labels)
        job.tick = cancel
        with pytest.raises(Cancelled):
            save(job, "dense.npy", np.zeros_like(labels))
        np.testing.assert_array_equal(job.dense(), labels)
        assert not [path for path in job.folder.iterdir() if path.suffix == ".part"]


def test_the_disk_is_waited_for_by_and_by(tmp_path, phantom, monkeypatch):
    """What one fsync has to wait for at the end of a large file would be long, and nobody looks up meanwhile."""
    size = phantom.truth[0].size
    monkeypatch.setattr(jobs, "SLAB_VOXELS", 4 * size)
    with Job.open(make_job(tmp_path / "job", phantom)) as job:
        waits, synced = [], os.fsync
        monkeypatch.setattr(os, "fsync", lambda number: (waits.append(number), synced(number)))
        save_planes(job, "dense.npy", phantom.truth)
        assert len(waits) == len(phantom.truth) // 4 + 1 + (os.name == "posix")  # at the end, and for the name


def test_arrays_are_compared_in_parts(monkeypatch):
    monkeypatch.setattr(store, "SLAB_VOXELS", 100)
    one, ticks = np.zeros((6, 10, 10), np.uint8), []
    assert store.same(one, one.copy(), lambda: ticks.append(1))
    assert len(ticks) == 6
    with pytest.raises(Cancelled):
        store.same(one, one, cancel)


def test_a_result_that_is_cancelled_while_it_is_written_is_the_old_one_as_a_whole(tmp_path, phantom, host, monkeypatch):
    """Labels and uncertainty belong together."""
    from sparseseg.session.publisher import Publisher

    with Job.open(make_job(tmp_path / "job", phantom)) as job:
        publisher, old, new = Publisher(job, host), np.zeros_like(phantom.truth), np.ones_like(phantom.truth)
        publisher.result(old, old)
        for last in range(2):  # while the labels are written, and while their uncertainty is
            looks = iter([lambda: None] * last)
            job.tick = lambda looks=looks: next(looks, cancel)()
            with pytest.raises(Cancelled):
                publisher.result(new, new)
            assert not np.load(job.path("dense.npy")).any()
            assert not np.load(job.path("uncertainty.npy")).any()


def test_a_whole_annotation_is_taken_in_parts_and_who_cancels_keeps_the_old_one(phantom, monkeypatch):
    monkeypatch.setattr(contract_box, "_SLAB_VOXELS", 3000)
    new = phantom.annotation.copy()
    new[9] = phantom.truth[9] + 1
    for stop in range(100):
        before = build_annotation(phantom.annotation, phantom.classes)
        labels, origin, ticks = before.labels.copy(), before.origin.copy(), iter([lambda: None] * stop)
        try:
            revised = revision.revise(before, new, None, phantom.classes, Settings(), (), tick=lambda ticks=ticks: next(ticks, cancel)())
        except Cancelled:
            np.testing.assert_array_equal(before.labels, labels)
            np.testing.assert_array_equal(before.origin, origin)
        else:
            break
    assert stop > 10
    whole = build_annotation(new, phantom.classes)
    np.testing.assert_array_equal(revised.annotation.labels, whole.labels)
    assert revised.annotation.rows == whole.rows


def test_two_revisions_as_one_change_what_both_changed(phantom):
    before = build_annotation(phantom.annotation, phantom.classes)
    first, second, both = (phantom.annotation.copy() for _ in range(3))
    boxes = (slice(2, 4), slice(5, 8), slice(1, 3)), (slice(10, 11), slice(20, 22), slice(30, 33))
    for values, box in ((first, boxes[0]), (second, boxes[0]), (second, boxes[1]), (both, boxes[0]), (both, boxes[1])):
        values[box] = 2
    one = revision.revise(before, first, None, phantom.classes, Settings(), ())
    then = revision.revise(one.annotation, second, None, phantom.classes, Settings(), ())
    joined = one.then(then)
    at_once = revision.revise(build_annotation(phantom.annotation, phantom.classes), both, None, phantom.classes, Settings(), ())
    for one, other in zip(joined.changed, at_once.changed, strict=True):
        assert one.box == other.box
        np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(joined.annotation.labels, at_once.annotation.labels)


class _NoTorchYet(Exception):
    """The device was asked for: torch is loaded there, by a thread."""


@pytest.mark.parametrize("verb", ["train", "predict"])
def test_torch_is_loaded_by_the_devices_thread_whatever_asks_for_it_first(tmp_path, phantom, host, monkeypatch, verb):
    def asked(self, tick=None):
        raise _NoTorchYet

    folder = make_job(tmp_path / "job", phantom, replace(QUICK, refine=False, estimate=False))
    running = session.Session.open(folder, session.DeviceChoice("cpu"), host)
    monkeypatch.setattr(session.DeviceChoice, "compute", asked)
    monkeypatch.setattr(session.DeviceChoice, "start", lambda self: None)
    monkeypatch.delitem(sys.modules, "sparseseg.session.network_voice", raising=False)
    with pytest.raises(_NoTorchYet):
        getattr(running, verb)()
    assert "sparseseg.session.network_voice" not in sys.modules
    running.close()


@pytest.mark.slow
def test_updates_taken_together_are_shown_as_if_they_came_one_by_one(tmp_path, compute, host, monkeypatch):
    phantom = two_organs()
    boxes = {
        2: (slice(20, 21), slice(18, 20), slice(2, 6)),
        3: (slice(3, 4), slice(18, 20), slice(28, 32)),
        4: (slice(9, 10), slice(5, 9), slice(5, 9)),
    }
    shown = []
    for together in (True, False):
        running = session.Session.open(make_job(tmp_path / str(together), phantom, QUICK), session.DeviceChoice(chosen=compute), host)
        running.train({"estimate": False})
        monkeypatch.setattr(running, "_refine_corrections", lambda: None)
        for number, box in boxes.items():
            np.save(running.job.path(f"annotation-{number:04d}.npy"), np.full([s.stop - s.start for s in box], 3, np.uint8))
            take = running.take if together else running.update
            take(f"annotation-{number:04d}.npy", number, [], [[s.start, s.stop] for s in box])
        running.answer()
        shown.append(running.publisher.shown.copy())
        for box in boxes.values():
            assert (shown[-1][box] == 2).all()
        running.close()
    assert (shown[0] == shown[1]).mean() > 0.99


@pytest.mark.slow
def test_the_measurement_runs_and_finds_no_long_gap_in_a_small_volume(tmp_path):
    import gaps

    found = gaps.measure((30, 48, 48), 3.0, tmp_path / "job", settings=replace(QUICK, steps=6))
    assert {"opening -> opening", "saving -> saving", "predicting -> predicting"} <= set(found.ways)
    assert "where" in gaps.table(found)
