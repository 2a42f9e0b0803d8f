"""Loops over NumPy arrays, compiled by Numba: farthest points, nearest points, Point-NN.

Squared distances are computed as in `geometry` (three squares, summed in the order x, y, z, no
fused multiply-add): equal bits, equal order. They are compared as integers: the bits of a float32
>= 0 have the order of the floats, and LLVM vectorises a minimum of integers, but not of floats,
which may be NaN. The loops run on one thread: torch's own threads keep the other cores busy.
"""

from __future__ import annotations

import contextlib

import numba
import numpy as np

_NONE = np.int32(2**31 - 1)  # above the bits of every distance, infinity included
_PICKED = np.int32(-1)  # below the bits of every distance
_BLOCK = 2048  # points whose distances stay in the first-level cache
cached = True  # whether Numba found a folder for its cache


def _compiled(function):
    """Compile a function; without Numba's cache on disk if no folder is writable."""
    global cached
    options = {"nogil": True, "error_model": "numpy"}
    try:
        dispatcher = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        cached = False
        return numba.njit(**options)(function)
    cache = dispatcher._cache
    for name in ("load_overload", "save_overload"):  # a damaged file, a full disk: do without
        setattr(cache, name, _forgiving(getattr(cache, name)))
    return dispatcher


def _forgiving(method):
    def call(*arguments):
        with contextlib.suppress(Exception):
            return method(*arguments)

    return call


@_compiled
def _distances(qx, qy, qz, x, y, z, row):  # squared distances of one query to all points
    for j in range(x.shape[0]):
        dx, dy, dz = qx - x[j], qy - y[j], qz - z[j]
        row[j] = dx * dx + dy * dy + dz * dz


@_compiled
def _smallest(bits):
    smallest = _NONE
    for j in range(bits.shape[0]):
        smallest = min(smallest, bits[j])
    return smallest


@_compiled
def _first(bits, value):  # the lowest index of a value that is present
    place = np.int32(bits.shape[0])
    for j in range(bits.shape[0]):
        place = min(place, np.int32(j) if bits[j] == value else _NONE)
    return place


@_compiled
def _minimum(nearest, bits):  # elementwise, in place; return the largest
    largest = _PICKED
    for j in range(bits.shape[0]):
        kept = min(nearest[j], bits[j])
        nearest[j] = kept
        largest = max(largest, kept)
    return largest


@_compiled
def fps(points, picked, start):
    """Write farthest points ``picked (B, m)`` of ``points (B, N, 3)``."""
    size = points.shape[1]
    nearest = np.empty(size, np.int32)
    row = np.empty(min(size, _BLOCK), np.float32)
    bits = row.view(np.int32)
    for b in range(len(points)):
        axes = np.ascontiguousarray(points[b].T)
        x, y, z = axes[0], axes[1], axes[2]
        nearest[:] = _NONE
        current = start
        for step in range(picked.shape[1]):
            picked[b, step] = current
            nearest[current] = _PICKED
            qx, qy, qz = x[current], y[current], z[current]
            if size <= _BLOCK:  # without slices, which cost as much as a short loop
                _distances(qx, qy, qz, x, y, z, row)
                current = _first(nearest, _minimum(nearest, bits))
                continue
            most, block = _PICKED, 0
            for low in range(0, size, _BLOCK):
                high = min(low + _BLOCK, size)
                _distances(qx, qy, qz, x[low:high], y[low:high], z[low:high], row)
                largest = _minimum(nearest[low:high], bits[: high - low])
                if largest > most:
                    most, block = largest, low
            current = block + _first(nearest[block : block + _BLOCK], most)


@_compiled
def _insert(value, best):
    """Put a value among the k lowest, the highest first; ``best[k]`` is -1."""
    for i in range(best.shape[0] - 1):
        best[i] = max(best[i + 1], min(value, best[i]))


