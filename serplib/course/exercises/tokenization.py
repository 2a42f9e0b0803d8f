"""Checkers of the exercises in 03_tokenization."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from serplib.course.exercises.grading import call, clouds, compare, exercise
from serplib.geometry import gather
from serplib.seeding import named_generator


@exercise
def uncovered(function: Callable[[Tensor, int], Tensor]) -> None:
    """Points that no patch holds, a cloud at a time: ``index (B, c, n), num_points -> (B,)``."""
    num_points, batch, number, size = 40, 3, 5, 6
    order = torch.rand(batch, number, 35, generator=named_generator("check", "uncovered"))
    index = order.argsort(-1)[..., :size]  # (B, c, n), never one of the last five points
    index[0, 1:] = index[0, :1]  # in the first cloud all patches are the same
    visits = torch.zeros(batch, num_points).scatter_add_(
        1, index.flatten(1), torch.ones(batch, number * size)
    )  # (B, N)
    right = (visits == 0).sum(1).float()  # (B,)
    covered = num_points - right  # (B,)
    last = index.flatten(1).amax(1) + 1  # (B,) what bincount makes of it without minlength
    centers = torch.zeros(batch, num_points).scatter_(1, index[:, :, 0], 1.0)  # (B, N)
    mistakes = [
        (
            torch.full((batch,), float(num_points - number * size)),
            "That is N minus c x n: it counts slots. Patches overlap, so count different points.",
        ),
        (covered, "These are the points that ARE covered. Wanted: those that no patch holds."),
        (
            number * size - covered,
            "That is c x n minus the points covered: the spare slots, not the bare points.",
        ),
        (right / num_points, "These are shares. Wanted counts: do not divide by num_points."),
        (
            (visits <= 1).sum(1).float(),
            "You counted points in one patch, too. A point in exactly one patch is covered.",
        ),
        (
            (centers == 0).sum(1).float(),
            "You looked at the first point of each patch only, its centre. All n count.",
        ),
        (
            last - covered,
            "You counted up to the largest index that occurs. The last points of a cloud may be "
            "uncovered, too: there are num_points of them (minlength=num_points for bincount).",
        ),
        (
            (visits.sum(0) == 0).sum().float(),
            "You pooled the patches of all clouds. Point 7 of one cloud is not point 7 of the "
            "next: count each cloud by itself.",
        ),
        (right.sum(), "That is one number for the batch. Wanted one for each cloud, (B,)."),
    ]
    answer = call(function, index, num_points)
    if isinstance(answer, list | tuple):
        answer = torch.tensor(answer)
    compare(answer, right, mistakes, "(B,)")


@exercise
def target_in_input_frame(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Clean patches, normalised by mean and std of the corrupted ones.

    ``points, clean (B, N, 3), index (B, c, n) int64 -> (B, c, n, 3)``.
    """
    clean = clouds("frame", num_points=40)
    generator = named_generator("check", "frame, noise")
    points = clean + 0.4 * torch.randn(clean.shape, generator=generator)
    index = torch.rand(len(clean), 4, 40, generator=generator).argsort(-1)[..., :7]  # (B, c, n)
    noisy, target = gather(points, index), gather(clean, index)  # (B, c, n, 3) each

    def frame(patches: Tensor) -> tuple[Tensor, Tensor]:
        mean = patches.mean(2, keepdim=True)  # (B, c, 1, 3)
        return mean, (patches - mean).square().mean((2, 3), keepdim=True).sqrt()  # (B, c, 1, 1)

    (mean, std), (own_mean, own_std) = frame(noisy), frame(target)
    axes = (noisy - mean).square().mean(2, keepdim=True).sqrt()  # (B, c, 1, 3)
    whole = noisy.mean((1, 2), keepdim=True)  # (B, 1, 1, 3)
    spread = (noisy - whole).square().mean((1, 2, 3), keepdim=True).sqrt()
    mistakes = [
        (
            (target - own_mean) / own_std,
            "You normalised the clean patch by its OWN mean and std. Nobody knows these at test "
            "time: take the corrupted patch's.",
        ),
        (
            (noisy - mean) / std,
            "That is the input. The target is made of the CLEAN points at the same index.",
        ),
        (
            (noisy - own_mean) / own_std,
            "You exchanged points and clean: this is the corrupted patch in the clean one's frame.",
        ),
        (
            (target - own_mean) / std,
            "The unit is the input's, the origin is not: subtract the mean of the corrupted patch.",
        ),
        (
            (target - mean) / own_std,
            "The origin is the input's, the unit is not: divide by the corrupted patch's std.",
        ),
        (
            (target - mean) / axes,
            "You took one std an axis. That squashes a flat patch into a ball: one number a patch, "
            "over points AND coordinates.",
        ),
        (
            (target - mean) / (noisy - mean).std((2, 3), keepdim=True),
            "Your std divides by 3n - 1, torch's default. The patch is all there is, not a sample: "
            "divide by 3n (correction=0, or a mean of squares).",
        ),
        (
            (target - mean) / noisy.std((2, 3), keepdim=True, correction=0),
            "You took the std of patches not yet centred: torch then subtracts ONE mean for x, y "
            "and z together. Centre first, axis by axis.",
        ),
        (target - mean, "You centred and did not divide by the std."),
        (
            (target - mean) / std.square(),
            "You divided by the variance. The unit of length is its root.",
        ),
        (
            (target - noisy[:, :, :1]) / std,
            "You subtracted the FPS centre, as the authors' code does. Here: the mean.",
        ),
        (
            (target - whole) / spread,
            "That is one frame for the whole cloud. Each patch has its own.",
        ),
        (target, "These are the clean patches, not normalised yet."),
    ]
    compare(call(function, points, clean, index), (target - mean) / std, mistakes, "(B, c, n, 3)")


