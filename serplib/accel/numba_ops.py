"""Nearest and farthest points in loops over arrays, compiled.

Plain Python over NumPy arrays, compiled by Numba where that is installed; each runs over the clouds
``first`` to ``last`` of a batch, so that a team of threads can share it, see `accel.openmp`. Every
loop computes a squared distance as `geometry` does (three squares, summed in the order x, y, z, no
fused multiply-add), hence the same choice among near-equal points. Distances are then compared as
whole numbers: the bits of a float32 >= 0 are in the order of the floats, and the compiler takes
minima of whole numbers sixteen at a time, those of floats, which might be NaN, one by one.
"""

from __future__ import annotations

import numpy as np

from serplib.accel.openmp import compiled, share_out

_NONE = np.int32(2**31 - 1)  # above the bits of every distance, of an infinite one, too
_LEAF = 64  # points of a leaf of the tree, at most: measured, 32 to 128 are as good


@compiled
def finite(values):
    """Whether a flat float32 array is without NaN and Inf: their exponents are all ones."""
    bits, largest = values.view(np.int32), np.int32(0)
    for i in range(bits.shape[0]):
        largest = max(largest, bits[i] & 0x7F800000)
    return largest < 0x7F800000


@compiled
def _to_sides(cloud, sides):  # (N, 3), (3, N): each coordinate alone, read in order
    for j in range(cloud.shape[0]):
        for axis in range(3):
            sides[axis, j] = cloud[j, axis]


@compiled
def _row(qx, qy, qz, x, y, z, row):  # squared distances of one query to all points
    for j in range(x.shape[0]):
        dx, dy, dz = qx - x[j], qy - y[j], qz - z[j]
        row[j] = dx * dx + dy * dy + dz * dz


@compiled
def _smallest(bits):
    smallest = _NONE
    for j in range(bits.shape[0]):
        smallest = min(smallest, bits[j])
    return smallest


@compiled
def _first(bits, value):  # the lowest index of a value that is there
    place = np.int32(bits.shape[0])
    for j in range(bits.shape[0]):
        place = min(place, np.int32(j) if bits[j] == value else _NONE)
    return place


@compiled
def _lower(nearest, bits):  # keep the smaller of each pair; the largest of what is kept
    largest = np.int32(-1)
    for j in range(bits.shape[0]):
        kept = min(nearest[j], bits[j])
        nearest[j] = kept
        largest = max(largest, kept)
    return largest


@compiled
def _fps(points, picked, start, first, last):  # (B, N, 3), (B, m)
    num_points = points.shape[1]
    sides = np.empty((3, num_points), np.float32)
    x, y, z = sides[0], sides[1], sides[2]
    nearest = np.empty(num_points, np.int32)
    row = np.empty(num_points, np.float32)
    for b in range(first, last):
        _to_sides(points[b], sides)
        nearest[:] = _NONE
        current = start
        for step in range(picked.shape[1]):
            picked[b, step] = current
            _row(x[current], y[current], z[current], x, y, z, row)
            current = _first(nearest, _lower(nearest, row.view(np.int32)))


@compiled
def fps(points, picked, start, team):
    share_out(_fps, (points, picked, start), len(points), team)


@compiled
def leaves(cloud, order, edges):  # (3, N), (N,), (N + 1,)
    """Sort indices into boxes: halve the longest side until a box has few points, or one place.

    Leaf i is ``order[edges[i] : edges[i + 1]]``, lowest index first. Returns how many there are.
    """
    beyond = np.empty_like(order)
    todo = [(0, len(order))]  # from the lowest places up: the last one is next
    count = 0
    while todo:
        low, high = todo.pop()
        part = order[low:high].copy()
        axis, widest, middle = -1, 0.0, 0.0
        if high - low > _LEAF:
            for candidate in range(3):
                side = cloud[candidate]
                least = most = side[part[0]]
                for j in part:
                    least, most = min(least, side[j]), max(most, side[j])
                width = np.float64(most) - np.float64(least)
                if width > widest:
                    axis, widest, middle = candidate, width, least + width / 2
        if axis < 0:
            count += 1
            edges[count] = high
            continue
        place, rest = low, 0
        for j in part:  # both halves keep the order of the indices; written twice: no branch
            order[place], beyond[rest] = j, j
            inside = cloud[axis, j] <= middle
            place += inside
            rest += not inside
        order[place:high] = beyond[:rest]
        todo.append((place, high))
        todo.append((low, place))
    return count


