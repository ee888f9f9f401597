"""Several volumes as one image: their common type, how a job holds them, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest

from phantoms import two_contrasts
from sparseseg.contract.channels import MOST_CHANNELS, stack
from sparseseg.contract.errors import InputError, JobError
from sparseseg.contract.job import IMAGE, RECORD, Job, JobRecord
from sparseseg.contract.settings import Settings

PHANTOM = two_contrasts((4, 8, 10))
RECORD_OF = JobRecord(PHANTOM.geometry, PHANTOM.classes, Settings(), channels=("T1", "T2"))


def test_one_volume_is_the_image_itself():
    volume = np.zeros((2, 3, 4), np.float16)
    assert stack([volume]) is volume


@pytest.mark.parametrize(
    ("types", "expected"),
    [(("int16", "int16"), "int16"), (("int16", "uint16"), "int32"), (("uint8", "float32"), "float32"), (("int32", "uint32", "int8"), "float32")],
)
def test_volumes_are_stacked_in_a_type_that_a_job_takes(types, expected):
    volumes = [np.full((2, 3, 4), n, kind) for n, kind in enumerate(types)]
    image = stack(volumes)
    assert image.shape == (len(types), 2, 3, 4) and image.dtype == expected
    assert [channel.flat[0] for channel in image] == list(range(len(types)))


def test_too_many_and_unlike_volumes_are_refused():
    with pytest.raises(InputError, match=r"5 volumes were given as channels of one image\. Give 1 to 4"):
        stack([np.zeros((2, 3, 4))] * (MOST_CHANNELS + 1))
    with pytest.raises(InputError, match="different grids"):
        stack([np.zeros((2, 3, 4)), np.zeros((2, 3, 5))])


def test_a_job_gives_channels_and_their_names_back(tmp_path):
    with Job.create(tmp_path / "job", PHANTOM.image, PHANTOM.annotation, RECORD_OF) as job:
        assert np.array_equal(job.channels(), PHANTOM.image) and np.array_equal(job.image(), PHANTOM.image[0])
    with Job.open(tmp_path / "job") as job:
        assert job.record.channels == ("T1", "T2")


@pytest.mark.parametrize("image", [PHANTOM.image[0], PHANTOM.image[:1]])
def test_one_channel_may_have_an_axis_or_none(tmp_path, image):
    with Job.create(tmp_path / "job", image, None, replace(RECORD_OF, channels=())) as job:
        assert np.array_equal(job.channels(), PHANTOM.image[:1]) and isinstance(job.image(), np.memmap)
    assert "channels" not in json.loads((tmp_path / "job" / RECORD).read_text())


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((5, 4, 8, 10), np.int16), r"The image has 5 channels, not 1 to 4\. Choose fewer volumes"),
        (np.zeros((0, 4, 8, 10), np.int16), "The image has 0 channels, not 1 to 4"),
        (np.zeros((2, 4, 8, 11), np.int16), r"image.npy is \(2, 4, 8, 11\) int16, the job expects \(2, 4, 8, 10\)"),
        (np.zeros((3, 4, 8, 10), np.int16), "The image has 3 channels, the job names 2"),
        (np.zeros((2, 2, 4, 8, 10), np.int16), "the job expects"),
        (np.zeros((2, 4, 8, 10), np.float64), "float64, the job expects"),
    ],
)
def test_other_images_are_refused_in_a_sentence(tmp_path, image, sentence):
    with Job.create(tmp_path / "job", PHANTOM.image, None, RECORD_OF) as job:
        np.save(job.path(IMAGE), image)
        with pytest.raises(JobError, match=sentence):
            job.channels()


@pytest.mark.parametrize("names", ["T1", ["T1", 2], ["a"] * 5])
def test_damaged_names_are_refused(names):
    with pytest.raises(JobError, match=r"job\.json is damaged"):
        JobRecord.from_json({**RECORD_OF.to_json(), "channels": names})
