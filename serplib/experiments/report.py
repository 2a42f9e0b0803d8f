"""Reports: a page for each suite, and the pages of the committed records (section 4.2).

``python -m serplib.experiments.report`` writes the results page and the leaderboard again.
"""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from serplib.evaluation.significance import holm
from serplib.experiments import cost, findings, records, render
from serplib.experiments.figures import draw
from serplib.experiments.notes import across_devices
from serplib.experiments.summaries import Summary, format_rows, summarize
from serplib.experiments.tables import Records, accuracy, probes, variants

README_COLUMNS = {
    "variant": "{label}",
    "ours, %": "{mean:.2f} ± {sd:.2f}",
    "seeds": "{seeds}",
    "gain [95 % interval]": "{gain:+.2f} [{low:+.2f}, {high:+.2f}]",
    "paper, %": "{published:.2f}",
    "corrected, %": "{corrected:.2f}",
    "size": "{size}",
}
FEW_COLUMNS = {  # by groups of the suites eight and layers
    "8 labels a class": "fine-tuned, 8 labels",
    "frozen encoder, 8 labels a class": "frozen, 8 labels",
    "frozen encoder, all labels": "frozen, all labels",
    "all layers": "frozen, all labels, all layers",
}
# Parts of labels that the tables of the README shorten.
_SHORT = {"loss in the ": "", " and local drops$": ", cloud's frame", " and local drops": ""}
LEFT_OUT = (
    "patch's origin",
    "authors' code",
    "clean clouds, loss in the patch's frame",
    "local drops, loss in the patch's frame",
    "NPNet",
)


@dataclass(frozen=True)
class Report:
    """The report of a suite: its page, what it shows, and a line for each failed run."""

    path: Path
    summary: Summary | None
    failed: list[str]

    def to_text(self, width: int = 80) -> str:
        """Render for the terminal."""
        tables = [] if self.summary is None else [render.to_text(self.summary, width)]
        return "\n".join([*tables, *self.failed, f"Report: {self.path}"])

    def closing(self, width: int = 80) -> str:
        """Render the findings, one table and the path, for the end of a run."""
        parts = []
        if self.summary is not None:
            parts += [textwrap.fill(line, width) for line in findings.sentences(self.summary)]
            frame, note = findings.table(self.summary)
            if not frame.empty:
                parts += ["", render.to_narrow_text(frame, width), *note, ""]
        return "\n".join([*parts, *self.failed, f"Report: {self.path}"])


def write(suite: str, profile: str, found: Records, outcomes: list[dict]) -> Report:
    """Write ``runs/<suite>-<profile>/report.html`` and, where there are records, ``report.md``.

    Args:
        suite: its name.
        profile: its profile.
        found: the records of the finished runs.
        outcomes: of `runner.execute`; failed runs are listed.
    """
    folder = records.project_root() / "runs" / f"{suite}-{profile}"
    failed = [line for outcome in outcomes if (line := failure(outcome))]
    summary, said, pictures = None, [], {}
    folder.mkdir(parents=True, exist_ok=True)
    if found:
        summary = summarize(found)
        said = findings.sentences(summary)
        pictures = _restorations(folder, found) | draw(found, summary.accuracy)
        (folder / "report.md").write_text(render.to_markdown(summary, said), encoding="utf-8")
    page = render.to_html(f"{suite} ({profile})", summary, said, pictures, failed)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return Report(folder / "report.html", summary, failed)


def failure(outcome: dict) -> str:
    """Return one line about an outcome of `runner.execute`; an empty one where it did not fail."""
    failed = outcome["state"] in ("failed", "not run")
    return "{state}: {name} seed {seed}: {message}".format_map(outcome) if failed else ""


def _restorations(folder: Path, found: Records) -> dict[str, bytes]:
    """Read pictures of restored clouds, one a variant: clean, corrupted, restored."""
    pictures: dict[str, bytes] = {}
    for record in found:
        about, seed = record["run"], record["parameters"]["seed"]
        path = folder / f"{about['name']}-seed{seed}-{about['hash'][:8]}" / "figure.png"
        if path.is_file():
            head = render.RESTORED if record["history"] else "Figure 4: "
            pictures.setdefault(head + about.get("label", about["name"]), path.read_bytes())
    return pictures


def keep(suite: str, profile: str, found: Records) -> Path:
    """Copy the records of a suite to ``results/<suite>-<profile>.json``, to be committed."""
    path = records.results_folder() / f"{suite}-{profile}.json"
    records.write_json(path, {"suite": suite, "profile": profile, "records": found})
    return path


# ---- the committed records ---------------------------------------------------------------------


