"""Simulated hands do what they say: the annotation that pretraining and benchmarks learn and measure with."""

import numpy as np
import pytest

import hands
from sparseseg.annotation.slices import plane


def truth():
    k, j, i = np.indices((12, 60, 60))
    out = np.zeros(k.shape, np.uint8)
    out[(j - 30) ** 2 + (i - 18) ** 2 < 100] = 1
    out[(j - 30) ** 2 + (i - 44) ** 2 < 80] = 2
    return out


def slices(*which):
    annotation = np.zeros(truth().shape, np.uint8)
    for k in which:
        annotation[k] = truth()[k] + 1
    return annotation


@pytest.mark.parametrize("voxels", [1, 2])
def test_contours_lie_so_far_off(voxels):
    exact = slices(2, 6, 10)
    off = hands.contours_off(np.random.default_rng(0), exact, voxels)
    assert ((off > 0) == (exact > 0)).all()
    moved = off != exact
    assert moved.any()
    edge = (truth() != np.roll(truth(), 1, 2)) | (truth() != np.roll(truth(), 1, 1))
    deep = ~hands.grown_by(edge, 8 * voxels) & (exact > 0)
    assert deep.any()
    assert not moved[deep].any()


def test_strokes_are_left_alone_by_contours():
    strokes = np.zeros(truth().shape, np.uint8)
    strokes[5, 30, 12:24] = 2
    assert (hands.contours_off(np.random.default_rng(0), strokes, 2) == strokes).all()


@pytest.mark.parametrize("over", [0, 1])
def test_a_thick_brush_stays_or_crosses_the_border_by_so_much(over):
    strokes = np.zeros(truth().shape, np.uint8)
    strokes[5, 30, 9:27] = 2
    wide = hands.brushed(strokes, truth(), 2, over)
    assert (wide == 2).sum() > 3 * (strokes == 2).sum() and (wide[[2, 8]] == 0).all()
    wrong = (wide == 2) & (truth() != 1)
    assert wrong.any() == bool(over)
    assert (hands.grown_by(truth() == 1, over) | ~wrong).all()


@pytest.mark.parametrize("kind", ["forgotten", "mislabelled"])
def test_a_mistake_is_one_whole_piece(kind):
    exact = slices(2, 6)
    wrong, at, piece = hands.with_mistake(np.random.default_rng(1), exact, kind)
    differs = wrong != exact
    assert differs.sum() == piece.sum() and (differs[plane(*at)] == piece).all()
    value = exact[plane(*at)][piece][0]
    assert (wrong[differs] == (1 if kind == "forgotten" else 5 - value)).all()


def test_no_mistake_without_a_slice():
    assert hands.with_mistake(np.random.default_rng(0), np.zeros((3, 4, 5), np.uint8), "forgotten") is None
