"""Runs over two processes that executed notebooks launch (gloo), and GPUs for workers."""

import json
import shutil
import time
from pathlib import Path

import nbformat
import pytest
import torch
from safetensors.torch import load_file
from test_suites import ROOT, TINY, write_suite
from typer.testing import CliRunner

from serplib.experiments import cli, kernels, launcher, pipelines, records, runner, status, suites

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
    (run,) = suites.plan("tiny", seeds=1, processes=5)
    assert run.parameters["processes"] == 5
    changed = run.parameters["changes"] | {"finetune.optim.batch_size": 16}
    run.parameters.update(changes=changed, processes=3)
    outcome = runner.run_one(run, threads=1)
    assert outcome["state"] == "failed"
    assert outcome["message"].startswith("RuntimeError: process ")
    assert "of 3: ValueError: 3 processes for batches of 16: wanted" in outcome["message"]
    cells = nbformat.read(run.folder / "notebook.ipynb", 4).cells
    (error,) = [o for c in cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert error.evalue == outcome["message"].removeprefix("RuntimeError: ")
