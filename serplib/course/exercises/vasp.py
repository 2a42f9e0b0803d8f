"""Checkers of the exercises in 07_vasp."""

import math

import torch
from torch import Tensor

from serplib.course.exercises.grading import exercise, normal


@exercise(
    lambda: [(*normal("vq terms", 2, *shape), 0.7, 0.2) for shape in ((5, 4), (4, 4))],
    shape="two numbers: the codebook term, then the commitment term",
    trains=("z", "e"),
)
def vq_terms(z: Tensor, e: Tensor, alpha: float, beta: float):
    """Return the last two terms of Eq. 13: ``z (M, l), e (M, l), alpha, beta -> (), ()``."""
    gap, sides = z - e, ("e", "z", "both", "none")  # (M, l)

    def measured(values: Tensor) -> Tensor:
        """Both terms of another measure than the mean square."""
        return torch.stack([alpha * values, beta * values])

    def moving(codebook: str, commitment: str) -> Tensor:
        """Both terms, each with a gradient to the side that is named."""
        gaps = {"e": z.detach() - e, "z": z - e.detach(), "both": gap, "none": gap.detach()}
        first, second = (gaps[side].square().mean() for side in (codebook, commitment))
        return torch.stack([alpha * first, beta * second])

    square, summed, length = gap.square(), gap.square().sum(1), gap.norm(dim=1)
    return moving("e", "z"), {
        "The codebook term sends a gradient to both z and e. Stop it at z: z.detach() is sg[z].":
            [moving("both", side) for side in sides],
        "You stopped the wrong side: the codebook term is to move e, not z.":
            [moving("z", side) for side in sides],
        "The codebook term sends no gradient anywhere. Detach one side only, and no "
        "torch.no_grad().": [moving("none", side) for side in sides],
        "The commitment term sends a gradient to both: use e.detach().": moving("e", "both"),
        "You stopped the wrong side: the commitment term is to move z, not e.": moving("e", "e"),
        "The commitment term sends no gradient. Detach one side only.": moving("e", "none"),
        "alpha and beta have changed places (or the two terms have): alpha belongs to the codebook"
        " term, which comes first.": measured(square.mean()).flip(0),
        "The weights are missing: alpha first, then beta.": torch.stack(2 * [square.mean()]),
        "You summed over the dimensions, as the norm that Eq. 13 prints does. The authors' code "
        "takes .mean() over everything.": measured(summed.mean()),
        "You summed over the tokens too: the term would grow with the batch. Use .mean().":
            measured(square.sum()),
        "That is the length of z - e. Eq. 13 has it SQUARED.":
            [measured(value) for value in (length.mean(), gap.abs().mean(), square.mean().sqrt())],
        "The differences are not squared, so that they cancel.": measured(gap.mean()),
        "You squared the mean. Square every difference first.": measured(gap.mean().square()),
        "That is the SUM of the two terms. Return both.": (alpha + beta) * square.mean(),
        "Each term is one number: the mean over all tokens and dimensions.":
            [measured(square.mean(1)), measured(square.mean(0)), measured(square)],
    }  # fmt: skip


@exercise(
    [(torch.tensor(n),) for n in ([6, 3, 1], [1, 1, 1, 1], [8, 0, 2, 0, 0], [0, 5], [300, 1, 7])],
    not_finite="NaN: a dead code has p = 0, and 0 * log 0 is NaN to a computer. Its limit is 0: "
    "leave dead codes out, or use torch.special.entr.",
    advice="Shares first, p = counts / counts.sum(); then the entropy; then exp.",
)
def perplexity(counts: Tensor):
    """Return the effective number of codes from their counts: ``(K,) int64 -> float``."""
    p = counts.double() / counts.sum()  # (K,)
    entropy = float(torch.special.entr(p).sum())
    right, live, bits = math.exp(entropy), int((counts > 0).sum()), entropy / math.log(2)
    return right, {
        "That is the entropy. The perplexity is its exp: a number of codes.": entropy,
        "That is the entropy in bits. Raise 2 to its power.": bits,
        "You mixed base 2 and base e. Use one base for the logarithm and the power.":
            [math.exp(bits), 2**entropy],
        "You lost the minus sign: that is 1 / perplexity.": 1 / right,
        "That is the number of codes used at all, however unevenly.": live,
        "That is the share of codes used at all.": live / len(counts),
        "That is 1 / sum p^2, another effective number (it weighs rare codes less). The perplexity"
        " is exp of the entropy.": float(1 / p.square().sum()),
        "You divided by K. The perplexity is a number of codes, 1 to K.": right / len(counts),
        "You took the mean over the codes. The entropy is a sum.": math.exp(entropy / len(counts)),
        "The epsilon in your logarithm changes the result. Take 1e-10, or torch.special.entr.": [
            float((-(p * (p + epsilon).log()).sum()).exp()) for epsilon in (1e-2, 1e-3, 1e-4, 1e-5)
        ],
    }  # fmt: skip


