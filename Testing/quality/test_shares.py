"""How the network stands to the prior, and the temperature that makes it as sure as it should be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.quality import shares
from sparseseg.quality.shares import LEAST, Standing


def probabilities(*voxels):
    """(C, 1, 1, n) float32 from each voxel's probabilities, background first."""
    return np.array(voxels, np.float32).T[:, None, None]


def row(*values, of=np.uint8):
    """(1, 1, n)."""
    return np.array(values, of)[None, None]


PRIOR = row(0, 0, 1, 1, 2, 2)
NETWORK = probabilities(
    (0.9, 0.1, 0.0),  # background, says either: not counted
    (0.3, 0.6, 0.1),  # differs: 0.6 sure
    (0.1, 0.9, 0.0),  # the same: 0.9 sure
    (0.5, 0.3, 0.2),  # differs: 0.5 sure
    (0.0, 0.1, 0.9),  # labelled: not counted
    (0.1, 0.2, 0.7),  # the same: 0.7 sure
)
LABELLED = row(0, 0, 0, 0, 1, 0, of=bool)


def test_standing_is_counted_where_nobody_labelled_and_one_of_both_sees_a_segment():
    standing = Standing.of([(PRIOR, NETWORK, LABELLED)])
    assert standing.agreement == 2 / 4
    assert standing.confidence == pytest.approx((0.6 + 0.9 + 0.5 + 0.7) / 4)


def test_boxes_count_by_their_voxels():
    """One voxel in the first box, three in the second: a mean of their means would be another."""
    parts = [(PRIOR[..., s], NETWORK[..., s], LABELLED[..., s]) for s in (slice(0, 2), slice(2, 6))]
    assert Standing.of(iter(parts)) == Standing.of([(PRIOR, NETWORK, LABELLED)])


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [(PRIOR[..., :1], NETWORK[..., :1], LABELLED[..., :1])],  # background, as both say
        [(PRIOR, NETWORK, np.ones_like(LABELLED))],
    ],
)
def test_where_nothing_can_be_compared_there_is_no_standing(parts):
    assert Standing.of(parts) is None


def test_it_is_reported_with_three_digits():
    assert Standing(2 / 3, 0.98765, 1.23456).to_json() == {"agreement": 0.667, "confidence": 0.988, "temperature": 1.23}


# ---------------------------------------------------------------- the temperature


def softened(probabilities, temperature):
    raised = np.maximum(probabilities, LEAST) ** (1 / temperature)
    return raised / raised.sum(0)


def noisy(rng, count, right, sharpness):
    """Prior's labels of two segments and a network that says them so often, (1, 1, n) and (3, 1, 1, n)."""
    prior = rng.integers(1, 3, count)
    said = np.where(rng.random(count) < right, prior, 3 - prior)
    logits = rng.normal(0, 1, (3, count))
    logits[said, np.arange(count)] = np.abs(logits).max(0) + sharpness
    p = np.exp(logits) / np.exp(logits).sum(0)
    return prior.astype(np.uint8)[None, None], p.astype(np.float32)[:, None, None]


@pytest.mark.parametrize(("right", "sharpness"), [(0.95, 6), (0.7, 6), (0.6, 0.5)])
def test_at_its_temperature_a_network_is_as_sure_as_both_agree(right, sharpness):
    prior, network = noisy(np.random.default_rng(0), 4000, right, sharpness)
    standing = Standing.of([(prior, network, np.zeros(prior.shape, bool))])
    assert softened(network, standing.temperature).max(0).mean() == pytest.approx(standing.agreement, abs=0.01)
    assert (standing.temperature > 1) == (standing.confidence > standing.agreement)


def test_a_network_that_agrees_nowhere_is_made_as_flat_as_can_be():
    prior, network = noisy(np.random.default_rng(1), 500, 0.0, 8)
    standing = Standing.of([(prior, network, np.zeros(prior.shape, bool))])
    assert standing.agreement == 0
    assert standing.temperature == pytest.approx(shares._HOTTEST, rel=0.01)


def test_one_that_is_too_modest_is_made_surer():
    prior, network = noisy(np.random.default_rng(2), 2000, 1.0, 0.1)
    assert Standing.of([(prior, network, np.zeros(prior.shape, bool))]).temperature < 1


def test_of_many_voxels_a_sample_says_nearly_the_same(monkeypatch):
    prior, network = noisy(np.random.default_rng(3), 6000, 0.8, 4)
    parts = [(prior[..., n : n + 500], network[..., n : n + 500], np.zeros((1, 1, 500), bool)) for n in range(0, 6000, 500)]
    exact = Standing.of(parts)
    monkeypatch.setattr(shares, "_SAMPLE", 700)
    found = Standing.of(parts)
    assert (found.agreement, found.confidence) == (exact.agreement, exact.confidence)
    assert found.temperature == pytest.approx(exact.temperature, rel=0.1)
    sample = shares._Sample()
    for _, said, _ in parts:
        sample.add(said[:, 0, 0], np.arange(said.shape[-1]))
        assert sample.voxels().shape[1] <= 2 * 700
    assert sample.voxels().shape[1] >= 700


@given(st.integers(2, 7), st.integers(0, 2**32 - 1))
def test_the_highest_is_what_argmax_and_max_say(classes, seed):
    """Also of equal ones, and where nothing is said."""
    said = np.random.default_rng(seed).integers(0, 4, (classes, 3, 4, 5)).astype(np.float32) / 4
    label, best = shares.highest(said)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, said.argmax(0))
    np.testing.assert_array_equal(best, said.max(0))
