"""Strokes and result in one segmentation: what Apply keeps, what painting on a result means, undo, and scenes that are saved, opened and added."""

import numpy as np
import pytest
from applying import IDS, STROKES, Session, begin, read, resultOf
from scenes import (
    GRIDS,
    OBLIQUE,
    PARENTS,
    PLAIN,
    SHAPE,
    TURNED,
    makeSegmentation,
    makeVolume,
    paint,
    putUnder,
    sameVoxels,
    segmentArray,
    voxels,
)

from SparseSegSlicerLib.scene import KeptStrokes
from SparseSegSlicerLib.scene.AppliedResult import AppliedResult, Holds
from SparseSegSlicerLib.scene.KeptStrokes import STROKES_ROLE, TARGET_ROLE
from SparseSegSlicerLib.scene.Layers import LayerCopies
from SparseSegSlicerLib.scene.SceneExport import takeSnapshot
from SparseSegSlicerLib.scene.SceneImport import boundingBox
from SparseSegSlicerLib.scene.StrokeReader import StrokeReader, readResult, readStrokes


@pytest.fixture
def scene(scene_host):
    return scene_host.scene


@pytest.fixture
def session(scene_host):
    return Session(scene_host)


@pytest.mark.parametrize("parents", PARENTS)
@pytest.mark.parametrize("grid", GRIDS)
def test_apply_changes_no_stroke(scene, grid, parents):
    ofVolume, ofSegmentation = PARENTS[parents]
    volume, node = begin(scene, np.linalg.inv(ofSegmentation) @ ofVolume @ GRIDS[grid], GRIDS[grid])
    putUnder(volume, ofVolume)
    putUnder(node, ofSegmentation)
    before = readStrokes(takeSnapshot(node, volume))
    for shift in (0, 1):
        AppliedResult().apply(node, volume, resultOf(shift), boundingBox(resultOf(shift)), IDS)
        after = readStrokes(takeSnapshot(node, volume))
        assert (
            np.array_equal(after.annotation, before.annotation)
            and after.digest == before.digest
            and after.classes.segments == before.classes.segments
        )
        assert after.notes == ()


def test_strokes_off_the_grid_or_overlapping_are_kept_as_they_are(scene):
    fine = PLAIN @ np.diag([0.5, 0.5, 1, 1])
    volume, node = makeVolume(scene), makeSegmentation(scene, "a", "b")
    paint(node, "a", voxels((2, slice(2, 9), slice(3, 8)), shape=(6, 14, 16)), fine)
    paint(node, "b", voxels((2, slice(7, 12), slice(3, 8)), shape=(6, 14, 16)), fine)
    before = readStrokes(takeSnapshot(node, volume))
    assert before.notes
    AppliedResult().apply(node, volume, resultOf(), boundingBox(resultOf()), IDS)
    after = readStrokes(takeSnapshot(node, volume))
    assert np.array_equal(after.annotation, before.annotation) and after.notes == before.notes


def test_five_applies_each_undone_and_done_again(session):
    states = [("strokes", session.strokes)]
    for n in range(5):
        session.paint("ab"[n % 2], voxels((5, n, slice(0, 2))))
        states.append(("painted", session.strokes))
        labels = resultOf(n % 2)
        assert session.apply(labels) == IDS
        assert session.holds(labels) and np.array_equal(session.strokes, states[-1][1])
        session.undo()
        assert not session.holds(labels) and np.array_equal(session.strokes, states[-1][1])
        session.redo()
        assert session.holds(labels) and np.array_equal(session.strokes, states[-1][1])
    for n in reversed(range(5)):
        assert session.holds(resultOf(n % 2))
        session.undo()  # Apply
        assert np.array_equal(session.strokes, states[n + 1][1])
        session.undo()  # the stroke
        assert np.array_equal(session.strokes, states[n][1])
    assert session.applied.holding(session.node).holds is Holds.STROKES
    assert all(sameVoxels(mask, session.node, sid, session.volume) for sid, mask in STROKES.items())


def test_what_the_segmentation_holds_and_what_undo_brings_back(session):
    def holding():
        found = session.applied.holding(session.node)
        return found.holds, found.undo

    assert holding() == (Holds.STROKES, Holds.NOTHING)
    session.apply(resultOf())
    assert holding() == (Holds.BOTH, Holds.STROKES)
    kept = session.applied.holding(session.node).strokesNode
    assert kept.GetNodeReference(TARGET_ROLE) is session.node and session.node.GetNodeReference(STROKES_ROLE) is kept
    assert not kept.GetDisplayVisibility() and kept.GetName() == "segmentation strokes"
    session.apply(resultOf(1))
    assert holding() == (Holds.BOTH, Holds.BOTH)
    session.undo()
    assert holding() == (Holds.BOTH, Holds.STROKES)
    session.node.SetNodeReferenceID(STROKES_ROLE, None)
    assert holding() == (Holds.RESULT, Holds.STROKES)
    assert AppliedResult().holding(None).holds is Holds.NOTHING