@compiled
def _fps_in_leaves(points, picked, start, first, last):  # (B, N, 3), (B, m)
    """As `_fps`, but a leaf is looked at only where the newest point could be its nearest.

    The squared distance of a point to a box, computed in the same steps, is never above that to a
    point in the box: rounding keeps an order. Where it is not below the largest of a leaf's
    distances, no point of the leaf changes.
    """
    num_points = points.shape[1]
    cloud, sides = np.empty((3, num_points), np.float32), np.empty((3, num_points), np.float32)
    x, y, z = sides[0], sides[1], sides[2]
    edges = np.zeros(num_points + 1, np.int64)
    nearest = np.empty(num_points, np.int32)
    row, zero = np.empty(num_points, np.float32), np.float32(0)
    bits = row.view(np.int32)
    for b in range(first, last):
        order = np.arange(num_points)
        _to_sides(points[b], cloud)
        count = leaves(cloud, order, edges)
        low, high = np.empty((3, count), np.float32), np.empty((3, count), np.float32)
        for axis in range(3):
            sides[axis] = cloud[axis][order]
            for i in range(count):
                leaf = sides[axis, edges[i] : edges[i + 1]]
                low[axis, i], high[axis, i] = leaf.min(), leaf.max()
        bound = np.empty(count, np.float32)  # no point of a leaf is nearer to the newest
        bounds = bound.view(np.int32)
        largest = np.full(count, _NONE)  # of a leaf's distances
        farthest = edges[:count].copy()  # where it is
        nearest[:] = _NONE
        current = np.flatnonzero(order == start)[0]
        for step in range(picked.shape[1]):
            picked[b, step] = order[current]
            qx, qy, qz = x[current], y[current], z[current]
            for i in range(count):
                dx = max(max(low[0, i] - qx, qx - high[0, i]), zero)
                dy = max(max(low[1, i] - qy, qy - high[1, i]), zero)
                dz = max(max(low[2, i] - qz, qz - high[2, i]), zero)
                bound[i] = dx * dx + dy * dy + dz * dz
            for i in range(count):
                if bounds[i] < largest[i]:
                    s, e = edges[i], edges[i + 1]
                    _row(qx, qy, qz, x[s:e], y[s:e], z[s:e], row[s:e])
                    largest[i] = _lower(nearest[s:e], bits[s:e])
                    farthest[i] = s + _first(nearest[s:e], largest[i])
            most, current = largest.max(), -1
            for i in range(count):
                if largest[i] == most and (current < 0 or order[farthest[i]] < order[current]):
                    current = farthest[i]


@compiled
def fps_in_leaves(points, picked, start, team):
    share_out(_fps_in_leaves, (points, picked, start), len(points), team)


@compiled
def _insert(value, best):
    """Put a value among the k lowest: they fall from ``best[0]`` on, and ``best[k]`` is -1."""
    for i in range(best.shape[0] - 1):
        best[i] = max(best[i + 1], min(value, best[i]))


