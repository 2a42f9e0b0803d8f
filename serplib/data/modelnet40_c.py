"""ModelNet40-C: ModelNet40's test shapes, corrupted (Sun et al., arXiv 2201.12296).

Its clouds follow the order of PointNet's h5 files (``ply_data_test*.h5``), which another copy of
ModelNet40 need not share. They are therefore labelled by the set's own ``label.npy``, never by the
labels of ModelNet40.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from serplib.data.common import Clouds, DataError, find_folder, sha256
from serplib.data.formats import check_points, open_npy
from serplib.data.modelnet import CLASSES
from serplib.data.prepare import remedy

NAME = "modelnet40_c"
FOLDERS = (NAME, "ModelNet40-C", "modelnet40c")
NUM_SHAPES = 2468


def locate() -> Path:
    """Return the folder of ModelNet40-C; DataError where there is none."""
    root = find_folder("ModelNet40-C", FOLDERS, NAME)
    return next((root / name for name in FOLDERS if (root / name).is_dir()), root)


def corruption_files(root: Path) -> dict[str, tuple[int, ...]]:
    """List the corruptions of a copy, each with its severities: ``data_<name>_<severity>.npy``."""
    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(root.glob("data_*.npy")):
        for name, severity in re.findall(r"^data_([a-z_]+)_([1-5])$", file.stem):
            found[name] = (*found.get(name, ()), int(severity))
    return found


def read_labels(root: Path) -> Tensor:
    """Read ``label.npy``: ``(S,)`` int64 indices into ModelNet40's classes."""
    path = root / "label.npy"
    with remedy(NAME):
        if not path.is_file():
            raise DataError(
                f"{path}: file not found. Without it the clouds cannot be scored, because they do "
                "not follow the order of other copies of ModelNet40"
            )
        values = open_npy(path)
        if values.dtype.kind not in "iu" or values.shape not in ((values.size,), (values.size, 1)):
            raise DataError(
                f"{path}: {values.dtype} {values.shape}; expected whole numbers (S,) or (S, 1)"
            )
        labels = torch.from_numpy(values.reshape(-1).astype("i8"))  # (S,)
        if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(CLASSES):
            raise DataError(f"{path}: holds labels outside 0 to {len(CLASSES) - 1}, or none")
    return labels


def read_modelnet40_c(root: Path, corruption: str, severity: int) -> Clouds:
    """Read the clouds of one corruption at one severity, with the labels that belong to them.

    Args:
        root: the folder of the set.
        corruption: such as ``"gaussian"``; `corruption_files` lists them.
        severity: 1 to 5.

    Returns:
        Clouds in the frame of the file, ``points`` ``(S, N, 3)`` float32, with y up: mostly a
        bounding box of longest side 2 (see `serplib.evaluation.corruptions`). N differs from
        corruption to corruption.

    Raises:
        DataError: a file is missing or damaged, or holds another number of clouds than labels.
    """
    path = root / f"data_{corruption}_{severity}.npy"
    labels = read_labels(root)  # (S,)
    with remedy(NAME):
        values = open_npy(path)
        if values.ndim != 3 or values.shape[2] != 3 or values.dtype.kind != "f":
            raise DataError(f"{path}: {values.dtype} {values.shape}; expected floats (S, N, 3)")
        if len(values) != len(labels):
            raise DataError(f"{path}: {len(values):,} clouds, but label.npy has {len(labels):,}")
        check_points(values.reshape(-1, 3), path)
    points = torch.from_numpy(values.astype("f4"))  # (S, N, 3)
    checksum = sha256([path, root / "label.npy"])
    return Clouds(f"{NAME}/{corruption}_{severity}", "test", points, labels, CLASSES, checksum)
