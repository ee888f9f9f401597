"""The loss against numbers worked out by hand, its gradient against differences, and its blindness to unlabelled voxels."""

import math

import pytest
import torch

from sparseseg.network.loss import soft_dice_loss, weighted_cross_entropy

LOSSES = [weighted_cross_entropy, soft_dice_loss]


def volume(values, dtype=torch.float32):
    """One number a voxel -> (1, 1, 1, n)."""
    return torch.tensor(values, dtype=dtype).view(1, 1, 1, -1)


def logits_of(*probabilities):
    """One tuple of class probabilities a voxel -> logits (1, C, 1, 1, n)."""
    return torch.tensor(probabilities, dtype=torch.float64).log().T.reshape(1, len(probabilities[0]), 1, 1, -1).float()


def random_batch(seed=0, classes=3, shape=(2, 3, 4, 5), labelled=0.4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((shape[0], classes, *shape[1:]), generator=generator)
    labels = torch.randint(0, classes, shape, generator=generator)
    weights = torch.rand(shape, generator=generator) * 3 * (torch.rand(shape, generator=generator) < labelled)
    return logits, labels, weights


def gradient(loss, logits, labels, weights):
    logits = logits.clone().requires_grad_(True)
    loss(logits, labels, weights).backward()
    return logits.grad


# ---------------------------------------------------------------- by hand


def test_cross_entropy_by_hand():
    logits = logits_of((0.75, 0.25), (0.2, 0.8), (0.5, 0.5))
    loss = weighted_cross_entropy(logits, volume([0, 0, 1], torch.int64), volume([2, 0.5, 0]))
    assert loss.item() == pytest.approx((2 * math.log(4 / 3) + 0.5 * math.log(5)) / 2.5, rel=1e-6)  # = 0.5520


def test_cross_entropy_of_three_classes_by_hand():
    logits = torch.tensor([0.0, math.log(2), math.log(5)]).view(1, 3, 1, 1, 1)  # probabilities 1/8, 2/8, 5/8
    for label, expected in enumerate((math.log(8), math.log(4), math.log(1.6))):
        loss = weighted_cross_entropy(logits, volume([label], torch.int64), volume([7.0]))
        assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_is_one_mean_over_the_batch_not_a_mean_of_means():
    logits = logits_of((0.75, 0.25), (0.2, 0.8)).permute(4, 1, 2, 3, 0)  # two samples of one voxel each
    loss = weighted_cross_entropy(logits, torch.zeros(2, 1, 1, 1, dtype=torch.int64), torch.tensor([3.0, 1.0]).view(2, 1, 1, 1))
    assert loss.item() == pytest.approx((3 * math.log(4 / 3) + math.log(5)) / 4, rel=1e-6)


def test_dice_by_hand():
    logits = logits_of((0.75, 0.25), (0.2, 0.8), (0.9, 0.1))
    loss = soft_dice_loss(logits, volume([0, 1, 0], torch.int64), volume([2, 0.5, 0]))  # counted 1, 0.5 and 0
    background = (2 * 0.75 + 1) / ((0.75 + 0.5 * 0.2) + 1 + 1)
    segment = (2 * 0.5 * 0.8 + 1) / ((0.25 + 0.5 * 0.8) + 0.5 + 1)
    assert loss.item() == pytest.approx(1 - (background + segment) / 2, rel=1e-6)  # = 0.1428


def test_classes_that_do_not_occur_do_not_count_in_the_dice():
    logits = logits_of((0.6, 0.3, 0.1), (0.5, 0.4, 0.1))
    loss = soft_dice_loss(logits, volume([0, 2], torch.int64), volume([1, 0]))  # class 2 only where unlabelled, class 1 nowhere
    assert loss.item() == pytest.approx(1 - (2 * 0.6 + 1) / (0.6 + 1 + 1), rel=1e-6)


def test_a_perfect_answer_costs_nothing_and_the_opposite_much():
    labels = volume([0, 1] * 50, torch.int64)
    right = torch.stack([1 - labels, labels], 1) * 100.0
    for loss, worst in ((weighted_cross_entropy, 100), (soft_dice_loss, 1 - 1 / 101)):
        assert loss(right, labels, volume([1.0] * 100)).item() == pytest.approx(0, abs=1e-6)
        assert loss(-right, labels, volume([1.0] * 100)).item() == pytest.approx(worst, rel=1e-5)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_differences(loss):
    logits, labels, weights = random_batch(shape=(1, 2, 2, 3))
    step = 0.02
    expected = torch.zeros_like(logits)
    for place in range(logits.numel()):
        moved = [logits.clone(), logits.clone()]
        moved[0].view(-1)[place] += step
        moved[1].view(-1)[place] -= step
        above, below = (loss(m, labels, weights).double() for m in moved)
        expected.view(-1)[place] = (above - below) / (2 * step)
    actual = gradient(loss, logits, labels, weights)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(actual, expected, atol=3e-5, rtol=1e-3)


def test_cross_entropy_gradient_by_hand():
    logits = logits_of((0.75, 0.25), (0.2, 0.8), (0.5, 0.5))
    actual = gradient(weighted_cross_entropy, logits, volume([0, 0, 1], torch.int64), volume([2, 0.5, 0])).view(2, 3)
    expected = torch.tensor([[2 * (0.75 - 1), 0.5 * (0.2 - 1), 0], [2 * 0.25, 0.5 * 0.8, 0]]) / 2.5  # w (p - [y = c]) / sum of w
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1, 1e4])
def test_gradient_is_exactly_zero_where_unlabelled_and_nowhere_else(loss, size):
    logits, labels, weights = random_batch(seed=1)
    unlabelled = (weights == 0).unsqueeze(1).expand_as(logits)
    actual = gradient(loss, torch.where(unlabelled, logits * size, logits), labels, weights)
    assert (actual[unlabelled] == 0).all()
    assert (actual[~unlabelled] != 0).all()


