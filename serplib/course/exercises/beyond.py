"""Checkers of the exercises in 10_leakage_and_beyond."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from serplib.course.exercises.grading import Hint, call, compare, exercise
from serplib.seeding import named_generator


@exercise
def given_away(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Share of the hidden patches' places whose point a visible patch holds, too.

    ``index (B, c, n) int64, hidden (B, c) bool -> (B,)``.
    """
    generator = named_generator("check", "given away")
    index = torch.stack([torch.randperm(30, generator=generator)[:5] for _ in range(14)])
    index = index.view(2, 7, 5)  # (B, c, n)
    hidden = torch.tensor(
        [[1, 1, 0, 0, 1, 0, 1], [0, 1, 0, 1, 0, 0, 1]], dtype=torch.bool
    )  # (B, c)

    def inside(where: Tensor) -> Tensor:
        """Which of 30 points lie in a patch of ``where``, ``(B, 30)``."""
        found = torch.zeros(2, 30, dtype=torch.bool)
        for cloud in range(2):
            found[cloud, index[cloud][where[cloud]].flatten()] = True
        return found

    def share(known: Tensor, where: Tensor = hidden) -> Tensor:
        shown = torch.stack([known[b][index[b]] for b in range(2)])  # (B, c, n)
        return torch.stack([shown[b][where[b]].float().mean() for b in range(2)])  # (B,)

    seen, unseen = inside(~hidden), inside(hidden)
    right = share(seen)
    shown = torch.stack([seen[b][index[b]] for b in range(2)])  # (B, c, n)
    slots = (shown & hidden[..., None]).flatten(1).sum(1).float()  # (B,)
    others = torch.zeros(2)
    for b in range(2):
        for i in hidden[b].nonzero()[:, 0].tolist():
            rest = torch.cat([index[b, :i], index[b, i + 1 :]]).flatten()
            others[b] += torch.isin(index[b, i], rest).float().mean() / hidden[b].sum()
    mistakes = [
        (share(unseen, ~hidden), "You asked it of the visible patches. Exchange the two."),
        (1 - right, "That is the share that stays secret. Wanted is what is given away."),
        (
            (seen & unseen).sum(1) / unseen.sum(1),
            "You counted each point once. A decoder has to fill n places in each hidden patch: "
            "count places, so that a point in two hidden patches counts twice.",
        ),
        (
            share(seen.any(0).expand(2, -1)),
            "You laid the clouds of the batch together: index 5 of one cloud is another point "
            "than index 5 of the next.",
        ),
        (
            others,
            "You counted the other hidden patches, too. The encoder sees visible patches only.",
        ),
        (torch.ones(2), "Every point lies in its own patch. Look in the visible ones."),
        (
            slots / index[0].numel(),
            "You divided by the places of all patches. Divide by those of the hidden ones.",
        ),
        (slots, "That is a number of places. Divide by how many the hidden patches have."),
        (
            torch.stack([shown[b][hidden[b]].any(1).float().mean() for b in range(2)]),
            "That is the share of hidden patches that give away anything at all. Count places.",
        ),
        (right.mean(), "That is one number for the batch. Wanted one for each cloud."),
    ]
    compare(call(function, index, hidden), right, mistakes, "(B,)")


@exercise
def leaked_share(function: Callable[[float, float, float, float], float]) -> None:
    """What positions of this very shape explain: ``(constant, another, positions, full) -> float``.

    All four are losses.
    """
    for constant, another, positions, full in ((2.0, 1.5, 0.8, 0.3), (8.0, 5.0, 4.0, 3.0)):
        gain = constant - full
        right = (another - positions) / gain
        mistakes = [
            (
                (constant - positions) / gain,
                "That is `explained`. Positions also make tokens differ at all; take away what "
                "those of another shape explain.",
            ),
            (
                (constant - another) / gain,
                "That is what positions of ANOTHER shape explain. Wanted: own minus another's.",
            ),
            (-right, "The sign is wrong: a lower loss explains more."),
            (
                (another - positions) / constant,
                "You divided by the constant's loss. The whole is what the autoencoder gains over "
                "the constant.",
            ),
            (
                (another - positions) / (another - full),
                "Your whole starts at the wrong decoder: the gain is counted from the constant.",
            ),
            (another - positions, "That is a difference of losses. Divide by the whole gain."),
            (100 * right, "That is in per cent. Wanted a share."),
            (
                positions / full,
                "A ratio of losses is not a share of a gain: start from the differences.",
            ),
        ]
        answer = float(call(function, constant, another, positions, full))
        if abs(answer - right) <= 1e-6:
            continue
        for wrong, hint in mistakes:
            if abs(answer - wrong) <= 1e-6:
                raise Hint(hint)
        raise Hint(
            f"For constant {constant:g}, another {another:g}, positions {positions:g} and full "
            f"{full:g} you say {answer:.3f}. The whole is constant - full; which part is wanted?"
        )


@exercise
def kl_to_uniform(function: Callable[[Tensor], Tensor]) -> None:
    """KL(q || uniform) of softmax(logits), mean over tokens, in nats: ``(B, T, K) -> ()``."""
    logits = 1.5 * torch.randn(2, 5, 6, generator=named_generator("check", "uniform"))
    log_q = logits.log_softmax(-1)  # (B, T, K)
    q, size = log_q.exp(), logits.shape[-1]
    entropy = -(q * log_q).sum(-1)  # (B, T)
    each = math.log(size) - entropy  # (B, T)
    over_tokens = logits.log_softmax(1)  # (B, T, K)
    mean_q = q.mean(1)  # (B, K)
    backwards = -log_q.mean(-1) - math.log(size)  # (B, T)
    mistakes = [
        (entropy.mean(), "That is the entropy H(q). KL to uniform is log K - H(q)."),
        (-entropy.mean(), "log K is missing: your value is never above 0, and a KL never below."),
        (
            backwards.mean(),
            "That is KL(uniform || q), the other way round: it punishes a code that is never "
            "likely. Weigh the logarithms by q.",
        ),
        (
            (math.log(size) + (mean_q * mean_q.log()).sum(-1)).mean(),
            "You averaged q over the tokens first. That asks whether codes are used evenly, not "
            "what each token says.",
        ),
        (
            (-mean_q.log().mean(-1) - math.log(size)).mean(),
            "That is Point-BERT's term: the mean over a cloud's tokens, and the other way round.",
        ),
        (each.mean() / math.log(2), "That is in bits. Nats take the natural logarithm."),
        (each.mean() / size, "You took the mean over the codes. A KL sums over them."),
        (each.sum(), "You summed over the tokens. Wanted their mean."),
        (each, "That is one value a token. Wanted their mean."),
        (
            (over_tokens.exp() * (over_tokens + math.log(size))).sum(-1).mean(),
            "Your softmax runs over the tokens. Each token has a distribution over its K codes: "
            "dim=-1.",
        ),
    ]
    compare(call(function, logits), each.mean(), mistakes, "()")
