"""One try of an attack: its random numbers, its folder, what was tried and what broke."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path


class Broken(AssertionError):
    """A promise that was not kept."""


@dataclass
class Trial:
    """`rng` comes from the campaign's seed, the attack's name and the trial's number alone. `folder` is empty and goes afterwards; `temporary` is
    what programs under attack take for the system's folder for temporary files."""

    attack: str
    seed: int
    number: int
    folder: Path
    quick: bool = False
    tried: int = 0
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed}/{self.attack}/{self.number}")
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()

    def require(self, kept: object, words: str) -> None:
        """Raises Broken with the words where a promise is not kept."""
        if not kept:
            raise Broken(words)

    def broke(self, words: str) -> None:
        """A promise was broken, and the trial goes on with its other tries."""
        self.failures.append(words)

    def left(self) -> list[str]:
        """What is in the place for temporary files, but for an empty folder that PyTorch makes there when it is imported."""
        return sorted(path.name for path in self.temporary.iterdir() if not path.name.startswith("torchinductor"))
