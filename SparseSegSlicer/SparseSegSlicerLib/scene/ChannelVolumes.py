"""Further volumes of the same anatomy as channels of an image. Main thread: their grids, and views of their voxels; a thread: all that scales. No qt;
nodes are only read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sparseseg.contract.channels import stack
from sparseseg.contract.geometry import Geometry
from sparseseg.io import onto_grid

from .Grids import nodeToNode, volumeArray, volumeGeometry


class _Volume(NamedTuple):
    name: str
    array: np.ndarray
    grid: Geometry


def channelGrid(node, volumeNode) -> Geometry:
    """Where a volume lies in the frame of another. Raises InputError where it holds no image, or transforms leave no grid of it."""
    grid = volumeGeometry(node)
    return Geometry.from_ijk_to_ras(grid.shape_kji, nodeToNode(node, volumeNode) @ grid.ijk_to_ras())


def imageOf(volumeNode, others: Sequence) -> np.ndarray | Callable[[], np.ndarray]:
    """What a run takes as its image: the volume's voxels; with others what makes, in a thread, an array (C, K, J, I) of all, those on another grid
    resampled to the volume's. Raises InputError."""
    if not others:
        return volumeArray(volumeNode)
    first, grid = volumeArray(volumeNode), volumeGeometry(volumeNode)
    volumes = [_Volume(node.GetName(), volumeArray(node), channelGrid(node, volumeNode)) for node in others]
    return lambda: stack([first, *(onto_grid(*volume, grid)[0] for volume in volumes)])
