"""Point-NN, a network without weights: a baseline for every frozen encoder (section 4.2).

Zhang et al., *Parameter is Not All You Need* (2023), arXiv 2303.08134. Sines and cosines embed the
points; each of four stages halves the points and doubles the features; a memory of the training
shapes classifies (head ``memory`` of `probes`). Settings are those of its published 81.8 % on
ModelNet40 with 1,024 points. Departures from the published code: it divides offsets by their
standard deviation in a batch of 16, here by constants, so that a cloud's features do not depend on
others; its batch norm, which untrained divides by 1.000005, is left out; and it chooses gamma of
the memory on the test set, here on shapes held out of the training set. Ours reaches 80.0 %.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu

from serplib import accel
from serplib.geometry import farthest_point_sample, gather, knn
from serplib.validation import expect

DIM, NEIGHBORS = 72, 90
SCALE, BASE = 100.0, 1000.0  # of the angles: beta and alpha of the published code
# Of each stage, over three batches of 16 training shapes of ModelNet40 (see `aggregate`).
SPREADS = ((0.603, 0.126), (0.683, 0.177), (1.155, 0.254), (1.698, 0.381))


def positions(points: Tensor, dim: int) -> Tensor:
    """Embed coordinates x in sin(a) and cos(a), a = 100 x / 1000^(j / d), j = 0 ... d - 1.

    Args:
        points: ``(..., 3)``.
        dim: 6 d, a multiple of 6.

    Returns:
        ``(..., dim)``: axis by axis, angle by angle, sine before cosine.
    """
    steps = torch.arange(dim // 6, device=points.device) / (dim // 6)  # (d,)
    angles = points[..., None] * (SCALE / BASE**steps)  # (..., 3, d)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-3)  # (..., dim)


def aggregate(
    points: Tensor, features: Tensor, centers: Tensor, neighbors: Tensor,
    spreads: tuple[float, float] = (1.0, 1.0),
) -> Tensor:  # fmt: skip
    """Describe each centre c by its neighbours k: one stage.

    With the ``spreads`` s and t::

        e_k = [(f_k - f_c) / s, f_c]        p_k = positions((x_k - x_c) / t)
        w_k = (e_k + p_k) * p_k             f'_c = GELU(max_k w_k + mean_k w_k)

    Args:
        points: x, ``(B, N, 3)``.
        features: f, ``(B, N, C)``.
        centers: ``(B, G)`` int64 into N.
        neighbors: ``(B, G, K)`` int64 into N.
        spreads: standard deviation of the offsets of features, and of those of coordinates.

    Returns:
        f', ``(B, G, 2 C)``.
    """
    s, t = spreads
    compiled = accel.searches(points, features)
    if compiled is not None and hasattr(compiled, "weigh_and_pool"):
        table = positions(points.double() / t, 2 * features.shape[2]).float()  # (B, N, 2C)
        return gelu(compiled.weigh_and_pool(features / s, table, centers, neighbors, s))
    moved = gather(points, neighbors) - gather(points, centers)[:, :, None]  # (B, G, K, 3)
    center = gather(features, centers)[:, :, None]  # (B, G, 1, C)
    offset = gather(features, neighbors) - center  # (B, G, K, C)
    expanded = torch.cat([offset / s, center.expand_as(offset)], -1)  # (B, G, K, 2C)
    placed = positions(moved / t, expanded.shape[-1])  # (B, G, K, 2C)
    weighed = (expanded + placed) * placed  # (B, G, K, 2C)
    return gelu(weighed.amax(2) + weighed.mean(2))  # (B, G, 2C)


@torch.no_grad()
def features(points: Tensor, batch_size: int = 8) -> Tensor:
    """Compute the features of clouds ``(S, N, 3)`` on the unit sphere: ``(S, 1152)``.

    Of the order of the points only the first one counts, at which farthest point sampling starts.
    Where a stage has fewer than 90 points, all of them are neighbours.
    """
    expect(points, "S N 3")
    if len(points) > batch_size:
        return torch.cat([features(part, batch_size) for part in points.split(batch_size)])
    found = positions(points, DIM)  # (B, N, 72)
    for spreads in SPREADS:
        count = points.shape[1]
        centers = farthest_point_sample(points, max(count // 2, 1))  # (B, N / 2)
        sampled = gather(points, centers)  # (B, N / 2, 3)
        neighbors = knn(sampled, points, min(NEIGHBORS, count))  # (B, N / 2, K)
        found = aggregate(points, found, centers, neighbors, spreads)
        points = sampled
    return found.amax(1) + found.mean(1)  # (B, 1152)
