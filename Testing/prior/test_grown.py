"""The growing voice: an update gives what starting anew with the same plan gives, whatever the strokes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sparseseg.contract.box import Box, union, whole
from sparseseg.prior import compiled, grid, growing, scales, vote
from sparseseg.prior.grown import Grown, compute_prior
from sparseseg.prior.standing import in_doubt

SPACING = (2.0, 1.0, 1.0)
WITH_NUMBA = pytest.mark.skipif(not compiled.available(), reason="needs numba")


@pytest.fixture(params=["numpy", pytest.param("numba", marks=WITH_NUMBA)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "numba":
        assert compiled.warm_up()
    else:
        without_numba(monkeypatch)
    yield request.param


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (growing, grid, vote):
        monkeypatch.setattr(module, "kernels", lambda: None)


@pytest.fixture(params=["voxels", "cells"])
def coarse(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "cells":
        monkeypatch.setattr(scales, "ALL_VOXELS", 0)
        monkeypatch.setattr(scales, "NOISY_CELLS", 700)
        monkeypatch.setattr(scales, "SHARP_CELLS", 700)
    return bool(request.param == "cells")


class Scene:
    """Two bright balls in noise, and an annotation that a test paints on."""

    def __init__(self, seed: int, shape: tuple[int, int, int] = (11, 22, 25)) -> None:
        self.rng = np.random.default_rng(seed)
        k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
        self.truth = np.zeros(shape, np.uint8)
        self.truth[(2 * (k - 5)) ** 2 + (j - 8) ** 2 + (i - 8) ** 2 < 30] = 1
        self.truth[(2 * (k - 6)) ** 2 + (j - 13) ** 2 + (i - 17) ** 2 < 30] = 2
        self.image = (self.truth * 60.0 + self.rng.normal(0, 15, shape)).astype(np.int16)
        self.labels, self.labelled = np.zeros(shape, np.uint8), np.zeros(shape, bool)
        for axis, index in ((0, 4), (0, 7), (1, 10)):
            self.complete(axis, index)

    def complete(self, axis: int, index: int) -> Box:
        box = [slice(0, n) for n in self.truth.shape]
        box[axis] = slice(index, index + 1)
        return self.paint((box[0], box[1], box[2]), None)

    def paint(self, box: Box, value: int | None) -> Box:
        """value: a class, -1 erases, None as the truth is."""
        self.labelled[box] = value != -1
        self.labels[box] = self.truth[box] if value is None else max(value, 0)
        return box

    def anywhere(self) -> Box:
        k, j, i = (slice(a, a + int(self.rng.integers(1, 5))) for a in (int(self.rng.integers(n)) for n in self.truth.shape))
        return (k, j, i)

    def stroke(self) -> Box:
        if self.rng.integers(6) == 0:
            axis = int(self.rng.integers(3))
            box = self.complete(axis, int(self.rng.integers(self.truth.shape[axis])))
            return box if self.rng.integers(2) else self.paint(box, -1)
        return self.paint(self.anywhere(), (None, -1, 0, 1, 2)[self.rng.integers(5)])

    def start(self, **more: object) -> Grown:
        return Grown.start(self.image, self.labels, self.labelled, SPACING, **more)  # type: ignore[arg-type]

    def update(self, voice: Grown, box: Box) -> Box | None:
        return voice.update(box, self.labels, self.labelled)


def assert_as_anew(scene: Scene, voice: Grown) -> None:
    anew = scene.start(plan=voice.plan)
    np.testing.assert_array_equal(voice.label, anew.label)
    np.testing.assert_array_equal(voice.confidence, anew.confidence)


@pytest.mark.parametrize("seed", range(6))
def test_random_strokes_updated_equal_anew(engine: str, coarse: bool, seed: int) -> None:
    scene = Scene(seed)
    voice = scene.start()
    for _ in range(6):
        before = voice.label.copy(), voice.confidence.copy()
        boxes = [scene.stroke() for _ in range(scene.rng.integers(1, 4))]
        changed = scene.update(voice, union(*boxes))  # type: ignore[arg-type]
        assert_as_anew(scene, voice)
        assert (voice.label[scene.labelled] == scene.labels[scene.labelled]).all()
        doubted = in_doubt(scene.labels, scene.labelled)
        assert (voice.confidence[scene.labelled & ~doubted] == 255).all() and (voice.confidence[doubted] > 0).all()
        differs = (voice.label != before[0]) | (voice.confidence != before[1])
        if voice.renewals == 0:
            used = [np.flatnonzero(differs.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
            assert changed == (tuple(slice(int(u[0]), int(u[-1]) + 1) for u in used) if differs.any() else None)


def test_undo_restores_exactly(engine: str, coarse: bool) -> None:
    scene = Scene(1)
    voice = scene.start()
    before = voice.label.copy(), voice.confidence.copy(), scene.labels.copy(), scene.labelled.copy()
    box = scene.paint((slice(5, 6), slice(6, 12), slice(3, 20)), 2)
    assert scene.update(voice, box) is not None and (voice.label != before[0]).any()
    scene.labels, scene.labelled = before[2], before[3]
    scene.update(voice, box)
    np.testing.assert_array_equal(voice.label, before[0])
    np.testing.assert_array_equal(voice.confidence, before[1])


def test_numpy_and_numba_agree(coarse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled.warm_up():
        pytest.skip("needs numba")
    for seed in range(5):
        scene = Scene(seed)
        fast = scene.start()
        with monkeypatch.context() as patch:
            without_numba(patch)
            slow = scene.start()
        np.testing.assert_array_equal(fast.label, slow.label)
        np.testing.assert_array_equal(fast.confidence, slow.confidence)


def test_nothing_new_changes_nothing(engine: str, coarse: bool) -> None:
    scene = Scene(2)
    voice = scene.start()
    assert scene.update(voice, (slice(2, 6), slice(0, 9), slice(4, 30))) is None


def test_a_new_class_begins_anew_and_spreads(engine: str, coarse: bool) -> None:
    scene = Scene(3)
    scene.truth[9, 2:6, 2:6] = 3
    scene.image[9, 2:6, 2:6] = 500
    voice = scene.start()
    scene.update(voice, scene.paint((slice(9, 10), slice(3, 5), slice(3, 5)), None))
    assert voice.renewals == 1 and (voice.label[9, 3:5, 3:5] == 3).all()
    assert voice.plan is not None and voice.plan.classes == {0, 1, 2, 3}


def test_a_segment_outside_of_the_region_begins_anew() -> None:
    scene = Scene(4, (11, 22, 90))
    voice = scene.start()
    assert voice.plan is not None and voice.plan.grid.region[2].stop < 60
    scene.update(voice, scene.paint((slice(4, 5), slice(3, 5), slice(80, 84)), 0))
    assert voice.renewals == 0
    assert_as_anew(scene, voice)
    scene.update(voice, scene.paint((slice(4, 5), slice(3, 5), slice(80, 84)), 1))
    assert voice.renewals == 1 and (voice.label[4, 3:5, 80:84] == 1).all()


def test_background_outside_of_the_region_comes_and_goes() -> None:
    scene = Scene(5, (11, 22, 90))
    voice = scene.start()
    box = scene.paint((slice(4, 5), slice(3, 5), slice(40, 84)), -1)
    scene.update(voice, box)
    assert (voice.confidence[4, 3:5, 60:84] == 250).all()
    scene.update(voice, scene.paint(box, 0))
    assert (voice.confidence[4, 3:5, 60:84] == 255).all()
    assert_as_anew(scene, voice)


def test_erasing_a_class_and_then_everything(engine: str, coarse: bool) -> None:
    scene = Scene(6)
    voice = scene.start()
    everything = whole(scene.truth.shape)
    scene.labelled &= scene.labels != 2
    scene.update(voice, everything)
    assert not (voice.label == 2).any()
    assert_as_anew(scene, voice)
    scene.paint(everything, -1)
    scene.update(voice, everything)
    assert not voice.label.any()
    scene.paint((slice(4, 5), slice(0, 22), slice(0, 25)), None)
    scene.update(voice, (slice(4, 5), slice(0, 22), slice(0, 25)))
    assert (voice.label == 1).any()


def test_thousands_of_single_voxels(engine: str, coarse: bool) -> None:
    scene = Scene(7)
    voice = scene.start()
    chosen = scene.rng.random(scene.truth.shape) < 0.4
    scene.labelled |= chosen
    scene.labels[chosen] = scene.truth[chosen]
    scene.update(voice, whole(scene.truth.shape))
    assert_as_anew(scene, voice)


def test_first_labels_of_all(engine: str) -> None:
    scene = Scene(8)
    scene.labelled[:] = False
    voice = scene.start()
    assert voice.plan is None and not voice.label.any() and not voice.confidence.any()
    scene.update(voice, scene.complete(0, 5))
    assert (voice.label == 1).any()


def test_cancelled_it_begins_anew_the_next_time(coarse: bool) -> None:
    scene = Scene(9)
    voice = scene.start()
    box = scene.paint((slice(5, 6), slice(6, 12), slice(3, 20)), 2)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        voice.update(box, scene.labels, scene.labelled, stop)
    scene.update(voice, (slice(0, 0), slice(0, 0), slice(0, 0)))
    assert_as_anew(scene, voice)


def test_an_early_answer_comes_once(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for quick in (scales.QUICK_CELLS, 500):
        monkeypatch.setattr(scales, "QUICK_CELLS", quick)
        scene, shown = Scene(10), []

        def keep(label: np.ndarray, shown: list[np.ndarray] = shown) -> None:
            shown.append(label.copy())

        found = compute_prior(scene.image, scene.labels, scene.labelled, SPACING, early=keep)
        assert len(shown) == 1 and (shown[0] == found.label).mean() > 0.9
        np.testing.assert_array_equal(shown[0][scene.labelled], scene.labels[scene.labelled])
        np.testing.assert_array_equal(found.label, scene.start().label)
