"""`serp query`: SQL over the records, read-only, with documented columns."""

import copy
import csv
import json
import re
import shlex

import pytest
from typer.testing import CliRunner

from serplib.experiments import cli, query, records

PAGE = (records.project_root() / "notebooks/experiments/README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^serp (query .+)$", PAGE, re.MULTILINE)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A committed record of seed 0, a local copy of it, one of seed 1, and one of a smoke run."""
    first = next(r for r in records.read_suite("eight-laptop")["records"] if "test" in r["metrics"])
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    content = {"suite": "eight", "profile": "laptop", "records": [first]}
    records.write_json(records.results_folder() / "eight-laptop.json", content)
    records.write_json(records.results_folder() / "code.json", {"a": "b"})
    second = copy.deepcopy(first)
    second["parameters"]["seed"] = 1
    second["run"] |= {"hash": "another", "label": 'ü "x"'}
    second["metrics"]["test"]["accuracy"] = 0.5
    folder = tmp_path / "runs" / "eight-laptop"
    records.write_json(folder / "a-seed0-1" / "record.json", first)
    records.write_json(folder / "a-seed1-2" / "record.json", second)
    from_python = copy.deepcopy(first) | {"run": {}}
    records.write_json(folder / "mine" / "record.json", from_python)
    smoke = tmp_path / "runs" / "eight-laptop-smoke" / "a-seed0-3"
    records.write_json(smoke / "record.json", second)
    return first


def ask(*words: str):
    return CliRunner().invoke(cli.app, ["query", *words])


def test_a_row_a_run_from_both_places(project):
    rows = json.loads(ask("SELECT * FROM runs ORDER BY seed", "--format", "json").stdout)
    assert [(row["seed"], row["source"]) for row in rows] == [(0, "committed"), (1, "local")]
    measured = project["metrics"]["test"]["accuracy"]
    assert [row["test_accuracy"] for row in rows] == pytest.approx([measured, 0.5], abs=1e-14)
    assert list(rows[0])[: len(query.COLUMNS)] == list(query.COLUMNS)
    assert rows[0]["epochs"] == len(project["history"]) and rows[0]["kind"] == "finetune"
    assert json.loads(rows[0]["changes"]) == project["parameters"]["changes"]
    assert rows[0]["part"] == project["run"]["group"] and rows[1]["label"] == 'ü "x"'


def test_csv_is_read_back(project):
    done = ask("SELECT label, seconds FROM runs ORDER BY seed", "--format", "csv")
    head, *rows = csv.reader(done.stdout.splitlines())
    assert head == ["label", "seconds"] and rows[1] == ['ü "x"', str(project["seconds"])]


def test_a_table_of_one_column_and_none_of_no_rows(project):
    done = ask("SELECT label FROM runs WHERE seed = 1")
    assert [line.strip() for line in done.stdout.splitlines()] == ["label", 'ü "x"']
    assert ask("SELECT * FROM runs WHERE seed = 7").stdout == "no rows\n"


def test_every_committed_record_is_a_row_of_its_kind():
    frame = query.table()
    committed = frame[frame["source"] == "committed"]
    every = [r for path in records.results_folder().glob("*.json")
             for r in records.read_json(path).get("records", [])]  # fmt: skip
    runs = {(r["run"]["suite"], r["run"]["hash"], r["finished"]) for r in every}
    assert len(committed) == len(runs) > 700, "a run that two tables show is one row"
    for kind, column in (
        ("finetune", "test_accuracy"),
        ("probe", "probes_rankme"),
        ("leakage", "leakage_leaked"),
        ("pretrain", "restoration_restored"),
        ("figure4", "restoration_restored"),
    ):
        assert committed.loc[committed["kind"] == kind, column].notna().all(), kind
    assert (committed.loc[committed["suite"] == "figure4", "kind"] != "finetune").all()


@pytest.mark.parametrize("words", EXAMPLES)
def test_the_examples_of_the_page_run(words):
    done = CliRunner().invoke(cli.app, shlex.split(words))
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) >= 4 and max(map(len, lines)) <= 80
    assert len(EXAMPLES) == 3


def test_the_page_lists_the_columns():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE))
    assert set(query.COLUMNS) <= rows.keys()


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("", "the query is nothing, wanted one SELECT"),
        ("SELECT 1; SELECT 2", "SELECT and SELECT"),
        ("DROP TABLE runs", "DROP"),
        ("DELETE FROM runs", "DELETE"),
        ("COPY runs TO 'FOLDER/x.csv'", "COPY"),
        ("SET enable_external_access = true", "SET"),
        ("SELEC", "syntax error"),
        ("SELECT accurracy FROM runs", "accurracy"),
        ("SELECT label::INT FROM runs", "convert"),
        ("SELECT * FROM read_csv('FOLDER/secret')", "disabled"),
        ("SELECT * FROM 'FOLDER/secret'", "does not exist"),
    ],
)
def test_what_is_no_select_over_the_records_exits_with_2_and_one_line(project, tmp_path, sql, says):
    (tmp_path / "secret").write_text("a\n1\n")
    done = ask(sql.replace("FOLDER", str(tmp_path)))
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 2 and says in line and line.startswith("serp: ") and not done.stdout
    assert not (tmp_path / "x.csv").exists()


def test_a_damaged_record_is_named(project, tmp_path):
    (path := tmp_path / "runs/eight-laptop/a-seed1-2/record.json").write_text("{")
    done = ask("SELECT 1")
    assert done.exit_code == 2 and str(path) in done.stderr and len(done.stderr.splitlines()) == 1
