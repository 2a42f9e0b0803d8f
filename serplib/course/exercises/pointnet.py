"""Checkers of the exercises in 05_serp_pointnet."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from serplib.course.exercises import grading
from serplib.course.exercises.grading import Hint, examination, exercise, normal, uniform


def _features() -> list[tuple[Tensor]]:
    cases = []
    for batch, num_points, channels in ((2, 12, 5), (6, 6, 6)):
        features = normal("critical", batch, num_points, channels)
        features[0, 3] += 2.0  # one point that wins often
        features[0, 5] = features[0, 3] - 1e-5  # and one that nearly does
        features[1, :, :2] -= 3.0  # maxima below zero, and a row that is long but wins nothing
        features[1, 4] = -9.0
        cases.append((features,))
    return cases


@exercise(_features, shape="(B, N)", mask=True)
def critical_points(features: Tensor):
    """Mark the points that win at least one maximum: ``(B, N, K) -> (B, N)`` bool."""
    shape = features.shape[:2]

    def marked(index: Tensor) -> Tensor:
        return torch.zeros(shape, dtype=torch.bool).scatter(1, index, True)  # (B, N)

    def largest(values: Tensor, over: int | tuple[int, ...] = 1) -> Tensor:
        return values == values.amax(over, keepdim=True)  # (B, N, K)

    winners = features.max(1).indices  # (B, K)
    right = marked(winners)
    longest = features.norm(dim=-1).topk(min(features.shape[1:]), dim=1).indices
    return right, {
        "These are how many maxima each point wins. Wanted: count > 0.": largest(features).sum(-1),
        "You took the maximum over the channels, which gives each point its best channel. The "
        "cloud's vector is the maximum over the POINTS, dimension 1.": features.max(2).indices,
        "These are the indices of the winners, (B, K). Make a mask over the points.": winners,
        "You marked the smallest of each channel, not the largest.":
            marked(features.min(1).indices),
        "You marked the points with the longest feature vectors. A long one may win nothing: "
        "compare channel by channel.": marked(longest),
        "Both clouds have the same mask: you joined the winners of the batch.":
            right.any(0).expand(shape),
        "Your maximum runs over the batch, too: dimension 1 only.":
            largest(features, (0, 1)).any(-1),
        "You kept the one largest number of the cloud. There are K maxima, one a channel.":
            largest(features, (1, 2)).any(-1),
        "You ask a point to win ALL channels. One is enough: .any(-1).": largest(features).all(-1),
        "You applied a ReLU first. A maximum may be negative: the last layer of the encoder has no"
        " ReLU.": largest(features.relu()).any(-1),
        "You allow a tolerance, or compare in half precision. A point just below the maximum wins "
        "nothing.": [marked(winners) | (features >= features.amax(1, keepdim=True) - t).any(-1)
                     for t in (1e-4, 1e-3, 0.01)],
        "You took the largest absolute value.": largest(features.abs()).any(-1),
        "That is the global vector itself. Wanted: which points it comes from.": features.amax(1),
        "Inverted: you marked the points that could be left out.": ~right,
        "You marked every point. Compare with the maximum.": torch.ones_like(right),
    }  # fmt: skip


@examination
def split_layer(function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Apply a layer to ``[global; local]`` without copies of the global vector.

    ``weight (out, G + L), bias (out,), whole (B, G), local (B, N, L) -> (B, N, out)``.
    """
    cases = [
        tuple(normal("split", *shape) for shape in ((o, g + k), (o,), (b, g), (b, n, k)))
        for b, n, g, k, o in ((3, 40, 24, 6, 5), (4, 4, 4, 4, 4))
    ]
    names = ("weight", "bias", "whole", "local")
    grading.grade(function, cases, _layers, shape="(B, N, out)", trains=names)
    weight, _, whole, local = cases[0]
    with grading.Operations() as seen:
        grading.call(function, *grading.copied(cases[0]), names=names)
    excess = seen.multiplications / (len(weight) * (whole.numel() + local.numel()))
    if excess > 1.5:
        raise Hint(
            f"The values are right, but you multiplied {excess:.1f} times as often as needed: the "
            "global part is still computed for every point. Multiply whole, (B, G), first, and let "
            "the result broadcast."
        )


