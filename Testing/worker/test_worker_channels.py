"""An image of several channels through a real worker: trained, corrected, and refused where it is none."""

from dataclasses import replace

import numpy as np
import pytest

from phantoms import make_job, two_contrasts
from sparseseg.contract.protocol import Error, Open, Preview, Result, Train, Update
from sparseseg.contract.settings import Settings

QUICK = replace(Settings(), steps=2, width=4, depth=2, patch_voxels=32**2, estimate=False)


@pytest.mark.slow
def test_two_channels_are_segmented_and_corrected(talk, tmp_path):
    phantom = two_contrasts()
    job = make_job(tmp_path / "job", phantom, QUICK)
    talk.open(job)
    talk.client.send(Train("t"))
    dense = np.load(talk.until(Result, id="t", patience_s=300).file)
    free = phantom.annotation == 0
    assert (dense[free] == phantom.truth[free]).mean() > 0.9
    np.save(job / "annotation-0002.npy", phantom.truth[[2]] + 1)
    talk.client.send(Update("u", "annotation-0002.npy", 2, [], [[2, 3], [0, 32], [0, 32]]))
    assert talk.until(Preview, id="u", patience_s=300).box


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "sentence"), [(5, "The image has 5 channels, not 1 to 4."), (2, "channel 2 holds voxels that are not")])
def test_other_images_are_refused_in_a_sentence(talk, tmp_path, channels, sentence):
    phantom = two_contrasts()
    image = np.repeat(phantom.image[:1], channels, 0).astype(np.float32)
    image[-1, 3, 4, 5] = np.nan
    job = make_job(tmp_path / "job", replace(phantom, image=image), QUICK)
    talk.client.send(Open("open", str(job), "cpu"))
    assert sentence in talk.until(Error, id="open").sentence
