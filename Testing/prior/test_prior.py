"""What the prior promises, and interpolation against known shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparseseg.prior import scales
from sparseseg.prior.grown import compute_prior
from sparseseg.prior.interpolation import interpolate

ISOTROPIC = (1.0, 1.0, 1.0)


def two_boxes(shape: tuple[int, int, int] = (12, 16, 20), edge: int = 13) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bright for i >= edge, dark before; a stroke of segment 1 deep in the bright part and one of background in the dark part."""
    image = np.zeros(shape, np.int16)
    image[:, :, edge:] = 100
    labels, labelled = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    labels[shape[0] // 2, 4:12, -2] = 1
    labelled[labels > 0] = True
    labelled[shape[0] // 2, 4:12, 1] = True
    return image, labels, labelled


def assert_split_at(label: np.ndarray, edge: int) -> None:
    """Segment 1 right of the edge, background left of it, to within the one voxel that the blur makes ambiguous."""
    assert not label[:, :, : edge - 1].any() and (label[:, :, edge + 1 :] == 1).all()


def test_an_edge_far_from_both_strokes_is_found() -> None:
    image, labels, labelled = two_boxes()
    found = compute_prior(image, labels, labelled, ISOTROPIC)
    assert_split_at(found.label, 13)
    assert found.label.dtype == found.confidence.dtype == np.uint8
    assert (found.confidence[labelled] == 255).all() and (found.confidence[~labelled] < 255).all()
    assert found.confidence[:, :, 12:14].mean() < found.confidence[:, :, 1].mean()


def test_a_cylinder_between_two_slices_stays_a_cylinder_and_a_cone_a_cone() -> None:
    j, i = np.mgrid[:41, :41]
    radius = np.hypot(j - 20, i - 20)
    for ends in ((10, 10), (6, 14)):
        known = np.full((9, 41, 41), -1, np.int16)
        for k, end in zip((0, 8), ends, strict=True):
            known[k] = (radius <= end) * 2
        label, weight = interpolate(known, (3.0, 1.0, 1.0))
        assert weight is not None and (weight[1:8] > 0).all() and weight[1, 0, 0] > weight[4, 0, 0]
        for k in range(1, 8):
            expected = ends[0] + (ends[1] - ends[0]) * k / 8
            assert math.sqrt((label[k] == 2).sum() / math.pi) == pytest.approx(expected, abs=0.6)


def test_a_segment_on_one_of_two_slices_ends_halfway() -> None:
    known = np.full((9, 21, 21), -1, np.int16)
    known[0] = known[8] = 0
    known[0, 6:15, 6:15] = 1
    label, _ = interpolate(known, ISOTROPIC)
    areas = (label == 1).sum(axis=(1, 2))
    assert areas[1] > areas[2] > areas[3] > 0 and not areas[4:].any()


def test_no_two_complete_slices_no_interpolation() -> None:
    known = np.full((6, 8, 8), -1, np.int16)
    known[2] = 0
    known[4, :7] = 1
    assert interpolate(known, ISOTROPIC)[1] is None


def test_labelled_voxels_keep_their_label_in_noise_fine_and_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(11, 13, 17))
    labels = rng.integers(0, 4, image.shape).astype(np.uint8)
    labelled = rng.random(image.shape) < 0.3
    monkeypatch.setattr(scales, "NOISY_CELLS", 500)
    for limit in (10**9, 500):
        monkeypatch.setattr(scales, "ALL_VOXELS", limit)
        found = compute_prior(image, labels, labelled, (2.0, 1.0, 0.7))
        np.testing.assert_array_equal(found.label[labelled], labels[labelled])


def test_the_coarse_grid_says_about_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels, labelled = two_boxes((24, 33, 41), edge=26)
    fine = compute_prior(image, labels, labelled, ISOTROPIC)
    for name in ("ALL_VOXELS", "SHARP_CELLS", "NOISY_CELLS"):
        monkeypatch.setattr(scales, name, 6000)
    coarse = compute_prior(image, labels, labelled, ISOTROPIC)
    assert (fine.label == coarse.label).mean() > 0.97
    assert_split_at(fine.label, 26)


def test_far_from_the_segments_is_background() -> None:
    image, labels, labelled = np.zeros((8, 8, 120), np.float32), np.zeros((8, 8, 120), np.uint8), np.zeros((8, 8, 120), bool)
    labels[4, 4, 4:10], labelled[4, 4, 4:14] = 1, True
    found = compute_prior(image, labels, labelled, ISOTROPIC)
    assert found.label[4, 4, 3] == 1 and not found.label[:, :, 60:].any() and (found.confidence[:, :, 60:] == 250).all()


def test_background_strokes_beyond_the_margin_still_count() -> None:
    image, labels, labelled = two_boxes((8, 16, 120), edge=60)
    assert_split_at(compute_prior(image, labels, labelled, ISOTROPIC).label, 60)


def test_nothing_labelled_nothing_known() -> None:
    found = compute_prior(np.zeros((4, 4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), bool), ISOTROPIC)
    assert not found.label.any() and not found.confidence.any()


@pytest.mark.parametrize("only", [0, 5])
def test_one_class_alone_fills_a_constant_or_broken_image(only: int) -> None:
    image = np.full((4, 5, 6), np.nan)
    image[0, 0, 0] = np.inf
    labelled = np.zeros(image.shape, bool)
    labelled[2, 2, 2] = True
    assert (compute_prior(image, np.full(image.shape, only, np.uint8), labelled, ISOTROPIC).label == only).all()


def test_tick_is_called_and_can_cancel() -> None:
    calls: list[int] = []
    compute_prior(*two_boxes(), ISOTROPIC, tick=lambda: calls.append(1))
    assert len(calls) > 3

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        compute_prior(*two_boxes(), ISOTROPIC, tick=stop)


def test_the_same_input_gives_the_same_prior_and_stays_untouched() -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(-1000, 1000, (16, 16, 8)).astype(np.int16)
    labels = rng.integers(0, 3, image.shape).astype(np.uint8)
    labelled = rng.random(image.shape) < 0.05
    for array in (image, labels, labelled):
        array.setflags(write=False)
    one, two = (compute_prior(image, labels, labelled, (0.4, 0.4, 10.0)) for _ in range(2))
    np.testing.assert_array_equal(one.label, two.label)
    np.testing.assert_array_equal(one.confidence, two.confidence)
