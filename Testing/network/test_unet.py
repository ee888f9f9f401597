"""The network: any size in and out, pools and kernels that follow slab and plane, flat convolutions, and what it costs."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseseg.network.unet import Block, Conv, InstanceNorm, NetworkPlan, UNet3d, plan_network

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
    assert isinstance(conv, Conv)
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (1 + 0.01**2) / (32 * 27)), rel=0.03)


# ---------------------------------------------------------------- plans


def test_single_slices_are_convolved_and_pooled_in_the_plane_alone():
    plan = plan_network(1, (192, 160), classes=3, width=16, depth=4)
    assert plan.pools == ((1, 2, 2),) * 4
    assert plan.kernels == ((1, 3, 3),) * 5
    assert plan.multiple_kji == (1, 16, 16)
    assert (plan.classes, plan.in_channels) == (3, 11)  # five slices, three of position, three of orientation


def test_slabs_are_pooled_across_from_the_second_level_on_while_they_have_eight_slices():
    assert plan_network(8, (128, 128), 2, 16, depth=4).pools == ((1, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
    assert plan_network(16, (128, 128), 2, 16, depth=4).pools == ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert plan_network(4, (128, 128), 2, 16, depth=2).pools == ((1, 2, 2), (1, 2, 2))


def test_slabs_are_convolved_across():
    for slices in (2, 4, 8):
        assert plan_network(slices, (128, 128), 2, 16, depth=4).kernels == ((3, 3, 3),) * 5


def test_a_small_plane_is_pooled_as_long_as_eight_pixels_are_left():
    assert plan_network(1, (16, 16), 2, 8, depth=6).pools == ((1, 2, 2), (1, 2, 2))
    assert plan_network(1, (7, 7), 2, 8, depth=6).pools == ()


def test_a_side_too_short_to_pool_does_not_stop_the_other():
    assert plan_network(1, (6, 256), 3, 16, 4).pools == ((1, 1, 2),) * 4
    assert plan_network(1, (20, 64), 3, 16, 3).pools == ((1, 2, 2), (1, 2, 2), (1, 1, 2))  # 20, 10, 5


def test_width_doubles_and_stops_at_eight_times_the_first():
    assert plan_network(1, (512, 512), 2, 16, depth=6).widths == [16, 32, 64, 128, 128, 128, 128]


def test_a_plan_comes_back_from_json():
    for plan in (SMALL, plan_network(8, (64, 48), 4, 16, 3, residual=True)):
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
    net(noise(1, plan.in_channels, 8, 16, 16))
    assert plan.flops_per_voxel() == pytest.approx(2 * sum(counted) / (8 * 16 * 16))


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize("kernel", [(1, 3, 3), (1, 1, 1), (1, 1, 3), (3, 3, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_convolutions_flat_or_not_and_their_gradients_are_torchs(kernel, layout):
    torch.manual_seed(0)
    own, plain = (kind(2, 4, kernel, padding=tuple(n // 2 for n in kernel)).double() for kind in (Conv, nn.Conv3d))
    plain.load_state_dict(own.state_dict())
    x = noise(3, 2, 5, 6, 7).double().contiguous(memory_format=layout).requires_grad_(True)
    factor = noise(3, 4, 5, 6, 7, seed=1).double()
    results = [conv.to(memory_format=layout)(x) for conv in (own, plain)]
    torch.testing.assert_close(*results)
    gradients = [torch.autograd.grad((r * factor).sum(), (x, *conv.parameters())) for r, conv in zip(results, (own, plain), strict=True)]
    torch.testing.assert_close(*map(list, gradients))


def test_a_flat_convolution_does_not_mix_slices_by_hand():
    conv = Conv(1, 1, (1, 3, 3), padding=(0, 1, 1), bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[0.0, 0, 0], [1, 2, 0], [0, 0, 0]]).view(1, 1, 1, 3, 3))  # twice itself, and its left neighbour
        x = torch.tensor([[[1.0, 10, 100]], [[0, 5, 0]]]).view(1, 1, 2, 1, 3)
        assert conv(x).tolist() == [[[[[2, 21, 210]], [[0, 10, 5]]]]]


def test_flat_convolutions_keep_channels_last_memory():
    conv = Conv(4, 8, (1, 3, 3), padding=(0, 1, 1)).to(memory_format=torch.channels_last_3d)
    x = noise(2, 4, 3, 8, 8).contiguous(memory_format=torch.channels_last_3d)
    assert conv(x).is_contiguous(memory_format=torch.channels_last_3d)


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


def test_instance_norm_goes_by_the_sample_at_hand_in_prediction_as_in_training():
    norm, x = InstanceNorm(4), noise(2, 4, 3, 5, 5) * 7 + 3
    trained = norm(x)
    assert torch.equal(norm.eval()(x), trained)
    torch.testing.assert_close(norm(100 * x + 20), trained, atol=1e-4, rtol=1e-4)  # nothing is remembered of other slabs
    assert not list(norm.buffers())


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
