"""Tables of a suite: records to pandas frames, and frames to text with notes (section 4.2)."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from serplib.evaluation.robustness import GROUPS, POINTS, summary
from serplib.evaluation.significance import bootstrap_gain, mcnemar, mean_sd, paired_gain
from serplib.experiments.records import code_changed, unpack_bits

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

Records = list[dict[str, Any]]


def corrected(published: float) -> float:
    """Convert a published accuracy, hits / 2,560, to hits / 2,468, the true number of shapes.

    The authors' code divides by batches x batch size; all six published values are k / 2,560.
    """
    return round(published * DIVISOR / 100) / TEST_SHAPES * 100


def variants(found: Records) -> dict[str, Records]:
    """Group records by the name of their run, in the order of the suite."""
    by_name: dict[str, Records] = {}
    for record in found:
        by_name.setdefault(record["run"]["name"], []).append(record)
    return by_name


def label_of(record: dict[str, Any]) -> str:
    """Return the label of a record's variant, or the name of its run."""
    return record["run"].get("label", record["run"]["name"])


# ---- numbers -----------------------------------------------------------------------------------


_GAIN = ("gain", "low", "high", "verdict", "shapes_low", "shapes_high", "significant")


def _compare(ours: dict[int, dict], base: dict[int, dict], prefix: str) -> dict[str, Any]:
    """Return the columns ``mean`` to ``significant`` of `accuracy`.

    Args:
        ours: metrics of the variant by seed.
        base: metrics of the variant from scratch by seed, empty for none.
        prefix: of the keys ``accuracy`` and ``correct`` in them.
    """
    percent, base_percent = (
        {seed: 100 * metrics[f"{prefix}accuracy"] for seed, metrics in variant.items()}
        for variant in (ours, base)
    )
    mean, sd = mean_sd(list(percent.values()))
    row: dict[str, Any] = {"mean": mean, "sd": sd, "seeds": len(ours), "pairs": 0, "gain_text": ""}
    gain = paired_gain(percent, base_percent)
    if gain is None:
        return row | dict.fromkeys(_GAIN, math.nan)
    seeds = sorted(ours.keys() & base.keys())
    right, base_right = (
        [unpack_bits(variant[seed][f"{prefix}correct"]) for seed in seeds]
        for variant in (ours, base)
    )
    shapes = bootstrap_gain(right, base_right)
    interval = " [{low:+.2f}, {high:+.2f}] {verdict}" if gain["n"] > 1 else ", one seed: {verdict}"
    return row | {
        **{key: gain[key] for key in ("gain", "low", "high", "verdict")},
        "pairs": gain["n"],
        "gain_text": ("{gain:+.2f}" + interval).format(**gain),
        "shapes_low": 100 * shapes["low"],
        "shapes_high": 100 * shapes["high"],
        "significant": sum(mcnemar(a, b)["p"] < 0.05 for a, b in zip(right, base_right)),
    }


def _compared(found: Records, metric: str, prefix: str) -> Iterator[tuple[str, Records, dict]]:
    """Yield name, records and the columns of `_compare` of each variant that has the metric."""
    groups = variants([r for r in found if metric in r["metrics"]])
    by_seed = {
        name: {r["parameters"]["seed"]: r["metrics"][metric] for r in group}
        for name, group in groups.items()
    }
    for name, group in groups.items():
        base = by_seed.get(group[0]["run"].get("scratch"), {})
        yield name, group, {"label": label_of(group[0])} | _compare(by_seed[name], base, prefix)


def _frame(rows: dict[str, dict]) -> pd.DataFrame:
    """Build a frame from rows by name; an empty one has the columns of a gain, too."""
    columns = ["label", "mean", "sd", "seeds", "pairs", "gain_text", *_GAIN]
    return pd.DataFrame.from_dict(rows, orient="index") if rows else pd.DataFrame(columns=columns)