def _layers(weight: Tensor, bias: Tensor, whole: Tensor, local: Tensor):
    size, each, num_points = whole.shape[1], local.shape[2], local.shape[1]
    once = (whole @ weight[:, :size].T)[:, None]  # (B, 1, out)
    point = local @ weight[:, size:].T  # (B, N, out)
    exchanged = (whole @ weight[:, each:].T)[:, None] + local @ weight[:, :each].T
    right = point + once + bias
    return right, {
        "The bias is missing: y = W z + b.": point + once,
        "You added the bias twice, once with each part.": right + bias,
        "You took the local columns first. Global ones come first in the weight.": exchanged + bias,
        "The global part is missing: no point sees its shape.": point + bias,
        "The local part is missing: all points of a cloud get the same answer.":
            [(once + bias).expand_as(point), once + bias],
        "You mixed the clouds of the batch: each has its own global vector, (B, 1, out).":
            [point + once.mean(0) + bias, point + once[0] + bias],
        "You divided the global part by N. Every point gets all of it.":
            point + once / num_points + bias,
        "You applied a ReLU, which is not part of this layer.": right.relu(),
    }  # fmt: skip


@exercise(
    lambda: [
        (scale * normal("logits", 30, 2), uniform("touched", 30) < 0.3, torch.tensor([0.5, 1.25]))
        for scale in (2.0, 200.0)
    ],
    not_finite="Your answer is infinite or NaN for logits of some hundreds: exp overflows, and a "
    "softmax of 0 has no logarithm. Use log_softmax.",
    trains=("logits",),
    forbids=dict.fromkeys(
        ("cross_entropy", "cross_entropy_loss", "nll_loss", "nll_loss_forward"),
        "The text says: without F.cross_entropy and F.nll_loss, with class indices or with soft "
        "labels. Write the weighted mean by hand.",
    ),
)
def weighted_cross_entropy(logits: Tensor, touched: Tensor, weights: Tensor):
    """Return PyTorch's weighted mean: ``(M, 2), (M,) bool, (2,) -> ()``."""
    true = touched.long()
    weight, classes = weights[true], true[:, None]  # (M,), (M, 1)
    loss = F.cross_entropy(logits, true, reduction="none")  # (M,)
    single = F.binary_cross_entropy_with_logits(logits[:, 1], touched.float(), reduction="none")
    chosen = weights[logits.argmax(1)]

    def mean(values: Tensor, weight: Tensor = weight) -> Tensor:
        return (weight * values).sum() / weight.sum()

    right, apart = mean(loss), [weights[k] * loss[true == k].mean() for k in (0, 1)]
    likely = (-loss).exp()  # (M,) probability of the true class
    bounds = [10.0**-n for n in range(5, 17)]
    return right, {
        "You bounded the probability, by a clamp or a small summand: where the network is far off, "
        "the loss is too small and no longer grows. log_softmax needs no bound.":
            [-mean(bounded.log()) for e in bounds for bounded in (likely.clamp_min(e), likely + e)],
        "One of the two classes is missing. Add both, and divide by the weights of all points.":
            [(weight * loss)[true == k].sum() / weight.sum() for k in (0, 1)],
        "You divided by the number of points, not by the sum of the weights.":
            (weight * loss).mean(),
        "The weights have no effect in your answer.": loss.mean(),
        "The weights are swapped: the first belongs to untouched, the second to touched.":
            mean(loss, weights.flip(0)[true]),
        "You took False for touched: class 1 is 'touched'.":
            F.cross_entropy(logits, 1 - true, weights),
        "That is the sum. Divide by the sum of the weights.": (weight * loss).sum(),
        "You divided by the sum of the two class weights. Divide by the sum over all points.":
            (weight * loss).sum() / weights.sum(),
        "You averaged each class by itself. Divide the sum over all points by the sum of their "
        "weights.": sum(apart) / weights.sum(),
        "You used the logits as they are: log_softmax first.":
            -mean(logits.gather(1, classes)[:, 0]),
        "You averaged the probability of the right answer, not its logarithm.":
            -mean(likely),
        "Your softmax runs over the points. The classes are the last dimension.":
            -mean(logits.log_softmax(0).gather(1, classes)[:, 0]),
        "You weighted by the class the network chose, not by the TRUE class.": mean(loss, chosen),
        "You used the second logit alone. There are two, and their softmax decides.":
            [(weight * single).mean(), mean(single)],
        "That is one value for each point. Wanted their weighted mean.": [loss, weight * loss],
    }  # fmt: skip
