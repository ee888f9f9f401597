"""The job folder: written whole or not at all, held by one process, and refused with a sentence where it is not right."""

import contextlib
import json
import math
import os
import stat
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparseseg.contract import job as job_module
from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.contract.errors import InputError, JobError, OutputError
from sparseseg.contract.folders import write_whole
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import (
    ANNOTATION,
    DENSE,
    IMAGE,
    PRIOR,
    RECORD,
    REPORT,
    Job,
    JobRecord,
    checked_slices,
    remove_job,
)
from sparseseg.contract.lock import LOCK, Lock
from sparseseg.contract.settings import Settings

SHAPE = (3, 4, 5)
TABLE = ClassTable((Segment("Segment_3", "Ø", (1, 0, 0), {"a": "b"}), Segment("Segment_1", "two", (0, 1, 0))), Segment("rest", "rest", (0, 0, 0)))
RECORD_OF = JobRecord(Geometry.from_axes(SHAPE, (1, 1, 2)), TABLE, Settings(steps=7), complete_slices=((0, 2), (1, 3)))
IMAGE_OF = np.arange(60, dtype=np.int16).reshape(SHAPE)
STROKES = (np.arange(60) % 4).astype(np.uint8).reshape(SHAPE)

posix_only = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and limits")


@pytest.fixture
def folder(tmp_path):
    """A complete job, closed."""
    Job.create(tmp_path / "job", IMAGE_OF, STROKES, RECORD_OF).close()
    return tmp_path / "job"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def change_record(folder, **fields):
    data = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**data, **fields}))


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", ["job", "a job", "Käse größer ł 日本", "a/b/c"])
def test_a_job_comes_back_as_it_was_made(tmp_path, name):
    with Job.create(tmp_path / name, IMAGE_OF, STROKES, RECORD_OF):
        pass
    with Job.open(tmp_path / name) as job:
        assert job.record == RECORD_OF
        assert (job.image() == IMAGE_OF).all()
        assert job.image().dtype == np.int16
        assert (job.annotation() == STROKES).all()
        assert job.dense() is None


def test_arrays_are_mapped_not_read(folder):
    with Job.open(folder) as job:
        assert isinstance(job.image(), np.memmap)
        assert not job.image().flags.writeable


def test_a_job_without_annotation_says_so(tmp_path):
    with Job.create(tmp_path / "job", IMAGE_OF, None, RECORD_OF) as job:
        assert job.annotation() is None
    assert names_in(tmp_path / "job") == [IMAGE, RECORD, LOCK]


def test_fortran_ordered_arrays_keep_their_axes(tmp_path):
    with Job.create(tmp_path / "job", np.asfortranarray(IMAGE_OF), np.asfortranarray(STROKES), RECORD_OF) as job:
        assert (job.image() == IMAGE_OF).all()
        assert (job.annotation() == STROKES).all()


@posix_only
def test_the_folder_is_private(tmp_path):
    (tmp_path / "there").mkdir(mode=0o755)
    for name in ("new", "there"):
        Job.create(tmp_path / name, IMAGE_OF, STROKES, RECORD_OF).close()
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700


def test_an_older_job_is_replaced_whole(folder):
    for name in (DENSE, "model.pt", "preview-3.npy", ".image.npy.1.part", "annotation-2.npy"):
        (folder / name).write_bytes(b"old")
    (folder / "notes.txt").write_text("mine")
    Job.create(folder, IMAGE_OF + 1, None, replace(RECORD_OF, revision=5)).close()
    assert names_in(folder) == [IMAGE, RECORD, LOCK, "notes.txt"]
    with Job.open(folder) as job:
        assert job.record.revision == 5
        assert job.image()[0, 0, 0] == 1


def test_a_new_annotation_is_adopted_with_its_revision_and_slices(folder):
    with Job.open(folder) as job:
        job.save_array("annotation-2.npy", STROKES[::-1])
        job.adopt(job.update("annotation-2.npy", 2, [[2, 4]]))
    with Job.open(folder) as job:
        assert (job.annotation() == STROKES[::-1]).all()
        assert (job.record.revision, job.record.complete_slices) == (2, ((2, 4),))
        assert job.record.settings == RECORD_OF.settings
    assert names_in(folder) == ["annotation-0002-7019de8c.npy", IMAGE, RECORD, LOCK]


