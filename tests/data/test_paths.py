"""Where data sets are looked for: SERP_DATA relative, with ``~``, and wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from data_helpers import write_h5

from serplib.data import DataError, common, load
from serplib.data.common import data_folder


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


def test_a_serp_data_that_is_no_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "DATASETS", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERP_DATA", "../nowhere")
    with pytest.raises(DataError, match=r"nowhere is not a folder\. Put the set") as error:
        load("modelnet40", "train")
    assert str(tmp_path) in str(error.value)  # a relative path is shown with its directory
    monkeypatch.setenv("SERP_DATA", "")
    assert data_folder() is None
