"""Ctrl-C and signals at any moment: exit code 130, or 128 + n, one line at most, nothing half done."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phantoms import two_organs
from sparseseg import cli, stopping
from sparseseg.contract.protocol import Cancel, Finish
from sparseseg.io import files

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C as a program has it; where tests run side by side their processes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    phantom = two_organs((16, 24, 24))
    files.write_volume(tmp_path / "image.nrrd", phantom.image, phantom.geometry)
    files.write_annotation(tmp_path / "strokes.seg.nrrd", phantom.annotation, phantom.geometry, phantom.classes)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    return tmp_path


def test_while_nothing_is_to_be_undone_it_ends_at_once_and_only_once():
    with stopping.asked() as stop:
        with pytest.raises(KeyboardInterrupt), stop.at_once():
            signal.raise_signal(signal.SIGINT)
            pytest.fail("went on")
        signal.raise_signal(signal.SIGINT)  # nothing is raised any more: it could land anywhere
        assert (stop.times, stop.exit_code) == (2, 130)


def test_where_something_is_to_be_undone_it_is_counted():
    with stopping.asked() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.times == 1 and not stop.is_final
        with pytest.raises(KeyboardInterrupt), stop.at_once():
            pytest.fail("went on")
        signal.raise_signal(signal.SIGINT)
        assert stop.is_final


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_end_wants_no_result(name):
    number = getattr(signal, name)
    with stopping.asked() as stop:
        signal.raise_signal(number)
    assert stop.is_final and stop.exit_code == 128 + number
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_signal_that_is_ignored_stays_ignored():
    """As under nohup, and SIGINT in a shell's background job."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping.asked() as stop:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGINT)
            assert not stop.times
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGINT, before[1])


def test_a_raise_that_is_swallowed_is_told_at_the_end(capsys):
    class Swallows:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    with stopping.asked() as stop, pytest.raises(KeyboardInterrupt), stop.at_once():
        Swallows()
    assert capsys.readouterr().err == ""


def test_words_of_what_was_interrupted_are_not_said():
    with stopping.asked() as stop, pytest.raises(KeyboardInterrupt), stop.at_once():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("a reader was interrupted") from error


class Client:
    def __init__(self):
        self.sent = []

    def send(self, command):
        self.sent.append(type(command))


def test_the_first_asks_for_the_best_so_far_and_the_second_for_nothing():
    client = Client()
    run = cli._Run(client, None, type("Show", (), {"stage": lambda *_: None}))
    run.has_preview = True
    run.interrupt(False)
    run.interrupt(False)  # it is looked at again and again
    assert client.sent == [Finish] and not run.abandoned
    run.interrupt(True)
    assert client.sent == [Finish, Cancel] and run.abandoned


def test_without_a_preview_there_is_nothing_to_wait_for():
    client = Client()
    run = cli._Run(client, None, None)
    run.interrupt(False)
    assert client.sent == [Cancel] and run.abandoned


def default_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # a shell's background job ignores some, and so would its children


def ended(folder, after_s, number, *arguments):
    command = [sys.executable, "-m", "sparseseg", *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=default_signals)
    time.sleep(after_s)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


WHILE_LOADING = "import os, signal, sys, threading\nimport sparseseg.__main__ as program\nimport importlib.abc\n"


@pytest.mark.parametrize("module", ["sparseseg.cli", "numpy", "SimpleITK", "sparseseg.io.files", "argparse"])
def test_while_it_is_loaded_ctrl_c_is_not_said(folder, module):
    """The signal comes while that module is being imported."""
    code = f"""{WHILE_LOADING}
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
for name in [name for name in sys.modules if name == {module!r}]:
    del sys.modules[name]
sys.argv = ["sparseseg", "import", "strokes.seg.nrrd", "image.nrrd", "-o", "out.seg.nrrd"]
sys.exit(program.main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, preexec_fn=default_signals, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
    assert not (folder / "out.seg.nrrd").exists()


def test_a_signal_in_the_midst_of_generated_code_ends_in_the_same_code(folder):
    """Python itself would end by the signal: it takes an interrupt there for one that nobody caught."""
    code = """import signal, sys
import sparseseg.__main__ as program, sparseseg.cli as cli
cli._check_outputs = lambda _: exec("import signal; signal.raise_signal(signal.SIGINT)")
sys.argv = ["sparseseg", "predict", "model.pt", "image.nrrd", "-o", "out.nrrd"]
sys.exit(program.main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, preexec_fn=default_signals, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_where_nothing_may_be_raised_the_process_ends():
    """As while torch is loaded."""
    code = """import signal
from sparseseg.stopping import asked
with asked() as stop, stop.at_once(), stop.by_leaving():
    try:
        signal.raise_signal(signal.SIGTERM)
    finally:
        print("raised")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, preexec_fn=default_signals, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, b"", b"")


def test_after_the_result_there_is_nothing_left_to_stop(folder):
    code = """import atexit, signal, sys
import sparseseg.__main__ as program
atexit.register(signal.raise_signal, signal.SIGINT)
sys.argv = ["sparseseg", "import", "strokes.seg.nrrd", "image.nrrd", "-o", "out.seg.nrrd"]
sys.exit(program.main())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, preexec_fn=default_signals, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out.seg.nrrd\n", b"")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("after_s", [0.3, 0.8, 1.5, 3.0])
def test_at_any_moment_nothing_is_left(folder, number, after_s):
    arguments = ("segment", "image.nrrd", "strokes.seg.nrrd", "-o", "out.seg.nrrd", "--device", "cpu", "--time-budget", "60")
    code, _, err = ended(folder, after_s, number, *arguments)
    assert code in ({128 + number} if number == signal.SIGINT else {128 + number, -number}), err  # before it is loaded the system ends it
    assert "Traceback" not in err and "Exception ignored" not in err
    assert not list((folder / "temporary").glob("sparseseg-*"))
    left = {path.name for path in folder.iterdir()} - {"image.nrrd", "strokes.seg.nrrd", "temporary"}
    assert left <= {"out.seg.nrrd"}
    if left:
        assert files.read_annotation(folder / "out.seg.nrrd", two_organs((16, 24, 24)).geometry).classes.segments
    assert not [entry for entry in Path("/proc").glob("[0-9]*") if is_a_worker(entry, folder)]  # where the system tells


def is_a_worker(entry, folder):
    """Of this test: by its folder for temporary files."""
    try:
        return str(folder).encode() in (entry / "environ").read_bytes() and b"worker" in (entry / "cmdline").read_bytes()
    except OSError:
        return False
