"""Built-in point clouds: procedural composites and labelled objects (stands in for section 4.1).

Nothing is downloaded. A shape is a table of parts, a part is one or more *patches* (flat
trapezoids, walls of revolution, pieces of ellipsoids), and points are spread over the patches
evenly by area. Shapes come in chunks of fixed size, each with its own random stream, so that asking
for more shapes keeps the first ones.

Every cloud is centred, scaled and then rounded to the grid of step 2^-11 (see ``to_grid``). On that
grid the squared distance of two points is exact in float32, in whatever order it is summed, and
the last bits in which two processors' sines differ are rounded away (all but one coordinate in some
10^12): neighbours, farthest points and all that follows are the same on every machine.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from serplib.data.common import Clouds
from serplib.data.synthetic.composites import Composites, union_points
from serplib.data.synthetic.objects import CATEGORIES, FAMILIES
from serplib.data.synthetic.surfaces import Parts, sample_parts

GRID = 2.0**-11  # step of the grid that every coordinate lies on
CYCLES = 4  # rounds through the categories in one chunk of objects
CHUNK = 64  # shapes in one chunk of procedural composites
DRAWS = 96  # random numbers at a family's disposal


# ---- public ------------------------------------------------------------------------------------


def procedural(num_shapes: int, num_points: int = 1024, seed: int = 0) -> Tensor:
    """Unlabelled composites for pre-training, after Chen & Cheng (arXiv 2411.17467).

    Each is the union of 1 to 9 ellipsoids, boxes and cylinders with half-axes from U(0.25, 2),
    random rotations and offsets, whose surface is pushed in and out by a smooth height field.
    Points are spread evenly by area, as measured before the height field moves them, and none lies
    inside another primitive.

    Args:
        num_shapes: S, at least 1.
        num_points: N, at least 1.
        seed: any integer.

    Returns:
        ``(S, N, 3)`` float32 on the unit sphere, coordinates multiples of 2^-11.
    """
    return _procedural("procedural", num_shapes, num_points, seed)


def objects(num_shapes: int, num_points: int = 1024, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labelled objects of ``CATEGORIES``, z up, headed as in ModelNet40.

    Every run of ``len(CATEGORIES)`` shapes holds each category once, in a seeded order.

    Args:
        num_shapes: S, at least 1.
        num_points: N, at least 1.
        seed: any integer.

    Returns:
        ``(S, N, 3)`` float32 on the unit sphere, coordinates multiples of 2^-11; ``(S,)`` int64.
    """
    return _objects("objects", num_shapes, num_points, seed)


def procedural_clouds(split: str, num_shapes: int, num_points: int = 1024, seed: int = 0) -> Clouds:
    """``procedural`` as a split, ``"train"`` or ``"test"``; the two never share a random stream."""
    points = _procedural(f"procedural/{_split(split)}", num_shapes, num_points, seed)
    return Clouds("procedural", split, points, None, (), _digest(points))


def objects_clouds(split: str, num_shapes: int, num_points: int = 1024, seed: int = 0) -> Clouds:
    """``objects`` as a split, ``"train"`` or ``"test"``; the two never share a random stream."""
    points, labels = _objects(f"objects/{_split(split)}", num_shapes, num_points, seed)
    return Clouds("objects", split, points, labels, CATEGORIES, _digest(points))


def to_grid(points: np.ndarray) -> np.ndarray:
    """Centre clouds on their mean, scale to the unit sphere and round to multiples of 2^-11.

    The farthest point is put at radius 1 - 2^-11, so that rounding takes none out of the sphere:
    squared distances are then at most 4, that is 2^24 steps of 2^-22, all exact in float32.

    Args:
        points: ``(3, S, N)`` float64. A cloud whose points are all equal becomes zeros.

    Returns:
        ``(S, N, 3)`` float32.
    """
    points = points - points.mean(-1, keepdims=True)  # (3, S, N)
    radius = np.sqrt((points[0] ** 2 + points[1] ** 2 + points[2] ** 2).max(-1))[:, None]  # (S, 1)
    points *= (1 / GRID - 1) / np.maximum(radius, 1e-12)
    grid = np.rint(points) * GRID + 0.0  # no negative zeros
    return np.ascontiguousarray(grid.transpose(1, 2, 0), np.float32)  # (S, N, 3)


# ---- chunks and random streams -----------------------------------------------------------------


def _stream(name: str, seed: int, chunk: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{name}/{seed}/{chunk}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def _split(split: str) -> str:
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: give 'train' or 'test'")
    return split


def _digest(points: Tensor) -> str:
    return hashlib.sha256(points.numpy().tobytes()).hexdigest()


def _check(num_shapes: int, num_points: int) -> None:
    for name, value in (("num_shapes", num_shapes), ("num_points", num_points)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}: give an integer, 1 or more")


def _objects(name: str, num_shapes: int, num_points: int, seed: int) -> tuple[Tensor, Tensor]:
    _check(num_shapes, num_points)
    size = CYCLES * len(CATEGORIES)
    points = np.empty((num_shapes, num_points, 3), np.float32)
    labels = np.empty(num_shapes, np.int64)
    families = list(FAMILIES.values())
    for start in range(0, num_shapes, size):
        rng = _stream(name, seed, start // size)
        order = np.argsort(rng.random((CYCLES, len(CATEGORIES))), axis=1).ravel()  # (size,)
        rows, turns = [], []
        for shape, (label, draws) in enumerate(zip(order, rng.random((size, DRAWS)).tolist())):
            parts = Parts(shape, draws)
            families[label](parts)
            rows += parts.rows
            turns.append(parts.turn)
        cloud, _ = sample_parts(np.array(rows), size, num_points, rng)  # (3, size, N)
        cloud = to_grid(_quarter_turns(cloud, np.array(turns)))
        stop = min(start + size, num_shapes)
        points[start:stop], labels[start:stop] = cloud[: stop - start], order[: stop - start]
    return torch.from_numpy(points), torch.from_numpy(labels)


def _quarter_turns(points: np.ndarray, turns: np.ndarray) -> np.ndarray:
    cos, sin = np.array([1, 0, -1, 0])[turns, None], np.array([0, 1, 0, -1])[turns, None]  # (S, 1)
    x, y, z = points  # (S, N) each
    return np.stack([cos * x - sin * y, sin * x + cos * y, z])  # (3, S, N)


def _procedural(name: str, num_shapes: int, num_points: int, seed: int) -> Tensor:
    _check(num_shapes, num_points)
    points = np.empty((num_shapes, num_points, 3), np.float32)
    for start in range(0, num_shapes, CHUNK):
        rng = _stream(name, seed, start // CHUNK)
        stop = min(start + CHUNK, num_shapes)
        cloud, _ = union_points(Composites.random(CHUNK, rng), num_points, rng)  # (3, CHUNK, N)
        points[start:stop] = to_grid(cloud)[: stop - start]
    return torch.from_numpy(points)
