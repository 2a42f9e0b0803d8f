"""Answers to the exercises of 04: wrong ones with a piece of their hint, and right ones."""

import math

import numpy as np
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


def l1_by_cloud(a, b):
    """Indices first, then distances; a list of Python floats."""
    found = []
    for x, y in zip(a.double(), b.double()):
        near = torch.cdist(x, y)
        there = (x - y[near.argmin(1)]).norm(dim=1).mean()
        back = (y - x[near.argmin(0)]).norm(dim=1).mean()
        found.append(float(there + back) / 2)
    return found


def l1_in_numpy(a, b):
    table = np.linalg.norm(a.numpy()[:, :, None] - b.numpy()[:, None], axis=-1)
    return 0.5 * (table.min(2).mean(1) + table.min(1).mean(1))


def l1_scaled(a, b):
    a *= 2
    b *= 2
    return l1(a, b, lambda d, e: (d.mean(1) + e.mean(1)) / 4)


def gradient(answer, clean, own=1.0, found=1.0, swap=False):
    """The right gradient, its two parts weighted; ``swap`` exchanges N and M."""
    to_clean, to_answer = nearest_pairs(answer, clean)
    size, other = answer.shape[1], clean.shape[1]
    if swap:
        size, other = other, size
    first = 2 / size * (answer - gather(clean, to_clean))
    second = 2 / other * (gather(answer, to_answer) - clean)
    index = to_answer[..., None].expand(-1, -1, 3)
    return own * first + found * torch.zeros_like(answer).scatter_add(1, index, second)


def overwritten(answer, clean):
    """``out[rows, index] += ...``."""
    to_answer = nearest_pairs(answer, clean)[1]
    out, rows = gradient(answer, clean, found=0), torch.arange(len(answer))[:, None]
    out[rows, to_answer] += 2 / clean.shape[1] * (gather(answer, to_answer) - clean)
    return out


def averaged(answer, clean):
    to_answer = nearest_pairs(answer, clean)[1]
    second = 2 / clean.shape[1] * (gather(answer, to_answer) - clean)
    index = to_answer[..., None].expand(-1, -1, 3)
    return gradient(answer, clean, found=0) + torch.zeros_like(answer).scatter_reduce(
        1, index, second, "mean", include_self=False
    )


def with_a_loop(answer, clean):
    out = gradient(answer, clean, found=0)
    to_answer = nearest_pairs(answer, clean)[1]
    for j in range(clean.shape[1]):
        for b in range(len(answer)):
            i = to_answer[b, j]
            out[b, i] += 2 / clean.shape[1] * (answer[b, i] - clean[b, j])
    return out


def with_a_comprehension(answer, clean):
    to_answer = nearest_pairs(answer, clean)[1].tolist()
    second = 2 / clean.shape[1] * (gather(answer, nearest_pairs(answer, clean)[1]) - clean)
    found = [
        torch.stack(
            [
                sum((second[b, j] for j, k in enumerate(to_answer[b]) if k == i), torch.zeros(3))
                for i in range(answer.shape[1])
            ]
        )
        for b in range(len(answer))
    ]
    return gradient(answer, clean, found=0) + torch.stack(found)


def in_place(answer, clean):
    answer -= gradient(answer, clean)
    return answer


def by_autograd(answer, clean):
    answer = answer.clone().requires_grad_()
    return torch.autograd.grad(chamfer_l2(answer, clean, reduction="none").sum(), answer)[0]


def by_backward(answer, clean):
    answer = answer.clone().requires_grad_()
    sum(side.mean(1).sum() for side in nearest(answer, clean)).backward()
    return answer.grad


def by_functional(answer, clean):
    def value(x):
        return sum(side.mean(1).sum() for side in nearest(x, clean))

    return torch.func.grad(value)(answer)


def by_jacobian(answer, clean):
    def value(x):
        return sum(side.mean(1).sum() for side in nearest(x, clean))

    return torch.autograd.functional.jacobian(value, answer)


