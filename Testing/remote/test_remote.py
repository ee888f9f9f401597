"""An engine over a real sshd on this computer: a session as with a local one, over connections that break, and nothing left behind."""

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
from servers import Relay

from phantoms import make_job, two_organs
from sparseseg import cli, io
from sparseseg.contract.job import DENSE, VOICES, WEIGHTS, Job
from sparseseg.contract.protocol import Cancel, Error, Finish, Open, Preview, Progress, Ready, Result, Train, Update, Warning
from sparseseg.contract.remote import RESULTS

LONG = {"steps": 0, "time_budget_s": 600}


@pytest.fixture
def phantom():
    return two_organs()


@pytest.fixture
def job(tmp_path, phantom):
    return make_job(tmp_path / "job", phantom)


def correct(job, phantom, revision, index=4):
    """A slice painted anew, as a host hands it over: the box of that slice."""
    np.save(job / f"annotation-{revision:04d}.npy", phantom.truth[index : index + 1] + np.uint8(1))
    shape = phantom.truth.shape
    box = [[index, index + 1], [0, shape[1]], [0, shape[2]]]
    return Update(f"update-{revision}", f"annotation-{revision:04d}.npy", revision, [], box)


def left(sshd):
    """What a server's sessions have left, waited for a little."""
    for _ in range(100):
        if not (found := sorted(sshd.temporary.iterdir())):
            break
        time.sleep(0.1)
    return found


def test_a_session_with_a_correction_is_as_with_a_local_engine(sshd, start_talk, job, phantom):
    talk = start_talk(results=RESULTS)
    ready = talk.open(job)
    assert (ready.job, ready.revision) == (str(job), 1)
    talk.client.send(Train("train", {"steps": 3}))
    first = talk.until(Preview, id="train")
    assert Path(first.file).parent == job and np.load(first.file).shape == phantom.truth.shape
    talk.client.send(correct(job, phantom, 2))
    preview = talk.until(Preview, id="update-2")
    assert preview.revision == 2
    result = talk.until(Result, id="train")
    dense = np.load(result.file)
    assert result.file == str(job / DENSE)
    np.testing.assert_array_equal(dense[4], phantom.truth[4])
    for file in (result.uncertainty, result.model, result.report):
        assert Path(file).parent == job and Path(file).stat().st_size
    assert (np.load(job / WEIGHTS) > 0).sum() > (phantom.annotation > 0).sum()
    assert (job / VOICES["growing"]).exists() and not (job / VOICES["network"]).exists()  # after three steps
    talk.client.close().join()
    assert not left(sshd)
    with Job.open(job) as mirror:  # which is the same as if the engine had worked in it
        assert mirror.record.revision == 2
        np.testing.assert_array_equal(mirror.annotation()[4], phantom.truth[4] + 1)


def test_the_job_is_locked_as_by_an_engine(talk, job):
    talk.open(job)
    with pytest.raises(Exception, match="already open"):
        Job.open(job)


def test_what_is_refused_there_is_refused_here(talk, job, phantom):
    talk.open(job)
    np.save(job / "annotation-0002.npy", np.full(phantom.truth.shape, 9, np.uint8))
    talk.client.send(Update("value", "annotation-0002.npy", 2))
    assert talk.until(Error, id="value").code == "annotation"
    talk.client.send(Update("missing", "annotation-0003.npy", 3))
    assert talk.until(Error, id="missing").code == "job"
    assert json.loads((job / "job.json").read_text())["revision"] == 1
    np.save(job / "annotation-0002.npy", phantom.truth + np.uint8(1))
    talk.client.send(Update("whole", "annotation-0002.npy", 2))
    assert talk.until(Preview, id="whole").revision == 2
    assert json.loads((job / "job.json").read_text())["revision"] == 2


def test_cancel_is_heard_within_a_second(talk, job):
    talk.open(job)
    talk.client.send(Train("train", LONG))
    talk.until(Progress, stage="training")
    start = time.monotonic()
    talk.client.send(Cancel("cancel"))
    assert talk.until(Error, id="train").code == "cancelled"
    talk.until(Ready, id="cancel")
    assert time.monotonic() - start < 3.0  # 1 s, on a computer that does nothing else


def test_cancel_is_heard_while_a_volume_is_on_its_way(sshd, start_talk, tmp_path):
    relay = Relay(sshd.port, 100_000)
    talk = start_talk(sshd.server(port=relay.port))
    (sshd.folder / "known_hosts").write_text(f"[127.0.0.1]:{relay.port} {(sshd.folder / 'host_key.pub').read_text()}")
    job = make_job(tmp_path / "large", two_organs((60, 256, 256)))
    talk.until(Ready, id="")
    talk.client.send(Open("open", str(job), "cpu"))
    talk.client.send(Train("train", LONG))
    talk.until(Progress, id="open", stage="opening")
    start = time.monotonic()
    talk.client.send(Cancel("cancel"))
    assert talk.until(Error, id="open").code == "cancelled"
    assert talk.until(Error, id="train").code == "cancelled"
    talk.until(Ready, id="cancel")
    assert time.monotonic() - start < 2.0
    relay.close()


