"""What is free on a disk, and what is said where it is too little."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from sparseseg.contract import disk
from sparseseg.contract.errors import OutputError

Usage = namedtuple("Usage", "total used free")


def test_too_little_disk_is_refused_with_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10e9, 7e9, 3_000_000_000))
    disk.check(tmp_path, 3_000_000_000, "The job")
    with pytest.raises(OutputError, match=r"The job needs 5\.6 GB of disk in .*, and 3\.0 GB are free\. Free 2\.6 GB there, or"):
        disk.check(tmp_path, 5_600_000_000, "The job")


def test_a_folder_that_is_not_there_yet_lies_on_the_disk_of_those_above(tmp_path):
    assert disk.free_bytes(tmp_path / "not" / "yet") == pytest.approx(disk.free_bytes(tmp_path), rel=0.1)


def test_a_job_that_goes_on_needs_what_it_does_not_hold_yet(tmp_path):
    shape, voxels = (10, 100, 100), 100_000
    assert disk.job_bytes(shape, 2, 1, tmp_path) == 14 * voxels
    assert disk.job_bytes(shape, 2, 3, tmp_path) == 24 * voxels  # three, and the three together
    (tmp_path / "weights.npy").write_bytes(bytes(4 * voxels))
    assert disk.job_bytes(shape, 2, 1, tmp_path) == 10 * voxels
    (tmp_path / "more.npy").write_bytes(bytes(20 * voxels))
    assert disk.job_bytes(shape, 2, 1, tmp_path) == 3 * voxels


def test_where_nobody_knows_nothing_is_refused(monkeypatch):
    def unknown(_):
        raise OSError("no such system call")

    monkeypatch.setattr(shutil, "disk_usage", unknown)
    assert disk.free_bytes(Path("x")) is None
    disk.check(Path("x"), 1e30, "The job")
