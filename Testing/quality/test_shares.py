"""The network's share of the result, from how it stands to the prior."""

import numpy as np
import pytest

from sparseseg.quality.shares import _GAPS, _OF_STROKES, _SHARES, Standing, choose


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
    assert Standing(2 / 3, 0.98765).to_json() == {"agreement": 0.667, "confidence": 0.988}


def with_gap(gap):
    return Standing(agreement=0.5 + gap / 2, confidence=0.5 - gap / 2)


@pytest.mark.parametrize(("gap", "share"), list(zip(_GAPS, _SHARES, strict=True)))
def test_the_fitted_gaps_have_their_shares(gap, share):
    assert choose(with_gap(gap), has_slices=True) == pytest.approx(share)


def test_between_the_fitted_gaps_the_share_is_linear_and_beyond_them_that_of_the_last():
    (a, b), (one, other) = _GAPS[:2], _SHARES[:2]
    assert choose(with_gap(a + (b - a) / 4), has_slices=True) == pytest.approx(one + (other - one) / 4)
    assert choose(with_gap(_GAPS[0] - 0.2), has_slices=True) == pytest.approx(_SHARES[0])
    assert choose(with_gap(_GAPS[-1] + 0.2), has_slices=True) == pytest.approx(_SHARES[-1])


def test_only_the_gap_counts_and_a_network_that_is_surer_than_it_agrees_gets_no_more():
    middle = (_GAPS[0] + _GAPS[-1]) / 2
    assert choose(Standing(0.9 + middle, 0.9), has_slices=True) == pytest.approx(choose(Standing(0.7 + middle, 0.7), has_slices=True))
    assert list(_GAPS) == sorted(set(_GAPS))  # or linear interpolation means nothing
    assert list(_SHARES) == sorted(_SHARES) and 0 <= _SHARES[0] < _SHARES[-1] <= 1


def test_without_complete_slices_the_network_never_has_more_than_a_limit():
    assert choose(with_gap(_GAPS[-1]), has_slices=False) == _OF_STROKES < _SHARES[-1]
    assert choose(with_gap(_GAPS[0]), has_slices=False) == pytest.approx(_SHARES[0])
