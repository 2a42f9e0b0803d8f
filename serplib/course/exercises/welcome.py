"""Checker of the exercise in 00_welcome."""

import torch
from torch import Tensor

from serplib.course.exercises.grading import clouds, exercise


def _moved_clouds() -> list[tuple[Tensor, Tensor]]:
    """Clouds before and after moves that a sum, a norm or a tolerance does not see."""
    cases = []
    for batch, num_points in ((2, 8), (3, 3)):
        clean = (64 * clouds("share", batch, num_points)).round() / 64  # sums are exact
        moved = clean.clone()
        moved[0, 0, 2] = torch.nextafter(moved[0, 0, 2], torch.tensor(9.0))  # by one bit
        moved[0, 1] += torch.tensor([0.25, -0.25, 0.0])  # the differences cancel
        clean[0, 2, 1], moved[0, 2, 1] = 0.0, 1e-12  # less than any tolerance
        moved[1, 0, 0] *= -1  # the norm stays
        moved[1, 1] = moved[1, 1].roll(1)  # sum and norm stay
        moved[1, 2:7] += torch.tensor([1e-3, 0.2, 0.2])
        cases.append((clean, moved))
    return cases


@exercise(_moved_clouds, shape="(B,)")
def touched_share(clean: Tensor, perturbed: Tensor):
    """Return the share of the points of each cloud that moved: ``(B, N, 3), (B, N, 3) -> (B,)``."""
    difference = perturbed - clean  # (B, N, 3)
    moved, length = difference != 0, difference.norm(dim=-1)  # (B, N, 3), (B, N)
    touched = moved.any(-1)  # (B, N)
    farther = clean.norm(dim=-1) != perturbed.norm(dim=-1)  # (B, N)
    limits = (1e-8, 1e-6, 1e-4, 0.01, 0.05, 0.1)
    tolerant = [~torch.isclose(clean, perturbed).all(-1), *(length > limit for limit in limits)]

    def share(mask: Tensor) -> Tensor:
        return mask.float().mean(1)

    return share(touched), {
        "You averaged over coordinates: .any(-1) comes first.": moved.float().mean((1, 2)),
        "You ask for all three coordinates. One is enough: .any(-1).": share(moved.all(-1)),
        "That is the number of points that moved. Divide by N.": touched.sum(1),
        "You reduced over the points. Coordinates are last: .any(-1).": share(moved.any(1)),
        "You took the mean over the batch. Points are dimension 1.": touched.float().mean(0),
        "You added up signed differences: 0.25 - 0.25 cancels.": share(difference.sum(-1) != 0),
        "You compared distances from the origin. A point can move and keep its distance.":
            share(farther),
        "You allow a tolerance. A point has moved however small the change: clean != perturbed.":
            [share(mask) for mask in tolerant],
    }  # fmt: skip
