"""The page ``runs/<suite>-<profile>/status.html``, rewritten while a suite runs.

Epochs are read from the checkpoints, so that workers on other machines need no connection to this
process, only the folder that they share with it.
"""

from __future__ import annotations

import html
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean
from threading import Event, Thread
from typing import Any

import torch

from serplib.experiments import records, render
from serplib.experiments.suites import Run
from serplib.experiments.workload import schedule

SECONDS = 3.0  # between two looks at the folders, and between two refreshes of the page
_ENDED = ("done", "kept", "failed", "not run")


@contextmanager
def watching(
    runs: list[Run],
    on_outcome: Callable[[dict], None],
    on_progress: Callable[[str], None] = lambda line: None,
    seconds: float = SECONDS,
) -> Iterator[Callable[[dict], None]]:
    """Keep the page of these runs up to date while they are executed.

    Args:
        runs: of `suites.plan`.
        on_outcome: called with each outcome.
        on_progress: called with a line about what runs now, see `Board.progress`.
        seconds: between two pages, and two lines.

    Returns:
        What `runner.execute` has to call with each outcome.
    """
    board, stop = Board(runs), Event()

    def look() -> None:
        while not stop.wait(seconds):
            board.write()
            on_progress(board.progress())

    def ended(outcome: dict) -> None:
        board.ended(outcome)
        on_outcome(outcome)

    board.write()
    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        stop.set()
        thread.join()
        board.write(running=False)


class Board:
    """What is known of each run of a suite.

    Args:
        runs: of `suites.plan`.
    """

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        self.folder = runs[0].folder.parent
        self.epochs = {run.hash: _epochs(run) for run in runs}
        self.before = {run.hash: _changed(run) for run in runs}
        self.first: dict[str, tuple[float, int]] = {}  # hash -> when it was seen first, its epoch
        self.histories: dict[str, list[dict]] = {}
        self.outcomes: dict[str, dict] = {}  # by name and seed
        self.final: dict[str, dict[str, Any]] = {}  # hash -> row of a run that has ended
        self.picture = ""  # the first restoration that is better than copying, as HTML

    def ended(self, outcome: dict) -> None:
        """Take an outcome of `runner.execute`; the next page shows it."""
        self.outcomes[f"{outcome['name']} {outcome['seed']}"] = outcome

    def write(self, running: bool = True) -> None:
        """Write the page; a disk that is full or slow does not stop the suite."""
        page = self.to_html(running)
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / "status.html.part"
            part.write_text(page, encoding="utf-8")
            os.replace(part, self.folder / "status.html")

    def rows(self) -> list[dict[str, Any]]:
        """Return a dict a run: ``state``, ``history``, ``seconds``, ``left`` and ``error``."""
        rows = [self.final.get(run.hash) or self._row(run) for run in self.runs]
        known: dict[str, list[float]] = {}  # seconds by run name and by notebook
        for row in rows:
            if row["state"] in ("done", "kept") or row["left"]:  # a running one with an estimate
                for key in (row["run"].name, row["run"].notebook):
                    known.setdefault(key, []).append(row["seconds"] + row["left"])
        for row in rows:
            like = known.get(row["run"].name) or known.get(row["run"].notebook)
            if row["left"] is None and like:
                row["left"] = max(fmean(like) - row["seconds"], 0.0)
        return rows

    def _row(self, run: Run) -> dict[str, Any]:
        row: dict[str, Any] = {"run": run, "epochs": self.epochs[run.hash], "history": []}
        row |= {"state": "waiting", "seconds": 0.0, "left": None, "error": ""}
        died = f"{run.name}-{run.hash} None"
        if outcome := self.outcomes.get(f"{run.name} {run.seed}") or self.outcomes.get(died):
            row |= {"state": outcome["state"], "seconds": outcome["seconds"], "left": 0.0}
            if outcome["state"] in ("failed", "not run"):
                row["error"] = f"{outcome['message']}\n{outcome.get('trace', '')}"
                row["history"] = self._history(run)
            else:
                with suppress(OSError, ValueError, KeyError):  # deleted meanwhile
                    record = records.read_json(run.folder / "record.json")
                    row |= {"history": record["history"], "seconds": record["seconds"]}
                    self.picture = self.picture or _restored(run, record)
            self.final[run.hash] = row
        elif _changed(run) not in (None, self.before[run.hash]):  # papermill writes while it runs
            history = row["history"] = self._history(run)
            started, epoch = self.first.setdefault(run.hash, (time.monotonic(), len(history)))
            elapsed = time.monotonic() - started
            row |= {"state": "running", "seconds": elapsed}
            if row["epochs"] and len(history) > epoch:
                each = elapsed / (len(history) - epoch)
                row["left"] = each * (row["epochs"] - len(history))
        return row

    def _history(self, run: Run) -> list[dict]:
        """Read the epochs in the newest checkpoint of a run; the last known while it changes."""
        folders = (run.folder / "checkpoint").glob("step-*")
        complete = sorted(path for path in folders if path.suffix != ".part")
        known = self.histories.get(run.hash, [])
        if complete and int(complete[-1].name.removeprefix("step-")) != len(known):
            with suppress(Exception):  # removed in this moment, or not yet seen on a shared disk
                path = complete[-1] / "state.pt"
                state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
                known = self.histories[run.hash] = state["history"]
        return known

    def progress(self) -> str:
        """Say in one line what runs now, its epoch and loss, and how long the suite still takes."""
        rows = self.rows()
        running = [row for row in rows if row["state"] == "running"]
        if not running:
            return ""
        row = running[int(time.monotonic() / SECONDS) % len(running)]  # in turn
        run, history = row["run"], row["history"]
        line = f"{run.name} seed {run.seed}"
        if row["epochs"]:
            line += f" epoch {len(history)}/{row['epochs']}"
        if history:
            line += f" loss {_losses(history)[-1]:.3g}"
        return f"{line}, {_time_left(rows).removeprefix('about ')}"

    def to_html(self, running: bool) -> str:
        """Render the page; without ``running`` it does not refresh itself any more."""
        rows = self.rows()
        for row in rows:
            if row["state"] == "running" and not running:
                row["state"] = "stopped"
        count = Counter(row["state"] for row in rows)
        ended = sum(count[state] for state in _ENDED)
        line = f"{ended} of {len(rows)} runs ended" + "".join(
            f", {count[state]} {state}" for state in ("running", "failed") if count[state]
        )
        if running and ended < len(rows):
            line += f"; {_time_left(rows)}"
        title = f"{self.runs[0].suite} ({self.runs[0].profile})"
        line += "" if running else "; the command has ended"
        body = _BODY.format(
            title=html.escape(title), line=line, ended=ended, total=len(rows),
            written=time.strftime("%Y-%m-%d %H:%M:%S"), picture=self.picture,
            rows="\n".join(map(_to_html, rows)),
        )  # fmt: skip
        refresh = f'<meta http-equiv="refresh" content="{SECONDS:.0f}">' if running else ""
        return render.page(f"status of {title}", _STYLE, body, refresh)


