"""Answers to the exercises of 07: wrong ones with a piece of their hint, and right ones."""

import math

import numpy as np
import torch
from torch.nn import functional as F

NAMES = {"torch": torch}


def squares(z, e):
    return (z - e).square().mean()


def terms(codebook, commitment):
    return lambda z, e, alpha, beta: (alpha * codebook(z, e), beta * commitment(z, e))


def left(z, e):  # moves e
    return squares(z.detach(), e)


def right(z, e):  # moves z
    return squares(z, e.detach())


def scaled(change):
    """The right stop gradients around another measure than the mean of the squares."""
    return terms(lambda z, e: change(z.detach() - e), lambda z, e: change(z - e.detach()))


def neither(z, e):
    return squares(z.detach(), e.detach())


def without_grad(z, e):
    with torch.no_grad():
        return squares(z, e)


def by_stop_context(z, e, alpha, beta):
    with torch.no_grad():
        still_z, still_e = z + 0, e + 0
    return [alpha * (still_z - e).pow(2).mean(), beta * (z - still_e).pow(2).mean()]


def shares(counts):
    return counts / counts.sum()


def entropy(counts):
    return torch.special.entr(shares(counts)).sum()


def exp_in_numpy(counts):
    p = counts.numpy() / counts.sum().item()
    return np.exp(-np.sum(p[p > 0] * np.log(p[p > 0])))


def with_epsilon(counts, epsilon):
    p = shares(counts)
    return torch.exp(-(p * (p + epsilon).log()).sum())


def averages(usage, token_sum, tokens, index, decay):
    counts = torch.bincount(index, minlength=len(usage)).float()
    sums = torch.zeros_like(token_sum).index_add(0, index, tokens)
    return usage.lerp(counts, 1 - decay), token_sum.lerp(sums, 1 - decay), counts, sums


def smooth(usage, epsilon, total=None):
    total = usage.sum() if total is None else total
    return ((usage + epsilon) / (total + len(usage) * epsilon) * total)[:, None]


def ema(pick, decay_of=lambda decay: decay):
    """``pick(new usage, new sums, counts, sums, old usage, old sums, epsilon)``."""

    def answer(usage, token_sum, tokens, index, decay, epsilon):
        found = averages(usage, token_sum, tokens, index, decay_of(decay))
        return pick(*found, usage, token_sum, epsilon)

    return answer


def mean_of_means(usage, token_sum, tokens, index, decay, epsilon):
    _, _, counts, sums = averages(usage, token_sum, tokens, index, decay)
    old = token_sum / usage.clamp_min(1e-6)[:, None]
    return decay * old + (1 - decay) * sums / counts.clamp_min(1)[:, None]


def mean_in_sum(usage, token_sum, tokens, index, decay, epsilon):
    new, _, counts, sums = averages(usage, token_sum, tokens, index, decay)
    means = sums / counts.clamp_min(1)[:, None]
    return token_sum.lerp(means, 1 - decay) / smooth(new, epsilon)


def overwritten(usage, token_sum, tokens, index, decay, epsilon):
    new = averages(usage, token_sum, tokens, index, decay)[0]
    sums = torch.zeros_like(token_sum)
    sums[index] += tokens
    return token_sum.lerp(sums, 1 - decay) / smooth(new, epsilon)


def half_in_place(usage, token_sum, tokens, index, decay, epsilon):
    usage.mul_(decay)
    return token_sum / smooth(usage, epsilon)


def tokens_scaled(usage, token_sum, tokens, index, decay, epsilon):
    tokens *= 1 - decay
    usage = decay * usage + (1 - decay) * torch.bincount(index, minlength=len(usage))
    return (decay * token_sum).index_add(0, index, tokens) / smooth(usage, epsilon)


def in_place(usage, token_sum, tokens, index, decay, epsilon):
    """As a training loop does it: the averages are state."""
    usage.mul_(decay).index_add_(0, index, torch.ones(len(tokens)), alpha=1 - decay)
    token_sum.mul_(decay).index_add_(0, index, tokens, alpha=1 - decay)
    return token_sum / smooth(usage, epsilon)


