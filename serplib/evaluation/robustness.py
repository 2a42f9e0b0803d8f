"""Accuracy of a classifier on corrupted, sparse and rotated clouds (beyond the paper)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from serplib.data.common import Clouds, DataError, find_folder, normalize
from serplib.data.formats import check_points, open_npy
from serplib.evaluation.corruptions import CORRUPTIONS, _subset, corrupt, rotation_matrix
from serplib.seeding import named_generator
from serplib.validation import expect

GROUPS = {"density": 5, "noise": 5, "transformation": 5}  # sizes, in the order of `CORRUPTIONS`
POINTS = (512, 256, 128, 64)
FOLDERS = ("modelnet40_c", "ModelNet40-C", "modelnet40c")


def rotated(points: Tensor, about: str, generator: torch.Generator) -> Tensor:
    """Rotate each cloud at random.

    Args:
        points: ``(B, N, 3)``.
        about: ``"z"``, or ``"so3"`` for rotations uniform over SO(3).
        generator: source of all randomness.

    Raises:
        ValueError: another ``about``.
    """
    expect(points, "B N 3")
    if about == "z":
        angle = torch.zeros(len(points), 3)
        angle[:, 2] = torch.rand(len(points), generator=generator) * 2 * math.pi
        return points @ rotation_matrix(angle).mT
    if about == "so3":  # a random unit quaternion (w, x, y, z) is uniform over SO(3)
        q = torch.randn(len(points), 4, generator=generator)
        w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
        rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
        return points @ torch.stack(rows, 1).view(-1, 3, 3).mT
    raise ValueError(f"about is {about!r}, wanted 'z' or 'so3'")


def modelnet40c(name: str, severity: int, num_shapes: int) -> Tensor | None:
    """Read the published file of a corruption; None where there is none.

    Returns:
        ``(num_shapes, N', 3)`` float32, in the order of ModelNet40's test split.

    Raises:
        DataError: the file is damaged, or holds another number of shapes.
    """
    try:
        path = find_folder("ModelNet40-C", FOLDERS, "modelnet40_c") / f"data_{name}_{severity}.npy"
    except DataError:
        return None
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
    """Measure the accuracy of a classifier on altered test clouds.

    Args:
        predict: maps clouds ``(S, N', 3)`` of any N' to classes ``(S,)`` int64.
        test: the labelled clean test clouds. For all of ModelNet40's the files of ModelNet40-C are
            read if present; otherwise `evaluation.corruptions` are applied.
        seed: of everything random; use one seed for all classifiers that are compared.
        severities: of the corruptions, 1 to 5.

    Returns:
        Accuracies, 0 to 1: ``clean``; ``<corruption>_<severity>``; ``points_<n>``, n random points
        of each cloud; ``rotated_z`` and ``rotated_so3``. ``files`` is the share of corruptions that
        was read from files.
    """

    labels = test.labels
    if labels is None:
        raise ValueError(f"{test.name} has no labels to test on")

    def accuracy(points: Tensor) -> float:
        return predict(points).eq(labels).double().mean().item()

    result = {"clean": accuracy(test.points)}
    from_files = 0
    for name in CORRUPTIONS:
        for severity in severities:
            generator = named_generator(seed, "robustness", name, severity)
            public = test.name == "modelnet40" and len(test) == 2468
            clouds = modelnet40c(name, severity, len(test)) if public else None
            from_files += clouds is not None
            if clouds is None:
                parts = test.points.split(64)
                clouds = torch.cat([corrupt(part, name, severity, generator) for part in parts])
            result[f"{name}_{severity}"] = accuracy(clouds)
    for count in POINTS:
        generator = named_generator(seed, "robustness", "points", count)
        subset = _subset(test.points, count, generator)
        result[f"points_{count}"] = accuracy(normalize(subset))
    for about in ("z", "so3"):
        generator = named_generator(seed, "robustness", about)
        result[f"rotated_{about}"] = accuracy(rotated(test.points, about, generator))
    return result | {"files": from_files / (len(CORRUPTIONS) * len(severities))}


def summary(accuracies: dict[str, float]) -> dict[str, float]:
    """Average over all corruptions and over each of `GROUPS`, all severities together."""
    names, means, start = list(CORRUPTIONS), {}, 0
    for group, count in GROUPS.items():
        members = names[start : start + count]
        values = [v for k, v in accuracies.items() if k.rpartition("_")[0] in members]
        means[group] = sum(values) / len(values)
        start += count
    return {"corrupted": sum(means.values()) / len(means)} | means
