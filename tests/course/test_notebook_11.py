"""Notebook 11: what it computes by hand is what the reports are made with."""

import math
import statistics

import numpy as np
import pytest
import torch
from notebook_helpers import built
from scipy.stats import nct, t

from serplib.evaluation import robustness, significance
from serplib.experiments import records, tables

MADE = built("11_results", math=math, statistics=statistics, t=t)


@pytest.mark.parametrize("divisor", [7, 100, 2468, 2560])
def test_hits_are_those_that_print_alike(divisor):
    for percent in ("70.0", "84.06", "88.48", "89.1", "100.00", "0.00"):
        digits = len(percent.partition(".")[2])
        printed = [k for k in range(divisor + 1) if f"{100 * k / divisor:.{digits}f}" == percent]
        assert MADE["hits"](percent, divisor) == printed, percent


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_paired_interval_is_the_reports(seeds):
    generator = np.random.default_rng(seeds)
    ours = dict(enumerate(generator.normal(60, 5, seeds)))
    base = dict(enumerate(generator.normal(58, 5, seeds))) | {77: 1.0}
    low, mean, high = MADE["paired_interval"](ours, base)
    twin = significance.paired_gain(ours, base)
    assert (low, mean, high) == pytest.approx((twin["low"], twin["gain"], twin["high"]))


def test_the_bootstrap_is_the_reports_up_to_the_draws():
    generator = np.random.default_rng(0)
    ours, base = generator.random((3, 500)) < 0.8, generator.random((3, 500)) < 0.7
    low, high = MADE["bootstrap"](
        torch.tensor(ours), torch.tensor(base), 2000, torch.Generator().manual_seed(0)
    )
    twin = significance.bootstrap_gain(ours.tolist(), base.tolist())
    assert low == pytest.approx(100 * twin["low"], abs=0.4)
    assert high == pytest.approx(100 * twin["high"], abs=0.4)


def test_the_number_of_seeds_is_the_smallest_that_does():
    def power(seeds):
        limit, shift = t.ppf(0.975, seeds - 1), gain / sd * math.sqrt(seeds)
        return nct.sf(limit, seeds - 1, shift)

    for gain, sd, wanted in ((0.62, 0.5, 8), (0.62, 1.0, 23), (0.62, 2.0, 84), (3.0, 1.0, 4)):
        assert MADE["how_many"](gain, sd) == wanted
        assert power(wanted) >= 0.8 > power(wanted - 1)


def test_the_binomial_error_is_that_of_a_simulation():
    right = np.random.default_rng(0).binomial(400, 0.7, 20000) / 4
    assert MADE["binomial_error"](70.0, 400) == pytest.approx(right.std(), rel=0.03)


def test_the_prose_says_what_the_records_of_table_1_say():
    found = records.read_suite("table1-laptop")["records"]
    rows = tables.accuracy(found)
    assert (rows["seeds"] == 5).all()
    assert rows.gain["all-serp"] > 0 > rows.gain["all-vasp"]
    assert rows.verdict["all-serp"] == rows.verdict["all-vasp"] == "not significant"
    published = tables.PUBLISHED["table1/serp"] - tables.PUBLISHED["table1/scratch"]
    assert rows.gain["all-serp"] > published
    first = [r for r in found if r["parameters"]["seed"] < 3]
    of_three = tables.accuracy(first).gain["all-serp"]
    assert 0.28 < of_three / rows.gain["all-serp"] < 0.38  # "a third"
    assert rows.gain["all-strong"] > 3 and rows.low["all-strong"] > published
    by_arm = {
        arm: {r["parameters"]["seed"]: r["metrics"]["test"]["accuracy"] for r in group}
        for arm, group in tables.variants(found).items()
        if arm.startswith("all-")
    }
    strong, scratch = by_arm["all-strong"], by_arm["all-scratch"]
    assert all(strong[seed] > scratch[seed] for seed in strong)


def test_the_prose_says_what_the_records_of_table_2_say():
    found = records.read_suite("table2-laptop")["records"]
    tested, probed = tables.accuracy(found), tables.probes(found)
    of_three = tables.probes([r for r in found if r["parameters"]["seed"] < 3])
    assert (tested["seeds"] == 5).all()
    assert -1 < tested.gain["all-delta"] < 0 < tested.gain["all-cdl2"] < 1
    assert tested.verdict["all-delta"] == tested.verdict["all-cdl2"] == "not significant"
    for name in ("delta", "cdl2"):
        assert tables.PUBLISHED[f"table2/{name}"] - tables.PUBLISHED["table2/scratch"] > 1
        frozen = of_three.loc[f"probe-{name}"]
        assert 0.9 < frozen["gain"] < 1.1 and 0 < frozen["low"] < 0.1  # barely above zero
        assert frozen["verdict"] == "significant gain"
    assert probed.gain["probe-cdl2"] > 1 and probed.low["probe-cdl2"] > 0.5
    assert probed.verdict["probe-delta"] == "not significant"
    restored = tables.means(found, "restoration")
    assert (restored["restored"] > restored["copy_input"]).all()
    assert ((restored["detection_auc"] - 0.5).abs() < 0.02).all()


def test_the_prose_says_what_the_records_of_robustness_say():
    found = [
        r for r in records.read_suite("robustness-laptop")["records"] if "test" in r["metrics"]
    ]
    by = {}  # arm, measure: per cent by seed
    for r in found:
        arm, seed, measured = r["run"]["name"], r["parameters"]["seed"], r["metrics"]["robustness"]
        assert r["metrics"]["test"]["num_shapes"] == 600
        for key, value in (measured | robustness.summary(measured)).items():
            by.setdefault((arm, key), {})[seed] = 100 * value
    scratch = "robust-scratch"
    for arm in ("robust-serp", "robust-strong"):
        ours, base = by[arm, "noise"], by[scratch, "noise"]
        assert all(ours[seed] - base[seed] > 3 for seed in (0, 1, 2))
        assert significance.paired_gain(ours, base)["low"] > 1.5
    verdicts = [
        significance.paired_gain(by[arm, "corrupted"], by[scratch, "corrupted"])["verdict"]
        for arm in ("robust-serp", "robust-strong")
    ]
    assert verdicts == ["not significant", "significant gain"]
    mean = {key: sum(values.values()) / len(values) for key, values in by.items()}
    for arm in (scratch, "robust-serp", "robust-strong"):
        assert mean[arm, "clean"] > mean["robust-pointnet", "clean"]
        assert mean["robust-pointnet", "corrupted"] > mean[arm, "corrupted"]
        assert mean["robust-pointnet", "points_64"] > mean[arm, "points_64"] + 15
    assert mean["robust-pointnet", "points_64"] > 0.7 * mean["robust-pointnet", "clean"]
