"""How sure a difference of two classifiers is: over seeds, and over test shapes (section 4.2).

Two things vary. Another seed gives other weights, another order and other labels kept:
`experiments.tables.paired_gain` has the interval over seeds. Another test set would have other
shapes: the two functions here resample or count shapes, paired, since both classifiers were asked
about the same ones.
"""

from __future__ import annotations

import numpy as np


def _paired(ours: list[list[bool]], base: list[list[bool]]) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(ours, dtype=float), np.asarray(base, dtype=float)
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f"answers of {a.shape} and {b.shape}, wanted the same (seeds, shapes)")
    return a, b


def mcnemar(ours: list[bool], base: list[bool]) -> dict:
    """McNemar's exact test of two classifiers on the same shapes.

    Only shapes that one gets right and the other does not say which is better; if neither is, they
    fall on either side like a fair coin.

    Returns:
        ``gained`` (right in ``ours`` alone), ``lost`` (right in ``base`` alone) and ``p``, the
        two-sided probability of a split at least as uneven.
    """
    from scipy.stats import binomtest

    a, b = _paired([ours], [base])
    gained, lost = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return {"gained": gained, "lost": lost, "p": float(p)}


def bootstrap_gain(
    ours: list[list[bool]], base: list[list[bool]], seed: int = 0, draws: int = 2000
) -> dict:
    """The gain in accuracy with its 95 % bootstrap interval over test shapes.

    Args:
        ours, base: right or wrong, ``(seeds, shapes)``, paired along both.
        draws: how often the shapes are drawn anew, with replacement, the same for all seeds.

    Returns:
        ``gain``, ``low`` and ``high``, 0 to 1: percentiles 2.5 and 97.5 (Efron, 1979).
    """
    a, b = _paired(ours, base)
    per_shape = (a - b).mean(0)  # (shapes,) mean over seeds
    generator = np.random.default_rng(seed)
    means = [
        generator.choice(per_shape, len(per_shape)).mean() for _ in range(draws)
    ]  # draws numbers
    low, high = np.quantile(means, [0.025, 0.975])
    return {"gain": float(per_shape.mean()), "low": float(low), "high": float(high)}
