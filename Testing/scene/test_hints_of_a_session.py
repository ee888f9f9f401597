"""Hints in a session: remembered with the scene, in the job of a run, enough without paint; with a scripted engine, and once with the real one."""

import numpy as np
import pytest
from applying import STROKES
from scenes import makeSegmentation, makeVolume, pointsOf
from scripted_engine import State

from sparseseg.contract.hints import SegmentHints
from SparseSegSlicerLib.scene.Grids import volumeGeometry
from SparseSegSlicerLib.scene.Hinting import BACKGROUND
from SparseSegSlicerLib.scene.HintNodes import POINTS_CLASS, ROI_CLASS
from SparseSegSlicerLib.scene.SamplePhantom import addPhantom
from SparseSegSlicerLib.session.Checklist import checklist
from SparseSegSlicerLib.session.Controller import Controller
from SparseSegSlicerLib.session.HintBook import Entry
from SparseSegSlicerLib.session.States import Launch


def points(session, *voxels):
    node = session.scene.AddNewNodeByClass(POINTS_CLASS)
    for place in pointsOf(voxels, volumeGeometry(session.volume).ijk_to_ras()):
        node.AddControlPoint(*place)
    return node


def roi(session, first, last):
    """A box from a voxel to another."""
    node = session.scene.AddNewNodeByClass(ROI_CLASS)
    low, high = pointsOf([first, last], volumeGeometry(session.volume).ijk_to_ras())
    node.SetSize(*(abs(high - low) + 0.5))
    node.SetCenter(*((high + low) / 2))
    return node


def say(session, segmentID, **changes):
    session.controller.setHints(segmentID, **changes)
    session.spin(lambda: session.controller.isSettled)


def given(session):
    session.spin(lambda: session.controller.isSettled)
    return session.controller.strokes.hinted


def nothingPainted(session):
    """Another segmentation, with the same segments and not a stroke."""
    session.node = makeSegmentation(session.scene, "a", "b", name="empty")
    session.controller.setSegmentation(session.node)
    session.spin(lambda: session.controller.isSettled and session.controller.strokes is not None)


# -- what a run is given -------------------------------------------------------------------------------------------------


def test_a_run_gets_the_hints_of_its_segments(session):
    say(session, "b", inside=points(session, (3, 5, 5)), roi=roi(session, (1, 3, 2), (5, 6, 7)), onePiece=True, leastMl=0.001)
    say(session, "nobody", noHoles=True)
    session.train()
    a, b = session.controller.run.record.hints.segments
    assert a == SegmentHints()
    assert b.one_piece and not b.no_holes and b.volume_ml == (0.001, None) and len(b.inside) == 1
    assert b.roi.on(volumeGeometry(session.volume)).box == (slice(1, 6), slice(3, 7), slice(2, 8))


def test_a_run_without_hints_is_as_it_was(session):
    session.train()
    assert session.controller.run.record.hints is None


def test_points_suffice_where_nothing_is_painted(session):
    nothingPainted(session)
    session.controller.train()
    session.spin(lambda: session.controller.isSettled)
    assert session.controller.run is None and "Nothing is labelled" in session.controller.message.sentence
    say(session, "a", inside=points(session, (2, 2, 2)))
    assert checklist(session.controller.strokes) == "a by hints. Paint some background too, or mark a slice complete."
    assert not any("a: it stays empty" in note or "a, b" in note for note in session.controller.strokes.notes)
    say(session, BACKGROUND, inside=points(session, (5, 6, 7)))
    assert checklist(session.controller.strokes).startswith("a by hints; background. Ready to segment")
    session.train()
    hints = session.controller.run.record.hints
    assert len(hints.segments[0].inside) == len(hints.outside) == 1


def test_points_that_contradict_the_volume_are_said_before_a_run_begins(session):
    say(session, "a", inside=points(session, (50, 2, 2)))
    assert checklist(session.controller.strokes).endswith(
        "a, inside point 1 lies outside of the volume. Check its place, and the coordinates (RAS or LPS)."
    )
    session.controller.train()
    session.spin(lambda: session.controller.message.level == "warning")
    assert session.controller.run is None and "outside of the volume" in session.controller.message.sentence
    say(session, "a", inside=None)
    session.train()


# -- when they change ----------------------------------------------------------------------------------------------------


