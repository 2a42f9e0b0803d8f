"""The searches of `geometry` on float32 tensors on a CPU, with the loops of `numba_ops`.

Indices and the gradient of Chamfer equal those of plain PyTorch bit for bit; the Chamfer distance
is a sum in another order and differs by rounding.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from serplib.accel import numba_ops

_WORTH_SHARING = 1e5  # nanoseconds of work; to wake a thread takes a few times 1e4


def self_test() -> None:
    """Compile and run one loop; raises whatever a broken installation raises."""
    numba_ops.finite(np.zeros(1, np.float32))


def describe() -> tuple[str, str]:
    """Return the version and what could be improved; see `accel.status`."""
    if numba_ops.cached:
        return numba_ops.numba.__version__, ""
    detail = "compiled again in every process: no writable folder for Numba's cache"
    return f"{numba_ops.numba.__version__}, {detail}", "set NUMBA_CACHE_DIR to a writable folder"


def accepts(*clouds: Tensor) -> bool:
    """Tell whether the loops take these clouds: float32, finite."""
    return all(
        cloud.dtype == torch.float32 and numba_ops.finite(_array(cloud).reshape(-1))
        for cloud in clouds
    )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "serplib")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _run(loop: Callable[..., None], arrays: tuple, count: int, nanoseconds: float) -> None:
    """Run ``loop(*arrays, first, last)`` over ``count`` clouds, on as many threads as torch uses.

    Threads take pieces from a queue until it is empty, so that a thread that wakes up late (torch's
    own threads keep the cores busy for a while) delays nobody.
    """
    threads = torch.get_num_threads() if nanoseconds > _WORTH_SHARING else 1
    pieces = min(4 * threads, count) if threads > 1 else 1
    edges = [count * i // pieces for i in range(pieces + 1)]
    queue = deque(itertools.pairwise(edges))

    def work() -> None:
        while queue:
            try:
                first, last = queue.popleft()
            except IndexError:  # another thread took the last piece
                return
            loop(*arrays, first, last)

    others = [_pool().submit(work) for _ in range(min(threads, pieces) - 1)]
    work()
    for other in others:
        if not other.cancel():  # already running: wait for its last piece
            other.result()


def farthest_point_sample(points: Tensor, num_samples: int, start: int) -> Tensor:
    """See `geometry.farthest_point_sample`."""
    picked = torch.empty(len(points), num_samples, dtype=torch.int64)  # (B, m)
    work = 0.3 * len(points) * points.shape[1] * num_samples
    _run(numba_ops.fps, (_array(points), picked.numpy(), start), len(points), work)
    return picked


def knn(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """See `geometry.knn`."""
    index = torch.empty(len(points), queries.shape[1], k, dtype=torch.int64)  # (B, Q, k)
    work = 1.5 * queries.shape[:2].numel() * points.shape[1]
    _run(numba_ops.knn, (_array(queries), _array(points), index.numpy()), len(points), work)
    return index


def nearest_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """See `geometry.nearest_pairs`."""
    return _search(a, b)[:2]


def chamfer_l2(a: Tensor, b: Tensor) -> Tensor:
    """Return the Chamfer distance of each pair of clouds, ``(B,)``; see `geometry.chamfer_l2`."""
    return _Chamfer.apply(a, b)


def _search(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return nearest indices ``(B, N)`` into b and ``(B, M)`` into a, and Chamfer ``(B,)``."""
    to_b, to_a = (torch.empty(x.shape[:2], dtype=torch.int64) for x in (a, b))  # (B, N), (B, M)
    found = to_b, to_a, torch.empty(len(a))
    work = a.shape[:2].numel() * b.shape[1]
    _run(numba_ops.nearest, tuple(_array(x) for x in (a, b, *found)), len(a), work)
    return found


class _Chamfer(torch.autograd.Function):
    """Chamfer distance; its gradient keeps the pairs of nearest points fixed."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:  # (B, N, 3), (B, M, 3) -> (B,)
        to_b, to_a, distance = _search(a, b)
        ctx.save_for_backward(a, b, to_b, to_a)
        return distance

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if torch.is_grad_enabled():  # create_graph=True: this code makes no graph
            raise NotImplementedError("no second derivative in fused code: set SERP_FAST=0")
        a, b, to_b, to_a = ctx.saved_tensors
        of_a, of_b = grad_output / a.shape[1], grad_output / b.shape[1]  # (B,) of one distance
        arguments = (a, b, to_b, to_a, of_a, of_b), (b, a, to_a, to_b, of_b, of_a)
        grads: list[Tensor | None] = [None, None]
        for i, needed in enumerate(ctx.needs_input_grad):
            if needed:
                grad = torch.zeros(arguments[i][0].shape)  # (B, N, 3) or (B, M, 3)
                arrays = tuple(_array(x) for x in (*arguments[i], grad))
                _run(numba_ops.chamfer_grad, arrays, len(a), 3 * (to_b.numel() + to_a.numel()))
                grads[i] = grad
        return grads[0], grads[1]
