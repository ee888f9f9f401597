"""How prior and network are mixed, by hand and against full vectors of probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.contract.belief import Belief
from sparseseg.quality.fusion import fuse


def belief(labels, confidence):
    return Belief(np.array(labels, np.uint8), np.array(confidence, np.uint8))


def fused(prior, network, trust):
    label, uncertainty = fuse(prior, network, trust)
    assert label.dtype == uncertainty.dtype == np.uint8
    return label.tolist(), uncertainty.tolist()


PRIOR = belief([0, 1, 2], [0, 200, 255])


@pytest.mark.parametrize("network", [None, belief([2, 2, 0], [255, 255, 255])])
def test_without_trust_or_network_the_prior_stands(network):
    trust = [0, 0, 0] if network is not None else [0.5, 0.5, 0.5]
    assert fused(PRIOR, network, trust) == ([0, 1, 2], [255, 55, 0])


def test_the_result_is_no_view_of_the_prior():
    label, _ = fuse(PRIOR, None, [0, 0, 0])
    label[:] = 9
    assert PRIOR.label.tolist() == [0, 1, 2]


def test_full_trust_is_the_network_alone():
    network = belief([2, 0, 1], [255, 0, 101])
    label, uncertainty = fuse(belief([1, 1, 1], [255] * 3), network, [1, 1])  # two classes: what is left is the other's
    assert label.tolist()[1:] == [0, 1]
    np.testing.assert_allclose(uncertainty[1:], [255, 154], atol=1)


def test_who_is_sure_overrules_who_is_not_at_half_the_trust():
    """Three classes, as worked out by hand: the network's sure 1 against a prior that is 40 % above all alike, and the other way round."""
    sure, unsure = 255, 102
    labels, _ = fused(belief([2, 2], [unsure, sure]), belief([1, 1], [sure, unsure]), [0.5, 0.5, 0.5])
    assert labels == [1, 2]


def test_scores_by_hand():
    """The prior says 1 with q = 0.2 + 0.8 / 4 = 0.4 there, 0.2 for each other of 4 classes; the network 2 with p = (255 + 51) / 510 = 0.6."""
    label, uncertainty = fuse(belief([1], [51]), belief([2], [51]), [0.25, 0.25, 0.25, 0.25])
    first, second = 0.75 * 0.4 + 0.25 * 0.4 / 3, 0.75 * 0.2 + 0.25 * 0.6
    assert label.tolist() == [1]
    assert uncertainty.tolist() == [int(255 * (1 - (first - second)))]


@pytest.mark.parametrize(("trust", "label"), [([0.25, 0.25, 0], 0), ([0.25, 0.25, 0.5], 2)])
def test_the_network_brings_in_only_a_class_for_which_it_is_trusted(trust, label):
    """The prior gives 0 the share 0.6, each other 0.2; the network is sure of 2."""
    assert fused(belief([0], [102]), belief([2], [255]), trust)[0] == [label]


def test_uncertainty_reaches_from_certain_to_two_labels_alike():
    both = belief([1, 1], [255, 0])
    _, uncertainty = fused(both, belief([1, 1], [255, 0]), [0.5, 0.5])
    assert uncertainty[0] == 0
    assert fused(belief([0], [255]), belief([1], [255]), [0.5, 0.5]) == ([0], [255])  # equal scores: the smaller label, as unsure as can be


def test_any_shape_and_an_empty_one():
    for shape in ((0,), (2, 0, 3), (2, 3, 4)):
        one = Belief(np.ones(shape, np.uint8), np.full(shape, 255, np.uint8))
        label, uncertainty = fuse(one, one, [0.5, 0.5])
        assert label.shape == uncertainty.shape == shape
        assert (label == 1).all() and (uncertainty == 0).all()


def by_brute_force(prior, network, trust):
    """Every class's probability of both, written out."""
    classes, labels, uncertainty = len(trust), [], []
    for a, sure_a, b, sure_b in zip(prior.label, prior.confidence, network.label, network.confidence, strict=True):
        q = np.full(classes, (1 - sure_a / 255) / classes)
        q[a] += sure_a / 255
        p = np.full(classes, (1 - (1 - (255 - sure_b) / 510)) / (classes - 1))
        p[b] = 1 - (255 - sure_b) / 510
        assert q.sum() == pytest.approx(1) and p.sum() == pytest.approx(1)
        score = np.array(trust) * p + (1 - np.array(trust)) * q
        ranked = np.sort(score)[::-1]
        labels.append(score)
        uncertainty.append(np.clip(255 * (1 - (ranked[0] - ranked[1])), 0, 255))
    return labels, uncertainty


@given(st.integers(2, 6), st.integers(0, 10**6), st.sampled_from([0.25, 0.5, 1.0]))
def test_equals_brute_force_with_full_probabilities(classes, seed, share):
    rng, n = np.random.default_rng(seed), 40
    prior, network = (Belief(rng.integers(0, classes, n, np.uint8), rng.integers(0, 256, n, np.uint8)) for _ in range(2))
    trust = np.where(rng.random(classes) < 0.6, share, 0)
    trust[0] = share
    label, uncertainty = fuse(prior, network, trust)
    scores, expected = by_brute_force(prior, network, trust)
    for c, score in zip(label, scores, strict=True):
        assert score[c] == pytest.approx(score.max(), abs=1e-6)
    np.testing.assert_allclose(uncertainty, expected, atol=1.001)