@_compiled
def knn(queries, points, index):
    """Write the k nearest of ``points (B, N, 3)`` to ``queries (B, Q, 3)``: ``index (B, Q, k)``."""
    size, k = points.shape[1], index.shape[2]
    groups = 2 * k
    row = np.empty(size, np.float32)
    bits = row.view(np.int32)
    lowest, rank = np.empty(groups, np.int32), np.empty(groups, np.int32)
    near, best = np.empty(size + 1, np.int64), np.empty(k + 1, np.int64)
    inside = np.zeros(-(-size // 8) * 8, np.uint8)  # 1: may be among the k nearest
    eights = inside.view(np.uint64)
    filled = np.empty(len(eights) + 1, np.int64)
    for b in range(len(points)):
        axes = np.ascontiguousarray(points[b].T)
        x, y, z = axes[0], axes[1], axes[2]
        for q in range(queries.shape[1]):
            _distances(queries[b, q, 0], queries[b, q, 1], queries[b, q, 2], x, y, z, row)
            # The k lowest of the minima of 2k groups belong to k points: no neighbour is farther.
            lowest[:] = _NONE
            for low in range(0, size, groups):
                _minimum(lowest, bits[low : low + groups])
            rank[:] = 0  # how many minima are below each
            for i in range(groups):
                for j in range(groups):
                    rank[j] += np.int32(lowest[i] < lowest[j])
            limit = _PICKED
            for j in range(groups):
                limit = max(limit, lowest[j] if rank[j] < k else _PICKED)
            for j in range(size):
                inside[j] = bits[j] <= limit
            # First the groups of eight that contain one, then which: no unpredictable branch.
            some = count = 0
            for i in range(len(eights)):
                filled[some] = 8 * i
                some += eights[i] != 0
            for i in range(some):
                for j in range(filled[i], filled[i] + 8):
                    near[count] = j
                    count += inside[j]
            # Keys with the index in the lower half are distinct and order ties by index.
            best[:k], best[k] = np.iinfo(np.int64).max, -1
            for i in range(count):
                _insert((np.int64(bits[near[i]]) << 32) | near[i], best)
            for i in range(k):
                index[b, q, i] = best[k - 1 - i] & 0xFFFFFFFF


@_compiled
def _update(bits, column, who, i):  # nearest so far of each point of b, after point i of a
    for j in range(bits.shape[0]):
        distance, before, nearest = bits[j], column[j], who[j]
        who[j] = i if distance < before else nearest
        column[j] = min(distance, before)


@_compiled
def nearest(a, b, to_b, to_a, chamfer):
    """Write nearest indices ``to_b (B, N)``, ``to_a (B, M)`` and Chamfer ``(B,)``, in doubles."""
    size_a, size_b = a.shape[1], b.shape[1]
    row, column = np.empty(size_b, np.float32), np.empty(size_b, np.float32)
    bits, column_bits, who = row.view(np.int32), column.view(np.int32), np.empty(size_b, np.int32)
    for n in range(len(a)):
        axes = np.ascontiguousarray(b[n].T)
        x, y, z = axes[0], axes[1], axes[2]
        column_bits[:], who[:] = _NONE, 0
        from_a = from_b = 0.0
        for i in range(size_a):
            _distances(a[n, i, 0], a[n, i, 1], a[n, i, 2], x, y, z, row)
            j = _first(bits, _smallest(bits))
            to_b[n, i] = j
            from_a += row[j]
            _update(bits, column_bits, who, np.int32(i))
        to_a[n] = who
        for j in range(size_b):
            from_b += column[j]
        chamfer[n] = from_a / size_a + from_b / size_b


@_compiled
def _weigh(features, table, swapped, b, n, center, cosine, sine, extra, total, largest):
    for c in range(center.shape[0]):
        extra[c] = features[b, n, c] - center[c]
    for c in range(total.shape[0]):  # sine or cosine of angle a - b from those of a and b
        placed = table[b, n, c] * cosine[c] + swapped[b, n, c] * sine[c]
        value = (extra[c] + placed) * placed
        total[c] += value
        largest[c] = value if value > largest[c] else largest[c]


@_compiled
def weigh_and_pool(features, table, swapped, centers, neighbors, scale, out):
    """Write max + mean over neighbours, ``out (B, G, 2C)``: see `point_nn.aggregate`.

    ``table (B, N, 2C)`` holds sines and cosines of the points, ``swapped`` each pair exchanged;
    ``features`` are divided by ``scale``.
    """
    width, groups, size = features.shape[2], neighbors.shape[1], neighbors.shape[2]
    rows = np.empty((5, 2 * width), np.float32)
    extra, cosine, sine, total, largest = rows[0], rows[1], rows[2], rows[3], rows[4]
    for b in range(len(features)):
        for g in range(groups):
            center, own = features[b, centers[b, g]], table[b, centers[b, g]]
            cosine[::2], cosine[1::2] = own[1::2], own[1::2]
            sine[::2], sine[1::2] = -own[::2], own[::2]
            extra[width:], total[:], largest[:] = center * scale, 0, -np.inf
            for k in range(size):
                _weigh(features, table, swapped, b, neighbors[b, g, k], center, cosine, sine,
                       extra, total, largest)  # fmt: skip
            out[b, g] = largest + total / np.float32(size)
