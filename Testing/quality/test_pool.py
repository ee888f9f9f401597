"""Growing and refiner as one belief: a linear pool in which the refiner's confidence counts squared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseseg.contract.belief import Belief
from sparseseg.quality.fusion import GROWN, pool


def belief(*voxels):
    """From (label, confidence) pairs, (n,)."""
    label, confidence = np.array(voxels, np.uint8).reshape(-1, 2).T
    return Belief(label.copy(), confidence.copy())


def pooled(grown, refined, labelled=False):
    """Label and confidence of one voxel."""
    found = pool(belief(grown), belief(refined), np.array([labelled]))
    return int(found.label[0]), int(found.confidence[0])


def test_both_sure_of_the_same_are_sure():
    assert pooled((2, 255), (2, 255)) == (2, 255)


def test_where_one_knows_nothing_the_other_keeps_its_label_and_its_share_of_the_confidence():
    assert pooled((1, 255), (2, 0)) == (1, round(255 * GROWN))
    assert pooled((1, 0), (2, 255)) == (2, round(255 * (1 - GROWN)))
    assert pooled((1, 0), (2, 0)) == (2, 0)


def test_the_refiners_confidence_counts_squared():
    """51 is 0.2, squared 0.04; 204 is 0.8, squared 0.64."""
    assert pooled((1, 0), (1, 51)) == (1, round(255 * (1 - GROWN) * 0.04))
    assert pooled((1, 51), (1, 204)) == (1, round(255 * (GROWN * 0.2 + (1 - GROWN) * 0.64)))
    assert pooled((2, 51), (1, 204)) == (1, round(255 * ((1 - GROWN) * 0.64 - GROWN * 0.2)))


def test_a_sure_growing_overrules_an_unsure_refiner_only():
    assert pooled((2, 255), (1, 102)) == (2, round(255 * (GROWN - (1 - GROWN) * 0.16)))  # 102 is 0.4
    assert pooled((2, 255), (1, 230))[0] == 1


def test_background_is_a_label_like_others():
    assert pooled((0, 255), (3, 51))[0] == 0
    assert pooled((3, 51), (0, 255))[0] == 0


@pytest.mark.parametrize("confidence", [3, 255])
def test_labelled_voxels_are_as_the_refiner_has_them(confidence):
    assert pooled((1, 255), (2, confidence), labelled=True) == (2, confidence)
    assert pooled((2, 100), (2, confidence), labelled=True) == (2, confidence)


def test_each_voxel_of_a_box_has_its_own_and_the_beliefs_stay_as_they_are():
    grown, refined = belief((1, 255), (0, 10), (2, 90)), belief((2, 0), (0, 200), (1, 80))
    shaped = [Belief(b.label.reshape(1, 3, 1), b.confidence.reshape(1, 3, 1)) for b in (grown, refined)]
    for volume in (*shaped[0], *shaped[1]):
        volume.setflags(write=False)
    labelled = np.array([False, False, True]).reshape(1, 3, 1)
    found = pool(*shaped, labelled)
    assert found.label.shape == found.confidence.shape == (1, 3, 1)
    assert found.label.dtype == found.confidence.dtype == np.uint8
    expected = [pooled((1, 255), (2, 0)), pooled((0, 10), (0, 200)), (1, 80)]
    assert list(zip(found.label.ravel().tolist(), found.confidence.ravel().tolist(), strict=True)) == expected
    found.label[:], found.confidence[:] = 0, 0  # a new belief: nobody else's arrays


voxel = st.tuples(st.integers(0, 3), st.integers(0, 255))


@given(voxel, voxel)
def test_it_is_the_mixture_of_distributions_that_lie_between_all_alike_and_one_label(grown, refined):
    classes = 4

    def distribution(label, certain):
        return (1 - certain) / classes + certain * (np.arange(classes) == label)

    mixed = GROWN * distribution(grown[0], grown[1] / 255) + (1 - GROWN) * distribution(refined[0], (refined[1] / 255) ** 2)
    label, confidence = pooled(grown, refined)
    assert mixed[label] == pytest.approx(mixed.max())
    others = np.delete(mixed, label).max() if grown[0] != refined[0] else np.delete(mixed, label).min()
    assert mixed[label] - others == pytest.approx(confidence / 255, abs=0.5 / 255 + 1e-9)
