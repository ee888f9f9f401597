"""Three grids and a few helpers for tests that write image files."""

import numpy as np

from sparseseg.contract.geometry import Geometry

AXIAL = Geometry.from_axes((4, 5, 6), (0.5, 0.75, 2.0), (10, -20, 30))
LEFT_HANDED = Geometry.from_axes((4, 5, 6), (0.5, 0.75, 2.0), (10, -20, 30), (1, 0, 0, 0, 1, 0, 0, 0, -1))
OBLIQUE = Geometry.from_axes((4, 5, 6), (0.5, 0.75, 2.0), (-7.25, 3.5, 100.125), tuple(np.array([[0.6, 0, 0.8], [0, -1, 0], [0.8, 0, -0.6]]).ravel()))


def image_array(dtype=np.int16, shape=(4, 5, 6)):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())
