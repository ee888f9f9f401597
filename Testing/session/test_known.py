"""A session that was given hints: what it grows from, shows and says, and that paint stands."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from phantoms import two_organs
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.hints import Hints, Point, Roi, SegmentHints
from sparseseg.contract.settings import Settings
from sparseseg.quality.estimate import dice, expected

QUICK = Settings(steps=4, width=4, depth=2, patch_voxels=16**3)
NOTHING = SegmentHints()


@pytest.fixture
def opened(session_on):
    """opened(phantom, hints, annotation) -> a session."""
    return lambda phantom, hints, annotation=None, settings=QUICK: session_on(phantom, settings, annotation, hints)


def roi_of(mask, geometry: Geometry, margin=1.0):
    """The box of a mask and a margin (mm)."""
    places = np.argwhere(mask)[:, ::-1]
    low, high = (geometry.matrix @ [*places.min(0), 1])[:3], (geometry.matrix @ [*places.max(0), 1])[:3]
    return Roi(tuple((low + high) / 2), tuple(high - low + 2 * margin))


def point_in(mask, geometry: Geometry):
    """In the middle of an ellipsoid."""
    k, j, i = np.argwhere(mask).mean(0).round()
    return Point(tuple((geometry.matrix @ [i, j, k, 1])[:3]))


def of_both(phantom, **changes):
    masks = [phantom.truth == value for value in (1, 2)]
    return Hints(tuple(SegmentHints(roi_of(m, phantom.geometry), (point_in(m, phantom.geometry),), **changes) for m in masks))


OTHER = (slice(13, 17), slice(2, 6), slice(2, 8))  # between annotated slices, far from the bright organ


def believe_in_other(session):
    """The session with voices that believe that the bright organ is at OTHER, too."""
    prior, grow, let_stand = session.prior, session.prior.grow, session.prior._let_stand

    def grow_more(*arguments, **options):
        label = grow(*arguments, **options).copy()
        label[OTHER] = 1
        return label

    def let_more_stand(annotation):
        let_stand(annotation)
        prior.stands.label[OTHER], prior.stands.confidence[OTHER] = 1, 150

    prior.grow, prior._let_stand = grow_more, let_more_stand
    return session


def send(session, box, values, revision):
    name = f"annotation-{revision:04d}.npy"
    np.save(session.job.folder / name, values)
    session.update(name, revision, [], [[s.start, s.stop] for s in box])


@pytest.mark.slow
def test_points_and_regions_alone_segment_the_phantom(opened, host):
    phantom = two_organs()
    session = opened(phantom, of_both(phantom), np.zeros_like(phantom.annotation))
    outcome = session.train()
    result = np.load(outcome.dense)
    assert min(dice(result, phantom.truth, value) for value in (1, 2)) > 0.9
    assert not outcome.estimate  # nothing that a person painted could be brought back
    assert not host.warnings
    assert json.loads(outcome.report.read_text())["hints"] == []


@pytest.mark.slow
def test_every_preview_keeps_a_segment_in_its_region(opened, host):
    phantom = two_organs()
    roi = roi_of(phantom.truth == 1, phantom.geometry)
    believe_in_other(opened(phantom, None)).train()
    assert {source for source, _, dense in host.previews if (dense[OTHER] == 1).all()} == {"growing", "prior"}  # so that the test can fail
    host.previews.clear()
    believe_in_other(opened(phantom, Hints((SegmentHints(roi), NOTHING)))).train()
    assert {source for source, _, _ in host.previews} >= {"growing", "prior"}
    assert not any((dense[OTHER] == 1).any() for _, _, dense in host.previews)


@pytest.mark.slow
def test_paint_outside_of_a_region_stands_is_said_and_brings_nothing_else_there(opened, host):
    phantom = two_organs()
    session = believe_in_other(opened(phantom, Hints((SegmentHints(roi_of(phantom.truth == 1, phantom.geometry)), NOTHING))))
    session.train()
    assert not host.warnings
    stroke = (slice(14, 15), slice(3, 4), slice(3, 6))
    send(session, stroke, np.full((1, 1, 3), 2, np.uint8), 2)
    assert host.boxes[-1] is not None
    for _, _, dense in host.previews[-2:]:
        assert (dense[stroke] == 1).all()
        assert (dense[OTHER] == 1).sum() == 3
    assert host.warnings == [("hints", "3 voxels painted as bright lie outside of its ROI; the paint stands.")]
    outcome = session.train()
    assert (np.load(outcome.dense)[OTHER] == 1).sum() == 3
    assert json.loads(outcome.report.read_text())["hints"] == [host.warnings[0][1]]
    assert len(host.warnings) == 1


@pytest.mark.slow
def test_a_box_that_is_shown_keeps_a_segment_in_its_region_too(opened, host):
    phantom = two_organs()
    session = opened(phantom, Hints((SegmentHints(roi_of(phantom.truth == 1, phantom.geometry)), NOTHING)))
    session._grow()
    box = (slice(13, 17), slice(2, 30), slice(2, 34))
    session._show_box(box, np.ones((4, 28, 32), np.uint8), "prior")
    shown = host.previews[-1][2]
    assert host.boxes[-1] == box
    assert not (shown[OTHER] == 1).any() and (shown[box] == 1).any()


@pytest.mark.slow
def test_one_piece_holds_in_refined_previews_results_and_after_a_correction_elsewhere(opened, host):
    phantom = two_organs()
    session = believe_in_other(opened(phantom, Hints((SegmentHints(one_piece=True), NOTHING))))
    outcome = session.train()
    sources = {source: dense for source, _, dense in host.previews}
    assert (sources["growing"][OTHER] == 1).all()  # growing's own is not held to it
    assert not (sources["prior"][OTHER] == 1).any()
    assert not (np.load(outcome.dense)[OTHER] == 1).any()
    assert (np.load(outcome.uncertainty)[OTHER] == 55).all()
    organ = np.argwhere(phantom.truth == 1)
    k, j, i = organ[organ[:, 0] == 9][0].tolist()
    send(session, (slice(k, k + 1), slice(j, j + 1), slice(i, i + 1)), np.full((1, 1, 1), 2, np.uint8), 2)
    assert not (host.previews[-1][2][OTHER] == 1).any()
    assert not host.warnings


@pytest.mark.slow
def test_what_cannot_be_held_is_said_once_and_stands_in_the_report(opened, host):
    phantom = two_organs()
    annotation = phantom.annotation.copy()
    annotation[14, 3, 3:6] = 2
    session = opened(phantom, Hints((SegmentHints(one_piece=True), SegmentHints(volume_ml=(900, None)))), annotation)
    outcome = session.train()
    pieces, volume = json.loads(outcome.report.read_text())["hints"]
    assert pieces == "bright is said to be one piece, but is annotated in 2 that do not touch; all of these are kept."
    assert volume.startswith("dark has ") and volume.endswith(
        " ml, but is said to have at least 900; what is annotated, sure or said elsewhere forbids it."
    )
    assert [sentence for _, sentence in host.warnings].count(pieces) == 1
    assert host.warnings[-1] == ("hints", volume)
    assert {code for code, _ in host.warnings} == {"hints"}


@pytest.mark.slow
def test_a_volume_is_met(opened):
    phantom = two_organs()
    voxel_ml = float(np.prod(phantom.geometry.spacing_kji_mm)) / 1000
    plain = np.load(opened(phantom, None).train().dense)
    wanted = 1.05 * (plain == 1).sum() * voxel_ml
    result = np.load(opened(phantom, Hints((SegmentHints(volume_ml=(wanted, None)), NOTHING))).train().dense)
    assert wanted <= (result == 1).sum() * voxel_ml < wanted + voxel_ml


def judged_refiner(session, use_without, monkeypatch):
    """The session after it has judged a refiner that sees coarsely."""
    session._grow()
    session._refine_all()
    monkeypatch.setattr(type(session.prior), "is_seen_coarsely", True)
    monkeypatch.setattr(session.prior, "use_without", use_without)
    session._judge_refiner()
    return session


def strokes_of(phantom):
    """Lines on each annotated slice, on others of each; walls of regions cross the slices."""
    k, j, _ = np.indices(phantom.truth.shape)
    return np.where((j + k // 6) % 4 == 0, phantom.annotation, 0).astype(np.uint8)


def test_held_out_annotation_is_what_a_person_painted(opened, monkeypatch):
    phantom, asked = two_organs(), []

    def use_without(annotation, held):
        asked.append(held)
        return [True, False]

    session = judged_refiner(opened(phantom, of_both(phantom), strokes_of(phantom)), use_without, monkeypatch)
    (held,) = asked
    assert np.flatnonzero(held.any(axis=(1, 2))).tolist() == [12]  # the middle one of three slices
    np.testing.assert_array_equal(held[12], session.labels.painted[12])
    assert (session.labels.labelled & ~session.labels.painted)[12].any()  # so that the test can fail
    assert [session.prior.refines(value) for value in (1, 2)] == [True, False]


def test_hints_alone_are_not_held_out(opened, monkeypatch):
    phantom = two_organs()
    session = opened(phantom, of_both(phantom), np.zeros_like(phantom.annotation))
    session = judged_refiner(session, lambda *_: pytest.fail("there is nothing to hold out"), monkeypatch)
    assert session.prior.use is None


def test_what_is_brought_back_is_what_a_person_painted(opened, monkeypatch):
    phantom, asked = two_organs(), []
    session = opened(phantom, of_both(phantom), strokes_of(phantom))

    def grow(labels, labelled):
        asked.append(labelled)
        found = session.labels.labels.copy()
        found[~session.labels.painted] = 0
        return found

    evidence = SimpleNamespace(believed=lambda value: 1.0, agreement=lambda value: 1.0)
    session.judge.look(phantom.truth, evidence, session.labels, grow)
    (labelled,) = asked
    assert np.flatnonzero(labelled.any(axis=(1, 2))).tolist() == [3, 9, 15, 21]  # 6, 12 and 18 are painted
    assert session.judge.estimate == dict.fromkeys(("Segment_1", "Segment_2"), round(expected(1.0, 1.0, 1.0, has_slices=False), 4))


def test_the_refiner_is_asked_once_a_segment_is_painted_on_two_slices(opened):
    phantom = two_organs()
    annotation = np.zeros_like(phantom.annotation)
    painted = np.flatnonzero((phantom.annotation > 1).any(axis=(1, 2)))
    annotation[painted[1]] = phantom.annotation[painted[1]]
    session = opened(phantom, None, annotation)
    session._grow()
    session._refine_all()
    assert not session.prior.refines(1)
    k = int(painted[2])
    second = (slice(k, k + 1), slice(0, annotation.shape[1]), slice(0, annotation.shape[2]))
    send(session, second, phantom.annotation[second], 2)
    assert session.prior.refines(1)
    assert session.prior._refined.views[1].added is not None


def test_the_refiner_is_asked_only_for_segments_that_are_painted_on_slices(opened):
    phantom = two_organs()
    bright_alone = np.where(phantom.annotation == 3, 0, phantom.annotation).astype(np.uint8)
    session = opened(phantom, Hints((NOTHING, SegmentHints(inside=(point_in(phantom.truth == 2, phantom.geometry),)))), bright_alone)
    session._grow()
    session._refine_all()
    assert [session.prior.refines(value) for value in (1, 2)] == [True, False]


def test_growing_from_one_slice_reaches_all_of_a_segment_with_and_without_hints(opened, host):
    phantom = two_organs()
    one_slice = np.zeros_like(phantom.annotation)
    one_slice[12] = phantom.annotation[12]
    for hints in (None, of_both(phantom)):
        session = opened(phantom, hints, one_slice)
        session._grow()
        region = session.prior.grown.plan.grid.region
        first, last = np.flatnonzero(phantom.truth.any(axis=(1, 2)))[[0, -1]]
        assert region[0].start <= first and region[0].stop > last
