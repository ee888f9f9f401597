"""Where results go: each output a file of its own, no input among them, and all of it known before the engine starts."""

import os
import sys
import unicodedata

import pytest

from phantoms import two_organs
from sparseseg import cli, io, stopping
from sparseseg.contract.errors import OutputError
from sparseseg.io import files

posix = pytest.mark.skipif(sys.platform == "win32", reason="links, pipes and modes of POSIX")


def run(*arguments):
    return cli.main([str(a) for a in arguments])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """image.nrrd, strokes.seg.nrrd and a model's name, in the folder that is the current one; an engine that must not start."""
    phantom = two_organs((8, 12, 12))
    files.write_volume(tmp_path / "image.nrrd", phantom.image, phantom.geometry)
    files.write_annotation(tmp_path / "strokes.seg.nrrd", phantom.annotation, phantom.geometry, phantom.classes)
    (tmp_path / "model.pt").write_bytes(b"a model")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "WorkerClient", lambda: pytest.fail("the engine was started"))
    return tmp_path


SEGMENT = ("segment", "image.nrrd", "strokes.seg.nrrd", "--steps", "2", "--device", "cpu", "-o")


def refused(folder, capsys, words, *arguments):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert words in said and len([line for line in said.splitlines() if not line.startswith(("reading ", "needs "))]) == 1, said
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("d.nrrd", "--weights", "d.nrrd"),
        ("d.nrrd", "--weights", "./sub/../d.nrrd"),
        ("d.nrrd", "--save-model", "d.nrrd"),
        ("d.nrrd", "--report", "r.html", "--save-model", "r.html"),
        ("d.nrrd", "--weights", "D.NRRD"),
        ("d.nrrd", "--save-model", "sub/../d.nrrd/"),
        (unicodedata.normalize("NFC", "é.nrrd"), "--weights", unicodedata.normalize("NFD", "é.nrrd")),
    ],
)
def test_two_outputs_are_never_one_file(folder, capsys, arguments):
    refused(folder, capsys, "are the same file", *SEGMENT, *arguments)


def test_an_absolute_and_a_relative_name_are_the_same_file(folder, capsys):
    refused(folder, capsys, "--output and --weights are the same file", *SEGMENT, "d.nrrd", "--weights", folder / "d.nrrd")


@posix
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_to_one_file_are_the_same_file(folder, capsys, link):
    (folder / "d.nrrd").write_bytes(b"earlier")
    link(folder / "d.nrrd", folder / "w.nrrd")
    refused(folder, capsys, "are the same file", *SEGMENT, "d.nrrd", "--weights", "w.nrrd")


@posix
@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("option", [(), ("d.nrrd", "--weights"), ("d.nrrd", "--save-model")])
def test_a_link_to_an_input_is_an_input(folder, capsys, link, option):
    link(folder / "image.nrrd", folder / "other.nrrd")
    refused(folder, capsys, "is an input; it would be overwritten", *SEGMENT, *option, "other.nrrd")


def test_a_folder_by_another_name_is_the_same_folder(folder, capsys):
    try:
        (folder / "sub" / "back").symlink_to(folder, target_is_directory=True)
    except OSError:
        pytest.skip("no right to make links")
    refused(folder, capsys, "are the same file", *SEGMENT, "d.nrrd", "--weights", "sub/back/d.nrrd")


def test_the_model_to_start_from_is_an_input(folder, capsys):
    refused(folder, capsys, "is an input", *SEGMENT, "d.nrrd", "--start-from", "model.pt", "--save-model", "model.pt")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("d.nrrd", "--weights", "w.seg.nrrd"), "cannot be written in that format"),
        (("d.nrrd", "--weights", "w.dcm"), "cannot be written in that format"),
        (("d.nrrd", "--report", "r.pdf"), "format is not known"),
        (("d.nrrd", "--report", "nowhere/r.html"), "There is no folder nowhere"),
        (("d.nrrd", "--save-model", "nowhere/m.pt"), "There is no folder nowhere"),
        (("d.nrrd", "--save-model", "sub"), "sub is a folder"),
        (("d.nrrd", "--save-model", "sub/"), "sub is a folder"),
        (("sub.nrrd/d.nrrd",), "There is no folder"),
        (("image.nrrd/d.nrrd",), "cannot be written to"),
        ((f"{'n' * 300}.nrrd",), "is too long"),
        (("d.nrrd", "--report", f"{'n' * 240}.html"), "is too long"),
        (("d.nrrd", "--save-model", "ž" * 130), "is too long"),
        (("sub/d.nrrd", "--job", "sub"), "lies in the job folder"),
        (("d.nrrd", "--job", "d.nrrd"), "lies in the job folder"),
        (("d.dcm",), "is no DICOM series"),
        (("d.nrrd", "--job", "model.pt"), "model.pt"),
        (("d.nrrd", "--job", "/proc/job"), "/proc/job"),
        (("d.nrrd", "--job", "."), "lies in the job folder"),
        (("d.nrrd", "--job", "image.nrrd"), "lies in the job folder"),
        (("d.nrrd", "--report", "sub/report.html", "--job", "sub/../sub"), "lies in the job folder"),
    ],
)
def test_a_place_that_cannot_be_is_said_before_the_work(folder, capsys, arguments, words):
    refused(folder, capsys, words, *SEGMENT, *arguments)


