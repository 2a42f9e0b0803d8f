"""Checkers of the exercises in C_protocol: the best of many epochs, and votes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from serplib.course.exercises.grading import exercise
from serplib.seeding import named_generator


def _epochs() -> Iterator[tuple[Tensor, Tensor]]:
    """Yield right answers ``(E, S)`` bool and accuracies on validation ``(E,)`` float32."""
    for case, (epochs, shapes, best) in enumerate(((6, 40, 2), (5, 25, 0), (9, 64, 4))):
        draw = torch.rand(epochs, shapes, generator=named_generator("inflation", case))
        valid = 0.6 + 0.01 * torch.arange(epochs).roll(3)  # (E,)
        valid[[best, epochs - 2]] = 0.9  # equal: the first of them counts
        yield draw < torch.linspace(0.5, 0.8, epochs)[:, None].roll(2, 0), valid


@exercise(_epochs)
def inflation(correct: Tensor, valid: Tensor):
    """Return what choosing the epoch on the test set adds: ``(E, S) bool, (E,) -> ()``."""
    test = correct.double().mean(1)  # (E,)
    first = int(valid.argmax())
    last = int((valid == valid.max()).nonzero()[-1])
    right = test.max() - test[first]
    return right, {
        "That is the accuracy of the best epoch. Subtract that of the epoch chosen on validation.":
            test.max(),
        "That is the accuracy of the chosen epoch. What does the best epoch have more?":
            test[first],
        "You subtracted the last epoch's accuracy. The epoch with the best `valid` is chosen.":
            test.max() - test[-1],
        "You subtracted the mean over the epochs. One epoch is chosen, by `valid`.":
            test.max() - test.mean(),
        "Of epochs with equal `valid` take the first.": test.max() - test[last],
        "You compared an accuracy on the test set with one on validation. Both are on the test "
        "set.": [test.max() - valid.max(), test.max() - valid[int(test.argmax())]],
        "You counted a shape as right that any epoch gets right. One epoch is chosen for all "
        "shapes.": correct.any(0).double().mean() - test[first],
        "That is a number of shapes. Divide by S.": correct.shape[1] * right,
        "You divided by the number of epochs. Divide by S.":
            correct.shape[1] / correct.shape[0] * right,
    }  # fmt: skip


def _logits() -> Iterator[tuple[Tensor]]:
    """Yield logits ``(V, B, C)`` on which means, logits, majority and one vote disagree."""
    for case, size in enumerate(((3, 40, 3), (5, 30, 4), (2, 20, 3))):
        yield (3 * torch.randn(size, generator=named_generator("vote", case)),)


@exercise(_logits)
def vote(logits: Tensor):
    """Return the class of the largest mean probability: ``(V, B, C) -> (B,)`` int64."""
    chance, single = logits.softmax(-1), logits.argmax(-1)  # (V, B, C), (V, B)
    return chance.mean(0).argmax(-1), {
        "You averaged logits, which multiplies the probabilities: one vote near 0 then decides. "
        "Average the probabilities.": logits.mean(0).argmax(-1),
        "That is the majority of the votes. Average the probabilities: a sure vote counts more.":
            [single.mode(0).values,
             torch.nn.functional.one_hot(single, logits.shape[-1]).sum(0).argmax(-1)],
        "That is the surest single vote. Average over the votes.": chance.amax(0).argmax(-1),
        "That is one vote. Average over all of them.": [single[0], single[-1]],
        "You took the median. Average the probabilities.": chance.median(0).values.argmax(-1),
        "The softmax runs over the classes, the last axis.":
            [logits.softmax(0).mean(0).argmax(-1), logits.softmax(1).mean(0).argmax(-1)],
        "You took the least likely class.": chance.mean(0).argmin(-1),
        "Those are probabilities. Wanted the class: `argmax`.":
            [chance.mean(0), chance.mean(0).amax(-1)],
        "Those are the votes. Wanted one class for each cloud.": single,
    }  # fmt: skip
