"""Probabilities: those between working voxels against brute force, and what is asked of the network, in which order, and averaged."""

import itertools
import math

import numpy as np
import pytest
import torch

from sparseseg.contract.box import shape_of, whole
from sparseseg.network.augmentation import plane_input
from sparseseg.network.device import Compute
from sparseseg.network.predict import Input, Probabilities, predict
from sparseseg.network.sampling import WorkingGrid
from sparseseg.network.unet import CONTEXT, IN_CHANNELS, NetworkPlan, UNet3d, plan_network

CPU = torch.device("cpu")
COMPUTE = Compute(CPU, torch.float32, "test", 1.0, 1 << 30, "")
SHAPE = (7, 10, 12)
BOX = (slice(1, 7), slice(2, 10), slice(3, 12))  # 6 x 8 x 9 voxels of it
GRIDS = [(6, 8, 9), (3, 4, 9), (2, 8, 3), (4, 5, 7), (1, 1, 1), (6, 3, 2)]


def believed(working, seed=0, classes=3, box=BOX):
    values = np.random.default_rng(seed).integers(0, 256, (classes, *working), np.uint8)
    return Probabilities(torch.from_numpy(values), WorkingGrid(SHAPE, box, working))


def by_brute_force(believed, voxel):
    """Trilinear between the working voxels around, by one voxel's centre; 0 outside of the grid's box."""
    grid, weights = believed.grid, []
    if not all(s.start <= v < s.stop for s, v in zip(grid.box, voxel, strict=True)):
        return np.zeros(len(believed.classes))
    for s, v, own, n in zip(grid.box, voxel, grid.own_kji, grid.shape_kji, strict=True):
        at = min(max((v - s.start + 0.5) * n / own - 0.5, 0), n - 1)
        low = min(math.floor(at), n - 1)
        weights.append([(low, 1 - (at - low)), (min(low + 1, n - 1), at - low)])
    values = believed.classes.numpy() / 255
    return sum(values[:, k, j, i] * a * b * c for (k, a), (j, b), (i, c) in itertools.product(*weights))


def everywhere(believed):
    expected = np.zeros((len(believed.classes), *SHAPE))
    for voxel in np.ndindex(SHAPE):
        expected[(slice(None), *voxel)] = by_brute_force(believed, voxel)
    return expected


# ---------------------------------------------------------------- at own voxels


@pytest.mark.parametrize("working", GRIDS)
def test_between_working_voxels_they_are_interpolated(working):
    one = believed(working)
    found = one.at(whole(SHAPE))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, everywhere(one), atol=1e-5)


@pytest.mark.parametrize("working", GRIDS)
def test_any_box_equals_its_part_of_the_whole(working):
    one, rng = believed(working, 1), np.random.default_rng(2)
    all_of_it, seen = one.at(whole(SHAPE)), 0
    for _ in range(60):
        first = rng.integers(0, SHAPE)
        box = tuple(slice(int(a), int(rng.integers(a + 1, n + 1))) for a, n in zip(first, SHAPE, strict=True))
        found = one.at(box)
        if found is None:
            assert not all_of_it[(slice(None), *box)].any()
        else:
            seen += 1
            assert found.shape == (3, *shape_of(box))
            np.testing.assert_allclose(found, all_of_it[(slice(None), *box)], atol=1e-6)
    assert seen > 20


def test_interpolation_by_hand():
    one = Probabilities(torch.tensor([0, 102, 255], dtype=torch.uint8).view(1, 1, 1, 3), WorkingGrid.of_whole((1, 1, 6), (1, 1, 3)))
    np.testing.assert_allclose(one.at(whole((1, 1, 6)))[0, 0, 0], [0, 0.1, 0.3, 0.55, 0.85, 1], atol=1e-6)  # a quarter, three quarters between


def test_outside_of_the_region_nothing_is_said():
    one = believed((3, 4, 9))
    assert one.at((slice(0, 1), slice(0, 10), slice(0, 12))) is None
    assert one.at((slice(0, 7), slice(0, 2), slice(0, 12))) is None
    part = one.at((slice(0, 3), slice(0, 10), slice(0, 12)))
    assert not part[:, 0].any() and not part[:, :, :2].any() and not part[..., :3].any()
    assert part[:, 1:, 2:, 3:].any(axis=0).all()


# ---------------------------------------------------------------- a network that says what it is told


class Told:
    """In place of a network: logits by a function of its input (C, k, j, i), every call remembered."""

    def __init__(self, say, classes=2):
        self.plan, self.say, self.asked = NetworkPlan(classes, 4, (), ((1, 3, 3),)), say, []

    def __call__(self, x):
        assert x.shape[:2] == (1, IN_CHANNELS) and not torch.is_grad_enabled()
        self.asked.append(x[0].clone())
        return self.say(x[0])[None]


def logit(p):
    return math.log(p / (1 - p))


def constant(p_by_axis):
    """Probability of class 1, by the axis that the network is told."""

    def say(x):
        axis = int(x[-3:].flatten(1).sum(1).argmax())
        second = torch.full(x.shape[1:], logit(p_by_axis[axis]))
        return torch.stack([torch.zeros_like(second), second])

    return say


def by_gray(x):
    """Class 1 by the slice's own gray value, whatever lies around it."""
    return torch.stack([torch.zeros_like(x[CONTEXT]), x[CONTEXT]])


def data_of(shape=SHAPE, volume=None, seed=0, trained_on=True):
    image = torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).half()
    return Input(image, WorkingGrid.of_whole(volume or shape, shape), trained_on)


