"""What is broken in a job's model.pt, or in the files that come with the engine, costs that and nothing else."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from phantoms import two_organs
from sparseseg.contract.errors import ModelError, OutputError
from sparseseg.contract.settings import Settings
from sparseseg.network import checkpoint, start
from sparseseg.prior import refiner_network
from sparseseg.session import session as session_module
from sparseseg.session.devices import DeviceChoice
from sparseseg.session.session import Session

QUICK = Settings(steps=3, width=4, depth=2, patch_voxels=16**3, refine=False, estimate=False)
PHANTOM = two_organs((12, 20, 20))


@pytest.fixture
def trained(session_on):
    """A session that has trained, and been closed; its checkpoint, read."""
    session = session_on(PHANTOM, QUICK)
    session.train()
    session.close()
    return session.job, torch.load(session.job.path("model.pt"), weights_only=True)


def train_again(job, host, compute):
    host.warnings.clear()
    session = Session.open(job.folder, DeviceChoice(chosen=compute), host)
    try:
        outcome = session.train()
        assert outcome.dense.exists() and session.network.steps == outcome.step
        return outcome.step
    finally:
        session.close()


def put(into, path, value):
    """into, with the value at a path of keys; without it where it is None."""
    *path, last = path
    for key in path:
        into = into[key]
    if value is None:
        del into[last]
    else:
        into[last] = value


NAN = float("nan")
STATES = {
    "no trainer": (["training", "trainer"], None),
    "a trainer of another kind": (["training", "trainer"], [1, 2]),
    "no network": (["training", "trainer", "network"], None),
    "a network of nan": (["training", "trainer", "network", "head.bias"], torch.full((3,), NAN)),
    "a network of another shape": (["training", "trainer", "network", "head.bias"], torch.zeros(7)),
    "a network of whole numbers": (["training", "trainer", "network", "head.bias"], torch.zeros(3, dtype=torch.int64)),
    "no optimizer": (["training", "trainer", "optimizer"], None),
    "moments of nobody": (["training", "trainer", "optimizer", "state", 999], {"step": torch.zeros(())}),
    "moments missing": (["training", "trainer", "optimizer", "state", 0], None),
    "a moment missing": (["training", "trainer", "optimizer", "state", 0, "exp_avg"], None),
    "a moment of another shape": (["training", "trainer", "optimizer", "state", 0, "exp_avg"], torch.zeros(1)),
    "a moment of nan": (["training", "trainer", "optimizer", "state", 0, "exp_avg_sq"], torch.full((4, 11, 1, 3, 3), NAN)),
    "a step of nan": (["training", "trainer", "optimizer", "state", 0, "step"], torch.tensor(NAN)),
    "random numbers of none": (["training", "trainer", "rng"], {}),
    "random numbers of another kind": (["training", "trainer", "rng", "bit_generator"], "MT19937"),
    "random numbers too large": (["training", "trainer", "rng", "state", "state"], "9" * 200),
    "random numbers that are text": (["training", "trainer", "rng", "state", "inc"], "many"),
    "steps below 0": (["training", "trainer", "steps"], -1),
    "steps a text": (["training", "trainer", "steps"], "3"),
    "a rate of nan": (["training", "trainer", "rate_factor"], NAN),
    "a rate of a thousand": (["training", "trainer", "rate_factor"], 1000.0),
    "seconds of nan": (["training", "seconds"], NAN),
    "no seconds": (["training", "seconds"], None),
    "more steps spent than done": (["training", "spent_steps"], 10**6),
    "a share of 7": (["training", "share"], 7.0),
    "no estimate": (["training", "estimate"], None),
    "an estimate of text": (["training", "estimate"], {"Segment_1": "good"}),
    "not said whether it is finished": (["training", "finished"], None),
    "a spacing that fills the memory": (["spacing_kji_mm"], [1e-6, 1e-6, 1e-6]),
    "two channels": (["intensity"], [{"centre": 0.0, "scale": 1.0, "relative": False}] * 2),
    "weights of nan": (["weights", "head.bias"], torch.full((3,), NAN)),
    "another version": (["version"], 1),
}


@pytest.mark.slow
def test_whatever_a_checkpoint_says_the_job_goes_on(trained, host, compute):
    """One after the other in one job: a session of each would be made for the same."""
    job, good = trained
    assert train_again(job, host, compute) == 6 and not [code for code, _ in host.warnings if code == "model"]
    for name, (path, value) in STATES.items():
        broken = torch.load(_saved(job.path("model.pt"), good), weights_only=True)
        put(broken, path, value)
        _saved(job.path("model.pt"), broken)
        assert train_again(job, host, compute) == 3, name
        (sentence,) = [sentence for code, sentence in host.warnings if code == "model"]
        assert sentence.startswith("The network begins anew: "), name


def _saved(path, data):
    torch.save(data, path)
    return path


@pytest.mark.slow
def test_rates_and_other_settings_are_this_runs_own(trained, host, compute):
    """An optimizer's settings in a file are not looked at."""
    job, saved = trained
    saved["training"]["trainer"]["optimizer"]["param_groups"] = [{"lr": float("inf"), "betas": "no", "params": [7]}]
    _saved(job.path("model.pt"), saved)
    assert train_again(job, host, compute) == 6


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "folder", "pipe", "link to nothing", "loop"])
def test_a_checkpoint_that_is_none_is_replaced(trained, host, compute, damage):
    job, _ = trained
    path = job.path("model.pt")
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
        (path / "somebody's").write_text("kept")
    elif damage == "pipe":
        pytest.importorskip("fcntl")
        __import__("os").mkfifo(path)
    elif damage in ("loop", "link to nothing"):
        path.symlink_to(path if damage == "loop" else path.with_name("gone.pt"))
    else:
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "garbage": b"PK\x03\x04" + bytes(1000)}[damage])
    assert train_again(job, host, compute) == 3
    assert [code for code, _ in host.warnings].count("model") == 1
    checkpoint.load(path)  # a new one
    if damage == "folder":
        assert [kept.read_text() for kept in job.folder.glob("model.pt.*/somebody's")] == ["kept"]


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_a_warning(session_on, host, monkeypatch):
    session = session_on(PHANTOM, QUICK)
    monkeypatch.setattr(session_module, "_CHECKPOINT_EVERY_S", 0.0)
    save = session._save_model

    def full(finished):
        if not finished:
            raise OutputError("There is no space left.", "Free some.")
        return save(finished)

    monkeypatch.setattr(session, "_save_model", full)
    assert session.train().step == 3
    assert ("model", "What was learned so far is not saved: There is no space left.") in host.warnings


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["gone", "cut", "nan"])
def test_without_the_refiner_growing_stands(session_on, host, monkeypatch, tmp_path, damage):
    weights = torch.load(refiner_network.WEIGHTS, weights_only=True)
    next(iter(weights.values())).fill_(NAN)
    broken = tmp_path / "refiner.pt"
    if damage == "nan":
        torch.save(weights, broken)
    elif damage == "cut":
        broken.write_bytes(refiner_network.WEIGHTS.read_bytes()[:-100])
    monkeypatch.setattr(refiner_network, "WEIGHTS", broken)
    refiner_network.load_refiner.cache_clear()
    session = session_on(PHANTOM, replace(QUICK, refine=True))
    outcome = session.train()
    refiner_network.load_refiner.cache_clear()
    assert outcome.step == 3
    ((code, sentence),) = host.warnings
    assert code == "model" and sentence.startswith("Growing stands as it is: refiner.pt")
    np.testing.assert_array_equal(session.prior.stands.label, session.prior.grown.label)


