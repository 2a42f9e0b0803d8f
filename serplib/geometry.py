"""Nearest neighbours, farthest points, Chamfer distance (paper, sections 3.1, 3.3.1, 3.3.5).

Plain PyTorch: every operation is batched, runs on any device, takes any float type, and breaks ties
towards the lowest index, so that two machines agree. The notebooks build each by hand. `accel` has
faster searches with the same results; `accel.searches` returns them where they apply.
"""

from __future__ import annotations

import torch
from torch import Tensor

from serplib import accel
from serplib.validation import expect


def _check_pair(a: Tensor, b: Tensor) -> None:
    expect(b, "B N 3", "the second argument")
    expect(a, "B N 3", "the first argument", device=b.device)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} clouds against {len(b)}: wanted the same batch")


def at_least_float32(points: Tensor) -> Tensor:
    """Convert half precision to float32: its 8 or 11 bits make different distances equal."""
    return points.float() if points.dtype in (torch.float16, torch.bfloat16) else points


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distance of every point of ``a`` to every point of ``b``.

    The sum over coordinates is written out: unlike |a|^2 + |b|^2 - 2ab it is never negative, and it
    needs no (B, Q, N, 3) tensor.

    Args:
        a: ``(B, Q, 3)``.
        b: ``(B, N, 3)``.

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

    No index of a finite cloud is picked twice: copies of picked points come last, by index.

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
    if compiled := accel.searches(points):
        return compiled.farthest_point_sample(points, num_samples, start)
    # Each coordinate is a contiguous array: the loop below reads memory in order.
    x, y, z = at_least_float32(points).permute(2, 0, 1).contiguous()  # each (B, N)
    picked = torch.full((batch, 1), start, dtype=torch.int64, device=points.device)  # (B, 1)
    nearest = torch.full_like(x, torch.inf)  # (B, N) squared distance to the nearest picked point
    for _ in range(num_samples - 1):
        last = picked[:, -1:]  # (B, 1)
        distance = (x - x.gather(1, last)).square()  # (B, N)
        distance += (y - y.gather(1, last)).square()
        distance += (z - z.gather(1, last)).square()
        nearest = torch.minimum(nearest, distance).scatter(1, last, -1.0)  # -1: picked
        farthest = nearest.argmax(1, keepdim=True)  # (B, 1), the first of equal maxima
        picked = torch.cat([picked, farthest], 1)
    return picked


@torch.no_grad()
def knn(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """Find the k nearest points of each query, nearest first (Eq. 3).

    One of the points is its own first neighbour, unless a copy of it has a lower index.

    Args:
        queries: ``(B, Q, 3)``.
        points: ``(B, N, 3)``.
        k: number of neighbours, at most N.

    Returns:
        ``(B, Q, k)`` int64 indices into ``points``; ties go to the lowest index.

    Raises:
        ValueError: wrong shapes, or ``k`` not in 1..N.
    """
    _check_pair(queries, points)
    if not 1 <= k <= points.shape[1]:
        raise ValueError(f"k is {k}, wanted 1..{points.shape[1]} (the points given)")
    if compiled := accel.searches(queries, points):
        return compiled.knn(queries, points, k)
    return topk_smallest(squared_distances(queries, points), k)


def topk_smallest(values: Tensor, k: int) -> Tensor:
    """Return the indices of the k smallest values of each row; ties go to the lowest index.

    Args:
        values: ``(..., N)``, none below 0, any float type.
        k: at most N.

    Returns:
        ``(..., k)`` int64, smallest value first.
    """
    if values.dtype != torch.float32:
        return values.sort(dim=-1, stable=True).indices[..., :k]  # (..., k)
    # A float32 >= 0 orders like its bits read as an integer. With the index in the lower half, no
    # two keys are equal, so that topk, which does not define the order of ties, has none.
    # abs: inf - inf may be a NaN with a minus sign, which would come first instead of last.
    index = torch.arange(values.shape[-1], device=values.device)  # (N,)
    key = (values.abs().view(torch.int32).long() << 32) | index  # (..., N)
    return key.topk(k, dim=-1, largest=False, sorted=True).values & 0xFFFFFFFF  # (..., k)


def gather(points: Tensor, index: Tensor) -> Tensor:
    """Take points (or features) at ``index``, cloud by cloud.

    Args:
        points: ``(B, N, C)``.
        index: ``(B, ...)`` int64 into N.

    Returns:
        ``(B, ..., C)``.
    """
    expect(points, "B N C", floats=False)
    if index.ndim < 2 or len(points) != len(index):
        raise ValueError(
            f"points {tuple(points.shape)} and index {tuple(index.shape)}: "
            "wanted (B, N, C) and (B, ...) with the same B"
        )
    # torch.gather is faster, but on a GPU its gradient is summed in an order that varies.
    if not points.requires_grad or points.device.type == "cpu":
        flat = index.flatten(1)[..., None].expand(-1, -1, points.shape[2])
        return points.gather(1, flat).view(*index.shape, -1)  # (B, ..., C)
    cloud = torch.arange(len(points), device=points.device)  # (B,)
    return points[cloud.view(-1, *[1] * (index.ndim - 1)), index]  # (B, ..., C)


@torch.no_grad()
def nearest_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Find for each point the nearest one in the other cloud; ties go to the lowest index.

    Args:
        a: ``(B, N, 3)``.
        b: ``(B, M, 3)``.

    Returns:
        ``(B, N)`` int64 indices into ``b``, and ``(B, M)`` int64 indices into ``a``.
    """
    _check_pair(a, b)
    if compiled := accel.searches(a, b):
        return compiled.nearest_pairs(a, b)
    distance = squared_distances(a, b)  # (B, N, M)
    return distance.argmin(2), distance.argmin(1)


def chamfer_l2(a: Tensor, b: Tensor, reduction: str = "mean") -> Tensor:
    """Return the Chamfer distance of two clouds (Eq. 11): squared, mean per side, summed.

    Two single points 3 apart give 18. Nearest points are searched without gradients, and only the
    distances of the pairs found are differentiated. The gradient is that of the full minimum,
    because the pairs are constant almost everywhere.

    Args:
        a: ``(B, N, 3)``.
        b: ``(B, M, 3)``.
        reduction: ``"none"`` for one value per cloud, ``(B,)``; ``"mean"`` for their mean, ``()``.

    Returns:
        In squared units of the clouds; never negative.
    """
    if reduction not in ("none", "mean"):
        raise ValueError(f"reduction is {reduction!r}, wanted 'none' or 'mean'")
    _check_pair(a, b)
    a, b = at_least_float32(a), at_least_float32(b)
    compiled = accel.searches(a, b)
    if compiled is not None and hasattr(compiled, "chamfer_l2"):
        per_cloud = compiled.chamfer_l2(a, b)  # (B,)
    else:
        nearest_b, nearest_a = nearest_pairs(a, b)  # (B, N), (B, M)
        from_a = (a - gather(b, nearest_b)).square().sum(-1)  # (B, N)
        from_b = (b - gather(a, nearest_a)).square().sum(-1)  # (B, M)
        per_cloud = from_a.mean(-1) + from_b.mean(-1)  # (B,)
    return per_cloud if reduction == "none" else per_cloud.mean()
