"""The searches of `geometry`, and Chamfer's gradient, compiled for the CPU: same results, sooner.

Optional: `geometry` uses this module where Numba is installed and the clouds are float32 on the
CPU, unless the environment says ``SERP_FAST=0``. Indices and gradients are those of the plain code,
bit for bit: the loops compute each squared distance as it does (three squares, summed in the order
x, y, z, no fused multiply-add), hence the same choice among near-equal points. Distances are then
compared as whole numbers: the bits of a float32 >= 0 are in the order of the floats, and the
compiler takes minima of whole numbers sixteen at a time, those of floats, which might be NaN, one
by one.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

try:
    from numba import njit
except ImportError:  # plain torch then does all the work
    njit = None

AVAILABLE = njit is not None and os.environ.get("SERP_FAST", "1") != "0"

if njit is not None:
    compiled = njit(cache=True, nogil=True, error_model="numpy")
else:

    def compiled(function):
        return function


_NONE = np.int32(2**31 - 1)  # above the bits of every distance, of an infinite one, too
_LEAF = 64  # points of a leaf of the tree, at most: measured, 32 to 128 are as good


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
def _fps(points, picked, start, first, last):  # (B, 3, N), (B, m)
    num_points = points.shape[2]
    nearest = np.empty(num_points, np.int32)
    row = np.empty(num_points, np.float32)
    for b in range(first, last):
        x, y, z = points[b, 0], points[b, 1], points[b, 2]
        nearest[:] = _NONE
        current = start
        for step in range(picked.shape[1]):
            picked[b, step] = current
            _row(x[current], y[current], z[current], x, y, z, row)
            current = _first(nearest, _lower(nearest, row.view(np.int32)))


@compiled
def _leaves(cloud, order, edges):  # (3, N), (N,), (N + 1,)
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
def _fps_in_leaves(points, picked, start, first, last):  # (B, 3, N), (B, m)
    """As `_fps`, but a leaf is looked at only where the newest point could be its nearest.

    The squared distance of a point to a box, computed in the same steps, is never above that to a
    point in the box: rounding keeps an order. Where it is not below the largest of a leaf's
    distances, no point of the leaf changes.
    """
    num_points = points.shape[2]
    edges = np.zeros(num_points + 1, np.int64)
    nearest = np.empty(num_points, np.int32)
    row, zero = np.empty(num_points, np.float32), np.float32(0)
    bits = row.view(np.int32)
    for b in range(first, last):
        order = np.arange(num_points)
        count = _leaves(points[b], order, edges)
        sides = np.empty((3, num_points), np.float32)
        low, high = np.empty((3, count), np.float32), np.empty((3, count), np.float32)
        for axis in range(3):
            sides[axis] = points[b, axis][order]
            for i in range(count):
                leaf = sides[axis, edges[i] : edges[i + 1]]
                low[axis, i], high[axis, i] = leaf.min(), leaf.max()
        x, y, z = sides[0], sides[1], sides[2]
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
def _insert(value, best):
    """Put a value among the k lowest: they fall from ``best[0]`` on, and ``best[k]`` is -1."""
    for i in range(best.shape[0] - 1):
        best[i] = max(best[i + 1], min(value, best[i]))


@compiled
def _knn(queries, points, index, first, last):  # (B, 3, Q), (B, 3, N), (B, Q, k)
    num_points, k = points.shape[2], index.shape[2]
    groups = 2 * k
    row = np.empty(num_points, np.float32)
    bits = row.view(np.int32)
    lowest, few = np.empty(groups, np.int32), np.empty(k + 1, np.int32)
    best = np.empty(k + 1, np.int64)
    for b in range(first, last):
        x, y, z = points[b, 0], points[b, 1], points[b, 2]
        for q in range(queries.shape[2]):
            _row(queries[b, 0, q], queries[b, 1, q], queries[b, 2, q], x, y, z, row)
            # The k lowest of the minima of 2k groups are k points: no neighbour is farther.
            lowest[:] = _NONE
            for s in range(0, num_points, groups):
                _lower(lowest, bits[s : s + groups])
            few[:k], few[k] = _NONE, -1
            for group in range(groups):
                _insert(lowest[group], few)
            # With the index in the lower half of a key, no two are equal.
            limit = few[0]
            best[:k], best[k] = np.iinfo(np.int64).max, -1
            for j in range(num_points):
                if bits[j] <= limit:
                    _insert((np.int64(bits[j]) << 32) | j, best)
                    limit = min(limit, np.int32(best[0] >> 32))
            for i in range(k):
                index[b, q, i] = best[k - 1 - i] & 0xFFFFFFFF


@compiled
def _columns(bits, column, who, i):  # each point's nearest so far, when point i is asked
    for j in range(bits.shape[0]):
        distance, before, nearest = bits[j], column[j], who[j]
        who[j] = i if distance < before else nearest
        column[j] = min(distance, before)


@compiled
def _nearest(a, b, to_b, to_a, from_a, from_b, first, last):  # (B, 3, N), (B, 3, M), then by point
    size_a, size_b = a.shape[2], b.shape[2]
    row, column = np.empty(size_b, np.float32), np.empty(size_b, np.float32)
    bits, column_bits, who = row.view(np.int32), column.view(np.int32), np.empty(size_b, np.int32)
    for n in range(first, last):
        x, y, z = b[n, 0], b[n, 1], b[n, 2]
        column_bits[:], who[:] = _NONE, 0
        for i in range(size_a):
            _row(a[n, 0, i], a[n, 1, i], a[n, 2, i], x, y, z, row)
            j = _first(bits, _smallest(bits))
            to_b[n, i], from_a[n, i] = j, row[j]
            _columns(bits, column_bits, who, np.int32(i))
        to_a[n], from_b[n] = who, column


@compiled
def _pull(a, b, to_b, to_a, weight_a, weight_b, on_a, first, last):
    """The gradient on ``a`` of weighted distances to the nearest (Eq. 11); ``on_a`` comes as zeros.

    Points ``(B, N, 3)``, ``(B, M, 3)``; indices and weights ``(B, N)`` of a, ``(B, M)`` of b.
    """
    for n in range(first, last):
        for j in range(b.shape[1]):  # what the points of b do to those of a
            i, double = np.uint32(to_a[n, j]), np.float32(2) * weight_b[n, j]
            for axis in range(3):
                on_a[n, i, axis] -= double * (b[n, j, axis] - a[n, i, axis])
        for i in range(a.shape[1]):  # what they do themselves
            j, double = np.uint32(to_b[n, i]), np.float32(2) * weight_a[n, i]
            for axis in range(3):
                on_a[n, i, axis] += double * (a[n, i, axis] - b[n, j, axis])


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="serplib-fast")


# A forked child inherits the pool without its threads: it must make its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _over_clouds(kernel, batch: int, *arguments) -> None:
    """Run a kernel over the batch, cut into as many parts as torch has threads."""
    parts = min(torch.get_num_threads(), batch)
    edges = [batch * part // parts for part in range(parts + 1)]
    jobs = [_pool().submit(kernel, *arguments, *edge) for edge in pairwise(edges[1:])]
    kernel(*arguments, *edges[:2])  # the first part here: one thread less to wake and wait for
    for job in jobs:
        job.result()


def _coordinates(points: Tensor) -> np.ndarray:
    """(B, N, 3) to one contiguous array a coordinate, (B, 3, N)."""
    return points.detach().transpose(1, 2).contiguous().numpy()


def usable(*clouds: Tensor) -> bool:
    """Whether the compiled code takes these clouds: float32, on the CPU, without NaN or Inf."""
    return AVAILABLE and all(
        cloud.dtype == torch.float32
        and cloud.device.type == "cpu"
        and math.isfinite(cloud.detach().abs().sum().item())  # one NaN or Inf and the sum is, too
        for cloud in clouds
    )


def farthest_point_sample(points: Tensor, num_samples: int, start: int) -> Tensor:
    """See `geometry.farthest_point_sample`."""
    picked = torch.empty(len(points), num_samples, dtype=torch.int64)  # (B, m)
    # Leaves pay where there is much to skip, in enough steps to win back the sorting.
    kernel = _fps_in_leaves if points.shape[1] > 2048 and num_samples >= 512 else _fps
    _over_clouds(kernel, len(points), _coordinates(points), picked.numpy(), start)
    return picked


def knn(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """See `geometry.knn`."""
    index = torch.empty(len(points), queries.shape[1], k, dtype=torch.int64)  # (B, Q, k)
    _over_clouds(_knn, len(points), _coordinates(queries), _coordinates(points), index.numpy())
    return index


def _search(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices ``(B, N)`` into b and ``(B, M)`` into a of the nearest; their squared distances."""
    to_b, from_a = torch.empty(a.shape[:2], dtype=torch.int64), a.new_empty(a.shape[:2])  # (B, N)
    to_a, from_b = torch.empty(b.shape[:2], dtype=torch.int64), b.new_empty(b.shape[:2])  # (B, M)
    found = to_b, to_a, from_a, from_b
    coordinates = _coordinates(a), _coordinates(b)
    _over_clouds(_nearest, len(a), *coordinates, *(tensor.numpy() for tensor in found))
    return found


def nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For every point of ``a`` its nearest in ``b``, ``(B, N)``, and the other way, ``(B, M)``."""
    return _search(a, b)[:2]


class _Apart(torch.autograd.Function):
    """Squared distances of points to their nearest; pairs stay as they are in the gradient."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:  # (B, N), (B, M)
        to_b, to_a, from_a, from_b = _search(a, b)
        ctx.save_for_backward(a, b, to_b, to_a)
        return from_a, from_b

    @staticmethod
    def backward(ctx, weight_a: Tensor, weight_b: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():
            raise NotImplementedError("no second derivative in compiled code: set SERP_FAST=0")
        a, b, to_b, to_a = ctx.saved_tensors
        on_a, on_b = a.new_zeros(a.shape), b.new_zeros(b.shape)  # (B, N, 3), (B, M, 3)
        for wanted, *job in (
            (ctx.needs_input_grad[0], a, b, to_b, to_a, weight_a, weight_b, on_a),
            (ctx.needs_input_grad[1], b, a, to_a, to_b, weight_b, weight_a, on_b),
        ):
            if wanted:
                _over_clouds(_pull, len(a), *(tensor.contiguous().numpy() for tensor in job))
        return on_a, on_b


def nearest_distances(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance of every point to its nearest: ``(B, N)`` of ``a``, ``(B, M)`` of ``b``."""
    return _Apart.apply(a, b)
