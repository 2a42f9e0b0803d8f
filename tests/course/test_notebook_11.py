"""Notebook 11: what it computes by hand is what the reports are made with."""

import math
import statistics

import numpy as np
import pytest
import torch
from notebook_helpers import built
from scipy.stats import nct, t

from serplib.evaluation import significance
from serplib.experiments import notes, records, tables

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


def test_the_prose_says_what_the_records_of_figures_2_and_3_say():
    found = records.read_suite("modelnet40-smoke-quick")["records"]
    rows = tables.accuracy(found)
    for row in rows.query("pairs > 0").itertuples():
        assert row.sd > abs(row.gain) and row.verdict == "not significant"
        wide, narrow = row.high - row.low, row.shapes_high - row.shapes_low
        assert narrow > wide if "transformer" in row.Index else wide > 3 * narrow
    assert rows.shapes_high["few-pointnet-delta"] < 0


def pairs_of(name: str, *suites: str) -> dict:
    """Accuracy in per cent by processor and seed."""
    found = [r for suite in suites for r in records.read_suite(f"table1-{suite}")["records"]]
    runs = [r for r in found if r["run"]["name"] == name]
    keys = [(r["environment"]["device"], r["parameters"]["seed"]) for r in runs]
    return dict(zip(keys, (100 * r["metrics"]["test"]["accuracy"] for r in runs)))


def test_the_prose_says_what_the_records_of_table_1_say():
    found = records.read_suite("table1-laptop")["records"]
    tested = tables.accuracy(found)
    assert (tested["rise"] > 1).all(), "no row has converged"
    published = tables.PUBLISHED["table1/serp"] - tables.PUBLISHED["table1/scratch"]
    here, there, both = (
        {name: significance.paired_gain(pairs_of(f"all-{name}", *of), pairs_of("all-scratch", *of))
         for name in ("serp", "affine")}
        for of in (("laptop",), ("xeon",), ("laptop", "xeon"))
    )  # fmt: skip
    assert published < here["serp"]["gain"] and here["serp"]["low"] > there["serp"]["high"]
    assert 0 < both["serp"]["low"] < published < both["serp"]["high"]
    assert here["affine"]["gain"] > 0 < there["affine"]["gain"] and both["affine"]["low"] > 0
    assert min(both.values(), key=lambda gain: gain["p"]) == both["affine"]
    assert set(tables.direct(found)["verdict"]) == {"not significant"}
    assert notes.across_devices(found) == {"all-vasp": "VASP (all labels)"}
    vasp = tested.loc["all-vasp"]
    loss = tables.PUBLISHED["table1/vasp"] - tables.PUBLISHED["table1/scratch"]
    assert vasp.low < loss < 0 < vasp.high
    for name in ("delta", "cdl2"):
        assert tables.PUBLISHED[f"table2/{name}"] - tables.PUBLISHED["table2/scratch"] > 1
    longer = tables.accuracy(records.read_suite("epochs-laptop")["records"]).loc["frame-48"]
    assert (longer.better, longer.worse) == (1, 1) and longer.verdict == "not significant"


def test_the_prose_says_what_the_records_of_all_layers_say():
    found = tables.probes(records.read_suite("layers-laptop")["records"])
    flat = tables.probes(records.read_suite("eight-laptop")["records"])["mean"]
    for name in ("affine", "frame"):
        assert abs(found.gain[f"layers-{name}"] - found.gain[f"last-{name}"]) < 1, "hardly changes"
    published = [
        tables.PUBLISHED[f"{table}/{ours}"] - tables.PUBLISHED[f"{table}/scratch"]
        for table, ours in (("table1", "serp"), ("table2", "delta"), ("table2", "cdl2"))
    ]
    for name in ("untrained", "affine", "frame"):
        assert found["mean"][f"layers-{name}"] - found["mean"][f"last-{name}"] > max(published)
    assert found["mean"]["last-frame"] - flat["probe-frame"] > max(published)
    wide = tables.probes(records.read_suite("table2-laptop")["records"])["mean"]
    best = found["mean"].max()
    assert found["mean"].idxmax() == "layers-affine"
    assert abs(wide["probe-wide-untrained"] - best) < found.sd["layers-affine"]


def test_only_stronger_perturbations_are_restored_better_than_copied():
    """Figure 11.5: every arm left of the line."""
    (published,) = tables.means(records.read_suite("table1-laptop")["records"], "restoration").loc[
        ["pretrain-serp"], "copy_input"
    ]
    for path in records.results_folder().glob("*.json"):
        found = tables.means(records.read_json(path).get("records", []), "restoration")
        for row in found.itertuples():
            assert row.restored >= row.copy_input or row.copy_input > 5 * published, row.label
