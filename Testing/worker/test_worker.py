"""Every command of the protocol, and what must survive: wrong lines, kills, two workers, full disks."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sparseseg
from phantoms import make_job
from sparseseg.contract.client import WorkerClient
from sparseseg.contract.errors import WorkerError
from sparseseg.contract.job import Job
from sparseseg.contract.protocol import (
    PROTOCOL_VERSION,
    Cancel,
    Close,
    Device,
    Error,
    Finish,
    Open,
    Predict,
    Preview,
    Progress,
    Ready,
    Result,
    Train,
    Update,
    Warning,
    decode_event,
    encode,
)
from sparseseg.contract.settings import Settings

LONG = {"steps": 100_000, "estimate": False}
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def test_the_first_line_is_ready_with_protocol_and_own_process_number(talk):
    ready = talk.until(Ready)
    assert talk.events == [ready]
    assert (ready.id, ready.protocol, ready.pid) == ("", PROTOCOL_VERSION, talk.client.pid)
    assert ready.versions["sparseseg"] == sparseseg.__version__


@pytest.mark.slow
def test_open_says_what_is_annotated_and_training_on_which_device_and_why(talk, job):
    ready = talk.open(job)
    assert "bright" in ready.summary
    assert Path(ready.job) == job
    talk.client.send(Train("t"))
    device = talk.until(Device)
    assert "CPU" in device.device
    assert "TFLOP/s" in device.why
    assert ready.device in ("", device.device)
    talk.until(Result, id="t")
    assert [e for e in talk.events if isinstance(e, Device)] == [device]


@pytest.mark.slow
def test_train_shows_the_prior_then_progress_then_a_result(talk, job, phantom):
    talk.open(job)
    talk.client.send(Train("t"))
    result = talk.until(Result, id="t")
    mine = [e for e in talk.events if e.id == "t"]
    previews = [e for e in mine if isinstance(e, Preview)]
    assert [p.source for p in previews[:2]] == ["growing", "prior"]  # growing alone, then refined
    assert mine.index(previews[0]) < min(n for n, e in enumerate(mine) if isinstance(e, Progress) and e.stage == "training")
    assert {e.revision for e in mine} == {1}
    assert (result.step, result.reason) == (12, "steps")
    dense = np.load(result.file)
    assert dense.dtype == np.uint8
    assert dense.shape == phantom.image.shape
    labelled = phantom.annotation > 0
    np.testing.assert_array_equal(dense[labelled] + 1, phantom.annotation[labelled])
    assert set(result.estimate) <= {s.id for s in phantom.classes.segments}
    assert np.load(result.uncertainty).max() > 0
    np.testing.assert_array_equal(np.load(job / "weights.npy") > 0, labelled)


@pytest.mark.slow
def test_update_while_training_is_previewed_at_once_and_training_goes_on(talk, job, correct, phantom):
    talk.open(job)
    talk.client.send(Train("t", LONG))
    talk.until(Progress, stage="training")
    talk.client.send(Update("u", correct(job, 2), 2))
    preview = talk.until(Preview, id="u")
    assert preview.revision == 2
    index = 4
    np.testing.assert_array_equal(np.load(preview.file)[index], phantom.truth[index])  # a corrected voxel is right in the next preview
    step = talk.until(Progress, id="t", revision=2).step
    assert talk.until(Progress, id="t", revision=2, stage="training").step >= step
    talk.client.send(Finish("f"))
    assert talk.until(Result, id="t").revision == 2


def test_update_while_idle_is_previewed(talk, job, correct):
    talk.open(job)
    talk.client.send(Update("u", correct(job, 2), 2))
    assert talk.until(Preview, id="u").revision == 2
    assert json.loads((job / "job.json").read_text())["revision"] == 2


@pytest.mark.slow
def test_bad_updates_are_refused_and_the_old_annotation_stays(talk, job, phantom):
    talk.open(job)
    for name, annotation, revision, code in (
        ("missing", None, 2, "job"),
        ("shape", np.zeros((3, 3, 3), np.uint8), 2, "job"),
        ("empty", np.zeros((24, 40, 36), np.uint8), 2, "annotation"),
        ("value", np.full((24, 40, 36), 9, np.uint8), 2, "annotation"),
        ("old revision", np.ones((24, 40, 36), np.uint8), 1, "job"),
        ("../annotation.npy", phantom.annotation, 2, "job"),  # a file outside of the job, even a good one
    ):
        file = name if name.endswith(".npy") else "annotation-0002.npy"
        if annotation is not None:
            np.save(job / file, annotation)
        talk.client.send(Update(name, file, revision))
        error = talk.until(Error, id=name)
        assert (error.code, error.fatal) == (code, False), name
        np.testing.assert_array_equal(np.load(job / "annotation.npy"), phantom.annotation, err_msg=name)
    talk.client.send(Train("t", {"steps": 3}))
    assert talk.until(Result, id="t").revision == 1
    np.testing.assert_array_equal(np.load(job / "annotation.npy"), phantom.annotation)


@pytest.mark.slow
def test_a_bad_update_while_training_does_not_disturb_it(talk, job):
    np.save(job / "annotation-0002.npy", np.zeros((24, 40, 36), np.uint8))
    talk.open(job)
    talk.client.send(Train("t", LONG))
    talk.until(Progress, stage="training")
    talk.client.send(Update("u", "annotation-0002.npy", 2))
    assert talk.until(Error, id="u").code == "annotation"
    talk.client.send(Finish("f"))
    assert talk.until(Result, id="t").revision == 1


@pytest.mark.slow
def test_finish_makes_the_result_come_now(talk, job):
    talk.open(job)
    talk.client.send(Train("t", LONG))
    talk.until(Progress, stage="training")
    talk.client.send(Finish("f"))
    assert talk.until(Result, id="t").reason == "finish"


@pytest.mark.slow
def test_cancel_goes_back_to_idle_and_the_worker_stays_usable(talk, job):
    talk.open(job)
    talk.client.send(Train("t", LONG))
    talk.until(Progress, stage="training")
    start = time.monotonic()
    talk.client.send(Cancel("c"))
    assert talk.until(Error, id="t").code == "cancelled"
    talk.until(Ready, id="c")
    assert time.monotonic() - start < 1.0  # the contract's own bound
    talk.client.send(Train("again", {"steps": 3}))
    talk.until(Result, id="again")


def test_cancel_and_finish_while_idle_are_harmless(talk, job):
    talk.client.send(Cancel("c"))
    talk.until(Ready, id="c")
    talk.client.send(Finish("f"))
    assert talk.until(Warning, id="f").code == "idle"


@pytest.mark.slow
def test_a_second_train_is_refused_while_one_runs(talk, job):
    talk.open(job)
    talk.client.send(Train("t", LONG))
    talk.until(Progress, stage="training")
    talk.client.send(Train("t2"))
    assert talk.until(Error, id="t2").code == "busy"
    talk.client.send(Finish("f"))
    talk.until(Result, id="t")


def test_commands_without_a_job_say_so(talk):
    for command in (Train("x"), Predict("x"), Update("x", "a.npy", 2)):
        talk.client.send(command)
        assert "No job is open" in talk.until(Error, id="x").sentence


@pytest.mark.slow
def test_predict_uses_the_trained_model_without_annotation(talk, job, tmp_path, phantom):
    talk.open(job)
    talk.client.send(Train("t"))
    model = talk.until(Result, id="t").model
    bare = tmp_path / "bare"
    from sparseseg.contract.job import JobRecord

    Job.create(bare, phantom.image, None, JobRecord(phantom.geometry, phantom.classes, Settings())).close()
    talk.open(bare)
    talk.client.send(Predict("p", model))
    result = talk.until(Result, id="p")
    assert (result.reason, Path(result.file).parent) == ("predicted", bare)
    dense = np.load(result.file)
    assert (dense.dtype, dense.shape) == (np.uint8, phantom.image.shape)
    assert not (bare / "annotation.npy").exists()


@pytest.mark.slow
def test_close_and_the_end_of_stdin_end_the_process(start_talk, job):
    closed = start_talk()
    closed.until(Ready)
    closed.client.send(Close("x"))
    _wait_for_end(closed.client)
    assert closed.client._process.returncode == 0
    orphan = start_talk()
    orphan.open(job)
    orphan.client.send(Train("t", LONG))
    orphan.until(Progress, stage="training")
    orphan.client._outbox.put(None)  # what the operating system does when the host dies: the pipe ends
    _wait_for_end(orphan.client)


def test_wrong_lines_are_answered_and_harmless():
    process = subprocess.Popen(
        [sys.executable, "-m", "sparseseg", "worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    lines = [
        b"\n",
        b"garbage\n",
        b"{}\n",
        b'{"command":"dance","id":"1"}\n',
        b'{"command":"open","id":5}\n',
        b"\xff\xfe\x00\n",
        b"[" * 5000 + b"\n",
        b"x" * 2_000_000 + b"\n",
    ]
    out, _ = process.communicate(b"".join(lines) + b'{"command":"cancel","id":"c"}\n{"command":"close","id":"x"}', timeout=60)
    events = [decode_event(line) for line in out.decode("ascii").splitlines()]
    errors = [e for e in events if isinstance(e, Error)]
    assert len(errors) >= 7
    assert {e.code for e in errors} == {"protocol"}
    assert isinstance(events[-1], Ready)
    assert events[-1].id == "c"
    assert process.returncode == 0


def test_partial_lines_are_waited_for():
    process = subprocess.Popen(
        [sys.executable, "-m", "sparseseg", "worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    for piece in (b'{"command":"can', b'cel","id"', b':"c"}\n'):
        process.stdin.write(piece)
        process.stdin.flush()
        time.sleep(0.1)
    assert decode_event(process.stdout.readline().decode()).id == ""
    assert decode_event(process.stdout.readline().decode()).id == "c"
    process.communicate(timeout=30)


@pytest.mark.slow
def test_nothing_but_protocol_lines_reaches_stdout(job):
    noisy = """
