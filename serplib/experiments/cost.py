"""Accuracy on ModelNet40 against CPU time: the leaderboard page and its figure (section 4.2)."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from serplib.experiments import records, render
from serplib.experiments.figures import COLORS
from serplib.experiments.notes import TEST_SHAPES
from serplib.experiments.suites import experiments_folder
from serplib.experiments.tables import format_rows, label_of

GOALS, MOST = (80, 85, 88), 5  # per cent, and entries of each
KINDS = ("no training", "frozen encoder", "from scratch", "pre-trained and fine-tuned")
_ACCURACY = ("accuracy", "svm_accuracy", "memory_accuracy")  # the first that a record has
_COLUMNS = {
    "variant": "{label}",
    "network": "{model}",
    "accuracy, %": "{mean:.2f} ± {sd:.2f}",
    "seeds": "{seeds}",
    "CPU minutes": "{minutes:.1f}",
    "command": "{command}",
    "record": "`{file}`",
    "commit": "`{commit}`",
    "date": "{date}",
    "device": "{device}",
}


def entries() -> pd.DataFrame:
    """Tabulate the committed runs on a CPU that were tested on all of ModelNet40's test split.

    Runs that are also tested on corrupted clouds are left out, as that is in their time.

    Returns:
        A row a variant, fastest first, with the fields of `_COLUMNS`, ``kind`` (one of `KINDS`) and
        ``few`` (whether it had few labels); ``minutes`` of one core, the median over seeds, count
        the pre-training.
    """
    paths = sorted(records.results_folder().glob("*.json"))
    found = {path.name: records.read_json(path).get("records", []) for path in paths}
    every = {r["run"]["hash"]: r for runs in found.values() for r in runs}
    rows = [_row(r, every) | {"file": name} for name, runs in found.items() for r in runs]
    groups = pd.DataFrame(rows).dropna(subset="accuracy").groupby(["file", "name"], sort=False)
    # The median, because other programs have slowed the runs of some seeds.
    minutes = groups["minutes"].median()
    table = groups.last().assign(
        mean=groups["accuracy"].mean(), minutes=minutes, sd=groups["accuracy"].std(),
        seeds=groups.size(), first=groups["hash"].first(),
    )  # fmt: skip
    table = table.sort_values("seeds", ascending=False, kind="stable")
    return table.drop_duplicates("first").sort_values("minutes").reset_index()  # shared runs once


def _row(record: dict, every: dict[str, dict]) -> dict[str, Any]:
    """Describe a run; its accuracy is None where it does not belong into the table."""
    run, parameters, environment = (record[key] for key in ("run", "parameters", "environment"))
    test, minutes, part = record["data"].get("test", {}), 0.0, record
    belongs = (test.get("name"), test.get("num_shapes")) == ("modelnet40", TEST_SHAPES)
    belongs &= environment["device"].startswith("CPU") and "robustness" not in record["metrics"]
    while part:  # the run, and those that it starts from
        minutes += part["seconds"] * part["environment"]["threads"] / 60
        parent = part["run"].get("parent")
        belongs &= parent is None or parent in every
        part = every.get(parent, {})
    metrics = {**record["metrics"].get("probes", {}), **record["metrics"].get("test", {})}
    values = [100 * metrics[key] for key in _ACCURACY if belongs and key in metrics]
    command = f"`serp run {run['suite']} --profile {run['profile']}`"
    if not (experiments_folder() / "suites" / f"{run['suite']}.yaml").is_file():
        command = "an older suite: the settings are in the record"
    tuned, pretrained = "test" in record["metrics"], parameters.get("pretrained", False)
    return {
        **{key: run[key] for key in ("name", "hash")},
        "command": command,
        "label": label_of(record) + (f" ({run['group']})" if "group" in run else ""),
        "model": parameters["model"],
        "kind": KINDS[2 * tuned + pretrained],
        "few": bool(parameters.get("labels_per_class")),
        "accuracy": values[0] if values else None,
        "minutes": minutes,
        "commit": (environment["git"]["revision"] or "unknown")[:10],
        "date": record["finished"][:10],
        "device": environment["device"],
    }


def leaderboard() -> str:
    """Return the tables of the leaderboard page in Markdown, fastest first."""
    found, lines, roads = entries(), list[str](), list[str]()
    for goal in GOALS:
        rows = found[found["mean"] >= goal].head(MOST)
        lines += [f"**{goal} %**", "", render.table_to_markdown(format_rows(rows, _COLUMNS)), ""]
        first = rows.iloc[0]
        road = f"{first['model']}, {first['label']}, {first['minutes']:.1f} minutes"
        roads.append(f"to {goal} % {road}")
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
