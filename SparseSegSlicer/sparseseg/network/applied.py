"""A trained model on images that it was not trained on: at its own voxel size, within the memory that there is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..contract.errors import ModelError
from ..contract.geometry import Geometry
from ..contract.turn import Turn
from . import device
from .checkpoint import Checkpoint
from .cores import cores_of
from .device import Compute
from .intensity import apply_all
from .predict import Input, Probabilities, predict
from .sampling import WorkingGrid, shape_at
from .unet import Triple, UNet3d

Warn = Callable[[str, str, str], None]
Tick = Callable[[], None]


@dataclass(frozen=True)
class Seen:
    """probabilities: on the working grid of the volume as the model sees it, which `turn` has turned."""

    probabilities: Probabilities
    turn: Turn


class Applied:
    """A model on a device, ready for one image after the other. `warn` takes code, sentence and advice."""

    def __init__(self, model: Checkpoint, compute: Compute, warn: Warn) -> None:
        """Raises ModelError where the weights do not fit the model's own description."""
        self.model, self.compute, self._warn = model, compute, warn
        self._network = model.build_network(compute.device)

    def believe(self, channels: np.ndarray, geometry: Geometry, tick: Tick) -> Seen:
        """What it believes of an image (C, K, J, I) on this grid. tick is called several times a second, and may raise. Raises ModelError for an
        image of other channels, or too large, or where it says what is no number."""
        model = self.model
        model.check_channels(len(channels))
        turn = Turn.upright(geometry) if model.is_upright else Turn()
        image, spacing = turn.there(channels), turn.triple(geometry.spacing_kji_mm)
        grid = WorkingGrid.of_whole(image.shape[1:], shape_of_model(model, image.shape[1:], spacing))
        check_memory(grid.shape_kji, len(model.classes) + 1, len(channels))
        data = Input(apply_all(model.intensities, image, grid, self.compute.device, tick), grid, is_trained_on=False)
        believed = predict_within_memory(self._network, data, model.orientations, model.slices, self.compute, tick, self._warn)
        if not believed.is_said_everywhere:
            raise ModelError("The model says what is not a number of this image.", "Use a model that was trained on such images, or train a new one.")
        return Seen(believed, turn)


def predict_within_memory(
    network: UNet3d, data: Input, orientations: Sequence[int], slices: int, compute: Compute, tick: Tick, warn: Warn
) -> Probabilities:
    """predict(), with fewer and then thinner slabs at once where memory runs out."""
    at_once = cores_of(compute.device.type).at_once
    while True:
        try:
            return predict(network, data, orientations, slices, compute, lambda _: tick(), at_once)
        except (RuntimeError, MemoryError) as error:
            if not device.is_out_of_memory(error) or slices * at_once == 1:
                raise
        device.release_memory(compute.device)
        at_once, slices = (at_once // 2, slices) if at_once > 1 else (1, slices // 2)
        warn("memory", f"{compute.name} ran out of memory; predicting {size(at_once, slices)} at a time.", "")


def shape_of_model(model: Checkpoint, own_kji: Triple, spacing_kji_mm: Sequence[float]) -> Triple:
    """The shape at which voxels have the size that the model was trained at."""
    return shape_at(own_kji, spacing_kji_mm, model.spacing_kji_mm)


def check_memory(grid_kji: Triple, classes: int, channels: int) -> None:
    """Raises ModelError where what a network says on a grid would not fit: bytes of the image, and two and one of each class."""
    needed, free = math.prod(grid_kji) * (2 * channels + 3 * classes), device.free_memory(torch.device("cpu"))
    if needed > free:
        voxels = " x ".join(map(str, grid_kji))
        raise ModelError(
            f"At the model's voxel size this image has {voxels} voxels, which need {needed / 2**30:.1f} GiB of memory; {free / 2**30:.1f} are free.",
            "Use a model that was trained on such images, or crop the volume.",
        )


def size(slabs: int, slices: int) -> str:
    """In words."""
    return f"{slabs} slab{'s' if slabs > 1 else ''} of {slices} slice{'s' if slices > 1 else ''}"