def test_a_box_changes_that_part_of_the_annotation(folder):
    with Job.open(folder) as job:
        job.save_array("annotation-2.npy", np.full((1, 2, 3), 2, np.uint8))
        job.adopt(job.update("annotation-2.npy", 2, [[0, 1]], [[2, 3], [1, 3], [0, 3]]))
        job.save_array("annotation-3.npy", np.full((1, 1, 1), 1, np.uint8))
        job.adopt(job.update("annotation-3.npy", 3, [], [[2, 3], [2, 3], [1, 2]]))
    expected = STROKES.copy()
    expected[2, 1:3, 0:3] = 2
    expected[2, 2, 1] = 1
    with Job.open(folder) as job:
        assert (job.annotation() == expected).all()
        assert (job.record.revision, job.record.complete_slices) == (3, ())
        job.gather_changes()
        assert (job.annotation() == expected).all()
    assert names_in(folder) == ["annotation-0003-all-d021428b.npy", IMAGE, RECORD, LOCK]
    with Job.open(folder) as job:
        assert (job.annotation() == expected).all()


def test_many_changes_are_gathered(folder, monkeypatch):
    monkeypatch.setattr(job_module, "_MOST_CHANGES", 3)
    with Job.open(folder) as job:
        for revision in range(2, 7):
            job.save_array(f"annotation-{revision}.npy", np.full((1, 1, 1), revision % 3, np.uint8))
            job.adopt(job.update(f"annotation-{revision}.npy", revision, [], [[0, 1], [0, 1], [revision - 2, revision - 1]]))
        expected = STROKES.copy()
        expected[0, 0, :5] = [2, 0, 1, 2, 0]
        assert (job.annotation() == expected).all()
        assert len(job.record.changes) <= 3


@pytest.mark.parametrize(
    "box", [[[0, 1]], [[0, 1], [0, 1], [0, 99]], [[1, 1], [0, 1], [0, 1]], [[0, 1], [0, 1], [0, 1.0]], [[-1, 1], [0, 1], [0, 1]], 7]
)
def test_what_is_no_box_is_refused(folder, box):
    with Job.open(folder) as job:
        job.save_array("annotation-2.npy", np.zeros((1, 1, 1), np.uint8))
        with pytest.raises(InputError, match="box"):
            job.update("annotation-2.npy", 2, [], box)
        assert job.record == RECORD_OF


@pytest.mark.parametrize("name", ["annotation-2.npy", ANNOTATION])
def test_arrays_are_saved_in_c_order(folder, name):
    with Job.open(folder) as job:
        job.save_array(name, np.asfortranarray(STROKES))
        assert np.load(folder / name).flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "name", "revision", "slices", "words"),
    [
        (STROKES, "annotation-2.npy", 2, [[5, 5]], "axis 0, 1 or 2"),
        (STROKES, "annotation-2.npy", 2, [[0, 3]], "Complete slice 3 along axis k lies outside"),
        (STROKES, "annotation-2.npy", 2, [[0, 1.0]], "axis 0, 1 or 2"),
        (STROKES[1:], "annotation-2.npy", 2, [], "the job expects"),
        (STROKES, "annotation-3.npy", 2, [], "missing"),
        (STROKES, "../job/annotation-2.npy", 2, [], "must name a file in the job folder and a revision above 1"),
        (STROKES, "annotation-2.npy", 1, [], "revision above 1"),
        (STROKES, "annotation-2.npy", 2.0, [], "whole number"),
    ],
)
def test_all_is_checked_before_the_annotation_is_replaced(folder, array, name, revision, slices, words):
    before = (folder / ANNOTATION).read_bytes(), (folder / RECORD).read_bytes()
    with Job.open(folder) as job:
        job.save_array("annotation-2.npy", array)
        with pytest.raises(InputError, match=words):
            job.adopt(job.update(name, revision, slices))
        assert job.record == RECORD_OF
        assert job.path("annotation-2.npy").exists()
    assert ((folder / ANNOTATION).read_bytes(), (folder / RECORD).read_bytes()) == before


def test_an_annotation_that_cannot_be_adopted_leaves_the_old_one(folder, monkeypatch):
    before, replaced = (folder / ANNOTATION).read_bytes(), os.replace
    refusals = iter([True])

    def refuse_once(source, place):
        if Path(place).name == RECORD and next(refusals, False):
            raise OSError(28, "No space left on device")
        replaced(source, place)

    with Job.open(folder) as job:
        job.save_array("annotation-2.npy", STROKES[::-1])
        monkeypatch.setattr(os, "replace", refuse_once)
        with pytest.raises(OutputError, match="No space left"):
            job.adopt(job.update("annotation-2.npy", 2, []))
        assert job.record == RECORD_OF
    assert (folder / ANNOTATION).read_bytes() == before
    with Job.open(folder) as job:
        assert job.record == RECORD_OF


