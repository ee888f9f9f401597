"""What a correction changes of the belief: its surroundings, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from sparseseg.contract.belief import Belief
from sparseseg.contract.box import Box, Part
from sparseseg.prior import reach
from sparseseg.prior.reach import Reach

ISOTROPIC = (1.0, 1.0, 1.0)


def line(label: int, confidence: int, n: int = 13) -> Belief:
    """n voxels in a row."""
    return Belief(np.full((1, 1, n), label, np.uint8), np.full((1, 1, n), confidence, np.uint8))


def at(*places: int, n: int = 13) -> np.ndarray:
    mask = np.zeros((1, 1, n), bool)
    mask[0, 0, list(places)] = True
    return mask


def whole(volume: np.ndarray) -> Box:
    return (slice(0, volume.shape[0]), slice(0, volume.shape[1]), slice(0, volume.shape[2]))


def within(before: Belief, after: Belief, changed: np.ndarray, labelled: np.ndarray, spacing=ISOTROPIC) -> Belief:
    everything = whole(labelled)
    return Reach(labelled, spacing).share([Part(everything, changed)], labelled, everything).within(before, after, everything)


def test_equally_sure_beliefs_meet_at_three_quarters_of_the_distance_to_other_annotation() -> None:
    """Other annotation at 0, the change at 12: 12 - x <= 0.75 x from x = 6.86 on."""
    label, confidence = within(line(0, 200), line(1, 200), at(12), at(0, 12))
    assert label.ravel().tolist() == [1] + 6 * [0] + 6 * [1]  # labelled voxels are as the new belief has them: here voxel 0
    assert confidence[0, 0, 0] == 200


def test_what_was_sure_holds_nearer_and_what_was_unsure_gives_way_farther() -> None:
    sure, unsure = (within(line(0, c), line(1, 200), at(12), at(0, 12))[0].ravel()[1:12] for c in (250, 130))
    assert 0 < sure.sum() < 5 < unsure.sum()
    assert sure[-1] == 1 and unsure[0] == 0


def test_the_share_is_that_of_the_formula() -> None:
    """d = 3, D = 9: a = 1 / (1 + (3 / 6.75)^2) = 0.835; logits 1 and 1.5: |0.835 - 0.247| = 0.588 -> 0.643."""
    one, other = round(255 / (1 + np.exp(-1.0))), round(255 / (1 + np.exp(-1.5)))
    label, confidence = within(line(0, other), line(1, one), at(12), at(0, 12))
    assert label[0, 0, 9] == 1
    assert confidence[0, 0, 9] / 255 == pytest.approx(0.643, abs=0.01)


def test_where_both_say_the_same_the_new_confidence_stands() -> None:
    before, after = line(2, 220), line(2, 180)
    after[0][0, 0, 3] = 1
    label, confidence = within(before, after, at(12), at(0, 12))
    assert label[0, 0, 3] == 2
    assert (np.delete(confidence.ravel(), 3) == 180).all()


def test_distances_are_in_millimetres() -> None:
    """The change lies 2 thick slices away from the middle voxel, other annotation 5 thin columns: in voxels nearer, in mm farther."""
    before, after = (Belief(np.full((3, 1, 6), c, np.uint8), np.full((3, 1, 6), 200, np.uint8)) for c in (0, 1))
    changed, others = np.zeros((3, 1, 6), bool), np.zeros((3, 1, 6), bool)
    changed[2, 0, 0], others[0, 0, 5] = True, True
    for spacing, expected in ((ISOTROPIC, 1), ((5.0, 1.0, 1.0), 0)):
        assert within(before, after, changed, changed | others, spacing)[0][0, 0, 0] == expected


def test_without_other_annotation_all_is_new_and_without_a_change_nothing() -> None:
    assert (within(line(0, 255), line(1, 128), at(12), at(12))[0] == 1).all()
    assert (within(line(0, 128), line(1, 254), at(), at(0))[0].ravel()[1:] == 0).all()


def test_an_erased_label_is_a_change_and_no_annotation() -> None:
    """Erased at 12: nothing is labelled but 0, so all is as with a stroke there."""
    painted, erased = within(line(0, 200), line(1, 200), at(12), at(0, 12)), within(line(0, 200), line(1, 200), at(12), at(0))
    np.testing.assert_array_equal(painted[0], erased[0])


def test_the_beliefs_stay_as_they_are() -> None:
    before, after = line(0, 200), line(1, 200)
    for volume in (*before, *after):
        volume.setflags(write=False)
    within(before, after, at(12), at(0, 12))


def scene(shape=(20, 31, 42)) -> tuple[Belief, Belief, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    before, after = (Belief(rng.integers(0, 2, shape).astype(np.uint8), rng.integers(128, 255, shape).astype(np.uint8)) for _ in range(2))
    changed, others = np.zeros(shape, bool), np.zeros(shape, bool)
    changed[10, 5:25, 30], others[2], others[:, 3] = True, True, True
    return before, after, changed, changed | others


@pytest.mark.parametrize("most", [1_500_000, 6000])
def test_a_box_says_what_the_whole_says(most, monkeypatch) -> None:
    monkeypatch.setattr(reach, "WORKING_VOXELS", most)
    before, after, changed, labelled = scene()
    earlier = labelled & ~changed
    small = Reach(earlier, (2.0, 1.0, 1.0))
    stroke = (slice(10, 11), slice(5, 25), slice(30, 31))
    small.annotate(labelled, stroke)
    box = (slice(6, 17), slice(3, 28), slice(20, 39))
    expected = within(before, after, changed, labelled, (2.0, 1.0, 1.0))
    found = small.share([Part(stroke, changed[stroke])], labelled, box).within(before, Belief(after.label[box], after.confidence[box]), box)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one[box], other)


@pytest.mark.parametrize("most", [1_500_000, 6000])
def test_several_changes_say_what_one_that_holds_them_says(most, monkeypatch) -> None:
    monkeypatch.setattr(reach, "WORKING_VOXELS", most)
    before, after, changed, labelled = scene()
    changed[17, 8, 2:5] = labelled[17, 8, 2:5] = True
    parts = [Part(box, changed[box]) for box in ((slice(10, 11), slice(5, 15), slice(30, 31)), (slice(10, 18), slice(8, 25), slice(2, 31)))]
    box, near = (slice(6, 17), slice(3, 28), slice(20, 39)), Reach(labelled, (2.0, 1.0, 1.0))
    expected = within(before, after, changed, labelled, (2.0, 1.0, 1.0))
    found = near.share(parts, labelled, box).within(before, Belief(after.label[box], after.confidence[box]), box)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one[box], other)


def test_the_coarse_grid_says_about_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after, changed, labelled = scene()
    fine = within(before, after, changed, labelled, (2.0, 1.0, 1.0))[0]
    monkeypatch.setattr(reach, "WORKING_VOXELS", 6000)
    coarse = within(before, after, changed, labelled, (2.0, 1.0, 1.0))[0]
    assert (fine == coarse).mean() > 0.97
    assert (fine != after[0]).any() and (fine != before[0]).any()


def test_annotation_is_kept_from_revision_to_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "WORKING_VOXELS", 6000)
    labelled = scene()[3]
    kept = Reach(np.zeros_like(labelled), ISOTROPIC)
    kept.annotate(labelled, whole(labelled))
    labelled[2, 5:9] = False
    kept.annotate(labelled, (slice(2, 3), slice(5, 9), slice(0, 42)))
    np.testing.assert_array_equal(kept._labels, Reach(labelled, ISOTROPIC)._labels)
