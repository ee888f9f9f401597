"""Annotation and volumes at the edge of what makes sense: each trains to a result in which the paint stands, or is refused in one sentence."""

from dataclasses import replace

import numpy as np
import pytest

from sparseseg.contract.classes import ClassTable
from sparseseg.contract.errors import AnnotationError, InputError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.job import Job, JobRecord
from sparseseg.contract.settings import Settings
from sparseseg.session.devices import DeviceChoice
from sparseseg.session.session import Session

QUICK = Settings(steps=3, width=4, depth=2, patch_voxels=16**3)
SHAPE = (12, 16, 16)
TWO = ClassTable.numbered(2, ["bright", "dark"])


def two_halves(shape):
    """(K, J, I) uint8: background around two blocks."""
    truth = np.zeros(shape, np.uint8)
    k, j, i = (slice(n // 4, n - n // 4) for n in shape)
    truth[k if shape[0] > 3 else slice(None), j, i.start : shape[2] // 2] = 1
    truth[k if shape[0] > 3 else slice(None), j, shape[2] // 2 : i.stop] = 2
    return truth


def image_of(truth):
    rng = np.random.default_rng(0)
    return (np.linspace(0, 200, int(truth.max()) + 1)[truth] + rng.normal(0, 5, truth.shape)).astype(np.int16)


@pytest.fixture
def trained(tmp_path, compute, host):
    """trained(annotation, ...) -> the dense result of a short run, (K, J, I); what is painted stands in it."""

    def train(annotation, image=None, classes=TWO, complete=(), **changes):
        image = image_of(two_halves(annotation.shape)) if image is None else image
        record = JobRecord(Geometry.from_axes(image.shape, (1, 1, 1)), classes, replace(QUICK, **changes), complete_slices=complete)
        Job.create(tmp_path / "job", image, annotation, record).close()
        session = Session.open(tmp_path / "job", DeviceChoice(chosen=compute), host)
        try:
            dense = np.load(session.train().dense)
        finally:
            session.close()
        np.testing.assert_array_equal(dense[annotation > 0], annotation[annotation > 0] - 1)
        for axis, index in complete:
            view = [np.moveaxis(array, axis, 0)[index] for array in (annotation, dense)]
            assert not view[1][view[0] == 0].any()
        painted = np.unique(annotation[annotation > 1]) - 1
        assert set(np.unique(dense)) <= {0, *painted.tolist()}
        return dense

    return train


def complete_slices(*indices, truth=None):
    truth = two_halves(SHAPE) if truth is None else truth
    annotation = np.zeros(SHAPE, np.uint8)
    for k in indices:
        annotation[k] = truth[k] + 1
    return annotation


# ---------------------------------------------------------------- a complete slice with one class only


@pytest.mark.parametrize("value", [1, 2, 3])
def test_a_slice_that_is_painted_all_over_with_one_class_is_refused(trained, value):
    annotation = np.zeros(SHAPE, np.uint8)
    annotation[6] = value
    with pytest.raises(AnnotationError, match=r"^No segment has a painted voxel\." if value == 1 else r"^No background is labelled\."):
        trained(annotation)


def test_a_slice_that_is_complete_and_empty_is_refused(trained):
    with pytest.raises(AnnotationError, match=r"^No segment has a painted voxel\. Paint each structure on a few slices\.$"):
        trained(np.zeros(SHAPE, np.uint8), complete=((0, 6),))


def test_a_complete_slice_with_one_of_the_segments_is_enough(trained, host):
    annotation = complete_slices(6)
    annotation[annotation == 3] = 0
    dense = trained(annotation, complete=((0, 6),))
    assert (dense[6] == 1).sum() == (annotation == 2).sum()
    assert host.warnings == [("unpainted", "Nothing is painted in dark: it stays empty.")]


def test_complete_slices_of_one_class_each(trained):
    annotation = np.zeros(SHAPE, np.uint8)
    annotation[2], annotation[6], annotation[10] = 1, 2, 3
    dense = trained(annotation)
    assert set(np.unique(dense)) == {0, 1, 2}


def test_without_background_two_segments_are_refused_too(trained):
    annotation = np.zeros(SHAPE, np.uint8)
    annotation[6, 5:8, 5:8], annotation[6, 9:12, 9:12] = 2, 3
    with pytest.raises(AnnotationError, match=r"^No background is labelled\. Paint some voxels that belong to none of the segments"):
        trained(annotation)


# ---------------------------------------------------------------- little annotation


def test_a_class_on_one_slice_only(trained, host):
    """The others on three: nothing between slices tells of it."""
    annotation = complete_slices(3, 6, 9)
    annotation[[3, 9]] = np.minimum(annotation[[3, 9]], 2)
    dense = trained(annotation)
    assert (dense == 2).any() and host.warnings == []


@pytest.mark.parametrize("value", [2, 3])
def test_a_class_of_one_voxel(trained, value):
    annotation = complete_slices(6)
    annotation[annotation == value] = 1
    annotation[2, 2, 2] = value
    assert trained(annotation)[2, 2, 2] == value - 1


def test_one_voxel_of_each_class(trained):
    annotation = np.zeros(SHAPE, np.uint8)
    annotation[6, 2, 2], annotation[6, 8, 5], annotation[6, 8, 10] = 1, 2, 3
    dense = trained(annotation)
    assert set(np.unique(dense)) == {0, 1, 2}


@pytest.mark.parametrize("corner", [(0, 0, 0), (20, 12, 16)])
def test_annotation_of_1_by_8_by_8_voxels_in_a_larger_volume(trained, corner):
    truth = two_halves((24, 32, 32))
    annotation = np.zeros(truth.shape, np.uint8)
    k, j, i = corner
    annotation[k, j : j + 8, i : i + 8] = 1
    annotation[k, j + 2 : j + 6, i + 1 : i + 4] = 2
    annotation[k, j + 2 : j + 6, i + 4 : i + 7] = 3
    dense = trained(annotation)
    assert (dense == 0).mean() > 0.5  # far from the little that is known there is background


# ---------------------------------------------------------------- many segments


@pytest.mark.slow
def test_254_segments(trained):
    """The refiner looks at one segment after the other, half a second each: the next test asks it for the last of them."""
    table = ClassTable.numbered(254)
    truth = np.arange(16 * 16 * 8).reshape(16, 16, 8) // 8 % 256  # rows of a voxel's width; 255 is none of the segments
    truth = np.where(truth == 255, 0, truth).astype(np.uint8)
    annotation = np.zeros(truth.shape, np.uint8)
    annotation[:, :, 2:6] = truth[:, :, 2:6] + 1
    dense = trained(annotation, image_of(truth), table, refine=False)
    assert len(np.unique(dense)) == 255


@pytest.mark.slow
def test_254_segments_of_which_one_is_painted(trained, host):
    annotation = complete_slices(6)
    annotation[annotation == 2], annotation[annotation == 3] = 255, 0
    dense = trained(annotation, classes=ClassTable.numbered(254))
    assert set(np.unique(dense)) == {0, 254}
    ((code, sentence),) = host.warnings
    assert code == "unpainted"
    assert sentence.startswith("Nothing is painted in segment 1, segment 2, ") and sentence.endswith(", segment 253: they stay empty.")


# ---------------------------------------------------------------- thin and tiny volumes


@pytest.mark.parametrize("shape", [(2, 16, 16), (16, 2, 16), (16, 16, 2), (2, 8, 8)])
@pytest.mark.parametrize("both", [False, True])
def test_two_slices(trained, shape, both):
    """Annotated on one of them, or on both."""
    axis = shape.index(2)
    truth = np.moveaxis(two_halves((2, *[n for n in shape if n != 2])), 0, axis)
    annotation = (truth + 1).astype(np.uint8)
    if not both:
        np.moveaxis(annotation, axis, 0)[1] = 0
    dense = trained(annotation, image_of(truth))
    if not both:
        assert (np.moveaxis(dense, axis, 0)[1] == np.moveaxis(truth, axis, 0)[1]).mean() > 0.8


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 7, 16), (7, 7, 7), (16, 1, 2)])
def test_too_small_a_volume_is_refused(trained, shape):
    image = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    words = rf"^The image has {' x '.join(map(str, shape))} voxels, too few for a 3-D network\. It takes 2 slices and 8 voxels"
    with pytest.raises(InputError, match=words):
        trained(np.ones(shape, np.uint8), image)


def test_an_image_of_one_value_but_for_one_voxel(trained):
    image = np.zeros(SHAPE, np.int16)
    image[0, 0, 0] = 1
    trained(complete_slices(3, 6, 9), image)
