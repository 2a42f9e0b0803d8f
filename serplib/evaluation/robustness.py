"""Accuracy of a classifier on corrupted, sparse and rotated clouds (beyond the paper)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from serplib.data.check import up_axis
from serplib.data.common import Clouds, DataError, normalize
from serplib.data.modelnet40_c import corruption_files, locate, read_modelnet40_c
from serplib.evaluation.corruptions import CORRUPTIONS, corrupt, fit_box, rotation_matrix, subset
from serplib.seeding import named_generator
from serplib.validation import expect

GROUPS = {"density": 5, "noise": 5, "transformation": 5}  # sizes, in the order of `CORRUPTIONS`
POINTS = (512, 256, 128, 64)
MILD = ("gaussian", "cutout", "density", "uniform")  # at severity 1 close to clean clouds
# By the start of a data set's name. ScanObjectNN: the axis that PointNeXt's configuration rotates
# about; the built-in shapes are made so.
KNOWN_UP = {"objects": "z", "procedural": "z", "scanobjectnn": "y"}

Predict = Callable[[Tensor], Tensor]  # clouds (S, N', 3) of any N' to classes (S,) int64


def rotated(points: Tensor, about: str, generator: torch.Generator) -> Tensor:
    """Rotate each cloud at random.

    Args:
        points: ``(B, N, 3)``.
        about: the axis ``"x"``, ``"y"`` or ``"z"``, or ``"so3"`` for rotations uniform over SO(3).
        generator: source of all randomness.

    Raises:
        ValueError: another ``about``.
    """
    expect(points, "B N 3")
    if about in ("x", "y", "z"):
        angle = torch.zeros(len(points), 3)
        angle[:, "xyz".index(about)] = torch.rand(len(points), generator=generator) * 2 * math.pi
        return points @ rotation_matrix(angle).mT
    if about == "so3":  # a random unit quaternion (w, x, y, z) is uniform over SO(3)
        q = torch.randn(len(points), 4, generator=generator)
        w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
        rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
        return points @ torch.stack(rows, 1).view(-1, 3, 3).mT
    raise ValueError(f"about is {about!r}, wanted 'x', 'y', 'z' or 'so3'")


def check_up(clouds: Clouds, up: str | None = None) -> str:
    """Return the axis of clouds that points up, after a comparison with what is known of them.

    Args:
        clouds: a data set.
        up: the axis that the caller believes to point up; None to look it up.

    Raises:
        ValueError: ``up`` contradicts the clouds, or is not given and cannot be told from them.
    """
    known = (axis for name, axis in KNOWN_UP.items() if clouds.name.startswith(name))
    found = next(known, None) or up_axis(clouds)
    if up is None and found is None:
        raise ValueError(f"cannot tell which axis of {clouds.name} points up: pass up='y' or 'z'")
    if up is not None and found is not None and up != found:
        raise ValueError(f"up is {up!r}, but in {clouds.name} the axis {found} points up")
    return up or str(found)


def _accuracy(predict: Predict, clouds: Clouds, points: Tensor | None = None) -> float:
    """Measure the accuracy on clouds, or on altered ``points`` with the labels of the clouds."""
    if clouds.labels is None:
        raise ValueError(f"{clouds.name} has no labels to test on")
    predicted = predict(clouds.points if points is None else points)
    return predicted.eq(clouds.labels).double().mean().item()


def robustness(
    predict: Predict,
    test: Clouds,
    seed: int,
    severities: Iterable[int] = (1, 2, 3, 4, 5),
    up: str | None = None,
) -> dict[str, float]:
    """Measure the accuracy of a classifier on test clouds altered by `evaluation.corruptions`.

    Args:
        predict: maps clouds ``(S, N', 3)`` of any N' to classes ``(S,)`` int64.
        test: the labelled clean test clouds.
        seed: of everything random; use one seed for all classifiers that are compared.
        severities: of the corruptions, 1 to 5.
        up: see `check_up`.

    Returns:
        Accuracies, 0 to 1: ``clean``; ``clean_in_box``, clean clouds in the frame of most
        corruptions (`corruptions.fit_box`); ``<corruption>_<severity>``; ``points_<n>``, n random
        points of each cloud; ``rotated_z``, rotated about the axis that points up, whatever its
        name in this data set; ``rotated_so3``.
    """
    up = check_up(test, up)
    result = {"clean": _accuracy(predict, test)}
    result["clean_in_box"] = _accuracy(predict, test, fit_box(test.points))
    for name in CORRUPTIONS:
        for severity in severities:
            generator = named_generator(seed, "robustness", name, severity)
            parts = [corrupt(p, name, severity, generator, up) for p in test.points.split(64)]
            result[f"{name}_{severity}"] = _accuracy(predict, test, torch.cat(parts))
    for count in POINTS:
        generator = named_generator(seed, "robustness", "points", count)
        points = normalize(subset(test.points, count, generator))
        result[f"points_{count}"] = _accuracy(predict, test, points)
    for key, about in (("z", up), ("so3", "so3")):
        generator = named_generator(seed, "robustness", key)
        points = rotated(test.points, about, generator)
        result[f"rotated_{key}"] = _accuracy(predict, test, points)
    return result


def modelnet40_c(
    predict: Predict, test: Clouds, severities: Iterable[int] = (1, 2, 3, 4, 5)
) -> dict[str, float]:
    """Measure the accuracy of a classifier on the published files of ModelNet40-C.

    The files are scored against their own ``label.npy``. Two checks refuse files that cannot fit
    the classifier: the axis that points up is that of ``test``, and on the mildest corruptions the
    classifier reaches half of its clean accuracy.

    Args:
        predict: maps clouds ``(S, N', 3)`` of any N' to classes ``(S,)`` int64.
        test: clean test clouds of ModelNet40, of the copy that the classifier was trained on.
        severities: 1 to 5.

    Returns:
        Accuracies, 0 to 1, as ``<corruption>_<severity>``.

    Raises:
        DataError: the files are missing, incomplete or damaged, or a check fails.
    """
    root = locate()
    severities = tuple(severities)
    mild = [(name, 1) for name in MILD]
    rest = [(n, s) for n in CORRUPTIONS for s in severities if (n, s) not in mild]
    present = corruption_files(root)
    if absent := [f"data_{n}_{s}.npy" for n, s in mild + rest if s not in present.get(n, ())]:
        raise DataError(
            f"{root}: {len(absent)} files are missing, the first is {absent[0]}: unpack "
            "ModelNet40-C again"
        )

    def score(pairs: list[tuple[str, int]]) -> dict[str, float]:
        clouds = ((f"{n}_{s}", read_modelnet40_c(root, n, s)) for n, s in pairs)
        return {key: _accuracy(predict, part) for key, part in clouds}

    _check_fit(root, test)
    result = score(mild)
    clean, best = _accuracy(predict, test), max(result.values())
    if best < clean / 2:
        raise DataError(
            f"{root}: the classifier is right on {clean:.0%} of the clean clouds and on at most "
            f"{best:.0%} of {', '.join(MILD)} at severity 1, which are hardly harder: label.npy "
            "does not belong to these clouds, or the classifier was trained on shapes in another "
            "pose. Train and test it on ModelNet40 as in modelnet40_ply_hdf5_2048"
        )
    result |= score(rest)
    return {key: value for key, value in result.items() if int(key[-1]) in severities}


def _check_fit(root: Path, test: Clouds) -> None:
    """Raise a DataError where classes or up axis of ModelNet40-C differ from the test clouds."""
    clouds = read_modelnet40_c(root, MILD[0], 1)
    if clouds.classes != test.classes:
        raise DataError(
            f"{root}: the classes of ModelNet40-C are not the {len(test.classes)} classes of "
            f"{test.name}: test a classifier that was trained on ModelNet40"
        )
    files, own = up_axis(clouds), check_up(test)
    if files != own:
        raise DataError(
            f"{root}: airplanes (by label.npy) are lowest along {files}, in {test.name} {own} "
            "points up: label.npy does not belong to these clouds, or the axes differ. Train and "
            "test on a copy with the axes of ModelNet40-C, modelnet40_ply_hdf5_2048"
        )


def summary(accuracies: dict[str, float]) -> dict[str, float]:
    """Average over all corruptions and over each of `GROUPS`, all severities together."""
    names, means, start = list(CORRUPTIONS), {}, 0
    for group, count in GROUPS.items():
        members = names[start : start + count]
        values = [v for k, v in accuracies.items() if k.rpartition("_")[0] in members]
        means[group] = sum(values) / len(values)
        start += count
    return {"corrupted": sum(means.values()) / len(means)} | means
