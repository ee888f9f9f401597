"""Counting votes, compiled by numba; only kernels.py imports this. See vote.py for what is counted, and for the same in numpy, bit for bit."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def _sure(share, n, said, agrees, doubt):
    share = (n * share + said * agrees) / (n + said)
    return np.uint8(min(255 * share / doubt, 254.0))


@njit(nogil=True, cache=True)
def _extremes(ballots, plane, j, i, present):
    """The least and greatest label in the 27 cells around, and which there are."""
    n, planes, rows, columns = ballots.shape
    low, high = 255, 0
    for a in range(max(plane - 1, 0), min(plane + 2, planes)):
        for b in range(max(j - 1, 0), min(j + 2, rows)):
            for c in range(max(i - 1, 0), min(i + 2, columns)):
                for m in range(n):
                    value = ballots[m, a, b, c]
                    present[value] = True
                    low, high = min(low, value), max(high, value)
    return low, high


@njit(nogil=True, cache=True)
def _votes_for(ballots, plane, j, i, value, votes):
    """Of the 27 cells around, those beyond the grid as their neighbours within."""
    n, planes, rows, columns = ballots.shape
    for a in range(3):
        for b in range(3):
            for c in range(3):
                k_, j_, i_ = min(max(plane + a - 1, 0), planes - 1), min(max(j + b - 1, 0), rows - 1), min(max(i + c - 1, 0), columns - 1)
                votes[a, b, c] = 0
                for m in range(n):
                    votes[a, b, c] += ballots[m, k_, j_, i_] == value


@njit(nogil=True, cache=True)
def _spread(votes, taps_k, taps_j, taps_i, value, best, winner):
    """From the cells to each voxel of the one in their middle, axis by axis; the label that wins so far."""
    one, two = np.empty((3, 3), np.int64), np.empty(3, np.int64)
    for x in range(len(taps_k)):
        for b in range(3):
            for c in range(3):
                one[b, c] = taps_k[x, 0] * votes[0, b, c] + taps_k[x, 1] * votes[1, b, c] + taps_k[x, 2] * votes[2, b, c]
        for y in range(len(taps_j)):
            for c in range(3):
                two[c] = taps_j[y, 0] * one[0, c] + taps_j[y, 1] * one[1, c] + taps_j[y, 2] * one[2, c]
            for z in range(len(taps_i)):
                total = taps_i[z, 0] * two[0] + taps_i[z, 1] * two[1] + taps_i[z, 2] * two[2]
                if total > best[x, y, z]:
                    best[x, y, z], winner[x, y, z] = total, value


@njit(nogil=True, cache=True)
def _write_plain(plain, values, factor, rows):
    """The values of the plain cells of one row to their voxels, (k, j, i): run by run, in the order of memory."""
    line, size, first = np.repeat(values, factor), rows.shape[2], 0
    while first < len(plain):
        last = first
        while last < len(plain) and plain[last] == plain[first]:
            last += 1
        if plain[first]:
            start, stop = first * factor, min(last * factor, size)
            for x in range(rows.shape[0]):
                for y in range(rows.shape[1]):
                    rows[x, y, start:stop] = line[start:stop]
        first = last


@njit(
    # a signature, as parts of a volume come in several memory layouts, and each would be compiled anew
    "void(u1[:,:,:,::1], i4[:,:,::1], u1[:,:,::1], f4[:,:,::1], i4[:,::1], i4[:,::1], i4[:,::1], i8, b1[:,::1], f8, u1[:,:,:], u1[:,:,:])",
    nogil=True,
    cache=True,
)
def count_plane(ballots, travelled, between, weight, taps_k, taps_j, taps_i, plane, again, travel, label, confidence):
    """See vote.py. Most cells lie among cells that all say the same: a row of these is written at once, in the order of memory, without counting."""
    n, _, rows, columns = ballots.shape
    fk, fj, fi = len(taps_k), len(taps_j), len(taps_i)
    present, votes = np.zeros(256, np.bool_), np.empty((3, 3, 3), np.int64)
    best, winner = np.empty((fk, fj, fi), np.int64), np.empty((fk, fj, fi), np.uint8)
    plain, values, sures = np.empty(columns, np.bool_), np.empty(columns, np.uint8), np.empty(columns, np.uint8)
    most = n * 64**3
    for j in range(rows):
        j_stop = min(fj, label.shape[1] - j * fj)
        for i in range(columns):
            plain[i] = False
            if not again[j, i]:
                continue
            low, high = _extremes(ballots, plane, j, i, present)
            i_stop = min(fi, label.shape[2] - i * fi)
            doubt, said = 1 + travelled[plane, j, i] / (n * travel), np.float64(weight[plane, j, i])
            if low == high:
                present[low] = False
                plain[i], values[i], sures[i] = True, low, _sure(1.0, n, said, between[plane, j, i] == low, doubt)
                continue
            best[:] = 0
            winner[:] = 0
            for value in range(low, high + 1):
                if present[value]:
                    present[value] = False
                    _votes_for(ballots, plane, j, i, value, votes)
                    _spread(votes, taps_k, taps_j, taps_i, value, best, winner)
            for x in range(label.shape[0]):
                for y in range(j_stop):
                    for z in range(i_stop):
                        sure = _sure(best[x, y, z] / most, n, said, between[plane, j, i] == winner[x, y, z], doubt)
                        label[x, j * fj + y, i * fi + z], confidence[x, j * fj + y, i * fi + z] = winner[x, y, z], sure
        part = slice(j * fj, j * fj + j_stop)
        _write_plain(plain, values, fi, label[:, part])
        _write_plain(plain, sures, fi, confidence[:, part])