def restored_line(outcome: dict) -> str:
    """Say how well a finished pre-training restores; an empty text for other outcomes."""
    with suppress(OSError, ValueError, KeyError):
        record = records.read_json(Path(outcome["notebook"]).with_name("record.json"))
        found = record["metrics"]["restoration"]
        return (
            f"{outcome['name']} seed {outcome['seed']} restores to {1e4 * found['restored']:.1f}, "
            f"copies are {1e4 * found['copy_input']:.1f} (Chamfer x 10,000)"
        )
    return ""


def _restored(run: Run, record: dict) -> str:
    """Return the picture of a run that restores better than copying its input, as HTML."""
    found = record["metrics"].get("restoration", {"restored": 1.0, "copy_input": 0.0})
    path = run.folder / "figure.png"
    if not path.is_file() or found["restored"] >= found["copy_input"]:
        return ""
    return render.figure(render.RESTORED + run.about.get("label", run.name), path.read_bytes())


def _time_left(rows: list[dict[str, Any]]) -> str:
    """Say how long the runs that have not ended still take together."""
    left = [row["left"] for row in rows if row["state"] not in _ENDED]
    known = [seconds for seconds in left if seconds is not None]
    if len(known) < len(left):
        return "time left unknown"
    running = sum(row["state"] == "running" for row in rows)
    return f"about {duration(sum(known) / max(running, 1))} left"


def duration(seconds: float) -> str:
    """Format seconds as ``40 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _changed(run: Run) -> int | None:
    """Return when the executed notebook was written, or None where there is none."""
    try:
        return (run.folder / "notebook.ipynb").stat().st_mtime_ns
    except OSError:
        return None


def _epochs(run: Run) -> int:
    """Return the epochs of a run, 0 for a notebook that leaves none in a checkpoint."""
    return schedule(run)[1].epochs if run.notebook in ("pretrain", "finetune") else 0


def _to_html(row: dict[str, Any]) -> str:
    """Render the row of a run, and below it what failed."""
    run, history = row["run"], row["history"]
    losses = _losses(history)
    cells = [
        f"{html.escape(run.name)} <small>seed {run.seed}</small>",
        f'<span class="{row["state"].replace(" ", "-")}">{row["state"]}</span>',
        f"{len(history)} of {row['epochs']}" if row["epochs"] else "",
        f"{losses[-1]:.4g} {_curve(losses)}" if losses else "",
        duration(row["seconds"]) if row["seconds"] else "",
        duration(row["left"]) if row["left"] else "",
    ]
    line = "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    if row["error"].strip():
        line += f'<tr><td colspan="6"><pre>{html.escape(row["error"].strip())}</pre></td></tr>'
    return line


def _losses(history: list[dict]) -> list[float]:
    return [entry.get("valid_total", entry.get("train_loss", 0.0)) for entry in history]


def _curve(values: list[float]) -> str:
    """Draw losses by epoch as a line of 60 x 16 pixels."""
    low, high = min(values), max(values)
    if len(values) < 2 or low == high:
        return ""
    points = " ".join(
        f"{58 * i / (len(values) - 1) + 1:.1f},{15 - 14 * (value - low) / (high - low):.1f}"
        for i, value in enumerate(values)
    )
    return f'<svg width="60" height="16" aria-hidden="true"><polyline points="{points}"/></svg>'


_STYLE = """:root { --line: #ccc; --good: #17692f; --bad: #b3261e; --now: #0b57d0 }
@media (prefers-color-scheme: dark) {
:root { --line: #444; --good: #81c995; --bad: #f28b82; --now: #8ab4f8 } }
body { line-height: 1.4; max-width: 60rem; margin: 1rem auto }
progress, table { width: 100% } .table { overflow-x: auto }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left;
vertical-align: top }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; margin: 0 }
polyline { fill: none; stroke: currentColor; stroke-width: 1.2 } small { white-space: nowrap }
.done, .kept { color: var(--good) } .failed, .not-run, pre { color: var(--bad) }
.running { color: var(--now) }
@media (max-width: 40rem) { th, td { padding: .3rem .25rem; font-size: .85rem }
svg { display: none } }"""
_BODY = """<h1>{title}</h1>
<p>{line}. Written {written}.</p>
<progress value="{ended}" max="{total}">{ended} of {total}</progress>
{picture}
<div class="table"><table>
<tr><th>run</th><th>state</th><th>epoch</th><th>loss</th><th>time</th><th>left</th></tr>
{rows}
</table></div>"""
