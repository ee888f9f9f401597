"""Previews that come as boxes show what a whole one would, whatever happened to segments, locks, layer and node in between."""

import numpy as np
import pytest
import slicer
from scenes import GRIDS, LABELMAP, MOVED, PLAIN, SURFACE, makeSegmentation, makeVolume, putUnder, sameVoxels, segmentArray

from sparseseg.contract.box import whole
from sparseseg.contract.classes import ClassTable, Segment
from SparseSegSlicerLib.scene import Preview as PreviewModule
from SparseSegSlicerLib.scene.Preview import Preview
from SparseSegSlicerLib.scene.SceneImport import boundingBox
from SparseSegSlicerLib.session.Parameters import Parameters

SHAPE = (9, 10, 11)
IDS = ("a", "b", "c")
CLASSES = ClassTable(tuple(Segment(sid, sid.upper(), (0.5, 0.2, 0.1)) for sid in IDS))


class Shown:
    """A preview beside the label map that it should show."""

    def __init__(self, scene, grid=PLAIN, surface=False):
        self.volume, self.node = makeVolume(scene, grid, SHAPE), makeSegmentation(scene, *IDS)
        self.preview, self.locked = Preview(Parameters(scene)), ()
        self.preview._parameters.set("show3D", surface)
        self.labels = np.zeros(SHAPE, np.uint8)

    def whole(self, labels):
        self.labels = labels.copy()
        self.preview.show(self.node, self.volume, labels.copy(), boundingBox(labels), CLASSES, self.locked)
        self.check()

    def box(self, box, values):
        self.labels[box] = values
        self.preview.showBox(self.node, self.volume, box, np.asarray(values, np.uint8), CLASSES, self.locked)
        self.check()

    def randomBox(self, rng):
        box = tuple(slice(low := int(rng.integers(0, n)), int(rng.integers(low + 1, n + 1))) for n in SHAPE)
        self.box(box, rng.integers(0, 4, tuple(s.stop - s.start for s in box)).astype(np.uint8))

    def check(self):
        assert np.array_equal(self.preview.labels, self.labels)
        present = self.node.GetSegmentation().GetSegmentIDs()
        for value, sid in enumerate(IDS, start=1):
            if sid in present:
                assert sameVoxels((self.labels == value) & (sid not in self.locked), self.preview.node, sid, self.volume), sid
        inside = np.zeros(SHAPE, bool)
        inside[self.preview.box] = True
        assert not self.labels[~inside].any(), "Apply would miss voxels"


@pytest.fixture
def scene(scene_host):
    return scene_host.scene


def someLabels(seed=0):
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 2:7, 3:8] = np.random.default_rng(seed).integers(0, 4, (4, 5, 5))
    return labels


@pytest.mark.parametrize("seed", range(4))
def test_boxes_in_turn_show_what_a_whole_preview_shows(scene, seed):
    rng, shown = np.random.default_rng(seed), Shown(scene)
    shown.whole(someLabels(seed))
    for _ in range(12):
        what = rng.integers(0, 5)
        if what == 0:
            shown.locked = tuple(rng.choice(IDS, rng.integers(0, 3), replace=False).tolist())
            shown.preview.redraw(shown.locked)
            shown.check()
        elif what == 1:
            shown.whole(someLabels(int(rng.integers(0, 99))))
        else:
            shown.randomBox(rng)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_box_lies_on_the_volumes_voxels(scene, grid):
    shown = Shown(scene, GRIDS[grid])
    putUnder(shown.volume, MOVED)
    shown.whole(someLabels())
    shown.randomBox(np.random.default_rng(1))


def test_a_box_is_written_in_place_and_told_once(scene):
    shown = Shown(scene)
    shown.whole(someLabels())
    segmentation, told = shown.preview.node.GetSegmentation(), []
    image = segmentation.GetSegment("a").GetRepresentation(LABELMAP)
    scalars = image.GetPointData().GetScalars()
    assert all(segmentation.GetSegment(sid).GetRepresentation(LABELMAP) is image for sid in IDS), "one layer"
    events = slicer.vtkSegmentation
    tags = [segmentation.AddObserver(e, lambda _, name: told.append(name)) for e in (events.SourceRepresentationModified, events.SegmentModified)]
    before = image.GetMTime()
    shown.box((slice(0, 2), slice(0, 3), slice(0, 4)), np.ones((2, 3, 4)))
    assert len(told) == 1
    assert image.GetMTime() > before, "views draw it again"
    assert image.GetPointData().GetScalars() is scalars
    for tag in tags:
        segmentation.RemoveObserver(tag)


