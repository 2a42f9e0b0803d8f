"""Checkers of the exercises: each tells at once what is wrong with an answer, and why.

A notebook calls ``check.<exercise>(your_function)``. The verdict is printed and nothing is raised,
so that an exercise left open, or half done, never stops a notebook.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from serplib.data.common import normalize
from serplib.geometry import chamfer_l2, gather, knn, squared_distances
from serplib.perturb import named_generator


class Hint(Exception):
    """What to tell a learner whose answer is not right yet."""


def _exercise(examine: Callable[[Callable], None]) -> Callable[[Callable], None]:
    """Make a checker, which prints its verdict, of an examination, which raises a `Hint`."""

    @functools.wraps(examine)
    def checker(function: Callable) -> None:
        print(f"{examine.__name__}: {_verdict(examine, function)}")

    return checker


def _verdict(examine: Callable[[Callable], None], function: Callable) -> str:
    if not callable(function):
        return f"not yet. Pass the function itself, without calling it; got {type(function)}."
    try:
        examine(function)
    except NotImplementedError:
        return "still open. Put your answer where the stub raises; the notebook runs on meanwhile."
    except Hint as hint:
        return f"not yet. {hint}"
    except Exception as error:  # the learner's own code stopped: say where to look, go on
        return f"not yet. Your function stopped with {type(error).__name__}: {error}"
    return "right!"


def _call(function: Callable, *arguments, **options) -> Tensor:
    """The learner's answer, once it is sure that the arguments were left as they were."""
    before = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
    answer = function(*arguments, **options)
    for number, (old, new) in enumerate(zip(before, arguments)):
        if isinstance(old, Tensor) and not torch.equal(old, new):
            raise Hint(
                f"Your function changed its argument number {number + 1} in place. Work on a copy "
                "(.clone()), or the clean cloud is lost and the target of the training with it."
            )
    if answer is None:
        raise Hint("Your function returned None. Is a 'return' missing?")
    return answer


def _compare(answer: Tensor, right: Tensor, mistakes: list[tuple[Tensor, str]], shape: str) -> None:
    """Raise the hint of the known mistake that gives this answer, or say how far off it is."""
    if not isinstance(answer, Tensor):
        raise Hint(f"Your function returned {type(answer).__name__}, wanted a tensor {shape}.")
    for wrong, hint in mistakes:  # a wrong shape may be a known mistake, too
        if answer.shape == wrong.shape and torch.allclose(answer.float(), wrong, atol=1e-5):
            if wrong.shape != right.shape or not torch.allclose(wrong, right, atol=1e-5):
                raise Hint(hint)
    if answer.shape != right.shape:
        raise Hint(f"The shape is {tuple(answer.shape)}, wanted {tuple(right.shape)}, {shape}.")
    if not torch.allclose(answer.float(), right, atol=1e-5):
        gap = (answer.float() - right).abs().max().item()
        raise Hint(f"The shape is right, the values are not: the largest gap is {gap:.2g}.")


def _clouds(name: str, batch: int = 2, num_points: int = 64) -> Tensor:
    """Clouds that no mistake can hide in: off the origin, and unlike along the three axes."""
    points = torch.randn(batch, num_points, 3, generator=named_generator("check", name))
    spread = torch.tensor([[1.0, 2.0, 0.5], [3.0, 0.7, 1.0]])[:batch, None]
    return points * spread + torch.tensor([0.5, -1.0, 2.0])  # (B, N, 3)


# ---- 00_welcome --------------------------------------------------------------------------------


