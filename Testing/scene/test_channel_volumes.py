"""Several volumes in a session: what a run is given as its image, what a change of channels ends, what is remembered."""

import time

import numpy as np
import pytest
import slicer
from scenes import GRIDS, MOVED, NOWHERE, PLAIN, SHAPE, affine, makeSegmentation, makeVolume, makeWarp, paintLayer, putUnder, toMatrix
from scripted_engine import State

from phantoms import two_contrasts
from sparseseg.contract.classes import BACKGROUND_TAG
from sparseseg.contract.errors import InputError
from sparseseg.contract.job import IMAGE
from sparseseg.contract.store import IN_MEMORY
from SparseSegSlicerLib.scene.ChannelVolumes import channelGrid, imageOf
from SparseSegSlicerLib.scene.Grids import volumeArray, volumeGeometry
from SparseSegSlicerLib.session.Controller import Controller
from SparseSegSlicerLib.session.States import Launch


@pytest.fixture
def scene(scene_host):
    return scene_host.scene


def filled(scene, array, grid=PLAIN, name="T2"):
    node = makeVolume(scene, grid, shape=array.shape, name=name)
    slicer.util.updateVolumeFromArray(node, array)
    return node


def twice(grid):
    """Every other voxel along i."""
    return grid @ np.diag([2, 1, 1, 1])


RAMP = np.broadcast_to(np.arange(SHAPE[2], dtype=np.float32), SHAPE).copy()


# -- the image -----------------------------------------------------------------------------------------------------------


def test_one_volume_is_its_own_view(scene):
    volume = makeVolume(scene)
    assert np.shares_memory(imageOf(volume, [])(IN_MEMORY), volumeArray(volume))


@pytest.mark.parametrize("grid", GRIDS)
def test_others_are_stacked_and_resampled_where_they_lie_elsewhere(scene, grid):
    volume = makeVolume(scene, GRIDS[grid])
    same, coarse = filled(scene, RAMP, GRIDS[grid]), filled(scene, RAMP[:, :, ::2].copy(), twice(GRIDS[grid]))
    image = imageOf(volume, [same, coarse])(IN_MEMORY)
    assert image.shape == (3, *SHAPE) and image.dtype == np.float32
    assert np.array_equal(image[0], volumeArray(volume)) and np.array_equal(image[1], RAMP)
    assert np.allclose(image[2][..., :7], RAMP[..., :7], atol=1e-3)


@pytest.mark.parametrize(("above", "beside"), [(MOVED, NOWHERE), (NOWHERE, MOVED), (MOVED, MOVED)])
def test_transforms_of_both_count(scene, above, beside):
    volume = makeVolume(scene, PLAIN)
    own = np.linalg.inv(beside) @ above @ PLAIN  # where it must lie for the views to show both in one place
    other = filled(scene, RAMP, own)
    putUnder(volume, above)
    putUnder(other, beside)
    assert not channelGrid(other, volume).difference_from(volumeGeometry(volume))
    assert np.array_equal(imageOf(volume, [other])(IN_MEMORY)[1], RAMP)


def test_what_is_warped_or_elsewhere_is_refused(scene):
    volume, other = makeVolume(scene), filled(scene, RAMP)
    other.SetAndObserveTransformNodeID(makeWarp(scene).GetID())
    with pytest.raises(InputError, match="one is not linear"):
        imageOf(volume, [other])
    far = PLAIN.copy()
    far[:3, 3] += 1000
    with pytest.raises(InputError, match="T2 shows nothing where the image lies"):
        imageOf(volume, [filled(scene, RAMP, far)])(IN_MEMORY)


# -- the session ---------------------------------------------------------------------------------------------------------


def test_a_run_gets_all_channels_by_name(session):
    session.controller.setChannel(2, filled(session.scene, RAMP))
    session.train()
    run = session.controller.run
    assert run.record.channels == ("image", "T2") and run.image.shape == (2, *SHAPE)


def test_a_volume_on_another_grid_is_told_of(session):
    session.controller.setChannel(1, filled(session.scene, RAMP[:, :, ::2].copy(), twice(PLAIN)))
    assert session.controller.message.sentence == "T2 lies on another grid: it is resampled to that of image (linear)."


def test_the_volume_itself_and_one_twice_are_refused(session):
    other = filled(session.scene, RAMP)
    session.controller.setChannel(1, other)
    for place, node in ((2, other), (3, session.volume)):
        session.controller.setChannel(place, node)
        assert "among the volumes already" in session.controller.message.sentence
    assert session.controller.channels.nodes == [other]


