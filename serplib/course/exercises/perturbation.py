"""Checkers of the exercises in 02_perturbation."""

import math

import torch
from torch import Tensor

from serplib.course.exercises.grading import clouds, exercise, normal
from serplib.geometry import gather, knn, squared_distances


def _overlapping_patches() -> list[tuple[Tensor, Tensor, int, Tensor]]:
    return [
        (
            clouds("rigid", batch, num_points),
            normal("centres", batch, num_points).argsort(1)[:, :number],
            size,
            normal("shifts", batch, number, 3),
        )
        for batch, num_points, number, size in ((2, 40, 6, 8), (3, 9, 3, 3))
    ]


@exercise(_overlapping_patches, shape="(B, N, 3)")
def perturb_rigid(points: Tensor, centers: Tensor, patch_size: int, shifts: Tensor):
    """Shift whole patches; where two overlap, the last one wins.

    ``points (B, N, 3), centers (B, P) int64, patch_size, shifts (B, P, 3) -> (B, N, 3)``.
    """
    order, rows = range(centers.shape[1]), torch.arange(len(points))[:, None]  # (B, 1)
    patches = knn(gather(points, centers), points, patch_size + 1)  # (B, P, n + 1)
    inside = patches[:, :, :patch_size]  # (B, P, n)

    def moved(members: Tensor, order=order, rows=rows, add=False, base=points) -> Tensor:
        out = points.clone()
        for patch in order:
            index, base = members[:, patch], out if add else base
            out[rows, index] = base[rows, index] + shifts[:, patch, None]
        return out

    chained, paired = points.clone(), points.clone()
    for patch in order:
        near = knn(chained[rows, centers[:, patch, None]], chained, patch_size)[:, 0]  # (B, n)
        chained[rows, near] = chained[rows, near] + shifts[:, patch, None]
        paired[:, inside[:, patch]] = points[:, inside[:, patch]] + shifts[:, patch, None, None]
    return moved(inside), {
        "You perturbed the centres only, not their neighbours (knn).": moved(centers[:, :, None]),
        "kNN without self: the centre belongs to its patch.": moved(patches[:, :, 1:]),
        "You dropped the centre and moved one point too few.": moved(inside[:, :, 1:]),
        "Your patches have one point too many: patch_size counts the centre.": moved(patches),
        "You added up the shifts. Where patches overlap, the last one wins.":
            moved(inside, add=True),
        "The first patch wins in your answer. Let the last one overwrite.":
            moved(inside, order[::-1]),
        "You searched in the cloud already moved. Find all patches in the clean cloud first.":
            chained,
        "You moved the whole cloud with one shift. Each patch has its own.": points + shifts[:, :1],
        "You wrote the shift in place of the point. The new position is clean point PLUS shift.":
            moved(inside, base=torch.zeros_like(points)),
        "out[:, members] pairs every cloud with the members of all clouds. Index row by row: "
        "out[batch, members] with batch of shape (B, 1).":
            [moved(inside, rows=slice(None)), paired],
        "You used the patches of the first cloud for the whole batch.":
            moved(inside[:1].expand_as(inside)),
        "Nothing has moved. Does your function return the copy that it wrote to?": points,
    }  # fmt: skip


@exercise(
    [(1024, 20, 20), (100, 3, 50), (64, 2, 16)],
    advice="Start from the chance that a point lies in none of the patches, and in exactly one.",
)
def expected_shared(num_points: int, num_patches: int, patch_size: int):
    """Return the expected number of points in two patches or more: ``(N, P, n) -> float``."""
    p = patch_size / num_points
    none, one = (1 - p) ** num_patches, num_patches * p * (1 - p) ** (num_patches - 1)
    two = math.comb(num_patches, 2) * p**2 * (1 - p) ** (num_patches - 2)
    touched = num_points * (1 - none)
    return num_points * (1 - none - one), {
        "That is the number touched at all. Take away those in exactly one patch, too.": touched,
        "That is the number in exactly one patch. Wanted: two or more.": num_points * one,
        "That is a share. Multiply by num_points.": 1 - none - one,
        "That is P n minus the points touched: a point in three patches counts twice.":
            num_patches * patch_size - touched,
        "You forgot the factor P: any of the P patches may be the one that holds the point.":
            touched - num_points * one / num_patches,
        "That is the number in exactly two patches. Three or more count too.": num_points * two,
        "For exactly one patch, the exponent is P - 1: one patch holds the point, the rest do not.":
            touched - num_points * one * (1 - p),
    }  # fmt: skip


@exercise(
    lambda: [
        (clean, clean * scale + 0.5 * normal("copy, noise", *clean.shape))
        for clean in (clouds("copy", 2, 32), clouds("copy", 4, 4))
        # Each side of the distance is the larger one once.
        for scale in [torch.tensor([0.3, 1.5]).repeat(len(clean) // 2)[:, None, None]]
    ],
    shape="(B,)",
)
def copy_baseline(clean: Tensor, perturbed: Tensor):
    """Return the Chamfer l2 of the perturbed cloud: ``(B, N, 3), (B, N, 3) -> (B,)``."""
    table = squared_distances(perturbed, clean)  # (B, N, N)
    nearest = table.amin(2), table.amin(1)  # (B, N) each
    there, back = (side.mean(1) for side in nearest)  # (B,) each
    right = there + back
    own = (clean - perturbed).square().sum(-1).mean(1)  # (B,)
    return right, {
        "That is one side of Eq. 11. Add the mean of the other search.": [there, back],
        "These are distances, and Eq. 11 has SQUARED distances: no root.":
            sum(side.sqrt().mean(1) for side in nearest),
        "You compared point i with point i. Chamfer looks for the nearest point.": own,
        "You compared coordinate by coordinate. Chamfer looks for the nearest point.": own / 3,
        "You summed over the points. Eq. 11 has means.": sum(side.sum(1) for side in nearest),
        "You halved the sum. Eq. 11 adds the two sides: single points 3 apart give 18.": right / 2,
        "You compared a cloud with itself: the distance is 0.": 0 * right,
        "You took the larger of the two sides. Eq. 11 adds them.": torch.maximum(there, back),
        "Both of your sides run from the same cloud. Take a minimum over each dimension.":
            [2 * there, 2 * back],
    }  # fmt: skip
