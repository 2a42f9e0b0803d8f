"""Accuracy on ModelNet40 against CPU time: the leaderboard page and its figure (section 4.2)."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from serplib.experiments import records, render
from serplib.experiments.figures import COLORS
from serplib.experiments.notes import TEST_SHAPES, revision_of
from serplib.experiments.suites import experiments_folder
from serplib.experiments.summaries import format_rows
from serplib.experiments.tables import independent, label_of, variants

GOALS, MOST = (80, 85, 88, 89, 90), 5  # per cent, and entries of each
LONG = 5  # minutes
KINDS = ("no training", "frozen encoder", "from scratch", "pre-trained and fine-tuned")
_NETWORKS = {"pointnet": "PointNet", "transformer": "Transformer", "vasp": "VASP"}
_ACCURACY = ("accuracy", "svm_accuracy", "memory_accuracy")  # the first that a record has
_COLUMNS = {
    "variant": "{label}",
    "network": "{model}",
    "accuracy, %": "{mean:.2f} ± {sd:.2f}",
    "seeds": "{seeds}",
    "labelled shapes": "{labelled:,.0f}",
    "CPU minutes": "{minutes:.1f}",
    "command": "{command}",
    "record": "`{file}`",
    "commit": "`{commit}`",
    "date": "{date}",
    "device": "{device}",
}


def entries() -> pd.DataFrame:
    """Tabulate the committed runs on a CPU that were tested on all of ModelNet40's test split.

    Runs that are also tested on corrupted clouds are left out, as that is in their time, and those
    that repeat another record (``*-repeat.json``).

    Returns:
        A row a variant, fastest first, with the fields of `_COLUMNS`, ``kind`` (one of `KINDS`) and
        ``few`` (whether it had few labels); ``minutes`` of one core, the median over seeds, count
        the pre-training. Fine-tunings of one size, whatever they start from, count their common
        median. ``slowest`` is the largest over the smallest time of a variant's seeds.
    """
    paths = [p for p in records.results_folder().glob("*.json") if not p.stem.endswith("-repeat")]
    found = {path.name: records.read_json(path).get("records", []) for path in sorted(paths)}
    every = {r["run"]["hash"]: r for runs in found.values() for r in runs}
    rows = [_row(r, every) | {"file": name} for name, runs in found.items()
            for group in variants(runs).values() for r in independent(group)]  # fmt: skip
    frame = pd.DataFrame(rows).dropna(subset="accuracy")
    # Medians, because other programs have slowed some runs; a run of two suites counts once.
    typical = frame.drop_duplicates("hash").groupby("work")["own"].median()
    frame["minutes"] = frame["before"] + frame["work"].map(typical).fillna(frame["own"])
    frame["measured"] = frame["before"] + frame["own"]
    groups = frame.groupby(["file", "name"], sort=False)
    least = groups["measured"].min()
    table = groups.last().assign(
        mean=groups["accuracy"].mean(), minutes=groups["minutes"].median(),
        sd=groups["accuracy"].std(), seeds=groups.size(), first=groups["hash"].first(),
        slowest=groups["measured"].max() / least.where(least > 0),
    )  # fmt: skip
    table = table.sort_values("seeds", ascending=False, kind="stable")
    return table.drop_duplicates("first").sort_values("minutes").reset_index()  # shared runs once


def _row(record: dict, every: dict[str, dict]) -> dict[str, Any]:
    """Describe a run; its accuracy is None where it does not belong into the table."""
    run, parameters, environment = (record[key] for key in ("run", "parameters", "environment"))
    test, chain, part = record["data"].get("test", {}), list[float](), record
    belongs = (test.get("name"), test.get("num_shapes")) == ("modelnet40", TEST_SHAPES)
    belongs &= environment["device"].startswith("CPU")
    belongs &= "robustness" not in record["metrics"]
    while part:  # the run, and those that it starts from
        chain.append(part["seconds"] * part["environment"]["threads"] / 60)
        parent = part["run"].get("parent")
        belongs &= parent is None or parent in every
        part = every.get(parent, {})
    metrics = {**record["metrics"].get("probes", {}), **record["metrics"].get("test", {})}
    values = [100 * metrics[key] for key in _ACCURACY if belongs and key in metrics]
    command = f"`serp run {run['suite']} --profile {run['profile']}`"
    if not (experiments_folder() / "suites" / f"{run['suite']}.yaml").is_file():
        command = "an older suite and preset: those of the commit"
    labelled = [record["data"][part]["num_shapes"] for part in ("train", "valid")
                if part in record["data"]]  # fmt: skip
    tuned, pretrained = "test" in record["metrics"], parameters.get("pretrained", False)
    work = None  # what a fine-tuning computes, whatever its first weights
    if tuned and record.get("history"):
        size = record.get("millions_of_parameters", parameters.get("preset"))
        work = f"{parameters['model']} {size} {len(record['history'])} {labelled}"
    return {
        **{key: run[key] for key in ("name", "hash")},
        "command": command,
        "label": label_of(record) + (f" ({run['group']})" if "group" in run else ""),
        "model": parameters["model"],
        "kind": KINDS[2 * tuned + pretrained],
        "few": bool(parameters.get("labels_per_class")),
        "labelled": sum(labelled),
        "accuracy": values[0] if values else None,
        "work": work,
        "own": chain[0],
        "before": sum(chain[1:]),
        "commit": revision_of(environment),
        "date": record["finished"][:10],
        "device": environment["device"],
    }


def _said(row: pd.Series) -> str:
    """Name a variant in words."""
    network, label = _NETWORKS.get(row["model"]), row["label"]
    if row["kind"] == KINDS[0]:
        return f"SVM on an untrained {network} encoder" if network else str(label)
    return {
        KINDS[1]: f"SVM on a frozen {network} encoder: {label}",
        KINDS[2]: f"{network} from scratch: {label}",
    }.get(row["kind"], f"fine-tuned {network}: {label}")


def leaderboard() -> str:
    """Return the tables of the leaderboard page in Markdown, fastest first."""
    found, lines, roads = entries(), list[str](), list[str]()
    for goal in GOALS:
        rows = found[found["mean"] >= goal].head(MOST)
        if rows.empty:  # no variant reaches it
            continue
        lines += [f"**{goal} %**", "", render.table_to_markdown(format_rows(rows, _COLUMNS)), ""]
        first = rows.iloc[0]
        roads.append(f"To {goal} %: {_said(first)}, {first['minutes']:.1f} minutes.")
    answer = f"Fastest of {len(found)} variants. {' '.join(roads)}"
    spread, long = found["slowest"].max(), found[found["minutes"] > LONG]["slowest"].max()
    warning = (
        "The minutes depend on the machine and on its load: runs that are equal but for the seed "
        f"differ by up to a factor of {spread:.1f}, and by {long:.1f} where their median is above "
        f"{LONG} minutes. The order of variants within such a factor means nothing."
    )
    return "\n".join([f"As of {found['date'].max()}.", "", answer, "", warning, "", *lines])


def digest(found: pd.DataFrame) -> str:
    """Return the start of the sha256 of what the figure shows."""
    shown = found[["label", "kind", "few", "labelled", "mean", "minutes"]]
    return hashlib.sha256(shown.to_csv(float_format="%.3f").encode()).hexdigest()[:16]


def draw(path: Path) -> None:
    """Write the figure as a PNG that holds its `digest`; a line joins variants that none beats."""
    from matplotlib.figure import Figure

    found = entries()
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots()
    every = found["labelled"].max()
    part = found.assign(part=(found["labelled"] < every) & ~found["few"].astype(bool))
    for (kind, few, some), rows in part.groupby(["kind", "few", "part"]):
        color = COLORS[KINDS.index(kind)]
        size = ", few labels" if few else ""
        size = f", {int(rows['labelled'].max()):,} labels" if some else size
        axes.scatter(rows["minutes"], rows["mean"], s=40, edgecolors=color,
                     color="none" if few else color, marker="^" if some else "o",
                     label=f"{kind}{size}")  # fmt: skip
    best = found[found["mean"] > found["mean"].cummax().shift(fill_value=0.0)]
    axes.step(best["minutes"], best["mean"], where="post", color=COLORS[-1], lw=1, zorder=0)
    for number, (_, row) in enumerate(best.iterrows(), start=1):
        above = 6 + 12 * (number % 3)  # neighbours stand at three heights
        axes.annotate(str(number), (row["minutes"], row["mean"]), (0, above), fontsize=10,
                      textcoords="offset points", ha="center")  # fmt: skip
        axes.plot([], [], " ", label=textwrap.fill(f"{number}: {_said(row)}", 46))
    axes.set(xscale="log", xlabel="CPU minutes of one core, pre-training included",
             ylabel="accuracy on ModelNet40, %")  # fmt: skip
    axes.set_xticks(ticks := (0.5, 1, 2, 5, 10, 20, 50), list(map(str, ticks)))
    axes.set_ylim(top=97)
    figure.legend(frameon=False, fontsize=9, loc="outside right upper")
    figure.savefig(path, dpi=100, metadata={"Description": digest(found)})
