"""Private folders: theirs alone, removed at the end, and by the next program where their owner was killed; files that are in use for a moment."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from sparseseg.contract import folders
from sparseseg.contract.folders import PrivateFolder, Sparsely, patiently, remove_abandoned, write_whole

PACKAGE = Path(folders.__file__).parents[2]
OWNER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from sparseseg.contract.folders import PrivateFolder
folder = PrivateFolder(sys.argv[2])
(folder.path / "job").mkdir()
(folder.path / "job" / "image.npy").write_bytes(b"a patient")
print(folder.path, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(folders, "_PAUSE_S", 0.001)


def busy(times):
    """An action that Windows refuses so many times, and the list of its calls."""
    calls = []

    def action():
        calls.append(1)
        if len(calls) <= times:
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        return "done"

    return action, calls


def test_a_file_that_is_in_use_twice_is_tried_again():
    action, calls = busy(2)
    assert patiently(action) == "done"
    assert len(calls) == 3


def test_one_that_stays_in_use_is_refused_in_the_end():
    action, calls = busy(100)
    with pytest.raises(PermissionError, match="used by another process"):
        patiently(action)
    assert len(calls) == folders._TRIES


def test_other_refusals_are_not_tried_again():
    calls = []

    def action():
        calls.append(1)
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        patiently(action)
    assert len(calls) == 1


def refuse(monkeypatch, owner, name, times):
    """The function refuses so many times, then does what it does."""
    real, (action, calls) = getattr(owner, name), busy(times)

    def fake(*arguments, **options):
        action()
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, fake)
    return calls


def test_a_files_new_version_takes_its_place_though_a_scanner_reads_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "a.npy").write_bytes(b"old")
    calls = refuse(monkeypatch, os, "replace", 2)
    write_whole(tmp_path / "a.npy", lambda file: file.write(b"new"))
    assert (tmp_path / "a.npy").read_bytes() == b"new"
    assert len(calls) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_a_folder_goes_though_its_files_are_in_use_for_a_moment(tmp_path, monkeypatch):
    folder = PrivateFolder(tmp_path)
    (folder.path / "job").mkdir()
    (folder.path / "job" / "image.npy").write_bytes(b"a patient")
    refuse(monkeypatch, folders.shutil, "rmtree", 2)
    folder.remove()
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_stays_in_use_is_left_to_the_next_start(tmp_path, monkeypatch):
    folder = PrivateFolder(tmp_path)
    (folder.path / "job").mkdir()
    with monkeypatch.context() as patch:
        refuse(patch, folders.shutil, "rmtree", 100)
        folder.remove()
    assert (folder.path / "job").exists()
    grow_old(folder.path)
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows' folders for temporary files are each user's own")
def test_nobody_else_can_read_it(tmp_path):
    with PrivateFolder(tmp_path) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def grow_old(folder):
    os.utime(folder / "host.lock", (time.time() - 3600,) * 2)


def test_the_folder_of_a_killed_program_is_removed_and_that_of_a_living_one_is_not(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(PACKAGE), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        left = Path(owner.stdout.readline().strip())
        grow_old(left)
        remove_abandoned(tmp_path)
        assert (left / "job" / "image.npy").exists(), "its owner lives"
        with PrivateFolder(tmp_path) as mine:
            os.kill(owner.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
            owner.wait(30)
            os.utime(left / "host.lock")  # however young it is: it has been held
            grow_old(mine)
            remove_abandoned(tmp_path)
            assert not left.exists()
            assert mine.exists(), "this process lives"
    finally:
        owner.kill()
        owner.wait(30)
        owner.stdout.close()


def test_what_is_young_or_only_looks_like_one_stays(tmp_path):
    young = tmp_path / "sparseseg-young"
    young.mkdir()
    (young / "host.lock").write_text("", encoding="ascii")
    unlocked, other = tmp_path / "sparseseg-my notes", tmp_path / "another"
    for folder in (unlocked, other):
        folder.mkdir()
        (folder / "text").write_text("mine", encoding="ascii")
    (other / "host.lock").write_text("", encoding="ascii")
    grow_old(other)
    (tmp_path / "sparseseg-file").write_text("", encoding="ascii")
    before = sorted(tmp_path.rglob("*"))
    remove_abandoned(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("lock", [True, False])
def test_a_folder_whose_making_was_killed_goes_once_it_is_old(tmp_path, old, lock):
    folder = Path(tempfile.mkdtemp(prefix=folders.PREFIX, dir=tmp_path))
    if lock:
        (folder / "host.lock").touch()
    if old:
        os.utime(folder / "host.lock" if lock else folder, (time.time() - 3600,) * 2)
    remove_abandoned(tmp_path)
    assert folder.exists() != old


def test_a_folder_that_cannot_be_locked_is_not_left(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "lock_file", lambda _: (_ for _ in ()).throw(OSError(37, "No locks available")))
    with pytest.raises(OSError, match="No locks available"):
        PrivateFolder(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "symlink") or sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_link_is_not_followed(tmp_path):
    other, place = tmp_path / "other", tmp_path / "temporary"
    other.mkdir()
    place.mkdir()
    (other / "host.lock").write_text("", encoding="ascii")
    (other / "text").write_text("mine", encoding="ascii")
    grow_old(other)
    (place / "sparseseg-link").symlink_to(other)
    remove_abandoned(place)
    assert (other / "text").exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners by number here")
def test_another_users_folder_stays(tmp_path, monkeypatch):
    folder = tmp_path / "sparseseg-theirs"
    folder.mkdir()
    (folder / "host.lock").write_text("", encoding="ascii")
    grow_old(folder)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    remove_abandoned(tmp_path)
    assert folder.exists()
    monkeypatch.undo()
    remove_abandoned(tmp_path)
    assert not folder.exists()


# ---------------------------------------------------------------- zeros that take no room


@pytest.mark.parametrize("ends_in_zeros", [True, False])
def test_what_is_written_sparsely_is_all_there(tmp_path, ends_in_zeros):
    rng = np.random.default_rng(0)
    parts = [rng.bytes(70_000), bytes(1_000_000), rng.bytes(3), bytes(200_001)] + ([] if ends_in_zeros else [b"end"])
    with open(tmp_path / "file", "wb") as file:
        file.write(b"header")
        sparsely = Sparsely(file)
        for part in parts:
            sparsely.write(part)
        sparsely.end()
    found = tmp_path / "file"
    assert found.read_bytes() == b"header" + b"".join(parts)
    assert sys.platform != "linux" or found.stat().st_blocks * 512 < 400_000
