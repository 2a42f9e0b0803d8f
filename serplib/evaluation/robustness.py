"""What a classifier trained on clean clouds makes of others: corrupted, sparse, turned."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from serplib.data.common import Clouds, DataError, data_root, normalize
from serplib.data.formats import check_points, open_npy
from serplib.evaluation.corruptions import (
    CORRUPTIONS,
    _subset,
    corrupt,
    rotation_matrix,
)
from serplib.seeding import named_generator
from serplib.validation import expect

GROUPS = {"density": 5, "noise": 5, "transformation": 5}  # of `CORRUPTIONS`, in its order
POINTS = (512, 256, 128, 64)
FOLDERS = ("modelnet40_c", "ModelNet40-C", "modelnet40c")


def turned(points: Tensor, about: str, generator: torch.Generator) -> Tensor:
    """Clouds ``(B, N, 3)`` turned at random about ``"z"``, or any way, ``"so3"``."""
    expect(points, "B N 3")
    if about == "z":
        angle = torch.zeros(len(points), 3)
        angle[:, 2] = torch.rand(len(points), generator=generator) * 2 * math.pi
        return points @ rotation_matrix(angle).mT
    if about == "so3":  # the rotation of a random unit quaternion (w, x, y, z): even over SO(3)
        q = torch.randn(len(points), 4, generator=generator)
        w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
        rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
        return points @ torch.stack(rows, 1).view(-1, 3, 3).mT
    raise ValueError(f"about is {about!r}, wanted 'z' or 'so3'")


def modelnet40c(name: str, severity: int, num_shapes: int) -> Tensor | None:
    """The public file of a corruption, ``data_<name>_<severity>.npy``, or None where there is none.

    Returns:
        ``(num_shapes, N', 3)`` float32, in the order of ModelNet40's test split.

    Raises:
        DataError: the file is damaged, or holds another number of shapes.
    """
    path = data_root(*FOLDERS) / f"data_{name}_{severity}.npy"
    if not path.is_file():
        return None
    values = open_npy(path)
    if values.ndim != 3 or values.shape[2] != 3 or values.dtype.kind != "f":
        raise DataError(f"{path}: {values.dtype} {values.shape}; expected floats (S, N, 3)")
    if len(values) != num_shapes:
        raise DataError(f"{path}: {len(values):,} shapes; expected {num_shapes:,}")
    check_points(values.reshape(-1, 3), path)
    return torch.from_numpy(values.astype("f4"))


def robustness(
    predict: Callable[[Tensor], Tensor],
    test: Clouds,
    seed: int,
    severities: tuple[int, ...] = (1, 2, 3, 4, 5),
) -> dict[str, float]:
    """Accuracies of one classifier on test clouds that are no longer clean.

    Args:
        predict: clouds ``(S, N', 3)`` of any N' to classes ``(S,)`` int64.
        test: the clean test clouds. Where they are all of ModelNet40's and the files of
            ModelNet40-C lie beside, those are read; else `evaluation.corruptions` are applied.
        seed: of everything drawn; the same for all classifiers that are compared.

    Returns:
        ``clean``; ``<corruption>_<severity>``; ``points_<n>``, clouds thinned at random;
        ``rotated_z``, ``rotated_so3``; each 0 to 1. ``files``, the share of corruptions that came
        from files.
    """

    def right(points: Tensor) -> float:
        return (predict(points) == test.labels).double().mean().item()

    found = {"clean": right(test.points)}
    from_files = 0
    for name in CORRUPTIONS:
        for severity in severities:
            own = named_generator(seed, "robustness", name, severity)
            public = test.name == "modelnet40" and len(test) == 2468
            clouds = modelnet40c(name, severity, len(test)) if public else None
            from_files += clouds is not None
            if clouds is None:
                parts = test.points.split(64)
                clouds = torch.cat([corrupt(part, name, severity, own) for part in parts])
            found[f"{name}_{severity}"] = right(clouds)
    for count in POINTS:
        own = named_generator(seed, "robustness", "points", count)
        found[f"points_{count}"] = right(normalize(_subset(test.points, count, own)))
    for about in ("z", "so3"):
        own = named_generator(seed, "robustness", about)
        found[f"rotated_{about}"] = right(turned(test.points, about, own))
    return found | {"files": from_files / (len(CORRUPTIONS) * len(severities))}


def summary(found: dict[str, float]) -> dict[str, float]:
    """Means over all corruptions, and over each group, severities together."""
    names, means, start = list(CORRUPTIONS), {}, 0
    for group, count in GROUPS.items():
        own = [v for k, v in found.items() if k.rpartition("_")[0] in names[start : start + count]]
        means[group] = sum(own) / len(own)
        start += count
    return {"corrupted": sum(means.values()) / len(means)} | means