def one_hot(answer, clean):
    """Both parts as matrix products."""
    to_clean, to_answer = nearest_pairs(answer, clean)
    size, other = answer.shape[1], clean.shape[1]
    picks = torch.nn.functional.one_hot(to_answer, size).to(answer.dtype)  # (B, M, N)
    second = picks.sum(1)[..., None] * answer - picks.mT @ clean
    return 2 / size * (answer - gather(clean, to_clean)) + 2 / other * second


def accumulated(answer, clean):
    to_clean, to_answer = nearest_pairs(answer, clean)
    rows = torch.arange(len(answer))[:, None]
    out = (answer - gather(clean, to_clean)) / answer.shape[1]
    second = (gather(answer, to_answer) - clean) / clean.shape[1]
    out.index_put_((rows.expand_as(to_answer), to_answer), second, accumulate=True)
    return 2 * out


def gradient_in_numpy(answer, clean):
    a, c = answer.double().numpy(), clean.double().numpy()
    table = np.square(a[:, :, None] - c[:, None]).sum(-1)
    rows = np.arange(len(a))[:, None]
    out = 2 / a.shape[1] * (a - c[rows, table.argmin(2)])
    np.add.at(out, (rows, table.argmin(1)), 2 / c.shape[1] * (a[rows, table.argmin(1)] - c))
    return out


def cloud_by_cloud(answer, clean):
    out = []
    for a, c in zip(answer, clean):
        table = (a[:, None] - c).square().sum(-1)
        own = 2 / len(a) * (a - c[table.argmin(1)])
        out.append(own.index_add(0, table.argmin(0), 2 / len(c) * (a[table.argmin(0)] - c)))
    return torch.stack(out)


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


def by_torch(touched, weights):
    rate = torch.tensor(parts(touched, weights)[3])
    logits = torch.stack([(1 - rate).log(), rate.log()]).expand(touched.numel(), 2)
    target = touched.flatten().long()
    return torch.nn.functional.cross_entropy(logits, target, torch.tensor(weights))


def by_search(touched, weights):
    p, low, high, _ = parts(touched, weights)
    q = np.linspace(0.001, 0.999, 9981)
    cost = -low * (1 - p) * np.log(1 - q) - high * p * np.log(q)
    return cost.min() / (low * (1 - p) + high * p)


def by_distribution(touched, weights):
    rate = parts(touched, weights)[3]
    return torch.distributions.Bernoulli(torch.tensor(rate)).entropy()


def per_cloud(touched, weights):
    return sum(entropy(parts(cloud, weights)[3]) for cloud in touched) / len(touched)


WRONG = {
    "chamfer_l1": [
        (lambda a, b: chamfer_l2(a, b, reduction="none"), "That is Eq. 11"),
        (lambda a, b: chamfer_l2(a, b, reduction="none") / 2, "still squared"),
        (lambda a, b: l1(a, b, lambda d, e: d.mean(1) + e.mean(1)), "added the two sides"),
        (city_block, "city-block"),
        (
            [
                lambda a, b: l1(a, b, lambda d, e: d.mean(1)),
                lambda a, b: l1(a, b, lambda d, e: e.mean(1)),
            ],
            "one side only",
        ),
        (lambda a, b: l1(a, b, lambda d, e: (d.sum(1) + e.sum(1)) / 2), "summed over the points"),
        (lambda a, b: l1(a, b, lambda d, e: (d.mean() + e.mean()) / 2), "for the whole batch"),
        (lambda a, b: torch.cdist(a, b).mean((1, 2)), "averaged all distances"),
    ],
    "chamfer_gradient": [
        (lambda a, c: gradient(a, c, found=0), "Only the first part"),
        (lambda a, c: gradient(a, c, own=0), "Only the second part"),
        (lambda a, c: -gradient(a, c), "The sign is wrong"),
        (lambda a, c: gradient(a, c, found=-1), "work against each other"),
        (lambda a, c: gradient(a, c) / 2, "A factor 2 is missing"),
        (
            lambda a, c: gradient(a, c, own=a.shape[1], found=c.shape[1]),
            "differentiated sums",
        ),
    ],
    "best_constant": [
        (lambda t, w: entropy(parts(t, w)[0]), "did not use the weights"),
        (mean_over_points, "divided by the number of points"),
        (lambda t, w: entropy(parts(t, w)[3]) / math.log(2), "in bits"),
        (one_class, "One of the two classes"),
        (lambda t, w: -entropy(parts(t, w)[3]), "The sign is wrong"),
        (lambda t, w: math.log(2), "constant 1/2"),
        (lambda t, w: min(parts(t, w)[3], 1 - parts(t, w)[3]), "an error rate"),
        (lambda t, w: parts(t, w)[3], "weighted base rate, the answer"),
        (lambda t, w: torch.full(t.shape, 0.6), "one number"),
    ],
}

