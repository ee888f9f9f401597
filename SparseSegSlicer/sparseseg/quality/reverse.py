"""How good a result is, told by what its own slices make of the annotation: reverse classification accuracy (Valindria et al., IEEE Transactions on
Medical Imaging 2017).

Slices of the result half-way between annotated ones are taken for an annotation; growing from them alone says what the annotated slices would be,
and there the user's own labels tell how right that is. A result that is wrong between the annotated slices cannot bring them back. Nothing has to
be held out of training, and as much is known on both ways.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from ..annotation.slices import covering_slices, plane
from ..contract.aside import Aside, at_once
from ..contract.scratch import Zeros
from .estimate import MIN_VOXELS, counted, dice

Slices = list[tuple[int, int]]  # (axis, index)


def slices_between(labelled: np.ndarray) -> Slices:
    """Half-way between annotated slices of one axis, and as far beyond the first and the last; none where no axis has two.

    labelled: bool (K, J, I).
    """
    found = covering_slices(labelled)
    between: Slices = []
    for axis, size in enumerate(labelled.shape):
        own = [index for a, index in found if a == axis]
        if len(own) < 2:
            continue
        gaps = [b - a for a, b in pairwise(own)]
        middles = [(a + b) // 2 for a, b in pairwise(own) if b - a > 1]
        beyond = [own[0] - gaps[0] // 2, own[-1] + gaps[-1] // 2]
        between += [(axis, index) for index in [*middles, *beyond] if 0 <= index < size and index not in own]
    return between


def reverse_dice(
    result: np.ndarray,
    labels: np.ndarray,
    labelled: np.ndarray,
    between: Slices,
    grow: Callable[[np.ndarray, np.ndarray], np.ndarray],
    values: Sequence[int],
    aside: Aside = at_once,
    zeros: Zeros = np.zeros,
) -> dict[int, float]:
    """Dice of what growing from these slices of a result says of the annotation, by segment value; without those that the annotation, or the slices,
    have too little of.

    result, labels: (K, J, I) uint8; labelled: bool, alike; grow: from labels and where they count to labels everywhere; aside: what else is
    long is done with it; zeros: makes arrays of the volume's size.
    """

    def question() -> tuple[np.ndarray, np.ndarray, list[int]]:
        seeds, known = zeros(labelled.shape, np.uint8), zeros(labelled.shape, bool)
        for at in (plane(axis, index) for axis, index in between):
            known[at] = ~labelled[at]
            seeds[at] = np.where(known[at], result[at], 0)
        taken, own = counted(seeds, known, 256), counted(labels, labelled, 256)
        judged = [c for c in values if taken[0] and taken[c] and own[c] >= MIN_VOXELS]
        return seeds, known, judged

    seeds, known, judged = aside(question)
    if not judged:
        return {}
    grown = grow(seeds, known)

    def answer() -> dict[int, float]:
        found, truth = grown[labelled], labels[labelled]
        return {c: dice(found, truth, c) for c in judged}

    return aside(answer)
