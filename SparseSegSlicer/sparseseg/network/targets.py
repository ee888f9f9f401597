"""What the network trains on: the user's labels, and what is believed elsewhere, with a small weight. One byte of label and one of weight a voxel.

This is the update of y and w from prior knowledge: where only the prior speaks, w = pseudo_label_weight * max(0, 2 q - 1)^2 with q its
confidence; a label that is wrong half of the time teaches nothing. And of the user's own labels those in doubt weigh as much less as they are
trusted less.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..annotation.labels import CORRECTION, HINT, STROKE, Annotation
from ..contract.aside import aside
from ..contract.belief import Belief
from ..contract.box import Box, intersection, whole
from ..contract.box import within as within_volume
from ..contract.scratch import Zeros, is_huge
from ..contract.settings import Settings
from .sampling import SliceSampler

_HINTED, _LABELLED, _CORRECTED = 253, 254, 255  # codes of labels; below them, of labels in doubt, and the confidence of what is believed
_DOUBTED, _LEVELS = 249, 4  # the first code of labels in doubt, and in how many levels of trust they are told apart
_CODES = np.array([0, _LABELLED, _LABELLED, _CORRECTED, _HINTED], np.uint8)  # by a label's origin


class Targets:
    """labels (K, J, I) uint8 and codes (K, J, I) uint8 on the device, kept up to date in boxes; w = table[code, label], table (256, classes)
    float32 on the device; extra: float16 (K, J, I) on the device, what is added to w at labelled voxels, or None. Of a huge volume (scratch.is_huge)
    that is learned from slice by slice, the same of the slices that the sampler draws, and of nothing else."""

    def __init__(
        self,
        annotation: Annotation,
        belief: Belief,
        settings: Settings,
        device: torch.device,
        tick: Callable[[], None] = lambda: None,
        trust: np.ndarray | None = None,
        within: Box | None = None,
        zeros: Zeros = np.zeros,
        slices: int = 0,
    ) -> None:
        """trust: uint8 (K, J, I), how far labels are trusted, 255 fully (all are if None). within: the part of the volume that the network works on,
        None for all of it. zeros: makes arrays of the volume's size. slices: how many are drawn together, 0 if that is not known. tick is called
        several times a second, and may raise."""
        self._settings, self._device = settings, device
        shape = annotation.labels.shape
        self._within, self._shape = within or whole(shape), shape
        self._each: dict[tuple[int, int], list[Tensor]] | None = {} if slices == 1 and is_huge(shape) else None
        if self._each is None:
            self.labels, self.codes = (
                torch.from_numpy(zeros(shape, np.uint8)) if device.type == "cpu" else torch.zeros(shape, dtype=torch.uint8, device=device)
                for _ in range(2)
            )
            self.extra = None if annotation.border is None else torch.from_numpy(annotation.border.astype(np.float16)).to(device)
        self.sampler = aside(lambda: SliceSampler(_mine(annotation), self._within), tick)
        self.put(whole(shape), annotation, belief, tick, trust)

    def put(
        self,
        box: Box,
        annotation: Annotation,
        belief: Belief,
        tick: Callable[[], None] = lambda: None,
        trust: np.ndarray | None = None,
    ) -> None:
        """Take a box anew from the annotation and what is believed. Plane by plane: nothing of the volume's size is made."""
        self.table = torch.from_numpy(self._table(annotation)).to(self._device)
        if self._each is not None:
            self._put_slices(box, annotation, belief, tick, trust)
            return
        for k in range(box[0].start, box[0].stop):
            tick()
            at = (slice(k, k + 1), box[1], box[2])
            self.labels[at], self.codes[at] = self._said(at, annotation, belief, trust)

    def _put_slices(self, box: Box, annotation: Annotation, belief: Belief, tick: Callable[[], None], trust: np.ndarray | None) -> None:
        """In a box, of those slices that are there; and all of those that the sampler draws by now."""
        assert self._each is not None
        for axis, index in sorted(set(self.sampler.slices) | set(self._each)):
            tick()
            everything, new = _slice(axis, index, annotation.labels.shape), (axis, index) not in self._each
            at = everything if new else intersection(box, everything)
            if at is None:
                continue
            found = [*self._said(at, annotation, belief, trust)]
            if annotation.border is not None:
                found.append(torch.from_numpy(annotation.border[at].astype(np.float16)).to(self._device))
            if new:
                self._each[axis, index] = [part.squeeze(axis) for part in found]
                continue
            place = [within_volume(at, everything)[a] for a in _others(axis)]
            for kept, part in zip(self._each[axis, index], found, strict=True):
                kept[tuple(place)] = part.squeeze(axis)

    def _said(self, at: Box, annotation: Annotation, belief: Belief, trust: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """Labels and codes of a box, (k, j, i) uint8 both, on the device."""
        mine = annotation.labelled[at]
        otherwise = 0 if self._settings.ignore_weights else belief.label[at]
        labels = np.where(mine, annotation.labels[at], otherwise).astype(np.uint8)
        codes = np.minimum(belief.confidence[at], np.uint8(_DOUBTED - 1))
        codes[mine] = _CODES[annotation.origin[at][mine]]
        if trust is not None:
            doubted = (codes == _LABELLED) & (trust[at] < 255)
            codes[doubted] = _DOUBTED + trust[at][doubted].astype(np.int64) * _LEVELS // 255
        return torch.from_numpy(labels).to(self._device), torch.from_numpy(codes).to(self._device)

    def change(
        self,
        boxes: Sequence[Box],
        annotation: Annotation,
        belief: Belief,
        tick: Callable[[], None] = lambda: None,
        trust: np.ndarray | None = None,
    ) -> None:
        """Take boxes anew after a correction, whose slices are learned from first. `put` is for boxes in which only the belief changed."""
        sampler = copy.copy(self.sampler)
        aside(lambda: sampler.look(_mine(annotation), self._within, boxes), tick)
        self.sampler = sampler
        for box in boxes:
            self.put(box, annotation, belief, tick, trust)

    def _table(self, annotation: Annotation) -> np.ndarray:
        classes = annotation.table.shape[1]
        if self._settings.ignore_weights:
            return np.ones((256, classes), np.float32)
        certain = np.maximum(np.linspace(-1, 1, 256), 0) ** 2
        table = np.repeat((self._settings.pseudo_label_weight * certain).astype(np.float32)[:, None], classes, axis=1)
        table[_LABELLED], table[_CORRECTED] = annotation.table[STROKE], annotation.table[CORRECTION]
        table[_HINTED] = annotation.table[HINT]
        for level in range(_LEVELS):
            table[_DOUBTED + level] = annotation.table[STROKE] * np.float32((level + 0.5) / _LEVELS)
        return table

    def on(self, device: torch.device) -> Targets:
        """The same on another device."""
        moved = copy.copy(self)
        moved._device = device
        if self._each is not None:
            moved._each = {at: [part.to(device) for part in parts] for at, parts in self._each.items()}
            moved.table = self.table.to(device)
            return moved
        moved.labels, moved.codes, moved.table = self.labels.to(device), self.codes.to(device), self.table.to(device)
        moved.extra = None if self.extra is None else self.extra.to(device)
        return moved

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """y, int64, and w, float32, at flat voxel indices, in their shape; of a huge volume all of them on one slice that the sampler draws."""
        if self._each is None:
            return self._at(index, self.labels, self.codes, *([] if self.extra is None else [self.extra]))
        places = torch.unravel_index(index, self._shape)
        firsts = [int(place.flatten()[0]) for place in places]
        axis = next(a for a in range(3) if (a, firsts[a]) in self._each and bool((places[a] == firsts[a]).all()))
        rows, columns = (places[a] for a in _others(axis))
        labels, *more = self._each[axis, firsts[axis]]
        return self._at(rows * labels.shape[1] + columns, labels, *more)

    def _at(self, index: Tensor, labels: Tensor, codes: Tensor, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same, from arrays that the index is of."""
        code, label = codes.reshape(-1)[index].long(), labels.reshape(-1)[index].long()
        weights = self.table[code, label]
        if extra is not None:
            weights = weights + torch.where(code >= _DOUBTED, extra.reshape(-1)[index].float(), 0)
        return label, weights


def _others(axis: int) -> tuple[int, int]:
    one, other = (a for a in range(3) if a != axis)
    return one, other


def _slice(axis: int, index: int, shape_kji: Sequence[int]) -> Box:
    k, j, i = (slice(index, index + 1) if a == axis else slice(0, n) for a, n in enumerate(shape_kji))
    return (k, j, i)


def _mine(annotation: Annotation) -> np.ndarray:
    """What the user painted; what hints label only where there is nothing else. They label walls, which would be learned from as slices all of
    background, and bring in orientations that nobody painted on."""
    painted = annotation.painted
    return painted if painted.any() else annotation.labelled
