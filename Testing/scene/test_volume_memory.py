"""Volumes of any size: what is mapped, what is done in parts, and that neither is noticed but by the memory that it saves."""

import gc
import time
import tracemalloc
import weakref

import applying
import numpy as np
import pytest
import slicer
from applying import IDS, STROKES, resultOf
from scenes import makeSegmentation, makeVolume, paint, paintLayer, sameVoxels, voxels
from scripted_engine import Session
from vtk.util import numpy_support

from sparseseg.contract import box as boxes
from sparseseg.contract import scratch
from sparseseg.contract.box import box_to_json, whole
from sparseseg.contract.classes import ClassTable, Segment
from sparseseg.contract.errors import OutputError
from sparseseg.contract.protocol import Preview as PreviewEvent
from SparseSegSlicerLib.scene import KeptStrokes, VolumeMemory
from SparseSegSlicerLib.scene.AppliedResult import AppliedResult
from SparseSegSlicerLib.scene.Layers import LayerCopies
from SparseSegSlicerLib.scene.LevelMap import Levels
from SparseSegSlicerLib.scene.Preview import Preview
from SparseSegSlicerLib.scene.SceneExport import copyAhead, takeSnapshot
from SparseSegSlicerLib.scene.SceneImport import boundingBox
from SparseSegSlicerLib.scene.StrokeReader import StrokeReader, filledSegments, readResult, readStrokes
from SparseSegSlicerLib.scene.VolumeMemory import LabelMemory
from SparseSegSlicerLib.session import Controller
from SparseSegSlicerLib.session.Parameters import Parameters

LARGE = (256, 64, 64)  # a million voxels, of which a slice is worked on at a time


@pytest.fixture
def scene(scene_host):
    return scene_host.scene


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(VolumeMemory, "LEAST_BYTES", 1)


@pytest.fixture
def small_parts(monkeypatch):
    """One slice at a time, one slice a poll."""
    monkeypatch.setattr(boxes, "_SLAB_VOXELS", 1)
    monkeypatch.setattr(Controller, "MOMENT_S", 0.0)


def is_mapped(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return type(array).__name__ in ("mmap", "memoryview")


# -- memory ----------------------------------------------------------------------------------------------------------------


def test_memory_of_an_image_stays_as_long_as_the_image():
    labels = np.zeros((2, 3, 4), np.uint8)
    labels.flat = range(24)
    gone = weakref.ref(labels)
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(4, 3, 2)
    image.GetPointData().SetScalars(LabelMemory(labels).scalars)
    del labels
    gc.collect()
    shown = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    assert gone() is not None and shown.tolist() == list(range(24))
    gone()[0, 0, 1] = 77
    assert shown[1] == 77
    del shown
    image.GetPointData().SetScalars(None)
    gc.collect()
    assert gone() is None


def test_large_arrays_are_mapped_where_the_disk_has_room(scene, monkeypatch):
    monkeypatch.setattr(VolumeMemory, "LEAST_BYTES", 120)
    assert is_mapped(VolumeMemory.zeros((4, 5, 6))) and not is_mapped(VolumeMemory.zeros((4, 5, 5)))
    assert is_mapped(VolumeMemory.zeros((4, 5, 2), np.float32))

    def full(*_):
        raise OutputError("The disk is full.")

    monkeypatch.setattr(scratch.Scratch, "mapped", full)
    zeros = VolumeMemory.zeros((4, 5, 6), np.float32)
    assert not is_mapped(zeros) and zeros.dtype == np.float32 and not zeros.any()


@pytest.mark.parametrize("size", ["small", "large"])
def test_labels_may_be_written_to_and_their_file_deleted(tmp_path, monkeypatch, size):
    monkeypatch.setattr(VolumeMemory, "LEAST_BYTES", 1 if size == "large" else 1000)
    labels, file = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), tmp_path / "labels.npy"
    np.save(file, labels)
    loaded = VolumeMemory.load(str(file))
    assert is_mapped(loaded) == (size == "large")
    loaded[0] = 7
    assert np.array_equal(np.load(file), labels)
    file.unlink()
    assert (loaded[0] == 7).all() and np.array_equal(loaded[1], labels[1])


