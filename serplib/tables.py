"""From records to the rows of Tables 1 and 2 (paper, section 4.2)."""

from __future__ import annotations

import math
import statistics

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


def accuracy_rows(found: list[dict]) -> list[dict]:
    """One row a fine-tuned arm: accuracy in per cent, gain over scratch, the paper's figures."""
    by_name = arms(found)
    accuracy = {
        name: {r["parameters"]["seed"]: 100 * r["metrics"]["test"]["accuracy"] for r in group}
        for name, group in by_name.items()
        if "test" in group[0]["metrics"]
    }
    rows = []
    for name, by_seed in accuracy.items():
        first = by_name[name][0]
        about = first["run"]
        mean, sd = mean_sd(list(by_seed.values()))
        scratch = about.get("scratch")
        published = PUBLISHED.get(about.get("published"))
        rows.append(
            {
                "name": name,
                "group": about.get("group", ""),
                "label": about.get("label", name),
                "mean": mean,
                "sd": sd,
                "n": len(by_seed),
                "gain": paired_gain(by_seed, accuracy[scratch]) if scratch in accuracy else None,
                "published": published,
                "corrected": None if published is None else corrected(published),
                "test_shapes": first["metrics"]["test"]["num_shapes"],
                "seconds": statistics.fmean(r["seconds"] for r in by_name[name]),
            }
        )
    return sorted(rows, key=lambda row: row["group"])  # stable: the suite's order within a group


def restoration_rows(found: list[dict]) -> list[dict]:
    """One row a pre-trained arm: Chamfer distances x 10,000 beside the baselines."""
    rows = []
    for name, group in arms(found).items():
        metrics = [r["metrics"]["restoration"] for r in group if "restoration" in r["metrics"]]
        if not metrics:
            continue
        mean = {key: statistics.fmean(m[key] for m in metrics) for key in metrics[0]}
        rows.append(
            {
                "name": name,
                "label": group[0]["run"].get("label", name),
                "n": len(metrics),
                "seconds": statistics.fmean(r["seconds"] for r in group),
                **mean,
            }
        )
    return rows


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _mean_sd_text(row: dict) -> str:
    return f"{row['mean']:.2f} ± {row['sd']:.2f}" if row["n"] > 1 else f"{row['mean']:.2f}"


def _gain_text(gain: dict | None) -> str:
    if gain is None:
        return ""
    if gain["n"] == 1:
        return f"{gain['gain']:+.2f}, one seed: cannot tell"
    return f"{gain['gain']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}] {gain['verdict']}"


def tables(found: list[dict]) -> list[tuple[str, list[str], list[list[str]]]]:
    """The tables of a report: title, column heads, rows, all text."""
    made = []
    rows = accuracy_rows(found)
    for group in dict.fromkeys(row["group"] for row in rows):
        chosen = [row for row in rows if row["group"] == group]
        made.append(
            (
                f"Accuracy on {_data_name(found, chosen[0]['name'])}, %"
                + (f": {group}" if group else ""),
                [
                    "arm",
                    "ours (mean ± sd)",
                    "seeds",
                    "gain over scratch [95 %]",
                    "paper, ModelNet40",
                    "corrected",
                ],
                [
                    [
                        row["label"],
                        _mean_sd_text(row),
                        str(row["n"]),
                        _gain_text(row["gain"]),
                        _number(row["published"]),
                        _number(row["corrected"]),
                    ]
                    for row in chosen
                ],
            )
        )
    rows = restoration_rows(found)
    if rows:
        made.append(
            (
                "Restoration of held-out clouds: Chamfer (Eq. 11) x 10,000",
                ["arm", "seeds", "restored", "copy input", "resample", "detection AUC"],
                [
                    [
                        row["label"],
                        str(row["n"]),
                        _number(1e4 * row["restored"], 1),
                        _number(1e4 * row["copy_input"], 1),
                        f"{1e4 * row['resample']:.1f} ({row['resample_points']:.0f} points)",
                        _number(row.get("detection_auc")),
                    ]
                    for row in rows
                ],
            )
        )
    return made


def _data_name(found: list[dict], name: str) -> str:
    return next(r["data"]["test"]["name"] for r in found if r["run"]["name"] == name)


_NOTES = (
    "Ours is measured over the true number of test shapes; the epoch is never chosen on the test "
    "set. The gain is paired by seed, with Student's 95 % interval. 'Corrected' is the paper's "
    f"figure over {TEST_SHAPES:,} shapes: its authors' code divides by {DIVISOR:,}."
)


def caveats(found: list[dict]) -> list[str]:
    """What a reader of these tables has to know, read off the records."""
    notes = [_NOTES]
    tested = {r["data"]["test"]["name"] for r in found if "test" in r["data"]}
    if tested - {"modelnet40"}:
        notes.append(
            f"Tested on {', '.join(sorted(tested - {'modelnet40'}))}, not on ModelNet40: only the "
            "sign and the order of the gains can be held against the paper's columns."
        )
    subsets = {
        r["data"]["test"]["num_shapes"]
        for r in found
        if "test" in r["data"] and r["data"]["test"]["name"] == "modelnet40"
    } - {TEST_SHAPES}
    if subsets:
        notes.append(f"Not the whole test split, but {sorted(subsets)} of its shapes.")
    presets = {r["parameters"]["preset"] for r in found} - {"paper", "authors_code"}
    if presets:
        notes.append(
            f"Models and schedule are those of the preset {', '.join(sorted(presets))}, "
            "smaller than the paper's."
        )
    restored = restoration_rows(found)
    if restored and all(row["restored"] >= row["copy_input"] for row in restored):
        notes.append(
            "No model here restores better than copying its input does: the pre-training is too "
            "short for its task, so that these gains say nothing about SeRP trained in full."
        )
    pretrained = {r["data"]["train"]["name"] for r in found if "restoration" in r["metrics"]}
    if pretrained and pretrained != {"shapenet55"}:
        notes.append(f"Pre-trained on {', '.join(sorted(pretrained))} in the place of ShapeNet.")
    return notes


def environment_line(found: list[dict]) -> str:
    """Devices, versions and revisions that the records name."""

    def all_of(pick) -> str:
        return ", ".join(sorted({str(pick(r["environment"])) for r in found}))

    return (
        f"{len(found)} runs, {sum(r['seconds'] for r in found) / 60:.1f} minutes of computing on "
        f"{all_of(lambda e: e['device'])}; torch {all_of(lambda e: e['packages']['torch'])}; "
        f"revision {all_of(lambda e: (e['git']['revision'] or 'unknown')[:10])}"
    )


def markdown(found: list[dict]) -> str:
    """The tables as Markdown, with their notes: what the README shows."""
    lines = []
    for title, heads, rows in tables(found):
        lines += [f"**{title}**", "", "| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
        lines += [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
        ]
        lines.append("")
    lines += [*caveats(found), "", environment_line(found) + "."]
    return "\n".join(lines) + "\n"
