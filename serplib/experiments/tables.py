"""From records to the rows of Tables 1 and 2 (paper, section 4.2)."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable

from serplib.evaluation.significance import bootstrap_gain, mcnemar
from serplib.experiments.records import unpack_bits

# Tables 1 and 2 of the paper, accuracy on ModelNet40 in per cent.
PUBLISHED = {
    "table1/scratch": 88.48,
    "table1/serp": 89.1,
    "table1/vasp": 87.85,
    "table2/scratch": 82.97,
    "table2/delta": 84.1,
    "table2/cdl2": 84.06,
}
TEST_SHAPES = 2468  # ModelNet40's test split
DIVISOR = 2560  # what the authors' code divides by: 20 batches of 128
# Half the width of a 95 % interval of a mean, in standard errors, by degrees of freedom (Student).
_T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def corrected(published: float) -> float:
    """A published accuracy over the true number of shapes: hits / 2,560 becomes hits / 2,468.

    The authors' code divides by batches x batch size; all six published values are k / 2,560.
    """
    return round(published * DIVISOR / 100) / TEST_SHAPES * 100


def mean_sd(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (nan for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def paired_gain(ours: dict[int, float], base: dict[int, float]) -> dict | None:
    """Difference of two arms over the seeds that both have, with its 95 % interval (Student's t).

    Returns:
        ``gain``, ``low``, ``high``, ``n`` and ``verdict`` ("better", "worse" or "cannot tell");
        None without a common seed. One seed alone cannot tell.
    """
    gains = [ours[seed] - base[seed] for seed in sorted(ours.keys() & base.keys())]
    if not gains:
        return None
    mean, sd = mean_sd(gains)
    n = len(gains)
    half = _T95.get(n - 1, 1.96) * sd / math.sqrt(n) if n > 1 else math.inf
    verdict = "better" if mean - half > 0 else "worse" if mean + half < 0 else "cannot tell"
    return {"gain": mean, "low": mean - half, "high": mean + half, "n": n, "verdict": verdict}


def arms(found: list[dict]) -> dict[str, list[dict]]:
    """Records by the name of their run, in the order of the suite."""
    by_name: dict[str, list[dict]] = {}
    for record in found:
        by_name.setdefault(record["run"]["name"], []).append(record)
    return by_name


def _by_seed(group: list[dict], pick: Callable[[dict], object]) -> dict:
    return {r["parameters"]["seed"]: pick(r["metrics"]) for r in group}


def gain_over(found: list[dict], name: str, metric: str, key: str) -> dict:
    """One arm's accuracy, in per cent, and its gain over the arm that its ``scratch`` names.

    Args:
        metric: ``"test"`` or ``"probes"``. key: prefix of ``accuracy`` and ``correct`` in it.

    Returns:
        ``mean``, ``sd``, ``n``, ``gain`` (`paired_gain` or None) and, where there is a gain,
        ``shapes`` (`evaluation.significance.bootstrap_gain` in per cent) and ``significant``: in
        how many seeds McNemar's test has p < 0.05.
    """
    by_name = arms(found)

    def accuracy(arm: str) -> dict[int, float]:
        return _by_seed(by_name[arm], lambda m: 100 * m[metric][f"{key}accuracy"])

    def answers(arm: str, seeds: list[int]) -> list[list[bool]]:
        bits = _by_seed(by_name[arm], lambda m: m[metric][f"{key}correct"])
        return [unpack_bits(bits[seed]) for seed in seeds]

    ours = accuracy(name)
    mean, sd = mean_sd(list(ours.values()))
    row = {"mean": mean, "sd": sd, "n": len(ours), "gain": None}
    scratch = by_name[name][0]["run"].get("scratch")
    if scratch in by_name:
        base = accuracy(scratch)
        row["gain"] = paired_gain(ours, base)
        seeds = sorted(ours.keys() & base.keys())
        if seeds:
            pair = answers(name, seeds), answers(scratch, seeds)
            row["shapes"] = {k: 100 * v for k, v in bootstrap_gain(*pair).items()}
            row["significant"] = sum(mcnemar(a, b)["p"] < 0.05 for a, b in zip(*pair))
    return row


def accuracy_rows(found: list[dict]) -> list[dict]:
    """One row a fine-tuned arm: accuracy in per cent, gain over scratch, the paper's figures."""
    rows = []
    for name, group in arms(found).items():
        if "test" not in group[0]["metrics"]:
            continue
        about = group[0]["run"]
        published = PUBLISHED.get(about.get("published"))
        rows.append(
            {
                "name": name,
                "group": about.get("group", ""),
                "label": about.get("label", name),
                **gain_over(found, name, "test", ""),
                "published": published,
                "corrected": None if published is None else corrected(published),
                "test_shapes": group[0]["metrics"]["test"]["num_shapes"],
                "seconds": statistics.fmean(r["seconds"] for r in group),
            }
        )
    return sorted(rows, key=lambda row: _few_first(row["group"]))  # stable within a group


def _few_first(group: str) -> tuple[float, str]:
    """Groups with a number in front by that number, the others after them by name."""
    number = re.match(r"\d+", group)
    return (int(number[0]) if number else math.inf, group)


def probe_rows(found: list[dict]) -> list[dict]:
    """One row a frozen encoder: linear SVM, with its gain over the untrained, and the rest."""
    rows = []
    for name, group in arms(found).items():
        probes = [r["metrics"]["probes"] for r in group if "probes" in r["metrics"]]
        if not probes:
            continue
        row = {"name": name, "label": group[0]["run"].get("label", name)}
        row |= gain_over(found, name, "probes", "svm_")
        row |= {
            head: mean_sd([100 * p[f"{head}_accuracy"] for p in probes])
            for head in ("knn", "linear", "mlp3")
            if all(f"{head}_accuracy" in p for p in probes)
        }
        row |= {k: statistics.fmean(p[k] for p in probes) for k in ("rankme", "feature_variance")}
        row["few_shot"] = {
            key[9:].replace("_", " "): mean_sd([100 * x for p in probes for x in p[key]["folds"]])
            for key in probes[0]
            if key.startswith("few_shot_")
        }
        rows.append(row)
    return rows


def mean_rows(found: list[dict], metric: str) -> list[dict]:
    """One row an arm that has this metric: the mean over seeds of each of its numbers."""
    rows = []
    for name, group in arms(found).items():
        metrics = [r["metrics"][metric] for r in group if metric in r["metrics"]]
        if metrics:
            mean = {key: statistics.fmean(m[key] for m in metrics) for key in metrics[0]}
            about = {"name": name, "label": group[0]["run"].get("label", name), "n": len(metrics)}
            rows.append(about | {"seconds": statistics.fmean(r["seconds"] for r in group)} | mean)
    return rows