# -- nothing else is noticed -----------------------------------------------------------------------------------------------


def test_a_session_on_a_large_volume_is_any_session(everything_is_large, small_parts, scene_host, tmp_path):
    session = Session(scene_host, tmp_path)
    before = session.controller.strokes.annotation.copy()
    assert is_mapped(session.controller.strokes.annotation)
    session.segment(resultOf())
    assert is_mapped(session.controller.preview.labels) and is_mapped(session.controller.preview._layer._memory.array)
    box = (slice(1, 4), slice(0, 5), slice(0, 8))
    expected = resultOf()
    expected[box] = resultOf(1)[box]
    _showBox(session, box, expected[box])
    session.spin(lambda: session.controller.preview.revision == 9)
    assert np.array_equal(session.controller.preview.labels, expected)
    assert all(sameVoxels(expected == n, session.controller.preview.node, sid, session.volume) for n, sid in enumerate(IDS, start=1))
    session.apply()
    assert session.holds(expected)
    session.settle()
    assert np.array_equal(session.controller.strokes.annotation, before)
    session.paint("a", voxels((0, 6, slice(2, 5))))
    session.settle()
    assert (session.controller.strokes.annotation[0, 6, 2:5] == 2).all()
    session.controller.run.ends(resultOf(1))
    session.spin(lambda: np.array_equal(session.controller.preview.labels, resultOf(1)))
    session.apply()
    assert session.holds(resultOf(1))
    session.settle()
    assert (session.controller.strokes.annotation[0, 6, 2:5] == 2).all()
    for _ in range(3):
        session.undo()
    assert np.array_equal(session.controller.strokes.annotation, before)
    session.close()


def _showBox(session, box, values):
    """The session's engine sends a part."""
    file = session.controller.run.folder / "part.npy"
    np.save(file, values)
    session.controller.run.says(PreviewEvent("train", 9, str(file), "network", 1, 0.0, box_to_json(box)))


# -- a part at a time ------------------------------------------------------------------------------------------------------


def test_what_is_painted_while_a_layer_is_copied_is_in_the_copy(scene):
    volume, node = makeVolume(scene), makeSegmentation(scene, "a", "b")
    paint(node, "a", voxels((2, 2, slice(1, 4))))
    paint(node, "b", voxels((3, 5, slice(4, 7))))
    copies = LayerCopies()
    for _ in range(4):
        assert not copyAhead(node, volume, copies, 0.0)
    image = node.GetSegmentation().GetSegment("a").GetRepresentation("Binary labelmap")
    array = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions())))
    array[0, 0, 5] = 1  # on a slice that is copied already
    image.Modified()
    steps = 1
    while not copyAhead(node, volume, copies, 0.0):
        steps += 1
    assert steps == 11
    copied = takeSnapshot(node, volume, copies=copies)
    assert np.array_equal(readStrokes(copied).annotation, readStrokes(takeSnapshot(node, volume)).annotation)
    assert readStrokes(copied).annotation[0, 0, 5] == 2
    assert takeSnapshot(node, volume, copies=copies).isSame(copied)


def test_strokes_are_read_over_several_polls(small_parts, session):
    session.settle()
    session.paint("a", voxels((0, 6, slice(2, 5))))
    session.controller.refresh()
    polls = 0
    while not session.controller.isSettled:
        session.controller.poll()
        polls += 1
        if polls == 3:
            session.paint("b", voxels((0, 0, slice(2, 5))))
    session.settle()
    assert polls > 6
    annotation = session.controller.strokes.annotation
    assert np.array_equal(annotation, applying.read(session.node, session.volume)) and annotation[0, 6, 3] == 2 and annotation[0, 0, 3] == 3