SUBTLE = {
    "chamfer_l1": [
        (lambda a, b: sum(d.mean(1).sqrt() for d in nearest(a, b)) / 2, "root of the mean"),
        (
            lambda a, b: l1(a, b, lambda d, e: torch.maximum(d.mean(1), e.mean(1))),
            "the larger side",
        ),
        (lambda a, b: l1(a, b, lambda d, e: torch.cat([d, e], 1).mean(1)), "pooled both sides"),
        (lambda a, b: l1(a, b, lambda d, e: (d.mean(0)[:2] + e.mean(0)[:2]) / 2), "wanted"),
        (lambda a, b: l1(a, b, lambda d, e: (d.sum(1) / 24 + e.sum(1) / 36) / 2), "values are not"),
        (l1_scaled, "argument a in place"),
        (lambda a, b: l1(a.half(), b.half(), lambda d, e: (d.mean(1) + e.mean(1)) / 2), "float16"),
    ],
    "chamfer_gradient": [
        (overwritten, "kept one contribution only"),
        (averaged, "you averaged them"),
        (
            [
                lambda a, c: gradient(a, c, found=c.shape[1] / a.shape[1]),
                lambda a, c: gradient(a, c, own=a.shape[1] / c.shape[1]),
            ],
            "divided by the same number",
        ),
        (lambda a, c: gradient(a, c, swap=True), "N and M are exchanged"),
        (lambda a, c: gradient(a, c) / len(a), "averaged over the batch"),
        (in_place, "answer in place"),
        ([by_autograd, by_backward, by_functional, by_jacobian], "without autograd"),
        ([with_a_loop, with_a_comprehension], "without a loop over points"),
    ],
    "best_constant": [
        (plain_answer, "unweighted base rate"),
        (lambda t, w: entropy(parts(t, w[::-1])[3]), "The weights are exchanged"),
        (per_cloud, "a constant for each cloud"),
        (lambda t, w: mean_over_points(t, w) / sum(w), "weights = (0.25, 0.75)"),
        (lambda t, w: entropy(round(parts(t, w)[3], 2)), "Find the weighted base rate"),
        (lambda t, w: torch.tensor(entropy(parts(t, w)[3])).half(), "float16"),
    ],
}

RIGHT = {
    "chamfer_l1": [
        l1_by_cloud,
        l1_in_numpy,
        lambda a, b: (torch.cdist(a, b).amin(2).mean(1) + torch.cdist(a, b).amin(1).mean(1)) / 2,
        lambda a, b: l1(a.double(), b.double(), lambda d, e: (d.mean(1) + e.mean(1)) / 2),
        lambda a, b: l1(a, b, lambda d, e: torch.stack([d.mean(1), e.mean(1)]).mean(0)),
    ],
    "chamfer_gradient": [
        one_hot,
        accumulated,
        gradient_in_numpy,
        cloud_by_cloud,
        gradient,
        lambda a, c: gradient(a.double(), c.double()),
    ],
    "best_constant": [
        by_torch,
        by_search,
        by_distribution,
        lambda t, w: np.float64(mean_over_points(t, w) / (
            w[0] * (1 - parts(t, w)[0]) + w[1] * parts(t, w)[0])),
        lambda t, w: torch.tensor([entropy(parts(t, w)[3])]),
        lambda t, w: float(np.log1p(np.exp(-math.log(1 / parts(t, w)[3] - 1))) - parts(t, w)[3]
                           * -math.log(1 / parts(t, w)[3] - 1)),
    ],
}  # fmt: skip
