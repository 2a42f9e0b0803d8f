"""Numbers of a suite: records to pandas frames (section 4.2); `summaries` makes them text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import pandas as pd

from serplib import presets
from serplib.evaluation.protocol import ONE_SIGN, WAYS
from serplib.evaluation.significance import (
    bootstrap_gain,
    equivalence,
    mcnemar,
    mean_sd,
    paired_gain,
)
from serplib.experiments.notes import DIVISOR, TEST_SHAPES, listed
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
# Pre-trainings that are compared with each other, where a suite has both.
DIRECT = (
    ("pretrain-affine", "pretrain-serp"),
    ("pretrain-affine", "pretrain-frame"),
    ("pretrain-frame", "pretrain-serp"),
    ("pretrain-frame", "pretrain-origin"),
    ("pretrain-origin", "pretrain-serp"),
    ("pretrain-serp", "pretrain-clean"),
    ("pretrain-frame", "pretrain-clean-frame"),
    ("pretrain-affine", "pretrain-affine-input"),
    ("pretrain-affine-input", "pretrain-serp"),
    # an untrained encoder whose batch norm has statistics, as that of a trained one
    *(
        (f"pretrain-{name}", "pretrain-calibrated")
        for name in ("serp", "frame", "origin", "clean", "clean-frame", "affine", "affine-input")
    ),
    ("pretrain-own", "pretrain-calibrated-own"),
    ("pretrain-delta", "pretrain-calibrated"),
    ("pretrain-wide", "pretrain-wide-calibrated"),
    ("pretrain-serp-80", "pretrain-serp"),
    ("pretrain-frame-80", "pretrain-frame"),
    ("pretrain-real", "pretrain-procedural"),
    ("pretrain-real", "pretrain-objects"),
    ("pretrain-objects", "pretrain-procedural"),
    # the predictions of the suite pretext
    ("pretrain-affine-drop", "pretrain-affine"),
    ("pretrain-affine-drop", "pretrain-drop-local"),
    ("pretrain-affine-drop", "pretrain-masked"),
    ("pretrain-paper", "pretrain-none"),
    ("pretrain-strong", "pretrain-paper"),
    ("pretrain-masked", "pretrain-paper"),
    ("pretrain-drop-local", "pretrain-drop-random"),
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


_PAIRED = ("gain", "low", "high", "p", "verdict")
_GAIN = (*_PAIRED, "shapes_low", "shapes_high", "better", "worse")
_COLUMNS = ("label", "mean", "sd", "seeds", "pairs", "gain_text", "unpaired", "as_paper", *_GAIN)
HEADS = {"kNN": "knn", "memory bank": "memory", "one layer": "linear", "three layers": "mlp3"}


def _compared(found: Records, metric: str, prefix: str) -> Iterator[tuple[str, Records, dict]]:
    """Yield name, records and the columns ``label`` to ``worse`` of each variant's row.

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
            row |= {
                **{key: gain[key] for key in _PAIRED},
                "pairs": gain["n"],
                "gain_text": gain_text(gain),
                "unpaired": _unpaired([r for r in pair[0] + pair[1]
                                       if r["parameters"]["seed"] in seeds]),
            }  # fmt: skip
        if row["pairs"] and not row["unpaired"]:
            bits = [by_seed(g, "correct") for g in pair]
            right, base_right = ([unpack_bits(b[seed]) for seed in seeds] for b in bits)
            shapes = bootstrap_gain(right, base_right)
            tests = [mcnemar(a, b) for a, b in zip(right, base_right)]
            surpluses = [test["gained"] - test["lost"] for test in tests if test["p"] < 0.05]
            row |= {
                "shapes_low": 100 * shapes["low"],
                "shapes_high": 100 * shapes["high"],
                "better": sum(surplus > 0 for surplus in surpluses),
                "worse": sum(surplus < 0 for surplus in surpluses),
            }
        yield name, group, row


def gain_text(gain: dict[str, Any]) -> str:
    """Write a gain of `significance.paired_gain`: points, interval over seeds, verdict."""
    if gain["n"] == 1:
        return "{gain:+.2f}, one seed".format_map(gain)
    interval = "," if math.isnan(gain["low"]) else " [{low:+.2f}, {high:+.2f}]"
    return ("{gain:+.2f}" + interval + " {verdict}").format_map(gain)


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