def test_what_takes_longer_shares_one_moment_of_a_poll(session, monkeypatch):
    controller, given = session.controller, []

    def watched(work):
        return lambda *arguments: (given.append(arguments[-1]), work(*arguments))[1]

    for part, name in ((controller.feed, "poll"), (controller.previews, "poll"), (controller._applying, "poll"), (controller.preview, "tick")):
        monkeypatch.setattr(part, name, watched(getattr(part, name)))
    begin = time.perf_counter()
    controller.poll()
    assert len(given) == 4 and len(set(given)) == 1
    assert begin < given[0] < time.perf_counter() + Controller.MOMENT_S


@pytest.mark.parametrize("then", ["apply", "cancel", "discard", "delete"])
def test_a_large_box_is_shown_whole_or_not_at_all(small_parts, session, then):
    first, second = resultOf(), resultOf(1)
    session.segment(first)
    box = whole(first.shape)
    _showBox(session, box, second)
    feed, preview = session.controller.previews, session.controller.preview
    session.spin(lambda: not np.array_equal(preview.labels, first))
    assert feed._begun is not None and not np.array_equal(preview.labels, second)
    if then == "apply":
        session.apply()
        assert session.holds(second)
    elif then == "cancel":
        session.controller._training.end("enough")
        assert np.array_equal(preview.labels, second)
        assert all(sameVoxels(second == n, preview.node, sid, session.volume) for n, sid in enumerate(IDS, start=1))
    elif then == "discard":
        session.controller.discard()
        assert preview.labels is None and preview.node is None
    else:
        session.scene.RemoveNode(preview.node)
        session.spin(lambda: feed._begun is None)
        assert preview.node is None and np.array_equal(preview._lost[0], second)


def test_polls_of_a_large_box_are_many(small_parts, session):
    session.segment(resultOf())
    _showBox(session, whole(resultOf().shape), resultOf(1))
    polls = 0
    while session.controller.preview.revision != 9:
        session.controller.poll()
        polls += session.controller.previews._begun is not None
    assert polls >= resultOf().shape[0] - 1


# -- kept strokes ----------------------------------------------------------------------------------------------------------


def _corrected(scene, strokes):
    """Strokes in layers of their own, applied, corrected, and applied again: what is kept."""
    volume, node = makeVolume(scene), makeSegmentation(scene, *strokes, ("background", "Background"))
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for sid, mask in strokes.items():
        paint(node, sid, mask)
    paint(node, "background", STROKES["background"])
    applied = AppliedResult()
    applied.apply(node, volume, resultOf(), boundingBox(resultOf()), IDS)
    image = node.GetSegmentation().GetSegment("a").GetRepresentation("Binary labelmap")
    array = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions())))
    array[array == 0] = np.where(np.arange((array == 0).sum()) == 3, 1, 0)  # one voxel more
    image.Modified()
    annotation = applying.read(node, volume)
    applied.apply(node, volume, resultOf(1), boundingBox(resultOf(1)), IDS)
    assert np.array_equal(applying.read(node, volume), annotation)
    return KeptStrokes.keptNode(node).GetSegmentation(), volume, KeptStrokes.keptNode(node)


def _layers(segmentation):
    return {segmentation.GetSegment(sid).GetRepresentation("Binary labelmap").GetAddressAsString("vtkDataObject") for sid in IDS}


def test_corrected_strokes_that_do_not_overlap_are_kept_in_one_layer(scene):
    kept, _, _ = _corrected(scene, {sid: STROKES[sid] for sid in IDS})
    assert len(_layers(kept)) == 1


def test_corrected_strokes_that_overlap_are_kept_apart(scene):
    strokes = {"a": voxels((2, 2, slice(1, 5))), "b": voxels((2, 2, slice(3, 7)))}
    kept, volume, node = _corrected(scene, strokes)
    assert len(_layers(kept)) == 2
    assert sameVoxels(strokes["b"], node, "b", volume)


