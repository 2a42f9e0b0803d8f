"""Nearest points, farthest points, distance of clouds (paper, sections 3.1, 3.3.1, 3.3.5).

Plain torch: every operation is batched, runs on any device and takes any float type, and breaks
ties towards the lowest index, so that two machines agree. The notebooks build each by hand.
Where `accel.triton_ops` (on a GPU) or `accel.cpu` (on a CPU) can do a search sooner and to the
same result, the functions here hand it over.
"""

from __future__ import annotations

import torch
from torch import Tensor

from serplib.accel import cpu, triton_ops
from serplib.validation import expect


def _check_pair(a: Tensor, b: Tensor) -> None:
    expect(b, "B N 3", "the second argument")
    expect(a, "B N 3", "the first argument", device=b.device)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} clouds against {len(b)}: wanted the same batch")


def at_least_float32(points: Tensor) -> Tensor:
    """Half-precision clouds are measured in float32: 8 or 11 bits do not order distances."""
    return points.float() if points.dtype in (torch.float16, torch.bfloat16) else points


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of every point of ``a`` to every point of ``b``, as a sum of squares.

    The sum over coordinates is written out: it is never negative, unlike |a|^2 + |b|^2 - 2ab, and
    needs no (B, Q, N, 3) tensor.

    Args:
        a: ``(B, Q, 3)``. b: ``(B, N, 3)``.

    Returns:
        ``(B, Q, N)``, in the float type of the inputs (float32 for half precision).
    """
    _check_pair(a, b)
    a, b = at_least_float32(a), at_least_float32(b)
    total = (a[:, :, None, 0] - b[:, None, :, 0]).square()  # (B, Q, N)
    for axis in (1, 2):
        total = total + (a[:, :, None, axis] - b[:, None, :, axis]).square()  # (B, Q, N)
    return total


@torch.no_grad()
def farthest_point_sample(points: Tensor, num_samples: int, start: int = 0) -> Tensor:
    """Pick points one by one, each the farthest from those already picked (Eq. 2).

    Args:
        points: ``(B, N, 3)``, any float type.
        num_samples: m, at most N.
        start: index of the first point picked in every cloud.

    Returns:
        ``(B, m)`` int64 indices, in the order picked; ties go to the lowest index.

    Raises:
        ValueError: wrong shape, ``num_samples`` not in 1..N, ``start`` not in 0..N-1.
    """
    expect(points, "B N 3")
    batch, num_points, _ = points.shape
    if not 1 <= num_samples <= num_points:
        raise ValueError(f"num_samples is {num_samples}, wanted 1..{num_points} (the points given)")
    if not 0 <= start < num_points:
        raise ValueError(f"start is {start}, wanted 0..{num_points - 1}")
    for compiled in (triton_ops, cpu):
        if compiled.usable(points):
            return compiled.farthest_point_sample(points, num_samples, start)
    # One contiguous array a coordinate: the loop below reads memory in order.
    x, y, z = at_least_float32(points).permute(2, 0, 1).contiguous()  # each (B, N)
    picked = torch.empty(batch, num_samples, dtype=torch.int64, device=points.device)  # (B, m)
    nearest = torch.full_like(x, torch.inf)  # (B, N) squared distance to the nearest picked point
    last = torch.full((batch, 1), start, dtype=torch.int64, device=points.device)  # (B, 1)
    for step in range(num_samples):
        picked[:, step] = last[:, 0]
        if step + 1 == num_samples:
            break
        distance = (x - x.gather(1, last)).square()  # (B, N)
        distance += (y - y.gather(1, last)).square()
        distance += (z - z.gather(1, last)).square()
        torch.minimum(nearest, distance, out=nearest)
        last = nearest.argmax(dim=1, keepdim=True)  # (B, 1), the first of equal maxima
    return picked


@torch.no_grad()
def knn(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """The k nearest points of each query, nearest first (Eq. 3).

    A query that is itself one of the points is its own first neighbour.

    Args:
        queries: ``(B, Q, 3)``. points: ``(B, N, 3)``. k: at most N.

    Returns:
        ``(B, Q, k)`` int64 indices into ``points``; ties go to the lowest index.

    Raises:
        ValueError: wrong shapes, or ``k`` not in 1..N.
    """
    expect(points, "B N 3")
    if not 1 <= k <= points.shape[1]:
        raise ValueError(f"k is {k}, wanted 1..{points.shape[1]} (the points given)")
    _check_pair(queries, points)
    for compiled in (triton_ops, cpu):
        if compiled.usable(queries, points):
            return compiled.knn(queries, points, k)
    return lowest(squared_distances(queries, points), k)


def lowest(values: Tensor, k: int) -> Tensor:
    """Where the k lowest values of each row are, lowest first; ties go to the lowest index.

    Args:
        values: ``(..., N)``, none below 0, any float type. k: at most N.

    Returns:
        ``(..., k)`` int64.
    """
    if values.dtype != torch.float32:
        return values.sort(dim=-1, stable=True).indices[..., :k]  # (..., k)
    # A float32 >= 0 orders like its bits read as an integer. With the index in the lower half,
    # no two keys are equal: topk, which promises nothing about ties, has none to break.
    # abs: inf - inf may be a NaN with a minus sign, which would come first instead of last.
    index = torch.arange(values.shape[-1], device=values.device)  # (N,)
    key = (values.abs().view(torch.int32).long() << 32) | index  # (..., N)
    return key.topk(k, dim=-1, largest=False, sorted=True).values & 0xFFFFFFFF  # (..., k)


def gather(points: Tensor, index: Tensor) -> Tensor:
    """The points (or features) at ``index``, cloud by cloud.

    Args:
        points: ``(B, N, C)``. index: ``(B, ...)`` int64 into N.

    Returns:
        ``(B, ..., C)``.
    """
    expect(points, "B N C", floats=False)
    if index.ndim < 2 or len(points) != len(index):
        raise ValueError(
            f"points {tuple(points.shape)} and index {tuple(index.shape)}: "
            "wanted (B, N, C) and (B, ...) with the same B"
        )
    if not points.requires_grad:  # sooner; in a gradient, a GPU would add up in any order
        flat = index.flatten(1)[..., None].expand(-1, -1, points.shape[2])
        return points.gather(1, flat).view(*index.shape, -1)  # (B, ..., C)
    cloud = torch.arange(len(points), device=points.device)  # (B,)
    return points[cloud.view(-1, *[1] * (index.ndim - 1)), index]  # (B, ..., C)


@torch.no_grad()
def nearest_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For each point its nearest one in the other cloud, both ways; ties to the lowest index.

    Args:
        a: ``(B, N, 3)``. b: ``(B, M, 3)``.

    Returns:
        ``(B, N)`` int64 indices into ``b``, and ``(B, M)`` int64 indices into ``a``.
    """
    _check_pair(a, b)
    for compiled in (triton_ops, cpu):
        if compiled.usable(a, b):
            return compiled.nearest(a, b)
    distance = squared_distances(a, b)  # (B, N, M)
    return distance.argmin(2), distance.argmin(1)


