"""Answers to the exercises of 11: wrong ones with a piece of their hint, and right ones."""

import math
from fractions import Fraction
from itertools import count
from statistics import NormalDist

import numpy as np
import torch
from scipy import stats

NAMES = {"math": math, "t": stats.t}


def tail(k, n):
    return sum(math.comb(n, i) for i in range(k + 1)) / 2**n


def exact(won, lost):
    return min(1.0, 2 * tail(min(won, lost), won + lost))


def chi_square(won, lost, correction=0):
    if won + lost == 0:
        return 1.0
    return stats.chi2.sf(max(abs(won - lost) - correction, 0) ** 2 / (won + lost), 1)


def unguarded_chi_square(won, lost):
    return math.erfc(math.sqrt((won - lost) ** 2 / (won + lost) / 2))


def normal(won, lost):
    n = max(won + lost, 1)
    return 2 * NormalDist().cdf(-abs(won - lost) / math.sqrt(n))


def sorted_binomials(won, lost):
    n = won + lost
    chances = [math.comb(n, k) / 2**n for k in range(n + 1)]
    return sum(c for k, c in enumerate(chances) if abs(2 * k - n) >= abs(won - lost))


def by_fractions(won, lost):
    n = won + lost
    total = sum(Fraction(math.comb(n, k), 2**n) for k in range(min(won, lost) + 1))
    return float(min(Fraction(1), 2 * total))


def quantile(level, m, lost=1):
    return stats.t.ppf(level, m - lost)


def first(multiple, start=2):
    """Seeds needed if so many standard errors, ``multiple(m)``, must be at most the gain."""

    def seeds_needed(gain, sd):
        return next(m for m in count(start) if multiple(m) * sd / math.sqrt(m) <= gain)

    return seeds_needed


def bound(m, test=0.975, power=0.8, lost=1):
    return quantile(test, m, lost) + quantile(power, m, lost)


right_seeds = first(bound)


def stepped(gain, sd):
    m = 2
    while bound(m) * sd > gain * m**0.5:
        m += 1
    return m


def by_power(gain, sd):
    """The exact power, by the non-central t distribution; the other tail has no weight."""
    return next(
        m
        for m in count(2)
        if stats.nct.sf(quantile(0.975, m), m - 1, gain / sd * math.sqrt(m)) >= 0.8
    )


def by_array(gain, sd):
    m = np.arange(2, 500)
    return m[bound(m) * sd <= gain * np.sqrt(m)].min()


def normal_formula(gain, sd):
    return (2.8 * sd / gain) ** 2


def one_step(gain, sd):
    m = max(2, math.ceil(normal_formula(gain, sd)))
    return max(2, math.ceil((bound(m) * sd / gain) ** 2))


WRONG = {
    "standard_error": [
        (lambda a, n: a * (100 - a) / n / 100, "That is the variance"),
        (lambda a, n: math.sqrt(a / 100 * (1 - a / 100) / n), "That is a share"),
        (lambda a, n: math.sqrt(a * (100 - a)), "ONE shape"),
        (lambda a, n: math.sqrt(a * (100 - a)) / n, "not by the number"),
        (lambda a, n: math.sqrt(a * abs(1 - a) / n), "into a probability"),
        (lambda a, n: a / n, "wanted"),
    ],
    "sign_test": [
        (lambda won, lost: tail(min(won, lost), won + lost), "one side"),
        (lambda won, lost: 1 - tail(min(won, lost), won + lost), "MORE even"),
        (
            lambda won, lost: min(1.0, 2 * math.comb(won + lost, won) / 2 ** (won + lost)),
            "exactly this split",
        ),
        (lambda won, lost: won / max(won + lost, 1), "wanted"),
    ],
    "seeds_needed": [
        (
            [
                first(lambda m: quantile(0.975, m)),
                first(lambda m: 1.96),
                lambda g, s: max(2, math.floor((1.96 * s / g) ** 2 + 1e-9) + 1),
            ],
            "left out the power",
        ),
        (
            [first(lambda m: 1.96 + 0.8416), lambda g, s: max(2, math.ceil(normal_formula(g, s)))],
            "take Student's t",
        ),
        (normal_formula, "Seeds are whole"),
        (lambda g, s: right_seeds(s, g), "ratio is inverted"),
        (lambda g, s: next(m for m in count(2) if bound(m) * s / m <= g), "SQUARE ROOT"),
        (lambda g, s: None, "returned None"),
    ],
}

