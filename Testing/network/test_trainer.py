"""The training step: what a batch is made of, the learning rate over a run, and averaged weights."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.belief import Belief
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.settings import Settings
from sparseseg.network import augmentation
from sparseseg.network.augmentation import Augmenter, TrainingVolume
from sparseseg.network.cores import batches
from sparseseg.network.device import Compute, RunPlan
from sparseseg.network.sampling import WorkingGrid
from sparseseg.network.targets import Targets
from sparseseg.network.trainer import Trainer, _schedule
from sparseseg.network.unet import plan_network

CPU = torch.device("cpu")
COMPUTE = Compute(CPU, torch.float32, "test", 1.0, 1 << 30, "")
SETTINGS = Settings(pseudo_label_weight=0.0)
SHAPE = (6, 16, 18)


def trainer_of(slices=1, batch=2, settings=SETTINGS, strength=1.0):
    """On axial slice 2, whole, and a square of 4 x 6 on coronal slice 9."""
    rng = np.random.default_rng(0)
    values = np.zeros(SHAPE, np.uint8)
    values[1:5, 9, 4:10] = 2
    values[2] = 1 + (np.arange(18) > 8)
    nothing = np.zeros(SHAPE, np.uint8)
    targets = Targets(build_annotation(values, ClassTable.numbered(1), settings), Belief(nothing, nothing), settings, CPU)
    grid = WorkingGrid.of_whole(SHAPE, SHAPE)
    image = torch.from_numpy(np.where(values == 2, 1.0, 0) + rng.normal(0, 0.1, SHAPE)).half()
    plan = RunPlan(plan_network(slices, (16, 18), 2, 4, 1), SHAPE, slices, batch)
    return Trainer(COMPUTE, plan, TrainingVolume(grid, image, targets), Augmenter(grid, (1, 1, 1), strength), settings)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_step_learns_from_so_many_slabs_and_no_draw_is_lost(batch, monkeypatch):
    trainer, taken, drawn = trainer_of(batch=batch), [], []
    take, draw = augmentation.take_slab, trainer.volume.targets.sampler.draw

    def remembered(volume, numbers, slices):
        image, labels, weights = take(volume, numbers, slices)
        plane = (16, 18) if numbers.axis == 0 else (6, 18)
        assert image.shape == (trainer.plan.network.in_channels, 1, *plane)
        assert labels.shape == weights.shape == (1, *plane)
        taken.append((numbers.axis, numbers.index))
        return image, labels, weights

    monkeypatch.setattr(augmentation, "take_slab", remembered)
    monkeypatch.setattr(trainer.volume.targets.sampler, "draw", lambda rng: drawn.append(draw(rng)) or drawn[-1])
    for _ in range(12):
        trainer.step(0.5)
    assert sorted(taken) == sorted(drawn)  # cores finish in any order
    assert set(drawn) == {(0, 2), (1, 9)} and len(drawn) == 12 * batch


def test_a_smaller_plan_takes_thinner_slabs_and_fewer(monkeypatch):
    trainer, taken = trainer_of(slices=4, batch=2), []
    take = augmentation.take_slab
    monkeypatch.setattr(augmentation, "take_slab", lambda volume, numbers, slices: taken.append(slices) or take(volume, numbers, slices))
    trainer.step(0.5)
    assert taken == [4, 4]
    trainer.replan(dataclasses.replace(trainer.plan, slices=2, batch=1))
    trainer.step(0.5)
    assert taken == [4, 4, 2]


def test_the_gradient_is_the_mean_of_the_slabs(monkeypatch):
    trainer = trainer_of(batch=3)
    draws = trainer._batch()
    each = [trainer._gradients([draw])[1] for draw in draws]
    monkeypatch.setattr(trainer, "_batch", lambda: draws)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
    trainer.step(0.5)
    for parameter, *parts in zip(trainer.network.parameters(), *each, strict=True):
        torch.testing.assert_close(parameter.grad, sum(parts) / 3, atol=1e-6, rtol=1e-4)


def test_slabs_of_a_shape_that_are_worked_on_as_one_teach_the_same():
    """As on a GPU."""
    trainer = trainer_of(batch=5)
    draws = trainer._batch()
    sums = []
    for at_once in (1, 2, 8):
        groups = batches(draws, lambda draw: draw.axis, at_once)
        assert sorted(id(d) for group in groups for d in group) == sorted(map(id, draws)) and all(len(group) <= at_once for group in groups)
        found = [trainer._gradients(group) for group in groups]
        sums.append([sum(parts) for parts in zip(*(gradients for _, gradients in found), strict=True)])
        assert torch.cat([losses for losses, _ in found]).shape == (5, 2)
    assert len({draw.axis for draw in draws}) > 1
    for other in sums[1:]:
        torch.testing.assert_close(sums[0], other, atol=1e-5, rtol=1e-4)


def test_supervised_is_the_share_of_voxels_with_a_label():
    trainer = trainer_of(batch=1, strength=0.0)
    assert trainer.supervised == 0
    for draw in trainer._batch() * 2 + [d for _ in range(10) for d in trainer._batch()]:
        trainer._gradients([draw])
    square = (4 * 6 + 18 - 6) / (6 * 18)  # the square and the axial slice's line across it
    assert {round(float(share), 5) for share in trainer._supervised} == {1.0, round(square, 5)}
    assert trainer.supervised == pytest.approx(np.mean([float(share) for share in trainer._supervised]))


def test_learning_rate_by_hand():
    assert _schedule(0, 0.0) == pytest.approx(1 / 20)  # warming up
    assert _schedule(9, 0.0) == pytest.approx(0.5)
    assert _schedule(100, 0.0) == 1
    assert _schedule(100, 0.5) == pytest.approx(0.02 + 0.49)
    assert _schedule(100, 1.0) == _schedule(100, 7.0) == pytest.approx(0.02)
    assert _schedule(100, 1 / 3) == pytest.approx(0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi / 3)))


def test_averaged_weights_follow_at_first_fast_and_then_slowly():
    trainer = trainer_of(settings=dataclasses.replace(SETTINGS, ema_decay=0.5))
    one = next(trainer.network.parameters())
    for steps, decay in ((0, 0.1), (1, 2 / 11), (1000, 0.5)):
        trainer.steps = steps
        before = next(trainer.average.parameters()).clone()
        trainer._update_average()
        torch.testing.assert_close(next(trainer.average.parameters()), before * decay + one.detach() * (1 - decay))
        with torch.no_grad():
            one.add_(1)


def as_read(value):
    """As from a file, which has tensors in the plain order of their voxels, however they lay in memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    return {key: as_read(part) for key, part in value.items()} if isinstance(value, dict) else copy.deepcopy(value)


def test_it_learns_what_is_labelled_and_goes_on_where_it_was():
    trainer = trainer_of()
    for step in range(30):
        trainer.step(step / 60)
    first = trainer.losses()
    state, average = as_read(trainer.state()), as_read(trainer.average.state_dict())
    for step in range(30, 60):
        trainer.step(step / 60)
    assert trainer.losses()["cross_entropy"] < first["cross_entropy"] < 0.7
    again = trainer_of()
    again.load_state(state, average)
    for step in range(30, 60):
        again.step(step / 60)
    assert again.steps == 60
    for one, other in zip(again.average.parameters(), trainer.average.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_model_of_other_classes_lends_all_but_its_head():
    trainer, other = trainer_of(), trainer_of(settings=dataclasses.replace(SETTINGS, seed=5))
    lent = {name: tensor.clone() for name, tensor in other.network.state_dict().items()}
    lent["head.weight"], lent["head.bias"] = torch.ones(7, 4, 1, 1, 1), torch.ones(7)
    own = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.start_from(lent)
    for now in (trainer.network.state_dict(), trainer.average.state_dict()):
        for name, tensor in now.items():
            assert torch.equal(tensor, own[name] if name.startswith("head") else lent[name])
