"""A job belongs to one command from its making to its result; and what a command made for itself goes with it, however it ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from phantoms import two_organs
from sparseseg import cli
from sparseseg.contract.lock import HOST_LOCK
from sparseseg.io import files

signals_only = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture
def inputs(tmp_path):
    phantom = two_organs()
    files.write_volume(tmp_path / "image.nrrd", phantom.image, phantom.geometry)
    files.write_annotation(tmp_path / "strokes.seg.nrrd", phantom.annotation, phantom.geometry, phantom.classes)
    (tmp_path / "temporary").mkdir()
    return tmp_path


@pytest.fixture
def segment(inputs):
    """segment(*options) -> a running command line, with temporary folders of its own; ended after the test."""
    started = []

    def start(*options):
        command = ["segment", inputs / "image.nrrd", inputs / "strokes.seg.nrrd", "-o", inputs / "out.nrrd", "--device", "cpu", *options]
        environment = {**os.environ, "TMPDIR": str(inputs / "temporary")}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen([sys.executable, "-m", "sparseseg", *map(str, command)], env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(what, process):
    end = time.monotonic() + 60
    while not what():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_second_command_on_a_job_is_refused_before_it_reads_anything(inputs, segment, capfd):
    first = segment("--job", inputs / "job", "--time-budget", "600")
    wait_for(lambda: (inputs / "job" / HOST_LOCK).exists() and (inputs / "job" / HOST_LOCK).stat().st_size, first)
    code = cli.main(["segment", "no image", "no annotation", "-o", str(inputs / "second.nrrd"), "--job", str(inputs / "job")])
    assert code == 2
    assert f"in use by another process (process {first.pid})" in capfd.readouterr().err
    assert first.poll() is None


def test_a_command_that_reads_nothing_leaves_no_job_folder(inputs, capfd):
    assert cli.main(["segment", "no image", "no annotation", "-o", str(inputs / "out.nrrd"), "--job", str(inputs / "job")]) == 2
    assert not (inputs / "job").exists()


@signals_only
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_that_is_asked_to_end_leaves_nothing(inputs, segment, name):
    process = segment("--time-budget", "600")
    wait_for(lambda: list((inputs / "temporary").glob("sparseseg-*/job/job.json")), process)
    process.send_signal(getattr(signal, name))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    assert b"Traceback" not in stderr
    assert not list((inputs / "temporary").glob("sparseseg-*/*"))
    assert not (inputs / "out.nrrd").exists()


@signals_only
def test_what_a_killed_command_left_goes_with_the_next_one(inputs, segment, monkeypatch, capfd):
    process = segment("--time-budget", "600")
    wait_for(lambda: list((inputs / "temporary").glob("sparseseg-*/job/job.json")), process)
    process.kill()
    process.communicate(timeout=60)
    (left,) = [path.parent for path in (inputs / "temporary").glob("sparseseg-*/host.lock")]
    monkeypatch.setattr(tempfile, "tempdir", str(inputs / "temporary"))
    end = time.monotonic() + 30
    while left.exists() and time.monotonic() < end:  # its engine is on its way out, and may still write
        cli.main(["export", "no segmentation", "no series", "-o", "out.dcm"])
    assert not left.exists()
