"""Checkers of the exercises in 04_losses_and_baselines."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from serplib.course.exercises.grading import Hint, call, clouds, compare, exercise
from serplib.geometry import gather, squared_distances
from serplib.seeding import named_generator


@exercise
def chamfer_l1(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Mean distance to the nearest, sides averaged: ``(B, N, 3), (B, M, 3) -> (B,)``."""
    a, b = clouds("l1", num_points=24), clouds("l1, other", num_points=36)
    b = b * torch.tensor([2.0, 0.3])[:, None, None]  # now each side is the larger one once
    table = squared_distances(a, b)  # (B, N, M)
    there, back = table.amin(2), table.amin(1)  # (B, N), (B, M) squared
    right = (there.sqrt().mean(1) + back.sqrt().mean(1)) / 2  # (B,)
    blocks = (a[:, :, None] - b[:, None]).abs().sum(-1)  # (B, N, M)
    one_side = (
        "That is one side only. The points of the other cloud look for their nearest, too; "
        "average the two means."
    )
    mistakes = [
        (
            there.mean(1) + back.mean(1),
            "That is Eq. 11, with SQUARED distances. Here the distance itself is wanted: take "
            "the root before the mean.",
        ),
        (
            (there.mean(1) + back.mean(1)) / 2,
            "The sides are averaged, but the distances are still squared: take the root before "
            "the mean.",
        ),
        (
            2 * right,
            "You added the two sides. This convention averages them: single points 3 apart give 3.",
        ),
        (
            (there.mean(1).sqrt() + back.mean(1).sqrt()) / 2,
            "You took the root of the mean. Take the root of every distance first, then the mean: "
            "the two differ.",
        ),
        (
            (blocks.amin(2).mean(1) + blocks.amin(1).mean(1)) / 2,
            "You summed |dx| + |dy| + |dz|, the city-block distance. In spite of its name CD-l1 "
            "means the Euclidean distance, not squared.",
        ),
        (there.sqrt().mean(1), one_side),
        (back.sqrt().mean(1), one_side),
        (
            (there.sqrt().sum(1) + back.sqrt().sum(1)) / 2,
            "You summed over the points. Each side is a mean over its own number of points.",
        ),
        (
            torch.maximum(there.sqrt().mean(1), back.sqrt().mean(1)),
            "You took the larger side, as FoldingNet does. Average them.",
        ),
        (
            right.mean(),
            "That is one number for the whole batch. Wanted one for each cloud: take the means "
            "along the points only.",
        ),
    ]
    compare(call(function, a, b), right, mistakes, "(B,)")


