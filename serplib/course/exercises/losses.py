"""Checkers of the exercises in 04_losses_and_baselines."""

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
    squares = table.amin(2), table.amin(1)  # (B, N), (B, M)
    near, far = (side.sqrt() for side in squares)
    blocks = (a[:, :, None] - b[:, None]).abs().sum(-1)  # (B, N, M)

    def average(one: Tensor, other: Tensor) -> Tensor:
        return (one.mean(1) + other.mean(1)) / 2

    right, squared = average(near, far), average(*squares)  # (B,)
    return right, {
        "That is Eq. 11, with SQUARED distances. Take the root before the mean.": 2 * squared,
        "The sides are averaged, the distances still squared: root before the mean.": squared,
        "You added the two sides. Average them: single points 3 apart give 3.": 2 * right,
        "You took the root of the mean. Take the root of every distance first.":
            [sum(side.mean(1).sqrt() for side in squares) / 2, squared.sqrt()],
        "You summed |dx| + |dy| + |dz|, the city-block distance. CD-l1 means the Euclidean one.":
            average(blocks.amin(2), blocks.amin(1)),
        "That is one side only. Average it with the other side.": [near.mean(1), far.mean(1)],
        "You summed over the points. Each side is a mean over its own number of points.":
            [(near.sum(1) + far.sum(1)) / 2, near.sum(1) + far.sum(1)],
        "You pooled both sides in one mean: the larger cloud weighs more. Average the two means.":
            torch.cat([near, far], 1).mean(1),
        "You took the larger side. Average the two.": torch.maximum(near.mean(1), far.mean(1)),
        "You averaged all distances. Take the minimum over the other cloud first.":
            table.sqrt().mean((1, 2)),
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

    def collect(reduce: str) -> Tensor:
        """Gather what the clean points sent to the answers that they found: ``(B, N, 3)``."""
        index = to_answer[..., None].expand(-1, -1, 3)  # (B, M, 3)
        zeros = torch.zeros_like(answer)
        return zeros.scatter_reduce(1, index, returned, reduce, include_self=False)

    last, rows = torch.zeros_like(answer), torch.arange(len(answer))
    for j in range(other):  # the last clean point that found an answer overwrites the others
        last[rows, to_answer[:, j]] = returned[:, j]
    found = collect("sum")
    first, second = own / size, found / other
    return first + second, {
        "Only the first part is there. What the clean points found counts, too.": first,
        "Only the second part is there. Each answer also looks for its own nearest.": second,
        "The two parts work against each other: in both, the gradient is answer minus clean.":
            [first - second, second - first],
        "Where several clean points found the same answer you kept one contribution only: "
        "'out[rows, index] += ...' does not add up. Use scatter_add.": first + last / other,
        "Where several clean points found the same answer you averaged them. They add up.":
            first + collect("mean") / other,
        "Both parts are divided by the same number. The first mean is over N, the second over M.":
            [(own + found) / size, (own + found) / other],
        "N and M are exchanged: own searches are divided by N.": own / other + found / size,
        "You differentiated sums. Eq. 11 has means: divide by N and by M.": own + found,
        "You averaged over the batch. Each cloud has its own.": (first + second) / len(answer),
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
        "You answered the unweighted base rate, which is not the best constant.": loss(p) / total,
        "You divided by the number of points, not by the sum of the weights.": loss(rate),
        "One of the two classes is missing. Add -p' log p' and -(1 - p') log(1 - p').":
            [-rate * math.log(rate), -(1 - rate) * math.log(1 - rate)],
        "That is the loss of the constant 1/2. The best constant has a lower one.": math.log(2),
        "The weights are exchanged: the first is for untouched points, the second for touched.":
            _entropy(low * p / (high * (1 - p) + low * p)),
        "That is an error rate. Wanted the cross-entropy.": min(rate, 1 - rate),
        "That is the weighted base rate, the answer itself. Wanted its cross-entropy.": rate,
        "You found a constant for each cloud. Wanted one for all points.": [own.mean(), own],
    }  # fmt: skip