# -- bytes a voxel ---------------------------------------------------------------------------------------------------------


class Allocated:
    """The most that numpy held at a time of what is made within, in bytes a voxel of LARGE."""

    def __enter__(self):
        gc.collect()
        tracemalloc.start()
        return self

    def __exit__(self, *_):
        self.peak = tracemalloc.get_traced_memory()[1] / np.prod(LARGE)
        self.kept = tracemalloc.get_traced_memory()[0] / np.prod(LARGE)
        tracemalloc.stop()


@pytest.fixture
def large(scene, monkeypatch):
    """A volume whose strokes are on three slices, and a result that is three quarters of it."""
    monkeypatch.setattr(boxes, "_SLAB_VOXELS", 1)
    volume, node = makeVolume(scene, shape=LARGE), makeSegmentation(scene, "a", "b", ("background", "Background"))
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    strokes, result = np.zeros(LARGE, np.uint8), np.zeros(LARGE, np.uint8)
    result[32:224, :32], result[32:224, 32:] = 1, 2
    strokes[[80, 160]] = result[[80, 160]]
    strokes[1, :5] = 3
    paintLayer(node, {"a": 1, "b": 2, "background": 3}, strokes)
    return volume, node, result


SLACK = 0.35  # of a slice in ten numbers of eight bytes for each of its voxels


def test_reading_strokes_makes_the_annotation_and_a_copy_of_the_layer(large):
    volume, node, _ = large
    copies = LayerCopies()
    reader = StrokeReader(copies)
    with Allocated() as allocated:
        snapshot = takeSnapshot(node, volume, copies=copies)
    assert allocated.peak < 1.25 + SLACK
    with Allocated() as allocated:
        reading = reader.read(snapshot)
    assert allocated.peak < 1 + SLACK and reading.problem is None
    with Allocated() as allocated:
        reader.details()
    assert allocated.peak < SLACK


def test_reading_a_result_makes_the_result(large):
    volume, node, result = large
    applied = AppliedResult()
    applied.apply(node, volume, result, boundingBox(result), IDS)
    snapshot = takeSnapshot(node, volume, results=True)
    with Allocated() as allocated:
        labels, _ = readResult(snapshot)
        assert filledSegments(snapshot) == ["a", "b"]
    assert allocated.peak < 1 + SLACK
    assert np.array_equal(labels, result)


def test_applying_makes_what_is_kept(large):
    """The strokes, and the result as it was applied; what goes into the segmentation is VTK's."""
    volume, node, result = large
    applied, copies = AppliedResult(), LayerCopies()
    for most in (1 + 0.75, 2 + 0.75):  # the second one: strokes and erased with corrections, made and kept
        replacement = applied.begin(node, volume, result, boundingBox(result), IDS, copies=copies)
        with Allocated() as allocated:
            replacement.make()
        assert allocated.peak < most + SLACK
        applied.finish(node, volume, replacement)
        image = node.GetSegmentation().GetSegment("a").GetRepresentation("Binary labelmap")
        array = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(tuple(reversed(image.GetDimensions())))
        array[0, 0, 0] = array[-1, -1, -1] = 2
        image.Modified()


def test_a_box_makes_nothing(large, scene):
    volume, node, result = large
    preview = Preview(Parameters(scene))
    classes = ClassTable(tuple(Segment(sid, sid, (0.5, 0.2, 0.1)) for sid in IDS))
    preview.show(node, volume, result.copy(), boundingBox(result), classes, ())
    changed = np.roll(result, 3, axis=1)
    with Allocated() as allocated:
        preview.showBox(node, volume, whole(LARGE), changed, classes, ())
    assert allocated.peak < SLACK
    assert np.array_equal(preview.labels, changed)


def test_weights_make_their_levels():
    with Allocated() as allocated:
        Levels.of(LARGE, lambda: (np.full(LARGE[1:], k, np.float32) for k in range(LARGE[0])))
    assert allocated.peak < 1 + SLACK
