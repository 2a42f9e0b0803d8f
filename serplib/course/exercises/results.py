"""Checkers of the exercises in 11_results: how certain is a difference?"""

import math

import numpy as np

from serplib.course.exercises.grading import exercise


@exercise([(92.42, 2468), (50.0, 100), (66.06, 480)])
def standard_error(percent: float, shapes: int):
    """Return the standard error of an accuracy, in percentage points: ``(percent, shapes)``."""
    p = percent / 100
    spread, root = 100 * math.sqrt(p * (1 - p)), math.sqrt(shapes)
    right = spread / root
    return right, {
        "That is the variance. The error is its square root.": [right**2 / 100, right**2],
        "You left out 1 - p, or p: a right and a wrong answer are equally uncertain.":
            [100 * math.sqrt(p) / root, 100 * math.sqrt(1 - p) / root],
        "That is the standard deviation of ONE shape. Divide by shapes inside the root.": spread,
        "Divide by the square root of the number of shapes, not by the number.": spread / shapes,
        "That is half of a 95 % interval, or all of it. Wanted: one standard error.":
            [factor * right for factor in (1.96, 2.0, 3.92, 4.0)],
        "Turn the percentage into a probability before the root.":
            math.sqrt(percent * abs(1 - percent) / shapes),
        "You divided by shapes - 1, which is for a variance estimated from a sample.":
            spread / math.sqrt(shapes - 1),
        "That is the error at p = 1/2, the largest possible. Use p.": 50 / root,
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

    def capped(*values: float) -> list[float]:
        return [*values, *(min(1.0, value) for value in values)]

    exactly, both = math.comb(n, few) / 2**n, 2 * tail(few)
    right = min(1.0, both)
    return right, {
        "That is one side. A difference the other way counts, too: twice that.": tail(few),
        "A probability above 1: cut it off at 1.": both,
        "That is the chance of exactly this split. Add up all that are at least as uneven.":
            [exactly, *capped(2 * exactly)],
        "You took the tail below one of the two counts. Take the smaller count: the rare side.":
            capped(*(2 * tail(k) for k in (gained, lost, max(gained, lost)))),
        "That is the chance of a MORE even split. Wanted: this uneven or more.":
            [1 - tail(few), 1 - right],
        "That is the chi-square approximation. Wanted: the exact binomial probability.":
            [chi_square(0), chi_square(1)],
        "You left out this very split: range(few) stops before few.":
            [right - 2 * exactly, both - 2 * exactly],
        "You counted this split half, the mid-p value.": min(1.0, both - exactly),
    }  # fmt: skip


@exercise(
    [
        (0.62, 0.5),
        (0.62, 1.0),
        (0.62, 2.0),
        (0.98, 1.0),
        (3.0, 1.0),
        (3.0, 0.25),
        (0.6, 0.6),
        (1.65, 0.8),
        (0.7, 0.9),
    ],  # one degree of freedom more or less shows here
    advice="(t(0.975) + t(0.8)) sd / sqrt(m) is to be at most the gain; start at m = 2.",
)
def seeds_needed(gain: float, sd: float):
    """Return the seeds for 80 % power in a paired t-test at 5 %: ``(gain, sd) -> int``."""
    from scipy.stats import norm, t  # slow to import

    m = np.arange(2, 3000)  # (M,) numbers of seeds
    freedom = m - 1

    def first(multiple: np.ndarray | float, ratio: float = sd / gain) -> int:
        """The first m at which so many standard errors are at most the gain."""
        return int(m[(multiple * ratio <= np.sqrt(m)).argmax()])

    test, power = t.ppf(0.975, freedom), t.ppf(0.8, freedom)  # (M,)
    more, less = (t.ppf([[0.975], [0.8]], k) for k in (m, np.maximum(m - 2, 1e-9)))  # (2, M) each
    known = norm.ppf(0.975) + norm.ppf(0.8)
    raw = [(multiple * sd / gain) ** 2 for multiple in (known, 2.8)]
    whole = [float(make(x)) for x in raw for make in (math.ceil, math.floor, round)]
    guess = max(2, math.ceil(raw[0]))  # seeds by the normal distribution
    step = ((test + power)[guess - 2] * sd / gain) ** 2
    return first(test + power), {
        "Start at m = 2. Two seeds have a standard deviation.":
            max(3, first(test + power)),
        "You left out the power: with that many seeds, a true gain is missed every second time.":
            [first(test), first(1.96), max(2, math.floor((1.96 * sd / gain) ** 2 + 1e-9) + 1)],
        "1.96 and 0.84 hold for a known sd. It is estimated: take Student's t, m - 1 degrees.":
            [first(known), first(2.8), first(1.96 + power), first(test + 0.84), *whole,
             *(max(2.0, x) for x in whole)],
        "That is one step from the normal distribution's number. Both quantiles depend on m: count "
        "up.": [step, math.ceil(step), max(2, math.ceil(step))],
        "Your degrees of freedom are m, or m - 2. Paired gains have m - 1.":
            [first(sum(more)), first(sum(less)), max(3, first(sum(less))),
             first(test + more[1]), first(more[0] + power),
             first(test + less[1]), first(less[0] + power)],
        "The standard error is sd / sqrt(m). m - 1 are the degrees of freedom only.":
            int(m[((test + power) * sd / gain <= np.sqrt(freedom)).argmax()]),
        "That is a test at 1 %. At 5 %, two-sided, it takes 0.975.":
            first(t.ppf(0.995, freedom) + power),
        "You left out the quantile of the test, 0.975.": first(power),
        "The two quantiles are added, not their squares.": first(np.hypot(test, power)),
        "sd is a standard deviation already: do not square it, and take no root of it.":
            [first(test + power, sd**2 / gain), first(test + power, math.sqrt(sd) / gain)],
        "That is a one-sided test. Two-sided takes 0.975.": first(t.ppf(0.95, freedom) + power),
        "Power has one side only: the quantile 0.8, not 0.9.": first(test + t.ppf(0.9, freedom)),
        "The power is subtracted: a larger power needs more seeds.": first(test - power),
        "These seeds are for two unpaired groups. sd is the spread of the paired gains.":
            [first(test + power, math.sqrt(2) * sd / gain), 2 * first(test + power)],
        "The error falls with the SQUARE ROOT of m.":
            int(m[((test + power) * sd / m <= gain).argmax()]),
        "The ratio is inverted: more spread needs more seeds.": first(test + power, gain / sd),
        "Seeds are whole: the smallest number with 80 % power.":
            [*raw, *(max(2.0, x) for x in raw)],
    }  # fmt: skip
