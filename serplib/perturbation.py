"""Perturbing point clouds (paper, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from serplib.geometry import farthest_point_sample, gather, knn, lowest
from serplib.validation import expect


class Perturbed(NamedTuple):
    """What a perturbation returns."""

    points: Tensor  # (B, N, 3) the perturbed clouds, in the order of the clean points
    touched: Tensor  # (B, N) bool, True for the points of a perturbed patch
    centers: Tensor  # (B, num_patches) int64, the points around which the patches lie


@dataclass(frozen=True)
class Perturbation:
    """Noise on a few patches of a cloud: the pretext task of SeRP.

    Attributes:
        num_patches: patches perturbed (paper: 20).
        patch_size: points a patch, nearest neighbours of its centre, itself included (paper: 20).
        sigma: standard deviation of the noise a coordinate, in unit-sphere radii (paper: 0.03).
        centers: ``"random"`` (paper), or ``"fps"``, the paper's future work: farthest points,
            started at a random one.
        noise: ``"iid"``, a vector for each point (paper), or ``"rigid"``, one vector for a whole
            patch (the authors' code).
        overlap: what a point in several patches gets: the noise of the ``"last"`` one (the authors'
            code), or the ``"sum"`` of all.
    """

    num_patches: int = 20
    patch_size: int = 20
    sigma: float = 0.03
    centers: str = "random"
    noise: str = "iid"
    overlap: str = "last"

    def __post_init__(self) -> None:
        for name, accepted in _CHOICES.items():
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} is {getattr(self, name)!r}, wanted one of {accepted}")
        if self.num_patches < 1 or self.patch_size < 1:
            raise ValueError(
                f"num_patches is {self.num_patches} and patch_size {self.patch_size}: wanted >= 1"
            )
        if not 0 <= self.sigma < float("inf"):
            raise ValueError(f"sigma is {self.sigma}, wanted a finite number >= 0")

    def pick_centers(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Indices of the patch centres, ``(B, num_patches)`` int64, all different in a cloud."""
        expect(points, "B N 3")
        batch, num_points, _ = points.shape
        order = torch.rand(batch, num_points, generator=generator, device=points.device)  # (B, N)
        if self.centers == "random":
            return lowest(order, self.num_patches)  # (B, P)
        # FPS from a random start: put a random point first, sample, and map the indices back.
        shuffle = order.argsort(dim=1, stable=True)  # (B, N)
        picked = farthest_point_sample(gather(points, shuffle), self.num_patches)  # (B, P)
        return shuffle.gather(1, picked)  # (B, P)

    def __call__(self, points: Tensor, generator: torch.Generator) -> Perturbed:
        """Perturb clouds.

        Args:
            points: ``(B, N, 3)`` clean clouds on the unit sphere, any float type.
            generator: source of all randomness, on the device of ``points``; the same state gives
                the same result.

        Raises:
            ValueError: a cloud with fewer points than patches, or than points in a patch.
        """
        expect(points, "B N 3")
        batch, num_points, _ = points.shape
        if max(self.num_patches, self.patch_size) > num_points:
            raise ValueError(
                f"{self.num_patches} patches of {self.patch_size} points do not fit clouds of "
                f"{num_points} points: wanted num_patches and patch_size <= {num_points}"
            )
        centers = self.pick_centers(points, generator)  # (B, P)
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


_CHOICES = {
    "centers": ("random", "fps"),
    "noise": ("iid", "rigid"),
    "overlap": ("last", "sum"),
}


def expected_touched(num_points: int, num_patches: int, patch_size: int) -> float:
    """Points touched on average if patches fell independently: N (1 - (1 - n/N)^P).

    For the paper's 20 patches of 20 in 1,024 points that is 333.8, not 400: patches overlap.
    """
    return num_points * (1 - (1 - patch_size / num_points) ** num_patches)


def scale_and_shift(points: Tensor, generator: torch.Generator) -> Tensor:
    """The authors' augmentation: each axis scaled by U(2/3, 3/2) and moved by U(-0.2, 0.2).

    Args:
        points: ``(B, N, 3)``. generator: on their device.
    """
    expect(points, "B N 3")
    batch, device = len(points), points.device
    scale = torch.rand(batch, 1, 3, generator=generator, device=device) * (3 / 2 - 2 / 3) + 2 / 3
    shift = torch.rand(batch, 1, 3, generator=generator, device=device) * 0.4 - 0.2  # (B, 1, 3)
    return points * scale.to(points.dtype) + shift.to(points.dtype)  # (B, N, 3)


def authors_normalize(points: Tensor) -> Tensor:
    """The authors' normaliser: centre a cloud, but divide by the radius it had BEFORE centring.

    Args:
        points: ``(B, N, 3)``. A cloud that lies off the origin comes out smaller than the unit
            sphere; applied after the noise, it also changes the effective sigma.
    """
    expect(points, "B N 3")
    radius = points.norm(dim=-1).amax(-1)[:, None, None]  # (B, 1, 1)
    centered = points - points.mean(1, keepdim=True)  # (B, N, 3)
    return centered / radius.clamp_min(torch.finfo(points.dtype).tiny)  # (B, N, 3)
