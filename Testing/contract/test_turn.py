"""Volumes turned upright: where each voxel goes, by hand, and back."""

import numpy as np
import pytest

from sparseseg.contract.geometry import Geometry
from sparseseg.contract.turn import Turn

SAGITTAL = (0, 0, 1, 1, 0, 0, 0, -1, 0)  # columns I, J, K in LPS: i to the back, j to the feet, k to the left


def test_a_volume_as_dicom_has_it_stays():
    assert Turn.upright(Geometry.from_axes((4, 5, 6), (1, 1, 1))) == Turn()


def test_a_nifti_in_ras_is_reversed_along_two_axes():
    turn = Turn.upright(Geometry.from_axes((4, 5, 6), (1, 1, 1), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1)))
    assert turn == Turn((0, 1, 2), (False, True, True))
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    assert np.array_equal(turn.there(volume), volume[:, ::-1, ::-1])


def test_a_sagittal_series_is_turned():
    turn = Turn.upright(Geometry.from_axes((4, 5, 6), (1, 2, 3), direction=SAGITTAL))
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    there = turn.there(volume)
    assert there.shape == turn.triple(volume.shape) == (5, 6, 4) and turn.triple((3.0, 2.0, 1.0)) == (2.0, 1.0, 3.0)
    assert there[4 - 1, 2, 3] == volume[3, 1, 2]  # one from the feet: the last but one j


@pytest.mark.parametrize("seed", range(5))
def test_back_is_the_way_back(seed):
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn = Turn.upright(Geometry.from_axes((2, 3, 4), (1, 1, 1), direction=axes.ravel()))
    volume = rng.random((2, 2, 3, 4))
    assert np.array_equal(turn.back(turn.there(volume)), volume)
    assert turn.there(volume).shape[1:] == turn.triple((2, 3, 4))
    assert turn.triple_back(turn.triple((2, 3, 4))) == (2, 3, 4)
