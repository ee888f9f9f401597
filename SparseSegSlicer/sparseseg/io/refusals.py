"""What is said of a file that is no 3-D grey image, whichever format it has: one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..contract.errors import InputError


def complex_numbers(path: Path) -> InputError:
    return InputError(f"{path.name} has complex numbers as voxels.", "Export its magnitude.")


def many_values(path: Path, count: int) -> InputError:
    return InputError(f"{path.name} has {count} values in each voxel.", "Give a grey image: no colour, vectors or layers.")


def four_dimensions(path: Path, volumes: int) -> InputError:
    return InputError(f"{path.name} has four dimensions ({volumes} volumes).", "Export one time point as a 3-D volume.")


def not_three_dimensions(path: Path, dimensions: int) -> InputError:
    return InputError(f"{path.name} has {dimensions} dimensions instead of three.", "Give a 3-D volume.")


def one_slice(path: Path, size_ijk: Sequence[int]) -> InputError:
    return InputError(f"{path.name} has only one slice ({' x '.join(map(str, size_ijk))} voxels, i x j x k).", "Give a volume.")
