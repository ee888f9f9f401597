"""Image values to network input: the formula by hand, CT against the rest, and numbers that stay finite."""

import json
import math

import numpy as np
import pytest
import torch

from sparseseg.network import intensity
from sparseseg.network.intensity import Intensity
from sparseseg.network.sampling import WorkingGrid

CPU = torch.device("cpu")


def ramp(low, high):
    """10 x 10 x 10 values in equal steps from low to high; percentile p is low + p % of the way."""
    return np.linspace(low, high, 1000).reshape(10, 10, 10).astype(np.float32)


def applied(mapping, image):
    return on_grid(mapping, image, image.shape)


def on_grid(mapping, image, shape):
    return mapping.apply(image, WorkingGrid.of_whole(image.shape, shape), CPU)


def test_ct_keeps_its_units_and_follows_the_segments():
    fitted = Intensity.fit(ramp(-1000, 1000), np.array([20, 40, 60, 80, 100]))
    assert not fitted.relative
    assert fitted.centre == 60
    assert fitted.scale == pytest.approx((80 - 40) / 1.35)


def test_other_images_are_scaled_by_their_own_percentiles():
    fitted = Intensity.fit(ramp(0, 2000), np.array([420, 510, 1000, 1490, 1580]))
    assert fitted.relative
    assert fitted.centre == pytest.approx((1000 - 20) / 1960)  # the first and last percent are 20 and 1980
    assert fitted.scale == pytest.approx((1490 - 510) / 1960 / 1.35)


def test_without_segments_the_whole_image_is_looked_at():
    fitted = Intensity.fit(ramp(-1000, 1000), np.empty(0))
    assert fitted.centre == pytest.approx(0, abs=1e-3)
    assert fitted.scale == pytest.approx(1000 / 1.35)


@pytest.mark.parametrize(("image", "floor"), [(ramp(-1000, 1000), 10), (ramp(0, 2000), 0.02)])
def test_a_segment_of_one_value_does_not_blow_up_the_noise(image, floor):
    assert Intensity.fit(image, np.array([40, 40, 40])).scale == floor


def test_the_mapping_by_hand():
    image = np.array([[[-1000, 50, 70, 1050]]], np.int16)
    scale = 20 / math.sinh(1)
    expected = [math.asinh(-1050 / scale), 0, 1, math.asinh(1000 / scale)]
    np.testing.assert_allclose(applied(Intensity(50, scale, False), image).numpy().ravel(), expected, rtol=1e-3)


def test_relative_mapping_by_hand():
    image = ramp(0, 2000)
    result = applied(Intensity(0.5, 0.25, True), image).numpy()
    assert result[0, 0, 0] == pytest.approx(math.asinh((-20 / 1960 - 0.5) / 0.25), rel=2e-3)
    assert result[-1, -1, -1] == pytest.approx(math.asinh((1980 / 1960 - 0.5) / 0.25), rel=2e-3)


def test_relative_mapping_does_not_depend_on_the_units_of_the_image_but_ct_does():
    image = ramp(0, 2000)
    inside = image[4].ravel()
    one, other = Intensity.fit(image, inside), Intensity.fit(image * 3 + 70, inside * 3 + 70)
    np.testing.assert_allclose(applied(one, image), applied(other, image * 3 + 70), atol=2e-3)
    ct = Intensity(0, 100, False)
    assert not torch.equal(applied(ct, image), applied(ct, image * 3))


def test_a_model_made_for_one_volume_scales_the_next_by_its_own_percentiles():
    fitted = Intensity.fit(ramp(0, 2000), np.empty(0))
    np.testing.assert_allclose(applied(fitted, ramp(0, 2000)), applied(fitted, ramp(0, 20)), atol=2e-3)


@pytest.mark.parametrize("relative", [False, True])
def test_slab_by_slab_equals_the_whole(relative, monkeypatch):
    image = np.random.default_rng(0).normal(0, 500, (7, 30, 30)).astype(np.float32)
    monkeypatch.setattr(intensity, "_range", lambda _: (-900.0, 1100.0, relative))
    mapping = Intensity(0.5, 0.2, relative)
    assert torch.equal(torch.cat([applied(mapping, image[k : k + 1]) for k in range(7)]), applied(mapping, image))


def test_on_a_coarser_grid_each_voxel_is_the_mean_of_those_it_covers():
    image = np.sinh(np.arange(2 * 4 * 6).reshape(2, 4, 6) / 8).astype(np.float32)  # mapped to 0, 1/8, 2/8 ...
    result = on_grid(Intensity(0, 1, False), image, (1, 2, 3)).numpy()
    expected = [[[(24 + 12 * j * 2 + 2 * i * 2 + 7) / 16 for i in range(3)] for j in range(2)]]  # mean of 0, 1, 6, 7 and the same 24 further on
    np.testing.assert_allclose(result, expected, rtol=1e-3)


