"""Large arrays in mapped files: private, with their room on the disk, gone with whoever made them."""

import errno
import gc
import mmap
import os
import sys

import numpy as np
import pytest

from sparseseg.contract import scratch
from sparseseg.contract.errors import OutputError
from sparseseg.contract.scratch import Scratch, put, put_new, read_ahead

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="on Windows the file has a name until it is closed")


@pytest.fixture
def large(monkeypatch):
    """What counts as large here, in bytes."""
    monkeypatch.setattr(scratch, "LEAST_BYTES", 1000)


def test_small_arrays_are_plain(tmp_path):
    array = Scratch(tmp_path).zeros((3, 4, 5), np.uint8)
    assert array.shape == (3, 4, 5) and array.dtype == np.uint8 and array.flags.owndata and not array.any()


def test_large_ones_are_mapped_and_hold_what_is_put_in(tmp_path, large):
    array = Scratch(tmp_path).zeros((10, 20, 30), np.int16)
    assert array.flags.c_contiguous and array.flags.writeable and not array.flags.owndata and not array.any()
    array[3] = 7
    assert array.sum() == 7 * 600


@POSIX
def test_nothing_is_left_of_them(tmp_path, large):
    """Nobody else can find the file, and its room comes back with the last view of it."""
    array = Scratch(tmp_path).zeros((10, 20, 30), np.uint8)
    view = array[2:3]
    assert list(tmp_path.iterdir()) == []
    array[:] = 1
    del array
    gc.collect()
    assert view.all()


@pytest.mark.skipif(sys.platform != "linux", reason="says how many blocks a file has")
@pytest.mark.parametrize("known", [True, False])
def test_a_file_has_all_of_its_room_before_it_is_used(tmp_path, monkeypatch, known):
    if not known:
        monkeypatch.delattr(os, "posix_fallocate")
        monkeypatch.setattr(scratch, "_PIECE", bytes(4096))
    with open(tmp_path / "file", "w+b") as file:
        scratch.allocate(file.fileno(), 1_000_001)
        file.flush()
        found = os.fstat(file.fileno())
    assert found.st_size == 1_000_001 and found.st_blocks * 512 >= 1_000_001


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="asks the disk in another way")
def test_a_full_disk_is_a_sentence_before_anything_is_begun(tmp_path, monkeypatch, large):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OutputError, match=r"takes 6 MB more of the disk.* free\): No space left on device"):
        Scratch(tmp_path).zeros((100, 200, 300), np.uint8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="asks the disk in another way")
def test_a_file_system_that_cannot_be_asked_is_written_to(tmp_path, monkeypatch, large):
    def unknown(*_):
        raise OSError(errno.EOPNOTSUPP, "")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    assert not Scratch(tmp_path).zeros((100, 20, 30), np.uint8).any()


def test_put_writes_where_values_differ_and_nowhere_else():
    written = []

    class Planes(np.ndarray):
        def __setitem__(self, key, value):
            written.append(1)
            super().__setitem__(key, value)

    into = np.zeros((3, 2, 2), np.uint8).view(Planes)
    values = np.zeros((3, 2, 2), np.uint8)
    values[1, 0, 1] = 5
    put(into, values)
    assert np.array_equal(into, values) and len(written) == 1


def test_put_new_does_not_even_look_where_there_is_nothing_to_write():
    plane = np.zeros((2, 2), np.uint8)
    put_new([None, plane, None], np.array([[[0, 0], [0, 0]], [[0, 5], [0, 0]], [[0, 0], [0, 0]]], np.uint8))
    assert plane.tolist() == [[0, 5], [0, 0]]


class Asked(mmap.mmap):
    def madvise(self, option, start, length):
        assert start % mmap.PAGESIZE == 0 and start + length <= len(self)
        super().madvise(option, start, length)
        self.asked = [*getattr(self, "asked", []), (start, start + length)]


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="this system cannot be asked for it")
@pytest.mark.parametrize("where", ["scratch", "file"])
def test_the_rows_that_will_be_read_are_asked_for_and_no_others(tmp_path, large, monkeypatch, where):
    monkeypatch.setattr(mmap, "mmap", Asked)
    shape, box = (6, 100, 300), (slice(1, 5), slice(40, 70), slice(10, 20))
    array = Scratch(tmp_path).zeros(shape, np.int16) if where == "scratch" else np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.int16, shape)
    read_ahead(box, array)
    mapped = scratch._mapped(array)
    needed, asked = np.zeros(shape, np.int16), np.zeros(len(mapped), bool)
    needed[box[:2]] = -1
    before = len(asked) - needed.nbytes if where == "file" else 0  # the file's header
    for start, stop in mapped.asked:
        asked[start:stop] = True
    assert asked[before:][: needed.nbytes][needed.reshape(-1).view(np.uint8) > 0].all()
    assert asked.sum() <= np.count_nonzero(needed) * 2 + 4 * mmap.PAGESIZE


def test_what_cannot_be_asked_for_is_left_to_the_system(tmp_path, large, monkeypatch):
    mapped = Scratch(tmp_path).zeros((6, 100, 300), np.uint8)
    box = (slice(1, 5), slice(40, 70), slice(10, 20))
    read_ahead(box, np.zeros((6, 100, 300), np.uint8), mapped.transpose(0, 2, 1)[:, :100], mapped[:0])
    read_ahead((slice(2, 2),) * 3, mapped)
    if hasattr(mmap, "MADV_WILLNEED"):
        monkeypatch.setattr(mmap, "MADV_WILLNEED", 12345)  # no system knows it
        read_ahead(box, mapped)
        monkeypatch.delattr(mmap, "MADV_WILLNEED")
    read_ahead(box, mapped)
    assert not mapped.any()
