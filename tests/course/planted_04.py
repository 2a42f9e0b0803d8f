"""Wrong answers to the exercises of 04, each with a piece of the hint meant for it."""

import math

import torch

from serplib.geometry import chamfer_l2, gather, nearest_pairs

NAMES = {"torch": torch, "math": math, "gather": gather, "nearest_pairs": nearest_pairs}


def nearest(a, b):
    """Squared distance of each point to its nearest in the other cloud, both ways."""
    table = (a[:, :, None] - b[:, None]).square().sum(-1)
    return table.amin(2), table.amin(1)


def city_block(a, b):
    table = (a[:, :, None] - b[:, None]).abs().sum(-1)
    return (table.amin(2).mean(1) + table.amin(1).mean(1)) / 2


def l1(a, b, reduce):
    there, back = nearest(a, b)
    return reduce(there.sqrt(), back.sqrt())


def gradient(answer, clean, own=1.0, found=1.0, swap=False):
    """The right gradient, its two parts weighted; ``swap`` exchanges N and M."""
    to_clean, to_answer = nearest_pairs(answer, clean)
    size, other = answer.shape[1], clean.shape[1]
    if swap:
        size, other = other, size
    first = 2 / size * (answer - gather(clean, to_clean))
    pull = 2 / other * (gather(answer, to_answer) - clean)
    index = to_answer[..., None].expand(-1, -1, 3)
    return own * first + found * torch.zeros_like(answer).scatter_add(1, index, pull)


def overwritten(answer, clean):
    to_answer = nearest_pairs(answer, clean)[1]
    pull = 2 / clean.shape[1] * (gather(answer, to_answer) - clean)
    out = gradient(answer, clean, found=0)
    second = torch.zeros_like(out)
    for cloud in range(len(answer)):
        for j, i in enumerate(to_answer[cloud].tolist()):
            second[cloud, i] = pull[cloud, j]
    return out + second


def in_place(answer, clean):
    answer -= gradient(answer, clean)
    return answer


def of_the_mean(answer, clean):
    answer = answer.clone().requires_grad_()
    return torch.autograd.grad(chamfer_l2(answer, clean), answer)[0]


def parts(touched, weights):
    p = touched.double().mean().item()
    low, high = weights
    return p, low, high, high * p / (low * (1 - p) + high * p)


def entropy(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def plain_answer(touched, weights):
    p, low, high, _ = parts(touched, weights)
    cost = -low * (1 - p) * math.log(1 - p) - high * p * math.log(p)
    return cost / (low * (1 - p) + high * p)


def mean_over_points(touched, weights):
    p, low, high, rate = parts(touched, weights)
    return -low * (1 - p) * math.log(1 - rate) - high * p * math.log(rate)


def one_class(touched, weights):
    rate = parts(touched, weights)[3]
    return -rate * math.log(rate)


MUTANTS = {
    "chamfer_l1": [
        (lambda a, b: chamfer_l2(a, b, reduction="none"), "That is Eq. 11"),
        (lambda a, b: chamfer_l2(a, b, reduction="none") / 2, "still squared"),
        (lambda a, b: l1(a, b, lambda d, e: d.mean(1) + e.mean(1)), "added the two sides"),
        (lambda a, b: sum(d.mean(1).sqrt() for d in nearest(a, b)) / 2, "root of the mean"),
        (city_block, "city-block"),
        (lambda a, b: l1(a, b, lambda d, e: d.mean(1)), "one side only"),
        (lambda a, b: l1(a, b, lambda d, e: (d.sum(1) + e.sum(1)) / 2), "summed over the points"),
        (
            lambda a, b: l1(a, b, lambda d, e: torch.maximum(d.mean(1), e.mean(1))),
            "the larger side",
        ),
        (lambda a, b: l1(a, b, lambda d, e: (d.mean() + e.mean()) / 2), "for the whole batch"),
    ],
    "chamfer_gradient": [
        (lambda a, c: gradient(a, c, found=0), "Only the first part"),
        (lambda a, c: gradient(a, c, own=0), "Only the second part"),
        (lambda a, c: -gradient(a, c), "The sign is turned"),
        (lambda a, c: gradient(a, c, found=-1), "work against each other"),
        (lambda a, c: gradient(a, c) / 2, "The factor 2 is missing"),
        (overwritten, "kept one pull only"),
        (
            lambda a, c: gradient(a, c, found=c.shape[1] / a.shape[1]),
            "Both parts are divided by N",
        ),
        (lambda a, c: gradient(a, c, swap=True), "N and M are exchanged"),
        (
            lambda a, c: gradient(a, c, own=a.shape[1], found=c.shape[1]),
            "differentiated sums",
        ),
        (of_the_mean, "averaged over the batch"),
        (in_place, "in place"),
    ],
    "best_constant": [
        (lambda t, w: entropy(parts(t, w)[0]), "plain base rate: you did not use"),
        (plain_answer, "answered the plain base rate"),
        (mean_over_points, "divided by the number of points"),
        (lambda t, w: entropy(parts(t, w)[3]) / math.log(2), "in bits"),
        (one_class, "Only the touched points pay"),
        (lambda t, w: -entropy(parts(t, w)[3]), "The sign is turned"),
        (lambda t, w: math.log(2), "That is a coin"),
        (lambda t, w: entropy(parts(t, w[::-1])[3]), "The weights are exchanged"),
        (lambda t, w: min(parts(t, w)[3], 1 - parts(t, w)[3]), "an error rate"),
        (lambda t, w: torch.full(t.shape, 0.6), "wanted one number"),
    ],
}
