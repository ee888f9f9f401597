"""Volumes in time, with Slicer's own sequences: which frame a proxy shows, and what a session makes of the others."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from applying import STROKES
from scenes import SHAPE, makeSegmentation, makeVolume, paint
from sequences import makeSequence

from sparseseg.contract.classes import ClassTable, Segment
from SparseSegSlicerLib.scene.Grids import volumeArray, volumeGeometry
from SparseSegSlicerLib.scene.SceneImport import boundingBox
from SparseSegSlicerLib.scene.Sequences import frameOf
from SparseSegSlicerLib.session.Allowed import Action
from SparseSegSlicerLib.session.Controller import Controller, State


@pytest.fixture
def scene(scene_host):
    return scene_host.scene


def test_a_proxy_says_which_frame_it_shows(scene):
    browser, volume, go = makeSequence(scene)
    assert frameOf(volume) == (browser, 0, "frame 1 of 3 (time 0.0 s)")
    go(2)
    assert frameOf(volume) == (browser, 2, "frame 3 of 3 (time 1.0 s)")
    assert slicer.util.arrayFromVolume(volume).max() == 2


def test_other_volumes_have_no_frame(scene):
    browser, volume, _ = makeSequence(scene)
    assert frameOf(makeVolume(scene)) is None and frameOf(None) is None
    scene.RemoveNode(browser)
    assert frameOf(volume) is None
    scene.RemoveNode(volume)
    assert frameOf(volume) is None


def test_a_browser_without_frames_shows_none(scene):
    browser, volume, _ = makeSequence(scene)
    browser.GetMasterSequenceNode().RemoveAllDataNodes()
    assert frameOf(volume) is None


class Beat:
    """A session with a result on the second frame of three, as a run leaves it."""

    def __init__(self, scene):
        _, self.volume, self.go = makeSequence(scene, shape=SHAPE)
        self.node = makeSegmentation(scene, "a", ("background", "Background"))
        for sid in ("a", "background"):
            paint(self.node, sid, STROKES[sid])
        self.go(1)
        self.controller = Controller(scene)
        self.controller.setVolume(self.volume)
        self.controller.setSegmentation(self.node)
        self.image = volumeArray(self.volume).copy()
        self.controller.run = SimpleNamespace(
            classes=SimpleNamespace(ids=["a"]),
            update=lambda *_: None,
            geometry=volumeGeometry(self.volume),
            hasImage=lambda image: np.array_equal(image, self.image),
            poll=lambda: [],
            close=lambda: SimpleNamespace(is_alive=lambda: False, join=lambda timeout: None),
            log="",
            revision=0,
        )
        self.controller.frames.begin()
        self.show()
        self.controller.become(State.RESULT, None)

    def show(self):
        labels = np.asarray(STROKES["a"], np.uint8)
        table = ClassTable((Segment("a", "a", (1, 0, 0)),))
        self.controller.preview.show(self.node, self.volume, labels, boundingBox(labels), table, ())

    def poll(self):
        for _ in range(20):
            self.controller.poll()
            time.sleep(0.01)

    @property
    def shown(self):
        preview = self.controller.preview.node
        return self.node.GetDisplayVisibility(), preview is not None and preview.GetDisplayVisibility()


@pytest.fixture
def beat(scene):
    beat = Beat(scene)
    yield beat
    beat.controller.close()


def test_a_result_is_hidden_on_other_frames_and_comes_back_with_its_own(beat):
    beat.go(2)
    beat.poll()
    assert beat.shown == (0, 0)
    assert "belong to frame 2 of 3 (time 0.5 s); this is frame 3 of 3 (time 1.0 s)" in beat.controller.message.text()
    assert not {Action.SEGMENT, Action.APPLY, Action.UPDATE} & beat.controller.allowed()
    beat.go(1)
    beat.poll()
    assert beat.shown == (1, 1)
    assert "frame 2 of 3 (time 0.5 s) again" in beat.controller.message.text()
    assert beat.controller.hasRun and beat.controller.state is State.RESULT and Action.APPLY in beat.controller.allowed()


def test_a_preview_that_comes_meanwhile_waits(beat):
    beat.controller.preview.remove()
    beat.go(0)
    beat.show()
    assert beat.shown == (0, 0)
    beat.go(1)
    assert beat.shown == (1, 1)


def test_after_discard_strokes_are_of_no_frame(beat):
    beat.go(0)
    beat.controller.discard()
    assert beat.node.GetDisplayVisibility() == 1
    beat.go(2)
    beat.poll()
    assert beat.node.GetDisplayVisibility() == 1 and Action.SEGMENT in beat.controller.allowed()


def test_another_segmentation_is_free_for_another_frame(beat, scene):
    beat.go(0)
    other = makeSegmentation(scene, "a", name="other")
    beat.controller.setSegmentation(other)
    assert other.GetDisplayVisibility() == 1 and Action.SEGMENT in beat.controller.allowed()
    beat.controller.setSegmentation(beat.node)
    assert beat.node.GetDisplayVisibility() == 0
    beat.go(1)
    assert beat.node.GetDisplayVisibility() == 1


def test_other_voxels_in_the_same_frame_still_end_the_session(beat):
    slicer.util.updateVolumeFromArray(beat.volume, beat.image + 5)
    beat.poll()
    assert "the volume's voxels have changed" in beat.controller.message.text() and not beat.controller.hasRun
