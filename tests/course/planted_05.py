"""Wrong answers to the exercises of 05, each with a piece of the hint meant for it."""

import torch
from torch.nn import functional as F

NAMES = {"torch": torch, "F": F}


def marked(features, index):
    """A mask ``(B, N)`` with True at ``index (B, K)``."""
    return torch.zeros(features.shape[:2], dtype=torch.bool).scatter(1, index, True)


def parts(weight, whole, local):
    size = whole.shape[1]
    return (whole @ weight[:, :size].T)[:, None], local @ weight[:, size:].T


def concatenated(weight, bias, whole, local):
    repeated = whole[:, None].expand(-1, local.shape[1], -1)
    return torch.cat([repeated, local], -1) @ weight.T + bias


def local_first(weight, bias, whole, local):
    repeated = whole[:, None].expand(-1, local.shape[1], -1)
    return torch.cat([local, repeated], -1) @ weight.T + bias


def repeated_first(weight, bias, whole, local):
    size = whole.shape[1]
    repeated = whole[:, None].repeat(1, local.shape[1], 1)
    return repeated @ weight[:, :size].T + local @ weight[:, size:].T + bias


def in_place(weight, bias, whole, local):
    whole *= 1.5
    return concatenated(weight, bias, whole, local)


def mean_over(logits, touched, weights, divide):
    answer = touched.long()
    loss = F.cross_entropy(logits, answer, reduction="none")
    return (weights[answer] * loss).sum() / divide(weights[answer])


def picked(logits, touched, transform):
    return transform(logits).gather(1, touched.long()[:, None])[:, 0]


def weighted(values, touched, weights):
    weight = weights[touched.long()]
    return (weight * values).sum() / weight.sum()


MUTANTS = {
    "critical_points": [
        (lambda f: marked(f, f.max(1).indices).float().cumsum(1) * 0 + 1, "marked every point"),
        (lambda f: f.max(2).indices, "maximum over the channels"),
        (lambda f: f.max(1).indices, "numbers of the winners"),
        (lambda f: f.max(1).values, "the global vector itself"),
        (lambda f: marked(f, f.min(1).indices), "smallest of each channel"),
        (
            lambda f: torch.stack([x.argmax(0).bincount(minlength=f.shape[1]) for x in f]),
            "how many maxima",
        ),
        (lambda f: marked(f, f.norm(dim=-1).topk(f.shape[2], dim=1).indices), "longest feature"),
        (
            lambda f: marked(f, f.max(1).indices).any(0).expand(len(f), -1),
            "joined the winners of the batch",
        ),
        (lambda f: (f == f.amax((1, 2), keepdim=True)).any(-1), "one largest number"),
        (lambda f: (f.relu() == f.relu().amax(1, keepdim=True)).any(-1), "applied a ReLU first"),
        (lambda f: ~marked(f, f.max(1).indices), "could be thrown away"),
        (lambda f: f.sub_(f.amax(1, keepdim=True)).eq(0).any(-1), "in place"),
    ],
    "split_layer": [
        (concatenated, "still computed for every point"),
        (repeated_first, "times as much as needed"),
        (local_first, "local columns first"),
        (lambda w, b, g, x: sum(parts(w, g, x)), "bias is missing"),
        (lambda w, b, g, x: sum(p + b for p in parts(w, g, x)), "bias twice"),
        (lambda w, b, g, x: parts(w, g, x)[1] + b, "global part is missing"),
        (
            lambda w, b, g, x: (parts(w, g, x)[0] + b).expand(-1, x.shape[1], -1),
            "local part is missing",
        ),
        (
            lambda w, b, g, x: parts(w, g, x)[0].mean(0) + parts(w, g, x)[1] + b,
            "mixed the clouds",
        ),
        (
            lambda w, b, g, x: parts(w, g, x)[0] / x.shape[1] + parts(w, g, x)[1] + b,
            "divided the global part",
        ),
        (lambda w, b, g, x: (sum(parts(w, g, x)) + b).relu(), "applied a ReLU"),
        (lambda w, b, g, x: parts(w, g, x)[0] + b, "The shape is (3, 1, 5)"),
        (in_place, "argument number 3 in place"),
    ],
    "weighted_cross_entropy": [
        (lambda x, t, w: mean_over(x, t, w, len), "divided by the number of points"),
        (lambda x, t, w: mean_over(x, t, w, lambda _: 1), "That is the sum"),
        (lambda x, t, w: F.cross_entropy(x, t.long()), "no effect"),
        (lambda x, t, w: F.cross_entropy(x, t.long(), w.flip(0)), "weights are swapped"),
        (lambda x, t, w: F.cross_entropy(x, (~t).long(), w), "took False for touched"),
        (lambda x, t, w: -weighted(picked(x, t, lambda y: y), t, w), "logits as they are"),
        (
            lambda x, t, w: -weighted(picked(x, t, lambda y: y.softmax(1)), t, w),
            "probability of the right answer",
        ),
        (
            lambda x, t, w: weighted(picked(x, t, lambda y: y.log_softmax(1)), t, w),
            "sign is turned",
        ),
        (
            lambda x, t, w: (
                (w[x.argmax(1)] * F.cross_entropy(x, t.long(), reduction="none")).sum()
                / w[x.argmax(1)].sum()
            ),
            "the network chose",
        ),
        (
            lambda x, t, w: weighted(-picked(x, t, lambda y: y.softmax(1).log2()), t, w),
            "in bits",
        ),
        (
            lambda x, t, w: F.binary_cross_entropy_with_logits(
                x[:, 1], t.float(), weight=w[t.long()]
            ),
            "second logit alone",
        ),
        (
            lambda x, t, w: F.cross_entropy(x, t.long(), w, reduction="none"),
            "The shape is (30,)",
        ),
    ],
}
