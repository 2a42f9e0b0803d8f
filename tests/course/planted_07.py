"""Wrong answers to the exercises of 07, each with a piece of the hint meant for it."""

import torch

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


def shares(counts):
    return counts / counts.sum()


def entropy(counts):
    return torch.special.entr(shares(counts)).sum()


def averages(usage, token_sum, tokens, index, decay):
    counts = torch.bincount(index, minlength=len(usage)).float()
    sums = torch.zeros_like(token_sum).index_add(0, index, tokens)
    return usage.lerp(counts, 1 - decay), token_sum.lerp(sums, 1 - decay), counts, sums


def smooth(usage, epsilon):
    return ((usage + epsilon) / (usage.sum() + len(usage) * epsilon) * usage.sum())[:, None]


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


def in_place(usage, token_sum, tokens, index, decay, epsilon):
    usage.mul_(decay)
    return token_sum / smooth(usage, epsilon)


MUTANTS = {
    "vq_terms": [
        (terms(squares, squares), "codebook term sends a gradient to both"),
        (terms(left, squares), "commitment term sends a gradient to both"),
        (terms(right, left), "the codebook term is to move e"),
        (terms(left, left), "the commitment term is to move z"),
        (
            terms(lambda z, e: squares(z.detach(), e.detach()), right),
            "codebook term sends no gradient",
        ),
        (lambda z, e, a, b: (b * left(z, e), a * right(z, e)), "changed places"),
        (lambda z, e, a, b: (left(z, e), right(z, e)), "weights are missing"),
        (scaled(lambda d: d.square().sum(1).mean()), "summed over the dimensions"),
        (scaled(lambda d: d.square().sum()), "summed over the tokens too"),
        (scaled(lambda d: d.norm(dim=1).mean()), "SQUARED"),
        (scaled(lambda d: d.mean()), "not squared"),
        (lambda z, e, a, b: a * left(z, e) + b * right(z, e), "two tensors"),
        (scaled(lambda d: d.square().mean(1)), "one number"),
    ],
    "perplexity": [
        (lambda n: float((-(shares(n) * shares(n).log()).sum()).exp()), "0 * log 0"),
        (lambda n: float(entropy(n)), "That is the entropy. The"),
        (lambda n: float(entropy(n) / torch.tensor(2.0).log()), "entropy in bits"),
        (lambda n: float((entropy(n) / torch.tensor(2.0).log()).exp()), "Use one base"),
        (lambda n: float((-entropy(n)).exp()), "lost the minus sign"),
        (lambda n: int((n > 0).sum()), "number of codes used at all"),
        (lambda n: float((n > 0).float().mean()), "share of codes used at all"),
        (lambda n: float(1 / shares(n).square().sum()), "1 / sum p^2"),
        (lambda n: float(entropy(n).exp() / len(n)), "divided by K"),
        (lambda n: float(torch.special.entr(n.float()).sum().exp()), "Shares first"),
    ],
    "ema_codes": [
        (ema(lambda u, s, c, t, ou, os, e: s / smooth(u, e), lambda d: 1 - d), "changed sides"),
        (ema(lambda u, s, c, t, ou, os, e: s / (u + e)[:, None]), "left the total larger"),
        (ema(lambda u, s, c, t, ou, os, e: s / smooth(u, e) * u.sum()), "sums to 1"),
        (ema(lambda u, s, c, t, ou, os, e: s / u[:, None]), "0 / 0"),
        (ema(lambda u, s, c, t, ou, os, e: t / smooth(c, e)), "this batch alone"),
        (ema(lambda u, s, c, t, ou, os, e: s / smooth(ou, e)), "divided by the OLD use"),
        (ema(lambda u, s, c, t, ou, os, e: os / smooth(u, e)), "left the sums as they were"),
        (mean_of_means, "averaged the means of the batches"),
        (mean_in_sum, "MEAN of the batch's tokens"),
        (in_place, "changed its argument number 1"),
    ],
}
