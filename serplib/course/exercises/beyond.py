"""Checkers of the exercises in 10_leakage_and_beyond and B_bottlenecks."""

import math

import torch
from torch import Tensor

from serplib.course.exercises.grading import exercise, normal


def _hidden_patches() -> list[tuple[Tensor, Tensor]]:
    hidden = torch.tensor([[1, 1, 0, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0, 1]], dtype=torch.bool)
    return [
        (normal("given away", 2, 7 * times, 60).argsort(-1)[..., :5], hidden.repeat(1, times))
        for times in (1, 2)
    ]


@exercise(
    _hidden_patches,
    shape="(B,)",
    no_loop="The values are right, but Python's work grows with the number of patches. The text "
    "says: without a loop over patches.",
)
def given_away(index: Tensor, hidden: Tensor):
    """Return the share of the slots of hidden patches whose point a visible patch holds, too.

    ``index (B, c, n) int64, hidden (B, c) bool -> (B,)``.
    """
    clouds, size = range(len(index)), index.shape[2]

    def inside(which: Tensor) -> Tensor:
        """Mark which of 60 points lie in a patch of ``which (B, c)``: ``(B, 60)``."""
        found = torch.zeros(len(index), 60, dtype=torch.bool)
        for cloud in clouds:
            found[cloud, index[cloud][which[cloud]].flatten()] = True
        return found

    def looked_up(known: Tensor) -> Tensor:
        return torch.stack([known[b][index[b]] for b in clouds]).float()  # (B, c, n)

    def mean(values: Tensor, which: Tensor = hidden) -> Tensor:
        """Mean over the patches of ``which``: ``(B, c) -> (B,)``."""
        return (values * which).sum(1) / which.sum(1)

    seen, unseen = inside(~hidden), inside(hidden)
    shown = looked_up(seen)  # (B, c, n)
    visits = torch.stack([cloud.flatten().bincount(minlength=60) for cloud in index])  # (B, N)
    both = (seen & unseen).sum(1)  # (B,) points
    often = torch.stack([cloud[~off].flatten().bincount(minlength=60)
                         for cloud, off in zip(index, hidden)])  # (B, N) visible slots  # fmt: skip
    right, slots = mean(shown.mean(2)), (shown.sum(2) * hidden).sum(1)  # (B,) each
    pooled = torch.isin(index[hidden], index[~hidden]).float().mean()
    return right, {
        "You counted in the visible patches. Exchange hidden and visible.":
            mean(looked_up(unseen).mean(2), ~hidden),
        "You counted each point once. A point in two hidden patches fills two slots.":
            [both / unseen.sum(1), both / seen.sum(1), both / (seen | unseen).sum(1), both],
        "You counted a point of two visible patches twice. Ask whether it is visible, not how "
        "often.": mean(looked_up(often).mean(2)),
        "That is the share of patches that are given away whole. Count slots.":
            mean(shown.amin(2)),
        "You pooled the clouds of the batch: index 5 of one cloud is another point than index 5 of"
        " the next.": mean(looked_up(seen.any(0).expand_as(seen)).mean(2)),
        "You counted the other hidden patches, too. The encoder sees visible patches only.":
            mean(looked_up(visits > 1).mean(2)),
        "All is 1. You looked in all patches, and every point lies in its own; or a mask is no "
        "bool, and its numbers picked rows. Look in the visible patches.": torch.ones(len(index)),
        "You divided by the slots of all patches, or of the visible ones, not of the hidden ones.":
            [slots / index[0].numel(), slots / (size * (~hidden).sum(1))],
        "That is a number of slots. Divide by how many the hidden patches have.":
            [slots, slots / size],
        "You divided by the number of hidden patches. Each has n slots.": size * right,
        "You divided by the hidden slots of the whole batch. Their number differs from cloud to "
        "cloud.": [slots / (hidden.sum() * size), slots / (hidden.sum(1).float().mean() * size)],
        "That is the share of patches that give away anything at all. Count slots.":
            mean(shown.amax(2)),
        "You looked at the centres only, the first point of each patch.": mean(shown[:, :, 0]),
        "That is one number for the batch. Wanted one for each cloud.":
            [right.mean(), slots.sum() / (hidden.sum() * size), pooled],
    }  # fmt: skip


