"""Built-in point clouds: procedural composites and labelled objects (our stand-in for section 4.1).

Nothing is downloaded. A shape is a table of parts, a part is one or more *patches* (flat trapezoids,
walls of revolution, pieces of ellipsoids), and points are spread over the patches evenly by area.
Shapes come in chunks of fixed size, each with its own random stream, so that asking for more shapes
keeps the first ones.

Every cloud is centred, scaled and then rounded to the grid of step 2^-11 (see ``to_grid``). On that
grid the squared distance of two points is exact in float32, in whatever order it is summed, and
the last bits in which two processors' sines differ are rounded away: neighbours, farthest points and
all that follows from them are the same on every machine.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from serplib.data.common import Clouds
from serplib.data.furniture import FURNITURE
from serplib.data.objects import OBJECTS
from serplib.data.surfaces import BALL, BOX, WALL, Parts, sample_parts

FAMILIES = dict(sorted({**FURNITURE, **OBJECTS}.items()))
CATEGORIES: tuple[str, ...] = tuple(FAMILIES)  # named as in ModelNet40

GRID = 2.0**-11  # step of the grid that every coordinate lies on
CYCLES = 4  # rounds through the categories in one chunk of objects
CHUNK = 32  # shapes in one chunk of procedural composites
DRAWS = 96  # random numbers at a family's disposal
MAX_PRIMITIVES = 9
MAX_SWING = 0.05  # of each of the three waves of a height field
OVERSAMPLING = 2


# ---- public ------------------------------------------------------------------------------------


def procedural(num_shapes: int, num_points: int = 1024, seed: int = 0) -> Tensor:
    """Unlabelled composites for pre-training, after Chen & Cheng (arXiv 2411.17467).

    Each is the union of 1 to 9 ellipsoids, boxes and cylinders with half-axes from U(0.25, 2), random
    rotations and offsets, whose surface is pushed in and out by a smooth height field. Points are
    spread evenly by area (measured before the height field), and none lies inside another primitive.

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
        ``(S, N, 3)`` float32 on the unit sphere, coordinates multiples of 2^-11, and ``(S,)`` int64.
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
        points: ``(S, N, 3)`` float64. A cloud whose points are all equal becomes zeros.

    Returns:
        ``(S, N, 3)`` float32.
    """
    points = points - points.mean(1, keepdims=True)  # (S, N, 3)
    radius = np.sqrt((points**2).sum(-1).max(1))[:, None, None]  # (S, 1, 1)
    points = points * ((1 - GRID) / np.maximum(radius, 1e-12))
    return (np.round(points / GRID) * GRID + 0.0).astype(np.float32)  # + 0.0: no negative zeros


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
        cloud, _ = sample_parts(np.array(rows), size, num_points, rng)  # (size, N, 3)
        cloud = to_grid(_quarter_turns(cloud, np.array(turns)))
        stop = min(start + size, num_shapes)
        points[start:stop], labels[start:stop] = cloud[: stop - start], order[: stop - start]
    return torch.from_numpy(points), torch.from_numpy(labels)


def _quarter_turns(points: np.ndarray, turns: np.ndarray) -> np.ndarray:
    cos, sin = np.array([1, 0, -1, 0])[turns, None], np.array([0, 1, 0, -1])[turns, None]  # (S, 1)
    x, y, z = points[..., 0], points[..., 1], points[..., 2]  # (S, N) each
    return np.stack([cos * x - sin * y, sin * x + cos * y, z], -1)


def _procedural(name: str, num_shapes: int, num_points: int, seed: int) -> Tensor:
    _check(num_shapes, num_points)
    points = np.empty((num_shapes, num_points, 3), np.float32)
    for start in range(0, num_shapes, CHUNK):
        rng = _stream(name, seed, start // CHUNK)
        stop = min(start + CHUNK, num_shapes)
        cloud, _ = union_points(Composites.random(CHUNK, rng), num_points, rng)  # (CHUNK, N, 3)
        points[start:stop] = to_grid(cloud[: stop - start])
    return torch.from_numpy(points)


# ---- procedural composites ---------------------------------------------------------------------


@dataclass(frozen=True)
class Composites:
    """S composites of up to P = 9 primitives (components come first: each is a plane of numbers).

    Attributes:
        count: ``(S,)`` int64, how many of the P places are in use.
        kind: ``(S, P)`` int64, 0 box, 1 ellipsoid, 2 cylinder.
        axes: ``(3, 3, S, P)``, three half-axis vectors.
        offset: ``(3, S, P)``, the centres.
        waves: ``(3, 3, S, 1)``, three directions and frequencies of the height field.
        phase: ``(3, S, P)``, where each wave starts.
        swing: ``(S, P)``, the waves' amplitude as a part of the primitive's size.
    """

    count: np.ndarray
    kind: np.ndarray
    axes: np.ndarray
    offset: np.ndarray
    waves: np.ndarray
    phase: np.ndarray
    swing: np.ndarray

    @classmethod
    def random(cls, num_shapes: int, rng: np.random.Generator) -> Composites:
        """1 to 9 primitives with half-axes from U(0.25, 2), rotations and offsets, all random."""
        size = (num_shapes, MAX_PRIMITIVES)
        return cls(
            count=1 + (rng.random(num_shapes) * MAX_PRIMITIVES).astype(np.int64),
            kind=(rng.random(size) * 3).astype(np.int64),
            axes=(0.25 + 1.75 * rng.random((3, 1, *size))) * _rotations(rng.random((3, *size))),
            offset=3.0 * rng.random((3, *size)) - 1.5,
            waves=1.2 * rng.random((3, 3, num_shapes, 1)) - 0.6,
            phase=rng.random((3, *size)),
            swing=MAX_SWING * rng.random(size),
        )

    def rows(self, which: np.ndarray) -> Composites:
        """The composites at ``which`` (int64 indices)."""
        names = ("axes", "offset", "waves", "phase")
        return Composites(
            self.count[which],
            self.kind[which],
            *(getattr(self, name)[..., which, :] for name in names),
            self.swing[which],
        )

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """The table that ``sample_parts`` takes, ``(R, 16)``, and each row's place, ``(R,)``."""
        shape, place = np.nonzero(np.arange(MAX_PRIMITIVES) < self.count[:, None])  # (Q,) each
        kind = self.kind[shape, place]
        a, b, c = self.axes[:, :, shape, place].transpose(0, 2, 1)  # (Q, 3) each
        at = self.offset[:, shape, place].T  # (Q, 3)
        low, one = np.where(kind == 1, -1.0, 1.0), np.ones(len(kind))
        solid = np.array([BOX, BALL, WALL])[kind]
        body = np.column_stack([shape, solid, a, b, c, at, low, one])  # (Q, 16)
        ends = []  # a cylinder's ends are walls without height
        for sign in (-1, 1):
            ends.append(np.column_stack([shape, solid, a, b, 0 * c, at + sign * c, 0 * one, one]))
        rows = np.concatenate([body, *(end[kind == 2] for end in ends)])
        place = np.concatenate([place, *(place[kind == 2] for _ in ends)])
        order = np.argsort(rows[:, 0], kind="stable")
        return rows[order], place[order]

    def height(self, away: np.ndarray, shape: np.ndarray, place: np.ndarray) -> np.ndarray:
        """The height field in the direction of ``away`` ``(3, ...)`` from the centres.

        A primitive is scaled by 1 + height, which pushes its surface in and out. ``shape`` and
        ``place`` (int64, broadcast to ``...``) name the primitives. The waves are parabolas from
        -1 to 1 of period 1: as smooth as the eye wants, and cheaper than sines.
        """
        x, y, z = away / np.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2)
        height = np.zeros_like(x)
        for (p, q, r), phase in zip(self.waves[..., 0], self.phase):
            turn = p[shape] * x + q[shape] * y + r[shape] * z + phase[shape, place]
            turn -= np.rint(turn)
            height += turn * (0.5 - np.abs(turn))
        return 16 * self.swing[shape, place] * height

    def sample(self, num_points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points ``(3, S, N)`` all over the displaced primitives, and the places ``(S, N)``."""
        parts, place = self.parts()
        points, part = sample_parts(parts, len(self.count), num_points, rng)  # (S, N, 3), (S, N)
        place = place[part]  # (S, N)
        shape = np.arange(len(place))[:, None]  # (S, 1)
        at = np.stack([plane[shape, place] for plane in self.offset])  # (3, S, N)
        away = points.transpose(2, 0, 1) - at
        return at + away * (1 + self.height(away, shape, place)), place

    def inside(self, points: np.ndarray, place: int) -> np.ndarray:
        """Which points ``(3, S, N)`` lie strictly inside the primitive at ``place``: ``(S, N)``."""
        away = points - self.offset[:, :, place, None]  # (3, S, N)
        axes = self.axes[:, :, :, place, None]  # (3, 3, S, 1)
        u, v, w = ((a[0] * away[0] + a[1] * away[1] + a[2] * away[2]) ** 2
                   / (a[0] ** 2 + a[1] ** 2 + a[2] ** 2) ** 2 for a in axes)  # (S, N) each
        kind = self.kind[:, place, None]
        across = np.where(kind == 0, np.maximum(u, v), u + v)
        size = np.where(kind == 1, across + w, np.maximum(across, w))  # squared: 1 on the surface
        swing = 3 * self.swing[:, place, None]
        inside = size < (1 - swing) ** 2
        shape, column = np.nonzero(~inside & (size < (1 + swing) ** 2))  # here the height decides
        height = self.height(away[:, shape, column], shape, np.array(place))
        inside[shape, column] = size[shape, column] < (1 + height) ** 2
        return inside


def _rotations(uniform: np.ndarray) -> np.ndarray:
    """Uniform rotations from uniform numbers (Shoemake): ``(3, ...)`` to ``(3, 3, ...)``."""
    u, v, w = uniform[0], 2 * math.pi * uniform[1], 2 * math.pi * uniform[2]
    a, b = np.sqrt(1 - u) * np.sin(v), np.sqrt(1 - u) * np.cos(v)
    c, d = np.sqrt(u) * np.sin(w), np.sqrt(u) * np.cos(w)
    rows = [1 - 2 * (b * b + c * c), 2 * (a * b - c * d), 2 * (a * c + b * d)]
    rows += [2 * (a * b + c * d), 1 - 2 * (a * a + c * c), 2 * (b * c - a * d)]
    rows += [2 * (a * c - b * d), 2 * (b * c + a * d), 1 - 2 * (a * a + b * b)]
    return np.stack(rows).reshape(3, 3, *u.shape)


def union_points(
    composites: Composites, num_points: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points on the surface of the union: those that no other primitive holds inside.

    Args:
        composites: S composites.
        num_points: N.
        rng: source of the points.

    Returns:
        ``(S, N, 3)`` float64 points, before ``to_grid``, and ``(S, N)`` int64 places: the primitive
        that each point lies on.
    """
    points = np.empty((len(composites.count), num_points, 3))
    places = np.empty(points.shape[:2], np.int64)
    filled = np.zeros(len(points), np.int64)
    while (short := np.flatnonzero(filled < num_points)).size:
        some = composites.rows(short)
        drawn, place = some.sample(OVERSAMPLING * num_points, rng)  # (3, T, M), (T, M)
        keep = np.ones(place.shape, bool)
        for other in range(MAX_PRIMITIVES):
            rows = np.flatnonzero(other < some.count)
            hidden = some.rows(rows).inside(drawn[:, rows], other)
            keep[rows] &= ~hidden | (place[rows] == other)
        rank = np.cumsum(keep, 1) - 1 + filled[short, None]  # (T, M)
        keep &= rank < num_points
        shape = np.broadcast_to(short[:, None], keep.shape)[keep]
        points[shape, rank[keep]] = drawn[:, keep].T
        places[shape, rank[keep]] = place[keep]
        filled[short] += keep.sum(1)
    return points, places
