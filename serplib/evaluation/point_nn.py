"""Point-NN, a network without weights: a baseline for every frozen encoder (section 4.2).

Zhang et al., *Parameter is Not All You Need* (2023), arXiv 2303.08134. Sines and cosines embed the
points; each of four stages halves the points and doubles the features; a memory of the training
shapes classifies (`probes.MemoryBank`). Settings are those of its published 81.8 % on ModelNet40
with 1,024 points. Two departures from the published code: offsets are divided by their standard
deviation in a cloud, there in a batch of 16, so that features do not depend on the other clouds;
and batch norm is left out, for without training it divides by 1.000005. That code also chooses the
classifier's gamma on the test set, ours on shapes held out of the training set.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu

from serplib import accel
from serplib.geometry import farthest_point_sample, gather, knn
from serplib.validation import expect

DIM, STAGES, NEIGHBORS = 72, 4, 90
SCALE, BASE = 100.0, 1000.0  # of the angles: beta and alpha of the published code


def positions(points: Tensor, dim: int) -> Tensor:
    """Embed coordinates in sines and cosines.

    Coordinate x becomes sin(a) and cos(a) for a = 100 x / 1000^(j / d), j = 0 ... d - 1.

    Args:
        points: ``(..., 3)``.
        dim: 6 d, a multiple of 6.

    Returns:
        ``(..., dim)``: axis by axis, angle by angle, sine before cosine.
    """
    count = dim // 6  # d
    angles = SCALE / BASE ** (torch.arange(count, device=points.device) / count)  # (d,)
    angles = points[..., None] * angles  # (..., 3, d)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-3)  # (..., dim)


def aggregate(points: Tensor, features: Tensor, centers: Tensor, neighbors: Tensor) -> Tensor:
    """Gather what surrounds each centre c, with its neighbours k.

    ``s`` and ``t`` are the standard deviations of all offsets of the cloud, plus 1e-5::

        e_k = [(f_k - f_c) / s, f_c]        p_k = positions((x_k - x_c) / t)
        w_k = (e_k + p_k) * p_k             f'_c = GELU(max_k w_k + mean_k w_k)

    Args:
        points: x, ``(B, N, 3)``.
        features: f, ``(B, N, C)``.
        centers: ``(B, G)`` int64 into N.
        neighbors: ``(B, G, K)`` int64 into N.

    Returns:
        f', ``(B, G, 2 C)``.
    """
    moved = gather(points, neighbors) - gather(points, centers)[:, :, None]  # (B, G, K, 3)
    spread = _spread(moved)  # (B, 1, 1, 1)
    compiled = accel.searches(points, features)
    if compiled is not None and hasattr(compiled, "weigh_and_pool"):
        table = positions(points.double() / spread[:, 0], 2 * features.shape[2])  # (B, N, 2 C)
        return gelu(compiled.weigh_and_pool(features, table.float(), centers, neighbors))
    center = gather(features, centers)[:, :, None]  # (B, G, 1, C)
    offset = gather(features, neighbors) - center  # (B, G, K, C)
    expanded = torch.cat([offset / _spread(offset), center.expand_as(offset)], -1)  # (B, G, K, 2 C)
    placed = positions(moved / spread, expanded.shape[-1])  # (B, G, K, 2 C)
    weighed = (expanded + placed) * placed  # (B, G, K, 2 C)
    return gelu(weighed.amax(2) + weighed.mean(2))  # (B, G, 2 C)


def _spread(offsets: Tensor) -> Tensor:
    """Return the standard deviation of all numbers of a cloud, ``(B, 1, 1, 1)``, plus 1e-5."""
    return offsets.flatten(1).std(1)[:, None, None, None] + 1e-5


@torch.no_grad()
def features(points: Tensor, batch_size: int = 8) -> Tensor:
    """Compute the features of clouds.

    They do not depend on the order of the points, save that farthest point sampling starts at the
    first one, and that equal distances go to the lower index.

    Args:
        points: ``(S, N, 3)`` on the unit sphere; with fewer than 90 points in a stage all of them
            are neighbours.
        batch_size: clouds at a time; decides memory only.

    Returns:
        ``(S, 1152)``, in the float type of the points.
    """
    expect(points, "S N 3")
    return torch.cat([_encode(part) for part in points.split(batch_size)])


def _encode(points: Tensor) -> Tensor:
    found = positions(points, DIM)  # (B, N, 72)
    for _ in range(STAGES):
        count = points.shape[1]
        centers = farthest_point_sample(points, max(count // 2, 1))  # (B, N / 2)
        sampled = gather(points, centers)  # (B, N / 2, 3)
        found = aggregate(points, found, centers, knn(sampled, points, min(NEIGHBORS, count)))
        points = sampled
    return found.amax(1) + found.mean(1)  # (B, 1152)
