"""Checkers of the exercises in 02_perturbation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from serplib.course.exercises.grading import Hint, call, clouds, compare, exercise
from serplib.geometry import chamfer_l2, gather, knn, squared_distances
from serplib.seeding import named_generator


@exercise
def perturb_rigid(function: Callable[[Tensor, Tensor, int, Tensor], Tensor]) -> None:
    """Shift whole patches, the last one wins where two overlap.

    ``points (B, N, 3), centers (B, P) int64, patch_size, shifts (B, P, 3) -> (B, N, 3)``.
    """
    points = clouds("rigid", num_points=40)
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
    answer = call(function, points, centers, size, shifts)
    compare(answer, moved(inside), mistakes, "(B, N, 3)")


@exercise
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
        answer = float(call(function, num_points, number, size))
        if abs(answer - right) <= 1e-3 * num_points:
            continue
        for wrong, hint in mistakes:
            if abs(answer - wrong) <= 1e-6 * num_points:
                raise Hint(hint)
        raise Hint(
            f"For N = {num_points}, P = {number}, n = {size} you say {answer:.1f}. Start from the "
            "chance that a given point lies in none of the patches, and in exactly one."
        )


@exercise
def copy_baseline(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Chamfer l2 of doing nothing, a cloud at a time: ``clean, perturbed (B, N, 3) -> (B,)``."""
    clean = clouds("copy", num_points=32)
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
    compare(call(function, clean, perturbed), right, mistakes, "(B,)")