def _few_first(group: str) -> tuple[float, str]:
    """Sort key: groups with a leading number by that number, then the others by name."""
    number = re.match(r"\d+", group)
    return (int(number[0]) if number else math.inf, group)


def accuracy(found: Records) -> pd.DataFrame:
    """Tabulate the fine-tuned variants.

    Returns:
        A row a variant, indexed by run name, few labels first. Accuracies are in per cent, gains
        in points. ``label``; ``mean``, ``sd`` and ``seeds``; ``gain`` over the variant from
        scratch, its 95 % interval over seeds ``low`` to ``high``, ``verdict`` and ``pairs`` (the
        common seeds), of `significance.paired_gain`, and as ``gain_text``; the interval over test
        shapes ``shapes_low`` to ``shapes_high``; ``significant``, the seeds where McNemar's test
        has p < 0.05; ``group``; the paper's figure ``published`` and ``corrected``;
        ``test_shapes``; ``size``, preset and epochs. Without a variant from scratch ``pairs`` is 0
        and the gain is nan.
    """
    rows = {}
    for name, group, row in _compared(found, "test", ""):
        about = group[0]["run"]
        published = PUBLISHED.get(about.get("published"), math.nan)
        rows[name] = row | {
            "group": about.get("group", ""),
            "published": published,
            "corrected": published if math.isnan(published) else corrected(published),
            "test_shapes": group[0]["metrics"]["test"]["num_shapes"],
            "size": f"{group[0]['parameters']['preset']}, {len(group[0]['history'])} epochs",
        }
    order = sorted(rows, key=lambda name: _few_first(rows[name]["group"]))  # stable
    return _frame({name: rows[name] for name in order})


def probes(found: Records) -> pd.DataFrame:
    """Tabulate the frozen encoders: linear SVM with its gain over the untrained one, and the rest.

    Returns:
        A row a variant with the columns of `accuracy` up to ``significant``, for the linear SVM;
        mean and ``*_sd`` of the heads ``knn``, ``linear``, ``mlp3`` where they were fitted and of
        few-shot episodes, all in per cent; ``rankme`` and ``feature_variance``.
    """
    rows = {}
    for name, group, row in _compared(found, "probes", "svm_"):
        measured = [r["metrics"]["probes"] for r in group]
        values = {h: [m[f"{h}_accuracy"] for m in measured if f"{h}_accuracy" in m]
                  for h in _HEADS.values()}  # fmt: skip
        for key in (key for key in measured[0] if key.startswith("few_shot_")):
            values[key] = [fold for m in measured for fold in m[key]["folds"]]
        for key, found_values in values.items():
            if found_values:
                row[key], row[f"{key}_sd"] = mean_sd([100 * v for v in found_values])
        for key in ("rankme", "feature_variance"):
            row[key] = mean_sd([m[key] for m in measured])[0]
        rows[name] = row
    return _frame(rows)


def means(found: Records, metric: str) -> pd.DataFrame:
    """Average each number of a metric over seeds.

    Args:
        metric: such as ``"restoration"``.

    Returns:
        A row a variant that has the metric, indexed by run name: ``label``, ``seeds``,
        ``seconds``, and the metric's numbers; empty where no record has it.
    """
    rows = [
        {"name": r["run"]["name"], "label": label_of(r), "seconds": r["seconds"]}
        | r["metrics"][metric]
        for r in found
        if metric in r["metrics"]
    ]
    if not rows:
        return pd.DataFrame()
    groups = pd.DataFrame(rows).groupby("name", sort=False)
    averaged = groups.mean(numeric_only=True)
    return averaged.assign(label=groups["label"].first(), seeds=groups.size())


# ---- text --------------------------------------------------------------------------------------


