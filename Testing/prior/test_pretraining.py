"""What the refiner learns from: a lesson is what the engine shows the network, and its result what the engine would decide."""

import json
import sys
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "pretraining"))

import train
from patients import Library
from synthesize import Sample, synthesize

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
    """One segment beats background exactly where the lesson's logit is positive; but for the engine's caution, which is not learned, and at the
    first look."""
    monkeypatch.setattr("sparseseg.prior.refiner_network.LOOKS", 1)
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


def test_lessons_survive_the_way_between_processes(sample):
    lesson = train.lesson_of(sample, 1, 10**6)
    back = train.unpacked(train.packed(lesson), torch.device("cpu"))
    assert back.factors == lesson.factors and back.pools == lesson.pools
    assert torch.equal(back.truth, lesson.truth) and torch.equal(back.counts, lesson.counts)
    torch.testing.assert_close(back.features, lesson.features, rtol=2e-3, atol=2e-3)


def test_labels_in_doubt_count_and_firm_ones_do_not(sample):
    lesson = train.lesson_of(sample, 1, 10**6)
    doubted = sample.labelled & (sample.prior.confidence < 255)
    assert doubted.any() and int(lesson.counts.sum()) <= int((~sample.labelled | doubted).sum())
    assert int(lesson.counts.sum()) > int((~sample.labelled).sum()) * lesson.counts.numel() / sample.truth.size * 0.5


def test_weights_of_a_network_with_fewer_channels_say_the_same(tmp_path):
    network = train.Refiner()
    torch.nn.init.normal_(network.head.weight)
    old = {name: w[:, :-1] if name == "encoder.0.0.weight" else w for name, w in network.state_dict().items()}
    torch.save(old, tmp_path / "old.pt")
    fewer, more = train.Refiner(channels=train.Refiner().encoder[0][0].weight.shape[1] - 1), train.Refiner()
    fewer.load_state_dict(old)
    more.load_state_dict(train.load(tmp_path / "old.pt"))
    fewer, more = fewer.double(), more.double()  # sums come in another order
    x = torch.randn(1, fewer.encoder[0][0].weight.shape[1] + 1, 8, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(more(x, [(1, 2, 2)]), fewer(x[:, :-1], [(1, 2, 2)]))


@pytest.mark.slow
def test_synthetic_hands_are_exact_at_times_and_wrong_at_others():
    rng, wrong = np.random.default_rng(0), []
    while len(wrong) < 16:
        made = synthesize(rng)
        wrong.append(float((made.labels != made.truth)[made.labelled].mean()))
        assert made.prior.label.shape == made.truth.shape == made.image.shape
    assert 3 <= sum(w == 0 for w in wrong) <= 14 and max(wrong) < 0.3


def test_patients_are_annotated_and_only_organs_of_a_likely_size_believed(tmp_path):
    for name in ("head-neck-ct", "brain-labels"):
        (tmp_path / name).mkdir()
    k, j, i = np.indices((24, 40, 40))
    labels = np.zeros(k.shape, np.uint8)
    labels[(j - 14) ** 2 + (i - 14) ** 2 < 60], labels[(j - 28) ** 2 + (i - 26) ** 2 < 50] = 1, 2
    image = (1000 * labels.astype(np.int16) - 500).astype(np.int16)
    about = []
    for n, large in enumerate((1.0, 1.0, 5.0)):
        np.savez(tmp_path / "head-neck-ct" / f"{n}.npz", image=image, labels=labels, spacing_kji_mm=np.array([3.0, 2.0, 2.0]))
        about.append({"file": f"head-neck-ct/{n}.npz", "volumes_ml": {"Brainstem": 10.0 * large, "SpinalCord": 20.0}})
    (tmp_path / "head-neck-ct.json").write_text(json.dumps(about), encoding="utf-8")
    np.savez(tmp_path / "brain-labels" / "01.npz", labels=np.where(labels, labels + np.uint16(500), 0))
    library = Library.of(tmp_path)
    assert [believed for _, believed in library.heads] == [[1, 2], [1, 2], [2]]
    rng, kinds = np.random.default_rng(0), set()
    for _ in range(8):
        made = library.sample(rng)
        kinds.add(made.spacing_kji[0])
        assert made.truth.any() and (made.labelled & (made.labels > 0)).any() and (made.labelled & (made.labels == 0)).any()
    assert kinds == {1.0, 3.0}


def test_a_maker_that_died_ends_the_training(monkeypatch):
    class Dead:
        def is_alive(self):
            return False

    class Nothing:
        def get(self, timeout):
            raise train.Empty

    with pytest.raises(SystemExit, match="has died"):
        train.taken(Dead(), Nothing())
