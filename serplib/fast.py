"""The searches of `geometry` compiled for the CPU: same results, bit for bit, in less time.

Optional: `geometry` uses this module where Numba is installed and the clouds are float32 on the
CPU, unless the environment says ``SERP_FAST=0``. The loops compute each squared distance as the
plain code does (three squares, summed in the order x, y, z, no fused multiply-add), hence the same
choice among near-equal points. ``nnan`` and ``nsz`` let the compiler take minima eight at a time;
they change no result as long as no coordinate is NaN.
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
    _compile = njit(cache=True, nogil=True, fastmath={"nnan", "nsz"}, error_model="numpy")
else:

    def _compile(function):
        return function


@_compile
def _row(qx, qy, qz, x, y, z, row):  # squared distances of one query to all points
    for j in range(x.shape[0]):
        dx, dy, dz = qx - x[j], qy - y[j], qz - z[j]
        row[j] = dx * dx + dy * dy + dz * dz


@_compile
def _fps(points, picked, start, first, last):  # (B, 3, N), (B, m)
    num_points = points.shape[2]
    nearest = np.empty(num_points, np.float32)
    row = np.empty(num_points, np.float32)
    for b in range(first, last):
        x, y, z = points[b, 0], points[b, 1], points[b, 2]
        nearest[:] = np.inf
        current = start
        for step in range(picked.shape[1]):
            picked[b, step] = current
            _row(x[current], y[current], z[current], x, y, z, row)
            largest = np.float32(-1)
            for j in range(num_points):
                nearest[j] = min(nearest[j], row[j])
                largest = max(largest, nearest[j])
            current = 0
            while nearest[current] != largest:  # the first of equal maxima
                current += 1


@_compile
def _knn(queries, points, index, first, last):  # (B, 3, Q), (B, 3, N), (B, Q, k)
    num_points, k = points.shape[2], index.shape[2]
    row = np.empty(num_points, np.float32)
    best = np.empty(k, np.float32)
    for b in range(first, last):
        x, y, z = points[b, 0], points[b, 1], points[b, 2]
        for q in range(queries.shape[2]):
            _row(queries[b, 0, q], queries[b, 1, q], queries[b, 2, q], x, y, z, row)
            found = index[b, q]
            best[:] = np.inf
            found[:] = num_points
            for j in range(num_points):
                if row[j] < best[k - 1] or (j < k and row[j] == np.inf):
                    place = min(j, k - 1)  # insert behind all that are as near
                    while place > 0 and row[j] < best[place - 1]:
                        best[place] = best[place - 1]
                        found[place] = found[place - 1]
                        place -= 1
                    best[place] = row[j]
                    found[place] = j


@_compile
def _nearest(a, b, to_b, to_a, first, last):  # (B, 3, N), (B, 3, M), (B, N), (B, M)
    size_a, size_b = a.shape[2], b.shape[2]
    row = np.empty(size_b, np.float32)
    column = np.empty(size_b, np.float32)
    for n in range(first, last):
        x, y, z = b[n, 0], b[n, 1], b[n, 2]
        column[:] = np.inf
        to_a[n, :] = 0
        for i in range(size_a):
            _row(a[n, 0, i], a[n, 1, i], a[n, 2, i], x, y, z, row)
            smallest = np.float32(np.inf)
            for j in range(size_b):
                smallest = min(smallest, row[j])
            for j in range(size_b):
                closer = row[j] < column[j]
                to_a[n, j] = i if closer else to_a[n, j]
                column[j] = row[j] if closer else column[j]
            j = 0
            while row[j] != smallest:
                j += 1
            to_b[n, i] = j


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="serplib-fast")


# A forked child inherits the pool without its threads: it must make its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _over_clouds(kernel, batch: int, *arguments) -> None:
    """Run a kernel over the batch, cut into as many parts as torch has threads."""
    parts = min(torch.get_num_threads(), batch)
    if parts <= 1:
        kernel(*arguments, 0, batch)
        return
    edges = [batch * part // parts for part in range(parts + 1)]
    for job in [_pool().submit(kernel, *arguments, *edge) for edge in pairwise(edges)]:
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
    _over_clouds(_fps, len(points), _coordinates(points), picked.numpy(), start)
    return picked


def knn(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """See `geometry.knn`."""
    index = torch.empty(len(points), queries.shape[1], k, dtype=torch.int64)  # (B, Q, k)
    _over_clouds(_knn, len(points), _coordinates(queries), _coordinates(points), index.numpy())
    return index


def nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For every point of ``a`` its nearest in ``b``, ``(B, N)``, and the other way, ``(B, M)``."""
    to_b = torch.empty(a.shape[:2], dtype=torch.int32)  # (B, N)
    to_a = torch.empty(b.shape[:2], dtype=torch.int32)  # (B, M)
    _over_clouds(_nearest, len(a), _coordinates(a), _coordinates(b), to_b.numpy(), to_a.numpy())
    return to_b.long(), to_a.long()
