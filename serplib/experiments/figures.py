"""Figures of a report, drawn from records (paper, section 4.2)."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import partial
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING

import pandas as pd

from serplib import presets
from serplib.evaluation.corruptions import CORRUPTIONS
from serplib.evaluation.robustness import POINTS
from serplib.experiments.tables import Records, label_of, variants

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_SWEPT: dict[str, tuple[str, str, Callable[[dict], float]]] = {  # title, scale, value by metric
    "test": ("Test accuracy", "accuracy, %", lambda m: m["accuracy"]),
    "probes": ("Linear SVM on frozen features", "accuracy, %", lambda m: m["svm_accuracy"]),
    "restoration": (
        "Restoration",
        "Chamfer distance, % of copying the input",
        lambda m: m["restored"] / m["copy_input"] if m["copy_input"] else math.nan,
    ),
}
ACCURACY = "Test accuracy, mean ± sd over seeds"


def panels(found: Records, accuracy: pd.DataFrame) -> dict[str, Callable[[Axes], None]]:
    """List the figures that the records can fill: title to a function that draws on axes.

    Args:
        found: the records.
        accuracy: their `tables.accuracy`.
    """
    made: dict[str, Callable[[Axes], None]] = {}
    trained = {name: group for name, group in variants(found).items()
               if "restoration" in group[0]["metrics"] and group[0]["history"]}  # fmt: skip
    if trained:
        made["Pre-training"] = lambda axes: _draw_losses(axes, trained)
    if not accuracy.empty:
        made[ACCURACY] = lambda axes: _draw_accuracies(axes, accuracy)
    few = _few_labels(found)
    if not few.empty:
        made["Few labels"] = lambda axes: _draw_curves(axes, few, "labels a class", log=True)
    tested = [r for r in found if "robustness" in r["metrics"]]
    if tested:
        severity, points = _by_severity(tested), _by_points(tested)
        made["Fifteen corruptions"] = lambda axes: _draw_curves(axes, severity, "severity")
        made["Fewer points"] = lambda axes: _draw_curves(axes, points, "points", log=True)
    for title, (curves, key, scale) in _sweeps(found).items():
        made[title] = partial(_draw_sweep, curves=curves, key=key, scale=scale)
    made["Cost"] = lambda axes: _draw_cost(axes, found)
    return made


def _draw_losses(axes: Axes, trained: dict[str, Records]) -> None:
    """Draw validation losses relative to epoch 1, and dashed the loss of copying the input."""
    for color, (name, group) in zip(cycle(COLORS), trained.items()):
        for i, record in enumerate(group):
            loss = pd.DataFrame(record["history"])["valid_total"]
            axes.plot(loss.index + 1, loss / loss[0], color=color, label=None if i else name)
        if copy := _copy_loss(group[0]):
            axes.axhline(copy / group[0]["history"][0]["valid_total"], color=color, dashes=(4, 3))
    axes.set(xlabel="epoch", ylabel="validation loss / that of epoch 1 (dashed: copying)")
    axes.set_ylim(0, 1.6)  # copying may cost many times that
    axes.legend(frameon=False, fontsize=7)


def _copy_loss(record: dict) -> float | None:
    """Return the loss of copying where the validation loss is a Chamfer distance per patch."""
    about = record["parameters"]
    settings = presets.build(about["preset"], about["changes"])
    comparable = about["model"] == "transformer" and settings.transformer.loss == "patch"
    return record["metrics"]["restoration"].get("patch_copy") if comparable else None


def _draw_accuracies(axes: Axes, rows: pd.DataFrame) -> None:
    axes.errorbar(rows["mean"], range(len(rows)), xerr=rows["sd"].fillna(0), fmt="o",
                  color=COLORS[0])  # fmt: skip
    _name_rows(axes, [f"{row.label} ({row.group})" for row in rows.itertuples()])
    axes.set_xlabel("%")


def _name_rows(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelsize=7)
    axes.invert_yaxis()


def _curves(points: list[tuple[str, int, float]]) -> pd.DataFrame:
    """Build the frame of `_draw_curves` from (label, x, value between 0 and 1)."""
    frame = pd.DataFrame(points, columns=["label", "x", "percent"])
    return frame.assign(percent=100 * frame["percent"])


def _few_labels(found: Records) -> pd.DataFrame:
    """Collect accuracies by labels a class, of the variants tested at two or more sizes."""
    curves = _curves([
        (label_of(r), r["parameters"]["labels_per_class"], r["metrics"]["test"]["accuracy"])
        for r in found if "test" in r["metrics"] and r["parameters"]["labels_per_class"]
    ])  # fmt: skip
    return curves.groupby("label").filter(lambda group: group["x"].nunique() > 1)


def _by_severity(tested: Records) -> pd.DataFrame:
    return _curves([
        (label_of(r), severity, fmean(r["metrics"]["robustness"][key] for key in keys))
        for r in tested for severity in range(1, 6)
        if (keys := r["metrics"]["robustness"].keys() & {f"{c}_{severity}" for c in CORRUPTIONS})
    ])  # fmt: skip


def _by_points(tested: Records) -> pd.DataFrame:
    whole = [(label_of(r), r["data"]["test"]["num_points"], r["metrics"]["robustness"]["clean"])
             for r in tested]  # fmt: skip
    return _curves(whole + [(label_of(r), count, r["metrics"]["robustness"][f"points_{count}"])
                            for r in tested for count in POINTS])  # fmt: skip


def _sweeps(found: Records) -> dict[str, tuple[pd.DataFrame, str, str]]:
    """Collect the runs of grids with one setting.

    Returns:
        By title: a frame with ``label``, ``x`` (nan for the baseline of all values) and
        ``percent``; the setting; and what ``percent`` is.
    """
    swept = [r for r in found if len(r["run"].get("grid", {}).get("values", ())) == 1]
    sweeps = {}
    for metric, (title, scale, ratio) in _SWEPT.items():
        own = [r for r in swept if metric in r["metrics"]]
        for key in dict.fromkeys(key for r in own for key in r["run"]["grid"]["values"]):
            of_key = [r for r in own if key in r["run"]["grid"]["values"]]
            bases = {r["run"].get("scratch") for r in of_key}
            fixed = [r for r in found if metric in r["metrics"] and "grid" not in r["run"]
                     and r["run"]["name"] in bases]  # fmt: skip
            points = [(_named(r, r["run"]["grid"]["of"]), r["run"]["grid"]["values"][key],
                       ratio(r["metrics"][metric])) for r in of_key]  # fmt: skip
            points += [(_named(r, label_of(r)), math.nan, ratio(r["metrics"][metric]))
                       for r in fixed]  # fmt: skip
            sweeps[f"{title} against {key}"] = _curves(points), key, scale
    return sweeps


def _named(record: dict, label: str) -> str:
    group = record["run"].get("group")
    return f"{label} ({group})" if group else label


def _half(values: pd.Series) -> float:
    """Return half of the 95 % interval of a mean (Student's t); 0 for a single value."""
    from scipy.stats import t

    n = len(values)
    return float(t.ppf(0.975, n - 1)) * values.std() / math.sqrt(n) if n > 1 else 0.0


def _draw_sweep(axes: Axes, curves: pd.DataFrame, key: str, scale: str) -> None:
    """Draw a metric against the values of a grid; dashed the baseline that has no grid."""
    base = curves["x"].isna()
    curve = curves[~base]
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in curve["x"])
    curve = curve.assign(x=curve["x"].astype(float if numbers else str))
    log = numbers and curve["x"].min() > 0 and curve["x"].max() >= 8 * curve["x"].min()
    for label, values in curves[base].groupby("label")["percent"]:
        axes.axhline(values.mean(), color=COLORS[-2], dashes=(4, 3), label=str(label))
    _draw_curves(axes, curve, f"{key} (95 % intervals over seeds)", log, scale, _half)