def renew(page: str) -> str:
    """Return a page with the tables between its marks made again from the records.

    The block of a suite lies between ``<!-- results SUITE-PROFILE -->`` and
    ``<!-- end of SUITE-PROFILE -->``; that of `cost.leaderboard` is called ``leaderboard``, and the
    number of `intervals` on the page ``intervals``.
    """

    def block(match: re.Match) -> str:
        if match[2] == "intervals":
            return match[0]  # counted below, when all tables are there
        if match[2] == "leaderboard":
            return f"{match[1]}\n{cost.leaderboard()}{match[3]}"
        tables = render.to_markdown(summarize(records.read_suite(match[2])["records"]))
        return f"{match[1]}\n{tables}{match[3]}"

    pattern = r"^(<!-- results (\S+) -->)\n.*?^(<!-- end of \2 -->)$"
    made = re.sub(pattern, block, page, flags=re.MULTILINE | re.DOTALL)
    counted = f"\\1\n{intervals(made)}\n\\3"
    return re.sub(pattern.replace(r"(\S+)", "(intervals)"), counted, made, flags=re.M | re.DOTALL)


def intervals(page: str) -> str:
    """Say how many intervals over seeds a page has, and how many exclude zero by chance."""
    verdicts = re.findall(r"\] (significant|not significant)", page)
    return (
        f"The tables below have {len(verdicts)} intervals over seeds of 95 %, and "
        f"{verdicts.count('significant')} of them exclude zero. If no variant had an effect, about "
        f"5 % of them, that is {0.05 * len(verdicts):.0f}, would exclude zero by chance. They are "
        "not corrected for their number, and rows that two suites share are counted twice."
    )


def readme_table() -> str:
    """Return the README's table in Markdown: Tables 1 and 2 of the paper beside ours.

    A row that ran on another device than its baseline (`notes.across_devices`) has no gain.
    """
    parts = []
    for suite in ("table1", "table2"):
        full = (records.results_folder() / f"{suite}-full.json").exists()
        found = records.read_suite(f"{suite}-{'full' if full else 'laptop'}")["records"]
        tuned = variants([r for r in found if "test" in r["metrics"]])
        seeds = [{r["parameters"]["seed"] for r in runs} for runs in tuned.values()]
        shared = set.intersection(*seeds)  # a mean over other seeds than its baseline's misleads
        rows = accuracy([r for r in found if r["parameters"]["seed"] in shared])
        rows.loc[rows.index.intersection(list(across_devices(found))), "gain"] = math.nan
        parts.append(rows)
    rows = pd.concat(parts)
    rows["label"] = rows["label"].replace(_SHORT, regex=True)
    shown = format_rows(rows, README_COLUMNS)
    if rows["size"].nunique() == rows["seeds"].nunique() == 1:  # then they stand in the head
        head = f"ours ({shown.pop('size').iloc[0]}, {shown.pop('seeds').iloc[0]} seeds), %"
        shown = shown.rename(columns={"ours, %": head})
    return render.table_to_markdown(shown)


def readme_few() -> str:
    """Return the README's table of the suites ``eight`` and ``layers``, a row a pre-training.

    A column is a group; a cell has the mean accuracy in percent, and the gain with its interval,
    in bold where its p is below 5 % after `significance.holm` over all gains of these groups. The
    rows of `LEFT_OUT` count there, and are only on the results page.
    """
    found = [records.read_suite(f"{suite}-laptop")["records"] for suite in ("eight", "layers")]
    rows = pd.concat([accuracy(found[0]), *map(probes, found)]).dropna(subset="mean")
    rows = rows[rows["group"].isin(FEW_COLUMNS)].copy()
    forms = {"mean": "{mean:.2f}", "gain": "{gain:+.2f} [{low:+.2f}, {high:+.2f}]"}
    cells = format_rows(rows, forms)
    tested = (rows["pairs"] > 1).to_numpy()
    significant = [p < 0.05 for p in holm(rows["p"][tested].tolist())]
    bold = cells.index[tested][significant]
    cells.loc[bold, "gain"] = "**" + cells.loc[bold, "gain"] + "**"
    rows["cell"] = cells.agg("; ".join, axis=1).str.removesuffix("; ").to_list()
    rows = rows[~rows["label"].str.contains("|".join(LEFT_OUT))]
    rows["of"] = rows["label"].str.replace(r", (8 labels|all labels|all layers)$", "", regex=True)
    names = {r"^(from scratch|untrained encoder)": "none", r"^(Point-NN|NPNet)$": r"\1's features"}
    rows["of"] = rows["of"].replace(names | _SHORT, regex=True)
    order = sorted(rows["of"].unique(), key=lambda of: not of.startswith("none"))
    table = rows.pivot(index="of", columns="group", values="cell").loc[order]
    shown = table[list(FEW_COLUMNS)].fillna("").rename(columns=FEW_COLUMNS)
    return render.table_to_markdown(shown.reset_index(names="pre-training"))


def main() -> None:
    """Write the results page, the leaderboard and its figure again."""
    notebooks = records.project_root() / "notebooks"
    cost.draw(notebooks / "figures" / "cost.png")
    for page in (records.results_folder() / "README.md", notebooks / "site" / "leaderboard.md"):
        page.write_text(renew(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(page)


if __name__ == "__main__":
    main()
