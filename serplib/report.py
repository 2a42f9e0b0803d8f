"""From records to tables and one self-contained page (paper, section 4.2, Tables 1 and 2)."""

from __future__ import annotations

import base64
import html
import io
import math
import statistics
from pathlib import Path

from serplib import records

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
# Half the width of a 95 % interval of a mean, in standard errors, by degrees of freedom (Student).
_T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def corrected(published: float) -> float:
    """A published accuracy over the true number of shapes: hits / 2,560 becomes hits / 2,468.

    The authors' code divides by batches x batch size; all six published values are k / 2,560.
    """
    return round(published * DIVISOR / 100) / TEST_SHAPES * 100


def mean_sd(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (nan for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def paired_gain(ours: dict[int, float], base: dict[int, float]) -> dict | None:
    """Difference of two arms over the seeds that both have, with its 95 % interval (Student's t).

    Returns:
        ``gain``, ``low``, ``high``, ``n`` and ``verdict`` ("better", "worse" or "cannot tell");
        None without a common seed. One seed alone cannot tell.
    """
    gains = [ours[seed] - base[seed] for seed in sorted(ours.keys() & base.keys())]
    if not gains:
        return None
    mean, sd = mean_sd(gains)
    n = len(gains)
    half = _T95.get(n - 1, 1.96) * sd / math.sqrt(n) if n > 1 else math.inf
    verdict = "better" if mean - half > 0 else "worse" if mean + half < 0 else "cannot tell"
    return {"gain": mean, "low": mean - half, "high": mean + half, "n": n, "verdict": verdict}


def arms(found: list[dict]) -> dict[str, list[dict]]:
    """Records by the name of their run, in the order of the suite."""
    by_name: dict[str, list[dict]] = {}
    for record in found:
        by_name.setdefault(record["run"]["name"], []).append(record)
    return by_name


def accuracy_rows(found: list[dict]) -> list[dict]:
    """One row a fine-tuned arm: accuracy in per cent, gain over scratch, the paper's figures."""
    by_name = arms(found)
    accuracy = {
        name: {r["parameters"]["seed"]: 100 * r["metrics"]["test"]["accuracy"] for r in group}
        for name, group in by_name.items()
        if "test" in group[0]["metrics"]
    }
    rows = []
    for name, by_seed in accuracy.items():
        first = by_name[name][0]
        about = first["run"]
        mean, sd = mean_sd(list(by_seed.values()))
        scratch = about.get("scratch")
        published = PUBLISHED.get(about.get("published"))
        rows.append(
            {
                "name": name,
                "group": about.get("group", ""),
                "label": about.get("label", name),
                "mean": mean,
                "sd": sd,
                "n": len(by_seed),
                "gain": paired_gain(by_seed, accuracy[scratch]) if scratch in accuracy else None,
                "published": published,
                "corrected": None if published is None else corrected(published),
                "test_shapes": first["metrics"]["test"]["num_shapes"],
                "seconds": statistics.fmean(r["seconds"] for r in by_name[name]),
            }
        )
    return sorted(rows, key=lambda row: row["group"])  # stable: the suite's order within a group


def restoration_rows(found: list[dict]) -> list[dict]:
    """One row a pre-trained arm: Chamfer distances x 10,000 beside the baselines."""
    rows = []
    for name, group in arms(found).items():
        metrics = [r["metrics"]["restoration"] for r in group if "restoration" in r["metrics"]]
        if not metrics:
            continue
        mean = {key: statistics.fmean(m[key] for m in metrics) for key in metrics[0]}
        rows.append(
            {
                "name": name,
                "label": group[0]["run"].get("label", name),
                "n": len(metrics),
                "seconds": statistics.fmean(r["seconds"] for r in group),
                **mean,
            }
        )
    return rows


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _mean_sd_text(row: dict) -> str:
    return f"{row['mean']:.2f} ± {row['sd']:.2f}" if row["n"] > 1 else f"{row['mean']:.2f}"


def _gain_text(gain: dict | None) -> str:
    if gain is None:
        return ""
    if gain["n"] == 1:
        return f"{gain['gain']:+.2f}, one seed: cannot tell"
    return f"{gain['gain']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}] {gain['verdict']}"


def tables(found: list[dict]) -> list[tuple[str, list[str], list[list[str]]]]:
    """The tables of a report: title, column heads, rows, all text."""
    made = []
    rows = accuracy_rows(found)
    for group in dict.fromkeys(row["group"] for row in rows):
        chosen = [row for row in rows if row["group"] == group]
        made.append(
            (
                f"Accuracy on {_data_name(found, chosen[0]['name'])}, %"
                + (f": {group}" if group else ""),
                [
                    "arm",
                    "ours (mean ± sd)",
                    "seeds",
                    "gain over scratch [95 %]",
                    "paper, ModelNet40",
                    "corrected",
                ],  # fmt: skip
                [
                    [
                        row["label"],
                        _mean_sd_text(row),
                        str(row["n"]),
                        _gain_text(row["gain"]),
                        _number(row["published"]),
                        _number(row["corrected"]),
                    ]  # fmt: skip
                    for row in chosen
                ],
            )
        )
    rows = restoration_rows(found)
    if rows:
        made.append(
            (
                "Restoration of held-out clouds: Chamfer (Eq. 11) x 10,000",
                ["arm", "seeds", "restored", "copy input", "resample", "detection AUC"],
                [
                    [
                        row["label"],
                        str(row["n"]),
                        _number(1e4 * row["restored"], 1),
                        _number(1e4 * row["copy_input"], 1),
                        f"{1e4 * row['resample']:.1f} ({row['resample_points']:.0f} points)",
                        _number(row.get("detection_auc")),
                    ]  # fmt: skip
                    for row in rows
                ],
            )
        )
    return made


def _data_name(found: list[dict], name: str) -> str:
    return next(r["data"]["test"]["name"] for r in found if r["run"]["name"] == name)


_NOTES = (
    "Ours is measured over the true number of test shapes; the epoch is never chosen on the test "
    "set. The gain is paired by seed, with Student's 95 % interval. 'Corrected' is the paper's "
    f"figure over {TEST_SHAPES:,} shapes: its authors' code divides by {DIVISOR:,}."
)


def caveats(found: list[dict]) -> list[str]:
    """What a reader of these tables has to know, read off the records."""
    notes = [_NOTES]
    tested = {r["data"]["test"]["name"] for r in found if "test" in r["data"]}
    if tested - {"modelnet40"}:
        notes.append(
            f"Tested on {', '.join(sorted(tested - {'modelnet40'}))}, not on ModelNet40: only the "
            "sign and the order of the gains can be held against the paper's columns."
        )
    subsets = {
        r["data"]["test"]["num_shapes"] for r in found
        if "test" in r["data"] and r["data"]["test"]["name"] == "modelnet40"
    } - {TEST_SHAPES}  # fmt: skip
    if subsets:
        notes.append(f"Not the whole test split, but {sorted(subsets)} of its shapes.")
    presets = {r["parameters"]["preset"] for r in found} - {"paper", "authors_code"}
    if presets:
        notes.append(f"Models and schedule are those of the preset {', '.join(sorted(presets))}, "
                     "smaller than the paper's.")  # fmt: skip
    pretrained = {r["data"]["train"]["name"] for r in found if "restoration" in r["metrics"]}
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
        lines += [f"**{title}**", "", "| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
        lines += [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows
        ]
        lines.append("")
    lines += [*caveats(found), "", environment_line(found) + "."]
    return "\n".join(lines) + "\n"


def figure_png(found: list[dict]) -> bytes:
    """Validation loss of each pre-training and accuracy of each arm, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    by_name = arms(found)
    pretrained = [name for name, group in by_name.items() if "restoration" in group[0]["metrics"]]
    rows = accuracy_rows(found)
    figure = Figure(figsize=(11, 1.5 + 0.32 * max(len(rows), 8)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name in pretrained:
        for i, record in enumerate(by_name[name]):
            loss = [entry["valid_total"] for entry in record["history"]]
            relative = [value / loss[0] for value in loss]
            left.plot(range(1, len(loss) + 1), relative, color=f"C{pretrained.index(name)}",
                      label=name if i == 0 else None)  # fmt: skip
    left.set(title="Pre-training", xlabel="epoch", ylabel="validation loss / that of epoch 1")
    if pretrained:
        left.legend(frameon=False)
    for place, row in enumerate(rows):
        sd = 0 if math.isnan(row["sd"]) else row["sd"]
        right.errorbar(row["mean"], place, xerr=sd, fmt="o", color="#0072B2")
    right.set_yticks(range(len(rows)), [f"{row['label']} ({row['group']})" for row in rows])
    right.invert_yaxis()
    right.set(title="Test accuracy, mean ± sd over seeds", xlabel="%")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def write(suite: str, profile: str, found: list[dict], outcomes: list[dict]) -> dict:
    """Write ``runs/<suite>-<profile>/report.html`` and ``.md``.

    Args:
        found: the records. outcomes: of `suites.execute`; failed runs are listed.

    Returns:
        ``path`` of the page, and the ``tables``, ``caveats`` and ``failed`` it shows.
    """
    failed = [o for o in outcomes if o["state"] in ("failed", "not run")]
    folder = records.project_root() / "runs" / f"{suite}-{profile}"
    folder.mkdir(parents=True, exist_ok=True)
    shown = {"path": folder / "report.html", "tables": [], "caveats": [], "failed": failed}
    body = [f"<h1>{html.escape(suite)} ({html.escape(profile)})</h1>"]
    if found:
        shown |= {"tables": tables(found), "caveats": caveats(found)}
        for title, heads, rows in shown["tables"]:
            body += [f"<h2>{html.escape(title)}</h2>", "<table><tr>"]
            body += [f"<th>{html.escape(head)}</th>" for head in heads] + ["</tr>"]
            for row in rows:
                body.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>")
            body.append("</table>")
        body += [f"<p>{html.escape(note)}</p>" for note in shown["caveats"]]
        picture = base64.b64encode(figure_png(found)).decode()
        body.append(
            f'<img src="data:image/png;base64,{picture}" alt="Left: validation loss of each '
            'pre-training by epoch. Right: test accuracy of each arm with its spread over seeds.">'
        )
        body.append(f"<p>{html.escape(environment_line(found))}.</p>")
        (folder / "report.md").write_text(markdown(found), encoding="utf-8")
    if failed:
        body.append("<h2>Runs that failed</h2><ul>")
        for outcome in failed:
            line = "{name} seed {seed}: {message}".format(**outcome)
            body.append(f"<li>{html.escape(line)}</li>")
        body.append("</ul>")
    shown["path"].write_text(_PAGE.format(title=html.escape(suite), body="\n".join(body)),
                             encoding="utf-8")  # fmt: skip
    return shown


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>SeRP: {title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse }} th, td {{ padding: .3rem .8rem; border-bottom: 1px solid #ccc;
text-align: left }} img {{ max-width: 100% }}
</style></head><body>
{body}
</body></html>
"""


def show(shown: dict, console) -> None:
    """Print what `write` returned: the tables, the notes, and the path of the page."""
    from rich.markup import escape
    from rich.table import Table

    for title, heads, rows in shown["tables"]:
        table = Table(*heads, title=escape(title), title_justify="left")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
    for note in shown["caveats"]:
        console.print(escape(note), style="dim")
    for outcome in shown["failed"]:
        console.print(f"[red]{outcome['state']}[/]: {escape(outcome['name'])} {outcome['message']}")
    console.print(f"Report: {shown['path']}", soft_wrap=True)


def keep(suite: str, profile: str, found: list[dict]) -> Path:
    """Copy the records of a suite to ``results/<suite>-<profile>.json``, to be committed.

    Where the README shows this suite, its tables there are renewed.
    """
    root, name = records.project_root(), f"{suite}-{profile}"
    path = root / "results" / f"{name}.json"
    records.write_json(path, {"suite": suite, "profile": profile, "records": found})
    readme = root / "README.md"
    if readme.exists():
        text = readme.read_text(encoding="utf-8")
        readme.write_text(fill(text, name, found), encoding="utf-8")
    return path


def fill(text: str, name: str, found: list[dict]) -> str:
    """``text`` with what stands between ``<!-- results NAME -->`` and its end mark renewed."""
    start, end = f"<!-- results {name} -->\n", f"<!-- end of {name} -->"
    if start not in text or end not in text:
        return text
    before, rest = text.split(start, 1)
    return before + start + markdown(found) + end + rest.split(end, 1)[1]
