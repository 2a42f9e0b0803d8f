"""The report: one self-contained page, and the tables of the README (paper, section 4.2)."""

from __future__ import annotations

import base64
import html
import io
import math
from pathlib import Path

from serplib import records
from serplib.tables import accuracy_rows, arms
from serplib.wording import caveats, environment_line, markdown, tables


def figure_png(found: list[dict]) -> bytes:
    """Validation loss of each pre-training and accuracy of each arm, as a PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    by_name = arms(found)
    pretrained = [name for name, group in by_name.items() if "restoration" in group[0]["metrics"]]
    rows = accuracy_rows(found)
    figure = Figure(figsize=(11, 1.5 + 0.32 * max(len(rows), 8)), layout="constrained")
    FigureCanvasAgg(figure)
    with matplotlib.rc_context({"text.parse_math": False}):  # a $ in a label is a $
        _draw(*figure.subplots(1, 2), by_name, pretrained, rows)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def _draw(left, right, by_name: dict, pretrained: list[str], rows: list[dict]) -> None:
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
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
padding: 0 1rem }}
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
        table = Table(*map(escape, heads), title=escape(title), title_justify="left")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
    for note in shown["caveats"]:
        console.print(escape(note), style="dim")
    for outcome in shown["failed"]:
        told = escape(f"{outcome['name']} {outcome['message']}")
        console.print(f"[red]{outcome['state']}[/]: {told}")
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
