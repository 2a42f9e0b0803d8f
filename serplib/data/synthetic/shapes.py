"""Built-in point clouds: procedural composites and labelled objects (instead of section 4.1's).

A shape is a table of parts, a part is one or more *patches* (flat trapezoids, walls of revolution,
pieces of ellipsoids), and points are sampled uniformly by area over the patches. Shapes come in
chunks of fixed size, each with its own random stream, so that asking for more shapes keeps the
first ones.

Every cloud is centred, scaled and then rounded to the grid of step 2^-11 (see ``to_grid``). On that
grid the squared distance of two points is exact in float32, in whatever order it is summed, and
the last bits in which two processors' sines differ are rounded away (all but one coordinate in some
10^12): neighbours, farthest points and all that follows are the same on every machine.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from serplib.data.common import Clouds
from serplib.data.synthetic import furniture, objects  # noqa: F401 - they fill FAMILIES
from serplib.data.synthetic.composites import Composites, union_points
from serplib.data.synthetic.surfaces import FAMILIES, Parts, sample_parts

GRID = 2.0**-11  # step of the grid that every coordinate lies on
CYCLES = 4  # rounds through the categories in one chunk of objects
CHUNK = 64  # shapes in one chunk of procedural composites
DRAWS = 96  # random numbers available to a family

# Named as in ModelNet40, whose training shapes their proportions and headings follow; a category's
# label is its place in this order.
CATEGORIES = tuple(sorted(FAMILIES))


def procedural_clouds(split: str, num_shapes: int, num_points: int = 1024, seed: int = 0) -> Clouds:
    """Generate unlabelled composites for pre-training, after Chen & Cheng (arXiv 2411.17467).

    Each is the union of 1 to 9 ellipsoids, boxes and cylinders with half-axes from U(0.25, 2),
    random rotations and offsets, whose surface is displaced by a smooth height field. Points are
    uniform by area, as measured before the displacement, and none lies inside another primitive.

    Args:
        split: ``"train"`` or ``"test"``, which never share a random stream.
        num_shapes: S, at least 1.
        num_points: N, at least 1.
        seed: any integer.

    Returns:
        Clouds whose coordinates are multiples of 2^-11.
    """
    _check(split, num_shapes, num_points)
    points = np.empty((num_shapes, num_points, 3), np.float32)
    for start in range(0, num_shapes, CHUNK):
        rng = _stream(f"procedural/{split}", seed, start // CHUNK)
        stop = min(start + CHUNK, num_shapes)
        cloud, _ = union_points(Composites.random(CHUNK, rng), num_points, rng)  # (3, CHUNK, N)
        points[start:stop] = to_grid(cloud)[: stop - start]
    return Clouds("procedural", split, torch.from_numpy(points), None, (), _digest(points))


def objects_clouds(split: str, num_shapes: int, num_points: int = 1024, seed: int = 0) -> Clouds:
    """Generate labelled objects of ``CATEGORIES``, z up, headed as in ModelNet40.

    Every run of ``len(CATEGORIES)`` shapes holds each category once, in a seeded order. Arguments
    and result as for ``procedural_clouds``.
    """
    _check(split, num_shapes, num_points)
    size = CYCLES * len(CATEGORIES)
    points = np.empty((num_shapes, num_points, 3), np.float32)
    labels = np.empty(num_shapes, np.int64)
    for start in range(0, num_shapes, size):
        rng = _stream(f"objects/{split}", seed, start // size)
        order = np.argsort(rng.random((CYCLES, len(CATEGORIES))), axis=1).ravel()  # (size,)
        rows, turns = [], []
        for shape, (label, draws) in enumerate(zip(order, rng.random((size, DRAWS)).tolist())):
            parts = Parts(shape, draws)
            FAMILIES[CATEGORIES[label]](parts)
            rows += parts.rows
            turns.append(parts.turn)
        cloud, _ = sample_parts(np.array(rows), size, num_points, rng)  # (3, size, N)
        cloud = to_grid(_quarter_turns(cloud, np.array(turns)))
        stop = min(start + size, num_shapes)
        points[start:stop], labels[start:stop] = cloud[: stop - start], order[: stop - start]
    clouds, digest = torch.from_numpy(points), _digest(points)
    return Clouds("objects", split, clouds, torch.from_numpy(labels), CATEGORIES, digest)


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


def _stream(name: str, seed: int, chunk: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{name}/{seed}/{chunk}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def _digest(points: np.ndarray) -> str:
    return hashlib.sha256(points.tobytes()).hexdigest()


def _check(split: str, num_shapes: int, num_points: int) -> None:
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: give 'train' or 'test'")
    for name, value in (("num_shapes", num_shapes), ("num_points", num_points)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}: give an integer, 1 or more")


def _quarter_turns(points: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Rotate clouds ``(3, S, N)`` about z by ``turns`` ``(S,)`` times 90 degrees."""
    cos, sin = np.array([1, 0, -1, 0])[turns, None], np.array([0, 1, 0, -1])[turns, None]  # (S, 1)
    x, y, z = points  # (S, N) each
    return np.stack([cos * x - sin * y, sin * x + cos * y, z])  # (3, S, N)
