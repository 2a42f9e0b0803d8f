"""Text of a suite: frames of `tables` to tables in words, with notes (section 4.2)."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import pandas as pd

from serplib.evaluation.robustness import GROUPS, POINTS, summary
from serplib.evaluation.significance import seeds_needed, smallest_effect
from serplib.experiments.notes import (
    DIRECT_NOTE,
    FEWEST,
    LEARNT,
    LEARNT_NOTE,
    POWER_NOTE,
    environment_line,
    notes_of,
)
from serplib.experiments.tables import (
    HEADS,
    PUBLISHED,
    Records,
    accuracy,
    direct,
    equivalences,
    gain_text,
    means,
    probes,
    protocol,
    unequal_seeds,
)

CLAIMED = tuple(  # the gains of Tables 1 and 2, points
    round(PUBLISHED[ours] - PUBLISHED[base], 2)
    for ours, base in (("table1/serp", "table1/scratch"), ("table2/delta", "table2/scratch"))
)


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
        "McNemar p < .05": "{better:.0f} better, {worse:.0f} worse of {pairs}",
    }


def _percent(*keys: str) -> dict[str, str]:
    return {key: f"{{{key}:.1f}}" for key in keys}


_PAPER = {"paper, ModelNet40": "{published:.2f}", "corrected": "{corrected:.2f}"}
_SEEN = {"shapes seen": "{seen:,.0f}"}
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
_AGAINST = _VARIANT | {"against": "{base}"}
_DIFFERENCE = {
    "seeds": "{n}",
    "difference [95 %, over seeds]": "{gain:+.2f} [{low:+.2f}, {high:+.2f}] {verdict}",
}
_EQUIVALENCE = {
    **_AGAINST,
    **_DIFFERENCE,
    "p, two one-sided tests": "{p:.3f}",
    "within the margin": "{said}",
}
_DIRECT = {**_AGAINST, "of": "{group}", **_DIFFERENCE}
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
    columns |= {"labelled shapes": "{labelled:,.0f}", "epochs": "{epochs}", **_SEEN}
    columns |= {"training accuracy (its rise)": "{trained:.1f} ({rise:+.1f})"}
    shown = {}
    for group, rows in frame.groupby("group", sort=False):
        paper = _PAPER if rows["published"].notna().any() else {}
        title = f"Accuracy on {data}, %" + (f": {group!s}" if group else "")
        shown[title] = format_rows(rows, columns | paper)
    return shown


def _probe_tables(frame: pd.DataFrame, data: str) -> dict[str, pd.DataFrame]:
    episodes = [k for k in frame.filter(like="few_shot_").columns if not k.endswith("_sd")]
    few_shot = {key.removeprefix("few_shot_").replace("_", " "): key for key in episodes}
    heads = {head: key for head, key in HEADS.items() if key in frame}
    heads, few_shot = ({head: f"{{{key}:.2f}} ± {{{key}_sd:.2f}}" for head, key in named.items()}
                       for named in (heads, few_shot))  # fmt: skip
    columns = {"encoder": "{label}", "labelled shapes": "{labelled:,.0f}"}
    columns |= _with_gain("encoder", "linear SVM", "untrained") | heads
    columns |= {"RankMe": "{rankme:.1f}", **_SEEN}
    shown = {f"Frozen encoders on {data}, accuracy %": format_rows(frame, columns)}
    if few_shot:
        title = f"Few-shot, frozen, mean ± sd over episodes: {data}, accuracy %"
        rows = frame[frame[episodes[0]].notna()]
        shown[title] = format_rows(rows, {"encoder": "{label}"} | few_shot)
    return shown


def _protocol_tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Show a row a change and a column a group; first what changes the testing alone."""
    cells = frame.assign(cell=frame.apply(lambda row: gain_text(row.to_dict()), axis=1))
    order = frame.sort_values("trained", kind="stable")["label"].unique()
    text = cells.pivot_table("cell", "label", "group", aggfunc="; ".join)  # a label may come twice
    text = text.loc[order].fillna("")
    means = frame.groupby("group", sort=False)["reference"].first()
    text = text[means.index].rename(columns={g: f"{g}: {mean:.2f} %" for g, mean in means.items()})
    title = "Protocol: what one change is worth against the reference, points of accuracy"
    return {title: text.reset_index(names="one change").rename_axis(columns=None)}


def _restoration_tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    perfect = {"perfect": "perfect network"} if "perfect" in frame else {}  # not in older records
    rows = scaled(frame, 1e4, "restored", "copy_input", "resample", *perfect)
    title = "Restoration of held-out clouds: Chamfer (Eq. 11) x 10,000"
    columns = _RESTORATION | {head: f"{{{key}:.1f}}" for key, head in perfect.items()}
    shown = {title: format_rows(rows, columns)}
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
    if not leaked.empty:  # shares only where the autoencoder has learnt
        learnt = leaked["full"] <= LEARNT * leaked["constant"]
        leaked.loc[~learnt, ["explained", "leaked"]] = math.nan
    shown: dict[str, pd.DataFrame] = {}
    if not fine_tuned.empty:
        shown |= _accuracy_tables(fine_tuned, tested[fine_tuned.index[0]])
    if not frozen.empty:
        shown |= _probe_tables(frozen, tested[frozen.index[0]])
    if not (changes := protocol(found)).empty:
        shown |= _protocol_tables(changes)
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
    if not pairs.empty and any(r["run"]["name"] == "pretrain-serp" for r in found):
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