@pytest.mark.parametrize("what", ["chosen", "none", "deleted", "other voxels", "moved"])
def test_other_channels_end_a_run_and_what_it_made(session, what):
    other = filled(session.scene, RAMP)
    if what != "chosen":
        session.controller.setChannel(1, other)
    session.segment()
    assert session.controller.preview.labels is not None
    if what == "chosen":
        session.controller.setChannel(1, other)
    elif what == "none":
        session.controller.setChannel(1, None)
    elif what == "deleted":
        session.scene.RemoveNode(other)
    elif what == "moved":
        putUnder(other, affine(np.eye(3), (1, 0, 0)))
    else:
        slicer.util.updateVolumeFromArray(other, RAMP + 1)
    controller = session.controller
    assert controller.run is None and controller.preview.labels is None and controller.state is State.IDLE
    assert "What was made before is gone" in controller.message.sentence
    assert controller.channels.nodes == ([] if what in ("none", "deleted") else [other])
    session.train()


def test_what_moves_together_goes_on(session):
    other = filled(session.scene, RAMP)
    session.controller.setChannel(1, other)
    transform = putUnder(session.volume, affine(np.eye(3), (1, 0, 0)))
    for node in (other, session.node):
        node.SetAndObserveTransformNodeID(transform.GetID())
    session.settle()
    session.segment()
    run = session.controller.run
    transform.SetMatrixTransformToParent(toMatrix(MOVED))
    session.settle()
    assert session.controller.run is run and session.controller.preview.labels is not None
    putUnder(session.volume, affine(np.eye(3), (2, 0, 0)))
    assert session.controller.run is None


def test_another_volume_begins_without_channels(session):
    session.controller.setChannel(1, filled(session.scene, RAMP))
    session.controller.setVolume(makeVolume(session.scene, name="other"))
    assert session.controller.channels.nodes == []


def test_a_saved_scene_has_its_channels(session):
    session.controller.setChannel(3, filled(session.scene, RAMP))
    path = session.folder / "scene.mrb"
    assert session.scene.WriteToMRB(str(path), None) and session.host.load_scene(path)
    node = session.controller.channels.node(3)
    assert node.GetName() == "T2" and np.array_equal(volumeArray(node), RAMP)


# -- the real engine -----------------------------------------------------------------------------------------------------


@pytest.fixture
def contrasts(scene_host, tmp_path):
    """A phantom that only both channels together tell apart, with its truth painted on two slices."""
    phantom, scene = two_contrasts(), scene_host.scene
    grid = phantom.geometry.ijk_to_ras()
    first, second = (filled(scene, channel, grid, name) for channel, name in zip(phantom.image, ("T1", "T2"), strict=True))
    node = makeSegmentation(scene, "one", "other", "background")
    paintLayer(node, {"background": 1, "one": 2, "other": 3}, phantom.annotation, grid)
    node.GetSegmentation().GetSegment("background").SetTag(BACKGROUND_TAG, "1")
    controller = Controller(scene, lambda: Launch(temporaryFolder=str(tmp_path)))
    for name, value in {"steps": 2, "width": 4, "depth": 2, "patch_voxels": 32**2, "estimate": False}.items():
        controller.parameters.setSetting(name, value)
    controller.setInputs(first, node)
    controller.setChannel(1, second)
    yield controller, phantom
    for thread in controller.close():
        thread.join(20)


def spin(controller, until, patience_s=240):
    end = time.monotonic() + patience_s
    while not until():
        assert time.monotonic() < end and controller.message.level != "error", controller.message.text() + "\n".join(controller.log)
        controller.poll()
        time.sleep(0.02)


@pytest.mark.slow
def test_two_channels_tell_what_neither_shows_alone(contrasts):
    controller, phantom = contrasts
    spin(controller, lambda: controller.strokes is not None)
    controller.train()
    spin(controller, lambda: controller.state is State.RESULT)
    assert np.array_equal(np.load(controller.run.folder / IMAGE), phantom.image)
    free = phantom.annotation == 0
    assert (controller.preview.labels[free] == phantom.truth[free]).mean() > 0.9
    array = volumeArray(controller.volumeNode)
    assert controller.run.hasImage(array) and not controller.run.hasImage(array + 1)