@exercise
def encoder_input(function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Eq. 6 and 7: ``tokens, positions (B, c, d), cls, cls_position (1, 1, d) -> (B, c+1, 2d)``."""
    batch, number, dim = 2, 5, 4
    generator = named_generator("check", "sequence")
    tokens, positions = torch.randn(2, batch, number, dim, generator=generator)
    cls, cls_position = torch.randn(2, 1, 1, dim, generator=generator)
    one, its_place = cls.expand(batch, -1, -1), cls_position.expand(batch, -1, -1)  # (B, 1, d)

    def joined(first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first, second], -1)

    left, right = torch.cat([one, tokens], 1), torch.cat([its_place, positions], 1)  # (B, c+1, d)
    mistakes = [
        (
            left + right,
            "You added tokens and positions, as the authors' code does. Eq. 6 concatenates: "
            "width 2d.",
        ),
        (
            torch.cat([left, right], 1),
            "You joined tokens and positions one after the other, along the sequence. Eq. 6 joins "
            "each token with its own position, along the last axis.",
        ),
        (
            torch.cat([joined(tokens, positions), joined(one, its_place)], 1),
            "[CLS] stands last. Eq. 7 writes ([CLS]; T_i): it comes first.",
        ),
        (joined(right, left), "Positions come first in your answer. Eq. 6 is [T_e; P_e]."),
        (
            joined(left, torch.cat([torch.zeros_like(its_place), positions], 1)),
            "[CLS] has no position, only zeros. The paper gives it a learnable one.",
        ),
        (
            joined(left, torch.cat([one, positions], 1)),
            "You used cls where its position belongs: the right half of row 0 is cls_position.",
        ),
        (
            joined(torch.cat([its_place, tokens], 1), torch.cat([one, positions], 1)),
            "You exchanged cls and cls_position.",
        ),
        (joined(tokens, positions), "[CLS] is missing: Eq. 7 wants c + 1 rows."),
        (
            torch.stack([left, right], -1).flatten(2),
            "You interleaved the features of token and position. Concatenate: first all d of the "
            "token, then all d of the position.",
        ),
    ]
    answer = call(function, tokens, positions, cls, cls_position)
    compare(answer, joined(left, right), mistakes, "(B, c+1, 2d)")
