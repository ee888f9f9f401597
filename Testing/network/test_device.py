"""Devices that really work, plans that fit them, and what to do when memory runs out."""

import itertools
import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.contract.errors import DeviceError
from sparseseg.contract.settings import Settings
from sparseseg.network import device
from sparseseg.network.device import Compute, RunPlan, choose, is_out_of_memory, on_cpu, plan_run, usable_cores
from sparseseg.network.unet import plan_network

SLOW = Compute(torch.device("cpu"), torch.float32, "test", tflops=0.2, free_bytes=8 << 30, why="")
FAST = Compute(torch.device("cuda"), torch.bfloat16, "test", tflops=50, free_bytes=24 << 30, why="")
FLAT = plan_network(1, (64, 64), 2, 8, 3)


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


def planned(compute, own_kji, settings=None, spacing=(1, 1, 1), classes=3):
    return plan_run(compute, spacing, own_kji, classes, settings or Settings())


def test_what_the_user_set_is_taken():
    plan = planned(SLOW, (64, 64, 64), Settings(width=24, depth=2, batch=3, patch_voxels=32**2, residual=True), classes=4)
    assert (plan.network.width, plan.network.pools, plan.network.classes, plan.network.residual) == (24, ((1, 2, 2),) * 2, 4, True)
    assert (plan.grid_kji, plan.slices, plan.batch) == ((32, 32, 32), 1, 3)
    assert plan.voxels_per_step == 3 * 32**2


def test_single_slices_of_planes_that_the_device_affords():
    slow, fast = (planned(compute, (300,) * 3) for compute in (SLOW, FAST))
    assert (slow.slices, slow.grid_kji) == (1, (192, 192, 192))
    assert (fast.slices, fast.grid_kji) == (1, (256, 256, 256))
    assert slow.network.kernels[0] == fast.network.kernels[0] == (1, 3, 3)
    assert fast.batch == 4


def test_thick_slabs_have_kernels_that_reach_across_them():
    plan = planned(SLOW, (32,) * 3, Settings(slices=8))
    assert plan.slices == 8
    assert plan.network.kernels[0] == (3, 3, 3)


@pytest.mark.parametrize(("cores", "slabs"), [(1, 2), (2, 2), (6, 6), (64, 8)])
def test_each_core_of_a_cpu_has_a_slab(cores, slabs, monkeypatch):
    monkeypatch.setattr(device, "usable_cores", lambda: cores)
    assert planned(SLOW, (32,) * 3).batch == slabs
    assert planned(FAST, (32,) * 3).batch == 4


def test_a_volume_whose_slices_fit_is_worked_on_as_it_is():
    assert planned(SLOW, (150, 192, 190)).grid_kji == (150, 192, 190)
    assert planned(SLOW, (40, 384, 384), spacing=(5, 0.8, 0.8)).grid_kji == (40, 192, 192)


def test_full_resolution_is_the_volumes_own_grid_whatever_it_takes():
    assert planned(SLOW, (300, 512, 512), Settings(full_resolution=True), classes=6).grid_kji == (300, 512, 512)
    assert planned(SLOW, (40, 64, 64), Settings(full_resolution=True, patch_voxels=100)).grid_kji == (40, 64, 64)


def test_of_many_classes_the_belief_has_room():
    few, many = (math.prod(planned(FAST, (256,) * 3, classes=classes).grid_kji) for classes in (3, 100))
    assert few == 256**3
    assert 3_900_000 < many <= 4_000_000  # a hundred bytes a voxel


def test_a_slow_device_gets_a_coarser_grid_and_the_same_network():
    snail = Compute(SLOW.device, SLOW.dtype, "test", 0.02, SLOW.free_bytes, "")
    slow, fast = planned(snail, (256,) * 3), planned(SLOW, (256,) * 3)
    assert slow.network == fast.network
    assert max(slow.grid_kji) < max(fast.grid_kji) == 192
    assert planned(snail, (256,) * 3, Settings(patch_voxels=192**2)).grid_kji == fast.grid_kji


def test_more_time_means_no_coarser_grid():
    middling = Compute(SLOW.device, SLOW.dtype, "test", 0.1, SLOW.free_bytes, "")
    sides = [max(planned(middling, (256,) * 3, Settings(time_budget_s=t)).grid_kji) for t in (5, 15, 30, 600)]
    assert sides == sorted(sides)
    assert sides[0] < sides[-1]


def test_the_plane_is_what_is_affordable_by_hand():
    """A step in a hundredth of 10 s, at a quarter of the device's rate, of two slices; it costs three forward passes."""
    settings, flat = Settings(time_budget_s=10, depth=1, batch=2), plan_network(1, (128, 128), 3, 16, 1)
    enough = 2 * 128 * 128 * 3 * flat.flops_per_voxel() / (0.1 * 0.25 * 1e12)
    for tflops, side in ((enough * 1.01, 128), (enough * 0.5626, 96), (enough * 0.01, 64)):
        compute = Compute(SLOW.device, SLOW.dtype, "test", tflops, SLOW.free_bytes, "")
        assert max(planned(compute, (8, 128, 128), settings).grid_kji) == side


def test_little_memory_means_fewer_and_thinner_slabs():
    """Half of 0.4 GB, at 90 bytes a voxel and channel of 16: 139 000 voxels; four slices are 262 000."""
    tight = Compute(FAST.device, FAST.dtype, "test", FAST.tflops, 400_000_000, "")
    assert (planned(tight, (256,) * 3).batch, planned(tight, (256,) * 3).slices) == (2, 1)
    thick = Settings(slices=8)
    assert (planned(tight, (256,) * 3, thick).batch, planned(tight, (256,) * 3, thick).slices) == (1, 2)
    assert planned(tight, (256,) * 3).network == planned(FAST, (256,) * 3).network


def test_the_largest_planes_are_the_measure():
    assert RunPlan(FLAT, (10, 30, 20), 4, 2).voxels_per_step == 30 * 20 * 4 * 2


def sequence(plan):
    plans = []
    while plan is not None:
        plans.append(plan)
        plan = plan.halved()
        assert len(plans) < 100
    return plans


def test_halving_takes_slabs_first_and_then_slices_by_hand():
    plans = sequence(RunPlan(FLAT, (64, 64, 64), 8, 3))
    assert [(p.batch, p.slices) for p in plans] == [(3, 8), (1, 8), (1, 4), (1, 2), (1, 1)]
    assert {(p.network, p.grid_kji) for p in plans} == {(FLAT, (64, 64, 64))}


@given(st.integers(1, 40), st.integers(1, 8))
def test_halving_ends_at_one_slice(slices, batch):
    plans = sequence(RunPlan(FLAT, (64, 64, 64), slices, batch))
    assert all(after.voxels_per_step <= before.voxels_per_step / 2 for before, after in itertools.pairwise(plans))
    assert (plans[-1].batch, plans[-1].slices) == (1, 1)


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


@pytest.mark.skipif(torch.version.cuda is not None or sys.platform != "linux", reason="how much is too much differs")
def test_what_torch_raises_here_is_recognised():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
