"""Wrong answers to the exercises of 11, each with a piece of the hint meant for it."""

import math

NAMES = {"math": math}


def tail(k, n):
    return sum(math.comb(n, i) for i in range(k + 1)) / 2**n


def whole(raw):
    return max(2, math.floor(raw + 1e-9) + 1)


MUTANTS = {
    "standard_error": [
        (lambda a, n: a * (100 - a) / n / 100, "That is the variance"),
        (lambda a, n: math.sqrt(a / 100 * (1 - a / 100) / n), "That is a share"),
        (lambda a, n: 100 * math.sqrt(a / 100 / n), "left out 1 - p"),
        (lambda a, n: math.sqrt(a * (100 - a)), "ONE shape"),
        (lambda a, n: math.sqrt(a * (100 - a)) / n, "not by the number itself"),
        (lambda a, n: 1.96 * math.sqrt(a * (100 - a) / n), "half of a 95 % interval"),
    ],
    "sign_test": [
        (lambda won, lost: tail(min(won, lost), won + lost), "one side"),
        (lambda won, lost: 2 * tail(min(won, lost), won + lost), "cut it off at 1"),
        (
            lambda won, lost: min(1.0, 2 * math.comb(won + lost, won) / 2 ** (won + lost)),
            "exactly this split",
        ),
        (lambda won, lost: min(1.0, 2 * tail(won, won + lost)), "tail below `gained`"),
        (lambda won, lost: 1 - tail(min(won, lost), won + lost), "MORE even"),
    ],
    "seeds_needed": [
        (lambda g, s: whole(1.96 * s / g), "square the ratio"),
        (lambda g, s: max(2, math.floor((1.96 * s / g) ** 2 + 1e-9)), "One too few"),
        (lambda g, s: math.floor((1.96 * s / g) ** 2 + 1e-9) + 1, "at least 2"),
        (lambda g, s: whole((s / g) ** 2), "forgot the 1.96"),
        (lambda g, s: (1.96 * s / g) ** 2, "Seeds are whole"),
    ],
}
