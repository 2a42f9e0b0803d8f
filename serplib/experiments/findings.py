"""The findings of a suite for the end of its run: sentences and one table (section 4.2)."""

from __future__ import annotations

import pandas as pd

from serplib.experiments.render import counted
from serplib.experiments.summaries import Summary, format_rows, scaled

MOST = 3  # sentences, and variants named in one of them
_COMPARED = {
    "variant": "{label}",
    "accuracy, %": "{mean:.2f} ± {sd:.2f}",
    "seeds": "{seeds}",
    "gain [95 % interval]": "{gain_mark}",
}
_RESTORED = {
    "variant": "{label}",
    "seeds": "{seeds}",
    "restored": "{restored:.1f}",
    "copy input": "{copy_input:.1f}",
}
_LEAKED = {
    "variant": "{label}",
    "seeds": "{seeds}",
    "explained, %": "{explained:.1f}",
    "leaked, %": "{leaked:.1f}",
}
_MARKS = {r" significant (gain|loss)$": " *", r",? (one seed|not significant)$": ""}


def sentences(summary: Summary) -> list[str]:
    """Say, in at most three sentences, what the records of a suite show."""
    found = [
        _compared(summary.accuracy, "Fine-tuning", "the same network from scratch"),
        _compared(summary.frozen, "Linear SVM on frozen features", "the untrained encoder"),
        _restored(summary.restored),
        _leaked(summary.leaked),
    ]
    return [sentence for sentence in found if sentence][:MOST]


def table(summary: Summary) -> tuple[pd.DataFrame, list[str]]:
    """Return the one table for a terminal, and the lines that explain it.

    Returns:
        Cells of text, indexed by the heading of the rows' group; empty without an accuracy, a
        restoration or a leakage.
    """
    parts, note = [], list[str]()
    for title, frame in (("Fine-tuned", summary.accuracy), ("Linear SVM", summary.frozen)):
        frame = frame.dropna(subset="mean")
        for group, rows in frame.groupby("group", sort=False) if len(frame) else ():
            marked = rows["gain_text"].replace(_MARKS, regex=True)
            cells = format_rows(rows.assign(gain_mark=marked), _COMPARED)
            parts.append(cells.assign(heading=f"{title}: {group!s}" if group else title))
            if rows["pairs"].max() > 1:
                note = ["* significant: the interval over seeds excludes 0."]
    if not parts and not summary.restored.empty:
        rows = scaled(summary.restored, 1e4, "restored", "copy_input")
        parts.append(format_rows(rows, _RESTORED).assign(heading="Restoration"))
        note = ["Chamfer distance (Eq. 11) x 10,000: lower is better."]
    if not parts and not summary.leaked.empty:
        rows = scaled(summary.leaked, 100, "explained", "leaked")
        parts.append(format_rows(rows, _LEAKED).assign(heading="Positions alone"))
    return (pd.concat(parts).set_index("heading") if parts else pd.DataFrame()), note


def _compared(frame: pd.DataFrame, what: str, base: str) -> str:
    """Say which variants are significantly better or worse than the ones they start from."""
    frame = frame.dropna(subset="mean")  # a probe may have no SVM
    if frame.empty:
        return ""
    rows = frame[frame["pairs"] > 0]
    if rows.empty:
        first = frame.iloc[int(frame["mean"].argmax())]
        return f"{what}: the highest accuracy is {first['mean']:.2f} % ({_name(first, frame)})."
    if rows["pairs"].max() == 1:
        first = rows.iloc[int(rows["gain"].abs().argmax())]
        return (
            f"{what}, one seed: the largest difference from {base} is {first['gain']:+.2f} points "
            f"({_name(first, rows)}); one seed gives no interval."
        )
    fewest, most = rows["pairs"].min(), rows["pairs"].max()
    seeds = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    clauses = []
    for verdict, word in (("significant gain", "better"), ("significant loss", "worse")):
        some = rows[rows["verdict"] == verdict].sort_values("gain", key=abs, ascending=False)
        if len(some):
            clauses.append(f"{word} than {base}: {_listed(some, rows)}")
    rest = (rows["verdict"] == "not significant").sum()
    if not clauses:
        number = counted(len(rows), "variant")
        return f"{what}, {seeds}: no significant difference from {base} ({number})."
    if rest:
        clauses.append(f"no significant difference: {rest} of {len(rows)}")
    return f"{what}, {seeds}, significantly {'; '.join(clauses)}."


def _listed(some: pd.DataFrame, rows: pd.DataFrame) -> str:
    named = [f"{_name(row, rows)} ({row['gain']:+.2f})" for _, row in some[:MOST].iterrows()]
    named[0] = named[0].removesuffix(")") + " points)"
    return ", ".join(named) + (f" and {len(some) - MOST} more" if len(some) > MOST else "")


def _restored(frame: pd.DataFrame) -> str:
    """Say how many autoencoders restore better than copying their input, and which is best."""
    if frame.empty or (rows := frame[frame["copy_input"] > 0]).empty:
        return ""
    ratio = rows["restored"] / rows["copy_input"]
    best = rows.iloc[int(ratio.argmin())]
    distances = "{:.1f} against {:.1f}".format(*(1e4 * best[["restored", "copy_input"]]))
    return (
        f"Restoration better than copying the input: {(ratio < 1).sum()} of "
        f"{counted(len(rows), 'autoencoder')}; the best is {best['label']} with {distances} "
        "(Chamfer x 10,000)."
    )


def _leaked(frame: pd.DataFrame) -> str:
    """Say how much the positions of this very shape explain."""
    if frame.empty or (frame := frame.dropna(subset="leaked")).empty:
        return ""
    shares = 100 * frame["leaked"]
    return (
        f"Leakage: the positions of a shape explain {shares.min():.1f} to {shares.max():.1f} % of "
        "its reconstruction beyond those of another shape, most with "
        f"{frame.iloc[int(shares.argmax())]['label']}."
    )


def _name(row: pd.Series, rows: pd.DataFrame) -> str:
    """Return a variant's label, with its group where there are several."""
    return f"{row['label']}, {row['group']}" if rows["group"].nunique() > 1 else row["label"]