def one_hot(usage, token_sum, tokens, index, decay, epsilon):
    picks = F.one_hot(index, len(usage)).to(tokens.dtype)  # (M, K)
    usage = decay * usage + (1 - decay) * picks.sum(0)
    token_sum = decay * token_sum + (1 - decay) * picks.T @ tokens
    return token_sum / smooth(usage, epsilon)


def untaken_kept(usage, token_sum, tokens, index, decay, epsilon):
    new, sums, counts, _ = averages(usage, token_sum, tokens, index, decay)
    old = token_sum / usage.clamp_min(1e-6)[:, None]
    return (sums / smooth(new, epsilon)).where(counts[:, None] > 0, old)


def ema_in_numpy(usage, token_sum, tokens, index, decay, epsilon):
    usage, token_sum = usage.numpy().astype(float), token_sum.numpy().astype(float)
    sums = np.zeros_like(token_sum)
    np.add.at(sums, index.numpy(), tokens.numpy())
    usage = decay * usage + (1 - decay) * np.bincount(index, minlength=len(usage))
    total = usage.sum()
    weight = (usage + epsilon) / (total + len(usage) * epsilon) * total
    return (decay * token_sum + (1 - decay) * sums) / weight[:, None]


def code_by_code(usage, token_sum, tokens, index, decay, epsilon):
    new = averages(usage, token_sum, tokens, index, decay)[0]
    return [
        (decay * token_sum[k] + (1 - decay) * tokens[index == k].sum(0)) / smooth(new, epsilon)[k]
        for k in range(len(usage))
    ]


WRONG = {
    "vq_terms": [
        (terms(squares, squares), "codebook term sends a gradient to both"),
        (terms(left, squares), "commitment term sends a gradient to both"),
        (terms(right, left), "codebook term is to move e"),
        (terms(left, left), "commitment term is to move z"),
        (lambda z, e, a, b: (left(z, e), right(z, e)), "weights are missing"),
        (scaled(lambda d: d.square().sum(1).mean()), "summed over the dimensions"),
        (scaled(lambda d: d.square().sum()), "summed over the tokens too"),
        (scaled(lambda d: d.norm(dim=1).mean()), "SQUARED"),
        (lambda z, e, a, b: a * left(z, e) + b * right(z, e), "SUM of the two terms"),
        (scaled(lambda d: d.square().mean(1)), "one number"),
    ],
    "perplexity": [
        (lambda n: float(entropy(n)), "That is the entropy. The"),
        (lambda n: float(entropy(n) / torch.tensor(2.0).log()), "entropy in bits"),
        (lambda n: float((-entropy(n)).exp()), "lost the minus sign"),
        (lambda n: int((n > 0).sum()), "number of codes used at all"),
        (lambda n: float((n > 0).float().mean()), "share of codes used at all"),
        (lambda n: float(entropy(n).exp() / len(n)), "divided by K"),
        (
            [
                lambda n: float(torch.special.entr(n.float()).sum().exp()),
                lambda n: float(n.float().std()),
            ],
            "Shares first",
        ),
    ],
    "ema_codes": [
        (ema(lambda u, s, c, t, ou, os, e: s / smooth(u, e), lambda d: 1 - d), "changed sides"),
        (ema(lambda u, s, c, t, ou, os, e: s / (u + e)[:, None]), "left the total larger"),
        (ema(lambda u, s, c, t, ou, os, e: s / smooth(u, e) * u.sum()), "sums to 1"),
        (ema(lambda u, s, c, t, ou, os, e: t / smooth(c, e)), "this batch alone"),
        (ema(lambda u, s, c, t, ou, os, e: s / smooth(ou, e)), "divided by the OLD usage"),
        (ema(lambda u, s, c, t, ou, os, e: os / smooth(u, e)), "left the sums as they were"),
    ],
}

