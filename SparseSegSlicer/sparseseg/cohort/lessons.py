"""What the network learns from: slabs of many volumes, a bounded number of which is at hand, and a learner that draws over all of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from ..contract.settings import Settings
from ..network import augmentation
from ..network.augmentation import Augmenter, Draw
from ..network.device import Compute
from ..network.sampling import WorkingGrid
from ..network.trainer import Learner
from .preparing import Cohort, Member, annotation_file, image_file
from .processes import Processes

_MAPPED = 64  # volumes whose files are open, on the CPU: the system keeps of them what fits
_SHARE = 0.25  # of a card's free memory, for volumes
_VALIDATED = 24  # slices of a patient, at most


@dataclass(frozen=True)
class Painted:
    """annotation (K, J, I) uint8: 0 unlabelled, 1 background, 1 + c segment c; table (256,) float32: the weight of each value."""

    annotation: Tensor
    table: Tensor

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """As augmentation.Labels says."""
        values = self.annotation.view(-1)[index].long()
        return (values - 1).clamp_min(0), self.table[values]


@dataclass(frozen=True)
class Volume:
    """As augmentation.Learned says."""

    grid: WorkingGrid
    image: Tensor
    targets: Painted


class Volumes:
    """Those of a cohort, read from its folder as they are asked for, by several threads. The least recently used give way."""

    def __init__(self, folder: Path, cohort: Cohort, weights: np.ndarray, compute: Compute) -> None:
        self._folder, self._cohort, self._device = folder, cohort, compute.device
        self._table = torch.from_numpy(weights).to(compute.device)
        self._held: OrderedDict[int, Volume] = OrderedDict()
        self._lock = Lock()
        self.most = _MAPPED
        if compute.device.type != "cpu":
            largest = max(image_file(folder, m).stat().st_size + annotation_file(folder, m.file).stat().st_size for m in cohort.members)
            self.most = max(1, int(_SHARE * compute.free_bytes) // largest)

    def __getitem__(self, number: int) -> Volume:
        with self._lock:
            if number not in self._held:
                self._held[number] = self._read(self._cohort.members[number])
            self._held.move_to_end(number)
            while len(self._held) > self.most:
                self._held.popitem(last=False)
            return self._held[number]

    def close(self) -> None:
        """Let go of the files."""
        self._held.clear()

    def _read(self, member: Member) -> Volume:
        image, annotation = (
            torch.from_numpy(np.load(file, mmap_mode="c")).to(self._device)
            for file in (image_file(self._folder, member), annotation_file(self._folder, member.file))
        )
        return Volume(self._cohort.grid(member), image, Painted(annotation, self._table))


class CohortLearner(Learner):
    """Each slab is of a patient drawn from all, and of one of its slices; each process takes its part of a batch that all draw alike."""

    def __init__(self, compute: Compute, cohort: Cohort, volumes: Volumes, learned: Sequence[int], settings: Settings, processes: Processes) -> None:
        """learned: the members to learn from, by number."""
        self.cohort, self.volumes, self.learned, self._processes = cohort, volumes, learned, processes
        self._augmenters = [_augmenter(cohort, member, 1.0) for member in cohort.members]
        super().__init__(compute, cohort.plan, settings)

    def _batch(self) -> list[Draw]:
        own, draws = self.plan.batch, []
        for _ in range(own * self._processes.count):
            number = self.learned[int(self.rng.integers(len(self.learned)))]
            slices = self.cohort.members[number].slices
            chosen = slices[int(self.rng.integers(len(slices)))]
            draws.append(replace(self._augmenters[number].draw(self.rng, *chosen), volume=number))
        return draws[own * self._processes.rank :][:own]

    def _still(self, most: int) -> Iterable[Draw]:
        """Of every patient about as many."""
        order = self.rng.permutation(len(self.learned))[:most]
        each = max(1, most // len(order))
        return (draw for n in order for draw in self.slices_of(self.learned[n], each))

    def slices_of(self, number: int, most: int = _VALIDATED) -> list[Draw]:
        """Slices of a patient, as they are; evenly chosen where there are more."""
        member = self.cohort.members[number]
        still = _augmenter(self.cohort, member, 0.0)
        count = min(most, len(member.slices))
        chosen = [(2 * n + 1) * len(member.slices) // (2 * count) for n in range(count)]
        nothing = np.random.default_rng()  # moves anything; the run's own numbers are for all processes the same
        return [replace(still.draw(nothing, *member.slices[n]), volume=number) for n in chosen]

    def _slab(self, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        return augmentation.take_slab(self.volumes[draw.volume], draw, self.plan.slices)

    def _kind(self, draw: Draw) -> Hashable:
        shape = self.cohort.grid(self.cohort.members[draw.volume]).shape_kji
        return draw.axis, tuple(n for axis, n in enumerate(shape) if axis != draw.axis)

    def _share(self, tensors: Sequence[Tensor]) -> None:
        self._processes.mean(tensors)

    def overlap(self, draw: Draw) -> Tensor:
        """Of the averaged network on a slice's labelled voxels: of each class with background (classes, 3), how many it says, are, and both."""
        image, labels, weights = self._slab(draw)
        with torch.no_grad(), self.compute.autocast():
            said = self.average(image[None].contiguous(memory_format=torch.channels_last_3d))[0].argmax(0)
        middle, classes = len(labels) // 2, self.plan.network.classes
        known = weights[middle] > 0
        said, labels = said[middle][known], labels[middle][known]
        parts = (said, labels, labels[said == labels])
        return torch.stack([torch.bincount(part, minlength=classes) for part in parts], 1).cpu()


def _augmenter(cohort: Cohort, member: Member, strength: float) -> Augmenter:
    """Patients lie in a volume as they happen to, so the network is not told where a slab lies."""
    return Augmenter(cohort.grid(member), member.spacing_kji_mm, strength, channels=len(cohort.intensities), tells_position=False)
