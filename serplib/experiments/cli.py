"""``serp``: look at the machine, the data and the experiments from a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

app = typer.Typer(
    help="Build, run and report SeRP and VASP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="The data sets: which there are, are they whole, make one.",
                       no_args_is_help=True)  # fmt: skip
app.add_typer(data_app, name="data")
console = Console()
_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}


def _refuse(error: Exception) -> typer.Exit:
    """One line on stderr and exit status 2: what a wrong request gets, never a traceback."""
    print(f"serp: {error}", file=sys.stderr)
    return typer.Exit(2)


@app.command()
def doctor() -> None:
    """Check this machine; each problem comes with its fix. Exit status 1 if there is one."""
    from serplib.experiments.doctor import examine

    findings = examine()
    for finding in findings:
        fix = f" [dim]-> {escape(finding.fix)}[/]" if finding.fix else ""
        console.print(f"{_MARKS[finding.state]:>8} {finding.what}: {escape(finding.detail)}{fix}")
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


@data_app.command("list")
def data_list() -> None:
    """The data sets the course knows, and where they were found."""
    from serplib.data.check import describe

    table = Table("name", "what", "licence", "found")
    for row in describe():
        where = str(row["where"]) if row["found"] else "not found: see datasets/README.md"
        table.add_row(row["name"], row["what"], row["licence"], escape(where))
    console.print(table)


@data_app.command("check")
def data_check(name: str) -> None:
    """Read a data set whole and compare it with what it should be."""
    from serplib.data import DataError
    from serplib.data.check import check

    try:
        for fact in check(name):
            console.print(f"[green]ok[/] {escape(fact)}")
    except DataError as error:
        raise _refuse(error) from None


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

    try:
        for path in write_h5(name, out, num_shapes, num_points, seed):
            console.print(str(path))
    except (DataError, ValueError, OSError) as error:
        raise _refuse(error) from None


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="a suite, or 'list' for all there are")],
    profile: Annotated[str | None, typer.Option(help="quick, laptop or full")] = None,
    seeds: Annotated[int | None, typer.Option(help="how many seeds, from the front")] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="keep finished runs, or delete them first")
    ] = True,
    workers: Annotated[int | None, typer.Option(help="runs side by side")] = None,
    scheduler: Annotated[str | None, typer.Option(help="address of a Dask scheduler")] = None,
) -> None:
    """Execute a suite with papermill and report it. Exit status 1 if a run failed."""
    import shutil

    from tqdm import tqdm

    from serplib.experiments import report, runner, suites

    if suite == "list":
        for name in suites.known_suites():
            content = suites.load(name)
            console.print(f"{name} ({', '.join(content['profiles'])}): {content['title']}")
        return
    try:
        runs = suites.plan(suite, profile, seeds)
    except suites.SuiteError as error:
        raise _refuse(error) from None
    if not resume:
        for item in runs:
            shutil.rmtree(item.folder, ignore_errors=True)
    todo = sum(not item.finished() for item in runs)
    console.print(
        f"{suite} ({runs[0].profile}): {len(runs)} runs, {len(runs) - todo} finished before"
    )
    bar = tqdm(total=len(runs), unit="run", mininterval=0)

    def tell(outcome: dict) -> None:
        bar.update()
        bar.set_postfix_str(f"{outcome['name']} seed {outcome['seed']} {outcome['state']}")
        if outcome["state"] in ("failed", "not run"):
            bar.write(
                f"{outcome['state']}: {outcome['name']} seed {outcome['seed']}: "
                f"{outcome['message']} ({outcome['notebook']})"
            )

    try:
        outcomes = runner.execute(runs, workers, scheduler, tell)
    except KeyboardInterrupt:
        bar.close()
        print("serp: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        raise typer.Exit(130) from None
    bar.close()
    written = report.write(suite, runs[0].profile, suites.gather_records(runs), outcomes)
    if written["tables"]:
        runner.execute_notebook(
            "report",
            written["path"].with_name("report.ipynb"),
            {"suite": suite, "profile": runs[0].profile, "committed": False},
        )
    report.show(written, console)
    if any(outcome["state"] in ("failed", "not run") for outcome in outcomes):
        raise typer.Exit(1)


@app.command("report")
def report_command(
    suite: str,
    profile: Annotated[str | None, typer.Option(help="quick, laptop or full")] = None,
    seeds: Annotated[int | None, typer.Option(help="how many seeds, from the front")] = None,
    keep: Annotated[
        bool, typer.Option(help="also write the records to results/, to be committed")
    ] = False,
) -> None:
    """Report the finished runs of a suite: HTML, and a table on the terminal."""
    from serplib.experiments import report, suites

    try:
        runs = suites.plan(suite, profile, seeds)
        found = suites.gather_records(runs)
        if not found:
            raise suites.SuiteError(f"no finished run of {suite!r}: 'serp run {suite}' first")
        if keep:
            console.print(f"records kept in {report.keep(suite, runs[0].profile, found)}")
    except (suites.SuiteError, ValueError) as error:
        raise _refuse(error) from None
    report.show(report.write(suite, runs[0].profile, found, []), console)


def main() -> None:
    """Entry point of the command ``serp``."""
    app()
