"""Parts of a shape, and points spread over their surfaces evenly by area (for ``shapes``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

BOX, BALL, WALL = 0.0, 1.0, 2.0
Point = Sequence[float]


class Parts:
    """The table of parts of one shape, and its random numbers.

    Attributes:
        rows: tuples of 16 numbers: shape, kind, frame (three half-axis vectors), offset, two
            parameters (box: the top's size as a part of the bottom's, in x and y; ball: from which
            to which height of the unit ball; wall: bottom and top radius).
        turn: quarter turns about z that the whole shape is given at the end.
    """

    def __init__(self, shape: int, draws: Sequence[float]) -> None:
        self.shape, self.rows, self.turn = float(shape), [], 0
        self._draws = iter(draws)

    def u(self, low: float, high: float) -> float:
        """A number from U(low, high)."""
        return low + (high - low) * next(self._draws)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return next(self._draws) < probability

    def count(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(next(self._draws) * (high - low + 1))

    def pick(self, *weights: float) -> int:
        """An index, drawn with these weights (which sum to 1)."""
        left = next(self._draws)
        for index, weight in enumerate(weights[:-1]):
            left -= weight
            if left < 0:
                return index
        return len(weights) - 1

    def _add(
        self, kind: float, a: Point, b: Point, c: Point, at: Point, p: float, q: float
    ) -> None:
        self.rows.append((self.shape, kind, *a, *b, *c, *at, p, q))

    def box(self, at: Point, half: Point, taper: Point = (1, 1), tilt: float = 0.0) -> None:
        """A box, its top ``taper`` times its bottom, turned by ``tilt`` about x."""
        (x, y, z), c, s = half, math.cos(tilt), math.sin(tilt)
        self._add(BOX, (x, 0.0, 0.0), (0.0, y * c, y * s), (0.0, -z * s, z * c), at, *taper)

    def beam(self, start: Point, end: Point, a: Point, b: Point, taper: Point = (1, 1)) -> None:
        """A beam between two points with the half-widths ``a`` and ``b`` (vectors) at the start."""
        c = tuple((e - s) / 2 for s, e in zip(start, end))
        at = tuple((e + s) / 2 for s, e in zip(start, end))
        self._add(BOX, a, b, c, at, *taper)

    def ball(self, at: Point, half: Point, low: float = -1.0, high: float = 1.0) -> None:
        """An ellipsoid, or its piece from ``low`` to ``high`` (-1 is the bottom, 1 the top)."""
        x, y, z = half
        self._add(BALL, (x, 0.0, 0.0), (0.0, y, 0.0), (0.0, 0.0, z), at, low, high)

    def tube(self, start: Point, end: Point, radius: float, taper: float = 1.0) -> None:
        """A round rod between two points, without caps."""
        d = tuple((e - s) / 2 for s, e in zip(start, end))
        at = tuple((e + s) / 2 for s, e in zip(start, end))
        flat, length = math.hypot(d[0], d[1]), math.hypot(*d)
        a = (-d[1] / flat, d[0] / flat, 0.0) if flat > 1e-9 * length else (1.0, 0.0, 0.0)
        b = tuple((d[i - 2] * a[i - 1] - d[i - 1] * a[i - 2]) / length for i in range(3))
        self._add(WALL, a, b, d, at, radius, radius * taper)

    def lathe(
        self, profile: Sequence[Point], at: Point = (0, 0, 0), scale: Point = (1, 1), axis: int = 2
    ) -> None:
        """The surface swept by a polyline of (radius, height) about the z (2) or y (1) axis."""
        (sx, sy), (x, y, z) = scale, at
        for (r0, h0), (r1, h1) in pairwise(profile):
            mid, half = (h0 + h1) / 2, (h1 - h0) / 2
            if axis == 2:
                axes, middle = ((sx, 0, 0), (0, sy, 0), (0, 0, half)), (x, y, z + mid)
            else:
                axes, middle = ((sx, 0, 0), (0, 0, sy), (0, half, 0)), (x, y + mid, z)
            self._add(WALL, *axes, middle, r0, r1)

    def legs(self, x: float, y: float, top: float, thick: float, splay: float, style: int) -> None:
        """Four legs at (+-x, +-y) from ``top`` to the floor: square, round or tapering."""
        for sx in (-1, 1):
            for sy in (-1, 1):
                start, end = (sx * x, sy * y, top), (sx * (x + splay), sy * (y + splay), 0.0)
                if style == 1:
                    self.tube(start, end, thick)
                else:
                    taper = (0.5, 0.5) if style == 2 else (1, 1)
                    self.beam(start, end, (thick, 0, 0), (0, thick, 0), taper)


# ---- points spread over parts ------------------------------------------------------------------
# A point of a part is offset + q @ frame, where q lies on a box, on the unit ball or on a wall of
# revolution of height -1 to 1.


def sample_parts(
    parts: np.ndarray, num_shapes: int, num_points: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points spread evenly by area over the surface of each shape's parts, in random order.

    Args:
        parts: ``(P, 16)`` float64, sorted by shape; every shape has a part of some area.
        num_shapes: S.
        num_points: N.
        rng: source of the points.

    Returns:
        ``(3, S, N)`` float64 points and ``(S, N)`` indices of the part that each lies on.
    """
    box = parts[:, 1] == BOX  # (P,)
    quads, quad_area = _quads(parts[box])  # (11, 6 B), (6 B,)
    rounds, round_area = _rounds(parts[~box])  # (20, R), (R,)
    part = np.concatenate([np.repeat(np.flatnonzero(box), 6), np.flatnonzero(~box)])  # (6 B + R,)
    order = np.argsort(part, kind="stable")
    shape = parts[part[order], 0].astype(np.int64)
    area = np.concatenate([quad_area, round_area])[order]
    # The patches of shape s fill the interval [s, s + 1], each with its share of the area.
    filled = np.cumsum(area / np.bincount(shape, area, num_shapes)[shape])
    # One draw in each of N equal strata of that interval.
    strata = np.arange(num_points) + rng.random((num_shapes, num_points))  # (S, N)
    draw = np.arange(num_shapes)[:, None] + strata * ((1 - 1e-12) / num_points)
    patch = order[np.searchsorted(filled, draw.ravel(), side="right").clip(max=len(order) - 1)]

    points = np.empty((3, num_shapes * num_points))
    flat = len(quad_area)
    kind = np.concatenate([np.full(flat, BOX), rounds[1]])[patch]  # (S N,)
    for of, table, first, spread in (
        (BOX, quads, 0, _on_quads),
        (BALL, rounds, flat, _on_balls),
        (WALL, rounds, flat, _on_walls),
    ):
        index = np.flatnonzero(kind == of)
        for plane, values in zip(points, spread(table, patch[index] - first, rng)):
            plane[index] = values
    mixed = np.argsort(rng.random(num_points))  # an order that the shapes share
    points = points.reshape(3, num_shapes, num_points).take(mixed, -1)
    return points, part[patch].reshape(num_shapes, num_points).take(mixed, -1)


