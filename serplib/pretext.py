"""The pretext task: a clean cloud becomes a question and its answer (paper, sections 3.1, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serplib.geometry import farthest_point_sample, gather
from serplib.perturbation import Perturbation, authors_normalize, scale_and_shift
from serplib.validation import expect


@dataclass(frozen=True)
class Corruption:
    """Everything between a cloud on disk and the pair (perturbed, clean) that a model is given.

    Attributes:
        perturbation: the noise itself (section 3.1).
        augment: ``"none"`` or ``"scale_shift"`` (`perturbation.scale_and_shift`), before the noise.
        subsample: how larger clouds come to ``num_points``: ``"fps"`` (section 4.1) or
            ``"random"``, another subset each time (the authors' code).
        normalize_after: apply `perturbation.authors_normalize` to both clouds after the noise.
    """

    perturbation: Perturbation = Perturbation()
    augment: str = "none"
    subsample: str = "fps"
    num_points: int = 1024
    normalize_after: bool = False

    def __post_init__(self) -> None:
        if self.augment not in ("none", "scale_shift"):
            raise ValueError(f"augment is {self.augment!r}, wanted 'none' or 'scale_shift'")
        if self.subsample not in ("fps", "random"):
            raise ValueError(f"subsample is {self.subsample!r}, wanted 'fps' or 'random'")


class Pretext(nn.Module):
    """The pretext task: corrupt clean clouds and ask a model to restore them.

    Args:
        model: an autoencoder with ``losses(perturbed, clean, touched) -> dict``.
        corruption: how a pair (perturbed, clean) is made.
    """

    def __init__(self, model: nn.Module, corruption: Corruption) -> None:
        super().__init__()
        self.model = model
        self.corruption = corruption

    def corrupt(self, points: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Clean clouds ``(B, M, 3)`` to perturbed, clean ``(B, N, 3)`` and touched ``(B, N)``."""
        expect(points, "B M 3")
        c = self.corruption
        if c.augment == "scale_shift":
            points = scale_and_shift(points, generator)
        if points.shape[1] > c.num_points:
            if c.subsample == "fps":
                index = farthest_point_sample(points, c.num_points)  # (B, N)
            else:
                order = torch.rand(points.shape[:2], generator=generator, device=points.device)
                index = order.argsort(dim=1, stable=True)[:, : c.num_points]  # (B, N)
            points = gather(points, index)  # (B, N, 3)
        perturbed, touched, _ = c.perturbation(points, generator)
        if c.normalize_after:
            perturbed, points = authors_normalize(perturbed), authors_normalize(points)
        return perturbed, points, touched

    def forward(
        self, points: Tensor, generator: torch.Generator, share: slice = slice(None)
    ) -> dict[str, Tensor]:
        """The losses of a batch of clean clouds; ``"total"`` is what is minimised.

        Args:
            share: the clouds of this process, where many share a batch. All of them corrupt all of
                it, so that what is drawn does not depend on how many they are.
        """
        perturbed, clean, touched = (part[share] for part in self.corrupt(points, generator))
        return self.model.losses(perturbed, clean, touched)
