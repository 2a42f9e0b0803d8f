"""Checkers of the exercises in 11_results: how certain is a difference?"""

from __future__ import annotations

import math

from serplib.course.exercises.grading import exercise


@exercise([(92.42, 2468), (50.0, 100), (66.06, 480)])
def standard_error(percent: float, shapes: int):
    """Return the standard error of an accuracy, in percentage points: ``(percent, shapes)``."""
    p = percent / 100
    spread = 100 * math.sqrt(p * (1 - p))
    right = spread / math.sqrt(shapes)
    return right, {
        "That is the variance. The error is its square "
        "root.": [100 * p * (1 - p) / shapes, 1e4 * p * (1 - p) / shapes],
        "You left out 1 - p, or p: a right answer and a wrong one are equally "
        "uncertain.": [100 * math.sqrt(p / shapes), 100 * math.sqrt((1 - p) / shapes)],
        "That is the standard deviation of ONE shape. Divide by shapes inside the root.": spread,
        "Divide by the square root of the number of shapes, not by the number.": spread / shapes,
        "That is half of a 95 % interval, or all of it. Wanted: one standard "
        "error.": [factor * right for factor in (1.96, 2.0, 3.92, 4.0)],
        "Turn the percentage into a probability before the "
        "root.": math.sqrt(percent * abs(1 - percent) / shapes),
        "You divided by shapes - 1, which is for a variance estimated from a "
        "sample.": spread / math.sqrt(shapes - 1),
        "That is the error at p = 1/2, the largest possible. Use p.": 50 / math.sqrt(shapes),
    }  # fmt: skip


@exercise([(10, 2), (2, 10), (16, 9), (1, 0), (5, 5), (30, 45), (0, 0)])
def sign_test(gained: int, lost: int):
    """Return McNemar's exact p, two-sided: ``(gained, lost) -> p``."""
    n, few = gained + lost, min(gained, lost)

    def tail(k: int) -> float:
        return sum(math.comb(n, i) for i in range(k + 1)) / 2**n

    def chi_square(correction: int) -> float:
        statistic = max(abs(gained - lost) - correction, 0) ** 2 / max(n, 1)
        return math.erfc(math.sqrt(statistic / 2))

    exactly, both = math.comb(n, few) / 2**n, 2 * tail(few)
    sides = [2 * tail(k) for k in (gained, lost, max(gained, lost))]
    return min(1.0, both), {
        "That is one side. A difference the other way counts, too: twice that.": tail(few),
        "A probability above 1: cut it off at 1.": both,
        "That is the chance of exactly this split. Add up all that are at least as "
        "uneven.": [exactly, 2 * exactly, min(1.0, 2 * exactly)],
        "You took the tail below one of the two counts. Where it is the larger one, the rare side "
        "is the other: take the smaller.": [*sides, *(min(1.0, side) for side in sides)],
        "That is the chance of a MORE even split. Wanted: this uneven or "
        "more.": [1 - tail(few), 1 - min(1.0, both)],
        "That is the chi-square approximation. Wanted: the exact binomial "
        "probability.": [chi_square(0), chi_square(1)],
        "You left out this very split: range(few) stops before "
        "few.": [min(1.0, both - 2 * exactly), both - 2 * exactly],
        "You counted this split half, the mid-p value. Wanted: the exact "
        "p.": min(1.0, both - exactly),
    }  # fmt: skip


@exercise([(0.62, 2.0), (0.62, 0.55), (3.0, 1.0), (0.1, 1.96), (0.98, 1.0), (0.49, 1.0)])
def seeds_needed(gain: float, sd: float):
    """Return the seeds until 1.96 standard errors are below a gain: ``(gain, sd) -> int``."""

    def above(value: float) -> int:
        return math.floor(value + 1e-9) + 1

    ratio = 1.96 * sd / gain
    raw = ratio**2
    right = max(2, above(raw))
    return right, {
        "The error falls with the SQUARE ROOT of the number of seeds: square the "
        "ratio.": [max(2, above(ratio)), max(2, math.ceil(ratio - 1e-9))],
        "BELOW the gain: where the half width equals the gain, one more seed is "
        "needed.": max(2, math.ceil(raw - 1e-9)),
        "One too few: with that many, the interval still reaches 0 or "
        "beyond.": [max(2, math.floor(raw + 1e-9)), max(2, round(raw))],
        "One seed has no spread to measure: at least 2.": [above(raw), math.ceil(raw - 1e-9)],
        "You forgot the 1.96: one standard error is a 68 % "
        "interval.": [max(2, above((sd / gain) ** 2)), max(2, math.ceil((sd / gain) ** 2 - 1e-9))],
        "You took 2 for 1.96.": max(2, above((2 * sd / gain) ** 2)),
        "Half the width of the interval is to be below the gain, not all of "
        "it.": max(2, above(4 * raw)),
        "The ratio is inverted: more spread needs more seeds.": max(2, above(3.8416**2 / raw)),
        "Seeds are whole: the smallest number for which the half width is below the "
        "gain.": [raw, max(2.0, raw)],
    }  # fmt: skip
