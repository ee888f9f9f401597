"""How prior and network are mixed, by hand and against full vectors of probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.contract.belief import Belief
from sparseseg.quality.fusion import fuse


def belief(labels, confidence):
    return Belief(np.array(labels, np.uint8), np.array(confidence, np.uint8))


def probabilities(*voxels):
    """One tuple of class probabilities a voxel -> (C, n) float32."""
    return np.array(voxels, np.float32).T


def fused(prior, network, share):
    label, uncertainty = fuse(prior, network, share)
    assert label.dtype == uncertainty.dtype == np.uint8
    return label.tolist(), uncertainty.tolist()


PRIOR = belief([0, 1, 2], [0, 200, 255])
SURE_OF_0, SURE_OF_1, SURE_OF_2 = np.eye(3)


@pytest.mark.parametrize(("network", "share"), [(None, 0.5), (probabilities(SURE_OF_2, SURE_OF_2, SURE_OF_0), 0)])
def test_without_share_or_network_the_prior_stands(network, share):
    assert fused(PRIOR, network, share) == ([0, 1, 2], [255, 55, 0])


@pytest.mark.parametrize(("network", "share"), [(None, 0.5), (np.zeros((3, 3), np.float32), 0.5)])
def test_the_result_is_no_view_of_the_prior(network, share):
    label, _ = fuse(PRIOR, network, share)
    label[:] = 9
    assert PRIOR.label.tolist() == [0, 1, 2]


def test_a_full_share_is_the_network_alone():
    network = probabilities((0.1, 0.2, 0.7), (0.5, 0.5, 0), (0.3, 0.6, 0.1))
    assert fused(belief([1, 1, 2], [255] * 3), network, 1.0) == ([2, 0, 1], [127, 255, 178])  # 255 less 0.5, 0 and 0.3 of it


def test_who_is_sure_overrules_who_is_not_at_half_the_share():
    """Three classes: the network's sure 1 against a prior that is 40 % above all alike, and the other way round."""
    network = probabilities(SURE_OF_1, (0.2, 0.6, 0.2))
    assert fused(belief([2, 2], [102, 255]), network, 0.5)[0] == [1, 2]


def test_scores_by_hand():
    """The prior says 1 with q = 0.2 + 0.8 / 4 = 0.4 there, 0.2 for each other of 4 classes."""
    label, uncertainty = fuse(belief([1], [51]), probabilities((0.1, 0.2, 0.6, 0.1)), 0.25)
    first, second = 0.75 * 0.4 + 0.25 * 0.2, 0.75 * 0.2 + 0.25 * 0.6
    assert label.tolist() == [1]
    assert uncertainty.tolist() == [int(255 * (1 - (first - second)))]


@pytest.mark.parametrize(("share", "label"), [(0.25, 0), (0.28, 0), (0.29, 2), (1.0, 2)])
def test_the_network_wins_from_the_share_on_at_which_both_are_alike(share, label):
    """The prior gives 0 the share 0.6, each other 0.2; the network is sure of 2: alike at 0.4 (1 - s) = s."""
    assert fused(belief([0], [102]), probabilities(SURE_OF_2), share)[0] == [label]


def test_uncertainty_reaches_from_certain_to_two_labels_alike():
    assert fused(belief([1], [255]), probabilities(SURE_OF_1), 0.5) == ([1], [0])
    assert fused(belief([0], [255]), probabilities(SURE_OF_1), 0.5) == ([0], [255])  # equal scores: the smaller label, as unsure as can be


SHARES = st.sampled_from([0.1, 0.25, 0.4, 0.5, 1.0])


@given(SHARES, st.integers(2, 6))
def test_where_the_network_says_nothing_the_prior_keeps_label_and_uncertainty(share, classes):
    """Of every confidence, none at all among them."""
    prior = Belief(np.arange(256, dtype=np.uint8) % classes, np.arange(256, dtype=np.uint8)[::-1].copy())
    label, uncertainty = fuse(prior, np.zeros((classes, 256), np.float32), share)
    assert np.array_equal(label, prior.label)
    assert np.array_equal(uncertainty, 255 - prior.confidence)


def test_silence_is_a_voxels_own():
    network = probabilities((0, 0, 0), SURE_OF_0, (0, 0, 0))
    assert fused(belief([2, 2, 1], [0, 0, 90]), network, 0.5) == ([2, 0, 1], [255, 127, 165])


def test_any_shape_and_an_empty_one():
    for shape in ((0,), (2, 0, 3), (2, 3, 4)):
        one = Belief(np.ones(shape, np.uint8), np.full(shape, 255, np.uint8))
        network = np.stack([np.zeros(shape), np.ones(shape)]).astype(np.float32)
        label, uncertainty = fuse(one, network, 0.5)
        assert label.shape == uncertainty.shape == shape
        assert (label == 1).all() and (uncertainty == 0).all()


def by_brute_force(prior, network, share):
    """Every class's probability of both, written out."""
    classes, scores, uncertainty = len(network), [], []
    for a, sure, p in zip(prior.label, prior.confidence, network.T.astype(float), strict=True):
        q = np.full(classes, (1 - sure / 255) / classes)
        q[a] += sure / 255
        score = share * p + (1 - share * p.sum()) * q  # the prior has what the network leaves
        ranked = np.sort(score)[::-1]
        scores.append(score)
        uncertainty.append(np.clip(255 * (1 - (ranked[0] - ranked[1])), 0, 255))
    return scores, uncertainty


@given(st.integers(2, 6), st.integers(0, 10**6), SHARES)
def test_equals_brute_force_with_full_probabilities(classes, seed, share):
    rng, n = np.random.default_rng(seed), 40
    prior = Belief(rng.integers(0, classes, n, np.uint8), rng.integers(0, 256, n, np.uint8))
    network = rng.dirichlet(np.full(classes, 0.5), n).T.astype(np.float32)
    network[:, ::7] = 0
    label, uncertainty = fuse(prior, network, share)
    scores, expected = by_brute_force(prior, network, share)
    for c, score in zip(label, scores, strict=True):
        assert score[c] == pytest.approx(score.max(), abs=1e-6)
    np.testing.assert_allclose(uncertainty, expected, atol=1.001)


@given(st.integers(2, 6), st.integers(0, 10**6), SHARES)
def test_probabilities_as_bytes_hardly_matter(classes, seed, share):
    """The network's are kept as bytes, and add to 1 only nearly."""
    rng, n = np.random.default_rng(seed), 200
    prior = Belief(rng.integers(0, classes, n, np.uint8), rng.integers(0, 256, n, np.uint8))
    network = rng.dirichlet(np.full(classes, 0.5), n).T.astype(np.float32)
    rounded = np.round(network * 255).astype(np.float32) / 255
    (label, uncertainty), (other, unsure) = (fuse(prior, said, share) for said in (network, rounded))
    assert abs(uncertainty.astype(int) - unsure).max() <= 3 + classes
    assert (uncertainty[label != other] > 250 - classes).all()  # only where two are alike
