"""Shapes as tables of parts, and points sampled uniformly on the surfaces of the parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, product

import numpy as np

BOX, BALL, WALL = 0.0, 1.0, 2.0  # kinds of parts
Point = Sequence[float]
ORIGIN = (0, 0, 0)


class Parts:
    """The table of parts of one shape, and the random numbers that its proportions are drawn from.

    Attributes:
        rows: tuples of 16 numbers: shape, kind, three half-axis vectors, offset, two parameters
            (box: ratio of its top to its bottom, in x and y; ball: heights on the unit ball between
            which it is kept; wall of revolution: bottom and top radius).
        turn: quarter turns about z that are applied to the whole shape.
    """

    def __init__(self, shape: int, draws: Sequence[float]) -> None:
        self.shape, self.turn = float(shape), 0
        self.rows: list[tuple[float, ...]] = []
        self._draws = iter(draws)

    def u(self, low: float, high: float) -> float:
        """Draw a number from U(low, high)."""
        return low + (high - low) * next(self._draws)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return next(self._draws) < probability

    def maybe(self, probability: float) -> Parts:
        """Return this table with the given probability, otherwise one whose parts are dropped."""
        return self if self.chance(probability) else Parts(0, ())

    def count(self, low: int, high: int) -> int:
        """Draw an integer from low to high, both included."""
        return low + int(next(self._draws) * (high - low + 1))

    def pick(self, *weights: float) -> int:
        """Draw an index with these weights, which sum to 1."""
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
        """Add a box, its top ``taper`` times its bottom, rotated by ``tilt`` radians about x."""
        (x, y, z), c, s = half, math.cos(tilt), math.sin(tilt)
        self._add(BOX, (x, 0.0, 0.0), (0.0, y * c, y * s), (0.0, -z * s, z * c), at, *taper)

    def pair(self, at: Point, half: Point) -> None:
        """Add a box and its mirror image in x, the image first."""
        self.box((-at[0], *at[1:]), half)
        self.box(at, half)

    def beam(self, start: Point, end: Point, a: Point, b: Point, taper: Point = (1, 1)) -> None:
        """Add a beam between two points, with half-width vectors ``a`` and ``b`` at its start."""
        c = [(e - s) / 2 for s, e in zip(start, end)]
        at = [(e + s) / 2 for s, e in zip(start, end)]
        self._add(BOX, a, b, c, at, *taper)

    def ball(self, at: Point, half: Point, low: float = -1.0, high: float = 1.0) -> None:
        """Add an ellipsoid, or its piece from ``low`` to ``high`` (-1 bottom, 1 top)."""
        x, y, z = half
        self._add(BALL, (x, 0.0, 0.0), (0.0, y, 0.0), (0.0, 0.0, z), at, low, high)

    def tube(self, start: Point, end: Point, radius: float, taper: float = 1.0) -> None:
        """Add a round rod without caps between two points."""
        d = [(e - s) / 2 for s, e in zip(start, end)]
        at = [(e + s) / 2 for s, e in zip(start, end)]
        flat, length = math.hypot(d[0], d[1]), math.hypot(*d)
        a = (-d[1] / flat, d[0] / flat, 0.0) if flat > 1e-9 * length else (1.0, 0.0, 0.0)
        b = [(d[i - 2] * a[i - 1] - d[i - 1] * a[i - 2]) / length for i in range(3)]
        self._add(WALL, a, b, d, at, radius, radius * taper)

    def lathe(
        self, profile: Sequence[Point], at: Point = ORIGIN, scale: Point = (1, 1), axis: int = 2
    ) -> None:
        """Add the surface of revolution of a polyline of (radius, height), about z (2) or y (1)."""
        (sx, sy), up = scale, (0, 2 - axis, axis - 1)
        across = (0, 0, sy) if axis == 1 else (0, sy, 0)
        for (r0, h0), (r1, h1) in pairwise(profile):
            middle = [a + u * (h0 + h1) / 2 for a, u in zip(at, up)]
            self._add(WALL, (sx, 0, 0), across, [u * (h1 - h0) / 2 for u in up], middle, r0, r1)

    def drum(
        self, low: float, high: float, radius: float = 1, scale: Point = (1, 1), at: Point = ORIGIN
    ) -> None:
        """Add a closed cylinder from height ``low`` to ``high``."""
        self.lathe([(0, low), (radius, low), (radius, high), (0, high)], at, scale)

    def slab(self, oval: float, high: float, thick: float, wide: float, deep: float) -> bool:
        """Add a seat or table top at height ``high``: an oval with probability ``oval``, or a box.

        Returns:
            Whether it is an oval.
        """
        if self.chance(oval):
            self.drum(high - thick, high + thick, scale=(wide, deep))
            return True
        self.box((0, 0, high), (wide, deep, thick))
        return False

    def legs(self, x: float, y: float, top: float, thick: float, splay: float, style: int) -> None:
        """Add four legs from (+-x, +-y, top) to the floor: square (0), round (1), tapering (2)."""
        for sx, sy in product((-1, 1), (-1, 1)):
            start, end = (sx * x, sy * y, top), (sx * (x + splay), sy * (y + splay), 0.0)
            if style == 1:
                self.tube(start, end, thick)
            else:
                taper = (0.5, 0.5) if style == 2 else (1, 1)
                self.beam(start, end, (thick, 0, 0), (0, thick, 0), taper)


FAMILIES: dict[str, Callable[[Parts], None]] = {}  # category -> fills the table of a shape


def family(*headings: float) -> Callable[[Callable[[Parts], None]], None]:
    """Make a function the family of objects of its name (decorator).

    The function draws proportions and adds parts, z up, front towards -y. Lengths are relative:
    clouds are scaled later.

    Args:
        headings: probabilities of 0 to 3 quarter turns about z, drawn last; none for no turn.
    """

    def add(build: Callable[[Parts], None]) -> None:
        def fill(parts: Parts) -> None:
            build(parts)
            if headings:
                parts.turn = parts.pick(*headings)

        FAMILIES[build.__name__] = fill

    return add


# ---- sampling -----------------------------------------------------------------------------------
# A point of a part is offset + q @ half-axes, where q lies on a box, on the unit ball or on a wall
# of revolution of height -1 to 1.


def sample_parts(
    parts: np.ndarray, num_shapes: int, num_points: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sample points uniformly by area on the parts of each shape, in random order.

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
    for of in (BOX, BALL, WALL):
        chosen = np.flatnonzero(kind == of)
        if of == BOX:
            values = _on_quads(quads, patch[chosen], rng)
        else:
            values = _on_rounds(rounds, patch[chosen] - flat, rng, of == WALL)
        for plane, coordinate in zip(points, values):
            plane[chosen] = coordinate
    mixed = np.argsort(rng.random(num_points))  # one order for all shapes
    points = points.reshape(3, num_shapes, num_points).take(mixed, -1)
    return points, part[patch].reshape(num_shapes, num_points).take(mixed, -1)


def _along(start: np.ndarray, end: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Map uniform numbers to positions between two widths, in proportion to the area there."""
    root = np.sqrt(start * start + (end * end - start * start) * uniform)
    return uniform * (start + end) / np.maximum(start + root, 1e-300)