@posix
def test_devices_pipes_and_write_protected_files_are_refused(folder, capsys):
    os.mkfifo(folder / "pipe.nrrd")
    (folder / "null.nrrd").symlink_to("/dev/null")
    (folder / "loop.nrrd").symlink_to("loop.nrrd")
    (folder / "kept.nrrd").write_bytes(b"earlier")
    (folder / "kept.nrrd").chmod(0o444)
    for name, words in (
        ("pipe", "a device or a pipe"),
        ("null", "a device or a pipe"),
        ("loop", "cannot be written to"),
        ("kept", "write-protected"),
    ):
        assert run(*SEGMENT, f"{name}.nrrd") == 2
        assert words in capsys.readouterr().err
        assert run(*SEGMENT, "d.nrrd", "--save-model", f"{name}.nrrd") == 2
        assert words in capsys.readouterr().err


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder where nothing can be made")  # noqa: PTH112
@pytest.mark.parametrize("arguments", [("/proc/d.nrrd",), ("d.nrrd", "--report", "/proc/r.html"), ("d.nrrd", "--save-model", "/proc/m.pt")])
def test_a_folder_that_takes_no_files_is_said_before_the_work(folder, capsys, arguments):
    refused(folder, capsys, "cannot be written to", *SEGMENT, *arguments)


def test_the_other_commands_ask_before_they_read(folder, capsys):
    refused(folder, capsys, "is an input", "predict", "model.pt", "image.nrrd", "-o", "sub/../image.nrrd")
    refused(folder, capsys, "There is no folder", "predict", "model.pt", "image.nrrd", "-o", "nowhere/d.nrrd")
    refused(folder, capsys, "cannot be written in that format", "import", "strokes.seg.nrrd", "image.nrrd", "-o", "d.dcm")
    refused(folder, capsys, "is an input", "import", "strokes.seg.nrrd", "image.nrrd", "-o", "./strokes.seg.nrrd")
    (folder / "seg.dcm").write_bytes(b"")
    refused(folder, capsys, "is an input", "export", "seg.dcm", "sub", "-o", "sub/../seg.dcm")
    refused(folder, capsys, "There is no folder", "export", "strokes.seg.nrrd", "sub", "-o", "nowhere/d.dcm")


def test_asking_leaves_nothing_behind(tmp_path):
    io.check_output(tmp_path / "d.nrrd")
    (tmp_path / "there.nrrd").write_bytes(b"earlier")
    io.check_output(tmp_path / "there.nrrd")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"there.nrrd": b"earlier"}


def test_what_fails_late_leaves_the_rest_whole_and_says_so(tmp_path):
    """As a disk that fills while the second of three is written."""
    done = []

    def full():
        raise OSError(28, "No space left on device")

    outputs = [(tmp_path / "a.nrrd", lambda: done.append("a")), (tmp_path / "b.nrrd", full), (tmp_path / "c.pt", lambda: done.append("c"))]
    with pytest.raises(OutputError) as caught:
        cli._write_outputs(outputs, stopping.Stop())
    assert done == ["a", "c"]
    assert caught.value.sentence == f"{tmp_path / 'b.nrrd'} could not be written (No space left on device)."
    assert caught.value.advice == f"Whole and in place: {tmp_path / 'a.nrrd'}, {tmp_path / 'c.pt'}."


def test_asked_to_stop_while_it_writes_it_ends_between_two_files(tmp_path):
    stop, done = stopping.Stop(), []
    stop.ask(2)  # before: the best result so far is wanted
    outputs = [(tmp_path / "a", lambda: done.append("a")), (tmp_path / "b", lambda: stop.ask(2)), (tmp_path / "c", lambda: done.append("c"))]
    with pytest.raises(KeyboardInterrupt):
        cli._write_outputs(outputs, stop)
    assert done == ["a"]