@exercise(
    [(2.0, 1.5, 0.8, 0.3), (8.0, 5.0, 4.0, 3.0), (2.0, 0.7, 0.9, 0.3), (1.0, 1.6, 0.4, 0.2)],
    advice="The whole is constant - full; which part is wanted?",
)
def leaked_share(constant: float, another: float, positions: float, full: float):
    """Return what positions of this very shape explain; all four arguments are losses."""
    gain, part = constant - full, another - positions
    right = part / gain
    return right, {
        "That is `explained`. Positions also make tokens differ at all; take away what those of "
        "another shape explain.": (constant - positions) / gain,
        "That is what positions of ANOTHER shape explain. Subtract it.":
            (constant - another) / gain,
        "The sign is lost. A negative share means that own positions explain less: do not clip.":
            [max(right, 0.0), abs(right)],
        "The share may be above 1: positions of another shape can be worse than none. Do not clip.":
            [min(right, 1.0), (min(another, constant) - positions) / gain],
        "You divided by a single loss. The whole is what the autoencoder gains over the constant.":
            [part / loss for loss in (constant, another, positions, full)],
        "Your whole starts at the wrong decoder: start from the constant.": part / (another - full),
        "Your whole ends at the wrong decoder: it is constant - full.":
            [part / (constant - positions), part / (constant - another)],
        "That is a difference of losses. Divide by the whole gain.": part,
        "A ratio of losses is not a share of a gain: start from the differences.":
            [positions / full, positions / another, another / constant],
        "That is what positions do NOT explain.": [(positions - full) / gain, 1 - right],
    }  # fmt: skip


@exercise(
    lambda: [
        (1.5 * normal("uniform", 2, 5, 6),),
        (1.5 * normal("uniform", 4, 4, 4),),
        (300.0 * torch.eye(6)[None, :4] + normal("certain", 1, 4, 6),),
    ],
    shape="()",
    trains=("logits",),
    not_finite="NaN or infinity for a token that is certain: a softmax underflows to 0, whose log "
    "is -inf. log_softmax is safe.",
)
def kl_to_uniform(logits: Tensor):
    """Return KL(q || uniform) of softmax(logits), mean over tokens, nats: ``(B, T, K) -> ()``."""
    log_q = logits.log_softmax(-1)  # (B, T, K)
    q, size, log_size = log_q.exp(), logits.shape[-1], math.log(logits.shape[-1])
    mean_q = q.mean(1).clamp_min(1e-30)  # (B, K)
    entropy = -(q * log_q).sum(-1)  # (B, T)
    each = log_size - entropy  # (B, T)
    right = each.mean()

    def softmax_over(dim: int) -> Tensor:
        log_p = logits.log_softmax(dim)
        return (log_p.exp() * (log_p + log_size)).sum(-1).mean()

    return right, {
        "That is the entropy H(q). KL to uniform is log K - H(q).": entropy.mean(),
        "log K is missing: your value is never above 0, and a KL never below.": -entropy.mean(),
        "That is KL(uniform || q), the other way round: it penalises a code that is never likely. "
        "Weight the logarithms by q.": -log_q.mean() - log_size,
        "You averaged q over the tokens first. That asks whether codes are used evenly, not "
        "whether each token is certain.": log_size + (mean_q * mean_q.log()).sum(-1).mean(),
        "That is Point-BERT's term: the mean over a cloud's tokens, and the other way round.":
            -mean_q.log().mean() - log_size,
        "You took the mean over the codes. A KL sums over them.":
            [right / size, log_size - entropy.mean() / size],
        "You summed over the tokens. Wanted their mean.": [each.sum(), each.sum(1).mean()],
        "That is one value for each token or cloud. Wanted the mean.": [each, each.mean(1)],
        "Your softmax runs over the tokens or over the batch. Each token has a distribution over "
        "its K codes: dim=-1.": [softmax_over(1), softmax_over(0)],
        "log K takes the number of codes, not of tokens.":
            math.log(logits.shape[1]) - entropy.mean(),
        "The value is right, but a stop gradient cuts q or log q: both depend on the logits.": [
            (q.detach() * log_q).sum(-1).mean() + log_size,
            (q * log_q.detach()).sum(-1).mean() + log_size,
        ],
    }  # fmt: skip