@_exercise
def touched_share(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Which share of the points of each cloud moved: ``(B, N, 3), (B, N, 3) -> (B,)``."""
    clean = _clouds("share", num_points=8)
    perturbed = clean.clone()
    perturbed[0, 0] += 0.1  # a whole point
    perturbed[0, 1, 2] += 0.1  # one coordinate is enough
    perturbed[1, 2:7, 0] -= 0.2
    perturbed[1, 3:5, 1] += 0.2
    moved = clean != perturbed  # (B, N, 3)
    share = moved.any(-1).float().mean(1)  # (B,)
    mistakes = [
        (
            moved.float().mean((1, 2)),
            "You averaged over coordinates. A point has moved if ANY of its three coordinates has: "
            "use .any(-1) before the mean.",
        ),
        (
            moved.all(-1).float().mean(1),
            "You asked for all three coordinates to move. One is enough: .any(-1), not .all(-1).",
        ),
        (share * 8, "That is how many points moved. The share is that number divided by N."),
        (1 - share, "That is the share of the points that stayed. Turn the comparison round."),
        (
            share.mean(),
            "That is one number for the whole batch. Take the mean over the points only, "
            "dimension 1.",
        ),
    ]
    _compare(_call(function, clean, perturbed), share, mistakes, "(B,)")


# ---- 01_point_clouds ---------------------------------------------------------------------------


@_exercise
def same_set(function: Callable[[Tensor, Tensor], bool]) -> None:
    """Whether two clouds hold the same points in any order: ``(N, 3), (N, 3) -> bool``."""
    cloud = _clouds("set", 1, 16)[0]
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
        answer = _call(function, a, b)
        if isinstance(answer, Tensor) and answer.numel() != 1:
            raise Hint(
                f"Your answer has shape {tuple(answer.shape)}, wanted one yes or no for the whole "
                "cloud."
            )
        if bool(answer) != right:
            raise Hint(hint)


@_exercise
def normalize_like(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Put a cloud in the frame of another: ``(B, N, 3), (B, M, 3) -> (B, N, 3)``."""
    reference = _clouds("like")
    points = _clouds("like, perturbed", num_points=48) + 0.3
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
    _compare(_call(function, points, reference), (points - center) / radius, mistakes, "(B, N, 3)")


@_exercise
def sample_triangle(function: Callable[[Tensor, int, torch.Generator], Tensor]) -> None:
    """Points evenly by area: ``corners (3, 3), num_points, generator -> (num_points, 3)``."""
    corners = torch.tensor([[0.2, 0.0, 1.0], [2.0, 0.5, 0.0], [0.0, 3.0, 0.5]])
    number = 4000
    points = _call(function, corners, number, named_generator("check", "triangle"))
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


# ---- 02_perturbation ---------------------------------------------------------------------------


@_exercise
def perturb_rigid(function: Callable[[Tensor, Tensor, int, Tensor], Tensor]) -> None:
    """Shift whole patches, the last one wins where two overlap.

    ``points (B, N, 3), centers (B, P) int64, patch_size, shifts (B, P, 3) -> (B, N, 3)``.
    """
    points = _clouds("rigid", num_points=40)
    batch, num_points, _ = points.shape
    size, number = 8, 6
    generator = named_generator("check", "rigid, centres")
    centers = torch.rand(batch, num_points, generator=generator).argsort(1)[:, :number]  # (B, P)
    shifts = torch.randn(batch, number, 3, generator=generator)  # (B, P, 3)
    patches = knn(gather(points, centers), points, size + 1)  # (B, P, n + 1)
    rows = torch.arange(batch)[:, None]  # (B, 1)

    def moved(members: Tensor, order: range = range(number), add: bool = False) -> Tensor:
        out = points.clone()
        for patch in order:
            base = out if add else points
            out[rows, members[:, patch]] = (
                base[rows, members[:, patch]] + shifts[:, patch, None]
            )  # (B, n, 3)
        return out

    inside = patches[:, :, :size]  # (B, P, n)
    chained = points.clone()
    for patch in range(number):
        near = knn(chained[rows, centers[:, patch, None]], chained, size)[:, 0]  # (B, n)
        chained[rows, near] = chained[rows, near] + shifts[:, patch, None]
    replaced = points.clone()
    for patch in range(number):
        replaced[rows, inside[:, patch]] = shifts[:, patch, None].expand(-1, size, -1)
    mistakes = [
        (
            moved(centers[:, :, None]),
            "You perturbed the centres only, not their neighbours. A patch is the patch_size "
            "nearest points of its centre: use knn.",
        ),
        (
            moved(patches[:, :, 1:]),
            "kNN without self: you dropped the centre from its own patch. knn returns the query as "
            "its first neighbour, and the paper's patch of 20 counts it.",
        ),
        (
            moved(inside[:, :, 1:]),
            "You dropped the centre from its patch and so moved one point too few: take the "
            "patch_size nearest, self included.",
        ),
        (moved(patches), "Your patches have one point too many: patch_size counts the centre."),
        (
            moved(inside, add=True),
            "You added up the shifts where patches overlap. Here the last patch wins: write "
            "clean + shift, do not add to what is already moved.",
        ),
        (
            moved(inside, range(number - 1, -1, -1)),
            "The first patch wins in your answer. Go through the patches in order and let the last "
            "one overwrite.",
        ),
        (
            chained,
            "You searched for neighbours in the cloud already moved. Find all patches in the clean "
            "cloud first, then move.",
        ),
        (
            points + shifts[:, :1],
            "You moved the whole cloud with one shift. Each patch has its own, and most points "
            "stay where they are.",
        ),
        (
            replaced,
            "You wrote the shift in place of the point. The new place is the clean point PLUS the "
            "shift.",
        ),
        (points, "Nothing has moved. Does your function return the copy that it wrote to?"),
    ]
    answer = _call(function, points, centers, size, shifts)
    _compare(answer, moved(inside), mistakes, "(B, N, 3)")


@_exercise
def expected_shared(function: Callable[[int, int, int], float]) -> None:
    """Points in two patches or more, if patches fell independently: ``(N, P, n) -> float``."""
    for num_points, number, size in ((1024, 20, 20), (100, 3, 50), (64, 2, 16)):
        p = size / num_points
        none, one = (1 - p) ** number, number * p * (1 - p) ** (number - 1)
        right = num_points * (1 - none - one)
        two = number * (number - 1) / 2 * p**2 * (1 - p) ** (number - 2)
        mistakes = [
            (
                num_points * (1 - none),
                "That is the number touched at all. Take away those in exactly one patch, "
                "N P p (1 - p)^(P - 1), too.",
            ),
            (num_points * one, "That is the number in exactly one patch. Wanted: two or more."),
            (1 - none - one, "That is a share. Multiply by num_points."),
            (
                number * size - num_points * (1 - none),
                "That is P n minus the points touched: it counts the spare visits, and a point in "
                "three patches twice.",
            ),
            (
                num_points * (1 - none - one / number),
                "You forgot the factor P: any of the P patches may be the one that holds the "
                "point.",
            ),
            (
                num_points * two if number > 2 else float("nan"),
                "That is the number in exactly two patches. Three or more count too: take the "
                "complement.",
            ),
        ]
        answer = float(_call(function, num_points, number, size))
        if abs(answer - right) <= 1e-3 * num_points:
            continue
        for wrong, hint in mistakes:
            if abs(answer - wrong) <= 1e-6 * num_points:
                raise Hint(hint)
        raise Hint(
            f"For N = {num_points}, P = {number}, n = {size} you say {answer:.1f}. Start from the "
            "chance that a given point lies in none of the patches, and in exactly one."
        )


@_exercise
def copy_baseline(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Chamfer l2 of doing nothing, a cloud at a time: ``clean, perturbed (B, N, 3) -> (B,)``."""
    clean = _clouds("copy", num_points=32)
    generator = named_generator("check", "copy, noise")
    perturbed = clean + 0.5 * torch.randn(clean.shape, generator=generator)
    distance = squared_distances(perturbed, clean)  # (B, N, N)
    there, back = distance.amin(2), distance.amin(1)  # (B, N) each
    right = chamfer_l2(perturbed, clean, reduction="none")  # (B,)
    own = (clean - perturbed).square().sum(-1)  # (B, N)
    one_side = (
        "That is one side of Eq. 11. The other asks, for every point of the other cloud, how far "
        "its nearest is; add the two means."
    )
    mistakes = [
        (there.mean(1), one_side),
        (back.mean(1), one_side + " (You have the clean side.)"),
        (
            there.sqrt().mean(1) + back.sqrt().mean(1),
            "These are distances, and Eq. 11 has SQUARED distances: no root.",
        ),
        (
            own.mean(1),
            "You compared point i with point i. Chamfer looks for the nearest point, whoever it "
            "is.",
        ),
        (
            own.mean(1) / 3,
            "You compared coordinate by coordinate, a mean squared error. Chamfer looks for the "
            "nearest point.",
        ),
        (
            there.sum(1) + back.sum(1),
            "You summed over the points. Eq. 11 divides each side by its number of points.",
        ),
        (
            right / 2,
            "You halved the sum. Eq. 11 adds the two sides: single points 3 apart give 18.",
        ),
        (
            right.mean(),
            "That is one number for the batch. Wanted one for each cloud: reduction='none'.",
        ),
        (torch.zeros_like(right), "You compared a cloud with itself: the distance is 0."),
    ]
    _compare(_call(function, clean, perturbed), right, mistakes, "(B,)")
