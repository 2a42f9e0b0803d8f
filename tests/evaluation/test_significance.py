"""Intervals over seeds are scipy's paired Student's t, for any number of seeds; their power."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from serplib.evaluation.significance import (
    equivalence,
    holm,
    mean_sd,
    paired_gain,
    power,
    seeds_needed,
    smallest_effect,
)


@pytest.mark.parametrize("seeds", [2, 3, 10, 11, 30])
def test_the_interval_over_seeds_is_scipys(seeds):
    generator = np.random.default_rng(seeds)
    ours = dict(enumerate(generator.normal(0.5, 1, seeds)))
    base = dict(enumerate(generator.normal(0, 1, seeds)))
    gain = paired_gain(ours, base)
    test = stats.ttest_rel(list(ours.values()), list(base.values()))
    interval = test.confidence_interval(0.95)
    assert (gain["low"], gain["high"]) == pytest.approx((interval.low, interval.high))
    assert (gain["verdict"] != "not significant") == (test.pvalue < 0.05)
    assert gain["p"] == pytest.approx(test.pvalue)


def test_eleven_seeds_have_ten_degrees_of_freedom():
    gains = {seed: float(seed) for seed in range(11)}
    found = paired_gain(gains, dict.fromkeys(gains, 0.0))
    assert found["high"] - found["gain"] == pytest.approx(2.228 * 11**0.5 / 11**0.5, abs=1e-3)


def test_p_without_spread_or_with_one_seed():
    same = {0: 50.0, 1: 60.0}
    assert paired_gain(same, same)["p"] == 1.0
    assert paired_gain({0: 51.0, 1: 61.0}, same)["p"] == 0.0
    assert np.isnan(paired_gain({0: 1.0}, {0: 0.0})["p"])


def test_holm_multiplies_and_stays_monotone():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_gains_are_paired_by_seed():
    base = {0: 50.0, 1: 60.0, 2: 70.0}
    ours = {0: 52.0, 1: 62.5, 2: 71.5, 9: 0.0}
    gain = paired_gain(ours, base)
    assert gain["n"] == 3 and gain["gain"] == pytest.approx(2.0)
    assert gain["high"] - gain["gain"] == pytest.approx(4.3027 * 0.5 / 3**0.5, rel=1e-4)
    assert gain["verdict"] == "significant gain"
    raised = {seed: value + 2 for seed, value in base.items()}
    assert paired_gain(base, raised)["verdict"] == "significant loss"
    assert paired_gain({0: 1.0, 1: -1.0}, {0: 0.0, 1: 0.0})["verdict"] == "not significant"
    assert paired_gain({0: 99.0}, {0: 1.0})["verdict"] == "not significant"
    assert paired_gain({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize("seeds", [2, 3, 5, 30])
@pytest.mark.parametrize("shift", [-1.5, 0.0, 0.4, 3.0])
def test_equivalence_is_two_one_sided_tests_of_scipy(seeds, shift):
    generator = np.random.default_rng(seeds)
    ours = dict(enumerate(generator.normal(shift, 1, seeds)))
    base = dict(enumerate(generator.normal(0, 1, seeds)))
    gains = np.subtract(list(ours.values()), list(base.values()))
    found = equivalence(ours, base, margin=2.0)
    p = max(stats.ttest_1samp(gains, -2.0, alternative="greater").pvalue,
            stats.ttest_1samp(gains, 2.0, alternative="less").pvalue)  # fmt: skip
    assert found["p"] == pytest.approx(p)
    interval = stats.ttest_1samp(gains, 0).confidence_interval(0.90)
    assert found["equivalent"] == (-2 < interval.low and interval.high < 2)


def test_equivalence_needs_seeds_and_a_margin():
    same = {0: 50.0, 1: 60.0}
    assert equivalence(same, same, 2.0) == {"p": 0.0, "equivalent": True}
    moved = {seed: value + 3 for seed, value in same.items()}
    assert equivalence(moved, same, 2.0) == {"p": 1.0, "equivalent": False}
    assert equivalence(same, moved, 3.5)["equivalent"]
    one = equivalence({0: 1.0}, {0: 1.0}, 2.0)
    assert np.isnan(one["p"]) and not one["equivalent"]
    assert equivalence({0: 1.0}, {1: 1.0}, 2.0) is None


def test_mean_and_sample_standard_deviation():
    assert mean_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_sd([1.0])[0] == 1.0 and np.isnan(mean_sd([1.0])[1])


# ---- power -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("effect", "sd", "n"), [(0.62, 0.5, 3), (0.62, 0.5, 8), (3.0, 1.0, 4)])
def test_power_is_how_often_simulated_seeds_are_significant(effect, sd, n):
    draws = np.random.default_rng(n).normal(effect, sd, (20_000, n))
    found = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert power(effect, sd, n) == pytest.approx(found, abs=4 * math.sqrt(0.25 / 20_000))


@pytest.mark.parametrize("effect", [0.31, 0.62, 1.13, 2.0])
def test_the_sum_of_two_quantiles_needs_at_most_one_seed_less(effect):
    """The rule of notebook 11's exercise, which approximates the noncentral t."""
    for sd in (0.1, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0):
        n = 2
        while stats.t.ppf([0.975, 0.8], n - 1).sum() * sd / effect > math.sqrt(n):
            n += 1
        assert 0 <= seeds_needed(effect, sd) - n <= 1, (sd, n)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.24, 3.0])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_power_is_the_integral_over_the_estimated_sd(ratio, n):
    """Given sd estimated as s, the mean is normal, and significant beyond t s / sqrt(n)."""
    limit, freedom = stats.t.ppf(0.975, n - 1), n - 1

    def found(s):
        tails = stats.norm.sf(limit * s - ratio * math.sqrt(n)) + stats.norm.cdf(
            -limit * s - ratio * math.sqrt(n)
        )
        return tails * stats.chi.pdf(s * math.sqrt(freedom), freedom) * math.sqrt(freedom)

    wanted, _ = integrate.quad(found, 0, 12, limit=200, points=[0.1, 1])
    assert power(ratio, 1.0, n) == pytest.approx(wanted, abs=1e-6)


def test_seeds_and_effects_are_the_smallest_with_a_power_of_80_percent():
    for sd in (0.1, 0.4, 1.0, 4.0):
        n = seeds_needed(0.62, sd)
        assert power(0.62, sd, n) >= 0.8 and (n == 2 or power(0.62, sd, n - 1) < 0.8)
    for n in (2, 3, 5, 10):
        assert power(smallest_effect(0.5, n), 0.5, n) == pytest.approx(0.8, abs=1e-6)
        assert smallest_effect(2.0, n) == pytest.approx(4 * smallest_effect(0.5, n))
    assert seeds_needed(0.62, 0.5) == 8 and seeds_needed(0.62, 1.0) == 23  # notebook 11
    assert seeds_needed(0.62, 0.0) == 2 and smallest_effect(0.0, 3) == 0.0
