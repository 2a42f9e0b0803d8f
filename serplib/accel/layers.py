"""Fused layers of PointNet for training on a CPU (paper, section 3.2).

Subclasses of the plain layers, of the same name and with the same parameters, that use: BatchNorm
removes a bias added before it; a linear layer on ``[global; local]`` is a sum of two, and the one
on the global feature is the same for all points; a maximum may be taken before BatchNorm.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serplib import pointnet


def _applies(x: Tensor, norm: Any) -> bool:
    """Tell whether the fused code covers a case: training with BatchNorm on a CPU."""
    if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    usual = type(norm) is nn.BatchNorm1d and norm.affine and norm.track_running_stats
    usual = usual and norm.training and norm.momentum is not None
    return usual and x.device.type == "cpu" and x[..., 0].numel() > 1


def _matmul(x: Tensor, weight: Tensor) -> Tensor:
    """Map ``(..., W)`` to ``(..., C)``; faster cloud by cloud than as one product."""
    return torch.bmm(x, weight.T.expand(len(x), -1, -1)) if x.ndim == 3 else x @ weight.T


def _averages(norm: Any) -> tuple[Tensor, Tensor, float]:
    """Count a batch; return running mean and variance ``(C,)``, and the weight of a batch."""
    norm.num_batches_tracked.add_(1)
    return norm.running_mean, norm.running_var, norm.momentum


def _shift(layer: pointnet.SharedLayer) -> Tensor:
    """Return the norm's bias; the linear one gets a gradient of zero, as DDP requires one."""
    return layer.norm.bias + 0 * layer.linear.bias


def _normalize(x: Tensor, layer: pointnet.SharedLayer) -> Tensor:
    """Apply the BatchNorm and ReLU of a layer to ``(..., C)``, computed without its bias."""
    norm, bias = layer.norm, layer.linear.bias.detach()
    running_mean, running_var, momentum = _averages(norm)
    rows, mean = x.flatten(0, -2), running_mean - bias  # (M, C), (C,)
    shift = _shift(layer)
    y = F.batch_norm(rows, mean, running_var, norm.weight, shift, True, momentum, norm.eps)
    running_mean.copy_(mean + bias)
    return (y.relu_() if layer.relu else y).view(x.shape)  # in place before the view: no copy


class SharedLayer(pointnet.SharedLayer):
    """A shared layer without the bias that BatchNorm removes."""

    def forward(self, x: Tensor) -> Tensor:
        if not _applies(x, self.norm):
            return super().forward(x)
        return _normalize(_matmul(x, self.linear.weight), self)


class SerpPointNet(pointnet.SerpPointNet):
    """SeRP-PointNet that multiplies the global feature once per cloud."""

    def point_features(self, whole: Tensor, local: Tensor) -> Tensor:
        first: Any = self.decoder[0]
        if not _applies(local, first.norm):
            return super().point_features(whole, local)
        of_cloud, of_point = first.linear.weight.split([whole.shape[1], local.shape[2]], 1)
        x = _matmul(local, of_point).add_((whole @ of_cloud.T)[:, None])  # (B, N, 512)
        return self.decoder[1:](_normalize(x, first))


class PointNetEncoder(pointnet.PointNetEncoder):
    """PointNet's encoder that takes the maximum before the last BatchNorm."""

    def global_feature(self, local: Tensor) -> Tensor:
        norm, linear = self.last.norm, self.last.linear
        if not _applies(local, norm):
            return super().global_feature(local)
        x = self.middle(local)  # (B, N, 128)
        sign = torch.where(norm.weight >= 0, 1.0, -1.0).to(x)  # (C,) BatchNorm rises or falls
        maximum, mean, var = _NormalizedMax.apply(x, linear.weight, sign, norm.eps)
        running_mean, running_var, momentum = _averages(norm)
        count = x[..., 0].numel()
        running_mean.lerp_(mean + linear.bias.detach(), momentum)
        running_var.lerp_(var * count / (count - 1), momentum)
        return maximum * norm.weight + _shift(self.last)


class _NormalizedMax(torch.autograd.Function):
    """Maximum over points of y = x @ weight.T, normalised by the mean and variance of y.

    For centred points, mean(y) = 0 and var(y_c) = w_c' Cov w_c. The gradient g of a maximum reaches
    y at its point as g / d, and every point as -(1 + n y / d) g / (d M), with d the deviation, n
    the normalised maximum, M the number of points: linear in y, so in x through a (W, W) matrix.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, sign: Tensor, eps: float) -> tuple[Tensor, ...]:
        """Return maxima ``(B, C)``, means and variances ``(C,)`` of ``x (B, N, W)``."""
        batch, size, _ = x.shape
        mean = x.mean((0, 1))  # (W,)
        x = x - mean
        rows = x.flatten(0, 1)  # (B*N, W)
        covariance = rows.T @ rows / len(rows)  # (W, W)
        var = ((weight @ covariance) * weight).sum(1).clamp_min(0)  # (C,)
        deviation = (var + eps).sqrt()
        y = torch.bmm((sign[:, None] * weight).expand(batch, -1, -1), x.mT)  # (B, C, N)
        highest, index = y.max(2)  # (B, C)
        normalized = sign * highest / deviation  # (B, C)
        index += size * torch.arange(batch)[:, None]  # into the rows
        ctx.save_for_backward(rows, weight, covariance, deviation, normalized, index)
        mean = weight @ mean
        ctx.mark_non_differentiable(mean, var)
        return normalized, mean, var

    @staticmethod
    def backward(ctx, grad_output: Tensor, *_) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: this code makes no graph
            raise NotImplementedError("no second derivative in fused code: set SERP_FAST=0")
        rows, weight, covariance, deviation, normalized, index = ctx.saved_tensors
        grad = grad_output / deviation  # (B, C) on y at the maximum
        level = -grad.sum(0) / len(rows)  # (C,) on y of every point: level + slope * y
        slope = -(grad * normalized).sum(0) / (len(rows) * deviation)  # (C,)
        grad_weight = torch.einsum("bc,bcw->cw", grad, rows[index])  # (C, W)
        grad_weight += len(rows) * slope[:, None] * (weight @ covariance)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.addmm(level @ weight, rows, weight.T @ (slope[:, None] * weight))
            grad_x.index_add_(0, index.flatten(), (grad[..., None] * weight).flatten(0, 1))
            grad_x = grad_x.view(len(index), -1, rows.shape[1])  # (B, N, W)
        return grad_x, grad_weight, None, None


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    fused.__bases__[0]: fused for fused in (SharedLayer, SerpPointNet, PointNetEncoder)
}
