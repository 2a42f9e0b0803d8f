"""Checkers of the exercises in 01_point_clouds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from serplib.course.exercises.grading import Hint, call, clouds, compare, exercise
from serplib.data.common import normalize
from serplib.seeding import named_generator


@exercise
def same_set(function: Callable[[Tensor, Tensor], bool]) -> None:
    """Whether two clouds hold the same points in any order: ``(N, 3), (N, 3) -> bool``."""
    cloud = clouds("set", 1, 16)[0]
    shuffled = cloud.flip(0).roll(3, 0)
    moved = cloud.clone()
    moved[5] += torch.tensor([0.0, 0.3, 0.0])
    p, q, r = cloud[:3]
    square = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    diagonal = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    cases = [
        (cloud, cloud.clone(), True, "A cloud is the same set as itself, and you say no."),
        (
            cloud,
            shuffled,
            True,
            "You compared point i with point i. A cloud is a set: the same points in another "
            "order are the same cloud.",
        ),
        (cloud, moved, False, "One point of 16 was moved by 0.3, and you say the same set."),
        (
            cloud,
            2 * cloud.mean(0) - cloud,
            False,
            "You compared a summary, such as the sum or the mean. The second cloud is the first "
            "one turned inside out through its centre: same mean, other points.",
        ),
        (
            square,
            diagonal,
            False,
            "You sorted x, y and z apart from one another. That mixes the coordinates of "
            "different points: (0,1),(1,0) is not (0,0),(1,1). Sort whole points.",
        ),
        (
            torch.stack([p, p, q]),
            torch.stack([p, q, q]),
            False,
            "You asked whether every point has a twin in the other cloud, but did not count. "
            "{p, p, q} and {p, q, q} hold the same places, not equally often.",
        ),
        (
            torch.stack([p, p, q]),
            torch.stack([p, q, r]),
            False,
            "You looked in one direction only. Every point of the first cloud is in the second, "
            "but not the other way round.",
        ),
    ]
    # The last case is asked before the one that counts: it is the more basic mistake.
    for a, b, right, hint in [*cases[:5], cases[6], cases[5]]:
        answer = call(function, a, b)
        if isinstance(answer, Tensor) and answer.numel() != 1:
            raise Hint(
                f"Your answer has shape {tuple(answer.shape)}, wanted one yes or no for the whole "
                "cloud."
            )
        if bool(answer) != right:
            raise Hint(hint)


@exercise
def normalize_like(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Put a cloud in the frame of another: ``(B, N, 3), (B, M, 3) -> (B, N, 3)``."""
    reference = clouds("like")
    points = clouds("like, perturbed", num_points=48) + 0.3
    center = reference.mean(1, keepdim=True)  # (B, 1, 3)
    radius = (reference - center).norm(dim=-1).amax(1)[:, None, None]  # (B, 1, 1)
    before = reference.norm(dim=-1).amax(1)[:, None, None]  # (B, 1, 1)
    extent = (reference - center).abs().amax(1, keepdim=True)  # (B, 1, 3)
    width = reference.amax(1, keepdim=True) - reference.amin(1, keepdim=True)  # (B, 1, 3)
    mean = (reference - center).norm(dim=-1).mean(1)[:, None, None]  # (B, 1, 1)
    middle = (reference.amax(1, keepdim=True) + reference.amin(1, keepdim=True)) / 2  # (B, 1, 3)
    from_middle = (reference - middle).norm(dim=-1).amax(1)[:, None, None]  # (B, 1, 1)
    axis = (
        "You normalised by the per-axis range: that squeezes every shape into a cube and a "
        "bookshelf becomes as deep as it is tall. One radius for all three axes."
    )
    mistakes = [
        (
            normalize(points),
            "You used the centre and radius of the cloud itself. Both come from the reference, so "
            "that the two clouds stay comparable point by point.",
        ),
        ((points - center) / extent, axis),
        ((points - center) / width, axis + " (You took the whole width.)"),
        (
            (points - center) / before,
            "You took the radius before centring, as the authors' code does: a cloud off the "
            "origin comes out too small. Centre first, then measure.",
        ),
        (
            (points - center) / radius.amax(),
            "You divided by one radius for the whole batch. Each cloud has its own: keep the batch "
            "dimension, (B, 1, 1).",
        ),
        (
            (points - center) / mean,
            "You divided by the mean distance. The farthest point of the reference belongs on the "
            "unit sphere: take the largest.",
        ),
        (
            (points - middle) / from_middle,
            "You centred on the middle of the bounding box. The course centres on the mean of the "
            "points.",
        ),
        (points - center, "You centred but did not scale."),
        (points / radius, "You scaled but did not centre."),
    ]
    compare(call(function, points, reference), (points - center) / radius, mistakes, "(B, N, 3)")


@exercise
def sample_triangle(function: Callable[[Tensor, int, torch.Generator], Tensor]) -> None:
    """Points evenly by area: ``corners (3, 3), num_points, generator -> (num_points, 3)``."""
    corners = torch.tensor([[0.2, 0.0, 1.0], [2.0, 0.5, 0.0], [0.0, 3.0, 0.5]])
    number = 4000
    points = call(function, corners, number, named_generator("check", "triangle"))
    if not isinstance(points, Tensor) or points.shape != (number, 3):
        shape = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
        raise Hint(f"Wanted num_points points, ({number}, 3), got {shape}.")
    again = function(corners, number, named_generator("check", "triangle"))
    if not torch.equal(points, again):
        raise Hint(
            "Two calls with equally seeded generators gave different points: pass "
            "generator=generator to torch.rand."
        )
    edges = (corners[1:] - corners[0]).T  # (3, 2)
    weights = torch.linalg.lstsq(edges, (points - corners[0]).T).solution.T  # (n, 2)
    off = (points - corners[0] - weights @ edges.T).norm(dim=-1).max()
    if off > 1e-3:
        raise Hint("Points lie off the triangle's plane: use corner + u * edge + v * edge.")
    weights = torch.cat([1 - weights.sum(1, keepdim=True), weights], 1)  # (n, 3) barycentric
    outside = (weights < -1e-4).any(1).float().mean().item()
    if outside > 0:
        raise Hint(
            f"{100 * outside:.0f} % of the points lie outside: u and v in the unit square fill a "
            "parallelogram. Where u + v > 1, fold back: u, v = 1 - u, 1 - v."
        )
    if (weights.amin(1) < 1e-4).float().mean() > 0.5:
        raise Hint("The points lie on the edges only: mix all three corners, with two numbers.")
    quarter = [(weights[:, corner] > 0.5).float().mean().item() for corner in range(3)]
    middle = 1 - sum(quarter)
    if middle > 0.29:
        raise Hint(
            "Too many points in the middle quarter: three uniform numbers divided by their sum "
            "are not even by area. Use two numbers, and fold."
        )
    if max(quarter) > 0.29:
        raise Hint(
            "Too many points at one corner: v * (1 - u) squeezes as many points into the narrow "
            "end as into the wide one. Fold the square instead, or take the root of u."
        )
    if min(*quarter, middle) < 0.21:
        raise Hint("The four quarters of the triangle hold unequal shares of the points.")