SUBTLE = {
    "standard_error": [
        (
            [
                lambda a, n: 100 * math.sqrt(a / 100 / n),
                lambda a, n: 100 * math.sqrt((1 - a / 100) / n),
            ],
            "left out 1 - p",
        ),
        (lambda a, n: 1.96 * math.sqrt(a * (100 - a) / n), "half of a 95 % interval"),
        (lambda a, n: math.sqrt(a * (100 - a) / (n - 1)), "shapes - 1"),
        (lambda a, n: 50 / math.sqrt(n), "at p = 1/2"),
        (lambda a, n: round(math.sqrt(a * (100 - a) / n), 2), "You rounded"),
        (lambda a, n: math.sqrt(a * (100 - a) / 2468), "shapes = 100"),  # n of the first case
    ],
    "sign_test": [
        (lambda won, lost: 2 * tail(min(won, lost), won + lost), "cut it off at 1"),
        (
            [
                lambda won, lost: min(1.0, 2 * tail(won, won + lost)),
                lambda won, lost: min(1.0, 2 * tail(lost, won + lost)),
            ],
            "tail below one of the two",
        ),
        (
            [
                chi_square,
                lambda won, lost: chi_square(won, lost, 1),
                unguarded_chi_square,
                normal,
            ],
            "chi-square approximation",
        ),
        (lambda won, lost: min(1.0, 2 * tail(min(won, lost) - 1, won + lost)), "range(few)"),
        (
            lambda won, lost: min(
                1.0, exact(won, lost) - math.comb(won + lost, won) / 2 ** (won + lost)
            ),
            "wanted",
        ),
        (lambda won, lost: round(exact(won, lost), 3), "You rounded"),
    ],
    "seeds_needed": [
        (
            [
                first(lambda m: bound(m, lost=0)),
                first(lambda m: quantile(0.975, m) + quantile(0.8, m, 0)),
                first(lambda m: quantile(0.975, m, 0) + quantile(0.8, m)),
                first(lambda m: bound(m, lost=2), start=3),
            ],
            "degrees of freedom are m",
        ),
        (first(bound, start=3), "Start at m = 2"),
        (one_step, "one step from the normal"),
        (
            [
                lambda g, s: math.ceil(normal_formula(g, s)),
                lambda g, s: round(normal_formula(g, s)),
            ],
            "take Student's t",
        ),
        (first(lambda m: bound(m) * math.sqrt(m / (m - 1))), "standard error is sd / sqrt(m)"),
        (first(lambda m: bound(m, test=0.995)), "test at 1 %"),
        (first(lambda m: quantile(0.8, m)), "left out the quantile of the test"),
        (first(lambda m: math.hypot(quantile(0.975, m), quantile(0.8, m))), "not their squares"),
        (lambda g, s: right_seeds(g, s * s), "do not square it"),
        (first(lambda m: bound(m, test=0.95)), "one-sided test"),
        (first(lambda m: bound(m, power=0.9)), "one side only"),
        (first(lambda m: quantile(0.975, m) - quantile(0.8, m)), "power is subtracted"),
        (
            [lambda g, s: 2 * right_seeds(g, s), lambda g, s: right_seeds(g, s * math.sqrt(2))],
            "two unpaired groups",
        ),
        ([lambda g, s: right_seeds(g, s) + 1, lambda g, s: right_seeds(g, s) - 1], "One too many"),
        ([first(lambda m: 1.96 + quantile(0.8, m))], "take Student's t"),
        (lambda g, s: right_seeds(g, s) + 0.5, "wanted 8"),
    ],
}

RIGHT = {
    "standard_error": [
        lambda a, n: math.sqrt(a * (100 - a) / n),
        lambda a, n: 100 * stats.bernoulli(a / 100).std() / n**0.5,
        lambda a, n: torch.tensor(a / 100 * (1 - a / 100) / n).sqrt() * 100,
        lambda a, n: np.float32(np.sqrt(a * (100 - a) / n)),
        lambda a, n: 100 / n * math.sqrt(n * a / 100 * (1 - a / 100)),
    ],
    "sign_test": [
        sorted_binomials,
        by_fractions,
        lambda won, lost: stats.binomtest(won, won + lost).pvalue if won + lost else 1.0,
        lambda won, lost: min(1.0, 2 * stats.binom.cdf(min(won, lost), won + lost, 0.5)),
        lambda won, lost: torch.tensor(exact(won, lost)),
    ],
    "seeds_needed": [
        right_seeds,
        stepped,
        by_power,
        by_array,
        first(bound, start=1),
        lambda g, s: float(right_seeds(g, s)),
        lambda g, s: np.int64(right_seeds(g, s)),
    ],
}
