"""Another volume on the image's grid: resampled by hand, with what is said of it, and whose it may be."""

import numpy as np
import pytest

import dicoms
from sparseseg.contract.errors import InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.io import Image, read_channel, read_volume, write_volume

SHAPE = (6, 8, 10)
GRID = Geometry.from_axes(SHAPE, (1.0, 1.0, 2.0), (0, 0, 0))
RAMP = np.add.outer(np.add.outer(100 * np.arange(6), 10 * np.arange(8)), np.arange(10)).astype(np.float32)
IMAGE = Image(np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16), GRID)


def saved(path, array, spacing, origin):
    write_volume(path, array, Geometry.from_axes(array.shape, spacing, origin))
    return path


def test_the_same_grid_is_taken_as_it_is(tmp_path):
    channel = read_channel(saved(tmp_path / "t2.nrrd", RAMP, (1, 1, 2), (0, 0, 0)), IMAGE)
    assert np.array_equal(channel.array, RAMP) and channel.remarks == ()


def test_a_coarser_grid_is_resampled_linearly_and_said(tmp_path):
    """Twice the spacing in the plane: half-way between two voxels lies their mean."""
    channel = read_channel(saved(tmp_path / "t2.nrrd", RAMP[:, ::2, ::2].copy(), (2, 2, 2), (0, 0, 0)), IMAGE)
    assert channel.array.shape == SHAPE and channel.geometry == GRID
    assert np.allclose(channel.array[:, :7, :9], RAMP[:, :7, :9], atol=1e-3)
    assert channel.remarks == ("t2.nrrd lies on another grid; it was resampled to the image's (linear).",)


def test_outside_of_it_is_its_least_value_and_how_much_is_said(tmp_path):
    values = RAMP[:, :, :5].astype(np.int16) - 30
    channel = read_channel(saved(tmp_path / "t2.nrrd", values, (1, 1, 2), (0, 0, 0)), IMAGE)
    assert channel.array.dtype == np.int16 and (channel.array[:, :, 5:] == -30).all() and np.array_equal(channel.array[:, :, :5], values)
    assert channel.remarks[1] == "50 % of the image lie outside of t2.nrrd; they have its least value there (-30)."


def test_a_volume_elsewhere_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"t2\.nrrd shows nothing where the image lies\. Choose a volume of the same region"):
        read_channel(saved(tmp_path / "t2.nrrd", RAMP, (1, 1, 2), (500, 0, 0)), IMAGE)


def series(folder, **values):
    slices = dicoms.make_slices(IMAGE.array, GRID)
    for k, dataset in enumerate(slices):
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = dicoms.uid(folder.name), dicoms.uid(f"{folder.name} {k}")
        for name, value in values.items():
            setattr(dataset, name, value)
    dicoms.save_slices(slices, folder)
    return folder


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"PatientID": "X"}, r"b is another patient's \(its patient ID differs\)"),
        ({"FrameOfReferenceUID": "1.2.3"}, "b is in another frame of reference"),
    ],
)
def test_another_patients_series_is_refused_unless_asked_for(tmp_path, values, sentence):
    image = read_volume(series(tmp_path / "a"))
    assert read_channel(series(tmp_path / "c"), image).remarks == ()
    other = series(tmp_path / "b", **values)
    with pytest.raises(InputError, match=rf"{sentence}.*Give a volume of the same examination.*--other-patient"):
        read_channel(other, image)
    assert "taken as asked" in read_channel(other, image, other_patient=True).remarks[0]