def accuracy(found: Records) -> pd.DataFrame:
    """Tabulate the fine-tuned variants.

    Returns:
        A row a variant, indexed by run name, few labels first. Accuracies are in per cent, gains
        in points. ``label``; ``mean``, ``sd`` and ``seeds``; ``gain`` over the variant from
        scratch, its 95 % interval over seeds ``low`` to ``high``, ``p``, ``verdict`` and ``pairs``
        (the common seeds), of `significance.paired_gain`, and as ``gain_text``; the interval over
        test shapes ``shapes_low`` to ``shapes_high``; the seeds where McNemar's test has p < 0.05,
        ``better`` and ``worse``; ``group``; ``as_paper``, whether the task is the paper's (all
        labels of ModelNet40, all test shapes), and for these the paper's figure ``published`` and
        ``corrected``; ``size``, preset and epochs; ``epochs``; ``trained``, the training accuracy
        of the last epoch, and its `rise`; ``labelled``, the shapes with labels, and ``seen``,
        shapes times epochs of both trainings (nan without the record of the first). Without a
        variant from scratch ``pairs`` is 0 and the gain is nan. Where the two were tested on
        different shapes, or in another order, ``unpaired`` says so, and the interval over shapes,
        ``better`` and ``worse`` are nan.
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
            **_shapes(group[0], found),
        }
    lead = {name: re.match(r"\d+", row["group"]) or ["inf"] for name, row in rows.items()}
    order = sorted(rows, key=lambda name: (float(lead[name][0]), rows[name]["group"]))  # stable
    return _frame({name: rows[name] for name in order})


def _shapes(record: dict[str, Any], found: Records) -> dict[str, float]:
    """Return ``labelled``, shapes with labels, and ``seen``: shapes x epochs, parents included."""
    labelled = record["data"].get("train", {}).get("num_shapes", math.nan)
    seen = len(record.get("history", ())) * labelled
    if parent := record["run"].get("parent"):
        before = [r for r in found if r["run"].get("hash") == parent]
        seen += _shapes(before[0], found)["seen"] if before else math.nan
    return {"labelled": labelled, "seen": seen}


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
    """Return a variant's records, or one where the seed decides nothing (no weights)."""
    values = [{key: value for key, value in r["metrics"]["probes"].items() if "accuracy" in key}
              for r in group if "probes" in r["metrics"]]  # fmt: skip
    fixed = group[0]["parameters"].get("model") in ("point_nn", "np_net") and values
    return group[:1] if fixed and all(value == values[0] for value in values) else group


def probes(found: Records) -> pd.DataFrame:
    """Tabulate the frozen encoders: linear SVM with its gain over the untrained one, and the rest.

    Returns:
        A row a variant with the columns of `accuracy` up to ``worse``, for the linear SVM;
        mean and ``*_sd`` of the heads ``knn``, ``linear``, ``mlp3`` where they were fitted and of
        few-shot episodes, all in per cent; ``labelled`` and ``seen`` of `accuracy`; ``rankme``;
        ``group``.
    """
    rows = {}
    for name, every, row in _compared(found, "probes", "svm_"):
        group = independent(every)
        measured = [r["metrics"]["probes"] for r in group]
        values = {h: [m[f"{h}_accuracy"] for m in measured if f"{h}_accuracy" in m]
                  for h in HEADS.values()}  # fmt: skip
        for key in (key for key in measured[0] if key.startswith("few_shot_")):
            values[key] = [fold for m in measured for fold in m[key]["folds"]]
        for key in filter(values.get, values):
            row[key], row[f"{key}_sd"] = mean_sd([100 * value for value in values[key]])
        row |= {"seeds": len(group), "as_paper": False} | _shapes(group[0], found)
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
    named, rows = {r["run"].get("hash", ""): r["run"]["name"] for r in found}, []
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
        for base in filter(groups.__contains__, bases):  # in the order of the suite
            own = [name for name, g in groups.items() if g[0]["run"].get("scratch") == base]
            seeds = {name: values[name].keys() & values[base].keys() for name in own}
            common = set.intersection(*map(set, seeds.values()))
            for name in (name for name in own if len(seeds[name]) > len(common) > 1):
                gain = paired_gain({s: values[name][s] for s in common}, values[base])
                about = f"{label_of(groups[name][0])} has {len(seeds[name])} seeds; over the "
                text = "{n} that all variants have, its gain is {gain:+.2f} "
                said.append(about + (text + "[{low:+.2f}, {high:+.2f}]").format_map(gain or {}))
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


def protocol(found: Records) -> pd.DataFrame:
    """Tabulate what one change of the protocol is worth, against the reference of a group.

    The reference is the first variant of a group that has the metric ``protocol``. The same network
    is tested in each of `protocol.WAYS`; the other fine-tuned variants of the group are trained in
    another way.

    Returns:
        A row a change: ``label``, ``group``, ``trained`` (whether it changes the training);
        ``reference``, mean accuracy in per cent; ``gain``, ``low``, ``high``, ``verdict`` and ``n``
        of `significance.paired_gain`, in points. Rows of `protocol.ONE_SIGN` have no interval, and
        the reason in place of the verdict.
    """
    rows: list[dict[str, Any]] = []
    tuned = variants([r for r in found if "test" in r["metrics"]])
    groups: dict[str, dict[str, Records]] = {}
    for name, runs in tuned.items():
        groups.setdefault(runs[0]["run"].get("group", ""), {})[name] = runs
    for group, of_group in groups.items():
        names = [name for name, runs in of_group.items() if "protocol" in runs[0]["metrics"]]
        if not names:
            continue
        runs = of_group.pop(names[0])
        ways = {r["parameters"]["seed"]: r["metrics"]["protocol"] for r in runs}
        base = {seed: 100 * way["reference"] for seed, way in ways.items()}
        about = {"group": group, "reference": fmean(base.values())}
        changes = [(key, text, {seed: 100 * way[key] for seed, way in ways.items()})
                   for key, text in WAYS.items()]  # fmt: skip
        for others in of_group.values():
            tested = {r["parameters"]["seed"]: 100 * r["metrics"]["test"]["accuracy"]
                      for r in others}  # fmt: skip
            changes.append(("", label_of(others[0]), tested))
        for key, label, values in changes:
            if gain := paired_gain(values, base):
                if key in ONE_SIGN:
                    gain |= {"low": math.nan, "high": math.nan, "verdict": ONE_SIGN[key]}
                rows.append(about | {"label": label, "trained": not key} | gain)
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
