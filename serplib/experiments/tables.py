"""Tables of a suite: records to pandas frames, and frames to text with notes (section 4.2)."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from serplib import presets
from serplib.evaluation.robustness import GROUPS, POINTS, summary
from serplib.evaluation.significance import (
    bootstrap_gain,
    equivalence,
    mcnemar,
    mean_sd,
    paired_gain,
    seeds_needed,
    smallest_effect,
)
from serplib.experiments.notes import (
    DIRECT_NOTE,
    DIVISOR,
    FEWEST,
    LEARNT,
    LEARNT_NOTE,
    POWER_NOTE,
    TEST_SHAPES,
    environment_line,
    listed,
    notes_of,
)
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
CLAIMED = tuple(  # the gains of Tables 1 and 2, points
    round(PUBLISHED[ours] - PUBLISHED[base], 2)
    for ours, base in (("table1/serp", "table1/scratch"), ("table2/delta", "table2/scratch"))
)
# Pre-trainings that are compared with each other, where a suite has both.
DIRECT = (
    ("pretrain-affine", "pretrain-serp"),
    ("pretrain-affine", "pretrain-frame"),
    ("pretrain-frame", "pretrain-serp"),
)

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
_COLUMNS = ("label", "mean", "sd", "seeds", "pairs", "gain_text", "unpaired", "as_paper", *_GAIN)
_HEADS = {"kNN": "knn", "memory bank": "memory", "one layer": "linear", "three layers": "mlp3"}


def _compared(found: Records, metric: str, prefix: str) -> Iterator[tuple[str, Records, dict]]:
    """Yield name, records and the columns ``label`` to ``significant`` of each variant's row.

    Args:
        metric: that holds the accuracy; variants without it are left out.
        prefix: of its keys ``accuracy`` and ``correct``.
    """

    def by_seed(group: Records, key: str) -> dict[int, Any]:
        return {r["parameters"]["seed"]: r["metrics"][metric].get(prefix + key, math.nan)
                for r in group}  # fmt: skip

    groups = variants([r for r in found if metric in r["metrics"]])
    for name, group in groups.items():
        pair = group, groups.get(group[0]["run"].get("scratch", ""), [])
        ours, base = ({seed: 100 * a for seed, a in by_seed(g, "accuracy").items()} for g in pair)
        known = not any(map(math.isnan, ours.values()))  # a probe may have no SVM
        mean, sd = mean_sd(list(ours.values())) if known else (math.nan, math.nan)
        row = {"label": label_of(group[0]), "mean": mean, "sd": sd, "seeds": len(ours), "pairs": 0}
        row |= {"gain_text": "", "unpaired": "", **dict.fromkeys(_GAIN, math.nan)}
        if gain := paired_gain(ours, base):
            seeds = sorted(ours.keys() & base.keys())
            interval = " [{low:+.2f}, {high:+.2f}]" if gain["n"] > 1 else ", one seed:"
            row |= {
                **{key: gain[key] for key in ("gain", "low", "high", "verdict")},
                "pairs": gain["n"],
                "gain_text": ("{gain:+.2f}" + interval + " {verdict}").format(**gain),
                "unpaired": _unpaired([r for r in pair[0] + pair[1]
                                       if r["parameters"]["seed"] in seeds]),
            }  # fmt: skip
        if row["pairs"] and not row["unpaired"]:
            bits = [by_seed(g, "correct") for g in pair]
            right, base_right = ([unpack_bits(b[seed]) for seed in seeds] for b in bits)
            shapes = bootstrap_gain(right, base_right)
            row |= {
                "shapes_low": 100 * shapes["low"],
                "shapes_high": 100 * shapes["high"],
                "significant": sum(mcnemar(a, b)["p"] < 0.05 for a, b in zip(right, base_right)),
            }
        yield name, group, row


def _unpaired(found: Records) -> str:
    """Say why bit i of ``correct`` is not the same shape in all records; an empty text if it is."""
    for key in ("name", "checksum", "num_shapes", "labels"):
        values = {r["data"]["test"][key] for r in found if key in r["data"]["test"]}
        if len(values) > 1:
            return f"{key.replace('_', ' ')} of the test set: {listed(values)}"
    subsets = {r["parameters"]["data_seed"] for r in found if r["parameters"].get("test_shapes")}
    return f"data_seed of the subset: {listed(subsets)}" if len(subsets) > 1 else ""


def _frame(rows: dict[str, dict]) -> pd.DataFrame:
    """Build a frame from rows by name; an empty one has the columns of a gain, too."""
    return pd.DataFrame.from_dict(rows, orient="index") if rows else pd.DataFrame(columns=_COLUMNS)


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
        has p < 0.05; ``group``; ``as_paper``, whether the task is the paper's (all labels of
        ModelNet40, all test shapes), and for these the paper's figure ``published`` and
        ``corrected``; ``size``, preset and epochs; ``epochs``; ``trained``, the training accuracy
        of the last epoch, and its `rise`. Without a variant from scratch ``pairs`` is 0 and the
        gain is nan. Where the two were tested on different shapes, or in another order,
        ``unpaired`` says so, and the interval over shapes and ``significant`` are nan.
    """
    rows = {}
    for name, group, row in _compared(found, "test", ""):
        about = group[0]["run"]
        same = _as_paper(group[0])
        published = PUBLISHED.get(about.get("published"), math.nan) if same else math.nan
        rows[name] = row | {
            "group": about.get("group", ""),
            "as_paper": same,
            "published": published,
            "corrected": published if math.isnan(published) else corrected(published),
            "size": f"{group[0]['parameters']['preset']}, {len(group[0]['history'])} epochs",
            **_training(group),
        }
    order = sorted(rows, key=lambda name: _few_first(rows[name]["group"]))  # stable
    return _frame({name: rows[name] for name in order})