def test_numbers_that_json_lacks_become_null(folder):
    with Job.open(folder) as job:
        job.save_json(REPORT, {"a": float("nan"), "b": [1, (np.float64("inf"), 2.5)], "c": {"d": -math.inf}})
        assert json.loads(job.path(REPORT).read_text(), parse_constant=pytest.fail) == {"a": None, "b": [1, [None, 2.5]], "c": {"d": None}}


def test_json_files_are_ascii(folder):
    with Job.open(folder) as job:
        job.save_json(REPORT, {"name": "Ø 日本"})
        assert job.path(REPORT).read_bytes().isascii()
        assert json.loads(job.path(REPORT).read_text()) == {"name": "Ø 日本"}
    assert (folder / RECORD).read_bytes().isascii()


def test_slices_become_plain_pairs():
    assert checked_slices([[0, 5], (np.int64(2), np.int64(7))]) == ((0, 5), (2, 7))


@pytest.mark.parametrize("pairs", [[[3, 0]], [[0, -1]], [[0]], [[0, 1, 2]], [[-1, 0]], [[0, 1.5]], [[True, 1]], [["0", 1]], [3], 3])
def test_what_is_no_slice_is_refused(pairs):
    with pytest.raises(InputError, match="axis 0, 1 or 2"):
        checked_slices(pairs)


# ---------------------------------------------------------------- written whole


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def half(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with Job.open(folder) as job, pytest.raises(OutputError, match=r"No space left on device \(\d+ MiB free\).*Free space"):
        job.save_bytes(ANNOTATION, half)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK} == {k: v for k, v in before.items() if k != LOCK}


def test_other_failures_while_writing_leave_the_old_file_too(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def interrupted(file):
        file.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a", interrupted)
    assert names_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_file_has_its_name_only_once_it_is_whole_and_on_disk(tmp_path, monkeypatch):
    seen = []
    replaced, synced = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append("flushed"), synced(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(("renamed", Path(a).read_bytes())), replaced(a, b)))

    def write(file):
        file.write(b"whole")
        seen.append((tmp_path / "a").exists())

    write_whole(tmp_path / "a", write)
    assert seen[:3] == [False, "flushed", ("renamed", b"whole")]
    assert seen[3:] == ["flushed"] * (os.name == "posix")  # its name


@posix_only
def test_a_full_disk_is_said_in_a_sentence_and_the_old_file_stays(folder, start_python):
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from sparseseg.contract.errors import OutputError
from sparseseg.contract.job import Job
with Job.open(Path(sys.argv[1])) as job:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        job.save_array("image.npy", np.ones((50, 50, 50)))
    except OutputError as error:
        sys.stdout.write(error.sentence)
"""
    out, err = start_python(code, folder).communicate(timeout=60)
    assert out.startswith(f"Could not write in {folder}"), err
    assert names_in(folder) == [ANNOTATION, IMAGE, RECORD, LOCK]
    with Job.open(folder) as job:
        assert (job.image() == IMAGE_OF).all()


@posix_only
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        Job.create(tmp_path / "closed" / "job", IMAGE_OF, STROKES, RECORD_OF)


# ---------------------------------------------------------------- one writer

HOLD = """
import sys
from pathlib import Path
from sparseseg.contract.job import Job
job = Job.open(Path(sys.argv[1]))
sys.stdout.write("held\\n")
sys.stdout.flush()
sys.stdin.read()
"""


@pytest.fixture
def holder(folder, start_python):
    process = start_python(HOLD, folder)
    assert process.stdout.readline() == "held\n", process.stderr.read()
    return process


def test_a_job_held_by_a_live_process_is_refused_and_the_process_named(folder, holder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    for attempt in (lambda: Job.open(folder), lambda: Job.create(folder, IMAGE_OF, None, RECORD_OF), lambda: remove_job(folder)):
        with pytest.raises(JobError, match=rf"in use by another process \(process {holder.pid}\)"):
            attempt()
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_killed_process_holds_no_job(folder, holder):
    holder.kill()
    holder.wait(timeout=30)
    with Job.open(folder) as job:
        assert json.loads(job.path(LOCK).read_text()) == {"pid": os.getpid()}


def test_a_job_is_held_against_its_own_process_too(folder):
    with Job.open(folder):
        for attempt in (lambda: Job.open(folder), lambda: Job.create(folder, IMAGE_OF, None, RECORD_OF), lambda: remove_job(folder)):
            with pytest.raises(JobError, match=r"already open in this process\. Finish or close"):
                attempt()
    Job.open(folder).close()


def test_a_lock_file_that_says_nothing_does_not_hide_the_refusal(folder, holder):
    (folder / LOCK).write_text("")
    with pytest.raises(JobError, match=r"in use by another process\. "):
        Job.open(folder)


@posix_only
def test_a_disk_too_full_for_the_lock_is_said_in_a_sentence(folder, start_python):
    code = """
