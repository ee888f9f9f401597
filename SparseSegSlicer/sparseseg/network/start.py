"""What a network knows before it has seen a patient: a body that was trained for tasks like ours, few slices given and the rest asked, and a head
that is solved for from the slices at hand.

The head is the ridge regression of the labels on the body's features (Bertinetto et al., Meta-learning with differentiable closed-form solvers,
ICLR 2019): with it the network has an opinion before its first step. pretraining/start.py trains the body through that very solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..contract.errors import ModelError
from ..contract.numbers import number
from ..contract.tensorfile import TensorFile
from .unet import PLACE, SEEN, NetworkPlan, shapes_of
from .weights import read_weights

FILE = Path(__file__).with_name("start.pt")
FORMAT, VERSION = "sparseseg-start", 1
_FIRST = "encoder.0.body.0.0.weight"  # the layer that sees the image
_LEAST = 1e-8  # of a sum of weights


@dataclass(frozen=True)
class Start:
    """weights: of a network of this plan, for an image of one channel, but its head; ridge: what is added to the features' covariance; sharpness: of
    the softmax over what the regression says, 0..1."""

    plan: NetworkPlan
    weights: dict[str, Tensor]
    ridge: float
    sharpness: float

    def fits(self, plan: NetworkPlan) -> bool:
        """Whether a network of that plan can begin with it: the same layers, as many levels or fewer; for any number of channels."""
        levels = len(plan.kernels)
        alike = (plan.width, plan.residual) == (self.plan.width, self.plan.residual)
        return alike and levels <= len(self.plan.kernels) and plan.kernels == self.plan.kernels[:levels]

    def for_channels(self, shares: Sequence[float]) -> Start:
        """The same for an image of several channels, whose sum by these shares is looked at as the one was."""
        first = self.weights[_FIRST]
        weights = {**self.weights, _FIRST: torch.cat([*(first[:, :SEEN] * share for share in shares), first[:, SEEN:]], 1)}
        return replace(self, plan=replace(self.plan, in_channels=len(shares) * SEEN + PLACE), weights=weights)

    def save(self, path: Path) -> None:
        """In half precision: what is lost is far below what a first step changes."""
        weights = {name: tensor.half() for name, tensor in self.weights.items()}
        data: dict[str, Any] = {"format": FORMAT, "version": VERSION, "network": self.plan.to_json(), "weights": weights}
        torch.save({**data, "ridge": self.ridge, "sharpness": self.sharpness}, path)


@cache
def shipped() -> Start:
    """The one that comes with the engine. Raises ModelError."""
    try:
        with TensorFile(FILE) as file:
            return _checked(file, file.content)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelError(f"{FILE.name}, which networks begin with, cannot be read ({error!s:.200}).", "Install the engine again.") from error


def _checked(file: TensorFile, data: dict[str, Any]) -> Start:
    if (data["format"], data["version"]) != (FORMAT, VERSION):
        raise ValueError("another format")
    plan = NetworkPlan.from_json(data["network"])
    shapes = {name: shape for name, shape in shapes_of(plan).items() if not name.startswith("head.")}
    return Start(plan, read_weights(file, data["weights"], shapes), number(data["ridge"], 0, 1e6), number(data["sharpness"], 0, 1e6))


def moments(features: Tensor, labels: Tensor, weights: Tensor, classes: int) -> Tensor:
    """What the regression needs to know of labelled voxels, class by class, added up over as many calls as wanted.

    features (..., n, d), labels (..., n) int64, weights (..., n), >= 0 -> (..., classes, d + 1, d + 1): sums of w x x^T, with x the features and
    a 1 behind them.
    """
    ones = torch.ones_like(features[..., :1])
    x = torch.cat([features, ones], -1)
    chosen = torch.nn.functional.one_hot(labels, classes).to(x.dtype) * weights.unsqueeze(-1)
    return torch.stack([(x * chosen[..., c, None]).transpose(-1, -2) @ x for c in range(classes)], -3)


def solve_head(sums: Tensor, ridge: Tensor | float) -> Tensor:
    """The regression of one-hot labels: (..., classes, d + 1, d + 1) as `moments` says -> (..., classes, d + 1), weights and, last, bias.

    A class counts as the root of its voxels, between all alike and by size: structures are small. A class without any is never said.
    """
    sizes = sums[..., -1, -1]
    counts = sizes.clamp_min(_LEAST).rsqrt() * (sizes > 0)
    sums = sums * (counts / (sizes * counts).sum(-1, keepdim=True).clamp_min(_LEAST))[..., None, None]
    covariance, means = sums.sum(-3), sums[..., -1, :]  # the last row: w x, as x ends in a 1
    eye = torch.eye(covariance.shape[-1], device=sums.device, dtype=sums.dtype)
    return torch.linalg.solve(covariance + ridge * eye, means.transpose(-1, -2)).transpose(-1, -2)
