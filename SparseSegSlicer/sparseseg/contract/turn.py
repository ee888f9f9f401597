"""Volumes turned the same way up: programs store the same patient with axes in any order and direction, which a network would have to learn anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

import numpy as np

from .geometry import Geometry

Triple = tuple[int, int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """order: which axis of a volume becomes k, j and i; is_flipped: which of these are then reversed."""

    order: Triple = (0, 1, 2)
    is_flipped: tuple[bool, bool, bool] = (False, False, False)

    @classmethod
    def upright(cls, geometry: Geometry) -> Turn:
        """So that k points to the head, j to the back and i to the left, as nearly as axes can; of an oblique volume the one that fits best."""
        along = np.array(geometry.direction).reshape(3, 3).T[::-1, ::-1]  # of each array axis (k, j, i), along S, P and L
        order = max(permutations(range(3)), key=lambda axes: sum(abs(along[axis, to]) for to, axis in enumerate(axes)))
        k, j, i = (bool(along[axis, to] < 0) for to, axis in enumerate(order))
        return cls((order[0], order[1], order[2]), (k, j, i))

    def there(self, array: np.ndarray) -> np.ndarray:
        """A view of a volume, (..., K, J, I), turned."""
        first = array.ndim - 3
        turned = array.transpose(*range(first), *(first + axis for axis in self.order))
        return np.flip(turned, self._flipped(first))

    def back(self, array: np.ndarray) -> np.ndarray:
        """A view of what was turned, as it was."""
        first = array.ndim - 3
        return np.flip(array, self._flipped(first)).transpose(*range(first), *(first + self.order.index(axis) for axis in range(3)))

    def triple(self, values: Sequence[T]) -> tuple[T, T, T]:
        """What goes by axes, as a shape or a spacing, turned."""
        k, j, i = (values[axis] for axis in self.order)
        return (k, j, i)

    def triple_back(self, values: Sequence[T]) -> tuple[T, T, T]:
        """What goes by the axes of what was turned, by those of the volume."""
        k, j, i = (values[self.order.index(axis)] for axis in range(3))
        return (k, j, i)

    def _flipped(self, first: int) -> tuple[int, ...]:
        return tuple(first + axis for axis, flipped in enumerate(self.is_flipped) if flipped)
