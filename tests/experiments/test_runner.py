"""The runner on Dask workers: lost workers and equal runs."""

import importlib
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from typer.testing import CliRunner

from serplib.experiments import cli, runner, suites, workers

ROOT = Path(__file__).parents[2]


def in_place_of_a_run(run, threads, parent=None, share=True, gpus=None):
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


def test_a_module_is_absent_for_one_block_and_a_loaded_one_stays():
    with runner._absent("not_imported_yet"), pytest.raises(ImportError):
        importlib.import_module("not_imported_yet")
    assert "not_imported_yet" not in sys.modules
    with runner._absent("json"):
        assert sys.modules["json"] is json
    assert sys.modules["json"] is json


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


def test_a_running_scheduler_is_told_of_the_retries_and_equal_runs_are_all_awaited(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        outcomes = runner.execute(runs := plan(tmp_path), scheduler=cluster.scheduler_address,
                                  retries=5)  # fmt: skip
        assert cluster.scheduler.allowed_failures == 5
    assert sorted(outcome["name"] for outcome in outcomes) == ["one", "two"]
    assert times(runs) == [1, 1]


@pytest.fixture(scope="module")
def address():
    """The address of a scheduler whose worker is a thread of this process."""
    with LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster:
        with Client(cluster) as client:
            yield client.scheduler.address


@pytest.mark.parametrize("wrong", ["project", "revision", "code", "runs/", "data mine"])
def test_a_worker_with_another_revision_or_data_is_named_before_anything_runs(
    address, tmp_path, monkeypatch, wrong
):
    shutil.copytree(ROOT / "notebooks/experiments", tmp_path / "notebooks/experiments")
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    monkeypatch.setenv("SERP_DATA", str(tmp_path / "data"))
    for split in ("train", "test"):
        (folder := tmp_path / "data" / "mine" / "box" / split).mkdir(parents=True)
        np.save(folder / "a.npy", np.random.default_rng(0).normal(size=(1100, 3)))
    kept = suites.plan("quick", seeds=1, dataset="mine")[0].folder / "checkpoint"
    kept.mkdir(parents=True)
    asked = []

    def answer(client, function, *arguments, **options):
        (worker,) = client.scheduler_info()["workers"]
        asked.append(function(*arguments))
        return {worker: asked[0] | {wrong: "another"}}

    monkeypatch.setattr(Client, "run", answer)
    words = ["run", "quick", "--seeds", "1", "--dataset", "mine", "--scheduler", address, "--fresh"]
    done = CliRunner().invoke(cli.app, words)
    lines = [line for line in done.stderr.splitlines() if line.startswith("serp: ")]
    assert done.exit_code == 2 and len(lines) == 1, done.output
    assert f"{wrong} is 'another', here '{asked[0][wrong]}'" in lines[0]
    assert kept.exists() and not list((tmp_path / "runs").glob(".shared*"))


def test_a_worker_like_this_process_is_content(address, tmp_path, monkeypatch):
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    with Client(address) as client:
        workers.check(client, plan(tmp_path))


def test_a_worker_without_this_library_is_named(address, tmp_path, monkeypatch):
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    broken = ModuleNotFoundError("No module named\n'serplib'")
    monkeypatch.setattr(Client, "run", lambda self, *a, **k: {"tcp://one": broken})
    with Client(address) as client, pytest.raises(workers.WorkerError) as caught:
        workers.check(client, plan(tmp_path))
    assert "worker tcp://one cannot run" in str(caught.value) and "\n" not in str(caught.value)


def test_an_old_worker_and_a_folder_that_cannot_be_written_are_one_line(
    address, tmp_path, monkeypatch
):
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    runs = plan(tmp_path)
    monkeypatch.setattr(Client, "run", lambda self, *a, **k: {"tcp://one": {}})
    with Client(address) as client:
        with pytest.raises(workers.WorkerError, match="tcp://one: project is None, here"):
            workers.check(client, runs)
        (tmp_path / "runs").rmdir()
        (tmp_path / "runs").write_text("in the way")
        with pytest.raises(workers.WorkerError, match="runs cannot be written"):
            workers.check(client, runs)


def test_the_checksum_sees_names_sizes_and_contents(tmp_path, monkeypatch):
    monkeypatch.setenv("SERP_DATA", str(tmp_path))
    seen = {workers._checksum("mine")}
    assert seen == {"not found"}
    for split in ("train", "test"):
        (folder := tmp_path / "mine" / "box" / split).mkdir(parents=True)
        np.save(folder / "a.npy", np.zeros((8, 3)))
    for change in (
        lambda: None,
        lambda: np.save(folder / "a.npy", np.ones((8, 3))),
        lambda: np.save(folder / "a.npy", np.ones((9, 3))),
        lambda: (folder / "a.npy").rename(folder / "b.npy"),
    ):
        change()
        assert workers._checksum("mine") not in seen
        seen.add(workers._checksum("mine"))
    assert len(seen) == 5
