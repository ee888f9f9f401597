"""The refiner's voice: growing, corrected by a small network one segment at a time, and kept up to date stroke by stroke.

Each segment is seen on a working grid of its own (refiner_view.py), the network says what to add to the logit of growing there
(refiner_network.py), and the segments compete at the volume's resolution (refiner_vote.py). What is kept between revisions lies on the working
grids; only the answer has the volume's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..contract.belief import Belief
from ..contract.box import Box, union, whole, with_margin
from ..contract.scratch import Zeros, is_huge
from . import compiled
from .refiner_network import Tick, correction, load_refiner
from .refiner_view import View, look
from .refiner_vote import compete, decided
from .volumes import Volumes

_REACH = 4  # working voxels around a change within which the network is asked anew
# voxels: in a larger volume the network is not asked where strokes are all there is, as it has seen no such gaps and gives up whole segments: Dice
# 0.81 grown and 0.62 refined (ct-abdomen enlarged five times, strokes-2), 0.79 and 0.74 (lm-plant-cells enlarged three times); between complete
# slices it gains there, too
_FULL_SIZE = 5_000_000
_CONTEXT = 8  # more of them, which it is shown


class Refined:
    """What the refiner believes: label and confidence, (K, J, I) uint8, kept up to date in place; of a huge volume (scratch.is_huge) they are not
    kept, and `at` makes them for a box. The confidence is 255 times about the chance that the label is right, 255 at labelled voxels that are not
    in doubt."""

    def __init__(
        self,
        volumes: Volumes,
        device: torch.device,
        dtype: torch.dtype,
        use: Sequence[bool] | None = None,
        network: nn.Module | None = None,
        smooth: bool = False,
        zeros: Zeros = np.zeros,
    ) -> None:
        """use: for each segment, segment 1 first, whether it is corrected (all are if None). zeros makes label and confidence."""
        self.volumes, self.device, self.dtype, self.use, self._smooth = volumes, device, dtype, use, smooth
        self.network = network or load_refiner(device)
        self.shape = volumes.label.shape
        self._kept = None if is_huge(self.shape) else Belief(zeros(self.shape, np.uint8), zeros(self.shape, np.uint8))
        self.views: dict[int, View] = {}
        self._open: list[Box] = []  # where label and confidence are still to be decided: more than nothing only while at work, or after a tick raised

    @classmethod
    def start(
        cls,
        grown_label: np.ndarray,
        grown_confidence: np.ndarray,
        image: np.ndarray,
        labels: np.ndarray,
        labelled: np.ndarray,
        spacing_kji_mm: Sequence[float],
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        tick: Tick = lambda: None,
        use: Sequence[bool] | None = None,
        network: nn.Module | None = None,
        smooth: bool = False,
        zeros: Zeros = np.zeros,
    ) -> Refined:
        """Everything for the first time. Volumes as in refiner_view.Volumes; they are kept, not copied. tick is called several times a second; what
        it raises ends the work. smooth: labels in doubt give way to what is believed there."""
        k, j, i = (float(s) for s in spacing_kji_mm)
        volumes = Volumes(grown_label, grown_confidence, image, labels, labelled, (k, j, i))
        refined = cls(volumes, device or torch.device("cpu"), dtype, use, network, smooth, zeros)
        refined.renew(tick=tick)
        return refined

    def at(self, box: Box) -> Belief:
        """Label and confidence in a box, (k, j, i) uint8 both; views, or made for it."""
        if self._kept is None:
            return decided(self.volumes, list(self.views.values()), box, self._smooth)
        return Belief(self._kept.label[box], self._kept.confidence[box])

    @property
    def label(self) -> np.ndarray:
        assert self._kept is not None
        return self._kept.label

    @property
    def confidence(self) -> np.ndarray:
        assert self._kept is not None
        return self._kept.confidence

    def renew(
        self,
        labels: np.ndarray | None = None,
        labelled: np.ndarray | None = None,
        use: Sequence[bool] | None = None,
        tick: Tick = lambda: None,
    ) -> Box | None:
        """Everything anew: grids, gray values, corrections. Arrays as in update. Returns what changed."""
        self._take(labels, labelled)
        self.use = use if use is not None else self.use
        everything = whole(self.shape)
        self._open = [everything]
        extents = find_extents(self.volumes, everything, tick)
        views: dict[int, View] = {}
        for value, extent in extents.items():
            tick()
            views[value] = self._seen(value, extent, tick)
        self.views = views
        return self._decide(tick)

    def update(self, box: Box, labels: np.ndarray | None = None, labelled: np.ndarray | None = None, tick: Tick = lambda: None) -> Box | None:
        """Take in that growing and annotation are others in a box of the volume, where they were changed in place, or as in labels and labelled.
        Returns the box in which label or confidence changed, None where nothing did. Frozen until renewed: View says what."""
        self._take(labels, labelled)
        self._open.append(box)
        box = self._around_open()
        for value, extent in find_extents(self.volumes, box, tick).items():
            if value not in self.views or not _inside(extent, self.views[value], self.shape):
                self._look_again(value, tick)
        for value, view in list(self.views.items()):
            if not view.update(self.volumes, box):
                continue
            tick()
            if view.is_empty(self.volumes):
                self._open.append(self.views.pop(value).box)
            else:
                self._correct(view, tick)
        return self._decide(tick)

    def set_use(self, use: Sequence[bool], tick: Tick = lambda: None) -> Box | None:
        """Correct these segments, segment 1 first, and no others, without looking at anything else anew. Returns what changed."""
        self.use = use
        for view in self.views.values():
            if self._corrects(view) == (view.added is not None):
                continue
            view.added = self._asked(view, tick) if view.added is None else None
            self._open.append(view.box)
        return self._decide(tick) if self._open else None

    @property
    def is_coarse(self) -> bool:
        """Whether any segment is seen on a coarser grid than the volume's."""
        return any(view.is_coarse for view in self.views.values())

    def _take(self, labels: np.ndarray | None, labelled: np.ndarray | None) -> None:
        v = self.volumes
        self.volumes = Volumes(
            v.label, v.confidence, v.image, v.labels if labels is None else labels, v.labelled if labelled is None else labelled, v.spacing_kji_mm
        )

    def _look_again(self, value: int, tick: Tick) -> None:
        """At a segment that is new, or that has outgrown its view."""
        if value in self.views:
            self._open.append(self.views.pop(value).box)
        extent = find_extents(self.volumes, whole(self.shape), tick)[value]
        view = self._seen(value, extent, tick)
        self._open.append(view.box)
        self.views = dict(sorted({**self.views, value: view}.items()))

    def _seen(self, value: int, extent: Box, tick: Tick) -> View:
        view = look(self.volumes, value, extent, tick)
        if self._corrects(view):
            view.added = self._asked(view, tick)
        return view

    def _asked(self, view: View, tick: Tick) -> Tensor:
        """What the network says of a whole working grid, as View.added."""
        features = view.features(whole(view.shape))
        added = correction(self.network, features, view.pools, self.device, self.dtype, tick, view.is_coarse, view.has_slices)
        return (added * view.agreement).half()

    def _corrects(self, view: View) -> bool:
        if math.prod(self.shape) > _FULL_SIZE and not view.has_slices:
            return False
        return view.held_by_grid and (self.use is None or view.value > len(self.use) or self.use[view.value - 1])

    def _correct(self, view: View, tick: Tick) -> None:
        """Ask the network anew around the part of a working grid that changed."""
        assert view.stale is not None
        part = view.stale
        if view.added is not None:
            part = with_margin(part, _REACH, view.shape)
            shown = _aligned(with_margin(part, _CONTEXT, view.shape), view)
            added = correction(self.network, view.features(shown), view.pools, self.device, self.dtype, tick, view.is_coarse, view.has_slices)
            k, j, i = (slice(p.start - s.start, p.stop - s.start) for p, s in zip(part, shown, strict=True))
            view.added[part] = (added[k, j, i] * view.agreement[part]).half()
        view.stale = None
        # half a working voxel farther, as the volume's voxels lie between the centres of two
        sides = [
            slice(max(v.start, v.start + (p.start - 1) * f), min(v.stop, v.start + (p.stop + 1) * f))
            for p, v, f in zip(part, view.box, view.factors, strict=True)
        ]
        self._open.append((sides[0], sides[1], sides[2]))

    def _around_open(self) -> Box:
        """What must be decided anew."""
        box = union(*self._open)
        assert box is not None
        return box

    def _decide(self, tick: Tick) -> Box | None:
        changed: Box | None = self._around_open()
        if self._kept is not None:
            changed = compete(*self._kept, self.volumes, list(self.views.values()), self._around_open(), tick, self._smooth)
        self._open = []
        return changed


