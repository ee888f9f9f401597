"""The next slice to annotate: where the result is least sure."""

from __future__ import annotations

import numpy as np


def next_slices(uncertainty: np.ndarray, labelled: np.ndarray | None, count: int = 5) -> list[list[int]]:
    """[axis, index] pairs, most uncertain first, no two near each other along one axis.

    uncertainty (K, J, I) uint8, labelled bool (K, J, I) or None. A slice's score is its summed uncertainty over the root of its size, so that
    the axes of an anisotropic volume compete fairly; slices already annotated fall out, since nothing is uncertain there.
    """
    unsure = uncertainty if labelled is None else np.where(labelled, 0, uncertainty)
    candidates = []
    for axis in range(3):
        sums = unsure.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.int64)
        area = unsure.size / unsure.shape[axis]
        candidates += [(float(total) / area**0.5, axis, index) for index, total in enumerate(sums) if total]
    chosen: list[list[int]] = []
    for _, axis, index in sorted(candidates, reverse=True):
        apart = max(2, unsure.shape[axis] // 10)
        if all(a != axis or abs(index - i) >= apart for a, i in chosen):
            chosen.append([axis, index])
        if len(chosen) == count:
            break
    return chosen
