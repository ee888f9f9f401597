"""The logs in a job folder: plain files that are written as long as that works, and never a reason to fail."""

import errno
import logging
import os
import sys

import pytest

from sparseseg.joblog import JobLog

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")


@pytest.fixture
def open_log():
    opened = []

    def start(folder):
        opened.append(JobLog(folder))
        return opened[-1]

    yield start
    for log in opened:
        log.close()


def complaints(log):
    return [text for _ in range(5) if (text := log.complaint())]


def test_events_and_what_is_logged_are_appended(open_log, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger("sparseseg"), "propagate", False)  # a lone surrogate is more than pytest's own capture can pass on
    for _ in range(2):
        log = open_log(tmp_path)
        log.event('{"event":"x"}\n')
        logging.getLogger("sparseseg").error("said \ud800 of %s", "Žluť")
        log.close()
    assert (tmp_path / "events.jsonl").read_text() == '{"event":"x"}\n' * 2
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").count("said \\ud800 of Žluť\n") == 2
    assert not complaints(log)


def make_folder(path):
    path.mkdir()


def make_fifo(path):
    os.mkfifo(path)


def make_link(path):
    path.symlink_to(path.parent / "elsewhere.txt")


def make_device(path):
    path.symlink_to("/dev/full")


@pytest.mark.parametrize("make", [make_folder, *(pytest.param(m, marks=posix) for m in (make_fifo, make_link, make_device))])
def test_what_is_no_plain_file_is_told_of_once_and_not_written(open_log, tmp_path, make):
    make(tmp_path / "events.jsonl")
    make(tmp_path / "log.txt")
    log = open_log(tmp_path)
    for _ in range(3):
        log.event("x\n")
        logging.getLogger("sparseseg").error("x")
    assert sorted(text.split()[0] for text in complaints(log)) == ["events.jsonl", "log.txt"]
    assert not (tmp_path / "elsewhere.txt").exists()


@posix
def test_a_folder_without_permission_is_told_of(open_log, tmp_path):
    (tmp_path / "events.jsonl").write_text("")
    (tmp_path / "events.jsonl").chmod(0)
    if os.access(tmp_path / "events.jsonl", os.W_OK):
        pytest.skip("this user may write anything")
    assert len(complaints(open_log(tmp_path))) == 1


def test_a_full_disk_is_told_of_once_and_what_follows_half_a_line_is_a_line(open_log, tmp_path, monkeypatch):
    log, real, room = open_log(tmp_path), os.write, 5

    def full(file, data):
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(file, data[:room])
        room -= done
        return done

    monkeypatch.setattr(os, "write", full)
    for _ in range(3):
        log.event("1234567\n")
    monkeypatch.setattr(os, "write", real)
    log.event("whole\n")
    assert len(complaints(log)) == 1
    assert (tmp_path / "events.jsonl").read_text() == "12345\nwhole\n"
