"""Significance of the difference between two classifiers (paper, section 4.2).

Two sources of variation are kept apart. Another seed gives other weights, another order and other
kept labels: `paired_gain` gives the interval over seeds. Another test set would hold other shapes:
`mcnemar` and `bootstrap_gain` count or resample the shapes, paired, since both classifiers are
tested on the same ones.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

Answers = Sequence[Sequence[bool]]  # right or wrong, (seeds, shapes)


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (nan for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def paired_gain(ours: Mapping[int, float], base: Mapping[int, float]) -> dict | None:
    """Compare two variants over the seeds that both have (paired Student's t).

    Args:
        ours: value of the one variant by seed.
        base: value of the other by seed.

    Returns:
        ``gain`` (mean difference), ``low`` and ``high`` (its 95 % interval, infinite for one seed),
        ``n`` (common seeds), the two-sided ``p`` (nan for one seed) and ``verdict``: "significant
        gain", "significant loss" or "not significant". None without a common seed.
    """
    from scipy.stats import t

    gains = [ours[seed] - base[seed] for seed in sorted(ours.keys() & base.keys())]
    if not gains:
        return None
    n = len(gains)
    mean, sd = mean_sd(gains)
    error = sd / math.sqrt(n)
    half = float(t.ppf(0.975, n - 1)) * error if n > 1 else math.inf
    ratio = abs(mean) / error if error else (math.inf if mean else 0.0)
    verdict = "not significant"
    if abs(mean) > half:
        verdict = "significant gain" if mean > 0 else "significant loss"
    return {
        "gain": mean, "low": mean - half, "high": mean + half, "n": n,
        "p": 2 * float(t.sf(ratio, n - 1)), "verdict": verdict,
    }  # fmt: skip


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for the number of comparisons (Holm, 1979).

    The k-th smallest of m is multiplied by m - k + 1, and is at least the one before it. If those
    below 5 % are called significant, the chance of one false finding or more is at most 5 %.
    """
    p, order = np.array(p_values), np.argsort(p_values)
    p[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return p.tolist()


def power(effect: float, sd: float, n: int) -> float:
    """Return how often a paired t-test, two-sided at 5 %, finds an effect (Cohen, 1988).

    Its statistic is noncentral t with n - 1 degrees of freedom, shifted by sqrt(n) effect / sd.

    Args:
        effect: true mean of the paired differences.
        sd: their true standard deviation, above 0.
        n: pairs, at least 2.
    """
    from scipy.stats import nct, t

    limit, shift = t.ppf(0.975, n - 1), math.sqrt(n) * effect / sd
    return float(nct.sf(limit, n - 1, shift) + nct.sf(limit, n - 1, -shift))


def seeds_needed(effect: float, sd: float) -> int:
    """Return the smallest number of pairs, at least 2, that finds an effect with 80 % `power`.

    The exercise of notebook 11 adds two quantiles of t instead, which gives at most one pair less.
    """
    n = max(2, int((2.8 * sd / effect) ** 2))  # 1.96 + 0.84: enough if sd were known
    while sd and power(effect, sd, n) < 0.8:
        n += 1
    return n


def smallest_effect(sd: float, n: int) -> float:
    """Return the effect that n pairs find with 80 % `power`."""
    from scipy.optimize import brentq

    return sd * float(brentq(lambda ratio: power(ratio, 1.0, n) - 0.8, 0.0, 100.0))


def equivalence(
    ours: Mapping[int, float], base: Mapping[int, float], margin: float, level: float = 0.05
) -> dict | None:
    """Test whether two variants are equivalent within a margin (two one-sided paired t tests).

    A difference that is not significant is no evidence of equality. Here the hypothesis to reject
    is a difference of at least ``margin`` in either direction (TOST; Schuirmann, 1987). It is
    rejected where the ``1 - 2 level`` interval of the mean difference lies within the margin.

    Args:
        ours: value of the one variant by seed.
        base: value of the other by seed.
        margin: the smallest difference that matters, chosen before the runs.
        level: of each of the two tests.

    Returns:
        ``p``, the larger of both tests (nan for one seed), and ``equivalent``, whether it is below
        ``level``. None without a common seed.
    """
    from scipy.stats import t

    gains = [ours[seed] - base[seed] for seed in sorted(ours.keys() & base.keys())]
    if not gains:
        return None
    (mean, sd), n = mean_sd(gains), len(gains)
    slack = margin - abs(mean)  # to the nearer end of the margin: its test has the larger p
    error = sd / math.sqrt(n)
    p = float(t.sf(slack / error if error else math.copysign(math.inf, slack), n - 1))
    return {"p": p, "equivalent": p < level}


def _paired(ours: Answers, base: Answers) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(ours, dtype=float), np.asarray(base, dtype=float)
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f"answers of {a.shape} and {b.shape}, wanted the same (seeds, shapes)")
    return a, b


def mcnemar(ours: Sequence[bool], base: Sequence[bool]) -> dict[str, float]:
    """Apply McNemar's exact test to two classifiers tested on the same shapes.

    Only the shapes that exactly one classifier gets right carry information. Without a difference
    they fall on either side with probability 1/2.

    Args:
        ours: right or wrong, one value a shape.
        base: the same for the other classifier.

    Returns:
        ``gained`` (right in ``ours`` only), ``lost`` (right in ``base`` only) and the two-sided
        ``p``.

    Raises:
        ValueError: no shapes, or different numbers of them.
    """
    from scipy.stats import binomtest

    a, b = _paired([ours], [base])
    gained, lost = int((a > b).sum()), int((a < b).sum())
    p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return {"gained": gained, "lost": lost, "p": float(p)}


def bootstrap_gain(
    ours: Answers, base: Answers, seed: int = 0, draws: int = 2000
) -> dict[str, float]:
    """Compute the gain in accuracy with its 95 % bootstrap interval over test shapes (Efron, 1979).

    Args:
        ours: right or wrong, ``(seeds, shapes)``.
        base: the same for the other classifier, paired along both axes.
        seed: of the resampling.
        draws: number of resamples; each draws shapes with replacement, the same for all seeds.

    Returns:
        ``gain``, ``low`` and ``high`` (percentiles 2.5 and 97.5), as fractions of 1.

    Raises:
        ValueError: no shapes, or different numbers of seeds or shapes.
    """
    from scipy.stats import bootstrap

    a, b = _paired(ours, base)
    per_shape = (a - b).mean(0)  # (shapes,) mean over seeds
    gain = float(per_shape.mean())
    if len(per_shape) == 1:  # nothing to resample
        return {"gain": gain, "low": gain, "high": gain}
    found = bootstrap(
        (per_shape,), np.mean, n_resamples=draws, method="percentile", vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return {"gain": gain, "low": float(found.low), "high": float(found.high)}
