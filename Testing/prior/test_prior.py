"""The prior: growing against Dijkstra, interpolation against known shapes, and what the combination promises."""

from __future__ import annotations

import heapq
import itertools
import math

import numpy as np
import pytest

from sparseseg.prior import growing as prior
from sparseseg.prior.growing import compute_prior, grow, interpolate

ISOTROPIC = (1.0, 1.0, 1.0)


def dijkstra(levels: np.ndarray, known: np.ndarray, costs: tuple[float, ...]) -> np.ndarray:
    """The distances that grow() should find: an edge costs |difference of levels| + its rounded length."""
    distance = np.where(known >= 0, 0, 10**9)
    queue = [(0, tuple(int(v) for v in place)) for place in np.argwhere(known >= 0)]
    moves = [m for m in itertools.product((-1, 0, 1), repeat=3) if any(m)]
    while queue:
        far, here = heapq.heappop(queue)
        if far > distance[here]:
            continue
        for move in moves:
            there = tuple(a + b for a, b in zip(here, move, strict=True))
            if not all(0 <= a < n for a, n in zip(there, levels.shape, strict=True)):
                continue
            new = far + abs(int(levels[there]) - int(levels[here])) + round(math.sqrt(sum((m * c) ** 2 for m, c in zip(move, costs, strict=True))))
            if new < distance[there]:
                distance[there] = new
                heapq.heappush(queue, (new, there))
    return distance


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


@pytest.mark.parametrize(("seed", "costs"), [(0, (3, 3, 3)), (1, (20, 4, 4)), (2, (0, 0, 0)), (3, (7, 2, 11))])
def test_growing_finds_dijkstras_distances(seed: int, costs: tuple[float, ...]) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 200, (5, 7, 9)).astype(np.int32)
    known = np.full(levels.shape, -1, np.int16)
    for value in range(4):
        known[tuple(rng.integers(0, levels.shape))] = value
    label, distance = grow(levels, known, costs, rounds=12)
    np.testing.assert_array_equal(distance, dijkstra(levels, known, costs))
    np.testing.assert_array_equal(label[known >= 0], known[known >= 0])
    of_each = np.stack([dijkstra(levels, np.where(known == v, known, -1).astype(np.int16), costs) for v in np.unique(known[known >= 0])])
    chosen = np.searchsorted(np.unique(known[known >= 0]), label)
    np.testing.assert_array_equal(np.take_along_axis(of_each, chosen[None], axis=0)[0], distance)


def test_on_a_ramp_the_smaller_climb_wins() -> None:
    levels = np.array([0, 10, 20, 30, 100, 110, 120], np.int32).reshape(1, 1, 7)
    known = np.full((1, 1, 7), -1, np.int16)
    known[0, 0, 0], known[0, 0, 6] = 0, 3
    label, distance = grow(levels, known, (0, 0, 0))
    assert label.ravel().tolist() == [0, 0, 0, 0, 3, 3, 3]
    assert distance.ravel().tolist() == [0, 10, 20, 30, 20, 10, 0]


def test_thick_slices_are_farther_than_wide_pixels() -> None:
    known = np.full((5, 1, 9), -1, np.int16)
    known[2, 0, 0], known[0, 0, 6] = 1, 2
    flat = np.zeros((5, 1, 9), np.int32)
    near, _ = grow(flat, known, (4, 4, 4))
    thick, _ = grow(flat, known, (100, 4, 4))
    assert near[2, 0, 5] == 2 and thick[2, 0, 5] == 1


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
    for limit in (10**9, 500):
        monkeypatch.setattr(prior, "COARSE_VOXELS", limit)
        found = compute_prior(image, labels, labelled, (2.0, 1.0, 0.7))
        np.testing.assert_array_equal(found.label[labelled], labels[labelled])


def test_the_coarse_grid_says_about_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels, labelled = two_boxes((24, 33, 41), edge=26)
    fine = compute_prior(image, labels, labelled, ISOTROPIC)
    monkeypatch.setattr(prior, "COARSE_VOXELS", 6000)
    coarse = compute_prior(image, labels, labelled, ISOTROPIC)
    assert (fine.label == coarse.label).mean() > 0.97
    assert_split_at(fine.label, 26)


def test_pooling_starts_at_the_finest_axis_and_keeps_thin_strokes() -> None:
    assert prior.coarsening((10, 32, 32), (10.0, 0.4, 0.4), 10 * 16 * 16) == (1, 2, 2)
    image = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4)
    labels, labelled = np.zeros(image.shape, np.uint8), np.zeros(image.shape, bool)
    labels[0, 0, 0], labelled[0, 0, 0] = 254, True
    gray, known = prior._pool(image, labels, labelled, (1, 2, 2), lambda: None)
    np.testing.assert_allclose(gray, [[[2.5, 4.5], [8.5, 10.5]], [[14.5, 16.5], [20.5, 22.5]]])
    np.testing.assert_array_equal(known, [[[254, -1], [-1, -1]], [[-1, -1], [-1, -1]]])


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


def test_tick_is_called_often_and_can_cancel() -> None:
    calls = []
    compute_prior(*two_boxes(), ISOTROPIC, tick=lambda: calls.append(1))
    assert len(calls) > 100

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        compute_prior(*two_boxes(), ISOTROPIC, tick=stop)


def test_the_first_growing_is_shown_early_with_the_strokes_standing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    image, labels, labelled = two_boxes((10, 14, 18), edge=11)
    image = image + rng.normal(size=image.shape).astype(np.float32)
    labels[2, 3, 4], labelled[2, 3, 4] = 1, True  # a stroke that contradicts all around it
    for limit in (10**9, 500):
        monkeypatch.setattr(prior, "COARSE_VOXELS", limit)
        shown: list[np.ndarray] = []

        def keep_and_spoil(label: np.ndarray, shown: list[np.ndarray] = shown) -> None:
            shown.append(label.copy())
            label[:] = 7

        found = compute_prior(image, labels, labelled, ISOTROPIC, early=keep_and_spoil)
        assert len(shown) == 1
        np.testing.assert_array_equal(shown[0][labelled], labels[labelled])
        assert (shown[0] == found.label).mean() > 0.95 and set(np.unique(shown[0])) == {0, 1}
        np.testing.assert_array_equal(found.label, compute_prior(image, labels, labelled, ISOTROPIC).label)


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
