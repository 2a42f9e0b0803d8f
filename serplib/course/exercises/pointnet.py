"""Checkers of the exercises in 05_serp_pointnet."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from serplib.course.exercises.grading import Hint, call, compare, exercise
from serplib.seeding import named_generator


@exercise
def critical_points(function: Callable[[Tensor], Tensor]) -> None:
    """The points that win at least one maximum: ``features (B, N, K) -> (B, N)`` bool."""
    batch, num_points, channels = 2, 12, 5
    features = torch.randn(
        batch, num_points, channels, generator=named_generator("check", "critical")
    )
    features[0, 3] += 2.0  # one point that wins often
    features[1, :, :2] -= 3.0  # maxima below zero, and a row that is long but wins nothing
    features[1, 7] = -9.0
    winners = features.max(1).indices  # (B, K)
    right = torch.zeros(batch, num_points).scatter(1, winners, 1.0)  # (B, N)
    count = F.one_hot(winners, num_points).sum(1).float()  # (B, N)
    least = torch.zeros(batch, num_points).scatter(1, features.min(1).indices, 1.0)
    longest = features.norm(dim=-1).topk(channels, dim=1).indices
    union = (right.amax(0) > 0).float().expand(batch, -1)
    overall = (features == features.amax((1, 2), keepdim=True)).any(-1).float()
    own = features.max(2).indices  # (B, N) the best channel of each point
    clipped = (features.relu() == features.relu().amax(1, keepdim=True)).any(-1).float()
    mistakes = [
        (count, "These are how many maxima each point wins. Wanted yes or no: count > 0."),
        (
            own.float(),
            "You took the maximum over the channels, so each point told you its best channel. "
            "The cloud's vector is the maximum over the POINTS, dimension 1.",
        ),
        (
            winners.float(),
            "These are the numbers of the winners, (B, K). Turn them into a mask over the points.",
        ),
        (least, "You marked the smallest of each channel. Max pooling keeps the largest."),
        (
            torch.zeros(batch, num_points).scatter(1, longest, 1.0),
            "You marked the points with the longest feature vectors. A point may be long and win "
            "nothing: ask channel by channel.",
        ),
        (
            union,
            "Both clouds have the same mask in your answer: you joined the winners of the batch. "
            "Each cloud has its own.",
        ),
        (
            overall,
            "You kept the one largest number of the cloud. There are K maxima, one a channel.",
        ),
        (
            clipped,
            "You applied a ReLU first. A maximum may be negative: the last layer of the encoder "
            "has no ReLU.",
        ),
        (features.amax(1), "That is the global vector itself. Wanted: which points it comes from."),
        (1 - right, "Turned round: you marked the points that could be thrown away."),
        (
            torch.ones(batch, num_points),
            "You marked every point. Compare with the maximum over the points, dimension 1.",
        ),
    ]
    compare(call(function, features), right, mistakes, "(B, N)")


@exercise
def split_layer(function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """A layer on ``[global; local]`` without the copies.

    ``weight (out, G + L), bias (out,), whole (B, G), local (B, N, L) -> (B, N, out)``.
    """
    batch, num_points, size, each, out = 3, 40, 24, 6, 5
    generator = named_generator("check", "split")
    weight = torch.randn(out, size + each, generator=generator)
    bias = torch.randn(out, generator=generator)
    whole = torch.randn(batch, size, generator=generator)
    local = torch.randn(batch, num_points, each, generator=generator)
    once = (whole @ weight[:, :size].T)[:, None]  # (B, 1, out)
    point = local @ weight[:, size:].T  # (B, N, out)
    late = (whole @ weight[:, each:].T)[:, None] + local @ weight[:, :each].T
    mistakes = [
        (point + once, "The bias is missing: y = W z + b."),
        (
            point + once + 2 * bias,
            "You added the bias twice, once with each part. The concatenated layer adds it once.",
        ),
        (
            late + bias,
            "You took the local columns first. Here the weight meets [global; local]: its first G "
            "columns belong to the global vector.",
        ),
        (point + bias, "The global part is missing: every point is answered without its shape."),
        (
            (once + bias).expand(-1, num_points, -1),
            "The local part is missing: all points of a cloud get the same answer.",
        ),
        (
            point + once.mean(0) + bias,
            "You mixed the clouds of the batch: each has its own global vector, (B, 1, out).",
        ),
        (
            point + once / num_points + bias,
            "You divided the global part by N. Every point gets all of it.",
        ),
        (
            (point + once + bias).relu(),
            "You applied a ReLU. BatchNorm comes first, and neither is part of this layer.",
        ),
    ]
    with FlopCounterMode(display=False) as counter:
        answer = call(function, weight, bias, whole, local)
    compare(answer, point + once + bias, mistakes, "(B, N, out)")
    least = 2 * batch * out * (size + num_points * each)  # a product and a sum each
    if counter.get_total_flops() > 1.5 * least:
        raise Hint(
            f"The values are right, but you multiplied {counter.get_total_flops() / least:.1f} "
            "times as much as needed: the global part is still computed for every point. Multiply "
            "whole, (B, G), first, and let the result broadcast."
        )


@exercise
def weighted_cross_entropy(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """PyTorch's weighted mean: ``logits (M, 2), touched (M,) bool, weights (2,) -> ()``."""
    generator = named_generator("check", "cross-entropy")
    logits = 2 * torch.randn(30, 2, generator=generator)
    touched = torch.rand(30, generator=generator) < 0.3
    weights = torch.tensor([0.25, 0.75])
    answer = touched.long()
    right = F.cross_entropy(logits, answer, weights)
    loss = F.cross_entropy(logits, answer, reduction="none")  # (M,)
    weight = weights[answer]  # (M,)
    raw = logits.gather(1, answer[:, None])[:, 0]  # (M,)
    chosen = weights[logits.argmax(1)]
    probability = logits.softmax(1).gather(1, answer[:, None])[:, 0]
    single = F.binary_cross_entropy_with_logits(logits[:, 1], touched.float(), weight)
    mistakes = [
        (
            (weight * loss).mean(),
            "You divided by the number of points. A weighted mean divides by the sum of the "
            "weights: with mostly untouched points yours comes out too small.",
        ),
        (
            loss.mean(),
            "The weights have no effect in your answer: that is the plain cross-entropy.",
        ),
        (
            F.cross_entropy(logits, answer, weights.flip(0)),
            "The weights are swapped: the first belongs to untouched, the second to touched.",
        ),
        (
            F.cross_entropy(logits, 1 - answer, weights),
            "You took False for touched: class 1 is 'touched'.",
        ),
        ((weight * loss).sum(), "That is the sum. Divide by the sum of the weights."),
        (
            -(weight * raw).sum() / weight.sum(),
            "You used the logits as they are. Take log_softmax first.",
        ),
        (
            -(weight * probability).sum() / weight.sum(),
            "You averaged the probability of the right answer. Cross-entropy is its logarithm.",
        ),
        (-right, "The sign is turned: a loss is MINUS the mean log-probability."),
        (
            (chosen * loss).sum() / chosen.sum(),
            "You weighted by the class that the network chose. The weight is that of the TRUE "
            "class.",
        ),
        (right / torch.tensor(2.0).log(), "That is in bits. PyTorch's logarithm is the natural."),
        (single, "You used the second logit alone. There are two, and their softmax decides."),
    ]
    found = call(function, logits, touched, weights)
    if isinstance(found, float):
        found = torch.tensor(found)
    compare(found, right, mistakes, "one number")