import resource, sys
from pathlib import Path
from sparseseg.contract.errors import OutputError
from sparseseg.contract.lock import Lock
limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
try:
    Lock(Path(sys.argv[1]))
except OutputError as error:
    sys.stdout.write(error.sentence)
resource.setrlimit(resource.RLIMIT_FSIZE, limit)
Lock(Path(sys.argv[1]))  # the one that failed holds nothing
sys.stdout.write(" taken")
"""
    out, err = start_python(code, folder).communicate(timeout=60)
    assert out.startswith(f"Could not write in {folder}"), err
    assert out.endswith(" taken"), err


def test_a_refused_job_is_not_left_locked(folder):
    change_record(folder, schema_version=99)
    with pytest.raises(JobError):
        Job.open(folder)
    lock = Lock(folder)
    lock.release()
    lock.release()


def test_a_failed_creation_leaves_no_lock_and_no_complete_job(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        Job.create(tmp_path / "job", np.array([[[object()]]]), None, RECORD_OF)
    with pytest.raises(JobError, match="holds no job"):
        Job.open(tmp_path / "job")
    Lock(tmp_path / "job").release()


# ---------------------------------------------------------------- refusals


def test_a_folder_with_foreign_files_is_not_used(tmp_path):
    (tmp_path / "image.npy").write_text("mine")
    with pytest.raises(JobError, match="not empty and holds no job"):
        Job.create(tmp_path, IMAGE_OF, STROKES, RECORD_OF)
    assert names_in(tmp_path) == ["image.npy"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "f").write_text("mine")
    with pytest.raises(JobError, match="is a file, not a folder"):
        Job.create(tmp_path / "f", IMAGE_OF, None, RECORD_OF)
    with pytest.raises(OutputError, match="Could not write"):
        Job.create(tmp_path / "f" / "job", IMAGE_OF, None, RECORD_OF)
    assert (tmp_path / "f").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("job.json", '{"project": 1}'),
        ("job.json", '{"schema_version": 2}'),
        ("job.json", "\xff"),
        ("lock", '{"project": 1}'),
        ("lock", '{"pid": 1, "host": "here"}'),
        ("lock", ""),
        ("lock", '{"pid": 1}'),
        ("preview-of-mine.npy", ""),
    ],
)
def test_another_programs_files_are_not_deleted(tmp_path, name, text):
    files = {name: text, "log.txt": "mine", "model.pt": "mine", "notes.txt": "mine"}
    for file, content in files.items():
        (tmp_path / file).write_text(content, encoding="latin-1")
    with pytest.raises(JobError, match="not empty and holds no job"):
        Job.create(tmp_path, IMAGE_OF, None, RECORD_OF)
    with pytest.raises(JobError, match="holds no job"):
        remove_job(tmp_path)
    with pytest.raises(JobError):
        Job.open(tmp_path)
    assert {path.name: path.read_text(encoding="latin-1") for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("lock", ['{"pid": 123}', ""])
def test_what_an_interrupted_creation_left_is_used_again(tmp_path, lock):
    (tmp_path / LOCK).write_text(lock)
    if lock:  # it is written before anything else
        (tmp_path / IMAGE).write_bytes(b"old")
        (tmp_path / ".annotation.npy.123.part").write_bytes(b"half")
    Job.create(tmp_path, IMAGE_OF, None, RECORD_OF).close()
    assert names_in(tmp_path) == [IMAGE, RECORD, LOCK]


@pytest.mark.parametrize("change", [lambda text: text.replace('"schema_version": 2', '"schema_version": 99'), lambda text: text[: len(text) // 2]])
def test_a_damaged_job_and_one_of_another_version_can_be_replaced_and_removed(folder, change):
    (folder / "notes.txt").write_text("mine")
    for act in (lambda: Job.create(folder, IMAGE_OF, None, RECORD_OF).close(), lambda: remove_job(folder)):
        (folder / RECORD).write_text(change((folder / RECORD).read_text()))
        with pytest.raises(JobError):
            Job.open(folder)
        act()
    assert names_in(folder) == ["notes.txt"]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")], ids=["missing", "empty", "file"])
def test_what_holds_no_job_is_not_opened(tmp_path, make):
    make(tmp_path / "job")
    with pytest.raises(JobError, match="holds no job"):
        Job.open(tmp_path / "job")
    with pytest.raises(JobError, match="holds no job"):
        remove_job(tmp_path / "job")


@pytest.mark.parametrize("version", [0, 1, "2", None, True, 2.0, "2" * 10_000])
def test_another_schema_version_is_refused(folder, version):
    change_record(folder, schema_version=version)
    with pytest.raises(JobError, match=f"The job has schema version {version!r:.20}, this engine reads 2"):
        Job.open(folder)


@pytest.mark.parametrize("sentence, advice", [("It holds " + "x" * 10_000 + ".", "Look."), ("No.", "Look at " + "x" * 10_000 + ".")])
def test_what_is_quoted_makes_no_sentence_endless(sentence, advice):
    error = JobError(sentence, advice)
    assert len(error.sentence) < 1000 > len(error.advice) and len(str(error)) < 1000
    assert (error.sentence[:3], error.sentence[-1], error.advice[:4], error.advice[-1]) == (sentence[:3], ".", advice[:4], ".")


@pytest.mark.parametrize("text", ['{"project": 1}', "[]", "1", "null"])
def test_a_foreign_record_is_refused(folder, text):
    (folder / RECORD).write_text(text)
    (folder / LOCK).unlink()
    with pytest.raises(JobError, match="not a record of this program"):
        Job.open(folder)
    assert not (folder / LOCK).exists()  # nothing is left in a foreign folder


def test_a_record_cut_anywhere_is_refused(folder):
    whole = (folder / RECORD).read_bytes()
    for length in range(0, len(whole) - 1, 61):
        (folder / RECORD).write_bytes(whole[:length])
        with pytest.raises(JobError, match=r"job\.json is damaged"):
            Job.open(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"geometry": None},
        {"geometry": {"shape_kji": [1, 2], "ijk_to_lps": np.eye(4).tolist()}},
        {"geometry": {"shape_kji": [1, 2, 3]}},
        {"classes": {"segments": [{"value": 1}]}},
        {"classes": {"segments": [{"value": 2, "id": "a", "name": "a", "color": [0, 0, 0]}]}},
        {"settings": {"steps": -1}},
        {"settings": {"no such": 1}},
        {"settings": []},
        {"revision": "first"},
        {"complete_slices": [[7, 0]]},
        {"complete_slices": 3},
        {"complete_slices": [[0, 3]]},
        {"complete_slices": [[0, 1.5]]},
        {"classes": []},
        {"revision": float("inf")},
        {"revision": 1.5},
        {"revision": True},
        {"geometry": {"shape_kji": [float("inf"), 1, 1], "ijk_to_lps": np.eye(4).tolist()}},
    ],
)
def test_a_record_with_wrong_parts_is_refused(folder, fields):
    change_record(folder, **fields)
    with pytest.raises(JobError, match=r"job\.json is damaged \(.*Start a new job"):
        Job.open(folder)


@pytest.mark.parametrize("part", ["geometry", "classes", "settings", "revision", "complete_slices", "engine_version"])
def test_a_record_with_a_part_missing_is_refused(folder, part):
    data = json.loads((folder / RECORD).read_text())
    del data[part]
    (folder / RECORD).write_text(json.dumps(data))
    with pytest.raises(JobError, match=f"job.json is damaged .*{part}"):
        Job.open(folder)


def test_what_is_wrong_with_a_record_is_said_in_short(folder):
    change_record(folder, geometry={"shape_kji": ["x" * 5000, 1, 1], "ijk_to_lps": np.eye(4).tolist()})
    with pytest.raises(JobError, match=r"job\.json is damaged") as refused:
        Job.open(folder)
    assert len(refused.value.sentence) < 400


def test_a_record_nested_too_deep_is_refused(folder):
    (folder / RECORD).write_text("[" * 100_000)
    with pytest.raises(JobError, match=r"job\.json is damaged"):
        Job.open(folder)


def test_an_array_whose_header_is_damaged_anywhere_is_refused_or_fits(folder):
    whole, random = (folder / IMAGE).read_bytes(), np.random.default_rng(0)
    changes = [(place, int(value)) for place in range(128) for value in random.integers(0, 256, 6)] + [(10, 0x0C), (10, ord("(")), (70, 0)]
    with Job.open(folder) as job, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy suspects files of Python 2
        for place, value in changes:
            (folder / IMAGE).write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            with contextlib.suppress(JobError):
                assert job.image().shape == SHAPE


def test_an_npz_in_place_of_an_array_is_refused(folder):
    np.savez(folder / "a.npz", IMAGE_OF)
    (folder / "a.npz").rename(folder / IMAGE)
    with Job.open(folder) as job, pytest.raises(JobError, match="truncated or foreign"):
        job.image()


def test_an_array_cut_anywhere_is_refused(folder):
    whole = (folder / IMAGE).read_bytes()
    with Job.open(folder) as job:
        for length in (0, 1, 5, 6, 9, 40, 127, 128, len(whole) - 1):
            (folder / IMAGE).write_bytes(whole[:length])
            with pytest.raises(JobError, match=r"image\.npy in the job folder is missing, truncated or foreign"):
                job.image()


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"P" * 4096, b"\x93NUMPY\x09\x00"])
def test_a_foreign_array_is_refused(folder, content):
    with Job.open(folder) as job:
        (folder / ANNOTATION).write_bytes(content)
        with pytest.raises(JobError, match=r"annotation\.npy in the job folder is missing, truncated or foreign"):
            job.annotation()


def test_a_missing_array_is_refused(folder):
    (folder / IMAGE).unlink()
    with Job.open(folder) as job:
        with pytest.raises(JobError, match=r"image\.npy .* missing"):
            job.image()
        with pytest.raises(JobError, match=r"annotation-9\.npy .* missing"):
            job.update("annotation-9.npy", 9, [])


@pytest.mark.parametrize("array", [np.zeros((3, 4, 6), np.uint8), np.zeros(SHAPE, np.int8), np.zeros(SHAPE, bool), np.zeros((1, *SHAPE), np.uint8)])
def test_an_annotation_of_another_shape_or_type_is_refused(folder, array):
    with Job.open(folder) as job:
        job.save_array(ANNOTATION, array)
        with pytest.raises(JobError, match=r"annotation\.npy is \(.*the job expects \(3, 4, 5\) uint8"):
            job.annotation()


@pytest.mark.parametrize("kind", ["complex64", "float64", "int64", "bool", "U3"])
def test_an_image_of_another_type_is_refused(folder, kind):
    with Job.open(folder) as job:
        job.save_array(IMAGE, np.zeros(SHAPE, kind))
        with pytest.raises(JobError, match=r"image\.npy is .*the job expects .*int8 or uint8"):
            job.image()


class Trap:
    """Leaves a trace when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickled_array_is_refused_and_not_run(folder, tmp_path):
    np.save(folder / IMAGE, np.full(SHAPE, Trap(tmp_path / "trace"), dtype=object), allow_pickle=True)
    with Job.open(folder) as job, pytest.raises(JobError, match="truncated or foreign"):
        job.image()
    assert not (tmp_path / "trace").exists()


