"""Loops over voxels for distance, refiner and reach, compiled by numba. Each has its equal in numpy or torch where it is called."""

from __future__ import annotations

import numpy as np
from numba import njit

_LINES = 16  # columns handled together, so that memory is read in whole cache lines
_NEVER = np.float32(3e38)


@njit(nogil=True, cache=True)
def _envelope(f, n, square, at, start, out):  # type: ignore[no-untyped-def]
    """out[q] = min over p of square * (q - p)^2 + f[p]: the lower envelope of parabolas (Felzenszwalb and Huttenlocher, Theory of Computing 2012).

    at, start: room for n and n + 1 values.
    """
    last = -1
    for q in range(n):
        if f[q] >= _NEVER:
            continue
        cross = np.float64(-1e30)
        while last >= 0:
            p = at[last]
            cross = ((f[q] - f[p]) / square + (q * q - p * p)) / (2.0 * (q - p))
            if cross > start[last]:
                break
            last -= 1
        if last < 0:
            cross = np.float64(-1e30)
        last += 1
        at[last] = q
        start[last] = cross
    if last < 0:
        for q in range(n):
            out[q] = _NEVER
        return
    here = 0
    for q in range(n):
        while here < last and start[here + 1] < q:
            here += 1
        p = at[here]
        out[q] = np.float32(square * ((q - p) * (q - p)) + f[p])


@njit(nogil=True, cache=True)
def squared_distance(mask, spacing, out):  # type: ignore[no-untyped-def]
    """To the nearest voxel of mask, (K, J, I) bool, squared, into out, (K, J, I) float32; 3e38 without any. spacing: (3,) float64."""
    planes, rows, columns = mask.shape
    most = max(planes, rows)
    line, done = np.empty((_LINES, most), np.float32), np.empty((_LINES, most), np.float32)
    at, start = np.empty(most, np.int64), np.empty(most + 1, np.float64)
    for k in range(planes):
        for j in range(rows):
            _along_row(mask[k, j], spacing[2], out[k, j])
        square = spacing[1] * spacing[1]
        for first in range(0, columns, _LINES):
            width = min(_LINES, columns - first)
            for j in range(rows):
                for c in range(width):
                    line[c, j] = out[k, j, first + c]
            for c in range(width):
                _envelope(line[c], rows, square, at, start, done[c])
            for j in range(rows):
                for c in range(width):
                    out[k, j, first + c] = done[c, j]
    square = spacing[0] * spacing[0]
    for j in range(rows):
        for first in range(0, columns, _LINES):
            width = min(_LINES, columns - first)
            for k in range(planes):
                for c in range(width):
                    line[c, k] = out[k, j, first + c]
            for c in range(width):
                _envelope(line[c], planes, square, at, start, done[c])
            for k in range(planes):
                for c in range(width):
                    out[k, j, first + c] = done[c, k]


@njit(nogil=True, cache=True)
def _along_row(mask, step, out):  # type: ignore[no-untyped-def]
    n = len(mask)
    seen = -1
    for i in range(n):
        if mask[i]:
            seen = i
        out[i] = np.float32((step * (i - seen)) ** 2) if seen >= 0 else _NEVER
    seen = -1
    for i in range(n - 1, -1, -1):
        if mask[i]:
            seen = i
        if seen >= 0:
            out[i] = min(out[i], np.float32((step * (seen - i)) ** 2))


@njit(nogil=True, cache=True)
def extents(label, labels, labelled, low, high):  # type: ignore[no-untyped-def]
    """low, high: (256, 3) int64; widened to hold where each value is believed (label) or annotated (labels where labelled), all (K, J, I) uint8."""
    planes, rows, columns = label.shape
    for k in range(planes):
        for j in range(rows):
            last = -1
            for i in range(columns):
                value = label[k, j, i]
                if value != last:
                    if last > 0:
                        _widen(low, high, last, k, j, i - 1)
                    if value > 0:
                        _widen(low, high, value, k, j, i)
                    last = value
                if labelled[k, j, i] and labels[k, j, i] != value and labels[k, j, i] > 0:
                    _widen(low, high, labels[k, j, i], k, j, i)
            if last > 0:
                _widen(low, high, last, k, j, columns - 1)


@njit(nogil=True, cache=True)
def _widen(low, high, value, k, j, i):  # type: ignore[no-untyped-def]
    low[value, 0], high[value, 0] = min(low[value, 0], k), max(high[value, 0], k + 1)
    low[value, 1], high[value, 1] = min(low[value, 1], j), max(high[value, 1], j + 1)
    low[value, 2], high[value, 2] = min(low[value, 2], i), max(high[value, 2], i + 1)


