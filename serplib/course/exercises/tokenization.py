"""Checkers of the exercises in 03_tokenization."""

import torch
from torch import Tensor

from serplib.course.exercises.grading import clouds, exercise, normal
from serplib.geometry import gather


def _patch_indices() -> list[tuple[Tensor, int]]:
    cases = []
    for batch, number, size, num_points in ((3, 5, 6, 40), (4, 4, 4, 20)):
        order = normal("uncovered", batch, number, num_points - 5).argsort(-1)
        index = order[..., :size]  # (B, c, n), never one of the last five points
        index[0, 1:] = index[0, :1]  # in the first cloud all patches are the same
        cases.append((index, num_points))
    return cases


@exercise(_patch_indices, shape="(B,)")
def uncovered(index: Tensor, num_points: int):
    """Count the points of each cloud that no patch holds: ``(B, c, n), num_points -> (B,)``."""
    batch, slots = len(index), index[0].numel()

    def visits(index: Tensor) -> Tensor:
        return torch.stack([patches.flatten().bincount(minlength=num_points) for patches in index])

    visited = visits(index)  # (B, N)
    right, pooled = (visited == 0).sum(1), (visited.sum(0) == 0).sum()  # (B,), ()
    covered = num_points - right  # (B,)
    return right, {
        "That is N minus c x n: it counts slots. Patches overlap, so count different points.":
            torch.full((batch,), num_points - slots),
        "These are the points that ARE covered. Wanted: those that no patch holds.": covered,
        "That is c x n minus the points covered: the surplus of slots.": slots - covered,
        "These are shares. Wanted counts: do not divide by num_points.": right / num_points,
        "You counted points in one patch, too. A point in one patch is covered.":
            (visited <= 1).sum(1),
        "You looked at the first point of each patch only, its centre. All n count.":
            (visits(index[:, :, :1]) == 0).sum(1),
        "You counted up to the largest index that occurs. The last points may be uncovered, too.":
            index.flatten(1).amax(1) + 1 - covered,
        "You pooled the patches of all clouds. Point 7 of one cloud is not that of the next.":
            [pooled, pooled.expand(batch)],
    }  # fmt: skip


def _corrupted_clouds() -> list[tuple[Tensor, Tensor, Tensor]]:
    cases = []
    for batch, num_points, number, size in ((2, 40, 4, 7), (3, 12, 3, 3)):
        clean = clouds("frame", batch, num_points)
        order = normal("frame, index", batch, number, num_points).argsort(-1)
        cases.append((clean + 0.4 * normal("frame, noise", *clean.shape), clean, order[..., :size]))
    return cases


