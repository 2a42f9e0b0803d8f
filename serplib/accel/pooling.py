"""PointNet's pooling: the maximum over the points, whatever their order (paper, 3.2, 3.3.2).

A maximum comes from one point: of the gradients on what is pooled, all but one in N are zero. On a
CPU, where `accel.cpu` has compiled code, layers right before the maximum are spared the work on
zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serplib.accel import cpu
from serplib.accel.shared_mlp import at_points, learns
from serplib.validation import expect


def max_over_points(
    features: Tensor, linear: nn.Linear | None = None, norm: nn.BatchNorm1d | None = None
) -> Tensor:
    """The maximum over the points of each feature; with layers, of ``norm(linear(features))``.

    The gradient of a maximum goes to the point that has it, the first of equal ones.

    Args:
        features: ``(B, N, W)``, any float type.
        linear: from W to C features. norm: BatchNorm over all B*N points, after it.

    Returns:
        ``(B, C)``; C is W where there is no linear layer.
    """
    expect(features, "B N W", "features")
    compiled = cpu.takes(features) and not torch.is_autocast_enabled("cpu")
    if linear is None and norm is None:
        return _Max.apply(features) if compiled else features.max(1).values
    if compiled and linear is not None and linear.bias is not None and cpu.takes(linear.weight):
        if norm is None:
            return _LinearMax.apply(features, linear.weight) + linear.bias  # the same at all points
        if learns(norm) and features[..., 0].numel() > 1:
            norm.num_batches_tracked.add_(1)
            running = norm.running_mean, norm.running_var, norm.momentum, norm.eps
            weights = linear.weight, linear.bias, norm.weight, norm.bias
            return _NormMax.apply(features, *weights, *running)
    x = features if linear is None else linear(features)  # (B, N, C)
    return max_over_points(x if norm is None else norm(x.flatten(0, 1)).view(x.shape))


class _Max(torch.autograd.Function):
    """Of features ``(B, N, C)``."""

    @staticmethod
    def forward(ctx, features: Tensor) -> Tensor:
        ctx.shape = features.shape
        highest, where = cpu.maximum(features)  # (B, C), (B, C)
        ctx.save_for_backward(where)
        return highest

    @staticmethod
    @cpu.first_derivative_alone
    def backward(ctx, pull: Tensor) -> Tensor:
        (where,) = ctx.saved_tensors  # (B, C)
        on_features = pull.new_zeros(ctx.shape)  # (B, N, C)
        return on_features.scatter_(1, where[:, None], pull[:, None])


class _LinearMax(torch.autograd.Function):
    """Of inputs ``(B, N, W)`` times weight ``(C, W)``: the gradient takes 1/N of the products."""

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor) -> Tensor:
        highest, where = cpu.maximum(inputs @ weight.T)  # (B, C), (B, C)
        ctx.save_for_backward(inputs, weight, where)
        return highest

    @staticmethod
    @cpu.first_derivative_alone
    def backward(ctx, pull: Tensor) -> tuple[Tensor | None, Tensor]:
        inputs, weight, where = ctx.saved_tensors
        on_inputs = None
        if ctx.needs_input_grad[0]:
            on_inputs = inputs.new_empty(inputs.shape)  # (B, N, W)
            cpu.to_inputs(on_inputs, weight, where, pull, add=False)
        return on_inputs, cpu.to_weight(inputs, weight, where, pull)


class _NormMax(torch.autograd.Function):
    """Of BatchNorm(x), x = inputs @ weight.T + bias: taken before it, which rises or falls with x.

    For one feature of the M = B*N points, with mean m and deviation d of x, y = s (x - m) / d + t
    and its gradient dx = s/d (dy - mean(dy)) - s/d^2 mean(dy (x - m)/d) (x - m). What is not at a
    maximum is ``level + slope (x - m)``, and x - m is (inputs - their mean) @ weight.T: its way on
    to the inputs and the weight leads through (W, W) matrices, and x itself need not be kept.
    """

    @staticmethod
    def forward(
        ctx, inputs: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor,
        running_mean: Tensor, running_var: Tensor, momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        x = at_points(inputs, weight)  # (B, N, C) less the bias
        mean, var = torch.batch_norm_update_stats(
            x.flatten(0, 1), running_mean, running_var, momentum
        )  # (C,) each
        running_mean.add_(bias, alpha=momentum)
        deviation = (var + eps).sqrt()  # (C,)
        sign = torch.where(scale >= 0, 1.0, -1.0).to(scale)  # (C,)
        highest, where = cpu.maximum(x, sign)  # (B, C), (B, C)
        normed = (sign * highest - mean) / deviation  # (B, C)
        ctx.save_for_backward(inputs, weight, bias, scale / deviation, deviation, normed, where)
        return normed * scale + shift

    @staticmethod
    @cpu.first_derivative_alone
    def backward(ctx, pull: Tensor):
        inputs, weight, bias, rise, deviation, normed, where = ctx.saved_tensors
        flat = inputs.flatten(0, 1)  # (M, W)
        count = len(flat)
        on_shift, on_scale = pull.sum(0), (pull * normed).sum(0)  # (C,)
        level = -rise * on_shift / count  # (C,)
        slope = -rise * on_scale / (count * deviation)  # (C,)
        center = flat.mean(0)  # (W,)
        spread = flat.T @ flat - count * torch.outer(center, center)  # (W, W)
        on_weight = cpu.to_weight(inputs, weight, where, rise * pull)  # (C, W)
        on_weight += slope[:, None] * (weight @ spread) + count * torch.outer(level, center)
        on_inputs = None
        if ctx.needs_input_grad[0]:
            back = weight.T @ (slope[:, None] * weight)  # (W, W)
            on_inputs = torch.addmm(level @ weight - center @ back, flat, back).view(inputs.shape)
            cpu.to_inputs(on_inputs, weight, where, rise * pull, add=True)
        # A bias before BatchNorm moves x and its mean alike: no gradient.
        return on_inputs, on_weight, torch.zeros_like(bias), on_scale, on_shift, *[None] * 4
