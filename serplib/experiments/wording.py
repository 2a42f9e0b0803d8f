"""Rows of results as text: the tables of reports and of the README, and their caveats."""

from __future__ import annotations

import math
import re

from serplib.evaluation.robustness import GROUPS, POINTS, summary
from serplib.experiments.tables import (
    DIVISOR,
    TEST_SHAPES,
    accuracy_rows,
    mean_rows,
    probe_rows,
)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def gain_text(gain: dict | None) -> str:
    """A gain of `experiments.tables.paired_gain` with its interval and verdict; empty for None."""
    if gain is None:
        return ""
    if gain["n"] == 1:
        return f"{gain['gain']:+.2f}, one seed: cannot tell"
    return f"{gain['gain']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}] {gain['verdict']}"


def _pair_text(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.2f}" if math.isnan(pair[1]) else f"{pair[0]:.2f} ± {pair[1]:.2f}"


def _ours_text(row: dict) -> list[str]:
    """Accuracy, seeds, and the gain: over seeds, over shapes, and how often McNemar agrees."""
    cells = [_pair_text((row["mean"], row["sd"])), str(row["n"]), gain_text(row["gain"])]
    if "shapes" not in row:
        return [*cells, "", ""]
    low, high = row["shapes"]["low"], row["shapes"]["high"]
    significant = f"{row['significant']} of {row['gain']['n']} seeds"
    return [*cells, f"[{low:+.2f}, {high:+.2f}]", significant]


_GAIN_HEADS = ["[95 %, over shapes]", "McNemar p < .05"]


def _accuracy_table(rows: list[dict], title: str) -> tuple[str, list[str], list[list[str]]]:
    heads = ["arm", "ours (mean ± sd)", "seeds", "gain over scratch [95 %, over seeds]"]
    heads += _GAIN_HEADS
    lines = [[row["label"], *_ours_text(row)] for row in rows]
    if any(row["published"] for row in rows):
        heads += ["paper, ModelNet40", "corrected"]
        for row, line in zip(rows, lines):
            line += [_number(row["published"]), _number(row["corrected"])]
    return title, heads, lines


def _probe_tables(found: list[dict]) -> list[tuple[str, list[str], list[list[str]]]]:
    rows = probe_rows(found)
    if not rows:
        return []
    heads = ["encoder", "linear SVM", "seeds", "gain over untrained [95 %, over seeds]"]
    others = {"kNN": "knn", "one layer": "linear", "three layers": "mlp3"}
    others = {head: key for head, key in others.items() if any(key in row for row in rows)}
    lines = [
        [row["label"], *_ours_text(row)]
        + [_pair_text(row[key]) if key in row else "" for key in others.values()]
        + [_number(row["rankme"], 1)]
        for row in rows
    ]
    title = f"Frozen encoders on {_data_name(found, rows[0]['name'])}, accuracy %"
    made = [(title, heads + _GAIN_HEADS + [*others, "RankMe"], lines)]
    shown = [row for row in rows if row["few_shot"]]
    if shown:
        heads = ["encoder", *shown[0]["few_shot"]]
        lines = [[r["label"], *map(_pair_text, r["few_shot"].values())] for r in shown]
        made.append((f"Few-shot, frozen, mean ± sd over episodes: {title[19:]}", heads, lines))
    return made


def tables(found: list[dict]) -> list[tuple[str, list[str], list[list[str]]]]:
    """The tables of a report: title, column heads, rows, all text."""
    made = []
    rows = accuracy_rows(found)
    for group in dict.fromkeys(row["group"] for row in rows):
        chosen = [row for row in rows if row["group"] == group]
        title = f"Accuracy on {_data_name(found, chosen[0]['name'])}, %"
        made.append(_accuracy_table(chosen, title + (f": {group}" if group else "")))
    made += _probe_tables(found)
    rows = mean_rows(found, "restoration")
    if rows:
        heads = ["arm", "seeds", "restored", "copy input", "resample", "detection AUC"]
        lines = [
            [
                row["label"],
                str(row["n"]),
                _number(1e4 * row["restored"], 1),
                _number(1e4 * row["copy_input"], 1),
                f"{1e4 * row['resample']:.1f} ({row['resample_points']:.0f} points)",
                _number(row.get("detection_auc")),
            ]
            for row in rows
        ]
        made.append(("Restoration of held-out clouds: Chamfer (Eq. 11) x 10,000", heads, lines))
    coded = [row for row in rows if "perplexity" in row]
    if coded:
        heads = ["arm", "perplexity", "live codes, %"]
        lines = [
            [row["label"], _number(row["perplexity"], 1), _number(100 * row["live_codes"], 1)]
            for row in coded
        ]
        made.append(("Codebook use over the held-out clouds", heads, lines))
    rows = mean_rows(found, "leakage")
    if rows:
        names = ("constant", "positions_of_another", "positions", "full")
        heads = ["arm", "seeds", *(n.replace("_", " ") for n in names), "explained", "leaked"]
        lines = [
            [row["label"], str(row["n"]), *(_number(row[n], 4) for n in names)]
            + [f"{100 * row[n]:.1f} %" for n in ("explained", "leaked")]
            for row in rows
        ]
        made.append(("Leakage: what decoders without an encoder reconstruct", heads, lines))
    return made + _robustness_tables(found)