@njit(nogil=True, cache=True)
def pool_sums(label, confidence, labels, labelled, factors, value, out):  # type: ignore[no-untyped-def]
    """Sums over working voxels of factors (k, j, i) voxels, into out, (5, k, j, i) int32: +1 or -1 by whether the label is `value`, the same times
    confidence, voxels of other segments, of annotation for the segment, of annotation against it. Volumes are views, (K, J, I) uint8 and bool."""
    planes, rows, columns = label.shape
    fk, fj, fi = factors
    for k in range(planes):
        for j in range(rows):
            ck, cj = k // fk, j // fj
            for ci in range(out.shape[3]):
                sign, sure, other, mine, against = 0, 0, 0, 0, 0
                for i in range(ci * fi, min(ci * fi + fi, columns)):
                    here = label[k, j, i]
                    if here == value:
                        sign += 1
                        sure += confidence[k, j, i]
                    else:
                        sign -= 1
                        sure -= confidence[k, j, i]
                        if here > 0:
                            other += 1
                    if labelled[k, j, i]:
                        if labels[k, j, i] == value:
                            mine += 1
                        else:
                            against += 1
                out[0, ck, cj, ci] += sign
                out[1, ck, cj, ci] += sure
                out[2, ck, cj, ci] += other
                out[3, ck, cj, ci] += mine
                out[4, ck, cj, ci] += against


@njit(nogil=True, cache=True)
def decide(now, grown, annotated, origin, certain, chance, table, nearest, share, added, changed, smooth):  # type: ignore[no-untyped-def]
    """Let segments compete in a box that begins at origin (k, j, i). now: label, confidence, which are written; grown: those of growing; annotated:
    labels, labelled; all (k, j, i) views of the box. certain, chance: refiner_vote's tables; table, nearest, share, added: its Gathered.
    changed: (6,) int64, widened to hold what became different, first and last + 1 of each axis, in the volume's voxels. smooth: see compete."""
    label, confidence = now
    grown_label, grown_confidence = grown
    labels, labelled = annotated
    planes, rows, columns = label.shape
    best, winner, seen = np.empty(columns, np.float32), np.empty(columns, np.uint8), np.empty(columns, np.bool_)
    line = np.empty(len(added) + 1 if len(table) == 0 else max(1, table[:, 9].max()), np.float32)
    zero = np.float32(0)
    for k in range(planes):
        for j in range(rows):
            best[:], winner[:], seen[:] = zero, 0, False
            for s in range(len(table)):
                value, k0, k1, j0, j1, i0, i1, offset, nj, ni, at_k, at_j, at_i = table[s]
                if not (k0 <= k < k1 and j0 <= j < j1):
                    continue
                if offset >= 0:
                    _line(added[offset:], nj, ni, nearest[at_k + k - k0], share[at_k + k - k0], nearest[at_j + j - j0], share[at_j + j - j0], line)
                for i in range(i0, i1):
                    logit = certain[grown_confidence[k, j, i]]
                    if grown_label[k, j, i] != value:
                        logit = -logit
                    if offset >= 0:
                        at = at_i + i - i0
                        a = line[nearest[at, 0]]
                        logit += a + share[at] * (line[nearest[at, 1]] - a)
                    if logit > zero and (not seen[i] or logit > best[i]):
                        winner[i] = value
                    if not seen[i] or logit > best[i]:
                        best[i] = logit
                    seen[i] = True
            for i in range(columns):
                if seen[i]:
                    new, sure = winner[i], chance[min(int(abs(best[i]) * np.float32(256)), len(chance) - 1)]
                else:
                    new, sure = np.uint8(0), grown_confidence[k, j, i]
                if labelled[k, j, i]:
                    if grown_confidence[k, j, i] == 255:
                        new, sure = labels[k, j, i], np.uint8(255)
                    elif not smooth:
                        if new != labels[k, j, i]:
                            sure = np.uint8(255 - sure)
                        new = labels[k, j, i]
                if new != label[k, j, i] or sure != confidence[k, j, i]:
                    label[k, j, i], confidence[k, j, i] = new, sure
                    _widen_box(changed, k + origin[0], j + origin[1], i + origin[2])


@njit(nogil=True, cache=True)
def _widen_box(box, k, j, i):  # type: ignore[no-untyped-def]
    box[0], box[1] = min(box[0], k), max(box[1], k + 1)
    box[2], box[3] = min(box[2], j), max(box[3], j + 1)
    box[4], box[5] = min(box[4], i), max(box[5], i + 1)


@njit(nogil=True, cache=True)
def _line(added, rows, columns, at_k, share_k, at_j, share_j, out):  # type: ignore[no-untyped-def]
    """Linear in k and j: one line of working voxels, into out, (columns,) float32; added is (., rows, columns), flat."""
    one, two = (at_k[0] * rows + at_j[0]) * columns, (at_k[1] * rows + at_j[0]) * columns
    three, four = (at_k[0] * rows + at_j[1]) * columns, (at_k[1] * rows + at_j[1]) * columns
    for i in range(columns):
        near = added[one + i] + share_k * (added[two + i] - added[one + i])
        far = added[three + i] + share_k * (added[four + i] - added[three + i])
        out[i] = near + share_j * (far - near)
