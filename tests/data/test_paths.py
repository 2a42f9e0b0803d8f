"""Where data sets are looked for: SERP_DATA relative, with ``~``, and wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import papermill
import pytest
from data_helpers import write_h5

from serplib.data import DataError, common, load
from serplib.data.common import data_folder
from serplib.experiments import doctor, runner


@pytest.mark.parametrize("given", ["sets", "./sets", "~/sets"])
def test_serp_data_is_resolved_once(tmp_path, monkeypatch, given):
    """A later change of directory, and a child in another one, find the same folder."""
    write_h5(tmp_path / "sets" / "modelnet40", 16)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(common, "DATASETS", tmp_path / "datasets")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SERP_DATA", given)
    monkeypatch.chdir(tmp_path)
    assert data_folder() == tmp_path / "sets"
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(load("modelnet40", "test", num_points=16)) == 20
    code = "from serplib.data.modelnet import locate; print(locate())"
    child = [sys.executable, "-c", code]
    found = subprocess.run(child, capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.strip() == str(tmp_path / "sets" / "modelnet40")


def test_a_kernel_that_starts_elsewhere_finds_a_path_relative_to_the_project(tmp_path, monkeypatch):
    """JupyterLab was started in the project's folder; its kernels start in ``notebooks/``."""
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    (tmp_path / "sets").mkdir()
    monkeypatch.setattr(common, "DATASETS", tmp_path / "project" / "datasets")
    monkeypatch.setenv("SERP_DATA", "../sets")
    monkeypatch.chdir(tmp_path / "project" / "notebooks")
    assert data_folder() == tmp_path / "sets"


def test_a_serp_data_that_is_no_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "DATASETS", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERP_DATA", "../nowhere")
    with pytest.raises(DataError, match=r"nowhere is not a folder\. Put the set") as error:
        load("modelnet40", "train")
    assert str(tmp_path) in str(error.value)  # a relative path is shown with its directory
    monkeypatch.setenv("SERP_DATA", "")
    assert data_folder() is None


def test_doctor_and_runs_see_the_same_folder(tmp_path, monkeypatch):
    """A run's kernel starts in the project's folder, not where the command was given."""
    (tmp_path / "sets").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(
        papermill, "execute_notebook", lambda *a, **k: seen.append(os.environ["SERP_DATA"])
    )
    for given in ("sets", "~/sets"):
        monkeypatch.setenv("SERP_DATA", given)
        runner.execute_notebook("pretrain", tmp_path / "out.ipynb", {})
        assert seen.pop() == str(tmp_path / "sets")
        monkeypatch.setenv("SERP_DATA", given)
        assert doctor._data().state == "ok"
    monkeypatch.setenv("SERP_DATA", "~/nowhere")
    finding = doctor._data()
    assert finding.state == "problem" and f"{tmp_path}/nowhere is no folder" in finding.detail
