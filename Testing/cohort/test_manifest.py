"""The manifest: true after every change, and what a driver that was killed leaves in it."""

import sqlite3
import stat
import sys

import pytest

from sparseseg.cohort.manifest import NAME, Manifest
from sparseseg.contract.errors import InputError, OutputError

SERIES = {"a": ["a.nrrd"], "b": ["b.nrrd", "b2.nrrd"], "c": ["https://archive/series"]}
RESULT = {
    "estimate": {"Segment_1": 0.9, "Segment_2": 0.7},
    "voxels": {"Segment_1": 5, "Segment_2": 0},
    "remarks": ["It is oblique."],
    "seconds": {"read": 1.0, "network": 2.0, "write": 0.5},
    "bytes_read": 100,
    "bytes_written": 10,
    "output": "a.seg.nrrd",
    "sha256": "12ab",
}


@pytest.fixture
def manifest(tmp_path):
    opened = Manifest(tmp_path)
    opened.begin(SERIES)
    yield opened
    opened.close()


def states(manifest):
    return {row.name: row.state for row in manifest.rows()}


def test_a_series_waits_runs_and_is_done(manifest):
    assert states(manifest) == dict.fromkeys("abc", "waiting")
    manifest.started("a", "node", 7)
    assert manifest.counts() == {"waiting": 2, "running": 1}
    manifest.done("a", "model", "1.0", RESULT)
    (row,) = manifest.rows("done")
    assert (row.name, row.estimate, row.estimates, row.model, row.attempts) == ("a", 0.7, RESULT["estimate"], "model", 1)
    assert (row.output, row.sha256, row.bytes_written, row.remarks) == ("a.seg.nrrd", "12ab", 10, ("It is oblique.",))
    assert manifest.tries() == [("a", 1, "node", "done")]


def test_one_that_dies_is_tried_so_often_and_then_failed(manifest):
    for number in (1, 2, 3):
        manifest.started("b", f"node {number}", number)
        assert manifest.died("b", "It was killed.", attempts=3) == (number < 3)
    (row,) = manifest.rows("failed")
    assert (row.name, row.attempts, row.error) == ("b", 3, "It was killed.")
    assert [number for _, number, _, outcome in manifest.tries() if outcome == "died"] == [1, 2, 3]
    manifest.wait(["b"])
    assert states(manifest)["b"] == "waiting"
    manifest.started("b", "node", 1)
    assert manifest.died("b", "It was killed.", attempts=3)


def test_what_a_killed_driver_left_running_waits_and_that_was_no_try(manifest, tmp_path):
    manifest.started("a", "node", 7)
    manifest.started("b", "node", 8)
    manifest.stopped("b")
    manifest.close()
    again = Manifest(tmp_path)
    again.begin({**SERIES, "d": ["d.nrrd"]})
    assert {row.name: (row.state, row.attempts) for row in again.rows()} == dict.fromkeys("abcd", ("waiting", 0))
    assert [outcome for *_, outcome in again.tries()] == ["interrupted", "interrupted"]
    again.started("a", "node", 9)
    again.quarantined("a", "It is damaged.")
    assert [outcome for name, *_, outcome in again.tries() if name == "a"] == ["interrupted", "quarantined"]
    again.close()


def test_rows_come_from_the_lowest_estimate_up_and_those_without_last(manifest):
    for name, estimate in (("a", {"s": 0.9}), ("b", {}), ("c", {"s": 0.2})):
        manifest.started(name, "node", 1)
        manifest.done(name, "model", "1.0", {**RESULT, "estimate": estimate})
    assert [row.name for row in manifest.rows("done")] == ["c", "a", "b"]


def test_a_file_of_another_program_or_version_is_refused(tmp_path):
    (tmp_path / NAME).write_bytes(b"This is no database. " * 100)
    with pytest.raises(InputError, match="is no manifest of a cohort"):
        Manifest(tmp_path)
    (tmp_path / NAME).unlink()
    with sqlite3.connect(tmp_path / NAME) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(InputError, match="is of version 9, this engine reads 1"):
        Manifest(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_it_is_this_users_alone(manifest, tmp_path):
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_a_disk_that_cannot_be_written_is_said(manifest, tmp_path, monkeypatch):
    class Full:
        def execute(self, statement, values=()):
            if statement.startswith(("UPDATE", "INSERT")):
                raise sqlite3.OperationalError("database or disk is full")

        def close(self): ...

    monkeypatch.setattr(manifest, "_database", Full())
    with pytest.raises(OutputError, match=r"manifest\.sqlite could not be written \(database or disk is full\)"):
        manifest.started("a", "node", 1)
