"""Compiled by numba; only `compiled` imports this. Every function has a twin in numpy beside its caller, and gives the same, bit for bit.

Of the growing (see growing.py for what keys and parents are): arrays are padded by one voxel on every side and flat where said. Steps are
numbered (dk + 1) * 9 + (dj + 1) * 3 + di + 1, so 13 stays and 26 - m leads back.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit

from .counting import count_plane  # noqa: F401  (compiled as it is imported)

FAR = np.int32(1 << 30)  # the key of a voxel not reached
SEED, NONE, DIRTY = 13, 27, 64  # parents that are no step
_CHUNK = 128  # queue entries in one piece


@njit(nogil=True, cache=True)
def sweep(levels, key, costs, planes, plane_stride, rows, row_stride, columns):
    """Along one axis, there and back, whole rows at a time: each voxel looks at the nine before it. Flat; costs: (3, 3) << 8."""
    for step in range(2, 2 * planes - 4):
        here = step if step < planes - 1 else 2 * planes - 4 - step
        before = here - 1 if step < planes - 1 else here + 1
        for r in range(1, rows - 1):
            start = here * plane_stride + r * row_stride
            for dr in range(3):
                other = before * plane_stride + (r + dr - 1) * row_stride
                here_row, other_row = slice(start, start + columns), slice(other, other + columns)
                _row(levels[here_row], key[here_row], levels[other_row], key[other_row], costs[dr])


@njit(nogil=True, cache=True)
def _row(levels, key, from_levels, from_key, costs):
    a, b, c = np.int32(costs[0]), np.int32(costs[1]), np.int32(costs[2])
    for x in range(len(key) - 2):  # 32 bits throughout, so that it becomes vector instructions
        level = np.int32(levels[x + 1])
        one = np.int32(np.int32(abs(np.int32(from_levels[x] - level)) << 8) + np.int32(from_key[x] + a))
        two = np.int32(np.int32(abs(np.int32(from_levels[x + 1] - level)) << 8) + np.int32(from_key[x + 1] + b))
        three = np.int32(np.int32(abs(np.int32(from_levels[x + 2] - level)) << 8) + np.int32(from_key[x + 2] + c))
        key[x + 1] = min(min(key[x + 1], one), min(two, three))


@njit(nogil=True, cache=True)
def turn(source, target):
    """Copy block by block, as one of them is a transposed view."""
    planes, rows, columns = source.shape
    for k in range(planes):
        for j0 in range(0, rows, 64):
            for i0 in range(0, columns, 64):
                for i in range(i0, min(i0 + 64, columns)):
                    for j in range(j0, min(j0 + 64, rows)):
                        target[k, j, i] = source[k, j, i]


@njit(nogil=True, cache=True)
def settle(levels, key, parent, costs, offsets, planes, rows, columns):
    """The best neighbour becomes the parent; where it says nearer than the sweeps did, the parent is marked DIRTY. Flat."""
    for row in range(rows * (planes - 2)):
        start, j = row + rows, row % rows
        if 0 < j < rows - 1:
            start = start * columns + 1
            n = columns - 2
            best, way = np.full(n, FAR, np.int32), np.full(n, NONE, np.int32)
            for m in range(27):
                if m != SEED:
                    other = start + offsets[m]
                    _choose(levels[start : start + n], levels[other : other + n], key[other : other + n], np.int32(costs[m]), np.int32(m), best, way)
            for x in range(n):
                v = start + x
                if key[v] < 256:
                    parent[v] = SEED
                else:
                    parent[v] = way[x]
                    if best[x] < key[v]:
                        key[v], parent[v] = best[x], way[x] | DIRTY


@njit(nogil=True, cache=True)
def _choose(levels, from_levels, from_key, cost, m, best, way):
    for x in range(len(best)):
        path = np.int32(np.int32(abs(np.int32(from_levels[x] - levels[x])) << 8) + np.int32(from_key[x] + cost))
        way[x] = m if path < best[x] else way[x]
        best[x] = min(path, best[x])


@njit(nogil=True, cache=True)
def relax(levels, key, parent, costs, offsets, starts, buckets, rows, columns, most):
    """Spread from starts, sorted by key, as long as anything becomes nearer: Dijkstra with one bucket a distance. Flat; the faces' keys are -1.

    Returns how many voxels had their turn, and the least and greatest (k, j, i) of these. More than `most`: it stops, with every key still the
    length of some path."""
    head, fill = np.full(buckets, -1, np.int32), np.zeros(buckets, np.int32)  # a bucket's newest piece, and how full it is
    pool, link = np.empty((64, _CHUNK), np.uint32), np.arange(1, 65).astype(np.int32)  # pieces; after each the next of its bucket or free one
    free, queued, fed, now, turns = 0, 0, 0, 0, 0
    low, high = np.full(3, 1 << 40), np.full(3, -1)
    while turns <= most:
        slot = now & (buckets - 1)
        if fed < len(starts) and key[starts[fed]] >> 8 <= now:
            v = np.int64(starts[fed])
            fed += 1
        elif head[slot] >= 0:
            piece = head[slot]
            fill[slot] -= 1
            queued -= 1
            v = np.int64(pool[piece, fill[slot]])
            if fill[slot] == 0:
                head[slot], link[piece], free = link[piece], free, piece
                fill[slot] = _CHUNK
        elif queued:
            now += 1
            continue
        elif fed < len(starts):
            now = key[starts[fed]] >> 8
            continue
        else:
            break
        mine = key[v]
        if mine >> 8 != now:
            continue  # it became nearer since, and had its turn
        turns += 1
        k, j, i = v // (rows * columns), v // columns % rows, v % columns
        low[0], low[1], low[2] = min(low[0], k), min(low[1], j), min(low[2], i)
        high[0], high[1], high[2] = max(high[0], k), max(high[1], j), max(high[2], i)
        level = levels[v]
        for m in range(27):
            n = v + offsets[m]
            path = mine + costs[m]
            if path >= key[n]:
                continue
            path += abs(levels[n] - level) << 8
            if path >= key[n]:
                continue
            key[n], parent[n] = path, 26 - m
            slot = (path >> 8) & (buckets - 1)
            if head[slot] < 0 or fill[slot] == _CHUNK:
                if free == len(link):
                    pool = np.concatenate((pool, np.empty_like(pool)))
                    link = np.concatenate((link, np.arange(free + 1, 2 * free + 1).astype(np.int32)))
                piece, free = free, link[free]
                link[piece], head[slot], fill[slot] = head[slot], piece, 0
            pool[head[slot], fill[slot]] = n
            fill[slot] += 1
            queued += 1
    return turns, low, high


@njit(nogil=True, cache=True)
def uproot(key, parent, offsets, roots, most):
    """Forget the voxels that hang from roots, and these; returns them all, or the first of them once there are more than `most`. Flat."""
    lost, n = np.empty(len(roots) + 1024, np.int64), len(roots)
    lost[:n] = roots
    for v in roots:
        key[v], parent[v] = FAR, NONE
    at = 0
    while at < n and n <= most:
        if n + 27 > len(lost):
            lost = np.concatenate((lost, np.empty_like(lost)))
        for m in range(27):
            child = lost[at] + offsets[m]
            if parent[child] == 26 - m and m != SEED:
                key[child], parent[child] = FAR, NONE
                lost[n] = child
                n += 1
        at += 1
    return lost[:n]


@njit(nogil=True, cache=True)
def pull(levels, key, parent, costs, offsets, lost):
    """Give lost voxels that border on others the nearest of these as parent; returns them. Flat."""
    voxels, keys, parents, n = np.empty(len(lost), np.int64), np.empty(len(lost), np.int32), np.empty(len(lost), np.uint8), 0
    for v in lost:
        best, way = np.int64(FAR), NONE
        for m in range(27):
            theirs = key[v + offsets[m]]
            if 0 <= theirs < FAR:
                path = theirs + costs[m] + (abs(levels[v + offsets[m]] - levels[v]) << 8)
                if path < best:
                    best, way = path, m
        if way != NONE:
            voxels[n], keys[n], parents[n] = v, best, way
            n += 1
    for x in range(n):
        key[voxels[x]], parent[voxels[x]] = keys[x], parents[x]
    return voxels[:n].copy()


@njit(nogil=True, cache=True)
def pool_plane(gray, labels, labelled, doubt, f, mean, known, own, firm):
    """One plane of cells. gray: (f0 or less, J, I) float32; labels: uint8, labelled and doubt: bool, alike; f: (j, i) voxels a cell. Fills mean
    (float32, all voxels), known (int16, the commonest label, the smaller of equals, -1 none), own (float32, mean of the voxels of that label) and
    firm (as known, of the labels that are not in doubt)."""
    depth, rows, columns = gray.shape
    total, seen = np.empty(columns), np.empty(columns, np.bool_)  # of a column of voxels, so that memory is read in its order
    counts, sums, sure = np.zeros(256, np.int64), np.zeros(256), np.zeros(256, np.int64)
    for j in range(mean.shape[0]):
        first, last = j * f[0], min((j + 1) * f[0], rows)
        total[:] = 0
        seen[:] = False
        for a in range(depth):
            for b in range(first, last):
                grays, there = gray[a, b], labelled[a, b]
                for c in range(columns):
                    total[c] += grays[c]
                for c in range(columns):
                    seen[c] |= there[c]
        for i in range(mean.shape[1]):
            start, stop = i * f[1], min((i + 1) * f[1], columns)
            mean[j, i] = total[start:stop].sum() / (depth * (last - first) * (stop - start))
            known[j, i], own[j, i], firm[j, i] = -1, 0, -1
            if seen[start:stop].any():
                counts[:], sums[:], sure[:] = 0, 0, 0
                for a in range(depth):
                    for b in range(first, last):
                        for c in range(start, stop):
                            if labelled[a, b, c]:
                                counts[labels[a, b, c]] += 1
                                sums[labels[a, b, c]] += gray[a, b, c]
                                sure[labels[a, b, c]] += not doubt[a, b, c]
                if sure.any():
                    firm[j, i] = sure.argmax()
                best = counts.argmax()
                known[j, i], own[j, i] = best, sums[best] / counts[best]


@njit(nogil=True, cache=True)
def in_doubt(labels, labelled):
    """(k, j, i) bool: see standing.py. labels: uint8, labelled: bool, both contiguous."""
    planes, rows, columns = labels.shape
    core, doubt = np.zeros(labels.shape, np.bool_), np.zeros(labels.shape, np.bool_)
    for k in range(planes):
        for j in range(rows):
            for i in range(columns):
                core[k, j, i] = labelled[k, j, i] and _is_core(labels, labelled, k, j, i)
    for k in range(planes):
        for j in range(rows):
            for i in range(columns):
                if labelled[k, j, i] and not core[k, j, i]:
                    doubt[k, j, i] = _is_island(labels, labelled, k, j, i)
                    for c in range(max(k - 2, 0), min(k + 3, planes)):
                        for b in range(max(j - 2, 0), min(j + 3, rows)):
                            for a in range(max(i - 2, 0), min(i + 3, columns)):
                                doubt[k, j, i] |= core[c, b, a] and labels[c, b, a] == labels[k, j, i]
    return doubt


@njit(nogil=True, cache=True)
def _is_island(labels, labelled, k, j, i):
    planes, rows, columns = labels.shape
    others = 0
    for c in range(max(k - 1, 0), min(k + 2, planes)):
        for b in range(max(j - 1, 0), min(j + 2, rows)):
            for a in range(max(i - 1, 0), min(i + 2, columns)):
                if labelled[c, b, a] and not (c == k and b == j and a == i):
                    if labels[c, b, a] == labels[k, j, i]:
                        return False
                    others += 1
    return others >= 8


@njit(nogil=True, cache=True)
def _is_core(labels, labelled, k, j, i):
    planes, rows, columns = labelled.shape
    across_k = across_j = across_i = True  # whether the 3 x 3 voxels of this plane are all labelled; what is beyond the part counts as such
    for c in range(max(k - 1, 0), min(k + 2, planes)):
        for b in range(max(j - 1, 0), min(j + 2, rows)):
            for a in range(max(i - 1, 0), min(i + 2, columns)):
                if not labelled[c, b, a]:
                    across_k &= c != k
                    across_j &= b != j
                    across_i &= a != i
                    if not (across_k or across_j or across_i):
                        return False
                elif labels[c, b, a] != labels[k, j, i]:
                    return False
    return True


def compile_all():
    """Run the others once on a few voxels, with the types that they are used with."""
    shape, size = (3, 3, 3), 27
    levels, key, parent = np.zeros(shape, np.int16), np.full(shape, FAR, np.int32), np.full(shape, SEED, np.uint8)
    costs, offsets, none = np.zeros(size, np.int32), np.zeros(size, np.int64), np.zeros(0, np.int64)
    flat = levels.reshape(-1), key.reshape(-1), parent.reshape(-1)
    sweep(*flat[:2], costs.reshape(3, 3, 3)[0].copy(), 3, 9, 3, 3, 3)
    turn(levels, np.empty(shape, np.int16).transpose(1, 2, 0))
    turn(key, np.empty(shape, np.int32).transpose(1, 2, 0))
    turn(np.empty(shape, np.int32).transpose(1, 2, 0), key)
    settle(*flat, costs, offsets, 3, 3, 3)
    relax(*flat, costs, offsets, none, 2, 3, 3, 9)
    uproot(*flat[1:], offsets, none, 9)
    pull(*flat, costs, offsets, none)
    planes = np.zeros((1, 3, 3), np.float32), np.zeros((1, 3, 3), np.uint8), np.zeros((1, 3, 3), bool), np.zeros((1, 3, 3), bool)
    in_doubt(np.zeros(shape, np.uint8), np.ones(shape, bool))
    cells = [np.zeros((3, 3), t) for t in (np.float32, np.int16, np.float32, np.int16)]
    pool_plane(*planes, (1, 1), *cells)
