"""Further volumes of the same anatomy as channels of an image. Main thread: their grids, and views of their voxels; a thread: all that scales. No qt;
nodes are only read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sparseseg.contract.channels import IMAGE_TYPES, stack
from sparseseg.contract.geometry import Geometry
from sparseseg.contract.store import Store, slabs
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


def imageOf(volumeNode, others: Sequence) -> Callable[[Store], np.ndarray]:
    """What makes a run's image, in a thread: the volume's voxels, a view where their type is one that the engine takes; with others an array
    (C, K, J, I) of all, those on another grid resampled to the volume's. What is made is kept by a store. Raises InputError."""
    grid = volumeGeometry(volumeNode)
    volumes = [_Volume(volumeNode.GetName(), volumeArray(volumeNode), grid)]
    volumes += [_Volume(node.GetName(), volumeArray(node), channelGrid(node, volumeNode)) for node in others]
    return lambda store: stack([onto_grid(volume.name, _taken(volume, store), volume.grid, grid)[0] for volume in volumes], store)


def _taken(volume: _Volume, store: Store) -> np.ndarray:
    """Its voxels in a type that the engine takes."""
    array = volume.array
    return array if array.dtype.name in IMAGE_TYPES else store.keep(volume.name, array.shape, np.float32, slabs(array))