# ---------------------------------------------------------------- unlabelled voxels


@pytest.mark.parametrize("loss", LOSSES)
def test_unlabelled_voxels_leave_numerator_and_denominator_alike(loss):
    logits, labels, weights = random_batch(seed=2)
    there = weights > 0
    classes = logits.shape[1]
    only = loss(logits.movedim(1, -1)[there].T.reshape(1, classes, 1, 1, -1), labels[there].view(1, 1, 1, -1), weights[there].view(1, 1, 1, -1))
    assert loss(logits, labels, weights).item() == pytest.approx(only.item(), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_labels_and_logits_of_unlabelled_voxels_change_nothing(loss):
    logits, labels, weights = random_batch(seed=3)
    unlabelled = weights == 0
    before = loss(logits, labels, weights)
    changed = torch.where(unlabelled.unsqueeze(1), -50 * logits, logits)
    assert loss(changed, torch.where(unlabelled, (labels + 1) % 3, labels), weights).item() == pytest.approx(before.item(), rel=1e-6)


def test_cross_entropy_does_not_depend_on_the_scale_of_the_weights():
    logits, labels, weights = random_batch(seed=4)
    assert weighted_cross_entropy(logits, labels, 5 * weights).item() == pytest.approx(
        weighted_cross_entropy(logits, labels, weights).item(), rel=1e-5
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_labels_gives_zero_and_no_gradient(loss):
    logits, labels, weights = random_batch(seed=5, labelled=0)
    assert loss(logits, labels, weights).item() == 0
    assert (gradient(loss, logits, labels, weights) == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_labelled_voxel_that_is_no_number_is_not_hidden(loss):
    logits, labels, weights = random_batch(seed=6, labelled=1)
    logits[0, 1, 0, 0, 0] = float("nan")
    assert math.isnan(loss(logits, labels, weights).item())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_full(loss, dtype):
    logits = torch.zeros((1, 2, 40, 40, 41), dtype=dtype)  # 65600 voxels: beyond float16's largest number
    labels = torch.zeros((1, 40, 40, 41), dtype=torch.int64)
    value = loss(logits, labels, torch.ones(labels.shape))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(math.log(2) if loss is weighted_cross_entropy else 1 / 3, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_logits_are_turned_to_full_before_the_softmax(loss):
    logits, labels, weights = random_batch(seed=7)
    half = logits.to(torch.bfloat16)
    assert loss(half, labels, weights).item() == loss(half.float(), labels, weights).item()


@pytest.mark.parametrize("loss", [weighted_cross_entropy, soft_dice_loss])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_unlabelled_voxels_may_be_no_number(loss, value):
    logits = torch.randn(1, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    labels, weights = torch.arange(8).view(1, 2, 2, 2) % 3, torch.ones(1, 2, 2, 2)
    weights[0, 0, 0, 0] = 0
    expected = loss(logits, labels, weights)
    logits[0, 1, 0, 0, 0] = value
    logits.requires_grad_(True)
    actual = loss(logits, labels, weights)
    actual.backward()
    assert actual.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (logits.grad[0, :, 0, 0, 0] == 0).all()
    assert logits.grad.isfinite().all()
