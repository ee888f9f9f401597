"""Killed at any moment, a job is what it was or what it was to become; what it names cannot change unnoticed; nothing is left for ever."""

import builtins
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparseseg.contract import folders
from sparseseg.contract import job as job_module
from sparseseg.contract.box import box_to_json
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import InputError, JobError, OutputError, SparseSegError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import ANNOTATION, DENSE, EVENTS, IMAGE, LOG, RECORD, Job, JobRecord, remove_job
from sparseseg.contract.lock import HOST_LOCK, LOCK, Lock, Owner
from sparseseg.contract.settings import Settings

SHAPE = (4, 5, 6)
RECORD_OF = JobRecord(Geometry.from_axes(SHAPE, (1, 1, 2)), ClassTable.numbered(2), Settings())
IMAGE_OF = np.arange(120, dtype=np.int16).reshape(SHAPE)
STROKES = (np.arange(120) % 4).astype(np.uint8).reshape(SHAPE)
BOX = (slice(1, 2), slice(1, 4), slice(2, 5))
posix_only = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")


@pytest.fixture
def folder(tmp_path):
    make(tmp_path / "job")
    return tmp_path / "job"


def make(folder):
    Job.create(folder, IMAGE_OF, STROKES, RECORD_OF).close()


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def hand_over(folder, revision, value=3, box=BOX):
    """Write an update as a host does; what `Job.update` is to be told of it, and the annotation that it makes of STROKES."""
    after = STROKES.copy()
    after[slice(None) if box is None else box] = value
    np.save(folder / f"annotation-{revision:04d}.npy", after if box is None else after[box])
    return (f"annotation-{revision:04d}.npy", revision, [[0, 1]], [] if box is None else box_to_json(box)), after


def update(folder, revision, value=3, box=BOX):
    told, after = hand_over(folder, revision, value, box)
    with Job.open(folder) as job:
        job.adopt(job.update(*told))
    return after


# ---------------------------------------------------------------- short of memory


def test_what_fails_after_the_rename_changes_nothing_of_it(folder, monkeypatch):
    """The moment that job.json is renamed, the new annotation is the job's: also where the very next thing finds no memory."""
    told, after = hand_over(folder, 2)
    with Job.open(folder) as job:
        change = job.update(*told)
        rename = os.replace

        def replaced(source, target):
            rename(source, target)
            if Path(target).name == RECORD:
                monkeypatch.setattr(os, "open", no_memory)

        monkeypatch.setattr(os, "replace", replaced)
        job.adopt(change)
        monkeypatch.undo()
        assert job.record.revision == 2
    with Job.open(folder) as job:
        assert job.record.revision == 2 and (job.annotation() == after).all()


def no_memory(*arguments, **options):
    raise MemoryError


def test_a_record_is_adopted_once_it_is_there(folder, monkeypatch):
    told, _ = hand_over(folder, 2)
    with Job.open(folder) as job:
        change = job.update(*told)
        monkeypatch.setattr(folders, "_flush_names", no_memory)
        with pytest.raises(MemoryError):
            job.save_record(replace(job.record, revision=2, complete_slices=change.complete_slices))
        assert job.record.revision == 2


# ---------------------------------------------------------------- killed


class Killed(BaseException):
    """A process that is killed does nothing any more: no `except` and no `finally` of it writes or removes anything."""


class Killer:
    """Ends the process, as it were, at the n-th call that changes a disk."""

    def __init__(self, monkeypatch, at):
        self.left, self.dead = at, False
        for owner, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (os, "remove"), (os, "rmdir"), (os, "mkdir"), (os, "ftruncate")):
            monkeypatch.setattr(owner, name, self.wrapped(getattr(owner, name)))
        for name in ("unlink", "mkdir", "rmdir", "write_bytes", "write_text", "chmod"):
            monkeypatch.setattr(Path, name, self.wrapped(getattr(Path, name)))
        opened = builtins.open

        def watched(file, mode="r", *arguments, **options):
            handle = (
                opened(file, mode, *arguments, **options)
                if "r" in mode and "+" not in mode
                else self.wrapped(opened)(file, mode, *arguments, **options)
            )
            return handle if "r" in mode and "+" not in mode else Watched(handle, self)

        monkeypatch.setattr(builtins, "open", watched)

    def wrapped(self, call):
        def maybe(*arguments, **options):
            self.strike()
            return call(*arguments, **options)

        return maybe

    def strike(self):
        if self.dead or self.left == 0:
            self.dead = True
            raise Killed
        self.left -= 1


