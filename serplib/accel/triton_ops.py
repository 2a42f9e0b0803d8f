"""The searches of `geometry` as Triton kernels, for float32 clouds on a GPU.

Same results as plain PyTorch: three squares summed in the order x, y, z (the launches forbid fused
multiply-adds), ties to the lowest index. Nothing waits for the device to check for NaN or infinity:
such clouds get arbitrary indices within range. The tests use Triton's interpreter.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CAVEAT = FIX = ""  # see accel.status
LARGEST = 16384  # points of a cloud, all held by one program; from 8193 on FPS spills registers
ROWS, COLUMNS = 32, 64  # tile of distances of one program of `_nearest`


@triton.jit
def _squared(points, index, mask, qx, qy, qz):  # (BLOCK,) distances of one query
    dx = qx - tl.load(points + 3 * index, mask, other=0.0)
    dy = qy - tl.load(points + 3 * index + 1, mask, other=0.0)
    dz = qz - tl.load(points + 3 * index + 2, mask, other=0.0)
    return dx * dx + dy * dy + dz * dz


@triton.jit
def _keys(distance, index):
    """Distance in the upper half, index in the lower: distinct, in the order of the distances."""
    bits = distance.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    return (bits.to(tl.int64) << 32) | index.to(tl.int64)


@triton.jit(do_not_specialize=["start"])  # a start of 1 would become a constant
def _fps(points, picked, num_points, num_samples, start, BLOCK: tl.constexpr):
    cloud = tl.program_id(0).to(tl.int64)  # one program per cloud
    points += cloud * num_points * 3
    picked += cloud * num_samples
    index = tl.arange(0, BLOCK)
    mask = index < num_points
    x = tl.load(points + 3 * index, mask, other=0.0)  # (BLOCK,), stay in registers
    y = tl.load(points + 3 * index + 1, mask, other=0.0)
    z = tl.load(points + 3 * index + 2, mask, other=0.0)
    nearest = tl.where(mask, float("inf"), -1.0)  # (BLOCK,) -1: padding or picked
    last = start
    for step in range(num_samples):
        tl.store(picked + step, last.to(tl.int64))
        at = points + 3 * last
        dx, dy, dz = x - tl.load(at), y - tl.load(at + 1), z - tl.load(at + 2)
        nearest = tl.minimum(nearest, dx * dx + dy * dy + dz * dz)
        nearest = tl.where(index == last, -1.0, nearest)
        last = tl.minimum(tl.argmax(nearest, 0, tie_break_left=True), num_points - 1)


@triton.jit
def _knn(queries, points, found, num_queries, num_points, k, BLOCK: tl.constexpr):
    query = tl.program_id(0).to(tl.int64)  # one program per query, of all clouds
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


def self_test() -> None:
    """Compile and launch a kernel; raise whatever a broken installation raises."""
    points = torch.zeros(1, 1, 3, device="cuda")
    nearest_pairs(points, points)


def accepts(*clouds: Tensor) -> bool:
    """Tell whether the kernels take these clouds: float32, at most `LARGEST` points each."""
    return all(c.dtype == torch.float32 and 0 < c.shape[1] <= LARGEST for c in clouds)


def _block(num_points: int) -> dict[str, int]:
    """Size of a program: a power of two, about 8 points per thread; no fused multiply-adds."""
    block = triton.next_power_of_2(num_points)
    return {"BLOCK": block, "num_warps": min(max(block // 256, 1), 16), "enable_fp_fusion": False}


def farthest_point_sample(points: Tensor, num_samples: int, start: int) -> Tensor:
    """See `geometry.farthest_point_sample`."""
    points = points.detach().contiguous()  # (B, N, 3)
    batch, num_points, _ = points.shape
    picked = points.new_empty(batch, num_samples, dtype=torch.int64)  # (B, m)
    with torch.cuda.device_of(points):  # Triton launches on the current device
        _fps[(batch,)](points, picked, num_points, num_samples, start, **_block(num_points))
    return picked


def knn(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """See `geometry.knn`."""
    queries, points = queries.detach().contiguous(), points.detach().contiguous()
    batch, num_queries, _ = queries.shape
    sizes = num_queries, points.shape[1], k
    found = points.new_empty(batch, num_queries, k, dtype=torch.int64)  # (B, Q, k)
    with torch.cuda.device_of(points):
        _knn[(batch * num_queries,)](queries, points, found, *sizes, **_block(points.shape[1]))
    return found


def nearest_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """See `geometry.nearest_pairs`."""
    return _nearest_in(a, b), _nearest_in(b, a)


def _nearest_in(a: Tensor, b: Tensor) -> Tensor:
    """For each point of ``a (B, N, 3)`` the nearest of ``b (B, M, 3)``: ``(B, N)``."""
    a, b = a.detach().contiguous(), b.detach().contiguous()
    batch, size, _ = a.shape
    index = a.new_empty(batch, size, dtype=torch.int64)  # (B, N)
    grid, sizes = (batch, triton.cdiv(size, ROWS)), (size, b.shape[1], ROWS, COLUMNS)
    with torch.cuda.device_of(a):
        _nearest[grid](a, b, index, *sizes, enable_fp_fusion=False)
    return index
