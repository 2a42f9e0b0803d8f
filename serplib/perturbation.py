"""Perturbing point clouds (paper, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from serplib.geometry import farthest_point_sample, gather, knn, topk_smallest
from serplib.validation import check_fields, expect


class Perturbed(NamedTuple):
    """The result of a perturbation."""

    points: Tensor  # (B, N, 3) the perturbed clouds, in the order of the clean points
    touched: Tensor  # (B, N) bool, True for the points of a perturbed patch, also if sigma is 0
    centers: Tensor  # (B, num_patches) int64, indices of the patch centres


@dataclass(frozen=True)
class Perturbation:
    """Gaussian noise on a few patches of a cloud: the pretext task of SeRP.

    Attributes:
        num_patches: number of perturbed patches (paper: 20).
        patch_size: points per patch, the nearest neighbours of its centre (paper: 20). The
            centre is its own first neighbour, unless a copy of it has a lower index.
        sigma: standard deviation of the noise per coordinate, in unit-sphere radii (paper: 0.03).
        centers: ``"random"`` (paper), or ``"fps"`` (the paper's future work): farthest points,
            from a random first one.
        noise: ``"iid"``, one vector per point (paper), or ``"rigid"``, one vector per patch (the
            authors' code).
        overlap: noise of a point in several patches: of the ``"last"`` patch (the authors' code),
            or the ``"sum"`` over all of them.
    """

    num_patches: PositiveInt = 20
    patch_size: PositiveInt = 20
    sigma: NonNegativeFloat = 0.03
    centers: Literal["random", "fps"] = "random"
    noise: Literal["iid", "rigid"] = "iid"
    overlap: Literal["last", "sum"] = "last"

    def __post_init__(self) -> None:
        check_fields(self)

    def pick_centers(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Draw patch centres of clouds: ``(B, num_patches)`` int64, distinct within a cloud."""
        expect(points, "B N 3")
        batch, num_points, _ = points.shape
        if max(self.num_patches, self.patch_size) > num_points:
            raise ValueError(
                f"{self.num_patches} patches of {self.patch_size} points do not fit clouds of "
                f"{num_points} points: wanted num_patches and patch_size <= {num_points}"
            )
        order = torch.rand(batch, num_points, generator=generator, device=points.device)  # (B, N)
        if self.centers == "random":
            return topk_smallest(order, self.num_patches)  # (B, P)
        # FPS from a random start: put a random point first, sample, and map the indices back.
        shuffle = order.argsort(dim=1, stable=True)  # (B, N)
        picked = farthest_point_sample(gather(points, shuffle), self.num_patches)  # (B, P)
        return shuffle.gather(1, picked)  # (B, P)

    def __call__(self, points: Tensor, generator: torch.Generator) -> Perturbed:
        """Perturb clouds.

        Args:
            points: ``(B, N, 3)`` clean clouds in the unit sphere, any float type.
            generator: source of all randomness, on the device of ``points``; the same state gives
                the same result.

        Raises:
            ValueError: clouds with fewer points than patches, or than points of a patch.
        """
        centers = self.pick_centers(points, generator)  # (B, P)
        batch, num_points, _ = points.shape
        patches = knn(gather(points, centers), points, self.patch_size)  # (B, P, n)
        per_patch = 1 if self.noise == "rigid" else self.patch_size
        noise = self.sigma * torch.randn(
            batch, self.num_patches, per_patch, 3, generator=generator, device=points.device
        ).to(points.dtype)  # (B, P, n or 1, 3)
        noise = noise.expand(-1, -1, self.patch_size, -1).flatten(1, 2)  # (B, P*n, 3)

        index = patches.flatten(1)  # (B, P*n)
        rank = torch.arange(index.shape[1], device=points.device).expand_as(index)  # (B, P*n)
        last = rank.new_full((batch, num_points), -1)  # (B, N) the rank that touches a point last
        last.scatter_reduce_(1, index, rank, "amax")
        if self.overlap == "last":
            is_last = last.gather(1, index) == rank  # (B, P*n)
            noise = noise.where(is_last[..., None], 0)  # (B, P*n, 3)
        shift = torch.zeros_like(points)  # (B, N, 3)
        shift.scatter_add_(1, index[..., None].expand(-1, -1, 3), noise)
        touched = last >= 0  # (B, N)
        return Perturbed(points + shift, touched, centers)


def expected_touched(num_points: int, num_patches: int, patch_size: int) -> float:
    """Return the mean number of perturbed points for independent patches: N (1 - (1 - n/N)^P).

    For the paper's 20 patches of 20 in 1,024 points this is 333.8, not 400: patches overlap.
    """
    return num_points * (1 - (1 - patch_size / num_points) ** num_patches)


def scale_and_shift(points: Tensor, generator: torch.Generator) -> Tensor:
    """Scale each axis of clouds ``(B, N, 3)`` by U(2/3, 3/2), shift by U(-0.2, 0.2) (authors)."""
    expect(points, "B N 3")
    batch, device = len(points), points.device
    scale = torch.rand(batch, 1, 3, generator=generator, device=device) * (3 / 2 - 2 / 3) + 2 / 3
    shift = torch.rand(batch, 1, 3, generator=generator, device=device) * 0.4 - 0.2  # (B, 1, 3)
    return points * scale.to(points.dtype) + shift.to(points.dtype)  # (B, N, 3)


def authors_normalize(points: Tensor) -> Tensor:
    """Centre clouds ``(B, N, 3)`` and divide by the radius BEFORE centring (the authors' code).

    The result is centred, but its radius is not 1. Applied after the noise, this also changes the
    effective sigma.
    """
    expect(points, "B N 3")
    radius = points.norm(dim=-1).amax(-1)[:, None, None]  # (B, 1, 1)
    centered = points - points.mean(1, keepdim=True)  # (B, N, 3)
    return centered / radius.clamp_min(torch.finfo(points.dtype).tiny)  # (B, N, 3)
