"""Comparison of a run of a suite with the committed records (``serp verify``).

Of each variant, the mean over the reader's seeds is compared with the committed seeds. With n
committed values of mean m and standard deviation s, the mean of k further values differs from m by
``t * s * sqrt(1/n + 1/k)`` with Student's t of n - 1 degrees of freedom. The p values are those of
this difference, multiplied as Holm (1979) does, since many variants are compared at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from serplib.evaluation.significance import holm, mean_sd
from serplib.experiments.tables import Records, label_of, variants

MEASURES = {  # metric and key of a record: name and factor
    ("test", "accuracy"): ("test accuracy, %", 100.0),
    ("probes", "svm_accuracy"): ("linear SVM, %", 100.0),
    ("probes", "memory_accuracy"): ("memory bank, %", 100.0),
    ("restoration", "restored"): ("restored, Chamfer x 10,000", 1e4),
    ("leakage", "full"): ("reconstruction loss", 1.0),
}
LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        table: a row a variant and measure, as text.
        agrees: whether no variant differs significantly; None where nothing could be compared.
        notes: settings and versions that differ, and variants that could not be compared.
    """

    table: pd.DataFrame
    agrees: bool | None
    notes: list[str]


def compare(found: Records, committed: Records) -> Comparison:
    """Compare a reader's records of a suite with the committed ones.

    Args:
        found: the reader's records.
        committed: ours, with two seeds or more of a variant.
    """
    ours, rows, notes = variants(committed), [], []
    for name, group in variants(found).items():
        if name not in ours:
            notes.append(f"{name}: no committed record")
        elif settings := _differences(_settings(group[0]), _settings(ours[name][0])):
            notes.append(f"{name}: another experiment, not compared: {'; '.join(settings)}")
        else:
            rows += _compare_variant(group, ours[name], notes)
    versions = _differences(_versions(found), _versions(committed)) if rows else []
    notes += [f"yours and committed: {difference}" for difference in versions]
    adjusted = holm([row.pop("p") for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row |= {"p": f"{p:.3f}", "result": "differs" if p < LEVEL else "agrees"}
    agrees = all(p >= LEVEL for p in adjusted) if adjusted else None
    return Comparison(pd.DataFrame(rows), agrees, notes)


def _compare_variant(group: Records, committed: Records, notes: list[str]) -> list[dict[str, Any]]:
    """Return a row for each measure that the records of a variant have."""
    from scipy.stats import t

    rows = []
    for (metric, key), (measure, factor) in MEASURES.items():
        found = ([r["metrics"].get(metric, {}) for r in rs] for rs in (group, committed))
        yours, ours = ([factor * m[key] for m in each if key in m] for each in found)
        if not yours or not ours:
            continue
        if len(ours) < 2:
            notes.append(f"{group[0]['run']['name']}: one committed seed, so no spread is known")
            continue
        (mean, sd), (your_mean, your_sd) = mean_sd(ours), mean_sd(yours)
        difference = your_mean - mean
        scale = sd * math.sqrt(1 / len(ours) + 1 / len(yours))
        exact = math.isclose(your_mean, mean, rel_tol=1e-6)
        statistic = 0.0 if exact else abs(difference) / scale if scale else math.inf
        row = {
            "variant": label_of(group[0]),
            "measure": measure,
            "committed": f"{mean:.2f} ± {sd:.2f} ({len(ours)})",
            "yours": f"{your_mean:.2f} ± {your_sd:.2f} ({len(yours)})".replace(" ± nan", ""),
            "difference": f"{difference:+.2f}",
            "p": 2 * float(t.sf(statistic, len(ours) - 1)),
        }
        rows.append(row)
    return rows


def _settings(record: dict[str, Any]) -> dict[str, str]:
    """Return what decides the experiment, but for the seed: parameters and data."""
    parameters = {k: str(v) for k, v in record["parameters"].items() if k != "seed"}
    sizes = ("name", "num_shapes", "num_points")
    data = {role: ", ".join(str(about[key]) for key in sizes)
            for role, about in record["data"].items()}  # fmt: skip
    return parameters | data


def _versions(found: Records) -> dict[str, str]:
    """Return packages, device and code of all records, by name."""
    versions: dict[str, set[str]] = {}
    for environment in (record["environment"] for record in found):
        flat = {**environment["packages"], **{k: environment.get(k) for k in ("python", "device")}}
        flat["code"] = environment.get("code") or environment["git"]["revision"]
        for name, version in flat.items():
            versions.setdefault(name, set()).add(str(version)[:40])
    return {name: ", ".join(sorted(values)) for name, values in versions.items()}


def _differences(yours: dict[str, str], committed: dict[str, str]) -> list[str]:
    return [f"{key} is {yours.get(key)}, not {committed.get(key)}"
            for key in committed | yours if yours.get(key) != committed.get(key)]  # fmt: skip
