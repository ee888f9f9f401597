"""Volumes in time, with Slicer's own sequences: which frame a proxy shows, and what a session makes of the others."""

import pytest
import slicer
from scenes import makeVolume
from sequences import makeSequence

from SparseSegSlicerLib.scene.Sequences import frameOf


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
