"""What held-out annotation says of the voices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..contract.belief import Belief
from ..prior import refiner
from ..prior.growing import coarsening
from ..quality.estimate import dice

_LEAST_HELD = 50  # voxels of a segment that must be held out to judge it


def choose_use(
    before: Belief, after: Belief, labels: np.ndarray, labelled: np.ndarray, held: np.ndarray, spacing_kji_mm: Sequence[float]
) -> list[bool]:
    """Which segments to correct, segment 1 first: all, but those that the network sees on a coarser grid only, and that this cannot hold or that
    came out worse on held-out annotation.

    before and after: the prior without and with correction, both from the labels (K, J, I) uint8 in `labelled`, without those in `held`, bool.
    On the volume's own grid the network needs no such proof: holding slices out doubles gaps that are long already, which says little.
    """
    use = []
    for value in range(1, int(labels[labelled | held].max(initial=0)) + 1):
        box = refiner.region((before.label == value) | (labelled & (labels == value)), spacing_kji_mm)
        if box is None or (factors := coarsening([s.stop - s.start for s in box], spacing_kji_mm, refiner.WORKING_VOXELS)) == (1, 1, 1):
            use.append(True)
            continue
        logit = refiner.prior_logit(before, box, value)
        held_by_grid = refiner.grid_holds(refiner.pool(logit, factors), refiner.agreement(logit, factors))
        truth, judged = labels[held], (labels[held] == value).sum() >= _LEAST_HELD
        worse = judged and dice(after.label[held], truth, value) < dice(before.label[held], truth, value)
        use.append(held_by_grid and not worse)
    return use
