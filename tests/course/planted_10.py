"""Wrong answers to the exercises of 10, each with a piece of the hint meant for it."""

import math

import torch

NAMES = {"torch": torch, "math": math}


def inside(index, where):
    found = torch.zeros(len(index), int(index.max()) + 1, dtype=torch.bool)
    for cloud in range(len(index)):
        found[cloud, index[cloud][where[cloud]].flatten()] = True
    return found


def shown(index, known):
    return torch.stack([row[patches] for row, patches in zip(known, index)])


def share(index, known, where):
    places = shown(index, known)
    return torch.stack([p[w].float().mean() for p, w in zip(places, where)])


def points_once(index, hidden):
    seen, unseen = inside(index, ~hidden), inside(index, hidden)
    return (seen & unseen).sum(1) / unseen.sum(1)


def any_other(index, hidden):
    total = torch.zeros(len(index))
    for b in range(len(index)):
        picked = hidden[b].nonzero()[:, 0].tolist()
        for i in picked:
            rest = torch.cat([index[b, :i], index[b, i + 1 :]])
            total[b] += torch.isin(index[b, i], rest).float().mean() / len(picked)
    return total


def slots(index, hidden):
    return (shown(index, inside(index, ~hidden)) & hidden[..., None]).flatten(1).sum(1).float()


def right(index, hidden):
    return share(index, inside(index, ~hidden), hidden)


def any_place(index, hidden):
    places = shown(index, inside(index, ~hidden))
    return torch.stack([p[h].any(1).float().mean() for p, h in zip(places, hidden)])


def kl(q):
    return (q * (q.log() + math.log(q.shape[-1]))).sum(-1)


def entropy(logits):
    q = logits.softmax(-1)
    return -(q * q.log()).sum(-1)


def backwards(q):
    return -q.log().mean(-1) - math.log(q.shape[-1])


MUTANTS = {
    "given_away": [
        (lambda i, h: share(i, inside(i, h), ~h), "of the visible patches"),
        (lambda i, h: 1 - right(i, h), "stays secret"),
        (points_once, "counted each point once"),
        (
            lambda i, h: share(i, inside(i, ~h).any(0).expand(len(i), -1), h),
            "clouds of the batch together",
        ),
        (any_other, "the other hidden patches"),
        (lambda i, h: share(i, inside(i, torch.ones_like(h)), h), "its own patch"),
        (lambda i, h: slots(i, h) / i[0].numel(), "places of all patches"),
        (slots, "a number of places"),
        (any_place, "anything at all"),
        (lambda i, h: right(i, h).mean(), "one number for the batch"),
        (lambda i, h: None, "returned None"),
    ],
    "leaked_share": [
        (lambda c, a, p, f: (c - p) / (c - f), "That is `explained`"),
        (lambda c, a, p, f: (c - a) / (c - f), "ANOTHER shape explain"),
        (lambda c, a, p, f: (p - a) / (c - f), "sign is wrong"),
        (lambda c, a, p, f: (a - p) / c, "divided by the constant's loss"),
        (lambda c, a, p, f: (a - p) / (a - f), "starts at the wrong decoder"),
        (lambda c, a, p, f: a - p, "difference of losses"),
        (lambda c, a, p, f: 100 * (a - p) / (c - f), "in per cent"),
        (lambda c, a, p, f: p / f, "ratio of losses"),
        (lambda c, a, p, f: 0.3 * (a - p), "which part is wanted"),
    ],
    "kl_to_uniform": [
        (lambda x: entropy(x).mean(), "entropy H(q)"),
        (lambda x: -entropy(x).mean(), "log K is missing"),
        (lambda x: backwards(x.softmax(-1)).mean(), "KL(uniform || q)"),
        (lambda x: kl(x.softmax(-1).mean(1)).mean(), "averaged q over the tokens"),
        (lambda x: backwards(x.softmax(-1).mean(1)).mean(), "Point-BERT"),
        (lambda x: kl(x.softmax(-1)).mean() / math.log(2), "in bits"),
        (lambda x: kl(x.softmax(-1)).mean() / x.shape[-1], "mean over the codes"),
        (lambda x: kl(x.softmax(-1)).sum(), "summed over the tokens"),
        (lambda x: kl(x.softmax(-1)), "one value a token"),
        (lambda x: kl(x.softmax(1)).mean(), "over the tokens. Each token"),
    ],
}
