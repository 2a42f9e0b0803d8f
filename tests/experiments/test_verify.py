"""`serp verify`: a run of ours agrees with our records, a spoiled one does not."""

import copy
import random
import statistics

import pytest
from scipy import stats
from test_suites import project, write_suite  # noqa: F401 - project is a fixture
from typer.testing import CliRunner

from serplib.experiments import cli, records, suites, verify

SUITES = [
    "short-laptop",
    "short-pointnet-laptop",
    "fewshot-laptop",
    "bottlenecks-strong",
    "pretext-quick",
]


def halves(name):
    """The committed records of a suite: seeds 0 to 2 as ours, the others as the reader's."""
    found = records.read_suite(name)["records"]
    first = [r for r in found if r["parameters"]["seed"] < 3]
    return [r for r in found if r["parameters"]["seed"] >= 3], first


def spoiled(found, run, points):
    """The same records; one variant's classifier is worse by so many points."""
    found = copy.deepcopy(found)
    for record in found:
        if record["run"]["name"] == run:
            record["metrics"]["test"]["accuracy"] -= points / 100
    return found


@pytest.mark.parametrize("name", SUITES)
def test_further_seeds_of_ours_agree(name):
    result = verify.compare(*halves(name))
    assert result.agrees, result.table
    assert len(result.table) >= 5


@pytest.mark.parametrize("name", SUITES)
def test_the_very_same_records_agree_with_p_1(name):
    found = records.read_suite(name)["records"]
    result = verify.compare(found, found)
    assert result.agrees and set(result.table["p"]) == {"1.000"} and not result.notes


def test_a_spoiled_run_differs_and_the_others_do_not():
    found = records.read_suite("short-laptop")["records"]
    yours = [r for r in found if r["parameters"]["seed"] < 2]
    result = verify.compare(spoiled(yours, "all-serp", 8), found)
    differing = result.table[result.table["result"] == "differs"]
    assert not result.agrees and differing["variant"].tolist() == ["SeRP-Transformer"]
    assert differing["measure"].tolist() == ["test accuracy, %"]
    gained = verify.compare(spoiled(yours, "all-serp", -8), found)
    assert not gained.agrees  # better than possible is suspicious as well


def test_p_is_that_of_a_new_mean_under_our_spread():
    """Held against a simulation: p is uniform for values of the same distribution."""
    draw, below = random.Random(0), 0
    for _ in range(400):
        group = [{"run": {"name": "a"}, "metrics": {"test": {"accuracy": draw.gauss(0.8, 0.01)}}}
                 for _ in range(7)]  # fmt: skip
        (row,) = verify._compare_variant(group[:2], group[2:], [])
        below += row["p"] < 0.1
    assert stats.binomtest(below, 400, 0.1).pvalue > 0.01


def test_other_settings_and_data_are_not_compared():
    found = records.read_suite("short-laptop")["records"]
    yours = copy.deepcopy(found)
    for record in yours:
        record["parameters"]["changes"] |= {"finetune.optim.epochs": 9}
    result = verify.compare(yours, found)
    assert result.agrees is None and len(result.notes) >= 10
    assert "changes is {" in result.notes[0]
    other = [r | {"run": r["run"] | {"name": "mine"}} for r in found[:1]]
    assert verify.compare(other, found).notes == ["mine: no committed record"]


def test_one_committed_seed_has_no_spread():
    found = records.read_suite("figure4-laptop")["records"]
    result = verify.compare(found, found)
    assert result.agrees is None and "no spread is known" in result.notes[0]


def test_versions_that_differ_are_named():
    found = records.read_suite("short-pointnet-laptop")["records"]
    yours = copy.deepcopy(found)
    for record in yours:
        record["environment"]["packages"]["torch"] = "9.9"
    (note,) = verify.compare(yours, found).notes
    assert note == "yours and committed: torch is 9.9, not 2.13.0+cpu"


def test_the_command_says_it_with_its_exit_status(project):  # noqa: F811
    """0 for a run of ours, 1 for a spoiled one, 2 where nothing can be compared."""

    def ask():
        return CliRunner().invoke(cli.app, ["verify", "tiny", "--seeds", "2"])

    content = {
        "title": "x", "seeds": [0, 1], "profiles": {"quick": {}},
        "runs": {"all-scratch": {"notebook": "finetune", "preset": "laptop"}},
    }  # fmt: skip
    write_suite(project, content)
    done = ask()
    assert done.exit_code == 2 and len(done.stderr.splitlines()) == 1
    assert "no committed records of tiny-quick: there are bottlenecks-quick, " in done.stderr
    path = records.results_folder() / "tiny-quick.json"
    records.write_json(path, {"records": []})
    done = ask()
    assert done.exit_code == 2 and "no finished run" in done.stderr
    ours = [r for r in halves("short-laptop")[1] if r["run"]["name"] == "all-scratch"]
    for run, record in zip(suites.plan("tiny"), ours):
        finished = record | {"run": record["run"] | {"hash": run.hash}}
        records.write_json(run.folder / "record.json", finished)
    records.write_json(path, {"suite": "tiny", "profile": "quick", "records": ours})
    done = ask()
    assert done.exit_code == 0 and "0 of 1 comparisons differ" in done.output, done.output
    mean = statistics.fmean(100 * r["metrics"]["test"]["accuracy"] for r in ours)
    assert f"{mean:.2f}" in done.output and "Transformer, scratch" in done.output
    records.write_json(path, {"records": spoiled(ours, "all-scratch", 30)})
    done = ask()
    assert done.exit_code == 1 and "1 of 1 comparisons differ" in done.output
    records.write_json(path, {"records": ours[:1]})
    done = ask()
    assert done.exit_code == 2 and "nothing could be compared" in done.stderr