def _along(start: np.ndarray, end: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Where between two widths to stand so that area comes out even (inverse of its share)."""
    root = np.sqrt(start * start + (end * end - start * start) * uniform)
    return uniform * (start + end) / np.maximum(start + root, 1e-300)


def _quads(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Six trapezoids per box: middle of an edge, way to the other, edge, two widths; and areas."""
    a, b, c, at = (boxes[:, i : i + 3] for i in (2, 5, 8, 11))  # (B, 3) each
    tx, ty = boxes[:, 14:15], boxes[:, 15:16]  # (B, 1): the top's size as a part of the bottom's
    one = np.ones_like(tx)
    first = [-b - c, c - ty * b, -b - c, b - c, -a - c, a - c]
    way = [2 * b, 2 * ty * b, 2 * c + (1 - ty) * b, 2 * c - (1 - ty) * b]
    way += [2 * c + (1 - tx) * a, 2 * c - (1 - tx) * a]
    edge = [2 * a] * 4 + [2 * b] * 2
    widths = [(one, one), (tx, tx), (one, tx), (one, tx), (one, ty), (one, ty)]
    rows = [np.hstack([f + at, w, e, *k]) for f, w, e, k in zip(first, way, edge, widths)]
    quads = np.ascontiguousarray(np.stack(rows, 1).reshape(-1, 11).T)  # (11, 6 B)
    _, _, _, wx, wy, wz, ex, ey, ez, start, end = quads
    cross = (wy * ez - wz * ey) ** 2 + (wz * ex - wx * ez) ** 2 + (wx * ey - wy * ex) ** 2
    return quads, np.sqrt(cross) * (start + end) / 2


def _on_quads(quads: np.ndarray, which: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    along, across = rng.random((2, len(which)))
    start, end = quads[9][which], quads[10][which]
    along = _along(start, end, along)
    width = (start + (end - start) * along) * (across - 0.5)
    return np.stack(
        [
            quads[i].take(which)
            + along * quads[i + 3].take(which)
            + width * quads[i + 6].take(which)
            for i in range(3)
        ]
    )  # (3, n)


def _rounds(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns of balls and walls: the part's own 16, three squared stretches and their bound; area.

    A frame with half-axes a, b, c stretches an element of area with unit normal n by
    sqrt((b c nx)^2 + (a c ny)^2 + (a b nz)^2).
    """
    a2, b2, c2 = ((parts[:, i : i + 3] ** 2).sum(1) for i in (2, 5, 8))  # (R,) each
    wall, p, q = parts[:, 1] == WALL, parts[:, 14], parts[:, 15]
    # A wall's normal: 2 across the axis, the difference of the radii along it.
    x = np.where(wall, 4.0, 1.0) * b2 * c2
    y = np.where(wall, 4.0, 1.0) * a2 * c2
    z = np.where(wall, (p - q) ** 2, 1.0) * a2 * b2
    bound = np.where(wall, np.maximum(x, y) + z, np.maximum(np.maximum(x, y), z))
    rounds = np.vstack([parts.T, x, y, z, bound])  # (20, R)
    heights = ((np.arange(8) + 0.5) / 8)[:, None, None]  # the mean stretch, over a quadrant
    cosines = [[math.cos(phi) ** 2] for phi in (np.arange(6) + 0.5) * (math.pi / 12)]
    across = y + (x - y) * np.array(cosines)  # (6, R)
    ball = across + (z - across) * (p + (q - p) * heights) ** 2  # (8, 6, R)
    mean = np.zeros(len(parts))
    for share in (np.sqrt(np.where(wall, across + z, ball)) / 48).reshape(48, -1):
        mean += share  # one by one: numpy would choose an order by the table's shape
    return rounds, 2 * math.pi * mean * np.where(wall, (p + q) / 2, q - p)


def _on_walls(rounds: np.ndarray, which: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    start, end = rounds[14][which], rounds[15][which]
    share = _along(start, end, rng.random(len(which)))
    cos, sin = _turn(len(which), rng)
    part, todo = which, slice(None)  # thin the angles, so as to be even on what the frames make
    while len(part):
        x, y, z, bound = (rounds[i].take(part) for i in (16, 17, 18, 19))
        stretch = y + (x - y) * cos[todo] ** 2 + z
        again = np.flatnonzero(rng.random(len(part)) ** 2 * bound > stretch)
        todo = again if part is which else todo[again]
        part = part[again]
        cos[todo], sin[todo] = _turn(len(part), rng)
    radius = start + (end - start) * share
    return _placed(rounds, which, (radius * cos, radius * sin, 2 * share - 1))


def _on_balls(rounds: np.ndarray, which: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    low, span = rounds[14][which], rounds[15][which] - rounds[14][which]
    height = low + span * rng.random(len(which))  # even on the unit ball (Archimedes)
    cos, sin = _turn(len(which), rng)
    part, todo = which, slice(None)
    while len(part):
        x, y, z, bound = (rounds[i].take(part) for i in (16, 17, 18, 19))
        across = y + (x - y) * cos[todo] ** 2
        stretch = across + (z - across) * height[todo] ** 2
        again = np.flatnonzero(rng.random(len(part)) ** 2 * bound > stretch)
        todo = again if part is which else todo[again]
        part = part[again]
        cos[todo], sin[todo] = _turn(len(part), rng)
        height[todo] = low[todo] + span[todo] * rng.random(len(part))
    radius = np.sqrt(np.maximum(1 - height * height, 0))
    return _placed(rounds, which, (radius * cos, radius * sin, height))


def _turn(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    phi = 2 * math.pi * rng.random(size)
    return np.cos(phi), np.sin(phi)


def _placed(
    rounds: np.ndarray, which: np.ndarray, unit: tuple[np.ndarray, ...]
) -> list[np.ndarray]:
    x, y, z = unit
    columns = [[rounds[i + k].take(which) for i in (2, 5, 8, 11)] for k in range(3)]
    return [x * a + y * b + z * c + at for a, b, c, at in columns]  # 3 of (n,)