import os, subprocess, sys
from sparseseg import worker
from sparseseg.session import session
plain = session.Session.open.__func__
def noisy(cls, *arguments):
    print("print")
    os.system("echo shell")
    sys.stdout.write("write\\n")
    os.write(1, b"descriptor\\n")
    subprocess.run([sys.executable, "-c", "print('child')"])
    return plain(cls, *arguments)
session.Session.open = classmethod(noisy)
worker.main()
"""
    _, err = _train_in(noisy, job)  # raises on a line that is no event
    for word in (b"print", b"write", b"descriptor", b"child", b"shell"):
        assert word in err


@pytest.mark.slow
def test_the_heartbeat_goes_on_during_a_long_silent_step(job):
    slow = """
import time
from sparseseg import worker
from sparseseg.session import prior_voice
plain = prior_voice.PriorVoice.grow
def slow(*arguments, **options):
    time.sleep(5)
    return plain(*arguments, **options)
prior_voice.PriorVoice.grow = slow
worker.main()
"""
    times, _ = _train_in(slow, job)
    assert times[-1] - times[0] > 5
    assert np.diff(times).max() < 2.0  # the contract's own bound


@pytest.mark.slow
@posix
def test_killed_in_training_then_resumed_from_the_checkpoint(start_talk, job, monkeypatch):
    first = start_talk(python=(sys.executable, str(_impatient(job.parent))))
    first.open(job)
    first.client.send(Train("t", LONG))
    end = time.monotonic() + 60
    while not (job / "model.pt").exists() and time.monotonic() < end:
        time.sleep(0.05)
    first.until(Progress, stage="training")
    os.kill(first.client.pid, signal.SIGKILL)
    error = first.until(Error, code="worker")
    assert error.fatal
    assert "killed" in error.sentence
    again = start_talk()
    again.open(job)  # the lock died with its process
    again.client.send(Train("t", {**LONG}))
    warning = again.until(Warning, code="resumed")
    step = int("".join(c for c in warning.sentence if c.isdigit()))
    assert step > 0
    assert again.until(Progress, stage="training").step >= step
    again.client.send(Finish("f"))
    assert again.until(Result, id="t").step >= step


@pytest.mark.slow
def test_a_step_that_never_ends_ends_the_worker_with_one_sentence(start_talk, job):
    code = "import time; worker._STUCK_S['training'] = 1.0; from sparseseg.network.trainer import Trainer; Trainer.step = lambda *_: time.sleep(3600)"
    talk = start_talk(python=(sys.executable, str(_wrapper(job.parent / "stuck.py", code))))
    talk.open(job)
    talk.client.send(Train("t", LONG))
    error = talk.until(Error, id="t")
    assert (error.code, error.fatal) == ("stuck", True)
    _wait_for_end(talk.client)
    assert not talk.client.poll()  # said once


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_what_never_ends_after_an_update_was_taken_does_not_refuse_it(start_talk, job, correct, training):
    stuck = "lambda _: (worker._STUCK_S.update(training=1.0, opening=1.0, prior=1.0), time.sleep(3600))"
    code = f"import time; from sparseseg.session.session import Session; Session.answer = {stuck}"
    talk = start_talk(python=(sys.executable, str(_wrapper(job.parent / "taken.py", code))))
    talk.open(job)
    if training:
        talk.client.send(Train("t", LONG))
        talk.until(Progress, stage="training")
    talk.client.send(Update("u", correct(job, 2), 2))
    error = talk.until(Error, fatal=True)
    assert (error.code, error.fatal, error.id, error.revision) == ("stuck", True, "t" if training else "", 2)
    _wait_for_end(talk.client)


@pytest.mark.slow
def test_what_never_ends_while_nothing_is_asked_for_ends_the_worker_too(start_talk, job):
    code = "import time; worker._STUCK_S['idle'] = 1.0; from sparseseg.session.session import Session; Session.idle = lambda _: time.sleep(3600)"
    talk = start_talk(python=(sys.executable, str(_wrapper(job.parent / "idle.py", code))))
    talk.open(job)
    error = talk.until(Error, id="")
    assert (error.code, error.fatal) == ("stuck", True)
    _wait_for_end(talk.client)


@pytest.mark.slow
def test_two_workers_on_one_job(start_talk, job):
    first, second = start_talk(), start_talk()
    first.open(job)
    second.client.send(Open("o", str(job), "cpu"))
    error = second.until(Error, id="o")
    assert error.code == "job"
    assert str(first.client.pid) in error.sentence
    first.client.send(Train("t", {"steps": 2}))
    first.until(Result, id="t")


@pytest.mark.slow
@posix
def test_a_full_disk_is_one_sentence_and_the_earlier_result_stays(job, start_talk):
    talk = start_talk()
    talk.open(job)
    talk.client.send(Train("t", {"steps": 2}))
    before = np.load(talk.until(Result, id="t").file)
    talk.client.kill()
    limited = start_talk(python=(sys.executable, str(_limited(job.parent, 20_000))))
    limited.open(job)
    limited.client.send(Train("t", {"steps": 2}))
    error = limited.until(Error, id="t")
    assert error.code == "output"
    assert "Could not write" in error.sentence
    np.testing.assert_array_equal(np.load(job / "dense.npy"), before)
    assert not [p for p in job.iterdir() if p.suffix == ".part"]


@posix
def test_kill_ends_the_whole_tree(start_talk, tmp_path):
    launcher = tmp_path / "launcher.py"
    launcher.write_text("import subprocess, sys\nsys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))\n")
    talk = start_talk(python=(sys.executable, str(launcher)))
    ready = talk.until(Ready)
    assert ready.pid == talk.client.pid != talk.client._process.pid
    talk.client.kill()
    _wait_for_end(talk.client)
    end = time.monotonic() + 10
    while _alive(ready.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(ready.pid)


@posix
def test_the_client_never_blocks_even_when_the_worker_stands_still(talk, job):
    talk.until(Ready)
    os.kill(talk.client.pid, signal.SIGSTOP)
    done = threading.Event()

    def talk_to_the_deaf():
        for n in range(5000):  # far more than a pipe holds
            talk.client.send(Open(str(n), "x" * 200))
        talk.client.poll()
        talk.client.close()
        done.set()

    threading.Thread(target=talk_to_the_deaf, daemon=True).start()
    assert done.wait(10)
    os.kill(talk.client.pid, signal.SIGCONT)


def test_a_python_that_does_not_exist_is_one_sentence():
    with pytest.raises(WorkerError, match="could not be started"):
        WorkerClient(python=("no-such-python",))


@pytest.mark.slow
def test_logs_and_events_of_a_job_name_no_file_of_the_user(talk, job):
    talk.open(job)
    talk.client.send(Train("t", {"steps": 2}))
    talk.until(Result, id="t")
    assert "Result" not in (job / "log.txt").read_text(encoding="utf-8")
    kinds = {json.loads(line)["event"] for line in (job / "events.jsonl").read_text(encoding="ascii").splitlines()}
    assert {"ready", "preview", "result"} <= kinds


@pytest.mark.slow
def test_a_large_time_budget_is_cut_by_the_steps_asked_for(talk, tmp_path, phantom):
    folder = make_job(tmp_path / "j", phantom, replace(Settings(), steps=4, width=4, depth=1, patch_voxels=4096, time_budget_s=3600))
    talk.open(folder)
    talk.client.send(Train("t"))
    assert talk.until(Result, id="t").step == 4


def _train_in(code, job):
    """Train for two steps in a worker started by `code`: when each event came, and what was written to stderr."""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    commands = (Open("o", str(job), "cpu"), Train("t", {"steps": 2, "estimate": False}))
    process.stdin.write("".join(map(encode, commands)).encode("ascii"))
    process.stdin.flush()
    times, event = [], None
    while not isinstance(event, Result):
        event = decode_event(process.stdout.readline().decode("ascii"))
        times.append(time.monotonic())
    return times, process.communicate(timeout=30)[1]


def _wait_for_end(client, patience_s=30.0):
    end = time.monotonic() + patience_s
    while client.running and time.monotonic() < end:
        time.sleep(0.05)
    assert not client.running


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")


def _impatient(folder):
    """A worker that writes checkpoints all the time."""
    return _wrapper(folder / "impatient.py", "from sparseseg.session import session; session._CHECKPOINT_EVERY_S = 0.1")


def _limited(folder, size):
    """A worker that can write no file larger than `size` bytes, as on a full disk."""
    code = f"import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    return _wrapper(folder / "limited.py", code)


def _wrapper(path, code):
    path.write_text(f"from sparseseg import worker\n{code}\nworker.main()\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_two_updates_at_once_are_both_answered_and_both_stand(talk, job, phantom):
    """Sent without waiting, as boxes: growing answers each under its own id, and what is shown in the end holds both."""
    talk.open(job)
    talk.client.send(Train("t", {"steps": 2, "estimate": False}))
    talk.until(Result, id="t")
    boxes = {2: (slice(20, 21), slice(18, 20), slice(2, 6)), 3: (slice(3, 4), slice(18, 20), slice(28, 32))}
    for revision, box in boxes.items():
        np.save(job / f"annotation-{revision:04d}.npy", np.full([s.stop - s.start for s in box], 3, np.uint8))
    for revision, box in boxes.items():
        talk.client.send(Update(f"u{revision}", f"annotation-{revision:04d}.npy", revision, [], [[s.start, s.stop] for s in box]))
    shown = np.load(job / "dense.npy")
    answered = set()
    while answered != {"u2", "u3"} or talk.events[-1].source != "prior":
        event = talk.until(Preview)
        answered.add(event.id)
        shown[tuple(slice(*edge) for edge in event.box)] = np.load(event.file)
    for box in boxes.values():
        assert (shown[box] == 2).all()
    labelled = phantom.annotation > 0
    for box in boxes.values():
        labelled[box] = False
    np.testing.assert_array_equal(shown[labelled], phantom.annotation[labelled] - 1)