def _quads(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut boxes ``(B, 16)`` into six trapezoids each.

    Returns:
        ``(11, 6 B)``: midpoint of an edge, vector to the opposite edge, vector along the edge and
        the two widths; and ``(6 B,)`` areas.
    """
    a, b, c, at = (boxes[:, i : i + 3] for i in (2, 5, 8, 11))  # (B, 3) each
    tx, ty = boxes[:, 14:15], boxes[:, 15:16]  # (B, 1): ratio of the top to the bottom
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


def _on_quads(quads: np.ndarray, index: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Sample a point on each trapezoid in ``index`` ``(n,)``: three arrays ``(n,)``."""
    along, across = rng.random((2, len(index)))
    start, end = quads[9][index], quads[10][index]
    along = _along(start, end, along)
    width = (start + (end - start) * along) * (across - 0.5)
    planes = ((quads[i].take(index) for i in (k, k + 3, k + 6)) for k in range(3))
    return [first + along * way + width * edge for first, way, edge in planes]


def _rounds(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prepare balls and walls ``(R, 16)`` for sampling.

    Half-axes a, b, c stretch an element of area with unit normal n by
    sqrt((b c nx)^2 + (a c ny)^2 + (a b nz)^2).

    Returns:
        ``(20, R)``: the 16 columns, three squared stretches and their bound; and ``(R,)`` areas.
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


def _on_rounds(
    rounds: np.ndarray, index: np.ndarray, rng: np.random.Generator, wall: bool
) -> list[np.ndarray]:
    """Sample a point on each ball, or wall, in ``index`` ``(n,)``: three arrays ``(n,)``.

    Points uniform on the unit ball or wall are accepted in proportion to the stretch of the area.
    """
    low, high = rounds[14][index], rounds[15][index]
    height = rng.random(len(index))
    height = _along(low, high, height) if wall else low + (high - low) * height
    cos, sin = _cos_sin(len(index), rng)
    todo = np.arange(len(index))
    while len(todo):
        x, y, z, bound = (rounds[i].take(index[todo]) for i in (16, 17, 18, 19))
        across = y + (x - y) * cos[todo] ** 2
        stretch = across + (z if wall else (z - across) * height[todo] ** 2)
        todo = todo[rng.random(len(todo)) ** 2 * bound > stretch]
        cos[todo], sin[todo] = _cos_sin(len(todo), rng)
        if not wall:
            height[todo] = low[todo] + (high[todo] - low[todo]) * rng.random(len(todo))
    radius = low + (high - low) * height if wall else np.sqrt(np.maximum(1 - height * height, 0))
    x, y, z = radius * cos, radius * sin, 2 * height - 1 if wall else height
    planes = ((rounds[i + k].take(index) for i in (2, 5, 8, 11)) for k in range(3))
    return [x * a + y * b + z * c + at for a, b, c, at in planes]


def _cos_sin(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw angles, uniform over the circle: their cosines and sines, ``(size,)`` each."""
    phi = 2 * math.pi * rng.random(size)
    return np.cos(phi), np.sin(phi)