def _draw_curves(
    axes: Axes, curves: pd.DataFrame, xlabel: str, log: bool = False, ylabel: str = "accuracy, %",
    spread: Callable[[pd.Series], float] = pd.Series.std,
) -> None:  # fmt: skip
    """Draw means over seeds with a spread, by default the standard deviation, a curve a label."""
    for color, (label, curve) in zip(cycle(COLORS), curves.groupby("label", sort=False)):
        sort = pd.api.types.is_numeric_dtype(curve["x"])  # words stay in their order
        values = curve.groupby("x", sort=sort)["percent"]
        mean, error = values.mean(), values.agg(spread)
        axes.errorbar(mean.index, mean, yerr=error.fillna(0), fmt="o-", color=color,
                      label=str(label), capsize=2)  # fmt: skip
    if log:
        axes.set_xscale("log", base=2)
        ticks = sorted(curves["x"].unique())
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend(frameon=False, fontsize=7)


def _draw_cost(axes: Axes, found: Records) -> None:
    groups = variants(found).items()
    minutes = {name: fmean(r["seconds"] for r in group) / 60 for name, group in groups}
    axes.barh(range(len(minutes)), list(minutes.values()), color=COLORS[-1])
    _name_rows(axes, list(minutes))
    axes.set_xlabel("minutes a run, on the device that the report names")


def draw(found: Records, accuracy: pd.DataFrame) -> dict[str, bytes]:
    """Draw each of `panels` as a PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = {ACCURACY: len(accuracy), "Cost": len(variants(found))}
    pictures = {}
    for title, panel in panels(found, accuracy).items():
        figure = Figure(figsize=(8, max(4.0, 0.8 + 0.24 * rows.get(title, 0))),
                        layout="constrained")  # fmt: skip
        with matplotlib.rc_context({"text.parse_math": False}):  # a $ in a label is a $
            axes = figure.subplots()
            axes.set_title(title)
            panel(axes)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=90)
        pictures[title] = buffer.getvalue()
    return pictures