def _partners(points: Tensor, nearest: Tensor) -> Tensor:
    """`gather` of one neighbour a point, ``(B, N)`` into ``(B, M, 3)``; sooner on a CPU.

    On a GPU torch.gather would add up the gradient in an order that differs from run to run.
    """
    if points.device.type != "cpu":
        return gather(points, nearest)
    return points.gather(1, nearest[..., None].expand(-1, -1, 3))  # (B, N, 3)


def chamfer_l2(a: Tensor, b: Tensor, reduction: str = "mean") -> Tensor:
    """Chamfer distance of two clouds (Eq. 11): squared, mean of each side, summed.

    Two single points 3 apart give 18. Who is nearest to whom is searched without gradients; the
    distances of the pairs found are then differentiated, which is the same gradient for less work.

    Args:
        a: ``(B, N, 3)``. b: ``(B, M, 3)``.
        reduction: ``"none"`` for one value a cloud, ``(B,)``; ``"mean"`` for their mean, ``()``.

    Returns:
        In squared units of the clouds; never negative.
    """
    if reduction not in ("none", "mean"):
        raise ValueError(f"reduction is {reduction!r}, wanted 'none' or 'mean'")
    _check_pair(a, b)
    a, b = at_least_float32(a), at_least_float32(b)
    if cpu.usable(a, b):
        per_cloud = cpu.chamfer(a, b)  # (B,)
    else:
        nearest_b, nearest_a = nearest_pairs(a, b)  # (B, N), (B, M)
        from_a = (a - _partners(b, nearest_b)).square().sum(-1)  # (B, N)
        from_b = (b - _partners(a, nearest_a)).square().sum(-1)  # (B, M)
        per_cloud = from_a.mean(-1) + from_b.mean(-1)  # (B,)
    return per_cloud if reduction == "none" else per_cloud.mean()
