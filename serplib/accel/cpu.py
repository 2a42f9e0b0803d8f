"""What is compiled for the CPU, on tensors: same results as the plain code, sooner.

Optional: `geometry` and `accel.pooling` use this module where Numba is installed and the tensors
are float32 on the CPU, unless the environment says ``SERP_FAST=0``. The indices that the searches
find and Chamfer's gradient are those of the plain code, bit for bit; Chamfer itself and the
gradients of `accel.pooling` add up in another order, and differ by rounding. The loops are in
`accel.numba_ops` and `accel.max_pool`; here tensors are checked and made arrays, and the team is
called that shares a loop. On import the process is told to keep the memory of a step for the next
one, see `keep_memory`.
"""

from __future__ import annotations

import ctypes
import os
import platform

import numpy as np
import torch
from torch import Tensor

from serplib.accel import max_pool, numba_ops, openmp

_WORTH_A_TEAM = 1e5  # nanoseconds of work; to call one takes a few thousand, while it is awake

_WANTED = os.environ.get("SERP_FAST", "1") != "0"
AVAILABLE = openmp.njit is not None and _WANTED


def keep_memory() -> None:
    """From now on keep up to 1 GiB of what this process's tensors give back, for the next ones.

    glibc's malloc returns large blocks to the system, which clears them page by page when the next
    step asks for as much again: up to a quarter of a step of SeRP-PointNet, half of its evaluation.
    Where the C library is another one, this does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3  # <malloc.h>
        # Blocks above mmap_threshold go back at once; older versions take 32 MiB there at most.
        if mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 2**25):
            mallopt(trim_threshold, 2**30)


if _WANTED:
    keep_memory()


def _team(nanoseconds: float) -> tuple[int, int]:
    """Who shares a loop: torch's threads, where so much work, on one of them, pays for it."""
    return openmp.team() if nanoseconds >= _WORTH_A_TEAM else openmp.ALONE


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def takes(*tensors: Tensor) -> bool:
    """Whether there is compiled code, and these are float32 on the CPU."""
    return AVAILABLE and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)


def usable(*clouds: Tensor) -> bool:
    """Whether the searches take these clouds: float32, on the CPU, without NaN or Inf."""
    return takes(*clouds) and all(numba_ops.finite(_array(cloud).reshape(-1)) for cloud in clouds)


def farthest_point_sample(points: Tensor, num_samples: int, start: int) -> Tensor:
    """See `geometry.farthest_point_sample`."""
    picked = torch.empty(len(points), num_samples, dtype=torch.int64)  # (B, m)
    # Leaves pay where there is much to skip, in enough steps to win back the sorting.
    leaves = points.shape[1] > 2048 and num_samples >= 512
    kernel = numba_ops.fps_in_leaves if leaves else numba_ops.fps
    work = 0.2 * len(points) * points.shape[1] * num_samples
    kernel(_array(points), picked.numpy(), start, _team(work))
    return picked


def knn(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """See `geometry.knn`."""
    index = torch.empty(len(points), queries.shape[1], k, dtype=torch.int64)  # (B, Q, k)
    work = 1.5 * queries.shape[:2].numel() * points.shape[1]
    numba_ops.knn(_array(queries), _array(points), index.numpy(), _team(work))
    return index


def _search(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Indices ``(B, N)`` into b and ``(B, M)`` into a of the nearest; the Chamfer distance (B,)."""
    to_b, to_a = (torch.empty(x.shape[:2], dtype=torch.int64) for x in (a, b))  # (B, N), (B, M)
    found = to_b, to_a, torch.empty(len(a))
    work = a.shape[:2].numel() * b.shape[1]
    numba_ops.nearest(*(_array(tensor) for tensor in (a, b, *found)), _team(work))
    return found


def nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For every point of ``a`` its nearest in ``b``, ``(B, N)``, and the other way, ``(B, M)``."""
    return _search(a, b)[:2]


def first_derivative_alone(backward):
    """A backward pass in compiled code: no graph of it can be made."""

    def checked(ctx, *gradients):
        if torch.is_grad_enabled():
            raise NotImplementedError("no second derivative in compiled code: set SERP_FAST=0")
        return backward(ctx, *gradients)

    return checked


class _Chamfer(torch.autograd.Function):
    """Means of the squared distances to the nearest, summed; in the gradient pairs stay."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:  # (B, N, 3), (B, M, 3) -> (B,)
        to_b, to_a, apart = _search(a, b)
        ctx.save_for_backward(a, b, to_b, to_a)
        return apart

    @staticmethod
    @first_derivative_alone
    def backward(ctx, pull: Tensor) -> tuple[Tensor, Tensor]:
        a, b, to_b, to_a = ctx.saved_tensors
        from_a, from_b = pull / a.shape[1], pull / b.shape[1]  # (B,) what a distance counts
        gradients = [None, None]
        for i, job in enumerate(
            ((a, b, to_b, to_a, from_a, from_b), (b, a, to_a, to_b, from_b, from_a))
        ):
            if ctx.needs_input_grad[i]:
                gradients[i] = job[0].new_zeros(job[0].shape)  # (B, N, 3) or (B, M, 3)
                work = 3 * (to_b.numel() + to_a.numel())
                numba_ops.pull(*(_array(x) for x in (*job, gradients[i])), _team(work))
        return tuple(gradients)


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """See `geometry.chamfer_l2`: one value a cloud, ``(B,)``."""
    return _Chamfer.apply(a, b)


def maximum(features: Tensor, sign: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The maximum over N of ``(B, N, C)``, and the first point that has it: ``(B, C)`` each.

    Where ``sign``, ``(C,)``, is -1 and not 1, it is the maximum of -features.
    """
    highest = features.new_empty(len(features), features.shape[2])  # (B, C)
    where = torch.empty(highest.shape, dtype=torch.int64)  # (B, C)
    sign = features.new_ones(features.shape[2]) if sign is None else sign
    job = (_array(tensor) for tensor in (features, sign, highest, where))
    max_pool.maximum(*job, _team(0.2 * features.numel()))
    return highest, where


def to_inputs(on_inputs: Tensor, weight: Tensor, where: Tensor, pull: Tensor, add: bool) -> None:
    """Write, or add, the gradient on inputs ``(B, N, W)`` of pulled maxima ``(B, C)``."""
    job = (_array(tensor) for tensor in (weight, where, pull, on_inputs))
    max_pool.to_inputs(*job, add, _team(0.3 * pull.numel() * weight.shape[1]))


def to_weight(inputs: Tensor, weight: Tensor, where: Tensor, pull: Tensor) -> Tensor:
    """The gradient on the weight ``(C, W)`` of pulled maxima ``(B, C)``; see `accel.pooling`."""
    on_weight = torch.empty(weight.shape)
    job = (_array(tensor) for tensor in (inputs, where, pull, on_weight))
    max_pool.to_weight(*job, _team(0.3 * pull.numel() * weight.shape[1]))
    return on_weight
