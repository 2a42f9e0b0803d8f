"""The same models and searches as a textbook would write them, to time the others against.

Distances are broadcast to (B, N, M, 3) and differentiated whole, layers are Conv1d over
(B, C, N), a global vector is repeated at every point and concatenated, attention is a softmax of a
product. `swapped` puts them in the place of the library's; the weights are the library's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serplib import patches as patching
from serplib import perturbation, pointnet, transformer


def distances(a: Tensor, b: Tensor) -> Tensor:
    """``(B, N, 3)`` and ``(B, M, 3)`` to squared distances ``(B, N, M)``."""
    return (a[:, :, None] - b[:, None]).square().sum(-1)


def farthest_points(points: Tensor, num_samples: int, start: int = 0) -> Tensor:
    """``(B, N, 3)`` to ``(B, m)``, on points as they lie in memory."""
    batch, num_points, _ = points.shape
    nearest = torch.full((batch, num_points), torch.inf, dtype=points.dtype)  # (B, N)
    last = torch.full((batch,), start)  # (B,)
    picked = []
    for _ in range(num_samples):
        picked.append(last)
        newest = points[torch.arange(batch), last][:, None]  # (B, 1, 3)
        nearest = torch.minimum(nearest, (points - newest).square().sum(-1))  # (B, N)
        last = nearest.argmax(1)  # (B,)
    return torch.stack(picked, 1)


def neighbours(queries: Tensor, points: Tensor, k: int) -> Tensor:
    """``(B, Q, 3)`` in ``(B, N, 3)`` to ``(B, Q, k)``."""
    return distances(queries, points).topk(k, largest=False).indices


def chamfer(a: Tensor, b: Tensor, reduction: str = "mean") -> Tensor:
    """Chamfer through the whole matrix, with its gradient."""
    squared = distances(a, b)  # (B, N, M)
    per_cloud = squared.amin(2).mean(1) + squared.amin(1).mean(1)  # (B,)
    return per_cloud if reduction == "none" else per_cloud.mean()


def conv(linear: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer as a convolution of kernel 1 over ``(B, C, N)``."""
    return F.conv1d(x, linear.weight[..., None], linear.bias)


def shared(layer: pointnet.SharedLayer, x: Tensor) -> Tensor:
    """`pointnet.SharedLayer` over ``(B, C, N)``."""
    x = layer.norm(conv(layer.linear, x))
    return x.relu() if layer.relu else x


def pointnet_forward(self: pointnet.SerpPointNet, perturbed: Tensor) -> tuple[Tensor, Tensor]:
    """`SerpPointNet.forward`, for a model without T-Nets."""
    encoder = self.encoder
    local = shared(encoder.local, perturbed.transpose(1, 2))  # (B, 64, N)
    whole = shared(encoder.last, shared(encoder.middle, local)).amax(2, keepdim=True)
    x = torch.cat([whole.expand(-1, -1, local.shape[2]), local], 1)  # (B, 1088, N)
    for layer in self.decoder:
        x = shared(layer, x)
    logits, predicted = (conv(head, x) for head in (self.classification, self.reconstruction))
    return logits.transpose(1, 2), predicted.transpose(1, 2)  # (B, N, 2), (B, N, 3)


def token_forward(self: patching.TokenPointNet, patches: Tensor) -> Tensor:
    """`TokenPointNet.forward`: ``(B, c, n, 3)`` to ``(B, c, d)``."""
    x = patches.flatten(0, 1).transpose(1, 2)  # (B*c, 3, n)
    local = conv(self.local, self.first_norm(conv(self.first, x)).relu())  # (B*c, 256, n)
    whole = local.amax(2, keepdim=True).expand_as(local)  # (B*c, 256, n)
    x = self.wide_norm(conv(self.wide, torch.cat([whole, local], 1))).relu()  # (B*c, 512, n)
    return conv(self.last, x).amax(2).unflatten(0, patches.shape[:2])  # (B, c, d)


def attention_forward(self: transformer.Attention, x: Tensor) -> Tensor:
    """`Attention.forward` with the (T, T) weights written out."""
    v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)[2]
    return self.out((self.weights(x) @ v).transpose(1, 2).flatten(2))  # (B, T, D)


PLACES = [
    *((module, "farthest_point_sample", farthest_points) for module in (perturbation, patching)),
    *((module, "knn", neighbours) for module in (perturbation, patching)),
    *((module, "chamfer_l2", chamfer) for module in (pointnet, transformer)),
    (pointnet.SerpPointNet, "forward", pointnet_forward),
    (patching.TokenPointNet, "forward", token_forward),
    (transformer.Attention, "forward", attention_forward),
]


@contextlib.contextmanager
def swapped() -> Iterator[None]:
    """The textbook's operations in the place of the library's."""
    kept = [(place, name, getattr(place, name)) for place, name, _ in PLACES]
    try:
        for place, name, other in PLACES:
            setattr(place, name, other)
        yield
    finally:
        for place, name, original in kept:
            setattr(place, name, original)
