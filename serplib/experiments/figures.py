"""The figures of a report: what is drawn from records, and only what they hold."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Callable

from serplib import presets
from serplib.evaluation.corruptions import CORRUPTIONS
from serplib.evaluation.robustness import POINTS
from serplib.experiments.tables import accuracy_rows, arms

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def panels(found: list[dict]) -> dict[str, Callable]:
    """What can be drawn of these records: title to a function of a matplotlib axes."""
    made: dict[str, Callable] = {}
    by_name = arms(found)
    trained = {name: group for name, group in by_name.items() if "restoration" in
               group[0]["metrics"] and group[0]["history"]}  # fmt: skip
    if trained:
        made["Pre-training"] = lambda axes: _losses(axes, trained)
    rows = accuracy_rows(found)
    if rows:
        made["Test accuracy, mean ± sd over seeds"] = lambda axes: _accuracies(axes, rows)
    few = _by_labels(found)
    if few:
        made["Few labels"] = lambda axes: _lines(axes, few, "labels a class", "test accuracy, %")
    tested = {n: g for n, g in by_name.items() if "robustness" in g[0]["metrics"]}
    if tested:
        severity, points = _by_severity(tested), _by_points(tested)
        made["Fifteen corruptions"] = lambda axes: _lines(axes, severity, "severity", "accuracy, %")
        made["Fewer points"] = lambda axes: _lines(axes, points, "points", "accuracy, %", True)
    made["Cost"] = lambda axes: _cost(axes, by_name)
    return made


def _label(group: list[dict]) -> str:
    about = group[0]["run"]
    return about.get("label", about["name"])


def _losses(axes, trained: dict[str, list[dict]]) -> None:
    """Validation losses, relative to epoch 1; dashed, what copying the input costs in that loss."""
    for color, (name, group) in zip(COLORS * 9, trained.items()):
        for i, record in enumerate(group):
            loss = [entry["valid_total"] for entry in record["history"]]
            axes.plot(range(1, len(loss) + 1), [value / loss[0] for value in loss], color=color,
                      label=name if i == 0 else None)  # fmt: skip
        copy = _copy_loss(group[0])
        if copy:
            axes.axhline(copy / group[0]["history"][0]["valid_total"], color=color, dashes=(4, 3))
    axes.set(xlabel="epoch", ylabel="validation loss / that of epoch 1 (dashed: copying)")
    axes.set_ylim(0, 1.6)  # copying may cost many times that
    axes.legend(frameon=False, fontsize=7)


def _copy_loss(record: dict) -> float | None:
    """The loss of copying, where it is in the unit of the validation loss: Chamfer per patch."""
    about = record["parameters"]
    settings = presets.build(about["preset"], about["changes"])
    alike = about["model"] == "transformer" and settings.transformer.loss == "patch"
    return record["metrics"]["restoration"].get("patch_copy") if alike else None


def _accuracies(axes, rows: list[dict]) -> None:
    for place, row in enumerate(rows):
        sd = 0 if math.isnan(row["sd"]) else row["sd"]
        axes.errorbar(row["mean"], place, xerr=sd, fmt="o", color=COLORS[0])
    axes.set_yticks(range(len(rows)), [f"{row['label']} ({row['group']})" for row in rows])
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("%")


def _by_labels(found: list[dict]) -> dict[str, dict[float, list[float]]]:
    """Label of an arm to labels a class to accuracies, where there are two numbers of labels."""
    curves: dict[str, dict[float, list[float]]] = {}
    for record in found:
        if "test" in record["metrics"] and record["parameters"]["labels_per_class"]:
            at = curves.setdefault(_label([record]), {})
            at.setdefault(record["parameters"]["labels_per_class"], []).append(
                100 * record["metrics"]["test"]["accuracy"]
            )
    return {label: at for label, at in curves.items() if len(at) > 1}


def _by_severity(tested: dict[str, list[dict]]) -> dict[str, dict[float, list[float]]]:
    curves = {}
    for group in tested.values():
        at = {}
        for severity in range(1, 6):
            keys = [f"{name}_{severity}" for name in CORRUPTIONS]
            metrics = [r["metrics"]["robustness"] for r in group]
            if keys[0] in metrics[0]:
                at[severity] = [100 * statistics.fmean(m[key] for key in keys) for m in metrics]
        curves[_label(group)] = at
    return curves


def _by_points(tested: dict[str, list[dict]]) -> dict[str, dict[float, list[float]]]:
    curves = {}
    for group in tested.values():
        metrics = [r["metrics"]["robustness"] for r in group]
        whole = group[0]["data"]["test"]["num_points"]
        curves[_label(group)] = {whole: [100 * m["clean"] for m in metrics]} | {
            count: [100 * m[f"points_{count}"] for m in metrics] for count in POINTS
        }
    return curves


def _lines(axes, curves: dict, xlabel: str, ylabel: str, log: bool = False) -> None:
    """Mean and spread (sample standard deviation over seeds) of each curve."""
    for color, (label, at) in zip(COLORS * 9, curves.items()):
        x = sorted(at)
        mean = [statistics.fmean(at[k]) for k in x]
        spread = [statistics.stdev(at[k]) if len(at[k]) > 1 else 0 for k in x]
        axes.errorbar(x, mean, yerr=spread, fmt="o-", color=color, label=label, capsize=2)
    if log or max(max(at) for at in curves.values()) > 16:
        axes.set_xscale("log", base=2)
        ticks = sorted({k for at in curves.values() for k in at})
        axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend(frameon=False, fontsize=7)


def _cost(axes, by_name: dict[str, list[dict]]) -> None:
    minutes = {name: [r["seconds"] / 60 for r in group] for name, group in by_name.items()}
    axes.barh(range(len(minutes)), [statistics.fmean(m) for m in minutes.values()],
              color=COLORS[-1])  # fmt: skip
    axes.set_yticks(range(len(minutes)), list(minutes))
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("minutes a run, on the device that the report names")


def draw(found: list[dict]) -> dict[str, bytes]:
    """Each of `panels` as a PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pictures = {}
    for title, panel in panels(found).items():
        tall = max(4.0, 0.5 + 0.2 * len(found) / 3) if title in ("Cost",) else 4.0
        if title.startswith("Test accuracy"):
            tall = max(4.0, 0.8 + 0.24 * len(accuracy_rows(found)))
        figure = Figure(figsize=(8, tall), layout="constrained")
        FigureCanvasAgg(figure)
        with matplotlib.rc_context({"text.parse_math": False}):  # a $ in a label is a $
            axes = figure.subplots()
            axes.set_title(title)
            panel(axes)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=90)
        pictures[title] = buffer.getvalue()
    return pictures
