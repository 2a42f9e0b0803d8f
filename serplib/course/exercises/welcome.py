"""Checkers of the exercise in 00_welcome."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from serplib.course.exercises.grading import call, clouds, compare, exercise


@exercise
def touched_share(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Which share of the points of each cloud moved: ``(B, N, 3), (B, N, 3) -> (B,)``."""
    clean = clouds("share", num_points=8)
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
    compare(call(function, clean, perturbed), share, mistakes, "(B,)")
