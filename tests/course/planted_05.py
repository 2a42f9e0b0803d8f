"""Answers to the exercises of 05: wrong ones with a piece of their hint, and right ones."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

NAMES = {"torch": torch, "F": F}


def marked(features, index):
    """A mask ``(B, N)`` with True at ``index (B, K)``."""
    return torch.zeros(features.shape[:2], dtype=torch.bool).scatter(1, index, True)


def wins(features, over=1):
    return features == features.amax(over, keepdim=True)


def marked_in_numpy(features):
    mask = np.zeros(features.shape[:2], dtype=bool)
    mask[np.arange(len(features))[:, None], features.numpy().argmax(1)] = True
    return mask


def marked_by_loop(features):
    out = []
    for cloud in features:
        winners = {int(channel.argmax()) for channel in cloud.T}
        out.append([point in winners for point in range(len(cloud))])
    return torch.tensor(out)


def by_gradient(features):
    """The points that the maximum sends a gradient to."""
    features = features.clone().requires_grad_()
    features.amax(1).sum().backward()
    return (features.grad != 0).any(-1)


def assigned(features):
    mask = torch.zeros(features.shape[:2], dtype=torch.bool)
    mask[:, features.argmax(1)] = True
    return mask


def parts(weight, whole, local):
    size = whole.shape[1]
    return (whole @ weight[:, :size].T)[:, None], local @ weight[:, size:].T


def split(weight, bias, whole, local):
    once, point = parts(weight, whole, local)
    return point + (once + bias)


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


def by_elements(weight, bias, whole, local):
    """Without any matrix product: each of N points multiplies the global part again."""
    size = whole.shape[1]
    repeated = whole[:, None, None].expand(-1, local.shape[1], 1, -1)
    once = (repeated * weight[:, :size]).sum(-1)
    return once + (local[:, :, None] * weight[:, size:]).sum(-1) + bias


def by_vectors(weight, bias, whole, local):
    size = whole.shape[1]
    rows = [
        torch.stack([weight[:, :size] @ g + weight[:, size:] @ p + bias for p in points])
        for g, points in zip(whole, local)
    ]
    return torch.stack(rows)


def by_convolution(weight, bias, whole, local):
    repeated = whole[:, None].expand(-1, local.shape[1], -1)
    return F.conv1d(torch.cat([repeated, local], -1).mT, weight[..., None], bias).mT


def whole_changed(weight, bias, whole, local):
    whole *= 1.5
    return concatenated(weight, bias, whole, local)


def by_einsum(weight, bias, whole, local):
    size = whole.shape[1]
    once = torch.einsum("bg,og->bo", whole, weight[:, :size])
    return torch.einsum("bnl,ol->bno", local, weight[:, size:]) + once[:, None] + bias


def by_linear(weight, bias, whole, local):
    once, point = weight.split([whole.shape[1], local.shape[2]], 1)
    return F.linear(local, point) + F.linear(whole, once, bias).unsqueeze(1)


def added_in_place(weight, bias, whole, local):
    out = local @ weight[:, whole.shape[1] :].T
    out += (whole @ weight[:, : whole.shape[1]].T + bias)[:, None]
    return out


def once_by_elements(weight, bias, whole, local):
    """Elementwise products, but the global part once a cloud."""
    size = whole.shape[1]
    once = (whole[:, None] * weight[:, :size]).sum(-1)
    return once[:, None] + (local[:, :, None] * weight[:, size:]).sum(-1) + bias


def in_double(weight, bias, whole, local):
    return split(weight.double(), bias.double(), whole.double(), local.double())


def picked(logits, touched, transform=lambda x: x.log_softmax(-1)):
    return transform(logits).gather(1, touched.long()[:, None])[:, 0]


def weighted(values, touched, weights):
    weight = weights[touched.long()]
    return (weight * values).sum() / weight.sum()


def entropy_of(transform):
    return lambda x, t, w: -weighted(picked(x, t, transform), t, w)


def unsafe(logits):
    return logits.exp().log() - logits.exp().sum(-1, keepdim=True).log()


def soft_labels(x, t, w):
    """The weighted mean by F.cross_entropy itself, which takes probabilities, too."""
    target = F.one_hot(t.long(), 2) * w
    return F.cross_entropy(x, target, reduction="sum") / target.sum()


def soft_module(x, t, w):
    labels = F.one_hot(t.long(), 2).float()
    return nn.CrossEntropyLoss(w, reduction="sum")(x, labels) / (labels * w).sum()


def soft_points(x, t, w):
    each = torch.stack(
        [F.cross_entropy(row, label) for row, label in zip(x, F.one_hot(t.long(), 2).float())]
    )
    return (w[t.long()] * each).sum() / w[t.long()].sum()


def planes(x, t, w):
    """Points as the pixels of an image, for another kernel."""
    return F.nll_loss(x.log_softmax(1).T[None, :, :, None], t.long()[None, :, None], w)


def mean_over(divide):
    return lambda x, t, w: -(w[t.long()] * picked(x, t)).sum() / divide(t, w)


def per_class(x, t, w):
    loss = -picked(x, t)
    return (w[0] * loss[~t].mean() + w[1] * loss[t].mean()) / w.sum()


def in_numpy(x, t, w):
    return float(entropy_of(lambda x: x.log_softmax(-1))(x.detach(), t, w))


def two_sums(x, t, w):
    log_p = x - x.logsumexp(-1, keepdim=True)
    total = w[1] * log_p[t, 1].sum() + w[0] * log_p[~t, 0].sum()
    return -total / (w[1] * t.sum() + w[0] * (~t).sum())


def one_hot(x, t, w):
    target = F.one_hot(t.long(), 2) * w
    return -(target * x.log_softmax(1)).sum() / target.sum()


def softplus(x, t, w):
    """Two classes are one logit, the difference."""
    margin = (x[:, 1] - x[:, 0]) * torch.where(t, 1, -1)
    return weighted(F.softplus(-margin), t, w)


WRONG = {
    "critical_points": [
        (lambda f: marked(f, f.max(1).indices).float().cumsum(1) * 0 + 1, "marked every point"),
        (lambda f: f.max(2).indices, "maximum over the channels"),
        (lambda f: f.max(1).indices, "indices of the winners"),
        (lambda f: f.max(1).values, "the global vector itself"),
        (lambda f: marked(f, f.min(1).indices), "smallest of each channel"),
        (
            lambda f: torch.stack([x.argmax(0).bincount(minlength=f.shape[1]) for x in f]),
            "how many maxima",
        ),
        (lambda f: ~marked(f, f.max(1).indices), "could be left out"),
    ],
    "split_layer": [
        (concatenated, "times as often as needed"),
        (local_first, "local columns first"),
        (lambda w, b, g, x: sum(parts(w, g, x)), "bias is missing"),
        (lambda w, b, g, x: sum(p + b for p in parts(w, g, x)), "bias twice"),
        (lambda w, b, g, x: parts(w, g, x)[1] + b, "global part is missing"),
        (
            [
                lambda w, b, g, x: (parts(w, g, x)[0] + b).expand(-1, x.shape[1], -1),
                lambda w, b, g, x: parts(w, g, x)[0] + b,
            ],
            "local part is missing",
        ),
        (
            lambda w, b, g, x: parts(w, g, x)[0] / x.shape[1] + parts(w, g, x)[1] + b,
            "divided the global part",
        ),
        (lambda w, b, g, x: (sum(parts(w, g, x)) + b).relu(), "applied a ReLU"),
    ],
    "weighted_cross_entropy": [
        (mean_over(lambda t, w: len(t)), "divided by the number of points"),
        (mean_over(lambda t, w: 1), "That is the sum"),
        (lambda x, t, w: -picked(x, t).mean(), "no effect"),
        (lambda x, t, w: -weighted(picked(x, t), t, w.flip(0)), "weights are swapped"),
        (lambda x, t, w: -weighted(picked(x, ~t), ~t, w), "took False for touched"),
        (entropy_of(lambda x: x), "logits as they are"),
        (entropy_of(lambda x: x.softmax(1)), "probability of the right answer"),
        (lambda x, t, w: weighted(picked(x, t), t, w), "sign is wrong"),
        (entropy_of(lambda x: x.log_softmax(1) / torch.tensor(2.0).log()), "in bits"),
        (lambda x, t, w: -w[t.long()] * picked(x, t), "one value for each point"),
    ],
}

SUBTLE = {
    "critical_points": [
        (lambda f: marked(f, f.norm(dim=-1).topk(min(f.shape[1:])).indices), "longest feature"),
        (
            [lambda f: marked(f, f.max(1).indices).any(0).expand(f.shape[:2]), assigned],
            "joined the winners of the batch",
        ),
        (lambda f: wins(f, (0, 1)).any(-1), "runs over the batch"),
        (lambda f: wins(f, (1, 2)).any(-1), "one largest number"),
        (lambda f: wins(f).all(-1), "ALL channels"),
        (lambda f: wins(f.relu()).any(-1), "applied a ReLU first"),
        (lambda f: wins(f.abs()).any(-1), "absolute value"),
        (lambda f: wins(f, 0).any(-1), "values are not"),
        (
            [
                lambda f: (f > f.amax(1, keepdim=True) - 1e-3).any(-1),
                lambda f: wins(f.half()).any(-1),
            ],
            "allow a tolerance",
        ),
        (lambda f: f.sub_(f.amax(1, keepdim=True)).eq(0).any(-1), "in place"),
        (
            [lambda f: wins(f).any(-1).long(), lambda f: wins(f).any(-1).float()],
            "A mask is bool",
        ),
        (lambda f: wins(f.sum(-1)), "values are not"),
    ],
    "split_layer": [
        (repeated_first, "times as often as needed"),
        ([by_elements, by_vectors, by_convolution], "times as often as needed"),
        (
            [
                lambda w, b, g, x: parts(w, g, x)[0].mean(0) + parts(w, g, x)[1] + b,
                lambda w, b, g, x: parts(w, g, x)[0][0] + parts(w, g, x)[1] + b,
            ],
            "mixed the clouds",
        ),
        (lambda w, b, g, x: parts(w, g, x)[0][:, 0] + parts(w, g, x)[1] + b, "RuntimeError"),
        (whole_changed, "argument whole in place"),
        (lambda w, b, g, x: split(w, b, g.detach(), x), "gradient of whole is 0"),
        (lambda w, b, g, x: split(w, b.data, g, x), "gradient of bias is 0"),
        (lambda w, b, g, x: split(w.detach(), b, g, x), "gradient of weight is 0"),
        (
            lambda w, b, g, x: parts(w, g, x)[0] + parts(w.detach(), g, x)[1] + b,
            "gradient of weight is wrong",
        ),
        (lambda w, b, g, x: split(w, b, g, x).detach().numpy(), "no gradient reaches"),
    ],
    "weighted_cross_entropy": [
        (entropy_of(lambda x: x.softmax(-1).log()), "Use log_softmax"),
        (entropy_of(unsafe), "Use log_softmax"),
        (lambda x, t, w: F.cross_entropy(x, t.long(), w), "without F.cross_entropy"),
        (lambda x, t, w: nn.CrossEntropyLoss(w)(x, t.long()), "without F.cross_entropy"),
        (lambda x, t, w: F.nll_loss(x.log_softmax(1), t.long(), w), "without F.cross_entropy"),
        ([soft_labels, soft_module, soft_points, planes], "with soft labels"),
        (
            lambda x, t, w: -(w[x.argmax(1)] * picked(x, t)).sum() / w[x.argmax(1)].sum(),
            "the network chose",
        ),
        (
            lambda x, t, w: F.binary_cross_entropy_with_logits(
                x[:, 1], t.float(), weight=w[t.long()]
            ),
            "second logit alone",
        ),
        (entropy_of(lambda x: x.log_softmax(0)), "runs over the points"),
        (mean_over(lambda t, w: w.sum()), "two class weights"),
        (per_class, "each class by itself"),
        (
            [
                entropy_of(lambda x: x.softmax(-1).clamp_min(1e-7).log()),
                entropy_of(lambda x: (x.softmax(-1) + 1e-8).log()),
            ],
            "bounded the probability",
        ),
        (
            lambda x, t, w: -w[1] * picked(x, t)[t].sum() / w[t.long()].sum(),
            "two classes is missing",
        ),
        (in_numpy, "no gradient reaches logits"),
        (torch.no_grad()(entropy_of(lambda x: x.log_softmax(-1))), "no gradient reaches logits"),
        (lambda x, t, w: torch.tensor(in_numpy(x, t, w)), "no gradient reaches logits"),
        (
            entropy_of(lambda x: x - x.detach().logsumexp(-1, keepdim=True)),
            "gradient of logits is wrong",
        ),
    ],
}

RIGHT = {
    "critical_points": [
        marked_in_numpy,
        marked_by_loop,
        by_gradient,
        lambda f: wins(f.double()).any(-1),
        lambda f: F.one_hot(f.argmax(1), f.shape[1]).sum(1) > 0,
        lambda f: (f >= f.sort(1).values[:, -1:]).any(2).tolist(),
    ],
    "split_layer": [by_einsum, by_linear, added_in_place, once_by_elements, in_double, split],
    "weighted_cross_entropy": [
        two_sums,
        one_hot,
        softplus,
        lambda x, t, w: entropy_of(lambda x: x.log_softmax(-1))(x.double(), t, w.double()),
        lambda x, t, w: -(w[t.long()] / w[t.long()].sum()) @ picked(x, t),
        lambda x, t, w: torch.stack([two_sums(x, t, w)]),
    ],
}