@exercise(
    lambda: [
        (
            usage,  # (K,) sums to another number than there are tokens
            normal("sums", len(usage), len(usage)) * usage[:, None],
            2 + normal("tokens", 9, len(usage)),
            torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2]),  # none takes code 3, nor 4
            0.8,
            0.3,
        )
        for usage in (torch.tensor([3.0, 5, 6, 0]), torch.tensor([3.0, 5, 6, 0, 4]))
    ],
    shape="(K, l)",
    not_finite="NaN for a code that no token ever took: 0 / 0. That is what the Laplace smoothing "
    "(epsilon) is for.",
    may_change=("usage", "token_sum"),
)
def ema_codes(
    usage: Tensor, token_sum: Tensor, tokens: Tensor, index: Tensor, decay: float, epsilon: float
):
    """Return the codes after one step of moving averages.

    ``usage (K,), token_sum (K, l), tokens (M, l), index (M,), decay, epsilon -> codes (K, l)``.
    """
    counts = torch.bincount(index, minlength=len(usage)).float()  # (K,)
    sums = torch.zeros_like(token_sum).index_add(0, index, tokens)  # (K, l)
    last = torch.zeros_like(token_sum).index_copy(0, index, tokens)  # (K, l)
    means = sums / counts.clamp_min(1)[:, None]  # (K, l)

    def smooth(use: Tensor, old: Tensor | None = None, times: int = len(usage)) -> Tensor:
        total = (use if old is None else old).sum()
        return ((use + epsilon) / (total + times * epsilon) * total)[:, None]  # (K, 1)

    use, total = usage.lerp(counts, 1 - decay), token_sum.lerp(sums, 1 - decay)
    old = token_sum / usage.clamp_min(1e-9)[:, None]
    return total / smooth(use), {
        "decay has changed sides: the OLD average keeps decay, the batch gets 1 - decay.":
            token_sum.lerp(sums, decay) / smooth(usage.lerp(counts, decay)),
        "You added epsilon and left the total larger than it was. Laplace smoothing rescales: "
        "times total / (total + K epsilon).": total / (use + epsilon)[:, None],
        "Your smoothed usage sums to 1. Multiply by the total.": total / smooth(use) * use.sum(),
        "The total N of the smoothing is the sum of the NEW usage, not of the usage before this "
        "step or of this batch.": [total / smooth(use, usage), total / smooth(use, counts)],
        "The smoothing adds epsilon K times: total + K epsilon.": total / smooth(use, times=1),
        "You averaged the means of the batches, so that one token of a batch counts as much as "
        "fifty. Average sums and counts, then divide.": old.lerp(means, 1 - decay),
        "You averaged the MEAN of the batch's tokens into token_sum. It holds sums: index_add, "
        "without dividing.": token_sum.lerp(means, 1 - decay) / smooth(use),
        "You left the codes that no token of this batch took where they were. Their averages decay "
        "like all others.": (total / smooth(use)).where(counts[:, None] > 0, old),
        "You used this batch alone. The averages so far are lost.": sums / smooth(counts),
        "You averaged the sums and divided by the OLD usage. Average both.": total / smooth(usage),
        "You averaged the usage, and left the sums as they were.": token_sum / smooth(use),
        "Where several tokens took the same code you kept one of them: 'sums[index] += ...' does "
        "not add up. Use index_add.": token_sum.lerp(last, 1 - decay) / smooth(use),
    }  # fmt: skip
