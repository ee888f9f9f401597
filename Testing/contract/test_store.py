"""Arrays that need not fit into memory: kept in files of the job's folder, which go with them or become the job's own."""

import errno
import gc

import numpy as np
import pytest

from phantoms import two_organs
from sparseseg.contract import disk, store
from sparseseg.contract.channels import stack
from sparseseg.contract.errors import OutputError
from sparseseg.contract.job import ANNOTATION, IMAGE, Job, JobRecord
from sparseseg.contract.lock import Owner
from sparseseg.contract.settings import Settings
from sparseseg.contract.store import IN_MEMORY, OnDisk, file_of, same, slabs

PHANTOM = two_organs((6, 12, 10))
RECORD_OF = JobRecord(PHANTOM.geometry, PHANTOM.classes, Settings())


def scratch(folder):
    return sorted(path.name for path in folder.glob(".scratch*"))


@pytest.mark.parametrize("parts", [[PHANTOM.image], list(PHANTOM.image), [PHANTOM.image.ravel()[:7], PHANTOM.image.ravel()[7:]]])
def test_parts_of_any_shape_are_one_array(tmp_path, parts):
    for where in (IN_MEMORY, OnDisk(tmp_path)):
        np.testing.assert_array_equal(where.keep("x", PHANTOM.image.shape, np.int16, iter(parts)), PHANTOM.image)


def test_foreign_byte_orders_become_the_machines(tmp_path):
    for where in (IN_MEMORY, OnDisk(tmp_path)):
        kept = where.keep("x", PHANTOM.image.shape, np.int16, [PHANTOM.image.astype(">i2")])
        assert kept.dtype.isnative
        np.testing.assert_array_equal(kept, PHANTOM.image)


@pytest.mark.parametrize(("count", "error"), [(119, EOFError), (121, ValueError)])
def test_too_few_and_too_many_are_no_array_and_leave_nothing(tmp_path, count, error):
    for where in (IN_MEMORY, OnDisk(tmp_path)):
        with pytest.raises(error):
            where.keep("x", (2, 6, 10), np.uint8, [np.zeros(count, np.uint8)])
    assert not scratch(tmp_path)


def test_a_file_goes_with_its_array(tmp_path):
    kept = OnDisk(tmp_path).keep("x", (2, 6, 10), np.uint8, [np.ones(120, np.uint8)])
    view = kept[1:, ::2]
    del kept
    gc.collect()
    assert len(scratch(tmp_path)) == 1
    assert view.sum() == 30
    del view
    gc.collect()
    assert not scratch(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Of a job that is to be made, held by its owner."""
    with Owner(tmp_path / "job"):
        yield tmp_path / "job"


def test_a_file_becomes_the_jobs_without_a_copy(folder):
    where = OnDisk(folder)
    image = where.keep("image", PHANTOM.image.shape, np.int16, [PHANTOM.image])
    annotation = where.keep("annotation", PHANTOM.annotation.shape, np.uint8, [PHANTOM.annotation])
    files = [(folder / name).stat().st_ino for name in scratch(folder)]
    with Job.create(folder, image, annotation, RECORD_OF) as job:
        job.check_image()
        np.testing.assert_array_equal(job.annotation(), PHANTOM.annotation)
    assert sorted((folder / name).stat().st_ino for name in (IMAGE, ANNOTATION)) == sorted(files)
    assert not scratch(folder)


def test_a_part_of_an_array_and_one_of_elsewhere_are_copied(folder, tmp_path):
    kept = OnDisk(folder).keep("image", (12, 12, 10), np.int16, [PHANTOM.image, PHANTOM.image])
    there = OnDisk(tmp_path).keep("image", PHANTOM.image.shape, np.int16, [PHANTOM.image])
    for array in (kept[:6], kept[::2], kept.T, kept.reshape(-1), kept.view(np.uint16), there, PHANTOM.image):
        assert file_of(array, folder) is None
    assert file_of(kept, folder) == folder / scratch(folder)[0]
    with Job.create(folder, kept[6:], None, RECORD_OF) as job:
        np.testing.assert_array_equal(job.image(), PHANTOM.image)


def test_opening_a_job_spares_what_this_process_keeps_in_it_and_removes_what_a_dead_one_left(tmp_path):
    folder = tmp_path / "job"
    Job.create(folder, PHANTOM.image, PHANTOM.annotation, RECORD_OF).close()
    kept = OnDisk(folder).keep("x", PHANTOM.image.shape, np.int16, [PHANTOM.image])
    (folder / ".scratch-1.npy.999999999.part").write_bytes(b"x")
    Job.open(folder).close()
    assert scratch(folder) == [file_of(kept, folder).name]


class Full:
    """A file on a disk that is full after so many bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.room -= memoryview(data).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)


def test_a_disk_that_gets_full_is_a_sentence_with_what_to_free_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "open", lambda *how: Full(open(*how), 5_000_000), raising=False)  # noqa: SIM115
    free = iter([20_000_000, 1_000_000])
    monkeypatch.setattr(disk, "free_bytes", lambda _: next(free))
    parts = (np.ones((1, 1000, 100), np.int16) for _ in range(50))
    with pytest.raises(OutputError, match=r"The rest of big\.nrrd needs 5 MB of disk in .*, and 1 MB are free\. Free 4 MB there"):
        OnDisk(tmp_path).keep("big.nrrd", (50, 1000, 100), np.int16, parts)
    assert not scratch(tmp_path)


def test_what_the_source_says_is_not_taken_for_the_disks(tmp_path):
    def parts():
        yield PHANTOM.image[:2]
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error") as caught:
        OnDisk(tmp_path).keep("x", PHANTOM.image.shape, np.int16, parts())
    assert not isinstance(caught.value, OutputError)
    assert not scratch(tmp_path)


def test_the_first_array_is_asked_about_before_it_is_made(tmp_path):
    asked = []
    where = OnDisk(tmp_path, lambda shape, dtype: asked.append((tuple(shape), dtype, scratch(tmp_path))))
    kept = [where.keep("x", PHANTOM.image.shape, np.int16, [PHANTOM.image]) for _ in range(2)]
    assert asked == [(PHANTOM.image.shape, np.dtype(np.int16), [])]
    assert same(*kept)


def test_arrays_are_compared_by_parts(monkeypatch):
    monkeypatch.setattr(store, "SLAB_VOXELS", 150)
    other = PHANTOM.image.copy()
    assert same(PHANTOM.image, other)
    other[-1, -1, -1] += 1
    assert not same(PHANTOM.image, other)
    assert not same(PHANTOM.image, other[1:])


@pytest.mark.parametrize("array", [PHANTOM.image, np.stack([PHANTOM.image] * 2), PHANTOM.image[:, ::-1], PHANTOM.image[:0]])
def test_slabs_are_the_whole_array_in_order(array, monkeypatch):
    monkeypatch.setattr(store, "SLAB_VOXELS", 250)
    found = list(slabs(array))
    assert all(slab.ndim == 3 and len(slab) in (1, 2) for slab in found)
    np.testing.assert_array_equal(np.concatenate([slab.ravel() for slab in found] or [[]]), array.ravel())


def test_channels_are_stacked_on_disk(tmp_path):
    volumes = [PHANTOM.image, PHANTOM.image.astype(np.float32)]
    np.testing.assert_array_equal(stack(volumes, OnDisk(tmp_path)), np.stack(volumes))