def _robustness_tables(found: list[dict]) -> list[tuple[str, list[str], list[list[str]]]]:
    rows = mean_rows(found, "robustness")
    if not rows:
        return []
    most = max(int(key.rpartition("_")[2]) for key in rows[0] if key.startswith("uniform_"))
    means = [summary({k: v for k, v in row.items() if isinstance(v, float)}) for row in rows]
    lines = [
        [row["label"], str(row["n"]), _number(100 * row["clean"], 1)]
        + [_number(100 * mean[key], 1) for key in ("corrupted", *GROUPS)]
        + [_number(100 * row[f"points_{n}"], 1) for n in POINTS]
        + [_number(100 * row[f"rotated_{about}"], 1) for about in ("z", "so3")]
        for row, mean in zip(rows, means)
    ]
    heads = ["arm", "seeds", "clean", "corrupted", *GROUPS, *(f"{n} points" for n in POINTS)]
    title = f"Robustness, accuracy %: 15 corruptions (severities 1 to {most}), fewer points, turns"
    return [(title, [*heads, "about z", "SO(3)"], lines)]


def _data_name(found: list[dict], name: str) -> str:
    return next(r["data"]["test"]["name"] for r in found if r["run"]["name"] == name)


_NOTES = (
    "Ours is measured over the true number of test shapes; the epoch is never chosen on the test "
    "set. The gain is paired by seed, with Student's 95 % interval, which decides the verdict; "
    "beside it stand the bootstrap interval over test shapes and McNemar's test in each seed, "
    "which know nothing of what another seed would do."
)
_CORRECTED = (
    f"'Corrected' is the paper's figure over {TEST_SHAPES:,} shapes: its authors' code divides by "
    f"{DIVISOR:,}."
)


def caveats(found: list[dict]) -> list[str]:
    """What a reader of these tables has to know, read off the records."""
    notes = []
    if any("test" in r["metrics"] or "probes" in r["metrics"] for r in found):
        notes.append(_NOTES)
    if any(row["published"] for row in accuracy_rows(found)):
        notes.append(_CORRECTED)
    tested = {r["data"]["test"]["name"] for r in found if "test" in r["data"]}
    if tested - {"modelnet40"}:
        notes.append(
            f"Tested on {', '.join(sorted(tested - {'modelnet40'}))}, not on ModelNet40: only the "
            "sign and the order of the gains can be held against the paper's columns."
        )
    subsets = {
        r["data"]["test"]["num_shapes"]
        for r in found
        if "test" in r["data"] and r["data"]["test"]["name"] == "modelnet40"
    } - {TEST_SHAPES}
    if subsets:
        notes.append(f"Not the whole test split, but {sorted(subsets)} of its shapes.")
    presets = {r["parameters"]["preset"] for r in found} - {"paper", "authors_code"}
    if presets:
        notes.append(
            f"Models and schedule are those of the preset {', '.join(sorted(presets))}, "
            "smaller than the paper's."
        )
    ours = [row for row in mean_rows(found, "robustness") if row["files"] < 1]
    if ours:
        notes.append(
            "Corruptions are ours, after the description of ModelNet40-C; occlusion, lidar and "
            "density_inc are made from the cloud, without the meshes that it used."
        )
    restored = [row for row in mean_rows(found, "restoration") if row["copy_input"] > 0]
    better = [row["label"] for row in restored if row["restored"] < row["copy_input"]]
    if better and len(better) < len(restored):
        notes.append(f"Restored better than copying the input: {'; '.join(better)}; no other arm.")
    if restored and not better:
        notes.append(
            "No model here restores better than copying its input does: the pre-training is too "
            "short for its task, so that these gains say nothing about SeRP trained in full."
        )
    trained = [r for r in found if "restoration" in r["metrics"] and "train" in r["data"]]
    pretrained = {r["data"]["train"]["name"] for r in trained}
    if pretrained and pretrained != {"shapenet55"}:
        notes.append(f"Pre-trained on {', '.join(sorted(pretrained))} in the place of ShapeNet.")
    return notes


def environment_line(found: list[dict]) -> str:
    """Devices, versions and revisions that the records name."""

    def all_of(pick) -> str:
        return ", ".join(sorted({str(pick(r["environment"])) for r in found}))

    return (
        f"{len(found)} runs, {sum(r['seconds'] for r in found) / 60:.1f} minutes of computing on "
        f"{all_of(lambda e: e['device'])}; torch {all_of(lambda e: e['packages']['torch'])}; "
        f"revision {all_of(lambda e: (e['git']['revision'] or 'unknown')[:10])}"
    )


def markdown(found: list[dict]) -> str:
    """The tables as Markdown, with their notes: what the README shows."""
    lines = []
    for title, heads, rows in tables(found):
        lines += [f"**{_plain(title)}**", "", _line(heads), "| --- " * len(heads) + "|"]
        lines += [*map(_line, rows), ""]
    lines += [*map(_plain, caveats(found)), "", _plain(environment_line(found)) + "."]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """One line in which no HTML and no link begins: labels come from files."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(text.split()))
    return text.replace("](", "]\\(")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"
