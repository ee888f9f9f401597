"""What is shown, where, and when nobody can see it: the result stands whatever becomes of the words."""

import io
import logging
import os
import subprocess
import sys
from contextlib import redirect_stderr
from dataclasses import replace

import pytest

from phantoms import two_organs
from sparseseg import cli
from sparseseg.annotation.labels import build_annotation
from sparseseg.console import Console, Screen, consoles, say_error
from sparseseg.contract.errors import InputError
from sparseseg.contract.protocol import Progress, Ready, Warning
from sparseseg.contract.text import VisibleFormatter, visible
from sparseseg.io import files

NASTY = "\x1b]0;owned\x07\x1b[2J liver\r\x9b31m \u202egnp.exe\u2028\n\x7f"
SHOWN = "\\x1b]0;owned\\x07\\x1b[2J liver\\r\\x9b31m \\u202egnp.exe\\u2028\\n\\x7f"
posix = pytest.mark.skipif(sys.platform == "win32", reason="file descriptors of POSIX")


@pytest.fixture
def folder(tmp_path):
    phantom = two_organs((8, 12, 12))
    files.write_volume(tmp_path / "image.nrrd", phantom.image, phantom.geometry)
    files.write_annotation(tmp_path / "strokes.seg.nrrd", phantom.annotation, phantom.geometry, phantom.classes)
    return tmp_path


IMPORT = ("import", "strokes.seg.nrrd", "image.nrrd", "-o", "out.seg.nrrd")


def start(folder, *arguments, **options):
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.Popen([sys.executable, "-m", "sparseseg", *arguments], cwd=folder, env=environment, **options)


# ---------------------------------------------------------------- what a terminal would obey


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Léber 肝臓 کبد 🫀", "Léber 肝臓 کبد 🫀"),
        ("न\u200dम", "न\u200dम"),
        (NASTY, SHOWN),
        ("half \udc80", "half \\udc80"),
        ("tag \U000e0041", "tag \\U000e0041"),
    ],
)
def test_letters_stay_and_what_acts_is_shown_by_its_number(text, shown):
    assert visible(text) == shown


def test_a_line_keeps_its_end_where_that_is_ours():
    assert visible("a\nb\x1b", keep="\n") == "a\nb\\x1b"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_screen_obeys_only_its_own_line():
    terminal = Terminal()
    with redirect_stderr(terminal), consoles():
        screen = Screen()
        screen.stage(f"reading {NASTY}")
        screen.event(Progress("", 1, f"training{NASTY}", 3, 1.0, None, 0.5, {}, {}))
        screen.event(Warning("", 1, "file", NASTY, NASTY))
        screen.event(Ready("", 1, 4, 1, {}, "CPU", NASTY, "job", NASTY))
        say_error(InputError(NASTY, NASTY), as_json=False)
        sys.stderr.write(f"{NASTY}\n")
    said = terminal.getvalue()
    assert said.count("\r\x1b[K") == said.count("\x1b") == said.count("\r") == 2  # the progress, and what takes its place
    assert not set(said) & {"\x07", "\x9b", "\u202e", "\u2028", "\x7f"}
    assert said.count("\n") == 7 + 2  # a line each, of a summary each of its lines; what was written as it is keeps its own ends of lines
    assert said.count("owned") == 9


def test_an_option_that_argparse_repeats_is_shown(capsys):
    with pytest.raises(SystemExit):
        cli.main(["doctor", NASTY])
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\\x1b" in said


def test_a_summary_is_shown_in_its_lines_and_a_name_begins_none():
    phantom = two_organs((8, 12, 12))
    classes = replace(phantom.classes, segments=tuple(replace(s, name="liver\nkidney") for s in phantom.classes.segments))
    summary = build_annotation(phantom.annotation, classes).text()
    said = io.StringIO()
    with redirect_stderr(said), consoles():
        Screen().event(Ready("", 1, 4, 1, {}, "CPU", "", "job", summary))
    assert [line.split(":")[0] for line in said.getvalue().splitlines()[1:]] == ["Background", "liver\\nkidney", "liver\\nkidney"]


def test_names_in_files_are_shown_in_what_is_said_of_them(folder, capsys):
    phantom = two_organs((8, 12, 12))
    segments = tuple(replace(s, name=NASTY) for s in phantom.classes.segments)
    files.write_annotation(folder / "s.seg.nrrd", phantom.annotation, phantom.geometry, replace(phantom.classes, segments=segments))
    arguments = ["segment", str(folder / "image.nrrd"), str(folder / "s.seg.nrrd"), "-o", str(folder / "d.nrrd"), "--background", f"no{NASTY}"]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert "\\x1b]0;owned" in said and not set(said) & set("\x1b\x07\r\x9b\u202e")


def test_a_log_shows_them_too():
    record = logging.LogRecord("sparseseg", logging.ERROR, "", 1, "of %s", (NASTY,), None)
    line = VisibleFormatter().format(record)
    assert "\\x1b]0;owned" in line and not set(line) & set("\x1b\x07\r\x9b\u202e")


# ---------------------------------------------------------------- who cannot show it, or is gone


def test_a_console_without_the_letters_shows_their_numbers(folder):
    arguments = ("segment", "Žluť.nrrd", "strokes.seg.nrrd", "-o", "d.nrrd")
    for env in ({"PYTHONIOENCODING": "ascii:strict"}, {"PYTHONIOENCODING": "cp1252:strict"}, {"PYTHONUTF8": "0", "LC_ALL": "C", "LANG": "C"}):
        process = start(folder, *arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert b"Traceback" not in err and b"nrrd" in err


class Gone(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def test_a_stream_that_nobody_reads_takes_all_and_says_nothing():
    console = Console(Gone())
    assert console.write("hello") == 5 and console.is_lost
    console.write("hello")
    console.flush()
    closed = io.StringIO()
    closed.close()
    assert Console(closed).write("hello") == 5
    assert Console(None).write("hello") == 5 and not Console(None).isatty()


@posix
@pytest.mark.parametrize("closed", ["0", "1", "2", "12", "012"])
def test_with_streams_closed_the_result_stands(folder, closed):
    """As of `<&-`, `>&-` and `2>&-`: nothing is asked for on a closed stdout, so nothing is missing."""

    def close():
        for number in closed:
            os.close(int(number))

    process = start(folder, *IMPORT, preexec_fn=close, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert out == (b"" if "1" in closed else b"out.seg.nrrd\n")
    assert (folder / "out.seg.nrrd").stat().st_size > 100


@posix
@pytest.mark.parametrize("what", ["pipe", "/dev/full"])
@pytest.mark.parametrize(("number", "code"), [(1, 141), (2, 0)])
def test_a_closed_pipe_or_a_full_disk_costs_the_words_alone(folder, what, number, code):
    if what == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    elif not os.path.exists(what):  # noqa: PTH110
        pytest.skip("no such device")
    else:
        writer = os.open(what, os.O_WRONLY)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, ("stdout" if number == 1 else "stderr"): writer}
    process = start(folder, *IMPORT, **streams)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert not err
    assert (folder / "out.seg.nrrd").stat().st_size > 100


@posix
@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("segment", "--help")])
def test_help_into_a_closed_pipe_is_no_fault(folder, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    process = start(folder, *arguments, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 141) and not err


@posix
def test_an_error_keeps_its_code_where_nobody_reads(folder):
    writer = os.open("/dev/null", os.O_RDONLY)  # writing fails
    process = start(folder, "segment", "gone.nrrd", "-o", "d.nrrd", "--json", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and not err
