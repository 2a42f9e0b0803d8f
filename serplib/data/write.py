"""Write built-in shapes as h5 files (``serp data make``)."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from serplib.data import BUILT_IN, load
from serplib.data.common import DataError


def write_h5(name: str, out: Path, num_shapes: int, num_points: int, seed: int) -> list[Path]:
    """Write a built-in set in the layout of ``modelnet40_ply_hdf5_2048``.

    Args:
        name: ``"procedural"`` or ``"objects"``.
        out: a folder that does not exist yet.
        num_shapes: of the training split; the test split has a quarter as many.
        num_points: of each cloud.
        seed: of the shapes.

    Returns:
        The files written: ``ply_data_{train,test}0.h5`` (``data`` (S, N, 3) float32, ``label``
        (S, 1) uint8), the two lists of files, ``shape_names.txt`` and ``made.json``.
    """
    if name not in BUILT_IN:
        raise DataError(f"{name!r} is not built in: 'serp data make' takes procedural or objects")
    if out.exists():
        raise DataError(f"{out} exists: name a new folder, or delete it first")
    out.mkdir(parents=True)
    settings = {"name": name, "num_shapes": num_shapes, "num_points": num_points, "seed": seed}
    texts = {"made.json": json.dumps(settings)}
    for split, count in (("train", num_shapes), ("test", max(num_shapes // 4, 1))):
        clouds = load(name, split, num_shapes=count, num_points=num_points, seed=seed)
        labels = np.zeros(count) if clouds.labels is None else clouds.labels.numpy()
        with h5py.File(out / f"ply_data_{split}0.h5", "w") as file:
            file["data"] = clouds.points.numpy()
            file["label"] = labels.astype(np.uint8)[:, None]
        texts[f"{split}_files.txt"] = f"ply_data_{split}0.h5"
        texts["shape_names.txt"] = "\n".join(clouds.classes or ("shape",))
    for text_file, text in texts.items():
        (out / text_file).write_text(text + "\n")
    return sorted(out.iterdir())
