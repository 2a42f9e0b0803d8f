"""Checkers of the exercises in 04_losses_and_baselines."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from serplib.course.exercises.grading import clouds, exercise, uniform
from serplib.geometry import gather, squared_distances


@exercise(
    lambda: [
        (clouds("l1", batch, size), clouds("l1, other", batch, other) * scale)
        for batch, size, other in ((2, 24, 36), (4, 4, 4))
        # Each side is the larger one once.
        for scale in [torch.tensor([2.0, 0.3]).repeat(batch // 2)[:, None, None]]
    ],
    shape="(B,)",
)
def chamfer_l1(a: Tensor, b: Tensor):
    """Return the mean distance to the nearest, sides averaged: ``(B, N, 3), (B, M, 3) -> (B,)``."""
    table = squared_distances(a, b)  # (B, N, M)
    there, back = table.amin(2), table.amin(1)  # (B, N), (B, M) squared
    near, far = there.sqrt(), back.sqrt()  # (B, N), (B, M)
    right = (near.mean(1) + far.mean(1)) / 2  # (B,)
    blocks = (a[:, :, None] - b[:, None]).abs().sum(-1)  # (B, N, M)
    return right, {
        "That is Eq. 11, with SQUARED distances. Take the root before the "
        "mean.": there.mean(1) + back.mean(1),
        "The sides are averaged, but the distances are still squared: take the root before the "
        "mean.": (there.mean(1) + back.mean(1)) / 2,
        "You added the two sides. This convention averages them: single points 3 apart give "
        "3.": 2 * right,
        "You took the root of the mean. Take the root of every distance first.": [
            (there.mean(1).sqrt() + back.mean(1).sqrt()) / 2,
            ((there.mean(1) + back.mean(1)) / 2).sqrt(),
        ],
        "You summed |dx| + |dy| + |dz|, the city-block distance. CD-l1 means the Euclidean "
        "distance.": (blocks.amin(2).mean(1) + blocks.amin(1).mean(1)) / 2,
        "That is one side only. The points of the other cloud look for their nearest, too; average "
        "the two means.": [near.mean(1), far.mean(1)],
        "You summed over the points. Each side is a mean over its own number of "
        "points.": [(near.sum(1) + far.sum(1)) / 2, near.sum(1) + far.sum(1)],
        "You pooled both sides in one mean, so that the larger cloud weighs more. Average the two "
        "means.": torch.cat([near, far], 1).mean(1),
        "You took the larger side, as FoldingNet does. Average "
        "them.": torch.maximum(near.mean(1), far.mean(1)),
        "You averaged all distances. Take the minimum over the other cloud "
        "first.": table.sqrt().mean((1, 2)),
    }  # fmt: skip


@exercise(
    lambda: [  # With two clouds a mean over the batch would look like a forgotten factor 2.
        (clouds("gradient", 3, size), clouds("gradient, clean", 3, other))
        for size, other in ((24, 40), (48, 64))
    ],
    shape="(B, N, 3)",
    forbids={"autograd": "The text says: without autograd. Write the gradient by hand."},
    no_loop="The values are right, but Python's work grows with the number of points. The text "
    "says: without a loop over points.",
)
def chamfer_gradient(answer: Tensor, clean: Tensor):
    """Return the gradient of Eq. 11 in its first cloud: ``(B, N, 3), (B, M, 3) -> (B, N, 3)``."""
    size, other = answer.shape[1], clean.shape[1]
    table = squared_distances(answer, clean)  # (B, N, M)
    to_clean, to_answer = table.argmin(2), table.argmin(1)  # (B, N), (B, M)
    own = 2 * (answer - gather(clean, to_clean))  # (B, N, 3) before its mean
    returned = 2 * (gather(answer, to_answer) - clean)  # (B, M, 3)
    index = to_answer[..., None].expand(-1, -1, 3)  # (B, M, 3)
    found = torch.zeros_like(answer).scatter_add(1, index, returned)  # (B, N, 3)
    right = own / size + found / other
    last, rows = torch.zeros_like(answer), torch.arange(len(answer))
    for j in range(other):  # the last clean point that found an answer overwrites the others
        last[rows, to_answer[:, j]] = returned[:, j]
    mean = torch.zeros_like(answer).scatter_reduce(1, index, returned, "mean", include_self=False)
    return right, {
        "Only the first part is there: each answer's own search. Every clean point that found an "
        "answer contributes to its gradient, too.": own / size,
        "Only the second part is there: the searches of the clean points. Each answer also looks "
        "for its own nearest.": found / other,
        "The two parts work against each other: in both, the gradient is answer minus "
        "clean.": [own / size - found / other, found / other - own / size],
        "Where several clean points found the same answer you kept one contribution only: "
        "'out[rows, index] += ...' does not add up. Use scatter_add.": own / size + last / other,
        "Where several clean points found the same answer you averaged them. They add "
        "up.": own / size + mean / other,
        "Both parts are divided by the same number. The first side of Eq. 11 is a mean over N "
        "answers, the second over M clean points.": [(own + found) / size, (own + found) / other],
        "N and M are exchanged: an answer's own search is divided by the number of "
        "answers.": own / other + found / size,
        "You differentiated sums. Eq. 11 has means: divide by N and by M.": own + found,
        "You averaged over the batch. Wanted the gradient of each cloud's own "
        "value.": right / len(answer),
    }  # fmt: skip


def _entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def _weighted_masks() -> list[tuple[Tensor, tuple[float, float]]]:
    chance = uniform("base rate", 3, 50) * torch.tensor([0.6, 1, 1])[:, None]  # rates differ
    shares = ((0.3, (0.25, 0.75)), (0.6, (1.0, 1.0)), (0.2, (2.0, 3.0)))
    return [(chance < chance.quantile(share), weights) for share, weights in shares]


@exercise(_weighted_masks, advice="Find the weighted base rate first, then its entropy.")
def best_constant(touched: Tensor, weights: tuple[float, float]):
    """Return the weighted cross-entropy of the best constant: ``(B, N) bool, (w0, w1)``."""
    low, high = weights

    def rate_of(p: float) -> float:
        return high * p / (low * (1 - p) + high * p)

    def loss(answer: float) -> float:
        return -low * (1 - p) * math.log(1 - answer) - high * p * math.log(answer)

    p = touched.double().mean().item()
    rate, total = rate_of(p), low * (1 - p) + high * p
    own = torch.tensor([_entropy(rate_of(cloud.double().mean().item())) for cloud in touched])
    return _entropy(rate), {
        "That is the entropy of the base rate: you did not use the weights.": _entropy(p),
        "You weighted the loss but answered the unweighted base rate. With weights another "
        "constant is best.": loss(p) / total,
        "You divided by the number of points. PyTorch's weighted mean divides by the sum of the "
        "weights.": loss(rate),
        "One of the two classes is missing. Add -p' log p' and -(1 - p') log(1 - "
        "p').": [-rate * math.log(rate), -(1 - rate) * math.log(1 - rate)],
        "That is the loss of the constant 1/2. The best constant has a lower one.": math.log(2),
        "The weights are exchanged: the first belongs to untouched points, the second to touched "
        "ones.": _entropy(low * p / (high * (1 - p) + low * p)),
        "That is an error rate. Wanted the cross-entropy.": min(rate, 1 - rate),
        "That is the weighted base rate, the answer itself. Wanted its cross-entropy.": rate,
        "You found a constant for each cloud. Wanted one for all points.": [own.mean(), own],
    }  # fmt: skip
