"""Checkers of the exercises in 07_vasp."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from serplib.course.exercises.grading import Hint, call, compare, exercise
from serplib.seeding import named_generator


@exercise
def vq_terms(function: Callable[[Tensor, Tensor, float, float], tuple[Tensor, Tensor]]) -> None:
    """The second and third term of Eq. 13: ``z (M, l), e (M, l), alpha, beta -> (), ()``."""
    generator = named_generator("check", "vq terms")
    z = torch.randn(5, 4, generator=generator).requires_grad_()  # (M, l)
    e = torch.randn(5, 4, generator=generator).requires_grad_()  # (M, l)
    alpha, beta = 0.7, 0.2
    answer = call(function, z, e, alpha, beta)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Hint("Wanted two tensors: the codebook term and the commitment term, in this order.")
    if not all(isinstance(term, Tensor) and term.ndim == 0 for term in answer):
        raise Hint("Each term is one number: a tensor without dimensions, the mean over all.")
    square = float((z - e).detach().square().mean())
    values = [float(term.detach()) for term in answer]
    _known_values(values, square, alpha, beta, z.detach() - e.detach())
    for name, term, stays, moves in (
        ("codebook", answer[0], "z", "e"),
        ("commitment", answer[1], "e", "z"),
    ):
        got = {
            side
            for side, gradient in zip("ze", _gradients(term, z, e))
            if gradient is not None and bool(gradient.abs().sum() > 0)
        }
        if got == {moves}:
            continue
        if got == {"z", "e"}:
            raise Hint(
                f"The {name} term sends a gradient to both z and e. Stop it at {stays}: "
                f"{stays}.detach() is sg[{stays}]."
            )
        if got == {stays}:
            raise Hint(
                f"You stopped the wrong side: the {name} term is to move {moves}, and moves "
                f"{stays} in your answer."
            )
        raise Hint(
            f"The {name} term sends no gradient anywhere. Detach one side only, and no "
            "torch.no_grad()."
        )


def _known_values(
    values: list[float], square: float, alpha: float, beta: float, gap: Tensor
) -> None:
    """A hint for values that a known mistake gives; ``gap (M, l)`` is z - e."""

    def near(first: float, second: float) -> bool:
        return math.isclose(values[0], first, rel_tol=1e-4) and math.isclose(
            values[1], second, rel_tol=1e-4
        )

    if near(alpha * square, beta * square):
        return
    if near(beta * square, alpha * square):
        raise Hint(
            "alpha and beta have changed places (or the two terms have): alpha belongs to the "
            "codebook term, which comes first."
        )
    if near(square, square):
        raise Hint("The weights are missing: alpha times the first term, beta times the second.")
    length, tokens = gap.shape[1], len(gap)
    if near(alpha * square * length, beta * square * length):
        raise Hint(
            "You summed over the dimensions, as the norm that Eq. 13 prints does. That is l times "
            "the mean that van den Oord's and the authors' code take: use .mean() over everything."
        )
    if near(alpha * square * length * tokens, beta * square * length * tokens):
        raise Hint("You summed over the tokens too: the term would grow with the batch. .mean().")
    size = float(gap.norm(dim=1).mean())
    if near(alpha * size, beta * size):
        raise Hint("That is the length of z - e. Eq. 13 has it SQUARED.")
    if near(alpha * float(gap.mean()), beta * float(gap.mean())):
        raise Hint("The differences are not squared, so that they cancel.")
    raise Hint(
        f"Wanted alpha and beta times the mean of (z - e)^2: {alpha * square:.3f} and "
        f"{beta * square:.3f}, got {values[0]:.3f} and {values[1]:.3f}."
    )


def _gradients(term: Tensor, z: Tensor, e: Tensor) -> tuple[Tensor | None, Tensor | None]:
    if not term.requires_grad:
        return None, None
    return torch.autograd.grad(term, (z, e), allow_unused=True, retain_graph=True)


@exercise
def perplexity(function: Callable[[Tensor], float]) -> None:
    """The effective number of codes from how often each was taken: ``counts (K,) -> float``."""
    for counts in ([6, 3, 1], [1, 1, 1, 1], [8, 0, 2, 0, 0], [0, 5]):
        n = torch.tensor(counts)
        p = n[n > 0].double() / n.sum()
        entropy = float(-(p * p.log()).sum())
        right, live = math.exp(entropy), len(p)
        answer = float(call(function, n))
        if math.isclose(answer, right, rel_tol=1e-4):
            continue
        mistakes = [
            (entropy, "That is the entropy. The perplexity is its exp: a number of codes."),
            (entropy / math.log(2), "That is the entropy in bits. Raise 2 to its power."),
            (
                math.exp(entropy / math.log(2)),
                "You took the logarithm to base 2 and then exp, which is to base e. Use one base.",
            ),
            (1 / right, "You lost the minus sign: that is 1 / perplexity."),
            (float(live), "That is the number of codes used at all, however unevenly."),
            (live / len(n), "That is the share of codes used at all."),
            (
                float(1 / p.square().sum()),
                "That is 1 / sum p^2, another effective number (it weighs rare codes less). The "
                "perplexity is exp of the entropy.",
            ),
            (right / len(n), "You divided by K. The perplexity is a number of codes, 1 to K."),
        ]
        if math.isnan(answer):
            raise Hint(
                f"NaN for counts {counts}: a dead code has p = 0, and 0 * log 0 is NaN to a "
                "computer. Its limit is 0: leave dead codes out, or use torch.special.entr."
            )
        for wrong, hint in mistakes:
            if math.isclose(answer, wrong, rel_tol=1e-4, abs_tol=1e-9):
                raise Hint(hint)
        raise Hint(
            f"For counts {counts} you say {answer:.3g}, wanted {right:.3g}. Shares first, "
            "p = counts / counts.sum(); then the entropy; then exp."
        )


@exercise
def ema_codes(
    function: Callable[[Tensor, Tensor, Tensor, Tensor, float, float], Tensor],
) -> None:
    """Codes after one step of moving averages.

    ``usage (K,), token_sum (K, l), tokens (M, l), index (M,), decay, epsilon -> codes (K, l)``.
    """
    generator = named_generator("check", "ema")
    tokens = 2 + torch.randn(9, 3, generator=generator)  # (M, l)
    index = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2])  # (M,), nobody takes code 3
    usage = torch.tensor([3.0, 5.0, 1.0, 0.0])  # (K,), and nobody ever did
    token_sum = torch.randn(4, 3, generator=generator) * usage[:, None]  # (K, l)
    decay, epsilon = 0.8, 0.3
    counts = torch.bincount(index, minlength=4).float()  # (K,)
    sums = torch.zeros_like(token_sum).index_add(0, index, tokens)  # (K, l)
    means = sums / counts.clamp_min(1)[:, None]  # (K, l)

    def smooth(use: Tensor) -> Tensor:
        return ((use + epsilon) / (use.sum() + len(use) * epsilon) * use.sum())[:, None]  # (K, 1)

    new_usage, new_sum = usage.lerp(counts, 1 - decay), token_sum.lerp(sums, 1 - decay)
    right = new_sum / smooth(new_usage)  # (K, l)
    old = token_sum / usage.clamp_min(1e-9)[:, None]
    averaged = old.lerp(means, 1 - decay)  # (K, l)
    swapped_usage, swapped_sum = usage.lerp(counts, decay), token_sum.lerp(sums, decay)
    mistakes = [
        (
            swapped_sum / smooth(swapped_usage),
            "decay has changed sides: the OLD average keeps decay, the batch gets 1 - decay.",
        ),
        (
            new_sum / (new_usage + epsilon)[:, None],
            "You added epsilon and left the total larger than it was. Laplace smoothing rescales: "
            "times total / (total + K epsilon).",
        ),
        (
            new_sum / ((new_usage + epsilon) / (new_usage.sum() + 4 * epsilon))[:, None],
            "Your smoothed use sums to 1. Multiply by the total use: the sums are sums, not means.",
        ),
        (
            averaged,
            "You averaged the means of the batches, so that a batch which gave a code one token "
            "counts as much as one that gave it fifty. Average sums and counts, then divide.",
        ),
        (
            token_sum.lerp(means, 1 - decay) / smooth(new_usage),
            "You averaged the MEAN of the batch's tokens into token_sum. It holds sums: "
            "index_add, without dividing.",
        ),
        (
            sums / smooth(counts),
            "You used this batch alone. The moving averages of the batches before are lost.",
        ),
        (
            new_sum / smooth(usage),
            "You averaged the sums and divided by the OLD use. Both are averaged first.",
        ),
        (
            token_sum / smooth(new_usage),
            "You averaged the use and left the sums as they were. Both are averaged first.",
        ),
    ]
    answer = call(function, usage, token_sum, tokens, index, decay, epsilon)
    if isinstance(answer, Tensor) and answer.isnan().any():
        raise Hint(
            "NaN for a code that nobody ever took: 0 / 0. That is what the Laplace smoothing "
            "(epsilon) is for."
        )
    compare(answer, right, mistakes, "(K, l)")
