"""Random composites of primitives, and points on the surface of their union (for ``shapes``)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from serplib.accel import cpu, openmp
from serplib.data.synthetic.surfaces import BALL, BOX, WALL, sample_parts

MAX_PRIMITIVES = 9
MAX_SWING = 0.06  # of each of the two waves of a height field


@dataclass(frozen=True)
class Composites:
    """S composites of up to P = 9 primitives (components come first: each is a plane of numbers).

    Attributes:
        count: ``(S,)`` int64, how many of the P places are in use.
        kind: ``(S, P)`` int64, 0 box, 1 ellipsoid, 2 cylinder.
        axes: ``(3, 3, S, P)``, three half-axis vectors.
        offset: ``(3, S, P)``, the centres.
        waves: ``(2, 3, S, 1)``, two directions and frequencies of the height field.
        phase: ``(2, S, P)``, where each wave starts.
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
            waves=1.6 * rng.random((2, 3, num_shapes, 1)) - 0.8,
            phase=rng.random((2, *size)),
            swing=MAX_SWING * rng.random(size),
        )

    def rows(self, which: np.ndarray | slice) -> Composites:
        """The composites at ``which`` (int64 indices, or a slice)."""
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
        flat = shape * MAX_PRIMITIVES + place  # one index is sooner looked up than two
        for (p, q, r), phase in zip(self.waves[..., 0], self.phase):
            turn = p[shape] * x  # in place from here on: large temporaries cost more than sums
            turn += q[shape] * y
            turn += r[shape] * z
            turn += phase.take(flat)
            turn -= np.rint(turn)
            height += turn * (0.5 - np.abs(turn))
        height *= 16 * self.swing.take(flat)
        return height

    def sample(self, num_points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points ``(3, S, N)`` all over the displaced primitives, and the places ``(S, N)``."""
        parts, place = self.parts()
        points, part = sample_parts(parts, len(self.count), num_points, rng)  # (3, S, N), (S, N)
        place = place[part]  # (S, N)
        shape = np.arange(len(place))[:, None]  # (S, 1)
        flat = shape * MAX_PRIMITIVES + place  # (S, N)
        at = np.stack([plane.take(flat) for plane in self.offset])  # (3, S, N)
        away = points - at
        height = self.height(away, shape, place)  # (S, N)
        height += 1
        away *= height
        away += at
        return away, place

    def inside(self, points: np.ndarray, place: int) -> np.ndarray:
        """Which points ``(3, S, N)`` lie strictly inside the primitive at ``place``: ``(S, N)``."""
        at, axes = self.offset[:, :, place, None], self.axes[:, :, :, place, None]  # (.., S, 1)
        x, y, z = points - at  # (S, N) each
        u, v, w = axes / (axes**2).sum(1, keepdims=True)  # (3, S, 1) each
        u, v, w = ((k[0] * x + k[1] * y + k[2] * z) ** 2 for k in (u, v, w))  # (S, N) each
        kind = self.kind[:, place, None]
        across = np.where(kind == 0, np.maximum(u, v), u + v)
        size = np.where(kind == 1, across + w, np.maximum(across, w))  # squared: 1 on the surface
        swing = 2 * self.swing[:, place, None]
        inside = size < (1 - swing) ** 2
        shape, column = np.nonzero(~inside & (size < (1 + swing) ** 2))  # here the height decides
        away = np.stack([k[shape, column] for k in (x, y, z)])
        height = self.height(away, shape, np.array(place))
        inside[shape, column] = size[shape, column] < (1 + height) ** 2
        return inside

    def outside(self, points: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Which points ``(3, S, N)`` no other primitive holds strictly inside: ``(S, N)`` bool.

        ``place (S, N)`` names the primitive that each lies on; the fuller composites come first.
        """
        keep = np.ones(place.shape, bool)
        if cpu.AVAILABLE:
            unit = self.axes / (self.axes**2).sum(1, keepdims=True)  # (3, 3, S, P)
            waves = (self.waves[..., 0], self.phase, self.swing)
            _cross_out(points, place, self.count, self.kind, unit, self.offset, *waves, keep)
            return keep
        for other in range(self.count[0] if self.count[0] > 1 else 0):
            rows = slice(0, int((other < self.count).sum()))
            hidden = self.rows(rows).inside(points[:, rows], other)
            keep[rows] &= ~hidden | (place[rows] == other)
        return keep


@openmp.compiled
def _cross_out(points, place, count, kind, unit, offset, waves, phase, swing, keep):
    """`Composites.inside` point by point, in the same steps: the same bits, no temporaries."""
    for s in range(place.shape[0]):
        for j in range(place.shape[1]):
            for other in range(count[s]):
                x = points[0, s, j] - offset[0, s, other]
                y = points[1, s, j] - offset[1, s, other]
                z = points[2, s, j] - offset[2, s, other]
                k = unit[:, :, s, other]
                u = (k[0, 0] * x + k[0, 1] * y + k[0, 2] * z) ** 2
                v = (k[1, 0] * x + k[1, 1] * y + k[1, 2] * z) ** 2
                w = (k[2, 0] * x + k[2, 1] * y + k[2, 2] * z) ** 2
                across = max(u, v) if kind[s, other] == 0 else u + v
                size = across + w if kind[s, other] == 1 else max(across, w)
                most = 2 * swing[s, other]
                if other == place[s, j] or size >= (1 + most) ** 2:
                    continue
                if size >= (1 - most) ** 2:  # here the height decides
                    r = np.sqrt(x**2 + y**2 + z**2)
                    height = 0.0
                    for wave in range(2):
                        a, b, c = waves[wave, 0, s], waves[wave, 1, s], waves[wave, 2, s]
                        turn = a * (x / r) + b * (y / r) + c * (z / r) + phase[wave, s, other]
                        turn -= np.rint(turn)
                        height += turn * (0.5 - abs(turn))
                    if size >= (1 + 16 * swing[s, other] * height) ** 2:
                        continue
                keep[s, j] = False
                break


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
        ``(3, S, N)`` float64 points, before ``to_grid``, and ``(S, N)`` int64 places: the primitive
        that each point lies on.
    """
    num_shapes = len(composites.count)
    points = np.empty((3, num_shapes * num_points))
    places = np.empty(num_shapes * num_points, np.int64)
    filled = np.zeros(num_shapes, np.int64)
    order = np.argsort(-composites.count, kind="stable")  # the fuller composites first
    while (short := order[filled[order] < num_points]).size:
        some = composites.rows(short)
        num_drawn = num_points // 2 + 1 if filled.any() else 3 * num_points // 2 + 1  # M
        drawn, place = some.sample(num_drawn, rng)  # (3, T, M), (T, M)
        keep = some.outside(drawn, place)  # (T, M)
        rank = np.cumsum(keep, 1) + (filled[short, None] - 1)  # (T, M)
        source = np.flatnonzero(keep & (rank < num_points))
        target = (short[:, None] * num_points + rank).ravel()[source]
        for plane, values in zip(points, drawn):
            plane[target] = values.ravel()[source]
        places[target] = place.ravel()[source]
        filled[short] = np.minimum(rank[:, -1] + 1, num_points)
    return points.reshape(3, num_shapes, num_points), places.reshape(num_shapes, num_points)
