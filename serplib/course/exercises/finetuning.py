"""Checkers of notebook 09: splits, counts and fair comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from serplib.course.exercises.grading import Hint, call, exercise
from serplib.seeding import named_generator


@exercise
def stratified(function: Callable[[Tensor, float, torch.Generator], Tensor]) -> None:
    """A stratified split: ``(labels (S,), fraction, generator) -> (S,) bool``, True is held out."""
    labels = torch.tensor([0] * 40 + [1] * 12 + [2] * 4 + [3] * 2)
    labels = labels[torch.randperm(len(labels), generator=named_generator("check", "labels"))]
    held = call(function, labels, 0.25, named_generator("check", "split"))
    if not isinstance(held, Tensor) or held.shape != labels.shape or held.dtype != torch.bool:
        raise Hint("Wanted a bool tensor (S,): True where a shape is held out.")
    counts = [int(held[labels == c].sum()) for c in range(4)]
    sizes = [int((labels == c).sum()) for c in range(4)]
    wanted = [10, 3, 1, 1]
    if counts == [size - count for size, count in zip(sizes, wanted)]:
        raise Hint("True and False are the wrong way round: True is held out, False stays.")
    if counts[3] == 2:
        raise Hint("A class of two was held out whole: nothing is left to learn it from.")
    if counts[3] == 0 and counts[:3] == wanted[:3]:
        raise Hint("Of a class of two nothing was held out: at least one of each class.")
    if counts != wanted and int(held.sum()) in (14, 15):
        raise Hint(
            f"The total is right, the classes are not: {counts} held out of {sizes}, wanted "
            f"{wanted}. Draw within each class, not over all shapes at once."
        )
    if counts != wanted:
        raise Hint(f"Held out {counts} of classes with {sizes} shapes, wanted {wanted}.")
    again = call(function, labels, 0.25, named_generator("check", "split"))
    other = call(function, labels, 0.25, named_generator("check", "other split"))
    if not torch.equal(held, again):
        raise Hint("The same generator seed gave another split: pass generator=generator on.")
    if torch.equal(held, other):
        raise Hint("Another seed gave the same split: is anything drawn at random?")


def _batches(sizes: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    generator = named_generator("check", "batches", *sizes)
    labels = [torch.randint(3, (size,), generator=generator) for size in sizes]
    said = [torch.randint(3, (size,), generator=generator) for size in sizes]
    return said, labels


@exercise
def accuracy(function: Callable[[list[Tensor], list[Tensor]], float]) -> None:
    """Accuracy over batches, the last one short: ``(predictions, labels) -> float``."""
    for sizes in ((9, 9, 4), (8, 8, 8, 3), (4, 4)):
        said, labels = _batches(sizes)
        hits = [int((p == y).sum()) for p, y in zip(said, labels)]
        right = sum(hits) / sum(sizes)
        answer = call(function, said, labels)
        if isinstance(answer, Tensor) and answer.numel() == 1:
            answer = answer.item()
        if isinstance(answer, bool) or not isinstance(answer, (int, float)):
            raise Hint(f"Your function returned {type(answer).__name__}, wanted one number.")
        mistakes = [
            (
                sum(hits) / (len(sizes) * sizes[0]),
                "You divided by batches x batch size: that is the divisor of the published "
                "tables. The last batch is short.",
            ),
            (
                sum(h / s for h, s in zip(hits, sizes)) / len(sizes),
                "That is the mean of the batches' accuracies: a shape of the short batch counts "
                "more than one of a full batch.",
            ),
            (
                sum(hits[:-1]) / sum(sizes[:-1]),
                "You left the last batch out.",
            ),
            (sum(hits), "That is the number of hits. Divide by the number of shapes."),
            (1 - right, "That is the share of WRONG answers."),
            (100 * right, "That is in per cent; wanted a number from 0 to 1."),
        ]
        for wrong, hint in mistakes:
            if math.isclose(answer, wrong) and not math.isclose(wrong, right):
                raise Hint(hint)
        if not math.isclose(answer, right, rel_tol=1e-6):
            raise Hint(f"Wanted {right:.3f} here, got {answer:.3f}.")


@exercise
def fair_gain(function: Callable[[dict, dict], float]) -> None:
    """Mean gain over common seeds: ``({seed: accuracy}, {seed: accuracy}) -> float``."""
    ours, base = {0: 60.0, 1: 70.0, 5: 95.0}, {1: 64.0, 0: 57.0, 7: 10.0, 8: 20.0}
    answer = call(function, dict(ours), dict(base))
    if isinstance(answer, bool) or not isinstance(answer, (int, float)):
        raise Hint(f"Your function returned {type(answer).__name__}, wanted one number.")
    mistakes = [
        (75.0 - 151 / 4, "You compared the means of ALL seeds; 5, 7 and 8 ran in one arm only."),
        (94 / 3, "You paired by position. Pair by seed: the dictionaries' order says nothing."),
        (-4.5, "The sign is turned round: ours minus base."),
        (9.0, "That is the sum of the gains, not their mean."),
        (3.0, "You divided by all seeds of one arm, not by those that both have."),
        (6.0, "That is the best seed's gain. Wanted: the mean."),
    ]  # fmt: skip
    for wrong, hint in mistakes:
        if math.isclose(answer, wrong):
            raise Hint(hint)
    if not math.isclose(answer, 4.5):
        raise Hint(f"Wanted 4.5 here, got {answer:.4g}.")
    try:
        nothing = function({0: 1.0}, {1: 1.0})
    except NotImplementedError:
        raise
    except ValueError:
        return
    except ZeroDivisionError:
        raise Hint("No seed in common divides by zero: raise a ValueError that says so.") from None
    raise Hint(f"No seed in common, and you returned {nothing!r}: raise a ValueError.")