def test_paint_on_a_result_is_a_stroke_and_undo_takes_it_back(session):
    session.apply(resultOf())
    before, place = session.strokes, (4, 1, slice(1, 4))
    session.paint("a", voxels(place))
    wanted = before.copy()
    wanted[place] = 2
    assert np.array_equal(session.strokes, wanted)
    session.undo()
    assert np.array_equal(session.strokes, before)


def test_erasing_makes_background_also_of_a_stroke(session):
    session.apply(resultOf())
    place = (2, slice(1, 4), slice(1, 3))  # a's stroke is among it
    wanted = session.strokes
    assert (wanted[place] == 2).any()
    wanted[place] = 1
    session.paint("a", voxels(place), erase=True)
    assert np.array_equal(session.strokes, wanted)
    session.apply(resultOf())  # the result puts a there again: what was erased stays background until it is painted
    assert np.array_equal(session.strokes, wanted)
    session.paint("b", voxels(place))
    wanted[place] = 3
    assert np.array_equal(session.strokes, wanted)


def test_a_result_painted_over_by_another_segment_is_that_segments(session):
    session.apply(resultOf())
    wanted, place = session.strokes, (2, 2, slice(1, 4))  # a's stroke
    session.paint("b", voxels(place))
    wanted[place] = 3
    assert np.array_equal(session.strokes, wanted)
    session.paint("background", voxels(place))
    wanted[place] = 1
    assert np.array_equal(session.strokes, wanted)
    session.apply(resultOf(1))
    assert np.array_equal(session.strokes, wanted)


def test_a_segment_added_after_apply_is_read_and_applied(session):
    session.apply(resultOf())
    session.node.GetSegmentation().AddEmptySegment("c", "c")
    place = (4, 0, slice(0, 3))
    wanted = session.strokes
    session.paint("c", voxels(place))
    wanted[place] = 4
    assert np.array_equal(session.strokes, wanted)
    labels = resultOf()
    labels[4, 0:2, 0:3] = 3
    session.applied.apply(session.node, session.volume, labels, boundingBox(labels), [*IDS, "c"])
    assert sameVoxels(labels == 3, session.node, "c", session.volume) and np.array_equal(session.strokes, wanted)
    session.paint("c", voxels((5, 0, 0)))
    wanted[5, 0, 0] = 4
    assert np.array_equal(session.strokes, wanted)


def test_a_segment_kept_as_it_is_keeps_strokes_and_corrections(session):
    session.apply(resultOf())
    session.paint("b", voxels((5, 5, slice(3, 6))))
    session.paint("b", voxels((2, 4, slice(3, 5))), erase=True)
    strokes, b = session.strokes, segmentArray(session.node, "b", session.volume).copy()
    assert session.apply(resultOf(1), protected=("b",)) == ["a"]
    assert sameVoxels(b, session.node, "b", session.volume) and np.array_equal(session.strokes, strokes)
    session.apply(resultOf(1))
    assert np.array_equal(session.strokes, strokes)


def test_an_emptied_segment_begins_anew(session):
    session.apply(resultOf())
    session.paint("a", np.ones(SHAPE), erase=True)
    reading = StrokeReader().read(takeSnapshot(session.node, session.volume))
    assert reading.emptied == ("a",)
    session.applied.beginAnew(session.node, reading.emptied)
    assert set(np.unique(session.strokes)) == {0, 1, 3}
    session.paint("a", voxels((2, 3, 3)))  # where the result was
    assert np.argwhere(session.strokes == 2).tolist() == [[2, 3, 3]]


