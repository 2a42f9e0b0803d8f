"""The command ``serp``: machine, data sets and experiments (paper, section 4)."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

if TYPE_CHECKING:
    from serplib.experiments.store import Store
    from serplib.experiments.suites import Run

app = typer.Typer(
    help="Build, run and report SeRP and VASP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The data sets: which there are, are they whole, make one.",
                       no_args_is_help=True)  # fmt: skip
app.add_typer(data_app, name="data")
console = Console()
Profile = Annotated[str | None, typer.Option(help="quick, laptop or full")]
Seeds = Annotated[int | None, typer.Option(help="number of seeds, from the first")]
Dataset = Annotated[
    str | None, typer.Option(help="data set of every run, such as a folder of your own shapes")
]


class Form(StrEnum):
    """How `serp query` writes its answer."""

    table = "table"
    csv = "csv"
    json = "json"


_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}


def _refuse(error: Exception | str) -> typer.Exit:
    """Print a wrong request's one-line error and return the exit with status 2."""
    print(f"serp: {error}", file=sys.stderr)
    return typer.Exit(2)


@contextmanager
def _one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Turn an error of these kinds, of a wrong request, into one line and exit status 2."""
    try:
        yield
    except kinds as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        remedy = "; free some space and give the same command again" if full else ""
        raise _refuse(f"{error}{remedy}") from None


@contextmanager
def _stoppable() -> Iterator[None]:
    """End with one line at Ctrl-C or SIGTERM; further ones do not disturb the end of workers."""
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        print("serp: stopping; the same command continues the suite", file=sys.stderr)
        raise KeyboardInterrupt

    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    before = {each: handler for each, handler in handlers.items() if handler != signal.SIG_IGN}
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(128 + (received or [signal.SIGINT])[0]) from None
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@app.command()
def doctor() -> None:
    """Check this machine and name the fix of each problem. Exit status 1 if there is one."""
    from serplib.experiments.doctor import examine

    findings = examine()
    for what, (state, detail, fix) in findings.items():
        advice = f" [dim]-> {escape(fix)}[/]" if fix else ""
        console.print(f"{_MARKS[state]:>8} {what}: {escape(detail)}{advice}")
    if any(finding.state == "problem" for finding in findings.values()):
        raise typer.Exit(1)


@data_app.command("list")
def data_list() -> None:
    """List the data sets of the course and where they were found."""
    from serplib.data.check import describe

    table = Table(Column("name", no_wrap=True), "what", "licence", Column("found", overflow="fold"))
    for row in describe():
        where = str(row["where"]) if row["found"] else "not found"
        cells = row["name"], row["what"], row["licence"], where
        table.add_row(*(escape(str(cell)) for cell in cells))
    console.print(table, "datasets/README.md shows where a set is looked for.", sep="\n")


@data_app.command("check")
def data_check(
    name: str,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="go on without the bad shapes of your own set")
    ] = False,
) -> None:
    """Read a whole data set and compare it with its published counts and ranges."""
    from serplib.data import DataError
    from serplib.data.check import check

    with _one_line(DataError):
        for fact in check(name, skip_bad):
            console.print(f"[green]ok[/] {escape(fact)}")


@data_app.command("make")
def data_make(
    name: Annotated[str, typer.Argument(help="procedural or objects")],
    out: Annotated[Path, typer.Argument(help="a new folder, such as datasets/procedural")],
    num_shapes: Annotated[int, typer.Option(min=1)] = 10_000,
    num_points: Annotated[int, typer.Option(min=1)] = 1024,
    seed: int = 0,
) -> None:
    """Write built-in shapes as h5 files, in the layout of modelnet40_ply_hdf5_2048."""
    from serplib.data import DataError
    from serplib.data.write import write_h5

    with _one_line(DataError, ValueError, OSError):
        for path in write_h5(name, out, num_shapes, num_points, seed):
            console.print(str(path))


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="a suite, or 'list' for all there are")],
    profile: Profile = None,
    seeds: Seeds = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="keep finished runs, or delete them first")
    ] = True,
    workers: Annotated[int | None, typer.Option(help="runs side by side")] = None,
    scheduler: Annotated[str | None, typer.Option(help="address of a Dask scheduler")] = None,
    dataset: Dataset = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="try every run: one seed, two steps, a few shapes")
    ] = False,
    store: Annotated[
        str | None, typer.Option(help="fsspec address for copies of notebooks, records, report")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="processes that train each run, one a GPU")
    ] = None,
    tracker: Annotated[
        str | None, typer.Option(help="log epochs to tensorboard, mlflow or trackio")
    ] = None,
) -> None:
    """Execute a suite with papermill and report it.

    Exit status 1 if a run failed, or if a file could not be copied to the store.
    """
    from serplib.data import DataError
    from serplib.experiments import estimate, report, runner, suites, trackers, workload
    from serplib.experiments.render import counted
    from serplib.experiments.store import Store

    if suite == "list":
        for name in suites.known_suites():
            try:
                content = suites.load(name)
                about = f" ({', '.join(content['profiles'])}): {content['title']}"
            except (ValueError, OSError) as error:  # the others are listed all the same
                about = f" cannot be used: {' '.join(str(error).split())}"
            console.print(escape(name + about))
        return
    with _one_line(ValueError, OSError, DataError):
        runs = suites.plan(
            suite, profile, 1 if smoke else seeds, dataset, smoke, processes, tracker
        )
        for name in sorted({item.parameters.get("tracker", "") for item in runs} - {""}):
            trackers.require(name)
        if workers is not None and workers < 1:
            raise ValueError(f"workers is {workers}, wanted >= 1")
        workload.require_equal_shares(runs)
        runs[0].folder.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(runs[0].folder.parent, os.W_OK):
            raise PermissionError(f"{runs[0].folder.parent} is not writable")
        copies = None if store is None else Store(store)
    absent = {name for item in runs for name in item.about.get("absent", [])}
    for name in sorted(absent):
        console.print(f"{name} is not on this machine: built-in shapes in its place")
    if dataset and (other := sum(item.parameters.get("dataset") != dataset for item in runs)):
        console.print(f"{dataset} has no two classes: {counted(other, 'run')} on the suite's data")
    resume = resume and not smoke
    todo = [item for item in runs if not (resume and item.finished())]
    done = len(runs) - len(todo)
    console.print(
        f"{suite} ({runs[0].profile}): {counted(len(runs), 'run')}, {done} finished before"
    )
    with _one_line(ValueError, OSError, DataError):
        if scheduler is None:  # else the runs are on other machines
            workload.require_precision(todo)
            if line := estimate.require_memory(todo, workers):
                print(f"serp: {line}", file=sys.stderr)
        workload.require_data(todo)
    retries = suites.load(suite).get("retries")
    with _stoppable(), _one_line(OSError):
        outcomes = _execute(runs, workers, scheduler, copies, fresh=not resume, retries=retries)
        written = report.write(suite, runs[0].profile, suites.gather_records(runs), outcomes)
        if not smoke and written.summary is not None:
            runner.execute_notebook(
                "report",
                written.path.with_name("report.ipynb"),
                {"suite": suite, "profile": runs[0].profile, "committed": False},
            )
    if smoke:
        work = sum(outcome["state"] == "done" for outcome in outcomes)
        typer.echo("\n".join([*written.failed, f"{work} of {len(runs)} runs work"]))
    else:
        typer.echo(written.closing())
    left = copies.add(*written.path.parent.glob("report.*")) if copies else ""
    if left:
        print(f"serp: {left}", file=sys.stderr)
    if written.failed or left:
        raise typer.Exit(1)


def _execute(
    runs: list[Run], workers: int | None, scheduler: str | None, copies: Store | None,
    **options: Any,
) -> list:  # fmt: skip
    """Execute runs behind a progress bar and return their outcomes; exit where that cannot be."""
    from tqdm import tqdm

    from serplib.experiments import report, runner, status
    from serplib.experiments.workers import WorkerError

    # With a delay the bar is drawn after the first outcome. The delay is short, because `bar.write`
    # draws a delayed bar, too, and `bar.close` would not end its line.
    form = "{n_fmt}/{total_fmt} {elapsed}{postfix}"
    bar = tqdm(total=len(runs), bar_format=form, mininterval=0, delay=1e-6)

    def show(outcome: dict) -> None:
        bar.set_postfix_str("{name} seed {seed} {state}".format_map(outcome), refresh=False)
        bar.update()
        smoke = runs[0].profile.endswith("-smoke")
        if outcome["state"] == "done" and not smoke and (line := status.restored_line(outcome)):
            bar.write(line)
        if line := report.failure(outcome):
            there = outcome["notebook"] and Path(outcome["notebook"]).is_file()
            bar.write(f"{line} ({outcome['notebook']})" if there else line)
        if copies and outcome["notebook"]:
            notebook = Path(outcome["notebook"])
            if line := copies.add(notebook, notebook.with_name("record.json")):
                bar.write(line)

    def show_progress(line: str) -> None:
        if line and sys.stderr.isatty():  # a log keeps the outcomes only
            bar.set_postfix_str(line)

    try:
        with status.watching(runs, show, show_progress) as ended:
            return runner.execute(runs, workers, scheduler, ended, **options)
    except (runner.SchedulerError, WorkerError) as error:
        raise _refuse(error) from None
    finally:
        bar.close()


@app.command("estimate")
def estimate_command(
    suite: str,
    profile: Profile = None,
    seeds: Seeds = None,
    dataset: Dataset = None,
    device: Annotated[
        str | None, typer.Option(help="H100, H200, A100, 'RTX 4090', T4 or CPU; default: this one")
    ] = None,
) -> None:
    """Estimate the hours and the memory of a suite from counted operations, before it runs."""
    from serplib.experiments import estimate, suites

    with _one_line(ValueError, OSError):
        runs = suites.plan(suite, profile, seeds, dataset)
        typer.echo(estimate.to_text(runs, device, _width()))


@app.command("report")
def report_command(
    suite: str,
    profile: Profile = None,
    seeds: Seeds = None,
    keep: Annotated[
        bool, typer.Option(help="also write the records to results/, to be committed")
    ] = False,
    dataset: Dataset = None,
) -> None:
    """Report the finished runs of a suite: HTML, Markdown, and tables on the terminal."""
    from serplib.experiments import report

    chosen, found = _finished(suite, profile, seeds, dataset)
    with _one_line(OSError):
        if keep:
            path = report.keep(suite, chosen, found)
            typer.echo(f"records kept in {path}; 'make results' writes the results page")
        typer.echo(report.write(suite, chosen, found, []).to_text(_width()))


@app.command("verify")
def verify_command(
    suite: str,
    profile: Profile = None,
    seeds: Seeds = None,
) -> None:
    """Compare your finished runs of a suite with the committed records.

    Exit status 0: they agree; 1: a variant differs; 2: nothing could be compared.
    """
    from serplib.experiments import records, render, suites, verify

    with _one_line(ValueError, OSError):  # before the reader is asked to run the suite
        chosen = suites.plan(suite, profile, seeds)[0].profile
        committed = records.read_suite(f"{suite}-{chosen}")["records"]
    _, found = _finished(suite, profile, seeds)
    result = verify.compare(found, committed)
    for note in result.notes:
        typer.echo(note)
    if result.agrees is None:
        raise _refuse("nothing could be compared")
    typer.echo(render.table_to_text(result.table, _width()))
    differing = (result.table["result"] == "differs").sum()
    typer.echo(f"{differing} of {len(result.table)} comparisons differ (p < {verify.LEVEL}, Holm)")
    if not result.agrees:
        raise typer.Exit(1)


@app.command("query")
def query_command(
    sql: Annotated[str, typer.Argument(help="a SELECT in DuckDB's SQL over the table runs")],
    form: Annotated[Form, typer.Option("--format", help="of the output")] = Form.table,
) -> None:
    """Answer a read-only SQL query over all records, the committed ones and those of runs/.

    'serp query "DESCRIBE runs"' lists the columns.
    """
    from serplib.experiments import query

    with _one_line(ValueError, OSError):
        answer = query.ask(sql)
    typer.echo(query.to_text(answer, form.value, _width()))


def _finished(
    suite: str, profile: str | None, seeds: int | None, dataset: str | None = None
) -> tuple[str, list[dict]]:
    """Return the profile and the records of the finished runs of a suite; exit without any."""
    from serplib.experiments import suites

    with _one_line(ValueError, OSError):
        runs = suites.plan(suite, profile, seeds, dataset)
        if found := suites.gather_records(runs):
            return runs[0].profile, found
        raise ValueError(f"no finished run of {suite!r}: 'serp run {suite}' first")


def _width() -> int:
    return max(80, shutil.get_terminal_size().columns)


@app.callback()
def _start() -> None:
    """Replace characters that the terminal's encoding cannot show, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
