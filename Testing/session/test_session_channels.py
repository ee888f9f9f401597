"""A session on an image of several channels: what one channel hides, all of them show; one channel is as ever."""

from dataclasses import replace

import numpy as np
import pytest
from sessions import send

from phantoms import two_contrasts, two_organs
from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import InputError, ModelError
from sparseseg.contract.settings import Settings

QUICK = replace(Settings(), steps=2, width=4, depth=2, patch_voxels=32**2, estimate=False)


def dice(labels, phantom):
    """Of each segment, where nobody labelled."""
    free = phantom.annotation == 0
    found, truth = labels[free], phantom.truth[free]
    return [2 * ((found == c) & (truth == c)).sum() / ((found == c).sum() + (truth == c).sum()) for c in (1, 2)]


@pytest.fixture(scope="module")
def contrasts():
    return two_contrasts()


def trained(session_on, phantom, settings=QUICK):
    session = session_on(phantom, settings)
    return session, np.load(session.train().dense)


def test_two_channels_tell_apart_what_neither_shows(session_on, contrasts):
    session, labels = trained(session_on, contrasts)
    assert min(dice(labels, contrasts)) > 0.9
    assert session.network.describe()["network"]["in_channels"] == 16
    assert session.checker.places == []


@pytest.mark.parametrize("channel", [0, 1])
def test_one_channel_does_not(session_on, contrasts, channel):
    _, labels = trained(session_on, replace(contrasts, image=contrasts.image[channel]))
    assert max(dice(labels, contrasts)) < 0.6


def test_a_single_channel_with_an_axis_of_its_own_is_the_same_to_the_bit(session_on):
    phantom = two_organs((12, 24, 20))
    results = [trained(session_on, replace(phantom, image=image))[1] for image in (phantom.image, phantom.image[None])]
    assert np.array_equal(*results)


@pytest.fixture
def grown_late(session_on, contrasts):
    """A session that answered an annotation of one segment and background by the first channel alone, as only that tells the two apart; the third
    class, told apart by the second, comes later."""
    rng, truth = np.random.default_rng(0), contrasts.truth
    image = np.stack([np.array(middles)[truth] + rng.normal(0, 8, truth.shape) for middles in ((100, 160, 100), (100, 100, 160))]).astype(np.int16)
    annotation = np.where(contrasts.annotation == 3, 0, contrasts.annotation)
    phantom = replace(contrasts, image=image, annotation=annotation)
    return session_on(phantom, QUICK)


def test_growing_begins_anew_where_new_labels_ask_for_other_gray_values(grown_late, contrasts, host):
    session = grown_late
    session.train()
    first = session.prior._gray.weights
    assert abs(first[0]) > 5 * abs(first[1])
    send(session, 2, contrasts.annotation)
    assert abs(session.prior._gray.weights[1]) > abs(first[0]) / 3
    assert min(dice(host.previews[-1][2], contrasts)) > 0.8
    kept, renewals = session.prior._gray, session.prior.grown.renewals
    annotation = contrasts.annotation.copy()
    annotation[2, 3:6, 4:7] = contrasts.truth[2, 3:6, 4:7] + 1
    send(session, 3, annotation)
    assert session.prior._gray is kept and session.prior.grown.renewals == renewals, "a stroke that says nothing new is answered in its box"
    assert host.boxes[-1] is not None


def test_a_stroke_whose_gray_values_are_cancelled_is_grown_with_the_next(session_on, contrasts, monkeypatch):
    session, _ = trained(session_on, contrasts)
    renewals = session.prior.grown.renewals

    def cancelled(*_):
        raise InterruptedError

    annotation = contrasts.annotation.copy()
    annotation[2, 3:6, 4:7] = contrasts.truth[2, 3:6, 4:7] + 1
    with monkeypatch.context() as patch:
        patch.setattr(type(session.prior._gray), "is_outdated", cancelled)
        send(session, 2, annotation)
    annotation[3, 3:6, 4:7] = contrasts.truth[3, 3:6, 4:7] + 1
    send(session, 3, annotation)
    assert session.prior.grown.renewals > renewals


def test_a_run_is_taken_up_again_and_a_model_of_other_channels_is_refused(session_on, contrasts, tmp_path):
    session, _ = trained(session_on, contrasts)
    model = tmp_path / "model.pt"
    model.write_bytes(session.job.path("model.pt").read_bytes())
    session.train({"steps": 1}, resume=True)
    assert np.load(session.predict(str(model)).dense).shape == contrasts.truth.shape
    single = session_on(replace(contrasts, image=contrasts.image[0]), QUICK)
    sentence = r"The model was trained on 2 channels, the image has 1 channel\. Give the same volumes"
    with pytest.raises(ModelError, match=sentence):
        single.predict(str(model))
    with pytest.raises(ModelError, match=sentence):
        single.train(start_from=str(model))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [((9, 4, 5), np.nan, "holds voxels that are not a number or infinite"), (slice(None), 5, r"is constant \(5 everywhere\)")],
)
def test_a_channel_that_cannot_be_learned_from_is_refused_by_its_place(session_on, contrasts, place, value, words):
    image = contrasts.image.astype(np.float32)
    image[1][place] = value
    with pytest.raises(InputError, match=f"The image's channel 2 {words}"):
        session_on(replace(contrasts, image=image), QUICK)


def test_six_segments_of_four_channels(session_on, contrasts):
    """More classes than a direction can tell apart: what is left to shape and to the network is no worse than by any channel."""
    rng, truth = np.random.default_rng(3), contrasts.truth
    parts = np.where(truth > 0, truth + 2 * (np.arange(truth.shape[2]) // 11).astype(np.uint8), 0).astype(np.uint8)
    middles = rng.permutation(np.linspace(0, 200, 28)).reshape(4, 7)
    image = (middles[:, parts] + rng.normal(0, 10, (4, *parts.shape))).astype(np.int16)
    annotation = np.where(contrasts.annotation > 0, parts + 1, 0).astype(np.uint8)
    phantom = replace(contrasts, image=image, truth=parts, annotation=annotation, classes=ClassTable.numbered(6))
    session = session_on(phantom, QUICK)
    session._grow()
    together = np.mean(session.prior.grown.label == parts)
    for channel in image:
        alone = session_on(replace(phantom, image=channel), QUICK)
        alone._grow()
        assert together > np.mean(alone.prior.grown.label == parts)
