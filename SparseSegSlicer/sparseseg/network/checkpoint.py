"""Model files: written whole, read without running what they hold, and refused with one sentence where they do not fit."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from .. import __version__
from ..contract.channels import MOST_CHANNELS
from ..contract.classes import ClassTable
from ..contract.errors import ModelError
from ..contract.folders import write_whole
from ..contract.numbers import number, whole
from ..contract.tensorfile import TensorFile, UnsafeFileError
from .intensity import Intensity
from .unet import PLACE, SEEN, NetworkPlan, UNet3d, shapes_of
from .weights import as_tensors, read_weights

FORMAT, VERSION, UPRIGHT = "sparseseg-model", 2, 3  # UPRIGHT: the version of models that an engine which does not turn volumes must not use
_SPACINGS_MM = (1e-7, 1e5)
_MOST_SLICES = 32  # of a slab


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what it needs to be used; `training` is what resuming needs, empty in a saved model. intensities: of each channel of the
    image. validation: Dice by segment ID on patients that it did not learn from, of a cohort's model. is_upright: it learned from volumes turned
    upright (contract.turn), and sees others so."""

    network: NetworkPlan
    weights: dict[str, Tensor]  # the moving average's
    intensities: tuple[Intensity, ...]
    classes: ClassTable
    spacing_kji_mm: tuple[float, float, float]  # of the working grid
    orientations: tuple[int, ...]  # the axes across which the slices lay that it learned from
    slices: int  # of a slab
    training: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    is_upright: bool = False

    def save(self, file: IO[bytes]) -> None:
        """Raises OSError."""
        buffer = io.BytesIO()  # or torch would tell of a full disk in words of its own
        torch.save(
            {
                "format": FORMAT,
                "version": UPRIGHT if self.is_upright else VERSION,
                "engine_version": __version__,
                "network": self.network.to_json(),
                "weights": dict(self.weights),
                "intensity": self.intensities[0].to_json() if len(self.intensities) == 1 else [one.to_json() for one in self.intensities],
                "classes": self.classes.to_json(),
                "spacing_kji_mm": list(self.spacing_kji_mm),
                "orientations": list(self.orientations),
                "slices": self.slices,
                "training": self.training,
                "validation": self.validation,
            },
            buffer,
        )
        file.write(buffer.getbuffer())

    def check_channels(self, channels: int) -> None:
        """Raises ModelError where the model was trained on an image of another number of channels."""
        if channels != len(self.intensities):
            raise ModelError(
                f"The model was trained on {_counted(len(self.intensities))}, the image has {_counted(channels)}.",
                "Give the same volumes as it was trained on, in the same order, or train a new model.",
            )

    def build_network(self, device: torch.device) -> UNet3d:
        """Raises ModelError where the weights are not those of the network that the file describes."""
        network = UNet3d(self.network)
        try:
            network.load_state_dict(self.weights)
        except RuntimeError as error:
            raise ModelError("The model's weights do not fit its own description.", "Train a new model.") from error
        return network.to(device, memory_format=torch.channels_last_3d).eval().requires_grad_(False)  # type: ignore[call-overload,no-any-return]


def _counted(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"


def load(path: Path) -> Checkpoint:
    """Raises ModelError for a file that is missing, damaged, foreign, of another version or input, or that holds code."""
    try:
        with TensorFile(path) as file:
            return _loaded(path, file)
    except FileNotFoundError as error:
        raise ModelError(f"There is no model file {path}.", "Check the path.") from error
    except UnsafeFileError as error:
        raise ModelError(f"{path.name} holds code, not only numbers, and was not loaded.", "Do not use this file.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path.name} is damaged or no model ({error}).", "Choose a file written by --save-model.") from error


def _loaded(path: Path, file: TensorFile) -> Checkpoint:
    data = file.content
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ModelError(f"{path.name} is no model of this program.", "Choose a file written by --save-model.")
    if type(data.get("version")) is not int or data["version"] not in (VERSION, UPRIGHT):
        raise ModelError(
            f"{path.name} has model version {data.get('version')!s:.20}, this engine reads {VERSION} and {UPRIGHT}.",
            "Train a new model, or use the engine that wrote it.",
        )
    try:
        return _checked(path, file, data)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path.name} is damaged ({error!s:.200}).", "Train a new model.") from error


def _checked(path: Path, file: TensorFile, data: dict[str, Any]) -> Checkpoint:
    """The description first: it says what the weights must be, before any is read."""
    plan = NetworkPlan.from_json(data["network"])
    intensities = _intensities(data["intensity"])
    if plan.in_channels != (given := len(intensities) * SEEN + PLACE):
        raise ModelError(
            f"{path.name} expects {plan.in_channels} input channels, this engine gives {given}.", "Choose a model that this engine trained."
        )
    classes = ClassTable.from_json(data["classes"])
    if len(classes) + 1 != plan.classes:
        raise ValueError(f"{len(classes)} segments and a network for {plan.classes - 1}")
    k, j, i = (number(mm, *_SPACINGS_MM) for mm in data["spacing_kji_mm"])
    orientations, slices = _orientations(data["orientations"]), whole(data["slices"], 1, _MOST_SLICES)
    if not isinstance(data["training"], dict):
        raise ValueError("no training state")
    weights = read_weights(file, data["weights"], shapes_of(plan))
    training, is_upright = as_tensors(file.read(data["training"])), data["version"] == UPRIGHT
    validation = _validation(data.get("validation", {}), classes)
    return Checkpoint(plan, weights, intensities, classes, (k, j, i), orientations, slices, training, validation, is_upright)


def _intensities(found: Any) -> tuple[Intensity, ...]:
    """A list of several channels' only, so that models of one channel are as they were before there were channels."""
    given = [found] if isinstance(found, dict) else found
    if not 1 <= len(given) <= MOST_CHANNELS:
        raise ValueError(f"{len(given)} channels")
    return tuple(map(Intensity.from_json, given))


def _validation(found: Any, classes: ClassTable) -> dict[str, float]:
    if not isinstance(found, dict) or not found.keys() <= set(classes.ids):
        raise ValueError(f"validation {found!r:.80}")
    return {segment: number(dice, 0, 1) for segment, dice in found.items()}


def _orientations(found: Any) -> tuple[int, ...]:
    axes = tuple(whole(axis, 0, 2) for axis in found[:4])
    if not axes or len(set(axes)) != len(axes):
        raise ValueError(f"orientations {found!r:.80}")
    return axes


def export(source: Path, target: Path) -> None:
    """A job's checkpoint as a model file to keep: without the state that only resuming needs. Raises ModelError, OSError."""
    write_whole(target, replace(load(source), training={}).save)
