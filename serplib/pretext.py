"""The pretext task: a clean cloud becomes a question and its answer (paper, sections 3.1, 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serplib.expect import expect
from serplib.geometry import farthest_point_sample, gather
from serplib.perturb import authors_normalize, scale_and_shift
from serplib.presets import Corruption


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