def format_rows(frame: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Format a frame, ``columns`` from head to format; a missing number leaves its cell empty."""

    def cell(form: str, row: dict) -> str:
        text = form.format_map(defaultdict(lambda: math.nan, row)).removesuffix(" ± nan")
        return "" if "nan" in text and form != "{label}" else text

    rows = frame.to_dict("records")
    return pd.DataFrame(
        {head: [cell(form, row) for row in rows] for head, form in columns.items()}, dtype=str
    )


def _with_gain(first: str, ours: str, base: str) -> dict[str, str]:
    return {
        first: "{label}",
        ours: "{mean:.2f} ± {sd:.2f}",
        "seeds": "{seeds}",
        f"gain over {base} [95 %, over seeds]": "{gain_text}",
        "[95 %, over shapes]": "[{shapes_low:+.2f}, {shapes_high:+.2f}]",
        "McNemar p < .05": "{significant:.0f} of {pairs} seeds",
    }


_ACCURACY = _with_gain("variant", "ours (mean ± sd)", "scratch")
_PAPER = {"paper, ModelNet40": "{published:.2f}", "corrected": "{corrected:.2f}"}
_PROBES = _with_gain("encoder", "linear SVM", "untrained")
_HEADS = {"kNN": "knn", "one layer": "linear", "three layers": "mlp3"}
_RESTORATION = {
    "variant": "{label}",
    "seeds": "{seeds}",
    "restored": "{restored:.1f}",
    "copy input": "{copy_input:.1f}",
    "resample": "{resample:.1f} ({resample_points:.0f} points)",
    "detection AUC": "{detection_auc:.2f}",
}
_CODES = {
    "variant": "{label}",
    "perplexity": "{perplexity:.1f}",
    "live codes, %": "{live_codes:.1f}",
}
_LEAKAGE = {
    "variant": "{label}",
    "seeds": "{seeds}",
    "constant": "{constant:.4f}",
    "positions of another": "{positions_of_another:.4f}",
    "positions": "{positions:.4f}",
    "full": "{full:.4f}",
    "explained": "{explained:.1f} %",
    "leaked": "{leaked:.1f} %",
}
_PUBLISHED_FILES = {
    "variant": "{label}",
    "seeds": "{seeds}",
    **{key: f"{{{key}:.1f}}" for key in ("corrupted", *GROUPS)},
}
_ROBUSTNESS = {
    "variant": "{label}",
    "seeds": "{seeds}",
    "clean": "{clean:.1f}",
    "clean, in the box": "{clean_in_box:.1f}",
    **{key: f"{{{key}:.1f}}" for key in ("corrupted", *GROUPS)},
    **{f"{n} points": f"{{points_{n}:.1f}}" for n in POINTS},
    "about z": "{rotated_z:.1f}",
    "SO(3)": "{rotated_so3:.1f}",
}


def _accuracy_tables(frame: pd.DataFrame, data: str) -> dict[str, pd.DataFrame]:
    shown = {}
    for group in frame["group"].unique():
        chosen = frame[frame["group"] == group]
        columns = _ACCURACY | (_PAPER if chosen["published"].notna().any() else {})
        shown[f"Accuracy on {data}, %" + (f": {group}" if group else "")] = format_rows(
            chosen, columns
        )
    return shown


def _probe_tables(frame: pd.DataFrame, data: str) -> dict[str, pd.DataFrame]:
    def pair(key: str) -> str:
        return f"{{{key}:.2f}} ± {{{key}_sd:.2f}}"

    columns = _PROBES | {head: pair(key) for head, key in _HEADS.items() if key in frame}
    title = f"{data}, accuracy %"
    shown = {
        f"Frozen encoders on {title}": format_rows(frame, columns | {"RankMe": "{rankme:.1f}"})
    }
    episodes = [k for k in frame.filter(like="few_shot_").columns if not k.endswith("_sd")]
    if episodes:
        columns = {key.removeprefix("few_shot_").replace("_", " "): pair(key) for key in episodes}
        chosen = frame[frame[episodes[0]].notna()]
        title = f"Few-shot, frozen, mean ± sd over episodes: {title}"
        shown[title] = format_rows(chosen, {"encoder": "{label}"} | columns)
    return shown


def _restoration_tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    frame = frame.copy()
    frame[["restored", "copy_input", "resample"]] *= 1e4
    shown = {
        "Restoration of held-out clouds: Chamfer (Eq. 11) x 10,000": format_rows(
            frame, _RESTORATION
        )
    }
    if "perplexity" in frame:
        coded = frame[frame["perplexity"].notna()].assign(live_codes=100 * frame["live_codes"])
        shown["Codebook use over the held-out clouds"] = format_rows(coded, _CODES)
    return shown


def _leakage_tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    frame = frame.copy()
    frame[["explained", "leaked"]] *= 100
    return {"Leakage: reconstruction by decoders without an encoder": format_rows(frame, _LEAKAGE)}


def _robustness_tables(frame: pd.DataFrame, title: str, columns: dict) -> dict[str, pd.DataFrame]:
    numbers = frame.select_dtypes("float")
    most = max(int(key.removeprefix("uniform_")) for key in numbers.filter(like="uniform_").columns)
    groups = numbers.apply(lambda row: pd.Series(summary(row.to_dict())), axis=1)
    percent = (100 * numbers.join(groups)).assign(label=frame["label"], seeds=frame["seeds"])
    return {f"{title}, severities 1 to {most}, accuracy %": format_rows(percent, columns)}


# ---- the whole of a suite ----------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """All that a report says about the records of a suite, each part computed once.

    Attributes:
        accuracy: of `accuracy`.
        tables: frames of text by title, in the order in which they are shown.
        notes: what a reader of the tables has to know.
        environment: devices, versions and revisions.
    """

    accuracy: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    notes: list[str]
    environment: str


def summarize(found: Records) -> Summary:
    """Compute the tables and notes of the records of a suite."""
    fine_tuned, frozen = accuracy(found), probes(found)
    restored, leaked, robust = (means(found, m) for m in ("restoration", "leakage", "robustness"))
    shown: dict[str, pd.DataFrame] = {}
    if not fine_tuned.empty:
        shown |= _accuracy_tables(fine_tuned, _data_name(found, fine_tuned.index[0]))
    if not frozen.empty:
        shown |= _probe_tables(frozen, _data_name(found, frozen.index[0]))
    shown |= {} if restored.empty else _restoration_tables(restored)
    shown |= {} if leaked.empty else _leakage_tables(leaked)
    if not robust.empty:
        title = "Robustness: 15 corruptions, fewer points, rotations"
        shown |= _robustness_tables(robust, title, _ROBUSTNESS)
    published = means(found, "modelnet40_c")
    if not published.empty:
        shown |= _robustness_tables(published, "ModelNet40-C, its own files", _PUBLISHED_FILES)
    notes = _notes(found, fine_tuned, restored, robust)
    return Summary(fine_tuned, shown, notes, environment_line(found))


def _data_name(found: Records, name: str) -> str:
    return next(r["data"]["test"]["name"] for r in found if r["run"]["name"] == name)


_GAINS = (
    "Accuracies are hits over the true number of test shapes; the epoch is never chosen on the "
    "test set. The gain is paired by seed. Its 95 % interval (Student's t over seeds) decides "
    "whether it is significant. The bootstrap interval over test shapes and McNemar's test in each "
    "seed vary the test shapes only: they say nothing about another seed."
)
_CORRECTED = (
    f"'Corrected' is the paper's figure over {TEST_SHAPES:,} shapes: its authors' code divides by "
    f"{DIVISOR:,}."
)
_CORRUPTIONS = (
    "Robustness: corruptions are this library's, with the strengths and the frame of ModelNet40-C; "
    "occlusion, lidar and density_inc are approximated from the cloud. Only the table of "
    "ModelNet40-C's own files is comparable with published figures."
)
_OLD_CORRUPTIONS = (
    "Robustness: measured before density, density_inc, occlusion, lidar and the frame of all "
    "corruptions were corrected. Run the suite again before using the corruption columns."
)
_WITHIN_TEST = (
    "Few-shot columns such as '5 way 10 shot' drew support and queries from the test split and "
    "left small classes out. They are not comparable with published figures; columns such as "
    "5w10s are."
)


_CHANGED = (
    "Code: what decides these numbers has changed since they were measured. Run the suite again "
    "before comparing them with new runs."
)
_UNKNOWN = "Code: it is unknown whether it has changed since these numbers were measured."


def _notes(
    found: Records, fine_tuned: pd.DataFrame, restored: pd.DataFrame, robust: pd.DataFrame
) -> list[str]:
    """List what a reader of these tables has to know."""
    notes = []
    if any("test" in r["metrics"] or "probes" in r["metrics"] for r in found):
        notes.append(_GAINS)
    if not fine_tuned.empty and fine_tuned["published"].notna().any():
        notes.append(_CORRECTED)
    tests = [r["data"]["test"] for r in found if "test" in r["data"]]
    others = sorted({test["name"] for test in tests} - {"modelnet40"})
    if others:
        notes.append(
            f"Tested on {', '.join(others)}, not on ModelNet40: only the sign and the order of the "
            "gains are comparable with the paper's columns."
        )
    sizes = {test["num_shapes"] for test in tests if test["name"] == "modelnet40"} - {TEST_SHAPES}
    if sizes:
        numbers = ", ".join(map(str, sorted(sizes)))
        notes.append(f"Not the whole test split: {numbers} of its {TEST_SHAPES:,} shapes.")
    small = sorted({r["parameters"]["preset"] for r in found} - {"paper", "authors_code"})
    if small:
        notes.append(
            f"Models and schedule are those of the preset {', '.join(small)}, smaller than the "
            "paper's."
        )
    if not robust.empty:
        old = "clean_in_box" not in robust or robust["clean_in_box"].isna().any()
        notes.append(_OLD_CORRUPTIONS if old else _CORRUPTIONS)
    if any("_way_" in key for r in found for key in r["metrics"].get("probes", ())):
        notes.append(_WITHIN_TEST)
    changed = {code_changed(r["environment"]) for r in found}
    if changed != {False}:
        notes.append(_CHANGED if True in changed else _UNKNOWN)
    notes += _restoration_notes(restored)
    pretrained = sorted(
        {r["data"]["train"]["name"] for r in found
         if "restoration" in r["metrics"] and "train" in r["data"]}
    )  # fmt: skip
    if pretrained and pretrained != ["shapenet55"]:
        notes.append(f"Pre-trained on {', '.join(pretrained)} instead of ShapeNet.")
    return notes


def _restoration_notes(restored: pd.DataFrame) -> list[str]:
    """Say which variants restore better than copying their input does."""
    if restored.empty:
        return []
    restored = restored[restored["copy_input"] > 0]
    better = restored[restored["restored"] < restored["copy_input"]]
    if better.empty and not restored.empty:
        return [
            "No model here restores better than copying its input does: the pre-training is too "
            "short for its task, so these gains say nothing about SeRP trained in full."
        ]
    if 0 < len(better) < len(restored):
        return [f"Only these restore better than copying the input: {'; '.join(better['label'])}."]
    return []


def environment_line(found: Records) -> str:
    """Name the runs, the minutes, devices, torch versions and revisions of the records."""

    def all_of(pick: Callable[[dict], Any]) -> str:
        return ", ".join(sorted({str(pick(r["environment"])) for r in found}))

    return (
        f"{len(found)} runs, {sum(r['seconds'] for r in found) / 60:.1f} minutes of computing on "
        f"{all_of(lambda e: e['device'])}; torch {all_of(lambda e: e['packages']['torch'])}; "
        f"revision {all_of(lambda e: (e['git']['revision'] or 'unknown')[:10])}"
    )
