"""The network: any size in and out, pools and kernels that follow the spacing, and what it costs."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseseg.network.unet import Block, InstanceNorm, NetworkPlan, UNet3d, plan_network

SMALL = NetworkPlan(classes=3, width=4, pools=((1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), in_channels=2)


def network(plan=SMALL, seed=0):
    torch.manual_seed(seed)
    return UNet3d(plan).requires_grad_(False)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- any size


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 5, 7), (3, 9, 2), (2, 4, 4), (8, 8, 8), (17, 1, 6)])
def test_any_size_in_gives_the_same_size_out_and_padding_repeats_the_border(size):
    net, x = network(), noise(1, 2, *size)
    result = net(x)
    assert result.shape == (1, 3, *size)
    assert result.isfinite().all()
    missing = [-n % m for n, m in zip(size, (2, 4, 4), strict=True)]
    padded = F.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")
    torch.testing.assert_close(result, net(padded)[:, :, : size[0], : size[1], : size[2]], rtol=0, atol=0)


def test_samples_of_a_batch_do_not_see_each_other():
    net, x = network(), noise(2, 2, 4, 8, 8)
    torch.testing.assert_close(net(x), torch.cat([net(x[:1]), net(x[1:])]), atol=1e-5, rtol=1e-5)


def test_every_input_channel_and_every_parameter_matters():
    net = network().requires_grad_(True)
    x = noise(1, 2, 4, 8, 8).requires_grad_(True)
    net(x).square().sum().backward()
    assert (x.grad.abs().sum((0, 2, 3, 4)) > 0).all()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_seed_reproduces_the_network():
    x = noise(1, 2, 4, 4, 4)
    assert torch.equal(network(seed=3)(x), network(seed=3)(x))
    assert not torch.equal(network(seed=3)(x), network(seed=4)(x))


def test_weights_are_drawn_for_leaky_relu():
    conv = network(NetworkPlan(2, 32, (), ((3, 3, 3),))).encoder[0].body[1][0]
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (1 + 0.01**2) / (32 * 27)), rel=0.03)


# ---------------------------------------------------------------- plans


def test_equal_spacing_pools_every_axis():
    plan = plan_network((1, 1, 1), (64, 64, 64), classes=3, width=16, depth=3)
    assert plan.pools == ((2, 2, 2),) * 3
    assert plan.kernels == ((3, 3, 3),) * 4
    assert plan.widths == [16, 32, 64, 128]
    assert plan.multiple_kji == (8, 8, 8)


def test_thick_slices_are_not_pooled_or_convolved_across_until_the_others_catch_up():
    plan = plan_network((10, 0.4, 0.4), (32, 512, 512), classes=2, width=8, depth=6)
    # in-plane 0.4, 0.8, 1.6, 3.2 mm: pooled alone while 10 mm is at least twice that; at 6.4 mm all three; then 20, 12.8, 12.8
    assert plan.pools == ((1, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    # convolved across once 10 mm is less than three times the finest: not at 3.2 mm (9.6), but at 6.4 mm
    assert plan.kernels == ((1, 3, 3), (1, 3, 3), (1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    assert plan.multiple_kji == (4, 64, 64)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_thick_axis_may_be_any(axis):
    spacing = [5.0 if a == axis else 1.0 for a in range(3)]
    plan = plan_network(spacing, (64, 64, 64), classes=2, width=8, depth=1)
    assert plan.pools == (tuple(1 if a == axis else 2 for a in range(3)),)
    assert plan.kernels == (tuple(1 if a == axis else 3 for a in range(3)), (3, 3, 3))  # 5 mm against 2 mm


def test_a_small_volume_is_pooled_as_long_as_eight_voxels_are_left():
    assert plan_network((1, 1, 1), (16, 16, 16), 2, 8, depth=6).pools == ((2, 2, 2), (2, 2, 2))
    assert plan_network((1, 1, 1), (7, 7, 7), 2, 8, depth=6).pools == ()


def test_an_axis_too_short_to_pool_does_not_stop_the_others():
    assert plan_network((1, 1, 1), (4, 256, 256), 3, 16, 4).pools == ((1, 2, 2),) * 4


def test_width_stops_at_its_limit():
    assert plan_network((1, 1, 1), (512,) * 3, 2, 64, depth=4).widths == [64, 128, 256, 320, 320]


def test_a_plan_comes_back_from_json():
    for plan in (SMALL, plan_network((5, 1, 1), (64, 64, 64), 4, 16, 3, residual=True)):
        assert NetworkPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_cost_of_a_network_without_pooling_by_hand():
    plan = NetworkPlan(classes=5, width=4, pools=(), kernels=((1, 3, 3),), in_channels=2)
    assert plan.flops_per_voxel() == 2 * (9 * 2 * 4 + 9 * 4 * 4 + 4 * 5)


@pytest.mark.parametrize("residual", [False, True])
def test_cost_is_that_of_the_convolutions_that_run(residual):
    plan = NetworkPlan(classes=3, width=8, pools=((1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)), residual=residual)
    net, counted = network(plan), []
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(lambda conv, _, out: counted.append(out.numel() * conv.in_channels * math.prod(conv.kernel_size)))
    net(noise(1, 4, 8, 16, 16))
    assert plan.flops_per_voxel() == pytest.approx(2 * sum(counted) / (8 * 16 * 16))


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize("batch", [1, 3])
def test_instance_norm_and_its_gradient_are_torchs(batch):
    own = InstanceNorm(4).double()
    with torch.no_grad():
        own.weight.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
        own.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    x = noise(batch, 4, 3, 2, 5).double().requires_grad_(True)
    factor = noise(batch, 4, 3, 2, 5, seed=1).double()
    results = [own(x), F.instance_norm(x, weight=own.weight, bias=own.bias)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*([*torch.autograd.grad((r * factor).sum(), (x, own.weight, own.bias))] for r in results))


def test_instance_norm_by_hand():
    x = torch.tensor([1.0, 3.0]).view(1, 1, 1, 1, 2)
    torch.testing.assert_close(InstanceNorm(1)(x).flatten(), torch.tensor([-1.0, 1.0]), atol=1e-4, rtol=0)


def test_instance_norm_lets_one_voxel_pass():
    x = torch.tensor([4.0, -7.0]).view(1, 2, 1, 1, 1)
    assert torch.equal(InstanceNorm(2)(x), x)


def test_a_residual_block_adds_its_shortcut():
    torch.manual_seed(0)
    block, x = Block(2, 4, (3, 3, 3), residual=True), noise(1, 2, 4, 4, 4)
    torch.testing.assert_close(block(x), block.body(x) + F.conv3d(x, block.shortcut.weight))
    assert Block(2, 4, (3, 3, 3), residual=False).shortcut is None


def test_a_residual_network_has_a_shortcut_at_every_level():
    plan = NetworkPlan(classes=2, width=4, pools=((2, 2, 2),), kernels=((3, 3, 3), (3, 3, 3)), residual=True, in_channels=1)
    shortcuts = [tuple(block.shortcut.weight.shape) for block in network(plan).encoder]
    assert shortcuts == [(4, 1, 1, 1, 1), (8, 4, 1, 1, 1)]


def test_a_mirrored_kernel_on_a_mirrored_image_gives_the_mirrored_result():
    net, x = network(), noise(1, 2, 4, 8, 8)
    result = net(x)
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.copy_(module.weight.flip(-1))
    torch.testing.assert_close(net(x.flip(-1)), result.flip(-1), atol=1e-4, rtol=1e-4)
