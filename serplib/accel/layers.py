"""Fused layers of PointNet for training on a CPU (paper, section 3.2).

Subclasses of the plain layers, of the same name and with the same parameters: `accel.fuse` changes
the class of a layer to its subclass. Three identities save work:

- BatchNorm removes a bias added right before it: the bias is only needed in the running mean.
- A linear layer on ``[global; local]`` is a sum of one on each, and the global one is computed once
  per cloud instead of once per point.
- BatchNorm is monotonic in each feature: the maximum over points can be taken before it, so that
  only one point per feature needs its own gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serplib import pointnet


def _applies(x: Tensor, norm: nn.Module) -> bool:
    """Tell whether the fused code covers this case: training with BatchNorm on a CPU."""
    return (
        type(norm) is nn.BatchNorm1d
        and (norm.training and norm.affine and norm.track_running_stats)
        and norm.momentum is not None
        and x.device.type == "cpu"
        and x[..., 0].numel() > 1
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def _matmul(x: Tensor, weight: Tensor) -> Tensor:
    """Map ``(..., W)`` to ``(..., C)``; clouds one by one, which is faster than in one product."""
    if x.ndim == 3:
        return torch.bmm(x, weight.T.expand(len(x), -1, -1))
    return x @ weight.T


def _averages(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor, float]:
    """Count a batch; return running mean and variance ``(C,)``, and the weight of a batch."""
    assert norm.num_batches_tracked is not None and norm.momentum is not None
    assert norm.running_mean is not None and norm.running_var is not None  # see _applies
    norm.num_batches_tracked.add_(1)
    return norm.running_mean, norm.running_var, norm.momentum


def _normalize(x: Tensor, layer: pointnet.SharedLayer) -> Tensor:
    """Apply the layer's BatchNorm and ReLU to ``(..., C)``, computed without its bias."""
    norm, bias = layer.norm, layer.linear.bias
    running_mean, running_var, momentum = _averages(norm)
    without_bias = running_mean - bias.detach()  # (C,)
    shift = norm.bias + 0 * bias  # DDP and optimizers expect a gradient of the bias: zero
    rows = x.flatten(0, -2)  # (M, C)
    y = F.batch_norm(rows, without_bias, running_var, norm.weight, shift, True, momentum, norm.eps)
    running_mean.copy_(without_bias + bias.detach())
    return (y.relu_() if layer.relu else y).view(x.shape)  # in place before the view: no copy


class SharedLayer(pointnet.SharedLayer):
    """A shared layer that does not add the bias which BatchNorm removes."""

    def forward(self, x: Tensor) -> Tensor:
        if not _applies(x, self.norm):
            return super().forward(x)
        return _normalize(_matmul(x, self.linear.weight), self)


class SerpPointNet(pointnet.SerpPointNet):
    """SeRP-PointNet that multiplies the global feature once per cloud."""

    def point_features(self, whole: Tensor, local: Tensor) -> Tensor:
        first = self.decoder[0]
        assert isinstance(first, pointnet.SharedLayer)
        if not _applies(local, first.norm):
            return super().point_features(whole, local)
        of_cloud, of_point = first.linear.weight.split([whole.shape[1], local.shape[2]], 1)
        x = _matmul(local, of_point).add_((whole @ of_cloud.T)[:, None])  # (B, N, 512)
        return self.decoder[1:](_normalize(x, first))


class PointNetEncoder(pointnet.PointNetEncoder):
    """PointNet's encoder that takes the maximum before the last BatchNorm."""

    def global_feature(self, local: Tensor) -> Tensor:
        layer = self.last
        if not _applies(local, layer.norm):
            return super().global_feature(local)
        x, norm, linear = self.middle(local), layer.norm, layer.linear  # (B, N, 128)
        sign = torch.where(norm.weight >= 0, 1.0, -1.0).to(x)  # (C,) BatchNorm rises or falls
        maximum, mean, var = _NormalizedMax.apply(x, linear.weight, sign, norm.eps)
        running_mean, running_var, momentum = _averages(norm)
        count = x[..., 0].numel()
        running_mean.lerp_(mean + linear.bias.detach(), momentum)
        running_var.lerp_(var * count / (count - 1), momentum)
        return maximum * norm.weight + (norm.bias + 0 * linear.bias)


class _NormalizedMax(torch.autograd.Function):
    """Maximum over points of y = x @ weight.T, normalised by the mean and variance of y.

    With the points centred (their mean subtracted), mean(y) = 0, var(y_c) = w_c' Cov w_c, and the
    gradient of one maximum g reaches y at the maximal point as g / d (d: standard deviation) and
    every point as -(1 + n y / d) g / (d M), where n is the normalised maximum and M the number of
    points. The second part is linear in y = W x: it reaches x through one (W, W) matrix.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, sign: Tensor, eps: float):
        """Return maxima ``(B, C)``, means and variances ``(C,)`` of ``x (B, N, W)``."""
        batch, size, width = x.shape
        mean = x.mean((0, 1))  # (W,)
        x = x - mean
        rows = x.view(-1, width)  # (B*N, W)
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
    def backward(ctx, grad_output: Tensor, *_):
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
    pointnet.SharedLayer: SharedLayer,
    pointnet.SerpPointNet: SerpPointNet,
    pointnet.PointNetEncoder: PointNetEncoder,
}
