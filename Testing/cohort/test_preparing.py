"""What is common to a cohort, and what is drawn from: by hand where it can be."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cohorts import patients, write_list

from sparseseg.cohort.lessons import CohortLearner, Volumes
from sparseseg.cohort.patient import Meaning
from sparseseg.cohort.patients import read_list
from sparseseg.cohort.preparing import annotation_file, join, look, prepare
from sparseseg.cohort.processes import Processes
from sparseseg.cohort.train import split
from sparseseg.contract.errors import AnnotationError
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.settings import Settings
from sparseseg.network.device import Compute

COMPUTE = Compute(torch.device("cpu"), torch.float32, "test", 1.0, 1 << 30, "")
SETTINGS = Settings(width=4, depth=2, batch=3)
SHAPE = (12, 24, 26)


def prepared(folder, phantoms, settings=SETTINGS):
    listed = read_list(write_list(folder, phantoms), annotated=True)
    members, segments = look(listed, folder, "none", Meaning(), lambda _: None)
    cohort = join(members, segments, COMPUTE, settings, None)
    prepare(listed, cohort, folder, lambda _: None)
    return cohort


def learner_of(folder, cohort, processes=Processes()):  # noqa: B008 - of nothing but numbers
    everyone = list(range(len(cohort.members)))
    volumes = Volumes(folder, cohort, cohort.weights(cohort.members, SETTINGS), COMPUTE)
    return CohortLearner(COMPUTE, cohort, volumes, everyone, SETTINGS, processes)


@pytest.fixture
def cohort(tmp_path):
    return prepared(tmp_path, patients(3))


def test_what_is_drawn_is_the_image_and_the_labels_on_their_slice(tmp_path, cohort):
    phantom = patients(3)[1]
    learner = learner_of(tmp_path, cohort)
    draw = next(draw for draw in learner.slices_of(1) if draw.index == 6)
    image, labels, weights = learner._slab(draw)
    assert torch.equal(labels[0], torch.from_numpy(phantom.annotation[6].astype(np.int64) - 1)) and (weights > 0).all()
    assert not image[5:8].any()  # no place is told
    seen = cohort.intensities[0].apply(phantom.image, cohort.grid(cohort.members[1]), torch.device("cpu"))
    np.testing.assert_allclose(image[:5, 0], seen[4:9].float(), atol=1e-5)


def test_members_know_their_slices_and_voxels(cohort):
    for member, phantom in zip(cohort.members, patients(3), strict=True):
        assert member.slices == ((0, 3), (0, 6), (0, 9)) and member.own_kji == phantom.image.shape
        assert member.voxels == tuple(np.bincount(phantom.annotation.ravel(), minlength=4)[1:].tolist())
    assert cohort.spacing_kji_mm == (1.5, 1, 1) and cohort.orientations(cohort.members) == (0,)


def test_a_volume_that_is_labelled_throughout_is_learned_from_on_all_axial_slices(tmp_path):
    cohort = prepared(tmp_path, [replace(phantom, annotation=phantom.truth + np.uint8(1)) for phantom in patients(2)])
    assert cohort.members[0].slices == tuple((0, k) for k in range(12))


def test_one_spacing_for_volumes_of_different_voxels(tmp_path):
    fine, coarse = patients(2)
    coarse = replace(coarse, geometry=Geometry.from_axes(coarse.image.shape, (2.0, 2.0, 3.0)))
    cohort = prepared(tmp_path, [fine, coarse])
    assert cohort.spacing_kji_mm == (3, 2, 2)
    assert [cohort.grid(member).shape_kji for member in cohort.members] == [(6, 12, 13), (12, 25, 26)]


def test_a_patient_who_lies_otherwise_in_its_file_is_turned(tmp_path):
    phantom = patients(1)[0]
    sagittal = Geometry.from_axes(
        (26, 12, 24), (1.0, 1.5, 1.0), direction=(0, 0, 1, 1, 0, 0, 0, -1, 0)
    )  # i to the back, j to the feet, k to the left

    def turned(volume):
        return np.ascontiguousarray(np.flip(volume.transpose(2, 0, 1), 1))

    other = replace(phantom, image=turned(phantom.image), annotation=turned(phantom.annotation), geometry=sagittal)
    cohort = prepared(tmp_path, [phantom, other])
    upright, was_turned = cohort.members
    assert (was_turned.own_kji, was_turned.slices, was_turned.voxels) == (upright.own_kji, upright.slices, upright.voxels)
    assert was_turned.spacing_kji_mm == pytest.approx(upright.spacing_kji_mm)
    files = [np.load(annotation_file(tmp_path, member.file)) for member in cohort.members]
    assert np.array_equal(*files)


def test_of_many_slices_some_are_asked_evenly(tmp_path):
    cohort = prepared(tmp_path, [replace(phantom, annotation=phantom.truth + np.uint8(1)) for phantom in patients(2)])
    learner = learner_of(tmp_path, cohort)
    assert [draw.index for draw in learner.slices_of(0, 3)] == [2, 6, 10] and [draw.index for draw in learner.slices_of(0, 1)] == [6]
    assert [draw.index for draw in learner.slices_of(0)] == list(range(12))
    assert [(draw.volume, draw.index) for draw in learner._still(2)] in ([(0, 6), (1, 6)], [(1, 6), (0, 6)])


def test_few_volumes_are_at_hand_and_the_others_are_read_again(tmp_path, cohort):
    volumes = learner_of(tmp_path, cohort).volumes
    volumes.most = 2
    first = volumes[0]
    assert volumes[0] is first
    _ = volumes[1], volumes[2]
    assert len(volumes._held) == 2 and volumes[0] is not first and torch.equal(volumes[0].image, first.image)
    volumes.close()


def test_processes_share_a_batch_that_all_draw_alike(tmp_path, cohort):
    alone = learner_of(tmp_path, replace(cohort, plan=replace(cohort.plan, batch=6)))._batch()
    parts = [learner_of(tmp_path, cohort, Processes(rank, 2, rank))._batch() for rank in range(2)]
    assert [(d.volume, d.axis, d.index, d.noise_seed) for part in parts for d in part] == [(d.volume, d.axis, d.index, d.noise_seed) for d in alone]
    assert len({draw.volume for draw in alone}) > 1


def test_the_overlap_by_hand(tmp_path, cohort, monkeypatch):
    learner = learner_of(tmp_path, cohort)
    draw = learner.slices_of(0)[1]
    labels = learner._slab(draw)[1]
    said = torch.zeros(1, 3, *labels.shape)
    said[:, 1] = 1  # all is the first segment
    monkeypatch.setattr(learner.average, "forward", lambda _: said)
    counts = torch.bincount(labels.view(-1), minlength=3)
    assert learner.overlap(draw).tolist() == [[0, counts[0], 0], [counts.sum(), counts[1], counts[1]], [0, counts[2], 0]]


def test_every_segment_is_learned_from_whatever_the_seed(tmp_path):
    phantoms = patients(4)
    only_one = [replace(p, annotation=np.where(p.annotation == 3, 1, p.annotation).astype(np.uint8)) for p in phantoms[:3]]
    cohort = prepared(tmp_path, [*only_one, phantoms[3]])
    for seed in range(8):
        learned, held = split(cohort, 0.5, seed)
        assert 3 in learned and sorted(learned + held) == [0, 1, 2, 3] and len(held) == 2


def test_no_background_at_all_is_refused(tmp_path):
    cohort = prepared(tmp_path, [replace(p, annotation=np.where(p.annotation > 1, p.annotation, 0).astype(np.uint8)) for p in patients(2)])
    with pytest.raises(AnnotationError, match="No patient has labelled background"):
        cohort.weights(cohort.members, SETTINGS)
