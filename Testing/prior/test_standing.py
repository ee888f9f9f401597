"""Which labels are in doubt, how far they are trusted, and how precise an annotation is."""

from __future__ import annotations

import numpy as np
import pytest

from sparseseg.prior import compiled, standing
from sparseseg.prior.grid import in_doubt_at
from sparseseg.prior.grown import Grown
from sparseseg.prior.scales import GROWINGS
from sparseseg.prior.standing import in_doubt, precision, trust


@pytest.fixture(params=["numba", "numpy"])
def engine(request, monkeypatch):
    if request.param == "numba" and not compiled.warm_up():
        pytest.skip("needs numba")
    if request.param == "numpy":
        monkeypatch.setattr(compiled, "_kernels", None)
    return request.param


def complete_slice(edge=8):
    """A square of segment 1 in a slice that is labelled throughout, (3, 20, 20)."""
    labels, labelled = np.zeros((3, 20, 20), np.uint8), np.zeros((3, 20, 20), bool)
    labels[1, 6 : 6 + edge, 6 : 6 + edge] = 1
    labelled[1] = True
    return labels, labelled


def test_both_sides_of_a_contour_are_in_doubt(engine):
    labels, labelled = complete_slice()
    doubt = in_doubt(labels, labelled)
    expected = np.zeros(labels.shape, bool)
    expected[1, 5:15, 5:15] = True  # one voxel of background around the square
    expected[1, 7:13, 7:13] = False  # all of it but its own outermost voxels
    np.testing.assert_array_equal(doubt, expected)


def test_an_island_of_one_voxel_is_in_doubt_and_a_click_is_not(engine):
    labels, labelled = complete_slice(1)
    assert in_doubt(labels, labelled)[1, 6, 6]
    labelled[:] = labels > 0
    assert not in_doubt(labels, labelled).any()


def test_what_is_too_thin_to_have_a_core_is_firm(engine):
    labels, labelled = complete_slice(2)
    doubt = in_doubt(labels, labelled)
    assert not doubt[labels == 1].any() and doubt[labels == 0].any()


def test_a_thin_stroke_is_firm_and_a_thick_one_has_a_rim(engine):
    labels, labelled = np.zeros((5, 20, 20), np.uint8), np.zeros((5, 20, 20), bool)
    labelled[2, 3, 2:18] = True
    assert not in_doubt(labels, labelled).any()
    labelled[2, 10:15, 2:18] = True
    doubt = in_doubt(labels, labelled)
    expected = np.zeros(labels.shape, bool)
    expected[2, 10:15, 2:18] = True
    expected[2, 11:14, 3:17] = False
    np.testing.assert_array_equal(doubt, expected)


def test_what_is_trusted_is_never_in_doubt(engine):
    labels, labelled = complete_slice()
    trusted = np.zeros(labels.shape, bool)
    trusted[:, :10] = True
    np.testing.assert_array_equal(in_doubt(labels, labelled, trusted), in_doubt(labels, labelled) & ~trusted)


def test_nothing_labelled_nothing_in_doubt(engine):
    assert not in_doubt(np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 4), bool)).any()


@pytest.mark.parametrize("seed", range(4))
def test_a_part_of_the_volume_is_as_in_the_whole(engine, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (3, 4, 5)).astype(np.uint8).repeat(4, 0).repeat(4, 1).repeat(4, 2)
    labelled = rng.random((6, 8, 10)).repeat(2, 0).repeat(2, 1).repeat(2, 2) < 0.7
    whole = in_doubt(labels, labelled)
    low = rng.integers(0, 8, 3)
    box = tuple(slice(int(a), int(a) + 4) for a in low)
    np.testing.assert_array_equal(in_doubt_at(box, labels, labelled), whole[box])


def test_numpy_and_numba_agree(monkeypatch):
    if not compiled.warm_up():
        pytest.skip("needs numba")
    rng = np.random.default_rng(0)
    for _ in range(5):
        labels = rng.integers(0, 3, (4, 5, 6)).astype(np.uint8).repeat(3, 1).repeat(3, 2)
        labelled = rng.random((4, 5, 6)).repeat(3, 1).repeat(3, 2) < 0.8
        fast = in_doubt(labels, labelled)
        with monkeypatch.context() as patch:
            patch.setattr(compiled, "_kernels", None)
            np.testing.assert_array_equal(fast, standing.in_doubt(labels, labelled))


def test_trust_is_the_share_of_votes():
    votes = np.array([[1, 1, 0, 2], [1, 1, 0, 2], [1, 0, 0, 1]], np.uint8)
    assert trust(votes, np.array([1, 1, 1, 1], np.uint8)).tolist() == [204, 153, 51, 102]


def test_precision_is_the_mean_trust_in_what_is_in_doubt():
    labelled = np.array([[[True, True, True, False]]])
    assert precision(labelled, np.array([[[255, 51, 204, 7]]], np.uint8)) == pytest.approx(0.5)
    assert precision(labelled, np.full((1, 1, 4), 255, np.uint8)) == 1.0


def blob(off=0):
    """A bright ball in noise, and a contour of its middle slice that lies `off` voxels beside it."""
    k, j, i = np.indices((15, 40, 40))
    far = np.sqrt(((k - 7) * 2.0) ** 2 + (j - 20.0) ** 2 + (i - 20.0) ** 2)
    image = (100 * (far < 11) + np.random.default_rng(0).normal(0, 5, far.shape)).astype(np.float32)
    labels, labelled = np.zeros(far.shape, np.uint8), np.zeros(far.shape, bool)
    labels[7], labelled[7] = np.roll(far < 11, off, axis=2)[7], True
    return image, labels, labelled, far < 11


def test_labels_beside_the_edge_are_trusted_less(engine):
    image, labels, labelled, truth = blob(off=1)
    grown = Grown.start(image, labels, labelled, (2.0, 1.0, 1.0))
    wrong = labelled & (labels != truth)
    right = labelled & ~wrong & (grown.confidence < 255)
    assert grown.confidence[wrong].mean() < 128 < grown.confidence[right].mean()
    np.testing.assert_array_equal(grown.label[labelled], labels[labelled])  # what was painted stands


def test_an_exact_annotation_is_more_precise_than_one_beside_the_edge(engine):
    exact, off = (Grown.start(*blob(off)[:3], (2.0, 1.0, 1.0)) for off in (0, 2))
    assert precision(blob()[2], exact.confidence) > precision(blob(2)[2], off.confidence) + 0.1


def test_contours_beside_the_edge_do_not_flood_the_next_slices(engine, monkeypatch):
    image, labels, labelled, truth = blob(off=1)

    def wrong():
        grown = Grown.start(image, labels, labelled, (2.0, 1.0, 1.0))
        return int(((grown.label == 1) != truth)[[4, 5, 6, 8, 9, 10]].sum())

    with_firm = wrong()
    monkeypatch.setattr("sparseseg.prior.scales.GROWINGS", tuple((*g[:2], False) for g in GROWINGS))
    assert with_firm < 0.7 * wrong()


def test_corrections_are_firm(engine):
    image, labels, labelled, _ = blob(off=1)
    origin = np.where(labelled, np.uint8(3), np.uint8(0))
    grown = Grown.start(image, labels, labelled, (2.0, 1.0, 1.0), origin=origin)
    assert (grown.confidence[labelled] == 255).all()
