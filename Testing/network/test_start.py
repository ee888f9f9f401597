"""What a network begins with: the regression that is its head, and the body that comes with the engine."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.belief import Belief
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import ModelError
from sparseseg.contract.settings import Settings
from sparseseg.network import start
from sparseseg.network.augmentation import Augmenter, TrainingVolume
from sparseseg.network.device import Compute, RunPlan
from sparseseg.network.predict import Input, predict
from sparseseg.network.sampling import WorkingGrid
from sparseseg.network.start import Start, moments, shipped, solve_head
from sparseseg.network.targets import Targets
from sparseseg.network.trainer import Trainer
from sparseseg.network.unet import PLACE, SEEN, UNet3d, plan_network

CPU = torch.device("cpu")
SHAPE = (12, 48, 56)


def regression(features, labels, weights, classes, ridge):
    """The same by the normal equations of all rows."""
    x = np.concatenate([features, np.ones((len(features), 1))], 1)
    w = weights.copy()
    for c in range(classes):
        w[labels == c] /= np.sqrt(max(weights[labels == c].sum(), 1e-30))
    w /= w.sum()
    targets = np.eye(classes)[labels]
    return np.linalg.solve((x.T * w) @ x + ridge * np.eye(x.shape[1]), (x.T * w) @ targets).T


def test_the_head_is_the_weighted_ridge_regression_of_the_labels():
    rng = np.random.default_rng(0)
    features, labels, weights = rng.normal(size=(200, 5)), rng.integers(0, 3, 200), rng.uniform(0.1, 2, 200)
    sums = moments(torch.from_numpy(features), torch.from_numpy(labels), torch.from_numpy(weights), 3)
    np.testing.assert_allclose(solve_head(sums, 0.01).numpy(), regression(features, labels, weights, 3, 0.01), rtol=1e-8)


def test_moments_of_parts_add_up():
    rng = torch.Generator().manual_seed(1)
    features, labels = torch.randn(90, 4, generator=rng), torch.randint(0, 3, (90,), generator=rng)
    weights = torch.rand(90, generator=rng)
    parts = [moments(*(t[n : n + 30] for t in (features, labels, weights)), 3) for n in (0, 30, 60)]
    torch.testing.assert_close(sum(parts), moments(features, labels, weights, 3))


def test_a_class_that_is_nowhere_is_said_nowhere():
    features, labels = torch.randn(50, 4), torch.arange(50) % 2
    head = solve_head(moments(features, labels, torch.ones(50), 3), 0.01)
    assert torch.isfinite(head).all()
    assert (head[2] == 0).all()
    said = features @ head[:, :-1].T + head[:, -1]
    assert (said.argmax(1) != 2).all()


def test_the_body_that_is_shipped_fits_what_the_engine_plans():
    assert shipped().fits(plan_network(1, (192, 192), 5, 16, 4))
    assert shipped().fits(plan_network(1, (40, 20), 2, 16, 4))
    for plan in (plan_network(8, (64, 64), 2, 16, 4), plan_network(1, (64, 64), 2, 8, 4), plan_network(1, (64, 64), 2, 16, 4, residual=True)):
        assert not shipped().fits(plan)
    own = UNet3d(plan_network(1, (192, 192), 5, 16, 4)).state_dict()
    assert {name: t.shape for name, t in own.items() if not name.startswith("head.")} == {name: t.shape for name, t in shipped().weights.items()}


def test_a_start_comes_back_as_it_was_saved(tmp_path, monkeypatch):
    network = UNet3d(plan_network(1, (16, 16), 2, 4, 2))
    weights = {name: t for name, t in network.state_dict().items() if not name.startswith("head.")}
    Start(network.plan, weights, 0.25, 8.0).save(tmp_path / "start.pt")
    monkeypatch.setattr(start, "FILE", tmp_path / "start.pt")
    found = shipped.__wrapped__()
    assert (found.plan, found.ridge, found.sharpness) == (network.plan, 0.25, 8.0)
    for name, tensor in weights.items():
        torch.testing.assert_close(found.weights[name], tensor.half().float())


@pytest.mark.parametrize("content", [None, b"", b"no model", b"PK\x03\x04 cut off"])
def test_a_file_that_cannot_be_read_is_told_of_in_one_sentence(content, tmp_path, monkeypatch):
    if content is not None:
        (tmp_path / "start.pt").write_bytes(content)
    monkeypatch.setattr(start, "FILE", tmp_path / "start.pt")
    with pytest.raises(ModelError, match=r"^start\.pt, which networks begin with, cannot be read"):
        shipped.__wrapped__()


def trainer_of(plane=(48, 56)):
    """Bright balls of two sizes of gray in noise, three axial slices labelled."""
    rng = np.random.default_rng(0)
    k, j, i = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    truth = np.zeros(SHAPE, np.uint8)
    truth[((k - 6) * 2) ** 2 + (j - 24) ** 2 + (i - 16) ** 2 < 120] = 1
    truth[((k - 6) * 2) ** 2 + (j - 24) ** 2 + (i - 40) ** 2 < 120] = 2
    image = np.array([0, 1.0, 2.0])[truth] + rng.normal(0, 0.3, SHAPE)
    values = np.zeros(SHAPE, np.uint8)
    values[[3, 6, 9]] = truth[[3, 6, 9]] + 1
    nothing = np.zeros(SHAPE, np.uint8)
    targets = Targets(build_annotation(values, ClassTable.numbered(2), Settings()), Belief(nothing, nothing), Settings(), CPU)
    grid = WorkingGrid.of_whole(SHAPE, SHAPE)
    plan = RunPlan(plan_network(1, plane, 3, 16, 4), SHAPE, 1, 2)
    volume = TrainingVolume(grid, torch.from_numpy(image - 1).half(), targets)
    compute = Compute(CPU, torch.float32, "test", 1.0, 1 << 30, "")
    return Trainer(compute, plan, volume, Augmenter(grid, (2, 1, 1)), Settings()), truth


def dice(trainer, truth):
    said = predict(trainer.average, Input(trainer.volume.image, trainer.volume.grid), [0], 1, trainer.compute).classes.argmax(0).numpy()
    free = np.ones(SHAPE, bool)
    free[[3, 6, 9]] = False
    found = [((said == c) & free, (truth == c) & free) for c in (1, 2)]
    return [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in found]


def test_before_its_first_step_a_network_segments_what_three_slices_show():
    trainer, truth = trainer_of()
    from_nothing = dice(trainer, truth)
    ticks = []
    trainer.begin_with(shipped(), lambda: ticks.append(1))
    assert len(ticks) == 3
    assert min(dice(trainer, truth)) > 0.8 > max(from_nothing)
    assert trainer.steps == 0


def test_learning_goes_on_from_there():
    trainer, truth = trainer_of()
    trainer.begin_with(shipped())
    before = np.mean(dice(trainer, truth))
    for step in range(10):
        trainer.step(step / 10)
    assert np.mean(dice(trainer, truth)) > before - 0.05
    own, averaged = trainer.network.state_dict(), trainer.average.state_dict()
    assert any(not torch.equal(own[name], averaged[name]) for name in own)


def test_the_same_seed_begins_alike():
    heads = []
    for _ in range(2):
        trainer, _ = trainer_of()
        trainer.begin_with(shipped())
        heads.append(trainer.network.head.weight.clone())
    assert torch.equal(*heads)


def test_gradients_lie_in_memory_as_their_parameters_do(monkeypatch):
    """The fused optimizer of a GPU refuses others; the convolutions there answer in whatever layout they like."""
    trainer, _ = trainer_of()
    plain = trainer._gradients

    def transposed(draws):
        losses, gradients = plain(draws)
        return losses, tuple(g.transpose(0, -1).contiguous().transpose(0, -1) for g in gradients)

    monkeypatch.setattr(trainer, "_gradients", transposed)
    trainer.step(0.0)
    for parameter in trainer.network.parameters():
        assert parameter.grad.stride() == parameter.stride()


def test_several_channels_are_seen_as_their_sum_at_first():
    """By their shares, as the one channel was."""
    shares, x = (0.8, -0.6), torch.randn(1, 2 * SEEN + PLACE, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    plan = plan_network(1, (32, 32), 3, 16, 4, channels=2)
    assert shipped().fits(plan)
    several, one = UNet3d(plan), UNet3d(replace(plan, in_channels=SEEN + PLACE))
    several.load_state_dict(shipped().for_channels(shares).weights, strict=False)
    one.load_state_dict(shipped().weights, strict=False)
    summed = torch.cat([shares[0] * x[:, :SEEN] + shares[1] * x[:, SEEN : 2 * SEEN], x[:, 2 * SEEN :]], 1)
    assert torch.allclose(several.features(x), one.features(summed), atol=1e-4)