@pytest.mark.parametrize("orientations", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("slices", [1, 3, 20])
def test_every_voxel_gets_its_own_answer_from_every_orientation(orientations, slices):
    data = data_of()
    found = predict(Told(by_gray), data, orientations, slices, COMPUTE)
    expected = torch.sigmoid(data.image.float())
    torch.testing.assert_close(found.classes[1].float() / 255, expected, atol=0.004, rtol=0)
    torch.testing.assert_close(found.classes.sum(0).float(), torch.full(SHAPE, 255.0), atol=1, rtol=0)
    assert (found.classes.dtype, found.grid) == (torch.uint8, data.grid)


def test_orientations_are_averaged():
    said = constant([0.2, 0.4, 0.9])
    data = data_of((4, 4, 4))
    for orientations, mean in {(0,): 0.2, (0, 1): 0.3, (1, 0): 0.3, (0, 1, 2): 0.5}.items():
        found = predict(Told(said), data, orientations, 1, COMPUTE)
        assert found.classes[1].unique().tolist() == pytest.approx([255 * mean], abs=0.6)


def test_bytes_are_rounded():
    for p, byte in ((0.5, 128), (1 / 255, 1), (0.4 / 255, 0), (1 - 0.4 / 255, 255)):
        found = predict(Told(constant([p] * 3)), data_of((1, 2, 2)), (0,), 1, COMPUTE)
        assert found.classes[1].unique().tolist() == [byte]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_network_is_given_each_slab_once_as_it_is(axis):
    told, data = Told(by_gray), data_of()
    predict(told, data, (axis,), 3, COMPUTE)
    firsts = range(0, SHAPE[axis], 3)
    assert len(told.asked) == len(firsts)
    for first in firsts:  # cores ask in any order
        slab = plane_input(data.image, axis, first, min(3, SHAPE[axis] - first))
        assert sum(torch.equal(asked, slab) for asked in told.asked) == 1


def test_on_another_volume_the_network_is_not_told_where_it_is():
    told = Told(by_gray)
    predict(told, data_of(trained_on=False), (1,), 1, COMPUTE)
    position = slice(2 * CONTEXT + 1, 2 * CONTEXT + 4)
    assert not any(asked[position].any() for asked in told.asked)
    predict(told, data_of(), (1,), 1, COMPUTE)
    assert told.asked[-1][position].any()


def test_it_tells_how_much_is_done_and_can_be_ended_after_every_slab():
    told, shares = Told(by_gray), []
    predict(told, data_of(), (0, 1), 4, COMPUTE, shares.append)
    assert shares == pytest.approx([n / 5 for n in range(1, 6)])  # two slabs across 7, three across 10

    def end(share):
        shares.append(share)
        if share > 0.5:
            raise KeyboardInterrupt

    shares.clear()
    with pytest.raises(KeyboardInterrupt):
        predict(Told(by_gray), data_of(), (0, 1), 4, COMPUTE, end)
    assert shares == pytest.approx([0.2, 0.4, 0.6])


def test_a_real_network_answers_slice_by_slice():
    torch.manual_seed(0)
    network = UNet3d(plan_network(1, (10, 12), 3, 4, 1)).eval().requires_grad_(False)
    data = data_of()
    found = predict(network, data, (0,), 1, COMPUTE).classes.float() / 255
    for index in range(SHAPE[0]):
        expected = torch.softmax(network(plane_input(data.image, 0, index, 1)[None])[0], 0)
        torch.testing.assert_close(found[:, index : index + 1], expected, atol=0.003, rtol=0)
    assert found.std(dim=(1, 2, 3)).min() > 0.01


@pytest.mark.parametrize(("slices", "at_once", "ticks"), [(1, 4, 2 + 3), (3, 2, 2 + 3), (3, 8, 2 + 2)])
def test_slabs_that_are_worked_on_as_one_are_answered_the_same(slices, at_once, ticks):
    """As on a GPU. Across 7 slices the last slab of three is thinner, and one of its own; so it is across 10."""
    torch.manual_seed(0)
    network = UNet3d(plan_network(1, (10, 12), 3, 4, 1)).eval().requires_grad_(False)
    told = []
    together = predict(network, data_of(), (0, 1), slices, COMPUTE, told.append, at_once)
    alone = predict(network, data_of(), (0, 1), slices, COMPUTE)
    torch.testing.assert_close(together.classes.int(), alone.classes.int(), atol=1, rtol=0)
    assert len(told) == ticks and told[-1] == 1


# ---------------------------------------------------------------- only some slices


def spread(*probabilities):
    """Two classes and more on a line of voxels, as bytes."""
    values = torch.tensor(probabilities).T[:, None, None]
    shape = tuple(values.shape[1:])
    return Probabilities((values * 255).round().to(torch.uint8), WorkingGrid.of_whole(shape, shape))


def test_tempered_beliefs_by_hand():
    found = spread((0.8, 0.2), (0.2, 0.8), (0.5, 0.5)).tempered(2).classes[:, 0, 0].float() / 255
    expected = torch.tensor([[2 / 3, 1 / 3], [1 / 3, 2 / 3], [0.5, 0.5]]).T  # the roots of 0.8 and 0.2 are as 2 to 1
    torch.testing.assert_close(found, expected, atol=0.004, rtol=0)


def test_what_a_byte_calls_nothing_comes_back_where_all_is_flat():
    found = spread((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)).tempered(20).classes[:, 0, 0].float() / 255
    assert found.min() > 0.2
    assert found.argmax(0).tolist() == [0, 2]


def test_at_a_temperature_of_one_nothing_changes_and_every_plane_ticks():
    said, ticks = spread((0.6, 0.3, 0.1), (0.05, 0.9, 0.05)), []
    found = said.tempered(1.0, lambda: ticks.append(1))
    assert (found.classes.int() - said.classes.int()).abs().max() <= 1
    assert len(ticks) == 1 and found.grid == said.grid
