"""Families of perturbations beyond the paper's noise (after Point-DAE).

A family moves, removes or replaces points of a cloud. Point i of the result has a known partner,
point ``source[i]`` of the cloud before. The ranges follow Point-DAE (Zhang et al., arXiv
2211.06841). `pretext.Corruption.steps` composes families in a stated order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from serplib.geometry import gather, knn
from serplib.validation import Share, check_fields, expect

Map = Literal["rotate_z", "rotate", "reflect", "scale", "shear", "translate"]


class Changed(NamedTuple):
    """The result of a family."""

    points: Tensor  # (B, N, 3)
    source: Tensor  # (B, N) int64, index of the partner of each point in the cloud before
    touched: Tensor  # (B, N) bool, True for points that the family selected to move


def _uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def _own_index(points: Tensor) -> Tensor:
    return torch.arange(points.shape[1], device=points.device).expand(len(points), -1)  # (B, N)


def _permutation(points: Tensor, generator: torch.Generator) -> Tensor:
    """Draw an order of the points of each cloud ``(B, N, 3)``: ``(B, N)`` int64."""
    keys = torch.rand(points.shape[:2], generator=generator, device=points.device)  # (B, N)
    return keys.argsort(dim=1, stable=True)


@dataclass(frozen=True)
class Affine:
    """One random affine map per cloud: x -> A x + t.

    Attributes:
        maps: the maps that A and t are composed of, in this order.
        at_most: apply 1 to ``at_most`` of them, chosen at random for each cloud (Point-DAE: 3); 0
            applies all.
        angle: largest rotation of ``"rotate_z"``, about the z axis (vertical in ModelNet40), in
            radians: U(-angle, angle). ``"rotate"`` is uniform on SO(3).
        scale: largest factor of ``"scale"``, one for each axis: U(1 / scale, scale).
        shear: largest off-diagonal entry of ``"shear"``: U(-shear, shear).
        shift: largest coordinate of t for ``"translate"``, in unit-sphere radii: U(-shift, shift).
    """

    maps: tuple[Map, ...] = ("rotate_z", "reflect", "scale", "shear", "translate")
    at_most: NonNegativeInt = 3
    angle: NonNegativeFloat = math.pi
    scale: PositiveFloat = 2.0
    shear: NonNegativeFloat = 0.5
    shift: NonNegativeFloat = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.maps or self.at_most > len(self.maps):
            raise ValueError(
                f"at_most is {self.at_most} and maps {self.maps}: wanted a map or more, and "
                "at_most between 0 and their number"
            )

    def matrix(self, name: Map, batch: int, generator: torch.Generator) -> Tensor:
        """Draw the linear part of one map, ``(B, 3, 3)``; the identity for ``"translate"``."""
        eye = torch.eye(3, device=generator.device).expand(batch, 3, 3)
        if name == "rotate_z":
            angle = _uniform(-self.angle, self.angle, (batch,), generator)  # (B,)
            cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
            rows = [cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1]
            return torch.stack(rows, -1).view(batch, 3, 3)
        if name == "rotate":  # a normalised Gaussian quaternion is uniform on SO(3)
            q = torch.randn(batch, 4, generator=generator, device=generator.device)
            w, vector = F.normalize(q, dim=1).split([1, 3], 1)  # (B, 1), (B, 3)
            cross = torch.linalg.cross(vector[:, None], eye).mT  # (B, 3, 3): cross @ u = vector x u
            return eye + 2 * (w[..., None] * cross + cross @ cross)  # Rodrigues' formula
        if name == "reflect":
            signs = torch.randint(0, 2, (batch, 3), generator=generator, device=generator.device)
            return torch.diag_embed(2.0 * signs - 1)
        if name == "scale":
            return torch.diag_embed(_uniform(1 / self.scale, self.scale, (batch, 3), generator))
        if name == "shear":
            return eye + _uniform(-self.shear, self.shear, (batch, 3, 3), generator) * (1 - eye)
        return eye

    def __call__(self, points: Tensor, generator: torch.Generator) -> Changed:
        """Map clouds ``(B, N, 3)``; the partner of each point is itself."""
        expect(points, "B N 3")
        batch, number, device = len(points), len(self.maps), points.device
        rank = torch.rand(batch, number, generator=generator, device=device).argsort(1)  # (B, maps)
        count = torch.randint(
            1, (self.at_most or number) + 1, (batch, 1), generator=generator, device=device
        )
        used = rank < (count if self.at_most else number)  # (B, maps)
        linear = torch.eye(3, device=device).expand(batch, 3, 3)
        shift = torch.zeros(batch, 3, 1, device=device)
        for i, name in enumerate(self.maps):
            on = used[:, i, None, None]  # (B, 1, 1)
            matrix = self.matrix(name, batch, generator).where(on, torch.eye(3, device=device))
            linear, shift = matrix @ linear, matrix @ shift  # (B, 3, 3), (B, 3, 1)
            if name == "translate":
                shift = shift + on * _uniform(-self.shift, self.shift, (batch, 3, 1), generator)
        moved = points @ linear.mT.to(points.dtype) + shift.mT.to(points.dtype)  # (B, N, 3)
        return Changed(moved, _own_index(points), torch.ones_like(points[..., 0], dtype=torch.bool))


@dataclass(frozen=True)
class Drop:
    """Remove points; kept points, chosen at random, are repeated in their place.

    Attributes:
        where: ``"local"`` removes the nearest points of random centres, ``"random"`` single points.
        ratio: share of the points removed, below 1; ``"local"``: at most, since regions overlap.
        regions: number of centres of ``"local"``.
    """

    where: Literal["local", "random"] = "local"
    ratio: Share = 0.5
    regions: PositiveInt = 5

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, points: Tensor, generator: torch.Generator) -> Changed:
        """Drop from clouds ``(B, N, 3)``; the partner of a repeated point is the one repeated."""
        expect(points, "B N 3")
        own, num_points = _own_index(points), points.shape[1]
        order = _permutation(points, generator)  # (B, N)
        if self.where == "random":
            dropped = order[:, : int(self.ratio * num_points)]  # (B, ratio N)
        else:
            centers = gather(points, order[:, : self.regions])  # (B, regions, 3)
            size = int(self.ratio * num_points / self.regions)
            dropped = order[:, :0] if size == 0 else knn(centers, points, size).flatten(1)
        keep = torch.ones_like(own, dtype=torch.bool).scatter(1, dropped, False)  # (B, N)
        # Dropped point j becomes a copy of kept point j mod (number kept), in a random order.
        shuffled = torch.rand(own.shape, generator=generator, device=points.device)
        kept_first = shuffled.where(keep, 2).argsort(dim=1, stable=True)  # (B, N)
        turn = ((~keep).cumsum(1) - 1) % keep.sum(1, keepdim=True)  # (B, N) of dropped points
        source = own.where(keep, kept_first.gather(1, turn))  # (B, N)
        return Changed(gather(points, source), source, torch.zeros_like(keep))


@dataclass(frozen=True)
class Outliers:
    """Replace random points of a cloud by points off the surface.

    Attributes:
        where: ``"global"``, uniform in the cube from -1 to 1, or ``"local"``, Gaussian around
            random points of the cloud.
        ratio: share of the points replaced, below 1.
        sigma: standard deviation of ``"local"`` per coordinate, unit-sphere radii.
    """

    where: Literal["local", "global"] = "global"
    ratio: Share = 0.1
    sigma: NonNegativeFloat = 0.1

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, points: Tensor, generator: torch.Generator) -> Changed:
        """Add outliers to ``(B, N, 3)``; the partner of an outlier is the point nearest to it."""
        expect(points, "B N 3")
        device, (batch, num_points, _) = points.device, points.shape
        order = _permutation(points, generator)  # (B, N)
        replaced = order[:, : int(self.ratio * num_points)]  # (B, m)
        size = (batch, replaced.shape[1], 3)
        source, touched = _own_index(points).clone(), torch.zeros_like(order, dtype=torch.bool)
        if size[1] == 0:
            return Changed(points, source, touched)
        if self.where == "global":
            outliers = _uniform(-1, 1, size, generator).to(points.dtype)  # (B, m, 3)
        else:
            noise = torch.randn(size, generator=generator, device=device).to(points.dtype)
            outliers = gather(points, order[:, -size[1] :]) + self.sigma * noise
        source.scatter_(1, replaced, knn(outliers, points, 1)[..., 0])
        touched.scatter_(1, replaced, True)
        index = replaced[..., None].expand(size)
        return Changed(points.scatter(1, index, outliers), source, touched)


Family = Affine | Drop | Outliers