def test_a_volume_that_is_there_is_not_sent_again(sshd, start_talk, tmp_path):
    relay = Relay(sshd.port, 1e9)
    with open(sshd.folder / "known_hosts", "a") as hosts:
        hosts.write(f"[127.0.0.1]:{relay.port} {(sshd.folder / 'host_key.pub').read_text()}")
    one = start_talk()
    one.open(make_job(tmp_path / "one", two_organs((60, 128, 128))))
    other = start_talk(sshd.server(port=relay.port))
    other.open(make_job(tmp_path / "other", two_organs((60, 128, 128))))
    assert relay.passed[0] < 100_000  # 1.9 MB of noise


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(3))
def test_a_connection_that_is_cut_loses_nothing(sshd, talk, job, phantom, seed):
    """Killed at random moments, while strokes come and go: each command is answered once, and what is shown is the job's."""
    rng = random.Random(seed)
    talk.open(job)
    talk.client.send(Train("train", LONG))
    talk.until(Preview, id="train")
    for revision in range(2, 8):
        talk.client.send(correct(job, phantom, revision, index=revision + 10))
        time.sleep(rng.uniform(0.0, 0.4))
        talk.client._child.kill()
        talk.until(Warning, code="connection", advice="")  # connected again
    for revision in range(2, 8):
        if not any(isinstance(e, Preview) and e.id == f"update-{revision}" for e in talk.events):
            talk.until(Preview, id=f"update-{revision}")
    talk.client.send(Finish("finish"))
    result = talk.until(Result, id="train")
    assert result.revision == 7
    dense = np.load(result.file)
    for index in range(12, 18):
        np.testing.assert_array_equal(dense[index], phantom.truth[index])
    assert not [e for e in talk.events if isinstance(e, Error)]
    talk.client.close().join()
    assert not left(sshd)


@pytest.mark.slow
def test_training_goes_on_while_nobody_is_there(sshd, talk, job):
    talk.open(job)
    talk.client.send(Train("train", LONG))
    before = talk.until(Progress, stage="training")
    sshd.lock_out()
    talk.client._child.kill()
    talk.until(Warning, code="connection")
    time.sleep(4.0)
    sshd.let_in()
    talk.until(Warning, code="connection", advice="")
    later = talk.until(Progress, stage="training")
    while later.seconds < before.seconds + 4.0:
        later = talk.until(Progress, stage="training")
    meanwhile = [e.seconds for e in talk.events if isinstance(e, Progress) and before.seconds + 1 < e.seconds < before.seconds + 3]
    assert meanwhile and later.step > before.step  # what was said to nobody arrives


@pytest.mark.slow
def test_a_server_that_stays_away_is_given_up_and_keeps_nothing(sshd, start_talk, job, phantom):
    talk = start_talk(keep_s=4)
    talk.open(job)
    talk.client.send(correct(job, phantom, 2))
    talk.until(Preview, id="update-2")
    sshd.lock_out()
    talk.client._child.kill()
    error = talk.until(Error)
    assert (error.code, error.fatal) == ("connection", True) and "within 4 s" in error.sentence
    assert not left(sshd)
    with Job.open(job) as mirror:  # the strokes are here
        assert mirror.record.revision == 2


@pytest.mark.slow
def test_a_session_that_is_gone_is_begun_anew_by_the_host(sshd, start_talk, job, phantom):
    """As after a restart of the server: the job here has all that an engine needs."""
    talk = start_talk(keep_s=30)
    talk.open(job)
    talk.client.send(correct(job, phantom, 2))
    talk.until(Preview, id="update-2")
    sshd.kill_keepers()
    error = talk.until(Error)
    assert (error.code, error.fatal) == ("worker", True)
    again = start_talk()
    assert again.open(job).revision == 2


@pytest.mark.slow
def test_the_command_line_over_a_slow_line(sshd, phantom, tmp_path):
    relay = Relay(sshd.port, 2_000_000)
    (sshd.folder / "known_hosts").write_text(f"[127.0.0.1]:{relay.port} {(sshd.folder / 'host_key.pub').read_text()}")
    image, annotation, out, weights, report = (tmp_path / n for n in ("image.nrrd", "labels.nrrd", "out.seg.nrrd", "weights.nrrd", "report.html"))
    io.write_volume(image, phantom.image, phantom.geometry)
    io.write_volume(annotation, phantom.annotation, phantom.geometry)
    command = ["segment", str(image), str(annotation), "-o", str(out), "--steps", "3", "--device", "cpu"]
    more = ["--engine", sshd.address(port=relay.port), "--weights", str(weights), "--report", str(report)]
    assert cli.main([*command, *more]) == 0
    assert out.exists() and weights.exists() and report.exists()
    assert not left(sshd)


@pytest.mark.slow
def test_the_command_line_gets_the_same_from_here_and_there(sshd, phantom, tmp_path):
    """With --steps it is repeatable; a model goes there and comes back."""
    image, annotation, model = (tmp_path / n for n in ("image.nrrd", "labels.nrrd", "model.pt"))
    io.write_volume(image, phantom.image, phantom.geometry)
    io.write_volume(annotation, phantom.annotation, phantom.geometry)
    found = {}
    for where, more in (("here", []), ("there", ["--engine", sshd.address(), "--save-model", str(model)])):
        out, again = tmp_path / f"{where}.nrrd", tmp_path / f"{where}-predicted.nrrd"
        assert cli.main(["segment", str(image), str(annotation), "-o", str(out), "--steps", "3", "--device", "cpu", *more]) == 0
        if where == "there":
            found["predicted there"] = again
            assert cli.main(["predict", str(model), str(image), "-o", str(again), "--device", "cpu", *more[:2]]) == 0
        found[where] = out
    arrays = {where: io.read_volume(path).array for where, path in found.items()}
    np.testing.assert_array_equal(arrays["here"], arrays["there"])
    assert arrays["predicted there"].shape == phantom.truth.shape
    assert not left(sshd)
