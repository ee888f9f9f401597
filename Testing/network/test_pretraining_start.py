"""What the network's start learns from: slices cut as the engine cuts them, heads as it solves them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "pretraining"))

import start as pretraining
import tasks as task_module
from start import Learner, dice_of, loss_of
from tasks import ASKED, GIVEN, MOST, Draw, Tasks, Volume

from sparseseg.network.augmentation import plane_input
from sparseseg.network.start import shipped
from sparseseg.network.unet import CONTEXT, IN_CHANNELS

SHAPE = (9, 24, 16)
CPU = torch.device("cpu")


def volume(shape=SHAPE, seed=0):
    """Two bright boxes of their own gray values in noise."""
    rng = np.random.default_rng(seed)
    objects = np.zeros(shape, np.uint8)
    k, j, i = shape
    objects[1 : k - 1, 2 : j // 2, 2 : i - 2], objects[1 : k - 1, j // 2 + 1 : j - 1, 2 : i - 2] = 1, 2
    image = (np.array([0, 0.5, 1.0])[objects] + rng.normal(0, 0.05, shape)).astype(np.float16)
    return Volume(image, objects, [1, 2], task_module._shown(objects, [1, 2]), (1.0, 1.0, 1.0), "synthetic")


def as_it_is(axis, index):
    """A draw that shows one slice of the volume whole, twice as often as there are places."""
    others = [a for a in range(3) if a != axis]
    slots = GIVEN + ASKED
    table = np.zeros(256, np.int64)
    table[[1, 2]] = 1, 2
    centre = np.array([(SHAPE[a] - 1) / 2 for a in others])
    axes, slices = np.full(slots, axis), np.full(slots, index)
    return Draw(0, table, axes, slices, np.tile(np.eye(2), (slots, 1, 1)), np.tile(centre, (slots, 1)))


@pytest.mark.parametrize(("axis", "index"), [(0, 0), (0, 4), (1, 7), (1, 23), (2, 15)])
def test_a_slice_is_seen_as_the_engine_shows_it(axis, index, monkeypatch):
    monkeypatch.setattr(Tasks, "_as_seen", lambda self, image, *_: image)
    monkeypatch.setattr(task_module, "POSITION_DROPOUT", -1.0)
    tasks, truth = Tasks([volume()], CPU), volume()
    canvas = tuple(SHAPE[a] for a in range(3) if a != axis)
    x, labels, weights = tasks.cut([as_it_is(axis, index)], canvas, np.random.default_rng(0))
    expected = plane_input(torch.from_numpy(truth.image), axis, index, 1)
    assert x.shape == (1, GIVEN + ASKED, IN_CHANNELS, *canvas)
    for slot in range(GIVEN + ASKED):
        torch.testing.assert_close(x[0, slot], expected[:, 0], atol=1e-5, rtol=0)
        np.testing.assert_array_equal(labels[0, slot], np.take(truth.objects, index, axis))
    assert (weights[:, GIVEN:] == 1).all()


def test_tasks_are_repeatable_and_show_what_they_ask_for():
    tasks = Tasks([volume(seed=n) for n in range(3)], CPU)
    batches = []
    for _ in range(2):
        torch.manual_seed(0)
        batches.append(tasks.batch(np.random.default_rng(5), 4))
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one, other)
    x, labels, weights = batches[0]
    assert torch.isfinite(x).all()
    assert x.shape[:3] == (4, GIVEN + ASKED, IN_CHANNELS)
    assert labels.max() <= MOST
    assert ((labels > 0) & (weights > 0))[:, :GIVEN].flatten(1).any(1).all()
    assert x[:, :, CONTEXT].std() > 0.1


def test_with_the_shipped_body_given_slices_tell_the_asked_ones():
    """Objects of their own gray values: nearly everything."""
    learner = Learner().eval()
    learner.network.load_state_dict(shipped().weights, strict=False)
    with torch.no_grad():
        learner.log_ridge.copy_(torch.tensor(shipped().ridge).log())
        learner.log_sharpness.copy_(torch.tensor(shipped().sharpness).log())
        tasks = Tasks([volume((24, 64, 64), seed=n) for n in range(3)], CPU)
        torch.manual_seed(0)
        x, labels, weights = tasks.batch(np.random.default_rng(1), 4)
        logits = learner(x, labels, weights, torch.float32)
    assert np.mean(dice_of(logits, labels, weights)) > 0.7


def test_the_loss_reaches_the_body_and_what_fixes_the_head():
    learner = Learner()
    x, labels, weights = Tasks([volume()], CPU).batch(np.random.default_rng(2), 2)
    cross_entropy, dice = loss_of(learner(x, labels, weights, torch.float32), labels, weights)
    (cross_entropy + dice).backward()
    for name, parameter in learner.named_parameters():
        if name.startswith("network.head."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_a_segment_that_the_given_slices_lack_is_not_asked_for():
    logits = torch.zeros(ASKED, MOST + 1, 1, 4, 4)
    labels, weights = torch.zeros(1, GIVEN + ASKED, 4, 4, dtype=torch.long), torch.ones(1, GIVEN + ASKED, 4, 4)
    labels[:, GIVEN:, 0] = 3
    base = loss_of(logits, labels, weights)
    logits[:, 3] = pretraining._NEVER
    cross_entropy, dice = loss_of(logits, labels, weights)
    assert torch.isfinite(cross_entropy) and cross_entropy < base[0] + 0.2 and torch.isfinite(dice)


@pytest.mark.slow
def test_the_command_makes_weights_that_the_engine_can_begin_with(tmp_path, monkeypatch, capsys):
    from sparseseg.network import start

    monkeypatch.setattr(sys, "argv", ["start.py", "--volumes", "8", "--steps", "2", "--tasks", "1", "--log", "2", "--exams", "1", "--makers", "2",
                                      "--device", "cpu", "--out", str(tmp_path / "start.pt")])  # fmt: skip
    pretraining.main()
    assert "step 2" in capsys.readouterr().out
    monkeypatch.setattr(start, "FILE", tmp_path / "start.pt")
    made = start.shipped.__wrapped__()
    assert {name: t.shape for name, t in made.weights.items()} == {name: t.shape for name, t in shipped().weights.items()}
