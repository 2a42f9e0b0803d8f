"""Checkers of notebook 11: how sure is a difference?"""

from __future__ import annotations

import math
from collections.abc import Callable

from serplib.course.exercises.grading import Hint, call, exercise


def _number(answer: object) -> float:
    if isinstance(answer, bool) or not isinstance(answer, (int, float)):
        raise Hint(f"Your function returned {type(answer).__name__}, wanted one number.")
    return float(answer)


def _held(answer: float, right: float, mistakes: list[tuple[float, str]]) -> None:
    for wrong, hint in mistakes:
        if math.isclose(answer, wrong, rel_tol=1e-6, abs_tol=1e-9):
            if not math.isclose(wrong, right, rel_tol=1e-6, abs_tol=1e-9):
                raise Hint(hint)
    if not math.isclose(answer, right, rel_tol=1e-6, abs_tol=1e-9):
        raise Hint(f"Wanted {right:.4g} here, got {answer:.4g}.")


@exercise
def standard_error(function: Callable[[float, int], float]) -> None:
    """Standard error of an accuracy: ``(percent, shapes) -> points of a per cent``."""
    for percent, shapes in ((92.42, 2468), (50.0, 100), (66.06, 480)):
        p = percent / 100
        right = 100 * math.sqrt(p * (1 - p) / shapes)
        mistakes = [
            (100 * p * (1 - p) / shapes, "That is the variance. The error is its square root."),
            (right / 100, "That is a share: the accuracy came in per cent, so must its error."),
            (100 * math.sqrt(p / shapes), "You left out 1 - p: a right answer and a wrong one "
             "are equally uncertain."),
            (100 * math.sqrt(p * (1 - p)), "That is the spread of ONE shape. Divide by shapes "
             "inside the root."),
            (100 * math.sqrt(p * (1 - p)) / shapes, "Divide by the square root of the number of "
             "shapes, not by the number itself."),
            (1.96 * right, "That is half of a 95 % interval. Wanted: one standard error."),
        ]  # fmt: skip
        _held(_number(call(function, percent, shapes)), right, mistakes)


@exercise
def sign_test(function: Callable[[int, int], float]) -> None:
    """McNemar's exact p, two-sided: ``(gained, lost) -> p``."""

    def tail(k: int, n: int) -> float:
        return sum(math.comb(n, i) for i in range(k + 1)) / 2**n

    for gained, lost in ((10, 2), (2, 10), (16, 9), (1, 0), (5, 5), (0, 0)):
        n, few = gained + lost, min(gained, lost)
        right = min(1.0, 2 * tail(few, n))
        mistakes = [
            (tail(few, n), "That is one side. A difference the other way would have surprised "
             "you, too: twice that."),
            (2 * tail(few, n), "A probability above 1: cut it off at 1."),
            (min(1.0, 2 * math.comb(n, few) / 2**n), "That is the chance of exactly this split. "
             "Add up all that are at least as uneven."),
            (min(1.0, 2 * tail(gained, n)), "You took the tail below `gained`. When gained is "
             "the larger one, the rare side is the other: take the smaller of the two."),
            (1 - tail(few, n), "That is the chance of a MORE even split. Wanted: this uneven or "
             "more."),
        ]  # fmt: skip
        _held(_number(call(function, gained, lost)), right, mistakes)


@exercise
def seeds_needed(function: Callable[[float, float], int]) -> None:
    """Seeds until 1.96 standard errors of a mean are below a gain: ``(gain, sd) -> int``."""
    for gain, sd in ((0.62, 2.0), (0.62, 0.55), (3.0, 1.0), (0.1, 1.96), (1.96, 1.0)):
        raw = (1.96 * sd / gain) ** 2
        right = max(2, math.floor(raw + 1e-9) + 1)
        mistakes = [
            (max(2, math.floor(1.96 * sd / gain + 1e-9) + 1), "The error falls with the SQUARE "
             "ROOT of the number of seeds: square the ratio."),
            (max(2, math.floor(raw + 1e-9)), "One too few: with that many, the interval still "
             "reaches 0 or beyond."),
            (math.floor(raw + 1e-9) + 1, "One seed has no spread to measure: at least 2."),
            (max(2, math.floor((sd / gain) ** 2 + 1e-9) + 1), "You forgot the 1.96: one standard "
             "error is a 68 % interval."),
            (raw, "Seeds are whole: the smallest number for which the half width is below the "
             "gain."),
        ]  # fmt: skip
        _held(_number(call(function, gain, sd)), right, mistakes)
