"""The runner on Dask workers: lost workers and equal runs."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import LocalCluster

from serplib.experiments import runner, suites


def in_place_of_a_run(run, threads, parent=None, share=True):
    """Count an execution; end its process, or fail, as often as the run's parameters say."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / f"{len(list(run.folder.iterdir()))}").touch()
    times = len(list(run.folder.iterdir()))
    if times <= run.parameters["lost"]:
        os._exit(1)
    state = "failed" if run.parameters["fails"] else "done"
    return {"name": run.name, "seed": 0, "state": state, "message": "", "notebook": ""}


def plan(folder: Path, **parameters) -> list[suites.Run]:
    parameters = {"lost": 0, "fails": False} | parameters
    one = suites.Run("s", "p", "one", 0, "n", parameters, None, {}, "ab", folder / "one")
    return [one, replace(one, name="two", folder=folder / "two")]  # the same hash


def times(runs) -> list[int]:
    return [len(list(run.folder.iterdir())) for run in runs]


@pytest.fixture(autouse=True)
def no_notebook(monkeypatch):
    monkeypatch.setattr(runner, "run_one", in_place_of_a_run)


@pytest.mark.parametrize(
    ("retries", "lost", "fails", "state", "executed"),
    [
        (None, 1, False, "done", 2),  # Dask's own setting is 3
        (0, 1, False, "failed", 1),
        (1, 1, False, "done", 2),
        (2, 0, True, "failed", 1),  # a failed notebook is not repeated
    ],
)
def test_retries_are_for_lost_workers_alone(tmp_path, retries, lost, fails, state, executed):
    runs = plan(tmp_path, lost=lost, fails=fails)
    outcomes = runner.execute(runs[:1], workers=1, retries=retries)
    assert [outcome["state"] for outcome in outcomes] == [state]
    assert times(runs[:1]) == [executed]


def test_a_running_scheduler_is_told_of_the_retries_and_equal_runs_are_all_awaited(tmp_path):
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        outcomes = runner.execute(runs := plan(tmp_path), scheduler=cluster.scheduler_address,
                                  retries=5)  # fmt: skip
        assert cluster.scheduler.allowed_failures == 5
    assert sorted(outcome["name"] for outcome in outcomes) == ["one", "two"]
    assert times(runs) == [1, 1]