def test_removing_a_job_removes_all_of_it(folder):
    with Job.open(folder) as job:
        for name in (DENSE, PRIOR):
            job.save_array(name, STROKES)
    (folder / ".image.npy.77.part").write_bytes(b"left by a killed process")
    remove_job(folder)
    assert not folder.exists()


def test_removing_a_job_keeps_the_files_that_the_user_put_there(folder):
    (folder / "notes.txt").write_text("mine")
    for name in ("annotation.npy.bak", "annotation-final.npy", ".notes.1.part"):
        (folder / name).write_text("mine")
    remove_job(folder)
    assert names_in(folder) == [".notes.1.part", "annotation-final.npy", "annotation.npy.bak", "notes.txt"]


def test_a_job_is_held_while_it_is_removed(folder, monkeypatch):
    removed = job_module._remove_contents

    def while_removing(where):
        with pytest.raises(JobError, match="already open"):
            Job.open(where)
        removed(where)

    monkeypatch.setattr(job_module, "_remove_contents", while_removing)
    remove_job(folder)
    assert not folder.exists()


def test_a_job_that_cannot_be_removed_is_said_in_a_sentence_and_not_left_locked(folder):
    (folder / DENSE).mkdir()
    with pytest.raises(OutputError, match="Could not write"):
        remove_job(folder)
    Lock(folder).release()
