"""A shared layer's linear part and its BatchNorm at every point, without what cancels.

BatchNorm takes the mean off, and with it a bias that was added right before. In training the bias
therefore is neither added to all points nor given a gradient, which is zero; the running mean,
which is for evaluation, gets it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def learns(norm: nn.Module) -> bool:
    """Whether this is the usual BatchNorm, in training."""
    usual = type(norm) is nn.BatchNorm1d and norm.track_running_stats and norm.affine
    return usual and norm.training and norm.momentum is not None


def at_points(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T``: ``(..., W)`` and ``(C, W)`` to ``(..., C)``.

    On a CPU clouds ``(B, N, W)`` are multiplied one by one: its matrix products take 1,024 rows
    sooner than B times as many.
    """
    if x.ndim == 3 and x.device.type == "cpu":
        return torch.bmm(x, weight.T.expand(len(x), -1, -1))
    return x @ weight.T


def linear_norm(x: Tensor, linear: nn.Linear, norm: nn.BatchNorm1d, relu: bool = True) -> Tensor:
    """``norm(linear(x))``, the norm over all rows, then ReLU: ``(..., W)`` to ``(..., C)``."""
    if learns(norm) and x[..., 0].numel() > 1:
        x = _Unmoved.apply(at_points(x, linear.weight), linear.bias)  # (..., C)
        norm.num_batches_tracked.add_(1)
        with torch.no_grad():
            running_mean = norm.running_mean - linear.bias  # (C,) as if there were no bias
        normed = F.batch_norm(
            x.flatten(0, -2), running_mean, norm.running_var, norm.weight, norm.bias,
            training=True, momentum=norm.momentum, eps=norm.eps,
        )  # fmt: skip
        with torch.no_grad():
            norm.running_mean.copy_(running_mean + linear.bias)
    else:
        x = linear(x)  # (..., C)
        normed = norm(x.flatten(0, -2))
    return (normed.relu_() if relu else normed).view(x.shape)  # in place on a view, it would copy


class _Unmoved(torch.autograd.Function):
    """x as it is. The bias's gradient is zero, not none: optimizers and DDP wait for one."""

    @staticmethod
    def forward(ctx, x: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(bias)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, pull: Tensor) -> tuple[Tensor, Tensor]:
        (bias,) = ctx.saved_tensors
        return pull, torch.zeros_like(bias)
