"""Accuracy on ModelNet40 against CPU time: the leaderboard page and its figure (section 4.2)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from serplib.evaluation.significance import mean_sd
from serplib.experiments import records, render
from serplib.experiments.figures import COLORS
from serplib.experiments.tables import TEST_SHAPES, format_rows, label_of, variants

GOALS = (80, 85, 88)  # per cent
MOST = 5  # entries of a goal
KINDS = ("no training", "frozen encoder", "from scratch", "pre-trained and fine-tuned")
_ACCURACY = (("test", "accuracy"), ("probes", "svm_accuracy"), ("probes", "memory_accuracy"))
_COLUMNS = {
    "variant": "{label}",
    "network": "{model}",
    "accuracy, %": "{mean:.2f} ± {sd:.2f}",
    "seeds": "{seeds}",
    "CPU minutes": "{minutes:.1f}",
    "command": "`serp run {suite} --profile {profile}`",
    "record": "`{file}`",
    "commit": "`{commit}`",
    "date": "{date}",
    "device": "{device}",
}


def entries() -> pd.DataFrame:
    """Tabulate the committed runs on a CPU that were tested on all of ModelNet40's test split.

    `robustness` is left out: its runs are timed with their corrupted test sets.

    Returns:
        A row a variant, fastest first: ``label``; ``kind``, one of `KINDS`; ``few``, whether it had
        few labels; ``mean`` and ``sd`` of the accuracy in per cent (classifier, else linear SVM,
        else memory bank); ``seeds``; ``minutes`` of one core with pre-training, the mean over
        seeds; ``file``, that of the records; ``model``, ``suite``, ``profile``, ``commit``,
        ``date`` and ``device`` of the last run.
    """
    paths = sorted(records.results_folder().glob("*.json"))
    suites = {path.name: records.read_json(path).get("records", []) for path in paths}
    every = {r["run"]["hash"]: r for found in suites.values() for r in found}
    rows: list[dict[str, Any]] = []
    for name, found in suites.items():
        for group in variants([r for r in found if _belongs(r, every)]).values():
            hashes = {record["run"]["hash"] for record in group}
            if not any(hashes <= row["hashes"] for row in rows):  # suites may share runs
                rows.append(_entry(group, every) | {"file": name, "hashes": hashes})
    return pd.DataFrame(rows).sort_values("minutes", ignore_index=True)


def _belongs(record: dict, every: dict[str, dict]) -> bool:
    test, metrics = record["data"].get("test", {}), record["metrics"]
    whole = (test.get("name"), test.get("num_shapes")) == ("modelnet40", TEST_SHAPES)
    costed = (record["run"].get("parent") or record["run"]["hash"]) in every
    return (
        (whole and costed and "robustness" not in metrics)
        and record["environment"]["device"].startswith("CPU")
        and any(key in metrics.get(metric, ()) for metric, key in _ACCURACY)
    )


def _entry(group: list[dict], every: dict[str, dict]) -> dict[str, Any]:
    """Summarise the seeds of one variant."""

    def minutes(record: dict) -> float:
        parent = record["run"].get("parent")
        own = record["seconds"] * record["environment"]["threads"] / 60
        return own + (minutes(every[parent]) if parent else 0.0)

    last = max(group, key=lambda record: record["finished"])
    metric, key = next((m, k) for m, k in _ACCURACY if k in last["metrics"].get(m, ()))
    mean, sd = mean_sd([100 * record["metrics"][metric][key] for record in group])
    pretrained = last["parameters"].get("pretrained", False)
    heading = last["run"].get("group")
    return {
        **{key: last["run"][key] for key in ("suite", "profile")},
        "model": last["parameters"]["model"],
        "label": label_of(last) + (f" ({heading})" if heading else ""),
        "kind": KINDS[2 * (metric == "test") + pretrained],
        "few": bool(last["parameters"].get("labels_per_class")),
        "mean": mean,
        "sd": sd,
        "seeds": len(group),
        "minutes": fmean(minutes(record) for record in group),
        "commit": (last["environment"]["git"]["revision"] or "unknown")[:10],
        "date": last["finished"][:10],
        "device": last["environment"]["device"],
    }


def leaderboard() -> str:
    """Return the tables of the leaderboard page in Markdown, fastest first."""
    found, lines, roads = entries(), list[str](), list[str]()
    for goal in GOALS:
        rows = found[found["mean"] >= goal].head(MOST)
        lines += [f"**{goal} %**", "", render.table_to_markdown(format_rows(rows, _COLUMNS)), ""]
        first = rows.iloc[0]
        roads.append(f"to {goal} % {first['label']} with {first['minutes']:.1f} minutes")
    answer = f"The fastest roads, of {len(found)} variants, are {'; '.join(roads)}."
    return "\n".join([f"As of {found['date'].max()}.", "", answer, "", *lines])


def digest(found: pd.DataFrame) -> str:
    """Return the start of the sha256 of what the figure shows."""
    shown = found[["label", "kind", "few", "mean", "minutes"]].to_csv(float_format="%.3f")
    return hashlib.sha256(shown.encode()).hexdigest()[:16]


def draw(path: Path) -> None:
    """Write the figure as a PNG that holds its `digest`; a line joins variants that none beats."""
    from matplotlib.figure import Figure

    found = entries()
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    axes = figure.subplots()
    for (kind, few), rows in found.groupby(["kind", "few"]):
        color = COLORS[KINDS.index(kind)]
        axes.scatter(rows["minutes"], rows["mean"], s=30, edgecolors=color,
                     color="none" if few else color,
                     label=f"{kind}, few labels" if few else kind)  # fmt: skip
    best = found[found["mean"] > found["mean"].cummax().shift(fill_value=0.0)]
    axes.step(best["minutes"], best["mean"], where="post", color=COLORS[-1], lw=1, zorder=0)
    for number, (_, row) in enumerate(best.iterrows(), start=1):
        axes.annotate(str(number), (row["minutes"], row["mean"]), (-9, 3), fontsize=8,
                      textcoords="offset points")  # fmt: skip
        axes.plot([], [], " ", label=f"{number}: {row['model']}, {row['label']}")
    axes.set(xscale="log", xlabel="CPU minutes of one core, pre-training included",
             ylabel="accuracy on ModelNet40, %")  # fmt: skip
    axes.set_xticks(ticks := (0.5, 1, 2, 5, 10, 20), list(map(str, ticks)))
    figure.legend(frameon=False, fontsize=7, loc="outside right upper")
    figure.savefig(path, dpi=100, metadata={"Description": digest(found)})
