"""Runs over two processes that executed notebooks launch (gloo), and GPUs for workers."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import distributed
import nbformat
import pytest
import torch
from safetensors.torch import load_file
from test_suites import ROOT, TINY, changed, write_suite
from typer.testing import CliRunner

from serplib.experiments import (
    cli,
    launcher,
    pipelines,
    records,
    runner,
    status,
    suites,
    workload,
)  # fmt: skip

LINEAR = {"finetune.freeze": True, "finetune.head_widths": []}  # no BatchNorm learns, no dropout
TUNED = TINY["runs"]["scratch"] | {"changes": {**LINEAR, "finetune.optim.epochs": 2}}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose suite trains a linear classifier on two processes."""
    shutil.copytree(ROOT / "notebooks" / "experiments", tmp_path / "notebooks" / "experiments")
    monkeypatch.setenv("SERP_ROOT", str(tmp_path))
    write_suite(tmp_path, TINY | {"runs": {"tuned": TUNED | {"processes": 2}}})
    return tmp_path


def test_an_executed_notebook_on_two_processes_gives_the_results_of_one(project):
    (run,) = suites.plan("tiny", seeds=1)
    board = status.Board([run])
    outcome = runner.run_one(run, threads=2)
    assert outcome["state"] == "done", outcome
    two = records.read_json(run.folder / "record.json")
    assert two["parameters"]["processes"] == 2 and two["environment"]["threads"] == 1
    assert two["run"]["hash"] == run.hash
    assert board._history(run) == two["history"], "the status page reads the main process"
    alone = run.parameters | {"folder": str(project / "alone"), "processes": 1}
    one = pipelines.finetune(**alone).record
    assert "processes" not in one["parameters"]
    for ours, theirs in zip(two["history"], one["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert two["metrics"]["test"]["accuracy"] == one["metrics"]["test"]["accuracy"]
    weights = [load_file(folder / "classifier.safetensors")
               for folder in (run.folder, project / "alone")]  # fmt: skip
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, rtol=1e-3, atol=1e-4)


def test_an_error_of_a_process_is_that_of_the_notebook(project):
    (run,) = suites.plan("tiny", seeds=1)
    run.parameters["changes"]["finetune.optim.batch_size"] = 15
    outcome = runner.run_one(run, threads=1)
    assert outcome["state"] == "failed"
    assert outcome["message"].startswith("RuntimeError: process ")
    assert "of 2: ValueError: 2 processes for batches of 15: wanted" in outcome["message"]
    cells = nbformat.read(run.folder / "notebook.ipynb", 4).cells
    (error,) = [o for c in cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert error.evalue == outcome["message"].removeprefix("RuntimeError: ")


def children(text: str) -> list[Path]:
    """Return the processes whose command line contains a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent] if text in path.read_text().replace("\0", " ") else []
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks into /proc")
@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_no_process_outlives_an_interrupted_or_killed_caller(how, tmp_path):
    """Interrupted, it tells the processes; killed, their standard input closes."""
    folder = tmp_path / "run"
    given = {"model": "pointnet", "folder": str(folder), "train_shapes": 32, "valid_shapes": 4,
             "changes": {"pretrain_pointnet.epochs": 10**6}}  # fmt: skip
    code = (
        f"from serplib.experiments import pipelines; pipelines.pretrain(**{given!r}, processes=2)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {code}"
    caller = subprocess.Popen([sys.executable, "-c", code], env=environment,
                              stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        until = time.monotonic() + 240
        while not list(folder.glob("checkpoint/step-*")):
            assert time.monotonic() < until and caller.poll() is None
            time.sleep(0.2)
        assert len(children(f"{tmp_path}/serp-")) == 3, "the launcher and its two processes"
        caller.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
        caller.wait(60)
    finally:
        caller.kill()
    until = time.monotonic() + 30
    while children(f"{tmp_path}/serp-"):
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_killed_process_is_named(tmp_path, monkeypatch):
    """As by the system where memory runs out: it leaves no error of its own."""
    said = "W1 closing signal SIGTERM\nE1 failed (exitcode: -9) local_rank: 0 (pid: 7)\n"
    monkeypatch.setattr(launcher, "_run", lambda *_: (1, said))
    with pytest.raises(RuntimeError, match=r"one of 2 processes ended: exit code -9 \(killed"):
        launcher.call("pretrain", {"folder": str(tmp_path)}, 2)


def test_a_number_that_does_not_fit_the_gpus_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "_run", lambda *_: pytest.fail("started"))
    with pytest.raises(ValueError, match="processes is 0, wanted at least 1"):
        pipelines.pretrain(processes=0, folder=str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="processes is 3, wanted 1 to 2, the number of GPUs"):
        pipelines.pretrain(processes=3, folder=str(tmp_path))


@pytest.mark.parametrize(
    ("gpus", "visible", "processes", "workers", "shared"),
    [
        (0, None, 1, None, (8, 1, None)),
        (0, None, 2, None, (4, 2, None)),
        (0, None, 16, None, (1, 8, None)),
        (0, None, 2, 3, (3, 2, None)),
        (1, None, 1, None, (1, 8, ["0"])),
        (4, None, 1, None, (4, 2, ["0", "1", "2", "3"])),
        (4, None, 2, None, (2, 4, ["0,1", "2,3"])),
        (4, None, 3, None, (1, 8, ["0,1,2"])),
        (4, None, 2, 4, (4, 2, ["0,1", "2,3"])),  # two runs on each pair
        (2, "5,7", 1, None, (2, 4, ["5", "7"])),
    ],
)
def test_workers_share_cores_and_gpus(
    project, monkeypatch, gpus, visible, processes, workers, shared
):
    monkeypatch.setattr("dask.system.CPU_COUNT", 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    runs = suites.plan("tiny", seeds=20, processes=processes)
    assert runner._shares(runs, workers, local=True) == shared
    assert runner._shares(runs, workers, local=False) == (*shared[:2], None)


def test_a_kernel_sees_the_gpus_of_its_worker_alone(project, monkeypatch):
    seen = []
    monkeypatch.setattr(distributed, "get_worker", lambda: SimpleNamespace(name=3))
    monkeypatch.setattr(runner, "execute_notebook", lambda *a, **variables: seen.append(variables))
    runner.run_one(suites.plan("tiny")[0], 1, gpus=["0,1", "2,3"])
    assert seen[0]["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_more_processes_than_gpus_exit_with_2_and_one_line(project, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    done = CliRunner().invoke(cli.app, ["run", "tiny"])
    assert done.exit_code == 2, done.output
    lines = [line for line in done.stderr.splitlines() if line.startswith("serp: ")]
    assert lines == ["serp: processes is 2, but the number of GPUs is 1"]


def test_the_number_of_processes_leaves_the_hash_and_the_command_overrides_it(project):
    write_suite(project, TINY)
    plain = suites.plan("tiny")
    write_suite(project, changed(pre={"processes": 4}))
    several = suites.plan("tiny")
    assert [run.hash for run in several] == [run.hash for run in plain]
    assert [run.parameters.get("processes") for run in several[:3]] == [4, None, None]
    assert {run.parameters["processes"] for run in suites.plan("tiny", processes=2)} == {2}
    done = CliRunner().invoke(cli.app, ["run", "tiny", "--processes", "0"])
    assert done.exit_code == 2
    assert done.stderr.splitlines() == ["serp: processes is 0, wanted >= 1"]


def test_processes_that_cannot_share_a_batch_are_refused_before_anything_runs(project):
    write_suite(project, TINY)
    for number in ("3", "999"):
        done = CliRunner().invoke(cli.app, ["run", "tiny", "--processes", number])
        assert done.exit_code == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"serp: run 'pre': {number} processes cannot share a batch of 8 ")
        assert line.endswith("change --processes or pretrain_pointnet.batch_size")
    assert not (project / "runs").exists()
    workload.require_equal_shares(suites.plan("tiny", processes=2))
    workload.require_equal_shares(suites.plan("quick", processes=3, smoke=True))


def test_a_smoke_run_has_a_batch_that_its_processes_can_share(project):
    for processes in (2, 3, 8):
        for run in suites.plan("quick", seeds=1, smoke=True, processes=processes):
            if "processes" in run.parameters:
                changes = run.parameters["changes"]
                sizes = {changes[key] for key in changes if key.endswith("batch_size")}
                (size,) = sizes
                assert size % processes == 0 and size >= 2 * processes
                assert run.parameters["train_shapes"] >= size