@pytest.mark.slow
def test_without_the_start_training_begins_from_nothing(session_on, host, monkeypatch, tmp_path):
    monkeypatch.setattr(start, "FILE", tmp_path / "gone.pt")
    start.shipped.cache_clear()
    assert session_on(PHANTOM, QUICK).train().step == 3
    start.shipped.cache_clear()
    ((code, sentence),) = host.warnings
    assert code == "model" and sentence.startswith("The network begins from nothing: gone.pt")


@pytest.mark.slow
def test_a_model_that_says_no_number_is_refused(trained, host, compute):
    """Its weights are numbers, and what they make of an image is none."""
    job, saved = trained
    for name, weight in saved["weights"].items():
        if name.endswith("1.weight"):
            weight.fill_(3e38)
    _saved(job.path("huge.pt"), saved)
    session = Session.open(job.folder, DeviceChoice(chosen=compute), host)
    try:
        with pytest.raises(ModelError, match="says what is not a number of this image"):
            session.predict(str(job.path("huge.pt")))
    finally:
        session.close()


@pytest.mark.slow
def test_a_grid_that_would_fill_the_memory_is_refused_with_numbers(trained, host, compute):
    job, saved = trained
    _saved(job.path("fine.pt"), {**saved, "spacing_kji_mm": [1e-4, 1e-4, 1e-4]})
    session = Session.open(job.folder, DeviceChoice(chosen=compute), host)
    try:
        with pytest.raises(ModelError, match=r"has \d+ x \d+ x \d+ voxels, which need [\d.]+ GiB of memory; [\d.]+ are free"):
            session.predict(str(job.path("fine.pt")))
    finally:
        session.close()


def test_a_disk_that_refuses_to_delete_is_told_of_as_such(session_on, monkeypatch):
    """Some must write to delete: on a full one even that is refused."""
    session = session_on(PHANTOM, QUICK)

    def refused(path, missing_ok=False):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(OutputError, match="No space"):
        session.train()
