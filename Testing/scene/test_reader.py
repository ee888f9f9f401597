"""Strokes read box by box are those that are read whole; only what changed is copied, and into memory that is there already."""

from dataclasses import replace

import numpy as np
import pytest
from scenes import LABELMAP, MOVED, PARENTS, PLAIN, TURNED, affine, makeSegmentation, makeVolume, paint, paintLayer, putUnder, voxels

from sparseseg.contract.box import shape_of, whole
from sparseseg.contract.settings import Settings
from SparseSegSlicerLib.scene.Layers import LayerCopies
from SparseSegSlicerLib.scene.SceneExport import missingMemory, takeSnapshot
from SparseSegSlicerLib.scene.StrokeReader import Choices, StrokeReader, readStrokes

SHAPE = (9, 10, 11)
IDS = ("a", "b", "c")


@pytest.fixture
def scene(scene_host):
    return scene_host.scene


class Follower:
    """Reads as a session does, and keeps what a host would know of the annotation from the boxes alone."""

    def __init__(self, node, volume):
        self.node, self.volume, self.copies = node, volume, LayerCopies()
        self.reader, self.told = StrokeReader(self.copies), None

    def read(self, **choices):
        chosen = Choices(**choices)
        self.copies.reserve(missingMemory(self.node, self.copies, chosen.unused))
        snapshot = takeSnapshot(self.node, self.volume, chosen.unused, copies=self.copies)
        reading = self.reader.read(snapshot, chosen, Settings(), quick=True)
        if not reading.current:
            reading = replace(self.reader.details(Settings()), changed=reading.changed)
        self.tell(reading)
        fresh = StrokeReader().read(takeSnapshot(self.node, self.volume, chosen.unused), chosen, Settings())
        same(reading, fresh)
        return reading

    def tell(self, reading):
        annotation = reading.strokes.annotation
        if self.told is None or self.told.shape != annotation.shape:
            self.told = annotation.copy()
        elif reading.changed is not None:
            self.told[reading.changed] = annotation[reading.changed]
        assert np.array_equal(self.told, annotation), "a change lies outside of the box"


def same(reading, fresh):
    assert np.array_equal(reading.strokes.annotation, fresh.strokes.annotation)
    for part in ("classes", "complete", "slices", "notes", "digest"):
        assert getattr(reading.strokes, part) == getattr(fresh.strokes, part), part
    assert [(r.name, r.voxels, r.slices) for r in reading.summary] == [(r.name, r.voxels, r.slices) for r in fresh.summary]
    assert np.allclose([r.weight for r in reading.summary], [r.weight for r in fresh.summary])
    assert str(reading.problem) == str(fresh.problem)


def layer(rng, shape):
    drawn = np.zeros(shape, np.uint8)
    for value in (1, 2, 3):
        drawn[tuple(slice(low := rng.integers(0, n), low + rng.integers(1, 4)) for n in shape)] = value
    return drawn


def arrayOf(node, sid):
    from vtk.util import numpy_support

    image = node.GetSegmentation().GetSegment(sid).GetRepresentation(LABELMAP)
    if not image.GetNumberOfPoints():
        return image, np.zeros((0, 0, 0))
    return image, numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions())))


def strokeInto(node, sid, rng, value):
    """In place, as effects do; value 0 erases."""
    image, array = arrayOf(node, sid)
    if not array.size:
        return
    array[tuple(slice(low := rng.integers(0, n), low + rng.integers(1, 4)) for n in array.shape)] = value
    image.GetPointData().GetScalars().Modified()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("parents", ["no transform", "different"])
@pytest.mark.parametrize("seed", range(6))
def test_strokes_in_turn_give_what_one_reading_gives(scene, seed, parents, shared):
    """Strokes, erasures, overlaps, layers that grow, segments that come, go and are emptied, slices that are complete or ignored."""
    rng = np.random.default_rng(seed)
    ofVolume, ofSegmentation = PARENTS[parents]
    volume, node = makeVolume(scene, PLAIN, SHAPE), makeSegmentation(scene, *IDS, ("rest", "Background"))
    putUnder(volume, ofVolume)
    putUnder(node, ofSegmentation)
    frame = np.linalg.inv(ofSegmentation) @ ofVolume @ PLAIN
    paint(node, "rest", voxels((0, 0, 0), shape=SHAPE), frame)
    follower, choices = Follower(node, volume), {}
    for _ in range(25):
        what = rng.integers(0, 9)
        if what <= 4:
            strokeInto(node, rng.choice(["a", "rest"]), rng, rng.integers(0, 4))
        elif what == 5:
            start = tuple(int(v) for v in rng.integers(-2, 3, 3))
            part = layer(rng, tuple(int(v) for v in rng.integers(4, 9, 3)))
            if shared:
                paintLayer(node, {"a": 1, "b": 2, "c": 3}, part, frame, start)
            else:
                for value, sid in enumerate(IDS, start=1):
                    paint(node, sid, part == value, frame, start)
        elif what == 6:
            paint(node, "b", layer(rng, (3, 4, 5)) == 1, frame, (2, 2, 2))
        elif what == 7:
            choices = {"complete": ((0, int(rng.integers(0, 9))),), "ignored": ((1, 3),) if rng.random() < 0.3 else ()}
        else:
            choices = [{}, {"unused": (str(rng.choice(IDS)),)}, {"table": ("b",)}, {"table": IDS}][rng.integers(0, 4)]
        follower.read(**choices)


