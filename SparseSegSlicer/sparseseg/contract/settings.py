"""Everything a user may choose about a training run, checked once, when it is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import InputError

_RANGES: dict[str, tuple[float, float]] = {
    "time_budget_s": (1, 86_400),
    "steps": (0, 1_000_000),
    "seed": (0, 2**31 - 1),
    "learning_rate": (1e-6, 1.0),
    "pseudo_label_weight": (0.0, 1.0),
    "correction_weight": (1.0, 100.0),
    "class_balance": (0.0, 1.0),
    "border_weight": (0.0, 100.0),
    "border_width_mm": (0.1, 100.0),
    "width": (0, 256),
    "depth": (0, 6),
    "slices": (0, 32),
    "patch_voxels": (0, 2**27),
    "batch": (0, 64),
    "ema_decay": (0.0, 0.99999),
    "dice_weight": (0.0, 10.0),
}


@dataclass(frozen=True)
class Settings:
    """Choices of one training run. Zero in `steps`, `width`, `depth`, `slices`, `patch_voxels`, `batch` means: the engine chooses.

    With `steps` > 0 the run takes exactly that many steps whatever the clock says, and is then repeatable on the same CPU machine.
    Raises InputError for a value of another type or out of its range.
    """

    time_budget_s: float = 120.0  # for training and the final prediction together
    steps: int = 0
    seed: int = 0
    # the weight map
    class_balance: float = 0.5  # 0: every labelled voxel counts alike; 1: every class counts alike
    correction_weight: float = 4.0  # of a voxel where a new stroke contradicts the preview
    border_weight: float = 0.0  # extra weight near the border between two classes (Ronneberger 2015, eq. 2); 0 = off
    border_width_mm: float = 5.0
    pseudo_label_weight: float = 0.3  # of a voxel that only the prior labels, at full confidence; 0 = train on strokes alone
    ignore_weights: bool = False  # for tests: every voxel weighs 1 (unlabelled ones count as background), which ruins the result
    # the network and its training
    learning_rate: float = 3e-3
    dice_weight: float = 1.0
    ema_decay: float = 0.98
    width: int = 0
    depth: int = 0
    slices: int = 0  # of a slab: from 2 on kernels reach across them
    patch_voxels: int = 0  # at most, of a slice on the working grid
    batch: int = 0
    residual: bool = False
    full_resolution: bool = False  # never work on a coarser grid
    mirror: bool = False  # off unless asked: mirroring swaps left and right organs
    smooth_contours: bool = False  # painted voxels at the rim of what was painted may take another label in the refined result
    refine: bool = True  # correct the prior by the network that comes with the engine
    estimate: bool = True  # tell how good the result is, and prove the refiner where it sees a segment coarsely

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type == "bool":
                if not isinstance(value, bool):
                    raise InputError(f"The setting {f.name} must be true or false, got {value!r:.80}.")
                continue
            low, high = _RANGES[f.name]
            number = int if f.type == "int" else (int, float)
            if isinstance(value, bool) or not isinstance(value, number) or not low <= value <= high:
                whole = " and be a whole number" if f.type == "int" else ""
                raise InputError(f"The setting {f.name} must lie between {low:g} and {high:g}{whole}, got {value!r:.80}.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Settings:
        """Raises InputError for a name that is no setting, so that a misspelt one is not swallowed."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise InputError(f"Unknown setting {', '.join(unknown):.200}.", f"Known: {', '.join(sorted(known))}.")
        return cls(**data)
