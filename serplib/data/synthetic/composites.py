"""Random composites of primitives, and points on the surface of their union."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from serplib.data.synthetic.surfaces import BALL, BOX, WALL, sample_parts

MAX_PRIMITIVES = 9
MAX_AMPLITUDE = 0.06  # of each of the two waves of a height field


@dataclass(frozen=True)
class Composites:
    """S composites of up to P = 9 primitives, stored with components first.

    Attributes:
        count: ``(S,)`` int64, how many of the P places are in use.
        kind: ``(S, P)`` int64, 0 box, 1 ellipsoid, 2 cylinder.
        axes: ``(3, 3, S, P)``, three half-axis vectors.
        offset: ``(3, S, P)``, the centres.
        waves: ``(2, 3, S, 1)``, wave vectors of the height field.
        phase: ``(2, S, P)``, phases of the waves.
        amplitude: ``(S, P)``, of the waves, relative to the primitive's size.
    """

    count: np.ndarray
    kind: np.ndarray
    axes: np.ndarray
    offset: np.ndarray
    waves: np.ndarray
    phase: np.ndarray
    amplitude: np.ndarray

    @classmethod
    def random(cls, num_shapes: int, rng: np.random.Generator) -> Composites:
        """Draw 1 to 9 primitives a shape: half-axes from U(0.25, 2), rotations and offsets."""
        size = (num_shapes, MAX_PRIMITIVES)
        return cls(
            count=1 + (rng.random(num_shapes) * MAX_PRIMITIVES).astype(np.int64),
            kind=(rng.random(size) * 3).astype(np.int64),
            axes=(0.25 + 1.75 * rng.random((3, 1, *size))) * _rotations(rng.random((3, *size))),
            offset=3.0 * rng.random((3, *size)) - 1.5,
            waves=1.6 * rng.random((2, 3, num_shapes, 1)) - 0.8,
            phase=rng.random((2, *size)),
            amplitude=MAX_AMPLITUDE * rng.random(size),
        )

    def rows(self, index: np.ndarray | slice) -> Composites:
        """Return the composites at ``index`` (int64 indices, or a slice)."""
        planes = {f.name: getattr(self, f.name)[..., index, :] for f in fields(self)[1:]}
        return Composites(count=self.count[index], **planes)

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the table that ``sample_parts`` takes, ``(R, 16)``, and each row's place (R,)."""
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

    def height(self, local: np.ndarray, shape: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Evaluate the height field; a primitive is scaled by 1 + height.

        Args:
            local: ``(3, ...)``, points relative to the centre of their primitive. Only their
                direction counts.
            shape: int64, broadcast to ``...``, with ``place`` the primitive of each point.
            place: the same.

        Returns:
            ``(...)``: two waves, each of parabolas from -1 to 1 of period 1, cheaper than sines.
        """
        x, y, z = local / np.sqrt(local[0] ** 2 + local[1] ** 2 + local[2] ** 2)
        height = np.zeros_like(x)
        flat = shape * MAX_PRIMITIVES + place  # take() is faster with one index than with two
        for (p, q, r), phase in zip(self.waves[..., 0], self.phase):
            wave = p[shape] * x + q[shape] * y + r[shape] * z + phase.take(flat)
            wave -= np.rint(wave)
            height += wave * (0.5 - np.abs(wave))
        return height * (16 * self.amplitude.take(flat))

    def sample(self, num_points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sample points ``(3, S, N)`` on the displaced primitives, and their places ``(S, N)``."""
        parts, place = self.parts()
        points, part = sample_parts(parts, len(self.count), num_points, rng)  # (3, S, N), (S, N)
        place = place[part]  # (S, N)
        shape = np.arange(len(place))[:, None]  # (S, 1)
        flat = shape * MAX_PRIMITIVES + place  # (S, N)
        at = np.stack([plane.take(flat) for plane in self.offset])  # (3, S, N)
        local = points - at
        return local * (self.height(local, shape, place) + 1) + at, place

    def inside(self, points: np.ndarray, place: int) -> np.ndarray:
        """Tell which points ``(3, S, N)`` lie strictly inside a primitive: ``(S, N)`` bool."""
        at, axes = self.offset[:, :, place, None], self.axes[:, :, :, place, None]  # (.., S, 1)
        x, y, z = points - at  # (S, N) each
        u, v, w = axes / (axes**2).sum(1, keepdims=True)  # (3, S, 1) each
        u, v, w = ((k[0] * x + k[1] * y + k[2] * z) ** 2 for k in (u, v, w))  # (S, N) each
        kind = self.kind[:, place, None]
        across = np.where(kind == 0, np.maximum(u, v), u + v)
        size = np.where(kind == 1, across + w, np.maximum(across, w))  # squared: 1 on the surface
        most = 2 * self.amplitude[:, place, None]
        inside = size < (1 - most) ** 2
        shape, column = np.nonzero(~inside & (size < (1 + most) ** 2))  # here the height decides
        local = np.stack([k[shape, column] for k in (x, y, z)])
        height = self.height(local, shape, np.array(place))
        inside[shape, column] = size[shape, column] < (1 + height) ** 2
        return inside

    def visible(self, points: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Tell which points lie strictly inside no other primitive: ``(S, N)`` bool.

        Args:
            points: ``(3, S, N)``; composites with more primitives come first.
            place: ``(S, N)``, the primitive that each point lies on.
        """
        keep = np.ones(place.shape, bool)
        for other in range(self.count[0] if self.count[0] > 1 else 0):
            rows = slice(0, int((other < self.count).sum()))
            hidden = self.rows(rows).inside(points[:, rows], other)
            keep[rows] &= ~hidden | (place[rows] == other)
        return keep


def _rotations(uniform: np.ndarray) -> np.ndarray:
    """Turn uniform numbers ``(3, ...)`` into uniform rotations ``(3, 3, ...)`` (Shoemake)."""
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
    """Sample points on the surface of unions: those strictly inside no other primitive.

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
    order = np.argsort(-composites.count, kind="stable")  # as `visible` needs them
    while (short := order[filled[order] < num_points]).size:
        some = composites.rows(short)
        num_drawn = num_points // 2 + 1 if filled.any() else 3 * num_points // 2 + 1  # M
        drawn, place = some.sample(num_drawn, rng)  # (3, T, M), (T, M)
        keep = some.visible(drawn, place)  # (T, M)
        rank = np.cumsum(keep, 1) + (filled[short, None] - 1)  # (T, M)
        source = np.flatnonzero(keep & (rank < num_points))
        target = (short[:, None] * num_points + rank).ravel()[source]
        for plane, values in zip(points, drawn):
            plane[target] = values.ravel()[source]
        places[target] = place.ravel()[source]
        filled[short] = np.minimum(rank[:, -1] + 1, num_points)
    return points.reshape(3, num_shapes, num_points), places.reshape(num_shapes, num_points)