def test_one_stroke_is_one_small_box(scene):
    volume, node = makeVolume(scene, PLAIN, SHAPE), makeSegmentation(scene, *IDS)
    paintLayer(node, {"a": 1, "b": 2, "c": 3}, layer(np.random.default_rng(1), SHAPE))
    follower = Follower(node, volume)
    assert follower.read().changed == whole(SHAPE)
    assert follower.read().changed is None
    image, array = arrayOf(node, "a")
    array[4, 5, 6:9] = array[4, 5, 6:9] % 3 + 1
    image.Modified()
    annotation = follower.read().strokes.annotation
    array[4, 5, 6:9] = array[4, 5, 6:9] % 3 + 1
    image.Modified()
    reading = follower.read()
    assert reading.changed == (slice(4, 5), slice(5, 6), slice(6, 9))
    assert reading.strokes.annotation is annotation, "written in place"


def test_that_a_training_has_begun_is_no_reason_to_read_all_anew(scene, monkeypatch):
    """It knows all segments that are there, painted or not."""
    from SparseSegSlicerLib.scene import StrokeReader as module

    volume, node = makeVolume(scene, PLAIN, SHAPE), makeSegmentation(scene, *IDS, ("rest", "Background"))
    paint(node, "a", layer(np.random.default_rng(1), SHAPE) == 1)
    paint(node, "rest", voxels((0, 0, 0), shape=SHAPE))
    reader = StrokeReader()
    before = reader.read(takeSnapshot(node, volume), Choices())
    assert before.strokes.classes.ids == list(IDS)
    monkeypatch.setattr(module, "_whole", lambda *_: pytest.fail("all was read anew"))
    assert reader.read(takeSnapshot(node, volume), Choices(table=IDS), quick=True).strokes.classes.ids == list(IDS)


def test_undone_strokes_have_the_digest_of_before(scene):
    volume, node = makeVolume(scene, PLAIN, SHAPE), makeSegmentation(scene, "a")
    paint(node, "a", voxels((1, 1, 1), (5, 5, 5), shape=SHAPE))
    follower = Follower(node, volume)
    before = follower.read().strokes.digest
    image, array = arrayOf(node, "a")
    for value in (1, 0):
        array[2, 2, 2:6] = value
        image.Modified()
        assert (follower.read().strokes.digest == before) is (value == 0)


def test_only_layers_that_changed_are_copied_and_no_memory_is_made(scene):
    volume, node = makeVolume(scene, PLAIN, SHAPE), makeSegmentation(scene, *IDS)
    for sid in IDS:
        paint(node, sid, layer(np.random.default_rng(2), SHAPE) == 1)
    follower = Follower(node, volume)
    follower.read()
    image, array = arrayOf(node, "b")
    seen = set()
    for n in range(6):
        array[3, 3, n] ^= 1
        image.Modified()
        before = {layer.key: layer.values for layer in follower.reader._state.snapshot.layers}
        sizes = missingMemory(node, follower.copies)
        assert n == 0 or not sizes, "memory of the snapshot before the last is used again"
        follower.read()
        after = {layer.key: layer.values for layer in follower.reader._state.snapshot.layers}
        assert sum(after[key] is not before[key] for key in after) == 1
        seen |= {layer.memory.ctypes.data for layer in follower.reader._state.snapshot.layers}
    assert len(seen) <= len(IDS) + 1


def test_another_geometry_or_transform_is_read_whole(scene):
    volume, node = makeVolume(scene, PLAIN, SHAPE), makeSegmentation(scene, "a")
    paint(node, "a", voxels((4, 4, 4), (5, 5, 5), shape=SHAPE))
    follower = Follower(node, volume)
    follower.read()
    putUnder(volume, affine(np.eye(3), (-0.8, 0, 0)))  # one voxel along i
    assert shape_of(follower.read().changed) == (2, 2, 3)
    putUnder(node, MOVED)
    follower.read()
    putUnder(volume, TURNED)
    follower.read()


def test_a_reading_that_failed_is_followed_by_a_whole_one(scene, monkeypatch):
    from SparseSegSlicerLib.scene import Merging

    volume, node = makeVolume(scene, PLAIN, SHAPE), makeSegmentation(scene, "a")
    paint(node, "a", voxels((4, 4, 4), shape=SHAPE))
    follower = Follower(node, volume)
    follower.read()
    snapshot = takeSnapshot(node, volume, copies=follower.copies)
    with monkeypatch.context() as patch:
        patch.setattr(Merging, "changed", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            follower.reader.read(snapshot, Choices())
    assert follower.read().changed == whole(SHAPE)
    assert np.array_equal(readStrokes(snapshot).annotation, follower.told)


def test_memory_that_was_lent_is_not_written_to(scene):
    """Apply reads copies at its own pace, while strokes go on being read."""
    volume, node = makeVolume(scene), makeSegmentation(scene, "a")
    paint(node, "a", voxels((1, 1, slice(0, 4))))
    copies = LayerCopies()
    reader = StrokeReader(copies)
    reader.read(takeSnapshot(node, volume, copies=copies))
    lent = takeSnapshot(node, volume, copies=copies.lend())
    before = lent.layers[0].values.copy()
    assert lent.layers[0].values is next(iter(copies._layers.values())).values, "nothing was copied"
    for n in range(4):
        paint(node, "a", voxels((2, n, slice(0, 4))))
        reader.read(takeSnapshot(node, volume, copies=copies))
    assert np.array_equal(lent.layers[0].values, before)
