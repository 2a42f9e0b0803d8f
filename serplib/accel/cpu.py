"""The searches of `geometry` for float32 tensors on a CPU, with the loops of `numba_ops`.

Indices and the gradient of Chamfer equal those of plain PyTorch bit for bit; the Chamfer distance
is summed in another order and differs by rounding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from serplib.accel import numba_ops

CAVEAT = "" if numba_ops.cached else ", compiled anew in each process: no writable cache folder"
FIX = "" if numba_ops.cached else "set NUMBA_CACHE_DIR to a writable folder"


def self_test() -> None:
    """Compile and run a loop; raise whatever a broken installation raises."""
    farthest_point_sample(torch.zeros(1, 1, 3), 1, 0)


def accepts(*clouds: Tensor) -> bool:
    """Tell whether the loops take these clouds: float32, and no NaN or infinity."""
    return all(c.dtype == torch.float32 and bool(c.detach().sum().isfinite()) for c in clouds)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def farthest_point_sample(points: Tensor, num_samples: int, start: int) -> Tensor:
    """See `geometry.farthest_point_sample`."""
    picked = torch.empty(len(points), num_samples, dtype=torch.int64)  # (B, m)
    numba_ops.fps(_array(points), picked.numpy(), start)
    return picked


def knn(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """See `geometry.knn`."""
    index = torch.empty(*queries.shape[:2], k, dtype=torch.int64)  # (B, Q, k)
    numba_ops.knn(_array(queries), _array(points), index.numpy())
    return index


def nearest_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """See `geometry.nearest_pairs`."""
    return _search(a, b)[:2]


def _search(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return nearest indices ``(B, N)`` into b and ``(B, M)`` into a, and Chamfer ``(B,)``."""
    to_b, to_a = (torch.empty(x.shape[:2], dtype=torch.int64) for x in (a, b))  # (B, N), (B, M)
    distance = torch.empty(len(a))
    numba_ops.nearest(*map(_array, (a, b, to_b, to_a, distance)))
    return to_b, to_a, distance


def weigh_and_pool(
    features: Tensor, table: Tensor, centers: Tensor, neighbors: Tensor, scale: float
) -> Tensor:
    """Return max + mean over neighbours, ``(B, G, 2C)``; see `numba_ops.weigh_and_pool`."""
    swapped = table.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)  # (B, N, 2C)
    out = torch.empty(*centers.shape, table.shape[-1])  # (B, G, 2C)
    arrays = map(_array, (features, table, swapped, centers, neighbors))
    numba_ops.weigh_and_pool(*arrays, np.float32(scale), _array(out))
    return out


def chamfer_l2(a: Tensor, b: Tensor) -> Tensor:
    """Return the Chamfer distance of each pair of clouds, ``(B,)``; see `geometry.chamfer_l2`."""
    return _Chamfer.apply(a, b)


class _Chamfer(torch.autograd.Function):
    """Chamfer distance; its gradient keeps the pairs of nearest points fixed."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:  # (B, N, 3), (B, M, 3) -> (B,)
        to_b, to_a, distance = _search(a, b)
        ctx.save_for_backward(a, b, to_b, to_a)
        return distance

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: this code makes no graph
            raise NotImplementedError("no second derivative in fused code: set SERP_FAST=0")
        a, b, to_b, to_a = ctx.saved_tensors
        pairs = zip(((a, b, to_b, to_a), (b, a, to_a, to_b)), ctx.needs_input_grad)
        return tuple(_gradient(*pair, grad_output) if needed else None for pair, needed in pairs)


def _gradient(x: Tensor, y: Tensor, to_y: Tensor, to_x: Tensor, grad_output: Tensor) -> Tensor:
    """Return the gradient ``(B, N, 3)`` of Chamfer with respect to ``x``."""
    of_x, of_y = ((2 * grad_output / z.shape[1])[:, None, None] for z in (x, y))  # (B, 1, 1)
    to_y, to_x = (index[..., None].expand(-1, -1, 3) for index in (to_y, to_x))
    grad = torch.zeros_like(x).scatter_add_(1, to_x, (x.gather(1, to_x) - y).mul_(of_y))
    return grad.add_((x - y.gather(1, to_y)).mul_(of_x))
