"""Exact distances: compiled, by SimpleITK, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparseseg.prior import compiled
from sparseseg.prior.distance import distance_to


@pytest.mark.parametrize("share", [0.5, 0.02, 0.0005])
@pytest.mark.parametrize("shape", [(1, 1, 9), (7, 33, 18), (20, 5, 40)])
def test_the_loops_find_what_simpleitk_finds(shape, share, monkeypatch):
    pytest.importorskip("numba")
    mask = np.random.default_rng(1).random(shape) < share
    mask[0, 0, 3] = True
    found = distance_to(mask, (3.0, 1.0, 0.5))
    monkeypatch.setattr(compiled, "loops", lambda: None)
    np.testing.assert_allclose(found, distance_to(mask, (3.0, 1.0, 0.5)), rtol=1e-6, atol=1e-6)


def test_every_distance_is_that_to_the_nearest_voxel():
    rng = np.random.default_rng(2)
    mask, spacing = rng.random((4, 9, 6)) < 0.03, np.array((2.5, 1.0, 0.7))
    mask[1, 2, 3] = True
    voxels = np.argwhere(mask) * spacing
    nearest = [np.linalg.norm(voxels - np.array(place) * spacing, axis=1).min() for place in np.ndindex(mask.shape)]
    np.testing.assert_allclose(distance_to(mask, spacing).ravel(), nearest, rtol=1e-5)


def test_an_empty_mask_is_infinitely_far():
    assert np.isposinf(distance_to(np.zeros((2, 3, 4), bool), (1, 1, 1))).all()
