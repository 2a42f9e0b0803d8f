"""The report: one self-contained page, and the tables of the README (paper, section 4.2)."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from serplib.experiments import records
from serplib.experiments.figures import draw
from serplib.experiments.wording import caveats, environment_line, markdown, tables


def write(suite: str, profile: str, found: list[dict], outcomes: list[dict]) -> dict:
    """Write ``runs/<suite>-<profile>/report.html`` and ``.md``.

    Args:
        found: the records. outcomes: of `experiments.runner.execute`; failed runs are listed.

    Returns:
        ``path`` of the page, and the ``experiments.tables``, ``caveats`` and ``failed`` it shows.
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
        for title, picture in (draw(found) | _restored(folder, found)).items():
            picture = base64.b64encode(picture).decode()
            body.append(f'<p><img src="data:image/png;base64,{picture}" alt="{title}"></p>')
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


def _restored(folder: Path, found: list[dict]) -> dict[str, bytes]:
    """The pictures that runs of figure 4 left in their folders, one an arm, by what they show."""
    pictures = {}
    for record in found:
        about = record["run"]
        place = f"{about['name']}-seed{record['parameters']['seed']}-{about['hash'][:8]}"
        path = folder / place / "figure.png"
        if path.is_file():
            title = "Figure 4: " + html.escape(about.get("label", about["name"]))
            pictures.setdefault(title, path.read_bytes())
    return pictures


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
    path = records.results_folder() / f"{name}.json"
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
