"""What all checkers share: the verdict, and how an answer is held against known mistakes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from serplib.seeding import named_generator


class Hint(Exception):
    """What to tell a learner whose answer is not right yet."""


def exercise(examine: Callable[[Callable], None]) -> Callable[[Callable], None]:
    """Make a checker, which prints its verdict, of an examination, which raises a `Hint`."""

    @functools.wraps(examine)
    def checker(function: Callable) -> None:
        print(f"{examine.__name__}: {_verdict(examine, function)}")

    return checker


def _verdict(examine: Callable[[Callable], None], function: Callable) -> str:
    if not callable(function):
        return f"not yet. Pass the function itself, without calling it; got {type(function)}."
    try:
        examine(function)
    except NotImplementedError:
        return "still open. Put your answer where the stub raises; the notebook runs on meanwhile."
    except Hint as hint:
        return f"not yet. {hint}"
    except Exception as error:  # the learner's own code stopped: say where to look, go on
        return f"not yet. Your function stopped with {type(error).__name__}: {error}"
    return "right!"


def call(function: Callable, *arguments, **options) -> Tensor:
    """The learner's answer, once it is sure that the arguments were left as they were."""
    before = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    answer = function(*arguments, **options)
    for number, (old, new) in enumerate(zip(before, arguments)):
        if isinstance(old, Tensor) and not torch.equal(old, new):
            raise Hint(
                f"Your function changed its argument number {number + 1} in place. Work on a copy "
                "(.clone()), or the clean cloud is lost and the target of the training with it."
            )
    if answer is None:
        raise Hint("Your function returned None. Is a 'return' missing?")
    return answer


def compare(answer: Tensor, right: Tensor, mistakes: list[tuple[Tensor, str]], shape: str) -> None:
    """Raise the hint of the known mistake that gives this answer, or say how far off it is."""
    if not isinstance(answer, Tensor):
        raise Hint(f"Your function returned {type(answer).__name__}, wanted a tensor {shape}.")
    for wrong, hint in mistakes:  # a wrong shape may be a known mistake, too
        if answer.shape == wrong.shape and torch.allclose(answer.float(), wrong, atol=1e-5):
            if wrong.shape != right.shape or not torch.allclose(wrong, right, atol=1e-5):
                raise Hint(hint)
    if answer.shape != right.shape:
        raise Hint(f"The shape is {tuple(answer.shape)}, wanted {tuple(right.shape)}, {shape}.")
    if not torch.allclose(answer.float(), right, atol=1e-5):
        gap = (answer.float() - right).abs().max().item()
        raise Hint(f"The shape is right, the values are not: the largest gap is {gap:.2g}.")


def clouds(name: str, batch: int = 2, num_points: int = 64) -> Tensor:
    """Clouds that no mistake can hide in: off the origin, and unlike along the three axes."""
    points = torch.randn(batch, num_points, 3, generator=named_generator("check", name))
    spread = torch.tensor([[1.0, 2.0, 0.5], [3.0, 0.7, 1.0]])[:batch, None]
    return points * spread + torch.tensor([0.5, -1.0, 2.0])  # (B, N, 3)
