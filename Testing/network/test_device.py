"""Devices that really work, plans that fit them, and what to do when memory runs out."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.contract.errors import DeviceError
from sparseseg.contract.settings import Settings
from sparseseg.network import device
from sparseseg.network.device import Compute, RunPlan, choose, is_out_of_memory, on_cpu, patch_shape, plan_run, usable_cores, working_shape
from sparseseg.network.unet import NetworkPlan, plan_network

SLOW = Compute(torch.device("cpu"), torch.float32, "test", tflops=0.05, free_bytes=8 << 30, why="")
FAST = Compute(torch.device("cuda"), torch.bfloat16, "test", tflops=50, free_bytes=24 << 30, why="")
CUBE = NetworkPlan(2, 8, ((2, 2, 2),) * 3, ((3, 3, 3),) * 4)


@pytest.fixture
def cheap_probe(monkeypatch):
    """Every device runs at 1 TFLOP/s in float32 and 2 in the other precision, without being asked to."""
    monkeypatch.setattr(device, "probe", lambda where, dtype: 1.0 if dtype == torch.float32 else 2.0)


# ---------------------------------------------------------------- choice


def test_the_cpu_works():
    compute = choose("cpu")
    assert compute.device == torch.device("cpu")
    assert 0 < compute.tflops < 1000
    assert math.isfinite(compute.tflops)
    assert compute.free_bytes > 0
    assert compute.dtype in (torch.float32, torch.bfloat16)
    assert compute.why.startswith("CPU, ")
    assert "TFLOP/s" in compute.why
    assert not compute.is_cuda


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_cuda_where_there_is_none_is_refused(name):
    with pytest.raises(DeviceError, match=r"No CUDA device was found by PyTorch\. Found here: .*cpu; `sparseseg doctor`"):
        choose(name)


@pytest.mark.parametrize("name", ["nonsense", "", "cuda:x", "cpu gpu"])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(DeviceError, match=rf"'{name}' is no device\. Found here: .*cpu"):
        choose(name)


def test_a_device_that_fails_is_refused_with_its_reason(monkeypatch):
    def broken(where, dtype):
        raise RuntimeError("no kernel image is available\nsecond line")

    monkeypatch.setattr(device, "probe", broken)
    with pytest.raises(DeviceError, match=r"cpu did not run a 3-D convolution \(no kernel image is available\)\. Found here"):
        choose("cpu")
    with pytest.raises(DeviceError, match=r"No device works: .*Reinstall PyTorch"):
        choose("auto")


def test_the_first_device_that_works_is_taken_and_the_cpu_says_why_it_was(monkeypatch):
    monkeypatch.setattr(device, "candidates", lambda: ["cuda:0", "cpu"])

    def tried(name):
        if name == "cuda:0":
            raise DeviceError("The driver is too old.")
        return SLOW

    monkeypatch.setattr(device, "_tried", tried)
    assert choose("auto").why == ", since The driver is too old"  # who shows it ends the sentence
    monkeypatch.setattr(device, "_tried", lambda name: FAST if name == "cuda:0" else SLOW)
    assert choose("auto") is FAST
    monkeypatch.setattr(device, "candidates", lambda: ["cpu"])
    assert choose("auto").why == ", since no CUDA or MPS device was found"


def test_half_precision_is_used_only_where_it_pays(monkeypatch):
    monkeypatch.setattr(device, "probe", lambda where, dtype: 1.0 if dtype == torch.float32 else 1.2)
    assert choose("cpu").dtype == torch.float32
    monkeypatch.setattr(device, "probe", lambda where, dtype: 1.0 if dtype == torch.float32 else 1.4)
    assert choose("cpu").dtype == torch.bfloat16
    assert choose("cpu").tflops == 1.4


def test_the_last_resort_says_why(cheap_probe):
    assert on_cpu("the card ran out of memory").why.endswith(", since the card ran out of memory")


def test_a_process_uses_the_cores_that_it_may():
    choose_cores = usable_cores()
    assert 1 <= choose_cores <= (device.os.cpu_count() or 1)


def test_the_containers_quota_counts(monkeypatch):
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for text, cores in (("150000 100000", 2), ("20000 100000", 1), ("max 100000", 64), ("", 64)):
        monkeypatch.setattr(device.Path, "read_text", lambda self, text=text, **_: text)
        assert usable_cores() == cores


# ---------------------------------------------------------------- plans


def test_what_the_user_set_is_taken():
    settings = Settings(width=24, depth=2, batch=3, patch_voxels=16**3, residual=True, full_resolution=True)
    plan = plan_run(SLOW, (1, 1, 1), (64, 64, 64), 4, settings)
    assert (plan.network.width, plan.network.pools, plan.network.classes, plan.network.residual) == (24, ((2, 2, 2),) * 2, 4, True)
    assert plan.grid_kji == (64, 64, 64)
    assert plan.patch_kji == (16, 16, 16)
    assert plan.batch == 3
    assert plan.voxels_per_step == 3 * 16**3


def test_a_slow_device_gets_a_smaller_network_than_a_fast_one():
    slow = plan_run(SLOW, (1, 1, 1), (256,) * 3, 3, Settings(time_budget_s=20))
    fast = plan_run(FAST, (1, 1, 1), (256,) * 3, 3, Settings(time_budget_s=120))
    assert (slow.network.width, slow.batch) == (8, 1)
    assert (fast.network.width, fast.batch, fast.patch_kji) == (32, 2, (128, 128, 128))
    assert math.prod(slow.patch_kji) < math.prod(fast.patch_kji)


def test_more_time_means_no_smaller_patch():
    patches = [math.prod(plan_run(SLOW, (1, 1, 1), (256,) * 3, 3, Settings(time_budget_s=t, width=16)).patch_kji) for t in (5, 30, 120, 600, 3600)]
    assert patches == sorted(patches)
    assert patches[0] < patches[-1] <= 64**3


def test_little_memory_means_a_small_patch():
    tight = Compute(FAST.device, FAST.dtype, "test", FAST.tflops, 100 << 20, "")
    plan = plan_run(tight, (1, 1, 1), (256,) * 3, 3, Settings())
    assert 512 <= math.prod(plan.patch_kji) <= 50 * 2**20 / (90 * 32)


@pytest.mark.parametrize(
    ("spacing", "shape", "voxels", "grid"),
    [
        ((1, 1, 1), (64, 64, 64), 64**3, (64, 64, 64)),
        ((1, 1, 1), (64, 65, 64), 64**3, (32, 33, 32)),
        ((5, 1, 1), (40, 200, 200), 500_000, (40, 100, 100)),  # the fine axes first
        ((1.4, 1, 1), (64, 64, 64), 64**3 - 1, (32, 32, 32)),  # nearly alike: together
        ((1, 1, 1), (16, 16, 16), 100, (8, 8, 8)),  # no axis below eight, whatever is asked
    ],
)
def test_working_grids_by_hand(spacing, shape, voxels, grid):
    assert working_shape(spacing, shape, voxels) == grid


def test_a_volume_much_larger_than_a_patch_is_worked_on_at_a_coarser_grid():
    plan = plan_run(SLOW, (1, 1, 1), (128, 128, 128), 3, Settings(patch_voxels=32**3))
    assert (plan.grid_kji, plan.patch_kji) == ((32, 32, 32), (32, 32, 32))  # 64^3 would be eight patches


@pytest.mark.parametrize(
    ("spacing", "shape", "multiple", "voxels", "patch"),
    [
        ((1, 1, 1), (64, 64, 64), (8, 8, 8), 32**3, (32, 32, 32)),
        ((1, 1, 1), (64, 64, 64), (8, 8, 8), 10**9, (64, 64, 64)),  # no more than the volume
        ((1, 1, 1), (60, 5, 64), (8, 8, 8), 10**9, (64, 8, 64)),  # up to the next multiple
        ((4, 1, 1), (64, 64, 64), (4, 8, 8), 8192, (8, 32, 32)),  # a cube in millimetres
        ((1, 1, 1), (4, 64, 64), (1, 8, 8), 4096, (4, 32, 32)),  # thin: the others get what is left
        ((1, 1, 1), (64, 64, 64), (16, 16, 16), 100, (16, 16, 16)),  # the network's multiple is the least
    ],
)
def test_patches_by_hand(spacing, shape, multiple, voxels, patch):
    assert patch_shape(spacing, shape, multiple, voxels) == patch


@given(st.tuples(*[st.floats(0.3, 10)] * 3), st.tuples(*[st.integers(1, 300)] * 3), st.integers(512, 10**6))
def test_patches_are_multiples_within_the_volume_and_the_limit(spacing, shape, voxels):
    multiple = plan_network(spacing, shape, 2, 8, 3).multiple_kji
    patch = patch_shape(spacing, shape, multiple, voxels)
    for p, m, n in zip(patch, multiple, shape, strict=True):
        assert p % m == 0
        assert m <= p < max(n + m, m + 1)
    assert math.prod(patch) <= max(voxels, math.prod(multiple))


def sequence(plan):
    plans = []
    while plan is not None:
        plans.append(plan)
        plan = plan.halved()
        assert len(plans) < 100
    return plans


def test_halving_takes_patches_first_and_then_voxels_by_hand():
    plans = sequence(RunPlan(CUBE, (64, 64, 64), (32, 16, 16), 4))
    assert [(p.batch, p.patch_kji) for p in plans] == [
        (4, (32, 16, 16)),
        (2, (32, 16, 16)),
        (1, (32, 16, 16)),
        (1, (16, 16, 16)),
        (1, (8, 16, 16)),
        (1, (8, 8, 16)),
        (1, (8, 8, 8)),
    ]


def test_an_axis_too_short_to_halve_does_not_keep_the_grid_fine():
    assert working_shape((1, 1, 1), (8, 64, 64), 600) == (8, 8, 8)


def test_all_axes_are_halved_before_giving_up():
    network = plan_network((10, 0.4, 0.4), (40, 512, 512), 3, 8, 3)
    assert network.multiple_kji == (1, 8, 8)
    plan, sides = RunPlan(network, (40, 512, 512), (8, 64, 64), 1), []
    while (plan := plan.halved()) is not None:
        sides.append(plan.patch_kji)
    assert sides == [(8, 32, 64), (8, 32, 32), (8, 16, 32), (8, 16, 16), (8, 8, 16), (8, 8, 8)]


def test_no_side_is_halved_below_eight_voxels():
    flat = NetworkPlan(2, 8, (), ((3, 3, 3),))
    assert RunPlan(flat, (64, 64, 64), (15, 15, 15), 1).halved() is None
    assert [p.patch_kji for p in sequence(RunPlan(flat, (64, 64, 64), (16, 9, 9), 1))] == [(16, 9, 9), (8, 9, 9)]


@given(st.tuples(*[st.integers(1, 12)] * 3), st.integers(1, 8), st.sampled_from([(1, 1, 1), (4, 1, 1), (9, 0.5, 0.5)]))
def test_halving_ends_and_stays_at_multiples(counts, batch, spacing):
    network = plan_network(spacing, (256,) * 3, 2, 8, 4)
    patch = tuple(c * m for c, m in zip(counts, network.multiple_kji, strict=True))
    plans = sequence(RunPlan(network, (256,) * 3, patch, batch))
    for before, after in itertools.pairwise(plans):
        assert after.voxels_per_step <= before.voxels_per_step * 0.5
        assert after.network == network
        assert all(p % m == 0 and p >= m for p, m in zip(after.patch_kji, network.multiple_kji, strict=True))
    assert plans[-1].batch == 1


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.93 GiB total capacity)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:75] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"
        ),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.05 GB)"),
    ],
)
def test_running_out_of_memory_is_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert triggered"), ValueError("out of memory"), KeyError("memory"), KeyboardInterrupt()]
)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


@pytest.mark.skipif(torch.version.cuda is not None or device.sys.platform != "linux", reason="how much is too much differs")
def test_what_torch_raises_here_is_recognised():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
