"""Several channels as one gray value: the direction by hand, and what it must bear."""

import numpy as np
import pytest

from sparseseg.annotation.discriminant import Classes, Gray


def painted(*classes, shape=(4, 8, 8)):
    """channels (C, K, J, I), labels, labelled: the samples (n, C) of each class in turn at the first voxels, the last class's mean elsewhere."""
    samples = np.concatenate(classes)
    channels = np.empty((samples.shape[1], *shape))
    channels[:] = classes[-1].mean(0)[:, None, None, None]
    labels, labelled = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    at = np.unravel_index(np.arange(len(samples)), shape)
    channels[:, *at], labels[at], labelled[at] = samples.T, np.repeat(np.arange(len(classes)), [len(c) for c in classes]), True
    return channels.astype(np.float32), labels, labelled


def cloud(centre, spread, n=60, seed=0):
    return np.asarray(centre) + np.random.default_rng(seed).normal(0, 1, (n, len(centre))) * np.asarray(spread)


def direction(*classes):
    weights = Gray.of(*painted(*classes)).weights
    return weights / np.linalg.norm(weights)


def test_noise_that_channels_share_is_taken_out():
    shared = np.random.default_rng(1).normal(0, 50, (60, 1))
    found = direction(*(cloud((a, b), 2, seed=n) + shared for n, (a, b) in enumerate([(0, 10), (10, 0)])))
    assert found == pytest.approx(np.array([1, -1]) / np.sqrt(2), abs=0.02) or found == pytest.approx(np.array([-1, 1]) / np.sqrt(2), abs=0.02)


def test_a_channel_in_other_units_counts_by_what_it_says():
    found = direction(cloud((0, 0), (1, 1000)), cloud((10, 10000), (1, 1000), seed=1))
    assert found[0] / found[1] == pytest.approx(1000, rel=0.2)


def test_of_four_classes_at_the_corners_of_a_square_none_fall_together():
    """Fisher's first direction knows no difference between the sides and the diagonals of a square."""
    classes = [cloud(c, 0.4, seed=n) for n, c in enumerate([(0, 0), (10, 0), (0, 10), (10, 10)])]
    middles = np.sort([c.mean(0) @ direction(*classes) for c in classes])
    assert np.diff(middles).min() > 8 * 0.4


def test_its_classes_are_a_hundred_wide():
    channels, labels, labelled = painted(cloud((0, 100), 3), cloud((50, 0), 3, seed=1))
    gray = Gray.of(channels, labels, labelled)
    assert gray.image.dtype == np.float32 and gray.image.shape == labels.shape
    assert np.mean([gray.image[labelled & (labels == c)].std() for c in (0, 1)]) == pytest.approx(100, rel=0.15)
    assert np.allclose(gray.image, np.tensordot(gray.weights, channels, 1) - (np.tensordot(gray.weights, channels, 1) - gray.image).mean(), atol=0.1)


def test_a_channel_that_is_alike_on_all_labels_counts_nothing():
    """Elsewhere it may be anything."""
    channels, labels, labelled = painted(cloud((0, 0), 1), cloud((9, 0), 1, seed=1))
    channels[1][labelled], channels[1][~labelled] = 7, 1e6
    gray = Gray.of(channels, labels, labelled)
    assert gray.weights[1] == 0 and np.isfinite(gray.image).all()


def test_classes_of_few_voxels_and_a_single_class_do():
    many, single = cloud((0, 0), (1, 30)), np.array([[8.0, 0.0]])
    assert abs(direction(many, single)[0]) > 0.99
    assert direction(many) == pytest.approx(direction(many)[::-1] * np.array([30, 1 / 30]), rel=0.3), "each channel alike, by its spread"
    channels, labels, labelled = painted(single)
    gray = Gray.of(channels, labels, labelled)
    assert gray.weights is None and not gray.is_outdated(labels, labelled), "one voxel says nothing: the first channel is seen"


def test_the_same_labels_give_the_same_direction():
    classes = [cloud(c, 2, seed=n) for n, c in enumerate([(0, 0, 5), (9, 0, 0), (0, 9, 0)])]
    assert (direction(*classes) == direction(*classes)).all()


def test_one_channel_is_seen_as_it_is():
    channels, labels, labelled = painted(cloud((0,), 1), cloud((5,), 1, seed=1))
    gray = Gray.of(channels, labels, labelled)
    assert np.shares_memory(gray.image, channels) and gray.weights is None
    assert not gray.is_outdated(labels, labelled)


def test_a_direction_is_kept_until_another_one_is_clearly_better():
    classes = [cloud((0, 0), 2), cloud((15, 0), 2, seed=1), cloud((0, 15), 2, seed=2)]
    channels, labels, labelled = painted(*classes)
    two = labelled & (labels < 2)
    gray = Gray.of(channels, labels, two)
    assert abs(gray.weights[0]) > 5 * abs(gray.weights[1])
    few = two & (np.arange(labels.size).reshape(labels.shape) % 2 == 0)
    assert not gray.is_outdated(labels, few)
    assert gray.is_outdated(labels, labelled), "the third class lies on the first"
    assert Gray.of(channels, labels, np.zeros_like(labelled)).is_outdated(labels, labelled)


def test_many_classes_are_told_apart_in_parts():
    rng = np.random.default_rng(0)
    classes = Classes(rng.normal(size=(80, 4)), np.tile(0.01 * np.eye(4), (80, 1, 1)), np.zeros(4), np.ones(4))
    assert 0 < classes.overlap(classes.best_direction()[None])[0] < 1