@pytest.mark.parametrize("seed", range(12))
def test_strokes_in_turn_and_all_at_once_are_what_a_plain_model_says(scene_host, seed):
    """Random strokes, erasing, Applies and undo: the reader that follows, one that reads all, and sets of voxels kept by hand."""
    rng, session = np.random.default_rng(seed), Session(scene_host)
    copies = LayerCopies()
    reader, wanted, result = StrokeReader(copies), session.strokes, np.zeros(SHAPE, np.uint8)
    history = []
    for _ in range(16):
        what, before = rng.integers(0, 5), (wanted.copy(), result)
        if what == 0 and history:
            session.undo()
            wanted, result = history.pop()
        elif what == 1:
            result = np.where(wanted > 0, np.maximum(wanted, 1) - 1, resultOf(int(rng.integers(0, 2)))).astype(np.uint8)
            session.apply(result)
            history.append(before)
        else:
            mask = voxels(tuple(slice(s, s + 2) for s in (int(rng.integers(0, n - 1)) for n in SHAPE))) > 0
            sid, erase = ("a", "b", "background")[int(rng.integers(0, 3))], bool(what == 2)
            had, applied = segmentArray(session.node, sid, session.volume) > 0, session.applied.holding(session.node).token
            place, value = mask & (had if erase else ~had), {"background": 1, "a": 2, "b": 3}[sid]  # what is there already is not painted again
            if not place.any() or (erase and (had == place).all()):
                continue
            session.paint(sid, mask, erase)
            if erase:
                wanted[place] = 1 if applied and sid != "background" else 0
            else:
                wanted[place] = value
            # a voxel of the result that is given back is the result's own again; what lay under an erased background stroke is background still
            back = place & (result == value - 1) & bool(applied) if not erase else place & (sid == "background" and bool(applied))
            wanted[back] = session.strokes[back]
            history.append(before)
        reading = reader.read(takeSnapshot(session.node, session.volume, copies=copies))
        assert np.array_equal(reading.strokes.annotation, session.strokes)
        assert reading.strokes.digest == readStrokes(takeSnapshot(session.node, session.volume)).digest
        assert np.array_equal(reading.strokes.annotation, wanted)


def test_results_are_exported_as_they_are(session):
    session.apply(resultOf())
    labels, classes = readResult(takeSnapshot(session.node, session.volume, results=True))
    assert classes.ids == IDS and np.array_equal(labels, resultOf())


# -- the scene -----------------------------------------------------------------------------------------------------------


def test_a_saved_scene_opened_goes_on(scene_host, tmp_path):
    folder = tmp_path / "Žluťoučký kůň a Größe"
    folder.mkdir()
    session = Session(scene_host, OBLIQUE)
    session.node.SetName("Řez č. 1")
    session.apply(resultOf())
    session.paint("a", voxels((4, 1, slice(1, 4))))
    wanted = session.strokes
    assert scene_host.scene.WriteToMRB(str(folder / "scéna 1.mrb"), None)
    del session
    scene_host.clear()
    assert scene_host.load_scene(folder / "scéna 1.mrb")
    node, volume = scene_host.scene.GetFirstNodeByName("Řez č. 1"), scene_host.scene.GetFirstNodeByName("image")
    assert AppliedResult().holding(node).holds is Holds.BOTH
    assert np.array_equal(read(node, volume), wanted)
    AppliedResult().apply(node, volume, resultOf(1), boundingBox(resultOf(1)), IDS)
    assert np.array_equal(read(node, volume), wanted)


def test_a_scene_added_to_itself_has_its_own_strokes(scene_host, tmp_path):
    """The same names, IDs and tokens twice."""
    session = Session(scene_host)
    session.apply(resultOf())
    assert scene_host.scene.WriteToMRB(str(tmp_path / "scene.mrb"), None)
    session.paint("a", voxels((4, 1, slice(1, 4))))
    here = session.strokes
    assert scene_host.scene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    nodes = [n for n in (scene_host.scene.GetNthNodeByClass(m, "vtkMRMLSegmentationNode") for m in range(4)) if n.GetNodeReference(STROKES_ROLE)]
    added = next(n for n in nodes if n is not session.node)
    assert KeptStrokes.keptNode(added) is not KeptStrokes.keptNode(session.node)
    assert np.array_equal(session.strokes, here)
    volume = added.GetNodeReference(added.GetReferenceImageGeometryReferenceRole())
    wanted = here.copy()
    wanted[4, 1, 1:4] = 0
    assert volume is not session.volume and np.array_equal(read(added, volume), wanted)


def test_an_applied_file_alone_is_input_again(scene_host, tmp_path):
    session = Session(scene_host)
    session.apply(resultOf())
    storage = scene_host.scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "applied.seg.nrrd"))
    assert storage.WriteData(session.node)
    loaded = scene_host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "loaded")
    assert storage.ReadData(loaded)
    strokes = readStrokes(takeSnapshot(loaded, session.volume))
    assert np.array_equal(np.maximum(strokes.annotation, 1) - 1, resultOf())
    assert len(strokes.notes) == 1 and "counts as strokes" in strokes.notes[0]
    assert AppliedResult().holding(loaded).holds is Holds.RESULT


def test_a_segment_copied_elsewhere_takes_no_strokes_along(session):
    session.apply(resultOf())
    other = makeSegmentation(session.node.GetScene(), name="other")
    other.GetSegmentation().CopySegmentFromSegmentation(session.node.GetSegmentation(), "a", False)
    assert np.count_nonzero(read(other, session.volume)) == (resultOf() == 1).sum()


def test_kept_strokes_move_with_the_segmentation(session):
    session.apply(resultOf())
    transform = putUnder(session.node, TURNED)
    putUnder(session.volume, TURNED)
    session.applied.follow(session.node, session.volume)
    assert KeptStrokes.keptNode(session.node).GetParentTransformNode() is transform
