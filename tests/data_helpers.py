"""Small copies of the public data sets, in the exact layouts they are passed around in."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from serplib.data import common
from serplib.data.modelnet import CLASSES, CLASSES10
from serplib.data.scanobjectnn import VARIANTS
from serplib.data.shapenet import SYNSETS

CUBE = """OFF
8 6 0
0 0 0
1 0 0
1 1 0
0 1 0
0 0 1
1 0 1
1 1 1
0 1 1
4 0 1 2 3
4 4 5 6 7
4 0 1 5 4
4 1 2 6 5
4 2 3 7 6
4 3 0 4 7
"""


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A folder of data sets where only what the test writes can be found."""
    monkeypatch.setenv("SERP_DATA", str(tmp_path))
    monkeypatch.setattr(common, "DATASETS", tmp_path / "datasets")
    return tmp_path


def cloud(num_points: int, seed: int, dtype: str = "f4") -> np.ndarray:
    """``(N, 3)`` points that are neither centred nor scaled."""
    return (np.random.default_rng(seed).normal(size=(num_points, 3)) * 5 + 7).astype(dtype)


def write_h5_file(path: Path, data, label) -> None:
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = data, label


def write_h5(root: Path, num_points: int = 80, dtype: str = "f4", names=CLASSES) -> Path:
    """modelnet40_ply_hdf5_2048: two training files and one test file, 20 clouds in each."""
    root.mkdir(parents=True)
    for split, numbers in (("train", (0, 1)), ("test", (0,))):
        lines = [f"data/modelnet40_ply_hdf5_2048/ply_data_{split}{n}.h5" for n in numbers]
        (root / f"{split}_files.txt").write_text("\n".join(lines) + "\n")
        for n in numbers:
            data = np.stack([cloud(num_points, 20 * n + i, dtype) for i in range(20)])
            label = (np.arange(20) + 20 * n).astype("u1")[:, None] % len(names)
            write_h5_file(root / f"ply_data_{split}{n}.h5", data, label)
    (root / "shape_names.txt").write_text("\n".join(names) + "\n")
    return root


def write_text(root: Path, num_points: int = 80) -> Path:
    """modelnet40_normal_resampled: one shape of each class in each split."""
    root.mkdir(parents=True)
    (root / "modelnet40_shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    for k, split in enumerate(("train", "test"), 1):
        lines = [f"{name}_{k:04d}" for name in CLASSES]
        (root / f"modelnet40_{split}.txt").write_text("\n".join(lines) + "\n")
        for i, name in enumerate(CLASSES):
            (root / name).mkdir(exist_ok=True)
            values = np.concatenate([cloud(num_points, i), cloud(num_points, i + 1)], 1)  # (N, 6)
            np.savetxt(root / name / f"{name}_{k:04d}.txt", values, "%.6f", delimiter=",")
    return root


def write_tree(root: Path, suffix: str, classes=CLASSES10, num_points: int = 80) -> Path:
    """ModelNet's tree <class>/{train,test}/<class>_0001.<suffix>, a shape in each folder."""
    for i, name in enumerate(classes):
        for k, split in enumerate(("train", "test"), 1):
            folder = root / name / split
            folder.mkdir(parents=True)
            file = folder / f"{name}_{k:04d}.{suffix}"
            if suffix == "off":
                file.write_text(CUBE)
            else:
                np.save(file, cloud(num_points, i))
    return root


def write_shapenet(root: Path, num_points: int = 80, lists: str = "ShapeNet-55") -> Path:
    """ShapeNet55 as Point-BERT lays it out: a shape of each class in each split."""
    (root / "shapenet_pc").mkdir(parents=True)
    (root / lists).mkdir(exist_ok=True)
    for split in ("train", "test"):
        names = [f"{synset}-1a04e3eab45ca15dd86060f189eb{split}.npy" for synset in SYNSETS]
        (root / lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        for i, name in enumerate(names):
            np.save(root / "shapenet_pc" / name, cloud(num_points, i))
    return root


def write_scanobjectnn(root: Path, num_points: int = 80, size: int = 30) -> Path:
    """ScanObjectNN's h5_files: two objects of each class, in each split of each variant."""
    for folder, ending in VARIANTS.values():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for k, split in enumerate(("training", "test")):
            data = np.stack([cloud(num_points, 100 * k + i) for i in range(size)])
            with h5py.File(root / folder / f"{split}_{ending}.h5", "w") as file:
                file["data"], file["label"] = data, (np.arange(size) % 15).astype("i4")
                file["mask"] = np.zeros((size, num_points), "i4") - 1  # there, and not used
    return root


def write_dat(root: Path, num_points: int = 80, protocol: int = 4) -> Path:
    """Point-BERT's ModelNet40: pickled lists of (N, 6) points and of labels, beside the names."""
    root.mkdir(parents=True)
    (root / "modelnet40_shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    for k, split in enumerate(("train", "test")):
        points = [np.tile(cloud(num_points, 40 * k + i), 2) for i in range(40)]  # (N, 6)
        labels = [np.array([i], np.int32) for i in range(40)]
        with open(root / f"modelnet40_{split}_8192pts_fps.dat", "wb") as file:
            pickle.dump([points, labels], file, protocol)
    return root


def write_modelnet40_c(root: Path, size: int = 80) -> Path:
    """ModelNet40-C as published: two of its corruptions, whose clouds differ in size."""
    root.mkdir(parents=True)
    np.save(root / "label.npy", np.arange(size, dtype="u1")[::-1, None] % 40)
    for corruption, sizes in (("background", (65, 96)), ("distortion_rbf", (64, 64))):
        for severity, num_points in zip((1, 5), sizes):
            data = np.stack([cloud(num_points, i) for i in range(size)])  # (S, N, 3)
            np.save(root / f"data_{corruption}_{severity}.npy", data)
    np.save(root / "data_original.npy", data)
    return root
