"""The refiner: what it is told, that it starts from the prior, and that labels stand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phantoms import Phantom, two_organs
from sparseseg.contract.belief import Belief
from sparseseg.prior import refiner as module
from sparseseg.prior.growing import compute_prior
from sparseseg.prior.refiner import Refiner, load_refiner, look, plan_pools, prior_logit, refine
from sparseseg.quality.estimate import dice
from sparseseg.session.judge import choose_use

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return two_organs()


@pytest.fixture(scope="module")
def labels(phantom: Phantom) -> tuple[np.ndarray, np.ndarray]:
    labelled = phantom.annotation > 0
    return np.where(labelled, phantom.annotation - 1, 0).astype(np.uint8), labelled


@pytest.fixture(scope="module")
def prior(phantom: Phantom, labels: tuple[np.ndarray, np.ndarray]) -> Belief:
    return compute_prior(phantom.image, *labels, phantom.geometry.spacing_kji_mm)


def test_thick_slices_are_pooled_once_the_other_axes_have_caught_up():
    assert plan_pools((5, 1, 1), (16, 64, 64)) == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert plan_pools((1, 1, 1), (64, 64, 6)) == [(2, 2, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1)]
    assert plan_pools((1, 1, 1), (4, 4, 4)) == []


def test_a_network_without_training_gives_the_prior(phantom, labels, prior):
    refined = refine(prior, phantom.image, *labels, phantom.geometry.spacing_kji_mm, network=Refiner().eval())
    np.testing.assert_array_equal(refined.label, prior.label)


def test_on_a_coarser_grid_too(phantom, labels, prior, monkeypatch):
    monkeypatch.setattr(module, "WORKING_VOXELS", 3000)
    refined = refine(prior, phantom.image, *labels, phantom.geometry.spacing_kji_mm, network=Refiner().eval())
    np.testing.assert_array_equal(refined.label, prior.label)


def test_the_prior_s_logit_is_positive_where_its_label_is():
    prior = Belief(np.array([[[0, 1, 2]]], np.uint8), np.array([[[255, 0, 128]]], np.uint8))
    np.testing.assert_allclose(prior_logit(prior, (slice(None),) * 3, 1).numpy(), [[[-1.5, 0.2, -0.8525]]], atol=1e-3)


def test_what_speaks_against_counts_less_far_between_complete_slices():
    features = torch.zeros(module.CHANNELS, 1, 1, 3)
    features[module.FAR, 0, 0] = torch.tensor([0.5, 0.5, 0.1])
    features[module.BETWEEN, 0, 0] = torch.tensor([0.0, 1.0, -1.0])
    added = torch.tensor([[[[-4.0, -4.0, -4.0]]]])
    np.testing.assert_allclose(module._cautious(added, features).flatten().numpy(), [-3, -1, -3], atol=1e-6)
    np.testing.assert_allclose(module._cautious(-added, features).flatten().numpy(), [4, 4, 4])


def test_labels_stand_and_are_certain(phantom, labels, prior):
    lying = labels[0].copy()
    lying[12, 20, 18] = 2 - lying[12, 20, 18]
    refined = refine(prior, phantom.image, lying, labels[1], phantom.geometry.spacing_kji_mm)
    np.testing.assert_array_equal(refined.label[labels[1]], lying[labels[1]])
    assert (refined.confidence[labels[1]] == 255).all()
    assert (refined.confidence[~labels[1]] < 255).all()


def test_uncorrected_segments_are_the_prior_s(phantom, labels, prior):
    refined = refine(prior, phantom.image, *labels, phantom.geometry.spacing_kji_mm, use=[False, False])
    np.testing.assert_array_equal(refined.label, prior.label)


def test_the_weights_do_not_harm_an_easy_case(phantom, labels, prior):
    refined = refine(prior, phantom.image, *labels, phantom.geometry.spacing_kji_mm)
    unseen = ~labels[1]
    for c in (1, 2):
        assert dice(refined.label[unseen], phantom.truth[unseen], c) > dice(prior.label[unseen], phantom.truth[unseen], c) - 0.01


def test_features_know_the_segment_by_its_gray_value(phantom, labels, prior):
    view = look(prior, phantom.image, *labels, phantom.geometry.spacing_kji_mm, 1)
    assert view is not None and view.features.shape == (module.CHANNELS, *view.logit.shape)
    assert torch.isfinite(view.features).all()
    inside = torch.from_numpy(phantom.truth[view.box] == 1)
    speaks = view.features[1]
    assert speaks[inside].mean() > 0.5 > -0.5 > speaks[~inside].mean()


def test_not_a_number_in_the_image_stays_out_of_the_result(phantom, labels, prior):
    broken = phantom.image.astype(np.float32)
    broken[5, 5, 5] = np.nan
    view = look(prior, broken, *labels, phantom.geometry.spacing_kji_mm, 1)
    assert view is not None and torch.isfinite(view.features).all()


def test_without_any_segment_there_is_nothing_to_correct():
    nothing, image = np.zeros((4, 5, 6), np.uint8), np.zeros((4, 5, 6), np.float32)
    prior = Belief(nothing, np.full(nothing.shape, 100, np.uint8))
    refined = refine(prior, image, nothing, nothing > 0, (1, 1, 1))
    assert not refined.label.any() and (refined.confidence == 100).all()


def test_a_tick_ends_the_work(phantom, labels, prior):
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine(prior, phantom.image, *labels, phantom.geometry.spacing_kji_mm, tick=stop)


@pytest.mark.parametrize("coarse", [False, True])
def test_on_a_coarser_grid_a_correction_must_prove_itself(phantom, labels, coarse, monkeypatch):
    monkeypatch.setattr(module, "_HELD_BY_GRID", 0)
    if coarse:
        monkeypatch.setattr(module, "WORKING_VOXELS", 3000)
    held = np.zeros_like(labels[1])
    held[12] = True
    right = Belief(phantom.truth, np.full(phantom.truth.shape, 200, np.uint8))
    wrong = Belief(np.where(phantom.truth == 1, 0, phantom.truth).astype(np.uint8), right.confidence)
    spacing = phantom.geometry.spacing_kji_mm
    assert choose_use(right, wrong, *labels, held, spacing) == [not coarse, True]
    assert choose_use(wrong, right, *labels, held, spacing) == [True, True]


@pytest.mark.parametrize("thick", [2, 20])
def test_what_a_coarser_grid_cannot_show_is_left_as_it_was(thick, monkeypatch):
    monkeypatch.setattr(module, "WORKING_VOXELS", 10_000)
    monkeypatch.setattr(module, "correction", lambda network, view, device, dtype: torch.full([s.stop - s.start for s in view.box], -9.0))
    k, j, _ = np.indices((32, 32, 32))
    label = (np.abs(k + j - 32) < thick).astype(np.uint8)  # an oblique layer
    prior = Belief(label, np.full(label.shape, 200, np.uint8))
    labelled = np.zeros(label.shape, bool)
    labelled[16] = True
    labels, image, spacing = np.where(labelled, label, 0).astype(np.uint8), label.astype(np.float32), (1.0, 1.0, 1.0)
    kept = dice(refine(prior, image, labels, labelled, spacing).label[~labelled], label[~labelled], 1)
    assert kept == (1 if thick == 2 else 0)
    assert choose_use(prior, prior, labels, labelled, np.zeros_like(labelled), spacing) == [thick == 20]


def test_the_weights_are_small_and_those_of_the_network():
    assert module.WEIGHTS.stat().st_size < 10_000_000
    assert sum(p.numel() for p in load_refiner(CPU).parameters()) == sum(p.numel() for p in Refiner().parameters())
