"""ModelNet40-C: the published layout, and each fault that can go with it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from data_helpers import write_modelnet40_c

from serplib.data import DataError, common, modelnet40_c
from serplib.data.modelnet import CLASSES


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SERP_DATA", str(tmp_path))
    monkeypatch.setattr(common, "DATASETS", tmp_path / "datasets")
    return write_modelnet40_c(tmp_path / "modelnet40_c")


def test_published_files_are_read_with_their_own_labels(root):
    assert modelnet40_c.locate() == root
    assert modelnet40_c.corruption_files(root) == {"background": (1, 5), "distortion_rbf": (1, 5)}
    mild = modelnet40_c.read_modelnet40_c(root, "background", 1)
    strong = modelnet40_c.read_modelnet40_c(root, "background", 5)
    assert mild.points.dtype == torch.float32 and mild.points.shape[1] < strong.points.shape[1]
    assert mild.classes == CLASSES and mild.name == "modelnet40_c/background_1"
    assert np.array_equal(mild.points, np.load(root / "data_background_1.npy"))
    assert np.array_equal(mild.labels, np.load(root / "label.npy")[:, 0])
    assert mild.checksum != strong.checksum
    np.save(root / "label.npy", np.load(root / "label.npy")[::-1, 0])  # (S,) is published too
    flipped = modelnet40_c.read_modelnet40_c(root, "background", 1)
    assert torch.equal(flipped.labels, mild.labels.flip(0)) and flipped.checksum != mild.checksum


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("label.npy", None, "label.npy: file not found. Without it"),
        ("label.npy", np.zeros((79, 1), "u1"), "80 clouds, but label.npy has 79"),
        ("label.npy", np.zeros((80, 2), "u1"), "uint8 (80, 2); expected whole numbers"),
        ("label.npy", np.zeros(80, "f4"), "float32 (80,); expected whole numbers"),
        ("label.npy", np.array(3), "int64 (); expected whole numbers"),
        ("label.npy", np.full(80, 40), "outside 0 to 39"),
        ("label.npy", np.zeros((0, 1), "u1"), "or none"),
        ("label.npy", np.array([{}]), "not a plain .npy array"),
        ("data_background_1.npy", None, "data_background_1.npy: file not found"),
        ("data_background_1.npy", np.zeros((80, 30), "f4"), "expected floats (S, N, 3)"),
        ("data_background_1.npy", np.full((80, 9, 3), np.nan, "f4"), "NaN, Inf"),
    ],
)
def test_faults_are_named(root, name, content, fault):
    (root / name).unlink()
    if content is not None:
        np.save(root / name, content)
    with pytest.raises(DataError, match=re.escape(fault)) as error:
        modelnet40_c.read_modelnet40_c(root, "background", 1)
    assert str(root) in str(error.value) and "serp data check modelnet40_c" in str(error.value)
