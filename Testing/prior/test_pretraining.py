"""What the refiner learns from: a lesson is what the engine shows the network, and its result what the engine would decide."""

import sys
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "pretraining"))

import train
from synthesize import Sample

from phantoms import two_organs
from sparseseg.network import device
from sparseseg.prior.grown import compute_prior
from sparseseg.prior.refiner import Refined
from sparseseg.prior.refiner_network import load_refiner


@pytest.fixture(scope="module")
def sample():
    phantom = two_organs((20, 36, 32))
    labelled = phantom.annotation > 0
    labels = np.where(labelled, phantom.truth, 0).astype(np.uint8)
    spacing = phantom.geometry.spacing_kji_mm
    return Sample(phantom.image.astype(np.float16), phantom.truth, labels, labelled, compute_prior(phantom.image, labels, labelled, spacing), spacing)


@pytest.mark.parametrize("most", [10**6, 4000])
def test_a_lessons_result_is_what_the_engine_decides(sample, most, monkeypatch):
    """One segment beats background exactly where the lesson's logit is positive; but for the engine's caution, which is not learned."""
    monkeypatch.setattr("sparseseg.prior.refiner_network.cautious", lambda added, *_: added)
    monkeypatch.setattr("sparseseg.prior.refiner_view.WORKING_VOXELS", most)
    monkeypatch.setattr("sparseseg.prior.refiner_view._HELD_BY_GRID", 0)  # a grid this coarse would be left alone
    network = load_refiner(torch.device("cpu"))
    grown = sample.prior
    refined = Refined.start(grown.label, grown.confidence, sample.image, sample.labels, sample.labelled, sample.spacing_kji, use=[True, True])
    lesson, view = train.lesson_of(sample, 1, most), refined.views[1]
    assert lesson.factors == view.factors
    with torch.no_grad():
        logit = lesson.logit + train.on_own_grid(network(lesson.features[None], lesson.pools)[0], lesson)
    other = (refined.label[view.box] == 2) | sample.labelled[view.box]
    clear = (logit.abs() > 0.01).numpy() & ~other
    assert (view.factors == (1, 1, 1)) == (most == 10**6)
    assert ((logit > 0).numpy() == (refined.label[view.box] == 1))[clear].all()
    assert clear.mean() > 0.5


def test_a_segment_that_nobody_has_is_no_lesson(sample):
    assert train.lesson_of(sample, 9, 10**6) is None


@pytest.mark.slow
def test_a_step_of_learning(sample):
    rng, network = np.random.default_rng(0), train.Refiner()
    for _ in range(3):
        lesson = train.draw(rng, deque([sample]))
        loss, before, after = train.learn(network, rng, lesson, device.on_cpu("a test"))
        loss.backward()
        assert 0 < float(loss.detach()) < 3
        assert 0 <= before <= 1 and 0 <= after <= 1
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