def test_a_box_before_any_whole_preview_lies_on_nothing(scene):
    shown = Shown(scene)
    shown.randomBox(np.random.default_rng(2))


def test_a_segment_deleted_and_brought_back_by_undo(scene):
    shown = Shown(scene)
    shown.whole(someLabels())
    shown.node.GetSegmentation().RemoveSegment("b")
    shown.preview.follow(shown.node)
    assert "b" not in shown.preview.node.GetSegmentation().GetSegmentIDs()
    shown.randomBox(np.random.default_rng(3))
    shown.node.GetSegmentation().AddEmptySegment("b", "B")
    shown.randomBox(np.random.default_rng(4))
    assert segmentArray(shown.preview.node, "b", shown.volume).any()


def test_a_renamed_segment_stays_itself(scene):
    shown = Shown(scene)
    shown.whole(someLabels())
    shown.node.GetSegmentation().GetSegment("b").SetName("Hepar")
    shown.preview.follow(shown.node)
    shown.randomBox(np.random.default_rng(5))
    assert shown.preview.node.GetSegmentation().GetSegment("b").GetName() == "Hepar"


@pytest.mark.parametrize("apart", [True, False])
def test_a_layer_that_somebody_else_changed_is_made_anew(scene, apart):
    """The user may paint in the preview, or split its layer; the next box shows the engine's labels again."""
    shown = Shown(scene)
    shown.whole(someLabels())
    if apart:
        shown.preview.node.GetSegmentation().SeparateSegmentLabelmap("b")
    slicer.util.updateSegmentBinaryLabelmapFromArray(np.ones(SHAPE, np.uint8), shown.preview.node, "a", shown.volume)
    shown.randomBox(np.random.default_rng(6))


def test_a_deleted_node_comes_back_whole_with_the_next_box(scene):
    shown = Shown(scene)
    shown.whole(someLabels())
    scene.RemoveNode(shown.preview.node)
    shown.preview.nodeIsGone()
    assert shown.preview.labels is None
    shown.randomBox(np.random.default_rng(7))


def test_surfaces_stand_until_boxes_pause_and_then_follow_one_at_a_time(scene, monkeypatch):
    shown = Shown(scene, surface=True)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:5, 2:8, 2:5], labels[6:8, 2:8, 2:5] = 1, 2
    shown.whole(labels)
    segmentation = shown.preview.node.GetSegmentation()

    def points(sid):
        return segmentation.GetSegment(sid).GetRepresentation(SURFACE).GetNumberOfPoints()

    assert segmentation.ContainsRepresentation(SURFACE) and not points("a")
    ticks(shown)
    assert points("a") and points("b") and not points("c")
    before = {sid: segmentation.GetSegment(sid).GetRepresentation(SURFACE) for sid in IDS}
    shown.box((slice(2, 5), slice(2, 8), slice(5, 9)), np.full((3, 6, 4), 3))
    ticks(shown)
    assert all(segmentation.GetSegment(sid).GetRepresentation(SURFACE) is before[sid] for sid in IDS), "boxes may go on coming"
    monkeypatch.setattr(PreviewModule.time, "monotonic", lambda: 1e12)
    ticks(shown)
    assert points("c")
    assert segmentation.GetSegment("a").GetRepresentation(SURFACE) is before["a"], "its voxels are the same"
    shown.locked = ("a",)
    shown.preview.redraw(shown.locked)
    ticks(shown)
    assert not points("a") and points("b")


def test_a_box_of_everything_is_a_whole_preview(scene):
    shown = Shown(scene)
    shown.box(whole(SHAPE), someLabels(8))


def ticks(shown):
    for _ in range(6):
        shown.preview.tick(shown.volume, shown.locked)