SUBTLE = {
    "vq_terms": [
        (terms(neither, right), "codebook term sends no gradient"),
        (terms(without_grad, right), "codebook term sends no gradient"),
        (terms(left, neither), "commitment term sends no gradient"),
        (terms(neither, neither), "no gradient reaches"),
        (lambda z, e, a, b: (b * left(z, e), a * right(z, e)), "changed places"),
        (lambda z, e, a, b: (b * right(z, e), a * left(z, e)), "changed places"),
        (scaled(lambda d: d.mean()), "so that they cancel"),
        (scaled(lambda d: d.mean().square()), "squared the mean"),
        (
            lambda z, e, a, b: (float(a * left(z, e)), float(b * right(z, e))),
            "no gradient reaches",
        ),
        (lambda z, e, a, b: (a * squares(z.detach(), e), b * squares(z, e.clone())), "e.detach()"),
    ],
    "perplexity": [
        (lambda n: float((-(shares(n) * shares(n).log()).sum()).exp()), "0 * log 0"),
        (lambda n: float((entropy(n) / torch.tensor(2.0).log()).exp()), "mixed base 2"),
        (lambda n: 2 ** float(entropy(n)), "mixed base 2"),
        (lambda n: float(1 / shares(n).square().sum()), "1 / sum p^2"),
        ([lambda n: with_epsilon(n, 1e-3), lambda n: with_epsilon(n, 1e-5)], "epsilon"),
        (lambda n: round(float(entropy(n).exp())), "You rounded"),
        (lambda n: float(torch.special.entr(shares(n)).mean().exp()), "mean over the codes"),
        (lambda n: float(1.0005 * entropy(n).exp()), "Shares first"),  # the old hint: 2.45, 2.45
    ],
    "ema_codes": [
        (ema(lambda u, s, c, t, ou, os, e: s / u[:, None]), "0 / 0"),
        (ema(lambda u, s, c, t, ou, os, e: s / smooth(u, e, ou.sum())), "sum of the NEW usage"),
        (ema(lambda u, s, c, t, ou, os, e: s / smooth(u, e, c.sum())), "sum of the NEW usage"),
        (mean_of_means, "averaged the means of the batches"),
        (mean_in_sum, "MEAN of the batch's tokens"),
        (overwritten, "kept one of them"),
        (
            ema(lambda u, s, c, t, ou, os, e: s / ((u + e) / (u.sum() + e) * u.sum())[:, None]),
            "K times",
        ),
        (half_in_place, "values are not"),
        (untaken_kept, "Their averages decay"),
        (tokens_scaled, "argument tokens in place"),
        (ema(lambda u, s, c, t, ou, os, e: (s / smooth(u, e)).T), "axes of your answer"),
    ],
}

RIGHT = {
    "vq_terms": [
        by_stop_context,
        lambda z, e, a, b: torch.stack([a * left(z, e), b * right(z, e)]),
        lambda z, e, a, b: (a * F.mse_loss(e, z.detach()), b * F.mse_loss(z, e.detach())),
        lambda z, e, a, b: (a * left(z.double(), e.double()), b * right(z.double(), e.double())),
        lambda z, e, a, b: [a * ((e - z.data) ** 2).sum() / z.numel(), b * right(z, e)],
    ],
    "perplexity": [
        exp_in_numpy,
        lambda n: entropy(n).exp(),
        lambda n: float(with_epsilon(n, 1e-10)),
        lambda n: 2 ** (entropy(n.double()) / math.log(2)),
        lambda n: torch.distributions.Categorical(shares(n)).entropy().exp().reshape(1),
        lambda n: math.prod(
            (sum(n.tolist()) / k) ** (k / sum(n.tolist())) for k in n.tolist() if k
        ),
    ],
    "ema_codes": [
        in_place,
        one_hot,
        ema_in_numpy,
        code_by_code,
        lambda u, s, t, i, d, e: one_hot(u.double(), s.double(), t.double(), i, d, e),
    ],
}