def _training(group: Records) -> dict[str, float]:
    """Return the columns ``epochs``, ``trained`` and ``rise`` of `accuracy`, means over seeds."""
    epochs = len(group[0]["history"])
    if not epochs:
        return {"epochs": 0, "trained": math.nan, "rise": math.nan}
    curves = [[100 * epoch["train_accuracy"] for epoch in r["history"]] for r in group]
    trained, rising = (fmean(map(pick, curves)) for pick in (lambda curve: curve[-1], rise))
    return {"epochs": epochs, "trained": trained, "rise": rising}


def rise(curve: list[float]) -> float:
    """Return by how much a curve rose over the last quarter of its epochs.

    The mean of the last tenth of the epochs minus the mean of the tenth that ends at three quarters
    of them: a single epoch of a few hundred shapes is too noisy.
    """
    tenth, end = max(1, round(len(curve) / 10)), max(1, len(curve) * 3 // 4)
    return fmean(curve[-tenth:]) - fmean(curve[max(0, end - tenth) : end])


def _as_paper(record: dict[str, Any]) -> bool:
    """Tell whether the paper's figure is of the same task: all labels of ModelNet40."""
    given, test = record["parameters"], record["data"]["test"]
    few = given.get("labels_per_class") or given.get("train_shapes")
    return not few and (test["name"], test["num_shapes"]) == ("modelnet40", TEST_SHAPES)


def independent(group: Records) -> Records:
    """Return a variant's records, or one of them where the seed decides nothing (Point-NN)."""
    values = [{key: value for key, value in r["metrics"]["probes"].items() if "accuracy" in key}
              for r in group if "probes" in r["metrics"]]  # fmt: skip
    fixed = group[0]["parameters"].get("model") == "point_nn" and values
    return group[:1] if fixed and all(value == values[0] for value in values) else group


def probes(found: Records) -> pd.DataFrame:
    """Tabulate the frozen encoders: linear SVM with its gain over the untrained one, and the rest.

    Returns:
        A row a variant with the columns of `accuracy` up to ``significant``, for the linear SVM;
        mean and ``*_sd`` of the heads ``knn``, ``linear``, ``mlp3`` where they were fitted and of
        few-shot episodes, all in per cent; ``labelled``, the shapes with labels; ``rankme``;
        ``group``.
    """
    rows = {}
    for name, every, row in _compared(found, "probes", "svm_"):
        group = independent(every)
        measured = [r["metrics"]["probes"] for r in group]
        values = {h: [m[f"{h}_accuracy"] for m in measured if f"{h}_accuracy" in m]
                  for h in _HEADS.values()}  # fmt: skip
        for key in (key for key in measured[0] if key.startswith("few_shot_")):
            values[key] = [fold for m in measured for fold in m[key]["folds"]]
        for key in filter(values.get, values):
            row[key], row[f"{key}_sd"] = mean_sd([100 * value for value in values[key]])
        labelled = group[0]["data"].get("train", {}).get("num_shapes", math.nan)
        row |= {"labelled": labelled, "seeds": len(group), "as_paper": False}
        rows[name] = row | {"rankme": mean_sd([m["rankme"] for m in measured])[0]}
        rows[name]["group"] = group[0]["run"].get("group", "")
    return _frame(rows)


def _svm_or_tuned(found: Records) -> Iterator[tuple[dict[str, Records], dict[str, dict]]]:
    """Yield variants and their accuracies in per cent by seed: fine-tuned, then linear SVM."""
    for metric, key in (("test", "accuracy"), ("probes", "svm_accuracy")):
        groups = variants([r for r in found if key in r["metrics"].get(metric, {})])
        yield groups, {name: {r["parameters"]["seed"]: 100 * r["metrics"][metric][key]
                              for r in group} for name, group in groups.items()}  # fmt: skip


def direct(found: Records) -> pd.DataFrame:
    """Compare pre-trainings of `DIRECT` with each other instead of with scratch.

    Returns:
        A row a pair with the same baseline: ``label``, ``base`` (label of the other), ``group``;
        ``gain``, ``low``, ``high``, ``verdict`` and ``n`` of `significance.paired_gain`. Pairs with
        fewer than two common seeds are left out.
    """
    named, rows = {r["run"]["hash"]: r["run"]["name"] for r in found}, []
    for groups, values in _svm_or_tuned(found):
        of = {(named.get(group[0]["run"].get("parent")), group[0]["run"].get("scratch")): name
              for name, group in groups.items()}  # fmt: skip
        for ours, base in DIRECT:
            for (parent, scratch), name in of.items():
                if parent != ours or (other := of.get((base, scratch))) is None:
                    continue
                gain = paired_gain(values[name], values[other])
                if gain and gain["n"] > 1:
                    first = groups[name][0]
                    row = {"label": label_of(first), "base": label_of(groups[other][0])}
                    rows.append(row | {"group": first["run"].get("group", "")} | gain)
    return pd.DataFrame(rows)


def unequal_seeds(found: Records) -> list[str]:
    """Say what gains were over the seeds that all variants have, where some have more."""
    said = []
    for groups, values in _svm_or_tuned(found):
        bases = dict.fromkeys(group[0]["run"].get("scratch") for group in groups.values())
        for base in bases.keys() & groups.keys():
            own = [name for name, g in groups.items() if g[0]["run"].get("scratch") == base]
            seeds = {name: values[name].keys() & values[base].keys() for name in own}
            common = set.intersection(*map(set, seeds.values()))
            for name in (name for name in own if len(seeds[name]) > len(common) > 1):
                gain = paired_gain({s: values[name][s] for s in common}, values[base])
                form = (
                    "{n} that all variants have, its gain is {gain:+.2f} [{low:+.2f}, {high:+.2f}]"
                )
                text = form.format_map(gain or {})
                said.append(
                    f"{label_of(groups[name][0])} has {len(seeds[name])} seeds; over the {text}"
                )
    return said


def equivalences(found: Records) -> pd.DataFrame:
    """Test the variants that name others in ``versus`` for equivalence within their ``margin``.

    Returns:
        A row a pair, of fine-tuned accuracy or of the linear SVM: ``label``, ``base`` (label of the
        other), ``group``, ``margin`` in points; ``gain``, ``low``, ``high``, ``verdict`` and ``n``
        of `significance.paired_gain`; ``p`` and ``equivalent`` of `significance.equivalence`.
    """
    rows = []
    for groups, values in _svm_or_tuned(found):
        for name, group in groups.items():
            about = group[0]["run"]
            for base in (base for base in about.get("versus", ()) if base in groups):
                pair = values[name], values[base]
                if (gain := paired_gain(*pair)) and (same := equivalence(*pair, about["margin"])):
                    labels = {"label": label_of(group[0]), "base": label_of(groups[base][0])}
                    about = {"group": "", **about}
                    shared = {key: about[key] for key in ("group", "margin")}
                    rows.append(labels | shared | gain | same)
    return pd.DataFrame(rows)


def _rates(record: dict[str, Any]) -> dict[str, float]:
    """Return ``bits`` and ``bits_fixed`` of a record that was made before it had them."""
    given, found = record["parameters"], record["metrics"]["restoration"]
    if "perplexity" in found:
        size = presets.build(given["preset"], given["changes"]).vasp.codebook_size
        return {"bits": math.log2(found["perplexity"]), "bits_fixed": math.log2(size)}
    last = record["history"][-1] if record["history"] else {}
    return {"bits": last["valid_nats"] / math.log(2)} if "valid_nats" in last else {}


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
        | (_rates(r) if metric == "restoration" else {})
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


def _percent(*keys: str) -> dict[str, str]:
    return {key: f"{{{key}:.1f}}" for key in keys}


_PAPER = {"paper, ModelNet40": "{published:.2f}", "corrected": "{corrected:.2f}"}
_VARIANT = {"variant": "{label}"}
_VARIANT_SEEDS = _VARIANT | {"seeds": "{seeds}"}
_RESTORATION = _VARIANT_SEEDS | {
    "restored": "{restored:.1f}",
    "copy input": "{copy_input:.1f}",
    "resample": "{resample:.1f} ({resample_points:.0f} points)",
    "detection AUC": "{detection_auc:.2f}",
}
_RATES = _VARIANT | {
    "bits, fixed length": "{bits_fixed:.1f}",
    "bits, entropy or KL": "{bits:.1f}",
    "perplexity": "{perplexity:.1f}",
    "live codes, %": "{live_codes:.1f}",
}
_EQUIVALENCE = _VARIANT | {
    "against": "{base}",
    "seeds": "{n}",
    "difference [95 %, over seeds]": "{gain:+.2f} [{low:+.2f}, {high:+.2f}] {verdict}",
    "p, two one-sided tests": "{p:.3f}",
    "within the margin": "{said}",
}
_DIRECT = _VARIANT | {
    "against": "{base}",
    "of": "{group}",
    "seeds": "{n}",
    "difference [95 %, over seeds]": "{gain:+.2f} [{low:+.2f}, {high:+.2f}] {verdict}",
}
_LEAKAGE = _VARIANT_SEEDS | {
    "constant": "{constant:.4f}",
    "positions of another": "{positions_of_another:.4f}",
    "positions": "{positions:.4f}",
    "full": "{full:.4f}",
    "explained": "{explained_text}",
    "leaked": "{leaked_text}",
}
_PUBLISHED_FILES = _VARIANT_SEEDS | _percent("corrupted", *GROUPS)
_ROBUSTNESS = {
    **_VARIANT_SEEDS,
    "clean": "{clean:.1f}",
    "clean, in the box": "{clean_in_box:.1f}",
    **_percent("corrupted", *GROUPS),
    **{f"{n} points": f"{{points_{n}:.1f}}" for n in POINTS},
    "about z": "{rotated_z:.1f}",
    "SO(3)": "{rotated_so3:.1f}",
}


_POWER = _VARIANT | {
    "of": "{group}",
    "seeds": "{pairs}",
    "gain": "{gain:+.2f}",
    "sd of the difference": "{difference:.2f}",
    "found with 80 % power": "{smallest:.2f}",
    **{f"seeds for {effect:+.2f}": f"{{claim_{i}}}" for i, effect in enumerate(CLAIMED)},
}


def scaled(frame: pd.DataFrame, factor: float, *columns: str) -> pd.DataFrame:
    """Return a frame with some of its columns multiplied by a factor."""
    return frame.assign(**{column: factor * frame[column] for column in columns})


def _accuracy_tables(frame: pd.DataFrame, data: str) -> dict[str, pd.DataFrame]:
    columns = _with_gain("variant", "ours (mean ± sd)", "scratch")
    columns |= {"epochs": "{epochs}", "training accuracy": "{trained:.1f}"}
    shown = {}
    for group, rows in frame.groupby("group", sort=False):
        paper = _PAPER if rows["published"].notna().any() else {}
        title = f"Accuracy on {data}, %" + (f": {group!s}" if group else "")
        shown[title] = format_rows(rows, columns | paper)
    return shown


def _probe_tables(frame: pd.DataFrame, data: str) -> dict[str, pd.DataFrame]:
    episodes = [k for k in frame.filter(like="few_shot_").columns if not k.endswith("_sd")]
    few_shot = {key.removeprefix("few_shot_").replace("_", " "): key for key in episodes}
    heads = {head: key for head, key in _HEADS.items() if key in frame}
    heads, few_shot = ({head: f"{{{key}:.2f}} ± {{{key}_sd:.2f}}" for head, key in named.items()}
                       for named in (heads, few_shot))  # fmt: skip
    columns = {"encoder": "{label}", "labelled shapes": "{labelled:,.0f}"}
    columns |= _with_gain("encoder", "linear SVM", "untrained") | heads
    columns |= {"RankMe": "{rankme:.1f}"}
    shown = {f"Frozen encoders on {data}, accuracy %": format_rows(frame, columns)}
    if few_shot:
        title = f"Few-shot, frozen, mean ± sd over episodes: {data}, accuracy %"
        rows = frame[frame[episodes[0]].notna()]
        shown[title] = format_rows(rows, {"encoder": "{label}"} | few_shot)
    return shown


def _restoration_tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    rows = scaled(frame, 1e4, "restored", "copy_input", "resample")
    title = "Restoration of held-out clouds: Chamfer (Eq. 11) x 10,000"
    shown = {title: format_rows(rows, _RESTORATION)}
    if "bits" in frame:
        limited = scaled(frame[frame["bits"].notna()], 100, "live_codes")
        shown["Rate in bits a token over the held-out clouds"] = format_rows(limited, _RATES)
    return shown


def _equivalence_tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    shown = {}
    for (group, margin), rows in frame.groupby(["group", "margin"], sort=False):
        within = f"equivalent within {margin:g} points"
        said = rows.assign(said=[within if same else "not shown" for same in rows["equivalent"]])
        title = ", ".join(filter(None, [f"Equivalence within {margin:g} points", str(group)]))
        shown[title] = format_rows(said, _EQUIVALENCE)
    return shown


def with_share(leaked: pd.DataFrame) -> pd.DataFrame:
    """Return `means` of leakage with shares only where the autoencoder has learnt (`LEARNT`)."""
    if leaked.empty:
        return leaked
    learnt = leaked["full"] <= LEARNT * leaked["constant"]
    return leaked.assign(**{key: leaked[key].where(learnt) for key in ("explained", "leaked")})


def _leakage_tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    shares = {f"{key}_text": ["none" if math.isnan(v) else f"{100 * v:.1f} %" for v in frame[key]]
              for key in ("explained", "leaked")}  # fmt: skip
    title = "Leakage: reconstruction by decoders without an encoder"
    return {title: format_rows(frame.assign(**shares), _LEAKAGE)}


def _robustness_tables(frame: pd.DataFrame, title: str, columns: dict) -> dict[str, pd.DataFrame]:
    numbers = frame.select_dtypes("float")
    most = max(int(key.removeprefix("uniform_")) for key in numbers.filter(like="uniform_").columns)
    groups = numbers.apply(lambda row: pd.Series(summary(row.to_dict())), axis=1)
    percent = (100 * numbers.join(groups)).assign(label=frame["label"], seeds=frame["seeds"])
    return {f"{title}, severities 1 to {most}, accuracy %": format_rows(percent, columns)}


def power(rows: pd.DataFrame) -> pd.DataFrame:
    """Tabulate as text what the gains of `accuracy` or `probes` could have found.

    A row a gain over two seeds or more: standard deviation of the paired difference, the smallest
    effect found with 80 % power, and the seeds needed for the effects in `CLAIMED`. These are the
    paper's, so they stand only in rows of its task, and only where `FEWEST` seeds or more estimate
    the sd.
    """
    from scipy.stats import t

    rows = rows[rows["pairs"].astype(float) > 1]
    seeds = rows["pairs"].astype(float)
    sd = (rows["high"] - rows["low"]) / 2 * seeds**0.5 / t.ppf(0.975, seeds - 1)
    shown = rows["as_paper"].astype(bool) & (seeds >= FEWEST)
    needed = {f"claim_{i}": [str(seeds_needed(e, s)) if show else "" for s, show in zip(sd, shown)]
              for i, e in enumerate(CLAIMED)}  # fmt: skip
    smallest = [smallest_effect(*pair) for pair in zip(sd, rows["pairs"])]
    columns = {head: form for head, form in _POWER.items() if shown.any() or "claim" not in form}
    return format_rows(rows.assign(difference=sd, smallest=smallest, **needed), columns)


# ---- the whole of a suite ----------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """All that a report says about the records of a suite, each part computed once.

    Attributes:
        accuracy: of `accuracy`.
        frozen: of `probes`.
        restored, leaked: of `means`, for ``"restoration"`` and ``"leakage"``.
        tables: frames of text by title, in the order in which they are shown.
        notes: what a reader of the tables has to know.
        environment: devices, versions and revisions.
    """

    accuracy: pd.DataFrame
    frozen: pd.DataFrame
    restored: pd.DataFrame
    leaked: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    notes: list[str]
    environment: str


def summarize(found: Records) -> Summary:
    """Compute the tables and notes of the records of a suite."""
    tested = {r["run"]["name"]: r["data"]["test"]["name"] for r in found if "test" in r["data"]}
    fine_tuned, frozen = accuracy(found), probes(found)
    restored, leaked, robust, published = (
        means(found, m) for m in ("restoration", "leakage", "robustness", "modelnet40_c")
    )
    leaked = with_share(leaked)
    shown: dict[str, pd.DataFrame] = {}
    if not fine_tuned.empty:
        shown |= _accuracy_tables(fine_tuned, tested[fine_tuned.index[0]])
    if not frozen.empty:
        shown |= _probe_tables(frozen, tested[frozen.index[0]])
    if not (pairs := direct(found)).empty:
        shown["Pre-trainings compared with each other"] = format_rows(pairs, _DIRECT)
    if not (compared := equivalences(found)).empty:
        shown |= _equivalence_tables(compared)
    if not restored.empty:
        shown |= _restoration_tables(restored)
    if not leaked.empty:
        shown |= _leakage_tables(leaked)
    if not robust.empty:
        title = "Robustness: 15 corruptions, fewer points, rotations"
        shown |= _robustness_tables(robust, title, _ROBUSTNESS)
    if not published.empty:
        shown |= _robustness_tables(published, "ModelNet40-C, its own files", _PUBLISHED_FILES)
    notes = notes_of(found, fine_tuned, frozen, restored, robust)
    if not pairs.empty:
        notes.append(DIRECT_NOTE)
    if more := unequal_seeds(found):
        notes.append(f"Unequal numbers of seeds: {'; '.join(more)}. Seeds that were added after a "
                     "result was known make it weaker evidence.")  # fmt: skip
    if not leaked.empty and leaked["leaked"].isna().any():
        notes.append(LEARNT_NOTE)
    gains = power(pd.concat([fine_tuned, frozen]))
    if set(tested.values()) == {"modelnet40"} and not gains.empty:
        shown["Power of these comparisons, in points of accuracy"] = gains
        notes.append(POWER_NOTE)
    line = environment_line(found)
    return Summary(fine_tuned, frozen, restored, leaked, shown, notes, line)