@exercise(_corrupted_clouds, shape="(B, c, n, 3)")
def target_in_input_frame(points: Tensor, clean: Tensor, index: Tensor):
    """Normalise clean patches by mean and std of the corrupted ones.

    ``points, clean (B, N, 3), index (B, c, n) int64 -> (B, c, n, 3)``.
    """
    noisy, target = gather(points, index), gather(clean, index)  # (B, c, n, 3) each

    def frame(patches: Tensor, axes: tuple[int, ...] = (2,)) -> tuple[Tensor, Tensor]:
        mean = patches.mean(axes, keepdim=True)  # (B, c, 1, 3)
        return mean, (patches - mean).square().mean((*axes, 3), keepdim=True).sqrt()

    def joint(patches: Tensor, correction: int = 0) -> Tensor:
        """One std over points and coordinates, without centring each axis."""
        return patches.std((2, 3), correction=correction, keepdim=True)

    (mean, std), (own_mean, own_std) = frame(noisy), frame(target)
    (whole, whole_std), (across, across_std) = frame(noisy, (1, 2)), frame(noisy, (1,))
    centered, relative = target - mean, noisy - mean
    one_mean = target - noisy.mean((2, 3), keepdim=True)
    return centered / std, {
        "You normalised the clean patch by its OWN mean and std. Take the corrupted patch's.":
            (target - own_mean) / own_std,
        "That is the input. The target is made of the CLEAN points.": relative / std,
        "You exchanged points and clean: this is the corrupted patch in the clean one's frame.":
            (noisy - own_mean) / own_std,
        "The scale is the input's, the origin is not: subtract the mean of the corrupted patch.":
            (target - own_mean) / std,
        "The origin is the input's, the scale is not: divide by the std of the corrupted patch.":
            centered / own_std,
        "You took one std for each axis, which stretches a flat patch. One number a patch.":
            centered / relative.square().mean(2, keepdim=True).sqrt(),
        "Your std divides by 3n - 1 (torch). Take correction=0.": centered / joint(relative, 1),
        "You took the std before centring: torch then subtracts ONE mean for all axes. Centre "
        "first, axis by axis.": [centered / joint(noisy), centered / joint(noisy, 1)],
        "You subtracted ONE mean for x, y and z together. Take one an axis: dimension 2 only.":
            [one_mean / std, one_mean / joint(noisy)],
        "You centred and did not divide by the std.": centered,
        "You divided by the std and did not centre.": [target / std, target / own_std],
        "You divided by the variance. The unit of length is its root.": centered / std.square(),
        "You subtracted the FPS centre. Here: the mean.": (target - noisy[:, :, :1]) / std,
        "That is one frame for the whole cloud. Take one a patch.": (target - whole) / whole_std,
        "You averaged over the patches. Points are dimension 2.": (target - across) / across_std,
        "These are the clean patches, not normalised yet.": target,
    }  # fmt: skip


@exercise(
    lambda: [
        (*normal("tokens", 2, batch, number, dim), *normal("cls", 2, 1, 1, dim))
        for batch, number, dim in ((2, 5, 4), (4, 4, 4))
    ],
    shape="(B, c+1, 2d)",
    trains=("tokens", "positions", "cls", "cls_position"),
)
def encoder_input(tokens: Tensor, positions: Tensor, cls: Tensor, cls_position: Tensor):
    """Build Eq. 6 and 7: ``(B, c, d), (B, c, d), (1, 1, d), (1, 1, d) -> (B, c+1, 2d)``."""
    first, place = (row.expand(len(tokens), -1, -1) for row in (cls, cls_position))  # (B, 1, d)

    def rows(*parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)

    def joined(left: Tensor, right: Tensor) -> Tensor:
        return torch.cat([left, right], -1)

    left, right = rows(first, tokens), rows(place, positions)  # (B, c+1, d)
    return joined(left, right), {
        "You added tokens and positions. Eq. 6 concatenates: width 2d.": left + right,
        "You joined along the sequence. Eq. 6 joins along the last axis.": rows(left, right),
        "[CLS] stands last. Eq. 7 writes ([CLS]; T_i): it comes first.":
            joined(rows(tokens, first), rows(positions, place)),
        "Positions come first in your answer. Eq. 6 is [T_e; P_e].": joined(right, left),
        "[CLS] has no position, only zeros. The paper gives it a learnable one.":
            joined(left, rows(0 * place, positions)),
        "You used cls where its position belongs: the right half of row 0 is cls_position.":
            joined(left, rows(first, positions)),
        "You exchanged cls and cls_position.": joined(rows(place, tokens), rows(first, positions)),
        "[CLS] is missing: Eq. 7 wants c + 1 rows.": joined(tokens, positions),
        "[CLS] replaced the first token. Eq. 7 puts it in front of all c tokens.":
            joined(rows(first, tokens[:, 1:]), rows(place, positions[:, 1:])),
        "Tokens and positions are shifted against each other by one row.":
            [joined(left, rows(positions, place)), joined(rows(tokens, first), right)],
        "You interleaved token and position. First all d of the token, then all d of the position.":
            torch.stack([left, right], -1).flatten(2),
    }  # fmt: skip
