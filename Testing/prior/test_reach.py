"""What a correction changes of the prior: its surroundings, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from sparseseg.contract.belief import Belief
from sparseseg.prior import reach
from sparseseg.prior.reach import within_reach

ISOTROPIC = (1.0, 1.0, 1.0)


def line(label: int, confidence: int, n: int = 13) -> Belief:
    """n voxels in a row."""
    return Belief(np.full((1, 1, n), label, np.uint8), np.full((1, 1, n), confidence, np.uint8))


def at(*places: int, n: int = 13) -> np.ndarray:
    mask = np.zeros((1, 1, n), bool)
    mask[0, 0, list(places)] = True
    return mask


def test_equally_sure_priors_meet_at_three_quarters_of_the_distance_to_other_annotation() -> None:
    """Other annotation at 0, the change at 12: 12 - x <= 0.75 x from x = 6.86 on."""
    found = within_reach(line(0, 200), line(1, 200), at(12), at(0, 12), ISOTROPIC)
    assert found.label.ravel().tolist() == [1] + 6 * [0] + 6 * [1]  # labelled voxels are as the new prior has them: here voxel 0
    assert found.confidence[0, 0, 0] == 200


def test_what_was_sure_holds_nearer_and_what_was_unsure_gives_way_farther() -> None:
    sure, unsure = (within_reach(line(0, c), line(1, 200), at(12), at(0, 12), ISOTROPIC).label.ravel()[1:12] for c in (250, 130))
    assert 0 < sure.sum() < 5 < unsure.sum()
    assert sure[-1] == 1 and unsure[0] == 0


def test_the_share_is_that_of_the_formula() -> None:
    """d = 3, D = 9: a = 1 / (1 + (3 / 6.75)^2) = 0.835; logits 1 and 1.5: |0.835 - 0.247| = 0.588 -> 0.643."""
    one, other = round(255 / (1 + np.exp(-1.0))), round(255 / (1 + np.exp(-1.5)))
    found = within_reach(line(0, other), line(1, one), at(12), at(0, 12), ISOTROPIC)
    assert found.label[0, 0, 9] == 1
    assert found.confidence[0, 0, 9] / 255 == pytest.approx(0.643, abs=0.01)


def test_where_both_say_the_same_the_new_confidence_stands() -> None:
    before, after = line(2, 220), line(2, 180)
    after.label[0, 0, 3] = 1
    found = within_reach(before, after, at(12), at(0, 12), ISOTROPIC)
    assert found.label[0, 0, 3] == 2
    assert (np.delete(found.confidence.ravel(), 3) == 180).all()


def test_distances_are_in_millimetres() -> None:
    """The change lies 2 thick slices away from the middle voxel, other annotation 5 thin columns: in voxels nearer, in mm farther."""
    before, after = (Belief(np.full((3, 1, 6), c, np.uint8), np.full((3, 1, 6), 200, np.uint8)) for c in (0, 1))
    changed, others = np.zeros((3, 1, 6), bool), np.zeros((3, 1, 6), bool)
    changed[2, 0, 0], others[0, 0, 5] = True, True
    for spacing, expected in ((ISOTROPIC, 1), ((5.0, 1.0, 1.0), 0)):
        assert within_reach(before, after, changed, changed | others, spacing).label[0, 0, 0] == expected


def test_without_other_annotation_all_is_new_and_without_a_change_nothing() -> None:
    assert (within_reach(line(0, 255), line(1, 128), at(12), at(12), ISOTROPIC).label == 1).all()
    assert (within_reach(line(0, 128), line(1, 254), at(), at(0), ISOTROPIC).label.ravel()[1:] == 0).all()


def test_the_priors_stay_as_they_are() -> None:
    before, after = line(0, 200), line(1, 200)
    for prior in (before, after):
        prior.label.setflags(write=False)
        prior.confidence.setflags(write=False)
    within_reach(before, after, at(12), at(0, 12), ISOTROPIC)


def test_the_coarse_grid_says_about_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    shape = (20, 31, 42)
    before, after = (Belief(rng.integers(0, 2, shape).astype(np.uint8), rng.integers(128, 255, shape).astype(np.uint8)) for _ in range(2))
    changed, others = np.zeros(shape, bool), np.zeros(shape, bool)
    changed[10, 5:25, 30], others[2], others[:, 3] = True, True, True
    fine = within_reach(before, after, changed, changed | others, (2.0, 1.0, 1.0))
    monkeypatch.setattr(reach, "WORKING_VOXELS", 6000)
    coarse = within_reach(before, after, changed, changed | others, (2.0, 1.0, 1.0))
    assert (fine.label == coarse.label).mean() > 0.97
    assert (fine.label != after.label).any() and (fine.label != before.label).any()
