"""Answers to the exercises of 10: wrong ones with a piece of their hint, and right ones."""

import math

import numpy as np
import torch

NAMES = {"torch": torch, "math": math}


def inside(index, which, size=None):
    """Which points lie in a patch of ``which``: a scatter, without a loop over patches."""
    size = size or int(index.max()) + 1
    found = torch.zeros(len(index), size + 1, dtype=torch.bool)
    slots = torch.where(which[..., None], index, size).flatten(1)
    return found.scatter_(1, slots, True)[:, :size]


def shown(index, known):
    return known.gather(1, index.flatten(1)).view_as(index)


def share(index, known, which):
    slots = shown(index, known)
    return (slots & which[..., None]).sum((1, 2)) / (which.sum(1) * index.shape[2])


def points_once(index, hidden):
    seen, unseen = inside(index, ~hidden), inside(index, hidden)
    return (seen & unseen).sum(1) / unseen.sum(1)


def any_other(index, hidden):
    visits = torch.zeros(len(index), int(index.max()) + 1)
    visits.scatter_add_(1, index.flatten(1), torch.ones(index.flatten(1).shape))
    return share(index, visits > 1, hidden)


def slots(index, hidden):
    return (shown(index, inside(index, ~hidden)) & hidden[..., None]).sum((1, 2))


def right(index, hidden):
    return share(index, inside(index, ~hidden), hidden)


def any_slot(index, hidden):
    found = shown(index, inside(index, ~hidden)).any(2) & hidden
    return found.sum(1) / hidden.sum(1)


def centers_only(index, hidden):
    found = shown(index, inside(index, ~hidden))[:, :, 0] & hidden
    return found.sum(1) / hidden.sum(1)


def rows_by_number(index, hidden):
    """1 - hidden is no mask: it picks rows 0 and 1."""
    pairs = zip(index, hidden.long())
    return torch.stack([torch.isin(p[h], p[1 - h]).float().mean() for p, h in pairs])


def twice_visible(index, hidden):
    same = [p[h].flatten()[:, None] == p[~h].flatten() for p, h in zip(index, hidden)]
    return torch.stack([x.float().sum(1).mean() for x in same])


def with_a_loop(index, hidden):
    shares = []
    for patches, off in zip(index, hidden):
        known = set(patches[~off].flatten().tolist())
        count = 0
        for patch in patches[off]:
            count += sum(point in known for point in patch.tolist())
        shares.append(count / patches[off].numel())
    return shares


def with_a_comprehension(index, hidden):
    return torch.stack(
        [
            torch.stack([torch.isin(p, patches[~off]).float().mean() for p in patches[off]]).mean()
            for patches, off in zip(index, hidden)
        ]
    )


def in_place(index, hidden):
    hidden.logical_not_()
    return right(index, ~hidden)


def by_numpy(index, hidden):
    index, hidden = index.numpy(), hidden.numpy()
    return [np.isin(i[h], i[~h]).mean() for i, h in zip(index, hidden)]


def by_comparison(index, hidden):
    same = index.flatten(1)[:, :, None] == index.flatten(1)[:, None]  # (B, cn, cn)
    off = hidden.repeat_interleave(index.shape[2], 1)  # (B, cn)
    leaked = (same & ~off[:, None]).any(2) & off
    return leaked.double().sum(1) / off.double().sum(1)


def with_offsets(index, hidden):
    offset = index + 1000 * torch.arange(len(index))[:, None, None]
    leaked = torch.isin(offset, offset[~hidden]) & hidden[..., None]
    return leaked.flatten(1).sum(1) / (hidden.sum(1) * index.shape[2])


def kl(q):
    return (q * (q.log() + math.log(q.shape[-1]))).sum(-1)


def log_kl(log_q, over=-1):
    return (log_q.exp() * (log_q + math.log(log_q.shape[over]))).sum(over)


def entropy(logits):
    log_q = logits.log_softmax(-1)
    return -(log_q.exp() * log_q).sum(-1)


def backwards(log_q):
    return -log_q.mean(-1) - math.log(log_q.shape[-1])


def by_distributions(x):
    q = torch.distributions.Categorical(logits=x)
    uniform = torch.distributions.Categorical(logits=torch.zeros_like(x))
    return torch.distributions.kl_divergence(q, uniform).mean()


def by_divergence(x):
    log_q = x.log_softmax(-1)
    uniform = torch.full_like(x, -math.log(x.shape[-1]))
    tokens = x.shape[0] * x.shape[1]
    return torch.nn.functional.kl_div(uniform, log_q, reduction="sum", log_target=True) / tokens


def by_logsumexp(x):
    q = (x - x.amax(-1, keepdim=True)).exp()
    q = q / q.sum(-1, keepdim=True)
    mean = (q * x).sum(-1)
    return (mean - x.logsumexp(-1) + math.log(x.shape[-1])).mean()


