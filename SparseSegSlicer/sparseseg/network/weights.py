"""Tensors from files, checked against the network that they are for before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..contract.tensorfile import Stored, TensorFile


def read_weights(file: TensorFile, found: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The part `found` of a file's content as float32 tensors of these names and shapes, no more and no fewer. Raises ValueError."""
    if not isinstance(found, dict) or found.keys() != shapes.keys():
        raise ValueError("its weights are not those of its network")
    for name, stored in found.items():
        if not isinstance(stored, Stored) or stored.shape != shapes[name] or stored.dtype.kind != "f":
            raise ValueError(f"{name} is not what its network needs")
    weights = {name: torch.from_numpy(array).float() for name, array in file.read(found).items()}
    if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise ValueError("weights that are not numbers")
    return weights


def check_like(given: Any, own: Tensor) -> None:
    """Whether it may stand in the place of another tensor. Raises ValueError."""
    if not isinstance(given, Tensor) or given.shape != own.shape or not given.is_floating_point() or not torch.isfinite(given).all():
        raise ValueError("a tensor of another shape, or with what is no number")


def as_tensors(value: Any) -> Any:
    """Nested plain values and numpy arrays -> the same with tensors."""
    if isinstance(value, dict):
        return {key: as_tensors(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(as_tensors(part) for part in value)
    return torch.from_numpy(value) if hasattr(value, "dtype") else value