@compiled
def _knn(queries, points, index, first, last):  # (B, Q, 3), (B, N, 3), (B, Q, k)
    num_points, k = points.shape[1], index.shape[2]
    sides = np.empty((3, num_points), np.float32)
    x, y, z = sides[0], sides[1], sides[2]
    groups = 2 * k
    row = np.empty(num_points, np.float32)
    bits = row.view(np.int32)
    lowest, lower = np.empty(groups, np.int32), np.empty(groups, np.int32)
    near, best = np.empty(num_points + 1, np.int64), np.empty(k + 1, np.int64)
    inside = np.zeros(-(-num_points // 8) * 8, np.uint8)  # one for a point that may be among them
    eights = inside.view(np.uint64)
    filled = np.empty(len(eights) + 1, np.int64)
    for b in range(first, last):
        _to_sides(points[b], sides)
        for q in range(queries.shape[1]):
            _row(queries[b, q, 0], queries[b, q, 1], queries[b, q, 2], x, y, z, row)
            # The k lowest of the minima of 2k groups are k points: no neighbour is farther.
            lowest[:] = _NONE
            for s in range(0, num_points, groups):
                _lower(lowest, bits[s : s + groups])
            lower[:] = 0  # how many minima are below each
            for i in range(groups):
                for j in range(groups):
                    lower[j] += np.int32(lowest[i] < lowest[j])
            limit = np.int32(-1)
            for j in range(groups):
                limit = max(limit, lowest[j] if lower[j] < k else np.int32(-1))
            for j in range(num_points):
                inside[j] = bits[j] <= limit
            # First which eights have one, then which: no branch, which are near cannot be foretold.
            some = count = 0
            for i in range(len(eights)):
                filled[some] = 8 * i
                some += eights[i] != 0
            for i in range(some):
                for j in range(filled[i], filled[i] + 8):
                    near[count] = j
                    count += inside[j]
            # With the index in the lower half of a key, no two are equal.
            best[:k], best[k] = np.iinfo(np.int64).max, -1
            for i in range(count):
                _insert((np.int64(bits[near[i]]) << 32) | near[i], best)
            for i in range(k):
                index[b, q, i] = best[k - 1 - i] & 0xFFFFFFFF


@compiled
def knn(queries, points, index, team):
    share_out(_knn, (queries, points, index), len(points), team)


@compiled
def _columns(bits, column, who, i):  # each point's nearest so far, when point i is asked
    for j in range(bits.shape[0]):
        distance, before, nearest = bits[j], column[j], who[j]
        who[j] = i if distance < before else nearest
        column[j] = min(distance, before)


@compiled
def _nearest(a, b, to_b, to_a, apart, first, last):
    """Who is nearest to whom, ``(B, N)`` and ``(B, M)``, and the Chamfer distance ``(B,)``.

    Points ``(B, N, 3)``, ``(B, M, 3)``; the distances of a cloud are summed in double precision.
    """
    size_a, size_b = a.shape[1], b.shape[1]
    sides = np.empty((3, size_b), np.float32)
    x, y, z = sides[0], sides[1], sides[2]
    row, column = np.empty(size_b, np.float32), np.empty(size_b, np.float32)
    bits, column_bits, who = row.view(np.int32), column.view(np.int32), np.empty(size_b, np.int32)
    for n in range(first, last):
        _to_sides(b[n], sides)
        column_bits[:], who[:] = _NONE, 0
        from_a = from_b = 0.0
        for i in range(size_a):
            _row(a[n, i, 0], a[n, i, 1], a[n, i, 2], x, y, z, row)
            j = _first(bits, _smallest(bits))
            to_b[n, i] = j
            from_a += row[j]
            _columns(bits, column_bits, who, np.int32(i))
        to_a[n] = who
        for j in range(size_b):
            from_b += column[j]
        apart[n] = from_a / size_a + from_b / size_b


@compiled
def nearest(a, b, to_b, to_a, apart, team):
    share_out(_nearest, (a, b, to_b, to_a, apart), len(a), team)


@compiled
def _pull(a, b, to_b, to_a, weight_a, weight_b, on_a, first, last):
    """The gradient on ``a`` of weighted distances to the nearest (Eq. 11); ``on_a`` comes as zeros.

    Points ``(B, N, 3)``, ``(B, M, 3)``; indices ``(B, N)`` of a, ``(B, M)`` of b; weights ``(B,)``.
    """
    for n in range(first, last):
        for j in range(b.shape[1]):  # what the points of b do to those of a
            i, double = np.uint32(to_a[n, j]), np.float32(2) * weight_b[n]
            for axis in range(3):
                on_a[n, i, axis] -= double * (b[n, j, axis] - a[n, i, axis])
        for i in range(a.shape[1]):  # what they do themselves
            j, double = np.uint32(to_b[n, i]), np.float32(2) * weight_a[n]
            for axis in range(3):
                on_a[n, i, axis] += double * (a[n, i, axis] - b[n, j, axis])


@compiled
def pull(a, b, to_b, to_a, weight_a, weight_b, on_a, team):
    share_out(_pull, (a, b, to_b, to_a, weight_a, weight_b, on_a), len(a), team)