WRONG = {
    "given_away": [
        (lambda i, h: share(i, inside(i, h), ~h), "in the visible patches"),
        (lambda i, h: 1 - right(i, h), "complement"),
        (lambda i, h: share(i, inside(i, torch.ones_like(h)), h), "You looked in all patches"),
        (slots, "a number of slots"),
        (lambda i, h: slots(i, h) / h.sum(1), "number of hidden patches"),
        (any_slot, "anything at all"),
        (lambda i, h: right(i, h).mean(), "one number for the batch"),
        (lambda i, h: None, "returned None"),
    ],
    "leaked_share": [
        (lambda c, a, p, f: (c - p) / (c - f), "That is `explained`"),
        (lambda c, a, p, f: (c - a) / (c - f), "ANOTHER shape explain"),
        (lambda c, a, p, f: (p - a) / (c - f), "sign is wrong"),
        (lambda c, a, p, f: a - p, "difference of losses"),
        (lambda c, a, p, f: 100 * (a - p) / (c - f), "in per cent"),
        (lambda c, a, p, f: p / f, "ratio of losses"),
        (lambda c, a, p, f: 0.3 * (a - p), "which part is wanted"),
    ],
    "kl_to_uniform": [
        (lambda x: entropy(x).mean(), "entropy H(q)"),
        (lambda x: -entropy(x).mean(), "log K is missing"),
        (lambda x: -log_kl(x.log_softmax(-1)).mean(), "sign is wrong"),
        (lambda x: log_kl(x.log_softmax(-1)).mean() / math.log(2), "in bits"),
        (lambda x: log_kl(x.log_softmax(-1)).mean() / x.shape[-1], "mean over the codes"),
        (lambda x: log_kl(x.log_softmax(-1)).sum(), "summed over the tokens"),
        (lambda x: log_kl(x.log_softmax(-1)), "one value for each token"),
    ],
}

SUBTLE = {
    "given_away": [
        (points_once, "counted each point once"),
        (
            lambda i, h: share(i, inside(i, ~h).any(0).expand(len(i), -1), h),
            "pooled the clouds",
        ),
        (any_other, "the other hidden patches"),
        (lambda i, h: slots(i, h) / i[0].numel(), "slots of all patches"),
        (lambda i, h: slots(i, h) / (h.sum() * i.shape[2]), "differs from cloud to"),
        (centers_only, "centres only"),
        (lambda i, h: (shown(i, inside(i, ~h)).all(2) & h).sum(1) / h.sum(1), "given away whole"),
        ([rows_by_number, lambda i, h: slots(i, h) > 0], "All is 1"),
        (lambda i, h: slots(i, h) / ((~h).sum(1) * i.shape[2]), "or of the visible ones"),
        (lambda i, h: slots(i, h) / i.shape[2], "a number of slots"),
        (twice_visible, "visible patches twice"),
        (
            lambda i, h: (inside(i, h) & inside(i, ~h)).sum(1) / inside(i, ~h).sum(1),
            "counted each point once",
        ),
        (lambda i, h: torch.isin(i[h], i[~h]).float().mean(), "one number for the batch"),
        ([with_a_loop, with_a_comprehension], "without a loop over patches"),
        (in_place, "argument hidden in place"),
        (lambda i, h: right(i, h).half(), "float16"),
    ],
    "leaked_share": [
        (lambda c, a, p, f: (a - p) / c, "divided by a single loss"),
        (lambda c, a, p, f: (a - p) / (a - f), "starts at the wrong decoder"),
        (lambda c, a, p, f: (a - p) / (c - p), "ends at the wrong decoder"),
        (lambda c, a, p, f: max(0.0, (a - p) / (c - f)), "do not clip"),
        (lambda c, a, p, f: abs(a - p) / (c - f), "do not clip"),
        (lambda c, a, p, f: min(1.0, (a - p) / (c - f)), "may be above 1"),
        (lambda c, a, p, f: (min(a, c) - p) / (c - f), "may be above 1"),
        (lambda c, a, p, f: round((a - p) / (c - f), 1), "You rounded"),
        (lambda c, a, p, f: (a - p) // (c - f), "You rounded"),
    ],
    "kl_to_uniform": [
        (lambda x: kl(x.softmax(-1)).mean(), "log_softmax is safe"),
        (lambda x: backwards(x.log_softmax(-1)).mean(), "KL(uniform || q)"),
        (lambda x: kl(x.softmax(-1).mean(1).clamp_min(1e-30)).mean(), "averaged q over the tokens"),
        (lambda x: backwards(x.softmax(-1).mean(1).clamp_min(1e-30).log()).mean(), "Point-BERT"),
        (lambda x: log_kl(x.log_softmax(1)).mean(), "over the tokens or over the batch"),
        (lambda x: log_kl(x.log_softmax(0)).mean(), "over the tokens or over the batch"),
        (lambda x: log_kl(x.log_softmax(-1)).sum(1).mean(), "summed over the tokens"),
        (lambda x: math.log(x.shape[1]) - entropy(x).mean(), "number of codes, not of tokens"),
        (
            lambda x: math.log(x.shape[-1]) - torch.special.entr(x.softmax(-1)).sum(-1).mean(),
            "gradient of logits holds NaN",
        ),
        (lambda x: log_kl(x.log_softmax(-1).detach()).mean(), "no gradient reaches"),
        (
            lambda x: (
                (x.softmax(-1).detach() * x.log_softmax(-1)).sum(-1).mean() + math.log(x.shape[-1])
            ),
            "stop gradient cuts",
        ),
        (lambda x: float(log_kl(x.log_softmax(-1)).mean()), "no gradient reaches"),
    ],
}

RIGHT = {
    "given_away": [
        by_numpy,
        by_comparison,
        with_offsets,
        right,
        lambda i, h: [float(x) for x in right(i, h)],
    ],
    "leaked_share": [
        lambda c, a, p, f: (a - p) / (c - f),
        lambda c, a, p, f: (c - p) / (c - f) - (c - a) / (c - f),
        lambda c, a, p, f: np.float32((a - p) / (c - f)),
        lambda c, a, p, f: torch.tensor([a - p]) / (c - f),
        lambda c, a, p, f: (torch.tensor(a) - p) / (torch.tensor(c) - f),
    ],
    "kl_to_uniform": [
        by_distributions,
        by_divergence,
        by_logsumexp,
        lambda x: log_kl(x.double().log_softmax(-1)).mean(),
        lambda x: math.log(x.shape[-1]) - entropy(x).mean(),
        lambda x: log_kl(x.flatten(0, 1).log_softmax(-1)).mean(),
    ],
}