def find_extents(volumes: Volumes, box: Box, tick: Tick) -> dict[int, Box]:
    """For each segment that growing or annotation have in a box of the volume, its box there; lowest value first."""
    low, high = np.full((256, 3), np.iinfo(np.int64).max), np.zeros((256, 3), np.int64)
    step = max(1, 8_000_000 // ((box[1].stop - box[1].start) * (box[2].stop - box[2].start)))
    for k in range(box[0].start, box[0].stop, step):
        tick()
        part = (slice(k, min(k + step, box[0].stop)), box[1], box[2])
        label, labels, labelled = (v[part] for v in (volumes.label, volumes.labels, volumes.labelled))
        first, last = np.full((256, 3), np.iinfo(np.int64).max), np.zeros((256, 3), np.int64)
        if (loops := compiled.loops()) is not None:
            loops.extents(label, labels, labelled, first, last)
        else:
            _extents(label, labels, labelled, first, last)
        found, origin = last[:, 0] > 0, [s.start for s in part]
        low[found] = np.minimum(low[found], first[found] + origin)
        high[found] = np.maximum(high[found], last[found] + origin)
    boxes: dict[int, Box] = {}
    for value in np.flatnonzero(high[:, 0]).tolist():
        sides = [slice(int(a), int(b)) for a, b in zip(low[value], high[value], strict=True)]
        boxes[value] = (sides[0], sides[1], sides[2])
    return boxes


def _extents(label: np.ndarray, labels: np.ndarray, labelled: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """As refiner_loops.extents."""
    for k in range(len(label)):
        annotated = np.where(labelled[k], labels[k], 0)
        for value in np.flatnonzero(np.bincount(label[k].ravel(), minlength=256) + np.bincount(annotated.ravel(), minlength=256)):
            if value == 0:
                continue
            here = (label[k] == value) | (annotated == value)
            j, i = np.flatnonzero(here.any(1)), np.flatnonzero(here.any(0))
            low[value] = np.minimum(low[value], (k, j[0], i[0]))
            high[value] = np.maximum(high[value], (k + 1, j[-1] + 1, i[-1] + 1))


def _inside(extent: Box, view: View, shape_kji: Sequence[int]) -> bool:
    """Whether a segment still lies in its view, two working voxels from the edge where the volume goes on."""
    for e, v, f, size in zip(extent, view.box, view.factors, shape_kji, strict=True):
        if (v.start > 0 and e.start < v.start + 2 * f) or (v.stop < size and e.stop > v.stop - 2 * f):
            return False
    return True


def _aligned(box: Box, view: View) -> Box:
    """To whole working voxels of the network's coarsest level, so that it pools as it does on the whole grid."""
    sides = []
    for axis, (s, n) in enumerate(zip(box, view.shape, strict=True)):
        step = int(np.prod([pool[axis] for pool in view.pools], dtype=int))
        sides.append(slice(s.start // step * step, min(n, -(-s.stop // step) * step)))
    return (sides[0], sides[1], sides[2])
