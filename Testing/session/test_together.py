"""The voices together: the network has its share where it says something, paint stands, and segments that nobody painted stay empty."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sparseseg.annotation.labels import build_annotation
from sparseseg.contract.belief import Belief
from sparseseg.contract.box import whole
from sparseseg.contract.classes import ClassTable
from sparseseg.network.predict import Probabilities
from sparseseg.network.sampling import WorkingGrid
from sparseseg.session import together
from sparseseg.session.judge import Judge
from sparseseg.session.together import Together

SHAPE = (3, 2, 2)
THREE = ClassTable.numbered(3)
PAINTED = np.zeros(SHAPE, np.uint8)
PAINTED[0] = [[1, 2], [0, 3]]  # background, segments 1 and 2; nothing of segment 3


def of_network(voxels, box=None):
    """What a network says that is sure of these labels, but for 1 / 5 that it gives to background (or segment 1); a voxel each of the box."""
    box = box or whole(SHAPE)
    classes = np.zeros((4, *voxels.shape), np.uint8)
    for c in range(4):
        classes[c][voxels == c] = 204
        classes[c][(voxels == 0) if c == 1 else (voxels > 0) & (c == 0)] = 51
    return Probabilities(torch.from_numpy(classes), WorkingGrid(SHAPE, box, voxels.shape))


@pytest.fixture
def scene():
    """Voices to be changed. Prior: segment 1 with a confidence of 0.2 everywhere; network: 2; share: a half."""
    annotation = build_annotation(PAINTED, THREE)
    stands = Belief(np.where(annotation.labelled, annotation.labels, 1).astype(np.uint8), np.where(annotation.labelled, 255, 51).astype(np.uint8))
    said = of_network(np.full(SHAPE, 2, np.uint8))
    judge = Judge(THREE.ids)
    judge.share = 0.5
    prior = SimpleNamespace(stands=stands, painted_in=lambda annotation, box: annotation.labelled[box])
    network = SimpleNamespace(known_belief=said, belief=lambda: network.known_belief)
    voices = SimpleNamespace(judge=judge, annotation=annotation, prior=prior, network=network)
    voices.together = Together(judge, None, lambda: voices.annotation, lambda: voices.prior, lambda: voices.network)
    return voices


def labels(scene):
    return scene.together.labels(lambda: None)


def test_a_sure_network_wins_against_an_unsure_prior_and_paint_stands(scene):
    """Of the unlabelled voxels: 0.5 x (0.2 + 0.8 / 4) for segment 1 against 0.5 x (0.8 / 4) + 0.5 x 0.8 for segment 2."""
    assert scene.together.network_counts
    assert labels(scene)[0].tolist() == [[0, 1], [2, 2]]
    assert (labels(scene)[1:] == 2).all()


@pytest.mark.parametrize("silent", ["no share", "no network", "never asked"])
def test_a_network_without_a_say_is_not_heard(scene, silent):
    if silent == "no share":
        scene.judge.share = 0.0
    elif silent == "no network":
        scene.network = None
    else:
        scene.network.known_belief = None
    assert not scene.together.network_counts
    np.testing.assert_array_equal(labels(scene), scene.prior.stands.label)
    dense, uncertainty = scene.together.result(lambda: None)
    np.testing.assert_array_equal(dense, scene.prior.stands.label)
    np.testing.assert_array_equal(uncertainty, 255 - scene.prior.stands.confidence)


def test_the_result_is_uncertain_by_how_near_the_second_comes_and_certain_where_somebody_painted(scene):
    ticks = []
    dense, uncertainty = scene.together.result(lambda: ticks.append(1))
    np.testing.assert_array_equal(dense, labels(scene))
    painted = PAINTED > 0
    assert not uncertainty[painted].any()
    np.testing.assert_allclose(uncertainty[~painted], 255 * (1 - (0.5 - 0.2)), atol=1)  # 2: 0.1 + 0.4; 1: 0.1 + 0.1; background: 0.1 + 0.1
    assert len(ticks) == SHAPE[0]


def test_outside_of_its_region_the_prior_has_it_all(scene):
    scene.network.known_belief = of_network(np.full((1, 2, 2), 2, np.uint8), (slice(1, 2), slice(0, 2), slice(0, 2)))
    assert (labels(scene)[1] == 2).all() and (labels(scene)[2] == 1).all()


def test_a_segment_that_nobody_painted_is_not_heard(scene):
    scene.network.known_belief = of_network(np.full(SHAPE, 3, np.uint8))
    assert (labels(scene)[1:] == 1).all()
    scene.annotation = build_annotation(np.where(np.indices(SHAPE)[0] == 1, 4, PAINTED).astype(np.uint8), THREE)
    assert (labels(scene)[2] == 3).all()  # so that the test can fail


def test_a_box_says_what_the_whole_says(scene):
    box = (slice(0, 2), slice(1, 2), slice(0, 2))
    np.testing.assert_array_equal(scene.together.labels_in(box), labels(scene)[box])


def test_the_voices_stay_as_they_are(scene):
    said, before = scene.network.known_belief.classes.clone(), [part.copy() for part in scene.prior.stands]
    labels(scene)
    scene.together.result(lambda: None)
    np.testing.assert_array_equal(scene.network.known_belief.classes, said)
    for part, earlier in zip(scene.prior.stands, before, strict=True):
        np.testing.assert_array_equal(part, earlier)


def test_paint_that_smoothing_may_overrule_does_not_stand(scene):
    scene.prior.painted_in = lambda annotation, box: annotation.labelled[box] & (annotation.labels[box] != 2)
    scene.network.known_belief = of_network(np.full(SHAPE, 1, np.uint8))
    scene.prior.stands.label[0, 1, 1], scene.prior.stands.confidence[0, 1, 1] = 1, 100
    assert labels(scene)[0].tolist() == [[0, 1], [1, 1]]
    dense, uncertainty = scene.together.result(lambda: None)
    assert dense[0, 1, 1] == 1 and uncertainty[0, 1, 1] > 0


def test_the_standing_is_of_what_nobody_labelled_in_the_networks_region(scene):
    """In slices 0 and 1: one voxel of slice 0 is unlabelled, where it says 2; in slice 1 it agrees three times of four. It is 0.8 sure."""
    voxels = np.array([[[2, 2], [2, 2]], [[1, 1], [1, 2]]], np.uint8)
    scene.network.known_belief = of_network(voxels, (slice(0, 2), slice(0, 2), slice(0, 2)))
    standing = scene.together.standing(lambda: None)
    assert (standing.agreement, standing.confidence) == (3 / 5, pytest.approx(0.8))
    assert standing.temperature > 1


def test_of_a_large_volume_every_nth_slice_is_held_against_the_prior(scene, monkeypatch):
    """Of slices 0 and 2 here: one unlabelled voxel of slice 0 and all of slice 2, of which it has three like the prior."""
    monkeypatch.setattr(together, "_MOST_COMPARED", PAINTED.size // 2)
    voxels = np.array([[[2, 2], [1, 2]], [[2, 2], [2, 2]], [[1, 1], [1, 2]]], np.uint8)
    scene.network.known_belief = of_network(voxels)
    assert scene.together.standing(lambda: None).agreement == 4 / 5


def test_without_hints_labels_are_where_they_are(scene):
    given = np.ones(SHAPE, np.uint8)
    assert scene.together.placed(given) is given


def test_a_result_counts_its_evidence_on_the_way(scene):
    scene.prior.alone_in = lambda box: (scene.prior.stands.label[box], np.full_like(scene.prior.stands.label[box], 2))
    evidence = scene.together.no_evidence()
    scene.together.result(lambda: None, evidence)
    alone = scene.together.evidence(lambda: None)
    for value in (1, 2, 3):
        assert evidence.believed(value) == alone.believed(value)
        assert evidence.agreement(value) == alone.agreement(value)
    assert evidence.believed(2) > 0


def test_holding_the_network_against_the_prior_can_be_ended(scene):
    def end():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.together.standing(end)
