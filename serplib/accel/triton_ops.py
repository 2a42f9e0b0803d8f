"""The searches of `geometry` as Triton kernels for a GPU (paper, sections 3.1, 3.3.1, 3.3.5).

Optional, like `accel.cpu`: `geometry` uses this module where Triton is installed (torch's CUDA
builds bring it along) and the clouds are float32 on a CUDA device, unless the environment says
``SERP_FAST=0``. Same results as the plain code: a squared distance is three squares summed in the
order x, y, z, for which the launches forbid fused multiply-adds, and ties go to the lowest index.
No call waits for the device, so nobody looks for NaN or Inf: clouds that hold one get indices that
are within range and mean nothing.

Triton's interpreter runs the same kernels on the CPU, slowly: the tests do so
(``TRITON_INTERPRET=1`` before Triton is imported, and ``ON_CPU``). It takes the lowest of equal
maxima and fuses nothing, whatever a kernel says: for both, the tests read the code compiled for a
GPU, which needs none.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # `geometry` then goes on to `accel.cpu` or to plain torch
    triton = None

AVAILABLE = triton is not None and os.environ.get("SERP_FAST", "1") != "0"
ON_CPU = False  # whether clouds on the CPU are taken, too: for the interpreter
LARGEST = 16384  # points of a cloud, all held by one program; from 8193 on FPS spills registers
ROWS, COLUMNS = 32, 64  # the tile of distances that a program of `_nearest` holds


if triton is not None:

    @triton.jit
    def _squared(points, index, mask, qx, qy, qz):  # (BLOCK,) distances of one query
        dx = qx - tl.load(points + 3 * index, mask, other=0.0)
        dy = qy - tl.load(points + 3 * index + 1, mask, other=0.0)
        dz = qz - tl.load(points + 3 * index + 2, mask, other=0.0)
        return dx * dx + dy * dy + dz * dz

    @triton.jit
    def _keys(distance, index):
        """Distance in the upper half, index in the lower: no two are equal, the least is nearest.

        A float32 >= 0 orders like its bits read as an integer.
        """
        bits = distance.to(tl.int32, bitcast=True) & 0x7FFFFFFF
        return (bits.to(tl.int64) << 32) | index.to(tl.int64)

    @triton.jit(do_not_specialize=["start"])  # a start of 1 would become a constant
    def _fps(points, picked, num_points, num_samples, start, BLOCK: tl.constexpr):
        cloud = tl.program_id(0).to(tl.int64)  # a whole cloud is one program
        points += cloud * num_points * 3
        picked += cloud * num_samples
        index = tl.arange(0, BLOCK)
        mask = index < num_points
        x = tl.load(points + 3 * index, mask, other=0.0)  # (BLOCK,), in registers to the end
        y = tl.load(points + 3 * index + 1, mask, other=0.0)
        z = tl.load(points + 3 * index + 2, mask, other=0.0)
        nearest = tl.where(mask, float("inf"), -1.0)  # (BLOCK,)
        last = start
        for step in range(num_samples):
            tl.store(picked + step, last.to(tl.int64))
            at = points + 3 * last
            dx, dy, dz = x - tl.load(at), y - tl.load(at + 1), z - tl.load(at + 2)
            nearest = tl.minimum(nearest, dx * dx + dy * dy + dz * dz)  # the padding stays at -1
            last = tl.minimum(tl.argmax(nearest, 0, tie_break_left=True), num_points - 1)

    @triton.jit
    def _knn(queries, points, found, num_queries, num_points, k, BLOCK: tl.constexpr):
        query = tl.program_id(0).to(tl.int64)  # of all queries of all clouds; one program each
        at = queries + query * 3
        points += (query // num_queries) * num_points * 3
        index = tl.arange(0, BLOCK)
        mask = index < num_points
        qx, qy, qz = tl.load(at), tl.load(at + 1), tl.load(at + 2)
        key = _keys(_squared(points, index, mask, qx, qy, qz), index)
        key = tl.where(mask, key, 0x7FFFFFFFFFFFFFFF)  # (BLOCK,)
        for place in range(k):
            least = tl.min(key, 0)
            tl.store(found + query * k + place, least & 0xFFFFFFFF)
            key = tl.where(key == least, 0x7FFFFFFFFFFFFFFF, key)

    @triton.jit
    def _nearest(a, b, to_b, size_a, size_b, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
        cloud = tl.program_id(0).to(tl.int64)
        a += cloud * size_a * 3
        b += cloud * size_b * 3
        row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
        mask = row < size_a
        ax = tl.load(a + 3 * row, mask, other=0.0)[:, None]  # (ROWS, 1)
        ay = tl.load(a + 3 * row + 1, mask, other=0.0)[:, None]
        az = tl.load(a + 3 * row + 2, mask, other=0.0)[:, None]
        least = tl.full((ROWS,), 0x7FFFFFFFFFFFFFFF, tl.int64)
        for first in range(0, size_b, COLUMNS):
            column = (first + tl.arange(0, COLUMNS))[None, :]  # (1, COLUMNS)
            inside = column < size_b
            key = _keys(_squared(b, column, inside, ax, ay, az), column)  # (ROWS, COLUMNS)
            key = tl.where(inside, key, 0x7FFFFFFFFFFFFFFF)
            least = tl.minimum(least, tl.min(key, 1))
        tl.store(to_b + cloud * size_a + row, least & 0xFFFFFFFF, mask)


def usable(*clouds: Tensor) -> bool:
    """Whether the kernels take these clouds: float32, on a GPU, at most `LARGEST` points each."""
    return AVAILABLE and all(
        cloud.dtype == torch.float32
        and (cloud.is_cuda or (ON_CPU and cloud.device.type == "cpu"))
        and 0 < cloud.shape[1] <= LARGEST
        for cloud in clouds
    )


def _block(num_points: int) -> dict[str, int]:
    """Points a program holds, a power of two; about 8 a thread; products and sums kept apart."""
    block = triton.next_power_of_2(num_points)
    warps = min(max(block // 256, 1), 16)
    return {"BLOCK": block, "num_warps": warps, "enable_fp_fusion": False}


def farthest_point_sample(points: Tensor, num_samples: int, start: int) -> Tensor:
    """See `geometry.farthest_point_sample`."""
    points = points.detach().contiguous()  # (B, N, 3)
    batch, num_points, _ = points.shape
    picked = torch.empty(batch, num_samples, dtype=torch.int64, device=points.device)  # (B, m)
    with torch.cuda.device_of(points):  # Triton launches on the current device alone
        _fps[(batch,)](points, picked, num_points, num_samples, start, **_block(num_points))
    return picked


def knn(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """See `geometry.knn`."""
    queries, points = queries.detach().contiguous(), points.detach().contiguous()
    batch, num_queries, _ = queries.shape
    num_points = points.shape[1]
    found = torch.empty(batch, num_queries, k, dtype=torch.int64, device=points.device)  # (B, Q, k)
    with torch.cuda.device_of(points):
        _knn[(batch * num_queries,)](
            queries, points, found, num_queries, num_points, k, **_block(num_points)
        )
    return found


def nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For every point of ``a`` its nearest in ``b``, ``(B, N)``, and the other way, ``(B, M)``."""
    a, b = a.detach().contiguous(), b.detach().contiguous()
    found = []
    for one, other in ((a, b), (b, a)):
        batch, size, _ = one.shape
        index = torch.empty(batch, size, dtype=torch.int64, device=one.device)  # (B, N)
        grid = (batch, triton.cdiv(size, ROWS))
        with torch.cuda.device_of(one):
            _nearest[grid](
                one, other, index, size, other.shape[1], ROWS, COLUMNS, enable_fp_fusion=False
            )
        found.append(index)
    return found[0], found[1]
