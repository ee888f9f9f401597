"""One network from many patients: what it learns, says of itself, and is taken by; going on after an end; several processes."""

import json
import signal
import socket
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import patients, run, start, train, write_list

from phantoms import two_organs
from sparseseg import io
from sparseseg.cohort import training
from sparseseg.cohort.lessons import CohortLearner
from sparseseg.network import checkpoint, device
from sparseseg.quality.estimate import dice

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def full_precision():
    patched = pytest.MonkeyPatch()
    patched.setattr(device, "precisions", lambda _: [torch.float32])
    yield
    patched.undo()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A list of five, the model of 30 steps, and its log."""
    folder = tmp_path_factory.mktemp("cohort")
    source = write_list(folder, patients(5))
    return source, folder / "model.pt", train(source, folder / "model.pt", "--steps", 30)


def test_it_learns_and_says_how_well_on_patients_it_has_not_seen(cohort):
    _, model, log = cohort
    assert log["patients"] == 5 and len(log["held_out"]) == 1 and log["held_out"][0].startswith("list.csv, line ")
    assert log["steps"] == log["curve"][-1]["step"] == 30
    loaded = checkpoint.load(model)
    assert loaded.validation == {segment: said["dice"] for segment, said in log["segments"].items()}
    assert min(loaded.validation.values()) > 0.7
    assert loaded.training == {} and loaded.is_upright and loaded.orientations == (0,)
    assert loaded.classes.names == ["bright", "dark"]


def test_the_best_of_the_run_is_kept(cohort):
    _, _, log = cohort
    means = {entry["step"]: np.mean(list(entry["dice"].values())) for entry in log["curve"]}
    assert log["best_step"] == max(means, key=lambda step: (means[step], -step))


def test_another_patient_is_segmented_with_it_however_it_lies_in_its_file(cohort, tmp_path):
    _, model, _ = cohort
    other = two_organs((12, 24, 26), seed=9)
    upside = replace(other.geometry, ijk_to_lps=tuple(map(tuple, other.geometry.matrix @ np.diag([-1, -1, 1, 1]))))
    results = []
    for name, image, geometry in (("as it is", other.image, other.geometry), ("turned", other.image[:, ::-1, ::-1], upside)):
        io.write_volume(tmp_path / f"{name}.nrrd", image, geometry)
        assert run("predict", model, tmp_path / f"{name}.nrrd", "-o", tmp_path / "out.nrrd") == 0
        results.append(io.read_labels(tmp_path / "out.nrrd", geometry))
    assert min(dice(results[0], other.truth, value) for value in (1, 2)) > 0.7
    assert np.array_equal(results[0], results[1][:, ::-1, ::-1])


def test_a_single_volume_begins_with_it(cohort, tmp_path):
    source, model, _ = cohort
    image, strokes = source.parent / "p0.nrrd", source.parent / "p0-strokes.seg.nrrd"
    assert run("segment", image, strokes, "-o", tmp_path / "o.nrrd", "--start-from", model, "--steps", 3, "--device", "cpu") == 0
    assert train(source, tmp_path / "next.pt", "--start-from", model, "--steps", 2)["steps"] == 2


def test_several_channels_for_so_long(cohort, tmp_path):
    source, folder = tmp_path / "channels.csv", cohort[0].parent
    lines = [f"{folder}/p{n}.nrrd,{folder}/p{n}.nrrd,{folder}/p{n}-strokes.seg.nrrd" for n in range(5)]
    source.write_text("\n".join(["image,image2,annotation", *lines]), encoding="utf-8")
    log = train(source, tmp_path / "m.pt", "--minutes", 0.05)
    assert log["steps"] >= 1 and log["seconds"] >= 3
    assert len(checkpoint.load(tmp_path / "m.pt").intensities) == 2


def test_the_same_seed_repeats_a_run(cohort, tmp_path):
    source, _, log = cohort
    assert [entry["loss"] for entry in train(source, tmp_path / "again.pt", "--steps", 30)["curve"]] == [entry["loss"] for entry in log["curve"]]


def interrupted(process, model):
    """Ctrl-C as soon as there is a first model."""
    deadline = time.monotonic() + 120
    for line in process.stderr:
        if "step " in line or time.monotonic() > deadline:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    return process.returncode


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_keeps_the_best_so_far_and_resume_goes_on(cohort, tmp_path, capsys):
    source, model = cohort[0], tmp_path / "m.pt"
    assert interrupted(start(source, "-o", model, "--steps", "100000"), model) == 130
    log = json.loads((tmp_path / "m.pt.json").read_text(encoding="utf-8"))
    assert checkpoint.load(model).validation and "trainer" in checkpoint.load(model).training
    before = model.read_bytes()
    assert run("cohort", "train", source, "-o", model, "--steps", 5, "--resume", "--seed", 3) == 2
    assert "another list" in capsys.readouterr().err and model.read_bytes() == before
    on = train(source, model, "--steps", log["steps"] + 3, "--resume")
    assert on["steps"] == log["steps"] + 3 and on["curve"][: len(log["curve"])] == log["curve"]
    assert on["seconds"] >= log["seconds"]
    assert run("cohort", "train", source, "-o", model, "--steps", 5, "--resume") == 2  # it has ended


def test_a_run_that_died_goes_on_as_if_it_had_not(cohort, tmp_path, monkeypatch, capsys):
    source, whole, log = cohort
    with monkeypatch.context() as dying:
        step = CohortLearner.step
        dying.setattr(training, "_SAVE_S", -1)  # at every validation
        dying.setattr(CohortLearner, "step", lambda self, fraction: step(self, fraction) if self.steps < 17 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("cohort", "train", source, "-o", tmp_path / "m.pt", "--device", "cpu", "--steps", 30)
    on = train(source, tmp_path / "m.pt", "--steps", 30, "--resume")
    assert [entry["dice"] for entry in on["curve"]] == [entry["dice"] for entry in log["curve"]]
    one, other = (checkpoint.load(path).weights for path in (whole, tmp_path / "m.pt"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def together(count, *arguments):
    port = free_port()
    return [start(*arguments, rank=rank, count=count, port=port) for rank in range(count)]


def test_two_processes_learn_as_one_with_twice_the_batch(cohort, tmp_path):
    logs = []
    for count, batch in ((1, 4), (2, 2)):
        model = tmp_path / f"{count}.pt"
        processes = together(count, cohort[0], "-o", model, "--steps", "20", "--batch", batch)
        said = [process.communicate(timeout=300) for process in processes]
        assert [process.returncode for process in processes] == [0] * count, said
        assert [bool(out) for out, _ in said] == [True] + [False] * (count - 1)  # only the first speaks
        logs.append(json.loads((tmp_path / f"{count}.pt.json").read_text(encoding="utf-8")))
    one, two = logs
    assert one["batch"] == two["batch"] == 4 and two["processes"] == 2
    losses = [[sum(entry["loss"].values()) for entry in log["curve"] if entry["loss"]] for log in logs]
    assert len({round(loss, 6) for loss in losses[0]}) == 2  # looked at every ten steps
    np.testing.assert_allclose(*losses, atol=1e-3)
    np.testing.assert_allclose(*([list(entry["dice"].values()) for entry in log["curve"]] for log in logs), atol=0.02)


def test_where_one_process_ends_the_other_ends_with_a_sentence(cohort, tmp_path):
    first, second = together(2, cohort[0], "-o", tmp_path / "m.pt", "--steps", "100000")
    next(line for line in first.stderr if "training" in line)
    second.kill()
    _, said = first.communicate(timeout=120)
    assert first.returncode == 4 and "Another process of this training ended" in said and "--resume" in said
    second.communicate(timeout=10)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--held-out", 0], "share between 0 and 1"),
        (["--minutes", 5000], "--minutes must lie"),
        (["--start-from", "no.pt"], "There is no model file"),
    ],
)
def test_options_that_cannot_be_used(cohort, tmp_path, capsys, more, said):
    assert run("cohort", "train", cohort[0], "-o", tmp_path / "m.pt", *more) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "m.pt").exists()


def test_one_patient_is_no_cohort(tmp_path, capsys):
    assert run("cohort", "train", write_list(tmp_path, patients(1)), "-o", tmp_path / "m.pt") == 2
    assert "one annotated patient" in capsys.readouterr().err
