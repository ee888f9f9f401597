"""Child processes that segment: killed ones are replaced, and the driver that is killed takes them along."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sparseseg
from sparseseg.cohort.actors import Setting, Task
from sparseseg.cohort.children import Children
from sparseseg.cohort.manifest import Manifest
from sparseseg.cohort.segmenting import sha256_of
from sparseseg.contract.errors import DeviceError, WorkerError

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="ended by signals")]
_LONG_S = 300


@pytest.fixture
def setting(model):
    return Setting(str(model), sha256_of(model), "cpu", "seg", threads=1)


def awaited(actors, what):
    end = time.monotonic() + _LONG_S
    answers = []
    while time.monotonic() < end:
        answers += actors.wait(0.1)
        if what(answers):
            return answers
    raise AssertionError("nothing came")


def test_one_that_is_killed_is_replaced_and_its_volume_told_of(setting, phantoms, tmp_path):
    folder = phantoms(1).parent
    task = Task("00", (str(folder / "00.nrrd"),), str(tmp_path / "00.seg.nrrd"), str(tmp_path / "00.svg"))
    actors = Children([setting])
    try:
        awaited(actors, lambda _: actors.free())
        ((_, pid),) = actors.free()
        os.kill(pid, signal.SIGSTOP)
        actors.submit(task)
        assert not actors.free()
        os.kill(pid, signal.SIGKILL)
        (answer,) = awaited(actors, bool)
        assert (answer.kind, answer.name) == ("died", "00") and "was killed, perhaps for lack of memory" in answer.sentence
        awaited(actors, lambda _: actors.free())
        actors.submit(task)
        (answer,) = awaited(actors, bool)
        assert answer.kind == "done" and Path(answer.result["output"]).exists()
    finally:
        actors.close()


def test_what_none_of_them_can_do_is_said_once(setting, tmp_path):
    actors = Children([Setting(**{**vars(setting), "device": "cuda:7"})])
    try:
        with pytest.raises(Exception) as raised:
            awaited(actors, bool)
        assert raised.value.exit_code == DeviceError.exit_code
    finally:
        actors.close()


def test_those_that_end_before_they_begin_are_not_started_for_ever(setting, monkeypatch):
    monkeypatch.setattr("sparseseg.cohort.children._COMMAND", (sys.executable, "-c", "raise SystemExit(7)"))
    actors = Children([setting])
    try:
        with pytest.raises(WorkerError, match="end before they begin: the last ended with exit code 7"):
            awaited(actors, bool)
    finally:
        actors.close()


def test_a_killed_driver_leaves_a_true_manifest_and_a_rerun_does_the_rest(model, phantoms, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sparseseg", "cohort", "segment", str(model), str(phantoms(12)), "-o", str(out), "--local", "--actors", "1"]
    command += ["--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(Path(sparseseg.__file__).parents[1])}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + _LONG_S
    while len(list(out.glob("segmentations/*.seg.nrrd"))) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    first.kill()
    first.wait()
    manifest = Manifest(out)
    before = {row.name: row for row in manifest.rows("done")}
    ran = {pid for (pid,) in manifest._database.execute("SELECT pid FROM tries")}
    manifest.close()
    assert 2 <= len(before) < 12
    while any(map(alive, ran)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, ran))  # who segmented for it
    assert subprocess.run(command, env=environment, capture_output=True, timeout=_LONG_S, check=False).returncode == 0
    manifest = Manifest(out)
    rows, tries = list(manifest.rows()), manifest.tries()
    manifest.close()
    assert [row.state for row in rows] == ["done"] * 12
    names = [name for name, *_, outcome in tries if outcome == "done"]
    assert sorted(names) == sorted({row.name for row in rows})  # none twice, and what was done before was left alone
    assert all(sha256_of(out / "segmentations" / row.output) == row.sha256 for row in rows)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z" if Path("/proc").exists() else os.kill(pid, 0) is None
    except OSError:
        return False