def test_a_new_run_takes_hints_that_have_changed_since_and_the_user_is_told(session):
    say(session, "a", onePiece=True)
    session.segment()
    first = session.controller.run
    session.train()
    assert session.controller.run is first
    said = len(session.controller.log)
    say(session, "a", onePiece=False, noHoles=True)
    assert session.controller.message.text() == "The hints have changed: a new training takes them. Press Stop, then Segment."
    session.paint("a", STROKES["b"])
    session.settle()
    assert session.controller.run is first and first.revision == 2  # strokes go on being answered
    assert sum("hints have changed" in line for line in session.controller.log[said:]) == 1
    session.controller.cancel()
    session.train()
    assert session.controller.run is not first and session.controller.run.record.hints.segments[0] == SegmentHints(no_holes=True)


def test_hints_that_are_as_they_were_go_on_with_the_run(session):
    session.segment()
    run = session.controller.run
    say(session, "a", onePiece=True)
    say(session, "a", onePiece=False)
    session.train()
    assert session.controller.run is run


def test_what_moves_is_followed_and_what_is_deleted_drops_out(session):
    node = points(session, (2, 2, 2))
    say(session, "a", inside=node)
    (before,) = given(session).hints.segments[0].inside
    node.SetNthControlPointPosition(0, *pointsOf((2, 2, 3), volumeGeometry(session.volume).ijk_to_ras())[0])
    assert not session.controller.isSettled
    (after,) = given(session).hints.segments[0].inside
    assert after != before
    session.scene.RemoveNode(node)
    assert given(session).hints is None and session.controller.hintsOf("a") == Entry()


def test_another_volume_has_no_hints_of_the_first(session):
    say(session, "a", inside=points(session, (2, 2, 2)), onePiece=True)
    session.controller.setVolume(makeVolume(session.scene, name="other"))
    assert given(session).hints is None and session.controller.hintsOf("a") == Entry()


# -- another day ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["open", "add"])
def test_a_saved_scene_has_its_hints(session, way):
    node = points(session, (2, 2, 2))
    say(session, "a", inside=node, mostMl=12.5)
    path = session.folder / "scene.mrb"
    assert session.scene.WriteToMRB(str(path), None)
    before = given(session).hints
    if way == "open":
        assert session.host.load_scene(path)
    else:
        session.controller.setSegmentation(None)
        session.controller.setVolume(None)
        for old in (session.node, session.volume, node):
            session.scene.RemoveNode(old)
        assert session.scene.ReadFromMRB(str(path), False)
    session.spin(lambda: session.controller.isSettled and session.controller.strokes is not None)
    entry = session.controller.hintsOf("a")
    assert entry.inside is not None and entry.inside is not node and entry.mostMl == 12.5
    after = session.controller.strokes.hinted.hints
    assert np.allclose(after.segments[0].inside[0].at_lps_mm, before.segments[0].inside[0].at_lps_mm, atol=1e-3)
    entry.inside.RemoveNthControlPoint(0)
    assert not given(session).hints.segments[0].inside


def test_nothing_is_observed_after_the_end(session):
    node = points(session, (2, 2, 2))
    say(session, "a", inside=node)
    events = (node.PointModifiedEvent, node.PointRemovedEvent)
    assert all(node.HasObserver(event) for event in events)
    session.controller.setSegmentation(None)
    assert not any(node.HasObserver(event) for event in events)


# -- the real engine -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_engine_segments_from_points_alone(session, tmp_path):
    session.close()
    session.volume, strokes = addPhantom()
    painted = strokes.GetSegmentation().GetSegmentIDs()
    session.controller = Controller(session.scene, lambda: Launch(temporaryFolder=str(tmp_path)))
    for name, value in {"steps": 8, "width": 4, "depth": 2, "patch_voxels": 16**3}.items():
        session.controller.parameters.setSetting(name, value)
    session.controller.setInputs(session.volume, strokes)
    session.spin(lambda: session.controller.strokes is not None)
    annotation, ids = session.controller.strokes.annotation.copy(), session.controller.strokes.classes.ids
    places = [np.argwhere(annotation == value) for value in range(1, len(ids) + 2)]
    session.node = makeSegmentation(session.scene, *[sid for sid in painted if sid in ids])
    session.controller.setSegmentation(session.node)
    for sid, some in zip([BACKGROUND, *ids], places, strict=True):
        session.controller.setHints(sid, inside=points(session, *some[:: max(1, len(some) // 5)][:5]))
    session.spin(lambda: session.controller.isSettled and session.controller.strokes is not None)
    session.controller.train()
    session.spin(lambda: session.controller.state is State.RESULT or session.controller.message.level == "error", patience_s=120)
    assert session.controller.state is State.RESULT, session.controller.message.text()
    assert set(np.unique(session.controller.preview.labels)) == set(range(len(ids) + 1))