@exercise
def chamfer_gradient(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Gradient of Eq. 11 in its first cloud: ``(B, N, 3), (B, M, 3) -> (B, N, 3)``."""
    # Three clouds: with two, a mean over the batch would look like a forgotten factor 2.
    answer = torch.cat([clouds("gradient", 2, 24), clouds("gradient, third", 1, 24)])  # (3, N, 3)
    clean = torch.cat([clouds("gradient, clean", 2, 40), clouds("third, clean", 1, 40)])
    size, other = answer.shape[1], clean.shape[1]
    table = squared_distances(answer, clean)  # (B, N, M)
    to_clean, to_answer = table.argmin(2), table.argmin(1)  # (B, N), (B, M)
    own = answer - gather(clean, to_clean)  # (B, N, 3) without its factor
    pull = gather(answer, to_answer) - clean  # (B, M, 3)
    index = to_answer[..., None].expand(-1, -1, 3)  # (B, M, 3)
    found = torch.zeros_like(answer).scatter_add(1, index, pull)  # (B, N, 3)
    right = 2 / size * own + 2 / other * found
    last = torch.zeros_like(answer)
    for j in range(other):  # the last clean point that found an answer overwrites the others
        rows = torch.arange(len(answer))
        last[rows, to_answer[:, j]] = pull[:, j]
    flipped = 2 / size * own - 2 / other * found
    mistakes = [
        (
            2 / size * own,
            "Only the first part is there: each answer's own search. Every clean point that found "
            "an answer pulls at it, too.",
        ),
        (
            2 / other * found,
            "Only the second part is there: the pulls of the clean points. Each answer also looks "
            "for its own nearest.",
        ),
        (
            -right,
            "The sign is turned: this points downhill. The gradient points uphill, away from the "
            "partner.",
        ),
        (
            flipped,
            "The two parts work against each other: in both, the gradient is answer minus clean.",
        ),
        (right / 2, "The factor 2 is missing: the derivative of a square."),
        (
            2 / size * own + 2 / other * last,
            "Where several clean points found the same answer you kept one pull only: "
            "'out[rows, index] += ...' does not add up. Use scatter_add.",
        ),
        (
            2 / size * (own + found),
            "Both parts are divided by N. The second side of Eq. 11 is a mean over the M clean "
            "points.",
        ),
        (
            2 / other * own + 2 / size * found,
            "N and M are exchanged: an answer's own search is divided by the number of answers.",
        ),
        (
            2 * (own + found),
            "You differentiated sums. Eq. 11 has means: divide the parts by N and by M.",
        ),
        (
            right / len(answer),
            "You averaged over the batch. Wanted the gradient of each cloud's own value.",
        ),
    ]
    compare(call(function, answer, clean), right, mistakes, "(B, N, 3)")


def _entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


@exercise
def best_constant(function: Callable[[Tensor, tuple[float, float]], float]) -> None:
    """Weighted cross-entropy of the best constant: ``touched (B, N) bool, (w0, w1) -> float``."""
    chance = torch.rand(3, 50, generator=named_generator("check", "base rate"))  # (B, N)
    for share, weights in ((0.3, (0.25, 0.75)), (0.6, (1.0, 1.0)), (0.2, (2.0, 3.0))):
        touched = chance < chance.quantile(share)  # (B, N)
        p = touched.double().mean().item()
        low, high = weights
        rate = high * p / (low * (1 - p) + high * p)
        right = _entropy(rate)
        by_points = low * (1 - p) * -math.log(1 - rate) + high * p * -math.log(rate)
        old_answer = low * (1 - p) * -math.log(1 - p) + high * p * -math.log(p)
        mistakes = [
            (
                _entropy(p),
                "That is the entropy of the plain base rate: you did not use the weights.",
            ),
            (
                old_answer / (low * (1 - p) + high * p),
                "You weighted the loss but answered the plain base rate. With weights another "
                "constant is best: the weighted base rate.",
            ),
            (
                by_points,
                "You divided by the number of points. PyTorch's weighted mean divides by the sum "
                "of the weights.",
            ),
            (
                right / math.log(2),
                "That is in bits, a logarithm to base 2. Cross-entropy in PyTorch is in nats: "
                "math.log.",
            ),
            (
                -rate * math.log(rate),
                "Only the touched points pay in your answer. Add the untouched ones, "
                "-(1 - p') log(1 - p').",
            ),
            (-right, "The sign is turned: the logarithm of a probability is negative."),
            (math.log(2), "That is a coin, answer 1/2. The best constant is cheaper."),
            (
                _entropy(low * p / (high * (1 - p) + low * p)),
                "The weights are exchanged: the first belongs to untouched points, the second to "
                "touched ones.",
            ),
            (min(rate, 1 - rate), "That is an error rate. Wanted the cross-entropy."),
        ]
        answer = call(function, touched, weights)
        if isinstance(answer, Tensor) and answer.numel() != 1:
            raise Hint(f"Your answer has shape {tuple(answer.shape)}, wanted one number.")
        if abs(float(answer) - right) <= 1e-5:
            continue
        for wrong, hint in mistakes:
            if abs(float(answer) - wrong) <= 1e-5:
                raise Hint(hint)
        raise Hint(
            f"For a base rate of {p:.2f} and weights {weights} you say {float(answer):.4f}. Find "
            "the weighted base rate first, then its entropy."
        )