class Watched:
    """A file whose every write may be the last thing done, half of it."""

    def __init__(self, handle, killer):
        self.__dict__.update(handle=handle, killer=killer)

    def __getattr__(self, name):
        return getattr(self.handle, name)

    def __enter__(self):
        self.handle.__enter__()
        return self

    def __exit__(self, *what):
        return self.handle.__exit__(*what)

    def write(self, data):
        try:
            self.killer.strike()
        except Killed:
            if self.killer.left == 0:
                self.handle.write(data[: len(data) // 2])
                self.killer.left = -1
            raise
        return self.handle.write(data)

    def truncate(self, *size):
        self.killer.strike()
        return self.handle.truncate(*size)


def killed_at_every_call(tmp_path, monkeypatch, act, prepare=make):
    """Folders in which act(folder) was killed at its first, second, ... call that changes the disk; the last one was not killed."""
    for n in range(1000):
        folder = tmp_path / f"{n}"
        if prepare:
            prepare(folder)
        with monkeypatch.context() as patch:
            killer = Killer(patch, n)
            try:
                act(folder)
            except Killed:
                pass
            except SparseSegError:
                assert killer.dead
        Lock._held_here.clear()  # as the system does with the locks of a process that has died
        yield folder
        if not killer.dead:
            assert n > 5
            return
    pytest.fail("it does not end")


@pytest.mark.parametrize("box", [BOX, None], ids=["box", "whole"])
def test_an_update_that_is_killed_is_adopted_or_not_and_can_be_sent_again(tmp_path, monkeypatch, box):
    seen = set()

    def prepare(folder):
        make(folder)
        hand_over(folder, 2, box=box)

    def act(folder):
        told, _ = hand_over_again(box)
        with Job.open(folder) as job:
            job.adopt(job.update(*told))

    def hand_over_again(box):
        after = STROKES.copy()
        after[slice(None) if box is None else box] = 3
        return ("annotation-0002.npy", 2, [[0, 1]], [] if box is None else box_to_json(box)), after

    for folder in killed_at_every_call(tmp_path, monkeypatch, act, prepare):
        told, after = hand_over_again(box)
        with Job.open(folder) as job:
            revision = job.record.revision
            np.testing.assert_array_equal(job.annotation(), {1: STROKES, 2: after}[revision])
            assert job.record.complete_slices == {1: (), 2: ((0, 1),)}[revision]
            job.adopt(job.update(*told))  # the host, which has heard nothing
            np.testing.assert_array_equal(job.annotation(), after)
        assert names_in(folder) <= {IMAGE, RECORD, LOCK, *job.record.files, ANNOTATION}
        seen.add(revision)
    assert seen == {1, 2}


def test_gathering_that_is_killed_changes_nothing(tmp_path, monkeypatch):
    def prepare(folder):
        make(folder)
        update(folder, 2)

    def act(folder):
        with Job.open(folder) as job:
            job.gather_changes()

    after = STROKES.copy()
    after[BOX] = 3
    for folder in killed_at_every_call(tmp_path, monkeypatch, act, prepare):
        with Job.open(folder) as job:
            np.testing.assert_array_equal(job.annotation(), after)
            assert job.record.revision == 2
        assert names_in(folder) <= {IMAGE, RECORD, LOCK, ANNOTATION, *job.record.files}


@pytest.mark.parametrize("prepare", [None, make], ids=["new", "in place of another"])
def test_a_creation_that_is_killed_leaves_a_whole_job_or_none_and_can_be_done_again(tmp_path, monkeypatch, prepare):
    fresh = replace(RECORD_OF, revision=7)
    for folder in killed_at_every_call(tmp_path, monkeypatch, lambda f: Job.create(f, IMAGE_OF + 1, STROKES[::-1], fresh).close(), prepare):
        if (folder / RECORD).exists():
            with Job.open(folder) as job:
                is_new = job.record.revision == 7
                np.testing.assert_array_equal(job.annotation(), STROKES[::-1] if is_new else STROKES)
                np.testing.assert_array_equal(job.image(), IMAGE_OF + is_new)
                job.check_image()
        Job.create(folder, IMAGE_OF, STROKES, RECORD_OF).close()
        assert names_in(folder) == {IMAGE, ANNOTATION, RECORD, LOCK}


def test_a_removal_that_is_killed_can_be_done_again(tmp_path, monkeypatch):
    for folder in killed_at_every_call(tmp_path, monkeypatch, remove_job):
        if folder.exists() and any(folder.iterdir()):
            remove_job(folder)
            assert not folder.exists()


def test_an_owner_that_is_killed_is_in_nobodys_way(tmp_path, monkeypatch):
    def act(folder):
        with Owner(folder):
            make(folder)

    for folder in killed_at_every_call(tmp_path, monkeypatch, act, None):
        with Owner(folder):
            make(folder)
            Job.open(folder).close()
        assert HOST_LOCK not in names_in(folder)


def test_a_disk_that_is_full_at_any_call_changes_nothing(folder, monkeypatch):
    """As a kill, but what is done about a refusal is done."""
    told, after = hand_over(folder, 2)
    saved, n = job_module.write_whole, iter((0, 1, 0))

    def full(path, write, *others):
        if next(n) == 0:
            raise OSError(28, "No space left on device")
        saved(path, write, *others)

    monkeypatch.setattr(job_module, "write_whole", full)
    with Job.open(folder) as job:
        for _ in range(2):  # the annotation; the record
            with pytest.raises(OutputError, match="No space left"):
                job.adopt(job.update(*told))
            assert job.record == RECORD_OF
            assert names_in(folder) == {IMAGE, ANNOTATION, RECORD, LOCK, "annotation-0002.npy"}
        monkeypatch.setattr(job_module, "write_whole", saved)
        job.adopt(job.update(*told))
        np.testing.assert_array_equal(job.annotation(), after)


def test_a_gathering_that_fails_after_adoption_is_no_refusal(folder, monkeypatch):
    monkeypatch.setattr(job_module, "_MOST_CHANGES", 0)
    monkeypatch.setattr(Job, "gather_changes", lambda _: (_ for _ in ()).throw(MemoryError()))
    after = update(folder, 2)
    with Job.open(folder) as job:
        np.testing.assert_array_equal(job.annotation(), after)


# ---------------------------------------------------------------- what is named stays


def test_a_host_that_goes_on_writing_changes_nothing_that_was_adopted(folder):
    """In place, too: also while the update is being adopted."""
    told, after = hand_over(folder, 2)
    with Job.open(folder) as job:
        new = job.update(*told)
        file = np.load(folder / "annotation-0002.npy", mmap_mode="r+")
        file[...] = 1
        file.flush()
        job.adopt(new)
        hand_over(folder, 2, value=1)
        np.testing.assert_array_equal(job.annotation(), after)
    with Job.open(folder) as job:
        np.testing.assert_array_equal(job.annotation(), after)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def of_another_job(path):
    np.save(path, np.load(path) ^ 1)


@pytest.mark.parametrize("harm", [flip, cut, of_another_job, os.unlink])
@pytest.mark.parametrize("which", ["image", "first", "change"])
def test_what_was_changed_from_outside_is_noticed(folder, harm, which):
    update(folder, 2)
    with Job.open(folder) as job:
        harm(job.path({"image": IMAGE, "first": ANNOTATION, "change": job.record.changes[0].file}[which]))
    with Job.open(folder) as job, pytest.raises(JobError, match=r"(changed from outside|missing, truncated or foreign).*Export the data again"):
        job.check_image()
        assert job.annotation() is not None
        pytest.fail("not noticed")


def test_a_job_without_checksums_is_opened_as_ever(folder):
    data = json.loads((folder / RECORD).read_text())
    del data["checksums"]
    (folder / RECORD).write_text(json.dumps(data))
    with Job.open(folder) as job:
        job.check_image()
        np.testing.assert_array_equal(job.annotation(), STROKES)


# ---------------------------------------------------------------- sent again


def test_an_adopted_revision_is_welcome_again_with_the_same_content_only(folder):
    after = update(folder, 2)
    told, _ = hand_over(folder, 2)
    with Job.open(folder) as job:
        again = job.update(*told)
        assert again.is_adopted
        job.adopt(again)
        assert not job.path("annotation-0002.npy").exists()
        assert job.update(*told).is_adopted, "its file was taken over"
        with pytest.raises(JobError, match="has a revision 2 already, and that is another annotation"):
            job.update(*hand_over(folder, 2, value=1)[0])
        with pytest.raises(JobError, match="another annotation"):
            job.update(told[0], 2, [], told[3])
        np.testing.assert_array_equal(job.annotation(), after)
        with pytest.raises(JobError, match="a revision above 2"):
            job.update("annotation-0001.npy", 1, [])


# ---------------------------------------------------------------- names and values

OWN = [IMAGE, ANNOTATION, RECORD, LOCK, HOST_LOCK, DENSE, "model.pt", "weights.npy", "preview-0001-0001.npy", LOG, EVENTS, "report.json"]
FOREIGN = ["annotation-0002-1a2b3c4d.npy", "annotation-0002-all.npy", "Annotation-0002.npy", "annotation-0002.NPY", "annotation-٢.npy"]
PATHS = [
    "../annotation-0002.npy",
    "/annotation-0002.npy",
    "a/annotation-0002.npy",
    "annotation-0002.npy/",
    "annotation-0002.npy\0",
    ".",
    "",
    "annotation-2.npy:x",
]


@pytest.mark.parametrize("name", [*OWN, *FOREIGN, *PATHS, None, 7, f"annotation-{'1' * 300}.npy"])
def test_no_other_file_can_be_an_update(folder, name):
    (folder / "annotation-0002.npy").write_bytes((folder / ANNOTATION).read_bytes())
    with Job.open(folder) as job, pytest.raises(JobError, match="must name a file in the job folder"):
        job.update(name, 2, [])


@pytest.mark.parametrize("revision", [2**53, 10**400, -1, 1.5, True, None, "2", float("nan"), float("inf")])
def test_a_revision_is_bounded_in_updates_and_records(folder, revision):
    told, _ = hand_over(folder, 2)
    with Job.open(folder) as job, pytest.raises(InputError):
        job.update(told[0], revision, [])
    with pytest.raises(InputError, match="revision is a whole number"):
        replace(RECORD_OF, revision=revision)


@posix_only
@pytest.mark.parametrize("name", [IMAGE, ANNOTATION, "annotation-0002.npy", RECORD, LOCK, HOST_LOCK])
@pytest.mark.parametrize("kind", ["pipe", "link", "endless", "folder"])
def test_pipes_links_devices_and_folders_are_no_files_of_a_job(folder, tmp_path, name, kind):
    other = tmp_path / "other"
    other.write_bytes((folder / ANNOTATION).read_bytes())
    before = other.read_bytes()
    (folder / name).unlink(missing_ok=True)
    {
        "pipe": os.mkfifo,
        "link": lambda path: path.symlink_to(other),
        "endless": lambda path: path.symlink_to("/dev/zero"),
        "folder": os.mkdir,
    }[kind](folder / name)
    start = time.monotonic()
    with pytest.raises(SparseSegError), Owner(folder), Job.open(folder) as job:
        job.check_image()
        job.annotation()
        job.update("annotation-0002.npy", 2, [])
    assert time.monotonic() - start < 5
    assert other.read_bytes() == before


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("annotation", "../../x.npy"),
        ("annotation", "image.npy"),
        ("annotation", ["annotation.npy"]),
        ("changes", [{"file": "/etc/passwd", "box": []}]),
        ("changes", [{"file": "annotation-0002.npy", "box": [[0, 1], [0, 1], [0, 10**30]]}]),
        ("changes", [{"file": "annotation-0002.npy", "box": [[0, 1], [0, 1], [0, True]]}]),
        ("changes", {"file": "annotation-0002.npy"}),
        ("checksums", {"annotation.npy": -1}),
        ("checksums", {"annotation.npy": 1.0}),
        ("checksums", []),
        ("source_uids", [1]),
        ("source_uids", "1.2"),
        ("channels", [1]),
        ("revision", 2**53),
        ("geometry", {"shape_kji": [4, 5, 6], "ijk_to_lps": [["1", 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}),
        ("geometry", {"shape_kji": [4, 5, True], "ijk_to_lps": np.eye(4).tolist()}),
        ("geometry", {"shape_kji": [2**21, 5, 6], "ijk_to_lps": np.eye(4).tolist()}),
        ("geometry", {"shape_kji": [2**19, 2**19, 2**19], "ijk_to_lps": np.eye(4).tolist()}),
        ("geometry", {"shape_kji": [4, 5, 6], "ijk_to_lps": (np.eye(4) * 2).tolist()}),
        ("geometry", {"shape_kji": [4, 5, 6], "ijk_to_lps": np.diag([1e-12, 1, 1, 1]).tolist()}),
        ("geometry", {"shape_kji": [4, 5, 6], "ijk_to_lps": np.diag([1e12, 1, 1, 1]).tolist()}),
        ("geometry", {"shape_kji": [4, 5, 6], "ijk_to_lps": [[1, 0, 0, 1e300], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}),
        ("geometry", {"shape_kji": [4, 5, 6], "ijk_to_lps": [[10**400, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}),
        ("settings", {"time_budget_s": float("nan")}),
        ("settings", {"learning_rate": float("inf")}),
    ],
)
def test_values_out_of_range_are_refused_in_a_record(folder, part, value):
    data = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**data, part: value}))
    with pytest.raises(JobError, match=r"job\.json is damaged"):
        Job.open(folder)


@pytest.mark.parametrize("color", [[2, 0, 0], [0, -0.1, 0], [0, 0, float("nan")], ["0", 0, 0], [True, 0, 0], [0, 0], "red", [10**400, 0, 0]])
def test_a_color_that_is_none_is_refused_in_a_record(folder, color):
    data = json.loads((folder / RECORD).read_text())
    data["classes"]["segments"][0]["color"] = color
    (folder / RECORD).write_text(json.dumps(data))
    with pytest.raises(JobError, match=r"job\.json is damaged"):
        Job.open(folder)


def test_an_endless_record_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(job_module, "_MOST_RECORD", 100)
    with pytest.raises(JobError, match=r"job\.json is damaged"):
        Job.open(folder)


@pytest.mark.parametrize("path", ["n" * 300, "/".join(["n" * 200] * 30), "a\0b"])
def test_a_path_that_no_system_knows_is_a_sentence(tmp_path, path):
    for act in (Job.open, lambda where: Job.create(where, IMAGE_OF, None, RECORD_OF)):
        with pytest.raises(SparseSegError):
            act(tmp_path / path)


# ---------------------------------------------------------------- nothing left


def test_what_dead_sessions_left_goes_at_the_next_opening(folder):
    after = update(folder, 3)
    left = [".dense.npy.4711.part", ".annotation-0003.npy.4711.part", ".job.json.1.part", "preview-0002-0001.npy", ".preview-0002-0001.npy.1.part"]
    left += [
        "annotation-0002.npy",
        "annotation-0003.npy",
        "annotation-0003-12345678.npy",
        "annotation-0002-all-12345678.npy",
        "annotation-0001-all.npy",
    ]
    kept = ["notes.txt", ".notes.txt.1.part", "annotation-0004.npy", ".annotation-0004.npy.4711.part", "preview-of-mine.npy", DENSE, EVENTS]
    for name in (*left, *kept):
        (folder / name).write_bytes(b"x")
    with open(folder / LOG, "wb") as log:
        log.truncate(2**23)
    with Job.open(folder) as job:
        np.testing.assert_array_equal(job.annotation(), after)
        assert names_in(folder) == {IMAGE, RECORD, LOCK, *job.record.files, *kept}


def test_a_thousand_updates_in_a_hundred_sessions_leave_no_more_than_one(folder, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # takes its time
    random, after = np.random.default_rng(0), STROKES.copy()
    for session in range(100):
        with Job.open(folder) as job:
            for n in range(10):
                revision, box = 2 + 10 * session + n, tuple(slice(m, m + 1) for m in random.integers(0, 4, 3).tolist())
                after[box] = n % 4
                job.save_array(f"annotation-{revision:04d}.npy", after[box], lasting=False)
                job.adopt(job.update(f"annotation-{revision:04d}.npy", revision, [], box_to_json(box)))
    with Job.open(folder) as job:
        np.testing.assert_array_equal(job.annotation(), after)
        assert names_in(folder) <= {IMAGE, RECORD, LOCK, *job.record.files}
        assert len(job.record.changes) <= job_module._MOST_CHANGES


# ---------------------------------------------------------------- one owner

HOLD = """
import sys
from pathlib import Path
from sparseseg.contract.job import Job
from sparseseg.contract.lock import Owner
with Owner(Path(sys.argv[1])):
    sys.stdout.write("held\\n")
    sys.stdout.flush()
    sys.stdin.read()
"""


@pytest.fixture
def owner(folder, start_python):
    process = start_python(HOLD, folder)
    assert process.stdout.readline() == "held\n", process.stderr.read()
    return process


def test_who_does_not_own_a_job_gets_at_it_in_no_way_also_while_no_engine_runs(folder, owner):
    for attempt in (Owner, Job.open, remove_job, lambda path: Job.create(path, IMAGE_OF, None, RECORD_OF), lambda path: Job.open(path, 1)):
        with pytest.raises(JobError, match=rf"in use by another process \(process {owner.pid}\)"):
            attempt(folder)
    Job.open(folder, owner.pid).close()  # its engine
    owner.kill()
    owner.wait(30)
    with Owner(folder):
        Job.open(folder).close()
    assert HOST_LOCK not in names_in(folder)


def test_an_owner_is_refused_while_another_engine_has_the_job_open(folder):
    with Job.open(folder), pytest.raises(JobError, match="already open in this process"):
        Owner(folder)
    assert HOST_LOCK not in names_in(folder)
    with Owner(folder), pytest.raises(JobError, match="already open in this process"):
        Owner(folder)


def test_an_owner_leaves_no_folder_in_which_nothing_was_made(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        with Owner(tmp_path / name):
            pass
    assert names_in(tmp_path) == {"there"}
    (tmp_path / "there" / "notes.txt").write_text("mine")
    with Owner(tmp_path / "there"), pytest.raises(JobError, match="not empty"):
        make(tmp_path / "there")
    assert names_in(tmp_path / "there") == {"notes.txt"}


@posix_only
@pytest.mark.parametrize("number", [37, 95])  # no locks available; not supported
def test_a_file_system_that_cannot_lock_is_said_in_a_sentence(folder, monkeypatch, number):
    def cannot(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("sparseseg.contract.lock.lock_file", cannot)
    with pytest.raises(OutputError, match=r"Nothing can be locked in .* Choose a folder on a disk of this machine"):
        Lock(folder)


def test_many_who_want_a_job_at_once_have_it_one_after_the_other(tmp_path):
    """Also while the lock's file is removed by who had it."""
    code = """
import sys, time
from pathlib import Path
from sparseseg.contract.errors import JobError
from sparseseg.contract.lock import Owner
folder, had = Path(sys.argv[1]), 0
end = time.monotonic() + 3
while had < 20 and time.monotonic() < end:
    try:
        with Owner(folder):
            (folder / "mine").mkdir()  # fails where another is in
            (folder / "mine").rmdir()
            had += 1
    except JobError:
        pass
sys.stdout.write(str(had))
"""
    (tmp_path / "job").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(job_module.__file__).parents[2])}
    command = [sys.executable, "-c", code, str(tmp_path / "job")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in started]
    assert all(process.returncode == 0 for process in started), outputs
    assert all(int(out) > 0 for out, _ in outputs), outputs