def test_a_coarser_grid_that_does_not_divide_the_volume_leaves_no_plane_out():
    image = np.zeros((5, 5, 5), np.float32)
    image[2, 2, 2] = np.sinh(1)
    result = on_grid(Intensity(0, 1, False), image, (2, 2, 2))
    np.testing.assert_allclose(result, np.full((2, 2, 2), 1 / 27), rtol=1e-2)  # the middle belongs to all eight


@pytest.mark.parametrize(("own", "working"), [(45, 33), (30, 22), (49, 47), (7, 3), (5, 5)])
def test_each_working_slice_is_the_mean_of_just_the_planes_that_it_covers(own, working):
    """As adaptive pooling has it. 11 * (45 / 33) falls short of 15, and would take in a plane too many."""
    image = np.random.default_rng(0).normal(size=(own, 4, 6)).astype(np.float32)
    result = on_grid(Intensity(0, 1, False), image, (working, 2, 3))
    expected = torch.nn.functional.adaptive_avg_pool3d(torch.asinh(torch.from_numpy(image))[None], (working, 2, 3))[0]
    torch.testing.assert_close(result.float(), expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("working", [(3, 4, 5), (2, 2, 2)])
def test_a_box_is_mapped_as_a_volume_of_its_own_but_scaled_by_the_whole(working):
    image, box = np.random.default_rng(0).normal(0, 300, (8, 9, 10)).astype(np.float32), (slice(2, 5), slice(4, 8), slice(5, 10))
    image[:, :, 0] = 3000  # beyond the box
    ct, relative = Intensity(0, 100, False), Intensity(0.5, 0.2, True)
    result = ct.apply(image, WorkingGrid(image.shape, box, working), CPU)
    assert torch.equal(result, on_grid(ct, image[box], working))
    shifted = image - image.min()
    low, high = np.percentile(shifted, [1, 99])
    result = relative.apply(shifted, WorkingGrid(image.shape, box, (3, 4, 5)), CPU)
    np.testing.assert_allclose(result, np.arcsinh(((shifted[box] - low) / (high - low) - 0.5) / 0.2), atol=2e-3)


def test_it_can_be_ended_at_every_slice():
    ticks = []
    Intensity(0, 1, False).apply(np.zeros((9, 4, 4)), WorkingGrid.of_whole((9, 4, 4), (3, 4, 4)), CPU, lambda: ticks.append(1))
    assert len(ticks) == 3


def test_large_volumes_are_read_slice_by_slice():
    seen = []

    class Watched(np.ndarray):
        def __getitem__(self, key):
            if isinstance(key, tuple) and len(key) == 3 and key[0].step is None:  # not the sample that percentiles are taken from
                seen.append((key[0].start, key[0].stop))
            return super().__getitem__(key)

    image = np.zeros((6, 40, 40), np.uint8)
    image[3, 5, 5] = 9
    result = on_grid(Intensity(0, 1, False), image.view(Watched), (3, 40, 40))
    assert seen == [(0, 2), (2, 4), (4, 6)]
    assert result[1, 5, 5] == pytest.approx(math.asinh(9) / 2, rel=1e-3)
    assert result.count_nonzero() == 1


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32"])
def test_the_extremes_of_every_type_stay_finite(kind):
    info = np.finfo(kind) if kind.startswith("f") else np.iinfo(kind)
    image = np.full((4, 4, 4), 1, kind)
    image[0, 0, 0], image[3, 3, 3] = info.min, info.max
    for mapping in (Intensity(0, 10, False), Intensity(40, 10, False)):
        result = applied(mapping, image)
        assert result.dtype == torch.float16
        assert result.isfinite().all()
        assert result[0, 0, 0] < result[1, 1, 1] < result[3, 3, 3]


def test_an_image_of_one_value_stays_finite():
    image = np.full((4, 4, 4), 7, np.int16)
    fitted = Intensity.fit(image, image.ravel())
    assert (applied(fitted, image) == 0).all()


def test_read_only_and_flipped_arrays_are_taken():
    image = ramp(-1000, 1000)[::-1]
    image.flags.writeable = False
    assert torch.equal(applied(Intensity(0, 10, False), image), applied(Intensity(0, 10, False), image.copy()))


def test_json_and_back():
    fitted = Intensity(1.25, 0.1, True)
    assert Intensity.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


def test_extreme_images_stay_finite():
    for low in (-3.4e38, 0):
        image = np.linspace(low, 3.4e38, 1000, dtype=np.float32).reshape(10, 10, 10)
        assert applied(Intensity.fit(image, np.empty(0)), image).isfinite().all()
    image = np.zeros((8, 8, 8), np.float32)
    image[0, 0, 0] = 3e38
    assert applied(Intensity(0.5, 0.02, True), image).isfinite().all()
